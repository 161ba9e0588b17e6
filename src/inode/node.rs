//! One inode: its names in the merged tree, and the real objects behind it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use smallvec::SmallVec;

use super::Ino;
use super::listing::Listing;
use super::points::{Point, Points, Root};
use crate::error::{Context, Error, Result};
use crate::layer::{LowerNames, Parts, RealDir, Stack};
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::sync::{LevelMutex, LevelRwLock, level};
use crate::sys::stat::stat;
use crate::sys::{At, open};

/// One inode of the merged tree.
#[derive(Debug)]
pub struct Inode {
    /// What the kernel calls it.
    pub ino: Ino,
    /// What `stat` shows.
    pub st_ino: u64,
    /// Its type; never changes.
    pub kind: FileKind,
    /// The stack it belongs to.
    pub stack: Arc<Stack>,
    /// How often the kernel has been told of it and has not forgotten, and how many known names are in it.
    pub(super) lookups: AtomicU64,
    /// Level 2: which names a directory shows. Held for reading while names are looked up or listed, for writing while
    /// one is made, removed or renamed.
    pub names: LevelRwLock<(), { level::NAMES }>,
    /// Level 3: copy-up and removal of this inode, one at a time.
    pub gate: LevelMutex<(), { level::GATE }>,
    /// Level 4.
    pub state: LevelRwLock<State, { level::STATE }>,
    /// The real objects of a directory; of anything else they are in `state`.
    pub node: Node,
    /// The kernel keeps attributes that a copy-up or a write behind its back makes wrong.
    pub attributes_cached: AtomicBool,
    /// It has been open.
    opened: AtomicBool,
}

/// The real objects behind an inode that do not change but by copy-up.
#[derive(Debug)]
pub enum Node {
    /// A directory.
    Dir {
        /// Its upper part, set at lookup or by copy-up, once.
        upper: OnceLock<Arc<RealDir>>,
        /// Its lower parts, topmost first.
        lowers: SmallVec<[Arc<RealDir>; 1]>,
        /// The names of the lower parts, once somebody has needed them all.
        names: OnceLock<Box<LowerNames>>,
        /// How often a lower part was asked for a name in vain.
        vain: AtomicU32,
    },
    /// Anything else.
    NonDir,
}

/// What changes about an inode.
#[derive(Debug, Default)]
pub struct State {
    /// Its names in the merged tree that are known; a directory has one, the root none.
    pub names: SmallVec<[Name; 1]>,
    /// A non-directory is in the upper layer: the inode number there. Zero if not.
    pub upper_ino: u64,
    /// Where a non-directory is, or was before copy-up, in a lower layer.
    pub lower: Option<Box<LowerFile>>,
    /// Metadata is in the upper layer, or in `lower`, but data is here.
    pub data: Option<Box<LowerFile>>,
    /// The name of its entry in the index directory.
    pub index: Option<Box<OsStr>>,
    /// The link count shown, where it is not the real one.
    pub nlink: Option<u32>,
    /// A symlink in a tree that others change: what tells it from the next one with its number. Zero for all else.
    pub sign: u64,
    /// What keeps it reachable when its last name is gone.
    pub orphan: Option<Arc<OwnedFd>>,
    /// A directory was removed; nothing can be made in it.
    pub gone: bool,
    /// An upper directory is marked opaque.
    pub opaque: bool,
    /// Open files on it.
    pub opens: Opens,
    /// The names of a directory, while it is in use.
    pub listing: Option<Box<Listing>>,
    /// Open directories on it.
    pub open_dirs: u32,
    /// The names of a directory that lead to grafts.
    pub points: Option<Arc<Points>>,
    /// The root of a graft: the directory it is attached in.
    pub above: Option<Arc<Inode>>,
    /// The root of a graft: a directory whose names show, too.
    pub beside: Option<Box<Beside>>,
}

/// A directory whose names show in another.
#[derive(Debug)]
pub struct Beside {
    /// The directory.
    pub dir: Arc<Inode>,
    /// Its names hide those of the other; otherwise they show where the other has none.
    pub over: bool,
}

/// A name in the merged tree.
#[derive(Debug, Clone)]
pub struct Name {
    /// The directory.
    pub parent: Arc<Inode>,
    /// The name in it.
    pub name: Box<OsStr>,
    /// The upper layer has the object under this name. If not, the name is a lower one's.
    pub in_upper: bool,
}

/// A file in a lower layer.
#[derive(Debug, Clone)]
pub struct LowerFile {
    /// The directory that has it; nothing if a mark leads nowhere.
    pub dir: Option<Arc<RealDir>>,
    /// Its name there.
    pub name: Box<OsStr>,
    /// Its inode number there.
    pub ino: u64,
    /// Its number of names there.
    pub nlink: u32,
}

