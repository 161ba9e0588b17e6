//! Changes of a tree as values: scripted, or random from a seed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::RenameFlags;
use nix::sys::stat::SFlag;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sys;

/// One change. Paths are relative to the root of the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Create(String, String),
    Write(String, u64, String),
    Append(String, String),
    Truncate(String, u64),
    Mkdir(String),
    Rename(String, String),
    Exchange(String, String),
    Unlink(String),
    Rmdir(String),
    /// Everything under the path and the path itself.
    RemoveAll(String),
    Link(String, String),
    Symlink(String, String),
    Fifo(String),
    Device(String),
    Chmod(String, u32),
    Chown(String, u32),
    Mtime(String, i64),
    SetXattr(String, String, String),
    RemoveXattr(String, String),
}

/// Carries out one change under `root`.
pub fn apply(root: &Path, op: &Op) -> Result<(), Errno> {
    let at = |path: &String| root.join(path);
    let io = |result: io::Result<()>| {
        result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    };
    match op {
        Op::Create(path, content) => io(fs::File::options()
            .write(true)
            .create_new(true)
            .open(at(path))
            .and_then(|mut file| file.write_all(content.as_bytes()))),
        Op::Write(path, offset, data) => {
            io(open(&at(path), false).and_then(|file| file.write_all_at(data.as_bytes(), *offset)))
        }
        Op::Append(path, data) => {
            io(open(&at(path), true).and_then(|mut file| file.write_all(data.as_bytes())))
        }
        Op::Truncate(path, size) => nix::unistd::truncate(&at(path), *size as i64),
        Op::Mkdir(path) => io(fs::create_dir(at(path))),
        Op::Rename(from, to) => io(fs::rename(at(from), at(to))),
        Op::Exchange(one, other) => sys::rename(&at(one), &at(other), RenameFlags::RENAME_EXCHANGE),
        Op::Unlink(path) => io(fs::remove_file(at(path))),
        Op::Rmdir(path) => io(fs::remove_dir(at(path))),
        Op::RemoveAll(path) => io(fs::remove_dir_all(at(path))),
        Op::Link(from, to) => io(fs::hard_link(at(from), at(to))),
        Op::Symlink(target, path) => io(std::os::unix::fs::symlink(target, at(path))),
        Op::Fifo(path) => sys::mknod(&at(path), SFlag::S_IFIFO, 0o644, 0, 0),
        Op::Device(path) => sys::mknod(&at(path), SFlag::S_IFCHR, 0o600, 5, 7),
        Op::Chmod(path, mode) => io(fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))),
        Op::Chown(path, id) => io(std::os::unix::fs::lchown(at(path), Some(*id), Some(*id + 1))),
        Op::Mtime(path, time) => sys::set_mtime(&at(path), *time),
        Op::SetXattr(path, name, value) => sys::set_xattr(&at(path), name, value.as_bytes()),
        Op::RemoveXattr(path, name) => sys::remove_xattr(&at(path), name),
    }
}

/// Opens to write, without waiting for a reader where the path is a fifo.
fn open(path: &Path, append: bool) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::File::options().write(true).append(append).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Carries out all changes and tells each one's outcome. Failing is allowed: a random path often leads nowhere.
pub fn apply_all(root: &Path, ops: &[Op]) -> Vec<(Op, Result<(), Errno>)> {
    ops.iter().map(|op| (op.clone(), apply(root, op))).collect()
}

/// The seed of random changes: from `STRATAFS_SEED`, else from the clock. It is printed.
pub fn seed() -> u64 {
    let given = std::env::var("STRATAFS_SEED").ok().map(|text| text.parse().unwrap());
    let seed = given.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    eprintln!("STRATAFS_SEED={seed}");
    seed
}

/// `count` changes that follow from the seed.
pub fn random(seed: u64, count: usize) -> Vec<Op> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|number| one(&mut random, number)).collect()
}

/// A path of one to three names; the first ones are mostly directories in the lowers of `lowers`.
fn path(random: &mut StdRng) -> String {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let depth = [1, 1, 2, 2, 2, 3][random.random_range(0..6)];
    let name = |random: &mut StdRng, last: bool| {
        names[random.random_range(if last { 0..names.len() } else { 0..4 })]
    };
    (1..=depth).map(|level| name(random, level == depth)).collect::<Vec<_>>().join("/")
}

