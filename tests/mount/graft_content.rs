//! What is in a source shows as it is: attributes, marks of layers, names of all kinds, special files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use super::common::*;

fn data() -> Option<Fixture> {
    let mut f = Fixture::new(1)?.departs("grafts")?;
    f.lower(0).dir("data");
    f.source("data").file("f", "host").dir("d");
    f.bind("data", "/data", "");
    Some(f)
}

#[test]
fn marks_of_layers_are_ordinary_things_in_a_source() {
    let Some(mut f) = data() else { return };
    f.source("data").file(".wh.f", "w").file(".wh..wh..opq", "o").file(".wh.gone", "g").file("marked", "m");
    let trusted = mode() == Mode::Root;
    let prefix = if trusted { "trusted" } else { "user" };
    let opaque = format!("{prefix}.overlay.opaque");
    sys::setxattr(f.host("data/d"), &opaque, b"y", 0).unwrap();
    sys::setxattr(f.host("data/marked"), "user.fuseoverlayfs.origin", b"x", 0).unwrap();
    if trusted {
        f.source("data").whiteout("device");
    }
    f.mount();
    let mut all = vec![".wh..wh..opq", ".wh.f", ".wh.gone", "d", "f", "marked"];
    if trusted {
        all.insert(4, "device");
    }
    assert_eq!(names(f.p("data")), all);
    assert_eq!((text(f.p("data/.wh.f")), text(f.p("data/f"))), ("w".into(), "host".into()));
    assert_eq!(sys::getxattr(f.p("data/d"), &opaque), Ok(b"y".to_vec()));
    assert!(sys::listxattr(f.p("data/d")).unwrap().contains(&opaque.clone().into()));
    let redirect = format!("{prefix}.overlay.redirect");
    sys::setxattr(f.p("data/d"), &redirect, b"/elsewhere", 0).unwrap();
    assert_eq!(sys::getxattr(f.host("data/d"), &redirect), Ok(b"/elsewhere".to_vec()));
    sys::setxattr(f.p("data/marked"), "user.fuseoverlayfs.opaque", b"y", 0).unwrap();
    fs::write(f.p("data/.wh.new"), "new").unwrap();
    assert_eq!(text(f.host("data/.wh.new")), "new");
    if trusted {
        assert_eq!(
            (stat(f.p("data/device")).mode() & libc::S_IFMT, stat(f.p("data/device")).rdev()),
            (libc::S_IFCHR, 0)
        );
        sys::mknod(f.p("data/d/made"), libc::S_IFCHR | 0o600, 0).unwrap();
        assert_eq!(stat(f.host("data/d/made")).rdev(), 0);
        // An overlay whose upper layer is in the graft may leave its own.
        sys::renameat2(f.p("data/marked"), f.p("data/moved"), libc::RENAME_WHITEOUT).unwrap();
        assert_eq!((stat(f.host("data/marked")).rdev(), text(f.host("data/moved"))), (0, "m".into()));
    }
    f.check(|m| {
        assert_eq!(text(m.join("data/.wh.new")), "new");
        assert_eq!(sys::getxattr(m.join("data/d"), &opaque), Ok(b"y".to_vec()));
        sys::unlink(m.join("data/f")).ok();
    });
    assert!(!f.host("data/f").exists() && f.host("data/.wh.f").exists());
}

#[test]
fn acls_and_attributes_are_those_of_the_source() {
    let Some(mut f) = data().and_then(Fixture::need_root) else { return };
    let setfacl =
        |words: &[&str], at: std::path::PathBuf| run(Command::new("setfacl").args(words).arg(at)).ok();
    setfacl(&["-m", "u:1234:r,g:77:rw"], f.host("data/f"));
    setfacl(&["-d", "-m", "u:1234:rwx"], f.host("data/d"));
    sys::chmod(f.host("data/d"), 0o777).unwrap();
    f.mount();
    let getfacl = |at: std::path::PathBuf| {
        let done = run(Command::new("getfacl").args(["-cnp"]).arg(at)).ok();
        done.out
    };
    assert_eq!(getfacl(f.p("data/f")), getfacl(f.host("data/f")));
    let f_here = f.p("data/f");
    sys::chmod(&f_here, 0o600).unwrap();
    setfacl(&["-m", "u:1234:r"], f.p("data/f"));
    assert_eq!(as_user(1234, 1234, || no(fs::read(&f_here))), Ok(b"host".to_vec()));
    assert_eq!(as_user(1235, 1235, || no(fs::read(&f_here))), Err(Errno::EACCES));
    // On the host an ACL goes, and with it the right.
    setfacl(&["-b"], f.host("data/f"));
    assert_eq!(as_user(1234, 1234, || no(fs::read(&f_here))), Err(Errno::EACCES));
    fs::write(f.p("data/d/inherits"), "").unwrap();
    assert!(getfacl(f.host("data/d/inherits")).contains("user:1234:rwx"));
    sys::setxattr(f.p("data/f"), "trusted.k", b"t", 0).unwrap();
    sys::setxattr(f.p("data/f"), "security.k", b"s", 0).unwrap();
    assert_eq!(sys::getxattr(f.host("data/f"), "trusted.k"), Ok(b"t".to_vec()));
    assert_eq!(sys::getxattr_room(f.p("data/f"), "trusted.k".as_ref(), 0).map(|(n, _)| n), Ok(1));
    f.check(|m| assert!(getfacl(m.join("data/d/inherits")).contains("user:1234:rwx")));
}

