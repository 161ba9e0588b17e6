//! Lookup: from a name to an inode. What the layers say is `merge::resolve`'s; here it becomes a number.

use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};

use super::Overlay;
use super::attr::{Attr, Lifetime, may_be_unsettled, stat_shown};
use super::object::Object;
use crate::copy_up::publish::index_entry;
use crate::error::{Context, Error, Result};
use crate::inode::{Attributes, Ino, Inode, InodeRef, LowerFile, Node, Point, State};
use crate::layer::real_dir::Fact;
use crate::layer::stack::Found;
use crate::layer::{Learning, Place, Stack, Upper};
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::merge::mark::{self, Mark, NlinkBase};
use crate::merge::origin::Origin;
use crate::merge::resolve::{Data, Members, Outcome};
use crate::sys::stat::{Stat, stat};
use crate::sys::{At, name};

/// So many names of a directory are kept from its lookup to its first listing.
const KEPT_NAMES: usize = 1024;

/// The longest name of any layer.
pub(super) const NAME_MAX: usize = 255;

/// A name's inode, with one lookup of it, and its attributes.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The inode.
    pub inode: InodeRef<'a>,
    /// What `stat` shows of it.
    pub attr: Attr,
    /// How long the kernel may believe that the name is this inode's.
    pub lifetime: Lifetime,
}

