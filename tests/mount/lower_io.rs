//! `lower_io=passthrough`: the kernel reads lower files itself. Who had one open before it was written keeps its bytes;
//! everybody else, and every question but that for bytes, their number and their time, gets the new file.
//! Source: overlayfs.rst, "Non-standard behavior": "if a file residing on a lower layer is opened for read-only and then
//! memory mapped with MAP_SHARED, then subsequent changes to the file are not reflected in the memory mapping".

use crate::common::*;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// A lower file `d/f` that says `old`, and one `d/g` with two names.
fn fixture(options: &str) -> Option<Fixture> {
    if kernel_oracle() {
        return None;
    }
    let mut f = Fixture::new(1)?.need_passthrough()?;
    f.lower(0).file("d/f", "old").file("d/g", "linked");
    fs::hard_link(f.low(0, "d/g"), f.low(0, "d/h")).unwrap();
    f.options.push(options.to_owned());
    f.mount();
    Some(f)
}

fn passing() -> Option<Fixture> {
    fixture("lower_io=passthrough")
}

/// The lower is as it was, the mount shows `new`, now and after the next mount.
#[track_caller]
fn settled(f: &mut Fixture, new: &str) {
    assert_eq!(text(f.low(0, "d/f")), "old", "lower");
    assert_eq!(text(f.up("d/f")), new, "upper");
    f.check(|m| assert_eq!(text(m.join("d/f")), new));
}

#[test]
fn who_has_a_lower_file_open_keeps_its_bytes() {
    let Some(mut f) = passing() else { return };
    let (ino, reader) = (stat(f.p("d/f")).ino(), ro(f.p("d/f")));
    let map = Map::shared(&reader, 3);
    fs::write(f.p("d/f"), "newer").unwrap();
    assert_eq!((through(&reader), map.get()), (b"old".to_vec(), b"old".to_vec()));
    assert_eq!(text(f.p("d/f")), "newer");
    // How many bytes, and from when, is said of the file that is read; who may, of the one that has the name.
    assert_eq!((stat(f.p("d/f")).ino(), reader.metadata().unwrap().ino()), (ino, ino));
    let of_bytes = |facts: fs::Metadata| (facts.len(), facts.blocks(), facts.mtime(), facts.mtime_nsec());
    let below = of_bytes(stat(f.low(0, "d/f")));
    assert_eq!(of_bytes(reader.metadata().unwrap()), below);
    OpenOptions::new().append(true).open(f.p("d/f")).unwrap().write_all(b" still").unwrap();
    assert_eq!(of_bytes(reader.metadata().unwrap()), below);
    assert_eq!(stat(f.p("d/f")).len(), 11);
    sys::chmod(f.p("d/f"), 0o604).unwrap();
    assert_eq!(
        (reader.metadata().unwrap().mode() & 0o777, of_bytes(reader.metadata().unwrap())),
        (0o604, below)
    );
    assert_eq!(
        (sys::lseek(&reader, 0, libc::SEEK_END), sys::lseek(&reader, 0, libc::SEEK_DATA)),
        (Ok(3), Ok(0))
    );
    assert_eq!((through(&reader).len(), map.get()), (3, b"old".to_vec()));
    assert_eq!(sys::lseek(&reader, 0, libc::SEEK_HOLE), Ok(3), "of the lower file");
    reader.sync_all().unwrap();
    drop((reader, map));
    assert_eq!(through(&ro(f.p("d/f"))), b"newer still");
    settled(&mut f, "newer still");
}

#[test]
fn every_way_to_write_leads_to_the_new_file() {
    type Way = fn(&Path);
    let ways: [(&str, Way, &str); 6] = [
        ("truncate", |path| sys::truncate(path, 1).unwrap(), "o"),
        ("truncate to nothing", |path| sys::truncate(path, 0).unwrap(), ""),
        ("truncating open", |path| drop(File::create(path).unwrap()), ""),
        (
            "read only, truncating",
            |path| drop(sys::open(path, libc::O_RDONLY | libc::O_TRUNC, 0).unwrap()),
            "",
        ),
        (
            "append",
            |path| OpenOptions::new().append(true).open(path).unwrap().write_all(b"er").unwrap(),
            "older",
        ),
        ("map", |path| Map::writable(&rw(path), 3).put(0, b"n"), "nld"),
    ];
    for (way, write, new) in ways {
        let Some(mut f) = passing() else { return };
        let reader = ro(f.p("d/f"));
        assert_eq!(through(&reader), b"old", "{way}");
        write(&f.p("d/f"));
        assert_eq!((text(f.p("d/f")).as_str(), through(&reader)), (new, b"old".to_vec()), "{way}");
        let second = ro(f.p("d/f"));
        assert_eq!(through(&second), new.as_bytes(), "{way}");
        drop((reader, second));
        settled(&mut f, new);
    }
}

