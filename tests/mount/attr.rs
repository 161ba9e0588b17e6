//! Mode, owner, times, and what stat and statfs say.

use std::path::Path;
use std::process::Command;

use crate::common::*;

const T: (i64, i64) = (1_234_567_890, 123_456_789);

#[test]
fn chmod_of_every_layer() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "x").mode(0o644).dir("dir").mode(0o755);
    f.upper().file("up", "x").mode(0o644);
    f.mount();
    for name in ["low", "up", "dir"] {
        sys::chmod(f.p(name), 0o1710).unwrap();
        assert_eq!(stat(f.p(name)).mode() & 0o7777, 0o1710);
    }
    let handle = ro(f.p("low"));
    handle.set_permissions(fs::Permissions::from_mode(0o400)).unwrap();
    drop(handle);
    f.check(|m| {
        let bits = ["low", "up", "dir"].map(|n| stat(m.join(n)).mode() & 0o7777);
        assert_eq!(bits, [0o400, 0o1710, 0o1710]);
    });
}

#[test]
fn chmod_through_a_symlink_changes_its_target() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").mode(0o644).symlink("s", "f");
    f.mount();
    sys::chmod(f.p("s"), 0o600).unwrap();
    f.check(|m| {
        assert_eq!(stat(m.join("f")).mode() & 0o777, 0o600);
        assert_eq!(stat(m.join("s")).mode(), libc::S_IFLNK | 0o777);
    });
}

#[test]
fn chown_of_one_or_both() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("a", "x").owner(5, 6).file("b", "x").owner(5, 6).symlink("s", "a").dir("d");
    f.mount();
    sys::lchown(f.p("a"), 1000, u32::MAX).unwrap();
    sys::lchown(f.p("b"), u32::MAX, 1001).unwrap();
    sys::lchown(f.p("s"), 7, 8).unwrap();
    sys::lchown(f.p("d"), 4_000_000_000, 9).unwrap();
    f.check(|m| {
        let ids = ["a", "b", "s", "d"].map(|n| (stat(m.join(n)).uid(), stat(m.join(n)).gid()));
        assert_eq!(ids, [(1000, 6), (5, 1001), (7, 8), (4_000_000_000, 9)]);
    });
}

#[test]
fn only_owners_change_attributes() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("mine", "x").owner(1000, 1000).mode(0o600);
    f.lower(0).file("other", "x").owner(1, 1).mode(0o666);
    f.mount();
    let (mine, other) = (f.p("mine"), f.p("other"));
    as_user(1000, 1000, || {
        assert_eq!(sys::chmod(&other, 0o600), Err(Errno::EPERM));
        assert_eq!(sys::lchown(&other, 1000, 1000), Err(Errno::EPERM));
        assert_eq!(sys::lchown(&mine, 1, u32::MAX), Err(Errno::EPERM));
        assert_eq!(sys::lchown(&mine, u32::MAX, 5), Err(Errno::EPERM));
        assert_eq!(sys::utimens(&other, T, T), Err(Errno::EPERM));
        // Now is allowed to whoever may write.
        assert_eq!(sys::utimens(&other, (0, libc::UTIME_NOW), (0, libc::UTIME_NOW)), Ok(()));
        assert_eq!(sys::chmod(&mine, 0o640), Ok(()));
        assert_eq!(sys::utimens(&mine, T, T), Ok(()));
    });
    f.check(|m| {
        assert_eq!(mtime(m.join("mine")), T);
        assert!(mtime(m.join("other")) > (1_600_000_000, 0));
    });
}

#[test]
fn times_to_the_nanosecond() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").symlink("s", "f").dir("d");
    f.mount();
    for name in ["f", "s", "d"] {
        sys::utimens(f.p(name), (77, 1), T).unwrap();
    }
    f.check(|m| {
        for name in ["f", "s", "d"] {
            assert_eq!(mtime(m.join(name)), T, "{name}");
        }
        let s = stat(m.join("f"));
        assert_eq!((s.atime(), s.atime_nsec()), (77, 1));
    });
}

