//! Directories of layers. Many are known, few are open: each remembers its parent and its name there, and a bounded
//! pool holds `O_PATH` descriptors, reopened when they were given up.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use nix::Result;
use nix::errno::Errno;
use parking_lot::{Mutex, MutexGuard, RwLock};
use smallvec::SmallVec;

use crate::merge::LayerId;
use crate::sys::stat::stat;
use crate::sys::{At, dir, open};

/// A way that is longer leads in a circle: somebody else moved a directory into itself, as far as is known here.
const DEEPEST: usize = 1 << 20;

/// What is known about a directory of a layer, once somebody has looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fact {
    /// Empty files in it may be whiteouts by an attribute.
    XattrWhiteouts = 1,
    /// It holds no `.wh.` file.
    NoWhiteoutFiles = 2,
    /// It has the `impure` mark: children may have an origin.
    Impure = 4,
    /// What is made in it gets owner, group and mode from its maker alone: no set-group-id bit, no default ACL.
    NothingToInherit = 8,
    /// A copy-up has placed a name in it and restored its times.
    CopiedInto = 16,
}

/// A directory of a layer.
#[derive(Debug)]
pub struct RealDir {
    layer: LayerId,
    place: RwLock<Place>,
    open: RwLock<Option<Arc<OwnedFd>>>,
    /// Used since the pool last looked; the second chance of the clock.
    used: AtomicBool,
    /// Never closed: a root, or a directory whose name is gone.
    pinned: AtomicBool,
    facts: AtomicU8,
    /// How large its filesystem said that it is, when it was found.
    bytes: AtomicU32,
    /// Its inode number, in a tree that others change: what has its name may be another directory by now. Zero: nobody else
    /// moves it.
    ino: u64,
    /// It is counted by the pool while it is open: the roots of layers are not, which nobody could close.
    pooled: bool,
    /// No mount inside is entered, not even one that was made when the directory was known already.
    one_mount: AtomicBool,
    /// Held while names or times of an upper directory change, and while its times are read.
    changing: Mutex<()>,
    pool: Arc<DirPool>,
}

#[derive(Debug)]
struct Place {
    /// None for a layer's root.
    parent: Option<Arc<RealDir>>,
    /// One component, or several for the target of a redirect in a lower layer.
    name: Box<OsStr>,
}

impl RealDir {
    /// The root of a layer, open for good.
    pub fn root(layer: LayerId, fd: OwnedFd, pool: Arc<DirPool>) -> Arc<RealDir> {
        Arc::new(RealDir {
            layer,
            place: RwLock::new(Place { parent: None, name: OsStr::new("").into() }),
            open: RwLock::new(Some(Arc::new(fd))),
            used: AtomicBool::new(true),
            pinned: AtomicBool::new(true),
            facts: AtomicU8::new(0),
            bytes: AtomicU32::new(0),
            ino: 0,
            pooled: false,
            one_mount: AtomicBool::new(false),
            changing: Mutex::new(()),
            pool,
        })
    }

    /// A directory that has no name, open as long as it is known.
    pub fn nameless(layer: LayerId, fd: OwnedFd, pool: Arc<DirPool>) -> Arc<RealDir> {
        let dir = Arc::new(RealDir {
            layer,
            place: RwLock::new(Place { parent: None, name: OsStr::new("").into() }),
            open: RwLock::new(None),
            used: AtomicBool::new(true),
            pinned: AtomicBool::new(true),
            facts: AtomicU8::new(Fact::NoWhiteoutFiles as u8),
            bytes: AtomicU32::new(0),
            ino: 0,
            pooled: true,
            one_mount: AtomicBool::new(false),
            changing: Mutex::new(()),
            pool,
        });
        dir.keep(Arc::new(fd));
        dir
    }

    /// The directory at `name` in this one; opened when it is first needed.
    pub fn child(self: &Arc<RealDir>, name: &OsStr) -> Arc<RealDir> {
        self.child_that_is(name, 0)
    }

    /// As `child`, for a tree that others change: opening it is ESTALE when the name has become another directory's.
    pub fn child_that_is(self: &Arc<RealDir>, name: &OsStr, ino: u64) -> Arc<RealDir> {
        Arc::new(RealDir {
            layer: self.layer,
            place: RwLock::new(Place { parent: Some(self.clone()), name: name.into() }),
            open: RwLock::new(None),
            used: AtomicBool::new(false),
            pinned: AtomicBool::new(false),
            facts: AtomicU8::new(0),
            bytes: AtomicU32::new(0),
            ino,
            pooled: true,
            one_mount: AtomicBool::new(self.one_mount.load(Ordering::Relaxed)),
            changing: Mutex::new(()),
            pool: self.pool.clone(),
        })
    }

    /// Lets neither this directory nor those below lead into a mount. Before any of them is known.
    pub fn stay_on_one_mount(&self) {
        self.one_mount.store(true, Ordering::Relaxed);
    }

    /// The layer it is in.
    pub fn layer(&self) -> LayerId {
        self.layer
    }

