//! Which of a directory's lower layers say anything about a name. Lower layers do not change, so what was learnt by one
//! listing holds as long as the directory is known, and a layer that does not have a name is not asked for it.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, LazyLock};

use super::real_dir::RealDir;

/// Names are told apart by a hash that nobody outside can foresee. Two names with one hash share their layers: one that
/// does not have the name says so when it is asked.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A position among the lower layers takes the low bits, the hash of the name the others.
const POSITION: u64 = 0xffff;

/// The names of a directory's lower layers.
#[derive(Debug, Default)]
pub struct LowerNames {
    /// One word for each name in each layer, in order.
    said: Box<[u64]>,
}

/// Hears the names of one layer after the other.
#[derive(Debug, Default)]
pub struct Learning(Vec<u64>);

fn hash(name: &OsStr) -> u64 {
    HASHER.hash_one(name.as_bytes()) & !POSITION
}

impl Learning {
    /// Notes that the lower layer at `position` says something about `name`: has it, or hides it.
    pub fn add(&mut self, position: u16, name: &OsStr) {
        self.0.push(hash(name) | u64::from(position));
    }

    /// All that was heard.
    pub fn finish(mut self) -> LowerNames {
        self.0.sort_unstable();
        self.0.dedup();
        LowerNames { said: self.0.into() }
    }
}

impl LowerNames {
    /// The position of the first lower layer, from `position` on, that may say anything about `name`; nothing if none does.
    pub fn next(&self, position: usize, name: &OsStr) -> Option<usize> {
        let hash = hash(name);
        let wanted = hash | u64::try_from(position).ok().filter(|&position| position <= POSITION)?;
        let found = *self.said.get(self.said.partition_point(|&said| said < wanted))?;
        (found & !POSITION == hash).then_some((found & POSITION) as usize)
    }
}

/// The directories that make up a merged one, and what is known of their names.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// In the upper layer.
    pub upper: Option<&'a Arc<RealDir>>,
    /// In lower layers, topmost first.
    pub lowers: &'a [Arc<RealDir>],
    /// What the lower layers have.
    pub names: Option<&'a LowerNames>,
}

/// Goes through the parts from the top down.
#[derive(Debug)]
pub struct Walk<'a> {
    parts: Parts<'a>,
    /// The next lower part.
    position: usize,
    upper_done: bool,
}

impl<'a> Parts<'a> {
    /// The lower parts alone.
    pub fn below(self) -> Parts<'a> {
        Parts { upper: None, ..self }
    }

    /// From the top down.
    pub fn walk(self) -> Walk<'a> {
        Walk { parts: self, position: 0, upper_done: false }
    }
}

impl<'a> Walk<'a> {
    /// The next part that may say something about `name`, and whether it is the last.
    pub fn next(&mut self, name: &OsStr) -> Option<(&'a Arc<RealDir>, bool)> {
        if !std::mem::replace(&mut self.upper_done, true) {
            if let Some(upper) = self.parts.upper {
                return Some((upper, self.parts.lowers.is_empty()));
            }
        }
        if let Some(names) = self.parts.names {
            self.position = names.next(self.position, name)?;
        }
        let dir = self.parts.lowers.get(self.position)?;
        self.position += 1;
        Some((dir, self.position == self.parts.lowers.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_say_something_are_found_from_the_top_down() {
        let mut heard = Learning::default();
        for (position, name) in [(1, "a"), (3, "b"), (4, "a"), (4, "a")] {
            heard.add(position, OsStr::new(name));
        }
        let names = heard.finish();
        let all = |name: &str| {
            let next = |&at: &usize| names.next(at + 1, OsStr::new(name));
            std::iter::successors(names.next(0, OsStr::new(name)), next).collect::<Vec<_>>()
        };
        assert_eq!(all("a"), [1, 4]);
        assert_eq!(all("b"), [3]);
        assert_eq!(all("c"), [] as [usize; 0]);
        assert_eq!(names.next(usize::MAX, OsStr::new("a")), None);
    }
}
