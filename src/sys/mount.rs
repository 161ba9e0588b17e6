//! Mounts: filesystems that are mounted nowhere, reached by a descriptor alone; and what a mount lets through.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::{NixPath, Result};

use super::{At, open, proc_path};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// The root of a new tmpfs with these options, as tmpfs(5) names them. Errors: EPERM without CAP_SYS_ADMIN in the user
/// namespace; EINVAL for an option that tmpfs does not take. Source: fsopen(2), fsconfig(2), fsmount(2), since Linux 5.2.
pub fn tmpfs(options: &[(&str, String)]) -> Result<OwnedFd> {
    match detached_tmpfs(options) {
        Err(Errno::ENOSYS) => tmpfs_taken_off(options),
        made => made,
    }
}

/// A tmpfs that is mounted on a private directory, opened there, and detached again. The descriptor keeps it.
/// Source: umount2(2), `MNT_DETACH`.
fn tmpfs_taken_off(options: &[(&str, String)]) -> Result<OwnedFd> {
    let errno_of = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let on = tempfile::tempdir().map_err(errno_of)?;
    let data: Vec<String> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let flags = MsFlags::empty();
    mount(Some("stratafs"), on.path(), Some("tmpfs"), flags, Some(data.join(",").as_str()))?;
    let root = open::root(on.path());
    umount2(on.path(), MntFlags::MNT_DETACH)?;
    root
}

