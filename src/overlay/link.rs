//! Hard links.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::fcntl::RenameFlags;

use super::attr::Lifetime;
use super::create::{Under, check_no_point};
use super::lookup::Entry;
use super::protect::Change;
use super::remove::count_names;
use super::{Overlay, redirect};
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Ino, Inode, InodeRef, State};
use crate::layer::Upper;
use crate::layer::real_dir::Fact;
use crate::merge::mark::NlinkBase;
use crate::merge::redirect::Redirect;
use crate::sys::{At, name};

impl Overlay {
    /// Gives `ino` the further name `name` in `parent`. Errors: `Exists`, `ReadOnly`, and what the upper layer answers.
    pub fn link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry<'_>> {
        let parent = self.dir(parent)?;
        let inode = self.inode(ino)?;
        if !Arc::ptr_eq(&parent.stack, &inode.stack) {
            return Err(Error::CrossDevice("the file is in another tree"));
        }
        self.check_new_name(&parent, name)?;
        if inode.is_dir() {
            return Err(Error::NotPermitted("a directory has one name"));
        }
        self.check_protected(&inode, Change::Any)?;
        let inode = match self.link_once(&inode, &parent, name) {
            // Its data cannot stay below, then.
            Err(Error::NoRedirect) => {
                self.copy_up.ensure(&inode, Need::Data)?;
                self.link_once(&inode, &parent, name)?
            }
            linked => linked?,
        };
        let attr = self.attr_of(&inode)?;
        Ok(Entry { inode, attr, lifetime: Lifetime::of(&parent.stack) })
    }

    /// Makes the name. Returns the inode that it leads to. Errors: as `link`, and `NoRedirect` if the file's data is below and
    /// no mark can say where.
    fn link_once(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr) -> Result<InodeRef<'_>> {
        self.copy_up.ensure(inode, Need::Metadata)?;
        // The path to the name it has already stays.
        let _tree = parent.stack.rename_gate.read();
        let _names = parent.names().write();
        check_no_point(parent, name)?;
        self.copy_up.ensure(parent, Need::Metadata)?;
        // It may have given its names away just now. The new name leads to whoever has the others, so that all have one count.
        let inode = inode.now();
        let _gate = inode.gate.lock();
        if parent.stack.is_direct() {
            self.link_direct(&inode, parent, name)?;
        } else {
            self.link_locked(&inode, parent, name)?;
        }
        self.sync_names(parent)?;
        let inode = self.store.refer(inode.ino).ok_or(Error::Stale)?;
        self.list_name(parent, name, &inode);
        Ok(inode)
    }

    fn link_locked(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        if self.hides_nothing(parent, name)? {
            // The call that makes the name says whether the upper layer has anything there. Mostly it has not.
            match self.link_over(inode, parent, name, Under::default()) {
                Err(Error::Exists) => {}
                linked => return linked,
            }
        }
        let under = self.under_locked(parent, name)?;
        self.link_over(inode, parent, name, under)
    }

    fn link_over(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr, under: Under) -> Result<()> {
        let upper = parent.stack.writable()?;
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let fd = dir.fd().call("openat2")?;
        let to = At::new(fd.as_fd(), name);
        let redirect = redirect_of(upper, inode)?;
        let mut state = inode.state.write();
        self.mark_moving(upper, inode, &state, parent, redirect.as_ref())?;
        count_names(upper, inode, &state, NlinkBase::Upper, 0)?;
        let from = inode.locate_locked(&state)?;
        let _changing = dir.changing();
        if under.whiteout {
            let temp = upper.temp();
            name::link(from.at(), temp.at()).call("linkat")?;
            name::rename(temp.at(), to, RenameFlags::empty()).call("renameat2")?;
            temp.placed();
        } else {
            name::link(from.at(), to).call("linkat")?;
        }
        if under.whiteout_file {
            upper.remove_whiteout_file(fd.as_fd(), name)?;
        }
        if let Some(nlink) = state.rare_if_any().and_then(|rare| rare.nlink.as_mut()) {
            *nlink += 1;
        }
        self.add_name(inode, &mut state, parent, name, true);
        Ok(())
    }

    /// What an upper file needs before it gets a name in `parent`: the directory says that its children may show an
    /// origin's number, and a file whose data is below says where, by `redirect`.
    pub(super) fn mark_moving(
        &self,
        upper: &Upper,
        inode: &Inode,
        state: &State,
        parent: &Inode,
        redirect: Option<&Redirect>,
    ) -> Result<()> {
        let dir = parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let own = inode.stack.pack_ino(inode.stack.device(crate::merge::LayerId::UPPER), state.upper_ino);
        if own != Some(inode.st_ino) && !dir.is(Fact::Impure) {
            upper.set_impure(At::fd(dir.fd().call("openat2")?.as_fd()))?;
            dir.note(Fact::Impure, true);
        }
        match redirect {
            Some(redirect) => upper.set_redirect(inode.locate_locked(state)?.at(), redirect),
            None => Ok(()),
        }
    }
}

/// The redirect that a file whose data is below needs before it gets one more name.
fn redirect_of(upper: &Upper, inode: &Inode) -> Result<Option<Redirect>> {
    let known = {
        let state = inode.state.read();
        state.names.iter().find(|name| name.in_upper).or(state.names.first()).cloned()
    };
    match known {
        Some(known) => redirect::of_moving_file(upper, inode, &known.parent, &known.name, false),
        None => Ok(None),
    }
}

impl Overlay {
    /// Where a symlink leads.
    pub fn readlink(&self, ino: Ino) -> Result<std::ffi::OsString> {
        self.inode(ino)?.with(|at| name::readlink(at).call("readlinkat"))
    }
}
