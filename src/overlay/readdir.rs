//! Listing directories. The layers' listings are merged once and kept, with an offset for each name, as long as the
//! directory is open.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Overlay;
use super::attr::{Attr, Lifetime};
use super::lookup::Entry;
use crate::error::{Context, Error, Result};
use crate::inode::handle::Sighted;
use crate::inode::listing::{Entry as Listed, Listing};
use crate::inode::{Fh, Ino, Inode, OpenDir, Point, Root};
use crate::layer::real_dir::RealDir;
use crate::merge::listing::FileKind;
use crate::sys::name;

/// A name in a listing.
#[derive(Debug)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// What `stat` shows as its number.
    pub st_ino: u64,
    /// Its type.
    pub kind: FileKind,
    /// Where to go on after it.
    pub next: u64,
}

/// A name in a listing, with its inode if it is not a dot name.
#[derive(Debug)]
pub struct DirEntryPlus<'a> {
    /// The name.
    pub entry: DirEntry<'a>,
    /// What the kernel is to know of it.
    pub told: Told,
}

/// What the kernel is to know of a name that it is told of.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    /// What `stat` shows.
    Attributes(Attr),
    /// A directory, to be looked up before anything of it is used. It takes the kernel less than `Nothing`, since it has nothing
    /// to take back before it forgets the inode.
    Unseen,
    /// Nothing: a dot name, one whose lookup fails or may take long, and one whose number is not the node's, since an entry has
    /// but one.
    Nothing,
}

/// The two dot names come before the others.
pub(super) const DOTS: u64 = 2;
/// In more layers a lookup of each directory that is listed costs more than the request that it may save.
const FEW_LAYERS: usize = 4;
/// How many names are looked at between two looks at the listing.
const BATCH: usize = 128;

impl Overlay {
    /// Opens the directory `ino`.
    pub fn opendir(&self, ino: Ino) -> Result<Fh> {
        let inode = self.dir(ino)?;
        inode.state.write().rare_mut().open_dirs += 1;
        // Others may move it while it is open, so that it cannot be opened again by its name.
        if let Some(Err(errno)) = movable(&inode).map(|real| real.pin()) {
            inode.state.write().rare_mut().open_dirs -= 1;
            return Err(Error::Sys { call: "openat2", errno });
        }
        Ok(self.handles.add_dir(OpenDir {
            inode,
            listing: Mutex::default(),
            end: Mutex::default(),
            ahead: Mutex::default(),
        }))
    }

    /// Whether the kernel may keep the names of the directory `ino` until it is told otherwise.
    pub fn listing_holds(&self, ino: Ino) -> bool {
        let named = |inode: &Inode| {
            let state = inode.state.read();
            let mut points = state.rare().points.iter().flat_map(|points| points.iter());
            points.any(|(_, point)| matches!(point, Point::Graft(Root::Named { .. })))
        };
        let Some(inode) = self.store.get(ino) else { return false };
        // The number of a single file is another's when its name is.
        Lifetime::of(&inode.stack) == Lifetime::Forever && !named(&inode)
    }

    /// Closes an open directory.
    pub fn releasedir(&self, fh: Fh) {
        let Some(dir) = self.handles.remove_dir(fh) else { return };
        self.not_come_to(dir.ahead.lock().begin());
        let listing = {
            let mut state = dir.inode.state.write();
            let rare = state.rare_mut();
            rare.open_dirs -= 1;
            let last = rare.open_dirs == 0;
            let listing = if last { rare.listing.take() } else { None };
            state.tidy();
            if let (true, false, Some(real)) = (last, state.gone, movable(&dir.inode)) {
                real.unpin();
            }
            listing
        };
        drop(listing);
    }

    /// Writes a directory's names to the disk.
    pub fn fsyncdir(&self, fh: Fh) -> Result<()> {
        let inode = &self.opened_dir(fh)?.inode;
        if !self.copy_up.fsync().syncs() && !inode.stack.is_direct() {
            return self.nothing_lost();
        }
        match inode.upper_dir() {
            Some(upper) => name::sync_dir(upper.fd().call("openat2")?.as_fd()).call("fsync"),
            None => Ok(()),
        }
    }

    fn opened_dir(&self, fh: Fh) -> Result<Arc<OpenDir>> {
        self.handles.dir(fh).ok_or(Error::Sys { call: "readdir", errno: nix::errno::Errno::EBADF })
    }

