//! Attaching other trees inside the merged one, and taking them away. An attached tree is a stack like the root's; what
//! is known here is only under which name of which directory it shows.
//!
//! A name that leads to a graft is a *point* of its directory (`inode::points`): lookup and listing ask there first,
//! removal and renaming refuse there. The directories above a graft are held, so that they stay the same inodes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Overlay;
use super::attr::{Attr, Lifetime};
use super::lookup::Entry;
use super::way::{Place, refused};
use crate::config::Config;
use crate::copy_up::synthetic;
use crate::error::{Error, Result};
use crate::graft::Spec;
use crate::inode::node::State;
use crate::inode::{Ino, Inode, Node, Point, Points, Root};
use crate::layer::{Shared, Stack};
use crate::merge::listing::FileKind;
use crate::sys::stat::Stat;
use crate::sys::{mount, process};

/// What is attached in a mount.
#[derive(Debug)]
pub struct Grafts {
    /// What the stacks of the mount have in common.
    pub(super) shared: Shared,
    /// The mount's own choices, which copy-on-write grafts inherit.
    pub(super) config: Config,
    /// The mount is up: what was made for it stays when it ends.
    pub(super) up: Arc<AtomicBool>,
    /// Held while a way to a graft is led through another directory. Nothing is asked of a source under it.
    pub(super) leading: Mutex<()>,
    /// In the order in which they were attached. Held across attaching and detaching: one at a time.
    table: Mutex<Vec<Attached>>,
}

/// One attached tree.
#[derive(Debug)]
struct Attached {
    spec: Spec,
    /// The directory it was attached in, and the name there.
    parent: Arc<Inode>,
    name: Box<OsStr>,
    root: Root,
}

impl Attached {
    /// The directory it is attached in now: others may have put another one on the way.
    fn above(&self) -> Arc<Inode> {
        self.root.inode().state.read().above.clone().unwrap_or_else(|| self.parent.clone())
    }
}

impl Grafts {
    /// Nothing attached yet.
    pub fn new(shared: Shared, config: &Config) -> Grafts {
        Grafts {
            shared,
            config: config.clone(),
            up: Arc::default(),
            leading: Mutex::default(),
            table: Mutex::default(),
        }
    }
}

impl Overlay {
    /// Attaches what `spec` says. Errors: `Setup` naming the target or the source and the remedy; nothing has changed then.
    pub fn attach(&self, spec: &Spec) -> Result<()> {
        let mut table = self.grafts.table.lock();
        let place = self.place_for(&spec.target)?;
        if matches!(place.shows(), Some(Point::Graft(_))) {
            return Err(refused(
                &spec.target,
                "Duplicate mount point: something is attached there already; remove or replace it",
            ));
        }
        let (spec, root) = self.open_source(spec, place.covered.as_deref())?;
        if let Err(error) = fits(&spec, &place, &root).and_then(|()| self.take_changes(&spec)) {
            self.forget(root.inode().ino, 1);
            return Err(error);
        }
        table.push(self.put(spec, place, root)?);
        Ok(())
    }

    /// Takes away what is attached at `target`. What is open stays usable; without `lazy` nothing may be.
    /// Errors: `Setup` for nothing attached there, something inside it, or something in use.
    pub fn detach(&self, target: &Path, lazy: bool) -> Result<()> {
        let mut table = self.grafts.table.lock();
        let at = position(&table, target)?;
        let stack = table[at].root.inode().stack.clone();
        if !lazy {
            let inside = |attached: &&Attached| Arc::ptr_eq(&attached.parent.stack, &stack);
            if let Some(inner) = table.iter().find(inside) {
                let inner = &inner.spec.target;
                let why =
                    format!("it is busy: {inner:?} is attached inside; remove that first, or use --lazy");
                return Err(refused(target, &why));
            }
            self.check_unused(target, &stack)?;
        }
        let mut going = vec![table.remove(at)];
        // With a tree goes what is attached in it, and in that.
        while let Some(gone) = going.pop() {
            let stack = gone.root.inode().stack.clone();
            self.take_away(gone);
            let inside = |attached: &Attached| Arc::ptr_eq(&attached.parent.stack, &stack);
            let (inner, others) = std::mem::take(&mut *table).into_iter().partition(inside);
            *table = others;
            going.extend::<Vec<Attached>>(inner);
        }
        Ok(())
    }

