//! The names that a directory's layers show, merged, and the numbers that they show.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::Overlay;
use crate::error::{Context, Result};
use crate::inode::Inode;
use crate::inode::listing::Entry as Listed;
use crate::layer::names::{Listed as Names, RawName};
use crate::layer::real_dir::{Fact, RealDir};
use crate::layer::{Learning, override_stat, probe};
use crate::merge::listing::{FileKind, Merger, Raw, RawKind, Shown};
use crate::merge::mark::Mark;
use crate::merge::resolve::Outcome;
use crate::sys::stat::stat;
use crate::sys::{At, dir};

impl Overlay {
    /// The names that the directory's layers show, with their numbers. Locks: its names, for reading at least.
    pub(super) fn layered_names(&self, inode: &Arc<Inode>) -> Result<Vec<Listed>> {
        let shown = self.shown_names(inode)?;
        let mut listed = Vec::with_capacity(shown.len());
        let mut is_pure = true;
        for name in shown {
            let st_ino = self.number_of(inode, &name)?;
            is_pure &= Some(st_ino) == inode.stack.pack_ino(inode.stack.device(name.layer), name.ino);
            listed.push(Listed { name: name.name, st_ino, kind: name.kind });
        }
        if is_pure {
            self.note_pure(inode);
        }
        Ok(listed)
    }

    /// The names that the directory's own layers show. Locks: its names, for reading at least.
    pub(super) fn shown_names(&self, inode: &Arc<Inode>) -> Result<Vec<Shown>> {
        let dirs = inode.real_dirs();
        let mut merger = Merger::default();
        let upper_parts = usize::from(inode.upper_dir().is_some());
        let mut lower_names = inode.parts().names.is_none().then(Learning::default);
        let mut listed = inode.take_listed();
        for (i, real) in dirs.iter().enumerate() {
            let lower = i.checked_sub(upper_parts);
            let known = lower.and_then(|at| listed.as_mut()?.get_mut(at)).map(std::mem::take);
            let raws = match known {
                Some(raws) => raws,
                None => self.raw_names(inode, real)?,
            };
            let last = i + 1 == dirs.len();
            let entries = raws.iter().map(|(name, ino, kind)| Raw { name, ino: *ino, kind: *kind });
            let whiteout_files = merger.feed(real.layer(), last, entries);
            real.note(Fact::NoWhiteoutFiles, !whiteout_files);
            if let (Some(learning), Some(Ok(position))) = (&mut lower_names, lower.map(u16::try_from)) {
                let mut names = Names::default();
                raws.iter().for_each(|(name, ..)| names.add(name));
                learning.add(position, &names);
            }
        }
        if let (Some(learning), false) = (lower_names, inode.lower_dirs().is_empty()) {
            inode.keep_names(learning.finish());
        }
        Ok(merger.finish())
    }

    fn raw_names(&self, inode: &Inode, real: &Arc<RealDir>) -> Result<Vec<RawName>> {
        let fd = real.readable(!real.layer().is_upper()).call("openat2")?;
        let stack = &inode.stack;
        let mut raws = Vec::new();
        let read = dir::entries(&fd, |entry| {
            if stack.hidden.is_entry(real.layer(), fd.as_fd(), &entry) {
                return Ok(());
            }
            let at = At::new(fd.as_fd(), entry.name);
            let kind = match entry.kind {
                None | Some(FileKind::Char) => {
                    let found = stat(at)?;
                    if found.is_whiteout_device() { RawKind::Whiteout } else { RawKind::Object(found.kind) }
                }
                Some(FileKind::Regular)
                    if real.is(Fact::XattrWhiteouts)
                        && stat(at)?.size == 0
                        && probe::is_xattr_whiteout(stack.namespace, at)? =>
                {
                    RawKind::Whiteout
                }
                Some(FileKind::Regular) if stack.by_attribute() => {
                    let mut found = stat(at)?;
                    override_stat::apply(&mut found, at, stack.terms.permissions)?;
                    RawKind::Object(found.kind)
                }
                Some(kind) => RawKind::Object(kind),
            };
            raws.push((entry.name.into(), entry.ino, kind));
            Ok(())
        });
        read.call("getdents64")?;
        Ok(raws)
    }

    /// What `stat` will show as the number of a listed name. Upper objects may show the number of their origin; where
    /// that is possible they are looked up.
    fn number_of(&self, parent: &Arc<Inode>, shown: &Shown) -> Result<u64> {
        let stack = &parent.stack;
        let own = stack.pack_ino(stack.device(shown.layer), shown.ino).unwrap_or(shown.ino);
        if !shown.layer.is_upper() {
            return Ok(own);
        }
        let impure = parent.upper_dir().is_some_and(|upper| upper.is(Fact::Impure));
        let merged = shown.kind == FileKind::Dir && !parent.lower_dirs().is_empty();
        if !impure && !merged {
            return Ok(own);
        }
        let found = match stack.resolve(parent.parts(), &shown.name) {
            Ok(found) => found,
            // Broken objects are listed by the number they have.
            Err(_) => return Ok(own),
        };
        match found {
            Outcome::Absent | Outcome::Broken(..) => Ok(own),
            found => Ok(self
                .object(stack, &shown.name, found)?
                .map_or(own, |object| object.number().unwrap_or(own))),
        }
    }

    /// Takes the mark away from an upper directory that it has no child with the number of a lower one, where that is so. It only saves
    /// work, so nothing is lost if it stays. Locks: the directory's names, for reading at least, so that no such child comes meanwhile.
    /// Source: kernel `ovl_dir_read_impure`.
    fn note_pure(&self, dir: &Inode) {
        let (Some(upper), [], Ok(layer)) = (dir.upper_dir(), dir.lower_dirs(), dir.stack.writable()) else {
            return;
        };
        if !upper.is(Fact::Impure) || dir.stack.check_writable().is_err() {
            return;
        }
        let cleared =
            upper.fd().call("openat2").and_then(|fd| layer.clear_mark(At::fd(fd.as_fd()), Mark::Impure));
        match cleared {
            Ok(()) => {
                upper.note(Fact::Impure, false);
                self.copy_up.changed(dir);
            }
            Err(error) => {
                tracing::debug!("a directory without children from below stays marked `impure`: {error}")
            }
        }
    }
}
