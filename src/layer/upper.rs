//! The writable layer: what it can do, found out once at mount, and the only place where marks are written.

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags};
use parking_lot::Mutex;

use super::probe;
use super::real_dir::{Fact, RealDir};
use super::workdir::{Use, Workdir, lock_dir};
use crate::config;
use crate::error::{Context, Error, Result};
use crate::merge::listing::FileKind;
use crate::merge::mark::{self, Mark, Namespace};
use crate::merge::origin::Origin;
use crate::merge::redirect::Redirect;
use crate::sys::stat::{Stat, stat};
use crate::sys::xattr::{self, SetMode};
use crate::sys::{At, attr, cred, name, open};

/// What the upper layer's filesystem and the daemon's rights allow; every fallback is a named branch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Char 0:0 can be made; otherwise whiteouts are `.wh.` files.
    pub whiteout_devices: bool,
    /// `RENAME_WHITEOUT` works.
    pub rename_whiteout: bool,
    /// `RENAME_EXCHANGE` works.
    pub rename_exchange: bool,
    /// A file can have several names.
    pub hard_links: bool,
}

/// The writable layer's marks and its workdir.
#[derive(Debug)]
pub struct Upper {
    /// Where changes are prepared.
    pub workdir: Workdir,
    /// What works here.
    pub abilities: Abilities,
    /// Where marks are written and read.
    pub namespace: Namespace,
    /// Owner and group of what the daemon makes in the workdir.
    pub maker: (u32, u32),
    how: Use,
    /// Held until the mount ends or gives the layer up.
    lock: Mutex<Option<nix::fcntl::Flock<OwnedFd>>>,
}

impl Upper {
    /// Locks the upper layer and its workdir and finds out what they can do. `work` is the workdir, where it is open already.
    /// Errors: `Setup` naming the directory and the remedy.
    pub fn open(
        upper: &config::Upper,
        work: Option<OwnedFd>,
        marks: &config::Marks,
        how: Use,
    ) -> Result<Upper> {
        let lock = lock_dir(&upper.dir).map_err(|errno| match errno {
            Errno::EWOULDBLOCK => Error::InUse { role: "upperdir", path: upper.dir.clone() },
            errno => Error::Setup(format!("upperdir {:?} cannot be opened: {}", upper.dir, errno.desc())),
        })?;
        let workdir = Workdir::open(&upper.work, work, how)?;
        if how == Use::ReadOnly {
            let namespace = Namespace::of_reader(marks.userxattr, cred::may_administer());
            let (abilities, maker) = (Abilities::default(), (0, 0));
            return Ok(Upper { workdir, abilities, namespace, maker, how, lock: Mutex::new(Some(lock)) });
        }
        let (namespace, abilities, maker) = match try_out(&workdir, &upper.dir, marks) {
            Ok(tried) => tried,
            Err(error) => {
                // Nothing has come of it, so nothing shall tell of it.
                workdir.unmake();
                return Err(error);
            }
        };
        Ok(Upper { workdir, abilities, namespace, maker, how, lock: Mutex::new(Some(lock)) })
    }

    /// Leaves the layer and its workdir to another mount. What was read goes on being shown; nothing is written any more, which
    /// the kernel sees to: the filesystem of the mount is read-only by now.
    pub fn give_up(&self) {
        self.workdir.give_up();
        drop(self.lock.lock().take());
    }

    /// Whether another mount may have the layer.
    pub fn is_given_up(&self) -> bool {
        self.lock.lock().is_none()
    }

    /// Whether nothing is ever written here.
    pub fn is_read_only(&self) -> bool {
        self.how == Use::ReadOnly
    }

    /// Writes `mark` with `value` onto the upper object at `at`.
    pub fn set_mark(&self, at: At<'_>, mark: Mark, value: &[u8]) -> Result<()> {
        attr::with_owner_access(at, || xattr::set(at, self.namespace.attribute(mark), value, SetMode::Any))
            .call("setxattr")
    }