/// How an inode is open. The kernel lets an inode be open cached or passed through, never both.
#[derive(Debug, Default, Clone, Copy)]
pub struct Opens {
    /// Open files whose bytes come through the daemon.
    pub cached: u32,
    /// Open files whose bytes the kernel takes from the backing file.
    pub passthrough: u32,
    /// Those of either kind that may write.
    pub writers: u32,
    /// Those that may write and whose writes clear set-id bits.
    pub plain_writers: u32,
    /// Writes passed through leave set-id bits as they are.
    pub keeps_set_id: bool,
    /// It has been passed through, so cached pages of it may be old.
    pub was_passthrough: bool,
    /// It has been passed through for reading and writing, so a shared mapping may outlive every open file.
    pub maybe_mapped: bool,
}

/// A way to a real object that lasts as long as the value.
#[derive(Debug)]
pub enum Located {
    /// By descriptor.
    Fd(Arc<OwnedFd>),
    /// By name in an open directory.
    Named(Arc<OwnedFd>, Box<OsStr>),
}

impl Node {
    /// A directory of these parts.
    pub fn dir(upper: OnceLock<Arc<RealDir>>, lowers: SmallVec<[Arc<RealDir>; 1]>) -> Node {
        Node::Dir { upper, lowers, names: OnceLock::new(), vain: AtomicU32::new(0) }
    }
}

impl Located {
    /// For system calls.
    pub fn at(&self) -> At<'_> {
        match self {
            Located::Fd(fd) => At::fd(fd.as_fd()),
            Located::Named(dir, name) => At::new(dir.as_fd(), name),
        }
    }
}

impl LowerFile {
    /// Where no layer has the data that a mark promises.
    pub fn missing() -> LowerFile {
        LowerFile { dir: None, name: OsStr::new("").into(), ino: 0, nlink: 0 }
    }

    /// The way to it. Errors: `BadMark` if there is none.
    pub fn locate(&self) -> Result<Located> {
        let dir = self.dir.as_ref().ok_or_else(|| Error::BadMark {
            mark: "metacopy",
            name: String::new(),
            why: "no data-only layer has its data",
        })?;
        Ok(Located::Named(dir.fd().call("openat2")?, self.name.clone()))
    }

    /// The layer it is in.
    pub fn layer(&self) -> Option<LayerId> {
        self.dir.as_ref().map(|dir| dir.layer())
    }

    /// The path from its layer's root.
    pub fn path(&self) -> Option<std::ffi::OsString> {
        Some(self.dir.as_ref()?.path().join(&*self.name).into_os_string())
    }
}

impl Inode {
    /// An inode that nobody has looked up yet.
    pub fn new(ino: Ino, st_ino: u64, kind: FileKind, stack: Arc<Stack>, node: Node, state: State) -> Inode {
        Inode {
            ino,
            st_ino,
            kind,
            stack,
            lookups: AtomicU64::new(0),
            names: LevelRwLock::new(()),
            gate: LevelMutex::new(()),
            state: LevelRwLock::new(state),
            node,
            attributes_cached: AtomicBool::new(false),
            opened: AtomicBool::new(false),
        }
    }

    /// The directory's upper part.
    pub fn upper_dir(&self) -> Option<&Arc<RealDir>> {
        match &self.node {
            Node::Dir { upper, .. } => upper.get(),
            Node::NonDir => None,
        }
    }

    /// The directory's lower parts, topmost first.
    pub fn lower_dirs(&self) -> &[Arc<RealDir>] {
        match &self.node {
            Node::Dir { lowers, .. } => lowers,
            Node::NonDir => &[],
        }
    }

