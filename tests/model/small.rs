//! A disk with little room, for the upper layer.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Forty pages, and objects for less than all that a run makes.
pub const ROOM: &str = "size=160k,nr_inodes=56";

/// More than a run needs.
pub const WIDE: &str = "size=64m,nr_inodes=10k";

/// A filesystem with room for some pages and some objects, gone when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn new(at: &Path) -> SmallDisk {
        fs::create_dir(at).unwrap();
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(ROOM)).unwrap();
        SmallDisk(at.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Has it refuse changes, or take them, and have this much room. It goes on as it is while a file is open for writing, or where more
    /// is in use.
    pub fn set(&self, read_only: bool, room: &str) {
        let flags = MsFlags::MS_REMOUNT | if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        match mount(None::<&str>, &self.0, None::<&str>, flags, Some(room)) {
            Ok(()) | Err(Errno::EBUSY | Errno::EINVAL) => {}
            Err(errno) => panic!("{}: {errno}", self.0.display()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached, so that a daemon that has not quite ended does not leave it behind.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
