//! Extended attributes of any object, without opening it.
//!
//! Linux 6.13 has calls that take a directory and a name; before it the way leads through `/proc/self/fd`.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::{NixPath, Result};

use super::{At, fault, proc_path};

const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Whether an attribute must or must not exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// Either.
    Any,
    /// It must be new: EEXIST.
    Create,
    /// It must exist: ENODATA.
    Replace,
}

impl SetMode {
    fn flags(self) -> i32 {
        match self {
            SetMode::Any => 0,
            SetMode::Create => libc::XATTR_CREATE,
            SetMode::Replace => libc::XATTR_REPLACE,
        }
    }
}

const AT_FLAGS: libc::c_uint = libc::AT_SYMLINK_NOFOLLOW as libc::c_uint;

/// The new calls do not take an `O_PATH` descriptor itself, but a name in it: a directory is its own dot.
fn name_of(at: At<'_>) -> &std::ffi::OsStr {
    if at.is_fd() { std::ffi::OsStr::new(".") } else { at.name }
}

/// Runs the new call, and the old one where the new one is missing, or cannot name the object.
fn either<T>(at: At<'_>, new: impl FnOnce() -> Result<T>, old: impl FnOnce() -> Result<T>) -> Result<T> {
    if has_xattrat() {
        match new() {
            // It is no directory, or one that may not be entered, of which the caller has a descriptor all the same.
            Err(Errno::ENOTDIR | Errno::EACCES) if at.is_fd() => {}
            result => return result,
        }
    }
    old()
}

/// Whether the new calls are here (Linux 6.13), and no filter of system calls keeps them away.
fn has_xattrat() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let args = XattrArgs { value: 0, size: 0, flags: 0 };
        // SAFETY: the strings are NUL-terminated and `args` names no memory; all live through the call.
        super::is_served(|| unsafe {
            let (name, size) = (c"user.x".as_ptr(), size_of::<XattrArgs>());
            libc::syscall(SYS_GETXATTRAT, -1, c"x".as_ptr(), AT_FLAGS, name, &raw const args, size)
        })
    })
}

/// A descriptor's own path leads through a magic link, which must be followed; a name in it must not.
fn follows(at: At<'_>) -> bool {
    at.is_fd()
}

/// Reads the attribute into `value`; the number of bytes it has. An empty `value` asks for the size only.
/// Errors: ENODATA; ERANGE if it does not fit; EOPNOTSUPP where the filesystem has none.
pub fn get_into(at: At<'_>, attribute: &CStr, value: &mut [u8]) -> Result<usize> {
    let (room, len) = (value.as_mut_ptr(), value.len());
    either(
        at,
        || {
            let args = XattrArgs { value: room as u64, size: len as u32, flags: 0 };
            let got = name_of(at).with_nix_path(|name| {
                // SAFETY: names are NUL-terminated, `args` names `value` and its length; all live through the call.
                unsafe {
                    libc::syscall(
                        SYS_GETXATTRAT,
                        at.dir.as_raw_fd(),
                        name.as_ptr(),
                        AT_FLAGS,
                        attribute.as_ptr(),
                        &raw const args,
                        size_of::<XattrArgs>(),
                    )
                }
            })?;
            Errno::result(got).map(|n| n as usize)
        },
        || {
            let got = proc_path(at).with_nix_path(|path| {
                let call = if follows(at) { libc::getxattr } else { libc::lgetxattr };
                // SAFETY: strings are NUL-terminated, `value` is writable for its length; all live through the call.
                unsafe { call(path.as_ptr(), attribute.as_ptr(), room.cast(), len) }
            })?;
            Errno::result(got).map(|n| n as usize)
        },
    )
}