/// Source: utimensat(2).
#[test]
fn now_and_omit() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").mtime(1000, 5).file("g", "x").mtime(1000, 5).file("n", "x").mtime(1000, 5);
    f.mount();
    let (now, omit) = ((0, libc::UTIME_NOW), (0, libc::UTIME_OMIT));
    sys::utimens(f.p("f"), now, omit).unwrap();
    sys::utimens(f.p("g"), omit, now).unwrap();
    sys::utimens(f.p("n"), omit, omit).unwrap();
    let s = stat(f.p("f"));
    assert!(s.atime() > 1_600_000_000);
    let s = stat(f.p("g"));
    assert_eq!((s.atime(), s.atime_nsec()), (1000, 5));
    f.check(|m| {
        assert_eq!(mtime(m.join("f")), (1000, 5));
        assert!(mtime(m.join("g")) > (1_600_000_000, 0));
        assert_eq!(mtime(m.join("n")), (1000, 5));
    });
}

#[test]
fn times_before_the_epoch_and_far_ahead() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("old", "x").file("far", "x");
    f.mount();
    sys::utimens(f.p("old"), (-1_000_000, 5), (-1_000_000, 5)).unwrap();
    sys::utimens(f.p("far"), (8_000_000_000, 5), (8_000_000_000, 5)).unwrap();
    f.check(|m| {
        assert_eq!(mtime(m.join("old")), (-1_000_000, 5));
        assert_eq!(mtime(m.join("far")), (8_000_000_000, 5));
    });
}

#[test]
fn change_time_moves_with_every_change() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").mode(0o644);
    f.mount();
    let ctime = || (stat(f.p("f")).ctime(), stat(f.p("f")).ctime_nsec());
    let mut last = ctime();
    let mut moved = |what: &str, r: sys::Res<()>| {
        r.unwrap();
        let now = ctime();
        assert!(now > last, "{what}: {now:?} after {last:?}");
        last = now;
        await_later_time();
    };
    await_later_time();
    moved("chmod", sys::chmod(f.p("f"), 0o600));
    moved("xattr", sys::setxattr(f.p("f"), "user.a", b"1", 0));
    moved("utimens", sys::utimens(f.p("f"), T, T));
    moved("link", sys::link(f.p("f"), f.p("g")));
    moved("unlink", sys::unlink(f.p("g")));
    moved("truncate", sys::truncate(f.p("f"), 0));
    moved("write", no(fs::write(f.p("f"), "y")));
}

#[test]
fn stat_through_a_handle_agrees() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").mode(0o644);
    f.mount();
    let r = ro(f.p("f"));
    sys::chmod(f.p("f"), 0o604).unwrap();
    fs::write(f.p("f"), "longer").unwrap();
    let (a, b) = (r.metadata().unwrap(), stat(f.p("f")));
    assert_eq!((a.ino(), a.mode(), a.len(), a.mtime_nsec()), (b.ino(), b.mode(), b.len(), b.mtime_nsec()));
    assert_eq!((a.mode() & 0o777, a.len()), (0o604, 6));
    assert_eq!(a.dev(), stat(f.p("")).dev());
}

#[test]
fn blocks_and_sizes_are_those_of_the_layer() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", vec![1; 100_000]);
    f.mount();
    f.check(|m| {
        let (a, b) = (stat(m.join("f")), stat(f_low(m)));
        assert_eq!((a.len(), a.blocks()), (b.len(), b.blocks()));
        assert!(a.blksize() >= 4096);
    });
}

fn f_low(m: &std::path::Path) -> std::path::PathBuf {
    m.parent().unwrap().join("l0/f")
}

