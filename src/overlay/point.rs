//! Making names lead to what is attached, and to what was there before. Requests are served meanwhile: each name changes at
//! one moment, under its directory's names, so that whoever makes or removes a name there does it before or after.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLockWriteGuard;

use super::Overlay;
use super::graft::set_point;
use super::table::Attached;
use super::way::{Place, refused};
use crate::error::Result;
use crate::graft::Spec;
use crate::inode::listing::Entry as Listed;
use crate::inode::{Ino, Inode, Point, Root};
use crate::sync::Held;

/// How long a directory of a filesystem that may not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A name, and the directory it is in.
type Changed = (Arc<Inode>, Box<OsStr>);

/// A name leads to a graft now.
pub(super) struct Put {
    /// The directory it is attached in.
    pub parent: Arc<Inode>,
    /// What the kernel has to hear of.
    pub changed: Changed,
}

/// What a graft has left: given back when the kernel has heard of it.
pub(super) struct Gone {
    root: Root,
    /// Directories on the way that are held no longer.
    dirs: Vec<Arc<Inode>>,
    changed: Vec<Changed>,
}

impl Overlay {
    /// Makes the name at `place` lead to `root`; nothing, and nothing has changed, if what is there is not what `place` says any
    /// more. Locks: `changing`.
    pub(super) fn put(&self, spec: &Spec, place: &Place<'_>, root: &Root) -> Result<Option<Put>> {
        let mut held = Vec::new();
        match self.put_below(spec, place, root, &mut held) {
            Ok(Some(put)) => Ok(Some(put)),
            result => {
                for (above, name, dir) in held.into_iter().rev() {
                    let _one = self.grafts.leading.lock();
                    set_point(&above, &name, None);
                    self.forget(dir.ino, 1);
                }
                result
            }
        }
    }

    /// As `put`; directories that are to stay where they are for it are added to `held`, from above.
    fn put_below(
        &self,
        spec: &Spec,
        place: &Place<'_>,
        root: &Root,
        held: &mut Vec<(Arc<Inode>, Box<OsStr>, Arc<Inode>)>,
    ) -> Result<Option<Put>> {
        let mut above = self.inode(Ino::ROOT)?;
        for (name, dir) in &place.way.there {
            let Some(holder) = self.holder_of(&above, name, dir) else { return Ok(None) };
            let _names = self.change_names(spec, &holder)?;
            let _one = self.grafts.leading.lock();
            match holder.point(name) {
                Some(Point::Way(known) | Point::Synthetic(known)) if Arc::ptr_eq(&known, dir) => {}
                Some(Point::Graft(Root::Inode(known))) if Arc::ptr_eq(&known, dir) => {}
                Some(_) => return Ok(None),
                // Moved or removed while nobody held the names.
                None if !is_there(dir, &holder, name) => return Ok(None),
                None => {
                    self.store.hold(dir);
                    set_point(&holder, name, Some(Point::Way((**dir).clone())));
                    held.push((holder.clone(), name.clone(), (**dir).clone()));
                }
            }
            above = (**dir).clone();
        }
        let top = &place.parent;
        let names = self.change_names(spec, top)?;
        let topmost = place.way.missing.first().unwrap_or(&place.name);
        if !Arc::ptr_eq(top, &above) || top.state.read().gone || top.point(topmost).is_some() {
            return Ok(None);
        }
        let same = match &place.covered {
            Some(covered) => self.holder_of(top, topmost, covered).is_some(),
            None if top.stack.may_hang => true,
            None => self.united_locked(top, topmost)?.is_none(),
        };
        if !same {
            return Ok(None);
        }
        let put = self.lead_to(place, top, topmost, root)?;
        self.set_beside(spec, place.covered.as_deref(), root);
        self.relist_locked(top, topmost);
        drop(names);
        Ok(Some(put))
    }

    /// Makes the directories that nobody has made, and lets the topmost name show them last, all at once.
    fn lead_to(&self, place: &Place<'_>, top: &Arc<Inode>, topmost: &OsStr, root: &Root) -> Result<Put> {
        let mut parent = top.clone();
        let mut made: Vec<(Arc<Inode>, &OsStr, Arc<Inode>)> = Vec::new();
        for name in &place.way.missing {
            match self.synthetic(&parent, name) {
                Ok(dir) => made.push((std::mem::replace(&mut parent, dir.clone()), name, dir)),
                Err(error) => {
                    made.into_iter().rev().for_each(|(_, _, dir)| self.forget(dir.ino, 1));
                    return Err(error);
                }
            }
        }
        let _one = self.grafts.leading.lock();
        root.inode().state.write().rare_mut().above = Some(parent.clone());
        set_point(&parent, &place.name, Some(Point::Graft(root.clone())));
        for (above, name, dir) in made.into_iter().rev() {
            set_point(&above, name, Some(Point::Synthetic(dir)));
        }
        Ok(Put { parent, changed: (top.clone(), topmost.into()) })
    }

