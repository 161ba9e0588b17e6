//! Extended attributes: those of the object, without the layers' own marks.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;

use super::ids::{disk_acl, may_set_group_id, shown_acl};
use super::protect::Change;
use super::{Caller, Overlay};
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Ino, Inode};
use crate::layer::Stack;
use crate::layer::real_dir::Fact;
use crate::merge::mark;
use crate::sys::stat::stat;
use crate::sys::xattr::{self, SetMode};
use crate::sys::{At, attr};

const ACL_PREFIX: &[u8] = b"system.posix_acl_";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// What programs ask every file for: ls(1) and cp(1), and the kernel itself before it runs one.
const ASKED_OF_ALL: [&str; 4] =
    ["security.selinux", "security.capability", "system.posix_acl_access", "system.posix_acl_default"];
/// On the mount's root: the path of its control socket.
const SOCKET: &str = "user.stratafs.socket";

impl Overlay {
    /// The attribute's value, read into `buffer`; its length. An empty buffer asks for the length only.
    /// Errors: `NoAttribute`, `Range`.
    pub fn getxattr(&self, ino: Ino, name: &OsStr, buffer: &mut [u8]) -> Result<usize> {
        let inode = self.inode(ino)?;
        if let Some(value) = self.virtual_value(&inode, name) {
            return read_into(value, buffer);
        }
        let stored = self.stored(&inode.stack, name).map_err(|error| match error {
            Error::NotPermitted(_) => Error::NoAttribute,
            error => error,
        })?;
        // Nobody but the mount gives attributes to what is in layers.
        let asked = if inode.stack.is_direct() { None } else { asked_of_all(name) };
        if inode.is_synthetic() || asked.is_some_and(|bit| inode.absent.knows(bit)) {
            return Err(Error::NoAttribute);
        }
        let read = inode.with(|at| match xattr::get_into(at, &stored, buffer) {
            // The kernel asks for the ACL before it lets anybody in, and takes any other errno for the answer to that.
            Err(Errno::EOPNOTSUPP) if is_acl(name.as_bytes()) => Err(Error::NoAttribute),
            read => read.call("getxattr"),
        });
        if let (Some(bit), Err(Errno::ENODATA)) = (asked, read.as_ref().map_err(Error::errno)) {
            inode.absent.note(bit);
        }
        let len = read?;
        if is_acl(name.as_bytes()) {
            // Nothing was read where only the size was asked for.
            if let Some(value) = buffer.get_mut(..len) {
                shown_acl(&inode.stack.terms.ids, value);
            }
        }
        Ok(len)
    }

    /// What the mount says about itself by an attribute that no layer has. Readable by everybody, never listed, so that no
    /// copy of the tree has it.
    fn virtual_value(&self, inode: &Inode, name: &OsStr) -> Option<&[u8]> {
        (inode.ino == Ino::ROOT && name == SOCKET).then_some(())?;
        Some(self.socket.get()?.as_os_str().as_bytes())
    }

