//! A disk that fails on request: a FUSE filesystem that shows a directory and answers EIO to changes, or to everything, while
//! it is told to. It has what an upper layer needs: whiteouts, `trusted.` attributes, all ways of renaming, hard links.
//!
//! A failing call does nothing at all. Nothing is answered with a lifetime, so the kernel asks again each time.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileHandle, FileType, INodeNo, MountOption, Request, TimeOrNow};

use crate::common::*;

mod serve;

/// What fails, and how often it has.
#[derive(Debug, Default)]
pub struct Faults {
    /// One change in so many fails: 0 for none, 1 for all.
    changes: AtomicU64,
    /// The same of what only reads.
    reads: AtomicU64,
    random: AtomicU64,
    pub failed: AtomicU64,
}

impl Faults {
    /// From now on one change in `changes` fails, and one reading call in `reads`.
    pub fn set(&self, changes: u64, reads: u64) {
        self.changes.store(changes, Ordering::SeqCst);
        self.reads.store(reads, Ordering::SeqCst);
    }

    fn pass(&self, one_in: &AtomicU64) -> Result<()> {
        let one_in = one_in.load(Ordering::SeqCst);
        // A step of a linear congruential generator; its upper bits are good enough.
        let step =
            |seed: u64| seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let seed =
            self.random.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |seed| Some(step(seed))).unwrap();
        if one_in == 0 || (seed >> 33) % one_in != 0 {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(Error::from_raw_os_error(libc::EIO))
    }

    fn change(&self) -> Result<()> {
        self.pass(&self.changes)
    }

    fn read(&self) -> Result<()> {
        self.pass(&self.reads)
    }
}

/// The disk while it is mounted.
pub struct Disk {
    pub faults: Arc<Faults>,
    session: Option<fuser::BackgroundSession>,
    at: Umount,
}

