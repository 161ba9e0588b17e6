//! What is known without asking the layers: the inode of what the daemon has just made itself, and which inode has a name
//! that the kernel knows.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;

use super::Overlay;
use super::attr::{Lifetime, stat_shown};
use super::create::Under;
use super::lookup::{Entry, NAME_MAX};
use super::object::Object;
use crate::error::{Context, Error, Result};
use crate::inode::{Attributes, Ino, Inode, InodeRef, Node, State};
use crate::layer::real_dir::Fact;
use crate::merge::listing::FileKind;
use crate::merge::mark;
use crate::sys::At;
use crate::sys::stat::stat;

/// What stands under a name.
pub(super) struct Stands<'a> {
    /// What it shows.
    pub inode: Option<InodeRef<'a>>,
    /// If it shows nothing: what is there all the same. If it shows something: whether that is a lower layer's.
    pub under: Under,
}

impl Overlay {
    /// The inode of what was just made as `name` in `parent`, listed; `open` is a descriptor on it, if there is one.
    /// Its marks are those that were written, so only its attributes are asked for. Locks: the parent's names, for writing.
    pub(super) fn made_locked(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        open: Option<BorrowedFd<'_>>,
    ) -> Result<Entry<'_>> {
        let entry = if parent.stack.is_direct() {
            // Somebody else may have been quick to take it away.
            self.lookup_locked(parent, name)?.ok_or(Error::Stale)?
        } else {
            self.made_in_upper(parent, name, open)?
        };
        self.list_name(parent, name, &entry.inode);
        Ok(entry)
    }

    fn made_in_upper(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        open: Option<BorrowedFd<'_>>,
    ) -> Result<Entry<'_>> {
        let stack = &parent.stack;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let fd = dir.fd().call("openat2")?;
        let real = stat_shown(stack, open.map_or(At::new(fd.as_fd(), name), At::fd))?;
        let mut state = State::default();
        let node = if real.kind == FileKind::Dir {
            let made = dir.child(name);
            made.note(Fact::NoWhiteoutFiles, true);
            // Made so, as `make_locked` does it.
            state.opaque = !parent.lower_dirs().is_empty();
            Node::dir(OnceLock::from(made), Default::default())
        } else {
            state.upper_ino = real.ino;
            Node::NonDir
        };
        let wanted = stack.pack_ino(real.dev, real.ino);
        let object = Object::new(real, wanted, node, state);
        let inode = self.intern(parent, name, object)?;
        inode.note_attributes(Attributes::Told);
        let attr = self.shown(&inode, real)?;
        Ok(Entry { inode, attr, lifetime: Lifetime::of(stack) })
    }

    /// As `lookup_in`, of a name that was listed with the number `st_ino`, if the kernel knows it by this name already: it is told
    /// by its number, and no mark is read.
    pub(super) fn known_entry(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        st_ino: u64,
    ) -> Result<Option<Entry<'_>>> {
        let _names = parent.names().read();
        let Some(inode) = self.known_as(st_ino, parent, name).filter(|_| is_plain(parent)) else {
            return Ok(None);
        };
        let attr = self.attr_of(&inode)?;
        Ok(Some(Entry { inode, attr, lifetime: Lifetime::of(&parent.stack) }))
    }

    /// A lookup of the inode with this number, if it is known as `name` in `parent`. Locks: the parent's names are held.
    fn known_as(&self, number: u64, parent: &Inode, name: &OsStr) -> Option<InodeRef<'_>> {
        let known = self.store.refer(Ino(number))?;
        let is_it = known.state.read().has_name(parent, name);
        is_it.then_some(known)
    }

    /// What stands under `name`. The inode of a name that the kernel knows is told by its number, and no mark is read.
    /// Locks: the parent's names.
    pub(super) fn stands_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Stands<'_>> {
        let mut under = Under::default();
        if parent.state.read().gone {
            return Err(Error::NotFound);
        }
        if !is_plain(parent) || name.len() > NAME_MAX || mark::is_reserved(name.as_bytes()) {
            let inode = self.lookup_locked(parent, name)?.map(|entry| entry.inode);
            if inode.is_none() && !parent.stack.is_direct() && parent.upper_dir().is_some() {
                under = self.under_locked(parent, name)?;
            }
            return Ok(Stands { inode, under });
        }
        let mut parts = parent.parts().walk();
        while let Some((dir, _)) = parts.next(name) {
            let fd = dir.fd().call("openat2")?;
            let in_upper = dir.layer().is_upper();
            let found = match stat(At::new(fd.as_fd(), name)) {
                Ok(found) => found,
                Err(Errno::ENOENT | Errno::ENAMETOOLONG) => {
                    under.whiteout_file = in_upper && self.has_whiteout_file(parent, name)?;
                    match under.whiteout_file {
                        true => break,
                        false => continue,
                    }
                }
                Err(errno) => return Err(Error::Sys { call: "statx", errno }),
            };
            if found.is_whiteout_device() {
                under.whiteout = in_upper;
                break;
            }
            let number = parent.stack.pack_ino(found.dev, found.ino);
            let inode = match number.and_then(|number| self.known_as(number, parent, name)) {
                Some(known) => Some(known),
                // Numbers of origins, marks that say more, or a name that nobody has looked up yet.
                None => self.lookup_locked(parent, name)?.map(|entry| entry.inode),
            };
            if inode.is_none() && in_upper {
                under = self.under_locked(parent, name)?;
            } else {
                under.lower_shows = inode.is_some() && !in_upper;
            }
            return Ok(Stands { inode, under });
        }
        if under.whiteout || under.whiteout_file {
            under.lower_shows = self.lower_shows(parent, name)?;
        }
        Ok(Stands { inode: None, under })
    }
}

/// Whether what a directory shows is what the layers have, and nobody else changes it.
fn is_plain(dir: &Inode) -> bool {
    let state = dir.state.read();
    state.rare().points.is_none() && state.rare().beside.is_none() && !dir.stack.is_direct()
}