    /// The names of all attributes that `caller` may know of, each ended by a NUL.
    pub fn listxattr(&self, caller: Caller, ino: Ino) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        if inode.is_synthetic() {
            return Ok(Vec::new());
        }
        let names = inode.with(|at| xattr::list(at).call("listxattr"))?;
        let mut shown = Vec::new();
        for name in names {
            let shown_as = match inode.stack.is_direct() {
                true => Some(OsString::from_vec(name.to_bytes().to_vec())),
                false => mark::shown_attribute(inode.stack.namespace, name.to_bytes()),
            };
            let Some(name) = shown_as else { continue };
            let hidden = name.as_bytes().starts_with(b"trusted.") && caller.uid != 0;
            if hidden || is_own(&inode.stack, name.as_bytes()) {
                continue;
            }
            shown.extend_from_slice(&name.into_vec());
            shown.push(0);
        }
        Ok(shown)
    }

    /// Sets an attribute.
    pub fn setxattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        mode: SetMode,
    ) -> Result<()> {
        let inode = self.inode(ino)?;
        if self.virtual_value(&inode, name).is_some() {
            return Err(Error::NotPermitted("the attribute is what the mount says about itself"));
        }
        inode.stack.check_writable()?;
        self.check_protected(&inode, Change::Any)?;
        let stored = self.stored(&inode.stack, name)?;
        // A change that fails copies nothing up.
        if mode != SetMode::Any {
            let below = !inode.stack.is_direct() && !inode.has_upper();
            let present = inode.with(|at| match xattr::get_into(at, &stored, &mut []) {
                Ok(_) => Ok(true),
                Err(Errno::ENODATA) => Ok(false),
                // A lower layer without attributes; the copy in the upper one has some.
                Err(Errno::EOPNOTSUPP) if below => Ok(false),
                Err(errno) => Err(Error::Sys { call: "getxattr", errno }),
            })?;
            match (mode, present) {
                (SetMode::Create, true) => return Err(Error::Exists),
                (SetMode::Replace, false) => return Err(Error::NoAttribute),
                _ => {}
            }
        }
        let mut value = value.to_vec();
        if is_acl(name.as_bytes()) {
            disk_acl(&inode.stack.terms.ids, &mut value)?;
        }
        self.copy_up.ensure(&inode, Need::Metadata)?;
        inode.absent.attributes_come();
        let now = inode.now();
        let data = self.copy_up.hold_data(&now);
        let set = inode.with(|at| {
            xattr::set(at, &stored, &value, mode).call("setxattr")?;
            if name.as_bytes() == ACL_ACCESS { drop_foreign_setgid(&inode, caller, at) } else { Ok(()) }
        });
        if let Some(dir) = inode.upper_dir() {
            // It may be a default ACL.
            dir.note(Fact::NothingToInherit, false);
        }
        drop(data);
        set?;
        self.copy_up.changed(&inode);
        Ok(())
    }

    /// Removes an attribute. Errors: `NoAttribute`.
    pub fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        let inode = self.inode(ino)?;
        if self.virtual_value(&inode, name).is_some() {
            return Err(Error::NotPermitted("the attribute is what the mount says about itself"));
        }
        inode.stack.check_writable()?;
        self.check_protected(&inode, Change::Any)?;
        let stored = self.stored(&inode.stack, name)?;
        // What is not there need not be copied up to be removed. Of an ACL that is what was asked for.
        match inode.with(|at| xattr::get_into(at, &stored, &mut []).call("getxattr")) {
            Err(error) if is_acl(name.as_bytes()) && error.errno() == Errno::ENODATA => return Ok(()),
            present => present?,
        };
        self.copy_up.ensure(&inode, Need::Metadata)?;
        {
            let now = inode.now();
            let _data = self.copy_up.hold_data(&now);
            inode.with(|at| xattr::remove(at, &stored).call("removexattr"))?;
        }
        self.copy_up.changed(&inode);
        Ok(())
    }

    /// The name under which the layers keep the attribute. Errors: `NotPermitted` for what belongs to marks.
    fn stored(&self, stack: &Stack, name: &OsStr) -> Result<CString> {
        if is_own(stack, name.as_bytes()) {
            return Err(Error::NotPermitted("the attribute holds what the mount shows as owner and mode"));
        }
        let stored = match stack.is_direct() {
            true => name.to_owned(),
            false => mark::stored_attribute(stack.namespace, name),
        };
        CString::new(stored.into_vec()).map_err(|_| Error::Invalid("a NUL byte in an attribute's name"))
    }
}

/// The bit of an attribute that every file is asked for.
fn asked_of_all(name: &OsStr) -> Option<u8> {
    ASKED_OF_ALL.iter().position(|asked| *asked == name).map(|at| 1 << at)
}

/// As getxattr(2): no buffer asks for the length. Errors: `Range`.
fn read_into(value: &[u8], buffer: &mut [u8]) -> Result<usize> {
    if !buffer.is_empty() {
        buffer.get_mut(..value.len()).ok_or(Error::Range)?.copy_from_slice(value);
    }
    Ok(value.len())
}

/// Whether the attribute stands for owner and mode in this tree.
fn is_own(stack: &Stack, name: &[u8]) -> bool {
    stack.by_attribute() && crate::merge::override_stat::ATTRIBUTES.iter().any(|own| own.to_bytes() == name)
}

/// Who sets an ACL on a file of a group that is not theirs loses the set-group-id bit, as by chmod(2).
/// Source: kernel `posix_acl_update_mode`.
fn drop_foreign_setgid(inode: &Inode, caller: Caller, at: At<'_>) -> Result<()> {
    let real = stat(at).call("statx")?;
    if real.mode & libc::S_ISGID == 0 || may_set_group_id(&inode.stack.terms.ids, caller, real.gid) {
        return Ok(());
    }
    attr::chmod(at, real.mode & !libc::S_ISGID).call("fchmodat2")
}

fn is_acl(name: &[u8]) -> bool {
    name.starts_with(ACL_PREFIX)
}
