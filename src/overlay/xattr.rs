//! Extended attributes: those of the object, without the layers' own marks.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Caller, Overlay};
use crate::config::XattrPermissions;
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::Ino;
use crate::merge::mark;
use crate::sys::xattr::{self, SetMode};

const ACL_PREFIX: &[u8] = b"system.posix_acl_";

impl Overlay {
    /// The attribute's value, read into `buffer`; its length. An empty buffer asks for the length only.
    /// Errors: `NoAttribute`, `Range`.
    pub fn getxattr(&self, ino: Ino, name: &OsStr, buffer: &mut [u8]) -> Result<usize> {
        let stored = self.stored(name).map_err(|error| match error {
            Error::NotPermitted(_) => Error::NoAttribute,
            error => error,
        })?;
        self.inode(ino)?.with(|at| xattr::get_into(at, &stored, buffer).call("getxattr"))
    }

    /// The names of all attributes that `caller` may know of, each ended by a NUL.
    pub fn listxattr(&self, caller: Caller, ino: Ino) -> Result<Vec<u8>> {
        let names = self.inode(ino)?.with(|at| xattr::list(at).call("listxattr"))?;
        let mut shown = Vec::new();
        for name in names {
            let Some(name) = mark::shown_attribute(name.to_bytes()) else { continue };
            let hidden = name.as_bytes().starts_with(b"trusted.") && caller.uid != 0;
            if hidden || self.is_own(name.as_bytes()) || (!self.settings.acl && is_acl(name.as_bytes())) {
                continue;
            }
            shown.extend_from_slice(&name.into_vec());
            shown.push(0);
        }
        Ok(shown)
    }

    /// Sets an attribute.
    pub fn setxattr(&self, ino: Ino, name: &OsStr, value: &[u8], mode: SetMode) -> Result<()> {
        let stored = self.stored(name)?;
        let inode = self.inode(ino)?;
        self.copy_up.ensure(&inode, Need::Metadata)?;
        inode.with(|at| xattr::set(at, &stored, value, mode).call("setxattr"))?;
        self.copy_up.changed(&inode);
        Ok(())
    }

    /// Removes an attribute. Errors: `NoAttribute`.
    pub fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        let stored = self.stored(name)?;
        let inode = self.inode(ino)?;
        // What is not there need not be copied up to be removed.
        inode.with(|at| xattr::get_into(at, &stored, &mut []).call("getxattr"))?;
        self.copy_up.ensure(&inode, Need::Metadata)?;
        inode.with(|at| xattr::remove(at, &stored).call("removexattr"))?;
        self.copy_up.changed(&inode);
        Ok(())
    }

    /// The name under which the layers keep the attribute. Errors: `NotPermitted` for what belongs to marks.
    fn stored(&self, name: &OsStr) -> Result<CString> {
        if !self.settings.acl && is_acl(name.as_bytes()) {
            return Err(Error::Unsupported);
        }
        if self.is_own(name.as_bytes()) {
            return Err(Error::NotPermitted("the attribute holds what the mount shows as owner and mode"));
        }
        let stored =
            mark::stored_attribute(name).ok_or(Error::NotPermitted("the attribute is a layer's own"))?;
        CString::new(stored.into_vec()).map_err(|_| Error::Invalid("a NUL byte in an attribute's name"))
    }

    /// Whether the attribute stands for owner and mode in this mount.
    fn is_own(&self, name: &[u8]) -> bool {
        self.settings.xattr_permissions != XattrPermissions::Off
            && crate::merge::override_stat::ATTRIBUTES.iter().any(|own| own.to_bytes() == name)
    }
}

fn is_acl(name: &[u8]) -> bool {
    name.starts_with(ACL_PREFIX)
}
