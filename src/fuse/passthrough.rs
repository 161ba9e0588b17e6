//! Backing files: what the kernel reads and writes itself. One per inode, shared by all its open files, dropped with the
//! last one. Source: kernel Documentation/filesystems/fuse/fuse-passthrough.rst.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::BackingId;
use parking_lot::Mutex;

use crate::inode::Ino;
use crate::sys::cred;

/// The backing files in use.
#[derive(Debug, Default)]
pub struct Backings {
    by_inode: Mutex<HashMap<Ino, Arc<BackingId>>>,
}

impl Backings {
    /// The backing file of `ino`; registered by `register` if it has none. Errors: what the kernel answers.
    pub fn of(
        &self,
        ino: Ino,
        fd: &OwnedFd,
        register: impl FnOnce(&OwnedFd) -> std::io::Result<BackingId>,
    ) -> std::io::Result<Arc<BackingId>> {
        // Held across the registration: a second open must get the same one, or the kernel refuses it.
        let mut backings = self.by_inode.lock();
        if let Some(backing) = backings.get(&ino) {
            return Ok(backing.clone());
        }
        // The kernel writes to the backing file with the rights that the daemon has now. Without the power to keep
        // set-id bits a write clears them, as it does for an ordinary writer.
        let mut result = Err(std::io::ErrorKind::Other.into());
        let registered = cred::without_fsetid(|| {
            result = register(fd);
            Ok(())
        });
        registered.map_err(std::io::Error::from)?;
        let backing = Arc::new(result?);
        backings.insert(ino, backing.clone());
        Ok(backing)
    }

    /// Lets the backing file of `ino` go if `in_use` says that nobody has it open any more.
    pub fn release(&self, ino: Ino, in_use: impl FnOnce() -> bool) {
        let released = {
            let mut backings = self.by_inode.lock();
            // Asked under the lock: who opens it again meanwhile has counted itself before it comes here.
            if in_use() { None } else { backings.remove(&ino) }
        };
        drop(released);
    }
}
