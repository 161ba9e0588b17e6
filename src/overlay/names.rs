//! The names by which inodes are known; every change of them goes through here.

use std::ffi::OsStr;
use std::sync::Arc;

use super::Overlay;
use crate::inode::listing::{Entry as Listed, Listing};
use crate::inode::{Ino, Inode, InodeRef, State};
use crate::merge::ino::FIRST_COUNTED;

impl Overlay {
    /// Notes that `inode` is known as `name` in `parent`.
    pub(super) fn add_name(
        &self,
        inode: &Inode,
        state: &mut State,
        parent: &Arc<Inode>,
        name: &OsStr,
        in_upper: bool,
    ) {
        match state.name_mut(parent, name) {
            Some(known) => known.in_upper |= in_upper,
            None => {
                self.store.hold(parent);
                state.push_name(parent, name, in_upper);
            }
        }
        if inode.ino.0 >= FIRST_COUNTED {
            self.counted.lock().insert((parent.ino, name.into()), inode.ino);
        }
    }

    /// Notes that `inode` is not known as `name` in `parent` any more.
    pub(super) fn remove_name(&self, inode: &Inode, state: &mut State, parent: &Inode, name: &OsStr) {
        if let Some(at) = state.position(parent, name) {
            state.remove_name_at(at);
            // Never the last: the kernel knows the directory while it changes a name in it.
            self.store.forget(parent.ino, 1);
        }
        if inode.ino.0 >= FIRST_COUNTED {
            self.counted.lock().remove(&(parent.ino, Box::from(name)));
        }
    }

    /// A lookup of the inode with a counted number that is known by this name.
    pub(super) fn refer_counted(&self, parent: Ino, name: &OsStr) -> Option<InodeRef<'_>> {
        let ino = {
            let counted = self.counted.lock();
            if counted.is_empty() {
                return None;
            }
            *counted.get(&(parent, Box::from(name)))?
        };
        self.store.refer(ino)
    }

    /// Notes that the inode with the counted number `ino` has this name, unless another has it; that one's number.
    pub(super) fn claim_name(&self, parent: &Inode, name: &OsStr, ino: Ino) -> Option<Ino> {
        let first = *self.counted.lock().entry((parent.ino, name.into())).or_insert(ino);
        (first != ino).then_some(first)
    }

    /// Forgets the names of an inode that the kernel has forgotten.
    pub(super) fn forget_names(&self, inode: &Inode) {
        let keys: Vec<_> = inode.state.read().names.iter().map(|n| (n.parent.ino, n.name.clone())).collect();
        let mut counted = self.counted.lock();
        for key in keys {
            // The name may be another inode's by now.
            if counted.get(&key) == Some(&inode.ino) {
                counted.remove(&key);
            }
        }
    }

    /// Keeps the directory's listing true after a name was made.
    pub(super) fn list_name(&self, parent: &Inode, name: &OsStr, inode: &Inode) {
        if let Some(listing) = listing_of(&mut parent.state.write()) {
            listing.insert(Listed { name: name.into(), st_ino: inode.st_ino, kind: inode.kind });
        }
    }

    /// Keeps the directory's listing true after a name was removed.
    pub(super) fn unlist_name(&self, parent: &Inode, name: &OsStr) {
        if let Some(listing) = listing_of(&mut parent.state.write()) {
            listing.remove(name);
        }
    }
}

fn listing_of(state: &mut State) -> Option<&mut Listing> {
    state.rare_if_any()?.listing.as_deref_mut()
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