impl Overlay {
    /// The inode under `name` in `parent`; nothing if there is none, and how long that holds.
    /// Errors: `NameTooLong`; `BadMark` for a mark that cannot be followed.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<(Option<Entry<'_>>, Lifetime)> {
        let parent = self.dir(parent)?;
        Ok((self.lookup_in(&parent, name)?, Lifetime::of(&parent.stack)))
    }

    /// As `lookup`, for a directory that is known.
    pub(super) fn lookup_in(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<Entry<'_>>> {
        loop {
            let root = {
                let _names = parent.names().read();
                match self.point_of(parent, name)? {
                    Some(Some(Point::Graft(root))) => root,
                    Some(point) => return self.followed_locked(parent, name, point),
                    None => return Ok(None),
                }
            };
            // It may wait for its own filesystem, and who changes a name in this directory must not wait with it.
            match self.graft_entry(parent, &root) {
                // Taken away in the moment between: what is there now is the answer.
                Err(Error::Stale) if !parent.leads_to(name, &root) => continue,
                found => return found.map(Some),
            }
        }
    }

    /// As `lookup`. Locks: the parent's names are held, for reading at least.
    pub(super) fn lookup_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<Entry<'_>>> {
        match self.point_of(parent, name)? {
            Some(point) => self.followed_locked(parent, name, point),
            None => Ok(None),
        }
    }

    /// What the name has to do with grafts; nothing for a directory that is gone.
    fn point_of(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<Option<Point>>> {
        if name.as_bytes().len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        let state = parent.state.read();
        let point = || state.rare().points.as_ref().and_then(|points| points.get(name).cloned());
        Ok((!state.gone).then(point))
    }

    /// What is under a name, where `point` leads. Locks: the parent's names, for reading at least.
    fn followed_locked(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        point: Option<Point>,
    ) -> Result<Option<Entry<'_>>> {
        match point {
            Some(Point::Graft(root)) => self.graft_entry(parent, &root).map(Some),
            Some(Point::Synthetic(was) | Point::Way(was)) if parent.stack.is_direct() => {
                self.led_locked(parent, name, was)
            }
            Some(Point::Synthetic(inode)) => self.entry_of(parent, inode.ino).map(Some),
            // Layers change through the mount alone, which keeps the way as it is.
            Some(Point::Way(_)) | None => self.united_locked(parent, name),
        }
    }

    /// What the layers have under `name`, whatever is attached there. Locks: the parent's names, for reading at least.
    pub(super) fn found_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<Entry<'_>>> {
        if !parent.stack.is_direct() && mark::is_reserved(name.as_bytes()) {
            return Ok(None);
        }
        self.learn_names_first(parent);
        let found = parent.stack.resolve(parent.parts(), name)?;
        self.learn_names(parent, &found);
        let Some(mut object) = self.object(&parent.stack, name, found)? else { return Ok(None) };
        let held = object.held.take();
        // What a device or an attribute really says takes another look at the object.
        let real = (!parent.stack.by_attribute() && object.kind != FileKind::Char).then_some(object.real);
        let inode = self.intern(parent, name, object)?;
        match (held, inode.upper_dir()) {
            // It stays the one that was found, whatever gets its name, until the pool needs the descriptor for another.
            (Some(held), Some(real)) => drop(real.keep(held)),
            (Some(held), None) => parent.stack.hold(inode.ino.0, held),
            (None, _) => {}
        }
        // What was read of it before it was found may have changed meanwhile.
        let is_old = inode.note_attributes(Attributes::Told) == Attributes::Changed;
        let attr = match real.filter(|_| !is_old && !may_be_unsettled(&inode)) {
            Some(real) => self.shown(&inode, real)?,
            None => self.attr_of(&inode)?,
        };
        Ok(Some(Entry { inode, attr, lifetime: Lifetime::of(&parent.stack) }))
    }

    /// A lookup of an inode that is known for as long as something is attached in or below `parent`.
    pub(super) fn entry_of(&self, parent: &Inode, ino: Ino) -> Result<Entry<'_>> {
        let inode = self.store.refer(ino).ok_or(Error::Stale)?;
        let attr = self.attr_of(&inode)?;
        // Where others move directories, the name may come to be in another one.
        Ok(Entry { inode, attr, lifetime: Lifetime::of(&parent.stack) })
    }

    /// What the layers have found, as an object to be numbered.
    pub(super) fn object(&self, stack: &Arc<Stack>, name: &OsStr, found: Found) -> Result<Option<Object>> {
        match found {
            Outcome::Absent => Ok(None),
            Outcome::Broken(mark, why) => {
                Err(Error::BadMark { mark, name: name.to_string_lossy().into_owned(), why })
            }
            Outcome::Dir(members) => dir_object(stack, members).map(Some),
            Outcome::NonDir(layer, place, data) => {
                let data = match data {
                    Data::Here => None,
                    Data::At(_, place) => Some(Box::new(lower_file(&place))),
                    // Data that is nowhere is missed when it is read, as in the kernel.
                    Data::DataOnly(path) => {
                        let found = stack.data_only(&path)?;
                        Some(Box::new(found.map_or_else(LowerFile::missing, |found| lower_file(&found))))
                    }
                };
                let mut state = State::default();
                if data.is_some() {
                    state.rare_mut().data = data;
                }
                let mut object = if layer.is_upper() {
                    self.upper_object(stack, &place, state)?
                } else {
                    lower_object(stack, layer, &place, state)?
                };
                if object.kind == FileKind::Regular && stack.by_attribute() {
                    let fd = place.dir.fd().call("openat2")?;
                    object.kind = stat_shown(stack, At::new(fd.as_fd(), &place.name))?.kind;
                }
                Ok(Some(object))
            }
        }
    }

    /// A copied-up object is the inode that it was before, if the kernel still knows that one, whatever the marks say.
    fn upper_object(&self, stack: &Arc<Stack>, place: &Place, mut state: State) -> Result<Object> {
        let real = place.stat;
        if stack.is_direct() {
            state.upper_ino = real.ino;
            if let Some(sign) = sign_of(place)? {
                state.rare_mut().sign = sign;
            }
            let wanted = stack.pack_ino(real.dev, real.ino);
            let held = place.object.clone();
            return Ok(Object { held, ..Object::new(real, wanted, Node::NonDir, state) });
        }
        let upper = stack.writable()?;
        let fd = place.dir.fd().call("openat2")?;
        let at = At::new(fd.as_fd(), &place.name);
        let mut wanted = stack.pack_ino(real.dev, real.ino);
        // Only a directory marked impure has children with an origin, and only an indexed file has one elsewhere.
        if place.dir.is(Fact::Impure) || (real.nlink > 1 && stack.indexes(real.kind)) {
            if let Some(origin) = upper.origin(at)? {
                if let Some((device, ino, lower_nlink)) = stack.find_origin(&origin) {
                    wanted = stack.pack_ino(device, ino);
                    if real.nlink > 1 && stack.indexes(real.kind) {
                        find_index(upper, &origin, &real, lower_nlink, &mut state)?;
                    }
                }
            }
        }
        state.upper_ino = real.ino;
        let ino = self.store.copied_up().number(stack, real.ino);
        let known =
            ino.filter(|_| real.dev == stack.device(LayerId::UPPER)).and_then(|ino| self.store.get(ino));
        Ok(Object { known, ..Object::new(real, wanted, Node::NonDir, state) })
    }
}

fn lower_file(place: &Place) -> LowerFile {
    LowerFile {
        dir: Some(place.dir.clone()),
        name: place.name.clone(),
        ino: place.stat.ino,
        nlink: place.stat.nlink,
    }
}

