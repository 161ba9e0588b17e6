//! The first change of a lower object: everything about it arrives in the upper, once.

use crate::common::*;
use crate::sync::traced;
use std::path::Path;

const OLD: (i64, i64) = (1_234_567_890, 987_654_321);

#[test]
fn metadata_is_carried_over() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/f", "data").mode(0o640).xattr("user.a", "1").xattr("user.b", "").mtime(OLD.0, OLD.1);
    f.mount();
    let ino = stat(f.p("d/f")).ino();
    sys::chmod(f.p("d/f"), 0o644).unwrap();
    assert_eq!(text(f.up("d/f")), "data");
    f.check(|m| {
        let at = m.join("d/f");
        assert_eq!(mtime(&at), OLD);
        assert_eq!(stat(&at).mode(), libc::S_IFREG | 0o644);
        assert_eq!(stat(&at).ino(), ino);
        assert_eq!(sys::getxattr(&at, "user.a"), Ok(b"1".to_vec()));
        assert_eq!(sys::getxattr(&at, "user.b"), Ok(vec![]));
        assert_eq!(sys::listxattr(&at), Ok(vec!["user.a".into(), "user.b".into()]));
        assert_eq!(text(&at), "data");
    });
}

#[test]
fn owner_and_special_bits_are_carried_over() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("f", "data").owner(1234, 5678).mode(0o6755);
    f.lower(0).symlink("s", "target").owner(11, 22).mtime(OLD.0, OLD.1);
    f.lower(0).dir("d").owner(33, 44).mode(0o1775).mtime(OLD.0, OLD.1);
    f.mount();
    sys::utimens(f.p("f"), OLD, OLD).unwrap();
    sys::rename(f.p("s"), f.p("s2")).unwrap();
    sys::setxattr(f.p("d"), "user.x", b"1", 0).unwrap();
    f.check(|m| {
        let s = stat(m.join("f"));
        assert_eq!((s.uid(), s.gid(), s.mode() & 0o7777), (1234, 5678, 0o6755));
        let s = stat(m.join("s2"));
        assert_eq!((s.uid(), s.gid()), (11, 22));
        assert_eq!(mtime(m.join("s2")), OLD);
        assert_eq!(fs::read_link(m.join("s2")).unwrap().to_str(), Some("target"));
        let s = stat(m.join("d"));
        assert_eq!((s.uid(), s.gid(), s.mode() & 0o7777), (33, 44, 0o1775));
        assert_eq!(mtime(m.join("d")), OLD);
    });
}

/// Source: overlayfs.rst, "Non-directories": the parents are made first; their times stay.
#[test]
fn parents_come_up_with_their_attributes() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a/b/c/f", "data");
    for (dir, mode, at) in [("a/b/c", 0o700, 300), ("a/b", 0o750, 200), ("a", 0o711, 100)] {
        f.lower(0).dir(dir).mode(mode).xattr("user.level", dir).mtime(at, 7);
    }
    f.mount();
    fs::write(f.p("a/b/c/f"), "new").unwrap();
    f.check(|m| {
        for (dir, mode, at) in [("a", 0o711, 100), ("a/b", 0o750, 200), ("a/b/c", 0o700, 300)] {
            let d = m.join(dir);
            assert_eq!(stat(&d).mode() & 0o7777, mode, "{dir}");
            assert_eq!(mtime(&d), (at, 7), "{dir}");
            assert_eq!(sys::getxattr(&d, "user.level"), Ok(dir.as_bytes().to_vec()), "{dir}");
        }
    });
    for (dir, at) in [("a", 100), ("a/b", 200), ("a/b/c", 300)] {
        assert_eq!(mtime(f.up(dir)), (at, 7), "{dir} in the upper");
    }
}

/// A directory already in the upper keeps its time when a child is copied up into it.
#[test]
fn time_of_an_upper_parent_is_restored() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/f", "data").file("top", "data");
    f.upper().dir("d").mtime(OLD.0, OLD.1);
    f.mount();
    sys::utimens(f.p(""), OLD, OLD).unwrap();
    fs::write(f.p("d/f"), "new").unwrap();
    fs::write(f.p("top"), "new").unwrap();
    f.check(|m| {
        assert_eq!(mtime(m.join("d")), OLD);
        assert_eq!(mtime(m), OLD);
    });
}

/// That the directory has changed underneath is told once for many copies, but it is told.
#[test]
fn a_copy_shows_in_the_change_time_of_its_directory() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..100 {
        f.lower(0).file(format!("d/f{i}"), "data");
    }
    f.upper().dir("d");
    f.mount();
    let ctime = |dir: &Path| (stat(dir).ctime(), stat(dir).ctime_nsec());
    for i in 0..100 {
        assert!(stat(f.p("d")).is_dir());
        sys::chmod(f.p(format!("d/f{i}")), 0o600).unwrap();
    }
    let real = ctime(&f.up("d"));
    assert!(eventually(LIMIT, || ctime(&f.p("d")) == real));
    f.check(move |m| assert_eq!(ctime(&m.join("d")), real));
}

