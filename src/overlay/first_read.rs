//! The bytes of a small lower file, handed to the kernel when it is first opened for reading. Who opens a file so reads it
//! next, and his READ would cost another round trip.

use std::os::fd::{AsFd, OwnedFd};

use super::Overlay;
use super::file::{IoMode, through_the_daemon};
use crate::inode::{Ino, Inode, State};
use crate::sys::stat::stat;
use crate::sys::{At, copy};

/// Larger files are read ahead by the kernel, while their reader works.
const MOST_BYTES: u64 = 64 << 10;

/// Called with an inode and all its bytes, for the kernel's page cache.
pub(super) struct Fill(Take);
type Take = Box<dyn Fn(Ino, &[u8]) + Send + Sync>;

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fill")
    }
}

impl Overlay {
    /// Says who hands the bytes of small files to the kernel.
    pub fn on_first_read(&self, fill: impl Fn(Ino, &[u8]) + Send + Sync + 'static) {
        // A second one would be a fault of the mount's start; the first stays.
        let _ = self.fill.set(Fill(Box::new(fill)));
    }

    /// Hands the bytes of `lower`, the lower file behind `inode`, to the kernel, if it may keep them. Only at the very first
    /// open: no other request for its pages is under way then, for which the kernel would have to wait. Locks: the inode's state,
    /// for writing, so that it is not copied up and changed before the kernel has the bytes.
    pub(super) fn fill_pages(&self, inode: &Inode, state: &State, lower: &OwnedFd) {
        let stack = &inode.stack;
        let kept = matches!(through_the_daemon(stack, true), IoMode::Cached(true));
        let (Some(Fill(fill)), true) = (self.fill.get(), kept && !stack.may_hang) else { return };
        if state.upper_ino != 0 || state.rare().data.is_some() || self.settings.writeback {
            return;
        }
        let Ok(found) = stat(At::fd(lower.as_fd())) else { return };
        if found.size == 0 || found.size > MOST_BYTES {
            return;
        }
        let mut bytes = vec![0; found.size as usize];
        // What cannot be read is not read here: the READ will say why.
        if copy::pread(lower.as_fd(), &mut bytes, 0) == Ok(bytes.len()) {
            fill(inode.ino, &bytes);
        }
    }
}
