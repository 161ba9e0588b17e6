//! The few system calls that neither `std` nor `nix` offers, and short forms of others.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag};

/// A path as the system calls want it.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Sets one extended attribute of the object itself, also of a symlink.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> nix::Result<()> {
    let (path, name) = (c_path(path), CString::new(name).unwrap());
    // SAFETY: both strings end in NUL and, like `value`, live through the call, which only reads them.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(done).map(drop)
}

/// Removes one extended attribute of the object itself.
pub fn remove_xattr(path: &Path, name: &str) -> nix::Result<()> {
    let (path, name) = (c_path(path), CString::new(name).unwrap());
    // SAFETY: both strings end in NUL and live through the call, which only reads them.
    let done = unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) };
    Errno::result(done).map(drop)
}

/// The value of one extended attribute of the object itself.
pub fn get_xattr(path: &Path, name: &str) -> nix::Result<Vec<u8>> {
    let (path, name) = (c_path(path), CString::new(name).unwrap());
    let mut value = vec![0u8; 65536];
    // SAFETY: the strings end in NUL and live through the call; it writes at most `value.len()` bytes to `value`.
    let got =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(Errno::result(got)? as usize);
    Ok(value)
}

/// Every extended attribute that the object lists, with its value.
pub fn xattrs(path: &Path) -> nix::Result<BTreeMap<String, Vec<u8>>> {
    let c = c_path(path);
    let mut names = vec![0u8; 65536];
    // SAFETY: the path ends in NUL and lives through the call; it writes at most `names.len()` bytes to `names`.
    let got = unsafe { libc::llistxattr(c.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(Errno::result(got)? as usize);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let value = get_xattr(path, &name)?;
            Ok((name, value))
        })
        .collect()
}

/// Makes a fifo, socket or device.
pub fn mknod(path: &Path, kind: SFlag, mode: u32, major: u64, minor: u64) -> nix::Result<()> {
    let device = nix::sys::stat::makedev(major, minor);
    nix::sys::stat::mknod(path, kind, Mode::from_bits_truncate(mode), device)
}

/// Sets the modification time of the object itself, in whole seconds.
pub fn set_mtime(path: &Path, seconds: i64) -> nix::Result<()> {
    use nix::sys::stat::{UtimensatFlags, utimensat};
    use nix::sys::time::TimeSpec;
    let time = TimeSpec::new(seconds, 0);
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
}

/// Renames with flags: exchange, or refusal to replace.
pub fn rename(from: &Path, to: &Path, flags: nix::fcntl::RenameFlags) -> nix::Result<()> {
    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, from, nix::fcntl::AT_FDCWD, to, flags)
}
