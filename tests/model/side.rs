//! One of the two trees, what is open in it, and how a step is carried out there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path as FsPath, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use crate::common::sys as call;
use crate::map::Map;
use crate::op::{Flag, Op, Step, Time, Value};
use crate::stream::Stream;
use crate::who;

/// What a step gave. What is not comparable between two trees is checked on the spot and said as `Wrong`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Number(i64),
    Bytes(Vec<u8>),
    Fields(BTreeMap<&'static str, String>),
    Names(Vec<String>),
    /// The slot is empty: nothing was done.
    Empty,
    Wrong(String),
}

pub type Outcome = Result<Answer, Errno>;

pub struct Side {
    pub root: PathBuf,
    /// Times from this second on are those of the run, and only compared as such.
    begun: i64,
    files: Vec<Option<File>>,
    maps: Vec<Option<Map>>,
    streams: Vec<Option<Stream>>,
}

/// How many slots there are of each kind.
pub const SLOTS: usize = 4;

fn slots<T>() -> Vec<Option<T>> {
    (0..SLOTS).map(|_| None).collect()
}

/// The marks that a layer is made with by hand.
const OPAQUE: &str = "trusted.overlay.opaque";

impl Side {
    pub fn new(root: &FsPath, begun: i64) -> Side {
        Side { root: root.to_owned(), begun, files: slots(), maps: slots(), streams: slots() }
    }

    /// Closes everything. What a directory stream has had wrong.
    pub fn close(&mut self) -> Result<(), String> {
        (self.files, self.maps) = (slots(), slots());
        let streams = std::mem::replace(&mut self.streams, slots());
        streams.into_iter().flatten().try_for_each(|mut stream| stream.finish())
    }

    /// Notes the names that may come or go by a step, for who reads a directory.
    pub fn touch(&mut self, step: &Step) {
        for path in step.op.names() {
            let name = path.rsplit('/').next().unwrap_or(path);
            self.streams.iter_mut().flatten().for_each(|stream| stream.touch(name));
        }
    }

    /// Carries one step out.
    pub fn step(&mut self, step: &Step) -> Outcome {
        self.touch(step);
        who::acting(step.uid, step.umask, || self.carry_out(&step.op))
    }

