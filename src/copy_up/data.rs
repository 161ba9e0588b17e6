//! Bytes from one file to another: shared where the filesystem can, else copied inside the kernel, else read and
//! written; holes stay holes.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use parking_lot::Mutex;

use crate::error::{Context, Error, Result};
use crate::sys::attr;
use crate::sys::copy::{self, Seek};
use crate::sys::stat::Stat;

const CHUNK_BYTES: u64 = 16 << 20;
/// In a file no larger than this a hole is not worth looking for where its blocks could hold all of it.
const SMALL_BYTES: u64 = 1 << 20;
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

/// Which methods pairs of filesystems have refused: they are not tried again for each file.
#[derive(Debug, Default)]
pub struct Refused(Mutex<Vec<(u64, u64, Method)>>);

/// So many refusals are remembered.
const MAX_REFUSED: usize = 64;

impl Refused {
    fn has(&self, from: u64, to: u64, method: Method) -> bool {
        self.0.lock().contains(&(from, to, method))
    }

    /// Remembers the refusal if `errno` is about the filesystems, and not about the two files.
    fn note(&self, from: u64, to: u64, method: Method, errno: Errno) {
        if matches!(errno, Errno::EOPNOTSUPP | Errno::EXDEV | Errno::ENOTTY | Errno::ENOSYS) {
            let mut refused = self.0.lock();
            if refused.len() < MAX_REFUSED && !refused.contains(&(from, to, method)) {
                refused.push((from, to, method));
            }
        }
    }
}

/// Bytes that are to come up.
#[derive(Debug)]
pub struct Source<'a> {
    /// The file that has them.
    pub file: BorrowedFd<'a>,
    /// What it is.
    pub stat: Stat,
    /// The device that they are to be copied to.
    pub to_device: u64,
    /// What is known not to work.
    pub refused: &'a Refused,
}

impl Source<'_> {
    fn may(&self, method: Method) -> bool {
        !self.refused.has(self.stat.dev, self.to_device, method)
    }

    fn refused(&self, method: Method, errno: Errno) {
        self.refused.note(self.stat.dev, self.to_device, method, errno);
    }
}

/// Makes `to`, which is empty, hold the same bytes as `from`.
pub fn copy_file(from: &Source<'_>, to: BorrowedFd<'_>) -> Result<Method> {
    let size = from.stat.size;
    if size == 0 {
        return Ok(Method::Nothing);
    }
    if from.may(Method::Clone) {
        match copy::clone_file(from.file, to) {
            Ok(()) => return Ok(Method::Clone),
            Err(
                errno @ (Errno::EOPNOTSUPP
                | Errno::EXDEV
                | Errno::EINVAL
                | Errno::ENOTTY
                | Errno::ENOSYS
                | Errno::EBADF),
            ) => from.refused(Method::Clone, errno),
            Err(Errno::EPERM | Errno::ETXTBSY | Errno::EISDIR) => {}
            Err(errno) => return Err(Error::Sys { call: "FICLONE", errno }),
        }
    }
    let mut method = if from.may(Method::Range) { Method::Range } else { Method::ReadWrite };
    if size <= SMALL_BYTES && from.stat.blocks * 512 >= size {
        // As many blocks as it has bytes for: no hole is worth looking for, and the last byte ends the file.
        copy_extent(from, to, 0, size, &mut method)?;
        return Ok(method);
    }
    let mut offset = 0;
    while offset < size {
        let Some((start, end)) = next_data(from.file, offset, size)? else { break };
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
    from: &Source<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
    method: &mut Method,
) -> Result<()> {
    let mut offset = start;
    while offset < end && *method == Method::Range {
        let len = (end - offset).min(CHUNK_BYTES) as usize;
        match copy::copy_range(from.file, offset, to, offset, len) {
            // The file is shorter than it was: the layers belong to the mount, so this is a broken promise.
            Ok(0) => return Err(Error::Sys { call: "copy_file_range", errno: Errno::EIO }),
            Ok(copied) => offset += copied as u64,
            Err(
                errno @ (Errno::EXDEV
                | Errno::EINVAL
                | Errno::ENOSYS
                | Errno::EOPNOTSUPP
                | Errno::EPERM
                | Errno::EIO),
            ) => {
                from.refused(Method::Range, errno);
                *method = Method::ReadWrite;
            }
            Err(errno) => return Err(Error::Sys { call: "copy_file_range", errno }),
        }
    }
    if offset < end { read_write(from.file, to, offset, end) } else { Ok(()) }
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
    use crate::sys::At;
    use crate::sys::stat::stat;

    fn copy(from: &std::fs::File, to: &std::fs::File, refused: &Refused) -> Result<Method> {
        let stat = stat(At::fd(from.as_fd())).expect("stat");
        copy_file(&Source { file: from.as_fd(), stat, to_device: stat.dev, refused }, to.as_fd())
    }

    #[test]
    fn holes_stay_holes_and_bytes_stay_bytes() {
        let mut from = tempfile::tempfile().expect("a temporary file");
        let to = tempfile::tempfile().expect("a temporary file");
        from.write_all(b"begin").expect("write");
        from.write_all_at(b"middle", 4 << 20).expect("write");
        from.set_len(8 << 20).expect("truncate");
        copy(&from, &to, &Refused::default()).expect("copy");
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
        // With a hole at the end, so that the size is set after the bytes.
        from.set_len(300_000).expect("truncate");
        for passes in 1..3 {
            let to = tempfile::tempfile().expect("a temporary file");
            let armed = crate::sys::fault::arm(passes, Errno::ENOSPC);
            let failed = copy(&from, &to, &Refused::default()).expect_err("armed");
            assert!(armed.fired());
            assert_eq!(failed.errno(), Errno::ENOSPC);
        }
    }

    #[test]
    fn what_two_filesystems_refuse_is_not_tried_again_for_these_two() {
        let refused = Refused::default();
        refused.note(1, 2, Method::Clone, Errno::EINVAL);
        assert!(!refused.has(1, 2, Method::Clone), "that may be about the files");
        refused.note(1, 2, Method::Clone, Errno::EOPNOTSUPP);
        assert!(refused.has(1, 2, Method::Clone));
        assert!(!refused.has(1, 2, Method::Range) && !refused.has(2, 1, Method::Clone));
        let mut from = tempfile::tempfile().expect("a temporary file");
        from.write_all(b"bytes").expect("write");
        let stat = stat(At::fd(from.as_fd())).expect("stat");
        for method in [Method::Clone, Method::Range] {
            refused.note(stat.dev, stat.dev, method, Errno::EXDEV);
        }
        let to = tempfile::tempfile().expect("a temporary file");
        assert_eq!(copy(&from, &to, &refused), Ok(Method::ReadWrite));
        let mut bytes = [0; 6];
        assert_eq!(to.read_at(&mut bytes, 0).ok(), Some(5));
        assert_eq!(&bytes[..5], b"bytes");
    }
}
