//! An object as it is to appear: made in the workdir with what it would have got in its directory, or made there at once.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::Caller;
use super::attr::{change_override, stat_shown};
use super::create::NewNode;
use super::ids::may_set_group_id;
use crate::error::{Context, Error, Result};
use crate::layer::real_dir::Fact;
use crate::layer::workdir::Temp;
use crate::layer::{RealDir, Stack};
use crate::merge::listing::FileKind;
use crate::merge::mark::Mark;
use crate::merge::{acl, mark};
use crate::sys::stat::stat;
use crate::sys::{At, attr, cred, name, open, xattr};

const ACL_ACCESS: &std::ffi::CStr = c"system.posix_acl_access";
const ACL_DEFAULT: &std::ffi::CStr = c"system.posix_acl_default";

/// What to make, for whom.
pub(super) struct New<'a> {
    /// Who asked.
    pub caller: Caller,
    /// The same, in ids as they are on disk.
    pub owner: cred::Caller,
    /// What.
    pub node: NewNode<'a>,
    /// It is a regular file, and is to be open for reading and writing.
    pub open: bool,
}

/// What an object gets from the directory it is made in.
struct Heritage {
    /// The group of a set-group-id directory.
    group: Option<u32>,
    /// The default ACL.
    acl: Option<Vec<u8>>,
}

/// Makes in the workdir what is to appear in the upper directory `dir`. Returns it open, if that is asked for.
pub(super) fn prepare(
    new: &New<'_>,
    stack: &Stack,
    dir: &Arc<RealDir>,
    temp: &Temp<'_>,
) -> Result<Option<OwnedFd>> {
    if stack.by_attribute() {
        let fd = dir.fd().call("openat2")?;
        return make_by_attribute(stack, new.owner, &fd, temp.at(), new.node, new.open);
    }
    let stored = if is_whiteout_device(new.node) { disguise(new.node) } else { new.node };
    let heritage = heritage(dir)?;
    // With the daemon's own ids: as the caller it may not enter the workdir.
    let opened =
        cred::with_umask(new.owner.umask, || make_at(temp.at(), stored, new.open)).call("mknodat")?;
    inherit(new, stack, &heritage, temp.at())?;
    if is_whiteout_device(new.node) {
        stack.writable()?.set_mark(temp.at(), Mark::Device, b"0:0")?;
    }
    Ok(opened)
}

/// What is made in `dir` gets from it. That there is nothing to get is remembered until the directory's mode or ACL changes.
fn heritage(dir: &Arc<RealDir>) -> Result<Heritage> {
    if dir.is(Fact::NothingToInherit) {
        return Ok(Heritage { group: None, acl: None });
    }
    // Before it is asked: whoever changes the directory meanwhile takes the note back after his change.
    dir.note(Fact::NothingToInherit, true);
    let fd = dir.fd().call("openat2")?;
    let asked = || -> Result<Heritage> {
        let above = stat(At::fd(fd.as_fd())).call("statx")?;
        let acl = xattr::get(At::fd(fd.as_fd()), ACL_DEFAULT).call("getxattr")?;
        Ok(Heritage { group: (above.mode & libc::S_ISGID != 0).then_some(above.gid), acl })
    };
    let heritage = asked();
    if !matches!(heritage, Ok(Heritage { group: None, acl: None })) {
        dir.note(Fact::NothingToInherit, false);
    }
    heritage
}

/// Makes an object whose owner, mode and type are in an attribute.
fn make_by_attribute(
    stack: &Stack,
    owner: cred::Caller,
    dir: &OwnedFd,
    at: At<'_>,
    node: NewNode<'_>,
    open: bool,
) -> Result<Option<OwnedFd>> {
    let above = stat_shown(stack, At::fd(dir.as_fd()))?;
    let (real, kind, mode, device) = match node {
        NewNode::Symlink(_) => return make_at(at, node, false).call("symlinkat"),
        NewNode::Dir { mode } => (NewNode::Dir { mode: 0o755 }, FileKind::Dir, mode, (0, 0)),
        NewNode::Node { mode, device } => {
            let kind = crate::sys::stat::kind_of(mode).ok_or(Error::Invalid("an unknown type"))?;
            (NewNode::Node { mode: libc::S_IFREG | 0o644, device: (0, 0) }, kind, mode, device)
        }
    };
    let opened = make_at(at, real, open).call("mknodat")?;
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
    })?;
    Ok(opened)
}

