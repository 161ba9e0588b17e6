//! Attributes: what `stat` shows, and changing owner, mode, times and size.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::ids::{disk_gid, disk_uid};
use super::protect::Change;
use super::{Caller, Overlay};
use crate::config::XattrPermissions;
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::graft::Cache;
use crate::inode::{Attributes, Fh, Ino, Inode};
use crate::layer::real_dir::Fact;
use crate::layer::{Stack, override_stat};
use crate::merge::listing::FileKind;
use crate::merge::mark::{self, Mark, Namespace};
use crate::merge::override_stat::Override;
use crate::sys::attr::{self, SetTime};
use crate::sys::stat::{Stat, Timestamp, stat};
use crate::sys::{At, cred, open, xattr};

/// How long the kernel may believe an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is told otherwise: nobody else changes the layers of a mount.
    Forever,
    /// So long.
    For(Duration),
    /// Not at all: somebody may be changing it behind the kernel's attribute cache.
    None,
}

impl Lifetime {
    /// The shorter one.
    pub(super) fn min(self, other: Lifetime) -> Lifetime {
        match (self, other) {
            (Lifetime::None, _) | (_, Lifetime::None) => Lifetime::None,
            (Lifetime::For(one), Lifetime::For(two)) => Lifetime::For(one.min(two)),
            (Lifetime::For(time), Lifetime::Forever) | (Lifetime::Forever, Lifetime::For(time)) => {
                Lifetime::For(time)
            }
            (Lifetime::Forever, Lifetime::Forever) => Lifetime::Forever,
        }
    }

    /// Of what a stack shows.
    pub(super) fn of(stack: &Stack) -> Lifetime {
        match stack.terms.cache {
            Cache::Always => Lifetime::Forever,
            Cache::Ttl(time) => Lifetime::For(time),
            Cache::Coherent => Lifetime::None,
        }
    }
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy)]
pub struct Attr {
    /// The number by which the kernel asks.
    pub ino: Ino,
    /// Tells it from the next one with that number.
    pub generation: u32,
    /// With the number, owner, mode and link count that the mount shows.
    pub stat: Stat,
    /// How long it holds.
    pub lifetime: Lifetime,
}

/// What to change; nothing leaves a thing as it is.
#[derive(Debug, Clone, Copy)]
pub struct SetAttr {
    /// Permission, set-id and sticky bits.
    pub mode: Option<u32>,
    /// Owner as the mount shows it.
    pub uid: Option<u32>,
    /// Group as the mount shows it.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: SetTime,
    /// Time of last write.
    pub mtime: SetTime,
    /// The open file through which the change is made.
    pub fh: Option<Fh>,
}

/// So many bytes take so long to copy that nobody else should wait.
const MUCH_BYTES: u64 = 4 << 20;

