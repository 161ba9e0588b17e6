//! From a target's path to the directory it is attached in. Symlinks on the way are followed inside the merged tree.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};
use std::sync::Arc;

use super::Overlay;
use super::lookup::Entry;
use crate::error::{Context, Error, Result};
use crate::inode::{Ino, Inode, InodeRef, Point};
use crate::merge::listing::FileKind;
use crate::sys::name;

/// So many symlinks on the way to a target are too many. Source: path_resolution(7).
const MAX_LINKS: usize = 40;

/// Who is asked what has a name.
type Ask<'a> = fn(&'a Overlay, &Arc<Inode>, &OsStr) -> Result<Option<Entry<'a>>>;

/// Where a graft is to be.
pub(super) struct Place<'a> {
    /// The way to the directory above it.
    pub way: Way<'a>,
    /// The lowest directory on the way that is there.
    pub parent: Arc<Inode>,
    /// The last name of the target.
    pub name: Box<OsStr>,
    /// What is there already.
    pub covered: Option<InodeRef<'a>>,
}

/// The way to a target.
pub(super) struct Way<'a> {
    /// The names that are there, from the root's down.
    pub there: Vec<(Box<OsStr>, InodeRef<'a>)>,
    /// The names that are not there.
    pub missing: Vec<Box<OsStr>>,
}

impl Place<'_> {
    /// What the target's name has to do with grafts already.
    pub fn shows(&self) -> Option<Point> {
        if self.way.missing.is_empty() { self.parent.point(&self.name) } else { None }
    }
}

impl Overlay {
    /// Where `target` is, and what is there. Errors: `Setup` for a path that leads nowhere.
    pub(super) fn place_for(&self, target: &Path) -> Result<Place<'_>> {
        let mut way = self.way_to(target, Overlay::lookup_in)?;
        let covered = if way.missing.is_empty() { way.there.pop() } else { None };
        let (name, covered) = match (covered, way.missing.pop()) {
            (Some((name, inode)), None) => (name, Some(inode)),
            (None, Some(name)) => (name, None),
            _ => return Err(refused(target, "it leads to the root of the mount: name a path inside")),
        };
        let parent = match way.there.last() {
            Some((_, inode)) => (**inode).clone(),
            None => self.inode(Ino::ROOT)?,
        };
        if !parent.is_dir() {
            return Err(refused(target, "a component of the path is no directory: name another target"));
        }
        Ok(Place { way, parent, name, covered })
    }

    /// What the layers of the mount itself have at `target`, whatever is attached there or on the way; nothing if they
    /// have nothing there.
    pub(super) fn in_layers(&self, target: &Path) -> Result<Option<InodeRef<'_>>> {
        let mut way = self.way_to(target, Overlay::found_in)?;
        let there = way.missing.is_empty();
        Ok(way.there.pop().filter(|_| there).map(|(_, inode)| inode))
    }

    fn found_in(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<Option<Entry<'_>>> {
        let _names = dir.names().read();
        self.found_locked(dir, name)
    }

    fn way_to<'a>(&'a self, target: &Path, ask: Ask<'a>) -> Result<Way<'a>> {
        let mut there: Vec<(Box<OsStr>, InodeRef<'_>)> = Vec::new();
        let mut todo = components(target);
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                there.pop();
                continue;
            }
            let dir = match there.last() {
                Some((_, inode)) => (**inode).clone(),
                None => self.inode(Ino::ROOT)?,
            };
            if !dir.is_dir() {
                return Err(refused(target, "a component of the path is no directory: name another target"));
            }
            let found = ask(self, &dir, &name)
                .map_err(|error| refused(target, &format!("{error}: name another target")))?;
            let Some(Entry { inode, .. }) = found else {
                todo.push_front(name);
                return Ok(Way { there, missing: without_dots(todo) });
            };
            if inode.kind != FileKind::Symlink {
                there.push((name.into(), inode));
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(refused(target, "too many symlinks on the way: name the path without them"));
            }
            let link = inode.with(|at| name::readlink(at).call("readlinkat"))?;
            if Path::new(&link).is_absolute() {
                there.clear();
            }
            for component in components(Path::new(&link)).into_iter().rev() {
                todo.push_front(component);
            }
        }
        Ok(Way { there, missing: Vec::new() })
    }
}

/// An error about the graft at `target`.
pub(super) fn refused(target: &Path, why: &str) -> Error {
    Error::Setup(format!("graft at {target:?}: {why}"))
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// The names of a path that is not there, where `..` undoes the name before it.
fn without_dots(names: VecDeque<OsString>) -> Vec<Box<OsStr>> {
    let mut left: Vec<Box<OsStr>> = Vec::new();
    for name in names {
        if name == ".." {
            left.pop();
        } else {
            left.push(name.into());
        }
    }
    left
}