#[test]
fn opened_when_nobody_reads_it_is_written_as_ever() {
    let Some(mut f) = passing() else { return };
    assert_eq!(text(f.p("d/f")), "old");
    let writer = rw(f.p("d/f"));
    let reader = ro(f.p("d/f"));
    writer.write_all_at(b"new", 0).unwrap();
    assert_eq!(through(&reader), b"new");
    drop((reader, writer));
    settled(&mut f, "new");
}

/// A change of anything but the data copies the file up and leaves who reads it where he is: the bytes are the same.
#[test]
fn metadata_before_data_while_it_is_read() {
    for options in ["lower_io=passthrough", "lower_io=passthrough,metacopy=on"] {
        let Some(mut f) = fixture(options) else { return };
        let reader = ro(f.p("d/f"));
        sys::chmod(f.p("d/f"), 0o640).unwrap();
        sys::link(f.p("d/f"), f.p("link")).unwrap();
        sys::rename(f.p("d/f"), f.p("d/moved")).unwrap();
        let second = ro(f.p("link"));
        assert_eq!((through(&reader), through(&second)), (b"old".to_vec(), b"old".to_vec()), "{options}");
        rw(f.p("d/moved")).write_all_at(b"new", 0).unwrap();
        assert_eq!((text(f.p("d/moved")), text(f.p("link"))), ("new".into(), "new".into()), "{options}");
        assert_eq!((through(&reader), through(&second)), (b"old".to_vec(), b"old".to_vec()), "{options}");
        rw(f.p("link")).write_all_at(b"NEW", 0).unwrap();
        assert_eq!(text(f.p("d/moved")), "NEW", "{options}");
        assert_eq!((stat(f.p("link")).nlink(), stat(f.p("d/moved")).ino()), (2, stat(f.p("link")).ino()));
        sys::unlink(f.p("link")).unwrap();
        assert_eq!(reader.metadata().unwrap().nlink(), 1, "{options}");
        drop((reader, second));
        assert_eq!(text(f.low(0, "d/f")), "old");
        f.check(|m| {
            assert_eq!(
                (text(m.join("d/moved")), stat(m.join("d/moved")).mode() & 0o7777),
                ("NEW".into(), 0o640)
            );
            assert_eq!(
                (names(m), names(m.join("d"))),
                (vec!["d".to_owned()], ["g", "h", "moved"].map(String::from).to_vec())
            );
        });
    }
}

/// What is changed through the old descriptor is changed about the file that has the name.
#[test]
fn an_old_descriptor_changes_the_new_file() {
    let Some(mut f) = passing() else { return };
    let reader = ro(f.p("d/f"));
    fs::write(f.p("d/f"), "new").unwrap();
    reader.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(stat(f.p("d/f")).mode() & 0o7777, 0o600);
    sys::setxattr(f.p("d/f"), "user.color", b"red", 0).unwrap();
    assert_eq!(sys::fgetxattr(&reader, "user.color"), Ok(b"red".to_vec()));
    reader.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(mtime(f.p("d/f")), (0, 0));
    assert_eq!(through(&reader), b"old");
    assert_eq!(sys::getxattr(f.low(0, "d/f"), "user.color"), Err(Errno::ENODATA));
    drop(reader);
    settled(&mut f, "new");
}

#[test]
fn the_new_file_is_removed_and_made_again() {
    let Some(mut f) = passing() else { return };
    let reader = ro(f.p("d/f"));
    fs::write(f.p("d/f"), "new").unwrap();
    let second = ro(f.p("d/f"));
    sys::unlink(f.p("d/f")).unwrap();
    assert_eq!((through(&reader), through(&second)), (b"old".to_vec(), b"new".to_vec()));
    assert_eq!(reader.metadata().unwrap().nlink(), 0);
    assert_eq!(missing(f.p("d/f")), Errno::ENOENT);
    fs::write(f.p("d/f"), "third").unwrap();
    assert_eq!((through(&reader), text(f.p("d/f"))), (b"old".to_vec(), "third".into()));
    drop((reader, second));
    settled(&mut f, "third");
}

