//! Attaching other trees inside the merged one, and taking them away. An attached tree is a stack like the root's; what
//! is known here is only under which name of which directory it shows.
//!
//! A name that leads to a graft is a *point* of its directory (`inode::points`): lookup and listing ask there first,
//! removal and renaming refuse there. The directories above a graft are held, so that they stay the same inodes.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::attr::{Attr, Lifetime};
use super::lookup::Entry;
use super::point::Gone;
use super::table::Attached;
use super::way::{Place, refused};
use super::{Overlay, in_volume};
use crate::copy_up::synthetic;
use crate::error::{Error, Result};
use crate::graft::{Create, Source, Spec};
use crate::inode::State;
use crate::inode::{Ino, Inode, Node, Point, Points, Root};
use crate::layer::{Stack, Upper};
use crate::merge::listing::FileKind;
use crate::sys::mount;
use crate::sys::stat::Stat;

/// How often a place is looked for that others move about.
const TRIES: usize = 100;
/// How long the kernel may take to forget a tree that is used no more.
const LINGER: Duration = Duration::from_secs(1);

/// A source that was opened, and is not attached yet: dropped, it is let go.
struct Opened<'a> {
    overlay: &'a Overlay,
    spec: Spec,
    root: Option<Root>,
}

impl Opened<'_> {
    #[expect(clippy::unreachable, reason = "whoever takes the root out ends the value")]
    fn root(&self) -> &Root {
        match &self.root {
            Some(root) => root,
            None => unreachable!("only `placed` and `drop` take the root out, and both end the value"),
        }
    }

    /// It is attached now.
    fn placed(mut self) -> (Spec, Root) {
        let root = self.root().clone();
        self.root = None;
        in_volume::keep(&root.inode().stack);
        (self.spec.clone(), root)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if let Some(root) = self.root.take() {
            self.overlay.let_go(&root);
        }
    }
}

impl Overlay {
    /// Attaches what `spec` says. Errors: `Setup` naming the target or the source and the remedy; nothing has changed then.
    pub fn attach(&self, spec: &Spec) -> Result<()> {
        let _turn = self.grafts.reserve(&spec.target)?;
        let opened = {
            let place = self.place_for(&spec.target)?;
            is_free(spec, &place)?;
            makes_what_fits(spec, place.covered.as_deref())?;
            let opened = self.opened_source(spec, place.covered.as_deref())?;
            fits(spec, &place, opened.root())?;
            opened
        };
        self.take_changes(spec)?;
        for _ in 0..TRIES {
            // Found again: opening the source may have taken long, and the tree is in use.
            let place = self.place_for(&spec.target)?;
            is_free(spec, &place)?;
            fits(spec, &place, opened.root())?;
            let changing = self.grafts.changing.lock();
            let Some(put) = self.put(spec, &place, opened.root())? else { continue };
            let parent = put.parent;
            let (spec, root) = opened.placed();
            self.grafts.table.lock().attached.push(Attached { spec, parent, name: place.name.clone(), root });
            drop(changing);
            // Whoever works in the directory waits for an answer, perhaps for one that needs the locks above.
            self.tell_kernel(&put.changed);
            return Ok(());
        }
        Err(refused(
            &spec.target,
            "the directories on the way are being moved about: try again when they rest",
        ))
    }

    /// Takes away what is attached at `target`, and what is attached inside it. What is open stays usable; without `lazy`
    /// nothing may be, and nothing attached inside.
    /// Errors: `Setup` for nothing attached there, something inside it, or something in use.
    pub fn detach(&self, target: &Path, lazy: bool) -> Result<()> {
        let _turn = self.grafts.reserve(target)?;
        let stack = self.grafts.stack_at(target)?;
        if !lazy {
            self.check_unused(target, &stack)?;
        }
        let gone = {
            let _changing = self.grafts.changing.lock();
            let going = self.grafts.remove(target, lazy)?;
            going.iter().map(|attached| self.take_away(attached)).collect::<Vec<_>>()
        };
        self.let_all_go(gone);
        if !lazy {
            wait_until_gone(&Arc::downgrade(&stack), stack);
        }
        Ok(())
    }

