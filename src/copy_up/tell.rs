//! Telling the kernel of attributes that changed behind its back.

use std::sync::OnceLock;

use crate::inode::{Attributes, Ino, Inode};

/// Called with the number of an inode whose attributes, as the kernel may have cached them, are wrong now.
pub type Changed = Box<dyn Fn(Ino) + Send + Sync>;

/// Who hears of changed attributes.
#[derive(Default)]
pub struct Teller {
    changed: OnceLock<Changed>,
}

impl Teller {
    /// Says who is to hear.
    pub fn on_change(&self, changed: Changed) {
        // A second listener would be a fault of the mount's start; the first stays.
        let _ = self.changed.set(changed);
    }

    /// Says that the kernel's attributes of `inode` are wrong now. Called before the request that changed them is answered, so
    /// that no caller sees the change later, as if it had been made then.
    pub fn at_once(&self, inode: &Inode) {
        if inode.note_attributes(Attributes::Changed) == Attributes::Told {
            if let Some(changed) = self.changed.get() {
                changed(inode.ino);
            }
        }
    }
}
