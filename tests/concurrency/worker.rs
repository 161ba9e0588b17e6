//! One process of a load, and what all its threads have in common.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::board::Board;
use crate::common::*;
use crate::{copies, held, links, logs, ping, tokens, trees};

/// A kind of work, and its name.
type Role = (&'static str, fn(&Worker));

/// What each process does, a thread for each.
pub const ROLES: [Role; 7] = [
    ("logs", logs::work),
    ("tokens", tokens::work),
    ("ping", ping::work),
    ("copies", copies::work),
    ("trees", trees::work),
    ("links", links::work),
    ("held", held::work),
];

/// The environment of a process that takes part.
pub const BOARD: &str = "STRATAFS_STRESS_BOARD";
pub const ROOT: &str = "STRATAFS_STRESS_ROOT";
pub const PROCESS: &str = "STRATAFS_STRESS_PROCESS";
pub const LOAD_SEED: &str = "STRATAFS_STRESS_LOAD_SEED";

/// One thread of one process.
pub struct Worker<'a> {
    pub root: PathBuf,
    pub board: &'a Board,
    /// Among the processes.
    pub process: usize,
    /// Among all workers of all processes.
    pub id: usize,
    rng: RefCell<StdRng>,
}

impl Worker<'_> {
    /// Counts a step; false when it is time to end.
    pub fn go(&self) -> bool {
        self.board.progress(self.id).fetch_add(1, Ordering::Relaxed);
        !self.board.stopped()
    }

    /// How many steps it has done: never the same number twice on one board.
    pub fn step(&self) -> u64 {
        self.board.progress(self.id).load(Ordering::Relaxed)
    }

    pub fn pick(&self, below: usize) -> usize {
        self.rng.borrow_mut().random_range(0..below)
    }

    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }
}

/// What a call gave, or nothing where it lost a race by one of these errnos.
#[track_caller]
pub fn won<T>(result: sys::Res<T>, lost: &[Errno], what: impl std::fmt::Display) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(errno) if lost.contains(&errno) => None,
        Err(errno) => panic!("{what}: {errno}"),
    }
}

/// Makes a further name. Where the answer to a stat overtakes that to an unlink, the kernel's FUSE client counts that name twice, and
/// refuses to link a file that seems to have none left, until it asks for attributes again.
#[track_caller]
pub fn link(path: &Path, other: &Path) {
    for _ in 0..100 {
        match sys::link(path, other) {
            Err(Errno::ENOENT) => assert!(stat(path).nlink() > 0, "{}: no names", path.display()),
            linked => return linked.unwrap_or_else(|errno| panic!("link of {}: {errno}", path.display())),
        }
    }
    panic!("link of {}: no such file, though it has {} names", path.display(), stat(path).nlink());
}

/// `text` as a record of so many bytes: padded, and with a line break at its end.
pub fn record(text: &str, len: usize) -> Vec<u8> {
    assert!(text.len() < len, "{text}: too long");
    format!("{text:<width$}\n", width = len - 1).into_bytes()
}

/// Bytes at a place of an open file, all of them.
#[track_caller]
pub fn bytes_at(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let got = file.read_at(&mut bytes, at).unwrap();
    bytes.truncate(got);
    bytes
}

/// As text that fits on a line.
pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).trim_end().to_owned()
}

/// A process of the load: begun by `round`, which sets its environment. Alone it has nothing to do.
#[test]
#[ignore = "begun by the load"]
fn a_process_of_the_load() {
    let Some(root) = std::env::var_os(ROOT) else { return println!("skipped: begun by the load") };
    let word = |name: &str| std::env::var(name).unwrap();
    let process: usize = word(PROCESS).parse().unwrap();
    let seed: u64 = word(LOAD_SEED).parse().unwrap();
    let board = Board::open(Path::new(&word(BOARD)));
    // One that fails ends the process: the others would go on until the end of the load.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::exit(101);
    }));
    std::thread::scope(|scope| {
        for (number, (name, work)) in ROLES.into_iter().enumerate() {
            let id = process * ROLES.len() + number;
            let seed = seed.wrapping_mul(1000).wrapping_add(id as u64);
            let rng = RefCell::new(StdRng::seed_from_u64(seed));
            let worker = Worker { root: root.clone().into(), board: &board, process, id, rng };
            let thread = std::thread::Builder::new().name(format!("{name}-{id}"));
            thread.spawn_scoped(scope, move || work(&worker)).unwrap();
        }
    });
}
