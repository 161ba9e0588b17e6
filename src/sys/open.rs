//! Opening: directories by `O_PATH`, files by flags, never outside the directory they are looked up in.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::{NixPath, Result};

use super::{At, proc_path, walk};

/// Opens the directory at `path`, relative to the process, as the root of a layer.
pub fn root(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens the directory at `path` as a place, by names of directories and symlinks alone: a path such as `/proc/self/fd/3` or
/// `/proc/self/cwd` would lead to what this process has open.
///
/// # Errors
///
/// `ELOOP` for such a path.
///
/// Source: openat2(2), `RESOLVE_NO_MAGICLINKS`.
pub fn by_names(path: &Path) -> Result<OwnedFd> {
    if !walk::kernel_resolves() {
        return walk::by_names(path);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    resolve(nix::fcntl::AT_FDCWD, path, flags, Mode::empty(), ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// A private view of the tree at `path`; with the mounts below it, if `recursive`. What is mounted there later does not
/// show in it. If `read_only`, nothing can be written through it, whatever the daemon does.
/// Errors: EPERM without privilege; ENOSYS on old kernels. Source: open_tree(2) `OPEN_TREE_CLONE`, mount_setattr(2).
pub fn clone(path: &Path, recursive: bool, read_only: bool) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    const AT_RECURSIVE: libc::c_uint = 0x8000;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let below = if recursive { AT_RECURSIVE } else { 0 };
    let raw = path.with_nix_path(|path| {
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | below;
        // SAFETY: `path` is a NUL-terminated string that lives through the call.
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) }
    })?;
    let raw = Errno::result(raw)?;
    // SAFETY: the call succeeded, so `raw` is a new descriptor that nobody else owns.
    let tree = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    let attr = MountAttr {
        attr_set: if read_only { MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: `attr` lives through the call and its size is given; the empty path means the descriptor itself.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint | below,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(done)?;
    Ok(tree)
}

/// As openat2(2), tried again while the kernel asks for it.
fn resolve<P: NixPath + ?Sized>(
    dir: BorrowedFd<'_>,
    path: &P,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    loop {
        match openat2(dir, path, how) {
            // EAGAIN: a rename elsewhere made the walk uncertain; the kernel asks to try again.
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            result => return result,
        }
    }
}

fn beneath(dir: BorrowedFd<'_>, path: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    if !walk::kernel_resolves() {
        return walk::beneath(dir, path, flags, mode, walk::Mounts::Entered);
    }
    let never =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    resolve(dir, path, flags, mode, never)
}

/// Opens the directory `path` below `dir` for use as a place; several components are allowed, symlinks are not.
pub fn dir(dir: BorrowedFd<'_>, path: &OsStr) -> Result<OwnedFd> {
    beneath(dir, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Opens the directory `path` below `dir` as above, but no mount. Errors: EXDEV where something is mounted on the way.
pub fn dir_of_mount(dir: BorrowedFd<'_>, path: &OsStr) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    if !walk::kernel_resolves() {
        return walk::beneath(dir, path, flags, Mode::empty(), walk::Mounts::Refused);
    }
    let never =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    resolve(dir, path, flags, Mode::empty(), never)
}

/// Opens whatever is at `at` for use as a place, not for reading.
pub fn path(at: At<'_>) -> Result<OwnedFd> {
    if at.is_fd() {
        return at
            .dir
            .try_clone_to_owned()
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)));
    }
    beneath(at.dir, at.name, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())
}

/// The object that `fd` is open on, for use as a place.
pub fn again_as_path(fd: &OwnedFd) -> Result<OwnedFd> {
    let at = At::fd(std::os::fd::AsFd::as_fd(fd));
    open(&proc_path(at), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens the file at `at`. `flags` are the access mode and what the caller's descriptor has; creation is `create`.
/// Interrupted waits (leases) are tried again. Only regular files and directories may be opened so: a fifo or a
/// device would act on being opened.
pub fn file(at: At<'_>, flags: OFlag) -> Result<OwnedFd> {
    if flags.contains(OFlag::O_TRUNC) {
        super::fault::point()?;
    }
    if at.is_fd() {
        return open(&proc_path(at), flags | OFlag::O_CLOEXEC, Mode::empty());
    }
    beneath(at.dir, at.name, flags | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Makes and opens a file that must not exist yet.
pub fn create(at: At<'_>, flags: OFlag, mode: u32) -> Result<OwnedFd> {
    super::fault::point()?;
    super::cred::admit(mode)?;
    beneath(at.dir, at.name, flags | OFlag::O_CREAT | OFlag::O_EXCL, Mode::from_bits_truncate(mode))
}
