//! Changes on the host show in the mount at the next system call, and the other way round.

use super::common::*;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

fn data() -> Option<Fixture> {
    let mut f = Fixture::new(1)?;
    f.lower(0).dir("data");
    f.source("data").file("f", "host").dir("d/e").file("d/e/x", "x").dir("other").file("other/y", "y");
    f.bind("data", "/data", "");
    f.mount();
    Some(f)
}

#[test]
fn bytes_of_the_host_show_through_an_open_file_too() {
    let Some(mut f) = data() else { return };
    let here = rw(f.p("data/f"));
    let there = rw(f.host("data/f"));
    assert_eq!(through(&here), b"host");
    for round in 0..50 {
        let bytes = format!("round {round}, {}", "x".repeat(round * 300));
        there.set_len(0).unwrap();
        there.write_all_at(bytes.as_bytes(), 0).unwrap();
        assert_eq!(through(&here), bytes.as_bytes());
        assert_eq!(
            (text(f.p("data/f")), here.metadata().unwrap().len()),
            (bytes.clone(), bytes.len() as u64)
        );
        assert_eq!(mtime(f.p("data/f")), mtime(f.host("data/f")));
        here.write_all_at(b"HERE", 2).unwrap();
        assert_eq!(&through(&there)[2..6], b"HERE");
        here.set_len(3).unwrap();
        assert_eq!((through(&there), stat(f.p("data/f")).len()), (b"roH".to_vec(), 3));
    }
    drop((here, there));
    f.check(|m| assert_eq!(text(m.join("data/f")), "roH"));
}

#[test]
fn attributes_go_both_ways() {
    let Some(mut f) = data() else { return };
    let (here, there) = (f.p("data/f"), f.host("data/f"));
    let open = ro(&here);
    for mode in [0o600, 0o644, 0o666, 0o640] {
        sys::chmod(&there, mode).unwrap();
        assert_eq!((stat(&here).mode() & 0o7777, open.metadata().unwrap().mode() & 0o7777), (mode, mode));
        sys::chmod(&here, mode ^ 0o111).unwrap();
        assert_eq!(stat(&there).mode() & 0o7777, mode ^ 0o111);
        sys::utimens(&there, (1, 2), (i64::from(mode), 4)).unwrap();
        assert_eq!(mtime(&here), (i64::from(mode), 4));
        sys::setxattr(&there, "user.k", mode.to_string().as_bytes(), 0).unwrap();
        assert_eq!(sys::getxattr(&here, "user.k"), Ok(mode.to_string().into_bytes()));
        assert_eq!(sys::fgetxattr(&open, "user.k"), Ok(mode.to_string().into_bytes()));
        sys::setxattr(&here, "user.h", b"mount", 0).unwrap();
        assert_eq!(sys::getxattr(&there, "user.h"), Ok(b"mount".to_vec()));
        sys::removexattr(&there, "user.h").unwrap();
        assert_eq!(sys::getxattr(&here, "user.h"), Err(Errno::ENODATA));
    }
    if passes_through() {
        sys::lchown(&there, 12, 34).unwrap();
        assert_eq!((stat(&here).uid(), stat(&here).gid()), (12, 34));
    }
    drop(open);
    f.check(|m| assert_eq!(mtime(m.join("data/f")), (0o640, 4)));
}

#[test]
fn names_come_and_go_from_both_sides() {
    let Some(mut f) = data() else { return };
    let (here, there) = (f.p("data"), f.host("data"));
    for round in 0..100 {
        let (a, b) = (format!("a{}", round % 3), format!("b{}", round % 3));
        assert_eq!(missing(here.join(&a)), Errno::ENOENT, "asked before it is there");
        fs::write(there.join(&a), round.to_string()).unwrap();
        assert_eq!(text(here.join(&a)), round.to_string());
        assert!(names(&here).contains(&a));
        sys::rename(there.join(&a), there.join(&b)).unwrap();
        assert_eq!((missing(here.join(&a)), text(here.join(&b))), (Errno::ENOENT, round.to_string()));
        sys::link(here.join(&b), here.join("hard")).unwrap();
        assert_eq!(stat(there.join(&b)).nlink(), 2);
        sys::unlink(there.join("hard")).unwrap();
        assert_eq!(stat(here.join(&b)).nlink(), 1);
        sys::unlink(there.join(&b)).unwrap();
        assert_eq!(missing(here.join(&b)), Errno::ENOENT);
        assert_eq!(sys::unlink(here.join(&b)), Err(Errno::ENOENT));
        sys::mkdir(there.join(&a), 0o755).unwrap();
        assert_eq!(sys::mkdir(here.join(&a), 0o755), Err(Errno::EEXIST));
        fs::write(here.join(&a).join("in"), "in").unwrap();
        assert_eq!(sys::rmdir(there.join(&a)), Err(Errno::ENOTEMPTY));
        sys::unlink(there.join(&a).join("in")).unwrap();
        sys::rmdir(here.join(&a)).unwrap();
        assert_eq!(missing(there.join(&a)), Errno::ENOENT);
    }
    f.check(|m| assert_eq!(names(m.join("data")), ["d", "f", "other"]));
}

