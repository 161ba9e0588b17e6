//! The room beside the upper layer in which changes are prepared, so that each appears in one step.
//!
//! `WORK/work` holds temporary objects, swept at mount; `WORK/index` one link per copied-up hard-linked inode.
//! Source: overlayfs.rst, "Upper and lower"; `docs/on-disk-format.md`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::merge::listing::FileKind;
use crate::sys::stat::stat;
use crate::sys::{At, copy, dir, name, open, xattr};

/// The prepared objects of one upper layer.
#[derive(Debug)]
pub struct Workdir {
    /// The directory that was named; `work` and `index` are in it.
    root: OwnedFd,
    work: OwnedFd,
    index: Option<Arc<OwnedFd>>,
    next: AtomicU64,
    /// A whiteout in the workdir that others are hard links of.
    whiteout: Mutex<Option<OsString>>,
    /// Held until the mount ends or gives its upper layer up: one mount uses a workdir.
    lock: Mutex<Option<nix::fcntl::Flock<OwnedFd>>>,
}

/// What a mount does with its upper layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing is written, not even marks.
    ReadOnly,
    /// Changes are made.
    Durable,
    /// Changes are made and never synced.
    Volatile,
}

/// A temporary object in the workdir; removed when dropped unless it was put into place.
#[derive(Debug)]
pub struct Temp<'a> {
    workdir: &'a Workdir,
    name: OsString,
    armed: bool,
}

impl Workdir {
    /// Locks the workdir at `path`, checks that it is one, and sweeps what an interrupted mount has left.
    /// Errors: `Setup` if it is in use, holds foreign things, or was mounted `volatile` and not cleaned.
    pub fn open(path: &Path, opened: Option<OwnedFd>, how: Use) -> Result<Workdir> {
        let root = opened.map_or_else(|| open::root(path), Ok);
        let root = root.map_err(|e| setup(path, "cannot be opened", e))?;
        let lock = lock(path)?;
        let mut foreign = None;
        let scan = dir::read(root.as_fd(), false, |entry| {
            if entry.name != "work" && entry.name != "index" {
                foreign.get_or_insert_with(|| entry.name.to_owned());
            }
            Ok(())
        });
        scan.map_err(|e| setup(path, "cannot be read", e))?;
        if let Some(name) = foreign {
            return Err(Error::Setup(format!(
                "workdir {path:?} holds {name:?}, which is not a workdir's: give an empty directory"
            )));
        }
        let work = match how {
            // Nothing is prepared, so a directory that is not there is not missed.
            Use::ReadOnly => match open::dir(root.as_fd(), OsStr::new("work")) {
                Ok(work) => work,
                Err(_) => open::path(At::fd(root.as_fd())).map_err(|e| setup(path, "cannot be opened", e))?,
            },
            Use::Durable | Use::Volatile => make_dir(root.as_fd(), "work", path)?,
        };
        check_volatile(work.as_fd(), path)?;
        if how != Use::ReadOnly {
            sweep(work.as_fd(), OsStr::new("")).map_err(|e| setup(path, "cannot be swept", e))?;
        }
        if how == Use::Volatile {
            mark_volatile(work.as_fd(), path).map_err(|e| setup(path, "cannot be marked volatile", e))?;
        }
        Ok(Workdir {
            root,
            work,
            index: None,
            next: AtomicU64::new(1),
            whiteout: Mutex::new(None),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Opens the index directory, or makes it where something may be written; otherwise false without one.
    pub fn open_index(&mut self, path: &Path, how: Use) -> Result<bool> {
        let root = self.root.as_fd();
        let index = match how {
            Use::ReadOnly => match open::dir(root, OsStr::new("index")) {
                Ok(index) => index,
                Err(_) => return Ok(false),
            },
            Use::Durable | Use::Volatile => make_dir(root, "index", path)?,
        };
        self.index = Some(Arc::new(index));
        Ok(true)
    }

    /// Removes what `open` made, if it is empty.
    pub fn unmake(&self) {
        // What stays is swept, and used, by the next mount.
        let _ = name::rmdir(At::new(self.root.as_fd(), OsStr::new("work")));
    }

    /// The directory that was named as the workdir.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory of temporary objects.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.work.as_fd()
    }

    /// The directory of hard-linked inodes, if they are kept.
    pub fn index(&self) -> Option<Arc<OwnedFd>> {
        self.index.clone()
    }

    /// A fresh temporary name; whatever is made there goes away with the value.
    pub fn temp(&self) -> Temp<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Temp { workdir: self, name: format!("#{number:x}").into(), armed: true }
    }

    /// Makes a whiteout at `to`, as a link of the shared one where the filesystem lets it have one more name.
    pub fn link_whiteout(&self, to: At<'_>) -> Result<()> {
        let mut shared = self.whiteout.lock();
        for _ in 0..2 {
            if let Some(whiteout) = &*shared {
                match name::link(At::new(self.fd(), whiteout), to) {
                    Ok(()) => return Ok(()),
                    // Too many names, or swept away by somebody: a fresh one takes its place.
                    Err(Errno::EMLINK | Errno::ENOENT) => {
                        let old = shared.take();
                        if let Some(old) = old {
                            // It may be gone already; if it stays, the next mount sweeps it.
                            let _ = name::unlink(At::new(self.fd(), &old));
                        }
                    }
                    // No hard links here: each whiteout is one of its own.
                    Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                        return name::mknod(to, libc::S_IFCHR, 0, 0).map_err(|e| refused("mknodat", e));
                    }
                    Err(errno) => return Err(refused("linkat", errno)),
                }
            }
            let mut temp = self.temp();
            name::mknod(temp.at(), libc::S_IFCHR, 0, 0).map_err(|e| refused("mknodat", e))?;
            temp.armed = false;
            *shared = Some(temp.name.clone());
        }
        Err(Error::Bug("a fresh whiteout cannot be linked"))
    }

