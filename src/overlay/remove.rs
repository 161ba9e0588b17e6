//! Removing names: what `merge::remove` plans, in one visible step.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::Overlay;
use super::made::Stands;
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::State;
use crate::inode::{Ino, Inode, Point};
use crate::layer::{RealDir, Upper};
use crate::merge::mark::{self, Mark, NlinkBase};
use crate::merge::remove::{Facts, Plan, UpperObject, plan};
use crate::sys::stat::stat;
use crate::sys::{At, name, open};

/// How long a change may take where it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as it takes.
    Any,
    /// Not as long as it takes to copy much data.
    Little,
}

impl Overlay {
    /// Removes the name of a non-directory. Errors: `NotFound`, `IsDir`, `ReadOnly`, and what the upper layer answers.
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.unlink_with(parent, name, Patience::Any).map(drop)
    }

    /// As `unlink`, unless much data would be copied up first: then nothing is done, and false returned.
    pub fn unlink_at_once(&self, parent: Ino, name: &OsStr) -> Result<bool> {
        self.unlink_with(parent, name, Patience::Little)
    }

    fn unlink_with(&self, parent: Ino, name: &OsStr, patience: Patience) -> Result<bool> {
        let parent = self.holder(self.dir(parent)?, name)?;
        parent.stack.check_writable()?;
        let mut names = parent.names().write();
        check_no_point(&parent, name)?;
        let Stands { inode, under } = self.stands_locked(&parent, name)?;
        let inode = inode.ok_or(Error::NotFound)?;
        if inode.is_dir() {
            return Err(Error::IsDir);
        }
        self.check_name_goes(&parent, &inode)?;
        if is_counted_later(&inode) {
            drop(names);
            if patience == Patience::Little && self.metadata_copies_much(&inode) {
                return Ok(false);
            }
            self.prepare_unlink(&inode)?;
            names = parent.names().write();
            check_no_point(&parent, name)?;
            // It may have been renamed while nobody held the names.
            if !inode.state.read().has_name(&parent, name) {
                return Err(Error::NotFound);
            }
        }
        self.copy_up.ensure(&parent, Need::Metadata)?;
        let _gate = inode.gate.lock();
        if parent.stack.is_direct() {
            self.unlink_direct(&parent, name, &inode)?;
            return Ok(true);
        }
        // So that the real count and the mark of the overlay's change in one step.
        self.copy_up.link_up_indexed(&inode, &parent, name)?;
        // What a lower layer shows it shows for ever.
        let lower_shows = under.lower_shows || self.lower_shows(&parent, name)?;
        self.unlink_locked(&parent, name, &inode, lower_shows)?;
        self.unlist_name(&parent, name);
        drop(names);
        Ok(true)
    }

    /// A hard link of a lower file must have an index entry before one of its names goes, because that is where the
    /// number of names that are left is kept. Source: kernel `ovl_nlink_start`.
    pub(super) fn prepare_unlink(&self, inode: &Arc<Inode>) -> Result<()> {
        if is_counted_later(inode) { self.copy_up.ensure(inode, Need::Metadata) } else { Ok(()) }
    }

    /// Locks: the parent's names, the inode's gate; the parent has an upper part.
    fn unlink_locked(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        inode: &Arc<Inode>,
        lower_shows: bool,
    ) -> Result<()> {
        let upper = parent.stack.writable()?;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let mut state = inode.state.write();
        let in_upper = state.name(parent, name).ok_or(Error::NotFound)?.in_upper;
        keep_reachable(inode, &mut state, in_upper)?;
        if in_upper {
            count_names(upper, inode, &state, NlinkBase::Upper, 0)?;
        } else {
            count_names(upper, inode, &state, NlinkBase::Upper, -1)?;
        }
        let upper_object = in_upper.then_some(UpperObject::NonDir);
        let _changing = dir.changing();
        carry_out(upper, dir, name, plan(Facts { upper: upper_object, lower_shows }))?;
        self.remove_name(inode, &mut state, parent, name);
        // The name is gone, whatever comes now; an entry of a file without names is found by nobody.
        if let Err(error) = self.one_name_less(inode, &mut state) {
            tracing::warn!("an index entry of {name:?} stays after its removal: {error}");
        }
        drop(state);
        self.sync_names(parent)
    }

    /// Notes that a name of the inode is gone; an index entry goes with the last one.
    pub(super) fn one_name_less(&self, inode: &Inode, state: &mut State) -> Result<()> {
        if let Some(nlink) = state.rare().nlink {
            state.rare_mut().nlink = Some(nlink.saturating_sub(1));
        } else if state.upper_ino == 0 && state.names.is_empty() {
            state.rare_mut().nlink = Some(0);
        }
        if state.rare().nlink == Some(0) {
            let Some(index) = state.rare().index.clone() else { return Ok(()) };
            if let Some(dir) = inode.stack.writable()?.workdir.index() {
                let entry = At::new(dir.as_fd(), &index);
                if state.rare().orphan.is_none() {
                    // Where that fails the entry stays: it is what open files are reached by.
                    state.rare_mut().orphan = Some(Arc::new(open::path(entry).call("openat2")?));
                }
                state.rare_mut().index = None;
                name::unlink(entry).call("unlinkat")?;
            }
        }
        // The kernel counts its own link down when it hears the answer; told before, it would do so twice.
        Ok(())
    }

    /// Removes an empty directory. Errors: `NotFound`, `NotDir`, `NotEmpty`, `ReadOnly`.
    pub fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let parent = self.holder(self.dir(parent)?, name)?;
        parent.stack.check_writable()?;
        check_no_point(&parent, name)?;
        // Two directories' names are locked: who does that holds the gate, so that there is one order.
        let _gate = parent.stack.rename_gate.read();
        let _names = parent.names().write();
        // Again, now that it stays true.
        check_no_point(&parent, name)?;
        let Stands { inode, under } = self.stands_locked(&parent, name)?;
        let inode = inode.ok_or(Error::NotFound)?;
        if !inode.is_dir() {
            return Err(Error::NotDir);
        }
        self.check_name_goes(&parent, &inode)?;
        let _inner = inode.names().write_second();
        if parent.stack.is_direct() {
            return self.rmdir_direct(&parent, name, &inode);
        }
        // The upper layer's own directory is asked for its names by the removal itself.
        let leads_to_grafts = || inode.state.read().rare().points.is_some();
        let only_upper = inode.lower_dirs().is_empty() && !inode.is_synthetic() && !leads_to_grafts();
        if !only_upper && !self.is_empty_locked(&inode)? {
            return Err(Error::NotEmpty);
        }
        self.copy_up.ensure(&parent, Need::Metadata)?;
        let lower_shows = under.lower_shows || self.lower_shows(&parent, name)?;
        self.rmdir_locked(&parent, name, &inode, lower_shows)?;
        self.unlist_name(&parent, name);
        Ok(())
    }

    /// Errors: `NotEmpty`. Locks: the names of both; the parent has an upper part, no lower part of the directory shows a name.
    fn rmdir_locked(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        inode: &Arc<Inode>,
        lower_shows: bool,
    ) -> Result<()> {
        let upper = parent.stack.writable()?;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let fd = dir.fd().call("openat2")?;
        if let Some(real) = inode.upper_dir() {
            // Whoever stands in it keeps standing on it.
            real.pin().call("openat2")?;
        }
        let removed = || {
            let _changing = dir.changing();
            if inode.upper_dir().is_some() && !lower_shows {
                // The filesystem knows best whether it is empty; marks may be left in it.
                match name::rmdir(At::new(fd.as_fd(), name)).call("unlinkat") {
                    Err(Error::NotEmpty | Error::Exists) => {}
                    removed => return removed,
                }
            }
            let upper_object = match inode.upper_dir() {
                None => None,
                Some(real) if upper.holds_marks(real.fd().call("openat2")?.as_fd())? => {
                    Some(UpperObject::DirWithMarks)
                }
                Some(_) => Some(UpperObject::EmptyDir),
            };
            match plan(Facts { upper: upper_object, lower_shows }) {
                Plan::Remove => name::rmdir(At::new(fd.as_fd(), name)).call("unlinkat"),
                plan => carry_out(upper, dir, name, plan),
            }
        };
        let removed = removed();
        if let (Err(_), Some(real)) = (&removed, inode.upper_dir()) {
            real.unpin();
        }
        removed?;
        let mut state = inode.state.write();
        self.dir_gone(inode, &mut state, parent, name);
        drop(state);
        self.sync_names(parent)
    }

    /// Notes that the directory has no name any more.
    pub(super) fn dir_gone(&self, inode: &Inode, state: &mut State, parent: &Inode, name: &OsStr) {
        self.remove_name(inode, state, parent, name);
        state.gone = true;
        state.rare_mut().nlink = Some(0);
    }

    /// With `fsync=strict` a change of names is on disk before it is acknowledged.
    pub(super) fn sync_names(&self, parent: &Inode) -> Result<()> {
        match parent.upper_dir() {
            Some(dir) if self.copy_up.fsync() == crate::config::FsyncMode::Strict => {
                name::sync_dir(dir.fd().call("openat2")?.as_fd()).call("fsync")
            }
            _ => Ok(()),
        }
    }
}

