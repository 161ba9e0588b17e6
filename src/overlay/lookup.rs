//! Lookup: from a name to an inode. What the layers say is `merge::resolve`'s; here it becomes a number.

use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};

use super::Overlay;
use super::attr::{Attr, Lifetime, may_be_unsettled, stat_shown};
use crate::copy_up::publish::index_entry;
use crate::error::{Context, Error, Result};
use crate::inode::{Ino, Inode, InodeRef, LowerFile, Node, Point, State};
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

impl Object {
    /// The number it shows; nothing if a counter must give one.
    pub(super) fn number(&self) -> Option<u64> {
        self.wanted
    }
}

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

/// An object as the layers have it, before it has a number.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: FileKind,
    /// What the metadata's object is on disk.
    pub(super) real: Stat,
    /// The number it should have, and the one it shows.
    pub(super) wanted: Option<u64>,
    /// The name alone tells it from others: a hard link that copy-up will break.
    pub(super) by_name: bool,
    pub(super) node: Node,
    pub(super) state: State,
    /// The name given is the upper object's own.
    pub(super) in_upper: bool,
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
        let Some(object) = self.object(&parent.stack, name, found)? else { return Ok(None) };
        // What a device or an attribute really says takes another look at the object.
        let real = (!parent.stack.by_attribute() && object.kind != FileKind::Char).then_some(object.real);
        let inode = self.intern(parent, name, object)?;
        let attr = match real.filter(|_| !may_be_unsettled(&inode)) {
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
                    upper_object(stack, &place, state)?
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

    /// The inode of an object, known already or new, with one lookup, and with this name.
    pub(super) fn intern(&self, parent: &Arc<Inode>, name: &OsStr, object: Object) -> Result<InodeRef<'_>> {
        let identity = object.identity();
        if let Some(known) = self.refer_counted(parent.ino, name) {
            if identity.is(&known, parent, name) {
                return Ok(known);
            }
        }
        let own = object.wanted.filter(|_| !object.by_name).map(Ino);
        if let Some(known) = own.and_then(|ino| self.store.refer(ino)) {
            if parent.stack.is_direct() && identity.is_direct(&known) {
                self.has_name_now(&known, parent, name)?;
                return Ok(known);
            }
            if identity.is(&known, parent, name) {
                self.add_name(&known, &mut known.state.write(), parent, name, object.in_upper);
                return Ok(known);
            }
            return self.intern_counted(parent, name, object);
        }
        let Some(ino) = own else { return self.intern_counted(parent, name, object) };
        let (in_upper, real) = (object.in_upper, object.real);
        let inode = object.into_inode(ino, ino.0, parent);
        // Before others find it: a directory is told by its name.
        self.add_name(&inode, &mut inode.state.write(), parent, name, in_upper);
        // Somebody looked the same name up meanwhile, or another that wants the same number.
        let (known, ours) = match self.store.insert(inode) {
            Ok(inode) => return Ok(inode),
            Err(both) => both,
        };
        self.remove_name(&ours, &mut ours.state.write(), parent, name);
        if parent.stack.is_direct() && identity.is_direct(&known) {
            self.has_name_now(&known, parent, name)?;
            return Ok(known);
        }
        if identity.is(&known, parent, name) {
            self.add_name(&known, &mut known.state.write(), parent, name, in_upper);
            return Ok(known);
        }
        let object = Object::taken_from(ours, real, in_upper)?;
        self.intern_counted(parent, name, object)
    }

    /// As `intern`, by a number of the counter: the object's own is another's, or it has none.
    fn intern_counted(&self, parent: &Arc<Inode>, name: &OsStr, object: Object) -> Result<InodeRef<'_>> {
        let (identity, in_upper) = (object.identity(), object.in_upper);
        let ino = self.store.count();
        // Only a hard link that will be broken shares its number, as on the layer itself; and what has got the number of
        // something that others have removed, and the kernel has not forgotten.
        let shares = object.by_name || parent.stack.is_direct();
        let st_ino = object.wanted.filter(|_| shares).unwrap_or(ino.0);
        let inode = match self.store.insert(object.into_inode(ino, st_ino, parent)) {
            Ok(inode) => inode,
            Err(_) => return Err(Error::Bug("a counted number was given twice")),
        };
        // Somebody may have been quicker with the same name.
        let first = self.claim_name(parent, name, ino).and_then(|first| self.store.refer(first));
        if let Some(known) = first.filter(|known| identity.is(known, parent, name)) {
            return Ok(known);
        }
        self.add_name(&inode, &mut inode.state.write(), parent, name, in_upper);
        Ok(inode)
    }
}

