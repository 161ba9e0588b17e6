//! Telling the kernel of attributes that changed behind its back: at once, or, of directories into which copies are put,
//! once for all that come in a short while.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::inode::{Ino, Inode};

/// Called with the number of an inode whose attributes, as the kernel may have cached them, are wrong now.
pub type Changed = Box<dyn Fn(Ino) + Send + Sync>;

/// How long the kernel may show a directory's time of change as it was before a copy came into it. Each time that it is
/// told it asks for the directory's attributes again, before the next name in it.
const SHORT_WHILE: Duration = Duration::from_millis(10);

/// Who hears of changed attributes.
#[derive(Default)]
pub struct Teller {
    changed: OnceLock<Changed>,
    late: Mutex<Late>,
}

/// What is told in a short while.
#[derive(Default)]
struct Late {
    /// Numbers only: an inode that lives on after the kernel has forgotten it would keep what it has in the workdir.
    inodes: HashSet<Ino>,
    /// Whether a thread is there that will tell.
    coming: bool,
}

impl Teller {
    /// Says who is to hear.
    pub fn on_change(&self, changed: Changed) {
        // A second listener would be a fault of the mount's start; the first stays.
        let _ = self.changed.set(changed);
    }

    /// Says that the kernel's attributes of `inode` are wrong now.
    pub fn at_once(&self, inode: &Inode) {
        if inode.note_attributes_cached(false) {
            if let Some(changed) = self.changed.get() {
                changed(inode.ino);
            }
        }
    }

    /// Says within a short while that the kernel's attributes of `ino` are wrong. Only for what no caller has asked to
    /// change.
    pub fn soon(self: &Arc<Teller>, ino: Ino) {
        if self.changed.get().is_none() {
            return;
        }
        let mut late = self.late.lock();
        late.inodes.insert(ino);
        if late.coming {
            return;
        }
        let teller = self.clone();
        let spawned = std::thread::Builder::new().name("attributes".to_owned()).spawn(move || teller.tell());
        late.coming = spawned.is_ok();
        if let Err(error) = spawned {
            tracing::debug!("no thread that tells of changed attributes, so they are told at once: {error}");
            let inodes = std::mem::take(&mut late.inodes);
            drop(late);
            self.tell_of(inodes);
        }
    }

    fn tell_of(&self, inodes: HashSet<Ino>) {
        if let Some(changed) = self.changed.get() {
            inodes.into_iter().for_each(changed);
        }
    }

    /// Tells, every short while, until there is nothing to tell.
    fn tell(&self) {
        loop {
            std::thread::sleep(SHORT_WHILE);
            let inodes = {
                let mut late = self.late.lock();
                late.coming = !late.inodes.is_empty();
                if !late.coming {
                    return;
                }
                std::mem::take(&mut late.inodes)
            };
            self.tell_of(inodes);
        }
    }
}
