//! System calls as tests want them: paths in, values or exact errnos out.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

pub use nix::errno::Errno;

pub type Res<T> = Result<T, Errno>;

/// A path as C wants it.
pub fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

fn unit(r: libc::c_int) -> Res<()> {
    if r < 0 { Err(Errno::last()) } else { Ok(()) }
}

fn long(r: libc::c_long) -> Res<u64> {
    if r < 0 { Err(Errno::last()) } else { Ok(r as u64) }
}

/// The errno of a result of the standard library.
pub fn no<T>(r: io::Result<T>) -> Res<T> {
    r.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
}

/// The errno with which a call of the standard library failed; panics if it succeeded.
pub fn err<T>(r: io::Result<T>) -> Errno {
    match no(r) {
        Ok(_) => panic!("succeeded where it should have failed"),
        Err(e) => e,
    }
}

pub fn open(path: impl AsRef<Path>, flags: i32, mode: u32) -> Res<File> {
    let fd = unsafe { libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, mode) };
    unit(fd)?;
    Ok(unsafe { File::from_raw_fd(fd) })
}

pub fn mkdir(path: impl AsRef<Path>, mode: u32) -> Res<()> {
    unit(unsafe { libc::mkdir(c(path).as_ptr(), mode) })
}

pub fn mknod(path: impl AsRef<Path>, mode: u32, dev: u64) -> Res<()> {
    unit(unsafe { libc::mknod(c(path).as_ptr(), mode, dev) })
}

pub fn unlink(path: impl AsRef<Path>) -> Res<()> {
    unit(unsafe { libc::unlink(c(path).as_ptr()) })
}

pub fn rmdir(path: impl AsRef<Path>) -> Res<()> {
    unit(unsafe { libc::rmdir(c(path).as_ptr()) })
}

