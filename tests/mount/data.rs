//! Bytes in files: reading, writing, truncation, holes, allocation, range copies.

use crate::common::*;

/// A fixture with the same bytes in a lower and in an upper file.
fn both(data: &[u8]) -> Option<(Fixture, [&'static str; 2])> {
    let mut f = Fixture::new(1)?;
    f.lower(0).file("low", data);
    f.upper().file("up", data);
    f.mount();
    Some((f, ["low", "up"]))
}

#[test]
fn reading_at_any_place() {
    let data: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
    let Some((f, files)) = both(&data) else { return };
    for name in files {
        let r = ro(f.p(name));
        for (at, len) in [(0, 1), (4095, 2), (131_071, 4097), (299_990, 10), (299_990, 100), (300_000, 5)] {
            let mut buf = vec![0; len];
            let mut n = 0;
            while n < len {
                match r.read_at(&mut buf[n..], (at + n) as u64).unwrap() {
                    0 => break,
                    k => n += k,
                }
            }
            let end = data.len().min(at + len);
            assert_eq!(buf[..n], data[at.min(data.len())..end], "{name} at {at}");
        }
    }
}

#[test]
fn writing_here_and_there() {
    let Some((mut f, files)) = both(&[b'.'; 10_000]) else { return };
    let mut want = vec![b'.'; 10_000];
    for (i, at) in [0usize, 9_999, 4_094, 20_000, 131_072, 50].into_iter().enumerate() {
        let piece = [b'a' + i as u8; 5];
        if want.len() < at + 5 {
            want.resize(at + 5, 0);
        }
        want[at..at + 5].copy_from_slice(&piece);
        for name in files {
            rw(f.p(name)).write_all_at(&piece, at as u64).unwrap();
            assert_eq!(stat(f.p(name)).len(), want.len() as u64);
        }
    }
    f.check(|m| {
        for name in files {
            assert!(fs::read(m.join(name)).unwrap() == want, "{name}");
        }
    });
}

#[test]
fn truncation_by_path_and_by_handle() {
    let Some((mut f, files)) = both(b"0123456789") else { return };
    for name in files {
        sys::truncate(f.p(name), 5).unwrap();
        assert_eq!(text(f.p(name)), "01234");
        let w = rw(f.p(name));
        w.set_len(8).unwrap();
        assert_eq!(through(&w), b"01234\0\0\0");
        w.set_len(2).unwrap();
        w.write_all_at(b"Z", 3).unwrap();
        assert_eq!(through(&w), b"01\0Z");
        assert_eq!(sys::truncate(f.p(name), -1), Err(Errno::EINVAL));
    }
    f.check(|m| {
        for name in files {
            assert_eq!(fs::read(m.join(name)).unwrap(), b"01\0Z");
        }
    });
    assert_eq!(sys::truncate(f.p(""), 0), Err(Errno::EISDIR));
    assert_eq!(sys::truncate(f.p("none"), 0), Err(Errno::ENOENT));
}

/// Source: truncate(2): also a length that is already right sets the times.
#[test]
fn truncation_sets_times() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "0123").mtime(1000, 0);
    f.mount();
    sys::truncate(f.p("f"), 2).unwrap();
    let after = mtime(f.p("f"));
    assert!(after > (1_600_000_000, 0), "{after:?}");
    f.check(|m| assert_eq!(mtime(m.join("f")), after));
}

#[test]
fn holes_are_found() {
    let Some(mut f) = Fixture::new(1) else { return };
    let w = File::create(f.low(0, "f")).unwrap();
    w.write_all_at(b"data", 1 << 20).unwrap();
    w.set_len(4 << 20).unwrap();
    drop(w);
    f.mount();
    for up in [false, true] {
        if up {
            sys::chmod(f.p("f"), 0o600).unwrap();
        }
        let r = ro(f.p("f"));
        let at = sys::lseek(&r, 0, libc::SEEK_DATA).unwrap();
        assert!(at <= 1 << 20, "data at {at}");
        let hole = sys::lseek(&r, 1 << 20, libc::SEEK_HOLE).unwrap();
        assert!(hole > 1 << 20 && hole <= 4 << 20, "hole at {hole}");
        assert_eq!(sys::lseek(&r, 5 << 20, libc::SEEK_DATA), Err(Errno::ENXIO));
        assert_eq!(sys::lseek(&r, 0, libc::SEEK_END), Ok(4 << 20));
    }
    f.remount();
}

