//! What a graft's target had before shows beside the source's names: under them, where the source has no such name, or
//! over them. Only the names of that one directory are united, as in Plan 9; new names are made in the source.

use std::ffi::OsStr;
use std::sync::Arc;

use super::Overlay;
use super::attr::Lifetime;
use super::lookup::Entry;
use crate::error::Result;
use crate::graft::{Shadow, Spec};
use crate::inode::listing::Entry as Listed;
use crate::inode::state::Beside;
use crate::inode::{Inode, Root};

impl Overlay {
    /// Lets the names of the directory that a graft covers show, if that was asked for. Held as long as they do.
    pub(super) fn set_beside(&self, spec: &Spec, covered: Option<&Arc<Inode>>, root: &Root) {
        let (Root::Inode(root), Some(covered)) = (root, covered) else { return };
        if spec.shadow == Shadow::Replace || !root.is_dir() || !covered.is_dir() {
            return;
        }
        self.store.hold(covered);
        let beside = Beside { dir: covered.clone(), over: spec.shadow == Shadow::Over };
        root.state.write().rare_mut().beside = Some(Box::new(beside));
    }

    /// The directory is shown no more; neither is what it covers.
    pub(super) fn end_beside(&self, root: &Root) {
        // Giving the hold back may look at other states: not under the lock of this one.
        let beside = root.inode().state.write().rare_if_any().and_then(|rare| rare.beside.take());
        if let Some(beside) = beside {
            self.forget(beside.dir.ino, 1);
        }
    }

    /// What shows under `name`, points aside. Locks: the parent's names, for reading at least.
    pub(super) fn united_locked(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<Entry<'_>>> {
        match beside(parent) {
            None => self.found_locked(parent, name),
            Some((dir, over)) => {
                let own = || self.found_locked(parent, name);
                let other = || {
                    let _names = dir.names().read_second();
                    let found = self.lookup_locked(&dir, name)?;
                    // Somebody may make the name in the source.
                    Ok(found.map(|entry| Entry { lifetime: Lifetime::of(&parent.stack), ..entry }))
                };
                match if over { other() } else { own() }? {
                    Some(found) => Ok(Some(found)),
                    None if over => own(),
                    None => other(),
                }
            }
        }
    }

    /// The directory in which `name` of `parent` really is: `parent`, but for names that show from beside.
    pub(super) fn holder(&self, parent: Arc<Inode>, name: &OsStr) -> Result<Arc<Inode>> {
        let Some((dir, over)) = beside(&parent) else { return Ok(parent) };
        let has = |dir: &Arc<Inode>| {
            let _names = dir.names().read();
            self.found_locked(dir, name).map(|found| found.is_some())
        };
        let from_beside = if over { has(&dir)? } else { !has(&parent)? && has(&dir)? };
        Ok(if from_beside { dir } else { parent })
    }

    /// Whether `name` shows in `parent` because of a directory beside it.
    pub(super) fn shows_from_beside(&self, parent: &Inode, name: &OsStr) -> Result<bool> {
        let Some((dir, _)) = beside(parent) else { return Ok(false) };
        let _names = dir.names().read();
        Ok(self.found_locked(&dir, name)?.is_some())
    }

    /// Adds the names that show from beside to a directory's own. Locks: the directory's names, for reading at least.
    pub(super) fn unite(&self, inode: &Arc<Inode>, listed: &mut Vec<Listed>) -> Result<()> {
        let Some((dir, over)) = beside(inode) else { return Ok(()) };
        let others = {
            let _names = dir.names().read_second();
            self.merged_names(&dir)?
        };
        let (mut first, second) =
            if over { (others, std::mem::take(listed)) } else { (std::mem::take(listed), others) };
        let known: std::collections::HashSet<Box<OsStr>> =
            first.iter().map(|entry| entry.name.clone()).collect();
        first.extend(second.into_iter().filter(|entry| !known.contains(&entry.name)));
        *listed = first;
        Ok(())
    }
}

fn beside(inode: &Inode) -> Option<(Arc<Inode>, bool)> {
    inode.state.read().rare().beside.as_ref().map(|beside| (beside.dir.clone(), beside.over))
}