/// A caller's char 0:0. In a layer that is a whiteout, so it is kept under another number with a mark; an overlay on top
/// of this mount can then keep its own whiteouts here. Departs: the kernel refuses it with EPERM.
pub(super) fn is_whiteout_device(node: NewNode<'_>) -> bool {
    matches!(node, NewNode::Node { mode, device: (0, 0) } if mode & libc::S_IFMT == libc::S_IFCHR)
}

fn disguise(node: NewNode<'_>) -> NewNode<'_> {
    match node {
        NewNode::Node { mode, .. } => NewNode::Node { mode, device: mark::DISGUISED_DEVICE },
        node => node,
    }
}

/// Makes the object at `at` with the thread's ids and umask. Returns a regular file open, if asked.
pub(super) fn make_at(at: At<'_>, node: NewNode<'_>, open: bool) -> nix::Result<Option<OwnedFd>> {
    match node {
        NewNode::Dir { mode } => name::mkdir(at, mode).map(|()| None),
        NewNode::Symlink(target) => name::symlink(target, at).map(|()| None),
        NewNode::Node { mode, .. } if open => open::create(at, OFlag::O_RDWR, mode & 0o7777).map(Some),
        NewNode::Node { mode, device } => name::mknod(at, mode, device.0, device.1).map(|()| None),
    }
}

/// Whether what has these bits runs as its group. Without the right to execute, the bit means something else.
fn is_set_group_id(bits: u32) -> bool {
    bits & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP
}

/// Whether a file is to run as its group. The filesystem takes that from whom it does not know to be in the group, and it knows of
/// one group of the caller.
pub(super) fn asks_for_group_id(node: NewNode<'_>) -> bool {
    matches!(node, NewNode::Node { mode, .. } if is_set_group_id(mode))
}

/// Gives an object made in the workdir, where it got the ids `maker`, what it would have got in its directory: owner, group,
/// ACLs, mode. Source: kernel `ovl_create_over_whiteout`, `inode_init_owner`.
fn inherit(new: &New<'_>, stack: &Stack, heritage: &Heritage, at: At<'_>) -> Result<()> {
    let (owner, node, maker) = (new.owner, new.node, stack.writable()?.maker);
    let setgid = heritage.group.is_some();
    let gid = heritage.group.unwrap_or(owner.gid);
    let changes_owner = (owner.uid, gid) != maker;
    if changes_owner {
        attr::chown(at, Some(owner.uid), Some(gid)).call("fchownat")?;
    }
    let (mode, is_dir) = match node {
        NewNode::Symlink(_) => return Ok(()),
        NewNode::Dir { mode } => (mode, true),
        NewNode::Node { mode, .. } => (mode & 0o7777, false),
    };
    let inherited = heritage.acl.as_deref().and_then(|default| acl::inherit(default, mode));
    let mut bits = inherited.as_ref().map_or(mode & !owner.umask, |inherited| inherited.mode);
    let plain = heritage.acl.is_none() && bits & !0o777 == 0;
    if let (Some(default), true) = (&heritage.acl, is_dir) {
        xattr::set(at, ACL_DEFAULT, default, xattr::SetMode::Any).call("setxattr")?;
    }
    if let Some(access) = inherited.and_then(|inherited| inherited.access) {
        xattr::set(at, ACL_ACCESS, &access, xattr::SetMode::Any).call("setxattr")?;
    }
    if setgid && is_dir {
        bits |= libc::S_ISGID;
    } else if setgid && is_set_group_id(bits) && !may_set_group_id(&stack.terms.ids, new.caller, gid) {
        bits &= !libc::S_ISGID;
    }
    // What has but plain permissions got them when it was made, and a change of owner leaves them.
    if plain && !(setgid && is_dir) { Ok(()) } else { attr::chmod(at, bits).call("fchmodat2") }
}
