//! Bytes of open files that come through the daemon.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Overlay;
use super::protect::no_flags;
use crate::error::{Context, Error, Result};
use crate::inode::{Fh, Ino, Inode, OpenFile};
use crate::sys::copy::{self, Seek};
use crate::sys::cred::Writer;
use crate::sys::stat::stat;
use crate::sys::{At, attr, open};

/// How something is written.
#[derive(Debug, Clone, Copy)]
pub struct Writing {
    /// Who writes.
    pub by: Writer,
    /// The descriptor appends at the moment: fcntl(2) may have changed that since it was opened.
    pub appends: bool,
}

impl Overlay {
    /// Reads up to `buffer.len()` bytes at `offset`; how many there were.
    pub fn read(&self, fh: Fh, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.file(fh)?;
        let fd = self.descriptor(&file)?;
        let stack = &file.inode.stack;
        // A file that a program makes up as it is read may come in pieces of any length, and so may one of another machine.
        let read = if stack.is_direct() || stack.may_hang { copy::pread } else { copy::pread_local };
        read(fd.as_fd(), buffer, offset).call("pread")
    }

    /// Writes `data` at `offset`; how much was written.
    pub fn write(&self, fh: Fh, offset: u64, data: &[u8], how: Writing) -> Result<usize> {
        let file = self.file(fh)?;
        let fd = self.descriptor(&file)?;
        // Where others append, too, only the file itself knows its end.
        let write = || match how.appends && file.inode.stack.is_direct() {
            true => copy::append(fd.as_fd(), data),
            false => copy::pwrite(fd.as_fd(), data, offset),
        };
        let ids = &file.inode.stack.terms.ids;
        let written = how.by.run(At::fd(fd.as_fd()), |gid| ids.shown_gid(gid), write);
        self.note_loss(&written);
        written.call("pwrite")
    }

    /// Allocates, punches, collapses: whatever fallocate(2) modes the upper layer has.
    pub fn fallocate(&self, by: Writer, fh: Fh, mode: i32, offset: u64, len: u64) -> Result<()> {
        let file = self.file(fh)?;
        let fd = self.descriptor(&file)?;
        self.change_as(by, &file, fd.as_fd(), || copy::fallocate(fd.as_fd(), mode, offset, len))
            .call("fallocate")
    }

    /// Runs `change` of the bytes of `file`, open as `fd`, as `Writer::run`. For calls after which the kernel does not read the
    /// mode again by itself.
    fn change_as<T>(
        &self,
        by: Writer,
        file: &OpenFile,
        fd: BorrowedFd<'_>,
        change: impl FnOnce() -> nix::Result<T>,
    ) -> nix::Result<T> {
        let has_set_id = stat(At::fd(fd))?.mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        let ids = &file.inode.stack.terms.ids;
        let changed = by.run(At::fd(fd), |gid| ids.shown_gid(gid), change);
        if has_set_id {
            self.copy_up.changed(&file.inode);
        }
        changed
    }

    /// The next data or hole. With a writeback cache, where data is that has not been handed over is the kernel's to know: it
    /// takes everything for data when it hears that there is no such call.
    pub fn seek(&self, fh: Fh, offset: u64, what: Seek) -> Result<u64> {
        if self.settings.writeback {
            return Err(Error::NotServed);
        }
        let file = self.file(fh)?;
        copy::seek(self.descriptor(&file)?.as_fd(), offset, what).call("lseek")
    }

    /// Copies up to `len` bytes between two open files; how many were copied.
    pub fn copy_range(&self, by: Writer, from: (Fh, u64), to: (Fh, u64), len: u64) -> Result<usize> {
        let source = self.descriptor(&*self.file(from.0)?)?;
        let file = self.file(to.0)?;
        let target = self.descriptor(&file)?;
        // The answer has 32 bits; a caller asks again for the rest.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
        let copy = || copy::copy_range(source.as_fd(), from.1, target.as_fd(), to.1, len);
        let copied = self.change_as(by, &file, target.as_fd(), copy);
        self.note_loss(&copied);
        copied.call("copy_file_range")
    }

    /// Notes that a write has failed for the disk's sake. For want of room is another matter: its caller knows, and what was
    /// written before is there.
    fn note_loss(&self, written: &nix::Result<usize>) {
        if *written == Err(Errno::EIO) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Notes what the kernel could not write back of an open file. A file that cannot be asked has lost nothing.
    pub(super) fn look_for_losses(&self, file: &OpenFile) {
        let Ok(fd) = self.descriptor(file) else { return };
        if let Err(Errno::EIO | Errno::ENOSPC | Errno::EDQUOT) = copy::writeback_error(fd.as_fd()) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// The answer to a sync of a `volatile` mount, which syncs nothing. Errors: EIO for good once a loss was seen.
    /// Source: overlayfs.rst, "Volatile mount".
    pub(super) fn nothing_lost(&self) -> Result<()> {
        match self.lost.load(Ordering::Relaxed) {
            true => Err(Error::Sys { call: "fsync", errno: Errno::EIO }),
            false => Ok(()),
        }
    }

    /// The inode flags that the object itself has.
    pub(super) fn own_flags(&self, inode: &Inode) -> Result<u32> {
        let read = inode.with(|at| {
            let fd = open::file(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK).call("openat2")?;
            attr::flags(fd.as_fd()).call("FS_IOC_GETFLAGS")
        });
        read.map_err(no_flags)
    }

    /// Sets the inode flags of the object itself, if they are others.
    pub(super) fn set_own_flags(&self, inode: &Inode, flags: u32) -> Result<()> {
        let set = inode.with(|at| {
            let fd = open::file(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK).call("openat2")?;
            match attr::flags(fd.as_fd()).call("FS_IOC_GETFLAGS")? {
                same if same == flags => Ok(()),
                _ => attr::set_flags(fd.as_fd(), flags).call("FS_IOC_SETFLAGS"),
            }
        });
        set.map_err(no_flags)
    }

    /// The extended inode flags, which the kernel asks for before it sets any.
    pub fn extended_flags(&self, ino: Ino) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        let read = inode.with(|at| {
            let fd = open::file(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK).call("openat2")?;
            attr::extended(fd.as_fd()).call("FS_IOC_FSGETXATTR")
        });
        Ok(read.map_err(no_flags)?.into_iter().flat_map(u32::to_ne_bytes).collect())
    }
}