fn detached_tmpfs(options: &[(&str, String)]) -> Result<OwnedFd> {
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
/// stays. Errors: EPERM without CAP_SYS_ADMIN in the user namespace. Source: fspick(2), since Linux 5.2; mount_setattr(2), since
/// 5.12.
pub fn make_writable(mountpoint: &Path) -> Result<()> {
    match reconfigure_writable(mountpoint).and_then(|()| set_attributes(mountpoint, 0, MOUNT_ATTR_RDONLY)) {
        Err(Errno::ENOSYS) => remount(mountpoint, flags_of(mountpoint)? - MsFlags::MS_RDONLY),
        done => done,
    }
}

fn reconfigure_writable(mountpoint: &Path) -> Result<()> {
    const FSPICK_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_SET_FLAG: libc::c_uint = 0;
    const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
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
    Errno::result(done).map(drop)
}

/// Gives the mount at `mountpoint`, and the filesystem on it, these flags of mount(2) and no others.
///
/// # Errors
///
/// `EBUSY` if it becomes read-only while a file is open for writing, `EPERM` without CAP_SYS_ADMIN.
///
/// Source: mount(2), `MS_REMOUNT`.
pub fn remount(mountpoint: &Path, flags: MsFlags) -> Result<()> {
    mount(None::<&Path>, mountpoint, None::<&Path>, MsFlags::MS_REMOUNT | flags, None::<&Path>)
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Lets the kernel follow no symlink of the filesystem that is mounted at `mountpoint`.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN in the user namespace.
///
/// Source: mount_setattr(2), `MOUNT_ATTR_NOSYMFOLLOW`, since Linux 5.12; mount(2), `MS_NOSYMFOLLOW`, since 5.10.
pub fn forbid_symlinks(mountpoint: &Path) -> Result<()> {
    match set_attributes(mountpoint, MOUNT_ATTR_NOSYMFOLLOW, 0) {
        Err(Errno::ENOSYS) => {
            const MS_NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(0x100);
            remount(mountpoint, flags_of(mountpoint)? | MsFlags::MS_BIND | MS_NOSYMFOLLOW)
        }
        done => done,
    }
}

/// The flags of mount(2) that the mount at `mountpoint` has. Errors: ENOENT where nothing is mounted. Source:
/// proc_pid_mountinfo(5).
fn flags_of(mountpoint: &Path) -> Result<MsFlags> {
    const NAMES: [(&[u8], MsFlags); 8] = [
        (b"ro", MsFlags::MS_RDONLY),
        (b"nosuid", MsFlags::MS_NOSUID),
        (b"nodev", MsFlags::MS_NODEV),
        (b"noexec", MsFlags::MS_NOEXEC),
        (b"noatime", MsFlags::MS_NOATIME),
        (b"nodiratime", MsFlags::MS_NODIRATIME),
        (b"relatime", MsFlags::MS_RELATIME),
        (b"nosymfollow", MsFlags::from_bits_retain(0x100)),
    ];
    let table = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let words = table.split(|&byte| byte == b'\n').rev().find_map(|line| {
        let mut words = line.split(|&byte| byte == b' ').skip(4);
        let at = unescaped(words.next()?);
        (at == mountpoint.as_os_str().as_bytes()).then(|| words.next())?
    });
    let words = words.ok_or(Errno::ENOENT)?.split(|&byte| byte == b',');
    let flag = |word| NAMES.iter().find(|(name, _)| *name == word).map(|(_, flag)| *flag);
    Ok(words.filter_map(flag).collect())
}

fn set_attributes(mountpoint: &Path, set: u64, clear: u64) -> Result<()> {
    let attr = [set, clear, 0, 0];
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

/// Mounts a filesystem of the kernel on the directory `on`. No program runs, and no path leads to the directory: whatever
/// gets its name meanwhile is not covered. Source: mount(2).
pub fn filesystem(on: BorrowedFd<'_>, source: &str, kind: &str, flags: MsFlags, data: &str) -> Result<()> {
    let data = (!data.is_empty()).then_some(data);
    nix::mount::mount(Some(source), &proc_path(At::fd(on)), Some(kind), flags, data)
}

/// Sets the propagation of the mount whose root `root` is open on, by the flags of mount(2).
pub fn propagate(root: BorrowedFd<'_>, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    nix::mount::mount(none, &proc_path(At::fd(root)), none, flags, none)
}

/// Binds what is at `source` on the directory `on`; with the mounts below it, if `MS_REC` is set. The other flags are those
/// of the bound mount, which has them before it is visible; before Linux 5.12 right after. Errors: ENOTDIR if `source` is no
/// directory. Source: open_tree(2), mount_setattr(2), move_mount(2); mount(2).
pub fn bind(source: &Path, on: BorrowedFd<'_>, flags: MsFlags) -> Result<()> {
    let source = open::by_names(source)?;
    match bind_whole(source.as_fd(), on, flags) {
        Err(Errno::ENOSYS) => bind_by_steps(source.as_fd(), on, flags),
        done => done,
    }
}

/// Mounts, and then changes the flags of what is there. If they cannot be changed, nothing stays.
fn bind_by_steps(source: BorrowedFd<'_>, on: BorrowedFd<'_>, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    let recursive = MsFlags::MS_BIND | (flags & MsFlags::MS_REC);
    mount(Some(&proc_path(At::fd(source))), &proc_path(At::fd(on)), none, recursive, none)?;
    let others = flags - MsFlags::MS_REC - MsFlags::MS_BIND;
    if others.is_empty() {
        return Ok(());
    }
    // Through the name of the directory, what is mounted on it is found.
    let bound = std::fs::read_link(proc_path(At::fd(on)))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let changed = mount(none, &bound, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | others, none);
    changed.or_else(|errno| umount2(&bound, MntFlags::MNT_DETACH).and(Err(errno)))
}

fn bind_whole(source: BorrowedFd<'_>, on: BorrowedFd<'_>, flags: MsFlags) -> Result<()> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
    const AT_RECURSIVE: libc::c_uint = 0x8000;
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
    const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
    let below = if flags.contains(MsFlags::MS_REC) { AT_RECURSIVE } else { 0 };
    let how = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint | below;
    // SAFETY: the path is empty and NUL-terminated, which means the descriptor itself.
    let tree = owned(unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), how) })?;
    let attributes = attributes(flags);
    if attributes != [0; 4] {
        // SAFETY: `attributes` is laid out as struct mount_attr, lives through the call, and its size is given; the empty
        // path means the descriptor itself.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        };
        Errno::result(done)?;
    }
    // SAFETY: both paths are empty and NUL-terminated, which means the descriptors themselves.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            on.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(done).map(drop)
}

/// The flags of mount(2) as a struct mount_attr: set, clear, propagation, user namespace.
fn attributes(flags: MsFlags) -> [u64; 4] {
    const MOUNT_ATTR_ATIME: u64 = 0x70;
    const ATIME: [(MsFlags, u64); 2] = [(MsFlags::MS_NOATIME, 0x10), (MsFlags::MS_STRICTATIME, 0x20)];
    const OTHERS: [(MsFlags, u64); 5] = [
        (MsFlags::MS_RDONLY, 0x1),
        (MsFlags::MS_NOSUID, 0x2),
        (MsFlags::MS_NODEV, 0x4),
        (MsFlags::MS_NOEXEC, 0x8),
        (MsFlags::MS_NODIRATIME, 0x80),
    ];
    let others = OTHERS.iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |all, (_, bit)| all | bit);
    // One mode of access times replaces the other.
    match ATIME.iter().find(|(flag, _)| flags.contains(*flag)) {
        Some((_, mode)) => [others | mode, MOUNT_ATTR_ATIME, 0, 0],
        None if flags.contains(MsFlags::MS_RELATIME) => [others, MOUNT_ATTR_ATIME, 0, 0],
        None => [others, 0, 0, 0],
    }
}

