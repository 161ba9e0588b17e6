//! Locks and inode flags.

use crate::common::*;
use std::os::fd::AsRawFd;

const IMMUTABLE: libc::c_int = 0x10;
const APPEND: libc::c_int = 0x20;

fn flock(f: &File, how: i32) -> sys::Res<()> {
    if unsafe { libc::flock(f.as_raw_fd(), how | libc::LOCK_NB) } < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// A record lock of the given kind and command over `len` bytes from `start`.
fn record(f: &File, cmd: i32, kind: i32, start: i64, len: i64) -> sys::Res<i32> {
    let mut l: libc::flock = unsafe { std::mem::zeroed() };
    l.l_type = kind as i16;
    l.l_whence = libc::SEEK_SET as i16;
    l.l_start = start;
    l.l_len = len;
    let r = unsafe { libc::fcntl(f.as_raw_fd(), cmd, &mut l) };
    if r < 0 { Err(Errno::last()) } else { Ok(l.l_type.into()) }
}

/// Takes a lock that is free, or will be at once: a process that another test has just forked has all our
/// descriptors until its exec.
#[track_caller]
fn free_flock(f: &File, how: i32) {
    assert!(eventually(LIMIT, || flock(f, how).is_ok()), "the lock is not given up");
}

#[test]
fn whole_file_locks() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "x");
    f.upper().file("up", "x");
    f.mount();
    for name in ["low", "up"] {
        let (a, b) = (rw(f.p(name)), rw(f.p(name)));
        flock(&a, libc::LOCK_EX).unwrap();
        assert_eq!(flock(&b, libc::LOCK_SH), Err(Errno::EWOULDBLOCK), "{name}");
        flock(&a, libc::LOCK_SH).unwrap();
        flock(&b, libc::LOCK_SH).unwrap();
        assert_eq!(flock(&a, libc::LOCK_EX), Err(Errno::EWOULDBLOCK), "{name}");
        drop(a);
        free_flock(&b, libc::LOCK_EX);
        flock(&b, libc::LOCK_UN).unwrap();
    }
}

/// A lock held by a reader of the lower file and one of a writer that copied it up meet.
#[test]
fn whole_file_locks_meet_across_copy_up() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x");
    f.mount();
    let a = ro(f.p("f"));
    flock(&a, libc::LOCK_SH).unwrap();
    let b = rw(f.p("f"));
    b.write_all_at(b"y", 0).unwrap();
    assert_eq!(flock(&b, libc::LOCK_EX), Err(Errno::EWOULDBLOCK));
    drop(a);
    free_flock(&b, libc::LOCK_EX);
}

#[test]
fn record_locks_of_descriptions() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "0123456789");
    f.mount();
    let (a, b) = (rw(f.p("f")), rw(f.p("f")));
    let (set, get) = (libc::F_OFD_SETLK, libc::F_OFD_GETLK);
    record(&a, set, libc::F_WRLCK, 0, 5).unwrap();
    assert_eq!(record(&b, set, libc::F_RDLCK, 4, 1), Err(Errno::EAGAIN));
    record(&b, set, libc::F_WRLCK, 5, 5).unwrap();
    assert_eq!(record(&b, get, libc::F_WRLCK, 0, 1), Ok(libc::F_WRLCK));
    record(&a, set, libc::F_UNLCK, 0, 5).unwrap();
    assert_eq!(record(&b, get, libc::F_WRLCK, 0, 1), Ok(libc::F_UNLCK));
    drop(a);
    let free = eventually(LIMIT, || record(&b, set, libc::F_WRLCK, 0, 10).is_ok());
    assert!(free, "the lock is not given up");
}

#[test]
fn record_locks_of_processes() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "0123456789");
    f.mount();
    let a = rw(f.p("f"));
    let path = f.p("f");
    record(&a, libc::F_SETLK, libc::F_WRLCK, 0, 5).unwrap();
    let other = |start| {
        let path = &path;
        sys::in_child(move || match sys::open(path, libc::O_RDWR, 0) {
            Err(_) => 50,
            Ok(b) => match record(&b, libc::F_SETLK, libc::F_WRLCK, start, 1) {
                Ok(_) => 0,
                Err(Errno::EAGAIN | Errno::EACCES) => 1,
                Err(_) => 51,
            },
        })
    };
    assert_eq!((other(0), other(5)), (1, 0));
    // Closing any descriptor of the file gives up the locks of the process.
    drop(ro(f.p("f")));
    assert_eq!(other(0), 0);
}

#[test]
fn a_waiting_lock_is_woken() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x");
    f.mount();
    let a = rw(f.p("f"));
    record(&a, libc::F_OFD_SETLKW, libc::F_WRLCK, 0, 0).unwrap();
    let path = f.p("f");
    std::thread::scope(|s| {
        let waiter = s.spawn(|| {
            let b = rw(&path);
            record(&b, libc::F_OFD_SETLKW, libc::F_WRLCK, 0, 0).unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!waiter.is_finished());
        record(&a, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0).unwrap();
        waiter.join().unwrap();
    });
}

/// Source: FS_IOC_GETFLAGS(2const), lsattr(1).
#[test]
fn flags_can_be_asked() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "x").dir("d");
    f.upper().file("up", "x");
    f.mount();
    for name in ["low", "up", "d"] {
        match sys::getflags(&ro(f.p(name))) {
            Ok(flags) => {
                assert_eq!(flags & (IMMUTABLE | APPEND), 0, "{name} is immutable or append-only")
            }
            Err(e) => assert!([Errno::ENOTTY, Errno::EOPNOTSUPP].contains(&e), "{name}: {e}"),
        }
    }
    assert!(!f.in_upper("low"));
}

/// Source: chattr(1); overlayfs keeps the flags of a copied-up file in `overlay.protattr`.
#[test]
fn immutable_and_append_only() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("imm", "low").file("app", "low");
    f.mount();
    for (name, flag) in [("imm", IMMUTABLE), ("app", APPEND)] {
        let h = ro(f.p(name));
        let old = match sys::getflags(&h) {
            Ok(old) => old,
            Err(e) => {
                assert!([Errno::ENOTTY, Errno::EOPNOTSUPP].contains(&e), "{e}");
                println!("skipped: inode flags are not supported");
                return;
            }
        };
        if let Err(e) = sys::setflags(&h, old | flag) {
            assert!([Errno::ENOTTY, Errno::EOPNOTSUPP].contains(&e), "{e}");
            println!("skipped: inode flags cannot be set");
            return;
        }
        assert_eq!(sys::getflags(&h).unwrap() & flag, flag, "{name}");
        assert_eq!(sys::unlink(f.p(name)), Err(Errno::EPERM), "{name}");
        assert_eq!(sys::open(f.p(name), libc::O_WRONLY, 0).err(), Some(Errno::EPERM), "{name}");
        assert_eq!(sys::chmod(f.p(name), 0o600), Err(Errno::EPERM), "{name}");
        let append = sys::open(f.p(name), libc::O_WRONLY | libc::O_APPEND, 0).map(drop);
        assert_eq!(append.is_ok(), flag == APPEND, "{name}");
        sys::setflags(&h, old).unwrap();
    }
    fs::write(f.p("imm"), "free again").unwrap();
    f.check(|m| assert_eq!(text(m.join("imm")), "free again"));
}