    /// Leaves the workdir to another mount: from now on no name in it is this mount's.
    pub fn give_up(&self) {
        drop(self.lock.lock().take());
    }

    fn is_given_up(&self) -> bool {
        self.lock.lock().is_none()
    }

    /// Removes what `name` in the workdir is, with everything in it.
    pub fn discard(&self, name: &OsStr) -> nix::Result<()> {
        remove_tree(At::new(self.fd(), name))
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if let Some(whiteout) = self.whiteout.get_mut().take().filter(|_| !self.is_given_up()) {
            // Harmless if it stays: the next mount sweeps it.
            let _ = name::unlink(At::new(self.work.as_fd(), &whiteout));
        }
    }
}

impl Temp<'_> {
    /// Where it is.
    pub fn at(&self) -> At<'_> {
        At::new(self.workdir.fd(), &self.name)
    }

    /// Says that nothing is left at the temporary name.
    pub fn placed(mut self) {
        self.armed = false;
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if self.armed && !self.workdir.is_given_up() {
            if let Err(errno) = self.workdir.discard(&self.name) {
                if errno != Errno::ENOENT {
                    tracing::warn!("{:?} stays in the workdir until the next mount: {errno}", self.name);
                }
            }
        }
    }
}

fn refused(call: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::EEXIST => Error::Exists,
        errno => Error::Sys { call, errno },
    }
}

fn setup(path: &Path, what: &str, errno: Errno) -> Error {
    Error::Setup(format!("workdir {path:?} {what}: {}", errno.desc()))
}

fn lock(path: &Path) -> Result<nix::fcntl::Flock<OwnedFd>> {
    lock_dir(path).map_err(|errno| match errno {
        Errno::EWOULDBLOCK => Error::InUse { role: "workdir", path: path.to_owned() },
        errno => setup(path, "cannot be locked", errno),
    })
}

