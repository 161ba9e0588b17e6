//! Lookup: from a name to an inode. What the layers say is `merge::resolve`'s; here it becomes a number.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};

use super::Overlay;
use super::attr::Attr;
use crate::copy_up::publish::index_entry;
use crate::error::{Context, Error, Result};
use crate::inode::node::State;
use crate::inode::{Ino, Inode, InodeRef, LowerFile, Node};
use crate::layer::real_dir::Fact;
use crate::layer::stack::Found;
use crate::layer::{Place, Stack, Upper};
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::merge::mark::{self, Mark, NlinkBase};
use crate::merge::origin::Origin;
use crate::merge::resolve::{Data, Members, Outcome};
use crate::sys::At;
use crate::sys::stat::{Stat, stat};

/// The longest name of any layer.
const NAME_MAX: usize = 255;

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
}

/// An object as the layers have it, before it has a number.
#[derive(Debug)]
pub(super) struct Object {
    kind: FileKind,
    /// What the metadata's object is on disk.
    pub(super) real: Stat,
    /// The number it should have, and the one it shows.
    wanted: Option<u64>,
    /// The name alone tells it from others: a hard link that copy-up will break.
    by_name: bool,
    node: Node,
    state: State,
    /// The name given is the upper object's own.
    in_upper: bool,
}

impl Overlay {
    /// The inode under `name` in `parent`; nothing if there is none.
    /// Errors: `NameTooLong`; `BadMark` for a mark that cannot be followed.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Option<Entry<'_>>> {
        let parent = self.dir(parent)?;
        let _names = parent.names.read();
        self.lookup_locked(&parent, name)
    }

    /// As `lookup`. Locks: the parent's names are held, for reading at least.
    pub(super) fn lookup_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<Entry<'_>>> {
        if name.as_bytes().len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if mark::is_reserved(name.as_bytes()) || parent.state.read().gone {
            return Ok(None);
        }
        let found = parent.stack.resolve(&parent.real_dirs(), name)?;
        let Some(object) = self.object(&parent.stack, name, found)? else { return Ok(None) };
        // What a device or an attribute really says takes another look at the object.
        let real = (!self.by_attribute() && object.kind != FileKind::Char).then_some(object.real);
        let inode = self.intern(parent, name, object)?;
        let attr = match real {
            Some(real) => self.shown(&inode, real)?,
            None => self.attr_of(&inode)?,
        };
        Ok(Some(Entry { inode, attr }))
    }

    /// As `lookup_locked`. Errors: `NotFound`.
    pub(super) fn existing_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<InodeRef<'_>> {
        self.lookup_locked(parent, name)?.map(|entry| entry.inode).ok_or(Error::NotFound)
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
                let state = State { data, ..State::default() };
                let mut object = if layer.is_upper() {
                    upper_object(stack, &place, state)?
                } else {
                    lower_object(stack, layer, &place, state)?
                };
                if object.kind == FileKind::Regular && self.by_attribute() {
                    let fd = place.dir.fd().call("openat2")?;
                    object.kind = self.stat_shown(At::new(fd.as_fd(), &place.name))?.kind;
                }
                Ok(Some(object))
            }
        }
    }

    /// The inode of an object, known already or new, with one lookup, and with this name.
    pub(super) fn intern(&self, parent: &Arc<Inode>, name: &OsStr, object: Object) -> Result<InodeRef<'_>> {
        if let Some(known) = self.refer_counted(parent.ino, name) {
            if is_same(&known, parent, name, &object) {
                return Ok(known);
            }
        }
        let mut taken = object.by_name;
        if let (Some(wanted), false) = (object.wanted, taken) {
            if let Some(known) = self.store.refer(Ino(wanted)) {
                if is_same(&known, parent, name, &object) {
                    self.add_name(&known, &mut known.state.write(), parent, name, object.in_upper);
                    return Ok(known);
                }
                taken = true;
            }
        }
        let ino = object.wanted.filter(|_| !taken).map_or_else(|| self.store.count(), Ino);
        let st_ino = match object.wanted {
            // Only a hard link that will be broken shares its number, as on the layer itself.
            Some(wanted) if object.by_name => wanted,
            _ => ino.0,
        };
        let in_upper = object.in_upper;
        let stack = parent.stack.clone();
        let inode = Arc::new(Inode::new(ino, st_ino, object.kind, stack, object.node, object.state));
        self.add_name(&inode, &mut inode.state.write(), parent, name, in_upper);
        match self.store.insert(inode) {
            Ok(inode) => Ok(inode),
            // Somebody looked the same name up meanwhile.
            Err((known, ours)) => {
                self.store.let_go_of_parents(&ours);
                self.add_name(&known, &mut known.state.write(), parent, name, in_upper);
                Ok(known)
            }
        }
    }
}

/// Whether a known inode is this object: the same number is not enough where layers are untrusted.
fn is_same(known: &Inode, parent: &Inode, name: &OsStr, object: &Object) -> bool {
    if known.kind != object.kind {
        return false;
    }
    let state = known.state.read();
    if known.is_dir() {
        return !state.gone && state.has_name(parent, name);
    }
    let (upper, lower) = (object.state.upper_ino, &object.state.lower);
    let same_upper = upper != 0 && state.upper_ino == upper;
    // The layers may have been asked just before the object came up.
    let same_lower = match (&state.lower, lower) {
        (Some(known), Some(found)) => known.ino == found.ino && known.layer() == found.layer(),
        _ => false,
    };
    same_upper || (same_lower && (upper == 0 || state.upper_ino == 0))
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
    for (layer, place) in &members {
        let dir = stack.enter(place);
        if layer.is_upper() {
            upper.set(dir).map_err(|_| Error::Bug("two upper parts"))?;
        } else {
            lowers.push(dir);
        }
    }
    Ok(Object {
        kind: FileKind::Dir,
        real,
        wanted,
        by_name: false,
        in_upper: upper.get().is_some(),
        node: Node::Dir { upper, lowers },
        state: State { opaque, ..State::default() },
    })
}

fn upper_object(stack: &Arc<Stack>, place: &Place, mut state: State) -> Result<Object> {
    let upper = stack.writable()?;
    let real = place.stat;
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

fn lower_object(stack: &Arc<Stack>, layer: LayerId, place: &Place, mut state: State) -> Result<Object> {
    let mut real = place.stat;
    let wanted = stack.pack_ino(real.dev, real.ino);
    let lower_nlink = real.nlink;
    state.lower = Some(Box::new(lower_file(place)));
    let hard_linked = real.kind != FileKind::Dir && real.nlink > 1 && stack.is_writable();
    if hard_linked && stack.indexes(real.kind) {
        let upper = stack.writable()?;
        let fd = place.dir.fd().call("openat2")?;
        if let Some(origin) = stack.origin_of(layer, At::new(fd.as_fd(), &place.name)) {
            if let Some(indexed) = stat_index(upper, &origin)? {
                find_index(upper, &origin, &indexed, Some(lower_nlink), &mut state)?;
                state.upper_ino = indexed.ino;
                // With only metadata in the index, the data is where this name leads.
                state.data = match is_metacopy(upper, &origin)? {
                    true => state.data.take().or_else(|| state.lower.clone()),
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
    state.nlink = count.and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0);
    state.index = Some(entry);
    Ok(())
}