    fn carry_out(&mut self, op: &Op) -> Outcome {
        let at = |path: &str| self.root.join(path);
        let done = |result: nix::Result<()>| result.map(|()| Answer::Done);
        match *op {
            Op::Open(slot, path, flags, mode) => {
                // Nobody waits for the other end of a fifo.
                let file = call::open(at(path), flags | libc::O_NONBLOCK, mode)?;
                self.files[slot] = Some(file);
                Ok(Answer::Done)
            }
            Op::Close(slot) => Ok(self.files[slot].take().map_or(Answer::Empty, |_| Answer::Done)),
            Op::OpenDir(slot, path) => {
                self.streams[slot] = Some(Stream::open(&at(path))?);
                Ok(Answer::Done)
            }
            Op::CloseDir(slot) => match self.streams[slot].take() {
                None => Ok(Answer::Empty),
                Some(mut stream) => Ok(told(stream.finish())),
            },
            Op::NextDir(slot, _) | Op::MarkDir(slot) | Op::BackDir(slot) | Op::Rewind(slot) => {
                match &mut self.streams[slot] {
                    None => Ok(Answer::Empty),
                    Some(stream) => read_on(stream, op),
                }
            }
            Op::Map(slot, file, len, shared, writable) => {
                let Some(file) = &self.files[file] else { return Ok(Answer::Empty) };
                self.maps[slot] = Some(Map::new(file, len, shared, writable)?);
                Ok(Answer::Done)
            }
            Op::Unmap(slot) => Ok(self.maps[slot].take().map_or(Answer::Empty, |_| Answer::Done)),
            Op::MapGet(slot, ..) | Op::MapPut(slot, ..) | Op::MapSync(slot) => match &self.maps[slot] {
                None => Ok(Answer::Empty),
                Some(map) => mapped(map, op),
            },
            Op::CopyRange(from, from_at, to, to_at, len) => {
                let (Some(from), Some(to)) = (&self.files[from], &self.files[to]) else {
                    return Ok(Answer::Empty);
                };
                call::copy_file_range(from, from_at, to, to_at, len).map(|n| Answer::Number(n as i64))
            }
            Op::Read(slot, ..) | Op::Write(slot, ..) | Op::Pread(slot, ..) | Op::Pwrite(slot, ..) => {
                self.with(slot, |file| bytes(file, op))
            }
            Op::Seek(slot, ..) | Op::Holes(slot, ..) | Op::Ftruncate(slot, ..) | Op::Fallocate(slot, ..) => {
                self.with(slot, |file| bytes(file, op))
            }
            Op::Fsync(slot) | Op::Fchmod(slot, ..) | Op::Fchown(slot, ..) | Op::Futimens(slot, ..) => {
                self.with(slot, |file| attributes(file, op))
            }
            Op::Fsetxattr(slot, ..) | Op::Fgetxattr(slot, ..) => self.with(slot, |file| attributes(file, op)),
            Op::Fstat(slot) => self.with(slot, |file| Ok(self.fields(&file.metadata().map_err(errno)?))),
            Op::Stat(path) => Ok(self.fields(&fs::symlink_metadata(at(path)).map_err(errno)?)),
            Op::StatFollow(path) => Ok(self.fields(&fs::metadata(at(path)).map_err(errno)?)),
            // Whether a file that has this length already is changed by it differs from one filesystem to another.
            Op::Truncate(path, len)
                if fs::metadata(at(path)).is_ok_and(|file| file.is_file() && file.len() as i64 == len) =>
            {
                Ok(Answer::Empty)
            }
            Op::Truncate(path, len) => done(call::truncate(at(path), len)),
            Op::Mkdir(path, mode) => done(call::mkdir(at(path), mode)),
            Op::Rmdir(path) => done(call::rmdir(at(path))),
            Op::Unlink(path) => done(call::unlink(at(path))),
            Op::Rename(from, to, flag) => {
                let flag = match flag {
                    Flag::Replace => 0,
                    Flag::NoReplace => libc::RENAME_NOREPLACE,
                    Flag::Exchange => libc::RENAME_EXCHANGE,
                    Flag::Whiteout => libc::RENAME_WHITEOUT,
                };
                done(call::renameat2(at(from), at(to), flag))
            }
            Op::Link(from, to) => done(call::link(at(from), at(to))),
            Op::Symlink(target, path) => done(call::symlink(target, at(path))),
            Op::Readlink(path) => {
                let target = fs::read_link(at(path)).map_err(errno)?;
                Ok(Answer::Bytes(target.into_os_string().into_encoded_bytes()))
            }
            Op::Mknod(path, mode, major, minor) => {
                done(call::mknod(at(path), mode, libc::makedev(major, minor)))
            }
            Op::Chmod(path, mode) => done(call::chmod(at(path), mode)),
            Op::Chown(path, uid, gid) => {
                done(nix::unistd::chown(&at(path), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
            }
            Op::Lchown(path, uid, gid) => done(call::lchown(at(path), uid, gid)),
            Op::Utimens(path, atime, mtime) => done(utimensat(
                nix::fcntl::AT_FDCWD,
                &at(path),
                &spec(atime),
                &spec(mtime),
                UtimensatFlags::NoFollowSymlink,
            )),
            Op::Setxattr(path, name, value, how) => {
                done(call::setxattr(at(path), name, &value_of(value), how))
            }
            Op::Getxattr(path, name) => call::getxattr(at(path), name).map(Answer::Bytes),
            Op::Listxattr(path) => {
                let names = call::listxattr(at(path))?;
                Ok(Answer::Names(names.into_iter().map(|name| name.into_string().unwrap()).collect()))
            }
            Op::Removexattr(path, name) => done(call::removexattr(at(path), name)),
            Op::List(path) => list(&at(path)),
            Op::Whiteout(path) => done(call::mknod(at(path), libc::S_IFCHR, 0)),
            Op::Opaque(path) => match at(path).is_dir() {
                true => done(call::setxattr(at(path), OPAQUE, b"y", 0)),
                false => Err(Errno::ENOTDIR),
            },
            Op::Look | Op::Remount | Op::ReadOnly(_) => Ok(Answer::Empty),
        }
    }

    fn with(&self, slot: usize, act: impl FnOnce(&File) -> Outcome) -> Outcome {
        self.files[slot].as_ref().map_or(Ok(Answer::Empty), act)
    }

    /// What `stat` shows that two trees have in common.
    fn fields(&self, meta: &fs::Metadata) -> Answer {
        let mut fields = BTreeMap::from([
            ("mode", format!("{:o}", meta.mode())),
            ("owner", format!("{}:{}", meta.uid(), meta.gid())),
            ("mtime", self.time(meta.mtime(), meta.mtime_nsec())),
        ]);
        if !meta.is_dir() {
            fields.insert("nlink", meta.nlink().to_string());
            fields.insert("size", meta.size().to_string());
            fields.insert("rdev", meta.rdev().to_string());
        }
        Answer::Fields(fields)
    }

    fn time(&self, seconds: i64, nanos: i64) -> String {
        if seconds >= self.begun { "now".to_owned() } else { format!("{seconds}.{nanos:09}") }
    }
}

/// Steps of a directory stream.
fn read_on(stream: &mut Stream, op: &Op) -> Outcome {
    match *op {
        Op::NextDir(_, times) => return Ok(told(stream.next(times))),
        Op::MarkDir(_) => stream.mark(),
        Op::BackDir(_) => stream.back(),
        // Not compared: the directory may have been removed, and then one filesystem lists nothing and another says so.
        _ => stream.rewind().unwrap_or_default(),
    }
    Ok(Answer::Done)
}

/// Steps of a map.
fn mapped(map: &Map, op: &Op) -> Outcome {
    match *op {
        Op::MapGet(_, at, len) => map.get(at, len).map(Answer::Bytes),
        Op::MapPut(_, at, byte, len) => map.put(at, &pattern(byte, len)).map(|n| Answer::Number(n as i64)),
        _ => map.sync().map(|()| Answer::Done),
    }
}

/// Steps on the bytes of an open file.
fn bytes(file: &File, op: &Op) -> Outcome {
    let number = |result: std::io::Result<usize>| Ok(Answer::Number(result.map_err(errno)? as i64));
    match *op {
        Op::Read(_, len) => {
            let mut room = vec![0; len];
            let got = std::io::Read::read(&mut &*file, &mut room).map_err(errno)?;
            room.truncate(got);
            Ok(Answer::Bytes(room))
        }
        Op::Pread(_, at, len) => {
            let mut room = vec![0; len];
            let got = file.read_at(&mut room, at as u64).map_err(errno)?;
            room.truncate(got);
            Ok(Answer::Bytes(room))
        }
        Op::Write(_, byte, len) => number(std::io::Write::write(&mut &*file, &pattern(byte, len))),
        Op::Pwrite(_, at, byte, len) => number(file.write_at(&pattern(byte, len), at as u64)),
        // How long a directory is, is its filesystem's affair.
        Op::Seek(..) | Op::Holes(..) if !file.metadata().map_err(errno)?.is_file() => Ok(Answer::Empty),
        Op::Seek(_, at, whence) => call::lseek(file, at, whence).map(|n| Answer::Number(n as i64)),
        Op::Holes(_, at) => holes(file, at),
        Op::Ftruncate(_, len) => {
            nix::unistd::ftruncate(file, len)?;
            Ok(Answer::Done)
        }
        Op::Fallocate(_, mode, at, len) => call::fallocate(file, mode, at, len).map(|()| Answer::Done),
        _ => Ok(Answer::Empty),
    }
}

/// Steps on the attributes of an open file.
fn attributes(file: &File, op: &Op) -> Outcome {
    match *op {
        Op::Fsync(_) => file.sync_all().map_err(errno)?,
        Op::Fchmod(_, mode) => nix::sys::stat::fchmod(file, Mode::from_bits_truncate(mode))?,
        Op::Fchown(_, uid, gid) => {
            nix::unistd::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Op::Futimens(_, atime, mtime) => futimens(file, &spec(atime), &spec(mtime))?,
        Op::Fsetxattr(_, name, value) => call::fsetxattr(file, name, &value_of(value))?,
        Op::Fgetxattr(_, name) => return call::fgetxattr(file, name).map(Answer::Bytes),
        _ => return Ok(Answer::Empty),
    }
    Ok(Answer::Done)
}

/// All that the file says to be a hole, from `at` on, reads as zeros. Where there are holes is the filesystem's affair.
fn holes(file: &File, at: i64) -> Outcome {
    let size = file.metadata().map_err(errno)?.len() as i64;
    let before = call::lseek(file, 0, libc::SEEK_CUR)?;
    if at >= size {
        // Nothing is there, neither data nor a hole.
        let outcome = call::lseek(file, at, libc::SEEK_DATA).map(|n| Answer::Number(n as i64));
        call::lseek(file, before as i64, libc::SEEK_SET)?;
        return outcome;
    }
    let mut wrong = None;
    let mut from = at;
    while from < size {
        let data = match call::lseek(file, from, libc::SEEK_DATA) {
            Ok(data) => data as i64,
            Err(Errno::ENXIO) => size,
            Err(errno) => return Err(errno),
        };
        let mut hole = vec![0; (data - from).clamp(0, 1 << 20) as usize];
        // A file that is not open for reading cannot be looked at.
        if file.read_exact_at(&mut hole, from as u64).is_ok() && hole.iter().any(|byte| *byte != 0) {
            wrong = Some(format!("data in the hole from {from} to {data}"));
        }
        if data >= size {
            break;
        }
        from = call::lseek(file, data, libc::SEEK_HOLE)? as i64;
    }
    call::lseek(file, before as i64, libc::SEEK_SET)?;
    Ok(wrong.map_or(Answer::Done, Answer::Wrong))
}

/// The names of a directory and their types, sorted.
fn list(path: &FsPath) -> Outcome {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let kind = entry.file_type().map_err(errno)?;
        names.push(format!("{} {kind:?}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(Answer::Names(names))
}

fn told(what: Result<(), String>) -> Answer {
    what.map_or_else(Answer::Wrong, |()| Answer::Done)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Bytes that tell where they were written.
fn pattern(byte: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| byte.wrapping_add((i % 251) as u8)).collect()
}

fn spec(time: Time) -> TimeSpec {
    match time {
        Time::Now => TimeSpec::UTIME_NOW,
        Time::Omit => TimeSpec::UTIME_OMIT,
        Time::To(seconds, nanos) => TimeSpec::new(seconds, nanos),
    }
}

/// The value as the kernel takes it. Source: acl(5), linux/posix_acl_xattr.h, linux/capability.h.
fn value_of(value: Value) -> Vec<u8> {
    match value {
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Acl(mask) => {
            let entry = |tag: u16, rights: u16, id: u32| {
                [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
            };
            let none = u32::MAX;
            let entries = [
                entry(0x01, 6, none),
                entry(0x02, 6, 1000),
                entry(0x04, 4, none),
                entry(0x10, mask & 7, none),
                entry(0x20, 4, none),
            ];
            [2u32.to_le_bytes().to_vec(), entries.concat()].concat()
        }
        Value::Capability => {
            let words = [0x0200_0001u32, 0x2000, 0, 0, 0];
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        }
    }
}
