//! Changes in a tree without marks: each is one system call on the source, which may refuse it in its own words. What is
//! known of the names is brought up to date after it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::RenameFlags;

use super::Overlay;
use super::ids::may_set_group_id;
use super::prepare::{New, asks_for_group_id, make_at};
use super::remove::keep_reachable;
use super::rename::Place;
use crate::error::{Context, Error, Result};
use crate::inode::listing::Entry as Listed;
use crate::inode::{Inode, Name};
use crate::layer::RealDir;
use crate::merge::listing::FileKind;
use crate::merge::rename::Mode;
use crate::sys::stat::stat;
use crate::sys::{At, attr, cred, dir, name};

impl Overlay {
    /// Locks: the parent's names, for writing.
    pub(super) fn make_direct(&self, new: &New<'_>, parent: &Inode, name: &OsStr) -> Result<Option<OwnedFd>> {
        let fd = source(parent)?.fd().call("openat2")?;
        let at = At::new(fd.as_fd(), name);
        let made = cred::as_caller(new.owner, || make_at(at, new.node, new.open)).call("mknodat")?;
        if asks_for_group_id(new.node) {
            let found = stat(at).call("statx")?;
            let lost = found.mode & libc::S_ISGID == 0;
            if lost && may_set_group_id(&parent.stack.terms.ids, new.caller, found.gid) {
                attr::chmod(at, found.mode | libc::S_ISGID).call("fchmodat2")?;
            }
        }
        Ok(made)
    }

    /// Locks: the parent's names, for writing; the inode's gate.
    pub(super) fn unlink_direct(&self, parent: &Inode, name: &OsStr, inode: &Arc<Inode>) -> Result<()> {
        let fd = source(parent)?.fd().call("openat2")?;
        let mut state = inode.state.write();
        keep_reachable(inode, &mut state, true)?;
        name::unlink(At::new(fd.as_fd(), name)).call("unlinkat")?;
        self.remove_name(inode, &mut state, parent, name);
        Ok(())
    }

    /// Locks: the names of both, for writing.
    pub(super) fn rmdir_direct(&self, parent: &Inode, name: &OsStr, inode: &Inode) -> Result<()> {
        let fd = source(parent)?.fd().call("openat2")?;
        if inode.state.read().rare().points.is_some() {
            return Err(Error::NotEmpty);
        }
        // Whoever stands in it keeps standing on it.
        source(inode)?.pin().call("openat2")?;
        if let Err(errno) = name::rmdir(At::new(fd.as_fd(), name)) {
            source(inode)?.unpin();
            return Err(Error::Sys { call: "unlinkat", errno });
        }
        self.dir_gone(inode, &mut inode.state.write(), parent, name);
        Ok(())
    }

    /// Locks: the parent's names, for writing; the inode's gate.
    pub(super) fn link_direct(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        let fd = source(parent)?.fd().call("openat2")?;
        let mut state = inode.state.write();
        let from = inode.locate_locked(&state)?;
        name::link(from.at(), At::new(fd.as_fd(), name)).call("linkat")?;
        self.add_name(inode, &mut state, parent, name, true);
        Ok(())
    }

    /// Locks: the rename gate for writing, both parents' names.
    pub(super) fn rename_direct(
        &self,
        old: &Place<'_>,
        new: &Place<'_>,
        mode: Mode,
        leaves_whiteout: bool,
    ) -> Result<()> {
        let moving = old.inode.as_ref().ok_or(Error::NotFound)?;
        let mut flags = match mode {
            Mode::Replace => RenameFlags::empty(),
            Mode::NoReplace => RenameFlags::RENAME_NOREPLACE,
            Mode::Exchange => RenameFlags::RENAME_EXCHANGE,
        };
        flags.set(RenameFlags::RENAME_WHITEOUT, leaves_whiteout);
        let from_dir = source(old.parent)?.fd().call("openat2")?;
        let to_dir = source(new.parent)?.fd().call("openat2")?;
        let rename =
            || name::rename(At::new(from_dir.as_fd(), old.name), At::new(to_dir.as_fd(), new.name), flags);
        let target = new.inode.as_deref();
        if target.is_some_and(|target| Arc::ptr_eq(target, moving)) {
            return rename().call("renameat2");
        }
        let goes = target.filter(|_| mode == Mode::Replace);
        match goes {
            Some(target) if target.is_dir() => source(target)?.pin().call("openat2")?,
            Some(target) => keep_reachable(target, &mut target.state.write(), true)?,
            None => {}
        }
        if let Err(error) = self.move_real(old, new, mode, rename) {
            goes.filter(|target| target.is_dir()).map(|target| source(target).map(|real| real.unpin()));
            return Err(error);
        }
        self.renamed(old, new, mode)
    }

