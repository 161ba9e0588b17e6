//! The operations of the merged tree, one file per family. Each gathers facts, asks `merge` for a plan and carries it
//! out with `copy_up` and `layer`. Arguments are plain and results are values or errors: no FUSE type comes in here,
//! and nothing assumes that a request is answered on the thread that received it.
//!
//! Start with `lookup`, then `create`; `file` decides how bytes flow.

mod ahead;
mod attr;
mod beside;
mod busy;
mod create;
mod direct;
#[cfg(test)]
mod fault_ops;
#[cfg(test)]
mod fault_tests;
mod file;
mod first_read;
mod give_way;
mod graft;
mod ids;
mod in_volume;
mod io;
mod layered_names;
mod lead;
mod learn;
mod link;
mod lookup;
mod made;
mod names;
mod object;
mod point;
mod populate;
mod prepare;
mod protect;
mod readdir;
mod redirect;
mod remove;
mod rename;
mod rename_up;
mod shadow;
mod source;
mod statfs;
mod table;
#[cfg(test)]
mod times_tests;
mod way;
mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

pub use attr::{Attr, Lifetime, SetAttr};
pub use create::NewNode;
pub use file::{IoMode, Opened};
pub use io::Writing;
pub use lookup::Entry;
pub use readdir::{DirEntry, DirEntryPlus, Told};
pub use rename::{Asked, RenameMode};
pub use shadow::{Hidden, Stale};
pub use table::Grafts;

use crate::config::{Config, LowerIo, RedirectDir};
use crate::copy_up::CopyUp;
use crate::error::{Context, Error, Result};
use crate::inode::{Handles, Ino, Inode, Node, Point, Store};
use crate::layer::real_dir::Fact;
use crate::layer::{RealDir, Shared, Stack, probe};
use crate::merge::listing::FileKind;
use crate::merge::mark::Opaque;
use crate::sync::{LevelMutex, level};
use crate::sys::At;
use crate::sys::cred::Writer;

/// Who asks, in ids as the mount shows them.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The umask, where the request carries one.
    pub umask: u32,
    /// The process, as far as the daemon can see it.
    pub pid: u32,
}

impl Caller {
    /// As who changes bytes, of whom the kernel does not say what he may keep.
    pub fn writer(self) -> Writer {
        Writer { pid: self.pid, keeps_set_id: None }
    }
}

/// The choices of a mount that operations ask for.
#[derive(Debug)]
pub struct Settings {
    static_nlink: bool,
    redirects: bool,
    /// The kernel keeps written pages, and reads through whatever descriptor it writes by.
    writeback: bool,
    /// The kernel's attributes of a file are not old after a write that it passed on, nor is an answer taken that was under way.
    /// Source: kernel `fuse_passthrough_end_write`, since 6.13.
    writes_noticed: bool,
}

/// Called with a directory and a name in it that the kernel may have cached, and that leads elsewhere now.
struct NameChanged(Hear);
type Hear = Box<dyn Fn(Ino, &OsStr) + Send + Sync>;

impl std::fmt::Debug for NameChanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameChanged")
    }
}

/// The merged tree.
#[derive(Debug)]
pub struct Overlay {
    stack: Arc<Stack>,
    store: Store,
    handles: Handles,
    copy_up: CopyUp,
    settings: Settings,
    /// Inodes whose number was given by the counter, by name: the only way to find them again.
    counted: LevelMutex<HashMap<(Ino, Box<OsStr>), Ino>, { level::STORE }>,
    /// The kernel passes reads and writes to backing files; cleared for good when it refuses.
    passthrough: AtomicBool,
    /// The kernel maps files of which it keeps no pages.
    maps_uncached: AtomicBool,
    /// The kernel reads lower files itself beneath an upper layer, as was asked for; cleared for good when it refuses.
    passes_below: AtomicBool,
    /// The upper layer's filesystem has lost what was written; a `volatile` mount syncs nothing from then on.
    lost: AtomicBool,
    /// What is attached in the tree.
    grafts: Grafts,
    /// Some source is on a filesystem that may not answer.
    may_hang: AtomicBool,
    name_changed: OnceLock<NameChanged>,
    fill: OnceLock<first_read::Fill>,
    /// Where the daemon takes requests about the mount.
    socket: OnceLock<PathBuf>,
}

