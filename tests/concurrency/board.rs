//! Numbers that all processes of a load share: who has got how far, and what was acknowledged.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{File, sys};

/// At most so many workers take part.
pub const WORKERS: usize = 64;
/// Logs, tokens and objects that go to and fro.
pub const LOGS: usize = 4;
pub const TOKENS: usize = 24;
pub const BALLS: usize = 4;

const STOP: usize = 0;
const PROGRESS: usize = 1;
const MOVES: usize = PROGRESS + WORKERS;
const COUNTS: usize = MOVES + BALLS;
const RECORDS: usize = COUNTS + TOKENS;
const ALL: usize = RECORDS + LOGS * WORKERS;

/// A file of numbers, mapped by each process.
pub struct Board {
    at: *mut AtomicU64,
    _file: File,
}

// SAFETY: it is a slice of atomic numbers that stays where it is until the drop.
unsafe impl Send for Board {}
unsafe impl Sync for Board {}

impl Board {
    /// The one in this file, which is made if it is not there.
    pub fn open(path: &Path) -> Board {
        let file = sys::open(path, libc::O_RDWR | libc::O_CREAT, 0o600).unwrap();
        file.set_len((ALL * 8) as u64).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (null, fd) = (std::ptr::null_mut(), file.as_raw_fd());
        // SAFETY: a new map of a file that is as long as the map.
        let at = unsafe { libc::mmap(null, ALL * 8, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", sys::Errno::last());
        Board { at: at.cast(), _file: file }
    }

    fn number(&self, at: usize) -> &AtomicU64 {
        assert!(at < ALL);
        // SAFETY: within the map, which lives as long as `self`.
        unsafe { &*self.at.add(at) }
    }

    /// Tells all workers to come to an end.
    pub fn stop(&self) {
        self.number(STOP).store(1, Ordering::SeqCst);
    }

    /// Lets the next load begin.
    pub fn resume(&self) {
        self.number(STOP).store(0, Ordering::SeqCst);
    }

    pub fn stopped(&self) -> bool {
        self.number(STOP).load(Ordering::SeqCst) != 0
    }

    /// Steps that a worker has done.
    pub fn progress(&self, worker: usize) -> &AtomicU64 {
        self.number(PROGRESS + worker)
    }

    /// How often a ball has begun or ended to move: odd while it does.
    pub fn moves(&self, ball: usize) -> &AtomicU64 {
        self.number(MOVES + ball)
    }

    /// How often a token was counted up.
    pub fn count(&self, token: usize) -> &AtomicU64 {
        self.number(COUNTS + token)
    }

    /// Records of a worker that a log has taken.
    pub fn records(&self, log: usize, worker: usize) -> &AtomicU64 {
        self.number(RECORDS + log * WORKERS + worker)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference any more.
        unsafe { libc::munmap(self.at.cast(), ALL * 8) };
    }
}
