//! Reading a directory's entries.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{At, open};
use crate::merge::listing::FileKind;

/// One entry of a directory, as the filesystem gives it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// The inode number.
    pub ino: u64,
    /// The type, where the filesystem tells.
    pub kind: Option<FileKind>,
}

const BUFFER_BYTES: usize = 64 * 1024;
/// `d_ino`, `d_off`, `d_reclen`, `d_type`, in front of the name.
const HEADER_BYTES: usize = 19;

/// Opens the directory at `at` for reading its names. `quiet` leaves its time of access as it is, where that may be asked for.
pub fn open(at: At<'_>, quiet: bool) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    if quiet {
        match open::file(at, flags | OFlag::O_NOATIME) {
            // It is somebody else's directory.
            Err(Errno::EPERM) => {}
            result => return result,
        }
    }
    open::file(at, flags)
}

/// Calls `each` for every entry of the directory `dir` but the two dot names, in the filesystem's order. `quiet` is as in `open`.
pub fn read(dir: BorrowedFd<'_>, quiet: bool, each: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
    entries(&open(At::new(dir, OsStr::new(".")), quiet)?, each)
}

/// As `read`, for a directory that was just opened for reading.
pub fn entries(readable: &OwnedFd, mut each: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let room = buffer.spare_capacity_mut();
        // SAFETY: the room is writable for the length given and lives through the call.
        let got = unsafe {
            libc::syscall(libc::SYS_getdents64, readable.as_raw_fd(), room.as_mut_ptr(), room.len())
        };
        let got = Errno::result(got)? as usize;
        if got == 0 {
            return Ok(());
        }
        // SAFETY: the kernel has filled so many bytes, which are no more than there was room for.
        unsafe { buffer.set_len(got) };
        let mut rest = buffer.as_slice();
        while let Some((entry, after)) = parse(rest) {
            rest = after;
            if !matches!(entry.name.as_bytes(), b"." | b"..") {
                each(entry)?;
            }
        }
        buffer.clear();
    }
}

/// Splits the first record off `bytes`; nothing when they are used up.
fn parse(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (ino, rest) = bytes.split_first_chunk()?;
    let (_position, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (ino, len) = (u64::from_ne_bytes(*ino), usize::from(u16::from_ne_bytes(*len)));
    let kind = match *rest.first()? {
        libc::DT_REG => Some(FileKind::Regular),
        libc::DT_DIR => Some(FileKind::Dir),
        libc::DT_LNK => Some(FileKind::Symlink),
        libc::DT_CHR => Some(FileKind::Char),
        libc::DT_BLK => Some(FileKind::Block),
        libc::DT_FIFO => Some(FileKind::Fifo),
        libc::DT_SOCK => Some(FileKind::Socket),
        _ => None,
    };
    let name = bytes.get(HEADER_BYTES..len)?;
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    Some((Entry { name: OsStr::from_bytes(name), ino, kind }, bytes.get(len..)?))
}

/// Whether the directory has no entry at all.
pub fn is_empty(dir: BorrowedFd<'_>) -> Result<bool> {
    let mut empty = true;
    match read(dir, false, |_| {
        empty = false;
        Err(Errno::ECANCELED)
    }) {
        Err(Errno::ECANCELED) => Ok(false),
        result => result.map(|()| empty),
    }
}
