//! Making the upper object in the workdir and putting it into place in one step.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use nix::fcntl::OFlag;

use super::meta::{Made, Rules};
use super::{CopyUp, Need, data, meta};
use crate::config::FsyncMode;
use crate::error::{Context, Error, Result};
use crate::inode::{DirNode, Inode, LowerFile, Name, State};
use crate::layer::real_dir::Fact;
use crate::layer::workdir::Temp;
use crate::layer::{RealDir, Upper};
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::merge::mark::{self, Mark, NlinkBase};
use crate::merge::origin::Origin;
use crate::merge::redirect::{MAX_LEN, Redirect};
use crate::sys::cred::Writer;
use crate::sys::stat::{Stat, format_of, stat};
use crate::sys::{At, attr, copy, cred, name, open, xattr};

/// A file that comes up.
struct Copied<'a> {
    inode: &'a Inode,
    /// Where its metadata is.
    from: At<'a>,
    /// What it was when the copy began.
    stat: Stat,
    /// Where its data is, and what that was, if it is known.
    source: (&'a LowerFile, Option<Stat>),
    need: Need,
    data_stays: bool,
}

impl CopyUp {
    /// Locks: the directory's gate is held, its parent has an upper part.
    pub(super) fn copy_dir(&self, dir: &Arc<Inode>) -> Result<()> {
        let upper = dir.stack.writable()?;
        let DirNode { upper: upper_part, lowers, .. } = dir.node.as_dir().ok_or(Error::NotDir)?;
        let lower = lowers.first().ok_or(Error::Stale)?;
        let lower_fd = lower.fd().call("openat2")?;
        let from = At::fd(lower_fd.as_fd());
        let lower_stat = stat(from).call("statx")?;
        let Some(place) = dir.dir_name() else {
            let temp = upper.temp();
            name::mkdir(temp.at(), 0o700).call("mkdirat")?;
            let made = Made { ids: upper.maker, mode: 0o700 };
            meta::copy(Rules::of(&dir.stack), from, &lower_stat, temp.at(), made)?;
            meta::copy_times(&lower_stat, temp.at())?;
            return publish_gone_dir(dir, upper_part, temp);
        };
        let parent = upper_parent(&place.parent)?;
        let origin = dir.stack.origin_of(lower.layer(), from);

        let temp = upper.temp();
        name::mkdir(temp.at(), 0o700).call("mkdirat")?;
        let made = Made { ids: upper.maker, mode: 0o700 };
        meta::copy(Rules::of(&dir.stack), from, &lower_stat, temp.at(), made)?;
        upper.set_origin(temp.at(), FileKind::Dir, origin.as_ref())?;
        meta::copy_flags(upper, from, &lower_stat, temp.at())?;
        // Marks are changes, too: the times come last.
        meta::copy_times(&lower_stat, temp.at())?;
        if self.fsync == FsyncMode::Strict {
            let fd = open::path(temp.at()).call("openat2")?;
            name::sync_dir(fd.as_fd()).call("fsync")?;
        }
        let parent_fd = parent.fd().call("openat2")?;
        self.place_in_parent(&place.parent, parent, upper, || {
            upper.place(temp, parent_fd.as_fd(), &place.name, false)
        })?;
        let real = parent.child(&place.name);
        real.note(Fact::NoWhiteoutFiles, true);
        if upper_part.set(real).is_err() {
            return Err(Error::Bug("a directory was copied up twice"));
        }
        self.changed(dir);
        self.sync_parent(parent)
    }

