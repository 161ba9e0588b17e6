//! One volume's directory, held by descriptor: its locks, its `meta.json`, its `_data`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, RenameFlags};

use super::meta::{Meta, VERSION};
use super::population::is_staging;
use crate::error::{Error, Result};
use crate::sys::{At, copy, name, open, stat};

pub(super) const DATA: &str = "_data";
const META: &str = "meta.json";
const META_NEW: &str = "meta.json.new";
/// Held while the volume changes.
pub(super) const LOCK: &str = "lock";
/// Held by who fills the volume.
pub(super) const FILL: &str = "fill.lock";
pub(super) const USERS: &str = "users";

/// A lock that goes with the value, or with the process.
pub(super) type Lock = Flock<File>;

/// One volume's directory.
#[derive(Debug)]
pub(super) struct Home {
    pub name: String,
    pub path: PathBuf,
    dir: OwnedFd,
}

impl Home {
    /// That of the volume `name` in the directory `volumes` at `path`. Nothing if there is none.
    pub fn open(volumes: BorrowedFd<'_>, path: &Path, name: &str) -> Result<Option<Home>> {
        let path = path.join(name);
        match open::dir(volumes, OsStr::new(name)) {
            Ok(dir) => Ok(Some(Home { name: name.to_owned(), path, dir })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::Setup(format!(
                "volume {name:?}: {path:?} cannot be opened ({}): make it a directory that you may enter",
                errno.desc()
            ))),
        }
    }

    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A name in it.
    pub fn at<'a>(&'a self, name: &'a str) -> At<'a> {
        At::new(self.dir.as_fd(), OsStr::new(name))
    }

    /// What is attached.
    pub fn data_path(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// What is attached, or what is mounted there. Errors: `Setup` if it is gone.
    pub fn data(&self) -> Result<OwnedFd> {
        // Beneath, but over a mount: the driver's.
        open::dir(self.dir(), OsStr::new(DATA)).map_err(|errno| {
            Error::Setup(format!(
                "volume {:?}: its directory {:?} cannot be opened ({}): bring it back, or remove the volume with \
                 `stratafs volume rm {}`",
                self.name,
                self.data_path(),
                errno.desc(),
                self.name
            ))
        })
    }

    /// A refusal of the disk, as a sentence.
    pub fn failed(&self, what: &str, errno: Errno) -> Error {
        Error::Setup(format!(
            "volume {:?}: {what} ({}): see to {:?} and its filesystem",
            self.name,
            errno.desc(),
            self.path
        ))
    }

    /// Waits for the lock under which the volume changes. Nothing if the volume was removed meanwhile.
    pub fn lock(&self, volumes: BorrowedFd<'_>) -> Result<Option<Lock>> {
        let lock = self.take(LOCK, FlockArg::LockExclusive)?;
        let has_its_name = self.has_its_name(volumes)?;
        Ok(lock.filter(|_| has_its_name))
    }

    /// Whether the name still leads to this volume, and not to nothing or to the next one that got it.
    pub fn has_its_name(&self, volumes: BorrowedFd<'_>) -> Result<bool> {
        let now = stat::stat(At::new(volumes, OsStr::new(&self.name)));
        let own = stat::stat(At::fd(self.dir())).map_err(|errno| self.failed("it cannot be seen", errno))?;
        Ok(now.is_ok_and(|now| (now.dev, now.ino) == (own.dev, own.ino)))
    }

    /// The right to fill the volume; nothing if another has it.
    pub fn try_fill(&self) -> Result<Option<Lock>> {
        self.take(FILL, FlockArg::LockExclusiveNonblock)
    }

    /// Waits until nobody fills the volume.
    pub fn wait_for_fill(&self) -> Result<()> {
        self.take(FILL, FlockArg::LockShared).map(drop)
    }

    fn take(&self, name: &str, how: FlockArg) -> Result<Option<Lock>> {
        let failed = |errno| self.failed(&format!("its file `{name}` cannot be locked"), errno);
        let file = match open::file(self.at(name), OFlag::O_RDWR) {
            // Somebody has tidied up.
            Err(Errno::ENOENT) => match open::create(self.at(name), OFlag::O_RDWR, 0o600) {
                Err(Errno::EEXIST) => open::file(self.at(name), OFlag::O_RDWR),
                made => made,
            },
            opened => opened,
        };
        lock_file(file.map(File::from).map_err(failed)?, how).map_err(failed)
    }

    /// What the volume is. Errors: `Setup` if that cannot be told, with the file and the remedy.
    pub fn meta(&self) -> Result<Meta> {
        let path = self.path.join(META);
        let broken = |why: String| {
            Error::Setup(format!(
                "volume {:?}: {path:?} {why}: bring the file back from a copy, or save {:?} and remove the volume with \
                 `stratafs volume rm -f {}`",
                self.name,
                self.data_path(),
                self.name
            ))
        };
        let mut text = Vec::new();
        let file = open::file(self.at(META), OFlag::O_RDONLY)
            .map_err(|errno| broken(format!("cannot be read ({})", errno.desc())))?;
        File::from(file)
            .read_to_end(&mut text)
            .map_err(|error| broken(format!("cannot be read ({error})")))?;
        let meta: Meta =
            serde_json::from_slice(&text).map_err(|error| broken(format!("is broken ({error})")))?;
        if meta.version > VERSION {
            let version = meta.version;
            return Err(Error::Setup(format!(
                "volume {:?}: {path:?} has version {version}, and this program reads up to {VERSION}: use a later stratafs",
                self.name
            )));
        }
        if meta.name != self.name {
            return Err(broken(format!("is that of a volume {:?}", meta.name)));
        }
        if let Some(forged) = meta.population.as_ref().filter(|population| !is_staging(population)) {
            return Err(broken(format!(
                "has the `Staging` directory {:?}, which stratafs never makes",
                forged.staging
            )));
        }
        Ok(meta)
    }

    /// Writes `meta.json` anew, in one step. Only who holds `fill.lock`, or makes the volume, may.
    pub fn write_meta(&self, meta: &Meta) -> Result<()> {
        let failed = |errno| self.failed("its meta.json cannot be written", errno);
        let mut text = serde_json::to_vec_pretty(meta).map_err(|_| Error::Bug("a volume that is no JSON"))?;
        text.push(b'\n');
        let write = || {
            match name::unlink(self.at(META_NEW)) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            let file = open::create(self.at(META_NEW), OFlag::O_WRONLY, 0o600)?;
            if copy::pwrite(file.as_fd(), &text, 0)? < text.len() {
                return Err(Errno::ENOSPC);
            }
            // The bytes before the name: a name without its bytes would be a broken volume.
            copy::sync(file.as_fd(), false)?;
            name::rename(self.at(META_NEW), self.at(META), RenameFlags::empty())?;
            name::sync_dir(self.dir())
        };
        write().map_err(failed)
    }
}

/// Takes a lock on an open file; nothing if it is not to be waited for and somebody has it.
pub(super) fn lock_file(mut file: File, how: FlockArg) -> nix::Result<Option<Lock>> {
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((same, Errno::EINTR)) => file = same,
            Err((_, errno)) => return Err(errno),
        }
    }
}