    /// Its inode number, in a tree that others change; zero in any other.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Excludes all other changes and readers of the times of this upper directory.
    ///
    /// A copy-up into the directory saves its times, changes a name and restores the times under this lock. So do not
    /// change a name, set times or read times to show them without it: the copy-up would restore times over newer
    /// ones, or the kernel would cache the time of the copy. Taken last and held across one change; only `MODES` of
    /// `sys::attr` is taken under it.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Whether `fact` is known to hold.
    pub fn is(&self, fact: Fact) -> bool {
        self.facts.load(Ordering::Relaxed) & fact as u8 != 0
    }

    /// Notes whether `fact` holds.
    pub fn note(&self, fact: Fact, holds: bool) {
        if holds {
            self.facts.fetch_or(fact as u8, Ordering::Relaxed);
        } else {
            self.facts.fetch_and(!(fact as u8), Ordering::Relaxed);
        }
    }

    /// Notes how many bytes its filesystem says that it has.
    pub fn note_bytes(&self, bytes: u64) {
        self.bytes.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// How many bytes its filesystem said that it has, when it was found; zero if nobody looked.
    pub fn bytes(&self) -> u32 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A descriptor for reading its names, leaving its time of access as it is if `quiet`. Errors: as of `fd`.
    pub fn readable(self: &Arc<RealDir>, quiet: bool) -> Result<OwnedFd> {
        // Most directories of a deep stack are listed once, and nothing is asked for in them afterwards.
        let nobody_moves_it =
            self.ino == 0 && !self.layer.is_upper() && !self.one_mount.load(Ordering::Relaxed);
        if nobody_moves_it && self.open.read().is_none() {
            let (parent, name) = {
                let place = self.place.read();
                (place.parent.clone(), place.name.clone())
            };
            if let Some(parent) = parent {
                return dir::open(At::new(parent.fd()?.as_fd(), &name), quiet);
            }
        }
        dir::open(At::new(self.fd()?.as_fd(), OsStr::new(".")), quiet)
    }

    /// An `O_PATH` descriptor. Errors: whatever opening it again meets.
    pub fn fd(self: &Arc<RealDir>) -> Result<Arc<OwnedFd>> {
        loop {
            if let Some(fd) = self.open_already() {
                return Ok(fd);
            }
            if let Some(fd) = self.open_from_above()? {
                return Ok(fd);
            }
        }
    }

    fn open_already(&self) -> Option<Arc<OwnedFd>> {
        let open = self.open.read();
        self.used.store(true, Ordering::Relaxed);
        open.clone()
    }

    /// Opens the directory from its nearest open ancestor down, in a loop: a path may be thousands of names deep. Nothing
    /// if one of them has moved meanwhile.
    fn open_from_above(self: &Arc<RealDir>) -> Result<Option<Arc<OwnedFd>>> {
        let mut missing: SmallVec<[Arc<RealDir>; 8]> = smallvec::smallvec![self.clone()];
        let (mut parent, mut fd) = loop {
            let above = missing.last().and_then(|dir| dir.place.read().parent.clone()).ok_or(Errno::EBADF)?;
            if missing.len() > DEEPEST {
                return Err(Errno::ELOOP);
            }
            if let Some(fd) = above.open_already() {
                break (above, fd);
            }
            missing.push(above);
        };
        while let Some(dir) = missing.pop() {
            // Held across the call: a rename of this directory happens before or after it, never between.
            let place = dir.place.read();
            if !place.parent.as_ref().is_some_and(|above| Arc::ptr_eq(above, &parent)) {
                return Ok(None);
            }
            let open = if dir.one_mount.load(Ordering::Relaxed) { open::dir_of_mount } else { open::dir };
            let opened = Arc::new(open(fd.as_fd(), &place.name)?);
            drop(place);
            if dir.ino != 0 && stat(At::fd(opened.as_fd()))?.ino != dir.ino {
                return Err(Errno::ESTALE);
            }
            fd = dir.keep(opened);
            parent = dir;
        }
        Ok(Some(fd))
    }

    /// Hands the directory a descriptor that was just opened on it.
    pub fn keep(self: &Arc<RealDir>, fd: Arc<OwnedFd>) -> Arc<OwnedFd> {
        {
            let mut open = self.open.write();
            if let Some(already) = &*open {
                return already.clone();
            }
            *open = Some(fd.clone());
        }
        self.used.store(true, Ordering::Relaxed);
        self.pool.opened(self);
        fd
    }

    /// Runs `rename`, which gives the directory the name `name` in `parent`. Nobody opens it by either name meanwhile.
    pub fn move_to<E>(
        &self,
        parent: &Arc<RealDir>,
        name: &OsStr,
        rename: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut place = self.place.write();
        rename()?;
        place.parent = Some(parent.clone());
        place.name = name.into();
        Ok(())
    }

    /// Notes that somebody else gave it the name `name` in `parent`.
    pub fn was_moved(&self, parent: &Arc<RealDir>, name: &OsStr) {
        let mut place = self.place.write();
        place.parent = Some(parent.clone());
        place.name = name.into();
    }

    /// Gives its descriptor up, because another object has its name now; it is opened again when it is next needed.
    pub fn reopen(&self) {
        if self.open.write().take().is_some() {
            self.pool.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Opens it and keeps it open for good; done before its name goes.
    pub fn pin(self: &Arc<RealDir>) -> Result<()> {
        self.pinned.store(true, Ordering::Relaxed);
        self.fd().map(drop)
    }

    /// Lets the pool close it again.
    pub fn unpin(&self) {
        self.pinned.store(false, Ordering::Relaxed);
    }

    /// The path from the layer's root, without a leading slash.
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut above = {
            let place = self.place.read();
            names.push(place.name.clone());
            place.parent.clone()
        };
        while let Some(dir) = above {
            let place = dir.place.read();
            names.push(place.name.clone());
            let next = place.parent.clone();
            drop(place);
            above = next;
        }
        // The root has no name.
        names.iter().rev().filter(|name| !name.is_empty()).map(|name| Path::new(&**name)).collect()
    }
}

impl Drop for RealDir {
    fn drop(&mut self) {
        if self.pooled && self.open.get_mut().is_some() {
            self.pool.open.fetch_sub(1, Ordering::Relaxed);
        }
        // In a loop: a directory may be the last thing in its parent, thousands of times over.
        let mut above = self.place.get_mut().parent.take();
        while let Some(mut dir) = above {
            above = Arc::get_mut(&mut dir).and_then(|dir| dir.place.get_mut().parent.take());
        }
    }
}

/// Bounds how many directories are open at once, and closes those that were not used lately.
#[derive(Debug)]
pub struct DirPool {
    room: usize,
    open: AtomicUsize,
    queue: Mutex<VecDeque<Weak<RealDir>>>,
}

impl DirPool {
    /// A pool of at most `room` open directories.
    pub fn new(room: usize) -> Arc<DirPool> {
        Arc::new(DirPool {
            room: room.max(16),
            open: AtomicUsize::new(0),
            queue: Mutex::new(VecDeque::new()),
        })
    }

    /// How many directories are open.
    pub fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn opened(&self, dir: &Arc<RealDir>) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let mut queue = self.queue.lock();
        queue.push_back(Arc::downgrade(dir));
        if queue.len() > 2 * self.room + 64 {
            queue.retain(|dir| dir.strong_count() > 0);
        }
        if open > self.room {
            self.close_some(&mut queue);
        }
    }

    /// One turn of the clock: those used since the last turn stay once more.
    fn close_some(&self, queue: &mut VecDeque<Weak<RealDir>>) {
        for _ in 0..2 * queue.len() {
            if self.open.load(Ordering::Relaxed) <= self.room {
                return;
            }
            let Some(weak) = queue.pop_front() else { return };
            let Some(dir) = weak.upgrade() else { continue };
            let stays = dir.pinned.load(Ordering::Relaxed) || dir.used.swap(false, Ordering::Relaxed);
            if stays {
                queue.push_back(weak);
                continue;
            }
            // Somebody who is just reading or setting the descriptor keeps it: the next turn comes.
            let Some(mut open) = dir.open.try_write() else {
                queue.push_back(weak);
                continue;
            };
            if open.take().is_some() {
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
            drop(open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_stays_within_its_room_and_reopens_what_it_closed() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let pool = DirPool::new(16);
        let root = RealDir::root(LayerId(1), open::root(temp.path()).expect("root"), pool.clone());
        let dirs: Vec<_> = (0..100)
            .map(|i| {
                let name = format!("d{i}");
                std::fs::create_dir(temp.path().join(&name)).expect("mkdir");
                root.child(name.as_ref())
            })
            .collect();
        for round in 0..2 {
            for dir in &dirs {
                let stat = crate::sys::stat::stat(crate::sys::At::fd(dir.fd().expect("open").as_fd()));
                assert!(stat.is_ok(), "round {round}");
                assert!(pool.open_count() <= 17, "{} are open", pool.open_count());
            }
        }
        drop(dirs);
        assert_eq!(pool.open_count(), 0);
    }

    /// A tree that was taken away again took more from the count than it had given, and the daemon ended.
    #[test]
    fn regression_a_root_that_goes_takes_nothing_from_the_count() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let pool = DirPool::new(16);
        drop(RealDir::root(LayerId(0), open::root(temp.path()).expect("root"), pool.clone()));
        assert_eq!(pool.open_count(), 0);
    }

    #[test]
    fn a_directory_is_found_after_it_moved() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(temp.path().join("a/b")).expect("mkdir");
        let pool = DirPool::new(16);
        let root = RealDir::root(LayerId(0), open::root(temp.path()).expect("root"), pool);
        let b = root.child("a".as_ref()).child("b".as_ref());
        b.move_to(&root, "c".as_ref(), || std::fs::rename(temp.path().join("a/b"), temp.path().join("c")))
            .expect("rename");
        assert!(b.fd().is_ok());
        assert_eq!(b.path(), std::path::Path::new("c"));
    }
}