/// Major and minor number of the device of the filesystem that is mounted at `mountpoint`. It is not asked itself: it may not
/// answer yet.
pub fn device(mountpoint: &Path) -> Result<(u32, u32)> {
    let mut raw = std::mem::MaybeUninit::<libc::statx>::uninit();
    let done = mountpoint.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and `raw` has room for the answer; both live through the call.
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), libc::AT_STATX_DONT_SYNC, 0, raw.as_mut_ptr()) }
    })?;
    Errno::result(done)?;
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    let raw = unsafe { raw.assume_init() };
    Ok((raw.stx_dev_major, raw.stx_dev_minor))
}

/// Which object something is, and which mount it was found on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// The mount, as long as it is there.
    pub mount: u64,
    /// The device, as in `Stat`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// What is at `path`, which is not followed if it is a symlink. Errors: ENOSYS where the kernel does not tell mounts apart.
/// Source: statx(2) `STATX_MNT_ID`, since Linux 5.8.
pub fn place_of(path: &Path) -> Result<Located> {
    let mut raw = std::mem::MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_INO | libc::STATX_MNT_ID;
    let done = path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and `raw` has room for the answer; both live through the call.
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, raw.as_mut_ptr()) }
    })?;
    Errno::result(done)?;
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    let raw = unsafe { raw.assume_init() };
    if raw.stx_mask & libc::STATX_MNT_ID == 0 {
        return Err(Errno::ENOSYS);
    }
    let dev = (u64::from(raw.stx_dev_major) << 32) | u64::from(raw.stx_dev_minor);
    Ok(Located { mount: raw.stx_mnt_id, dev, ino: raw.stx_ino })
}

/// The mounts inside a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inside {
    /// There are some.
    pub some: bool,
    /// One of them is another machine's, or another program's: it may not answer.
    pub may_hang: bool,
}

/// The mounts below `path`, which has no symlinks. Where they cannot be told there may be some.
pub fn inside(path: &Path) -> Inside {
    match std::fs::read("/proc/self/mountinfo") {
        Ok(table) => inside_by(&table, path),
        Err(_) => Inside { some: true, may_hang: false },
    }
}

/// As `inside`, by the lines of `table`. Source: proc_pid_mountinfo(5).
fn inside_by(table: &[u8], path: &Path) -> Inside {
    const REMOTE: [&[u8]; 10] =
        [b"nfs", b"nfs4", b"cifs", b"smb3", b"9p", b"ceph", b"afs", b"coda", b"lustre", b"fuse"];
    let mut inside = Inside::default();
    for line in table.split(|&byte| byte == b'\n') {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let (Some(at), Some(dash)) = (words.get(4), words.iter().position(|word| *word == b"-")) else {
            continue;
        };
        let at = unescaped(at);
        let at = Path::new(OsStr::from_bytes(&at));
        if at == path || !at.starts_with(path) {
            continue;
        }
        let kind = words.get(dash + 1).copied().unwrap_or_default();
        inside.some = true;
        inside.may_hang |= REMOTE.contains(&kind) || kind.starts_with(b"fuse.");
    }
    inside
}

/// With the bytes for which `\040` and the like stand.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) if byte == b'\\' => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

fn owned(raw: libc::c_long) -> Result<OwnedFd> {
    let raw = Errno::result(raw)?;
    // SAFETY: the call succeeded, so `raw` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_attributes() {
        use MsFlags as F;
        assert_eq!(attributes(F::MS_BIND | F::MS_REC), [0; 4]);
        assert_eq!(attributes(F::MS_RDONLY | F::MS_NOSUID | F::MS_NODEV | F::MS_NOEXEC), [0xf, 0, 0, 0]);
        assert_eq!(attributes(F::MS_NOATIME | F::MS_NODIRATIME), [0x90, 0x70, 0, 0]);
        assert_eq!(attributes(F::MS_STRICTATIME), [0x20, 0x70, 0, 0]);
        assert_eq!(attributes(F::MS_RELATIME), [0, 0x70, 0, 0]);
    }

    #[test]
    fn mounts_inside_are_told_by_their_place() {
        let table = b"1 2 0:5 / /a rw - ext4 d rw\n3 1 0:6 / /a/b\\040c rw shared:1 - nfs4 s rw\n4 1 0:7 / /ab rw - fuse.x y rw\n";
        let told = |path: &str| inside_by(table, Path::new(path));
        assert_eq!(told("/a"), Inside { some: true, may_hang: true });
        assert_eq!(told("/a/b c"), Inside::default());
        assert_eq!(told("/ab"), Inside::default());
        assert_eq!(told("/a/b"), Inside::default());
        assert_eq!(told("/"), Inside { some: true, may_hang: true });
    }
}