impl Disk {
    /// Shows `store` at `at`.
    pub fn mount(store: &Path, at: &Path, seed: u64) -> Disk {
        let faults = Arc::new(Faults { random: AtomicU64::new(seed), ..Faults::default() });
        let root = Arc::new(File::open(store).unwrap().into());
        let (nodes, open, next) = (Mutex::default(), Mutex::default(), AtomicU64::new(1));
        let shown = Shown { root, nodes, open, next, faults: faults.clone() };
        let mut config = fuser::Config::default();
        config.mount_options =
            vec![MountOption::FSName("faulty".to_owned()), MountOption::Dev, MountOption::Suid];
        config.acl = fuser::SessionACL::All;
        config.n_threads = Some(4);
        let session = fuser::spawn_mount(shown, at, &config).unwrap();
        Disk { faults, session: Some(session), at: Umount(at.to_owned()) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.faults.set(0, 0);
        let ended = || unsafe { libc::umount2(sys::c(&self.at.0).as_ptr(), 0) } == 0;
        if eventually(LIMIT, ended) {
            let session = self.session.take().unwrap();
            session.join().unwrap();
        } else {
            eprintln!("{} is busy and is detached", self.at.0.display());
        }
    }
}

/// What the kernel knows by number: a descriptor that keeps the object, and how many lookups it has.
struct Node {
    fd: Arc<OwnedFd>,
    lookups: u64,
}

enum Open {
    File(Arc<File>),
    Dir(Vec<(OsString, FileType, u64)>),
}

struct Shown {
    root: Arc<OwnedFd>,
    /// By the number that the store gives; the root is not here.
    nodes: Mutex<HashMap<u64, Node>>,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
    faults: Arc<Faults>,
}

fn text(name: &OsStr) -> Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

/// A path by which calls that know no descriptor reach what it stands for, symlinks themselves included.
fn path(fd: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

fn check(r: libc::c_int) -> Result<usize> {
    sized(r as isize)
}

fn sized(r: isize) -> Result<usize> {
    usize::try_from(r).map_err(|_| Error::last_os_error())
}

fn moment(secs: i64, nanos: i64) -> SystemTime {
    let whole = Duration::from_secs(secs.unsigned_abs());
    let at = if secs < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    at + Duration::from_nanos(nanos as u64)
}

fn spec(time: Option<TimeOrNow>) -> libc::timespec {
    let (tv_sec, tv_nsec) = match time {
        None => (0, libc::UTIME_OMIT),
        Some(TimeOrNow::Now) => (0, libc::UTIME_NOW),
        Some(TimeOrNow::SpecificTime(at)) => match at.duration_since(UNIX_EPOCH) {
            Ok(after) => (after.as_secs() as i64, i64::from(after.subsec_nanos())),
            Err(before) => {
                let before = before.duration();
                let nanos = i64::from(before.subsec_nanos());
                (-(before.as_secs() as i64) - i64::from(nanos > 0), (1_000_000_000 - nanos) % 1_000_000_000)
            }
        },
    };
    libc::timespec { tv_sec, tv_nsec }
}

fn kind(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

fn attr(fd: &OwnedFd, root: bool) -> Result<FileAttr> {
    let facts = nix::sys::stat::fstat(fd.as_fd())?;
    Ok(FileAttr {
        ino: INodeNo(if root { 1 } else { facts.st_ino }),
        size: facts.st_size as u64,
        blocks: facts.st_blocks as u64,
        atime: moment(facts.st_atime, facts.st_atime_nsec),
        mtime: moment(facts.st_mtime, facts.st_mtime_nsec),
        ctime: moment(facts.st_ctime, facts.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(facts.st_mode),
        perm: (facts.st_mode & 0o7777) as u16,
        nlink: facts.st_nlink as u32,
        uid: facts.st_uid,
        gid: facts.st_gid,
        rdev: facts.st_rdev as u32,
        blksize: 4096,
        flags: 0,
    })
}

impl Shown {
    fn node(&self, ino: INodeNo) -> Result<Arc<OwnedFd>> {
        if ino == INodeNo::ROOT {
            return Ok(self.root.clone());
        }
        let nodes = self.nodes.lock().unwrap();
        nodes.get(&ino.0).map(|node| node.fd.clone()).ok_or_else(|| Error::from_raw_os_error(libc::ESTALE))
    }

    /// Finds a name, and counts the lookup.
    fn entry(&self, parent: &OwnedFd, name: &OsStr) -> Result<FileAttr> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let fd = check(unsafe { libc::openat(parent.as_raw_fd(), text(name)?.as_ptr(), flags) })?;
        let fd = Arc::new(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        let attr = attr(&fd, false)?;
        assert_ne!(attr.ino, INodeNo::ROOT, "the store gives the root's number to another object");
        let mut nodes = self.nodes.lock().unwrap();
        nodes.entry(attr.ino.0).or_insert(Node { fd, lookups: 0 }).lookups += 1;
        Ok(attr)
    }

    /// Makes something by `call` and shows it, owned by who asked for it.
    fn made(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: Option<u32>,
        call: impl FnOnce(i32, *const libc::c_char) -> libc::c_int,
    ) -> Result<FileAttr> {
        self.faults.change()?;
        let parent = self.node(parent)?;
        let word = text(name)?;
        check(call(parent.as_raw_fd(), word.as_ptr()))?;
        let (at, word) = (parent.as_raw_fd(), word.as_ptr());
        check(unsafe { libc::fchownat(at, word, req.uid(), req.gid(), libc::AT_SYMLINK_NOFOLLOW) })?;
        if let Some(mode) = mode {
            check(unsafe { libc::fchmodat(at, word, mode & 0o7777, 0) })?;
        }
        self.entry(&parent, name)
    }

    fn remember(&self, open: Open) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.open.lock().unwrap().insert(number, open);
        FileHandle(number)
    }

    fn file(&self, fh: FileHandle) -> Result<Arc<File>> {
        match self.open.lock().unwrap().get(&fh.0) {
            Some(Open::File(file)) => Ok(file.clone()),
            _ => Err(Error::from_raw_os_error(libc::EBADF)),
        }
    }

    fn list(&self, ino: INodeNo) -> Result<Vec<(OsString, FileType, u64)>> {
        let at = PathBuf::from(OsString::from_vec(path(&*self.node(ino)?).into_bytes()));
        let mut all =
            vec![(".".into(), FileType::Directory, ino.0), ("..".into(), FileType::Directory, ino.0)];
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            all.push((entry.file_name(), kind, std::os::unix::fs::DirEntryExt::ino(&entry)));
        }
        Ok(all)
    }

    #[allow(clippy::too_many_arguments)]
    fn set(
        &self,
        ino: INodeNo,
        (mode, uid, gid): (Option<u32>, Option<u32>, Option<u32>),
        size: Option<u64>,
        times: [Option<TimeOrNow>; 2],
    ) -> Result<FileAttr> {
        self.faults.change()?;
        let fd = self.node(ino)?;
        let at = path(&fd);
        if uid.is_some() || gid.is_some() {
            let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
            check(unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) })?;
        }
        if let Some(mode) = mode {
            check(unsafe { libc::chmod(at.as_ptr(), mode & 0o7777) })?;
        }
        if let Some(size) = size {
            check(unsafe { libc::truncate(at.as_ptr(), size as i64) })?;
        }
        if times.iter().any(Option::is_some) {
            let times = times.map(spec);
            check(unsafe { libc::utimensat(libc::AT_FDCWD, at.as_ptr(), times.as_ptr(), 0) })?;
        }
        attr(&fd, ino == INodeNo::ROOT)
    }

