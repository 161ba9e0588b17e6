//! Mounts: filesystems that are mounted nowhere, reached by a descriptor alone; and what a mount lets through.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::{NixPath, Result};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// The root of a new tmpfs with these options, as tmpfs(5) names them. Errors: EPERM without CAP_SYS_ADMIN in the user
/// namespace; EINVAL for an option that tmpfs does not take. Source: fsopen(2), fsconfig(2), fsmount(2).
pub fn tmpfs(options: &[(&str, String)]) -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated string that lives through the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let source = ("source", "stratafs".to_owned());
    for (key, value) in options.iter().chain([&source]) {
        let key = CString::new(*key).map_err(|_| Errno::EINVAL)?;
        let value = CString::new(value.as_str()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: key and value are NUL-terminated and live through the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        };
        Errno::result(done)?;
    }
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key and no value.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    Errno::result(made)?;
    // SAFETY: three numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

/// Lets changes through to the filesystem that is mounted at `mountpoint`, read-only so far. Everything else about the mount
/// stays. Errors: EPERM without CAP_SYS_ADMIN in the user namespace. Source: fspick(2), mount_setattr(2).
pub fn make_writable(mountpoint: &Path) -> Result<()> {
    const FSPICK_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_SET_FLAG: libc::c_uint = 0;
    const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let none = std::ptr::null::<libc::c_char>();
    let context = mountpoint.with_nix_path(|path| {
        // SAFETY: the path is a NUL-terminated string that lives through the call.
        owned(unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, path.as_ptr(), FSPICK_CLOEXEC) })
    })??;
    // SAFETY: the key is NUL-terminated, and a flag has no value.
    let set = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_FLAG, c"rw".as_ptr(), none, 0)
    };
    Errno::result(set)?;
    // SAFETY: this command takes no key and no value.
    let done = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE, none, none, 0)
    };
    Errno::result(done)?;
    let attr = [0u64, MOUNT_ATTR_RDONLY, 0, 0];
    let done = mountpoint.with_nix_path(|path| {
        // SAFETY: the path is NUL-terminated; `attr` is laid out as struct mount_attr (set, clear, propagation, user
        // namespace), lives through the call, and its size is given.
        unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                path.as_ptr(),
                0,
                attr.as_ptr(),
                size_of_val(&attr),
            )
        }
    })?;
    Errno::result(done).map(drop)
}

fn owned(raw: libc::c_long) -> Result<OwnedFd> {
    let raw = Errno::result(raw)?;
    // SAFETY: the call succeeded, so `raw` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}
