//! Random runs from a seed.

use std::collections::HashMap;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::case::{Case, Maker, Terms};
use crate::op::{Flag, Op, Path, Step, TARGETS, Time, Value};
use crate::side::SLOTS;
use crate::who::GROUP;

/// What the steps of a run may contain.
#[derive(Debug, Clone, Copy)]
struct Taste {
    /// Ordinary users act, too. Then no set-id bits: with passthrough they may go sooner than elsewhere.
    users: bool,
    links: bool,
    maps: bool,
    /// Char 0:0 through the mount.
    whiteouts: bool,
    /// Files are opened and used.
    data: bool,
}

/// The mark of a directory that was moved.
const REDIRECT: &str = "trusted.overlay.redirect";

/// The names of the first levels are mostly directories, by what steps make of them.
pub const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// The run of this seed, `length` steps long, with the options `only` if there are any.
pub fn case(seed: u64, length: usize, only: Option<Terms>) -> Case {
    let mut random = StdRng::seed_from_u64(seed);
    let random = &mut random;
    let terms = match random.random_range(0..22_usize) {
        0..=4 => Terms::Default,
        5..=8 => Terms::Metacopy,
        number => Terms::ALL[number - 7],
    };
    let terms = only.unwrap_or(terms);
    let count = random.random_range(1..=5);
    let mut layers = Vec::new();
    for number in 0..count {
        let maker = [Maker::Hand, Maker::Kernel, Maker::Strata][random.random_range(0..3)];
        let top = number + 1 == count;
        // Names of a file in two layers are two files after the lower one was copied up without the other's index.
        let links = top && terms.links();
        layers.push((maker, layer(random, maker, number == 0, links)));
    }
    let taste = Taste {
        users: random.random_bool(0.5),
        links: true,
        // A page that there is no room for is a signal.
        maps: terms != Terms::Full && random.random_bool(0.4),
        // A device holds no mark in `user.overlay.*`.
        whiteouts: random.random_bool(0.1) && terms != Terms::Userxattr,
        data: random.random_bool(0.8),
    };
    let mut steps = Vec::new();
    for number in 0..length {
        let step = step(random, taste, number);
        steps.push(match number {
            _ if random.random_bool(0.02) => crate::op::root(Op::Look),
            _ if random.random_bool(0.01) => crate::op::root(Op::Remount),
            _ if terms == Terms::Full && random.random_bool(0.05) => {
                crate::op::root(Op::ReadOnly(random.random_bool(0.5)))
            }
            _ => step,
        });
    }
    Case { terms, layers, steps }
}

/// What makes one layer. The lowest has more.
fn layer(random: &mut StdRng, maker: Maker, lowest: bool, links: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let root = |op| Step { uid: 0, umask: 0, op };
    let made = if lowest { 40 } else { 15 };
    for number in 0..made {
        let at = path(random);
        match random.random_range(0..10) {
            0..=4 => steps.push(root(Op::Mkdir(at, dir_mode(random)))),
            5..=7 => {
                steps.push(root(Op::Open(0, at, libc::O_WRONLY | libc::O_CREAT, file_mode(random))));
                steps.push(root(Op::Write(0, number as u8, length(random))));
                steps.push(root(Op::Close(0)));
            }
            8 => steps.push(root(Op::Symlink(target(random), at))),
            _ => steps.push(root(special(random, at, false))),
        }
        if maker == Maker::Hand && !lowest && random.random_bool(0.4) {
            let mark = if random.random_bool(0.5) { Op::Whiteout } else { Op::Opaque };
            steps.push(root(mark(path(random))));
        }
    }
    if lowest {
        // Something is where most steps ask for it.
        let dirs = ["a", "b", "c", "d", "a/a", "a/b", "b/a", "c/d"].map(|path| Op::Mkdir(path, 0o777));
        steps.splice(0..0, dirs.map(root));
    }
    let taste = Taste { users: false, links, maps: false, whiteouts: false, data: true };
    let changes = if maker == Maker::Hand { 10 } else { 60 };
    for number in 0..changes {
        steps.push(step(random, taste, number));
    }
    // In a layer that is made by hand it is a mark: two directories would show the same files, which no plain directory can.
    let redirects =
        |step: &Step| matches!(step.op, Op::Setxattr(_, REDIRECT, ..) | Op::Fsetxattr(_, REDIRECT, _));
    steps.retain(|step| maker != Maker::Hand || !redirects(step));
    steps
}

fn step(random: &mut StdRng, taste: Taste, number: usize) -> Step {
    let uid = if taste.users { [0, 0, 0, 1000, 1000, 2000][random.random_range(0..6)] } else { 0 };
    let umask = [0o022, 0o022, 0, 0o077, 0o027][random.random_range(0..5)];
    Step { uid, umask, op: op(random, taste, number as u8) }
}

