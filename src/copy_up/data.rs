//! Bytes from one file to another: shared where the filesystem can, else copied inside the kernel, else read and
//! written; holes stay holes.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::attr;
use crate::sys::copy::{self, Seek};

const CHUNK_BYTES: u64 = 16 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// How the bytes of a file came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// There were none.
    Nothing,
    /// Both files share the blocks.
    Clone,
    /// Inside the kernel.
    Range,
    /// Through the daemon.
    ReadWrite,
}

/// Makes `to`, which is empty, hold the same `size` bytes as `from`.
pub fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> Result<Method> {
    if size == 0 {
        return Ok(Method::Nothing);
    }
    match copy::clone_file(from, to) {
        Ok(()) => return Ok(Method::Clone),
        Err(
            Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS | Errno::EBADF,
        ) => {}
        Err(Errno::EPERM | Errno::ETXTBSY | Errno::EISDIR) => {}
        Err(errno) => return Err(Error::Sys { call: "FICLONE", errno }),
    }
    let mut method = Method::Range;
    let mut offset = 0;
    while offset < size {
        let Some((start, end)) = next_data(from, offset, size)? else { break };
        copy_extent(from, to, start, end, &mut method)?;
        offset = end;
    }
    // Ends the file where the other one does, whether or not it ends in a hole.
    attr::truncate(to, size).call("ftruncate")?;
    Ok(method)
}

/// The next run of data at or after `offset`; nothing if the rest is a hole.
fn next_data(from: BorrowedFd<'_>, offset: u64, size: u64) -> Result<Option<(u64, u64)>> {
    let start = match copy::seek(from, offset, Seek::Data) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        // The filesystem knows no holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some((offset, size))),
        Err(errno) => return Err(Error::Sys { call: "lseek", errno }),
    };
    if start >= size {
        return Ok(None);
    }
    let end = copy::seek(from, start, Seek::Hole).unwrap_or(size);
    Ok(Some((start, end.clamp(start + 1, size))))
}

fn copy_extent(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
    method: &mut Method,
) -> Result<()> {
    let mut offset = start;
    while offset < end && *method == Method::Range {
        let len = (end - offset).min(CHUNK_BYTES) as usize;
        match copy::copy_range(from, offset, to, offset, len) {
            // The file is shorter than it was: the layers belong to the mount, so this is a broken promise.
            Ok(0) => return Err(Error::Sys { call: "copy_file_range", errno: Errno::EIO }),
            Ok(copied) => offset += copied as u64,
            Err(
                Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EIO,
            ) => {
                *method = Method::ReadWrite;
            }
            Err(errno) => return Err(Error::Sys { call: "copy_file_range", errno }),
        }
    }
    if offset < end { read_write(from, to, offset, end) } else { Ok(()) }
}

#[expect(clippy::indexing_slicing, reason = "no call reads or writes more than it was given room for")]
fn read_write(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES.min((end - start) as usize)];
    let mut offset = start;
    while offset < end {
        let want = buffer.len().min((end - offset) as usize);
        let got = copy::pread(from, &mut buffer[..want], offset).call("pread")?;
        if got == 0 {
            return Err(Error::Sys { call: "pread", errno: Errno::EIO });
        }
        let mut written = 0;
        while written < got {
            let wrote = copy::pwrite(to, &buffer[written..got], offset + written as u64).call("pwrite")?;
            if wrote == 0 {
                return Err(Error::Sys { call: "pwrite", errno: Errno::ENOSPC });
            }
            written += wrote;
        }
        offset += got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn holes_stay_holes_and_bytes_stay_bytes() {
        let mut from = tempfile::tempfile().expect("a temporary file");
        let to = tempfile::tempfile().expect("a temporary file");
        from.write_all(b"begin").expect("write");
        from.write_all_at(b"middle", 4 << 20).expect("write");
        from.set_len(8 << 20).expect("truncate");
        copy_file(from.as_fd(), to.as_fd(), 8 << 20).expect("copy");
        let mut bytes = vec![1; 8 << 20];
        to.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes[..5], b"begin");
        assert_eq!(&bytes[4 << 20..(4 << 20) + 6], b"middle");
        assert!(bytes[5..4 << 20].iter().all(|&b| b == 0));
        assert!(to.metadata().expect("stat").blocks() <= from.metadata().expect("stat").blocks());
    }

    #[test]
    fn a_failed_write_is_the_callers_errno() {
        let mut from = tempfile::tempfile().expect("a temporary file");
        from.write_all(&[7; 100_000]).expect("write");
        for passes in 1..3 {
            let to = tempfile::tempfile().expect("a temporary file");
            let armed = crate::sys::fault::arm(passes, Errno::ENOSPC);
            let failed = copy_file(from.as_fd(), to.as_fd(), 100_000).expect_err("armed");
            assert!(armed.fired());
            assert_eq!(failed.errno(), Errno::ENOSPC);
        }
    }
}
