//! How much room there is.

use std::os::fd::AsFd;

use nix::sys::statvfs::Statvfs;

use super::Overlay;
use crate::error::{Context, Error, Result};
use crate::inode::Ino;

impl Overlay {
    /// What the filesystem of the upper layer has room for; without one, of the topmost lower. With the longest name.
    pub fn statfs(&self, ino: Ino) -> Result<(Statvfs, usize)> {
        let inode = self.inode(ino)?;
        let stack = &inode.stack;
        if let (true, Some(dir)) = (stack.is_direct(), inode.upper_dir()) {
            // The source may have mounts of its own inside.
            let room = crate::sys::stat::statfs(dir.fd().call("open")?.as_fd()).call("fstatvfs")?;
            let name_max = room.name_max() as usize;
            return Ok((room, name_max));
        }
        let root = stack.roots().next().ok_or(Error::Bug("a stack without layers"))?;
        let room = crate::sys::stat::statfs(root.fd().call("open")?.as_fd()).call("fstatvfs")?;
        let name_max = stack.upper.as_ref().map_or(255, |upper| upper.name_max());
        Ok((room, name_max))
    }
}
