//! What a stack hides of what is in its own layers: the upper layer and the workdir of the mount, and its mount point.
//!
//! A lower layer may contain all three (`lowerdir=/`). The upper layer and the workdir change while the mount lasts, so in the
//! merged tree they are absent; nothing can be created under their names. Departs: the kernel lists such names and answers
//! ELOOP. Source: kernel `ovl_setup_trap`, overlayfs.rst "Sharing and copying layers".
//!
//! A layer that is reached through a private clone of its mount does not have the mount point: there the directory beneath
//! shows. Any other layer would lead the daemon into its own mount, to wait for itself.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::Result;
use nix::errno::Errno;

use super::names::Parts;
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::sys::At;
use crate::sys::dir::Entry;
use crate::sys::stat::{Stat, stat};

/// A device and an inode number.
type Identity = (u64, u64);

/// The directories that a stack hides.
#[derive(Debug, Default)]
pub struct Hidden {
    /// The upper layer's root and the workdir.
    written: Vec<Identity>,
    /// Their names.
    names: Vec<Box<OsStr>>,
    /// Where the mount is, by its parent and its name.
    mountpoint: Option<(Identity, Box<OsStr>)>,
    /// Whether the layer of this index is reached through a private clone of its mount.
    fenced: Vec<bool>,
    /// A layer has one of them.
    found: AtomicBool,
}

impl Hidden {
    /// Hides the directories open at `written`, which have the last names of `paths`.
    ///
    /// # Errors
    ///
    /// Those of statx(2).
    pub fn new<'a>(
        written: impl Iterator<Item = BorrowedFd<'a>>,
        paths: impl Iterator<Item = &'a Path>,
    ) -> Result<Hidden> {
        let written = written.map(|fd| stat(At::fd(fd)).map(|stat| (stat.dev, stat.ino)));
        let names = paths.filter_map(Path::file_name).map(Box::from).collect();
        Ok(Hidden { written: written.collect::<Result<_>>()?, names, ..Hidden::default() })
    }

    /// Hides the mount point as well, in the layers that are not `fenced` by a private clone of their mount; by index, the
    /// upper layer first. Before the mount is made: afterwards the path leads into it.
    pub fn hide_mountpoint(&mut self, mountpoint: &Path, fenced: Vec<bool>) {
        self.fenced = fenced;
        let (Some(parent), Some(name)) = (mountpoint.parent(), mountpoint.file_name()) else { return };
        // A parent that cannot be opened is in no layer that can.
        let Ok(parent) = crate::sys::open::root(parent) else { return };
        if let Ok(stat) = stat(At::fd(parent.as_fd())) {
            self.mountpoint = Some(((stat.dev, stat.ino), name.into()));
        }
    }

    /// Whether `name` in the directory of `layer` open at `dir` must not even be looked at.
    pub fn bars(&self, layer: LayerId, dir: BorrowedFd<'_>, name: &OsStr) -> bool {
        let is_it = self.mountpoint.as_ref().is_some_and(|(parent, mountpoint)| {
            **mountpoint == *name
                && self.fenced.get(usize::from(layer.0)) == Some(&false)
                && stat(At::fd(dir)).is_ok_and(|stat| (stat.dev, stat.ino) == *parent)
        });
        self.note(is_it)
    }

    /// Whether the object of a lower layer is hidden.
    pub fn is(&self, stat: &Stat) -> bool {
        let is_it = stat.kind == FileKind::Dir && self.written.contains(&(stat.dev, stat.ino));
        self.note(is_it)
    }

    /// Whether an entry of the directory of `layer` open at `dir` is hidden.
    pub fn is_entry(&self, layer: LayerId, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> bool {
        if !matches!(entry.kind, None | Some(FileKind::Dir)) {
            return false;
        }
        if self.bars(layer, dir, entry.name) {
            return true;
        }
        // A union below may list another number than stat(2) shows; the name is then that of the path.
        (self.written.iter().any(|(_, ino)| *ino == entry.ino)
            || self.names.iter().any(|name| **name == *entry.name))
            && stat(At::new(dir, entry.name)).is_ok_and(|stat| self.is(&stat))
    }

    /// Whether one of the directories that make up a merged one has a hidden directory under `name`.
    ///
    /// # Errors
    ///
    /// Those of opening a directory, but not of one without the name.
    pub fn has(&self, parts: Parts<'_>, name: &OsStr) -> Result<bool> {
        if !self.found.load(Ordering::Relaxed) {
            // The kernel looks a name up before it creates one.
            return Ok(false);
        }
        for dir in parts.upper.into_iter().chain(parts.lowers) {
            let fd = dir.fd()?;
            if self.bars(dir.layer(), fd.as_fd(), name) {
                return Ok(true);
            }
            match stat(At::new(fd.as_fd(), name)) {
                Ok(stat) if self.is(&stat) => return Ok(true),
                Ok(_) | Err(Errno::ENOENT | Errno::ENAMETOOLONG) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }

    fn note(&self, is_it: bool) -> bool {
        if is_it {
            self.found.store(true, Ordering::Relaxed);
        }
        is_it
    }
}
