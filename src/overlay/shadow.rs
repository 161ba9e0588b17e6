//! What grafts hide: what the mount's own layers have at and below the targets. And what is stale of it: files that are in the
//! graft, too, and differ, as those of a volume do that was filled from an older image.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Overlay;
use super::lookup::Entry;
use crate::error::{Context, Error, Result};
use crate::graft::{Shadow, Source, Spec};
use crate::inode::{Inode, Root};
use crate::merge::listing::FileKind;
use crate::sys::stat::Timestamp;
use crate::sys::{copy, name, open};

/// Something that a graft hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its path in the merged tree.
    pub path: PathBuf,
    /// What the layers have there.
    pub kind: FileKind,
    /// The graft that hides it.
    pub graft: Arc<Spec>,
    /// What the graft has there differs. Looked for only where that was asked.
    pub stale: Option<Stale>,
}

/// When the two that differ were written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// What the graft has.
    pub graft: Timestamp,
    /// What the layers have.
    pub layers: Timestamp,
}

/// Bytes that are compared at once.
const CHUNK: usize = 128 << 10;

/// A directory of the layers, and the one of the graft that hides it, if that is to be looked at.
struct Dir<'a> {
    path: PathBuf,
    layers: Entry<'a>,
    graft: Option<Entry<'a>>,
    names: std::vec::IntoIter<Box<OsStr>>,
}

