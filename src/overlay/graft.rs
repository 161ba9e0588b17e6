//! Attaching other trees inside the merged one, and taking them away. An attached tree is a stack like the root's; what
//! is known here is only under which name of which directory it shows.
//!
//! A name that leads to a graft is a *point* of its directory (`inode::points`): lookup and listing ask there first,
//! removal and renaming refuse there. The directories above a graft are held, so that they stay the same inodes.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Overlay;
use super::attr::{Attr, Lifetime};
use super::lookup::Entry;
use crate::config::Config;
use crate::copy_up::synthetic;
use crate::error::{Context, Error, Result};
use crate::graft::Spec;
use crate::inode::node::State;
use crate::inode::{Inode, InodeRef, Node, Point, Points, Root};
use crate::layer::Shared;
use crate::merge::listing::FileKind;
use crate::sys::name;
use crate::sys::stat::{Stat, Timestamp};

/// So many symlinks on the way to a target are too many. Source: path_resolution(7).
const MAX_LINKS: usize = 40;

/// What is attached in a mount.
#[derive(Debug)]
pub struct Grafts {
    /// What the stacks of the mount have in common.
    pub(super) shared: Shared,
    /// The mount's own choices, which copy-on-write grafts inherit.
    pub(super) config: Config,
    /// When the mount was made: what directories that nobody made show as their times.
    born: Timestamp,
    /// In the order in which they were attached. Held across attaching and detaching: one at a time.
    table: Mutex<Vec<Attached>>,
}

/// One attached tree.
#[derive(Debug)]
struct Attached {
    spec: Spec,
    /// The directory it is attached in, and the name there.
    parent: Arc<Inode>,
    name: Box<OsStr>,
    source: Source,
}

/// An opened source, and what must be kept as long as it is attached.
#[derive(Debug)]
pub(super) struct Source {
    pub root: Root,
    /// A directory made for this graft, a volume in use.
    pub _keep: Option<Box<dyn std::any::Any + Send + Sync>>,
}

/// Where a target is.
struct Way<'a> {
    /// The directories from the root to the last that is there, without the root; the target itself if it is there.
    there: Vec<(Box<OsStr>, InodeRef<'a>)>,
    /// What is not there.
    missing: Vec<Box<OsStr>>,
}

impl Grafts {
    /// Nothing attached yet.
    pub fn new(shared: Shared, config: &Config) -> Grafts {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let born =
            Timestamp { secs: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanos: now.subsec_nanos() };
        Grafts { shared, config: config.clone(), born, table: Mutex::default() }
    }
}

impl Overlay {
    /// Attaches what `spec` says. Errors: `Setup` naming the target or the source and the remedy; nothing has changed then.
    pub fn attach(&self, spec: &Spec) -> Result<()> {
        let mut table = self.grafts.table.lock();
        let way = self.way_to(&spec.target)?;
        let there = way.missing.is_empty().then(|| way.there.last().map(|(_, inode)| &**inode)).flatten();
        let source = self.open_source(spec, there)?;
        let attached = self.fit(spec, way, source)?;
        table.push(attached);
        Ok(())
    }

    /// What is attached, in the order in which it was.
    pub fn attached(&self) -> Vec<Spec> {
        self.grafts.table.lock().iter().map(|attached| attached.spec.clone()).collect()
    }

    /// Puts an opened source under its name.
    fn fit(&self, spec: &Spec, mut way: Way<'_>, source: Source) -> Result<Attached> {
        let target = &spec.target;
        let refused = |what: String| Err(Error::Setup(format!("graft at {target:?}: {what}")));
        let covered = if way.missing.is_empty() { way.there.pop() } else { None };
        let name = match (&covered, way.missing.pop()) {
            (Some((name, _)), None) => name.clone(),
            (None, Some(name)) => name,
            _ => return refused("it leads to the root of the mount: name a path inside".to_owned()),
        };
        let is_dir = source.root.kind() == FileKind::Dir;
        if let Some((_, inode)) = &covered {
            match (is_dir, inode.is_dir()) {
                (true, false) => {
                    return refused(
                        "the source is a directory and the target is not: name another target".to_owned(),
                    );
                }
                (false, true) => {
                    return refused(
                        "the target is a directory and the source is not: name a file in it".to_owned(),
                    );
                }
                _ => {}
            }
        }
        let mut parent = self.inode(crate::inode::Ino::ROOT)?;
        for (name, inode) in &way.there {
            if parent.point(name).is_none() {
                self.store.hold(inode);
                set_point(&parent, name, Some(Point::Way((**inode).clone())));
            }
            parent = (**inode).clone();
        }
        if matches!(parent.point(&name), Some(Point::Graft(_))) {
            return refused("Duplicate mount point: something is attached there already".to_owned());
        }
        for name in &way.missing {
            let made = self.synthetic(&parent, name)?;
            set_point(&parent, name, Some(Point::Synthetic(made.clone())));
            parent = made;
        }
        source.root.inode().state.write().above = Some(parent.clone());
        set_point(&parent, &name, Some(Point::Graft(source.root.clone())));
        self.names_changed(&parent, &name);
        Ok(Attached { spec: spec.clone(), parent, name, source })
    }

