//! The table of what is attached in a mount, and whose turn it is to change it. Locks that are held for the table alone are held
//! for map operations: whoever lists what is attached never waits for a source.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::way::refused;
use crate::config::Config;
use crate::error::Result;
use crate::graft::Spec;
use crate::inode::{Inode, Root};
use crate::layer::{Shared, Stack};

/// What is attached in a mount.
#[derive(Debug)]
pub struct Grafts {
    /// What the stacks of the mount have in common.
    pub(super) shared: Shared,
    /// The mount's own choices, which copy-on-write grafts inherit.
    pub(super) config: Config,
    /// The mount is up: what was made for it stays when it ends.
    pub(super) up: Arc<AtomicBool>,
    /// Held while what is attached changes: one change at a time. Nothing is asked of a source under it, and the kernel is
    /// told nothing. Before level 2.
    pub(super) changing: Mutex<()>,
    /// Held while points are moved: between levels 2 and 4.
    pub(super) leading: Mutex<()>,
    /// Held for as long as it is read or written.
    pub(super) table: Mutex<Table>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// In the order in which they were attached.
    pub(super) attached: Vec<Attached>,
    /// Targets at which a change is under way.
    reserved: Vec<PathBuf>,
}

/// One attached tree.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) spec: Spec,
    /// The directory it was attached in, and the name there.
    pub(super) parent: Arc<Inode>,
    pub(super) name: Box<OsStr>,
    pub(super) root: Root,
}

impl Attached {
    /// The directory it is attached in now: others may have put another one on the way.
    pub(super) fn above(&self) -> Arc<Inode> {
        self.root.inode().state.read().rare().above.clone().unwrap_or_else(|| self.parent.clone())
    }
}

impl Grafts {
    /// Nothing attached yet.
    pub fn new(shared: Shared, config: &Config) -> Grafts {
        let (changing, leading, table) = (Mutex::default(), Mutex::default(), Mutex::default());
        Grafts { shared, config: config.clone(), up: Arc::default(), changing, leading, table }
    }

    /// The right to change what is attached at `target`, as long as the value lives. Sources are opened under it, and one that
    /// does not answer keeps nobody from other targets. Errors: `Setup` if somebody else has it.
    pub(super) fn reserve(&self, target: &Path) -> Result<Reserved<'_>> {
        let mut table = self.table.lock();
        if table.reserved.iter().any(|reserved| reserved == target) {
            return Err(refused(
                target,
                "it is being changed by somebody else already: wait for that, or stop it",
            ));
        }
        table.reserved.push(target.to_owned());
        Ok(Reserved { grafts: self, target: target.to_owned() })
    }

    /// Runs `look` on what is attached at `target`. Errors: `Setup` if nothing is.
    pub(super) fn with<T>(&self, target: &Path, look: impl FnOnce(&mut Attached) -> T) -> Result<T> {
        let mut table = self.table.lock();
        let at = table.position(target)?;
        table.attached.get_mut(at).map(look).ok_or(crate::error::Error::Bug("a position beyond the table"))
    }

    pub(super) fn stack_at(&self, target: &Path) -> Result<Arc<Stack>> {
        self.with(target, |attached| attached.root.inode().stack.clone())
    }

    /// All that is attached, with what shows of it.
    pub(super) fn all(&self) -> Vec<(Spec, Root)> {
        self.table.lock().attached.iter().map(|one| (one.spec.clone(), one.root.clone())).collect()
    }

    /// Takes what is attached at `target` off the table, and what is attached inside it, outermost first.
    /// Errors: `Setup` if nothing is attached there, or, unless `lazy`, something inside.
    pub(super) fn remove(&self, target: &Path, lazy: bool) -> Result<Vec<Attached>> {
        let stack = self.stack_at(target)?;
        let inside = self.remove_inside(target, &stack, lazy)?;
        let mut table = self.table.lock();
        let at = table.position(target)?;
        let mut going = vec![table.attached.remove(at)];
        going.extend(inside);
        Ok(going)
    }

    /// As `remove`, but what is attached at `target` itself, which is `stack`, stays.
    pub(super) fn remove_inside(
        &self,
        target: &Path,
        stack: &Arc<Stack>,
        lazy: bool,
    ) -> Result<Vec<Attached>> {
        let mut table = self.table.lock();
        let is_inside = |stack: &Arc<Stack>, attached: &Attached| Arc::ptr_eq(&attached.parent.stack, stack);
        if let (false, Some(inner)) =
            (lazy, table.attached.iter().find(|attached| is_inside(stack, attached)))
        {
            let inner = &inner.spec.target;
            let why = format!("it is busy: {inner:?} is attached inside; remove that first, or use --lazy");
            return Err(refused(target, &why));
        }
        let mut going: Vec<Attached> = Vec::new();
        let mut stacks = vec![stack.clone()];
        while let Some(stack) = stacks.pop() {
            let (inner, others): (Vec<_>, _) = std::mem::take(&mut table.attached)
                .into_iter()
                .partition(|attached| is_inside(&stack, attached));
            table.attached = others;
            stacks.extend(inner.iter().map(|attached| attached.root.inode().stack.clone()));
            going.extend(inner);
        }
        Ok(going)
    }
}

impl Table {
    fn position(&self, target: &Path) -> Result<usize> {
        let found = self.attached.iter().position(|attached| attached.spec.target == target);
        found.ok_or_else(|| refused(target, "nothing is attached there: `stratafs graft ls` lists what is"))
    }
}

/// The right to change what is attached at a target.
pub(super) struct Reserved<'a> {
    grafts: &'a Grafts,
    target: PathBuf,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.grafts.table.lock().reserved.retain(|reserved| *reserved != self.target);
    }
}
