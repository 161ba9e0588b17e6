//! Which of a directory's lower layers first says anything about a name. Lower layers do not change, so what was learnt by
//! one listing holds as long as the directory is known, and a name that no layer has costs no system call.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, LazyLock};

use super::real_dir::RealDir;

/// Names are told apart by a hash that nobody outside can foresee. Two names with one hash share the higher layer: the
/// one below is found all the same, by asking.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The names of a directory's lower layers.
#[derive(Debug, Default)]
pub struct LowerNames {
    first: HashMap<u64, u16, BuildHasherDefault<AsItIs>>,
}

/// A hash is its own hash.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

fn hash(name: &OsStr) -> u64 {
    HASHER.hash_one(name.as_bytes())
}

impl LowerNames {
    /// Notes that the lower layer at `position` says something about `name`: has it, or hides it. Heard topmost first.
    pub fn add(&mut self, position: usize, name: &OsStr) {
        self.first.entry(hash(name)).or_insert(u16::try_from(position).unwrap_or(0));
    }

    /// The position of the first lower layer that may say anything about `name`; nothing if none does.
    pub fn first(&self, name: &OsStr) -> Option<usize> {
        self.first.get(&hash(name)).map(|&position| usize::from(position))
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
            self.position = self.position.max(names.first(name)?);
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
    fn the_first_layer_that_says_something_counts() {
        let mut names = LowerNames::default();
        names.add(1, OsStr::new("a"));
        names.add(3, OsStr::new("b"));
        names.add(4, OsStr::new("a"));
        assert_eq!(names.first(OsStr::new("a")), Some(1));
        assert_eq!(names.first(OsStr::new("b")), Some(3));
        assert_eq!(names.first(OsStr::new("c")), None);
    }
}
