//! Names: making, linking, moving and removing them.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, RenameFlags};
use nix::sys::stat::{Mode, SFlag, makedev};
use nix::unistd::UnlinkatFlags;
use nix::{NixPath, Result};

use super::{At, cred, fault, proc_path};

/// Makes a directory.
pub fn mkdir(at: At<'_>, mode: u32) -> Result<()> {
    fault::point()?;
    cred::admit(mode)?;
    nix::sys::stat::mkdirat(at.dir, at.name, Mode::from_bits_truncate(mode))
}

/// Makes a file, fifo, socket or device; `mode` has the format bits.
pub fn mknod(at: At<'_>, mode: u32, major: u32, minor: u32) -> Result<()> {
    fault::point()?;
    let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
    let perm = Mode::from_bits_truncate(mode & 0o7777);
    cred::admit(mode & 0o7777)?;
    nix::sys::stat::mknodat(at.dir, at.name, kind, perm, makedev(u64::from(major), u64::from(minor)))
}

/// Makes a symlink to `target`.
pub fn symlink(target: &OsStr, at: At<'_>) -> Result<()> {
    fault::point()?;
    nix::unistd::symlinkat(target, at.dir, at.name)
}

/// Where the symlink leads.
pub fn readlink(at: At<'_>) -> Result<std::ffi::OsString> {
    nix::fcntl::readlinkat(at.dir, at.name)
}

/// Gives the object at `from` the further name `to`. A symlink is linked itself. An object known by descriptor only
/// needs `CAP_DAC_READ_SEARCH` or `/proc`. Errors: EEXIST.
pub fn link(from: At<'_>, to: At<'_>) -> Result<()> {
    fault::point()?;
    if from.is_fd() {
        return match nix::unistd::linkat(from.dir, "", to.dir, to.name, AtFlags::AT_EMPTY_PATH) {
            Err(Errno::ENOENT | Errno::EPERM) => {
                let path = proc_path(from);
                nix::unistd::linkat(nix::fcntl::AT_FDCWD, &path, to.dir, to.name, AtFlags::AT_SYMLINK_FOLLOW)
            }
            result => result,
        };
    }
    nix::unistd::linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty())
}

/// Removes a name that is not a directory's.
pub fn unlink(at: At<'_>) -> Result<()> {
    fault::point()?;
    nix::unistd::unlinkat(at.dir, at.name, UnlinkatFlags::NoRemoveDir)
}

/// Removes an empty directory.
pub fn rmdir(at: At<'_>) -> Result<()> {
    fault::point()?;
    nix::unistd::unlinkat(at.dir, at.name, UnlinkatFlags::RemoveDir)
}

/// Moves `from` to `to`. Source: rename(2).
pub fn rename(from: At<'_>, to: At<'_>, flags: RenameFlags) -> Result<()> {
    fault::point()?;
    if flags.is_empty() {
        return nix::fcntl::renameat(from.dir, from.name, to.dir, to.name);
    }
    // glibc's wrapper answers EINVAL for flags on some old kernels; the call itself is asked.
    let done = from.name.with_nix_path(|from_name| {
        to.name.with_nix_path(|to_name| {
            // SAFETY: both names are NUL-terminated and live through the call.
            unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    from.dir.as_raw_fd(),
                    from_name.as_ptr(),
                    to.dir.as_raw_fd(),
                    to_name.as_ptr(),
                    flags.bits(),
                )
            }
        })
    })??;
    Errno::result(done).map(drop)
}

/// Moves `from` to the name `to`, which nobody has. Errors: EEXIST.
pub fn rename_new(from: At<'_>, to: At<'_>) -> Result<()> {
    match rename(from, to, RenameFlags::RENAME_NOREPLACE) {
        // Network filesystems and mergerfs do not know the flag. Looking first is as near as they can come.
        Err(Errno::EINVAL | Errno::ENOSYS) => match super::stat::stat(to) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => rename(from, to, RenameFlags::empty()),
            Err(errno) => Err(errno),
        },
        result => result,
    }
}

/// Writes a directory's names to the disk.
pub fn sync_dir(dir: BorrowedFd<'_>) -> Result<()> {
    fault::point()?;
    let readable = super::open::file(
        At::new(dir, OsStr::new(".")),
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY,
    )?;
    nix::unistd::fsync(&readable)
}