/// One of its names may not be known yet, so it is not passed through.
#[test]
fn a_lower_file_with_two_names_is_read_through_the_daemon() {
    let Some(mut f) = passing() else { return };
    let reader = ro(f.p("d/g"));
    rw(f.p("d/h")).write_all_at(b"LINK", 0).unwrap();
    assert_eq!((through(&reader), text(f.p("d/g"))), (b"LINKed".to_vec(), "LINKed".into()));
    drop(reader);
    f.check(|m| assert_eq!(text(m.join("d/g")), "LINKed"));
}

/// Readers and writers of the same files at once: no caller hears of the change of inodes, and who opens after a write was
/// acknowledged sees it.
#[test]
fn readers_and_writers_do_not_hear_of_each_other() {
    const FILES: usize = 60;
    if kernel_oracle() {
        return;
    }
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    for i in 0..FILES {
        f.lower(0).file(format!("d/{i}"), "0");
    }
    f.options.push("lower_io=passthrough".to_owned());
    f.mount();
    for i in 0..FILES {
        let path = f.p(format!("d/{i}"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut least = 0;
                    while !done.load(Ordering::Acquire) {
                        let seen: u32 = text(&path).parse().unwrap();
                        assert!(seen >= least, "{seen} after {least}");
                        least = seen;
                    }
                });
            }
            for value in ["1", "2", "3"] {
                rw(&path).write_all_at(value.as_bytes(), 0).unwrap();
                assert_eq!(text(&path), value);
            }
            done.store(true, Ordering::Release);
        });
    }
    for i in 0..FILES {
        assert_eq!(text(f.low(0, format!("d/{i}"))), "0");
    }
    f.check(|m| (0..FILES).for_each(|i| assert_eq!(text(m.join(format!("d/{i}"))), "3")));
}

/// A lower layer that is itself stacked takes no passthrough; the upper layer goes on with it.
#[test]
fn a_refused_lower_file_is_read_through_the_daemon() {
    let Some(mut f) = passing() else { return };
    f.unmount();
    let (low, top, work) = (f.low(0, "."), f.dir().join("top"), f.dir().join("top-work"));
    for dir in [&top, &work] {
        fs::create_dir(dir).unwrap();
    }
    let stacked = format!("lowerdir={},upperdir={},workdir={}", low.display(), top.display(), work.display());
    run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &stacked]).arg(&low)).ok();
    let _stacked = Umount(low);
    f.mount();
    let reader = ro(f.p("d/f"));
    fs::write(f.p("d/f"), "new").unwrap();
    assert_eq!(through(&reader), b"new");
    drop(reader);
    assert_eq!(text(f.p("d/f")), "new");
    f.unmount();
}

#[test]
fn an_old_descriptor_leads_to_the_new_file_by_name_only() {
    let Some(mut f) = passing() else { return };
    let reader = ro(f.p("d/f"));
    fs::write(f.p("d/f"), "new").unwrap();
    use std::os::fd::AsRawFd;
    let own = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    assert_eq!(fs::read_link(&own).unwrap(), f.p("d/f (deleted)"));
    assert_eq!(sys::open(&own, libc::O_RDONLY, 0).err(), Some(Errno::ESTALE));
    // The listing, and what it tells the kernel of names, is of the new one, which keeps its number.
    let listed = dents(f.p("d")).into_iter().find(|entry| entry.name == "f").unwrap();
    assert_eq!(listed.ino, stat(f.p("d/f")).ino());
    assert_eq!((text(f.p("d/f")), reader.metadata().unwrap().ino()), ("new".into(), listed.ino));
    drop(reader);
    settled(&mut f, "new");
}

/// A link that is made by a descriptor of the lower file leads to the file that has the name by now. Once it led to the old inode, for
/// which the kernel kept the link count of that moment.
#[test]
fn regression_a_link_of_an_open_lower_file_counts_as_the_other_names() {
    let Some(mut f) = passing() else { return };
    let reader = ro(f.p("d/f"));
    fs::write(f.p("d/f"), "newer").unwrap();
    let open = sys::c(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let (at, flags) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    let second = sys::c(f.p("d/second"));
    assert_eq!(
        unsafe { libc::linkat(at, open.as_ptr(), at, second.as_ptr(), flags) },
        0,
        "{}",
        Errno::last()
    );
    assert_eq!(stat(f.p("d/second")).nlink(), 2);
    sys::link(f.p("d/f"), f.p("d/third")).unwrap();
    let counts = ["d/f", "d/second", "d/third"].map(|name| stat(f.p(name)).nlink());
    assert_eq!(counts, [3; 3]);
    fs::write(f.p("d/second"), "by another name").unwrap();
    assert_eq!((text(f.p("d/third")), through(&reader)), ("by another name".into(), b"old".to_vec()));
    drop(reader);
    settled(&mut f, "by another name");
}
