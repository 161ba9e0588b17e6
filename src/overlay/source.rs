//! Opening what a graft shows: a directory or file of the host, a copy-on-write view of one, a filesystem in memory.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Overlay;
use super::graft;
use crate::config::{Config, FsyncMode, Upper, XattrPermissions};
use crate::error::{Context, Error, Result};
use crate::graft::{Cache, Cow, Create, Pin, Source, Spec};
use crate::inode::node::State;
use crate::inode::{Inode, Node, Root};
use crate::layer::{Stack, Terms};
use crate::sys::stat::stat;
use crate::sys::{At, mount, open};

impl Overlay {
    /// Opens the source of `spec`. Errors: `Setup` naming the source and the remedy.
    pub(super) fn open_source(&self, spec: &Spec, _target: Option<&Arc<Inode>>) -> Result<graft::Source> {
        match &spec.source {
            Source::Bind { path, create } => {
                self.outside(path)?;
                let path = existing(path, *create)?;
                if path.is_dir() { self.open_dir(spec, &path, None) } else { self.open_file(spec, &path) }
            }
            Source::Tmpfs { size, mode } => {
                let root = tmpfs(*size, *mode)?;
                let path = PathBuf::from("tmpfs");
                let terms = Terms { cache: Cache::Always, ..terms(spec) };
                let stack = Stack::direct(root, &path, spec.read_only, terms, &self.grafts.shared)?;
                self.rooted(Arc::new(stack), None)
            }
            Source::Volume(_) => Err(Error::Unsupported),
        }
    }

    fn open_dir(
        &self,
        spec: &Spec,
        path: &Path,
        keep: Option<Box<dyn std::any::Any + Send + Sync>>,
    ) -> Result<graft::Source> {
        if let Some(cow) = &spec.cow {
            return self.open_cow(spec, path, cow, |overlay, stack, made| overlay.rooted(stack, made));
        }
        let root = self.tree(path, spec.recursive, spec.read_only)?;
        let stack = Stack::direct(root, path, spec.read_only, terms(spec), &self.grafts.shared)
            .map_err(|error| unreadable(path, &error))?;
        self.rooted(Arc::new(stack), keep)
    }

    /// A source in which the root directory shows.
    fn rooted(
        &self,
        stack: Arc<Stack>,
        keep: Option<Box<dyn std::any::Any + Send + Sync>>,
    ) -> Result<graft::Source> {
        let root = self.hold_new(self.root_of(&stack, None)?)?;
        Ok(graft::Source { root: Root::Inode(root), _keep: keep })
    }

    /// A source in which one name of the root directory shows.
    fn named(
        &self,
        stack: Arc<Stack>,
        path: &Path,
        keep: Option<Box<dyn std::any::Any + Send + Sync>>,
    ) -> Result<graft::Source> {
        let name = path.file_name().ok_or(Error::Bug("a file without a name"))?;
        let dir = self.hold_new(self.root_of(&stack, None)?)?;
        let found = self.found_locked(&dir, name)?.ok_or(Error::NotFound)?;
        let (kind, st_ino) = (found.inode.kind, found.inode.st_ino);
        Ok(graft::Source { root: Root::Named { dir, name: name.into(), kind, st_ino }, _keep: keep })
    }

    /// A file shows by its name in its directory, so that another file that gets the name is seen.
    fn open_file(&self, spec: &Spec, path: &Path) -> Result<graft::Source> {
        let above = path.parent().ok_or(Error::Bug("a file without a directory"))?;
        if let Some(cow) = &spec.cow {
            return self.open_cow(spec, above, cow, |overlay, stack, made| overlay.named(stack, path, made));
        }
        let root = open::root(above).map_err(|errno| refused(above, errno.desc()))?;
        let stack = Stack::direct(root, above, spec.read_only, terms(spec), &self.grafts.shared)
            .map_err(|error| unreadable(above, &error))?;
        let stack = Arc::new(stack);
        match spec.pin {
            Pin::Name => self.named(stack, path, None),
            Pin::Inode => self.pinned(&stack, path),
        }
    }

    fn pinned(&self, stack: &Arc<Stack>, path: &Path) -> Result<graft::Source> {
        let root = open::root(path.parent().unwrap_or(path)).map_err(|errno| refused(path, errno.desc()))?;
        let fd = open::path(At::new(root.as_fd(), path.file_name().unwrap_or_default()))
            .map_err(|errno| refused(path, errno.desc()))?;
        let real = stat(At::fd(fd.as_fd())).call("statx")?;
        let ino = stack.pack_ino(real.dev, real.ino).map_or_else(|| self.store.count(), crate::inode::Ino);
        let state = State { upper_ino: real.ino, orphan: Some(Arc::new(fd)), ..State::default() };
        let inode = Inode::new(ino, ino.0, real.kind, stack.clone(), Node::NonDir, state);
        Ok(graft::Source { root: Root::Inode(self.hold_new(Arc::new(inode))?), _keep: None })
    }

