//! Many at once, for a while.

use crate::common::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::{Duration, Instant};

/// Seconds a stress runs: `STRATAFS_STRESS_SECONDS`, 10 by default.
fn span() -> Duration {
    let secs = std::env::var("STRATAFS_STRESS_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(secs.unwrap_or(10))
}

/// Errnos that lost races may give; anything else is a fault.
fn allowed(r: sys::Res<()>) {
    if let Err(e) = r {
        let fine =
            [Errno::ENOENT, Errno::EEXIST, Errno::ENOTEMPTY, Errno::ENOTDIR, Errno::EISDIR, Errno::EINVAL];
        assert!(fine.contains(&e), "{e} from a race");
    }
}

fn list(dir: &std::path::Path) {
    match no(fs::read_dir(dir)) {
        Ok(list) => assert!(list.count() < 1000),
        Err(e) => allowed(Err(e)),
    }
}

#[test]
fn eight_threads_in_one_directory() {
    let Some(mut f) = Fixture::new(2) else { return };
    for i in 0..40 {
        f.lower(i % 2).file(format!("d/n{i}"), format!("content of n{i}"));
    }
    f.lower(0).dir("d/dir0/x").dir("d/dir1");
    f.mount();
    let end = Instant::now() + span();
    let d = f.p("d");
    // Some of the names are directories, which an ordinary user must be able to search in the end.
    let least = if mode() == Mode::Fusermount { 0o700 } else { 0o600 };
    std::thread::scope(|s| {
        for t in 0..8u64 {
            let d = &d;
            s.spawn(move || {
                let mut rng = StdRng::seed_from_u64(t);
                while Instant::now() < end {
                    let a = d.join(format!("n{}", rng.random_range(0..60)));
                    let b = d.join(format!("n{}", rng.random_range(0..60)));
                    match rng.random_range(0..10) {
                        0 | 1 => allowed(no(fs::write(&a, format!("content of {t}")))),
                        2 => allowed(sys::unlink(&a)),
                        3 => allowed(sys::rename(&a, &b)),
                        4 => match sys::link(&a, &b) {
                            Err(Errno::EPERM) => {} // a directory
                            r => allowed(r),
                        },
                        5 => allowed(sys::mkdir(&a, 0o755)),
                        6 => allowed(sys::rmdir(&a)),
                        7 => allowed(sys::chmod(&a, least + rng.random_range(0..64))),
                        8 => allowed(sys::renameat2(&a, &b, libc::RENAME_EXCHANGE)),
                        _ => {
                            if let Ok(data) = fs::read(&a) {
                                // Without passthrough the kernel's FUSE client keeps the old size until it has heard of a
                                // truncation: a page read from the file in between is zeros up to that size.
                                let cut = mode() != Mode::Root && data.iter().all(|&byte| byte == 0);
                                let whole = data.is_empty() || data.starts_with(b"content of ") || cut;
                                assert!(whole, "{:?}", String::from_utf8_lossy(&data));
                            }
                            list(d);
                        }
                    }
                }
            });
        }
    });
    same_after_remount(&mut f);
}

/// What the mount shows at rest must be what it shows after unmount and mount.
#[track_caller]
fn same_after_remount(f: &mut Fixture) {
    let before = sum::tree(&f.p(""));
    for path in before.keys() {
        let listed = path.as_os_str().is_empty()
            || names(f.p(path.parent().unwrap()))
                .contains(&path.file_name().unwrap().to_string_lossy().into());
        assert!(listed, "{} can be looked up but is not listed", path.display());
    }
    f.remount();
    let diff = sum::diff(&before, &sum::tree(&f.p("")));
    assert!(diff.is_empty(), "another tree after the remount:\n{diff}");
}

/// Directories move while others work in them: renames across parents, deep lookups, copy-ups.
#[test]
fn trees_move_under_workers() {
    let Some(mut f) = Fixture::new(1) else { return };
    for a in 0..4 {
        for i in 0..10 {
            f.lower(0).file(format!("t{a}/sub/{i}"), "low");
        }
    }
    f.mount();
    let end = Instant::now() + span() / 3;
    let root = f.p("");
    std::thread::scope(|s| {
        for t in 0..8u64 {
            let root = &root;
            s.spawn(move || {
                let mut rng = StdRng::seed_from_u64(100 + t);
                let mut pick = |n: u32| rng.random_range(0..n);
                while Instant::now() < end {
                    let tree = |k| root.join(format!("t{k}"));
                    match pick(5) {
                        0 => allowed(sys::rename(tree(pick(6)), tree(pick(6)))),
                        1 => allowed(sys::rename(
                            tree(pick(6)).join("sub"),
                            tree(pick(6)).join(format!("sub{}", pick(3))),
                        )),
                        2 => allowed(no(fs::write(tree(pick(6)).join(format!("sub/{}", pick(12))), "new"))),
                        3 => list(&tree(pick(6)).join("sub")),
                        _ => allowed(sys::renameat2(
                            tree(pick(6)).join("sub"),
                            tree(pick(6)).join("sub"),
                            libc::RENAME_EXCHANGE,
                        )),
                    }
                }
            });
        }
    });
    same_after_remount(&mut f);
}

/// Opens, writes, unlinks and reads of the same few files over and over: no bytes of another file ever show.
#[test]
fn handles_never_mix() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..8 {
        f.lower(0).file(format!("{i}"), vec![b'0' + i; 8192]);
    }
    f.mount();
    let end = Instant::now() + span() / 3;
    let root = f.p("");
    std::thread::scope(|s| {
        for i in 0..8u8 {
            let path = root.join(format!("{i}"));
            s.spawn(move || {
                let own = vec![b'0' + i; 8192];
                while Instant::now() < end {
                    let r = ro(&path);
                    let w = rw(&path);
                    w.write_all_at(&own[..4096], 0).unwrap();
                    assert!(through(&r) == own);
                    let map = Map::shared(&w, 8192);
                    assert!(map.get() == own);
                    sys::unlink(&path).unwrap();
                    assert!(through(&w) == own);
                    fs::write(&path, &own).unwrap();
                }
            });
        }
    });
    same_after_remount(&mut f);
}

