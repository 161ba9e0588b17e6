//! What a stack hides of what is in its own layers: the upper layer and the workdir of the mount, and mounts inside a layer.
//!
//! A lower layer may contain the upper layer and the workdir (`lowerdir=/`). The upper layer and the workdir change while the mount lasts, so in the
//! merged tree they are absent; nothing can be created under their names. Departs: the kernel lists such names and answers
//! ELOOP. Source: kernel `ovl_setup_trap`, overlayfs.rst "Sharing and copying layers".
//!
//! A layer is one filesystem. One that is reached through a private clone of its mount has no mounts inside. In any other, a
//! mount is absent: it may lead back into this mount, by a name of its own or through another daemon, and each request would then
//! wait for the next.

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
use crate::sys::stat::{Stat, is_mount_root, stat};

/// A device and an inode number.
type Identity = (u64, u64);

/// The directories that a stack hides.
#[derive(Debug, Default)]
pub struct Hidden {
    /// The upper layer's root and the workdir.
    written: Vec<Identity>,
    /// Their names.
    names: Vec<Box<OsStr>>,
    /// Whether the layer of this index may have mounts inside, which must not be entered.
    guarded: Vec<bool>,
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

    /// Hides the mounts inside the layers that are `guarded`; by index, the upper layer first.
    pub fn guard(&mut self, guarded: Vec<bool>) {
        self.guarded = guarded;
    }

    /// Whether `name` in the directory of `layer` open at `dir` must not even be looked at.
    pub fn bars(&self, layer: LayerId, dir: BorrowedFd<'_>, name: &OsStr) -> bool {
        let is_guarded = self.guarded.get(usize::from(layer.0)) == Some(&true);
        self.note(is_guarded && is_mount_root(At::new(dir, name)))
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
