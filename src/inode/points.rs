//! Where other trees are attached: names of a directory that lead out of its own layers, or on the way to such.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use super::Inode;
use crate::merge::listing::FileKind;

/// The names of one directory that have to do with grafts. Never changed: a new value takes its place.
#[derive(Debug, Clone, Default)]
pub struct Points {
    by_name: BTreeMap<Box<OsStr>, Point>,
}

/// What a name has to do with grafts.
#[derive(Debug, Clone)]
pub enum Point {
    /// A graft is attached here and hides what the layers have.
    Graft(Root),
    /// A directory that no layer has, on the way to a graft. Nothing of it is on disk until somebody makes a name in it.
    Synthetic(Arc<Inode>),
    /// A directory of the layers, on the way to a graft.
    Way(Arc<Inode>),
}

/// What shows at a graft's path.
#[derive(Debug, Clone)]
pub enum Root {
    /// This inode.
    Inode(Arc<Inode>),
    /// Whatever has this name in the source's directory, asked at each lookup.
    Named {
        /// The source's directory, which has no name in the merged tree.
        dir: Arc<Inode>,
        /// The name in it.
        name: Box<OsStr>,
        /// What had the name when it was attached.
        kind: FileKind,
        /// The number that it showed then.
        st_ino: u64,
    },
}

impl Root {
    /// Its type, as far as is known without asking.
    pub fn kind(&self) -> FileKind {
        match self {
            Root::Inode(inode) => inode.kind,
            Root::Named { kind, .. } => *kind,
        }
    }

    /// The number it shows, as far as is known without asking.
    pub fn st_ino(&self) -> u64 {
        match self {
            Root::Inode(inode) => inode.st_ino,
            Root::Named { st_ino, .. } => *st_ino,
        }
    }

    /// The inode that belongs to the graft's stack for sure.
    pub fn inode(&self) -> &Arc<Inode> {
        match self {
            Root::Inode(inode) | Root::Named { dir: inode, .. } => inode,
        }
    }
}

impl Point {
    /// The name's type.
    pub fn kind(&self) -> FileKind {
        match self {
            Point::Graft(root) => root.kind(),
            Point::Synthetic(_) | Point::Way(_) => FileKind::Dir,
        }
    }

    /// The number the name shows.
    pub fn st_ino(&self) -> u64 {
        match self {
            Point::Graft(root) => root.st_ino(),
            Point::Synthetic(inode) | Point::Way(inode) => inode.st_ino,
        }
    }
}

impl Points {
    /// What `name` has to do with grafts.
    pub fn get(&self, name: &OsStr) -> Option<&Point> {
        self.by_name.get(name)
    }

    /// All names.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &Point)> {
        self.by_name.iter().map(|(name, point)| (&**name, point))
    }

    /// The same with `point` at `name`.
    pub fn with(&self, name: &OsStr, point: Point) -> Points {
        let mut points = self.clone();
        points.by_name.insert(name.into(), point);
        points
    }

    /// The same without `name`.
    pub fn without(&self, name: &OsStr) -> Points {
        let mut points = self.clone();
        points.by_name.remove(name);
        points
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
