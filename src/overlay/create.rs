//! Making names: files, directories, symlinks, devices, fifos, sockets.
//!
//! Where the upper layer has nothing under the name, the object is made there at once, by the upper's own filesystem
//! acting as the caller. Where a whiteout stands, or a directory must be opaque, it is prepared in the workdir and
//! changes places with what is there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::attr::Lifetime;
use super::file::Opened;
use super::ids::disk_caller;
use super::lookup::Entry;
use super::prepare::{New, asks_for_group_id, is_whiteout_device, make_at, prepare};
use super::protect::Change;
use super::{Caller, Overlay};
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Attributes, Ino, Inode};
use crate::layer::probe;
use crate::layer::real_dir::Fact;
use crate::layer::workdir::Temp;
use crate::merge::mark;
use crate::merge::resolve::Outcome;
use crate::sys::stat::stat;
use crate::sys::{At, cred};

/// What to make. Modes are as the caller gave them; the umask is applied here.
#[derive(Debug, Clone, Copy)]
pub enum NewNode<'a> {
    /// A directory.
    Dir {
        /// Permission bits.
        mode: u32,
    },
    /// A regular file, fifo, socket or device.
    Node {
        /// Format and permission bits.
        mode: u32,
        /// Device numbers.
        device: (u32, u32),
    },
    /// A symlink to this.
    Symlink(&'a OsStr),
}

/// What is under a name that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Under {
    /// A whiteout device in the upper layer.
    pub whiteout: bool,
    /// A `.wh.` file in the upper layer.
    pub whiteout_file: bool,
    /// The lower layers would show something.
    pub lower_shows: bool,
}

impl Overlay {
    /// Makes `node` as `name` in `parent`. Errors: `Exists`, `ReadOnly`, `NameTooLong`, and what the upper layer answers.
    pub fn make(&self, caller: Caller, parent: Ino, name: &OsStr, node: NewNode<'_>) -> Result<Entry<'_>> {
        let parent = self.dir(parent)?;
        self.check_new_name(&parent, name)?;
        let _names = parent.names().write();
        check_no_point(&parent, name)?;
        self.make_locked(caller, &parent, name, node, false)?;
        self.made_locked(&parent, name, None)
    }

    /// Makes and opens the regular file `name` in `parent`. `flags` are those of open(2).
    pub fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: OFlag,
    ) -> Result<(Entry<'_>, Opened)> {
        let parent = self.dir(parent)?;
        // Somebody was quicker; without O_EXCL that is as good.
        let open_it = || {
            let mut entry = self.lookup_in(&parent, name)?.ok_or(Error::NotFound)?;
            if entry.inode.is_dir() {
                return Err(Error::IsDir);
            }
            let opened = self.open(caller, entry.inode.ino, flags - OFlag::O_CREAT)?;
            entry.attr.lifetime = self.lifetime(&entry.inode);
            Ok((entry, opened))
        };
        match self.check_new_name(&parent, name) {
            Err(Error::Exists) if !flags.contains(OFlag::O_EXCL) => return open_it(),
            checked => checked?,
        }
        let names = parent.names().write();
        let node = NewNode::Node { mode: libc::S_IFREG | (mode & 0o7777), device: (0, 0) };
        let made =
            check_no_point(&parent, name).and_then(|()| self.make_locked(caller, &parent, name, node, true));
        let made = match made {
            Err(Error::Exists) if !flags.contains(OFlag::O_EXCL) => {
                drop(names);
                return open_it();
            }
            made => made?.ok_or(Error::Bug("a file was made but not opened"))?,
        };
        let mut entry = self.made_locked(&parent, name, Some(made.as_fd()))?;
        // So far the kernel has been told of nothing that it would have to forget.
        entry.inode.note_attributes(Attributes::Unknown);
        // Where the mode is an attribute, the file's own has none of the bits that count here.
        let mode = if parent.stack.by_attribute() { 0 } else { entry.attr.stat.mode };
        let opened = self.open_made(caller, &entry.inode, flags, made, mode)?;
        // Whatever changes a new file the kernel notices, and asks again: a store to a shared mapping, which it does not, can
        // reach an empty file only after something has made it longer.
        entry.inode.note_attributes(Attributes::Told);
        entry.attr.lifetime = Lifetime::of(&parent.stack);
        Ok((entry, opened))
    }