    /// Whether `mark` on the object at `at` is `value`; it becomes so if it was not there.
    pub fn verify(&self, at: At<'_>, mark: Mark, value: Option<Vec<u8>>) -> Result<bool> {
        let Some(value) = value else { return Ok(true) };
        match self.mark(at, mark)? {
            Some(present) => Ok(present == value),
            None if self.is_read_only() => Ok(true),
            None => self.set_mark(at, mark, &value).map(|()| true),
        }
    }

    /// Reads `mark` off the upper object at `at`.
    pub fn mark(&self, at: At<'_>, mark: Mark) -> Result<Option<Vec<u8>>> {
        attr::with_owner_access(at, || xattr::get(at, self.namespace.attribute(mark))).call("getxattr")
    }

    /// Removes `mark` if it is there.
    pub fn clear_mark(&self, at: At<'_>, mark: Mark) -> Result<()> {
        match attr::with_owner_access(at, || xattr::remove(at, self.namespace.attribute(mark))) {
            Ok(()) | Err(Errno::ENODATA) => Ok(()),
            Err(errno) => Err(Error::Sys { call: "removexattr", errno }),
        }
    }

    /// Says that the layers below do not show through the directory at `at`.
    pub fn set_opaque(&self, at: At<'_>) -> Result<()> {
        self.set_mark(at, Mark::Opaque, b"y")
    }

    /// Says where the layers below keep the object at `at`.
    pub fn set_redirect(&self, at: At<'_>, redirect: &Redirect) -> Result<()> {
        self.set_mark(at, Mark::Redirect, &redirect.format())
    }

    /// Says that children of the directory at `at` have numbers of their origin.
    pub fn set_impure(&self, at: At<'_>) -> Result<()> {
        self.set_mark(at, Mark::Impure, b"y")
    }

    /// Says which lower object the one at `at`, of kind `kind`, was copied up from; unknown is a statement, too. An object
    /// that takes no mark goes without. Source: kernel `ovl_check_setxattr`, called by `ovl_set_origin_fh`.
    pub fn set_origin(&self, at: At<'_>, kind: FileKind, origin: Option<&Origin>) -> Result<()> {
        if !self.namespace.marks(kind) {
            return Ok(());
        }
        let value = origin.and_then(|origin| origin.format(false)).unwrap_or_default();
        self.set_mark(at, Mark::Origin, &value)
    }

    /// Which lower object the one at `at` was copied up from.
    pub fn origin(&self, at: At<'_>) -> Result<Option<Origin>> {
        Ok(self.mark(at, Mark::Origin)?.as_deref().and_then(Origin::parse))
    }