fn op(random: &mut StdRng, taste: Taste, number: u8) -> Op {
    match random.random_range(0..100) {
        0..=39 => names(random, taste),
        40..=59 => metadata(random, taste),
        60..=64 if taste.maps => maps(random, number),
        60..=91 if taste.data => data(random, number),
        92..=95 => streams(random),
        _ => looks(random),
    }
}

fn names(random: &mut StdRng, taste: Taste) -> Op {
    let (a, b) = (path(random), path(random));
    match random.random_range(0..40) {
        0..=4 => Op::Mkdir(a, dir_mode(random)),
        5 | 6 => Op::Rmdir(a),
        7..=12 => Op::Unlink(a),
        13..=22 => Op::Rename(a, b, Flag::Replace),
        23 | 24 => Op::Rename(a, b, Flag::NoReplace),
        25..=27 => Op::Rename(a, b, Flag::Exchange),
        28..=33 if taste.links => Op::Link(a, b),
        34 => Op::Symlink(target(random), a),
        35 => special(random, a, taste.whiteouts),
        36 if taste.whiteouts => Op::Rename(a, b, Flag::Whiteout),
        _ => open(random, a),
    }
}

fn metadata(random: &mut StdRng, taste: Taste) -> Op {
    let at = path(random);
    let set_id = !taste.users && random.random_bool(0.1);
    let mode = if set_id { [0o2775, 0o4755, 0o6711][random.random_range(0..3)] } else { any_mode(random) };
    let (uid, gid) = ([0, 1000, 2000][random.random_range(0..3)], [0, GROUP][random.random_range(0..2)]);
    match random.random_range(0..24) {
        0..=4 => Op::Chmod(at, mode),
        5 | 6 => Op::Chown(at, uid, gid),
        7 => Op::Lchown(at, uid, gid),
        8..=10 => Op::Utimens(at, time(random), time(random)),
        11..=14 => {
            let (name, value) = attribute(random);
            Op::Setxattr(
                at,
                name,
                value,
                [0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE][random.random_range(0..4)],
            )
        }
        15 | 16 => Op::Getxattr(at, attribute(random).0),
        17 => Op::Listxattr(at),
        18 | 19 => Op::Removexattr(at, attribute(random).0),
        20..=22 => Op::Truncate(at, length(random) as i64),
        _ => Op::Readlink(at),
    }
}

fn data(random: &mut StdRng, number: u8) -> Op {
    let (slot, other) = (slot(random), slot(random));
    let (at, len) = (length(random) as i64, length(random));
    match random.random_range(0..48) {
        0..=11 => {
            let at = path(random);
            open(random, at)
        }
        12 | 13 => Op::Close(slot),
        14..=16 => Op::Read(slot, len),
        17..=20 => Op::Write(slot, number, len),
        21..=24 => Op::Pread(slot, at, len),
        25..=28 => Op::Pwrite(slot, at, number, len),
        29 | 30 => {
            let whence = [libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END][random.random_range(0..3)];
            Op::Seek(slot, at * [1, 1, -1][random.random_range(0..3)], whence)
        }
        31 => Op::Holes(slot, at),
        32..=34 => Op::Ftruncate(slot, at),
        35 | 36 => Op::Fallocate(slot, fallocation(random), at, len as i64),
        37 | 38 => Op::CopyRange(slot, at, other, length(random) as i64, len),
        39 => Op::Fsync(slot),
        40..=42 => Op::Fstat(slot),
        43 => Op::Fchmod(slot, any_mode(random)),
        44 => Op::Fchown(
            slot,
            [0, 1000, 2000][random.random_range(0..3)],
            [0, GROUP][random.random_range(0..2)],
        ),
        45 => Op::Futimens(slot, time(random), time(random)),
        46 => {
            let (name, value) = attribute(random);
            Op::Fsetxattr(slot, name, value)
        }
        _ => Op::Fgetxattr(slot, attribute(random).0),
    }
}

fn maps(random: &mut StdRng, number: u8) -> Op {
    let (map, at) = (slot(random), length(random));
    match random.random_range(0..10) {
        0..=2 => Op::Map(map, slot(random), 20_000, random.random_bool(0.8), random.random_bool(0.7)),
        3..=5 => Op::MapGet(map, at, length(random)),
        6 | 7 => Op::MapPut(map, at, number, length(random)),
        8 => Op::MapSync(map),
        _ => Op::Unmap(map),
    }
}

fn streams(random: &mut StdRng) -> Op {
    let slot = slot(random);
    match random.random_range(0..10) {
        0..=2 => Op::OpenDir(slot, path(random)),
        3..=5 => Op::NextDir(slot, random.random_range(1..4)),
        6 => Op::MarkDir(slot),
        7 => Op::BackDir(slot),
        8 => Op::Rewind(slot),
        _ => Op::CloseDir(slot),
    }
}

