//! Data: reading, writing, cloning, copying, holes, and making it durable.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;

use super::fault;

/// No disk fails in smaller pieces.
const SECTOR: u64 = 512;

/// Reads at `offset`; fewer bytes than asked only at the end of the file.
pub fn pread(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    read_until(file, buffer, offset, |_| false)
}

/// As `pread` for a file of a filesystem on a disk or in memory, mostly by a single call. What cannot be read there ends
/// a read early where a sector ends, and another call says why; a read that ends elsewhere has met the end of the file.
pub fn pread_local(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    read_until(file, buffer, offset, |end| end % SECTOR != 0)
}

/// Reads until there is no more, or `is_end` says so of the offset that was reached. Errors: also where a part could be
/// read; who took that for the whole would take the rest for the end of the file.
fn read_until(
    file: BorrowedFd<'_>,
    buffer: &mut [u8],
    offset: u64,
    is_end: impl Fn(u64) -> bool,
) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let at = to_offset(offset + done as u64)?;
        let Some(rest) = buffer.get_mut(done..) else { break };
        match nix::sys::uio::pread(file, rest, at) {
            Ok(0) => break,
            Ok(got) => {
                done += got;
                if is_end(offset + done as u64) {
                    break;
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes all of `data` at `offset`, or as much as there is room for.
pub fn pwrite(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<usize> {
    write_all(data, |rest, done| nix::sys::uio::pwrite(file, rest, to_offset(offset + done as u64)?))
}

/// Writes all of `data` at the end of the file, wherever that is at the moment, or as much as there is room for.
pub fn append(file: BorrowedFd<'_>, data: &[u8]) -> Result<usize> {
    write_all(data, |rest, _| {
        let part = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
        // SAFETY: the buffer is only read and outlives the call.
        let wrote = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, 0, libc::RWF_APPEND) };
        Errno::result(wrote).map(|wrote| wrote as usize)
    })
}

fn write_all(data: &[u8], mut write: impl FnMut(&[u8], usize) -> Result<usize>) -> Result<usize> {
    fault::point()?;
    let mut done = 0;
    while done < data.len() {
        let Some(rest) = data.get(done..) else { break };
        match write(rest, done) {
            Ok(0) => break,
            Ok(wrote) => done += wrote,
            Err(Errno::EINTR) => {}
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn to_offset(offset: u64) -> Result<i64> {
    i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)
}

/// Makes `to` share all of `from`'s blocks. Errors: EOPNOTSUPP, EXDEV, EINVAL where that is not possible.
pub fn clone_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    const FICLONE: libc::c_ulong = 0x4004_9409;
    fault::point()?;
    // SAFETY: the call takes a descriptor by value and touches no memory of ours.
    let done = unsafe { libc::ioctl(to.as_raw_fd(), FICLONE as _, from.as_raw_fd()) };
    Errno::result(done).map(drop)
}

/// Copies up to `len` bytes inside the kernel; how many were copied, none at the end of the file.
pub fn copy_range(
    from: BorrowedFd<'_>,
    from_offset: u64,
    to: BorrowedFd<'_>,
    to_offset_: u64,
    len: usize,
) -> Result<usize> {
    fault::point()?;
    let mut source = to_offset(from_offset)?;
    let mut target = to_offset(to_offset_)?;
    loop {
        match nix::fcntl::copy_file_range(from, Some(&mut source), to, Some(&mut target), len) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Where to go in a file with holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte of data. Errors: ENXIO if there is none.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

/// The offset of the next data or hole at or after `offset`. Moves the descriptor's own offset.
pub fn seek(file: BorrowedFd<'_>, offset: u64, what: Seek) -> Result<u64> {
    let whence = match what {
        Seek::Data => nix::unistd::Whence::SeekData,
        Seek::Hole => nix::unistd::Whence::SeekHole,
    };
    nix::unistd::lseek(file, to_offset(offset)?, whence).map(|at| at as u64)
}

/// fallocate(2) with the mode as the caller gave it.
pub fn fallocate(file: BorrowedFd<'_>, mode: i32, offset: u64, len: u64) -> Result<()> {
    fault::point()?;
    let (offset, len) = (to_offset(offset)?, to_offset(len)?);
    loop {
        // SAFETY: the call touches no memory of ours.
        let done = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) };
        match Errno::result(done) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

/// Does what the filesystem does when a descriptor of an open file is closed, and closes none: a filesystem that keeps what
/// was written to itself hands it over, and says what went wrong. Source: close(2), "Dealing with error returns".
pub fn flush(file: BorrowedFd<'_>) -> Result<()> {
    let second =
        file.try_clone_to_owned().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    match nix::unistd::close(second) {
        // It is closed all the same.
        Ok(()) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Writes a file's data to the disk, and its metadata unless `data_only`.
pub fn sync(file: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    fault::point()?;
    if data_only { nix::unistd::fdatasync(file) } else { nix::unistd::fsync(file) }
}

/// Writes all of the filesystem that holds the open `file` to the disk.
pub fn sync_all(file: BorrowedFd<'_>) -> Result<()> {
    fault::point()?;
    nix::unistd::syncfs(file)
}

/// What the kernel could not write back of `file` since it was last asked, as fsync(2) would tell, while nothing is written
/// now and nobody waits. Errors: EIO, ENOSPC, EDQUOT from the writeback; others where this cannot be asked.
/// Source: sync_file_range(2); kernel `file_fdatawait_range`.
pub fn writeback_error(file: BorrowedFd<'_>) -> Result<()> {
    // Where no page is, there is none to wait for; what is told is about the whole file.
    const NOWHERE: i64 = i64::MAX - 0xffff;
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE;
    // SAFETY: the call takes numbers only.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), NOWHERE, 1, flags) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_read_is_short_at_the_end_of_the_file_only() {
        let file = tempfile::tempfile().expect("a temporary file");
        let data: Vec<u8> = (0..1536u32).map(|i| i as u8).collect();
        for len in [0, 100, 512, 1000, 1024, 1536] {
            pwrite(file.as_fd(), &data[..len], 0).expect("write");
            nix::unistd::ftruncate(&file, len as i64).expect("truncate");
            for (at, want) in [(0, 4096), (0, len), (256, 512), (512, 512), (1024, 512), (2048, 16)] {
                let there = &data[at.min(len)..len.min(at + want)];
                for read in [pread, pread_local] {
                    let mut buffer = vec![0xee; want];
                    let got = read(file.as_fd(), &mut buffer, at as u64);
                    assert_eq!(got, Ok(there.len()), "{want} at {at} of {len}");
                    assert_eq!(&buffer[..there.len()], there, "{want} at {at} of {len}");
                }
            }
        }
    }
}
