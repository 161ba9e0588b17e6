//! Inodes that were copied up while the kernel knew them, by their upper objects. A mark on disk can say which lower object
//! an upper one comes from, but not every object can have one, and not every layer can be told of by one; and what had its
//! number from the counter has no mark either. Whatever the layers say later, the upper object is the inode that the kernel
//! knows, for as long as it knows it.

use std::collections::HashMap;
use std::sync::Arc;

use super::Ino;
use super::node::Inode;
use crate::layer::Stack;
use crate::sync::{LevelMutex, level};

/// Which inode an upper object is, of those that were copied up while the kernel knew them.
#[derive(Debug, Clone, Default)]
pub struct CopiedUp(Arc<LevelMutex<HashMap<Key, Ino>, { level::STORE }>>);

/// The stack, by its place in memory, and the object's number in the upper layer. An inode holds its stack, so the place is
/// not another's as long as the entry is there.
type Key = (usize, u64);

fn key(stack: &Arc<Stack>, upper_ino: u64) -> Key {
    (Arc::as_ptr(stack).addr(), upper_ino)
}

impl CopiedUp {
    /// Notes that `upper_ino` in the upper layer is `inode` from now on.
    pub fn note(&self, inode: &Inode, upper_ino: u64) {
        self.0.lock().insert(key(&inode.stack, upper_ino), inode.ino);
    }

    /// The number of the inode that has this upper object, if it was copied up while it was known.
    pub fn number(&self, stack: &Arc<Stack>, upper_ino: u64) -> Option<Ino> {
        let known = self.0.lock();
        if known.is_empty() { None } else { known.get(&key(stack, upper_ino)).copied() }
    }

    /// Forgets an inode that the kernel has forgotten. Called before its objects are closed: then the filesystem may give
    /// the number to another.
    pub fn forget(&self, inode: &Inode) {
        let upper_ino = inode.state.read().upper_ino;
        let mut known = self.0.lock();
        let key = key(&inode.stack, upper_ino);
        if upper_ino != 0 && known.get(&key) == Some(&inode.ino) {
            known.remove(&key);
            if known.is_empty() {
                known.shrink_to_fit();
            }
        }
    }
}
