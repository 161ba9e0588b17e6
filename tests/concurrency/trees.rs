//! Directories of the lower layers that move across each other, into each other and under whoever works in them. Each stays the same
//! inode with its own content, and none is lost or doubled.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::common::*;
use crate::worker::{Worker, record, shown, won};

const DIRS: usize = 6;
const LOST: [Errno; 3] = [Errno::ENOENT, Errno::ENOTDIR, Errno::EISDIR];
const LEN: usize = 64;

/// In the lower layers: half of them are in both.
pub fn plant(f: &Fixture) {
    for dir in 0..DIRS {
        let low = f.lower(1).file(format!("trees/{dir}/id"), format!("dir {dir}"));
        let line = |leaf| record(&format!("dir {dir} leaf {leaf}"), LEN);
        (0..4).fold(low, |low, leaf| low.file(format!("trees/{dir}/sub/{leaf}"), line(leaf)));
        if dir % 2 == 0 {
            f.lower(0).file(format!("trees/{dir}/sub/0"), line(0)).dir(format!("trees/{dir}/sub/d0"));
        }
    }
}

/// A place where a directory may be.
fn place(w: &Worker) -> PathBuf {
    let top = w.at(format!("trees/{}", w.pick(DIRS)));
    if w.pick(3) == 0 { top.join(format!("in{}", w.pick(2))) } else { top }
}

pub fn work(w: &Worker) {
    let mut numbers = BTreeMap::new();
    while w.go() {
        let number = w.step();
        let (a, b) = (place(w), place(w));
        let names = [Errno::EEXIST, Errno::ENOTEMPTY, Errno::EINVAL, LOST[0], LOST[1], LOST[2]];
        let leaf = a.join(format!("sub/{}", w.pick(8)));
        let dir = a.join(format!("sub/d{}", w.pick(2)));
        match w.pick(16) {
            0..=2 => drop(won(sys::rename(&a, &b), &names, "rename")),
            3 => drop(won(sys::renameat2(&a, &b, libc::RENAME_EXCHANGE), &names, "exchange")),
            4 => {
                let (one, other) = (a.join("sub"), b.join("sub"));
                won(sys::renameat2(one, other, libc::RENAME_EXCHANGE), &names, "exchange below");
            }
            5 | 6 => write(&leaf, w.id, number),
            7 => read_leaf(&leaf),
            8 => drop(won(sys::unlink(&leaf), &LOST, "unlink")),
            9 => drop(won(sys::rename(&leaf, b.join("sub/4")), &names, "rename of a leaf")),
            10 => drop(won(sys::mkdir(&dir, 0o755), &names, "mkdir")),
            11 => drop(won(sys::rmdir(&dir), &names, "rmdir")),
            12 => drop(won(sys::symlink("id", a.join("sub/soft")), &names, "symlink")),
            13 => walk(&w.at("trees"), 0),
            _ => same_inode(&a, &mut numbers),
        }
    }
}

fn write(leaf: &Path, id: usize, number: u64) {
    let flags = libc::O_WRONLY | libc::O_CREAT | if number % 2 == 0 { libc::O_TRUNC } else { 0 };
    if let Some(file) = won(sys::open(leaf, flags, 0o644), &LOST, "open to write") {
        file.write_all_at(&record(&format!("dir by {id} number {number}"), LEN), 0).unwrap();
    }
}

fn read_leaf(leaf: &Path) {
    let Some(file) = won(sys::open(leaf, libc::O_RDONLY, 0), &LOST, "open to read") else { return };
    let data = through(&file);
    // The kernel's FUSE client may show zeros up to the old size while it is about to hear of a truncation.
    let whole = data.len() <= LEN && (data.iter().all(|byte| *byte == 0) || data.starts_with(b"dir "));
    assert!(whole, "{}: {} bytes: {}", leaf.display(), data.len(), shown(&data));
}

/// All that is below, as far as it stays where it is.
fn walk(dir: &Path, depth: usize) {
    assert!(depth < 40, "{}: no end", dir.display());
    let Some(list) = won(Dir::open(dir), &LOST, "opendir").map(|mut dir| dir.rest()) else { return };
    for entry in &list {
        if entry.kind == libc::DT_DIR && entry.name != "." && entry.name != ".." {
            walk(&dir.join(&entry.name), depth + 1);
        }
    }
}

/// A directory that has this `id` has always the same number.
fn same_inode(dir: &Path, numbers: &mut BTreeMap<String, u64>) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let Some(open) = won(sys::open(dir, flags, 0), &LOST, "open of a directory") else { return };
    // By the descriptor, whatever its name is by now.
    let at = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    let id = fs::read_to_string(at.join("id")).unwrap_or_else(|error| panic!("id of an open one: {error}"));
    assert!(id.starts_with("dir "), "{id}");
    let ino = open.metadata().unwrap().ino();
    assert_eq!(*numbers.entry(id.clone()).or_insert(ino), ino, "the number of {id}");
    won(no(fs::metadata(at.join("sub"))), &[Errno::ENOENT], "a name in an open directory");
}

/// At rest: all are there.
pub fn check(f: &Fixture) {
    let mut found = Vec::new();
    for (path, entry) in sum::tree(&f.p("trees")) {
        if path.file_name().is_some_and(|name| name == "id") && entry.size > 0 {
            found.push(text(f.p("trees").join(path)));
        }
    }
    found.sort();
    assert_eq!(
        found,
        (0..DIRS).map(|dir| format!("dir {dir}")).collect::<Vec<_>>(),
        "directories that are there"
    );
}