/// The attribute's value; nothing if there is none, or the filesystem has no attributes. Errors: EACCES if the object's
/// mode forbids to read an attribute that is there.
pub fn get(at: At<'_>, attribute: &CStr) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 256];
    loop {
        match get_into(at, attribute, &mut value) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno::ERANGE) => value.resize(get_into(at, attribute, &mut [])?.max(256), 0),
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => return Ok(None),
            // Asking for a value needs the right to read, asking for names does not.
            Err(Errno::EACCES) if !list(at)?.iter().any(|name| name.as_c_str() == attribute) => {
                return Ok(None);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Sets the attribute.
pub fn set(at: At<'_>, attribute: &CStr, value: &[u8], mode: SetMode) -> Result<()> {
    fault::point()?;
    either(
        at,
        || {
            let args = XattrArgs {
                value: value.as_ptr() as u64,
                size: u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?,
                flags: mode.flags() as u32,
            };
            let done = name_of(at).with_nix_path(|name| {
                // SAFETY: names are NUL-terminated, `args` names `value` and its length; all live through the call.
                unsafe {
                    libc::syscall(
                        SYS_SETXATTRAT,
                        at.dir.as_raw_fd(),
                        name.as_ptr(),
                        AT_FLAGS,
                        attribute.as_ptr(),
                        &raw const args,
                        size_of::<XattrArgs>(),
                    )
                }
            })?;
            Errno::result(done).map(drop)
        },
        || {
            let done = proc_path(at).with_nix_path(|path| {
                let call = if follows(at) { libc::setxattr } else { libc::lsetxattr };
                // SAFETY: strings are NUL-terminated, `value` is readable for its length; all live through the call.
                unsafe {
                    call(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), mode.flags())
                }
            })?;
            Errno::result(done).map(drop)
        },
    )
}

/// Removes the attribute. Errors: ENODATA.
pub fn remove(at: At<'_>, attribute: &CStr) -> Result<()> {
    fault::point()?;
    either(
        at,
        || {
            let done = name_of(at).with_nix_path(|name| {
                // SAFETY: both strings are NUL-terminated and live through the call.
                unsafe {
                    libc::syscall(
                        SYS_REMOVEXATTRAT,
                        at.dir.as_raw_fd(),
                        name.as_ptr(),
                        AT_FLAGS,
                        attribute.as_ptr(),
                    )
                }
            })?;
            Errno::result(done).map(drop)
        },
        || {
            let done = proc_path(at).with_nix_path(|path| {
                let call = if follows(at) { libc::removexattr } else { libc::lremovexattr };
                // SAFETY: both strings are NUL-terminated and live through the call.
                unsafe { call(path.as_ptr(), attribute.as_ptr()) }
            })?;
            Errno::result(done).map(drop)
        },
    )
}

fn list_into(at: At<'_>, buffer: &mut [u8]) -> Result<usize> {
    let (room, len) = (buffer.as_mut_ptr(), buffer.len());
    either(
        at,
        || {
            let got = name_of(at).with_nix_path(|name| {
                // SAFETY: `name` is NUL-terminated, `buffer` writable for its length; both live through the call.
                unsafe {
                    libc::syscall(SYS_LISTXATTRAT, at.dir.as_raw_fd(), name.as_ptr(), AT_FLAGS, room, len)
                }
            })?;
            Errno::result(got).map(|n| n as usize)
        },
        || {
            let got = proc_path(at).with_nix_path(|path| {
                let call = if follows(at) { libc::listxattr } else { libc::llistxattr };
                // SAFETY: `path` is NUL-terminated, `buffer` writable for its length; both live through the call.
                unsafe { call(path.as_ptr(), room.cast(), len) }
            })?;
            Errno::result(got).map(|n| n as usize)
        },
    )
}

/// The names of all attributes; none where the filesystem has no attributes.
pub fn list(at: At<'_>) -> Result<Vec<CString>> {
    let mut buffer = [0u8; 1024];
    let got = match list_into(at, &mut buffer) {
        Ok(got) => return Ok(split(buffer.get(..got).unwrap_or_default())),
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::ERANGE) => list_into(at, &mut [])?,
        Err(errno) => return Err(errno),
    };
    // Never empty: with no room at all the call would tell the size again, and fill nothing in.
    let mut buffer = vec![0u8; got.max(1)];
    loop {
        match list_into(at, &mut buffer) {
            Ok(got) => return Ok(split(buffer.get(..got).unwrap_or_default())),
            Err(Errno::ERANGE) => buffer.resize(buffer.len() * 2, 0),
            Err(errno) => return Err(errno),
        }
    }
}

fn split(names: &[u8]) -> Vec<CString> {
    names
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect()
}