/// Filesystems give a number that is free again at once.
#[test]
fn what_takes_the_place_of_another_is_seen_whatever_its_number() {
    let Some(mut f) = data() else { return };
    let (here, there) = (f.p("data/t"), f.host("data/t"));
    for round in 0..200 {
        match round % 4 {
            0 => fs::write(&there, round.to_string()).unwrap(),
            1 => fs::create_dir(&there).unwrap(),
            2 => sys::symlink(format!("to-{round}"), &there).unwrap(),
            _ => sys::mknod(&there, libc::S_IFIFO | 0o644, 0).unwrap(),
        }
        let (seen, real) = (stat(&here), stat(&there));
        assert_eq!(
            (seen.mode(), seen.len(), seen.nlink()),
            (real.mode(), real.len(), real.nlink()),
            "{round}"
        );
        let listed = dents(f.p("data")).into_iter().find(|e| e.name == "t").unwrap();
        assert_eq!(listed.ino, seen.ino(), "{round}");
        match round % 4 {
            0 => assert_eq!(text(&here), round.to_string()),
            1 => assert_eq!(names(&here), [] as [&str; 0]),
            2 => assert_eq!(fs::read_link(&here).unwrap().to_str(), Some(&*format!("to-{round}"))),
            _ => {}
        }
        let gone = if round % 4 == 1 { sys::rmdir(&there) } else { sys::unlink(&there) };
        gone.unwrap();
    }
    for round in 0..200 {
        sys::symlink(format!("to-{round}"), &there).unwrap();
        assert_eq!(fs::read_link(&here).unwrap().to_str(), Some(&*format!("to-{round}")));
        sys::unlink(&there).unwrap();
    }
    f.check(|m| assert_eq!(names(m.join("data")), ["d", "f", "other"]));
}

#[test]
fn files_and_directories_replaced_by_rename() {
    let Some(mut f) = data() else { return };
    let (here, there) = (f.p("data"), f.host("data"));
    for round in 0..100 {
        fs::write(there.join("next"), round.to_string()).unwrap();
        sys::rename(there.join("next"), there.join("f")).unwrap();
        assert_eq!(text(here.join("f")), round.to_string());
        fs::write(here.join("next"), format!("m{round}")).unwrap();
        sys::rename(here.join("next"), here.join("f")).unwrap();
        assert_eq!(text(there.join("f")), format!("m{round}"));
        fs::create_dir_all(there.join("new/e")).unwrap();
        fs::write(there.join("new/e/x"), round.to_string()).unwrap();
        sys::renameat2(there.join("new"), there.join("d"), libc::RENAME_EXCHANGE).unwrap();
        assert_eq!(text(here.join("d/e/x")), round.to_string());
        fs::remove_dir_all(there.join("new")).unwrap();
        assert_eq!(missing(here.join("new")), Errno::ENOENT);
    }
    f.check(|m| {
        assert_eq!((text(m.join("data/f")), text(m.join("data/d/e/x"))), ("m99".into(), "99".into()))
    });
}

#[test]
fn directories_move_with_what_is_open_in_them() {
    let Some(mut f) = data() else { return };
    let file = rw(f.p("data/d/e/x"));
    let dir = File::open(f.p("data/d/e")).unwrap();
    let mut list = Dir::open(f.p("data/d/e")).unwrap();
    sys::rename(f.host("data/d"), f.host("data/other/moved")).unwrap();
    assert_eq!(missing(f.p("data/d")), Errno::ENOENT);
    assert_eq!(text(f.p("data/other/moved/e/x")), "x");
    file.write_all_at(b"written", 0).unwrap();
    assert_eq!(text(f.host("data/other/moved/e/x")), "written");
    assert_eq!(dir.metadata().unwrap().ino(), stat(f.p("data/other/moved/e")).ino());
    assert_eq!(list.rest().len(), 3);
    // Back again, and to another depth, while nobody asks.
    sys::rename(f.host("data/other/moved/e"), f.host("data/e")).unwrap();
    sys::rename(f.host("data/other/moved"), f.host("data/e/moved")).unwrap();
    assert_eq!(text(f.p("data/e/x")), "written");
    assert_eq!(names(f.p("data/e/moved")), [] as [&str; 0]);
    sys::rename(f.p("data/e/moved"), f.p("data/back")).unwrap();
    assert_eq!(names(f.host("data")), ["back", "e", "f", "other"]);
    drop((file, dir, list));
    f.check(|m| assert_eq!(text(m.join("data/e/x")), "written"));
}