impl Overlay {
    /// What `stat` shows of `ino`.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.attr_known_as(ino, &self.inode(ino)?)
    }

    /// What `stat` shows of `inode`, which the kernel asked for as `ino`.
    fn attr_known_as(&self, ino: Ino, inode: &Arc<Inode>) -> Result<Attr> {
        let attr = self.attr_of(inode)?;
        if ino == inode.ino {
            return Ok(attr);
        }
        let mut stat = attr.stat;
        // Who has the old one open reads the bytes of the lower file: how many there are, and when they were written, is its.
        if let Some(old) = self.store.get(ino).filter(|old| old.gave_way()) {
            let below = old.state.read().locate_below()?;
            let old = crate::sys::stat::stat(below.at()).call("statx")?;
            (stat.size, stat.blocks, stat.mtime, stat.atime) = (old.size, old.blocks, old.mtime, old.atime);
        }
        // Of what changes about another inode the kernel tells nobody.
        Ok(Attr { stat, lifetime: Lifetime::None, ..attr })
    }

    /// Whether a change of `ino` copies so much data up that it should not keep a worker busy. Answers no when it cannot
    /// tell: then the change itself will say why.
    pub fn copies_much(&self, ino: Ino) -> bool {
        let Some(inode) = self.store.get(ino).filter(|inode| inode.kind == FileKind::Regular) else {
            return false;
        };
        let waits = !inode.state.read().has_upper_data();
        let size = || inode.with_data(|at, _| stat(at).call("statx"));
        waits && inode.stack.is_writable() && size().is_ok_and(|stat| stat.size > MUCH_BYTES)
    }

    /// As `copies_much`, for a change that leaves the data alone.
    pub(super) fn metadata_copies_much(&self, inode: &Inode) -> bool {
        !self.copy_up.leaves_data() && self.copies_much(inode.ino)
    }

    pub(super) fn attr_of(&self, inode: &Arc<Inode>) -> Result<Attr> {
        if inode.is_synthetic() {
            return self.synthetic_attr(inode);
        }
        inode.note_attributes(Attributes::Told);
        let real = stat_of(inode)?;
        self.shown(inode, real)
    }

    /// What the mount shows of an object that is `real` on disk.
    pub(super) fn shown(&self, inode: &Arc<Inode>, real: Stat) -> Result<Attr> {
        let mut stat = real;
        stat.ino = inode.st_ino;
        stat.uid = inode.stack.terms.ids.shown_uid(real.uid);
        stat.gid = inode.stack.terms.ids.shown_gid(real.gid);
        let state = inode.state.read();
        if inode.is_dir() {
            // The kernel, too, tells that it does not know how many subdirectories a merged directory has.
            let merged = inode.lower_dirs().len() + usize::from(inode.upper_dir().is_some()) > 1;
            if merged || self.settings.static_nlink {
                stat.nlink = 1;
            }
        }
        if let Some(nlink) = state.rare().nlink {
            stat.nlink = nlink;
        }
        if let Some(data) = &state.rare().data {
            // Data that is nowhere is an error when it is read, as in the kernel.
            if let Ok(located) = data.locate() {
                stat.blocks = crate::sys::stat::stat(located.at()).call("statx")?.blocks;
            }
        }
        drop(state);
        Ok(Attr { ino: inode.ino, generation: inode.generation(), stat, lifetime: self.lifetime(inode) })
    }

    /// How long the kernel may believe attributes of `inode` that it is about to be told.
    pub(super) fn lifetime(&self, inode: &Inode) -> Lifetime {
        let (opens, maybe_mapped) = {
            let state = inode.state.read();
            (state.rare().opens, state.maybe_mapped)
        };
        let moving = maybe_mapped || (opens.passthrough > 0 && opens.writers > 0);
        if moving {
            inode.note_attributes(Attributes::Unknown);
            return Lifetime::None;
        }
        Lifetime::of(&inode.stack)
    }

    /// Changes attributes of `ino`. Errors: whatever the upper layer answers; then as much as came before it is done, as
    /// with the calls one by one.
    pub fn setattr(&self, caller: Caller, ino: Ino, change: SetAttr) -> Result<Attr> {
        let inode = self.inode(ino)?;
        // The answer tells the kernel what they are now, so nobody else need say that they have changed.
        let had = inode.note_attributes(Attributes::Changed);
        let changed = self.change(caller, ino, &inode, change);
        if had == Attributes::Told && changed.is_err() {
            inode.note_attributes(Attributes::Told);
            self.copy_up.changed(&inode);
        }
        changed
    }

    fn change(&self, caller: Caller, ino: Ino, inode: &Arc<Inode>, change: SetAttr) -> Result<Attr> {
        inode.stack.check_writable()?;
        self.may_change(inode, &change)?;
        let need = match change.size {
            None => Need::Metadata,
            Some(0) => Need::Truncated { by: caller.writer() },
            Some(_) => Need::Data,
        };
        let time = self.time_that_stays(inode, &change)?;
        let made = self.copy_up.ensure_open(inode, need)?;
        if change.size.is_some() {
            self.let_write(inode)?;
        }
        match (change.size, made) {
            // It was cut off when it came up.
            (Some(0), Some(_)) => {}
            (Some(size), made) => self.truncate(caller, inode, size, change.fh, made)?,
            (None, _) => {}
        }
        if let Some(time) = time {
            inode.with(|at| attr::utimens(at, SetTime::Omit, SetTime::To(time)).call("utimensat"))?;
        }
        let ids = &inode.stack.terms.ids;
        let uid = change.uid.map(|uid| disk_uid(ids, uid)).transpose()?;
        let gid = change.gid.map(|gid| disk_gid(ids, gid)).transpose()?;
        // An ordinary writer whose bytes pass the daemon by would leave set-id bits on what it writes: it is as if it
        // wrote right after this change.
        let opens = inode.state.read().rare().opens;
        let unsafe_writer = opens.passthrough > 0 && opens.keeps_set_id && opens.plain_writers > 0;
        let unsafe_bits = if unsafe_writer { libc::S_ISUID | libc::S_ISGID } else { 0 };
        let permissions = inode.stack.terms.permissions;
        let now = inode.now();
        let _data = self.copy_up.hold_data(&now);
        let changed = inode.with(|at| {
            let times = (change.atime, change.mtime);
            if uid.is_some() || gid.is_some() {
                let change = || Ok(chown(permissions, at, uid, gid));
                caller.writer().run(at, |gid| ids.shown_gid(gid), change).call("capset")??;
            } else if change.mode.is_none()
                && change.size.is_none()
                && times == (SetTime::Omit, SetTime::Omit)
            {
                clear_privileges(permissions, caller, at)?;
            }
            if let Some(mode) = change.mode {
                let mode = own_set_id_bits(&inode.stack, caller, at, mode & 0o7777)?;
                chmod(permissions, at, mode & !unsafe_bits)?;
            }
            if times != (SetTime::Omit, SetTime::Omit) {
                let _changing = inode.upper_dir().map(|dir| dir.changing());
                attr::utimens(at, times.0, times.1).call("utimensat")?;
            }
            Ok(())
        });
        if let Some(dir) = inode.upper_dir() {
            dir.note(Fact::NothingToInherit, false);
        }
        changed?;
        self.attr_known_as(ino, inode)
    }

    /// Errors: EPERM where inode flags forbid the change. Source: kernel `may_setattr`.
    fn may_change(&self, inode: &Inode, change: &SetAttr) -> Result<()> {
        let times = [change.atime, change.mtime];
        let sets_time = times.iter().any(|time| matches!(time, SetTime::To(_)));
        // With a writeback cache the kernel itself hands over the time of a write that was permitted.
        let sets_time = sets_time && !self.settings.writeback;
        if change.size.is_some()
            || change.mode.is_some()
            || change.uid.is_some()
            || change.gid.is_some()
            || sets_time
        {
            return self.check_protected(inode, Change::Any);
        }
        match times {
            [SetTime::Omit, SetTime::Omit] => Ok(()),
            _ => self.check_protected(inode, Change::Touch),
        }
    }

    /// The time of last write that a change of the size leaves: with a writeback cache the kernel keeps it itself, and does not take
    /// a file for written that is cut to the size it has. On disk it must be what it shows.
    fn time_that_stays(&self, inode: &Inode, change: &SetAttr) -> Result<Option<Timestamp>> {
        let Some(size) = change.size.filter(|_| self.settings.writeback && change.mtime == SetTime::Omit)
        else {
            return Ok(None);
        };
        let before = stat_of(inode)?;
        Ok((before.size == size).then_some(before.mtime))
    }

    fn truncate(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        size: u64,
        fh: Option<Fh>,
        made: Option<OwnedFd>,
    ) -> Result<()> {
        if inode.kind != FileKind::Regular {
            return Err(Error::Invalid("only a regular file has a size to set"));
        }
        let by_handle = fh.and_then(|fh| self.handles.file(fh));
        let cut = |fd: std::os::fd::BorrowedFd<'_>| {
            let ids = &inode.stack.terms.ids;
            caller
                .writer()
                .run(At::fd(fd), |gid| ids.shown_gid(gid), || attr::truncate(fd, size))
                .call("ftruncate")
        };
        // It came up for this, so no other descriptor may be missing.
        if let Some(made) = made {
            return cut(made.as_fd());
        }
        if let Some(file) = by_handle {
            return cut(self.descriptor(&file)?.as_fd());
        }
        let fd = inode.with_data(|at, _| open::file(at, OFlag::O_WRONLY).call("openat2"))?;
        cut(fd.as_fd())
    }
}