/// What tells an object from others, before it has a number.
struct Identity {
    kind: FileKind,
    /// Of a directory only in a tree that others change.
    upper_ino: u64,
    sign: u64,
    lower: Option<(LayerId, u64)>,
}

impl Object {
    fn identity(&self) -> Identity {
        let lower = self.state.lower().map(|lower| lower.identity());
        let upper_ino = self.node.upper_ino(&self.state);
        Identity { kind: self.kind, upper_ino, sign: self.state.rare().sign, lower }
    }

    /// The object of an inode that nobody has come to know.
    fn taken_from(mut inode: Arc<Inode>, real: Stat, in_upper: bool) -> Result<Object> {
        let inode = Arc::get_mut(&mut inode).ok_or(Error::Bug("an inode that nobody knows is in use"))?;
        let state = std::mem::take(inode.state.get_mut());
        let node = std::mem::replace(&mut inode.node, Node::NonDir);
        Ok(Object { kind: inode.kind, real, wanted: None, by_name: false, node, state, in_upper })
    }

    fn into_inode(self, ino: Ino, st_ino: u64, parent: &Inode) -> Arc<Inode> {
        Arc::new(Inode::new(ino, st_ino, self.kind, parent.stack.clone(), self.node, self.state))
    }
}

impl Identity {
    /// As `is` in a tree without marks, whatever names it has: a number there is one object's until it is removed.
    fn is_direct(&self, known: &Inode) -> bool {
        let state = known.state.read();
        let same = state.rare().sign == self.sign && self.is_upper_of(known, &state);
        known.kind == self.kind && !state.gone && same
    }

    /// Whether the upper object of `known` has the same number.
    fn is_upper_of(&self, known: &Inode, state: &State) -> bool {
        self.upper_ino == known.node.upper_ino(state)
    }

    /// Whether a known inode is this object: the same number is not enough where layers are untrusted.
    fn is(&self, known: &Inode, parent: &Inode, name: &OsStr) -> bool {
        if known.kind != self.kind || known.gave_way() {
            return false;
        }
        let state = known.state.read();
        if known.is_dir() {
            // In layers nobody else gives the name to another directory, and none of them has a number to be told by.
            return !state.gone && state.has_name(parent, name) && self.is_upper_of(known, &state);
        }
        let same_upper =
            self.upper_ino != 0 && self.is_upper_of(known, &state) && state.rare().sign == self.sign;
        // The layers may have been asked just before the object came up.
        let lower = state.lower().map(|lower| lower.identity());
        let same_lower = lower.is_some() && lower == self.lower;
        same_upper || (same_lower && (self.upper_ino == 0 || state.upper_ino == 0))
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
    let (in_upper, is_merged) = (upper.get().is_some(), !lowers.is_empty());
    let mut node = Node::dir(upper, lowers);
    if let (Some(names), true) = (learning, is_merged) {
        let few = |listed: &Vec<Vec<_>>| listed.iter().map(Vec::len).sum::<usize>() <= KEPT_NAMES;
        node = node.with_names(names.finish(), listed.filter(few));
    }
    Ok(Object { kind: FileKind::Dir, real, wanted, by_name: false, in_upper, node, state })
}

fn upper_object(stack: &Arc<Stack>, place: &Place, mut state: State) -> Result<Object> {
    let real = place.stat;
    if stack.is_direct() {
        state.upper_ino = real.ino;
        if let Some(sign) = sign_of(place)? {
            state.rare_mut().sign = sign;
        }
        let wanted = stack.pack_ino(real.dev, real.ino);
        let node = Node::NonDir;
        return Ok(Object { kind: real.kind, real, wanted, by_name: false, node, state, in_upper: true });
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
    Ok(Object { kind: real.kind, real, wanted, by_name: false, node: Node::NonDir, state, in_upper: true })
}

/// What tells a symlink from another with its number: filesystems give a number again at once, and the kernel keeps where
/// a symlink leads for as long as it knows the inode.
fn sign_of(place: &Place) -> Result<Option<u64>> {
    if place.stat.kind != FileKind::Symlink {
        return Ok(None);
    }
    let fd = place.dir.fd().call("openat2")?;
    let mut digest = std::hash::DefaultHasher::new();
    // One that cannot be read is there all the same.
    name::readlink(At::new(fd.as_fd(), &place.name)).ok().hash(&mut digest);
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
    Ok(Object { kind: real.kind, real, wanted, by_name, node: Node::NonDir, state, in_upper: false })
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
