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

use super::attr::{change_override, stat_shown};
use super::file::Opened;
use super::ids::disk_caller;
use super::lookup::Entry;
use super::{Caller, Overlay};
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Ino, Inode};
use crate::layer::Stack;
use crate::layer::real_dir::Fact;
use crate::layer::workdir::Temp;
use crate::merge::listing::FileKind;
use crate::merge::mark::Mark;
use crate::merge::resolve::Outcome;
use crate::merge::{acl, mark};
use crate::sys::stat::stat;
use crate::sys::{At, attr, cred, name, open, xattr};

const ACL_ACCESS: &std::ffi::CStr = c"system.posix_acl_access";
const ACL_DEFAULT: &std::ffi::CStr = c"system.posix_acl_default";

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
#[derive(Debug, Clone, Copy)]
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
        self.make_locked(caller, &parent, name, node, None)?;
        self.made_locked(&parent, name)
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
            let entry = self.lookup_in(&parent, name)?.ok_or(Error::NotFound)?;
            if entry.inode.is_dir() {
                return Err(Error::IsDir);
            }
            let opened = self.open(caller, entry.inode.ino, flags - OFlag::O_CREAT)?;
            Ok((entry, opened))
        };
        match self.check_new_name(&parent, name) {
            Err(Error::Exists) if !flags.contains(OFlag::O_EXCL) => return open_it(),
            checked => checked?,
        }
        let names = parent.names().write();
        let node = NewNode::Node { mode: libc::S_IFREG | (mode & 0o7777), device: (0, 0) };
        let mut opened = None;
        let made = check_no_point(&parent, name)
            .and_then(|()| self.make_locked(caller, &parent, name, node, Some(&mut opened)));
        match made {
            Ok(()) => {}
            Err(Error::Exists) if !flags.contains(OFlag::O_EXCL) => {
                drop(names);
                return open_it();
            }
            Err(error) => return Err(error),
        }
        let mut entry = self.made_locked(&parent, name)?;
        let opened = self.open_made(caller, &entry.inode, flags, opened)?;
        entry.attr.lifetime = self.lifetime(&entry.inode);
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
        let upper = parent.stack.writable()?;
        let bytes = name.as_bytes();
        if bytes.len() > upper.name_max() {
            return Err(Error::NameTooLong);
        }
        if mark::is_reserved(bytes) {
            return Err(Error::Invalid("names that begin with .wh. are whiteouts in a layer"));
        }
        Ok(())
    }

    /// The inode of what was just made.
    fn made_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Entry<'_>> {
        let entry = self.lookup_locked(parent, name)?.ok_or(if parent.stack.is_direct() {
            // Somebody else was quick to take it away.
            Error::Stale
        } else {
            Error::Bug("what was just made is not there")
        })?;
        self.list_name(parent, name, &entry.inode);
        Ok(entry)
    }

    /// What is under `name`, which must show nothing. Errors: `Exists`. Locks: the parent's names, for writing.
    pub(super) fn under_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Under> {
        if parent.state.read().gone {
            return Err(Error::NotFound);
        }
        let mut under = Under { whiteout: false, whiteout_file: false, lower_shows: false };
        let Some(upper) = parent.upper_dir() else { return Err(Error::Bug("a parent without upper part")) };
        let fd = upper.fd().call("openat2")?;
        match stat(At::new(fd.as_fd(), name)) {
            Ok(found) if found.is_whiteout_device() => under.whiteout = true,
            Ok(_) => return Err(Error::Exists),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::Sys { call: "statx", errno }),
        }
        if !parent.lower_dirs().is_empty() && !upper.is(Fact::NoWhiteoutFiles) {
            let file = [mark::WHITEOUT_PREFIX, name.as_bytes()].concat();
            under.whiteout_file = stat(At::new(fd.as_fd(), OsStr::from_bytes(&file))).is_ok();
        }
        under.lower_shows = self.lower_shows(parent, name)?;
        if under.lower_shows && !under.whiteout && !under.whiteout_file {
            return Err(Error::Exists);
        }
        Ok(under)
    }

    /// Whether the lower layers would show something under `name` if the upper layer said nothing.
    pub(super) fn lower_shows(&self, parent: &Inode, name: &OsStr) -> Result<bool> {
        if parent.lower_dirs().is_empty() {
            return Ok(false);
        }
        Ok(!matches!(parent.stack.resolve(parent.parts().below(), name)?, Outcome::Absent))
    }

    /// Makes the object and puts it into place. Returns a regular file open, if asked.
    fn make_locked(
        &self,
        caller: Caller,
        parent: &Arc<Inode>,
        name: &OsStr,
        node: NewNode<'_>,
        opened: Option<&mut Option<OwnedFd>>,
    ) -> Result<()> {
        self.copy_up.ensure(parent, Need::Metadata)?;
        let owner = disk_caller(parent, caller)?;
        if parent.stack.is_direct() {
            return self.make_direct(owner, parent, name, node, opened);
        }
        let upper = parent.stack.writable()?;
        let under = self.under_locked(parent, name)?;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let fd = dir.fd().call("openat2")?;
        // As the kernel: whatever the lowers have under this name, now or after they were changed offline, is hidden.
        let opaque = matches!(node, NewNode::Dir { .. }) && !parent.lower_dirs().is_empty();
        let _changing = dir.changing();
        if !under.whiteout && !opaque && !parent.stack.by_attribute() && !is_whiteout_device(node) {
            let made = cred::as_caller(owner, || make_at(At::new(fd.as_fd(), name), node, opened));
            made.call("mknodat")?;
        } else {
            self.make_in_workdir(owner, parent, &fd, name, node, under.whiteout, opaque, opened)?;
        }
        if under.whiteout_file {
            upper.remove_whiteout_file(fd.as_fd(), name)?;
        }
        if self.copy_up.fsync() == crate::config::FsyncMode::Strict {
            name::sync_dir(fd.as_fd()).call("fsync")?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one new object, used once")]
    fn make_in_workdir(
        &self,
        owner: cred::Caller,
        parent: &Inode,
        dir: &OwnedFd,
        name: &OsStr,
        node: NewNode<'_>,
        whiteout: bool,
        opaque: bool,
        opened: Option<&mut Option<OwnedFd>>,
    ) -> Result<()> {
        let upper = parent.stack.writable()?;
        let temp = upper.temp();
        prepare(owner, &parent.stack, dir, &temp, node, opened)?;
        if opaque {
            upper.set_opaque(temp.at())?;
        }
        upper.place(temp, dir.as_fd(), name, whiteout)
    }

    /// A char 0:0 that the mount will show in `parent`, in the workdir so far. Errors: `Invalid` where none can be made.
    pub(super) fn shown_whiteout<'a>(&self, caller: Caller, parent: &'a Inode) -> Result<Temp<'a>> {
        let upper = parent.stack.writable()?;
        let dir =
            parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?.fd().call("openat2")?;
        let temp = upper.temp();
        let node = NewNode::Node { mode: libc::S_IFCHR, device: (0, 0) };
        match prepare(disk_caller(parent, caller)?, &parent.stack, &dir, &temp, node, None) {
            Ok(()) => Ok(temp),
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
        let fd = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?.fd().call("openat2")?;
        upper.place(whiteout, fd.as_fd(), name, under.whiteout)?;
        if under.whiteout_file {
            upper.remove_whiteout_file(fd.as_fd(), name)?;
        }
        self.made_locked(parent, name).map(drop)
    }
}

