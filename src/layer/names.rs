//! Which of a directory's lower layers say anything about a name. Lower layers do not change, so what was learnt by one
//! listing holds as long as the directory is known, and a layer that does not have a name is not asked for it.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, LazyLock};

use super::real_dir::RealDir;
use crate::merge::LayerId;
use crate::merge::listing::RawKind;
use crate::merge::mark;

/// Names are told apart by a hash that nobody outside can foresee. Two names with one hash share their layers: one that
/// does not have the name says so when it is asked.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Directories with parts in more layers are not asked layer by layer.
pub const MANY_LAYERS: usize = 16;

/// A position among the lower layers takes the low bits, the hash of the name the others.
const POSITION: u64 = 0xffff;

/// The names of a directory's lower layers.
#[derive(Debug, Default)]
pub struct LowerNames {
    /// One word for each name in each layer, in order.
    said: Box<[u64]>,
}

/// A name in one layer's directory, its number there and what it is.
pub type RawName = (Box<OsStr>, u64, RawKind);

/// The names of one layer's directory, as far as they must be told apart.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    hashes: Vec<u64>,
    /// The names themselves, for who lists the directory; nothing if an object must be asked what it is.
    pub names: Option<Vec<RawName>>,
    /// Some of them are `.wh.` files.
    pub whiteout_files: bool,
    /// One of them is the file that makes a directory opaque.
    pub opaque_file: bool,
}

/// Hears the names of one layer after the other.
#[derive(Debug, Default)]
pub struct Learning(Vec<u64>);

fn hash(name: &OsStr) -> u64 {
    HASHER.hash_one(name.as_bytes()) & !POSITION
}

impl Listed {
    /// Nothing yet, and the names are to be kept.
    pub fn with_names() -> Listed {
        Listed { names: Some(Vec::new()), ..Listed::default() }
    }

    /// Notes that the directory has `name`; in a `.wh.` file it says something about another name, too.
    pub fn add(&mut self, name: &OsStr) {
        self.hashes.push(hash(name));
        let bytes = name.as_bytes();
        if mark::is_reserved(bytes) {
            self.whiteout_files = true;
            self.opaque_file |= bytes == mark::OPAQUE_FILE.to_bytes();
            self.hashes.extend(mark::hidden_by(bytes).map(|hidden| hash(OsStr::from_bytes(hidden))));
        }
    }

    /// How much has been heard.
    pub fn words(&self) -> usize {
        self.hashes.len()
    }
}

impl Learning {
    /// Notes what the lower layer at `position` says something about: what it has, and what it hides.
    pub fn add(&mut self, position: u16, listed: &Listed) {
        self.0.extend(listed.hashes.iter().map(|hash| hash | u64::from(position)));
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

    /// In how many lower layers something is said about `name`.
    pub fn layers_with(&self, name: &OsStr) -> usize {
        let hash = hash(name);
        let first = self.said.partition_point(|&said| said < hash);
        self.said.partition_point(|&said| said <= hash | POSITION) - first
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

    /// The layer of the lowest part.
    pub fn deepest(self) -> Option<LayerId> {
        self.lowers.last().or(self.upper).map(|dir| dir.layer())
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
        for (position, name) in [(1, "a"), (3, "b"), (4, "a"), (4, "a"), (6, ".wh.b")] {
            let mut listed = Listed::default();
            listed.add(OsStr::new(name));
            heard.add(position, &listed);
        }
        let names = heard.finish();
        let all = |name: &str| {
            let next = |&at: &usize| names.next(at + 1, OsStr::new(name));
            std::iter::successors(names.next(0, OsStr::new(name)), next).collect::<Vec<_>>()
        };
        assert_eq!(all("a"), [1, 4]);
        assert_eq!(all("b"), [3, 6]);
        assert_eq!(all("c"), [] as [usize; 0]);
        assert_eq!(names.next(usize::MAX, OsStr::new("a")), None);
        assert_eq!(["a", "b", "c"].map(|name| names.layers_with(OsStr::new(name))), [2, 2, 0]);
    }
}
