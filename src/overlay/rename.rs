//! Renaming: what `merge::rename` plans, marks first, then one call that moves.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::RenameFlags;

use super::create::Under;
use super::made::Stands;
use super::remove::{Patience, count_names, keep_reachable};
use super::rename_up::{has_data_below, is_up};
use super::{Caller, Overlay, redirect};
use crate::copy_up::meta;
use crate::error::{Context, Error, Result};
use crate::inode::State;
use crate::inode::{Ino, Inode, InodeRef};
use crate::layer::Upper;
use crate::layer::real_dir::Fact;
use crate::merge::listing::FileKind;
use crate::merge::mark::{Mark, NlinkBase};
use crate::merge::redirect::Redirect;
use crate::merge::rename::{DirMark, Mode, Move, Plan, Refusal, Shows, Side, plan};
use crate::sys::stat::stat;
use crate::sys::{At, name};

/// What the caller asked for. Source: rename(2).
pub type RenameMode = Mode;

/// One side of a rename.
pub(super) struct Place<'a> {
    pub(super) parent: &'a Arc<Inode>,
    pub(super) name: &'a OsStr,
    pub(super) inode: Option<InodeRef<'a>>,
    /// What the layers have there besides.
    pub(super) under: Under,
}

/// What the kernel asks for: `name` in `parent` is to become `new_name` in `new_parent`.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The directory of the old name.
    pub parent: Ino,
    /// The old name.
    pub name: &'a OsStr,
    /// The directory of the new name.
    pub new_parent: Ino,
    /// The new name.
    pub new_name: &'a OsStr,
    /// What becomes of what has the new name.
    pub mode: Mode,
    /// A char 0:0 of this caller is left at the old name, for an overlay on top of this mount. Errors: `Invalid` where such an
    /// object cannot be made. Source: rename(2) `RENAME_WHITEOUT`.
    pub whiteout_of: Option<Caller>,
}

impl Overlay {
    /// Moves what `asked` names.
    /// Errors: `NotFound`, `Exists`, `NotEmpty`, `IsDir`, `NotDir`, `CrossDevice` where a redirect would be needed and is
    /// not allowed, `ReadOnly`, and what the upper layer answers. Then nothing has moved.
    pub fn rename(&self, asked: Asked<'_>) -> Result<()> {
        self.rename_with(asked, Patience::Any).map(drop)
    }

    /// As `rename`, unless much data would be copied up first: then nothing is done, and false returned.
    pub fn rename_at_once(&self, asked: Asked<'_>) -> Result<bool> {
        self.rename_with(asked, Patience::Little)
    }

    fn rename_with(&self, asked: Asked<'_>, patience: Patience) -> Result<bool> {
        let Asked { name, new_name, mode, .. } = asked;
        let parent = self.holder(self.dir(asked.parent)?, name)?;
        let new_parent = self.holder(self.dir(asked.new_parent)?, new_name)?;
        if !Arc::ptr_eq(&parent.stack, &new_parent.stack) {
            return Err(Error::CrossDevice("the two directories are different trees"));
        }
        parent.stack.check_writable()?;
        let check_no_point = || match parent.point(name).or_else(|| new_parent.point(new_name)) {
            Some(_) => Err(Error::Busy("something is attached here or below")),
            None => Ok(()),
        };
        check_no_point()?;
        self.check_new_name(&new_parent, new_name)?;
        loop {
            // Two directories, or the shape of the tree: one at a time.
            let gate = parent.stack.rename_gate.write();
            let names = parent.names().write();
            let new_names = (!Arc::ptr_eq(&parent, &new_parent)).then(|| new_parent.names().write_second());
            // Again, now that it stays true.
            check_no_point()?;
            let Stands { inode, under } = self.stands_locked(&parent, name)?;
            let inode = Some(inode.ok_or(Error::NotFound)?);
            let old = Place { parent: &parent, name, inode, under };
            let Stands { inode, under } = self.stands_locked(&new_parent, new_name)?;
            let new = Place { parent: &new_parent, name: new_name, inode, under };
            self.check_move(&old, &new, mode)?;
            for (place, inode) in
                [&old, &new].into_iter().filter_map(|place| Some((place, place.inode.as_ref()?)))
            {
                self.check_name_goes(place.parent, inode)?;
            }
            if !is_up(&old, &new, mode) {
                // It may take long, so nobody shall wait for the names meanwhile. Then everything is looked at again.
                drop((new_names, names, gate));
                if patience == Patience::Little && self.moving_copies_much(&old, &new, mode) {
                    return Ok(false);
                }
                self.bring_up(&old, &new, mode)?;
                continue;
            }
            if parent.stack.is_direct() {
                return self.rename_direct(&old, &new, mode, asked.whiteout_of.is_some()).map(|()| true);
            }
            // Made before anything moves, so that a refusal comes in time.
            let whiteout =
                asked.whiteout_of.map(|caller| self.shown_whiteout(caller, &parent)).transpose()?;
            let moved = match self.rename_locked(&old, &new, mode) {
                // Its data cannot stay below, then.
                Err(Error::NoRedirect) if has_data_below(&old, &new, mode).next().is_some() => {
                    drop((new_names, names, gate));
                    if patience == Patience::Little {
                        return Ok(false);
                    }
                    self.bring_data_up(&old, &new, mode)?;
                    continue;
                }
                moved => moved?,
            };
            if let Some(whiteout) = whiteout.filter(|_| moved) {
                self.put_whiteout_locked(whiteout, &parent, name)?;
            }
            return Ok(true);
        }
    }

