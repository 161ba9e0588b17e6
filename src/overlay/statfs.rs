//! How much room there is.

use std::os::fd::AsFd;

use nix::sys::statvfs::Statvfs;

use super::Overlay;
use crate::error::{Context, Error, Result};
use crate::inode::Ino;

impl Overlay {
    /// What the filesystem of the upper layer has room for; without one, of the topmost lower. With the longest name.
    pub fn statfs(&self, ino: Ino) -> Result<(Statvfs, usize)> {
        let stack = &self.inode(ino)?.stack;
        let root = stack.roots().next().ok_or(Error::Bug("a stack without layers"))?;
        let room = crate::sys::stat::statfs(root.fd().call("open")?.as_fd()).call("fstatvfs")?;
        let name_max = stack.upper.as_ref().map_or(255, |upper| upper.name_max());
        Ok((room, name_max))
    }
}