#[test]
fn ids_are_mapped_both_ways() {
    let Some(mut f) = data().and_then(Fixture::need_root) else { return };
    f.source("data").file("theirs", "t").owner(100_005, 100_006).file("foreign", "f").owner(7, 7);
    f.args.clear();
    f.bind("data", "/mapped", "uidmap=0:100000:1000,gidmap=0:100000:1000");
    f.bind("data", "/squashed", "squash=33-44");
    f.mount();
    let owner = |path: std::path::PathBuf| (stat(&path).uid(), stat(&path).gid());
    assert_eq!((owner(f.p("mapped/theirs")), owner(f.p("mapped/foreign"))), ((5, 6), (65534, 65534)));
    assert_eq!((owner(f.p("squashed/theirs")), owner(f.p("squashed/d"))), ((33, 44), (33, 44)));
    sys::chmod(f.host("data/d"), 0o777).unwrap();
    fs::write(f.p("mapped/d/root"), "").unwrap();
    let user = f.p("mapped/d/user");
    as_user(12, 34, || fs::write(&user, "")).unwrap();
    assert_eq!(
        (owner(f.host("data/d/root")), owner(f.host("data/d/user"))),
        ((100_000, 100_000), (100_012, 100_034))
    );
    assert_eq!(owner(user), (12, 34));
    sys::lchown(f.p("mapped/theirs"), 1, 2).unwrap();
    assert_eq!(owner(f.host("data/theirs")), (100_001, 100_002));
    assert_eq!(sys::lchown(f.p("mapped/theirs"), 5000, 5000), Err(Errno::EINVAL));
    let nobody = f.p("mapped/d/nobody");
    assert_eq!(as_user(5000, 5000, || no(fs::write(&nobody, ""))), Err(Errno::EINVAL));
    // ACLs name people, too.
    run(Command::new("setfacl").args(["-m", "u:12:r"]).arg(f.p("mapped/theirs"))).ok();
    let acl = |at: std::path::PathBuf| run(Command::new("getfacl").args(["-cnp"]).arg(at)).ok().out;
    assert!(acl(f.host("data/theirs")).contains("user:100012:r--"), "{}", acl(f.host("data/theirs")));
    assert!(acl(f.p("mapped/theirs")).contains("user:12:r--"));
    let theirs = f.p("mapped/theirs");
    sys::chmod(&theirs, 0o640).unwrap();
    assert_eq!(as_user(12, 12, || no(fs::read(&theirs))), Ok(b"t".to_vec()));
    assert_eq!(as_user(13, 13, || no(fs::read(&theirs))), Err(Errno::EACCES));
    f.check(|m| assert_eq!(owner(m.join("mapped/d/user")), (12, 34)));
}

/// The user whose id is shown may change the mode of all files.
#[test]
fn where_all_owners_show_as_one_a_set_id_bit_is_for_ones_own_files() {
    let Some(mut f) = data().and_then(Fixture::need_root) else { return };
    f.source("data").file("roots", "t").owner(0, 0).mode(0o755);
    f.args.clear();
    f.bind("data", "/squashed", "squash=33-44");
    f.mount();
    sys::chmod(f.host("data"), 0o777).unwrap();
    let (roots, own) = (f.p("squashed/roots"), f.p("squashed/own"));
    as_user(33, 44, || {
        fs::write(&roots, "#!/bin/sh").unwrap();
        sys::chmod(&roots, 0o6755).unwrap();
        fs::write(&own, "#!/bin/sh").unwrap();
        sys::chmod(&own, 0o6755).unwrap();
    });
    let bits =
        |name: &str| (stat(f.host("data").join(name)).mode() & 0o7777, stat(f.host("data").join(name)).uid());
    assert_eq!((bits("roots"), bits("own")), ((0o755, 0), (0o6755, 33)));
    sys::chmod(&roots, 0o4755).unwrap();
    assert_eq!(bits("roots"), (0o4755, 0), "root may");
    f.check(|_| ());
}