    /// Errors: what is refused whatever the layers hold.
    fn check_move(&self, old: &Place<'_>, new: &Place<'_>, mode: Mode) -> Result<()> {
        match (mode, &new.inode) {
            (Mode::NoReplace, Some(_)) => return Err(Error::Exists),
            (Mode::Exchange, None) => return Err(Error::NotFound),
            _ => {}
        }
        let has_lowers = |inode: &Inode| inode.is_dir() && !inode.lower_dirs().is_empty();
        if old.inode.as_ref().is_some_and(|old| has_lowers(old)) && !self.settings.redirects {
            return Err(Error::CrossDevice("the directory has lower parts, and redirect_dir is not on"));
        }
        Ok(())
    }

    /// Whether anything was to be moved.
    /// Locks: the rename gate for writing, both parents' names; both parents have an upper part.
    fn rename_locked(&self, old: &Place<'_>, new: &Place<'_>, mode: Mode) -> Result<bool> {
        let moving = old.inode.as_ref().ok_or(Error::NotFound)?;
        let upper = moving.stack.writable()?;
        self.check_target(moving, new, mode)?;
        if new.inode.as_ref().is_some_and(|target| Arc::ptr_eq(target, moving)) {
            // Two names of one file: rename(2) does nothing and says that all is well.
            return Ok(false);
        }
        // The inode with the lower number first: two renames never wait for each other.
        let mut gated: Vec<&Arc<Inode>> =
            [Some(&**moving), new.inode.as_deref()].into_iter().flatten().collect();
        gated.sort_by_key(|inode| inode.ino);
        let _gates: Vec<_> = gated.iter().map(|inode| inode.gate.lock_second()).collect();
        self.own_upper_name(old)?;
        match &new.inode {
            Some(_) if mode == Mode::Exchange => self.own_upper_name(new)?,
            // So that the real count and the mark of the overlay's change in one step when its name goes.
            Some(target) => self.copy_up.link_up_indexed(target, new.parent, new.name)?,
            None => {}
        }
        let (old_side, new_side) = (self.side(old)?, self.side(new)?);
        let target_marks = self.target_marks(upper, new, mode)?;
        let plan = plan(old_side, new_side, mode, self.settings.redirects, target_marks)
            .map_err(|Refusal::NoRedirect| Error::CrossDevice("a directory with lower parts cannot move"))?;
        self.carry_out(upper, old, new, mode, plan, new_side)?;
        self.renamed(old, new, mode)?;
        Ok(true)
    }