#[test]
fn allocation_modes() {
    let Some((mut f, files)) = both(&[b'x'; 16384]) else { return };
    for name in files {
        let w = rw(f.p(name));
        sys::fallocate(&w, libc::FALLOC_FL_KEEP_SIZE, 0, 65536).unwrap();
        assert_eq!(stat(f.p(name)).len(), 16384);
        sys::fallocate(&w, 0, 0, 20480).unwrap();
        assert_eq!(stat(f.p(name)).len(), 20480);
        sys::fallocate(&w, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 4096, 4096).unwrap();
        match sys::fallocate(&w, libc::FALLOC_FL_ZERO_RANGE, 8192, 100) {
            Ok(()) => {}
            Err(e) => {
                assert_eq!(e, Errno::EOPNOTSUPP);
                w.write_all_at(&[0; 100], 8192).unwrap();
            }
        }
        let odd = sys::fallocate(&w, libc::FALLOC_FL_PUNCH_HOLE, 0, 4096);
        assert_eq!(odd, Err(Errno::EOPNOTSUPP), "a hole without keeping the size");
        assert_eq!(sys::fallocate(&ro(f.p(name)), 0, 0, 10), Err(Errno::EBADF));
    }
    let mut want = vec![b'x'; 16384];
    want[4096..8192 + 100].fill(0);
    want.resize(20480, 0);
    f.check(|m| {
        for name in files {
            assert!(fs::read(m.join(name)).unwrap() == want, "{name}");
        }
    });
}

#[test]
fn allocation_on_a_lower_file_copies_up() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "abc");
    f.mount();
    sys::fallocate(&rw(f.p("f")), 0, 0, 10).unwrap();
    f.check(|m| assert_eq!(fs::read(m.join("f")).unwrap(), b"abc\0\0\0\0\0\0\0"));
}

#[test]
fn range_copies_between_layers() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "0123456789").file("low2", "..........");
    f.upper().file("up", "abcdefghij");
    f.mount();
    let all = |from: &File, at, to: &File, to_at, len: usize| {
        let mut n = 0;
        while n < len {
            let k = sys::copy_file_range(from, at + n as i64, to, to_at + n as i64, len - n).unwrap();
            if k == 0 {
                break;
            }
            n += k as usize;
        }
        n
    };
    let (low, low2, up) = (ro(f.p("low")), rw(f.p("low2")), rw(f.p("up")));
    assert_eq!(all(&low, 2, &up, 0, 4), 4);
    assert_eq!(all(&up, 6, &low2, 8, 4), 4);
    assert_eq!(all(&low, 8, &low2, 0, 100), 2);
    let new = File::create(f.p("new")).unwrap();
    assert_eq!(all(&low, 0, &new, 5, 10), 10);
    drop((low, low2, up, new));
    f.check(|m| {
        assert_eq!(text(m.join("up")), "2345efghij");
        assert_eq!(text(m.join("low2")), "89......ghij");
        assert_eq!(text(m.join("new")), "\0\0\0\0\x000123456789");
        assert_eq!(text(m.join("low")), "0123456789");
    });
}

/// A lower file open for writing but never written keeps its bytes.
#[test]
fn opening_for_writing_changes_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "data").mtime(1000, 77);
    f.mount();
    drop(rw(f.p("f")));
    f.check(|m| {
        assert_eq!(text(m.join("f")), "data");
        assert_eq!(mtime(m.join("f")), (1000, 77));
    });
}

#[test]
fn a_large_write_arrives_whole() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.mount();
    let data: Vec<u8> = (0..20_000_003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(f.p("f"), &data).unwrap();
    assert!(fs::read(f.p("f")).unwrap() == data);
    f.check(|m| assert!(fs::read(m.join("f")).unwrap() == data));
}

/// Source: write(2): a size limit of the process ends in EFBIG; the bytes below it are written.
#[test]
fn size_limits_hold() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.mount();
    let path = f.p("f");
    let code = sys::in_child(|| unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
        let Ok(w) = sys::open(&path, libc::O_CREAT | libc::O_WRONLY, 0o600) else { return 1 };
        if w.write_at(&[1; 2000], 0).ok() != Some(1000) {
            return 2;
        }
        match w.write_at(&[1], 1000) {
            Err(e) if e.raw_os_error() == Some(libc::EFBIG) => 0,
            _ => 3,
        }
    });
    assert_eq!(code, 0);
    assert_eq!(stat(f.p("f")).len(), 1000);
}

/// Further than the kernel does by itself.
#[test]
fn root_reads_far_ahead() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    if kernel_oracle() {
        return;
    }
    f.mount();
    let (minor, _) = mounts_at(&f.p(""))[0];
    let knob = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    let read_ahead: u32 = text(knob).trim().parse().unwrap();
    assert!(read_ahead >= 256, "{read_ahead}");
}
