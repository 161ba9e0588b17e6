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
    /// Where names were that are gone: made again, one comes back to its offset, as on a filesystem that sorts names, and a
    /// reader who has not come there yet finds it. Not more of them than names.
    gone: HashMap<Box<OsStr>, usize>,
    /// A name was removed since a reader last began.
    removed: bool,
}

/// So many offsets without a name are not worth new ones for the others.
const FEW: usize = 64;

impl Listing {
    /// Starts with these names.
    pub fn new(entries: Vec<Entry>) -> Listing {
        let positions = entries.iter().enumerate().map(|(i, entry)| (entry.name.clone(), i)).collect();
        let entries = entries.into_iter().map(Some).collect();
        Listing { entries, positions, gone: HashMap::new(), removed: false }
    }

    /// The names from `offset` on, each with the offset behind it.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len());
        let rest = self.entries.get(start..).unwrap_or_default();
        rest.iter().enumerate().filter_map(move |(i, entry)| Some(((start + i + 1) as u64, entry.as_ref()?)))
    }

    /// The offset behind the last name. Names that are added get offsets behind it.
    pub fn end(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Adds a name, or says what it is now.
    pub fn insert(&mut self, entry: Entry) {
        let at = self.positions.get(&entry.name).copied().or_else(|| self.gone.remove(&entry.name));
        let at = at.unwrap_or(self.entries.len());
        self.positions.insert(entry.name.clone(), at);
        match self.entries.get_mut(at) {
            Some(known) => *known = Some(entry),
            None => self.entries.push(Some(entry)),
        }
    }

    /// Takes a name away; its offset is not given to another.
    pub fn remove(&mut self, name: &OsStr) {
        if let Some(at) = self.positions.remove(name) {
            if let Some(known) = self.entries.get_mut(at) {
                *known = None;
            }
            if self.gone.len() > self.positions.len().max(FEW) {
                self.gone.clear();
            }
            self.gone.insert(name.into(), at);
            self.removed = true;
        }
    }

    /// Notes that a reader begins. The only one, whose offsets nobody else has, gets new ones if most have lost their name,
    /// so that a directory which is open for long does not keep what was ever in it. Without a removal since the last
    /// beginning the kernel may hold the first part of a listing as still true, and would go on with the new offsets.
    pub fn begin(&mut self, only_reader: bool) {
        let without_name = self.entries.len() - self.positions.len();
        if self.removed && only_reader && without_name > self.positions.len().max(FEW) {
            *self = Listing::new(self.entries.drain(..).flatten().collect());
        }
        self.removed = false;
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
        // Made again, it is where it was.
        listing.insert(entry("a"));
        assert_eq!(listing.from(0).next().map(|(next, e)| (next, e.clone())), Some((after_a, entry("a"))));
        assert_eq!(listing.from(after_a).count(), 3);
        assert!(listing.from(u64::MAX).next().is_none());
    }

    #[test]
    fn names_that_went_take_no_room_once_the_only_reader_begins_again() {
        let mut listing = Listing::new(["a", "b"].map(entry).to_vec());
        for i in 0..10_000 {
            let name = format!("f{i}");
            listing.insert(entry(&name));
            listing.remove(name.as_ref());
            listing.begin(true);
        }
        assert!(listing.entries.len() <= 2 * FEW + 2, "{}", listing.entries.len());
        let names: Vec<_> = listing.from(0).map(|(_, e)| e.name.to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["a", "b"]);
        listing.insert(entry("c"));
        listing.remove("a".as_ref());
        assert_eq!(listing.from(0).count(), 2);
    }

    #[test]
    fn offsets_stay_while_somebody_else_or_the_kernel_may_have_them() {
        let mut listing = Listing::new((0..200).map(|i| entry(&format!("f{i}"))).collect());
        for i in 0..150 {
            listing.remove(format!("f{i}").as_ref());
        }
        listing.begin(false);
        assert_eq!(listing.from(0).next().map(|(next, _)| next), Some(151));
        listing.begin(true);
        assert_eq!(listing.from(0).next().map(|(next, _)| next), Some(151), "nothing was removed since");
        listing.remove("f150".as_ref());
        listing.begin(true);
        assert_eq!(listing.from(0).next().map(|(next, _)| next), Some(1));
    }
}
