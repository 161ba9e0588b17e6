//! Inodes by number, with the kernel's lookup counts; all memory of one is given back when the kernel forgets it.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::node::Inode;
use super::{CopiedUp, Ino};
use crate::merge::ino::FIRST_COUNTED;
use crate::sync::{LevelMutex, level};

const SHARDS: usize = 64;
/// How many inodes must have gone before it is worth looking for memory to give back.
const MANY: usize = 8192;
type Shard = LevelMutex<HashSet<Known>, { level::STORE }>;

/// An inode under its own number, which is kept once.
#[derive(Debug)]
struct Known(Arc<Inode>);

impl Borrow<Ino> for Known {
    fn borrow(&self) -> &Ino {
        &self.0.ino
    }
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.ino.hash(state);
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Known) -> bool {
        self.0.ino == other.0.ino
    }
}

impl Eq for Known {}

/// All inodes that the kernel knows.
#[derive(Debug)]
pub struct Store {
    shards: Box<[Shard]>,
    next_counted: AtomicU64,
    copied_up: CopiedUp,
    known: AtomicUsize,
    /// How many more lookups of a number the kernel will take back than it was told of.
    expected: LevelMutex<HashMap<Ino, u64>, { level::STORE }>,
    /// The most that were known since `has_shrunk` last said so.
    most: AtomicUsize,
}

/// One lookup of an inode. Dropped, it is given back; `leak` hands it to the kernel.
#[derive(Debug)]
pub struct InodeRef<'a> {
    store: &'a Store,
    inode: Option<Arc<Inode>>,
}

impl Default for Store {
    fn default() -> Store {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        let (known, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (copied_up, expected) = (CopiedUp::default(), LevelMutex::default());
        Store { shards, next_counted: AtomicU64::new(FIRST_COUNTED), copied_up, known, expected, most }
    }
}

impl Store {
    #[expect(clippy::indexing_slicing, reason = "a remainder is less than the number of shards")]
    fn shard(&self, ino: Ino) -> &Shard {
        // Inode numbers of one directory are often neighbours: the low bits spread them.
        &self.shards[(ino.0 ^ (ino.0 >> 56)) as usize % SHARDS]
    }

    /// The inode that the kernel calls `ino`. Nothing if it was forgotten.
    pub fn get(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.shard(ino).lock().get(&ino).map(|known| known.0.clone())
    }

    /// Those that were copied up while they were known.
    pub fn copied_up(&self) -> &CopiedUp {
        &self.copied_up
    }

    /// A number for what has none of its own, or whose own is taken.
    pub fn count(&self) -> Ino {
        Ino(self.next_counted.fetch_add(1, Ordering::Relaxed))
    }

    /// One more lookup of the inode with this number, if it is known.
    pub fn refer(&self, ino: Ino) -> Option<InodeRef<'_>> {
        let shard = self.shard(ino).lock();
        let inode = shard.get(&ino)?.0.clone();
        inode.lookups.fetch_add(1, Ordering::Relaxed);
        Some(InodeRef { store: self, inode: Some(inode) })
    }