#[test]
fn a_working_directory_moves_with_its_directory() {
    let Some(mut f) = data() else { return };
    let (inside, host) = (f.p("data/d/e"), f.host("data"));
    sys::private_fs(|| {
        std::env::set_current_dir(&inside).unwrap();
        sys::rename(host.join("d"), host.join("other/d2")).unwrap();
        assert_eq!((text("x"), names(".")), ("x".into(), vec!["x".to_owned()]));
        fs::write("new", "from inside").unwrap();
        assert_eq!(text(host.join("other/d2/e/new")), "from inside");
        assert_eq!(names(".."), ["e"]);
        fs::remove_dir_all(host.join("other/d2")).unwrap();
        assert_eq!((missing("x"), err(fs::write("y", "y"))), (Errno::ENOENT, Errno::ENOENT));
        assert_eq!(names("."), [] as [&str; 0]);
        std::env::set_current_dir("/").unwrap();
    });
    f.check(|m| assert_eq!(names(m.join("data")), ["f", "other"]));
}

#[test]
fn open_files_keep_their_object() {
    let Some(mut f) = data() else { return };
    for way in ["host unlink", "host rename over", "mount unlink", "mount rename over"] {
        let (here, there) = (f.p("data/o"), f.host("data/o"));
        fs::write(&there, "before").unwrap();
        sys::setxattr(&there, "user.k", b"v", 0).unwrap();
        let open = rw(&here);
        let number = open.metadata().unwrap().ino();
        fs::write(f.host("data/next"), "another").unwrap();
        match way {
            "host unlink" => sys::unlink(&there).unwrap(),
            "host rename over" => sys::rename(f.host("data/next"), &there).unwrap(),
            "mount unlink" => sys::unlink(&here).unwrap(),
            _ => sys::rename(f.p("data/next"), &here).unwrap(),
        }
        // Whatever comes now must not get the number of the open one.
        for i in 0..20 {
            fs::write(f.host(format!("data/more{i}")), "more").unwrap();
            assert_ne!(stat(f.p(format!("data/more{i}"))).ino(), number, "{way}");
        }
        let now = open.metadata().unwrap();
        assert_eq!((now.ino(), now.nlink(), now.len()), (number, 0, 6), "{way}");
        assert_eq!(through(&open), b"before", "{way}");
        open.write_all_at(b"AFTER the name", 0).unwrap();
        assert_eq!(through(&open), b"AFTER the name", "{way}");
        open.set_len(5).unwrap();
        assert_eq!((through(&open), open.metadata().unwrap().len()), (b"AFTER".to_vec(), 5), "{way}");
        open.set_permissions(fs::Permissions::from_mode(0o604)).unwrap();
        assert_eq!(open.metadata().unwrap().mode() & 0o7777, 0o604, "{way}");
        assert_eq!(sys::fgetxattr(&open, "user.k"), Ok(b"v".to_vec()), "{way}");
        open.sync_all().unwrap();
        sys::fallocate(&open, 0, 0, 100).unwrap();
        assert_eq!(open.metadata().unwrap().len(), 100, "{way}");
        let map = Map::shared(&open, 5);
        drop(open);
        assert_eq!(map.get(), b"AFTER", "{way}");
        drop(map);
        if way.ends_with("over") {
            assert_eq!(text(&here), "another");
        }
        for name in
            names(f.host("data")).iter().filter(|n| n.starts_with("more") || *n == "next" || *n == "o")
        {
            sys::unlink(f.host("data").join(name)).unwrap();
        }
    }
    f.check(|m| assert_eq!(names(m.join("data")), ["d", "f", "other"]));
}

#[test]
fn appends_of_both_sides_are_all_there() {
    let Some(mut f) = data() else { return };
    let append = |path| sys::open(path, libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
    let write = |mut file: File, who: &str| {
        for i in 0..500 {
            file.write_all(format!("{who}{i:05}\n").as_bytes()).unwrap();
        }
    };
    fs::write(f.host("data/f"), "").unwrap();
    std::thread::scope(|s| {
        for who in ["a", "b"] {
            let (here, there) = (append(f.p("data/f")), append(f.host("data/f")));
            s.spawn(move || write(here, &format!("{who}m")));
            s.spawn(move || write(there, &format!("{who}h")));
        }
    });
    f.check(|m| {
        let text = text(m.join("data/f"));
        assert_eq!(text.lines().count(), 2000);
        for who in ["am", "ah", "bm", "bh"] {
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(who)).collect();
            assert_eq!(lines.len(), 500, "{who}");
            assert!(lines.is_sorted(), "{who}");
        }
    });
}