/// Errors: `Busy` where something is attached; `NotEmpty` for a directory on the way there.
fn check_no_point(parent: &Inode, name: &OsStr) -> Result<()> {
    match parent.point(name) {
        None => Ok(()),
        Some(Point::Graft(_)) => Err(Error::Busy("something is attached here")),
        Some(Point::Synthetic(_) | Point::Way(_)) => Err(Error::NotEmpty),
    }
}

/// Whether the names of a hard-linked lower file are yet to be counted in the index.
pub(super) fn is_counted_later(inode: &Inode) -> bool {
    let state = inode.state.read();
    state.upper_ino == 0
        && state.lower().is_some_and(|lower| lower.nlink > 1)
        && inode.stack.indexes(inode.kind)
}

/// Carries a plan out; `Remove` is for non-directories here.
fn carry_out(upper: &Upper, dir: &Arc<RealDir>, name: &OsStr, plan: Plan) -> Result<()> {
    match plan {
        Plan::Remove => name::unlink(At::new(dir.fd().call("openat2")?.as_fd(), name)).call("unlinkat"),
        Plan::TakeOut => upper.take_out(dir.fd().call("openat2")?.as_fd(), name),
        Plan::AddWhiteout => upper.add_whiteout(dir, name),
        Plan::ReplaceByWhiteout => upper.replace_by_whiteout(dir, name),
        Plan::ExchangeWithWhiteout => upper.exchange_with_whiteout(dir, name),
    }
}

