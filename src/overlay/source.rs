//! Opening what a graft shows: a directory or file of the host, a copy-on-write view of one, a filesystem in memory.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::Overlay;
use crate::config::{Config, FsyncMode, Upper, XattrPermissions};
use crate::error::{Context, Error, Result};
use crate::graft::{self, Cache, Cow, Create, Pin, Source, Spec};
use crate::inode::State;
use crate::inode::{Ino, Inode, Node, Root};
use crate::layer::ephemeral::Ephemeral;
use crate::layer::{Kept, Stack, Terms};
use crate::sys::stat::{Stat, stat};
use crate::sys::{At, mount, open};

impl Overlay {
    /// Opens the source of `spec`, which is to cover what is at its target. Returns the spec as it can be said again: an
    /// anonymous volume has a name then. Errors: `Setup` naming the source and the remedy.
    pub(super) fn open_source(&self, spec: &Spec, covered: Option<&Arc<Inode>>) -> Result<(Spec, Root)> {
        self.suits_the_cache(spec)?;
        let mut spec = spec.clone();
        let root = match &spec.source {
            Source::Bind { path, create } => {
                self.outside(path)?;
                let path = existing(path, *create)?;
                if !spec.read_only && spec.cow.is_none() {
                    self.no_layer(&path)?;
                }
                self.open_path(&spec, &path, None)?
            }
            Source::Volume(volume) => {
                let (name, path, used) = self.open_volume(&spec, volume, covered)?;
                let root = self.open_path(&spec, &path, Some(Box::new(used)))?;
                spec.source = Source::Volume(graft::Volume { name: Some(name), ..volume.clone() });
                root
            }
            Source::Tmpfs { size, mode } => {
                let terms = Terms { cache: Cache::Always, ..terms(&spec) };
                let mode = match (mode, covered.filter(|covered| covered.is_dir())) {
                    (Some(mode), _) => *mode,
                    // Whom the directory below keeps out is kept out of what hides it. Source: runc `libcontainer/rootfs_linux.go`.
                    (None, Some(covered)) => self.attr_of(covered)?.stat.mode & 0o7777,
                    (None, None) => 0o1777,
                };
                let root = tmpfs(*size, mode)?;
                let (name, inside) = (Path::new("tmpfs"), mount::Inside::default());
                let stack = Stack::direct(root, name, inside, spec.read_only, terms, &self.grafts.shared)?;
                self.show_root(stack)?
            }
        };
        Ok((spec, root))
    }

    /// Errors: `Setup` for a tree that others change, where the kernel keeps sizes and times of files itself and never asks.
    /// Source: kernel `fuse_get_cache_mask`.
    fn suits_the_cache(&self, spec: &Spec) -> Result<()> {
        let is_own = spec.cow.is_some() || matches!(spec.source, Source::Tmpfs { .. });
        if !self.settings.writeback || is_own || terms(spec).cache == Cache::Always {
            return Ok(());
        }
        Err(refused(
            &spec.target,
            "with `writeback=on` the kernel keeps sizes and times of files, and would not see what the host changes: leave \
             `writeback=on` out, or give the graft `cache=always` if nobody else changes it",
        ))
    }

    /// Opens what is at `path`, which has no symlinks. `keep` stays as long as it is in use.
    fn open_path(&self, spec: &Spec, path: &Path, keep: Option<Kept>) -> Result<Root> {
        let is_dir = path.is_dir();
        let dir =
            if is_dir { path } else { path.parent().ok_or(Error::Bug("a file without a directory"))? };
        let mut stack = match &spec.cow {
            Some(cow) => self.cow(spec, dir, cow)?,
            None => {
                let (root, inside) = if is_dir {
                    self.tree(path, spec.recursive, spec.read_only)?
                } else {
                    // Nothing else of its directory is shown.
                    (directory_of(path, dir, spec.read_only)?, mount::Inside::default())
                };
                Stack::direct(root, path, inside, spec.read_only, terms(spec), &self.grafts.shared)
                    .map_err(|error| refused(path, &format!("{error}: change its permissions")))?
            }
        };
        if keep.is_some() {
            *stack.keep.get_mut() = keep;
        }
        match (is_dir, spec.pin) {
            (true, _) => self.show_root(stack),
            (false, Pin::Inode) if stack.is_direct() => self.show_inode(stack, path),
            // What a layer has under a name stays as it is.
            (false, Pin::Name | Pin::Inode) => self.show_name(stack, path),
        }
    }

