//! What has to be in the upper layer before a rename.

use std::sync::Arc;

use super::Overlay;
use super::remove::is_counted_later;
use super::rename::{Place, RenameMode as Mode};
use crate::copy_up::Need;
use crate::error::{Error, Result};
use crate::inode::{Inode, InodeRef};

impl Overlay {
    /// Copies up what will move. Locks: none is held, since it may take long.
    pub(super) fn bring_up(&self, old: &Place<'_>, new: &Place<'_>, mode: Mode) -> Result<()> {
        self.copy_up.ensure(old.inode.as_ref().ok_or(Error::NotFound)?, Need::Metadata)?;
        self.copy_up.ensure(old.parent, Need::Metadata)?;
        self.copy_up.ensure(new.parent, Need::Metadata)?;
        match &new.inode {
            Some(target) if mode == Mode::Exchange => self.copy_up.ensure(target, Need::Metadata),
            Some(target) if !target.is_dir() => self.prepare_unlink(target),
            _ => Ok(()),
        }
    }

    /// Whether what `bring_up` would do copies so much that it should not keep a worker busy.
    pub(super) fn moving_copies_much(&self, old: &Place<'_>, new: &Place<'_>, mode: Mode) -> bool {
        let copied = |target: &&InodeRef<'_>| mode == Mode::Exchange || is_counted_later(target);
        let target = new.inode.as_ref().filter(copied);
        old.inode.iter().chain(target).any(|inode| self.metadata_copies_much(inode))
    }

    /// Copies up the data of what will move, where no mark could say that it is below. Locks: none is held, since it may take long.
    pub(super) fn bring_data_up(&self, old: &Place<'_>, new: &Place<'_>, mode: Mode) -> Result<()> {
        has_data_below(old, new, mode).try_for_each(|inode| self.copy_up.ensure(inode, Need::Data))
    }
}

/// Whether all that is to be in the upper layer before the move is there.
pub(super) fn is_up(old: &Place<'_>, new: &Place<'_>, mode: Mode) -> bool {
    let parents = old.parent.has_upper() && new.parent.has_upper();
    parents
        && old.inode.as_ref().is_some_and(|inode| inode.has_upper())
        && new.inode.as_ref().is_none_or(|target| match mode {
            Mode::Exchange => target.has_upper(),
            Mode::Replace | Mode::NoReplace => target.is_dir() || !is_counted_later(target),
        })
}

/// The files that would move while their data is below.
pub(super) fn has_data_below<'a>(
    old: &'a Place<'_>,
    new: &'a Place<'_>,
    mode: Mode,
) -> impl Iterator<Item = &'a Arc<Inode>> {
    let back = new.inode.as_ref().filter(|_| mode == Mode::Exchange);
    let moving = old.inode.iter().chain(back).map(|inode| &**inode);
    moving.filter(|inode| inode.state.read().rare().data.is_some())
}
