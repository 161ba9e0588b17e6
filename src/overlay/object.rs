//! Which inode an object is: one that the kernel knows already, by its number, its name or what it was copied up from, or a
//! new one.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Overlay;
use crate::error::{Error, Result};
use crate::inode::{Ino, Inode, InodeRef, Node, State};
use crate::layer::Stack;
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::sys::stat::Stat;

/// An object as the layers have it, before it has a number.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: FileKind,
    /// What the metadata's object is on disk.
    pub(super) real: Stat,
    /// The number it should have, and the one it shows.
    pub(super) wanted: Option<u64>,
    /// The inode that was copied up to it.
    pub(super) known: Option<Arc<Inode>>,
    /// The object on disk, where others may give its name to another.
    pub(super) held: Option<Arc<OwnedFd>>,
    /// The name alone tells it from others: a hard link that copy-up will break.
    pub(super) by_name: bool,
    pub(super) node: Node,
    pub(super) state: State,
    /// The name given is the upper object's own.
    pub(super) in_upper: bool,
}

impl Object {
    /// An object of the upper layer that nothing else is known of.
    pub(super) fn new(real: Stat, wanted: Option<u64>, node: Node, state: State) -> Object {
        Object {
            kind: real.kind,
            real,
            wanted,
            known: None,
            held: None,
            by_name: false,
            node,
            state,
            in_upper: true,
        }
    }

    /// The number it shows; nothing if a counter must give one.
    pub(super) fn number(&self) -> Option<u64> {
        self.known.as_ref().map(|known| known.st_ino).or(self.wanted)
    }

    fn identity(&self, stack: &Stack) -> Identity {
        let lower = lower_id(stack, self.kind, &self.state);
        let upper_ino = self.node.upper_ino(&self.state);
        Identity { kind: self.kind, upper_ino, sign: self.state.rare().sign, lower }
    }

    /// The object of an inode that nobody has come to know.
    fn taken_from(mut inode: Arc<Inode>, real: Stat, in_upper: bool) -> Result<Object> {
        let inode = Arc::get_mut(&mut inode).ok_or(Error::Bug("an inode that nobody knows is in use"))?;
        let state = std::mem::take(inode.state.get_mut());
        let node = std::mem::replace(&mut inode.node, Node::NonDir);
        Ok(Object { kind: inode.kind, in_upper, ..Object::new(real, None, node, state) })
    }

    fn into_inode(self, ino: Ino, st_ino: u64, parent: &Inode) -> Arc<Inode> {
        // A directory may be told to the kernel before anybody has looked at it.
        let generation = if self.kind == FileKind::Dir { 0 } else { self.real.generation };
        let inode = Inode::new(ino, st_ino, self.kind, parent.stack.clone(), self.node, self.state);
        Arc::new(inode.of_generation(generation))
    }
}

impl Overlay {
    /// The inode of an object, known already or new, with one lookup, and with this name.
    pub(super) fn intern(&self, parent: &Arc<Inode>, name: &OsStr, object: Object) -> Result<InodeRef<'_>> {
        let identity = object.identity(&parent.stack);
        if let Some(known) = self.refer_counted(parent.ino, name) {
            if identity.is(&known, parent, name) {
                return Ok(known);
            }
        }
        if let Some(known) = object.known.as_ref().and_then(|known| self.store.refer(known.ino)) {
            if identity.is(&known, parent, name) {
                self.add_name(&known, &mut known.state.write(), parent, name, object.in_upper);
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
        let (identity, in_upper) = (object.identity(&parent.stack), object.in_upper);
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
    lower: Option<LowerId>,
}

/// What tells a lower file from others, by its inode number.
#[derive(Debug, PartialEq, Eq)]
enum LowerId {
    /// The same file in whatever layer it has a name: they keep being one when it is copied up, or it never is.
    Anywhere(u64, u64),
    /// Copied up, it is another than the names in other layers.
    In(LayerId, u64),
}

fn lower_id(stack: &Stack, kind: FileKind, state: &State) -> Option<LowerId> {
    let lower = state.lower()?;
    let layer = lower.dir.layer();
    // A layer inside another shows a file with one link in two places; no index knows of that.
    let stays_one = !stack.is_writable() || (lower.nlink > 1 && stack.indexes(kind));
    Some(if stays_one {
        LowerId::Anywhere(stack.device(layer), lower.ino)
    } else {
        LowerId::In(layer, lower.ino)
    })
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
        let lower = lower_id(&known.stack, known.kind, &state);
        let same_lower = lower.is_some() && lower == self.lower;
        same_upper || (same_lower && (self.upper_ino == 0 || state.upper_ino == 0))
    }
}