    /// Errors: names that no object may have.
    pub(super) fn check_new_name(&self, parent: &Inode, name: &OsStr) -> Result<()> {
        parent.stack.check_writable()?;
        if parent.point(name).is_some() || self.shows_from_beside(parent, name)? {
            return Err(Error::Exists);
        }
        if parent.stack.is_direct() {
            return Ok(());
        }
        self.check_protected(parent, Change::NewName)?;
        let upper = parent.stack.writable()?;
        let bytes = name.as_bytes();
        if bytes.len() > upper.name_max() {
            return Err(Error::NameTooLong);
        }
        if parent.stack.hidden.has(parent.parts(), name).call("statx")? {
            return Err(Error::Busy(
                "the name is that of the mount's own upper layer, workdir or mount point",
            ));
        }
        if mark::is_reserved(bytes) {
            return Err(Error::Invalid("names that begin with .wh. are whiteouts in a layer"));
        }
        Ok(())
    }

    /// What is under `name`, which must show nothing. Errors: `Exists`. Locks: the parent's names, for writing.
    pub(super) fn under_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Under> {
        if parent.state.read().gone {
            return Err(Error::NotFound);
        }
        let mut under = Under::default();
        let Some(upper) = parent.upper_dir() else { return Err(Error::Bug("a parent without upper part")) };
        let fd = upper.fd().call("openat2")?;
        match stat(At::new(fd.as_fd(), name)) {
            Ok(found) => {
                let at = At::new(fd.as_fd(), name);
                under.whiteout = probe::is_whiteout(parent.stack.namespace, at, &found).call("getxattr")?;
                if !under.whiteout {
                    return Err(Error::Exists);
                }
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::Sys { call: "statx", errno }),
        }
        under.whiteout_file = self.has_whiteout_file(parent, name)?;
        under.lower_shows = self.lower_shows(parent, name)?;
        if under.lower_shows && !under.whiteout && !under.whiteout_file {
            return Err(Error::Exists);
        }
        Ok(under)
    }

    /// Whether the upper layer hides what lower layers have under `name` by a `.wh.` file.
    pub(super) fn has_whiteout_file(&self, parent: &Inode, name: &OsStr) -> Result<bool> {
        let Some(upper) = parent.upper_dir() else { return Ok(false) };
        if parent.lower_dirs().is_empty() || upper.is(Fact::NoWhiteoutFiles) {
            return Ok(false);
        }
        let file = [mark::WHITEOUT_PREFIX, name.as_bytes()].concat();
        Ok(stat(At::new(upper.fd().call("openat2")?.as_fd(), OsStr::from_bytes(&file))).is_ok())
    }

    /// Whether the lower layers would show something under `name` if the upper layer said nothing.
    pub(super) fn lower_shows(&self, parent: &Inode, name: &OsStr) -> Result<bool> {
        if parent.lower_dirs().is_empty() {
            return Ok(false);
        }
        Ok(!matches!(parent.stack.resolve(parent.parts().below(), name)?, Outcome::Absent))
    }

    /// Makes the object and puts it into place. Returns a regular file open, if asked. Locks: the parent's names, for writing.
    fn make_locked(
        &self,
        caller: Caller,
        parent: &Arc<Inode>,
        name: &OsStr,
        node: NewNode<'_>,
        open: bool,
    ) -> Result<Option<OwnedFd>> {
        self.copy_up.ensure(parent, Need::Metadata)?;
        let owner = disk_caller(parent, caller)?;
        if parent.stack.is_direct() {
            return self.make_direct(&New { caller, owner, node, open }, parent, name);
        }
        let new = New { caller, owner, node, open };
        let made = match self.hides_nothing(parent, name)? {
            // The call that makes the object says whether the upper layer has anything under the name. Mostly it has not.
            true => match self.make_in_upper(&new, parent, name, false) {
                Err(Error::Exists) => self.make_over(&new, parent, name)?,
                made => made?,
            },
            false => self.make_over(&new, parent, name)?,
        };
        self.sync_names(parent)?;
        Ok(made)
    }

    /// Whether nothing would change its meaning under `name` if the upper layer has nothing there: no lower layer shows
    /// anything, and no `.wh.` file stands in the upper one. Errors: `NotFound` for a directory that is gone.
    /// Locks: the parent's names, for writing.
    pub(super) fn hides_nothing(&self, parent: &Inode, name: &OsStr) -> Result<bool> {
        if parent.state.read().gone {
            return Err(Error::NotFound);
        }
        let no_file = || parent.upper_dir().is_some_and(|dir| dir.is(Fact::NoWhiteoutFiles));
        Ok(parent.lower_dirs().is_empty() || (no_file() && !self.lower_shows(parent, name)?))
    }