    /// A directory that no layer has, held.
    fn synthetic(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Arc<Inode>> {
        let ino = self.store.count();
        let node = Node::Dir { upper: Default::default(), lowers: Default::default() };
        let inode = Inode::new(ino, ino.0, FileKind::Dir, parent.stack.clone(), node, State::default());
        let inode = self.hold_new(Arc::new(inode))?;
        self.add_name(&inode, &mut inode.state.write(), parent, name, false);
        Ok(inode)
    }

    /// Makes an inode known and keeps it so.
    pub(super) fn hold_new(&self, inode: Arc<Inode>) -> Result<Arc<Inode>> {
        match self.store.insert(inode) {
            Ok(inode) => Ok(inode.leak()),
            Err(_) => Err(Error::Bug("the number of a graft's root is taken")),
        }
    }

    /// Where `target` is in the merged tree; symlinks on the way are followed inside it.
    fn way_to(&self, target: &Path) -> Result<Way<'_>> {
        let mut there: Vec<(Box<OsStr>, InodeRef<'_>)> = Vec::new();
        let mut todo: VecDeque<OsString> = components(target);
        let mut links = 0;
        let refused = |what: &str| Error::Setup(format!("graft at {target:?}: {what}"));
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                there.pop();
                continue;
            }
            let dir = match there.last() {
                Some((_, inode)) => (**inode).clone(),
                None => self.inode(crate::inode::Ino::ROOT)?,
            };
            if !dir.is_dir() {
                return Err(refused("a component of the path is no directory: name another target"));
            }
            let found = {
                let _names = dir.names.read();
                self.lookup_locked(&dir, &name)
            };
            let found = found.map_err(|error| refused(&format!("{error}: name another target")))?;
            let Some(Entry { inode, .. }) = found else {
                let mut missing: Vec<Box<OsStr>> = vec![name.into()];
                for name in todo {
                    if name == ".." {
                        missing.pop();
                    } else {
                        missing.push(name.into());
                    }
                }
                return Ok(Way { there, missing });
            };
            if inode.kind != FileKind::Symlink {
                there.push((name.into(), inode));
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(refused("too many symlinks on the way: name the path without them"));
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

    /// What a graft shows at its path.
    pub(super) fn graft_entry(&self, root: &Root) -> Result<Entry<'_>> {
        match root {
            Root::Inode(inode) => self.entry_of(inode.ino),
            Root::Named { dir, name, .. } => self.found_locked(dir, name)?.ok_or(Error::NotFound),
        }
    }

    /// Others may have put another directory where one on the way to a graft was: the way leads on through the new one.
    pub(super) fn way_leads_on(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        was: &Arc<Inode>,
        found: Option<&Entry<'_>>,
    ) {
        let Some(found) = found.filter(|found| found.inode.is_dir() && !Arc::ptr_eq(&found.inode, was))
        else {
            return;
        };
        let points = was.state.write().points.take();
        for (_, point) in points.iter().flat_map(|points| points.iter()) {
            if let Point::Graft(root) = point {
                root.inode().state.write().above = Some((*found.inode).clone());
            }
        }
        found.inode.state.write().points = points;
        self.store.hold(&found.inode);
        set_point(parent, name, Some(Point::Way((*found.inode).clone())));
        self.forget(was.ino, 1);
    }

    /// What `stat` shows of a directory that no layer has.
    pub(super) fn synthetic_attr(&self, inode: &Inode) -> Attr {
        let born = self.grafts.born;
        let stat = Stat {
            kind: FileKind::Dir,
            mode: synthetic::MODE,
            ino: inode.st_ino,
            dev: 0,
            nlink: 2,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            rdev_major: 0,
            rdev_minor: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: born,
            mtime: born,
            ctime: born,
        };
        Attr { ino: inode.ino, stat, lifetime: Lifetime::None }
    }

    /// Tells the kernel, and the directory's listing, that `name` may be something else now.
    fn names_changed(&self, parent: &Arc<Inode>, name: &OsStr) {
        parent.state.write().listing = None;
        if let Some(changed) = self.name_changed.get() {
            (changed.0)(parent.ino, name);
        }
    }
}

/// Says what `name` in `dir` has to do with grafts.
fn set_point(dir: &Inode, name: &OsStr, point: Option<Point>) {
    let mut state = dir.state.write();
    let points = state.points.as_deref().cloned().unwrap_or_default();
    let points: Points = match point {
        Some(point) => points.with(name, point),
        None => points.without(name),
    };
    state.points = (!points.is_empty()).then(|| Arc::new(points));
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