fn looks(random: &mut StdRng) -> Op {
    let at = path(random);
    match random.random_range(0..6) {
        0 => Op::StatFollow(at),
        1 | 2 => Op::List(at),
        3 => Op::Listxattr(at),
        _ => Op::Stat(at),
    }
}

fn open(random: &mut StdRng, at: Path) -> Op {
    let mut flags = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR][random.random_range(0..4)];
    for (flag, chance) in [
        (libc::O_CREAT, 0.5),
        (libc::O_EXCL, 0.1),
        (libc::O_TRUNC, 0.2),
        (libc::O_APPEND, 0.2),
        (libc::O_NOFOLLOW, 0.1),
        (libc::O_DIRECTORY, 0.05),
    ] {
        flags |= if random.random_bool(chance) { flag } else { 0 };
    }
    Op::Open(slot(random), at, flags, file_mode(random))
}

fn special(random: &mut StdRng, at: Path, whiteouts: bool) -> Op {
    let mode = file_mode(random);
    match random.random_range(0..4) {
        0 => Op::Mknod(at, libc::S_IFIFO | mode, 0, 0),
        1 => Op::Mknod(at, libc::S_IFSOCK | mode, 0, 0),
        2 if whiteouts => Op::Mknod(at, libc::S_IFCHR | mode, 0, 0),
        // The null device: it can be opened.
        2 => Op::Mknod(at, libc::S_IFCHR | mode, 1, 3),
        _ => Op::Mknod(at, libc::S_IFREG | mode, 0, 0),
    }
}

/// A path of one to three names.
fn path(random: &mut StdRng) -> Path {
    let depth = [1, 1, 2, 2, 2, 3][random.random_range(0..6)];
    let name =
        |random: &mut StdRng, last: bool| NAMES[random.random_range(0..if last { NAMES.len() } else { 4 })];
    let path = (1..=depth).map(|level| name(random, level == depth)).collect::<Vec<_>>().join("/");
    keep(path)
}

fn target(random: &mut StdRng) -> Path {
    TARGETS[random.random_range(0..TARGETS.len())]
}

/// One copy of each path for the whole run of the program.
fn keep(path: String) -> Path {
    static KEPT: Mutex<Option<HashMap<String, Path>>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap();
    kept.get_or_insert_default()
        .entry(path)
        .or_insert_with_key(|path| Box::leak(path.clone().into_boxed_str()))
}

fn slot(random: &mut StdRng) -> usize {
    random.random_range(0..SLOTS)
}

/// Offsets and lengths around pages and blocks.
fn length(random: &mut StdRng) -> usize {
    match random.random_range(0..8) {
        0 => 0,
        1 => 1,
        2 => 4096,
        3 => 8192,
        4 => random.random_range(4000..4200),
        5 => random.random_range(0..16_000),
        _ => random.random_range(0..300),
    }
}

fn dir_mode(random: &mut StdRng) -> u32 {
    [0o777, 0o777, 0o755, 0o700, 0o1777, 0o555][random.random_range(0..6)]
}

fn file_mode(random: &mut StdRng) -> u32 {
    [0o666, 0o666, 0o644, 0o600, 0o777, 0o444][random.random_range(0..6)]
}

fn any_mode(random: &mut StdRng) -> u32 {
    [0o777, 0o777, 0o666, 0o755, 0o700, 0o640, 0o1777, 0o000, 0o444][random.random_range(0..9)]
}

fn time(random: &mut StdRng) -> Time {
    match random.random_range(0..6) {
        0 => Time::Now,
        1 => Time::Omit,
        _ => Time::To(random.random_range(-1000..1_500_000_000), random.random_range(0..1_000_000_000)),
    }
}

/// Modes of fallocate(2) that FUSE carries.
fn fallocation(random: &mut StdRng) -> i32 {
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    let modes = [
        0,
        keep,
        keep | libc::FALLOC_FL_PUNCH_HOLE,
        libc::FALLOC_FL_ZERO_RANGE,
        keep | libc::FALLOC_FL_ZERO_RANGE,
    ];
    modes[random.random_range(0..modes.len())]
}

fn attribute(random: &mut StdRng) -> (&'static str, Value) {
    let text = ["", "one", "another value"][random.random_range(0..3)];
    match random.random_range(0..14) {
        0..=3 => ("user.x", Value::Text(text)),
        4 | 5 => ("user.y", Value::Text(text)),
        6 => ("trusted.x", Value::Text(text)),
        // Names of the layers' own marks are the callers' on the mount, and kept under others.
        7 => ("trusted.overlay.opaque", Value::Text("y")),
        8 => (REDIRECT, Value::Text("/a")),
        9 => ("user.overlay.whiteout", Value::Text("y")),
        10 | 11 => ("system.posix_acl_access", Value::Acl(random.random_range(0..8))),
        12 => ("system.posix_acl_default", Value::Acl(random.random_range(0..8))),
        _ => ("security.capability", Value::Capability),
    }
}
