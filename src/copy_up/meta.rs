//! Everything but bytes: owner, attributes, mode, times. Complete, or the operation fails.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::config::XattrPermissions;
use crate::error::{Context, Error, Result};
use crate::layer::{Stack, Upper, override_stat};
use crate::merge::listing::FileKind;
use crate::merge::mark::{self, Mark, Namespace};
use crate::merge::protection::Protection;
use crate::sys::attr::{self, SetTime, flag};
use crate::sys::stat::{Stat, stat};
use crate::sys::xattr::{self, SetMode};
use crate::sys::{At, open};

/// What a new object has got by being made.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// Owner and group.
    pub ids: (u32, u32),
    /// Permission bits.
    pub mode: u32,
}

impl Made {
    /// What `stat` says of it.
    pub fn of(stat: &Stat) -> Made {
        Made { ids: (stat.uid, stat.gid), mode: stat.mode }
    }
}

/// What a copy depends on beside the object itself.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Where marks are, which are not copied.
    pub namespace: Namespace,
    /// Where owner, mode and type are kept.
    pub permissions: XattrPermissions,
    /// Every file shows the same owner, so the owner on disk is of no account.
    pub squashes_uid: bool,
    /// Every file shows the same group.
    pub squashes_gid: bool,
}

impl Rules {
    /// Those of a copy into the upper layer of `stack`.
    pub fn of(stack: &Stack) -> Rules {
        let terms = &stack.terms;
        Rules {
            namespace: stack.namespace,
            permissions: terms.permissions,
            squashes_uid: terms.ids.squash_uid.is_some(),
            squashes_gid: terms.ids.squash_gid.is_some(),
        }
    }
}

/// Gives the object at `to`, which is as it was `made`, what the one at `from` has, but for the times. `from_stat` is what
/// `from` was when the copy began.
///
/// The order is the point: a change of owner clears set-id bits and `security.capability`, so it comes first; an ACL
/// changes the mode, so the mode comes after. Anything changes the times: `copy_times` comes last.
pub fn copy(rules: Rules, from: At<'_>, from_stat: &Stat, to: At<'_>, made: Made) -> Result<()> {
    if rules.permissions != XattrPermissions::Off {
        return copy_by_attribute(rules, from, from_stat, to, made);
    }
    let mut mode = from_stat.mode;
    if made.ids != (from_stat.uid, from_stat.gid) {
        let owner = copy_owner(rules, from_stat, to)?;
        if owner == Owner::OfTheDaemon {
            mode &= !(libc::S_ISUID | libc::S_ISGID);
        }
    }
    let copied = copy_xattrs(rules.namespace, from, to)?;
    let is_as_made = copied == 0 && made.mode == mode;
    if from_stat.kind != FileKind::Symlink && !is_as_made {
        attr::chmod(to, mode).call("fchmodat2")?;
    }
    Ok(())
}

/// Whose a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// That of the original.
    Same,
    /// The daemon's user or group, or both. Set-id bits must not be copied.
    OfTheDaemon,
}

/// Gives the copy at `to` the owner and group of the original. The user namespace of the daemon may not have these ids; where
/// every file shows the same owner anyway, the copy then keeps the daemon's. Source: the effect of fuse-overlayfs 1.10 and
/// 2.0 with `squash_to_root` in a user namespace of one id.
///
/// # Errors
///
/// `Invalid` for an id that the user namespace does not have and that is not squashed.
fn copy_owner(rules: Rules, from: &Stat, to: At<'_>) -> Result<Owner> {
    match attr::chown(to, Some(from.uid), Some(from.gid)) {
        Err(Errno::EINVAL) if rules.squashes_uid || rules.squashes_gid => {
            let uid = (!rules.squashes_uid).then_some(from.uid);
            let gid = (!rules.squashes_gid).then_some(from.gid);
            attr::chown(to, uid, gid).call("fchownat")?;
            Ok(Owner::OfTheDaemon)
        }
        result => result.call("fchownat").map(|()| Owner::Same),
    }
}

