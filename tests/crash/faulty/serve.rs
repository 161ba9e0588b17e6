//! What the kernel asks, passed on to the store.

use std::ffi::OsStr;
use std::io::Error;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{FileHandle, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, Request, TimeOrNow};

use super::{Open, Shown, attr, check, path, text};
use crate::common::{FileExt, sys};

/// Answers with a value by one method of the reply, or with the errno.
macro_rules! answer {
    ($reply:ident, $result:expr, $($ok:tt)+) => {
        match $result {
            Ok(value) => answer!(@ $reply, value, $($ok)+),
            Err(error) => $reply.error(error.into()),
        }
    };
    (@ $reply:ident, $value:ident, entry) => { $reply.entry(&Duration::ZERO, &$value, Generation(0)) };
    (@ $reply:ident, $value:ident, attr) => { $reply.attr(&Duration::ZERO, &$value) };
    (@ $reply:ident, $value:ident, ok) => {{ let _ = $value; $reply.ok() }};
    (@ $reply:ident, $value:ident, data) => { $reply.data(&$value) };
    (@ $reply:ident, $value:ident, written) => { $reply.written($value as u32) };
    (@ $reply:ident, $value:ident, opened) => { $reply.opened($value, FopenFlags::empty()) };
    (@ $reply:ident, $value:ident, room $size:ident) => {
        match $size as usize {
            0 => $reply.size($value.len() as u32),
            size if size < $value.len() => $reply.error(fuser::Errno::ERANGE),
            _ => $reply.data(&$value),
        }
    };
}

impl fuser::Filesystem for Shown {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let found = self.faults.read().and_then(|()| self.entry(&*self.node(parent)?, name));
        answer!(reply, found, entry)
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        let mut nodes = self.nodes.lock().unwrap();
        if let Some(node) = nodes.get_mut(&ino.0) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 {
                nodes.remove(&ino.0);
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: fuser::ReplyAttr) {
        let found = self.faults.read().and_then(|()| attr(&*self.node(ino)?, ino == INodeNo::ROOT));
        answer!(reply, found, attr)
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: fuser::ReplyAttr,
    ) {
        answer!(reply, self.set(ino, (mode, uid, gid), size, [atime, mtime]), attr)
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: fuser::ReplyData) {
        let target = self
            .faults
            .read()
            .and_then(|()| Ok(nix::fcntl::readlinkat(self.node(ino)?.as_fd(), "")?.into_vec()));
        answer!(reply, target, data)
    }

    fn mknod(
        &self,
        req: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        dev: u32,
        reply: fuser::ReplyEntry,
    ) {
        let make = |at, name| unsafe { libc::mknodat(at, name, mode, dev.into()) };
        answer!(reply, self.made(req, dir, name, Some(mode), make), entry)
    }

    fn mkdir(&self, req: &Request, dir: INodeNo, name: &OsStr, mode: u32, _: u32, reply: fuser::ReplyEntry) {
        let make = |at, name| unsafe { libc::mkdirat(at, name, 0o700) };
        answer!(reply, self.made(req, dir, name, Some(mode), make), entry)
    }

    fn symlink(&self, req: &Request, dir: INodeNo, name: &OsStr, target: &Path, reply: fuser::ReplyEntry) {
        let target = sys::c(target);
        let make = |at, name| unsafe { libc::symlinkat(target.as_ptr(), at, name) };
        answer!(reply, self.made(req, dir, name, None, make), entry)
    }

    fn link(&self, _: &Request, ino: INodeNo, dir: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let linked = self.faults.change().and_then(|()| {
            let (from, dir) = (path(&*self.node(ino)?), self.node(dir)?);
            let (to, follow) = (text(name)?, libc::AT_SYMLINK_FOLLOW);
            check(unsafe {
                libc::linkat(libc::AT_FDCWD, from.as_ptr(), dir.as_raw_fd(), to.as_ptr(), follow)
            })?;
            self.entry(&dir, name)
        });
        answer!(reply, linked, entry)
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        answer!(reply, self.removed(parent, name, 0), ok)
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        answer!(reply, self.removed(parent, name, libc::AT_REMOVEDIR), ok)
    }