    fn check_target(&self, moving: &Inode, new: &Place<'_>, mode: Mode) -> Result<()> {
        let Some(target) = &new.inode else {
            return if mode == Mode::Exchange { Err(Error::NotFound) } else { Ok(()) };
        };
        match mode {
            Mode::Exchange => Ok(()),
            Mode::NoReplace => Err(Error::Exists),
            Mode::Replace if moving.is_dir() && !target.is_dir() => Err(Error::NotDir),
            Mode::Replace if !moving.is_dir() && target.is_dir() => Err(Error::IsDir),
            Mode::Replace if target.is_dir() && !self.is_empty_locked(target)? => Err(Error::NotEmpty),
            Mode::Replace => Ok(()),
        }
    }

    /// A name that only a lower layer has of an indexed file gets its upper link.
    fn own_upper_name(&self, place: &Place<'_>) -> Result<()> {
        match &place.inode {
            Some(inode) if !inode.is_dir() => self.copy_up.link_up(inode, place.parent, place.name),
            _ => Ok(()),
        }
    }

    fn side(&self, place: &Place<'_>) -> Result<Side> {
        let Under { whiteout, lower_shows, .. } = place.under;
        let shows = match &place.inode {
            None => Shows::Nothing,
            Some(inode) => match inode.kind {
                FileKind::Dir if !inode.lower_dirs().is_empty() => Shows::MergedDir,
                FileKind::Dir => Shows::UpperDir { opaque: inode.state.read().opaque },
                _ => Shows::NonDir,
            },
        };
        let lower_shows =
            lower_shows || (place.inode.is_some() && self.lower_shows(place.parent, place.name)?);
        Ok(Side { shows, lower_shows, upper_whiteout: whiteout })
    }