    /// All names of a directory, with the numbers they show. What goes away while they are read is left out.
    /// Locks: its names, for reading at least.
    pub(super) fn direct_names(&self, inode: &Arc<Inode>) -> Result<Vec<Listed>> {
        let Some(real) = inode.upper_dir() else { return Ok(Vec::new()) };
        let stack = &inode.stack;
        let fd = real.fd().call("openat2")?;
        let device = stack.device(real.layer());
        let mut listed = Vec::new();
        let read = dir::read(fd.as_fd(), !stack.is_writable(), |entry| {
            let mut found = (device, entry.ino, entry.kind);
            // A mount is listed by the number of what it covers, and some programs do not say any number.
            if entry.kind.is_none() || stack.has_mounts() || entry.ino == UNKNOWN_INO {
                match stat(At::new(fd.as_fd(), entry.name)) {
                    Ok(real) => found = (real.dev, real.ino, Some(real.kind)),
                    Err(Errno::ENOENT) => return Ok(()),
                    // Its lookup will say why.
                    Err(_) => {}
                }
            }
            let (device, ino, kind) = found;
            listed.push(Listed {
                name: entry.name.into(),
                st_ino: stack.pack_ino(device, ino).unwrap_or(ino),
                kind: kind.unwrap_or(FileKind::Regular),
            });
            Ok(())
        });
        read.call("getdents64")?;
        Ok(listed)
    }

    /// Notes that an inode of a tree that others change was just found as `name` in `parent`.
    /// Errors: `Stale` if that would put a directory into itself. Locks: the parent's names, for reading at least.
    pub(super) fn has_name_now(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        if inode.state.read().has_name(parent, name) {
            return Ok(());
        }
        if inode.is_dir() {
            if leads_through(parent, inode) {
                return Err(Error::Stale);
            }
            self.leave_behind(inode)?;
            source(inode)?.was_moved(source(parent)?, name);
        }
        let gone: Vec<Name> = {
            let mut state = inode.state.write();
            let (stays, gone): (Vec<Name>, _) = std::mem::take(&mut state.names)
                .into_iter()
                .partition(|known| !inode.is_dir() && still_has(known, state.upper_ino));
            state.names.extend(stays);
            self.add_name(inode, &mut state, parent, name, true);
            gone
        };
        for name in gone {
            self.forget(name.parent.ino, 1);
        }
        Ok(())
    }
}

/// In a listing: the filesystem has not looked at the object. Source: libfuse, `FUSE_UNKNOWN_INO`.
const UNKNOWN_INO: u64 = 0xffff_ffff;

/// The source's directory behind an inode.
fn source(dir: &Inode) -> Result<&Arc<RealDir>> {
    dir.upper_dir().ok_or(Error::Stale)
}

fn still_has(known: &Name, ino: u64) -> bool {
    let Some(dir) = known.parent.upper_dir() else { return false };
    dir.fd().is_ok_and(|dir| stat(At::new(dir.as_fd(), &known.name)).is_ok_and(|found| found.ino == ino))
}

/// Whether the way to `dir`, as far as it is known, leads through `inode`.
fn leads_through(dir: &Arc<Inode>, inode: &Arc<Inode>) -> bool {
    let mut at = Some(dir.clone());
    while let Some(dir) = at {
        if Arc::ptr_eq(&dir, inode) {
            return true;
        }
        at = dir.dir_name().map(|name| name.parent);
    }
    false
}
