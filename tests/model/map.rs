//! Maps that are read and written by system calls: a page that is not there is EFAULT and no signal.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use nix::errno::Errno;

/// A mapping, undone when dropped.
pub struct Map {
    at: *mut u8,
    len: usize,
    /// Bytes pass through this on their way.
    between: File,
}

impl Map {
    pub fn new(file: &File, len: usize, shared: bool, writable: bool) -> nix::Result<Map> {
        let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let rights = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a fresh mapping; nothing refers to it but this value.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, kind, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // SAFETY: the name ends in NUL; the descriptor is nobody else's.
        let between = unsafe { libc::memfd_create(c"between".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(between >= 0, "memfd_create: {}", Errno::last());
        // SAFETY: it was just made.
        Ok(Map { at: at.cast(), len, between: unsafe { File::from_raw_fd(between) } })
    }

    /// Bytes as the map shows them, as far as there are pages.
    pub fn get(&self, at: usize, len: usize) -> nix::Result<Vec<u8>> {
        let len = len.min(self.len.saturating_sub(at));
        // SAFETY: the range is in the mapping, and the kernel says EFAULT where there is no page.
        let got = unsafe { libc::pwrite(self.between.as_raw_fd(), self.at.add(at).cast(), len, 0) };
        let got = Errno::result(got)?;
        let mut bytes = vec![0; got as usize];
        std::os::unix::fs::FileExt::read_exact_at(&self.between, &mut bytes, 0).unwrap();
        Ok(bytes)
    }

    /// Writes bytes into the map, as far as there are pages; how many.
    pub fn put(&self, at: usize, bytes: &[u8]) -> nix::Result<usize> {
        let len = bytes.len().min(self.len.saturating_sub(at));
        std::os::unix::fs::FileExt::write_all_at(&self.between, &bytes[..len], 0).unwrap();
        // SAFETY: as above; what is written lies in the mapping alone.
        let got = unsafe { libc::pread(self.between.as_raw_fd(), self.at.add(at).cast(), len, 0) };
        Errno::result(got).map(|got| got as usize)
    }

    pub fn sync(&self) -> nix::Result<()> {
        // SAFETY: the mapping is ours.
        Errno::result(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}
