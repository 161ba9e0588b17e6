//! All names of one directory over its layers. A name is shown if the topmost layer that says anything about it
//! has an object there; so a listing agrees with `resolve` without asking it per name.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{LayerId, mark};

/// One entry as a layer's directory gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    /// The name in the layer.
    pub name: &'a OsStr,
    /// The layer's inode number.
    pub ino: u64,
    /// What it is.
    pub kind: RawKind,
}

/// What a layer's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawKind {
    /// A whiteout that is an object of its own name: char 0:0, or a marked empty file.
    Whiteout,
    /// An object of this type.
    Object(FileKind),
}

/// The type of an object, as in `S_IFMT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `S_IFREG`
    Regular,
    /// `S_IFDIR`
    Dir,
    /// `S_IFLNK`
    Symlink,
    /// `S_IFCHR`
    Char,
    /// `S_IFBLK`
    Block,
    /// `S_IFIFO`
    Fifo,
    /// `S_IFSOCK`
    Socket,
}

/// One name that the directory shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The name.
    pub name: Box<OsStr>,
    /// The topmost layer that has it.
    pub layer: LayerId,
    /// The inode number in that layer.
    pub ino: u64,
    /// Its type.
    pub kind: FileKind,
}

/// Merges the listings of a directory's layers, topmost first.
#[derive(Debug, Default)]
pub struct Merger {
    /// True: hidden or already shown.
    decided: HashMap<Box<OsStr>, ()>,
    shown: Vec<Shown>,
    whiteout_files: bool,
}

impl Merger {
    /// Hears the entries of the next layer down. Returns whether that layer's directory has `.wh.` files.
    pub fn feed<'a>(&mut self, layer: LayerId, last: bool, entries: impl Iterator<Item = Raw<'a>>) -> bool {
        let first = self.decided.is_empty() && self.shown.is_empty();
        let mut hidden: Vec<Box<OsStr>> = Vec::new();
        let mut whiteout_files = false;
        for raw in entries {
            let bytes = raw.name.as_bytes();
            if mark::is_reserved(bytes) {
                whiteout_files = true;
                // A file of the same layer wins over `.wh.` of its name: it hides the layers below only.
                hidden.extend(mark::hidden_by(bytes).map(|name| Box::from(OsStr::from_bytes(name))));
                continue;
            }
            // The only layer of a directory needs no memory of what it has shown.
            if !(first && last) {
                if self.decided.contains_key(raw.name) {
                    continue;
                }
                self.decided.insert(raw.name.into(), ());
            }
            if let RawKind::Object(kind) = raw.kind {
                self.shown.push(Shown { name: raw.name.into(), layer, ino: raw.ino, kind });
            }
        }
        for name in hidden {
            self.decided.insert(name, ());
        }
        self.whiteout_files |= whiteout_files;
        whiteout_files
    }

    /// The names shown, in the order in which they were heard.
    pub fn finish(self) -> Vec<Shown> {
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(layers: &[&[(&str, RawKind)]]) -> Vec<String> {
        let mut merger = Merger::default();
        for (i, entries) in layers.iter().enumerate() {
            let raws =
                entries.iter().map(|(name, kind)| Raw { name: OsStr::new(*name), ino: 7, kind: *kind });
            merger.feed(LayerId(i as u16), i + 1 == layers.len(), raws);
        }
        let mut names: Vec<String> =
            merger.finish().iter().map(|s| format!("{}{}", s.name.to_string_lossy(), s.layer.0)).collect();
        names.sort();
        names
    }

    const FILE: RawKind = RawKind::Object(FileKind::Regular);
    const DIR: RawKind = RawKind::Object(FileKind::Dir);
    const GONE: RawKind = RawKind::Whiteout;

    #[test]
    fn the_topmost_layer_decides_each_name() {
        assert_eq!(
            merge(&[&[("a", FILE), ("b", GONE)], &[("a", DIR), ("b", FILE), ("c", FILE)]]),
            ["a0", "c1"]
        );
        assert_eq!(merge(&[&[("b", FILE)], &[("b", GONE)], &[("b", FILE)]]), ["b0"]);
        assert_eq!(merge(&[&[], &[("b", GONE)], &[("b", FILE)]]), [] as [&str; 0]);
        assert_eq!(merge(&[&[("w", GONE), ("f", FILE)]]), ["f0"]);
    }

    #[test]
    fn a_whiteout_file_hides_only_the_layers_below_its_own() {
        assert_eq!(merge(&[&[(".wh.a", FILE), ("b", FILE)], &[("a", FILE), ("b", FILE)]]), ["b0"]);
        assert_eq!(merge(&[&[(".wh.a", FILE), ("a", FILE)], &[("a", FILE)]]), ["a0"]);
        assert_eq!(merge(&[&[("a", FILE), (".wh.a", FILE)], &[("a", FILE)]]), ["a0"]);
        assert_eq!(merge(&[&[(".wh..wh..opq", FILE), (".wh.", FILE)]]), [] as [&str; 0]);
    }
}
