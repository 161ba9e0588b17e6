//! Objects that are in use after their last name is gone.

use crate::common::*;
use std::os::fd::AsRawFd;

#[test]
fn unlinked_files_live_until_closed() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "low data");
    f.upper().file("up", "up data");
    f.mount();
    for name in ["low", "up"] {
        let h = rw(f.p(name));
        let before = h.metadata().unwrap();
        sys::unlink(f.p(name)).unwrap();
        assert_eq!(missing(f.p(name)), Errno::ENOENT);
        assert_eq!(through(&h), format!("{name} data").as_bytes());
        h.write_all_at(b"more", 20).unwrap();
        let s = h.metadata().unwrap();
        assert_eq!((s.ino(), s.nlink(), s.len()), (before.ino(), 0, 24), "{name}");
        h.set_len(3).unwrap();
        assert_eq!(through(&h), &name.as_bytes().iter().chain(b" d").copied().collect::<Vec<_>>()[..3]);
        h.set_permissions(fs::Permissions::from_mode(0o611)).unwrap();
        assert_eq!(h.metadata().unwrap().mode() & 0o777, 0o611);
        // The name is free for another file, which is not this one.
        fs::write(f.p(name), "another").unwrap();
        assert_ne!(stat(f.p(name)).ino(), s.ino());
        assert_eq!(through(&h).len(), 3);
    }
    f.check(|m| {
        assert_eq!(text(m.join("low")), "another");
        assert_eq!(text(m.join("up")), "another");
    });
}

#[test]
fn an_unlinked_lower_file_open_for_reading_only() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "low data").xattr("user.a", "1");
    f.mount();
    let h = ro(f.p("f"));
    sys::unlink(f.p("f")).unwrap();
    assert_eq!(through(&h), b"low data");
    assert_eq!(h.metadata().unwrap().len(), 8);
    if !kernel_oracle() {
        // Departs: the kernel goes on showing the lower's own count.
        assert_eq!(h.metadata().unwrap().nlink(), 0);
    }
    drop(h);
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

#[test]
fn renaming_over_an_open_file() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "low").file("new1", "new1");
    f.upper().file("up", "up").file("new2", "new2");
    f.mount();
    let (low, up) = (ro(f.p("low")), rw(f.p("up")));
    sys::rename(f.p("new1"), f.p("up")).unwrap();
    sys::rename(f.p("new2"), f.p("low")).unwrap();
    assert_eq!([through(&low), through(&up)], [b"low".to_vec(), b"up".to_vec()]);
    up.write_all_at(b"on", 2).unwrap();
    assert_eq!(through(&up), b"upon");
    assert_eq!(up.metadata().unwrap().nlink(), 0);
    assert_eq!([text(f.p("up")), text(f.p("low"))], ["new1", "new2"]);
    drop((low, up));
    f.check(|m| assert_eq!([text(m.join("up")), text(m.join("low"))], ["new1", "new2"]));
}

#[test]
fn one_of_two_names_goes_while_open() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.upper().file("a", "x").hardlink("b", "a");
    f.lower(0).dir("d");
    f.mount();
    let h = rw(f.p("a"));
    sys::unlink(f.p("a")).unwrap();
    h.write_all_at(b"y", 0).unwrap();
    assert_eq!(text(f.p("b")), "y");
    assert_eq!(h.metadata().unwrap().nlink(), 1);
    sys::rename(f.p("b"), f.p("d/c")).unwrap();
    h.write_all_at(b"z", 1).unwrap();
    drop(h);
    f.check(|m| assert_eq!(text(m.join("d/c")), "yz"));
}

#[test]
fn a_removed_working_directory() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("low/sub");
    f.mount();
    sys::mkdir(f.p("up"), 0o755).unwrap();
    for name in ["low/sub", "up"] {
        let path = f.p(name);
        sys::private_fs(|| {
            nix::unistd::chdir(&path).unwrap();
            sys::rmdir(&path).unwrap();
            assert!(fs::metadata(".").unwrap().is_dir());
            assert_eq!(err(fs::write("new", "x")), Errno::ENOENT);
            assert_eq!(sys::mkdir("sub", 0o755), Err(Errno::ENOENT));
            assert_eq!(err(fs::read("old")), Errno::ENOENT);
            assert_eq!(nix::unistd::getcwd(), Err(Errno::ENOENT));
        });
    }
    f.check(|m| assert_eq!(names(m), ["low"]));
}

#[test]
fn a_renamed_working_directory() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a/b/f", "x");
    f.mount();
    let (a, c) = (f.p("a"), f.p("c"));
    sys::private_fs(|| {
        nix::unistd::chdir(&a.join("b")).unwrap();
        sys::rename(&a, &c).unwrap();
        assert_eq!(text("f"), "x");
        fs::write("g", "new").unwrap();
        assert_eq!(nix::unistd::getcwd().unwrap(), c.join("b"));
        assert_eq!(names(".."), ["b"]);
    });
    f.check(|m| assert_eq!(names(m.join("c/b")), ["f", "g"]));
}