    fn rename(
        &self,
        _: &Request,
        old: INodeNo,
        name: &OsStr,
        new: INodeNo,
        newname: &OsStr,
        flags: fuser::RenameFlags,
        reply: fuser::ReplyEmpty,
    ) {
        answer!(reply, self.moved((old, name), (new, newname), flags.bits()), ok)
    }

    fn create(
        &self,
        req: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        match self.make_file(req, dir, name, mode, flags) {
            Ok((attr, fh)) => reply.created(&Duration::ZERO, &attr, Generation(0), fh, FopenFlags::empty()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: fuser::ReplyOpen) {
        answer!(reply, self.faults.read().and_then(|()| self.open_file(ino, flags.0)), opened)
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let bytes = self.faults.read().and_then(|()| {
            let mut bytes = vec![0; size as usize];
            let len = self.file(fh)?.read_at(&mut bytes, at)?;
            bytes.truncate(len);
            Ok(bytes)
        });
        answer!(reply, bytes, data)
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        at: u64,
        data: &[u8],
        _: fuser::WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        let written = self
            .change_file(fh, |fd| unsafe { libc::pwrite(fd, data.as_ptr().cast(), data.len(), at as i64) });
        answer!(reply, written, written)
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: fuser::ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: fuser::ReplyEmpty,
    ) {
        self.open.lock().unwrap().remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: fuser::ReplyEmpty) {
        answer!(reply, self.change_file(fh, |fd| unsafe { libc::fsync(fd) } as isize), ok)
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: fuser::ReplyEmpty) {
        answer!(reply, self.faults.change(), ok)
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        answer!(reply, self.faults.read().map(|()| self.remember(Open::Dir(Vec::new()))), opened)
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, at: u64, mut reply: fuser::ReplyDirectory) {
        let filled = self.faults.read().and_then(|()| {
            let fresh = if at == 0 { Some(self.list(ino)?) } else { None };
            let mut open = self.open.lock().unwrap();
            if let Some(fresh) = fresh {
                open.insert(fh.0, Open::Dir(fresh));
            }
            let Some(Open::Dir(entries)) = open.get(&fh.0) else {
                return Err(Error::from_raw_os_error(libc::EBADF));
            };
            for (next, (name, kind, ino)) in entries.iter().enumerate().skip(at as usize) {
                if reply.add(INodeNo(*ino), next as u64 + 1, *kind, name) {
                    break;
                }
            }
            Ok(())
        });
        answer!(reply, filled, ok)
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: fuser::ReplyEmpty) {
        self.open.lock().unwrap().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: fuser::ReplyStatfs) {
        match nix::sys::statvfs::fstatvfs(&self.root) {
            Ok(v) => {
                let (size, name) = (v.block_size() as u32, v.name_max() as u32);
                let part = v.fragment_size() as u32;
                reply.statfs(
                    v.blocks(),
                    v.blocks_free(),
                    v.blocks_available(),
                    v.files(),
                    v.files_free(),
                    size,
                    name,
                    part,
                );
            }
            Err(errno) => reply.error(fuser::Errno::from_i32(errno as i32)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: fuser::ReplyEmpty,
    ) {
        let set = self.faults.change().and_then(|()| {
            let (at, name) = (path(&*self.node(ino)?), text(name)?);
            let (from, len) = (value.as_ptr().cast(), value.len());
            check(unsafe { libc::setxattr(at.as_ptr(), name.as_ptr(), from, len, flags) })
        });
        answer!(reply, set, ok)
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: fuser::ReplyXattr) {
        let name = sys::c(name);
        let value =
            self.attribute(ino, |at, to, room| unsafe { libc::getxattr(at, name.as_ptr(), to.cast(), room) });
        answer!(reply, value, room size)
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        let list = self.attribute(ino, |at, to, room| unsafe { libc::listxattr(at, to.cast(), room) });
        answer!(reply, list, room size)
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let removed = self.faults.change().and_then(|()| {
            check(unsafe { libc::removexattr(path(&*self.node(ino)?).as_ptr(), text(name)?.as_ptr()) })
        });
        answer!(reply, removed, ok)
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        at: u64,
        len: u64,
        mode: i32,
        reply: fuser::ReplyEmpty,
    ) {
        let done =
            self.change_file(fh, |fd| unsafe { libc::fallocate(fd, mode, at as i64, len as i64) } as isize);
        answer!(reply, done, ok)
    }
}
