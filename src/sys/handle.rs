//! File handles: names of inodes that outlive a mount. Source: open_by_handle_at(2).

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::{NixPath, Result};

use super::At;

const MAX_HANDLE_BYTES: usize = 128;

#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; MAX_HANDLE_BYTES],
}

/// The handle of the object at `at`: its type and its bytes. Errors: EOPNOTSUPP where the filesystem has none.
pub fn name_to_handle(at: At<'_>) -> Result<(i32, Vec<u8>)> {
    let mut raw = RawHandle { bytes: MAX_HANDLE_BYTES as u32, kind: 0, handle: [0; MAX_HANDLE_BYTES] };
    let mut mount_id = 0;
    let flags = if at.is_fd() { libc::AT_EMPTY_PATH } else { 0 };
    let done = at.name.with_nix_path(|name| {
        // SAFETY: `raw` says how much room it has; all pointers live through the call.
        unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                at.dir.as_raw_fd(),
                name.as_ptr(),
                &raw mut raw,
                &raw mut mount_id,
                flags,
            )
        }
    })?;
    Errno::result(done)?;
    let len = (raw.bytes as usize).min(MAX_HANDLE_BYTES);
    Ok((raw.kind, raw.handle.get(..len).unwrap_or_default().to_vec()))
}

/// Opens the object of a handle as a place; `mount` is a readable descriptor on its filesystem. Errors: ESTALE if it is
/// gone; EPERM without `CAP_DAC_READ_SEARCH`.
pub fn open_by_handle(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> Result<OwnedFd> {
    let mut raw = RawHandle { bytes: handle.len() as u32, kind, handle: [0; MAX_HANDLE_BYTES] };
    raw.handle.get_mut(..handle.len()).ok_or(Errno::EINVAL)?.copy_from_slice(handle);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `raw` lives through the call and says its length.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut raw, flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The uuid of the filesystem that `file` (open for reading) is on; zeros where it does not tell.
pub fn filesystem_uuid(file: BorrowedFd<'_>) -> [u8; 16] {
    #[repr(C)]
    struct FsUuid2 {
        len: u8,
        uuid: [u8; 16],
    }
    /// `_IOR(0x15, 0, struct fsuuid2)`
    const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;
    let mut raw = MaybeUninit::<FsUuid2>::zeroed();
    // SAFETY: the call fills at most the structure, which lives through it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFSUUID as _, raw.as_mut_ptr()) };
    // SAFETY: it was zeroed, and any bytes are a valid value.
    let raw = unsafe { raw.assume_init() };
    if done == 0 && raw.len == 16 { raw.uuid } else { btrfs_uuid(file).unwrap_or_default() }
}

/// That of btrfs, which has a call of its own for it. Source: btrfs-ioctl(2) `BTRFS_IOC_FS_INFO`.
fn btrfs_uuid(file: BorrowedFd<'_>) -> Option<[u8; 16]> {
    #[repr(C)]
    struct FsInfo {
        max_id: u64,
        devices: u64,
        uuid: [u8; 16],
        rest: [u8; 992],
    }
    /// `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`
    const BTRFS_IOC_FS_INFO: libc::c_ulong = 0x8400_941f;
    let facts = nix::sys::statfs::fstatfs(file).ok()?;
    if facts.filesystem_type() != nix::sys::statfs::BTRFS_SUPER_MAGIC {
        return None;
    }
    let mut raw = MaybeUninit::<FsInfo>::zeroed();
    // SAFETY: the call fills at most the structure, which lives through it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), BTRFS_IOC_FS_INFO as _, raw.as_mut_ptr()) };
    // SAFETY: it was zeroed, and any bytes are a valid value.
    let raw = unsafe { raw.assume_init() };
    (done == 0).then_some(raw.uuid)
}