    fn make_file(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(FileAttr, FileHandle)> {
        let attr = self.made(req, parent, name, Some(mode), |at, name| {
            let made =
                unsafe { libc::openat(at, name, libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC, 0o600) };
            if made < 0 { made } else { unsafe { libc::close(made) } }
        })?;
        Ok((attr, self.open_file(attr.ino, flags)?))
    }

    fn open_file(&self, ino: INodeNo, flags: i32) -> Result<FileHandle> {
        let flags = flags & (libc::O_ACCMODE | libc::O_APPEND) | libc::O_CLOEXEC;
        let fd = check(unsafe { libc::open(path(&*self.node(ino)?).as_ptr(), flags) })?;
        Ok(self.remember(Open::File(Arc::new(unsafe { File::from_raw_fd(fd as i32) }))))
    }

    fn change_file(&self, fh: FileHandle, call: impl FnOnce(i32) -> isize) -> Result<usize> {
        self.faults.change()?;
        sized(call(self.file(fh)?.as_raw_fd()))
    }

    /// A call on two directories by descriptor and name.
    fn moved(
        &self,
        (old, name): (INodeNo, &OsStr),
        (new, newname): (INodeNo, &OsStr),
        flags: u32,
    ) -> Result<usize> {
        self.faults.change()?;
        let (old, new) = (self.node(old)?, self.node(new)?);
        let (name, newname) = (text(name)?, text(newname)?);
        let (old, new) = (old.as_raw_fd(), new.as_raw_fd());
        check(unsafe { libc::renameat2(old, name.as_ptr(), new, newname.as_ptr(), flags) })
    }

    fn removed(&self, parent: INodeNo, name: &OsStr, flags: i32) -> Result<usize> {
        self.faults.change()?;
        check(unsafe { libc::unlinkat(self.node(parent)?.as_raw_fd(), text(name)?.as_ptr(), flags) })
    }

    /// What an attribute, or the list of them, is.
    fn attribute(
        &self,
        ino: INodeNo,
        call: impl Fn(*const libc::c_char, *mut u8, usize) -> isize,
    ) -> Result<Vec<u8>> {
        self.faults.read()?;
        let at = path(&*self.node(ino)?);
        let mut bytes = vec![0; 65536];
        let len = sized(call(at.as_ptr(), bytes.as_mut_ptr(), bytes.len()))?;
        bytes.truncate(len);
        Ok(bytes)
    }
}