/// Errors: `Exists` where something is attached, or below. Locks: the parent's names, for it to stay true.
pub(super) fn check_no_point(parent: &Inode, name: &OsStr) -> Result<()> {
    if parent.point(name).is_some() { Err(Error::Exists) } else { Ok(()) }
}

/// Makes in the workdir what is to appear in the upper directory `dir`.
fn prepare(
    owner: cred::Caller,
    stack: &Stack,
    dir: &OwnedFd,
    temp: &Temp<'_>,
    node: NewNode<'_>,
    opened: Option<&mut Option<OwnedFd>>,
) -> Result<()> {
    if !stack.by_attribute() {
        let stored = if is_whiteout_device(node) { disguise(node) } else { node };
        make_at(temp.at(), stored, opened).call("mknodat")?;
        inherit(owner, dir, temp.at(), node)?;
        if is_whiteout_device(node) {
            stack.writable()?.set_mark(temp.at(), Mark::Device, b"0:0")?;
        }
        Ok(())
    } else {
        make_by_attribute(stack, owner, dir, temp.at(), node, opened)
    }
}

/// Makes an object whose owner, mode and type are in an attribute.
fn make_by_attribute(
    stack: &Stack,
    owner: cred::Caller,
    dir: &OwnedFd,
    at: At<'_>,
    node: NewNode<'_>,
    opened: Option<&mut Option<OwnedFd>>,
) -> Result<()> {
    let above = stat_shown(stack, At::fd(dir.as_fd()))?;
    let (real, kind, mode, device) = match node {
        NewNode::Symlink(_) => return make_at(at, node, None).call("symlinkat"),
        NewNode::Dir { mode } => (NewNode::Dir { mode: 0o755 }, FileKind::Dir, mode, (0, 0)),
        NewNode::Node { mode, device } => {
            let kind = crate::sys::stat::kind_of(mode).ok_or(Error::Invalid("an unknown type"))?;
            (NewNode::Node { mode: libc::S_IFREG | 0o644, device: (0, 0) }, kind, mode, device)
        }
    };
    make_at(at, real, opened).call("mknodat")?;
    let setgid = above.mode & libc::S_ISGID != 0;
    let mut bits = mode & !owner.umask & 0o7777;
    if setgid && kind == FileKind::Dir {
        bits |= libc::S_ISGID;
    }
    change_override(stack.terms.permissions, at, |over| {
        over.uid = owner.uid;
        over.gid = if setgid { above.gid } else { owner.gid };
        over.mode = bits;
        over.kind = Some((kind, device.0, device.1));
    })
}