/// As `copy`, where owner, mode and type go into an attribute and the object stays the daemon's own.
fn copy_by_attribute(rules: Rules, from: At<'_>, from_stat: &Stat, to: At<'_>, made: Made) -> Result<()> {
    let permissions = rules.permissions;
    copy_xattrs(rules.namespace, from, to)?;
    let mut shown = *from_stat;
    override_stat::apply(&mut shown, from, permissions).call("getxattr")?;
    if shown.kind != FileKind::Symlink {
        let mode = if shown.kind == FileKind::Dir { 0o755 } else { 0o644 };
        if made.mode != mode {
            attr::chmod(to, mode).call("fchmodat2")?;
        }
        override_stat::write(to, permissions, &override_stat::of(&shown)).call("setxattr")?;
    }
    Ok(())
}

/// Gives the copy `to` of a file or directory the inode flags that can be copied. Those that would forbid to put anything into it go
/// into a mark. Source: kernel `ovl_copy_fileattr`; of the flags `d` is copied here as well.
pub fn copy_flags(upper: &Upper, from: At<'_>, stat: &Stat, to: At<'_>) -> Result<()> {
    if !matches!(stat.kind, FileKind::Regular | FileKind::Dir) {
        return Ok(());
    }
    let protection = Protection { immutable: stat.immutable, append: stat.append_only };
    if let Some(value) = protection.format() {
        upper.set_mark(to, Mark::Protattr, value)?;
    }
    let flags_of = |at| open::file(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
    // A filesystem without flags has none to copy, and one that cannot keep them is no reason to refuse a change.
    let Ok(flags) = flags_of(from).and_then(|from| attr::flags(from.as_fd())) else { return Ok(()) };
    let flags = flags & (flag::SYNC | flag::NOATIME | flag::NODUMP);
    if flags == 0 {
        return Ok(());
    }
    let copied = flags_of(to).and_then(|to| attr::set_flags(to.as_fd(), attr::flags(to.as_fd())? | flags));
    if let Err(errno) = copied {
        tracing::debug!("inode flags {flags:#x} are lost at copy-up: {errno}");
    }
    Ok(())
}

/// Gives the object at `to` these times.
pub fn copy_times(from: &Stat, to: At<'_>) -> Result<()> {
    attr::utimens(to, SetTime::To(from.atime), SetTime::To(from.mtime)).call("utimensat")
}

/// Gives the root of a new upper layer what the topmost lower layer's has: it is what the mount shows. An owner whom the daemon
/// may not give it to is not copied, as for no other directory: the root is there already.
pub fn copy_root(stack: &Stack) -> Result<()> {
    let mut roots = stack.roots();
    let (Some(upper), Some(lower)) = (roots.next(), roots.next()) else { return Ok(()) };
    let (upper, lower) = (upper.fd().call("openat2")?, lower.fd().call("openat2")?);
    let (to, from) = (At::fd(upper.as_fd()), At::fd(lower.as_fd()));
    let made = Made::of(&stat(to).call("statx")?);
    let mut shown = stat(from).call("statx")?;
    let rules = Rules::of(stack);
    if rules.permissions == XattrPermissions::Off && made.ids != (shown.uid, shown.gid) {
        let given = attr::chown(to, Some(shown.uid), Some(shown.gid));
        if given.is_err() {
            (shown.uid, shown.gid) = made.ids;
        }
    }
    copy(rules, from, &shown, to, made)?;
    copy_times(&shown, to)
}

/// How many attributes have come along.
fn copy_xattrs(namespace: Namespace, from: At<'_>, to: At<'_>) -> Result<usize> {
    let mut copied = 0;
    for name in xattr::list(from).call("listxattr")? {
        // The lower object's own marks mean something only where it is. Escaped ones are the user's, and go along.
        if mark::shown_attribute(namespace, name.to_bytes()).is_none() {
            continue;
        }
        let Some(value) = xattr::get(from, &name).call("getxattr")? else { continue };
        match xattr::set(to, &name, &value, SetMode::Any) {
            Ok(()) => copied += 1,
            Err(Errno::EOPNOTSUPP) if !must_come_along(&name) => {}
            Err(errno) => return Err(Error::Sys { call: "setxattr", errno }),
        }
    }
    Ok(copied)
}

/// Without these the copy would allow what the original forbids. Source: kernel `ovl_must_copy_xattr`.
fn must_come_along(name: &CStr) -> bool {
    let name = name.to_bytes();
    name.starts_with(b"security.") || name.starts_with(b"system.posix_acl_")
}