/// What is on disk of `inode`, as far as the object itself says.
///
/// The times of an upper directory are read under its lock: while a copy-up places a name in it they are wrong, and the
/// kernel would cache them.
pub(super) fn stat_of(inode: &Inode) -> Result<Stat> {
    let Some(dir) = inode.upper_dir().or(inode.lower_dirs().first()) else {
        return inode.with(|at| stat_shown(&inode.stack, at));
    };
    let fd = dir.fd().call("openat2")?;
    let takes_copies = dir.layer().is_upper() && !inode.stack.is_direct();
    let _changing = takes_copies.then(|| dir.changing());
    stat_shown(&inode.stack, At::fd(fd.as_fd()))
}

/// Whether times that were read without the lock of the directory may be those of a copy-up.
pub(super) fn may_be_unsettled(inode: &Inode) -> bool {
    inode.upper_dir().is_some_and(|dir| dir.is(Fact::CopiedInto))
}

/// What is at `at` in a layer of `stack`, as far as the object itself says.
pub(super) fn stat_shown(stack: &Stack, at: At<'_>) -> Result<Stat> {
    let mut real = stat(at).call("statx")?;
    if !stack.is_direct() {
        unmask_device(stack.namespace, &mut real, at)?;
    }
    if stack.by_attribute() {
        override_stat::apply(&mut real, at, stack.terms.permissions).call("getxattr")?;
    }
    Ok(real)
}