#[test]
fn special_files_show_and_are_made() {
    let Some(mut f) = data() else { return };
    f.source("data").node("fifo", libc::S_IFIFO | 0o644, 0);
    let listener = std::os::unix::net::UnixListener::bind(f.host("data/socket")).unwrap();
    if mode() == Mode::Root {
        f.source("data").node("null", libc::S_IFCHR | 0o666, libc::makedev(1, 3));
    }
    f.mount();
    let kind = |path: std::path::PathBuf| stat(path).mode() & libc::S_IFMT;
    assert_eq!((kind(f.p("data/fifo")), kind(f.p("data/socket"))), (libc::S_IFIFO, libc::S_IFSOCK));
    sys::mknod(f.p("data/fifo2"), libc::S_IFIFO | 0o640, 0).unwrap();
    sys::mknod(f.p("data/socket2"), libc::S_IFSOCK | 0o640, 0).unwrap();
    assert_eq!((kind(f.host("data/fifo2")), kind(f.host("data/socket2"))), (libc::S_IFIFO, libc::S_IFSOCK));
    if mode() == Mode::Root {
        assert_eq!(stat(f.p("data/null")).rdev(), libc::makedev(1, 3));
        fs::write(f.p("data/null"), "nowhere").unwrap();
        sys::mknod(f.p("data/zero"), libc::S_IFCHR | 0o666, libc::makedev(1, 5)).unwrap();
        assert_eq!(stat(f.host("data/zero")).rdev(), libc::makedev(1, 5));
    }
    // Fifos and sockets meet those who come by the same filesystem: an inode of the mount is not that of the source.
    let connected = std::os::unix::net::UnixStream::connect(f.p("data/socket"));
    assert_eq!(err(connected), Errno::ECONNREFUSED);
    let inside = std::os::unix::net::UnixListener::bind(f.p("data/inside")).unwrap();
    let client = std::os::unix::net::UnixStream::connect(f.p("data/inside")).unwrap();
    drop((listener, inside, client));
    let (fifo, again) = (f.p("data/fifo"), f.p("data/fifo"));
    let writer = std::thread::spawn(move || fs::write(fifo, "through"));
    assert_eq!(text(again), "through");
    writer.join().unwrap().unwrap();
    f.check(|m| assert_eq!(kind(m.join("data/fifo2")), libc::S_IFIFO));
}

#[test]
fn names_of_all_kinds() {
    let Some(mut f) = data() else { return };
    let long = "n".repeat(255);
    let odd = OsStr::from_bytes(b"odd \xff\xfe\n\\\"name");
    f.source("data").file(&long, "long").file(odd, "odd");
    f.mount();
    assert_eq!((text(f.p("data").join(&long)), text(f.p("data").join(odd))), ("long".into(), "odd".into()));
    let other = OsStr::from_bytes(b"\x01\x80");
    fs::write(f.p("data").join(other), "o").unwrap();
    fs::write(f.p("data").join("m".repeat(255)), "m").unwrap();
    assert_eq!(err(fs::write(f.p("data").join("x".repeat(256)), "x")), Errno::ENAMETOOLONG);
    assert_eq!(missing(f.p("data").join("x".repeat(256))), Errno::ENAMETOOLONG);
    assert_eq!(text(f.host("data").join(other)), "o");
    f.check(|m| assert_eq!(dents(m.join("data")).len(), 6));
}

#[test]
fn a_huge_directory() {
    let Some(mut f) = data() else { return };
    for i in 0..20_000 {
        File::create(f.host(format!("data/d/file-{i:05}"))).unwrap();
    }
    f.mount();
    let all = dents(f.p("data/d"));
    let once: std::collections::HashSet<_> = all.iter().map(|e| &e.name).collect();
    assert_eq!((all.len(), once.len()), (20_000, 20_000));
    let ls = run(Command::new("ls").arg("-U").arg(f.p("data/d"))).ok();
    assert_eq!(ls.out.lines().count(), 20_000);
    let mut list = Dir::open(f.p("data/d")).unwrap();
    let first: Vec<_> = (0..9000).map(|_| list.next().unwrap()).collect();
    let (at, next) = (list.tell(), list.next().unwrap());
    list.rest();
    list.seek(at);
    assert_eq!(list.next(), Some(next));
    list.rewind();
    assert_eq!(list.next().as_ref(), first.first());
    drop(list);
    f.check(|m| assert_eq!(dents(m.join("data/d")).len(), 20_000));
}

#[test]
fn a_large_file_and_the_calls_that_move_its_bytes() {
    let Some(mut f) = data() else { return };
    f.mount();
    let here = sys::open(f.p("data/big"), libc::O_RDWR | libc::O_CREAT, 0o644).unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i / 7) as u8).collect();
    for at in [0, 3 << 20, 5 << 30] {
        here.write_all_at(&block, at).unwrap();
    }
    assert_eq!(stat(f.host("data/big")).len(), (5 << 30) + (1 << 20));
    assert_eq!(sys::lseek(&here, 0, libc::SEEK_HOLE), Ok(1 << 20));
    assert_eq!(sys::lseek(&here, 5 << 20, libc::SEEK_DATA), Ok(5 << 30));
    let copy = sys::open(f.p("copy"), libc::O_RDWR | libc::O_CREAT, 0o644).unwrap();
    let mut copied = 0;
    while copied < 1 << 20 {
        match sys::copy_file_range(&here, (5 << 30) + copied, &copy, copied, (1 << 20) - copied as usize) {
            Ok(n) => copied += n as i64,
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(through(&copy), block);
    sys::fallocate(&here, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4 << 20).unwrap();
    let mut buf = [1; 16];
    rw(f.host("data/big")).read_exact_at(&mut buf, 3 << 20).unwrap();
    assert_eq!(buf, [0; 16]);
    drop((here, copy));
    f.check(|m| assert_eq!(stat(m.join("data/big")).len(), (5 << 30) + (1 << 20)));
}
