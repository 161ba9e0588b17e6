//! Objects that keep owner, mode and type in an attribute, because the daemon may not set them on disk. On disk such an
//! object is a regular file or a directory that its owner may read and write. What the attribute looks like is
//! `merge::override_stat`'s matter.

use std::ffi::CStr;

use nix::Result;
use nix::errno::Errno;

use crate::config::XattrPermissions;
use crate::merge::listing::FileKind;
use crate::merge::override_stat::{ATTRIBUTES, Override};
use crate::sys::stat::Stat;
use crate::sys::{At, xattr};

/// The attribute that a mount writes.
fn own(permissions: XattrPermissions) -> &'static CStr {
    match permissions {
        XattrPermissions::Security => ATTRIBUTES[1],
        XattrPermissions::User | XattrPermissions::Off => ATTRIBUTES[0],
    }
}

/// What the object at `at` says of itself; nothing if it has no attribute, or one that cannot be understood. What this
/// kind of mount writes goes before what another kind has left.
pub fn read(at: At<'_>, permissions: XattrPermissions) -> Result<Option<Override>> {
    let own = own(permissions);
    let others = ATTRIBUTES.into_iter().filter(|attribute| *attribute != own);
    for attribute in std::iter::once(own).chain(others) {
        match xattr::get(at, attribute) {
            Ok(Some(value)) => return Ok(Override::parse(&value)),
            Ok(None) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Puts what the object at `at` says of itself in the place of what is on disk. Symlinks say nothing.
pub fn apply(real: &mut Stat, at: At<'_>, permissions: XattrPermissions) -> Result<()> {
    if real.kind == FileKind::Symlink {
        return Ok(());
    }
    let Some(over) = read(at, permissions)? else { return Ok(()) };
    (real.uid, real.gid, real.mode) = (over.uid, over.gid, over.mode);
    match over.kind {
        // Only a regular file stands for something else, and never for what has content of its own.
        Some((kind, major, minor))
            if real.kind == FileKind::Regular && !matches!(kind, FileKind::Dir | FileKind::Symlink) =>
        {
            (real.kind, real.rdev_major, real.rdev_minor) = (kind, major, minor);
        }
        _ => {}
    }
    Ok(())
}

/// What an object that shows as `shown` has to say of itself.
pub fn of(shown: &Stat) -> Override {
    Override {
        uid: shown.uid,
        gid: shown.gid,
        mode: shown.mode,
        kind: Some((shown.kind, shown.rdev_major, shown.rdev_minor)),
    }
}

/// Makes the object at `at` say `over` of itself.
pub fn write(at: At<'_>, permissions: XattrPermissions, over: &Override) -> Result<()> {
    xattr::set(at, own(permissions), over.format().as_bytes(), xattr::SetMode::Any)
}
