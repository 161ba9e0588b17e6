//! The operations of the merged tree, one file per family. Each gathers facts, asks `merge` for a plan and carries it
//! out with `copy_up` and `layer`. Arguments are plain and results are values or errors: no FUSE type comes in here,
//! and nothing assumes that a request is answered on the thread that received it.
//!
//! Start with `lookup`, then `create`; `file` decides how bytes flow.

mod attr;
mod create;
mod file;
mod ids;
mod io;
mod link;
mod lookup;
mod names;
mod readdir;
mod redirect;
mod remove;
mod rename;
mod statfs;
mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

pub use attr::{Attr, Lifetime, SetAttr};
pub use create::NewNode;
pub use file::{IoMode, Opened};
pub use lookup::Entry;
pub use readdir::{DirEntry, DirEntryPlus};
pub use rename::RenameMode;

use crate::config::{Config, IdMaps, RedirectDir, XattrPermissions};
use crate::copy_up::CopyUp;
use crate::error::{Context, Error, Result};
use crate::inode::{Handles, Ino, Inode, Node, Store};
use crate::layer::Stack;
use crate::merge::listing::FileKind;
use crate::sync::{LevelMutex, LevelRwLock, level};
use crate::sys::At;

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

/// The choices of a mount that operations ask for.
#[derive(Debug)]
pub struct Settings {
    ids: IdMaps,
    xattr_permissions: XattrPermissions,
    acl: bool,
    static_nlink: bool,
    redirects: bool,
    /// The kernel keeps written pages, and reads through whatever descriptor it writes by.
    writeback: bool,
}

/// The merged tree.
#[derive(Debug)]
pub struct Overlay {
    stack: Arc<Stack>,
    store: Store,
    handles: Handles,
    copy_up: CopyUp,
    settings: Settings,
    /// Level 1: taken for writing by whoever moves a directory or touches two directories' names.
    rename_gate: LevelRwLock<(), { level::RENAME }>,
    /// Inodes whose number was given by the counter, by name: the only way to find them again.
    counted: LevelMutex<HashMap<(Ino, Box<OsStr>), Ino>, { level::STORE }>,
    /// The kernel passes reads and writes to backing files; cleared for good when it refuses.
    passthrough: AtomicBool,
    /// The upper layer's filesystem has lost what was written; a `volatile` mount syncs nothing from then on.
    lost: AtomicBool,
}

impl Overlay {
    /// Opens the layers of `config` and makes the root. `open_files` is how many descriptors the daemon may have.
    /// Errors: `Setup` naming the layer and the remedy.
    pub fn new(config: &Config, open_files: usize) -> Result<Overlay> {
        let stack = Arc::new(Stack::open(config, open_files / 2)?);
        let overlay = Overlay {
            copy_up: CopyUp::new(config.fsync, config.marks.metacopy, config.xattr_permissions),
            settings: Settings {
                ids: config.ids.clone(),
                xattr_permissions: config.xattr_permissions,
                acl: config.acl,
                static_nlink: config.static_nlink,
                redirects: config.marks.redirect_dir == RedirectDir::On,
                writeback: config.writeback,
            },
            store: Store::default(),
            handles: Handles::default(),
            rename_gate: LevelRwLock::new(()),
            counted: LevelMutex::new(HashMap::new()),
            passthrough: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            stack,
        };
        overlay.make_root()?;
        Ok(overlay)
    }

    fn make_root(&self) -> Result<()> {
        let stack = &self.stack;
        let mut lowers: SmallVec<_> = SmallVec::new();
        let upper = OnceLock::new();
        for root in stack.roots() {
            use std::os::fd::AsFd;
            let fd = root.fd().call("open")?;
            let marks =
                crate::layer::probe::dir_marks(stack.namespace, At::fd(fd.as_fd())).call("listxattr")?;
            let x = marks.opaque == crate::merge::mark::Opaque::XattrWhiteouts;
            root.note(crate::layer::real_dir::Fact::XattrWhiteouts, x);
            root.note(crate::layer::real_dir::Fact::Impure, marks.impure);
            if root.layer().is_upper() {
                upper.set(root.clone()).map_err(|_| Error::Bug("two upper layers"))?;
            } else {
                lowers.push(root.clone());
            }
        }
        let top = lowers.first().or(upper.get()).ok_or(Error::Bug("a stack without layers"))?.clone();
        let fd = top.fd().call("open")?;
        let stat = crate::sys::stat::stat(At::fd(std::os::fd::AsFd::as_fd(&fd))).call("statx")?;
        let st_ino = stack.pack_ino(stat.dev, stat.ino).unwrap_or(Ino::ROOT.0);
        let node = Node::Dir { upper, lowers };
        let root = Inode::new(Ino::ROOT, st_ino, FileKind::Dir, stack.clone(), node, Default::default());
        match self.store.insert(Arc::new(root)) {
            Ok(root) => drop(root.leak()),
            Err(_) => return Err(Error::Bug("two roots")),
        }
        Ok(())
    }

    /// The layers.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Says who is to hear of attributes that changed behind the kernel's back.
    pub fn on_change(&self, changed: crate::copy_up::Changed) {
        self.copy_up.on_change(changed);
    }

    /// Says whether the kernel passes reads and writes through.
    pub fn set_passthrough(&self, on: bool) {
        self.passthrough.store(on, Ordering::Relaxed);
    }

    /// Whether the kernel passes reads and writes through.
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// How many inodes the kernel knows.
    pub fn known_inodes(&self) -> usize {
        self.store.len()
    }

    fn inode(&self, ino: Ino) -> Result<Arc<Inode>> {
        self.store.get(ino).ok_or(Error::Stale)
    }

    fn dir(&self, ino: Ino) -> Result<Arc<Inode>> {
        let inode = self.inode(ino)?;
        if inode.is_dir() { Ok(inode) } else { Err(Error::NotDir) }
    }

    /// Takes back `count` lookups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Some(gone) = self.store.forget(ino, count) {
            if ino.0 >= crate::merge::ino::FIRST_COUNTED {
                self.forget_names(&gone);
            }
            drop(gone);
            if self.store.has_shrunk() {
                crate::sys::process::give_back_memory();
            }
        }
    }
}
