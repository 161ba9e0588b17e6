//! Open files and directories, by the number that the kernel sends back.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::OFlag;
use parking_lot::{Mutex, RwLock};

use super::Inode;
use super::listing::Listing;
use crate::sync::{LevelMutex, level};

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