#[test]
fn maps_of_both_sides_are_one() {
    let Some(mut f) = data() else { return };
    fs::write(f.host("data/f"), vec![b'.'; 8192]).unwrap();
    let (here, there) = (rw(f.p("data/f")), rw(f.host("data/f")));
    let map_here = Map::writable(&here, 8192);
    if passes_through() {
        let map_there = Map::writable(&there, 8192);
        map_there.put(10, b"there");
        assert_eq!(&map_here.get()[10..15], b"there");
        map_here.put(5000, b"here");
        assert_eq!(&map_there.get()[5000..5004], b"here");
        assert_eq!(&through(&there)[5000..5004], b"here");
        there.write_all_at(b"by write", 100).unwrap();
        assert_eq!(&map_here.get()[100..108], b"by write");
        drop(map_here);
    } else {
        // Without passthrough a map is made of the bytes as they were; what it changes arrives by msync at the latest.
        map_here.put(5000, b"here");
        map_here.sync().unwrap();
        assert_eq!(&through(&there)[5000..5004], b"here");
        drop(map_here);
        there.write_all_at(b"there", 10).unwrap();
        // Before Linux 6.6 there are pages, which an open renews.
        let again = rw(f.p("data/f"));
        let mapped = if older_kernel().is_some() { &again } else { &here };
        assert_eq!(&Map::shared(mapped, 8192).get()[10..15], b"there", "a map that is made now");
    }
    drop((here, there));
    f.check(|m| assert_eq!(&fs::read(m.join("data/f")).unwrap()[10..15], b"there"));
}

#[test]
fn readers_of_a_directory_see_it_as_it_was_and_then_as_it_is() {
    let Some(mut f) = data() else { return };
    for i in 0..300 {
        fs::write(f.host(format!("data/n{i}")), "").unwrap();
    }
    let mut list = Dir::open(f.p("data")).unwrap();
    let first: Vec<_> = (0..10).map(|_| list.next().unwrap()).collect();
    for i in 0..300 {
        fs::write(f.host(format!("data/later{i}")), "").unwrap();
        if i % 2 == 0 {
            sys::unlink(f.host(format!("data/n{i}"))).unwrap();
        }
    }
    let rest = list.rest();
    let all: Vec<_> = first.iter().chain(&rest).map(|e| e.name.clone()).collect();
    let once: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(once.len(), all.len(), "no name comes twice");
    for i in (1..300).step_by(2) {
        assert!(once.contains(&std::ffi::OsString::from(format!("n{i}"))), "n{i} was there all the time");
    }
    list.rewind();
    let again: Vec<_> = list.rest().into_iter().map(|e| e.name.to_string_lossy().into_owned()).collect();
    assert_eq!(again.len(), 2 + 3 + 150 + 300);
    assert!(again.contains(&"later299".to_owned()) && !again.contains(&"n0".to_owned()));
    drop(list);
    f.check(|m| assert_eq!(names(m.join("data")).len(), 453));
}

/// A file that the host replaces by rename, as configuration is, without pause: whoever names it gets the old one or the new one.
#[test]
fn a_file_that_is_replaced_without_pause_is_always_there() {
    let Some(mut f) = data() else { return };
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
    for kinds in [&["file"][..], &["file", "link", "fifo"]] {
        over.store(false, std::sync::atomic::Ordering::Relaxed);
        fs::write(f.host("data/conf"), "00000000").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0.. {
                    let new = f.host(format!("data/.t{}", i % 3));
                    match kinds[i % kinds.len()] {
                        "file" => fs::write(&new, format!("{i:08}")).unwrap(),
                        "link" => sys::symlink("f", &new).unwrap(),
                        _ => sys::mknod(&new, libc::S_IFIFO | 0o644, 0).unwrap(),
                    }
                    sys::rename(&new, f.host("data/conf")).unwrap();
                    if is_over() {
                        return;
                    }
                }
            });
            let path = f.p("data/conf");
            let look = |round: usize| -> Result<(), String> {
                let told = |what: &str, e: std::io::Error| format!("round {round}: {what}: {e}");
                let kind = path.symlink_metadata().map_err(|e| told("lstat", e))?.file_type();
                sys::access(&path, libc::R_OK).map_err(|e| format!("round {round}: access: {e}"))?;
                match fs::read_link(&path) {
                    Ok(to) if to == Path::new("f") => {}
                    // It is another kind by now.
                    Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                    other => return Err(format!("round {round}: readlink: {other:?}")),
                }
                if kinds.len() == 1 {
                    let text = fs::read_to_string(&path).map_err(|e| told("read", e))?;
                    (kind.is_file() && text.len() == 8)
                        .then_some(())
                        .ok_or(format!("round {round}: {text:?}"))?;
                    fs::OpenOptions::new().append(true).open(&path).map_err(|e| told("open", e))?;
                    sys::utimens(&path, (1, 1), (1, 1))
                        .map_err(|e| format!("round {round}: utimensat: {e}"))?;
                }
                Ok(())
            };
            let looked: Result<(), String> = (0..500).try_for_each(look);
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            looked.unwrap();
        });
    }
    f.check(|m| assert!(names(m.join("data")).contains(&"conf".to_owned())));
}

