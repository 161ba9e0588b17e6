//! Flags of open(2).

use crate::common::*;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::process::Command;

#[test]
fn exclusive_creation_has_one_winner() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("gone", "x");
    f.mount();
    sys::unlink(f.p("gone")).unwrap();
    for name in ["new", "gone"] {
        let won = std::sync::atomic::AtomicU32::new(0);
        let path = f.p(name);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| match sys::open(&path, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600) {
                    Ok(_) => drop(won.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
                    Err(e) => assert_eq!(e, Errno::EEXIST),
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "{name}");
    }
}

#[test]
fn append_goes_to_the_end() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "low ");
    f.mount();
    let mut a = sys::open(f.p("f"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
    let mut b = sys::open(f.p("f"), libc::O_RDWR | libc::O_APPEND, 0).unwrap();
    for i in 0..3 {
        write!(a, "a{i} ").unwrap();
        write!(b, "b{i} ").unwrap();
    }
    b.seek(SeekFrom::Start(0)).unwrap();
    let mut s = String::new();
    b.read_to_string(&mut s).unwrap();
    assert_eq!(s, "low a0 b0 a1 b1 a2 b2 ");
    drop((a, b));
    f.check(|m| assert_eq!(text(m.join("f")), s));
}

#[test]
fn appends_of_threads_are_all_there() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "");
    f.mount();
    let path = f.p("f");
    std::thread::scope(|s| {
        for t in 0..8u8 {
            let path = &path;
            s.spawn(move || {
                let mut a = fs::OpenOptions::new().append(true).open(path).unwrap();
                for _ in 0..100 {
                    a.write_all(&[b'a' + t; 10]).unwrap();
                }
            });
        }
    });
    f.check(|m| {
        let data = fs::read(m.join("f")).unwrap();
        assert_eq!(data.len(), 8000);
        assert!(data.chunks(10).all(|c| c.iter().all(|b| *b == c[0])), "appends are torn");
        for t in 0..8u8 {
            assert_eq!(data.iter().filter(|b| **b == b'a' + t).count(), 1000);
        }
    });
}

#[test]
fn access_modes_are_kept() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "data");
    f.mount();
    let r = ro(f.p("f"));
    assert_eq!(err(r.write_at(b"x", 0)), Errno::EBADF);
    let w = sys::open(f.p("f"), libc::O_WRONLY, 0).unwrap();
    assert_eq!(err(w.read_at(&mut [0], 0)), Errno::EBADF);
    assert_eq!(err(r.set_len(0)), Errno::EINVAL);
}

#[test]
fn refusals_of_open() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").dir("d").symlink("s", "f").symlink("loop", "loop");
    f.mount();
    let at = |n: &str, flags| sys::open(f.p(n), flags, 0o600).map(drop);
    assert_eq!(at("none", libc::O_RDONLY), Err(Errno::ENOENT));
    assert_eq!(at("d", libc::O_WRONLY), Err(Errno::EISDIR));
    assert_eq!(at("d", libc::O_RDWR | libc::O_CREAT), Err(Errno::EISDIR));
    assert_eq!(at("f", libc::O_RDONLY | libc::O_DIRECTORY), Err(Errno::ENOTDIR));
    assert_eq!(at("s", libc::O_RDONLY | libc::O_NOFOLLOW), Err(Errno::ELOOP));
    assert_eq!(at("loop", libc::O_RDONLY), Err(Errno::ELOOP));
    assert_eq!(at("f/x", libc::O_RDONLY), Err(Errno::ENOTDIR));
    assert_eq!(at("s", libc::O_PATH | libc::O_NOFOLLOW), Ok(()));
    assert_eq!(at("d", libc::O_RDONLY | libc::O_DIRECTORY), Ok(()));
}

#[test]
fn direct_io_reads_and_writes() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", vec![b'o'; 16384]);
    f.mount();
    // An aligned piece of memory.
    let mut room = vec![0u8; 3 * 4096];
    let skip = room.as_ptr().align_offset(4096);
    let buf = &mut room[skip..skip + 4096];
    let d = match sys::open(f.p("f"), libc::O_RDWR | libc::O_DIRECT, 0) {
        Ok(d) => d,
        Err(e) => {
            assert_eq!(e, Errno::EINVAL);
            println!("skipped: no O_DIRECT here");
            return;
        }
    };
    assert_eq!(d.read_at(buf, 4096).unwrap(), 4096);
    assert!(buf.iter().all(|b| *b == b'o'));
    buf.fill(b'n');
    assert_eq!(d.write_at(buf, 8192).unwrap(), 4096);
    let cached = ro(f.p("f"));
    assert_eq!(through(&cached)[8192..12288], vec![b'n'; 4096]);
    drop((d, cached));
    f.check(|m| {
        let data = fs::read(m.join("f")).unwrap();
        assert_eq!((data[8191], data[8192], data[12287], data[12288]), (b'o', b'n', b'n', b'o'));
    });
}