    /// Hides `name` of the layers below in the upper directory `dir`, where the upper layer has nothing of that name.
    pub fn add_whiteout(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<()> {
        if self.abilities.whiteout_devices {
            self.workdir.link_whiteout(At::new(dir.fd().call("openat2")?.as_fd(), name))
        } else {
            make_whiteout_file(dir, name)
        }
    }

    /// As `add_whiteout`, while the upper layer still has an object of that name: it shows until it is moved away.
    pub fn add_whiteout_file(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<()> {
        make_whiteout_file(dir, name)
    }

    /// Replaces the upper non-directory `name` in `dir` by a whiteout, in one visible step.
    pub fn replace_by_whiteout(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<()> {
        let fd = dir.fd().call("openat2")?;
        if !self.abilities.whiteout_devices {
            // The file of a name wins over `.wh.` of that name in the same layer: the removal is the visible step.
            make_whiteout_file(dir, name)?;
            return name::unlink(At::new(fd.as_fd(), name)).call("unlinkat");
        }
        let temp = self.workdir.temp();
        self.workdir.link_whiteout(temp.at())?;
        name::rename(temp.at(), At::new(fd.as_fd(), name), RenameFlags::empty()).call("renameat2")?;
        temp.placed();
        Ok(())
    }

    /// Replaces the upper directory `name` in `dir` by a whiteout, in one visible step, and removes what it held.
    pub fn exchange_with_whiteout(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<()> {
        let fd = dir.fd().call("openat2")?;
        if !self.abilities.whiteout_devices || !self.abilities.rename_exchange {
            make_whiteout_file(dir, name)?;
            return self.take_out(fd.as_fd(), name);
        }
        let temp = self.workdir.temp();
        self.workdir.link_whiteout(temp.at())?;
        move_dir(At::new(fd.as_fd(), name), temp.at(), exchange).call("renameat2")
    }

    /// Takes the upper directory `name` out of `dir` in one visible step and removes it with the marks in it.
    pub fn take_out(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let temp = self.workdir.temp();
        move_dir(At::new(dir, name), temp.at(), name::rename_new).call("renameat2")
    }

    /// Removes the `.wh.` file of `name` after an object of that name was made: it hides nothing any more.
    pub fn remove_whiteout_file(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match name::unlink(At::new(dir, &whiteout_file(name))) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(()),
            Err(errno) => Err(Error::Sys { call: "unlinkat", errno }),
        }
    }

    /// Lines about what does not work here, for `stratafs ls -v`. `index` says whether hard links are indexed.
    pub fn notes(&self, index: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.abilities.whiteout_devices && !self.is_read_only() {
            notes.push("whiteouts are .wh. files: device nodes cannot be made in the upper layer".to_owned());
        }
        if self.abilities.whiteout_devices && !self.abilities.rename_whiteout {
            notes.push(
                "renames leave .wh. files: the upper layer's filesystem cannot leave whiteouts".to_owned(),
            );
        }
        if self.namespace == Namespace::User {
            notes.push(
                "marks are kept in user.overlay.*: symlinks and special files get a new number when they are copied up"
                    .to_owned(),
            );
        }
        if !index && !self.is_read_only() {
            notes.push("no index: hard links of lower files are broken by copy-up".to_owned());
        }
        notes
    }

    /// The longest name an object may have.
    pub fn name_max(&self) -> usize {
        if self.abilities.whiteout_devices || self.is_read_only() {
            255
        } else {
            255 - mark::WHITEOUT_PREFIX.len()
        }
    }
}

/// Renames what may be a directory into another: who does that without privilege must be able to write to it.
fn move_dir(from: At<'_>, to: At<'_>, rename: fn(At<'_>, At<'_>) -> nix::Result<()>) -> nix::Result<()> {
    match rename(from, to) {
        Err(Errno::EACCES) => {}
        result => return result,
    }
    let moved = open::path(from)?;
    attr::with_owner_writing(At::fd(moved.as_fd()), || rename(from, to))?
}

fn exchange(from: At<'_>, to: At<'_>) -> nix::Result<()> {
    name::rename(from, to, RenameFlags::RENAME_EXCHANGE)
}

type Tried = (Namespace, Abilities, (u32, u32));

fn try_out(workdir: &Workdir, upper: &Path, marks: &config::Marks) -> Result<Tried> {
    let probe = Probe::new(workdir, upper)?;
    let (namespace, maker) = (probe.namespace(marks.userxattr)?, probe.maker()?);
    Ok((namespace, probe.abilities(marks.whiteout_files)?, maker))
}

fn whiteout_file(name: &OsStr) -> OsString {
    OsString::from_vec([mark::WHITEOUT_PREFIX, name.as_bytes()].concat())
}

fn make_whiteout_file(dir: &Arc<RealDir>, name: &OsStr) -> Result<()> {
    // First: whoever looks for the name once the file is there must look for the file, too.
    dir.note(Fact::NoWhiteoutFiles, false);
    let fd = dir.fd().call("openat2")?;
    match name::mknod(At::new(fd.as_fd(), &whiteout_file(name)), libc::S_IFREG, 0, 0) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::Sys { call: "mknodat", errno }),
    }
}

/// An object in the workdir on which things are tried.
struct Probe<'a> {
    workdir: &'a Workdir,
    temp: super::workdir::Temp<'a>,
    upper: &'a Path,
}