fn dir_object(stack: &Arc<Stack>, members: Members<Place>) -> Result<Object> {
    let first = members.first().ok_or(Error::Bug("a directory without parts"))?;
    let real = first.1.stat;
    let opaque = first.0.is_upper() && first.1.opaque;
    let object = first.1.object.clone();
    // Its topmost lower part gives the number, so that it stays when an upper part comes.
    let numbered = members.iter().find(|(layer, _)| !layer.is_upper()).unwrap_or(first);
    let wanted = stack.pack_ino(numbered.1.stat.dev, numbered.1.stat.ino);
    let upper = OnceLock::new();
    let mut lowers = smallvec::SmallVec::new();
    let mut learning = Some(Learning::default());
    let mut listed = (!stack.by_attribute()).then(Vec::new);
    for (layer, mut place) in members {
        let dir = stack.enter(&place);
        if layer.is_upper() {
            upper.set(dir).map_err(|_| Error::Bug("two upper parts"))?;
            continue;
        }
        let names = match (&mut learning, place.listed.take(), u16::try_from(lowers.len())) {
            (Some(learning), Some(names), Ok(position)) => {
                learning.add(position, &names);
                names.names
            }
            _ => {
                learning = None;
                None
            }
        };
        match (&mut listed, names) {
            (Some(listed), Some(names)) => listed.push(names),
            _ => listed = None,
        }
        lowers.push(dir);
    }
    let mut state = State::default();
    state.opaque = opaque;
    let held = if stack.is_direct() { object } else { None };
    let (in_upper, is_merged) = (upper.get().is_some(), !lowers.is_empty());
    let mut node = Node::dir(upper, lowers);
    if let (Some(names), true) = (learning, is_merged) {
        let few = |listed: &Vec<Vec<_>>| listed.iter().map(Vec::len).sum::<usize>() <= KEPT_NAMES;
        node = node.with_names(names.finish(), listed.filter(few));
    }
    Ok(Object { kind: FileKind::Dir, in_upper, held, ..Object::new(real, wanted, node, state) })
}

/// What tells a symlink from another with its number: filesystems give a number again at once, and the kernel keeps where
/// a symlink leads for as long as it knows the inode.
fn sign_of(place: &Place) -> Result<Option<u64>> {
    if place.stat.kind != FileKind::Symlink {
        return Ok(None);
    }
    let Some(link) = &place.object else { return Ok(None) };
    let mut digest = std::hash::DefaultHasher::new();
    // One that cannot be read is there all the same.
    name::readlink(At::fd(link.as_fd())).ok().hash(&mut digest);
    Ok(Some(digest.finish()))
}

fn lower_object(stack: &Arc<Stack>, layer: LayerId, place: &Place, mut state: State) -> Result<Object> {
    let mut real = place.stat;
    let wanted = stack.pack_ino(real.dev, real.ino);
    let lower_nlink = real.nlink;
    state.set_lower(lower_file(place));
    let hard_linked = real.kind != FileKind::Dir && real.nlink > 1 && stack.is_writable();
    if hard_linked && stack.indexes(real.kind) {
        let upper = stack.writable()?;
        let fd = place.dir.fd().call("openat2")?;
        if let Some(origin) = stack.origin_of(layer, At::new(fd.as_fd(), &place.name)) {
            if let Some(indexed) = stat_index(upper, &origin)? {
                find_index(upper, &origin, &indexed, Some(lower_nlink), &mut state)?;
                state.upper_ino = indexed.ino;
                // With only metadata in the index, the data is where this name leads.
                state.rare_mut().data = match is_metacopy(upper, &origin)? {
                    true => state.rare_mut().data.take().or_else(|| Some(Box::new(lower_file(place)))),
                    false => None,
                };
                real = indexed;
            }
        }
    }
    let by_name = hard_linked && !stack.indexes(real.kind);
    Ok(Object { by_name, in_upper: false, ..Object::new(real, wanted, Node::NonDir, state) })
}

fn is_metacopy(upper: &Upper, origin: &Origin) -> Result<bool> {
    let dir = upper.workdir.index().ok_or(Error::Bug("an index entry without a directory"))?;
    Ok(upper.mark(At::new(dir.as_fd(), &index_entry(origin)?), Mark::Metacopy)?.is_some())
}

fn stat_index(upper: &Upper, origin: &Origin) -> Result<Option<Stat>> {
    let (Some(dir), Ok(entry)) = (upper.workdir.index(), index_entry(origin)) else { return Ok(None) };
    match stat(At::new(dir.as_fd(), &entry)) {
        // A whiteout there belongs to a directory of an exported mount.
        Ok(found) if found.is_whiteout_device() => Ok(None),
        Ok(found) => Ok(Some(found)),
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENAMETOOLONG) => Ok(None),
        Err(errno) => Err(Error::Sys { call: "statx", errno }),
    }
}

/// Fills in what the index knows of an upper object: its entry, and the link count that all its names make.
fn find_index(
    upper: &Upper,
    origin: &Origin,
    real: &Stat,
    lower_nlink: Option<u32>,
    state: &mut State,
) -> Result<()> {
    let Some(indexed) = stat_index(upper, origin)? else { return Ok(()) };
    if indexed.ino != real.ino {
        return Ok(());
    }
    let dir = upper.workdir.index().ok_or(Error::Bug("an index entry without a directory"))?;
    let entry = index_entry(origin)?;
    let value = upper.mark(At::new(dir.as_fd(), &entry), Mark::Nlink)?;
    let count = match value.as_deref().and_then(mark::parse_nlink) {
        Some((NlinkBase::Upper, difference)) => Some(i64::from(indexed.nlink) + difference),
        Some((NlinkBase::Lower, difference)) => lower_nlink.map(|nlink| i64::from(nlink) + difference),
        None => None,
    };
    let rare = state.rare_mut();
    rare.nlink = count.and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0);
    rare.index = Some(entry);
    Ok(())
}
