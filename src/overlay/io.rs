//! Bytes of open files that come through the daemon.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Overlay;
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Fh, Ino};
use crate::sys::copy::{self, Seek};
use crate::sys::{attr, cred, open};

impl Overlay {
    /// Reads up to `buffer.len()` bytes at `offset`; how many there were.
    pub fn read(&self, fh: Fh, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.file(fh)?;
        copy::pread(self.descriptor(&file)?.as_fd(), buffer, offset).call("pread")
    }

    /// Writes `data` at `offset`; how much was written. `clear_set_id` says that the writer may not keep set-id bits.
    pub fn write(&self, fh: Fh, offset: u64, data: &[u8], clear_set_id: bool) -> Result<usize> {
        let file = self.file(fh)?;
        let fd = self.descriptor(&file)?;
        let write = || copy::pwrite(fd.as_fd(), data, offset);
        let written = if clear_set_id { cred::without_fsetid(write) } else { write() };
        written.call("pwrite")
    }

    /// Allocates, punches, collapses: whatever fallocate(2) modes the upper layer has.
    pub fn fallocate(&self, fh: Fh, mode: i32, offset: u64, len: u64) -> Result<()> {
        let file = self.file(fh)?;
        copy::fallocate(self.descriptor(&file)?.as_fd(), mode, offset, len).call("fallocate")
    }

    /// The next data or hole.
    pub fn seek(&self, fh: Fh, offset: u64, what: Seek) -> Result<u64> {
        let file = self.file(fh)?;
        copy::seek(self.descriptor(&file)?.as_fd(), offset, what).call("lseek")
    }

    /// Copies up to `len` bytes between two open files; how many were copied.
    pub fn copy_range(&self, from: (Fh, u64), to: (Fh, u64), len: u64) -> Result<usize> {
        let source = self.descriptor(&*self.file(from.0)?)?;
        let target = self.descriptor(&*self.file(to.0)?)?;
        // The answer has 32 bits; a caller asks again for the rest.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
        copy::copy_range(source.as_fd(), from.1, target.as_fd(), to.1, len).call("copy_file_range")
    }

    /// The inode flags that `lsattr` shows.
    pub fn flags(&self, ino: Ino) -> Result<u32> {
        let inode = self.inode(ino)?;
        let read = inode.with(|at| {
            let fd = open::file(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK).call("openat2")?;
            attr::flags(fd.as_fd()).call("FS_IOC_GETFLAGS")
        });
        read.map_err(no_flags)
    }

    /// Sets the inode flags, as `chattr` does.
    pub fn set_flags(&self, ino: Ino, flags: u32) -> Result<()> {
        let inode = self.inode(ino)?;
        self.copy_up.ensure(&inode, Need::Metadata)?;
        let set = inode.with(|at| {
            let fd = open::file(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK).call("openat2")?;
            attr::set_flags(fd.as_fd(), flags).call("FS_IOC_SETFLAGS")
        });
        self.copy_up.changed(&inode);
        set.map_err(no_flags)
    }
}

/// A filesystem without flags answers as if the call did not exist.
fn no_flags(error: Error) -> Error {
    match error.errno() {
        Errno::ENOTTY | Errno::EOPNOTSUPP => Error::NoIoctl,
        _ => error,
    }
}