    /// As `make_locked`, after a look at what there is.
    fn make_over(&self, new: &New<'_>, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<OwnedFd>> {
        let under = self.under_locked(parent, name)?;
        let made = self.make_in_upper(new, parent, name, under.whiteout)?;
        if under.whiteout_file {
            let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
            let fd = dir.fd().call("openat2")?;
            let _changing = dir.changing();
            parent.stack.writable()?.remove_whiteout_file(fd.as_fd(), name)?;
        }
        Ok(made)
    }

    /// Makes the object where the upper layer has nothing, or a whiteout. Errors: `Exists`.
    fn make_in_upper(
        &self,
        new: &New<'_>,
        parent: &Inode,
        name: &OsStr,
        whiteout: bool,
    ) -> Result<Option<OwnedFd>> {
        let upper = parent.stack.writable()?;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let fd = dir.fd().call("openat2")?;
        // As the kernel: whatever the lowers have under this name, now or after they were changed offline, is hidden.
        let opaque = is_opaque_when_new(new.node, parent);
        let _changing = dir.changing();
        let in_place =
            || cred::as_caller(new.owner, || make_at(At::new(fd.as_fd(), name), new.node, new.open));
        let is_plain = !parent.stack.by_attribute() && !is_whiteout_device(new.node);
        if !whiteout && !opaque && is_plain && !asks_for_group_id(new.node) {
            return in_place().call("mknodat");
        }
        let temp = upper.temp();
        let made = prepare(new, &parent.stack, dir, &temp)?;
        if opaque {
            upper.set_opaque(temp.at())?;
        }
        match upper.place(temp, fd.as_fd(), name, whiteout) {
            // The directory has a project of its own, which nothing is moved into. Source: kernel `ovl_create_upper`.
            Err(Error::Sys { errno: Errno::EXDEV, .. }) if !whiteout && is_plain => {
                let made = in_place().call("mknodat")?;
                if opaque {
                    upper.set_opaque(At::new(fd.as_fd(), name))?;
                }
                Ok(made)
            }
            placed => placed.map(|()| made),
        }
    }

    /// A char 0:0 that the mount will show in `parent`, in the workdir so far. Errors: `Invalid` where none can be made.
    pub(super) fn shown_whiteout<'a>(&self, caller: Caller, parent: &'a Inode) -> Result<Temp<'a>> {
        let upper = parent.stack.writable()?;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let temp = upper.temp();
        let node = NewNode::Node { mode: libc::S_IFCHR, device: (0, 0) };
        let new = New { caller, owner: disk_caller(parent, caller)?, node, open: false };
        match prepare(&new, &parent.stack, dir, &temp) {
            Ok(_) => Ok(temp),
            Err(Error::Sys { errno: Errno::EPERM | Errno::EOPNOTSUPP, .. }) => {
                Err(Error::Invalid("the upper layer holds no device that shows as a whiteout"))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts it under a name that shows nothing. Locks: the parent's names, for writing.
    pub(super) fn put_whiteout_locked(
        &self,
        whiteout: Temp<'_>,
        parent: &Arc<Inode>,
        name: &OsStr,
    ) -> Result<()> {
        let upper = parent.stack.writable()?;
        let under = self.under_locked(parent, name)?;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let fd = dir.fd().call("openat2")?;
        {
            let _changing = dir.changing();
            upper.place(whiteout, fd.as_fd(), name, under.whiteout)?;
            if under.whiteout_file {
                upper.remove_whiteout_file(fd.as_fd(), name)?;
            }
        }
        self.made_locked(parent, name, None).map(drop)
    }
}

/// Errors: `Exists` where something is attached, or below. Locks: the parent's names, for it to stay true.
pub(super) fn check_no_point(parent: &Inode, name: &OsStr) -> Result<()> {
    if parent.point(name).is_some() { Err(Error::Exists) } else { Ok(()) }
}

/// Whether a new object in `parent` is a directory that must not show what lower layers have, or come to have, there.
pub(super) fn is_opaque_when_new(node: NewNode<'_>, parent: &Inode) -> bool {
    matches!(node, NewNode::Dir { .. }) && !parent.lower_dirs().is_empty()
}