/// Takes the lock that says that a mount uses this directory. Errors: EWOULDBLOCK if one does.
pub fn lock_dir(path: &Path) -> nix::Result<nix::fcntl::Flock<OwnedFd>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())?;
    let begun = std::time::Instant::now();
    loop {
        match nix::fcntl::Flock::lock(dir, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            // A daemon whose mount has ended may take a moment to leave.
            Err((again, Errno::EWOULDBLOCK)) if begun.elapsed() < LEAVING => dir = again,
            Err((_, errno)) => return Err(errno),
        }
        std::thread::sleep(LEAVING / 50);
    }
}

/// So long may a daemon that has unmounted take to end.
const LEAVING: std::time::Duration = std::time::Duration::from_millis(500);

fn make_dir(root: BorrowedFd<'_>, which: &str, path: &Path) -> Result<OwnedFd> {
    let at = At::new(root, OsStr::new(which));
    match name::mkdir(at, 0o700) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(setup(path, "cannot be written", errno)),
    }
    let made = open::dir(root, OsStr::new(which)).map_err(|e| setup(path, "cannot be opened", e))?;
    // The kernel makes it mode 0. An unprivileged daemon could not enter that, and a privileged one does not mind.
    let mode = if crate::sys::cred::may_administer() { 0 } else { 0o700 };
    crate::sys::attr::chmod(At::fd(made.as_fd()), mode).map_err(|e| setup(path, "cannot be written", e))?;
    // What is made here must not inherit what the workdir itself would hand down. Source: kernel `ovl_workdir_create`.
    match xattr::remove(At::fd(made.as_fd()), c"system.posix_acl_default") {
        Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
        Err(errno) => return Err(setup(path, "has a default ACL that cannot be removed", errno)),
    }
    Ok(made)
}

const INCOMPAT: &str = "incompat";
const VOLATILE: &str = "incompat/volatile";

fn check_volatile(work: BorrowedFd<'_>, path: &Path) -> Result<()> {
    if stat(At::new(work, OsStr::new(VOLATILE))).is_ok() {
        return Err(Error::Setup(format!(
            "workdir {path:?} was used by a `volatile` mount, so its upper layer may be incomplete: start with a fresh \
             upper layer, or remove {:?} if you trust it",
            path.join("work").join(VOLATILE)
        )));
    }
    Ok(())
}

/// Leaves the mark, on disk before anything is answered that is not: after a power failure, too, it must be seen.
fn mark_volatile(work: BorrowedFd<'_>, path: &Path) -> nix::Result<()> {
    for dir in [INCOMPAT, VOLATILE] {
        match name::mkdir(At::new(work, OsStr::new(dir)), 0o700) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    match open::create(At::new(work, OsStr::new("incompat/volatile/dirty")), OFlag::O_WRONLY, 0o600) {
        Ok(dirty) => copy::sync(dirty.as_fd(), false)?,
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    for dir in [VOLATILE, INCOMPAT] {
        name::sync_dir(open::dir(work, OsStr::new(dir))?.as_fd())?;
    }
    // `work` itself may have been made just now.
    name::sync_dir(work).and_then(|()| name::sync_dir(open::root(path)?.as_fd()))
}

/// Removes everything in the directory `name` of `parent`.
fn sweep(parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<()> {
    let opened;
    let inside = if name.is_empty() {
        parent
    } else {
        opened = open::dir(parent, name)?;
        opened.as_fd()
    };
    let mut names = Vec::new();
    dir::read(inside, false, |entry| {
        names.push(entry.name.to_owned());
        Ok(())
    })?;
    names.iter().try_for_each(|name| remove_tree(At::new(inside, name)))
}

/// Removes an object with everything in it; symlinks are not followed.
pub fn remove_tree(at: At<'_>) -> nix::Result<()> {
    match name::unlink(at) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        result => return result,
    }
    if stat(at)?.kind != FileKind::Dir {
        return Err(Errno::EPERM);
    }
    match name::rmdir(at) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
            match sweep(at.dir, at.name) {
                // Closed even to its owner, which stops a daemon without privilege.
                Err(Errno::EACCES) => {
                    crate::sys::attr::chmod(at, 0o700)?;
                    sweep(at.dir, at.name)?;
                }
                result => result?,
            }
            name::rmdir(at)
        }
        result => result,
    }
}
