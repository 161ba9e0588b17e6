//! What changes about an inode. Of a file that is only known, and that is most of them, nothing but its name and its
//! place in a lower layer is kept here; what few inodes have is apart (`Rare`).

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::listing::Listing;
use super::node::{Inode, Located};
use super::points::Points;
use crate::error::{Context, Error, Result};
use crate::layer::RealDir;
use crate::merge::LayerId;

/// What changes about an inode.
#[derive(Debug, Default)]
pub struct State {
    /// Its names in the merged tree that are known; a directory has one, the root none.
    pub names: Names,
    /// A non-directory is in the upper layer: the inode number there. Zero if not.
    pub upper_ino: u64,
    /// Where a non-directory is, or was before copy-up, in a lower layer: the four fields that `lower` puts together. Flat,
    /// because half a million inodes have them.
    lower_dir: Option<Arc<RealDir>>,
    lower_ino: u64,
    /// Its name there, where it is not that of the first of `names`.
    lower_name: Option<Box<Box<OsStr>>>,
    lower_nlink: u32,
    /// A directory was removed; nothing can be made in it.
    pub gone: bool,
    /// An upper directory is marked opaque.
    pub opaque: bool,
    /// The last open file on it was passed through: the kernel's own pages of it are not to be trusted.
    pub was_passthrough: bool,
    /// It has been passed through for reading and writing, so a shared mapping may outlive every open file.
    pub maybe_mapped: bool,
    rare: Option<Box<Rare>>,
}

/// What few inodes have.
#[derive(Debug)]
pub struct Rare {
    /// Metadata is in the upper layer, or in the lower object, but data is here.
    pub data: Option<Box<LowerFile>>,
    /// The name of its entry in the index directory.
    pub index: Option<Box<OsStr>>,
    /// The link count shown, where it is not the real one.
    pub nlink: Option<u32>,
    /// A symlink in a tree that others change: what tells it from the next one with its number. Zero for all else.
    pub sign: u64,
    /// What keeps it reachable when its last name is gone.
    pub orphan: Option<Arc<OwnedFd>>,
    /// The inode that has its names now, because it was passed through from a lower layer when somebody wanted to write.
    pub now: Option<Arc<Inode>>,
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

/// What an inode without anything rare has of it.
static NOTHING: Rare = Rare::NOTHING;

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

/// Names. One takes no more room than a `Name`.
#[derive(Debug, Default)]
pub enum Names {
    /// None.
    #[default]
    None,
    /// One.
    One(Name),
    /// Two or more.
    Many(Vec<Name>),
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

/// Where a non-directory is, or was before copy-up, in a lower layer.
#[derive(Debug, Clone, Copy)]
pub struct Lower<'a> {
    /// The directory that has it.
    pub dir: &'a Arc<RealDir>,
    /// Its name there.
    pub name: &'a OsStr,
    /// Its inode number there.
    pub ino: u64,
    /// Its number of names there.
    pub nlink: u32,
}

/// How an inode is open. The kernel lets an inode be open cached or passed through, never both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opens {
    /// Open files whose bytes come through the daemon.
    pub cached: u32,
    /// Open files whose bytes the kernel takes from the backing file.
    pub passthrough: u32,
    /// Those of either kind that may write.
    pub writers: u32,
    /// Those whose writer may not keep set-id bits.
    pub plain_writers: u32,
    /// The passed-through file writes with the right to keep set-id bits.
    pub keeps_set_id: bool,
    /// The passed-through file is in a lower layer, beneath an upper one.
    pub below: bool,
}

impl Opens {
    const NONE: Opens =
        Opens { cached: 0, passthrough: 0, writers: 0, plain_writers: 0, keeps_set_id: false, below: false };

    /// Whether nobody has it open.
    pub fn is_none(&self) -> bool {
        self.cached + self.passthrough == 0
    }
}

impl Rare {
    const NOTHING: Rare = Rare {
        data: None,
        index: None,
        nlink: None,
        sign: 0,
        orphan: None,
        now: None,
        opens: Opens::NONE,
        listing: None,
        open_dirs: 0,
        points: None,
        above: None,
        beside: None,
    };

    fn is_nothing(&self) -> bool {
        let Rare { data, index, nlink, sign, orphan, now, opens, listing, open_dirs, points, above, beside } =
            self;
        let of_files = data.is_none() && index.is_none() && nlink.is_none() && *sign == 0 && orphan.is_none();
        let of_dirs = listing.is_none() && points.is_none() && above.is_none() && beside.is_none();
        of_files && now.is_none() && of_dirs && opens.is_none() && *open_dirs == 0
    }
}