    /// Puts what `spec` says in the place of what is attached at its target, in one step: whoever looks sees the one or
    /// the other. What is attached inside the old one goes with it. Errors: as `attach` and `detach`; then the old one is
    /// still there.
    pub fn replace(&self, spec: &Spec, lazy: bool) -> Result<()> {
        let target = &spec.target;
        let _turn = self.grafts.reserve(target)?;
        let stack = self.grafts.stack_at(target)?;
        if !lazy {
            self.check_unused(target, &stack)?;
        }
        let covered = self.in_layers(target)?;
        let opened = self.opened_source(spec, covered.as_deref())?;
        let is_dir = self.grafts.with(target, |old| old.root.kind() == FileKind::Dir)?;
        if (opened.root().kind() == FileKind::Dir) != is_dir {
            let why = "a file and a directory cannot take each other's place: remove the old one first";
            return Err(refused(target, why));
        }
        self.take_changes(spec)?;
        let gone = {
            let _changing = self.grafts.changing.lock();
            let inside = self.grafts.remove_inside(target, &stack, lazy)?;
            self.set_beside(spec, covered.as_deref(), opened.root());
            let (spec, root) = opened.placed();
            let mut gone: Vec<Gone> = inside.iter().map(|attached| self.take_away(attached)).collect();
            let old = self.grafts.with(target, |old| {
                old.spec = spec;
                let was = std::mem::replace(&mut old.root, root.clone());
                (was, old.name.clone())
            })?;
            gone.push(self.exchange(old, root));
            gone
        };
        self.let_all_go(gone);
        Ok(())
    }

    /// Whether a change is possible anywhere: in the layers, or in something that is attached.
    pub fn is_writable(&self) -> bool {
        self.stack.is_writable()
            || self.grafts.table.lock().attached.iter().any(|attached| !attached.spec.read_only)
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

    /// Leaves the upper layer and the workdir to another mount.
    ///
    /// # Errors
    ///
    /// `Setup` where the kernel may have written pages that did not reach the upper layer, or there is none.
    pub fn give_up(&self) -> Result<()> {
        if self.settings.writeback {
            return Err(Error::Setup("with `writeback=on` the kernel may keep what was written".to_owned()));
        }
        let upper = self.stack.upper.as_ref().filter(|upper| !upper.is_read_only());
        upper.ok_or_else(|| Error::Setup("the mount writes to no upper layer".to_owned()))?.give_up();
        Ok(())
    }

    /// Whether the upper layer is another mount's.
    pub fn has_given_up(&self) -> bool {
        self.stack.upper.as_ref().is_some_and(Upper::is_given_up)
    }

    /// Says that the mount is up: volumes that were made for it stay from now on, whatever comes.
    pub fn set_up(&self) {
        self.grafts.up.store(true, Ordering::Relaxed);
    }

    /// The mount is gone: what was made for it goes, though somebody may still wait for a source, and keep its tree in use.
    pub fn end(&self) {
        let stacks: Vec<_> = {
            let table = self.grafts.table.lock();
            table.attached.iter().map(|attached| attached.root.inode().stack.clone()).collect()
        };
        for stack in stacks {
            let kept = stack.keep.lock().take();
            drop(kept);
        }
        for file in self.handles.files().iter().filter(|file| file.inode.stack.may_hang) {
            // Closing it may wait for its filesystem. The end of the process does it, when all that others wait for is done.
            std::mem::forget(file.fd.write().take());
        }
    }

    /// What is attached, in the order in which it was.
    pub fn attached(&self) -> Vec<Spec> {
        self.grafts.table.lock().attached.iter().map(|attached| attached.spec.clone()).collect()
    }

    /// Opens the source of `spec`, which is to cover `covered`.
    fn opened_source(&self, spec: &Spec, covered: Option<&Arc<Inode>>) -> Result<Opened<'_>> {
        let (spec, root) = self.open_source(spec, covered)?;
        Ok(Opened { overlay: self, spec, root: Some(root) })
    }

