//! The names of one directory, merged once and kept while it is in use. Each name has an offset that it keeps, so that
//! a reader who continues neither misses nor repeats one, whatever is made and removed meanwhile.

use std::collections::HashMap;
use std::ffi::OsStr;

use crate::merge::listing::FileKind;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Box<OsStr>,
    /// What `stat` would show as its number.
    pub st_ino: u64,
    /// Its type.
    pub kind: FileKind,
}

/// The names of one directory.
#[derive(Debug, Default)]
pub struct Listing {
    entries: Vec<Option<Entry>>,
    positions: HashMap<Box<OsStr>, usize>,
}

impl Listing {
    /// Starts with these names.
    pub fn new(entries: Vec<Entry>) -> Listing {
        let positions = entries.iter().enumerate().map(|(i, entry)| (entry.name.clone(), i)).collect();
        Listing { entries: entries.into_iter().map(Some).collect(), positions }
    }

    /// The names from `offset` on, each with the offset behind it.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries[start..]
            .iter()
            .enumerate()
            .filter_map(move |(i, entry)| Some(((start + i + 1) as u64, entry.as_ref()?)))
    }

    /// Adds a name, or says what it is now.
    pub fn insert(&mut self, entry: Entry) {
        match self.positions.get(&entry.name) {
            Some(&at) => self.entries[at] = Some(entry),
            None => {
                self.positions.insert(entry.name.clone(), self.entries.len());
                self.entries.push(Some(entry));
            }
        }
    }

    /// Takes a name away; its offset is not given to another.
    pub fn remove(&mut self, name: &OsStr) {
        if let Some(at) = self.positions.remove(name) {
            self.entries[at] = None;
        }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry { name: OsStr::new(name).into(), st_ino: 1, kind: FileKind::Regular }
    }

    #[test]
    fn a_reader_who_continues_neither_misses_nor_repeats_a_name() {
        let mut listing = Listing::new(["a", "b", "c"].map(entry).to_vec());
        let (after_a, _) = listing.from(0).next().expect("a");
        listing.remove("a".as_ref());
        listing.insert(entry("d"));
        let rest: Vec<_> =
            listing.from(after_a).map(|(_, e)| e.name.to_string_lossy().into_owned()).collect();
        assert_eq!(rest, ["b", "c", "d"]);
        assert_eq!(listing.len(), 3);
        listing.insert(entry("a"));
        assert_eq!(listing.from(after_a).last().map(|(_, e)| e.clone()), Some(entry("a")));
        assert!(listing.from(u64::MAX).next().is_none());
    }
}
