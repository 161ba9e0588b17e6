//! One inode: its names in the merged tree, and the real objects behind it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::Ino;
use super::points::{Point, Root};
use super::state::{Name, State};
use crate::error::{Context, Error, Result};
use crate::layer::names::RawName;
use crate::layer::{LowerNames, Parts, RealDir, Stack};
use crate::merge::listing::FileKind;
use crate::merge::protection::Protection;
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
    /// Tells a file from the next one that gets its number, once the kernel has forgotten it. Never changes. In three bytes, since
    /// there is room for so many.
    generation: [u8; 3],
    /// How often the kernel has been told of it and has not forgotten, and how many known names are in it.
    pub(super) lookups: AtomicU64,
    /// Level 3: copy-up and removal of this inode, one at a time.
    pub gate: LevelMutex<(), { level::GATE }>,
    /// Level 4.
    pub state: LevelRwLock<State, { level::STATE }>,
    /// The real objects of a directory; of anything else they are in `state`.
    pub node: Node,
    /// What the kernel has of its attributes: a value of `Attributes`.
    attributes: AtomicU8,
    /// What is known of it, a bit each: `OPENED` and its like.
    known: AtomicU8,
    /// Attributes that it was found not to have, a bit each, as long as none is set.
    pub absent: Absent,
}

/// The real objects behind an inode that do not change but by copy-up.
#[derive(Debug)]
pub enum Node {
    /// A directory.
    Dir(Box<DirNode>),
    /// Anything else.
    NonDir,
}

/// What a directory has and nothing else.
#[derive(Debug)]
pub struct DirNode {
    /// Its upper part, set at lookup or by copy-up, once.
    pub upper: OnceLock<Arc<RealDir>>,
    /// Its lower parts, topmost first.
    pub lowers: SmallVec<[Arc<RealDir>; 1]>,
    /// The names of the lower parts, once somebody has needed them all.
    lower_names: OnceLock<Box<LowerNames>>,
    /// What the lower parts have, in their order, where that was read at the first lookup; for the first listing.
    listed: Mutex<Option<Box<[Vec<RawName>]>>>,
    /// How often a lower part was asked for a name in vain.
    vain: AtomicU32,
    /// Level 2: which names the directory shows.
    names: NamesLock,
}

/// Level 2: which names a directory shows. Held for reading while names are looked up or listed, for writing while
/// one is made, removed or renamed.
pub type NamesLock = LevelRwLock<(), { level::NAMES }>;

/// Of what is no directory, and shows no names.
static NO_NAMES: NamesLock = LevelRwLock::new(());

/// A way to a real object that lasts as long as the value.
#[derive(Debug)]
pub enum Located {
    /// By descriptor.
    Fd(Arc<OwnedFd>),
    /// By name in an open directory.
    Named(Arc<OwnedFd>, Box<OsStr>),
}

/// What the kernel has of an inode's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Attributes {
    /// None that it may keep.
    Unknown,
    /// It was told of them, or is about to be.
    Told,
    /// They have changed since, and it has heard so: what was read before is not to be told.
    Changed,
}

/// Attributes that an inode was found not to have, a bit each, as long as none is set.
#[derive(Debug, Default)]
pub struct Absent(AtomicU8);

impl Absent {
    /// Somebody sets attributes: nothing is learnt any more.
    const CHANGES: u8 = 1 << 7;

    /// Whether the attribute of this bit is known not to be there.
    pub fn knows(&self, bit: u8) -> bool {
        self.0.load(Ordering::Acquire) & bit != 0
    }

    /// Notes that the attribute of this bit was not there a moment ago.
    pub fn note(&self, bit: u8) {
        let learn = |known| (known & Absent::CHANGES == 0).then_some(known | bit);
        // Refused: somebody has set one since, or is about to.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, learn);
    }

    /// Forgets everything, for good. Called before an attribute is set.
    pub fn attributes_come(&self) {
        self.0.store(Absent::CHANGES, Ordering::Release);
    }
}

/// Bits of `Inode::known`. It has been open.
const OPENED: u8 = 1;
/// Another inode has its names now (`Rare::now`). Never taken back.
const GAVE_WAY: u8 = 2;
/// Somebody has looked what its flags forbid: the two that follow.
const LOOKED: u8 = 4;
const IMMUTABLE: u8 = 8;
const APPEND: u8 = 16;

fn bits_of(protection: Protection) -> u8 {
    let bit = |has, bit| if has { bit } else { 0 };
    LOOKED | bit(protection.immutable, IMMUTABLE) | bit(protection.append, APPEND)
}

impl Node {
    /// A directory of these parts.
    pub fn dir(upper: OnceLock<Arc<RealDir>>, lowers: SmallVec<[Arc<RealDir>; 1]>) -> Node {
        let (lower_names, vain, names) = (OnceLock::new(), AtomicU32::new(0), LevelRwLock::new(()));
        Node::Dir(Box::new(DirNode { upper, lowers, lower_names, listed: Mutex::default(), vain, names }))
    }