    /// Locks: the file's gate is held; the parent in `place` has an upper part. A file without a name is copied for
    /// those who still have it open. Returns a regular file that is whole there, open.
    pub(super) fn copy_file(
        &self,
        inode: &Arc<Inode>,
        place: Option<Name>,
        need: Need,
    ) -> Result<Option<OwnedFd>> {
        let upper = inode.stack.writable()?;
        let (lower, data) = {
            let state = inode.state.read();
            (state.lower().ok_or(Error::Stale)?.to_file(), state.rare().data.clone())
        };
        let from = lower.locate()?;
        let lower_stat = stat(from.at()).call("statx")?;
        let indexed = lower_stat.nlink > 1 && inode.stack.indexes(inode.kind);
        // Without an index the other names of a hard link stay behind, and the number with them.
        let layer = lower.layer().ok_or(Error::Stale)?;
        let keeps_origin = lower_stat.nlink == 1 || indexed;
        let origin = if keeps_origin { inode.stack.origin_of(layer, from.at()) } else { None };
        let data_stays = need == Need::Metadata
            && self.metacopy
            && inode.kind == FileKind::Regular
            && lower_stat.size > 0
            && place.is_some();

        let temp = upper.temp();
        // Layers do not change: a file with its own data is what it was.
        let source = data.as_deref().map_or((&lower, Some(lower_stat)), |data| (data, None));
        let new = Copied { inode, from: from.at(), stat: lower_stat, source, need, data_stays };
        let (file, mode) = self.make(&new, &temp)?;
        let made = Made { ids: upper.maker, mode };
        meta::copy(Rules::of(&inode.stack), from.at(), &lower_stat, temp.at(), made)?;
        if data_stays {
            upper.set_mark(temp.at(), Mark::Metacopy, b"")?;
        }
        if keeps_origin {
            upper.set_origin(temp.at(), inode.kind, origin.as_ref())?;
        }
        meta::copy_flags(upper, from.at(), &lower_stat, temp.at())?;
        meta::copy_times(&lower_stat, temp.at())?;
        if let (Need::Truncated { by }, Some(file)) = (need, &file) {
            // Before it appears: a file that is cut off and does not tell when is neither the old one nor the new one.
            cut(inode, file, by)?;
        }
        if !data_stays || self.fsync == FsyncMode::Strict {
            self.sync_file(file.as_ref())?;
        }

        let made = stat(temp.at()).call("statx")?;
        let data_left = data_stays.then(|| Box::new(source.0.clone()));
        match place {
            None => self.publish_orphan(inode, temp, made, data_left)?,
            Some(place) => {
                let index = origin.filter(|_| indexed);
                self.publish_file(inode, upper, temp, &place, made, data_left, index)?;
            }
        }
        self.changed(inode);
        Ok(file.filter(|_| !data_stays))
    }

