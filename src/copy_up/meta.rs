//! Everything but bytes: owner, attributes, mode, times. Complete, or the operation fails.

use std::ffi::CStr;

use nix::errno::Errno;

use crate::config::XattrPermissions;
use crate::error::{Context, Error, Result};
use crate::layer::override_stat;
use crate::merge::listing::FileKind;
use crate::merge::mark::{self, Namespace};
use crate::sys::At;
use crate::sys::attr::{self, SetTime};
use crate::sys::stat::Stat;
use crate::sys::xattr::{self, SetMode};

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

/// Gives the object at `to`, which is as it was `made`, what the one at `from` has, but for the times. `from_stat` is what
/// `from` was when the copy began.
///
/// The order is the point: a change of owner clears set-id bits and `security.capability`, so it comes first; an ACL
/// changes the mode, so the mode comes after. Anything changes the times: `copy_times` comes last.
pub fn copy(
    namespace: Namespace,
    permissions: XattrPermissions,
    from: At<'_>,
    from_stat: &Stat,
    to: At<'_>,
    made: Made,
) -> Result<()> {
    if permissions != XattrPermissions::Off {
        return copy_by_attribute(namespace, permissions, from, from_stat, to, made);
    }
    if made.ids != (from_stat.uid, from_stat.gid) {
        attr::chown(to, Some(from_stat.uid), Some(from_stat.gid)).call("fchownat")?;
    }
    let copied = copy_xattrs(namespace, from, to)?;
    let is_as_made = copied == 0 && made.mode == from_stat.mode;
    if from_stat.kind != FileKind::Symlink && !is_as_made {
        attr::chmod(to, from_stat.mode).call("fchmodat2")?;
    }
    Ok(())
}

/// As `copy`, where owner, mode and type go into an attribute and the object stays the daemon's own.
fn copy_by_attribute(
    namespace: Namespace,
    permissions: XattrPermissions,
    from: At<'_>,
    from_stat: &Stat,
    to: At<'_>,
    made: Made,
) -> Result<()> {
    copy_xattrs(namespace, from, to)?;
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

/// Gives the object at `to` these times.
pub fn copy_times(from: &Stat, to: At<'_>) -> Result<()> {
    attr::utimens(to, SetTime::To(from.atime), SetTime::To(from.mtime)).call("utimensat")
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