/// Source: overlayfs `ovl_statfs`: the numbers are those of the upper's filesystem.
#[test]
fn statfs_answers_for_the_upper() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/f", "x");
    f.mount();
    f.check(|m| {
        let up = sys::statvfs(m.parent().unwrap().join("upper")).unwrap();
        for name in ["", "d", "d/f"] {
            let mnt = sys::statvfs(m.join(name)).unwrap();
            assert_eq!((mnt.f_bsize, mnt.f_frsize), (up.f_bsize, up.f_frsize));
            assert_eq!((mnt.f_blocks, mnt.f_files), (up.f_blocks, up.f_files));
            let gap = mnt.f_bavail.abs_diff(up.f_bavail) * up.f_frsize;
            assert!(gap < 1 << 30, "free space differs by {gap}");
            assert_eq!(mnt.f_namemax, 255);
        }
    });
}

#[test]
fn statfs_of_a_read_only_mount_says_so() {
    let Some(mut f) = Fixture::read_only(2) else { return };
    f.lower(0).file("f", "x");
    f.mount();
    let s = sys::statvfs(f.p("f")).unwrap();
    assert_ne!(s.f_flag & libc::ST_RDONLY, 0);
    assert!(s.f_blocks > 0);
}

#[test]
fn access_is_checked_with_the_callers_ids() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("f", "x").mode(0o640).owner(1, 1000).file("run", "x").mode(0o611);
    f.mount();
    let (file, run) = (f.p("f"), f.p("run"));
    as_user(1000, 1000, || {
        assert_eq!(sys::open(&file, libc::O_RDONLY, 0).map(drop), Ok(()));
        assert_eq!(sys::open(&file, libc::O_RDWR, 0).err(), Some(Errno::EACCES));
        assert_eq!(sys::access(&run, libc::X_OK), Ok(()));
        assert_eq!(sys::access(&run, libc::R_OK), Err(Errno::EACCES));
    });
    as_user(1001, 1001, || assert_eq!(err(fs::read(&file)), Errno::EACCES));
    assert_eq!(sys::access(f.p("f"), libc::X_OK), Err(Errno::EACCES));
}

/// A copy-up changes the time of change of the directory that it is put into. Whoever looks once it is done sees no other later:
/// tar(1) would say "file changed as we read it".
#[test]
fn the_time_of_change_is_settled_when_a_request_is_answered() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..40 {
        drop(f.lower(0).file(format!("d{i}/sub/f"), "x"));
    }
    f.mount();
    let ctime = |path: &Path| (stat(path).ctime(), stat(path).ctime_nsec());
    let mut seen = Vec::new();
    for i in 0..40 {
        let all = ["", &format!("d{i}"), &format!("d{i}/sub")].map(|dir| f.p(dir));
        // So that the kernel has them all.
        for dir in &all {
            ctime(dir);
        }
        match i % 4 {
            0 => drop(File::create(f.p(format!("d{i}/sub/new"))).unwrap()),
            1 => sys::chmod(f.p(format!("d{i}/sub/f")), 0o600).unwrap(),
            2 => sys::unlink(f.p(format!("d{i}/sub/f"))).unwrap(),
            _ => drop(rw(f.p(format!("d{i}/sub/f")))),
        }
        seen.extend(all.map(|dir| (ctime(&dir), dir)).into_iter().skip(usize::from(i + 1 < 40)));
    }
    // Longer than anybody would wait to say so.
    std::thread::sleep(std::time::Duration::from_millis(100));
    for (before, dir) in &seen {
        assert_eq!(ctime(dir), *before, "{dir:?} has another time of change that nobody made");
    }
    let mut tar = Command::new("tar");
    for i in 0..5 {
        tar.arg("-cf")
            .arg(f.p(format!("d{i}/sub/a.tar")))
            .arg("-C")
            .arg(f.p(""))
            .arg(format!("--exclude=./d{i}/sub/a.tar"))
            .arg(".");
        let done = run(&mut tar);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "tar");
        tar = Command::new("tar");
    }
}
