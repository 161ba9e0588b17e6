//! Filesystems that are mounted nowhere: reached by a descriptor alone, gone with the last one.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

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

fn owned(raw: libc::c_long) -> Result<OwnedFd> {
    let raw = Errno::result(raw)?;
    // SAFETY: the call succeeded, so `raw` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}