impl Overlay {
    /// Gives what grafts hide to `each`, directories before what is in them, until it wants no more. If `stale`, only what
    /// volumes and binds have otherwise than the layers. What is changed meanwhile may be given or not.
    /// Errors: `Setup` naming a directory or file that cannot be read.
    pub fn shadow(&self, stale: bool, each: &mut dyn FnMut(Hidden) -> bool) -> Result<()> {
        let all = self.grafts.all();
        let targets: Vec<PathBuf> = all.iter().map(|(spec, _)| spec.target.clone()).collect();
        for (spec, root) in all {
            // Names of the layers are shown before the graft's own.
            let hides = spec.shadow != Shadow::Over;
            if !hides || (stale && matches!(spec.source, Source::Tmpfs { .. })) {
                continue;
            }
            if !self.shadow_of(&Arc::new(spec), &root, stale, &targets, each)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether more is wanted.
    fn shadow_of(
        &self,
        spec: &Arc<Spec>,
        root: &Root,
        stale: bool,
        targets: &[PathBuf],
        each: &mut dyn FnMut(Hidden) -> bool,
    ) -> Result<bool> {
        // Where a file or nothing is on the way, nothing is below it.
        let Ok(Some(layers)) = self.in_layers(&spec.target) else { return Ok(true) };
        let attr = self.attr_of(&layers).map_err(|error| unreadable(&spec.target, &error))?;
        let layers = Entry { inode: layers, attr, lifetime: super::Lifetime::None };
        let unites = spec.shadow == Shadow::Under;
        let graft = match stale || unites {
            true => self.graft_entry(&layers.inode, root).ok(),
            false => None,
        };
        let hidden =
            |path: &Path, kind, stale| Hidden { path: path.to_owned(), kind, graft: spec.clone(), stale };
        let mut above = match layers.inode.is_dir() {
            true => {
                if !stale && !unites && !each(hidden(&spec.target, FileKind::Dir, None)) {
                    return Ok(false);
                }
                vec![self.enter(spec.target.clone(), layers, graft)?]
            }
            false => {
                let found = self.differs(&spec.target, &layers, graft.as_ref(), stale)?;
                return Ok(found.is_none_or(|differs| each(hidden(&spec.target, layers.inode.kind, differs))));
            }
        };
        // A stack of its own: a path may be thousands of names deep.
        while let Some(dir) = above.last_mut() {
            let Some(name) = dir.names.next() else {
                above.pop();
                continue;
            };
            let path = dir.path.join(&*name);
            if targets.contains(&path) {
                // Hidden by another graft, which is asked for itself.
                continue;
            }
            let Some(layers) = self.child(&path, &dir.layers, &name)? else { continue };
            let graft = match &dir.graft {
                Some(graft) if graft.inode.is_dir() => self.child(&path, graft, &name)?,
                _ => None,
            };
            let shows = unites && above.len() == 1 && graft.is_none();
            if shows {
                continue;
            }
            let graft = graft.filter(|_| stale);
            if layers.inode.is_dir() {
                if !stale && !each(hidden(&path, FileKind::Dir, None)) {
                    return Ok(false);
                }
                if !stale || graft.as_ref().is_some_and(|graft| graft.inode.is_dir()) {
                    above.push(self.enter(path, layers, graft)?);
                }
                continue;
            }
            let kind = layers.inode.kind;
            if let Some(differs) = self.differs(&path, &layers, graft.as_ref(), stale)?
                && !each(hidden(&path, kind, differs))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn enter<'a>(&self, path: PathBuf, layers: Entry<'a>, graft: Option<Entry<'a>>) -> Result<Dir<'a>> {
        let mut names: Vec<Box<OsStr>> = {
            let _names = layers.inode.names().read();
            let shown = self.shown_names(&layers.inode).map_err(|error| unreadable(&path, &error))?;
            shown.into_iter().map(|shown| shown.name).collect()
        };
        names.sort();
        Ok(Dir { path, layers, graft, names: names.into_iter() })
    }

    /// What the trees themselves have under the name; nothing also if it went meanwhile.
    fn child(&self, path: &Path, dir: &Entry<'_>, name: &OsStr) -> Result<Option<Entry<'_>>> {
        let _names = dir.inode.names().read();
        match self.found_locked(&dir.inode, name) {
            Err(Error::Stale | Error::NotFound) => Ok(None),
            found => found.map_err(|error| unreadable(path, &error)),
        }
    }

    /// What is to be said of a name that is no directory; nothing: nothing.
    fn differs(
        &self,
        path: &Path,
        layers: &Entry<'_>,
        graft: Option<&Entry<'_>>,
        stale: bool,
    ) -> Result<Option<Option<Stale>>> {
        if !stale {
            return Ok(Some(None));
        }
        let Some(graft) = graft else { return Ok(None) };
        let differs = match (layers.inode.kind, graft.inode.kind) {
            (FileKind::Regular, FileKind::Regular) => {
                layers.attr.stat.size != graft.attr.stat.size
                    || !same_bytes(&layers.inode, &graft.inode, path)?
            }
            (FileKind::Symlink, FileKind::Symlink) => {
                target_of(&layers.inode, path)? != target_of(&graft.inode, path)?
            }
            // One is a file and the other none: neither is a version of the other, but what is hidden is none of them.
            (FileKind::Regular | FileKind::Symlink, FileKind::Regular | FileKind::Symlink) => true,
            _ => false,
        };
        let times = Stale { graft: graft.attr.stat.mtime, layers: layers.attr.stat.mtime };
        Ok(differs.then_some(Some(times)))
    }
}

fn unreadable(path: &Path, error: &Error) -> Error {
    Error::Setup(format!("{path:?} cannot be compared or listed: {error}"))
}

fn target_of(inode: &Arc<Inode>, path: &Path) -> Result<Option<std::ffi::OsString>> {
    gone_is_none(inode.with(|at| name::readlink(at).call("readlinkat")), path)
}

/// Whether the two files, of one size, have the same bytes.
fn same_bytes(one: &Arc<Inode>, other: &Arc<Inode>, path: &Path) -> Result<bool> {
    let opened = |inode: &Arc<Inode>| {
        gone_is_none(
            inode.with_data(|at, _| {
                let quietly = open::file(at, OFlag::O_RDONLY | OFlag::O_NOATIME);
                quietly.or_else(|_| open::file(at, OFlag::O_RDONLY)).call("openat2")
            }),
            path,
        )
    };
    let (Some(one), Some(other)) = (opened(one)?, opened(other)?) else { return Ok(true) };
    let (mut first, mut second) = (vec![0; CHUNK], vec![0; CHUNK]);
    let read = |fd: &OwnedFd, buffer: &mut [u8], at: u64| {
        copy::pread(fd.as_fd(), buffer, at).call("pread").map_err(|error| unreadable(path, &error))
    };
    let mut at = 0;
    loop {
        let (got, more) = (read(&one, &mut first, at)?, read(&other, &mut second, at)?);
        if first.get(..got) != second.get(..more) {
            return Ok(false);
        }
        if got == 0 {
            return Ok(true);
        }
        at += got as u64;
    }
}

/// What was asked for; nothing if it went meanwhile.
fn gone_is_none<T>(result: Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ESTALE) => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}