/// A first open for writing among first opens for reading: no open fails, and what was written reaches the upper file.
/// Once a reader's lower file became what the kernel passed the writer's bytes to.
#[test]
fn regression_the_first_writer_meets_readers() {
    first_writer_meets_readers(&[]);
}

/// The same where the kernel reads lower files itself. Once the writer got the backing file of a reader whose close was not
/// done with yet.
#[test]
fn regression_the_first_writer_meets_readers_of_the_lower_file() {
    if !kernel_oracle() {
        first_writer_meets_readers(&["-o", "lower_io=passthrough"]);
    }
}

fn first_writer_meets_readers(options: &[&str]) {
    let Some(mut f) = Fixture::new(1) else { return };
    let count = if span() > Duration::from_secs(10) { 20_000 } else { 500 };
    for i in 0..count {
        f.lower(0).file(format!("{i}"), "low");
    }
    f.mount_with(options);
    let at = |i: usize| f.p(format!("{i}"));
    let turn = std::sync::Barrier::new(3);
    // Nobody may stop in the middle: the others would wait.
    let read = |i: usize| sys::open(at(i), libc::O_RDONLY, 0).map(|h| through(&h));
    let reader = |slow: usize| {
        let mut wrong = vec![];
        for i in 0..count {
            turn.wait();
            // Around the end of a copy-up, which takes a while.
            std::thread::sleep(Duration::from_micros((i * slow) as u64 % 400));
            wrong
                .extend((0..4).map(|_| read(i)).find(|r| *r != Ok(b"low".into()) && *r != Ok(b"new".into())));
        }
        wrong
    };
    let writer = || {
        let mut wrong = vec![];
        for i in 0..count {
            turn.wait();
            let written = sys::open(at(i), libc::O_RDWR, 0).and_then(|w| no(w.write_all_at(b"new", 0)));
            wrong.extend(written.err());
        }
        wrong
    };
    std::thread::scope(|s| {
        let readers = [1, 2].map(|slow| s.spawn(move || reader(slow)));
        assert_eq!(writer(), []);
        for r in readers {
            assert_eq!(r.join().unwrap(), []);
        }
    });
    for i in 0..count {
        assert_eq!((text(at(i)), text(f.up(format!("{i}")))), ("new".into(), "new".into()));
    }
}
