//! A tree as a value: everything that may differ between two looks at it, but for access and change times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::sys;

/// One object of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub mode: u32,
    pub owner: (u32, u32),
    pub size: u64,
    pub mtime: (i64, i64),
    pub nlink: u64,
    pub rdev: u64,
    /// Digest of a file's bytes, or the target of a symlink.
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Every object below a root, and the root itself under the empty path.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// Looks at everything below `root`.
pub fn tree(root: &Path) -> Tree {
    let mut out = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(rel) = todo.pop() {
        // A root that is a file takes no slash.
        let path = if rel.as_os_str().is_empty() { root.to_owned() } else { root.join(&rel) };
        let entry = entry(&path);
        if entry.mode & libc::S_IFMT == libc::S_IFDIR {
            let names = std::fs::read_dir(&path).unwrap();
            todo.extend(names.map(|e| rel.join(e.unwrap().file_name())));
        }
        out.insert(rel, entry);
    }
    out
}

fn entry(path: &Path) -> Entry {
    let at = |e| panic!("{}: {e}", path.display());
    let m = path.symlink_metadata().unwrap_or_else(at);
    let kind = m.file_type();
    let content = if kind.is_file() {
        digest(path)
    } else if kind.is_symlink() {
        std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    let names = sys::listxattr(path).unwrap_or_default();
    let xattrs =
        names.into_iter().map(|n| (n.clone(), sys::getxattr(path, &n).unwrap_or_default())).collect();
    let device = kind.is_char_device() || kind.is_block_device();
    Entry {
        mode: m.mode(),
        owner: (m.uid(), m.gid()),
        // The size of a directory is the business of its filesystem.
        size: if kind.is_dir() { 0 } else { m.len() },
        mtime: (m.mtime(), m.mtime_nsec()),
        nlink: m.nlink(),
        rdev: if device { m.rdev() } else { 0 },
        content,
        xattrs,
    }
}

/// Digest of a file's bytes. Looking must not move the access time, where that can be had.
fn digest(path: &Path) -> Vec<u8> {
    let quiet = sys::open(path, libc::O_RDONLY | libc::O_NOATIME, 0);
    let mut file = quiet.or_else(|_| sys::open(path, libc::O_RDONLY, 0)).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Sha256::digest(bytes).to_vec()
}

/// What differs between two looks, one line per object; empty if nothing does.
pub fn diff(before: &Tree, after: &Tree) -> String {
    let mut out = String::new();
    for (path, a) in before {
        match after.get(path) {
            None => writeln!(out, "  gone: {}", path.display()).unwrap(),
            Some(b) if a != b => {
                writeln!(out, "  changed: {}\n    was {a:?}\n    is  {b:?}", path.display()).unwrap()
            }
            Some(_) => {}
        }
    }
    for path in after.keys().filter(|p| !before.contains_key(*p)) {
        writeln!(out, "  new: {}", path.display()).unwrap();
    }
    out
}