/// FUSE before 7.37 has no request for it; then the errno says so and nothing is left behind.
#[test]
fn nameless_files() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("d");
    f.mount();
    match sys::open(f.p("d"), libc::O_TMPFILE | libc::O_RDWR, 0o600) {
        Err(e) => assert_eq!(e, Errno::EOPNOTSUPP),
        Ok(t) => {
            t.write_all_at(b"nameless", 0).unwrap();
            assert_eq!(t.metadata().unwrap().nlink(), 0);
            let proc = sys::c(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&t)));
            let at = libc::AT_FDCWD;
            let r = unsafe {
                libc::linkat(at, proc.as_ptr(), at, sys::c(f.p("d/f")).as_ptr(), libc::AT_SYMLINK_FOLLOW)
            };
            assert_eq!(r, 0, "{}", Errno::last());
            drop(t);
            f.check(|m| assert_eq!(text(m.join("d/f")), "nameless"));
        }
    }
}

#[test]
fn a_file_made_without_write_permission_is_written_by_its_maker() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("d").mode(0o777);
    f.mount();
    let path = f.p("d/f");
    as_user(1000, 1000, || {
        let w = sys::open(&path, libc::O_CREAT | libc::O_RDWR, 0o400).unwrap();
        w.write_all_at(b"x", 0).unwrap();
        assert_eq!(sys::open(&path, libc::O_RDWR, 0).err(), Some(Errno::EACCES));
    });
    f.check(|m| {
        assert_eq!(text(m.join("d/f")), "x");
        assert_eq!(stat(m.join("d/f")).mode() & 0o777, 0o400);
    });
}

#[test]
fn sync_calls_succeed() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/low", "x");
    f.mount();
    let w = sys::open(f.p("d/f"), libc::O_CREAT | libc::O_RDWR | libc::O_SYNC, 0o600).unwrap();
    w.write_all_at(b"synced", 0).unwrap();
    w.sync_data().unwrap();
    w.sync_all().unwrap();
    ro(f.p("d")).sync_all().unwrap();
    ro(f.p("d/low")).sync_all().unwrap();
    assert_eq!(unsafe { libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&w)) }, 0);
    drop(w);
    f.check(|m| assert_eq!(text(m.join("d/f")), "synced"));
}

/// Files that a mount opens in different ways, by these flags, each holding ten bytes.
fn opened_with(f: &mut Fixture, flags: i32) -> Vec<(&'static str, File)> {
    f.lower(0).file("low", "0123456789").file("several", "0123456789").dir("data");
    f.upper().file("up", "0123456789");
    f.source("data").file("f", "0123456789");
    f.bind("data", "/data", "");
    f.mount();
    let made = sys::open(f.p("made"), libc::O_CREAT | libc::O_RDWR | flags, 0o644).unwrap();
    made.set_len(10).unwrap();
    let mut all = vec![("made", made)];
    for name in ["low", "up", "data/f"] {
        all.push((name, sys::open(f.p(name), libc::O_RDWR | flags, 0).unwrap()));
    }
    all
}

fn set_flags(file: &File, flags: i32) {
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) }, 0);
}

#[test]
fn append_can_be_taken_back_and_given() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no grafts")) else { return };
    let files = opened_with(&mut f, libc::O_APPEND);
    let len = |file: &File| file.metadata().unwrap().len();
    for (name, file) in &files {
        // pwrite(2) appends on Linux, whatever the offset.
        file.write_all_at(b"a", 0).unwrap();
        assert_eq!(len(file), 11, "{name}");
        set_flags(file, 0);
        file.write_all_at(b"Z", 0).unwrap();
        assert_eq!((len(file), through(file)[0]), (11, b'Z'), "{name}: not at the end any more");
        set_flags(file, libc::O_APPEND);
        file.write_all_at(b"b", 0).unwrap();
        assert_eq!((len(file), through(file)[11]), (12, b'b'), "{name}: again at the end");
        if *name != "data/f" {
            let part = libc::iovec { iov_base: b"Y".as_ptr().cast_mut().cast(), iov_len: 1 };
            let no_append = 0x20;
            let wrote = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, 1, no_append) };
            assert_eq!((wrote, len(file), through(file)[1]), (1, 12, b'Y'), "{name}: RWF_NOAPPEND");
        }
    }
    drop(files);
    f.check(|m| {
        for name in ["made", "low", "up", "data/f"] {
            assert_eq!(stat(m.join(name)).len(), 12, "{name}");
        }
    });
}

/// dd(1) with `oflag=direct` does so for its last block.
#[test]
fn direct_io_can_be_taken_back() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no grafts")) else { return };
    if sys::open(f.up("probe"), libc::O_CREAT | libc::O_RDWR | libc::O_DIRECT, 0o644).is_err() {
        println!("skipped: the filesystem has no direct I/O");
        return;
    }
    sys::unlink(f.up("probe")).unwrap();
    let files = opened_with(&mut f, libc::O_DIRECT);
    for (name, file) in &files {
        set_flags(file, 0);
        file.write_all_at(b"odd", 1).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(&through(file)[1..4], b"odd", "{name}");
    }
    drop(files);
    for name in ["dd", "data/dd", "low"] {
        let args = ["if=/dev/zero", "bs=4096", "count=10001", "iflag=count_bytes", "oflag=direct"];
        let done = run(Command::new("dd").args(args).arg(format!("of={}", f.p(name).display())));
        assert_eq!(done.code, Some(0), "{name}: {}", done.err);
    }
    f.check(|m| {
        for name in ["dd", "data/dd", "low"] {
            assert_eq!(stat(m.join(name)).len(), 10001, "{name}");
        }
    });
}
