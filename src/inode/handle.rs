//! Open files and directories, by the number that the kernel sends back.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::OFlag;
use parking_lot::{Mutex, RwLock};

use super::Inode;
use super::listing::Listing;
use crate::sync::{LevelMutex, level};
use crate::sys::stat::Stat;

/// An open file's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    /// What is open.
    pub inode: Arc<Inode>,
    /// How the caller opened it.
    pub flags: OFlag,
    /// It may write, and the caller may not keep set-id bits by writing.
    pub plain_writer: bool,
    /// The kernel takes the bytes from the backing file itself.
    pub passthrough: std::sync::atomic::AtomicBool,
    /// The daemon's own descriptor, and whether it is on the upper object. A passed-through file has one only once it
    /// was needed for something that the kernel does not pass through.
    pub fd: RwLock<Option<(Arc<OwnedFd>, bool)>>,
}

/// An open directory.
#[derive(Debug)]
pub struct OpenDir {
    /// What is open.
    pub inode: Arc<Inode>,
    /// The names as they were when reading began, for a directory that others change, too.
    pub listing: Mutex<Option<Listing>>,
    /// Where the listing of a directory that only the mount changes ended when reading began. What was made since does not
    /// show to this reader: one who renames what he reads would never come to the end.
    pub end: Mutex<Option<u64>>,
    /// Lookups of the names that its reader will come to.
    pub ahead: Mutex<Ahead>,
}

/// Lookups made ahead of who lists a directory, in the order of its names.
#[derive(Debug, Default)]
pub struct Ahead {
    turn: u64,
    /// Where the reader will go on, and how many names it takes at a time.
    next: Option<(u64, usize)>,
    found: VecDeque<Sighted>,
}

/// What was found under a name before anybody asked, with one lookup of it.
#[derive(Debug)]
pub struct Sighted {
    /// Where the listing goes on after the name.
    pub next: u64,
    /// What it is.
    pub inode: Arc<Inode>,
    /// What `stat` shows of it.
    pub stat: Stat,
}

impl Ahead {
    /// The reader asks for more: whoever looks ahead of its last request stops, and this is what they found.
    pub fn begin(&mut self) -> VecDeque<Sighted> {
        self.turn += 1;
        self.next = None;
        std::mem::take(&mut self.found)
    }

    /// Notes that the reader had room for `names` names, and will go on at `next`.
    pub fn full(&mut self, next: u64, names: usize) {
        self.next = Some((next, names));
    }

    /// Where to look ahead, how far, and for which turn; nothing if the reader will not come again, or somebody does.
    pub fn look(&mut self) -> Option<(u64, usize, u64)> {
        self.next.take().map(|(next, names)| (next, names, self.turn))
    }

    /// Whether the reader has not come again since `turn`.
    pub fn is_at(&self, turn: u64) -> bool {
        self.turn == turn
    }

    /// How much was found that the reader has not come to.
    #[cfg(test)]
    pub fn sighted(&self) -> usize {
        self.found.len()
    }

    /// Keeps what was found at `turn`; gives it back if the reader has come again.
    pub fn keep(&mut self, turn: u64, sighted: Sighted) -> Option<Sighted> {
        if self.turn != turn {
            return Some(sighted);
        }
        self.found.push_back(sighted);
        None
    }
}

#[derive(Debug, Clone)]
enum Handle {
    File(Arc<OpenFile>),
    Dir(Arc<OpenDir>),
}

const SHARDS: usize = 16;
type Shard = LevelMutex<HashMap<Fh, Handle>, { level::HANDLES }>;

/// All open files and directories.
#[derive(Debug)]
pub struct Handles {
    shards: Box<[Shard]>,
    next: AtomicU64,
}

impl Default for Handles {
    fn default() -> Handles {
        Handles { shards: (0..SHARDS).map(|_| Shard::default()).collect(), next: AtomicU64::new(1) }
    }
}

impl Handles {
    #[expect(clippy::indexing_slicing, reason = "a remainder is less than the number of shards")]
    fn shard(&self, fh: Fh) -> &Shard {
        &self.shards[fh.0 as usize % SHARDS]
    }

    fn add(&self, handle: Handle) -> Fh {
        let fh = Fh(self.next.fetch_add(1, Ordering::Relaxed));
        self.shard(fh).lock().insert(fh, handle);
        fh
    }

    /// Gives an open file a number.
    pub fn add_file(&self, file: OpenFile) -> Fh {
        self.add(Handle::File(Arc::new(file)))
    }

    /// Gives an open directory a number.
    pub fn add_dir(&self, dir: OpenDir) -> Fh {
        self.add(Handle::Dir(Arc::new(dir)))
    }

    /// The open file with this number.
    pub fn file(&self, fh: Fh) -> Option<Arc<OpenFile>> {
        match self.shard(fh).lock().get(&fh) {
            Some(Handle::File(file)) => Some(file.clone()),
            _ => None,
        }
    }

    /// All open files.
    pub fn files(&self) -> Vec<Arc<OpenFile>> {
        let mut files = Vec::new();
        for shard in &self.shards {
            files.extend(shard.lock().values().filter_map(|handle| match handle {
                Handle::File(file) => Some(file.clone()),
                Handle::Dir(_) => None,
            }));
        }
        files
    }

    /// The open directory with this number.
    pub fn dir(&self, fh: Fh) -> Option<Arc<OpenDir>> {
        match self.shard(fh).lock().get(&fh) {
            Some(Handle::Dir(dir)) => Some(dir.clone()),
            _ => None,
        }
    }

    /// Takes the number of an open file back.
    pub fn remove_file(&self, fh: Fh) -> Option<Arc<OpenFile>> {
        match self.shard(fh).lock().remove(&fh) {
            Some(Handle::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Takes the number of an open directory back.
    pub fn remove_dir(&self, fh: Fh) -> Option<Arc<OpenDir>> {
        match self.shard(fh).lock().remove(&fh) {
            Some(Handle::Dir(dir)) => Some(dir),
            _ => None,
        }
    }
}
