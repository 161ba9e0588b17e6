//! Owner, mode, times, size and flags of an object.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::{NixPath, Result};

use parking_lot::ReentrantMutex;

use super::stat::{Timestamp, stat};
use super::{At, cred, fault, open, proc_path};
use crate::merge::listing::FileKind;

/// What a time is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// It stays.
    Omit,
    /// The filesystem's clock says.
    Now,
    /// This.
    To(Timestamp),
}

/// Held while a mode is set, so that one which is lifted for a moment is not put back over a newer one.
static MODES: ReentrantMutex<()> = ReentrantMutex::new(());

/// Sets the permission, set-id and sticky bits. The object must not be a symlink.
pub fn chmod(at: At<'_>, mode: u32) -> Result<()> {
    fault::point()?;
    let _modes = MODES.lock();
    chmod_locked(at, mode)
}

/// Runs `call`; if the mode of the object keeps even its owner from it, which stops a daemon without privilege, runs it
/// again with a mode that does not. For objects of the upper layer only, and for marks only: they are the layer's affair
/// and no user's. Errors: EACCES if the daemon is not the owner either.
pub fn with_owner_access<T>(at: At<'_>, mut call: impl FnMut() -> Result<T>) -> Result<T> {
    match call() {
        Err(Errno::EACCES) => {}
        result => return result,
    }
    let _modes = MODES.lock();
    let before = stat(at)?;
    let lifted = before.mode | if before.kind == FileKind::Dir { 0o700 } else { 0o600 };
    chmod_locked(at, lifted).map_err(|_| Errno::EACCES)?;
    let result = call();
    chmod_locked(at, before.mode)?;
    result
}

/// Runs `call`, which changes names in the directory at `at` or moves it, with a mode that lets its owner do so. As
/// above: for copy-up and marks only.
pub fn with_owner_writing<T>(at: At<'_>, call: impl FnOnce() -> T) -> Result<T> {
    if cred::may_override_modes() {
        return Ok(call());
    }
    let _modes = MODES.lock();
    let before = stat(at)?;
    if before.kind != FileKind::Dir || before.mode & 0o300 == 0o300 {
        return Ok(call());
    }
    // Not the owner: the call itself says what is wrong.
    let lifted = chmod_locked(at, before.mode | 0o300).is_ok();
    let result = call();
    if lifted {
        chmod_locked(at, before.mode)?;
    }
    Ok(result)
}

fn chmod_locked(at: At<'_>, mode: u32) -> Result<()> {
    if !has_fchmodat2() {
        let object = open::path(at)?;
        use std::os::fd::AsFd;
        let path = proc_path(At::fd(object.as_fd()));
        // SAFETY: the path is NUL-terminated and lives through the call.
        let done = path.with_nix_path(|path| unsafe { libc::chmod(path.as_ptr(), mode) })?;
        return Errno::result(done).map(drop);
    }
    let flags = if at.is_fd() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW };
    let done = at.name.with_nix_path(|name| {
        // SAFETY: `name` is NUL-terminated and lives through the call.
        unsafe { libc::syscall(libc::SYS_fchmodat2, at.dir.as_raw_fd(), name.as_ptr(), mode, flags) }
    })?;
    Errno::result(done).map(drop)
}

/// Whether the call is here (Linux 6.6), and no filter of system calls keeps it away.
fn has_fchmodat2() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // SAFETY: the name is NUL-terminated and lives through the call.
        super::is_served(|| unsafe { libc::syscall(libc::SYS_fchmodat2, -1, c"x".as_ptr(), 0, 0) })
    })
}

/// Sets owner and group; nothing leaves one as it is. Clears set-id bits and capabilities of files, as chown(2) does.
pub fn chown(at: At<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    fault::point()?;
    const KEEP: u32 = u32::MAX;
    let done = at.name.with_nix_path(|name| {
        // SAFETY: `name` is NUL-terminated and lives through the call.
        unsafe {
            libc::fchownat(
                at.dir.as_raw_fd(),
                name.as_ptr(),
                uid.unwrap_or(KEEP),
                gid.unwrap_or(KEEP),
                libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH,
            )
        }
    })?;
    Errno::result(done).map(drop)
}

/// Sets the times of last access and of last write.
pub fn utimens(at: At<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    fault::point()?;
    let spec = |time: SetTime| match time {
        SetTime::Omit => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        SetTime::Now => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        SetTime::To(t) => libc::timespec { tv_sec: t.secs, tv_nsec: i64::from(t.nanos) },
    };
    let times = [spec(atime), spec(mtime)];
    let flags = if at.is_fd() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW };
    let done = at.name.with_nix_path(|name| {
        // SAFETY: `name` is NUL-terminated, `times` are two; both live through the call.
        unsafe { libc::utimensat(at.dir.as_raw_fd(), name.as_ptr(), times.as_ptr(), flags) }
    })?;
    Errno::result(done).map(drop)
}

/// Sets the size of an open file.
pub fn truncate(file: BorrowedFd<'_>, size: u64) -> Result<()> {
    fault::point()?;
    let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
    nix::unistd::ftruncate(file, size)
}

/// Inode flags. Source: linux/fs.h, `FS_*_FL`; chattr(1).
pub mod flag {
    /// `S`: written at once.
    pub const SYNC: u32 = 0x08;
    /// `i`: no change.
    pub const IMMUTABLE: u32 = 0x10;
    /// `a`: appends only.
    pub const APPEND: u32 = 0x20;
    /// `d`: left out by dump(8).
    pub const NODUMP: u32 = 0x40;
    /// `A`: reading leaves no time.
    pub const NOATIME: u32 = 0x80;
}

/// Reads the inode flags (`lsattr`) of an open object.
pub fn flags(file: BorrowedFd<'_>) -> Result<u32> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the call writes one int to `flags`, which lives through it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    Errno::result(done).map(|_| flags as u32)
}

/// `struct fsxattr`: flags, extent size, project. Source: linux/fs.h.
pub type Extended = [u32; 7];

/// Asks for what `lsattr -p` shows besides the flags. Source: linux/fs.h, `_IOR('X', 31, struct fsxattr)`.
pub const GET_EXTENDED: u32 = 0x801c_581f;

/// Reads the extended inode flags of an open object.
pub fn extended(file: BorrowedFd<'_>) -> Result<Extended> {
    let mut extended = Extended::default();
    // SAFETY: the call writes one `struct fsxattr`, 28 bytes, to `extended`, which has as many and lives through it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), GET_EXTENDED.into(), &raw mut extended) };
    Errno::result(done).map(|_| extended)
}

/// Sets the inode flags (`chattr`) of an open object.
pub fn set_flags(file: BorrowedFd<'_>, flags: u32) -> Result<()> {
    fault::point()?;
    let flags = flags as libc::c_int;
    // SAFETY: the call reads one int from `flags`, which lives through it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    Errno::result(done).map(drop)
}
