//! `fuser::Filesystem` for the merged tree: one short method per request.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::fcntl::OFlag;

use super::convert::{decode_device, file_type, rename_mode, set_time, writing};
use super::reply::answer;
use super::served::{Adapter, NO_GENERATION, SET_FLAGS, absent, caller, fit, flags, handle, with_buffer};
use crate::error::Error;
use crate::inode::Ino;
use crate::overlay::{Asked, NewNode, SetAttr};
use crate::sys::copy::Seek;
use crate::sys::xattr::SetMode;

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.ask_kernel(config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.on_name(parent, &name.clone(), move |served| {
            let found = served.overlay.lookup(Ino(parent.0), &name);
            answer!("lookup", parent.0, reply, found, (found, lifetime) => match found {
                Some(entry) => served.entry(reply, entry),
                // Only an entry with the number 0 is remembered; an error is not.
                None => reply.entry(&served.lifetime(lifetime), &absent(), NO_GENERATION),
            })
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.overlay.forgotten(Ino(ino.0), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.on(ino, move |served| {
            let found = served.overlay.getattr(Ino(ino.0));
            answer!("getattr", ino.0, reply, found, attr => served.attr(reply, &attr))
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (set_time(atime), set_time(mtime));
        let change = SetAttr { mode, uid, gid, size, atime, mtime, fh: fh.map(handle) };
        let caller = caller(req, 0);
        self.maybe_long(ino, move |served| {
            let done = served.overlay.setattr(caller, Ino(ino.0), change);
            answer!("setattr", ino.0, reply, done, attr => served.attr(reply, &attr))
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.on(ino, move |served| {
            let target = served.overlay.readlink(Ino(ino.0));
            answer!("readlink", ino.0, reply, target, target => reply.data(target.as_bytes()))
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let node = NewNode::Node { mode, device: decode_device(rdev) };
        let (caller, name) = (caller(req, umask), name.to_owned());
        self.on(parent, move |served| {
            let made = served.overlay.make(caller, Ino(parent.0), &name, node);
            answer!("mknod", parent.0, reply, made, entry => served.entry(reply, entry))
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let node = NewNode::Dir { mode: mode & 0o7777 };
        let (caller, name) = (caller(req, umask), name.to_owned());
        self.on(parent, move |served| {
            let made = served.overlay.make(caller, Ino(parent.0), &name, node);
            answer!("mkdir", parent.0, reply, made, entry => served.entry(reply, entry))
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (caller, name, target) = (caller(req, 0), link_name.to_owned(), target.to_owned());
        self.on(parent, move |served| {
            let node = NewNode::Symlink(target.as_os_str());
            let made = served.overlay.make(caller, Ino(parent.0), &name, node);
            answer!("symlink", parent.0, reply, made, entry => served.entry(reply, entry))
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let waits = self.overlay.waits_for(Ino(parent.0));
        if waits.is_none() {
            match self.overlay.unlink_at_once(Ino(parent.0), name) {
                Ok(false) => {}
                done => return answer!("unlink", parent.0, reply, done, _ => reply.ok()),
            }
        }
        let name = name.to_owned();
        self.apart_if(waits, true, move |served| {
            let done = served.overlay.unlink(Ino(parent.0), &name);
            answer!("unlink", parent.0, reply, done, () => reply.ok())
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.on(parent, move |served| {
            let done = served.overlay.rmdir(Ino(parent.0), &name);
            answer!("rmdir", parent.0, reply, done, () => reply.ok())
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = rename_mode(flags);
        let (old, new) = (Ino(parent.0), Ino(newparent.0));
        let waits = self.overlay.waits_for(old).or_else(|| self.overlay.waits_for(new));
        let whiteout_of = flags.contains(RenameFlags::RENAME_WHITEOUT).then(|| caller(req, 0));
        let asked = Asked { parent: old, name, new_parent: new, new_name: newname, mode, whiteout_of };
        if waits.is_none() {
            match self.overlay.rename_at_once(asked) {
                Ok(false) => {}
                done => return answer!("rename", parent.0, reply, done, _ => reply.ok()),
            }
        }
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.apart_if(waits, true, move |served| {
            let asked =
                Asked { parent: old, name: &name, new_parent: new, new_name: &newname, mode, whiteout_of };
            let done = served.overlay.rename(asked);
            answer!("rename", parent.0, reply, done, () => reply.ok())
        });
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let newname = newname.to_owned();
        self.maybe_long(ino, move |served| {
            let linked = served.overlay.link(Ino(ino.0), Ino(newparent.0), &newname);
            answer!("link", ino.0, reply, linked, entry => served.entry(reply, entry))
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, bits: OpenFlags, reply: ReplyOpen) {
        let (caller, flags) = (caller(req, 0), flags(bits.0));
        // Reading copies nothing up, and cutting everything off copies no data.
        if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY || flags.contains(OFlag::O_TRUNC) {
            return self.on(ino, move |served| served.open_for(caller, ino, flags, reply));
        }
        self.maybe_long(ino, move |served| served.open_for(caller, ino, flags, reply));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        bits: i32,
        reply: ReplyCreate,
    ) {
        let (caller, name) = (caller(req, umask), name.to_owned());
        self.on(parent, move |served| {
            let created = served.overlay.create(caller, Ino(parent.0), &name, mode, flags(bits));
            answer!("create", parent.0, reply, created, (entry, opened) => served.created(reply, entry, opened))
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.on(ino, move |served| {
            with_buffer(size as usize, |buffer| {
                let read = served.overlay.read(handle(fh), offset, buffer);
                answer!("read", ino.0, reply, read, len => reply.data(buffer.get(..len).unwrap_or(buffer)))
            });
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        bits: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let how = writing(req.pid(), write_flags, bits);
        let waits = self.overlay.waits_for(Ino(ino.0));
        if waits.is_some() {
            let data = data.to_vec();
            return self.apart_if(waits, false, move |served| {
                let written = served.overlay.write(handle(fh), offset, &data, how);
                answer!("write", ino.0, reply, written, len => reply.written(len as u32))
            });
        }
        let written = self.overlay.write(handle(fh), offset, data, how);
        answer!("write", ino.0, reply, written, len => reply.written(len as u32))
    }

    fn flush(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        self.on(ino, move |served| {
            let done = served.overlay.flush(handle(fh));
            answer!("flush", ino.0, reply, done, () => reply.ok())
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Answered first, since nobody waits: the kernel sends only so many such requests at a time.
        reply.ok();
        self.closing(ino, move |served| {
            if let Some(backed) = served.overlay.release(handle(fh)) {
                served.backings.release(backed);
            }
        });
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.on(ino, move |served| {
            let done = served.overlay.fsync(handle(fh), datasync);
            answer!("fsync", ino.0, reply, done, () => reply.ok())
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let keep = match self.overlay.listing_holds(Ino(ino.0)) {
            true => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::empty(),
        };
        self.on(ino, move |served| {
            let opened = served.overlay.opendir(Ino(ino.0));
            answer!("opendir", ino.0, reply, opened, fh => reply.opened(FileHandle(fh.0), keep))
        });
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.on(ino, move |served| {
            let listed = served.overlay.readdir(handle(fh), offset, |entry| {
                reply.add(INodeNo(entry.st_ino), entry.next, file_type(entry.kind), entry.name)
            });
            answer!("readdir", ino.0, reply, listed, () => reply.ok())
        });
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.on(ino, move |served| served.list_with_attributes(ino, fh, offset, reply));
    }

    fn releasedir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        reply.ok();
        self.closing(ino, move |served| served.overlay.releasedir(handle(fh)));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.on(ino, move |served| {
            let done = served.overlay.fsyncdir(handle(fh));
            answer!("fsyncdir", ino.0, reply, done, () => reply.ok())
        });
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.on(ino, move |served| {
            answer!("statfs", ino.0, reply, served.overlay.statfs(Ino(ino.0)), (room, name_max) => reply.statfs(
                room.blocks(),
                room.blocks_free(),
                room.blocks_available(),
                room.files(),
                room.files_free(),
                room.block_size() as u32,
                name_max as u32,
                room.fragment_size() as u32,
            ))
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        bits: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if !self.wishes.xattr {
            return reply.error(Errno::ENOSYS);
        }
        let mode = match bits {
            libc::XATTR_CREATE => SetMode::Create,
            libc::XATTR_REPLACE => SetMode::Replace,
            _ => SetMode::Any,
        };
        let (caller, name, value) = (caller(req, 0), name.to_owned(), value.to_vec());
        self.maybe_long(ino, move |served| {
            let done = served.overlay.setxattr(caller, Ino(ino.0), &name, &value, mode);
            answer!("setxattr", ino.0, reply, done, () => reply.ok())
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.wishes.xattr {
            return reply.error(Errno::ENOSYS);
        }
        let name = name.to_owned();
        self.on(ino, move |served| {
            let mut value = vec![0; size as usize];
            let read = served.overlay.getxattr(Ino(ino.0), &name, &mut value);
            answer!("getxattr", ino.0, reply, read, len => {
                if size == 0 { reply.size(len as u32) } else { reply.data(value.get(..len).unwrap_or(&value)) }
            })
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.wishes.xattr {
            return reply.error(Errno::ENOSYS);
        }
        let caller = caller(req, 0);
        self.on(ino, move |served| {
            let listed = served.overlay.listxattr(caller, Ino(ino.0)).and_then(|names| fit(names, size));
            answer!("listxattr", ino.0, reply, listed, names => {
                if size == 0 { reply.size(names.len() as u32) } else { reply.data(&names) }
            })
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !self.wishes.xattr {
            return reply.error(Errno::ENOSYS);
        }
        let name = name.to_owned();
        self.maybe_long(ino, move |served| {
            let done = served.overlay.removexattr(Ino(ino.0), &name);
            answer!("removexattr", ino.0, reply, done, () => reply.ok())
        });
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions itself and need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let by = caller(req, 0);
        if cmd == SET_FLAGS {
            let Some(flags) = in_data.first_chunk::<4>().copied() else { return reply.error(Errno::EINVAL) };
            return self.maybe_long(ino, move |served| {
                let done = served.overlay.set_flags(by, Ino(ino.0), u32::from_ne_bytes(flags));
                answer!("ioctl", ino.0, reply, done, () => reply.ioctl(0, &[]))
            });
        }
        self.on(ino, move |served| {
            answer!("ioctl", ino.0, reply, served.flags_of(ino, cmd), flags => reply.ioctl(0, &flags))
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let by = caller(req, 0).writer();
        self.on(ino, move |served| {
            let done = served.overlay.fallocate(by, handle(fh), mode, offset, length);
            answer!("fallocate", ino.0, reply, done, () => reply.ok())
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let what = match whence {
            libc::SEEK_DATA => Ok(Seek::Data),
            libc::SEEK_HOLE => Ok(Seek::Hole),
            _ => Err(Error::Invalid("the kernel seeks by itself but for data and holes")),
        };
        let start =
            u64::try_from(offset).map_err(|_| Error::Sys { call: "lseek", errno: nix::errno::Errno::ENXIO });
        self.on(ino, move |served| {
            let found = what.and_then(|what| served.overlay.seek(handle(fh), start?, what));
            answer!("lseek", ino.0, reply, found, at => reply.offset(at as i64))
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let waits = self.overlay.waits_for(Ino(ino_in.0));
        let waits = waits.or_else(|| self.overlay.waits_for(Ino(ino_out.0)));
        let by = caller(req, 0).writer();
        self.apart_if(waits, false, move |served| {
            let (from, to) = ((handle(fh_in), offset_in), (handle(fh_out), offset_out));
            let copied = served.overlay.copy_range(by, from, to, len);
            answer!("copy_file_range", ino_in.0, reply, copied, len => reply.written(len as u32))
        });
    }
}