impl<'a> Probe<'a> {
    fn new(workdir: &'a Workdir, upper: &'a Path) -> Result<Probe<'a>> {
        let temp = workdir.temp();
        open::create(temp.at(), OFlag::O_WRONLY, 0o600)
            .map_err(|e| Error::Setup(format!("upperdir {upper:?} cannot be written: {}", e.desc())))?;
        Ok(Probe { workdir, temp, upper })
    }

    fn namespace(&self, wanted: Option<bool>) -> Result<Namespace> {
        let works = |ns: Namespace| self.keeps(ns.attribute(Mark::Opaque));
        let trusted = wanted != Some(true) && cred::may_administer() && works(Namespace::Trusted);
        if trusted {
            return Ok(Namespace::Trusted);
        }
        if wanted != Some(false) && works(Namespace::User) {
            return Ok(Namespace::User);
        }
        Err(Error::Setup(format!(
            "upperdir {:?} is on a filesystem that keeps no extended attributes for marks, and removed or moved things would come \
             back: use ext4, xfs, btrfs or a newer tmpfs",
            self.upper
        )))
    }

    fn maker(&self) -> Result<(u32, u32)> {
        let made = stat(self.temp.at()).call("statx")?;
        Ok((made.uid, made.gid))
    }

    /// Whether files and directories give a mark back: another overlay as the upper layer takes it, and hides it or obeys it.
    fn keeps(&self, attribute: &CStr) -> bool {
        let dir = self.workdir.temp();
        let kept = |at: At<'_>| {
            let value = b"stratafs";
            xattr::set(at, attribute, value, SetMode::Any)?;
            let is_listed = xattr::list(at)?.iter().any(|name| name.as_c_str() == attribute);
            let is_read = xattr::get(at, attribute)?.as_deref() == Some(value);
            xattr::remove(at, attribute)?;
            Ok(is_listed && is_read && xattr::get(at, attribute)?.is_none())
        };
        let kept_by_both =
            name::mkdir(dir.at(), 0o700).and_then(|()| Ok(kept(self.temp.at())? && kept(dir.at())?));
        kept_by_both.unwrap_or(false)
    }

    /// Whether the name `of` in the workdir is seen by who asks for it, and by who lists the directory.
    fn is_seen(&self, of: At<'_>) -> nix::Result<Option<Stat>> {
        let found = match stat(of) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let mut is_listed = false;
        crate::sys::dir::read(of.dir, false, |entry| {
            is_listed |= entry.name == of.name;
            Ok(())
        })?;
        Ok(is_listed.then_some(found))
    }

    /// Asked last: what was tried on may be elsewhere afterwards, or be a device. Each ability is judged by what is there after
    /// the call, for not everyone who takes a call heeds it. Source: kernel `ovl_check_rename_whiteout`.
    fn abilities(&self, whiteout_files: bool) -> Result<Abilities> {
        let (device, second) = (self.workdir.temp(), self.workdir.temp());
        let hard_links = name::link(self.temp.at(), second.at()).is_ok() && stat(second.at()).is_ok();
        let is_device = |at: At<'_>| {
            self.is_seen(at).is_ok_and(|found| found.is_some_and(|found| found.is_whiteout_device()))
        };
        let whiteout_devices = !whiteout_files
            && name::mknod(device.at(), libc::S_IFCHR, 0, 0).is_ok()
            && is_device(device.at());
        if !whiteout_devices {
            self.check_whiteout_files()?;
        }
        let rename_exchange = whiteout_devices
            && exchange(self.temp.at(), device.at()).is_ok()
            && is_device(self.temp.at())
            && !is_device(device.at());
        let (file, other) = if rename_exchange { (&device, &self.temp) } else { (&self.temp, &device) };
        let moved =
            whiteout_devices && name::rename(file.at(), other.at(), RenameFlags::RENAME_WHITEOUT).is_ok();
        let rename_whiteout = moved && is_device(file.at());
        Ok(Abilities { whiteout_devices, rename_whiteout, rename_exchange, hard_links })
    }

    /// Errors: `Setup` if the filesystem hides a `.wh.` file as well.
    fn check_whiteout_files(&self) -> Result<()> {
        let file = whiteout_file(OsStr::new("stratafs-probe"));
        let at = At::new(self.workdir.fd(), &file);
        let seen = match name::mknod(at, libc::S_IFREG, 0, 0) {
            Ok(()) | Err(Errno::EEXIST) => self.is_seen(at),
            Err(errno) => Err(errno),
        };
        // Left behind, it is swept by the next mount.
        let _ = name::unlink(at);
        match seen {
            Ok(Some(_)) => Ok(()),
            _ => Err(Error::Setup(format!(
                "upperdir {:?} is on a filesystem that keeps no whiteouts, neither char 0:0 nor `.wh.` files, as another overlay does, \
                 and removed things would come back: use a directory of ext4, xfs or btrfs",
                self.upper
            ))),
        }
    }
}