    /// All parts of the directory, and what is known of their names.
    pub fn parts(&self) -> Parts<'_> {
        match &self.node {
            Node::Dir { upper, lowers, names, .. } => {
                Parts { upper: upper.get(), lowers, names: names.get().map(|names| &**names) }
            }
            Node::NonDir => Parts { upper: None, lowers: &[], names: None },
        }
    }

    /// Notes that `more` parts were asked for a name in vain. Returns whether that has now happened `worth` times, for a
    /// directory whose names are not known yet.
    pub fn asked_in_vain(&self, more: u32, worth: impl FnOnce() -> u32) -> bool {
        let Node::Dir { names, vain, .. } = &self.node else { return false };
        if more == 0 || names.get().is_some() {
            return false;
        }
        let before = vain.fetch_add(more, Ordering::Relaxed);
        let now = before.saturating_add(more);
        now >= 16 && now >= worth()
    }

    /// Keeps the names of the lower parts.
    pub fn keep_names(&self, lower: LowerNames) {
        if let Node::Dir { names, .. } = &self.node {
            // Who came first has the same.
            let _ = names.set(Box::new(lower));
        }
    }

    /// All parts of the directory, topmost first.
    pub fn real_dirs(&self) -> SmallVec<[Arc<RealDir>; 3]> {
        self.upper_dir().into_iter().chain(self.lower_dirs()).cloned().collect()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    /// Whether the object shown is in the upper layer.
    pub fn has_upper(&self) -> bool {
        match &self.node {
            Node::Dir { upper, .. } => upper.get().is_some(),
            Node::NonDir => self.state.read().upper_ino != 0,
        }
    }

    /// Runs `call` on the real object that has the metadata. The object keeps its names meanwhile.
    pub fn with<T>(&self, call: impl FnOnce(At<'_>) -> Result<T>) -> Result<T> {
        if let Some(dir) = self.upper_dir().or(self.lower_dirs().first()) {
            let fd = dir.fd().call("openat2")?;
            return call(At::fd(fd.as_fd()));
        }
        let state = self.state.read();
        let located = self.locate_locked(&state)?;
        call(located.at())
    }

    /// Runs `call` on the real object that has the data. The object keeps its names meanwhile.
    pub fn with_data<T>(&self, call: impl FnOnce(At<'_>, bool) -> Result<T>) -> Result<T> {
        let state = self.state.read();
        match &state.data {
            Some(data) => call(data.locate()?.at(), false),
            None => call(self.locate_locked(&state)?.at(), state.upper_ino != 0),
        }
    }

    /// Where a non-directory's metadata is.
    pub fn locate_locked(&self, state: &State) -> Result<Located> {
        if let Some(fd) = &state.orphan {
            return Ok(Located::Fd(fd.clone()));
        }
        if self.stack.is_direct() {
            return locate_direct(state);
        }
        if state.upper_ino == 0 {
            return state.lower.as_ref().ok_or(Error::Stale)?.locate();
        }
        if let Some(name) = state.names.iter().find(|name| name.in_upper) {
            let dir = name
                .parent
                .upper_dir()
                .ok_or(Error::Bug("an upper name in a directory without upper part"))?;
            return Ok(Located::Named(dir.fd().call("openat2")?, name.name.clone()));
        }
        let index = state.index.as_ref().ok_or(Error::Stale)?;
        let dir = self.stack.writable()?.workdir.index().ok_or(Error::Stale)?;
        Ok(Located::Named(dir, index.clone()))
    }

    /// What `name` in this directory has to do with grafts.
    pub fn point(&self, name: &OsStr) -> Option<Point> {
        self.state.read().points.as_ref()?.get(name).cloned()
    }

    /// Whether `name` in this directory leads to the graft `root`.
    pub fn leads_to(&self, name: &OsStr, root: &Root) -> bool {
        matches!(self.point(name), Some(Point::Graft(now)) if Arc::ptr_eq(now.inode(), root.inode()))
    }

    /// Whether it is a directory that no layer has, on the way to a graft.
    pub fn is_synthetic(&self) -> bool {
        self.is_dir() && self.upper_dir().is_none() && self.lower_dirs().is_empty()
    }

    /// The directory's place in the merged tree; nothing for the root of a stack.
    pub fn dir_name(&self) -> Option<Name> {
        self.state.read().names.first().cloned()
    }

    /// Notes that it is open. Returns whether it never was before.
    pub fn note_opened(&self) -> bool {
        !self.opened.swap(true, Ordering::Relaxed)
    }

    /// Notes that the kernel keeps attributes, and returns whether it may already.
    pub fn note_attributes_cached(&self, cached: bool) -> bool {
        self.attributes_cached.swap(cached, Ordering::Relaxed)
    }
}

/// Others may have given the names to other objects: the one that still leads here is the way.
fn locate_direct(state: &State) -> Result<Located> {
    for name in &state.names {
        let Some(dir) = name.parent.upper_dir() else { continue };
        let Ok(dir) = dir.fd() else { continue };
        let fd = match open::path(At::new(dir.as_fd(), &name.name)) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE) => continue,
            Err(errno) => return Err(Error::Sys { call: "openat2", errno }),
        };
        if stat(At::fd(fd.as_fd())).call("statx")?.ino == state.upper_ino {
            return Ok(Located::Fd(Arc::new(fd)));
        }
    }
    Err(Error::Stale)
}

impl Drop for Inode {
    fn drop(&mut self) {
        // In a loop: a directory may be the last thing in its parent, thousands of times over.
        let mut held: Vec<Arc<Inode>> =
            self.state.get_mut().names.drain(..).map(|name| name.parent).collect();
        while let Some(mut dir) = held.pop() {
            if let Some(dir) = Arc::get_mut(&mut dir) {
                held.extend(dir.state.get_mut().names.drain(..).map(|name| name.parent));
            }
        }
    }
}

impl State {
    /// Whether it is known under this name.
    pub fn has_name(&self, parent: &Inode, name: &OsStr) -> bool {
        self.position(parent, name).is_some()
    }

    /// Where this name is in `names`.
    pub fn position(&self, parent: &Inode, name: &OsStr) -> Option<usize> {
        self.names.iter().position(|known| std::ptr::eq(&*known.parent, parent) && &*known.name == name)
    }
}
