//! Inode flags that forbid changes: immutable and append-only. Of an object in a lower layer, and of one that was copied up from
//! one, no filesystem enforces them: the copy has them in a mark, or nothing could be put into it. The kernel's FUSE client knows
//! no such flags, so what its VFS would check on other filesystems is checked here.
//! Source: kernel `fs/namei.c`, `may_delete`, `inode_permission`; `fs/attr.c`, `may_setattr`; `fs/overlayfs/util.c`, `ovl_check_protattr`.

use nix::errno::Errno;

use super::{Caller, Overlay};
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Ino, Inode};
use crate::layer::Upper;
use crate::merge::mark::Mark;
use crate::merge::protection::Protection;
use crate::sys::attr::flag;
use crate::sys::cred::{self, Capability};
use crate::sys::stat::stat;
use crate::sys::{At, xattr};

/// The flags that a mark keeps. Source: kernel `OVL_PROT_FS_FLAGS_MASK`.
pub(super) const KEPT_IN_MARK: u32 = flag::IMMUTABLE | flag::APPEND;

/// What is to be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Its bytes are written; only at their end.
    Bytes { append: bool },
    /// Its attributes, its size, or the number of its names change; or its name goes.
    Any,
    /// Its times become now.
    Touch,
    /// A directory gets a name.
    NewName,
    /// A name of a directory goes.
    NameGoes,
}

impl Overlay {
    /// What the flags of `inode` forbid. Of a tree without marks its own filesystem knows.
    pub(super) fn protection(&self, inode: &Inode) -> Result<Protection> {
        if inode.stack.is_direct() || inode.is_synthetic() {
            return Ok(Protection::default());
        }
        if let Some(known) = inode.protection() {
            return Ok(known);
        }
        // Once it is in the upper layer, it is so for good; and a copy is as protected as what it was made from.
        let upper = if inode.has_upper() { Some(inode.stack.writable()?) } else { None };
        let found = inode.with(|at| {
            let found = stat(at).call("statx")?;
            let own = Protection { immutable: found.immutable, append: found.append_only };
            match upper {
                Some(upper) => Ok(own.or(marked_protection(upper, at)?)),
                None => Ok(own),
            }
        })?;
        inode.learn_protection(found);
        Ok(found)
    }

    /// Errors: EPERM where the flags of `inode` forbid the change.
    pub(super) fn check_protected(&self, inode: &Inode, change: Change) -> Result<()> {
        let Protection { immutable, append } = self.protection(inode)?;
        let allowed = match change {
            Change::Bytes { append: at_end } => !immutable && (!append || at_end),
            Change::Touch | Change::NewName => !immutable,
            Change::Any | Change::NameGoes => !immutable && !append,
        };
        match allowed {
            true => Ok(()),
            false => Err(Error::NotPermitted("it is immutable or append-only: chattr(1)")),
        }
    }

    /// Errors: EPERM where flags forbid that the name of `victim` in `parent` goes.
    pub(super) fn check_name_goes(&self, parent: &Inode, victim: &Inode) -> Result<()> {
        self.check_protected(parent, Change::NameGoes)?;
        self.check_protected(victim, Change::Any)
    }

    /// The inode flags that `lsattr` shows.
    pub fn flags(&self, ino: Ino) -> Result<u32> {
        let inode = self.inode(ino)?;
        let own = self.own_flags(&inode)?;
        Ok(own | flags_of(self.protection(&inode)?))
    }

    /// Sets the inode flags, as `chattr` does. Errors: EPERM if the caller is not the owner and has no CAP_FOWNER, or changes
    /// `a` or `i` without CAP_LINUX_IMMUTABLE. Checked here too, since older kernels pass the ioctl on unchecked.
    pub fn set_flags(&self, caller: Caller, ino: Ino, flags: u32) -> Result<()> {
        let inode = self.inode(ino)?;
        inode.stack.check_writable()?;
        let now = self.flags(ino)?;
        let guarded = (now ^ flags) & KEPT_IN_MARK != 0;
        let owner = self.attr_of(&inode)?.stat.uid;
        let may = |capability| cred::has_capability(caller.pid, capability);
        if (guarded && !may(Capability::LinuxImmutable)) || (caller.uid != owner && !may(Capability::Fowner))
        {
            return Err(Error::NotPermitted(
                "chattr(1) needs the owner, or CAP_FOWNER, and CAP_LINUX_IMMUTABLE for `a` and `i`",
            ));
        }
        self.copy_up.ensure(&inode, Need::Metadata)?;
        let set = if inode.stack.is_direct() {
            self.set_own_flags(&inode, flags)
        } else {
            self.set_kept_flags(&inode, flags)
        };
        self.copy_up.changed(&inode);
        set
    }

    /// Sets the flags of an object of a layer: those that would keep it from being changed at all go into its mark.
    fn set_kept_flags(&self, inode: &Inode, flags: u32) -> Result<()> {
        let protection =
            Protection { immutable: flags & flag::IMMUTABLE != 0, append: flags & flag::APPEND != 0 };
        let upper = inode.stack.writable()?;
        // First: an object that is immutable by its own flags takes no mark.
        self.set_own_flags(inode, flags & !KEPT_IN_MARK)?;
        inode.with(|at| match protection.format() {
            Some(value) => upper.set_mark(at, Mark::Protattr, value),
            None => upper.clear_mark(at, Mark::Protattr),
        })?;
        inode.note_protection(protection);
        Ok(())
    }
}

/// What the marks of an upper object forbid. A file that is there although it has the mark of a whiteout, since it is not empty, loses
/// the mark before its first change: cut to nothing, it would be gone at the next mount.
fn marked_protection(upper: &Upper, at: At<'_>) -> Result<Protection> {
    let mut protection = Protection::default();
    // Most objects have no attribute at all: one call says so.
    for attribute in xattr::list(at).call("listxattr")? {
        let is = |mark| upper.namespace.attribute(mark) == attribute.as_c_str();
        if is(Mark::Protattr) {
            protection =
                upper.mark(at, Mark::Protattr)?.as_deref().map(Protection::parse).unwrap_or_default();
        } else if is(Mark::Whiteout) && !upper.is_read_only() {
            upper.clear_mark(at, Mark::Whiteout)?;
        }
    }
    Ok(protection)
}

/// A filesystem without flags answers as if the call did not exist.
pub(super) fn no_flags(error: Error) -> Error {
    match error.errno() {
        Errno::ENOTTY | Errno::EOPNOTSUPP => Error::NoIoctl,
        _ => error,
    }
}

fn flags_of(protection: Protection) -> u32 {
    let flag = |has, flag| if has { flag } else { 0 };
    flag(protection.immutable, flag::IMMUTABLE) | flag(protection.append, flag::APPEND)
}