/// Before the last name of an upper object goes, a descriptor is taken: open files stay usable, and the filesystem does
/// not give the number to another while the kernel knows this one.
pub(super) fn keep_reachable(inode: &Inode, state: &mut State, in_upper: bool) -> Result<()> {
    let others = state.names.iter().filter(|name| name.in_upper).count() > usize::from(in_upper);
    if in_upper && !others && state.rare().index.is_none() && state.rare().orphan.is_none() {
        let located = inode.locate_locked(state)?;
        state.rare_mut().orphan = Some(Arc::new(open::path(located.at()).call("openat2")?));
    }
    Ok(())
}

/// Writes down how many names an indexed inode has, before they change: `shown_change` is how the overlay's count will
/// change while the real one does not.
pub(super) fn count_names(
    upper: &Upper,
    inode: &Inode,
    state: &State,
    base: NlinkBase,
    shown_change: i64,
) -> Result<()> {
    let (Some(nlink), Some(_)) = (state.rare().nlink, &state.rare().index) else { return Ok(()) };
    let located = inode.locate_locked(state)?;
    let real = i64::from(stat(located.at()).call("statx")?.nlink);
    let difference = i64::from(nlink) + shown_change - real;
    upper.set_mark(located.at(), Mark::Nlink, &mark::format_nlink(base, difference))
}
