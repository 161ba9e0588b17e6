//! What an object is: one `statx`.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, fstatvfs};
use nix::{NixPath, Result};

use super::At;
use crate::merge::listing::FileKind;

/// A time as filesystems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub secs: i64,
    /// Nanoseconds, always below one billion.
    pub nanos: u32,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its type.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Inode number.
    pub ino: u64,
    /// The device it is on.
    pub dev: u64,
    /// Number of names.
    pub nlink: u32,
    /// Owner on disk.
    pub uid: u32,
    /// Group on disk.
    pub gid: u32,
    /// For devices: major number.
    pub rdev_major: u32,
    /// For devices: minor number.
    pub rdev_minor: u32,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred size of transfers.
    pub blksize: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last write.
    pub mtime: Timestamp,
    /// Last change.
    pub ctime: Timestamp,
    /// Tells it from another object with its number, by the moment of its birth; zero where the filesystem does not keep that.
    pub generation: u32,
    /// An inode flag forbids all changes, as far as its filesystem says so.
    pub immutable: bool,
    /// An inode flag forbids all changes but appends.
    pub append_only: bool,
}

impl Stat {
    /// Whether this is a whiteout of the kernel's kind. Source: overlayfs.rst, "whiteouts and opaque directories".
    pub fn is_whiteout_device(&self) -> bool {
        self.kind == FileKind::Char && self.rdev_major == 0 && self.rdev_minor == 0
    }
}

/// The type in the format bits of a mode.
pub fn kind_of(mode: u32) -> Option<FileKind> {
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular,
        libc::S_IFDIR => FileKind::Dir,
        libc::S_IFLNK => FileKind::Symlink,
        libc::S_IFCHR => FileKind::Char,
        libc::S_IFBLK => FileKind::Block,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        _ => return None,
    })
}

/// The format bits of a type.
pub fn format_of(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular => libc::S_IFREG,
        FileKind::Dir => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Char => libc::S_IFCHR,
        FileKind::Block => libc::S_IFBLK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
    }
}

const WANTED: libc::c_uint = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

/// What is at `at`; symlinks are not followed, automounts not triggered.
pub fn stat(at: At<'_>) -> Result<Stat> {
    let mut raw = MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let done = at.name.with_nix_path(|name| {
        // SAFETY: `name` is NUL-terminated and `raw` has room for the answer; both live through the call.
        unsafe { libc::statx(at.dir.as_raw_fd(), name.as_ptr(), flags, WANTED, raw.as_mut_ptr()) }
    })?;
    Errno::result(done)?;
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    let raw = unsafe { raw.assume_init() };
    let time = |t: libc::statx_timestamp| Timestamp { secs: t.tv_sec, nanos: t.tv_nsec };
    Ok(Stat {
        kind: kind_of(u32::from(raw.stx_mode)).ok_or(Errno::EIO)?,
        mode: u32::from(raw.stx_mode) & 0o7777,
        ino: raw.stx_ino,
        dev: (u64::from(raw.stx_dev_major) << 32) | u64::from(raw.stx_dev_minor),
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        rdev_major: raw.stx_rdev_major,
        rdev_minor: raw.stx_rdev_minor,
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        blksize: raw.stx_blksize,
        atime: time(raw.stx_atime),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        generation: match raw.stx_mask & libc::STATX_BTIME {
            0 => 0,
            _ => (raw.stx_btime.tv_sec as u32).wrapping_mul(0x9e37_79b1) ^ raw.stx_btime.tv_nsec,
        },
        immutable: raw.stx_attributes & libc::STATX_ATTR_IMMUTABLE as u64 != 0,
        append_only: raw.stx_attributes & libc::STATX_ATTR_APPEND as u64 != 0,
    })
}

/// Whether something is mounted at `at`. Neither the mount nor the directory beneath is asked: its daemon may be waiting for
/// the caller. False where the kernel does not tell (before Linux 5.8) and where nothing is.
/// Source: statx(2), `STATX_ATTR_MOUNT_ROOT`, `AT_STATX_DONT_SYNC`.
pub fn is_mount_root(at: At<'_>) -> bool {
    const MOUNT_ROOT: u64 = 0x2000;
    let mut raw = MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
    let done = at.name.with_nix_path(|name| {
        // SAFETY: `name` is NUL-terminated and `raw` has room for the answer; both live through the call.
        unsafe { libc::statx(at.dir.as_raw_fd(), name.as_ptr(), flags, 0, raw.as_mut_ptr()) }
    });
    if !matches!(done, Ok(0)) {
        return false;
    }
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    let raw = unsafe { raw.assume_init() };
    raw.stx_attributes & raw.stx_attributes_mask & MOUNT_ROOT != 0
}

/// What the filesystem behind `fd` has room for.
pub fn statfs(fd: BorrowedFd<'_>) -> Result<Statvfs> {
    fstatvfs(fd)
}

/// Whether the filesystem behind `fd` is another program's.
pub fn is_fuse(fd: BorrowedFd<'_>) -> Result<bool> {
    const FUSE: i64 = 0x6573_5546;
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type().0 as i64 & 0xffff_ffff == FUSE)
}

/// Whether the filesystem behind `fd` may have directories in it with a device of their own. Source: btrfs-subvolume(8).
pub fn has_subvolumes(fd: BorrowedFd<'_>) -> Result<bool> {
    const BTRFS: i64 = 0x9123_683e;
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type().0 as i64 & 0xffff_ffff == BTRFS)
}

/// Whether the filesystem behind `fd` is another machine's, or another program's: it may not answer.
/// Source: statfs(2); linux/magic.h.
pub fn may_hang(fd: BorrowedFd<'_>) -> Result<bool> {
    const REMOTE: [i64; 11] = [
        0x6969,      // nfs
        0xff53_4d42, // cifs
        0xfe53_4d42, // smb2
        0x517b,      // smb
        0x6573_5546, // fuse
        0x0102_1997, // 9p
        0x00c3_6400, // ceph
        0x5346_414f, // afs
        0x6b41_4653, // kafs
        0x7375_7245, // coda
        0x0bd0_0bd0, // lustre
    ];
    let kind = nix::sys::statfs::fstatfs(fd)?.filesystem_type().0;
    Ok(REMOTE.contains(&(kind as i64 & 0xffff_ffff)))
}