impl State {
    /// What few inodes have; as it is where there is nothing of it.
    pub fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING)
    }

    /// The same to be changed: the inode has one from now on. To take something away `rare_if_any` is enough.
    pub fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(Rare::NOTHING))
    }

    /// The same, if there is anything of it.
    pub fn rare_if_any(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    /// Gives the room for rare things back if there is none any more.
    pub fn tidy(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| rare.is_nothing()) {
            self.rare = None;
        }
    }

    /// Whether the data is in the upper layer.
    pub fn has_upper_data(&self) -> bool {
        self.upper_ino != 0 && self.rare().data.is_none()
    }

    /// Where a non-directory is, or was before copy-up, in a lower layer.
    pub fn lower(&self) -> Option<Lower<'_>> {
        let dir = self.lower_dir.as_ref()?;
        let own = self.lower_name.as_ref().map(|name| &***name);
        // A name that goes leaves its letters here (`remove_name_at`), so one of the two is there.
        let name = own.or(self.names.first().map(|first| &*first.name)).unwrap_or_default();
        Some(Lower { dir, name, ino: self.lower_ino, nlink: self.lower_nlink })
    }

    /// The way to the data in a lower layer, whatever is in the upper one. Errors: `Stale` if there is none.
    pub fn locate_below(&self) -> Result<Located> {
        match &self.rare().data {
            Some(data) => data.locate(),
            None => self.lower().ok_or(Error::Stale)?.locate(),
        }
    }

    /// Says where it is in a lower layer.
    pub fn set_lower(&mut self, lower: LowerFile) {
        self.lower_dir = lower.dir;
        self.lower_ino = lower.ino;
        self.lower_nlink = lower.nlink;
        let same = self.names.first().is_some_and(|first| first.name == lower.name);
        self.lower_name = (!same).then(|| Box::new(lower.name));
    }

    /// Adds a name that it does not have.
    pub fn push_name(&mut self, parent: &Arc<Inode>, name: &OsStr, in_upper: bool) {
        let lower_name = if self.names.is_empty() { self.lower_name.take() } else { None };
        let name = match lower_name {
            Some(same) if **same == *name => *same,
            other => {
                self.lower_name = self.lower_name.take().or(other);
                name.into()
            }
        };
        self.names.push(Name { parent: parent.clone(), name, in_upper });
    }

    /// Takes the name at this place in `names` away; the last one comes to its place.
    pub fn remove_name_at(&mut self, at: usize) {
        let gone = self.names.remove(at);
        if at == 0 && self.lower_dir.is_some() && self.lower_name.is_none() {
            self.lower_name = gone.map(|gone| Box::new(gone.name));
        }
    }

    /// Whether it is known under this name.
    pub fn has_name(&self, parent: &Inode, name: &OsStr) -> bool {
        self.name(parent, name).is_some()
    }

    /// Where this name is in `names`.
    pub fn position(&self, parent: &Inode, name: &OsStr) -> Option<usize> {
        self.names.iter().position(|known| known.is(parent, name))
    }

    /// What is known of `name` in `parent`.
    pub fn name(&self, parent: &Inode, name: &OsStr) -> Option<&Name> {
        self.names.iter().find(|known| known.is(parent, name))
    }

    /// As `name`, to be changed.
    pub fn name_mut(&mut self, parent: &Inode, name: &OsStr) -> Option<&mut Name> {
        self.names.iter_mut().find(|known| known.is(parent, name))
    }
}

impl Name {
    /// Whether it is `name` in `parent`.
    fn is(&self, parent: &Inode, name: &OsStr) -> bool {
        std::ptr::eq(&*self.parent, parent) && &*self.name == name
    }
}

impl Names {
    fn push(&mut self, name: Name) {
        *self = match std::mem::take(self) {
            Names::None => Names::One(name),
            Names::One(first) => Names::Many(vec![first, name]),
            Names::Many(mut all) => {
                all.push(name);
                Names::Many(all)
            }
        };
    }

    fn remove(&mut self, at: usize) -> Option<Name> {
        match self {
            Names::None => None,
            Names::One(_) => std::mem::take(self).into_iter().next(),
            Names::Many(all) => {
                let gone = all.swap_remove(at);
                if all.len() == 1 {
                    *self = all.pop().map_or(Names::None, Names::One);
                }
                Some(gone)
            }
        }
    }
}

impl std::ops::Deref for Names {
    type Target = [Name];
    fn deref(&self) -> &[Name] {
        match self {
            Names::None => &[],
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        }
    }
}

impl std::ops::DerefMut for Names {
    fn deref_mut(&mut self) -> &mut [Name] {
        match self {
            Names::None => &mut [],
            Names::One(name) => std::slice::from_mut(name),
            Names::Many(names) => names,
        }
    }
}

impl IntoIterator for Names {
    type Item = Name;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Name>, std::vec::IntoIter<Name>>;
    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            Names::None => (None, Vec::new()),
            Names::One(name) => (Some(name), Vec::new()),
            Names::Many(names) => (None, names),
        };
        one.into_iter().chain(many)
    }
}

impl Extend<Name> for Names {
    fn extend<I: IntoIterator<Item = Name>>(&mut self, names: I) {
        names.into_iter().for_each(|name| self.push(name));
    }
}

impl Lower<'_> {
    /// The way to it.
    pub fn locate(&self) -> Result<Located> {
        Ok(Located::Named(self.dir.fd().call("openat2")?, self.name.into()))
    }

    /// The same, on its own.
    pub fn to_file(self) -> LowerFile {
        LowerFile { dir: Some(self.dir.clone()), name: self.name.into(), ino: self.ino, nlink: self.nlink }
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
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