impl Overlay {
    /// Opens the layers of `config` and makes the root. `open_files` is how many descriptors the daemon may have.
    /// Errors: `Setup` naming the layer and the remedy.
    pub fn new(config: &Config, open_files: usize) -> Result<Overlay> {
        let shared = Shared::new(open_files / 2);
        let stack = Arc::new(Stack::open(config, &shared)?);
        if config.upper_is_new {
            crate::copy_up::meta::copy_root(&stack)?;
        }
        let store = Store::default();
        let overlay = Overlay {
            grafts: Grafts::new(shared, config),
            copy_up: CopyUp::new(config.fsync, config.marks.metacopy, store.copied_up().clone()),
            settings: Settings {
                static_nlink: config.static_nlink,
                redirects: config.marks.redirect_dir == RedirectDir::On,
                writeback: config.writeback,
                writes_noticed: crate::sys::process::kernel_is_since(6, 13),
            },
            store,
            handles: Handles::default(),
            counted: LevelMutex::new(HashMap::new()),
            passthrough: AtomicBool::new(false),
            maps_uncached: AtomicBool::new(true),
            passes_below: AtomicBool::new(config.lower_io == LowerIo::Passthrough),
            lost: AtomicBool::new(false),
            may_hang: AtomicBool::new(stack.may_hang),
            name_changed: OnceLock::new(),
            fill: OnceLock::new(),
            socket: OnceLock::new(),
            stack,
        };
        let root = overlay.root_of(&overlay.stack, Some(Ino::ROOT))?;
        match overlay.store.insert(root) {
            Ok(root) => drop(root.leak()),
            Err(_) => return Err(Error::Bug("two roots")),
        }
        for spec in &config.grafts {
            overlay.attach(spec)?;
        }
        Ok(overlay)
    }

    /// The root directory of a stack, as an inode that nobody has looked up yet. `ino` is its number, if it is not its own.
    fn root_of(&self, stack: &Arc<Stack>, ino: Option<Ino>) -> Result<Arc<Inode>> {
        let mut lowers: SmallVec<_> = SmallVec::new();
        let upper = OnceLock::new();
        for root in stack.roots() {
            if !stack.is_direct() {
                note_marks(stack, root)?;
            }
            if root.layer().is_upper() {
                upper.set(root.clone()).map_err(|_| Error::Bug("two upper layers"))?;
            } else {
                lowers.push(root.clone());
            }
        }
        let top = lowers.first().or(upper.get()).ok_or(Error::Bug("a stack without layers"))?.clone();
        let fd = top.fd().call("open")?;
        let stat = crate::sys::stat::stat(At::fd(fd.as_fd())).call("statx")?;
        let own = stack.pack_ino(stat.dev, stat.ino);
        let ino = ino.or(own.map(Ino)).unwrap_or_else(|| self.store.count());
        let node = Node::dir(upper, lowers);
        let st_ino = own.unwrap_or(ino.0);
        Ok(Arc::new(Inode::new(ino, st_ino, FileKind::Dir, stack.clone(), node, Default::default())))
    }

    /// The layers.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Says who is to hear of attributes that changed behind the kernel's back.
    pub fn on_change(&self, changed: crate::copy_up::tell::Changed) {
        self.copy_up.on_change(changed);
    }

    /// Says who is to hear of names that lead elsewhere now.
    pub fn on_name_change(&self, changed: impl Fn(Ino, &OsStr) + Send + Sync + 'static) {
        // A second listener would be a fault of the mount's start; the first stays.
        let _ = self.name_changed.set(NameChanged(Box::new(changed)));
    }

