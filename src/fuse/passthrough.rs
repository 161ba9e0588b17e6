//! Backing files: what the kernel reads and writes itself. One per inode, shared by all its open files, dropped with the
//! last one. Source: kernel Documentation/filesystems/fuse/fuse-passthrough.rst.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::BackingId;
use parking_lot::Mutex;

use crate::inode::Ino;
use crate::sys::cred;

/// An inode, and whether its backing file is in a lower layer beneath an upper one. The last reader of a lower file may not be
/// done with it here when the first writer of the upper one comes, who must never get the lower one.
pub type Backed = (Ino, bool);

/// The backing files in use.
#[derive(Debug, Default)]
pub struct Backings {
    by_inode: Mutex<HashMap<Backed, Backing>>,
}

#[derive(Debug)]
struct Backing {
    id: Arc<BackingId>,
    /// Open files that were answered with it.
    opens: u32,
}

impl Backings {
    /// The backing file of `of`, for one more open file; registered by `register` if it has none. `keeps_set_id` says whether writes through it
    /// leave set-id bits as they are. Errors: what the kernel answers.
    pub fn of(
        &self,
        of: Backed,
        fd: &OwnedFd,
        keeps_set_id: bool,
        register: impl FnOnce(&OwnedFd) -> std::io::Result<BackingId>,
    ) -> std::io::Result<Arc<BackingId>> {
        // Held across the registration: a second open must get the same one, or the kernel refuses it.
        let mut backings = self.by_inode.lock();
        if let Some(backing) = backings.get_mut(&of) {
            backing.opens += 1;
            return Ok(backing.id.clone());
        }
        // The kernel writes to the backing file with the rights that the daemon has now. Without the power to keep
        // set-id bits a write clears them, as it does for an ordinary writer.
        let mut result = Err(std::io::ErrorKind::Other.into());
        if keeps_set_id {
            result = register(fd);
        } else {
            let registered = cred::without_fsetid(|| {
                result = register(fd);
                Ok(())
            });
            registered.map_err(std::io::Error::from)?;
        }
        let id = Arc::new(result?);
        backings.insert(of, Backing { id: id.clone(), opens: 1 });
        Ok(id)
    }

    /// Notes that one open file of `of` is closed; its backing file goes with the last one. Nobody else is asked: the state
    /// of an inode may be locked by somebody who waits for its filesystem.
    pub fn release(&self, of: Backed) {
        let released = {
            let mut backings = self.by_inode.lock();
            let Some(backing) = backings.get_mut(&of) else { return };
            backing.opens -= 1;
            if backing.opens == 0 { backings.remove(&of) } else { None }
        };
        drop(released);
    }
}