    /// Makes the name lead to what was there before, and lets what led to it alone go. Locks: `changing`.
    pub(super) fn take_away(&self, attached: &Attached) -> Gone {
        let parent = attached.above();
        let mut gone = Gone { root: attached.root.clone(), dirs: Vec::new(), changed: Vec::new() };
        {
            let _names = self.change_names_if_it_answers(&parent);
            let _one = self.grafts.leading.lock();
            set_point(&parent, &attached.name, None);
            self.relist_locked(&parent, &attached.name);
        }
        gone.changed.push((parent.clone(), attached.name.clone()));
        let mut dir = parent;
        while dir.state.read().rare().points.is_none() {
            let Some(place) = dir.dir_name() else { break };
            let _names = self.change_names_if_it_answers(&place.parent);
            let _one = self.grafts.leading.lock();
            match place.parent.point(&place.name) {
                Some(Point::Way(held) | Point::Synthetic(held)) if Arc::ptr_eq(&held, &dir) => {}
                _ => break,
            }
            set_point(&place.parent, &place.name, None);
            if dir.lower_dirs().is_empty() {
                self.end_synthetic(&dir, &place.parent, &place.name);
                self.relist_locked(&place.parent, &place.name);
                gone.changed.push((place.parent.clone(), place.name.clone()));
            }
            drop((_one, _names));
            gone.dirs.push(dir);
            dir = place.parent;
        }
        gone
    }

    /// A directory that nobody has made is gone with what it led to, also for who stands in it: a name made in it would be
    /// nobody's. One that was made meanwhile stays.
    fn end_synthetic(&self, dir: &Inode, parent: &Inode, name: &OsStr) {
        let _gate = dir.gate.lock();
        if dir.is_synthetic() {
            self.dir_gone(dir, &mut dir.state.write(), parent, name);
        }
    }

    /// Lets the name of what `old` was lead to `root`. Locks: `changing`.
    pub(super) fn exchange(&self, (old, name): (Root, Box<OsStr>), root: Root) -> Gone {
        let above = old.inode().state.read().rare().above.clone();
        let Some(parent) = above else { return Gone { root: old, dirs: Vec::new(), changed: Vec::new() } };
        let _names = self.change_names_if_it_answers(&parent);
        let _one = self.grafts.leading.lock();
        root.inode().state.write().rare_mut().above = Some(parent.clone());
        set_point(&parent, &name, Some(Point::Graft(root)));
        self.relist_locked(&parent, &name);
        drop((_one, _names));
        Gone { root: old, dirs: Vec::new(), changed: vec![(parent, name)] }
    }

    /// Gives back what is not attached any more, after the kernel has heard of it. Locks: none, since the kernel waits for
    /// whoever works in the directory.
    pub(super) fn let_all_go(&self, all: Vec<Gone>) {
        for (at, gone) in all.into_iter().enumerate() {
            for changed in &gone.changed {
                // What is inside something that is gone is not found any more; and its filesystem may not answer.
                if at == 0 || !changed.0.stack.may_hang {
                    self.tell_kernel(changed);
                }
            }
            self.let_go(&gone.root);
            gone.dirs.iter().for_each(|dir| self.forget(dir.ino, 1));
        }
    }

    /// Tells the kernel that a name may be something else now.
    pub(super) fn tell_kernel(&self, (parent, name): &Changed) {
        if let Some(changed) = self.name_changed.get() {
            (changed.0)(parent.ino, name);
        }
    }

    /// The directory that has the name by which `dir` shows in `above`: that itself, or the one beside it. Nothing if it shows
    /// there no more.
    fn holder_of(&self, above: &Arc<Inode>, name: &OsStr, dir: &Arc<Inode>) -> Option<Arc<Inode>> {
        if matches!(above.point(name), Some(Point::Graft(_))) || is_there(dir, above, name) {
            return Some(above.clone());
        }
        let beside = above.state.read().rare().beside.as_ref().map(|beside| beside.dir.clone());
        beside.filter(|beside| is_there(dir, beside, name))
    }

    /// The names of `dir`, for changing one. Errors: `Setup` if its filesystem does not answer.
    fn change_names<'a>(&self, spec: &Spec, dir: &'a Inode) -> Result<Held<RwLockWriteGuard<'a, ()>>> {
        let why = "the filesystem on the way does not answer: try again when it does";
        self.change_names_if_it_answers(dir).ok_or_else(|| refused(&spec.target, why))
    }

    /// As `change_names`; nothing if its filesystem does not answer. What is taken away goes in that case too.
    fn change_names_if_it_answers<'a>(&self, dir: &'a Inode) -> Option<Held<RwLockWriteGuard<'a, ()>>> {
        if dir.stack.may_hang { dir.names().try_write_for(PATIENCE) } else { Some(dir.names().write()) }
    }

    /// Keeps the directory's listing true after a name became another's: who reads on misses and repeats nothing.
    /// Locks: the directory's names, for writing.
    fn relist_locked(&self, dir: &Arc<Inode>, name: &OsStr) {
        if dir.state.read().rare().listing.is_none() {
            return;
        }
        let shown = match dir.point(name) {
            Some(point) => Some((point.st_ino(), point.kind())),
            // What cannot be looked up is not listed; a lookup of it says why.
            None => self
                .united_locked(dir, name)
                .ok()
                .flatten()
                .map(|found| (found.inode.st_ino, found.inode.kind)),
        };
        let mut state = dir.state.write();
        let Some(listing) = state.rare_if_any().and_then(|rare| rare.listing.as_mut()) else { return };
        match shown {
            Some((st_ino, kind)) => listing.insert(Listed { name: name.into(), st_ino, kind }),
            None => listing.remove(name),
        }
    }
}

fn is_there(inode: &Inode, parent: &Inode, name: &OsStr) -> bool {
    let state = inode.state.read();
    !state.gone && state.has_name(parent, name)
}
