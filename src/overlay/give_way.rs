//! A lower file that is open passed through, and is to be written: with `lower_io=passthrough` the kernel reads it from the
//! layer itself, and while it does the inode can be read from nowhere else. So the inode gives its names to a new one with
//! another number, which shows the same `st_ino`, and the writer is told to look the name up again (ESTALE, on which the
//! kernel does so by itself). Who had it open keeps the bytes of the lower file; all else asked of the old inode is
//! answered by the new one.
//!
//! Departs: none from overlayfs.rst, "Non-standard behavior", which orders as much; but from what stratafs does otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Overlay;
use crate::error::{Error, Result};
use crate::inode::{Inode, Name, Node, State};

impl Overlay {
    /// Errors: `Stale`, after which the kernel asks again, if a change of the data of `inode` would be hidden from
    /// those who open it next, because the lower file is passed through. Its data is in the upper layer.
    /// Locks: takes the rename gate and what is below it.
    pub(super) fn let_write(&self, inode: &Arc<Inode>) -> Result<()> {
        if is_read_below(&inode.state.read()) {
            self.give_way(inode)?;
        }
        if inode.gave_way() { Err(Error::Stale) } else { Ok(()) }
    }

    /// Whether the kernel may read it from a lower layer itself. A file with several names is not all in the same hands: one of
    /// them may not be known yet, and would lead to the old inode.
    pub(super) fn may_read_below(&self, inode: &Inode, state: &State) -> bool {
        self.passes_below.load(Ordering::Relaxed)
            && inode.stack.upper.is_some()
            && state.upper_ino == 0
            && state.lower().is_some_and(|lower| lower.nlink == 1)
    }

    /// Moves the names of `inode` to a new inode, if it is still passed through from a lower layer.
    fn give_way(&self, inode: &Arc<Inode>) -> Result<()> {
        // Nobody else locks the names of two directories meanwhile.
        let _moves = inode.stack.rename_gate.write();
        loop {
            let parents = parents_of(&inode.state.read());
            let _names: Vec<_> = parents.iter().map(|parent| parent.names().write_second()).collect();
            let _gate = inode.gate.lock();
            let mut state = inode.state.write();
            if parents_of(&state).iter().any(|parent| !parents.iter().any(|held| Arc::ptr_eq(held, parent))) {
                // It got another name before this one was locked.
                continue;
            }
            if is_read_below(&state) && !inode.gave_way() {
                self.move_names(inode, &mut state)?;
                drop(state);
                // What the kernel knows of the old inode holds no longer than until the new one changes.
                self.copy_up.changed(inode);
            }
            return Ok(());
        }
    }

    /// Locks: the rename gate for writing, the names of all parents, the gate and the state of `inode`.
    fn move_names(&self, inode: &Arc<Inode>, state: &mut State) -> Result<()> {
        let mut new = State::default();
        new.upper_ino = state.upper_ino;
        if let Some(lower) = state.lower() {
            new.set_lower(lower.to_file());
        }
        if let Some(rare) = state.rare_if_any() {
            // Where the bytes are for those who have it open stays known here.
            new.rare_mut().data = rare.data.clone();
            new.rare_mut().index = rare.index.take();
            new.rare_mut().nlink = rare.nlink.take();
            new.rare_mut().orphan = rare.orphan.take();
            new.tidy();
        }
        let ino = self.store.count();
        let node = Node::NonDir;
        let new = Inode::new(ino, inode.st_ino, inode.kind, inode.stack.clone(), node, new);
        let new = self.hold_new(Arc::new(new))?;
        let names: Vec<Name> = state.names.to_vec();
        for Name { parent, name, in_upper } in names {
            // The directory is known throughout, though nothing else in it may be.
            self.store.hold(&parent);
            self.remove_name(inode, state, &parent, &name);
            self.add_name(&new, &mut new.state.write_second(), &parent, &name, in_upper);
            self.store.forget(parent.ino, 1);
        }
        state.upper_ino = 0;
        state.rare_mut().now = Some(new);
        inode.note_gave_way();
        Ok(())
    }
}

/// Whether the kernel reads it from a lower layer itself, now, though there is an upper one.
pub(super) fn is_read_below(state: &State) -> bool {
    let opens = state.rare().opens;
    opens.passthrough > 0 && opens.below
}

fn parents_of(state: &State) -> Vec<Arc<Inode>> {
    let mut parents: Vec<Arc<Inode>> = Vec::new();
    for name in state.names.iter() {
        if !parents.iter().any(|known| Arc::ptr_eq(known, &name.parent)) {
            parents.push(name.parent.clone());
        }
    }
    parents
}