/// Who is still to tell the kernel of a directory's time of change keeps nothing of the directory.
#[test]
fn regression_a_directory_that_goes_after_a_copy_leaves_nothing_in_the_workdir() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..10 {
        f.lower(0).file(format!("d{i}/f"), "data");
    }
    f.mount();
    for i in 0..10 {
        let dir = f.p(format!("d{i}"));
        let open = ro(&dir);
        sys::chmod(dir.join("f"), 0o600).unwrap();
        sys::unlink(dir.join("f")).unwrap();
        sys::rmdir(&dir).unwrap();
        drop(open);
        f.unmount();
        assert_eq!(f.temporaries(), [""; 0], "{i}");
        f.mount();
    }
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

#[test]
fn holes_stay_holes() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "head");
    let big = 64 << 20;
    let file = rw(f.low(0, "f"));
    file.write_all_at(b"middle", big / 2).unwrap();
    file.set_len(big).unwrap();
    drop(file);
    f.mount();
    sys::chmod(f.p("f"), 0o600).unwrap();
    rw(f.p("f")).write_all_at(b"x", 4).unwrap();
    let s = stat(f.up("f"));
    assert_eq!(s.len(), big);
    assert!(s.blocks() * 512 < 4 << 20, "{} blocks are no holes", s.blocks());
    f.check(|m| {
        let file = ro(m.join("f"));
        let mut buf = [0; 6];
        file.read_exact_at(&mut buf, big / 2).unwrap();
        assert_eq!(&buf, b"middle");
        file.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"headx\0");
        assert_eq!(file.metadata().unwrap().len(), big);
    });
}

#[test]
fn large_file_arrives_whole() {
    let Some(mut f) = Fixture::new(1) else { return };
    let data: Vec<u8> = (0..9_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    f.lower(0).file("f", &data);
    f.mount();
    fs::OpenOptions::new().append(true).open(f.p("f")).unwrap().set_len(9_000_000).unwrap();
    f.check(|m| assert!(fs::read(m.join("f")).unwrap() == data[..9_000_000]));
}

/// Reading, looking and listing change nothing in the upper.
#[test]
fn looking_copies_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/f", "data").xattr("user.a", "1").symlink("s", "d/f").mode(0o644);
    f.mount();
    assert_eq!(text(f.p("s")), "data");
    assert_eq!(names(f.p("d")), ["f"]);
    assert_eq!(sys::getxattr(f.p("d/f"), "user.a"), Ok(b"1".to_vec()));
    assert_eq!(sys::access(f.p("d/f"), libc::R_OK | libc::W_OK), Ok(()));
    let flags = libc::O_RDONLY | libc::O_NOATIME;
    drop(sys::open(f.p("d/f"), flags, 0).unwrap());
    f.unmount();
    assert_eq!(names(f.up("")), [""; 0]);
}

#[test]
fn failed_change_copies_nothing() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("f", "data").mode(0o644);
    f.mount();
    let f_path = f.p("f");
    let r = as_user(1000, 1000, || {
        (
            sys::open(&f_path, libc::O_RDWR, 0).map(drop),
            sys::chmod(&f_path, 0o777),
            sys::truncate(&f_path, 0),
            sys::setxattr(&f_path, "user.x", b"1", 0),
        )
    });
    assert_eq!(r, (Err(Errno::EACCES), Err(Errno::EPERM), Err(Errno::EACCES), Err(Errno::EACCES)));
    assert_eq!(
        sys::open(&f_path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0).err(),
        Some(Errno::EEXIST)
    );
    f.unmount();
    assert_eq!(names(f.up("")), [""; 0]);
}

/// Source: overlayfs.rst, "Non-directories": O_TRUNC needs no data.
#[test]
fn truncating_open_leaves_only_new_bytes() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", vec![1u8; 1 << 20]).mode(0o604).xattr("user.a", "1").file("g", "x");
    f.mount();
    fs::write(f.p("f"), "new").unwrap();
    drop(sys::open(f.p("g"), libc::O_RDONLY | libc::O_TRUNC, 0).unwrap());
    f.check(|m| {
        assert_eq!(text(m.join("f")), "new");
        assert_eq!(stat(m.join("f")).mode() & 0o7777, 0o604);
        assert_eq!(sys::getxattr(m.join("f"), "user.a"), Ok(b"1".to_vec()));
        assert_eq!(stat(m.join("g")).len(), 0);
    });
}

#[test]
fn eight_threads_copy_up_once() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a/b/f", vec![b'o'; 8 << 20]);
    f.mount();
    let ino = stat(f.p("a/b/f")).ino();
    let path = f.p("a/b/f");
    let gate = std::sync::Barrier::new(8);
    std::thread::scope(|s| {
        for i in 0..8u64 {
            let (path, gate) = (&path, &gate);
            s.spawn(move || {
                gate.wait();
                rw(path).write_all_at(&[b'0' + i as u8], i * (1 << 20)).unwrap();
            });
        }
    });
    f.check(|m| {
        let data = fs::read(m.join("a/b/f")).unwrap();
        assert_eq!(data.len(), 8 << 20);
        for i in 0..8 {
            assert_eq!(data[i << 20], b'0' + i as u8, "write of thread {i} is lost");
            assert_eq!(data[(i << 20) + 1], b'o');
        }
        assert_eq!(stat(m.join("a/b/f")).ino(), ino);
        assert_eq!(stat(m.join("a/b/f")).nlink(), 1);
    });
}