    /// A stack of its own over the source, which stays as it is.
    fn open_cow(
        &self,
        spec: &Spec,
        lower: &Path,
        cow: &Cow,
        show: impl FnOnce(
            &Overlay,
            Arc<Stack>,
            Option<Box<dyn std::any::Any + Send + Sync>>,
        ) -> Result<graft::Source>,
    ) -> Result<graft::Source> {
        let (upper, made) = match cow {
            Cow::Kept { upper, work } => (Upper { dir: upper.clone(), work: work.clone() }, None),
            Cow::ThrowAway => {
                let (made, upper) = throw_away(lower)?;
                (upper, Some(made))
            }
        };
        let own = &self.grafts.config;
        let mut config = Config::new(vec![lower.to_owned()], Some(upper), own.mountpoint.clone());
        config.marks = own.marks;
        config.fsync = if made.is_some() { FsyncMode::Volatile } else { own.fsync };
        config.ids = spec.ids.clone();
        config.xattr_permissions = own.xattr_permissions;
        config.mount.read_only = spec.read_only;
        let stack = Stack::open(&config, &self.grafts.shared)?;
        show(self, Arc::new(stack), made.map(|made| Box::new(made) as Box<dyn std::any::Any + Send + Sync>))
    }

    /// The tree at `path`. Where the daemon may, it is a mount of its own, so that what is mounted on the host later, this
    /// mount among it, does not show inside.
    fn tree(&self, path: &Path, recursive: bool, read_only: bool) -> Result<OwnedFd> {
        match open::clone(path, recursive, read_only) {
            Ok(tree) => Ok(tree),
            Err(_) if self.grafts.config.mountpoint.starts_with(path) => Err(refused(
                path,
                "the mountpoint is inside it, and the daemon may not make a mount of its own of it: mount as root",
            )),
            Err(_) => open::root(path).map_err(|errno| refused(path, errno.desc())),
        }
    }

    /// Errors: `Setup` for what is inside the mount itself.
    fn outside(&self, path: &Path) -> Result<()> {
        let mountpoint = fs::canonicalize(&self.grafts.config.mountpoint);
        let mountpoint = mountpoint.as_deref().unwrap_or(&self.grafts.config.mountpoint);
        // Looked at as text first: asking a mount about itself would wait for this very daemon.
        if path.starts_with(mountpoint) {
            return Err(refused(path, "it is inside the mount itself: name a source outside"));
        }
        match path.parent().map(fs::canonicalize) {
            Some(Ok(real)) if real.starts_with(mountpoint) => {
                Err(refused(path, "it is inside the mount itself: name a source outside"))
            }
            _ => Ok(()),
        }
    }
}

fn terms(spec: &Spec) -> Terms {
    Terms { ids: spec.ids.clone(), permissions: XattrPermissions::Off, cache: spec.cache }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::Setup(format!("bind source {path:?}: {why}"))
}

fn unreadable(path: &Path, error: &Error) -> Error {
    refused(path, &format!("{error}: change its permissions or name another"))
}

/// The path without symlinks; made, if it is missing and that was asked for.
fn existing(path: &Path, create: Option<Create>) -> Result<PathBuf> {
    match (fs::canonicalize(path), create) {
        (Ok(real), _) => Ok(real),
        (Err(error), Some(create)) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = match create {
                Create::Dir => fs::create_dir_all(path),
                Create::File => fs::File::create_new(path).map(drop),
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

fn tmpfs(size: Option<u64>, mode: Option<u32>) -> Result<OwnedFd> {
    let mut options = vec![("mode", format!("{:o}", mode.unwrap_or(0o1777)))];
    options.extend(size.map(|size| ("size", size.to_string())));
    mount::tmpfs(&options).map_err(|errno| {
        Error::Setup(format!(
            "a tmpfs cannot be made ({}): mount as root or within `unshare -Urm`",
            errno.desc()
        ))
    })
}

/// Directories for changes that nobody keeps.
fn throw_away(lower: &Path) -> Result<(crate::layer::ephemeral::Ephemeral, Upper)> {
    let made = crate::layer::ephemeral::Ephemeral::new(&std::env::temp_dir(), Some(lower))?;
    let upper = made.upper();
    Ok((made, upper))
}