    pub(super) fn let_go(&self, root: &Root) {
        self.end_beside(root);
        if let Some(rare) = root.inode().state.write().rare_if_any() {
            rare.above = None;
        }
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
            // One that is gone has no place any more.
            above = match above.dir_name() {
                Some(place) => place.parent,
                None => self.inode(Ino::ROOT)?,
            };
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
        Ok(Attr { ino: inode.ino, generation: 0, stat, lifetime: Lifetime::None })
    }
}

impl Drop for Overlay {
    /// Attached trees, the directories they are attached in and those on the way know each other; what they keep goes only
    /// when they do not.
    fn drop(&mut self) {
        self.grafts.table.get_mut().attached.clear();
        self.store.each(|inode| {
            let mut state = inode.state.write();
            let known =
                state.rare_if_any().map(|rare| (rare.above.take(), rare.beside.take(), rare.points.take()));
            drop(state);
            drop(known);
        });
    }
}

/// Errors: `Setup` if something is attached at the place, or below it.
fn is_free(spec: &Spec, place: &Place<'_>) -> Result<()> {
    let why = match place.shows() {
        None => return Ok(()),
        Some(Point::Graft(_)) => {
            "Duplicate mount point: something is attached there already; remove or replace it"
        }
        Some(Point::Way(_) | Point::Synthetic(_)) => {
            "something is attached below it, and would be hidden: remove that first, and add both together"
        }
    };
    Err(refused(&spec.target, why))
}

/// Errors: `Setup` for a file on a directory or a directory on a file.
fn fits(spec: &Spec, place: &Place<'_>, root: &Root) -> Result<()> {
    place
        .covered
        .as_ref()
        .map_or(Ok(()), |covered| fits_on(spec, root.kind() == FileKind::Dir, covered.is_dir()))
}

/// As `fits`, for a source that will be made: not before it is known that it can be attached.
fn makes_what_fits(spec: &Spec, covered: Option<&Arc<Inode>>) -> Result<()> {
    match (&spec.source, covered) {
        (Source::Bind { path, create: Some(kind) }, Some(covered)) if !path.exists() => {
            fits_on(spec, *kind == Create::Dir, covered.is_dir())
        }
        _ => Ok(()),
    }
}

fn fits_on(spec: &Spec, is_dir: bool, covers_dir: bool) -> Result<()> {
    let why = match (is_dir, covers_dir) {
        (true, false) => {
            "not a directory: the source is a directory and the target is a file; name another target"
        }
        (false, true) => {
            "is a directory: the target is a directory and the source is a file; name a file in it"
        }
        _ => return Ok(()),
    };
    Err(refused(&spec.target, why))
}

/// Gives the kernel a while to forget a tree that nobody uses, so that its volume is free when the caller hears of it.
fn wait_until_gone(known: &Weak<Stack>, stack: Arc<Stack>) {
    drop(stack);
    let begun = Instant::now();
    while known.strong_count() > 0 && begun.elapsed() < LINGER {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Says what `name` in `dir` has to do with grafts.
pub(super) fn set_point(dir: &Inode, name: &OsStr, point: Option<Point>) {
    let mut state = dir.state.write();
    let points = state.rare().points.as_deref().cloned().unwrap_or_default();
    let points: Points = match point {
        Some(point) => points.with(name, point),
        None => points.without(name),
    };
    state.rare_mut().points = (!points.is_empty()).then(|| Arc::new(points));
}

#[cfg(test)]
#[path = "graft_tests.rs"]
mod tests;