#[test]
fn handles_of_removed_directories() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("d").mode(0o755);
    f.mount();
    let h = ro(f.p("d"));
    sys::rmdir(f.p("d")).unwrap();
    sys::mkdir(f.p("d"), 0o700).unwrap();
    fs::write(f.p("d/new"), "").unwrap();
    assert_eq!(h.metadata().unwrap().mode() & 0o777, 0o755);
    assert_ne!(h.metadata().unwrap().ino(), stat(f.p("d")).ino());
    let name = sys::c("new");
    assert_eq!(unsafe { libc::faccessat(h.as_raw_fd(), name.as_ptr(), 0, 0) }, -1);
    assert_eq!(Errno::last(), Errno::ENOENT);
}

#[test]
fn a_removed_directory_can_be_changed_by_its_handle() {
    let Some(f) = Fixture::new(1) else { return };
    let Some(mut f) = f.departs("it answers ENOTDIR") else { return };
    f.lower(0).dir("low/d").mode(0o755).dir("low/d2");
    f.upper().dir("up");
    f.mount();
    for name in ["low/d", "up"] {
        let h = ro(f.p(name));
        sys::rmdir(f.p(name)).unwrap();
        h.set_permissions(fs::Permissions::from_mode(0o711)).unwrap();
        h.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
        let s = h.metadata().unwrap();
        assert_eq!((s.mode() & 0o777, s.nlink(), s.mtime()), (0o711, 0, 5), "{name}");
        h.sync_all().unwrap();
        assert_eq!(missing(f.p(name)), Errno::ENOENT);
    }
    f.check(|m| assert_eq!((names(m), names(m.join("low"))), (vec!["low".into()], vec!["d2".into()])));
}

/// Numbers of files that are gone may come again on disk; the mount must not take two files for one.
#[test]
fn numbers_used_again_are_other_files() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("d");
    f.mount();
    for i in 0..300 {
        let data = format!("number {i}");
        fs::write(f.p("d/f"), &data).unwrap();
        let h = ro(f.p("d/f"));
        sys::unlink(f.p("d/f")).unwrap();
        fs::write(f.p("d/g"), "other").unwrap();
        assert_ne!(stat(f.p("d/g")).ino(), h.metadata().unwrap().ino());
        assert_eq!(through(&h), data.as_bytes());
        drop(h);
        sys::unlink(f.p("d/g")).unwrap();
        sys::mkdir(f.p("d/f"), 0o755).unwrap();
        assert_eq!(names(f.p("d/f")), [""; 0]);
        sys::rmdir(f.p("d/f")).unwrap();
    }
    f.check(|m| assert_eq!(names(m.join("d")), [""; 0]));
}

#[test]
fn many_orphans_at_once() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..200 {
        f.lower(0).file(format!("d/{i}"), format!("low {i}"));
    }
    f.mount();
    let held: Vec<File> = (0..200).map(|i| ro(f.p(format!("d/{i}")))).collect();
    fs::remove_dir_all(f.p("d")).unwrap();
    for (i, h) in held.iter().enumerate() {
        assert_eq!(through(h), format!("low {i}").as_bytes());
    }
    drop(held);
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

/// As name_to_handle_at(2) and open_by_handle_at(2) have it.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

fn handle_of(path: &std::path::Path) -> Result<Handle, Errno> {
    let (mut handle, mut mount) = (Handle { bytes: 128, kind: 0, handle: [0; 128] }, 0i32);
    let path = sys::c(path);
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    if done == 0 { Ok(handle) } else { Err(Errno::last()) }
}

fn open_handle(mount: &File, handle: &Handle) -> Result<File, Errno> {
    use std::os::fd::{AsRawFd, FromRawFd};
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            std::ptr::from_ref(handle),
            libc::O_RDONLY,
        )
    };
    if fd < 0 { Err(Errno::last()) } else { Ok(unsafe { File::from_raw_fd(fd as i32) }) }
}

#[test]
fn a_handle_of_a_removed_file_opens_no_other() {
    let Some(mut f) =
        Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("it gives no handles"))
    else {
        return;
    };
    f.lower(0).dir("d");
    f.mount();
    let mount = ro(f.p(""));
    let mut reused = 0;
    for round in 0..20 {
        let (old, new) = (f.p(format!("d/old{round}")), f.p(format!("d/new{round}")));
        fs::write(&old, "old").unwrap();
        let handle = handle_of(&old).unwrap();
        assert_eq!(through(&open_handle(&mount, &handle).unwrap()), b"old", "while it is there");
        let ino = stat(&old).ino();
        sys::unlink(&old).unwrap();
        fs::write(&new, "new").unwrap();
        reused += usize::from(stat(&new).ino() == ino);
        match open_handle(&mount, &handle) {
            Err(errno) => assert_eq!(errno, Errno::ESTALE),
            Ok(file) => panic!("round {round}: it opens {:?}", String::from_utf8_lossy(&through(&file))),
        }
    }
    println!("{reused} of 20 got the number of the one before");
    drop(mount);
    f.check(|m| assert_eq!(names(m.join("d")).len(), 20));
}