    /// The root directory of the stack shows.
    fn show_root(&self, stack: Stack) -> Result<Root> {
        Ok(Root::Inode(self.known_root(stack)?))
    }

    fn known_root(&self, stack: Stack) -> Result<Arc<Inode>> {
        if stack.may_hang {
            self.may_hang.store(true, Ordering::Relaxed);
        }
        self.hold_new(self.root_of(&Arc::new(stack), None)?)
    }

    /// What has the name of `path` in the root directory of the stack shows, so that another file that gets the name is
    /// seen.
    fn show_name(&self, stack: Stack, path: &Path) -> Result<Root> {
        let name = path.file_name().ok_or(Error::Bug("a file without a name"))?;
        let dir = self.known_root(stack)?;
        let found = self.found_locked(&dir, name).and_then(|found| found.ok_or(Error::NotFound));
        let Ok(found) = found else {
            // Nobody else knows it.
            self.forget(dir.ino, 1);
            return Err(refused(path, "it has gone while it was being attached: make it again"));
        };
        let (kind, st_ino) = (found.inode.kind, found.inode.st_ino);
        drop(found);
        Ok(Root::Named { dir, name: name.into(), kind, st_ino })
    }

    /// The file that is at `path` now shows, whatever becomes of its name.
    fn show_inode(&self, stack: Stack, path: &Path) -> Result<Root> {
        let dir = stack.roots().next().ok_or(Error::Bug("a stack without layers"))?.fd().call("open")?;
        let fd = open::path(At::new(dir.as_fd(), path.file_name().unwrap_or_default()))
            .map_err(|errno| refused(path, errno.desc()))?;
        let real = stat(At::fd(fd.as_fd())).call("statx")?;
        let ino = stack.pack_ino(real.dev, real.ino).map_or_else(|| self.store.count(), Ino);
        let mut state = State::default();
        state.upper_ino = real.ino;
        state.rare_mut().orphan = Some(Arc::new(fd));
        let inode = Inode::new(ino, ino.0, real.kind, Arc::new(stack), Node::NonDir, state);
        Ok(Root::Inode(self.hold_new(Arc::new(inode))?))
    }

    /// A stack over the source, which stays as it is.
    fn cow(&self, spec: &Spec, lower: &Path, cow: &Cow) -> Result<Stack> {
        let (upper, made) = match cow {
            Cow::Kept { upper, work } => (Upper { dir: upper.clone(), work: work.clone() }, None),
            Cow::ThrowAway => {
                let made = Ephemeral::new(&std::env::temp_dir())?;
                (made.upper(), Some(made))
            }
        };
        let own = &self.grafts.config;
        let mut config = Config::new(vec![lower.to_owned()], Some(upper), own.mountpoint.clone());
        config.marks = own.marks;
        config.fsync = if made.is_some() { FsyncMode::Volatile } else { own.fsync };
        config.ids = spec.ids.clone();
        config.xattr_permissions = own.xattr_permissions;
        config.mount.read_only = spec.read_only;
        let mut stack = Stack::open(&config, &self.grafts.shared)?;
        if made.is_some() {
            crate::copy_up::meta::copy_root(&stack)?;
        }
        *stack.keep.get_mut() = made.map(|made| Box::new(made) as Kept);
        Ok(stack)
    }

    /// The tree at `path`, and what is mounted inside. Where the daemon may, it is a mount of its own, so that what is mounted
    /// on the host later, this mount among it, does not show inside.
    fn tree(&self, path: &Path, recursive: bool, read_only: bool) -> Result<(OwnedFd, mount::Inside)> {
        let inside = mount::inside(path);
        match open::clone(path, recursive, read_only) {
            Ok(tree) => return Ok((tree, if recursive { inside } else { mount::Inside::default() })),
            Err(_) if self.grafts.config.mountpoint.starts_with(path) => {
                return Err(refused(
                    path,
                    "the mountpoint is inside it, and the daemon may not make a mount of its own of it: mount as root, on Linux 5.12 or later",
                ));
            }
            Err(_) if !recursive && inside.some => {
                return Err(refused(
                    path,
                    "there are mounts inside it, and the daemon may not leave them out: leave `nonrecursive` out, or mount as root, on Linux 5.12 or later",
                ));
            }
            Err(_) => {}
        }
        let tree = open::root(path).map_err(|errno| refused(path, errno.desc()))?;
        // What is mounted on the host later shows inside, too.
        Ok((tree, mount::Inside { some: true, ..inside }))
    }