    /// Puts what `spec` says in the place of what is attached at its target, in one step: whoever looks sees the one or
    /// the other. Errors: as `attach` and `detach`; then the old one is still there.
    pub fn replace(&self, spec: &Spec, lazy: bool) -> Result<()> {
        let mut table = self.grafts.table.lock();
        let at = position(&table, &spec.target)?;
        let old = &mut table[at];
        if !lazy {
            self.check_unused(&spec.target, &old.root.inode().stack)?;
        }
        let covered = self.in_layers(&spec.target)?;
        let (spec, root) = self.open_source(spec, covered.as_deref())?;
        if (root.kind() == FileKind::Dir) != (old.root.kind() == FileKind::Dir) {
            self.forget(root.inode().ino, 1);
            let why = "a file and a directory cannot take each other's place: remove the old one first";
            return Err(refused(&spec.target, why));
        }
        if let Err(error) = self.take_changes(&spec) {
            self.forget(root.inode().ino, 1);
            return Err(error);
        }
        self.set_beside(&spec, covered.as_deref(), &root);
        let parent = {
            let _one = self.grafts.leading.lock();
            let parent = old.above();
            root.inode().state.write().above = Some(parent.clone());
            set_point(&parent, &old.name, Some(Point::Graft(root.clone())));
            parent
        };
        self.names_changed(&parent, &old.name);
        let gone = std::mem::replace(&mut old.root, root);
        old.spec = spec;
        self.let_go(&gone);
        Ok(())
    }

    /// Whether a change is possible anywhere: in the layers, or in something that is attached.
    pub fn is_writable(&self) -> bool {
        self.stack.is_writable() || self.grafts.table.lock().iter().any(|attached| !attached.spec.read_only)
    }

    /// Without an upper layer the kernel refuses every change by itself, until something is attached that takes changes.
    /// Errors: `Setup` where the daemon may not tell the kernel.
    fn take_changes(&self, spec: &Spec) -> Result<()> {
        let config = &self.grafts.config;
        if !self.grafts.up.load(Ordering::Relaxed) || spec.read_only || config.mount.read_only {
            return Ok(());
        }
        let writable = self.stack.is_writable();
        if writable { Ok(()) } else { mount::make_writable(&config.mountpoint) }.map_err(|errno| {
            let why = format!(
                "the mount is read-only and cannot be made writable ({}): attach it with `ro`",
                errno.desc()
            );
            refused(&spec.target, &why)
        })
    }

    /// Says that the mount is up: volumes that were made for it stay from now on, whatever comes.
    pub fn set_up(&self) {
        self.grafts.up.store(true, Ordering::Relaxed);
    }

    /// What is attached, in the order in which it was.
    pub fn attached(&self) -> Vec<Spec> {
        self.grafts.table.lock().iter().map(|attached| attached.spec.clone()).collect()
    }

    /// Errors: `Setup` if a file or directory of `stack` is open, or a process stands in it.
    fn check_unused(&self, target: &Path, stack: &Arc<Stack>) -> Result<()> {
        let mut numbers = HashSet::new();
        let mut open = false;
        self.store.each(|inode| {
            if Arc::ptr_eq(&inode.stack, stack) {
                let state = inode.state.read();
                open |= state.opens.cached + state.opens.passthrough + state.open_dirs > 0;
                numbers.insert(inode.st_ino);
            }
        });
        if open {
            return Err(refused(target, "it is busy: something in it is open; close it, or use --lazy"));
        }
        match process::standing_in(&self.grafts.config.mountpoint, |ino| numbers.contains(&ino)) {
            Some(pid) => Err(refused(
                target,
                &format!("it is busy: process {pid} stands in it; end it, or use --lazy"),
            )),
            None => Ok(()),
        }
    }

    /// Puts an opened source into its place, from below: what is on the way shows last, and all at once.
    fn put(&self, spec: Spec, place: Place<'_>, root: Root) -> Result<Attached> {
        self.set_beside(&spec, place.covered.as_deref(), &root);
        let Place { way, parent: top, name, .. } = place;
        let mut parent = top.clone();
        let mut made = Vec::new();
        for name in way.missing {
            let dir = self.synthetic(&parent, &name)?;
            made.push((std::mem::replace(&mut parent, dir.clone()), name, dir));
        }
        let mut above = self.inode(Ino::ROOT)?;
        for (name, inode) in &way.there {
            if above.point(name).is_none() {
                self.store.hold(inode);
                set_point(&above, name, Some(Point::Way((**inode).clone())));
            }
            above = (**inode).clone();
        }
        root.inode().state.write().above = Some(parent.clone());
        set_point(&parent, &name, Some(Point::Graft(root.clone())));
        let topmost = made.first().map_or_else(|| name.clone(), |(_, name, _)| name.clone());
        for (above, name, dir) in made.into_iter().rev() {
            set_point(&above, &name, Some(Point::Synthetic(dir)));
        }
        self.names_changed(&top, &topmost);
        Ok(Attached { spec, parent, name, root })
    }