/// A change of nothing is either chown(-1, -1), which clears set-id bits and the capability, or what the kernel sends
/// before a write to a file that has a capability. The two look alike. Who may keep set-id bits is taken to write.
fn clear_privileges(permissions: XattrPermissions, caller: Caller, at: At<'_>) -> Result<()> {
    if caller.uid != 0 {
        return chown(permissions, at, None, None);
    }
    match xattr::remove(at, c"security.capability") {
        Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::Sys { call: "removexattr", errno }),
    }
}

fn chown(permissions: XattrPermissions, at: At<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    if permissions == XattrPermissions::Off {
        return attr::chown(at, uid, gid).call("fchownat");
    }
    change_override(permissions, at, |over| {
        over.uid = uid.unwrap_or(over.uid);
        over.gid = gid.unwrap_or(over.gid);
        if over.kind.is_none_or(|(kind, ..)| kind != FileKind::Dir) {
            over.mode &= !0o6000;
        }
    })
}

/// The mode without the set-id bits that would let a program run as another user. Where all owners show as one, everybody may change the
/// mode of everybody's files; what is written by one user must not run as another.
fn own_set_id_bits(stack: &Stack, caller: Caller, at: At<'_>, mode: u32) -> Result<u32> {
    let ids = &stack.terms.ids;
    let squashes = ids.squash_uid.is_some() || ids.squash_gid.is_some();
    if !squashes || caller.uid == 0 || mode & (libc::S_ISUID | libc::S_ISGID) == 0 {
        return Ok(mode);
    }
    let real = stat_shown(stack, at)?;
    let is_dir = real.kind == FileKind::Dir;
    let own_uid = real.uid == disk_uid(ids, caller.uid)?;
    let own_gid = real.gid == disk_gid(ids, caller.gid)? || cred::is_in_group(caller.pid, real.gid);
    let foreign_uid = if own_uid || is_dir { 0 } else { libc::S_ISUID };
    let foreign_gid = if own_gid || is_dir { 0 } else { libc::S_ISGID };
    Ok(mode & !foreign_uid & !foreign_gid)
}

fn chmod(permissions: XattrPermissions, at: At<'_>, mode: u32) -> Result<()> {
    if permissions == XattrPermissions::Off {
        return attr::chmod(at, mode).call("fchmodat2");
    }
    change_override(permissions, at, |over| over.mode = mode)
}

/// Changes what an object says of itself in its attribute. The object's own mode stays open to the daemon.
pub(super) fn change_override(
    permissions: XattrPermissions,
    at: At<'_>,
    change: impl FnOnce(&mut Override),
) -> Result<()> {
    let real = stat(at).call("statx")?;
    if real.kind == FileKind::Symlink {
        // It takes no attribute, and its owner and mode stop nobody.
        return Ok(());
    }
    let mut over = override_stat::read(at, permissions).call("getxattr")?.unwrap_or(override_stat::of(&real));
    change(&mut over);
    override_stat::write(at, permissions, &over).call("setxattr")
}

/// A char 0:0 of a caller is kept under another number.
pub(super) fn unmask_device(namespace: Namespace, real: &mut Stat, at: At<'_>) -> Result<()> {
    let numbers = (real.rdev_major, real.rdev_minor);
    if real.kind == FileKind::Char
        && numbers == mark::DISGUISED_DEVICE
        && xattr::get(at, namespace.attribute(Mark::Device)).call("getxattr")?.is_some()
    {
        (real.rdev_major, real.rdev_minor) = (0, 0);
    }
    Ok(())
}