#[test]
fn eight_threads_copy_up_different_files_of_one_new_parent() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..64 {
        f.lower(0).file(format!("a/b/c/f{i}"), "old");
    }
    f.mount();
    std::thread::scope(|s| {
        for t in 0..8 {
            let f = &f;
            s.spawn(move || {
                for i in 0..8 {
                    fs::write(f.p(format!("a/b/c/f{}", t * 8 + i)), format!("{t}.{i}")).unwrap();
                }
            });
        }
    });
    f.check(|m| {
        for i in 0..64 {
            assert_eq!(text(m.join(format!("a/b/c/f{i}"))), format!("{}.{}", i / 8, i % 8));
        }
    });
}

#[test]
fn numbers_stay_across_copy_up_and_remount() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/f", "x").symlink("d/s", "f").dir("d/sub");
    f.lower(0).node("d/p", libc::S_IFIFO | 0o644, 0);
    f.mount();
    // Where marks are kept in user.*, symlinks and special files cannot say where they come from.
    let marked = if mode() == Mode::Root { 5 } else { 3 };
    let all = &["d", "d/f", "d/sub", "d/s", "d/p"][..marked];
    let numbers = |m: &Path| all.iter().map(|n| stat(m.join(n)).ino()).collect::<Vec<_>>();
    let before = numbers(&f.p(""));
    for name in all {
        sys::utimens(f.p(name), OLD, OLD).unwrap();
    }
    sys::rename(f.p("d/f"), f.p("d/f2")).unwrap();
    sys::rename(f.p("d/f2"), f.p("d/f")).unwrap();
    f.check(|m| {
        assert_eq!(numbers(m), before);
        for e in dents(m.join("d")) {
            assert_eq!(e.ino, stat(m.join("d").join(&e.name)).ino(), "{:?}", e.name);
        }
    });
}

/// Source: overlayfs.rst, "Non-directories": the directory's own times do not tell of a copy-up, however many there are.
#[test]
fn parallel_copy_ups_leave_the_directorys_times() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..60 {
        f.lower(0).file(format!("d/f{i}"), "x");
    }
    sys::utimens(f.low(0, "d"), (1_000_000_000, 5), (1_000_000_000, 7)).unwrap();
    f.mount();
    let dir = f.p("d");
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let dir = &dir;
            scope.spawn(move || {
                for i in (thread..60).step_by(6) {
                    drop(rw(dir.join(format!("f{i}"))));
                }
            });
        }
    });
    f.check(|m| {
        let s = stat(m.join("d"));
        assert_eq!((s.mtime(), s.mtime_nsec()), (1_000_000_000, 7));
    });
}

/// The daemon's threads that do what takes long.
fn long_threads(f: &Fixture) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", f.daemon())).unwrap().flatten();
    tasks
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "copy-up\n"))
        .count()
}

type Call = fn(&Path);

/// A worker that copies keeps everybody else waiting.
#[test]
fn whatever_copies_much_up_is_done_apart_from_the_workers() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("no daemon"))
    else {
        return;
    };
    for name in ["moved", "unlinked", "unset", "over"] {
        f.lower(0).file(name, "x").xattr("user.a", b"1");
        File::options().write(true).open(f.low(0, name)).unwrap().set_len(5 << 20).unwrap();
    }
    f.lower(0).hardlink("other", "unlinked").hardlink("other2", "over").file("small", "x");
    f.mount();
    // As soon as the data is there, the call waits.
    let slow = ["-e", "trace=ftruncate", "-e", "inject=ftruncate:delay_enter=2000000"];
    let calls: [(&str, Call); 4] = [
        ("rename", |m| sys::rename(m.join("moved"), m.join("moved2")).unwrap()),
        ("rename over", |m| sys::rename(m.join("small"), m.join("over")).unwrap()),
        ("unlink", |m| sys::unlink(m.join("unlinked")).unwrap()),
        ("removexattr", |m| sys::removexattr(m.join("unset"), "user.a").unwrap()),
    ];
    let done = traced(&f, &slow, || {
        for (what, call) in calls {
            let root = f.p("");
            let caller = std::thread::spawn(move || call(&root));
            assert!(eventually(LIMIT, || long_threads(&f) == 1), "{what}");
            caller.join().unwrap();
            assert!(eventually(LIMIT, || long_threads(&f) == 0), "{what}");
        }
    });
    drop(done);
    f.check(|m| assert_eq!(names(m), ["moved2", "other", "other2", "over", "unset"]));
}
