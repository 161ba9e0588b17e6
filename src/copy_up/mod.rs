//! Copy-up: bringing a lower object into the upper layer before it is changed. Parents first, each inode once, and
//! whatever happens, either the old object shows or the new one, whole.
//!
//! `data` copies bytes, `meta` everything else, `publish` makes objects and puts them into place. This room knows no
//! operation: it is told what a caller needs. Source: overlayfs.rst, "Non-directories"; kernel `copy_up.c`.

pub mod data;
pub mod meta;
pub mod publish;
pub mod synthetic;
pub mod tell;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::config::FsyncMode;
use crate::error::{Error, Result};
use crate::inode::{CopiedUp, Inode};
use crate::sync::Held;
use crate::sys::cred::Writer;
use parking_lot::MutexGuard;
use tell::{Changed, Teller};

/// What the upper layer must have before the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Owner, mode, times, attributes, name: data may stay below.
    Metadata,
    /// All of it.
    Data,
    /// All of it but the data, which is cut off in the same step.
    Truncated {
        /// Who cuts it off, since set-id bits may go with the data.
        by: Writer,
    },
}

/// How copy-up is done in this mount.
pub struct CopyUp {
    fsync: FsyncMode,
    metacopy: bool,
    known: CopiedUp,
    teller: Teller,
    refused: data::Refused,
}

impl std::fmt::Debug for CopyUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyUp").field("fsync", &self.fsync).field("metacopy", &self.metacopy).finish()
    }
}

impl CopyUp {
    /// Copy-up with these promises. What is copied up is noted in `known`.
    pub fn new(fsync: FsyncMode, metacopy: bool, known: CopiedUp) -> CopyUp {
        CopyUp { fsync, metacopy, known, teller: Teller::default(), refused: data::Refused::default() }
    }

    /// Says who is to hear of attributes that changed behind the kernel's back.
    pub fn on_change(&self, changed: Changed) {
        self.teller.on_change(changed);
    }

    /// What is synced when.
    pub fn fsync(&self) -> FsyncMode {
        self.fsync
    }

    /// Whether data stays below when only metadata changes.
    pub fn leaves_data(&self) -> bool {
        self.metacopy
    }

    /// Keeps data that is still below `inode`'s metadata from coming up while times or attributes change.
    ///
    /// The copy of the data saves and restores both, so a change meanwhile would be lost.
    /// Locks: takes the gate of such a file; no lock of level 3 or deeper may be held.
    pub fn hold_data<'a>(&self, inode: &'a Inode) -> Option<Held<MutexGuard<'a, ()>>> {
        let is_below = inode.state.read().rare().data.is_some();
        is_below.then(|| inode.gate.lock())
    }

    /// Says that the kernel's attributes of `inode` are wrong now.
    pub fn changed(&self, inode: &Inode) {
        self.teller.at_once(inode);
    }

    /// Brings `inode` into the upper layer as far as `need` says. The view does not change.
    /// Errors: `ReadOnly` without an upper layer; whatever the layers answer, and then nothing has changed.
    /// Locks: takes gates; no lock of level 3 or deeper may be held.
    pub fn ensure(&self, inode: &Arc<Inode>, need: Need) -> Result<()> {
        self.ensure_open(inode, need).map(drop)
    }

    /// As `ensure`. Returns the upper file open for reading and writing if this call has brought its data up, or cut it
    /// off: then that is done, and must not fail for want of a descriptor after it.
    pub fn ensure_open(&self, inode: &Arc<Inode>, need: Need) -> Result<Option<OwnedFd>> {
        inode.stack.check_writable()?;
        if inode.is_dir() {
            return self.ensure_dir(inode).map(|()| None);
        }
        loop {
            if inode.gave_way() {
                return self.ensure_open(&inode.now(), need);
            }
            if is_done(inode, need) {
                return Ok(None);
            }
            let parent = inode.state.read().names.first().map(|name| name.parent.clone());
            if let Some(parent) = &parent {
                self.ensure_dir(parent)?;
            }
            let gate = inode.gate.lock();
            if inode.gave_way() {
                continue;
            }
            if is_done(inode, need) {
                return Ok(None);
            }
            if inode.has_upper() {
                return self.complete_data(inode, need);
            }
            // While nobody held the gate the file may have moved into a directory that has no upper part yet.
            let name = inode.state.read().names.first().cloned();
            let ready = name.as_ref().is_none_or(|name| name.parent.upper_dir().is_some());
            if ready {
                return self.copy_file(inode, name, need);
            }
            drop(gate);
        }
    }

    fn ensure_dir(&self, dir: &Arc<Inode>) -> Result<()> {
        // Down from the nearest ancestor that is there already; a path may be thousands of names deep.
        let mut missing = Vec::new();
        let mut at = dir.clone();
        while at.upper_dir().is_none() {
            let parent = at.dir_name().map(|name| name.parent);
            missing.push(at);
            // One that was removed has no parent, and needs none.
            let Some(parent) = parent else { break };
            at = parent;
        }
        for dir in missing.iter().rev() {
            let _gate = dir.gate.lock();
            if dir.is_synthetic() {
                if dir.state.read().gone {
                    return Err(Error::NotFound);
                }
                self.make_synthetic(dir)?;
            } else if dir.upper_dir().is_none() {
                self.copy_dir(dir)?;
            }
        }
        Ok(())
    }
}

fn is_done(inode: &Inode, need: Need) -> bool {
    let state = inode.state.read();
    if need == Need::Metadata { state.upper_ino != 0 } else { state.has_upper_data() }
}