/// One change, each kind about as often as it is interesting.
fn one(random: &mut StdRng, number: usize) -> Op {
    let (a, b) = (path(random), path(random));
    let xattr = format!("user.x{}", random.random_range(0..2));
    match random.random_range(0..40) {
        0..=3 => Op::Create(a, format!("created by {number}")),
        4 | 5 => Op::Write(a, random.random_range(0..20), format!("<{number}>")),
        6 | 7 => Op::Append(a, format!("+{number}")),
        8 => Op::Truncate(a, random.random_range(0..6000)),
        9..=12 => Op::Mkdir(a),
        13..=18 => Op::Rename(a, b),
        19 | 20 => Op::Exchange(a, b),
        21..=24 => Op::Unlink(a),
        25 => Op::Rmdir(a),
        26 | 27 => Op::RemoveAll(a),
        28..=30 => Op::Link(a, b),
        31 => Op::Symlink(b, a),
        32 => Op::Fifo(a),
        33 => Op::Device(a),
        34 | 35 => Op::Chmod(a, 0o700 | random.random_range(0..0o100)),
        36 => Op::Chown(a, random.random_range(0..5)),
        37 => Op::Mtime(a, 1_200_000_000 + number as i64),
        38 => Op::SetXattr(a, xattr, number.to_string()),
        _ => Op::RemoveXattr(a, xattr),
    }
}

/// Changes that meet every mark at least once, on the layers of `interchange::lowers`.
pub fn scripted() -> Vec<Op> {
    let s = str::to_owned;
    vec![
        // Copy-up in every way.
        Op::Append(s("a/file"), s(" appended")),
        Op::Write(s("a/big"), 5000, s("written")),
        Op::Truncate(s("a/long"), 3),
        Op::Chmod(s("b/file"), 0o751),
        Op::Chown(s("b/link"), 3),
        Op::Chown(s("b/fifo"), 3),
        Op::SetXattr(s("b/c"), s("user.x0"), s("on a directory")),
        Op::Mtime(s("b/file"), 1_300_000_000),
        Op::RemoveXattr(s("a/file"), s("user.lower")),
        // Hard links of a lower layer, of an upper, and of both.
        Op::Append(s("h/one"), s(" through one")),
        Op::Link(s("h/two"), s("h/four")),
        Op::Unlink(s("h/three")),
        Op::Link(s("a/file"), s("a/file2")),
        Op::Unlink(s("h/alone1")),
        Op::Chmod(s("h/pair1"), 0o600),
        // Removal and what comes after it.
        Op::Unlink(s("c/a")),
        Op::Create(s("c/a"), s("over a whiteout")),
        Op::Unlink(s("c/b")),
        Op::Mkdir(s("c/b")),
        Op::Create(s("c/b/new"), s("in an opaque one")),
        Op::RemoveAll(s("d/a")),
        Op::Mkdir(s("d/a")),
        Op::RemoveAll(s("d/b")),
        Op::Symlink(s("nowhere"), s("d/b")),
        Op::Mkdir(s("c/hidden")),
        Op::Create(s("c/hidden/x"), s("x")),
        // Directories that move: lower, merged, within moved ones, and back.
        Op::Rename(s("m/one"), s("m/uno")),
        Op::Create(s("m/two/new"), s("new")),
        Op::Rename(s("m/two"), s("n/two")),
        Op::Rename(s("m/uno/inner"), s("m/uno/inner2")),
        Op::Rename(s("m/uno/inner2"), s("n/inner")),
        Op::Append(s("n/two/file"), s(" after the move")),
        Op::Unlink(s("n/two/gone")),
        Op::Rename(s("m/there"), s("m/else")),
        Op::Rename(s("m/else"), s("m/there")),
        Op::Mkdir(s("m/one")),
        Op::Create(s("m/one/x"), s("in the place of a moved one")),
        Op::Rename(s("m"), s("moved")),
        Op::Rename(s("moved/deep/er"), s("er")),
        // Files that move.
        Op::Rename(s("e/file"), s("e/renamed")),
        Op::Rename(s("e/over"), s("e/target")),
        Op::Rename(s("e/link"), s("a/link")),
        Op::Exchange(s("e/x"), s("e/y")),
        Op::Exchange(s("e/x"), s("e/dir")),
        Op::Exchange(s("f/one"), s("f/two")),
        Op::Fifo(s("new_fifo")),
        Op::Device(s("new_device")),
        Op::Symlink(s("a/file"), s("new_link")),
    ]
}