    /// Errors: `Setup` for what is inside a layer of the mount, which a bind that takes changes would change.
    fn no_layer(&self, path: &Path) -> Result<()> {
        let config = &self.grafts.config;
        let upper = config.upper.iter().flat_map(|upper| [&upper.dir, &upper.work]);
        for layer in config.lowers.iter().chain(&config.data_lowers).chain(upper) {
            if fs::canonicalize(layer).is_ok_and(|layer| path.starts_with(layer)) {
                let why =
                    format!("it is in layer {layer:?} of this mount, which must not change: say `ro` or `O`");
                return Err(refused(path, &why));
            }
        }
        Ok(())
    }

    /// Errors: `Setup` for what is inside the mount itself.
    fn outside(&self, path: &Path) -> Result<()> {
        let own = &self.grafts.config.mountpoint;
        let mountpoint = fs::canonicalize(own).unwrap_or_else(|_| own.clone());
        // As text first: asking a mount about itself would wait for this very daemon.
        let inside = path.starts_with(own)
            || path.starts_with(&mountpoint)
            || path
                .parent()
                .map(fs::canonicalize)
                .is_some_and(|real| real.is_ok_and(|real| real.starts_with(&mountpoint)));
        if inside {
            Err(refused(path, "it is inside the mount itself: name a source outside"))
        } else {
            Ok(())
        }
    }
}

/// The directory `dir` of the file at `path`; without a way to change anything in it, if that is not to be.
fn directory_of(path: &Path, dir: &Path, read_only: bool) -> Result<OwnedFd> {
    let refused = |errno: Errno| refused(path, errno.desc());
    let plain = open::root(dir).map_err(refused)?;
    let name = path.file_name().unwrap_or_default();
    let Some(fenced) = open::clone(dir, false, true).ok().filter(|_| read_only) else { return Ok(plain) };
    // The file itself may be a mount, which a view of the directory's own mount leaves out.
    let shown = stat(At::new(plain.as_fd(), name)).map_err(refused)?;
    let same = |seen: Stat| (seen.dev, seen.ino) == (shown.dev, shown.ino);
    Ok(if stat(At::new(fenced.as_fd(), name)).is_ok_and(same) { fenced } else { plain })
}

fn terms(spec: &Spec) -> Terms {
    Terms { ids: spec.ids.clone(), permissions: XattrPermissions::Off, cache: spec.cache }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::Setup(format!("bind source {path:?}: {why}"))
}

/// The path without symlinks; made, if it is missing and that was asked for. The daemon's umask is empty, so modes are
/// those given.
fn existing(path: &Path, create: Option<Create>) -> Result<PathBuf> {
    match (fs::canonicalize(path), create) {
        (Ok(real), _) => Ok(real),
        (Err(error), Some(create)) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = match create {
                Create::Dir => fs::DirBuilder::new().recursive(true).mode(0o755).create(path),
                Create::File => {
                    fs::File::options().write(true).create_new(true).mode(0o644).open(path).map(drop)
                }
            };
            made.and_then(|()| fs::canonicalize(path))
                .map_err(|error| refused(path, &format!("it cannot be made ({error}): make it first")))
        }
        (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => Err(refused(
            path,
            "bind source path does not exist: make it, or say `create=dir` or `create=file`",
        )),
        (Err(error), _) => Err(refused(path, &format!("it cannot be reached ({error}): correct the path"))),
    }
}

fn tmpfs(size: Option<u64>, mode: u32) -> Result<OwnedFd> {
    let mut options = vec![("mode", format!("{mode:o}"))];
    options.extend(size.map(|size| ("size", size.to_string())));
    mount::tmpfs(&options).map_err(|errno| {
        Error::Setup(format!(
            "a tmpfs cannot be made ({}): mount as root or within `unshare -Urm`",
            errno.desc()
        ))
    })
}