/// The readable descriptor on a filesystem that handles are opened through.
pub fn readable(dir: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    open::file(At::new(dir, OsStr::new(".")), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// What an upper directory holds that is seen by nobody: marks. Nothing if it shows a name.
fn only_marks(namespace: Namespace, dir: BorrowedFd<'_>) -> nix::Result<Option<bool>> {
    let mut marks = false;
    let mut names = false;
    crate::sys::dir::read(dir, false, |entry| {
        let at = At::new(dir, entry.name);
        let may_hide = |kind| matches!(kind, FileKind::Char | FileKind::Regular);
        let is_mark = mark::is_reserved(entry.name.as_bytes())
            || (entry.kind.is_none_or(may_hide) && probe::is_whiteout(namespace, at, &stat(at)?)?);
        marks |= is_mark;
        names |= !is_mark;
        Ok(())
    })?;
    Ok((!names).then_some(marks))
}

impl Upper {
    /// Whether the upper directory `dir` holds marks and nothing else; `NotEmpty` if it shows a name.
    pub fn holds_marks(&self, dir: BorrowedFd<'_>) -> Result<bool> {
        only_marks(self.namespace, dir).call("getdents64")?.ok_or(Error::NotEmpty)
    }

    /// A place in the workdir for what shall appear in the upper layer.
    pub fn temp(&self) -> super::workdir::Temp<'_> {
        self.workdir.temp()
    }

    /// Puts a prepared object into place: under a name that is free, or over a whiteout.
    /// Errors: `Exists` if the name was taken meanwhile.
    pub fn place(
        &self,
        temp: super::workdir::Temp<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        over_whiteout: bool,
    ) -> Result<()> {
        let to = At::new(dir, name);
        if !over_whiteout {
            move_dir(temp.at(), to, name::rename_new).call("renameat2")?;
            temp.placed();
            return Ok(());
        }
        // A directory cannot replace a device: they change places, and the whiteout goes with the temporary name.
        if self.abilities.rename_exchange {
            return move_dir(temp.at(), to, exchange).call("renameat2");
        }
        if stat(temp.at()).call("statx")?.kind == FileKind::Dir {
            // The name stays hidden while the device goes.
            match name::mknod(At::new(dir, &whiteout_file(name)), libc::S_IFREG, 0, 0) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(Error::Sys { call: "mknodat", errno }),
            }
            name::unlink(to).call("unlinkat")?;
            move_dir(temp.at(), to, name::rename_new).call("renameat2")?;
            temp.placed();
            return self.remove_whiteout_file(dir, name);
        }
        name::rename(temp.at(), to, RenameFlags::empty()).call("renameat2")?;
        temp.placed();
        Ok(())
    }
}