    /// Whether the directory that goes holds marks in the upper layer, so that it is not empty there.
    fn target_marks(&self, upper: &Upper, new: &Place<'_>, mode: Mode) -> Result<bool> {
        match &new.inode {
            Some(target) if mode == Mode::Replace => match target.upper_dir() {
                Some(real) => upper.holds_marks(real.fd().call("openat2")?.as_fd()),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    fn carry_out(
        &self,
        upper: &Upper,
        old: &Place<'_>,
        new: &Place<'_>,
        mode: Mode,
        plan: Plan,
        new_side: Side,
    ) -> Result<()> {
        let (old_dir, new_dir) = (upper_fd(old.parent)?, upper_fd(new.parent)?);
        let same_dir = Arc::ptr_eq(old.parent, new.parent);
        self.prepare_side(upper, old, new.parent, plan.mark_old, same_dir)?;
        if plan.step == Move::Exchange && new.inode.is_some() {
            self.prepare_side(upper, new, old.parent, plan.mark_new, same_dir)?;
        } else if let Some(target) = &new.inode {
            self.prepare_target(upper, target, new, new_dir.as_fd(), plan.clear_target)?;
        }
        let old_real = old.parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let from = At::new(old_dir.as_fd(), old.name);
        let to = At::new(new_dir.as_fd(), new.name);
        let moving_dir = old.inode.as_ref().is_some_and(|inode| inode.is_dir());
        let step = || match plan.step {
            // A directory cannot replace a device: they change places, and the whiteout is taken away after.
            Move::Plain if new_side.upper_whiteout && moving_dir => {
                name::rename(from, to, RenameFlags::RENAME_EXCHANGE)?;
                // It has moved, whatever comes now; and a whiteout over nothing hides nothing.
                log_left("a whiteout", old.name, name::unlink(from));
                Ok(())
            }
            Move::Plain => name::rename(from, to, RenameFlags::empty()),
            Move::Exchange => name::rename(from, to, RenameFlags::RENAME_EXCHANGE),
            Move::LeaveWhiteout if upper.abilities.rename_whiteout => {
                name::rename(from, to, RenameFlags::RENAME_WHITEOUT)
            }
            Move::LeaveWhiteout => match upper.add_whiteout_file(old_real, old.name) {
                Ok(()) => name::rename(from, to, RenameFlags::empty()),
                Err(error) => Err(error.errno()),
            },
        };
        let new_real = new.parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let call = || {
            // Renames are the only ones to hold two of these, and one rename runs at a time.
            let _changing = (old_real.changing(), (!same_dir).then(|| new_real.changing()));
            step()
        };
        let moved = self.move_real(old, new, mode, call);
        if let (Err(_), Some(target)) = (&moved, &new.inode) {
            target.upper_dir().into_iter().for_each(|real| real.unpin());
        }
        moved?;
        if new.under.whiteout_file {
            // The object of a name wins over `.wh.` of that name in the same layer.
            let _changing = new_real.changing();
            log_left("a whiteout", new.name, upper.remove_whiteout_file(new_dir.as_fd(), new.name));
        }
        Ok(())
    }

    /// Runs the call that moves while nobody reaches the objects by either name, and notes who has which name now:
    /// whoever comes next finds each under its new one.
    pub(super) fn move_real(
        &self,
        old: &Place<'_>,
        new: &Place<'_>,
        mode: Mode,
        call: impl FnOnce() -> nix::Result<()>,
    ) -> Result<()> {
        let moving = &**old.inode.as_ref().ok_or(Error::NotFound)?;
        let target = new.inode.as_deref();
        // States before places, as those who locate a file by its state do, and the lower number first.
        let target_first = target.filter(|target| target.ino < moving.ino);
        let mut target_state = target_first.map(|target| target.state.write());
        let mut moving_state = moving.state.write_second();
        if target_state.is_none() {
            target_state = target.map(|target| target.state.write_second());
        }
        let call = || call().call("renameat2");
        let back = target.filter(|_| mode == Mode::Exchange);
        move_place(moving, new, || match back {
            Some(target) => move_place(target, old, call),
            None => call(),
        })?;
        self.remove_name(moving, &mut moving_state, old.parent, old.name);
        if let (Some(target), Some(state)) = (target, &mut target_state) {
            self.target_moved(target, state, old, new, mode);
        }
        self.add_name(moving, &mut moving_state, new.parent, new.name, true);
        Ok(())
    }

    /// Notes what became of the object that had the new name.
    fn target_moved(
        &self,
        target: &Arc<Inode>,
        state: &mut State,
        old: &Place<'_>,
        new: &Place<'_>,
        mode: Mode,
    ) {
        if mode == Mode::Exchange {
            self.remove_name(target, state, new.parent, new.name);
            self.add_name(target, state, old.parent, old.name, true);
        } else if target.is_dir() {
            self.dir_gone(target, state, new.parent, new.name);
        } else {
            self.remove_name(target, state, new.parent, new.name);
            // An entry of a file without names is found by nobody.
            log_left("an index entry", new.name, self.one_name_less(target, state));
        }
    }

    /// The marks of an object before it moves into `to`.
    fn prepare_side(
        &self,
        upper: &Upper,
        place: &Place<'_>,
        to: &Arc<Inode>,
        mark: DirMark,
        same_dir: bool,
    ) -> Result<()> {
        let Some(inode) = &place.inode else { return Ok(()) };
        if !inode.is_dir() {
            let redirect = redirect::of_moving_file(upper, inode, place.parent, place.name, same_dir)?;
            return self.mark_moving(upper, inode, &inode.state.read(), to, redirect.as_ref());
        }
        let real = inode.upper_dir().ok_or(Error::Bug("a moving directory without upper part"))?;
        let fd = real.fd().call("openat2")?;
        let at = At::fd(fd.as_fd());
        if !inode.lower_dirs().is_empty() {
            let to_dir = to.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
            if !to_dir.is(Fact::Impure) {
                upper.set_impure(At::fd(to_dir.fd().call("openat2")?.as_fd()))?;
                to_dir.note(Fact::Impure, true);
            }
        }
        match mark {
            DirMark::None => Ok(()),
            DirMark::Opaque => {
                upper.set_opaque(at)?;
                inode.state.write().opaque = true;
                Ok(())
            }
            DirMark::Redirect => {
                let present = upper.mark(at, Mark::Redirect)?;
                match present.as_deref() {
                    Some(value) if same_dir || value.starts_with(b"/") => Ok(()),
                    None if same_dir => upper.set_redirect(at, &Redirect::Sibling(place.name.to_owned())),
                    own => {
                        let redirect = redirect::from_root(upper, place.parent, place.name, own)?;
                        upper.set_redirect(at, &redirect)
                    }
                }
            }
        }
    }

    /// What the object that goes needs first: to stay reachable for those who have it open, and to be really empty.
    fn prepare_target(
        &self,
        upper: &Upper,
        target: &Arc<Inode>,
        new: &Place<'_>,
        new_dir: BorrowedFd<'_>,
        clear: bool,
    ) -> Result<()> {
        if target.is_dir() {
            if clear {
                self.clear_dir(upper, target, new, new_dir)?;
            }
            // Whoever stands in it keeps standing on it.
            return match target.upper_dir() {
                Some(real) => real.pin().call("openat2"),
                None => Ok(()),
            };
        }
        let mut state = target.state.write();
        let in_upper = state.name(new.parent, new.name).is_some_and(|known| known.in_upper);
        keep_reachable(target, &mut state, in_upper)?;
        count_names(upper, target, &state, NlinkBase::Upper, if in_upper { 0 } else { -1 })
    }

    /// Exchanges an upper directory that holds only marks with an empty opaque one, which another can replace, and which
    /// is as good as the old one if that fails. Source: kernel `ovl_clear_empty`.
    fn clear_dir(
        &self,
        upper: &Upper,
        target: &Inode,
        new: &Place<'_>,
        new_dir: BorrowedFd<'_>,
    ) -> Result<()> {
        let real = target.upper_dir().ok_or(Error::Bug("a target with marks and without upper part"))?;
        let fd = real.fd().call("openat2")?;
        let before = stat(At::fd(fd.as_fd())).call("statx")?;
        let temp = upper.temp();
        name::mkdir(temp.at(), 0o700).call("mkdirat")?;
        let made = meta::Made { ids: upper.maker, mode: 0o700 };
        let rules = meta::Rules::of(&target.stack);
        meta::copy(rules, At::fd(fd.as_fd()), &before, temp.at(), made)?;
        upper.set_opaque(temp.at())?;
        meta::copy_times(&before, temp.at())?;
        let parent = new.parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let exchange = || {
            let _changing = parent.changing();
            name::rename(temp.at(), At::new(new_dir, new.name), RenameFlags::RENAME_EXCHANGE)
        };
        match exchange() {
            Ok(()) => {}
            Err(Errno::EINVAL) => return Err(Error::Unsupported),
            Err(errno) => return Err(Error::Sys { call: "renameat2", errno }),
        }
        real.reopen();
        real.note(Fact::Impure, false);
        target.state.write().opaque = true;
        Ok(())
    }

    /// Keeps the listings true, and then what was promised about the disk.
    pub(super) fn renamed(&self, old: &Place<'_>, new: &Place<'_>, mode: Mode) -> Result<()> {
        let moving = old.inode.as_ref().ok_or(Error::NotFound)?;
        self.unlist_name(old.parent, old.name);
        self.list_name(new.parent, new.name, moving);
        if let (Some(target), Mode::Exchange) = (&new.inode, mode) {
            self.list_name(old.parent, old.name, target);
        }
        self.sync_names(old.parent)?;
        if Arc::ptr_eq(old.parent, new.parent) { Ok(()) } else { self.sync_names(new.parent) }
    }
}

/// Runs `call`, which moves the object to `to`. Nobody opens a directory by either name meanwhile.
fn move_place(inode: &Inode, to: &Place<'_>, call: impl FnOnce() -> Result<()>) -> Result<()> {
    if !inode.is_dir() {
        return call();
    }
    let real = inode.upper_dir().ok_or(Error::Bug("a moving directory without upper part"))?;
    let parent = to.parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
    real.move_to(parent, to.name, call)
}

/// Says that something stays on disk that harms nobody, after the rename has been made.
fn log_left<E: std::fmt::Display>(what: &str, name: &OsStr, removed: std::result::Result<(), E>) {
    if let Err(error) = removed {
        tracing::warn!("{what} of {name:?} stays after a rename: {error}");
    }
}

fn upper_fd(dir: &Inode) -> Result<Arc<std::os::fd::OwnedFd>> {
    dir.upper_dir().ok_or(Error::Bug("a parent without upper part"))?.fd().call("openat2")
}

#[cfg(test)]
#[path = "rename_tests.rs"]
mod tests;