    /// Gives names from `offset` on to `each` until it says that it is full.
    pub fn readdir(&self, fh: Fh, offset: u64, mut each: impl FnMut(DirEntry<'_>) -> bool) -> Result<()> {
        let dir = self.opened_dir(fh)?;
        self.list(&dir, offset, &mut |entry| Ok(each(entry)))
    }

    /// As `readdir`, with a lookup of each name. `each` says whether it took the name; the lookup of one it did not
    /// take is given back.
    pub fn readdirplus(
        &self,
        fh: Fh,
        offset: u64,
        mut each: impl FnMut(DirEntryPlus<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.opened_dir(fh)?;
        let mut ahead = dir.ahead.lock().begin();
        let mut taken = 0;
        // Of a directory each layer would be asked about its marks, and most who list names never ask for one.
        let is_in_many = |name: &OsStr| {
            let parts = dir.inode.parts();
            parts.names.map_or(parts.lowers.len(), |names| names.layers_with(name)) > FEW_LAYERS
        };
        let mut each = |plus: DirEntryPlus<'_>| {
            let (at, full) = (plus.entry.next, each(plus));
            match full {
                false => taken += 1,
                // A reader that comes once may have enough.
                true if offset > 0 => dir.ahead.lock().full(at - 1, taken),
                true => {}
            }
            full
        };
        let listed = self.list(&dir, offset, &mut |entry| {
            if entry.name == "." || entry.name == ".." {
                return Ok(each(DirEntryPlus { entry, told: Told::Nothing }));
            }
            if let Some(Point::Graft(root)) = dir.inode.point(entry.name) {
                if root.inode().stack.may_hang {
                    // Whoever lists a directory shall not wait for what is attached in it.
                    return Ok(self.not_looked_up(entry, Told::Nothing, &mut each));
                }
            }
            if let Some(Sighted { inode, stat, .. }) = self.sighted(&dir, &mut ahead, entry.name, entry.next)
            {
                let (ino, generation) = (inode.ino, inode.generation());
                let attr = Attr { ino, generation, stat, lifetime: self.lifetime(&inode) };
                let full = each(DirEntryPlus { entry, told: Told::Attributes(attr) });
                if full {
                    self.forget(inode.ino, 1);
                }
                return Ok(full);
            }
            let found = match self.known_entry(&dir.inode, entry.name, entry.st_ino) {
                Ok(None) if entry.kind == FileKind::Dir && is_in_many(entry.name) => {
                    // A number that is known is another name's, or was, and a name may be known by a number that was counted: what
                    // the kernel has of them it shall leave alone.
                    let is_known = self.store.get(Ino(entry.st_ino)).is_some()
                        || self.refer_counted(dir.inode.ino, entry.name).is_some();
                    let told = if is_known { Told::Nothing } else { Told::Unseen };
                    return Ok(self.not_looked_up(entry, told, &mut each));
                }
                Ok(None) => self.lookup_in(&dir.inode, entry.name),
                known => known,
            };
            match found {
                Ok(Some(Entry { inode, mut attr, lifetime })) => {
                    // One lifetime for the name and the attributes.
                    attr.lifetime = attr.lifetime.min(lifetime);
                    if attr.ino.0 != attr.stat.ino {
                        let entry = DirEntry { st_ino: attr.stat.ino, ..entry };
                        return Ok(self.not_looked_up(entry, Told::Nothing, &mut each));
                    }
                    let full = each(DirEntryPlus { entry, told: Told::Attributes(attr) });
                    if !full {
                        drop(inode.leak());
                    }
                    Ok(full)
                }
                // Removed since the listing was made, or broken: the name is listed, and its lookup will say why.
                Ok(None) => Ok(false),
                Err(_) => Ok(self.not_looked_up(entry, Told::Nothing, &mut each)),
            }
        });
        self.not_come_to(ahead);
        listed
    }

    /// Lists a name that was not looked up. The kernel takes back a lookup of the number all the same: of `Told::Nothing` at once,
    /// and it leaves an inode alone that has the number.
    fn not_looked_up(
        &self,
        entry: DirEntry<'_>,
        told: Told,
        each: &mut impl FnMut(DirEntryPlus<'_>) -> bool,
    ) -> bool {
        let ino = Ino(entry.st_ino);
        self.store.expect_forget(ino);
        let full = each(DirEntryPlus { entry, told });
        if full {
            self.store.forgets_no_more(ino);
        }
        full
    }

    fn list(
        &self,
        dir: &OpenDir,
        offset: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> Result<bool>,
    ) -> Result<()> {
        let inode = &dir.inode;
        if offset == 0 {
            begin(dir);
        }
        for (at, dot) in [".", ".."].iter().enumerate().skip(offset.min(DOTS) as usize) {
            let st_ino = if at == 0 { inode.st_ino } else { parent_number(inode) };
            let entry = DirEntry { name: OsStr::new(dot), st_ino, kind: FileKind::Dir, next: at as u64 + 1 };
            if each(entry)? {
                return Ok(());
            }
        }
        let mut at = offset.saturating_sub(DOTS);
        loop {
            // Copied in small parts: a lookup of a name must not wait for the state of its directory.
            let batch = self.listed(dir, at)?;
            let Some((last, _)) = batch.last() else { return Ok(()) };
            at = *last;
            for (next, listed) in &batch {
                let st_ino = match dir.inode.point(&listed.name) {
                    Some(point) => self.number_at(&point),
                    None => listed.st_ino,
                };
                let entry = DirEntry { name: &listed.name, st_ino, kind: listed.kind, next: next + DOTS };
                if each(entry)? {
                    return Ok(());
                }
            }
        }
    }

    pub(super) fn listed(&self, dir: &OpenDir, at: u64) -> Result<Vec<(u64, Listed)>> {
        let inode = &dir.inode;
        let batch = |listing: &Listing| {
            let end = *dir.end.lock().get_or_insert_with(|| listing.end());
            let names = listing.from(at).take_while(|(next, _)| *next <= end);
            names.take(BATCH).map(|(next, entry)| (next, entry.clone())).collect()
        };
        if inode.stack.is_direct() {
            // Others make and remove names, too: each reader has the names as they were when it began.
            let mut kept = dir.listing.lock();
            if kept.is_none() {
                let _names = inode.names().read();
                *kept = Some(Listing::new(self.merged_names(inode)?));
            }
            return Ok(kept.as_ref().map(batch).unwrap_or_default());
        }
        {
            let state = inode.state.read();
            if state.gone {
                return Ok(Vec::new());
            }
            if let Some(listing) = &state.rare().listing {
                return Ok(batch(listing));
            }
        }
        let listing = {
            let _names = inode.names().read();
            let listing = Listing::new(self.merged_names(inode)?);
            let mut state = inode.state.write();
            // Without an open directory nobody would take it back.
            if state.rare().open_dirs > 0 && state.rare().listing.is_none() {
                state.rare_mut().listing = Some(Box::new(listing));
                None
            } else {
                Some(listing)
            }
        };
        match listing {
            Some(listing) => Ok(batch(&listing)),
            None => self.listed(dir, at),
        }
    }

    /// All names that the directory shows, with their numbers. Locks: the directory's names, for reading at least.
    pub(super) fn merged_names(&self, inode: &Arc<Inode>) -> Result<Vec<Listed>> {
        let mut listed = match inode.stack.is_direct() {
            true => self.direct_names(inode)?,
            false => self.layered_names(inode)?,
        };
        self.unite(inode, &mut listed)?;
        let points = inode.state.read().rare().points.clone();
        let Some(mut points) = points else { return Ok(listed) };
        if inode.stack.is_direct() {
            // Others may have changed what is on the way to a graft.
            for (name, _) in points.iter().filter(|(_, point)| !matches!(point, Point::Graft(_))) {
                self.lookup_locked(inode, name)?;
            }
            points = inode.state.read().rare().points.clone().unwrap_or_default();
        }
        let attached = |(name, point): (&OsStr, &Point)| Listed {
            name: name.into(),
            st_ino: self.number_at(point),
            kind: point.kind(),
        };
        listed.retain(|listed| points.get(&listed.name).is_none());
        listed.extend(points.iter().map(attached));
        Ok(listed)
    }

    /// The number that a name shows which has to do with grafts.
    fn number_at(&self, point: &Point) -> u64 {
        match point {
            // Another file may have got the name; but whoever lists the directory shall not wait for what is attached in it.
            Point::Graft(Root::Named { dir, name, st_ino, .. }) if !dir.stack.may_hang => {
                let found = self.found_locked(dir, name).ok().flatten();
                found.map_or(*st_ino, |found| found.inode.st_ino)
            }
            point => point.st_ino(),
        }
    }

    /// Whether the directory shows no name. Locks: its names, for reading at least.
    pub(super) fn is_empty_locked(&self, inode: &Arc<Inode>) -> Result<bool> {
        let leads_to_grafts = inode.state.read().rare().points.is_some();
        Ok(!leads_to_grafts && self.shown_names(inode)?.is_empty())
    }
}

/// The directory behind an inode, if others may move it.
fn movable(inode: &Inode) -> Option<&Arc<RealDir>> {
    // Neither the root of a tree nor what has no name is ever opened again.
    inode.upper_dir().filter(|real| real.ino() != 0)
}

fn parent_number(inode: &Inode) -> u64 {
    let state = inode.state.read();
    let above = state.names.first().map(|name| &name.parent).or(state.rare().above.as_ref());
    above.map_or(inode.st_ino, |parent| parent.st_ino)
}

/// Notes that a reader of the directory begins.
fn begin(dir: &OpenDir) {
    let inode = &dir.inode;
    *dir.end.lock() = None;
    if inode.stack.is_direct() {
        *dir.listing.lock() = None;
        return;
    }
    // Most listings are read once, and then there is none yet.
    if inode.state.read().rare().listing.is_none() {
        return;
    }
    let mut state = inode.state.write();
    let Some(rare) = state.rare_if_any() else { return };
    let only_reader = rare.open_dirs == 1;
    if let Some(listing) = &mut rare.listing {
        listing.begin(only_reader);
    }
}

#[cfg(test)]
#[path = "readdir_tests.rs"]
mod tests;
