//! The wall: every system call of the layers goes through here, and all `unsafe` lives here.
//!
//! A wrapper does one call, takes descriptors and names, and returns a value or an errno; what an errno means is
//! decided above. Calls that change the disk begin with `fault::point`. An object is named by `At`: a directory and
//! one name in it, or, with an empty name, the descriptor itself. A path is never resolved twice.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

pub mod attr;
pub mod clock;
pub mod copy;
pub mod cred;
pub mod dir;
pub mod fault;
pub mod handle;
pub mod mount;
pub mod name;
pub mod open;
pub mod process;
pub mod program;
pub mod socket;
pub mod stat;
mod walk;
pub mod xattr;

/// An object: a name in an open directory, never followed if it is a symlink; with an empty name the descriptor's own.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The directory, or the object itself. `O_PATH` is enough.
    pub dir: BorrowedFd<'a>,
    /// One component, or nothing.
    pub name: &'a OsStr,
}

impl<'a> At<'a> {
    /// `name` in `dir`.
    pub fn new(dir: BorrowedFd<'a>, name: &'a OsStr) -> At<'a> {
        At { dir, name }
    }

    /// The object that `fd` is open on.
    pub fn fd(fd: BorrowedFd<'a>) -> At<'a> {
        At { dir: fd, name: OsStr::new("") }
    }

    fn is_fd(&self) -> bool {
        self.name.is_empty()
    }
}

/// Whether the kernel serves a system call, by how it answers one that names the descriptor -1: a filter of system calls answers
/// EPERM, or ENOSYS as a kernel without it.
fn is_served(call: impl FnOnce() -> libc::c_long) -> bool {
    use nix::errno::Errno;
    Errno::result(call()) == Err(Errno::EBADF)
}

/// The path that leads to an object through this process' descriptors, for calls that take no descriptor.
fn proc_path(at: At<'_>) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    let mut path = std::path::PathBuf::from(format!("/proc/self/fd/{}", at.dir.as_raw_fd()));
    if !at.is_fd() {
        path.push(at.name);
    }
    path
}