    /// Says where the daemon takes requests about the mount, for whoever asks the mount itself.
    pub fn set_socket(&self, path: &Path) {
        // There is one; a second would be a fault of the mount's start.
        let _ = self.socket.set(path.to_owned());
    }

    /// Says whether the kernel passes reads and writes through.
    pub fn set_passthrough(&self, on: bool) {
        self.passthrough.store(on, Ordering::Relaxed);
    }

    /// Says whether the kernel maps files of which it keeps no pages.
    pub fn set_maps_uncached(&self, on: bool) {
        self.maps_uncached.store(on, Ordering::Relaxed);
    }

    /// Whether the kernel passes reads and writes through.
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// The tree for which a request on `ino` may wait, because its filesystem may not answer.
    pub fn waits_for(&self, ino: Ino) -> Option<Arc<Stack>> {
        if !self.may_hang.load(Ordering::Relaxed) {
            return None;
        }
        self.store.get(ino).and_then(|inode| may_hang(&inode))
    }

    /// As `waits_for`, for `name` in `parent`, which may lead to what is attached there.
    pub fn waits_for_name(&self, parent: Ino, name: &OsStr) -> Option<Arc<Stack>> {
        if !self.may_hang.load(Ordering::Relaxed) {
            return None;
        }
        let parent = self.store.get(parent)?;
        may_hang(&parent).or_else(|| match parent.point(name) {
            Some(Point::Graft(root)) => may_hang(root.inode()),
            _ => None,
        })
    }

    /// How many inodes the kernel knows.
    pub fn known_inodes(&self) -> usize {
        self.store.len()
    }

    /// The inode that the kernel calls `ino`, or the one that it gave its names to.
    fn inode(&self, ino: Ino) -> Result<Arc<Inode>> {
        let inode = self.store.get(ino).ok_or(Error::Stale)?;
        Ok(if inode.gave_way() { inode.now() } else { inode })
    }

    fn dir(&self, ino: Ino) -> Result<Arc<Inode>> {
        let inode = self.inode(ino)?;
        if inode.is_dir() { Ok(inode) } else { Err(Error::NotDir) }
    }

    /// As `forget`, for what the kernel takes back.
    pub fn forgotten(&self, ino: Ino, count: u64) {
        let told_of = count - self.store.expected_of(ino, count);
        if told_of > 0 {
            self.forget(ino, told_of);
        }
    }

    /// Takes back `count` lookups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Some(gone) = self.store.forget(ino, count) {
            if ino.0 >= crate::merge::ino::FIRST_COUNTED {
                self.forget_names(&gone);
            }
            if gone.gave_way() && self.store.get(gone.now().ino).is_none() {
                self.forget_names(&gone.now());
            }
            drop(gone);
            if self.store.has_shrunk() {
                crate::sys::process::give_back_memory();
            }
        }
    }
}

/// The tree of `inode`, or that of the directory whose names show beside its own, if its filesystem may not answer.
fn may_hang(inode: &Inode) -> Option<Arc<Stack>> {
    // Of a tree that may not answer somebody may hold the state while he waits; of another nobody holds it for long.
    if inode.stack.may_hang {
        return Some(inode.stack.clone());
    }
    let state = inode.state.read();
    state.rare().beside.as_ref().map(|beside| &beside.dir.stack).filter(|stack| stack.may_hang).cloned()
}

/// Notes what the marks of a stack's root say.
fn note_marks(stack: &Stack, root: &Arc<RealDir>) -> Result<()> {
    let fd = root.fd().call("open")?;
    // Nothing is below a root to show through it, so no file is looked for that says it does not.
    let marks = probe::attribute_marks(stack.namespace, At::fd(fd.as_fd())).call("listxattr")?;
    root.note(Fact::XattrWhiteouts, marks.opaque == Opaque::XattrWhiteouts);
    root.note(Fact::Impure, marks.impure);
    Ok(())
}