    /// The first lookup of a new inode; if the number was taken meanwhile, a lookup of the one that has it, and the
    /// new one back.
    pub fn insert(&self, inode: Arc<Inode>) -> Result<InodeRef<'_>, (InodeRef<'_>, Arc<Inode>)> {
        let mut shard = self.shard(inode.ino).lock();
        if let Some(Known(known)) = shard.get(&inode.ino) {
            known.lookups.fetch_add(1, Ordering::Relaxed);
            let known = InodeRef { store: self, inode: Some(known.clone()) };
            return Err((known, inode));
        }
        inode.lookups.fetch_add(1, Ordering::Relaxed);
        shard.insert(Known(inode.clone()));
        self.most.fetch_max(self.known.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(InodeRef { store: self, inode: Some(inode) })
    }

    /// Keeps the directory `dir` known while something that is known has a name in it. The kernel may forget a directory
    /// before what is in it; looked up again it must be the same inode, or the names in it would be another's.
    pub fn hold(&self, dir: &Inode) {
        dir.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the kernel will take back a lookup of `ino` that it was not told of.
    pub fn expect_forget(&self, ino: Ino) {
        *self.expected.lock().entry(ino).or_default() += 1;
    }

    /// Takes back what `expect_forget` has noted: the kernel does not come to know of it.
    pub fn forgets_no_more(&self, ino: Ino) {
        self.expected_of(ino, 1);
    }

    /// How many of `count` lookups that the kernel takes back it was not told of. One is as good as another.
    pub fn expected_of(&self, ino: Ino, count: u64) -> u64 {
        let mut expected = self.expected.lock();
        if expected.is_empty() {
            return 0;
        }
        let Some(more) = expected.get_mut(&ino) else { return 0 };
        let these = count.min(*more);
        *more -= these;
        if *more == 0 {
            expected.remove(&ino);
        }
        these
    }

    /// Takes back `count` lookups. Returns the inode if it was the last: nobody finds it any more, and the directories
    /// of its names are held by it no longer.
    pub fn forget(&self, ino: Ino, count: u64) -> Option<Arc<Inode>> {
        let gone = self.take_back(ino, count)?;
        self.copied_up.forget(&gone);
        self.let_go_of_parents(&gone);
        Some(gone)
    }

    /// Takes back the holds of an inode that nobody finds.
    pub fn let_go_of_parents(&self, gone: &Inode) {
        // In a loop: a path may be thousands of names deep, and each directory may be the last thing in the next.
        let mut held = parents(gone);
        while let Some(dir) = held.pop() {
            if let Some(gone) = self.take_back(dir.ino, 1) {
                held.extend(parents(&gone));
            }
        }
    }

    fn take_back(&self, ino: Ino, count: u64) -> Option<Arc<Inode>> {
        // Returned, so that it goes outside the shard's lock: it may close descriptors and free a chain of parents.
        let mut shard = self.shard(ino).lock();
        let inode = &shard.get(&ino)?.0;
        let before = inode.lookups.fetch_sub(count, Ordering::Relaxed);
        debug_assert!(before >= count, "the kernel forgets {count} of {before} lookups of {ino:?}");
        if before > count || ino == Ino::ROOT {
            return None;
        }
        let gone = shard.take(&ino).map(|known| known.0);
        self.known.fetch_sub(1, Ordering::Relaxed);
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
            shard.shrink_to_fit();
        }
        gone
    }

    /// Whether most of many inodes have gone since this was last true.
    pub fn has_shrunk(&self) -> bool {
        let (known, most) = (self.len(), self.most.load(Ordering::Relaxed));
        let gone = most.saturating_sub(known);
        // One thread is told.
        gone >= MANY.max(most / 2)
            && self.most.compare_exchange(most, known, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Shows every known inode to `look`, in no order. What comes and goes meanwhile may be seen or not.
    pub fn each(&self, mut look: impl FnMut(&Arc<Inode>)) {
        for shard in &self.shards {
            // Copied, so that `look` may take locks of any level.
            let known: Vec<Arc<Inode>> = shard.lock().iter().map(|known| known.0.clone()).collect();
            known.iter().for_each(&mut look);
        }
    }

    /// How many inodes are known.
    pub fn len(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What `inode` holds: the directories of its names, and the inode that it gave them to.
fn parents(inode: &Inode) -> Vec<Arc<Inode>> {
    let state = inode.state.read();
    let parents = state.names.iter().map(|name| name.parent.clone());
    parents.chain(state.rare().now.clone()).collect()
}

impl InodeRef<'_> {
    /// Hands the lookup to the kernel, who will give it back by FORGET.
    #[expect(clippy::unreachable, reason = "whoever takes the inode out ends the value")]
    pub fn leak(mut self) -> Arc<Inode> {
        match self.inode.take() {
            Some(inode) => inode,
            None => unreachable!("only `leak` and `drop` take the inode out, and both end the value"),
        }
    }
}

impl std::ops::Deref for InodeRef<'_> {
    type Target = Arc<Inode>;
    #[expect(clippy::unreachable, reason = "whoever takes the inode out ends the value")]
    fn deref(&self) -> &Arc<Inode> {
        match &self.inode {
            Some(inode) => inode,
            None => unreachable!("only `leak` and `drop` take the inode out, and both end the value"),
        }
    }
}

impl Drop for InodeRef<'_> {
    fn drop(&mut self) {
        if let Some(inode) = self.inode.take() {
            let ino = inode.ino;
            drop(inode);
            self.store.forget(ino, 1);
        }
    }
}