pub fn link(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Res<()> {
    unit(unsafe { libc::link(c(a).as_ptr(), c(b).as_ptr()) })
}

pub fn symlink(to: impl AsRef<Path>, at: impl AsRef<Path>) -> Res<()> {
    unit(unsafe { libc::symlink(c(to).as_ptr(), c(at).as_ptr()) })
}

pub fn rename(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Res<()> {
    unit(unsafe { libc::rename(c(a).as_ptr(), c(b).as_ptr()) })
}

pub fn renameat2(a: impl AsRef<Path>, b: impl AsRef<Path>, flags: u32) -> Res<()> {
    let at = libc::AT_FDCWD;
    unit(unsafe { libc::renameat2(at, c(a).as_ptr(), at, c(b).as_ptr(), flags) })
}

/// The time of a clock in seconds and nanoseconds.
pub fn now(clock: libc::clockid_t) -> (i64, i64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
    (time.tv_sec, time.tv_nsec)
}

pub fn chmod(path: impl AsRef<Path>, mode: u32) -> Res<()> {
    unit(unsafe { libc::chmod(c(path).as_ptr(), mode) })
}

pub fn lchown(path: impl AsRef<Path>, uid: u32, gid: u32) -> Res<()> {
    unit(unsafe { libc::lchown(c(path).as_ptr(), uid, gid) })
}

pub fn truncate(path: impl AsRef<Path>, len: i64) -> Res<()> {
    unit(unsafe { libc::truncate(c(path).as_ptr(), len) })
}

pub fn access(path: impl AsRef<Path>, how: i32) -> Res<()> {
    unit(unsafe { libc::access(c(path).as_ptr(), how) })
}

/// Sets access and modification time, each (seconds, nanoseconds); symlinks are not followed.
pub fn utimens(path: impl AsRef<Path>, atime: (i64, i64), mtime: (i64, i64)) -> Res<()> {
    let ts = |t: (i64, i64)| libc::timespec { tv_sec: t.0, tv_nsec: t.1 };
    let times = [ts(atime), ts(mtime)];
    unit(unsafe {
        libc::utimensat(libc::AT_FDCWD, c(path).as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })
}

pub fn setxattr(path: impl AsRef<Path>, name: &str, value: &[u8], flags: i32) -> Res<()> {
    let name = CString::new(name).unwrap();
    unit(unsafe {
        libc::lsetxattr(c(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    })
}

/// The value of an extended attribute, asked with a buffer of `room` bytes; zero asks for the size only.
pub fn getxattr_room(path: impl AsRef<Path>, name: &OsStr, room: usize) -> Res<(usize, Vec<u8>)> {
    let name = CString::new(name.as_bytes()).unwrap();
    let mut buf = vec![0u8; room];
    let n = unsafe { libc::lgetxattr(c(path).as_ptr(), name.as_ptr(), buf.as_mut_ptr().cast(), room) };
    if n < 0 {
        return Err(Errno::last());
    }
    if room > 0 {
        buf.truncate(n as usize);
    }
    Ok((n as usize, buf))
}

pub fn getxattr(path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> Res<Vec<u8>> {
    Ok(getxattr_room(path, name.as_ref(), 65536)?.1)
}

/// Of an open file, whatever its name is by now.
pub fn fgetxattr(f: &File, name: &str) -> Res<Vec<u8>> {
    let mut value = vec![0; 256];
    let n =
        unsafe { libc::fgetxattr(f.as_raw_fd(), c(name).as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    if n < 0 {
        return Err(Errno::last());
    }
    value.truncate(n as usize);
    Ok(value)
}

/// Sets one of an open file, whatever its name is by now.
pub fn fsetxattr(f: &File, name: &str, value: &[u8]) -> Res<()> {
    unit(unsafe { libc::fsetxattr(f.as_raw_fd(), c(name).as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

pub fn removexattr(path: impl AsRef<Path>, name: &str) -> Res<()> {
    let name = CString::new(name).unwrap();
    unit(unsafe { libc::lremovexattr(c(path).as_ptr(), name.as_ptr()) })
}

/// The raw answer of listxattr with `room` bytes.
pub fn listxattr_room(path: impl AsRef<Path>, room: usize) -> Res<usize> {
    let mut buf = vec![0u8; room];
    let n = unsafe { libc::llistxattr(c(path).as_ptr(), buf.as_mut_ptr().cast(), room) };
    if n < 0 { Err(Errno::last()) } else { Ok(n as usize) }
}

/// Names of extended attributes, sorted.
pub fn listxattr(path: impl AsRef<Path>) -> Res<Vec<OsString>> {
    let mut buf = vec![0u8; 65536];
    let n = unsafe { libc::llistxattr(c(path).as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
    if n < 0 {
        return Err(Errno::last());
    }
    let names = buf[..n as usize].split(|b| *b == 0).filter(|s| !s.is_empty());
    let mut names: Vec<OsString> = names.map(|s| OsString::from_vec(s.to_vec())).collect();
    names.sort();
    Ok(names)
}

pub fn fallocate(f: &File, mode: i32, offset: i64, len: i64) -> Res<()> {
    unit(unsafe { libc::fallocate(f.as_raw_fd(), mode, offset, len) })
}

pub fn lseek(f: &File, offset: i64, whence: i32) -> Res<u64> {
    long(unsafe { libc::lseek(f.as_raw_fd(), offset, whence) })
}

pub fn copy_file_range(from: &File, mut at: i64, to: &File, mut to_at: i64, len: usize) -> Res<u64> {
    long(unsafe {
        libc::copy_file_range(from.as_raw_fd(), &mut at, to.as_raw_fd(), &mut to_at, len, 0) as libc::c_long
    })
}

/// The inode flags that lsattr shows.
pub fn getflags(f: &File) -> Res<libc::c_int> {
    let mut flags: libc::c_int = 0;
    unit(unsafe { libc::ioctl(f.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) })?;
    Ok(flags)
}

pub fn setflags(f: &File, flags: libc::c_int) -> Res<()> {
    unit(unsafe { libc::ioctl(f.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags) })
}

pub fn statvfs(path: impl AsRef<Path>) -> Res<libc::statvfs> {
    let mut out: libc::statvfs = unsafe { std::mem::zeroed() };
    unit(unsafe { libc::statvfs(c(path).as_ptr(), &mut out) })?;
    Ok(out)
}

/// A mapping of a file; unmapped on drop.
pub struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    pub fn new(f: &File, len: usize, prot: i32, flags: i32) -> Res<Map> {
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, f.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Map { at: at.cast(), len })
    }

    /// A shared map for reading.
    pub fn shared(f: &File, len: usize) -> Map {
        Map::new(f, len, libc::PROT_READ, libc::MAP_SHARED).unwrap()
    }

    /// A shared map for writing.
    pub fn writable(f: &File, len: usize) -> Map {
        Map::new(f, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED).unwrap()
    }

    /// What the map shows now, read byte by byte so that nothing is remembered.
    pub fn get(&self) -> Vec<u8> {
        (0..self.len).map(|i| unsafe { self.at.add(i).read_volatile() }).collect()
    }

    pub fn put(&self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= self.len);
        for (i, b) in data.iter().enumerate() {
            unsafe { self.at.add(at + i).write_volatile(*b) };
        }
    }

    pub fn sync(&self) -> Res<()> {
        unit(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// One entry as readdir(3) gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dent {
    pub name: OsString,
    pub ino: u64,
    pub kind: u8,
    pub next: i64,
}

/// A directory stream with positions.
pub struct Dir(*mut libc::DIR);

impl Dir {
    pub fn open(path: impl AsRef<Path>) -> Res<Dir> {
        let d = unsafe { libc::opendir(c(path).as_ptr()) };
        if d.is_null() { Err(Errno::last()) } else { Ok(Dir(d)) }
    }

    /// The next entry, `.` and `..` among them.
    pub fn next(&mut self) -> Option<Dent> {
        Errno::clear();
        let e = unsafe { libc::readdir(self.0) };
        if e.is_null() {
            assert_eq!(Errno::last_raw(), 0, "readdir failed");
            return None;
        }
        let name = unsafe { CStr::from_ptr((*e).d_name.as_ptr()) };
        let name = OsStr::from_bytes(name.to_bytes()).to_owned();
        unsafe { Some(Dent { name, ino: (*e).d_ino, kind: (*e).d_type, next: (*e).d_off }) }
    }

    pub fn tell(&self) -> i64 {
        unsafe { libc::telldir(self.0) }
    }

    pub fn seek(&mut self, at: i64) {
        unsafe { libc::seekdir(self.0, at) }
    }

    pub fn rewind(&mut self) {
        unsafe { libc::rewinddir(self.0) }
    }

    /// All that is left.
    pub fn rest(&mut self) -> Vec<Dent> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        unsafe { libc::closedir(self.0) };
    }
}

/// Entries of a directory but for `.` and `..`, in the order given.
pub fn dents(path: impl AsRef<Path>) -> Vec<Dent> {
    let all = Dir::open(path).unwrap().rest();
    all.into_iter().filter(|e| e.name != "." && e.name != "..").collect()
}

/// Runs `f` on a thread of its own that is another user without capabilities and extra groups.
pub fn as_user<T: Send>(uid: u32, gid: u32, f: impl FnOnce() -> T + Send) -> T {
    as_member(uid, gid, &[], f)
}

/// The same as a member of other groups, too.
pub fn as_member<T: Send>(uid: u32, gid: u32, groups: &[u32], f: impl FnOnce() -> T + Send) -> T {
    on_thread(move || {
        // The raw calls change this thread only; those of libc would change them all.
        let r = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
                libc::syscall(libc::SYS_setresgid, gid, gid, gid),
                libc::syscall(libc::SYS_setresuid, uid, uid, uid),
            ]
        };
        assert_eq!(r, [0; 3], "becoming {uid}:{gid}: {}", Errno::last());
        f()
    })
}

/// Runs `f` on a thread of its own with a working directory and umask of its own.
pub fn private_fs<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    on_thread(move || {
        unit(unsafe { libc::unshare(libc::CLONE_FS) }).unwrap();
        f()
    })
}

/// Runs `f` on a thread of its own with the given umask.
pub fn with_umask<T: Send>(mask: u32, f: impl FnOnce() -> T + Send) -> T {
    private_fs(move || {
        unsafe { libc::umask(mask) };
        f()
    })
}

fn on_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| match s.spawn(f).join() {
        Ok(v) => v,
        Err(p) => std::panic::resume_unwind(p),
    })
}

/// Closes every descriptor but the standard ones.
fn close_all() {
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } != 0 {
        for fd in 3..10_000 {
            unsafe { libc::close(fd) };
        }
    }
}

/// Runs `f` in a forked process and returns what it returned, 0 to 100. `f` should do little but system calls, and
/// has no descriptors but the standard ones: else it would keep files and mounts of other tests in use.
pub fn in_child(f: impl FnOnce() -> i32) -> i32 {
    let pid = super::forking(|| {
        let (has_copies, write) = nix::unistd::pipe().unwrap();
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", Errno::last());
        if pid == 0 {
            close_all();
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(101);
            unsafe { libc::_exit(code) };
        }
        drop(write);
        // It ends when the child has closed its copy.
        std::io::copy(&mut File::from(has_copies), &mut std::io::sink()).unwrap();
        pid
    });
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "child ended by signal {}", libc::WTERMSIG(status));
    libc::WEXITSTATUS(status)
}

/// A system call that is not made, but answered.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub call: libc::c_long,
    /// Only where this argument, as far as this mask goes, is this value.
    pub argument: (usize, u32, u32),
    /// The errno; 0 says that all is well.
    pub errno: i32,
}

/// mknodat(2) of a character device answers EPERM, as in some containers.
pub const NO_DEVICES: Answer =
    Answer { call: libc::SYS_mknodat, argument: (2, libc::S_IFMT, libc::S_IFCHR), errno: libc::EPERM };

/// Gives these answers to the command and all that it starts, by seccomp.
pub fn with_answers(cmd: &mut std::process::Command, answers: &[Answer]) {
    use std::os::unix::process::CommandExt;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = Vec::new();
    for answer in answers {
        let (argument, mask, value) = answer.argument;
        // The low half of an argument comes first here.
        let at = std::mem::offset_of!(libc::seccomp_data, args) + 8 * argument;
        program.extend([
            line(LOAD, 0, 0, std::mem::offset_of!(libc::seccomp_data, nr) as u32),
            line(EQUAL, 0, 4, answer.call as u32),
            line(LOAD, 0, 0, at as u32),
            line(AND, 0, 0, mask),
            line(EQUAL, 0, 1, value),
            line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | answer.errno as u32),
        ]);
    }
    program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    let install = move || {
        if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter_of(&program)) } != 0
        {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    unsafe { cmd.pre_exec(install) };
}

fn filter_of(program: &[libc::sock_filter]) -> libc::sock_fprog {
    libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() }
}