/// The same for directories that change places, and for a directory and a file: what is in the one or the other is reached.
#[test]
fn directories_that_change_places_without_pause_are_always_there() {
    let Some(mut f) = data() else { return };
    for (other, is_dir) in [("dir", true), ("file", false)] {
        for (name, text) in [("conf", "old"), (".dir", "new")] {
            fs::create_dir_all(f.host("data").join(name).join("deep")).unwrap();
            fs::write(f.host("data").join(name).join("deep/f"), text).unwrap();
        }
        fs::write(f.host("data/.file"), "a file").unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        let (one, two) = (f.host("data/conf"), f.host(format!("data/.{other}")));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    sys::renameat2(&one, &two, libc::RENAME_EXCHANGE).unwrap();
                }
            });
            let (path, deep) = (f.p("data/conf"), f.p("data/conf/deep/f"));
            let expected = |errno: Errno| !is_dir && errno == Errno::ENOTDIR;
            let look = |round: usize| -> Result<(), String> {
                let told = |what: &str, errno: Errno| format!("{other}, round {round}: {what}: {errno}");
                let fine = |what: &str, done: sys::Res<()>| match done {
                    Err(errno) if !expected(errno) => Err(told(what, errno)),
                    _ => Ok(()),
                };
                path.symlink_metadata().map_err(|e| told("lstat", err(Err::<(), _>(e))))?;
                fine("read", no(fs::read(&deep)).map(drop))?;
                fine("stat", no(deep.metadata()).map(drop))?;
                fine("list", no(fs::read_dir(&path)).map(drop))?;
                fine("create", no(fs::write(path.join("made"), "x")))
            };
            let looked: Result<(), String> = (0..500).try_for_each(look);
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            looked.unwrap();
        });
    }
    f.check(|m| assert!(names(m.join("data")).contains(&"conf".to_owned())));
}

/// Names of events that a watch on `dir` has heard.
fn heard(watch: &File) -> Vec<(u32, String)> {
    let mut events = vec![0u8; 1 << 16];
    let got = unsafe { libc::read(watch.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
    let (mut all, mut at) = (Vec::new(), 0);
    while got > 0 && at < got as usize {
        let word = |at: usize| u32::from_ne_bytes(events[at..at + 4].try_into().unwrap());
        let (mask, len) = (word(at + 4), word(at + 12) as usize);
        let name = events[at + 16..at + 16 + len].split(|byte| *byte == 0).next().unwrap();
        all.push((mask, String::from_utf8(name.to_vec()).unwrap()));
        at += 16 + len;
    }
    all
}

#[test]
fn a_watch_hears_what_is_done_through_the_mount_alone() {
    let Some(mut f) = data() else { return };
    let watch = unsafe { File::from_raw_fd(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC)) };
    let at = sys::c(f.p("data"));
    assert!(
        unsafe { libc::inotify_add_watch(watch.as_raw_fd(), at.as_ptr(), libc::IN_CREATE | libc::IN_DELETE) }
            > 0
    );
    fs::write(f.host("data/by-the-host"), "x").unwrap();
    assert_eq!(text(f.p("data/by-the-host")), "x", "seen, though not heard of");
    fs::write(f.p("data/by-the-mount"), "x").unwrap();
    sys::unlink(f.p("data/by-the-mount")).unwrap();
    let name = "by-the-mount".to_owned();
    assert_eq!(heard(&watch), [(libc::IN_CREATE, name.clone()), (libc::IN_DELETE, name)]);
    drop(watch);
    f.check(|m| assert_eq!(text(m.join("data/by-the-host")), "x"));
}