/// A caller's char 0:0. In a layer that is a whiteout, so it is kept under another number with a mark; an overlay on top
/// of this mount can then keep its own whiteouts here. Departs: the kernel refuses it with EPERM.
fn is_whiteout_device(node: NewNode<'_>) -> bool {
    matches!(node, NewNode::Node { mode, device: (0, 0) } if mode & libc::S_IFMT == libc::S_IFCHR)
}

fn disguise(node: NewNode<'_>) -> NewNode<'_> {
    match node {
        NewNode::Node { mode, .. } => NewNode::Node { mode, device: mark::DISGUISED_DEVICE },
        node => node,
    }
}

/// Makes the object at `at` with the thread's ids and umask.
pub(super) fn make_at(
    at: At<'_>,
    node: NewNode<'_>,
    opened: Option<&mut Option<OwnedFd>>,
) -> nix::Result<()> {
    match node {
        NewNode::Dir { mode } => name::mkdir(at, mode),
        NewNode::Symlink(target) => name::symlink(target, at),
        NewNode::Node { mode, device } => match opened {
            Some(slot) => {
                *slot = Some(open::create(at, OFlag::O_RDWR, mode & 0o7777)?);
                Ok(())
            }
            None => name::mknod(at, mode, device.0, device.1),
        },
    }
}

/// Gives an object made in the workdir what it would have got in its directory: owner, group, ACLs, mode.
/// Source: kernel `ovl_create_over_whiteout`, `inode_init_owner`.
fn inherit(owner: cred::Caller, dir: &OwnedFd, at: At<'_>, node: NewNode<'_>) -> Result<()> {
    let above = stat(At::fd(dir.as_fd())).call("statx")?;
    let setgid = above.mode & libc::S_ISGID != 0;
    let gid = if setgid { above.gid } else { owner.gid };
    attr::chown(at, Some(owner.uid), Some(gid)).call("fchownat")?;
    let (mode, is_dir) = match node {
        NewNode::Symlink(_) => return Ok(()),
        NewNode::Dir { mode } => (mode, true),
        NewNode::Node { mode, .. } => (mode & 0o7777, false),
    };
    let default = xattr::get(At::fd(dir.as_fd()), ACL_DEFAULT).call("getxattr")?;
    let inherited = default.as_deref().and_then(|default| acl::inherit(default, mode));
    let mut bits = inherited.as_ref().map_or(mode & !owner.umask, |inherited| inherited.mode);
    if let (Some(default), true) = (&default, is_dir) {
        xattr::set(at, ACL_DEFAULT, default, xattr::SetMode::Any).call("setxattr")?;
    }
    if let Some(access) = inherited.and_then(|inherited| inherited.access) {
        xattr::set(at, ACL_ACCESS, &access, xattr::SetMode::Any).call("setxattr")?;
    }
    if setgid && is_dir {
        bits |= libc::S_ISGID;
    } else if setgid
        && owner.uid != 0
        && owner.gid != gid
        && bits & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP
    {
        bits &= !libc::S_ISGID;
    }
    attr::chmod(at, bits).call("fchmodat2")
}
