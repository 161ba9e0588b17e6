//! Filling an empty volume with what the layers have at its target, when it is first used there: contents, owner, mode,
//! times, extended attributes, hard links, devices. What is attached on the way or inside has no part in it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::Overlay;
use super::attr::{stat_of, stat_shown};
use crate::config::XattrPermissions;
use crate::copy_up::{data, meta};
use crate::error::{Context, Error, Result};
use crate::inode::Inode;
use crate::merge::listing::FileKind;
use crate::sys::stat::{Stat, stat};
use crate::sys::{At, name, open};

/// Where the first name of each hard link was put: a path from the root of the copy.
type Links = HashMap<u64, PathBuf>;

impl Overlay {
    /// Copies what the layers have below the directory `from` into the directory `to`, and its own owner, mode, times and
    /// attributes. Errors: what either answers.
    pub(super) fn copy_out(&self, from: &Arc<Inode>, to: &Path) -> Result<()> {
        let root = open::root(to).call("open")?;
        let mut links = Links::new();
        // A stack of its own: a path may be thousands of names deep.
        let mut todo = vec![(from.clone(), PathBuf::new())];
        let mut dirs = Vec::new();
        while let Some((dir, path)) = todo.pop() {
            let into = opened(&root, &path)?;
            let names = {
                let _names = dir.names().read();
                self.layers_names(&dir)?
            };
            for listed in names {
                let found = {
                    let _names = dir.names().read();
                    self.found_locked(&dir, &listed)?
                };
                let Some(found) = found else { continue };
                let inner = path.join(&*listed);
                if found.inode.is_dir() {
                    name::mkdir(At::new(into.as_fd(), &listed), 0o700).call("mkdirat")?;
                    todo.push(((*found.inode).clone(), inner));
                } else {
                    self.copy_one(
                        &found.inode,
                        root.as_fd(),
                        At::new(into.as_fd(), &listed),
                        inner,
                        &mut links,
                    )?;
                }
            }
            dirs.push((dir, path));
        }
        // Times come last, from below: each name made in a directory sets them.
        for (dir, path) in dirs.iter().rev() {
            let into = opened(&root, path)?;
            copy_facts(dir, At::fd(into.as_fd()))?;
        }
        Ok(())
    }

    /// The names that the layers show, whatever is attached over them. Locks: the directory's names, for reading at least.
    fn layers_names(&self, dir: &Arc<Inode>) -> Result<Vec<Box<OsStr>>> {
        Ok(self.shown_names(dir)?.into_iter().map(|shown| shown.name).collect())
    }

    fn copy_one(
        &self,
        inode: &Arc<Inode>,
        root: BorrowedFd<'_>,
        to: At<'_>,
        path: PathBuf,
        links: &mut Links,
    ) -> Result<()> {
        let facts = inode.with(|at| stat_shown(&inode.stack, at))?;
        if facts.nlink > 1 {
            if let Some(first) = links.get(&inode.st_ino) {
                return name::link(At::new(root, first.as_os_str()), to).call("linkat");
            }
            links.insert(inode.st_ino, path);
        }
        match inode.kind {
            FileKind::Regular => copy_bytes(inode, &facts, to)?,
            FileKind::Symlink => {
                let target = inode.with(|at| name::readlink(at).call("readlinkat"))?;
                name::symlink(&target, to).call("symlinkat")?;
            }
            FileKind::Dir => return Err(Error::IsDir),
            kind => {
                let mode = crate::sys::stat::format_of(kind) | 0o600;
                name::mknod(to, mode, facts.rdev_major, facts.rdev_minor).call("mknodat")?;
            }
        }
        copy_facts(inode, to)
    }
}

fn opened(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return open::path(At::fd(root.as_fd())).call("fcntl");
    }
    open::dir(root.as_fd(), path.as_os_str()).call("openat2")
}

fn copy_bytes(inode: &Arc<Inode>, facts: &Stat, to: At<'_>) -> Result<()> {
    let from = inode.with_data(|at, _| open::file(at, OFlag::O_RDONLY).call("openat2"))?;
    let made = open::create(to, OFlag::O_WRONLY, 0o600).call("openat2")?;
    // Once for each volume: what its filesystem refuses is not remembered.
    let refused = data::Refused::default();
    let stat = Stat { size: facts.size, ..stat(At::fd(from.as_fd())).call("statx")? };
    let source = data::Source { file: from.as_fd(), stat, to_device: 0, refused: &refused };
    data::copy_file(&source, made.as_fd()).map(drop)
}

/// Owner, attributes, mode and times, as the mount shows them.
fn copy_facts(inode: &Arc<Inode>, to: At<'_>) -> Result<()> {
    let stack = &inode.stack;
    let facts = stat_of(inode)?;
    inode.with(|at| {
        let made = meta::Made::of(&stat(to).call("statx")?);
        // A volume is a plain directory.
        let rules = meta::Rules { permissions: XattrPermissions::Off, ..meta::Rules::of(stack) };
        meta::copy(rules, at, &facts, to, made)?;
        meta::copy_times(&facts, to)
    })
}