    /// Makes the object in the workdir, with its data if that is to come along. Returns a regular file open, and the
    /// permissions that the object has got.
    fn make(&self, new: &Copied<'_>, temp: &Temp<'_>) -> Result<(Option<OwnedFd>, u32)> {
        // Those of the original, if the thread's umask lets them pass; always enough for the daemon itself.
        let by_attribute = new.inode.stack.by_attribute();
        let wanted = if by_attribute { 0o644 } else { new.stat.mode & 0o777 };
        let mode = (wanted & !cred::thread_umask().call("unshare")?) | 0o600;
        match new.inode.kind {
            FileKind::Regular => {
                let to = open::create(temp.at(), OFlag::O_RDWR, mode).call("openat2")?;
                if new.data_stays {
                    attr::truncate(to.as_fd(), new.stat.size).call("ftruncate")?;
                } else if !matches!(new.need, Need::Truncated { .. }) {
                    self.copy_from(new.inode, new.source, &to, u64::MAX)?;
                }
                Ok((Some(to), mode))
            }
            FileKind::Symlink => {
                let target = name::readlink(new.from).call("readlinkat")?;
                name::symlink(&target, temp.at()).call("symlinkat")?;
                Ok((None, 0))
            }
            FileKind::Dir => Err(Error::Bug("a directory is not copied as a file")),
            _ if by_attribute => {
                open::create(temp.at(), OFlag::O_WRONLY, mode).call("openat2")?;
                Ok((None, mode))
            }
            kind => {
                let (major, minor) = (new.stat.rdev_major, new.stat.rdev_minor);
                name::mknod(temp.at(), format_of(kind) | mode, major, minor).call("mknodat")?;
                Ok((None, mode))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one object, used once")]
    fn publish_file(
        &self,
        inode: &Arc<Inode>,
        upper: &Upper,
        temp: Temp<'_>,
        place: &Name,
        made: Stat,
        data: Option<Box<LowerFile>>,
        index: Option<Origin>,
    ) -> Result<()> {
        let parent = upper_parent(&place.parent)?;
        let parent_fd = parent.fd().call("openat2")?;
        let mut state = inode.state.write();
        if let Some(origin) = index {
            let index_name = index_entry(&origin)?;
            let index_dir = upper.workdir.index().ok_or(Error::Bug("an index without a directory"))?;
            // Until both names are made the count is right only relative to the lower object.
            upper.set_mark(temp.at(), Mark::Nlink, &mark::format_nlink(NlinkBase::Lower, 0))?;
            upper.place(temp, index_dir.as_fd(), &index_name, false)?;
            let linked = self.place_in_parent(&place.parent, parent, upper, || {
                let from = At::new(index_dir.as_fd(), &index_name);
                name::link(from, At::new(parent_fd.as_fd(), &place.name)).call("linkat")
            });
            if let Err(error) = linked {
                // Nothing shows it yet; left behind, it would be taken for the file's upper object.
                name::unlink(At::new(index_dir.as_fd(), &index_name)).call("unlinkat")?;
                return Err(error);
            }
            let lower_nlink = state.lower().map_or(1, |lower| lower.nlink);
            let count = mark::format_nlink(NlinkBase::Upper, i64::from(lower_nlink) - 2);
            // What is there already says the same relative to the lower object.
            if let Err(error) = upper.set_mark(At::new(index_dir.as_fd(), &index_name), Mark::Nlink, &count) {
                tracing::debug!("the link count stays relative to the lower file: {error}");
            }
            let rare = state.rare_mut();
            rare.nlink = Some(lower_nlink);
            rare.index = Some(index_name);
        } else {
            self.place_in_parent(&place.parent, parent, upper, || {
                upper.place(temp, parent_fd.as_fd(), &place.name, false)
            })?;
        }
        state.upper_ino = made.ino;
        self.known.note(inode, made.ino);
        set_data(&mut state, data);
        if let Some(known) = state.name_mut(&place.parent, &place.name) {
            known.in_upper = true;
        }
        drop(state);
        self.sync_parent(parent)
    }

    /// A file that nobody can name any more goes up without a name.
    fn publish_orphan(
        &self,
        inode: &Arc<Inode>,
        temp: Temp<'_>,
        made: Stat,
        data: Option<Box<LowerFile>>,
    ) -> Result<()> {
        let mut state = inode.state.write();
        let fd = open::path(temp.at()).call("openat2")?;
        name::unlink(temp.at()).call("unlinkat")?;
        temp.placed();
        state.rare_mut().orphan = Some(Arc::new(fd));
        state.upper_ino = made.ino;
        set_data(&mut state, data);
        Ok(())
    }

    /// As `link_up`, where the inode has an index entry; others need no upper name.
    pub fn link_up_indexed(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name_in: &OsStr) -> Result<()> {
        let indexed = inode.state.read().rare().index.is_some();
        if indexed { self.link_up(inode, parent, name_in) } else { Ok(()) }
    }

    /// Gives an indexed inode the upper name that so far only a lower layer has, so that it can be moved.
    /// Locks: the inode's gate is held; the parent has an upper part.
    pub fn link_up(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name_in: &OsStr) -> Result<()> {
        let upper = inode.stack.writable()?;
        let dir = upper_parent(parent)?;
        let dir_fd = dir.fd().call("openat2")?;
        let mut state = inode.state.write();
        if state.name(parent, name_in).ok_or(Error::NotFound)?.in_upper {
            return Ok(());
        }
        let from = inode.locate_locked(&state)?;
        // The upper count goes up and the overlay's does not: relative to the lower one the difference stays true.
        // A file that was copied up before this mount is known by its upper part alone.
        let nlink = state.rare().nlink;
        let lower_nlink = match (state.lower(), nlink) {
            (Some(lower), _) => Some(lower.nlink),
            (None, None) => None,
            (None, Some(_)) => upper.origin(from.at())?.and_then(|o| inode.stack.find_origin(&o)?.2),
        };
        if let (Some(nlink), Some(lower_nlink)) = (nlink, lower_nlink) {
            let difference = i64::from(nlink) - i64::from(lower_nlink);
            upper.set_mark(from.at(), Mark::Nlink, &mark::format_nlink(NlinkBase::Lower, difference))?;
        }
        self.place_in_parent(parent, dir, upper, || {
            name::link(from.at(), At::new(dir_fd.as_fd(), name_in)).call("linkat")
        })?;
        if let Some(known) = state.name_mut(parent, name_in) {
            known.in_upper = true;
        }
        if let Some(nlink) = state.rare().nlink {
            let real = stat(from.at()).call("statx")?.nlink;
            let count = mark::format_nlink(NlinkBase::Upper, i64::from(nlink) - i64::from(real));
            upper.set_mark(from.at(), Mark::Nlink, &count)?;
        }
        drop(state);
        self.sync_parent(dir)
    }

    /// Runs `place`, which puts a copied-up object into the upper directory `real` of `parent`: its times stay, and it
    /// is marked impure first, because it now has a child that shows its origin's number.
    fn place_in_parent(
        &self,
        parent: &Arc<Inode>,
        real: &Arc<RealDir>,
        upper: &Upper,
        place: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if !real.is(Fact::Impure) {
            upper.set_impure(At::fd(real.fd().call("openat2")?.as_fd()))?;
            real.note(Fact::Impure, true);
        }
        self.keep_times(parent, real, place)
    }

    /// Runs `place`, which puts an object that `parent` shows already into its upper directory `real`, and restores the
    /// times of `real`.
    ///
    /// No other thread reads or changes the times meanwhile.
    pub(super) fn keep_times(
        &self,
        parent: &Arc<Inode>,
        real: &Arc<RealDir>,
        place: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let fd = real.fd().call("openat2")?;
        let at = At::fd(fd.as_fd());
        let changing = real.changing();
        // Set before the times change: a lookup that has read them without the lock finds it, and reads them again.
        real.note(Fact::CopiedInto, true);
        let before = stat(at).call("statx")?;
        attr::with_owner_writing(at, place).call("fchmodat2")??;
        // From here on the object is there, so nothing that fails may say that it is not.
        if let Err(error) = meta::copy_times(&before, at) {
            tracing::warn!("a directory shows when something in it was copied up: {error}");
        }
        drop(changing);
        // Its ctime has changed. The kernel must know before the request is answered.
        self.changed(parent);
        Ok(())
    }

    /// With `fsync=strict` a copied-up object's name is on disk before the change goes on.
    fn sync_parent(&self, real: &Arc<RealDir>) -> Result<()> {
        match self.fsync {
            FsyncMode::Strict => name::sync_dir(real.fd().call("openat2")?.as_fd()).call("fsync"),
            FsyncMode::Auto | FsyncMode::Volatile | FsyncMode::Off => Ok(()),
        }
    }

    /// Brings the data of a file up whose metadata is there already. The mark goes last: until then the data below is
    /// what counts. Locks: the file's gate is held.
    pub(super) fn complete_data(&self, inode: &Arc<Inode>, need: Need) -> Result<Option<OwnedFd>> {
        let upper = inode.stack.writable()?;
        let (data, to) = {
            let state = inode.state.read();
            let Some(data) = state.rare().data.clone() else { return Ok(None) };
            let located = inode.locate_locked(&state)?;
            (data, open::file(located.at(), OFlag::O_RDWR).call("openat2")?)
        };
        let object = At::fd(to.as_fd());
        let before = stat(object).call("statx")?;
        // A write clears the capability; it was there before, so it is there after.
        let capability = xattr::get(object, c"security.capability").call("getxattr")?;
        let restore = || {
            if let Some(value) = &capability {
                xattr::set(object, c"security.capability", value, xattr::SetMode::Any).call("setxattr")?;
            }
            meta::copy_times(&before, object)
        };
        let completed = || {
            match need {
                // Before the mark goes: without it, what is here counts, and that is a hole as long as the file was.
                Need::Truncated { by } => cut(inode, &to, by)?,
                Need::Metadata | Need::Data => {
                    let copied = self.copy_from(inode, (&data, None), &to, before.size);
                    // Also if the copy has failed: then only the data below counts, and everything else is as it was.
                    restore()?;
                    copied?;
                }
            }
            self.sync_file(Some(&to))?;
            let mut state = inode.state.write();
            upper.clear_mark(object, Mark::Metacopy)?;
            set_data(&mut state, None);
            Ok(())
        };
        if let Err(error) = completed() {
            if matches!(need, Need::Truncated { .. }) {
                // The data below counts again, so its length does.
                attr::truncate(to.as_fd(), before.size).call("ftruncate")?;
                attr::chmod(object, before.mode).call("fchmodat2")?;
            }
            restore()?;
            return Err(error);
        }
        self.changed(inode);
        Ok(Some(to))
    }

    /// Copies the data of `source`, at most `limit` bytes.
    fn copy_from(
        &self,
        inode: &Inode,
        (source, known): (&LowerFile, Option<Stat>),
        to: &OwnedFd,
        limit: u64,
    ) -> Result<()> {
        let located = source.locate()?;
        let from = open::file(located.at(), OFlag::O_RDONLY | OFlag::O_NOATIME)
            .or_else(|_| open::file(located.at(), OFlag::O_RDONLY))
            .call("openat2")?;
        let mut stat = known.map_or_else(|| stat(At::fd(from.as_fd())).call("statx"), Ok)?;
        stat.size = stat.size.min(limit);
        let to_device = inode.stack.device(LayerId::UPPER);
        let source = data::Source { file: from.as_fd(), stat, to_device, refused: &self.refused };
        data::copy_file(&source, to.as_fd()).map(drop)
    }

    fn sync_file(&self, file: Option<&OwnedFd>) -> Result<()> {
        match (self.fsync, file) {
            (FsyncMode::Volatile | FsyncMode::Off, _) | (_, None) => Ok(()),
            (FsyncMode::Auto | FsyncMode::Strict, Some(file)) => {
                copy::sync(file.as_fd(), false).call("fsync")
            }
        }
    }
}

/// A directory that was removed while somebody is in it goes up without a name, for its owner, mode and attributes.
fn publish_gone_dir(dir: &Inode, upper_part: &OnceLock<Arc<RealDir>>, temp: Temp<'_>) -> Result<()> {
    let fd = open::path(temp.at()).call("openat2")?;
    name::rmdir(temp.at()).call("unlinkat")?;
    temp.placed();
    let real = RealDir::nameless(LayerId::UPPER, fd, dir.stack.pool.clone());
    upper_part.set(real).map_err(|_| Error::Bug("a directory was copied up twice"))
}

/// Notes where the data is, if not with the metadata.
fn set_data(state: &mut State, data: Option<Box<LowerFile>>) {
    if data.is_some() || state.rare().data.is_some() {
        state.rare_mut().data = data;
    }
}

/// Cuts a file off as its caller would. Also of an empty one the times change.
fn cut(inode: &Inode, file: &OwnedFd, by: Writer) -> Result<()> {
    let ids = &inode.stack.terms.ids;
    by.run(At::fd(file.as_fd()), |gid| ids.shown_gid(gid), || attr::truncate(file.as_fd(), 0))
        .call("ftruncate")
}

fn upper_parent(parent: &Inode) -> Result<&Arc<RealDir>> {
    parent.upper_dir().ok_or(Error::Bug("a parent was not copied up first"))
}

/// A redirect to `path`. Errors: `NoRedirect` if it is longer than a redirect may be.
pub fn redirect_to(path: std::ffi::OsString) -> Result<Redirect> {
    let redirect = Redirect::FromRoot(path);
    if redirect.format().len() > MAX_LEN {
        return Err(Error::NoRedirect);
    }
    Ok(redirect)
}

/// The name of an origin's entry in the index directory.
pub fn index_entry(origin: &Origin) -> Result<Box<OsStr>> {
    let name = origin.index_name().ok_or(Error::Unsupported)?;
    Ok(OsStr::new(&name).into())
}