    /// The same, of whose lower parts all names are known, and perhaps all that a listing tells of them.
    pub fn with_names(mut self, known: LowerNames, listed: Option<Vec<Vec<RawName>>>) -> Node {
        if let Node::Dir(dir) = &mut self {
            dir.lower_names = OnceLock::from(Box::new(known));
            *dir.listed.get_mut() = listed.map(Vec::into_boxed_slice);
        }
        self
    }

    /// The number of the upper object; of a directory only in a tree that others change.
    pub fn upper_ino(&self, state: &State) -> u64 {
        self.as_dir().map_or(state.upper_ino, |dir| dir.upper.get().map_or(0, |dir| dir.ino()))
    }

    /// What a directory has.
    pub fn as_dir(&self) -> Option<&DirNode> {
        match self {
            Node::Dir(dir) => Some(dir),
            Node::NonDir => None,
        }
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

impl Inode {
    /// An inode that nobody has looked up yet.
    pub fn new(ino: Ino, st_ino: u64, kind: FileKind, stack: Arc<Stack>, node: Node, state: State) -> Inode {
        Inode {
            ino,
            st_ino,
            kind,
            stack,
            generation: [0; 3],
            lookups: AtomicU64::new(0),
            gate: LevelMutex::new(()),
            state: LevelRwLock::new(state),
            node,
            attributes: AtomicU8::new(Attributes::Unknown as u8),
            known: AtomicU8::new(0),
            absent: Absent::default(),
        }
    }

    /// The same, of this generation.
    pub fn of_generation(mut self, generation: u32) -> Inode {
        let [_, bytes @ ..] = generation.to_be_bytes();
        self.generation = bytes;
        self
    }

    /// Tells a file from the next one that gets its number.
    pub fn generation(&self) -> u32 {
        let [a, b, c] = self.generation;
        u32::from_be_bytes([0, a, b, c])
    }

    /// Level 2: which names a directory shows.
    pub fn names(&self) -> &NamesLock {
        self.node.as_dir().map_or(&NO_NAMES, |dir| &dir.names)
    }

    /// The directory's upper part.
    pub fn upper_dir(&self) -> Option<&Arc<RealDir>> {
        self.node.as_dir().and_then(|dir| dir.upper.get())
    }

    /// The directory's lower parts, topmost first.
    pub fn lower_dirs(&self) -> &[Arc<RealDir>] {
        self.node.as_dir().map_or(&[], |dir| &dir.lowers)
    }

    /// All parts of the directory, and what is known of their names.
    pub fn parts(&self) -> Parts<'_> {
        let names = self.node.as_dir().and_then(|dir| dir.lower_names.get());
        Parts { upper: self.upper_dir(), lowers: self.lower_dirs(), names: names.map(|names| &**names) }
    }

    /// Notes that `more` parts were asked for a name in vain. Returns whether that has now happened `worth` times, for a
    /// directory whose names are not known yet.
    pub fn asked_in_vain(&self, more: u32, worth: impl FnOnce() -> u32) -> bool {
        let Some(dir) = self.node.as_dir() else { return false };
        if more == 0 || dir.lower_names.get().is_some() {
            return false;
        }
        let before = dir.vain.fetch_add(more, Ordering::Relaxed);
        let now = before.saturating_add(more);
        // Some filesystems say of no directory how large it is.
        now >= 16 && now >= worth()
    }

    /// What the first lookup has read of the lower parts, in their order; nothing if it did not, or somebody has taken it.
    pub fn take_listed(&self) -> Option<Box<[Vec<RawName>]>> {
        self.node.as_dir().and_then(|dir| dir.listed.lock().take())
    }

    /// Keeps the names of the lower parts.
    pub fn keep_names(&self, lower: LowerNames) {
        if let Some(dir) = self.node.as_dir() {
            // Who came first has the same.
            let _ = dir.lower_names.set(Box::new(lower));
        }
    }

    /// All parts of the directory, topmost first.
    pub fn real_dirs(&self) -> SmallVec<[Arc<RealDir>; 3]> {
        self.upper_dir().into_iter().chain(self.lower_dirs()).cloned().collect()
    }

    /// Whether another inode has its names now, because it was to be written while a lower file was passed through.
    pub fn gave_way(&self) -> bool {
        self.known.load(Ordering::Acquire) & GAVE_WAY != 0
    }

    /// The inode that has its names now: mostly itself.
    pub fn now(self: &Arc<Inode>) -> Arc<Inode> {
        let now = if self.gave_way() { self.state.read().rare().now.clone() } else { None };
        now.unwrap_or_else(|| self.clone())
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    /// Whether the object shown is in the upper layer.
    pub fn has_upper(&self) -> bool {
        match &self.node {
            Node::Dir(dir) => dir.upper.get().is_some(),
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
        if let Some(now) = state.rare().now.clone() {
            drop(state);
            return now.with(call);
        }
        let located = self.locate_locked(&state)?;
        call(located.at())
    }

    /// Runs `call` on the real object that has the data. The object keeps its names meanwhile.
    pub fn with_data<T>(&self, call: impl FnOnce(At<'_>, bool) -> Result<T>) -> Result<T> {
        let state = self.state.read();
        if let Some(now) = state.rare().now.clone() {
            drop(state);
            return now.with_data(call);
        }
        match &state.rare().data {
            Some(data) => call(data.locate()?.at(), false),
            None => call(self.locate_locked(&state)?.at(), state.upper_ino != 0),
        }
    }

    /// Where a non-directory's metadata is.
    pub fn locate_locked(&self, state: &State) -> Result<Located> {
        if state.rare().now.is_some() {
            // What is left is a lower file, which is not to be changed or linked to.
            return Err(Error::Stale);
        }
        if let Some(fd) = &state.rare().orphan {
            return Ok(Located::Fd(fd.clone()));
        }
        if self.stack.is_direct() {
            return self.locate_direct(state);
        }
        if state.upper_ino == 0 {
            return state.lower().ok_or(Error::Stale)?.locate();
        }
        if let Some(name) = state.names.iter().find(|name| name.in_upper) {
            let dir = name
                .parent
                .upper_dir()
                .ok_or(Error::Bug("an upper name in a directory without upper part"))?;
            return Ok(Located::Named(dir.fd().call("openat2")?, name.name.clone()));
        }
        let index = state.rare().index.as_ref().ok_or(Error::Stale)?;
        let dir = self.stack.writable()?.workdir.index().ok_or(Error::Stale)?;
        Ok(Located::Named(dir, index.clone()))
    }

    /// Others may have given the names to other objects: the one that still leads here is the way, and what was looked up a
    /// moment ago is held.
    fn locate_direct(&self, state: &State) -> Result<Located> {
        if let Some(held) = self.stack.held(self.ino.0) {
            return Ok(Located::Fd(held));
        }
        for name in state.names.iter() {
            let Some(dir) = name.parent.upper_dir() else { continue };
            let Ok(dir) = dir.fd() else { continue };
            let fd = match open::path(At::new(dir.as_fd(), &name.name)) {
                Ok(fd) => fd,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE) => continue,
                Err(errno) => return Err(Error::Sys { call: "openat2", errno }),
            };
            let found = stat(At::fd(fd.as_fd())).call("statx")?;
            // Another kind of object may have got the number.
            if found.ino == state.upper_ino && found.kind == self.kind {
                return Ok(Located::Fd(Arc::new(fd)));
            }
        }
        Err(Error::Stale)
    }

    /// What `name` in this directory has to do with grafts.
    pub fn point(&self, name: &OsStr) -> Option<Point> {
        self.state.read().rare().points.as_ref()?.get(name).cloned()
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

    /// What its flags forbid, if somebody has looked.
    pub fn protection(&self) -> Option<Protection> {
        let known = self.known.load(Ordering::Acquire);
        let bit = |bit: u8| known & bit != 0;
        bit(LOOKED).then(|| Protection { immutable: bit(IMMUTABLE), append: bit(APPEND) })
    }

    /// Notes what its flags forbid from now on.
    pub fn note_protection(&self, protection: Protection) {
        let noted = |known| Some((known & !(LOOKED | IMMUTABLE | APPEND)) | bits_of(protection));
        // Never refused.
        let _ = self.known.fetch_update(Ordering::AcqRel, Ordering::Acquire, noted);
    }

    /// Notes what its flags forbade a moment ago, unless somebody knows better.
    pub fn learn_protection(&self, protection: Protection) {
        let learnt = |known| (known & LOOKED == 0).then_some(known | bits_of(protection));
        // Refused if another thread has noted or set them meanwhile.
        let _ = self.known.fetch_update(Ordering::AcqRel, Ordering::Acquire, learnt);
    }

    /// Notes that another inode has its names now.
    pub fn note_gave_way(&self) {
        self.known.fetch_or(GAVE_WAY, Ordering::AcqRel);
    }

    /// Notes that it is open. Returns whether it never was before.
    pub fn note_opened(&self) -> bool {
        self.known.fetch_or(OPENED, Ordering::AcqRel) & OPENED == 0
    }

    /// Whether it was ever open.
    pub fn was_opened(&self) -> bool {
        self.known.load(Ordering::Acquire) & OPENED != 0
    }

    /// Notes what the kernel has of its attributes, and returns what it had.
    ///
    /// Told: noted before they are read for an answer, or a change between the two would go unnoticed. Changed: noted after the
    /// change, and if the kernel had been told, it must hear of it.
    pub fn note_attributes(&self, now: Attributes) -> Attributes {
        match self.attributes.swap(now as u8, Ordering::AcqRel) {
            had if had == Attributes::Told as u8 => Attributes::Told,
            had if had == Attributes::Changed as u8 => Attributes::Changed,
            _ => Attributes::Unknown,
        }
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        // In a loop: a directory may be the last thing in its parent, thousands of times over.
        let parents =
            |state: &mut State| std::mem::take(&mut state.names).into_iter().map(|name| name.parent);
        let mut held: Vec<Arc<Inode>> = parents(self.state.get_mut()).collect();
        while let Some(mut dir) = held.pop() {
            if let Some(dir) = Arc::get_mut(&mut dir) {
                held.extend(parents(dir.state.get_mut()));
            }
        }
    }
}
