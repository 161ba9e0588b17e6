//! Who uses a volume: one small file per user in `users/`, locked while the user lives, however it ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag, RenameFlags};
use serde::{Deserialize, Serialize};

use super::home::{Home, Lock, USERS, lock_file};
use crate::error::{Error, Result};
use crate::sys::{At, copy, dir, name, open};

/// One user of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct User {
    /// Where it is mounted, for people to read.
    pub mountpoint: String,
    /// The process.
    pub pid: u32,
    /// Whose mounts the process sees: the inode of its `/proc/self/ns/mnt`.
    pub(super) namespace: u64,
}

/// A record that is kept as long as this value lives.
#[derive(Debug)]
pub(super) struct Kept {
    dir: OwnedFd,
    file: OsString,
    _lock: Lock,
}

/// Whose mounts this thread sees. Zero without /proc: then all are taken to see the same.
pub(super) fn namespace() -> u64 {
    std::fs::metadata("/proc/thread-self/ns/mnt").map_or(0, |facts| facts.ino())
}

/// Records this process as a user. Locks: the volume's lock is held.
pub(super) fn add_locked(home: &Home, mountpoint: &Path) -> Result<Kept> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let failed = |errno| home.failed("its list of users cannot be written", errno);
    let pid = std::process::id();
    let user = User { mountpoint: mountpoint.to_string_lossy().into_owned(), pid, namespace: namespace() };
    let text = serde_json::to_vec(&user).map_err(|_| Error::Bug("a user that is no JSON"))?;
    let write = || {
        match name::mkdir(home.at(USERS), 0o700) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let dir = open::dir(home.dir(), OsStr::new(USERS))?;
        let file = OsString::from(format!("{pid}.{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let fresh = OsString::from(format!(".{}", file.to_string_lossy()));
        let at = |name| At::new(dir.as_fd(), name);
        match name::unlink(at(&fresh)) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let made = open::create(at(&fresh), OFlag::O_RDWR, 0o600)?;
        if copy::pwrite(made.as_fd(), &text, 0)? < text.len() {
            return Err(Errno::ENOSPC);
        }
        let lock = lock_file(File::from(made), FlockArg::LockExclusiveNonblock)?.ok_or(Errno::EWOULDBLOCK)?;
        // Seen only when it is complete and locked: before, it would look like a dead one's.
        name::rename(at(&fresh), at(&file), RenameFlags::empty())?;
        Ok(Kept { dir, file, _lock: lock })
    };
    write().map_err(failed)
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A record left behind is unlocked, and so says itself that it is a dead one's.
        let _ = name::unlink(At::new(self.dir.as_fd(), &self.file));
    }
}

/// Who lives, by mountpoint.
pub(super) fn all(home: &Home) -> Result<Vec<User>> {
    look(home, false)
}

/// The same, and takes the records of the dead away. Locks: the volume's lock is held, so none of them is being made.
pub(super) fn all_locked(home: &Home) -> Result<Vec<User>> {
    look(home, true)
}

fn look(home: &Home, locked: bool) -> Result<Vec<User>> {
    let failed = |errno| home.failed("its list of users cannot be read", errno);
    let users = match open::dir(home.dir(), OsStr::new(USERS)) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        result => result.map_err(failed)?,
    };
    let mut names = Vec::new();
    dir::read(users.as_fd(), false, |entry| {
        // A dot: it is being made under the volume's lock, and a probe must not come between it and its own lock.
        if locked || !entry.name.as_encoded_bytes().starts_with(b".") {
            names.push(entry.name.to_owned());
        }
        Ok(())
    })
    .map_err(failed)?;
    let mut living = Vec::new();
    for name in &names {
        let at = At::new(users.as_fd(), name);
        let mut file = match open::file(at, OFlag::O_RDWR) {
            Err(Errno::ENOENT) => continue,
            result => File::from(result.map_err(failed)?),
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text)
            .map_err(|error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
        // The lock of a probe is given back at once, and shared, so that two probes do not take each other for a user.
        match lock_file(file, FlockArg::LockSharedNonblock).map_err(failed)? {
            // A record that stays is a dead one's the next time too.
            Some(_) if locked => drop(name::unlink(at)),
            Some(_) => {}
            None => living.push(serde_json::from_slice(&text).unwrap_or_else(|_| User {
                mountpoint: format!("unknown, see {:?}", home.path.join(USERS).join(name)),
                pid: 0,
                namespace: 0,
            })),
        }
    }
    living.sort_by(|a: &User, b| (&a.mountpoint, a.pid).cmp(&(&b.mountpoint, b.pid)));
    Ok(living)
}