    /// Removes an attached tree and what led to it alone.
    fn take_away(&self, gone: Attached) {
        let mut dir = {
            let _one = self.grafts.leading.lock();
            let parent = gone.above();
            set_point(&parent, &gone.name, None);
            parent
        };
        self.names_changed(&dir, &gone.name);
        self.let_go(&gone.root);
        while dir.state.read().points.is_none() {
            let Some(place) = dir.dir_name() else { break };
            let held = {
                let _one = self.grafts.leading.lock();
                let Some(Point::Way(held) | Point::Synthetic(held)) = place.parent.point(&place.name) else {
                    break;
                };
                set_point(&place.parent, &place.name, None);
                held
            };
            if matches!(&held.node, Node::Dir { lowers, .. } if lowers.is_empty()) {
                self.names_changed(&place.parent, &place.name);
            }
            self.forget(held.ino, 1);
            dir = place.parent;
        }
    }

    fn let_go(&self, root: &Root) {
        self.end_beside(root);
        root.inode().state.write().above = None;
        self.forget(root.inode().ino, 1);
    }

    /// A directory that no layer has, held.
    pub(super) fn synthetic(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Arc<Inode>> {
        let ino = self.store.count();
        let node = Node::dir(Default::default(), Default::default());
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

    /// What a graft shows at its path in `parent`.
    pub(super) fn graft_entry(&self, parent: &Inode, root: &Root) -> Result<Entry<'_>> {
        match root {
            Root::Inode(inode) => self.entry_of(parent, inode.ino),
            Root::Named { dir, name, .. } => self.found_locked(dir, name)?.ok_or(Error::NotFound),
        }
    }

    /// What `stat` shows of a directory that no layer has: the daemon's, with the times of the nearest directory above that
    /// there is, so that they are the same in the next mount.
    pub(super) fn synthetic_attr(&self, inode: &Arc<Inode>) -> Result<Attr> {
        let mut above = inode.clone();
        while above.is_synthetic() {
            above = above.dir_name().ok_or(Error::Stale)?.parent;
        }
        let times = self.attr_of(&above)?.stat;
        let stat = Stat {
            mode: synthetic::MODE,
            ino: inode.st_ino,
            nlink: 2,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            size: 0,
            blocks: 0,
            ..times
        };
        Ok(Attr { ino: inode.ino, stat, lifetime: Lifetime::None })
    }

    /// Tells the kernel, and the directory's listing, that `name` may be something else now.
    fn names_changed(&self, parent: &Arc<Inode>, name: &OsStr) {
        parent.state.write().listing = None;
        if let Some(changed) = self.name_changed.get() {
            (changed.0)(parent.ino, name);
        }
    }
}

impl Drop for Overlay {
    /// Attached trees, the directories they are attached in and those on the way know each other; what they keep goes only
    /// when they do not.
    fn drop(&mut self) {
        self.grafts.table.get_mut().clear();
        self.store.each(|inode| {
            let mut state = inode.state.write();
            let known = (state.above.take(), state.beside.take(), state.points.take());
            drop(state);
            drop(known);
        });
    }
}

/// Errors: `Setup` for a file on a directory or a directory on a file.
fn fits(spec: &Spec, place: &Place<'_>, root: &Root) -> Result<()> {
    let Some(covered) = &place.covered else { return Ok(()) };
    match (root.kind() == FileKind::Dir, covered.is_dir()) {
        (true, false) => Err(refused(
            &spec.target,
            "not a directory: the source is a directory and the target is a file; name another target",
        )),
        (false, true) => Err(refused(
            &spec.target,
            "is a directory: the target is a directory and the source is a file; name a file in it",
        )),
        _ => Ok(()),
    }
}

fn position(table: &[Attached], target: &Path) -> Result<usize> {
    let found = table.iter().position(|attached| attached.spec.target == target);
    found.ok_or_else(|| refused(target, "nothing is attached there: `stratafs graft ls` lists what is"))
}

/// Says what `name` in `dir` has to do with grafts.
pub(super) fn set_point(dir: &Inode, name: &OsStr, point: Option<Point>) {
    let mut state = dir.state.write();
    let points = state.points.as_deref().cloned().unwrap_or_default();
    let points: Points = match point {
        Some(point) => points.with(name, point),
        None => points.without(name),
    };
    state.points = (!points.is_empty()).then(|| Arc::new(points));
}
