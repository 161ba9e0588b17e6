//! New objects: files, directories, nodes; their mode, owner and inherited ACL.

use crate::common::*;

#[test]
fn files_and_directories_are_made_in_the_upper() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("low/deep").mode(0o755);
    f.mount();
    fs::write(f.p("f"), "new").unwrap();
    fs::write(f.p("low/deep/f"), "new").unwrap();
    sys::mkdir(f.p("low/d"), 0o750).unwrap();
    assert_eq!(text(f.up("low/deep/f")), "new");
    f.check(|m| {
        assert_eq!(text(m.join("f")), "new");
        assert_eq!(text(m.join("low/deep/f")), "new");
        assert_eq!(stat(m.join("low/d")).mode(), libc::S_IFDIR | 0o750);
        let s = stat(m.join("f"));
        assert_eq!((s.uid(), s.gid()), (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()));
    });
}

#[test]
fn nodes_of_every_kind() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("gone", "x");
    f.mount();
    let all = [
        ("fifo", libc::S_IFIFO | 0o640, 0),
        ("sock", libc::S_IFSOCK | 0o600, 0),
        ("chr", libc::S_IFCHR | 0o666, libc::makedev(1, 5)),
        ("blk", libc::S_IFBLK | 0o660, libc::makedev(259, 1_000_000)),
        ("reg", libc::S_IFREG | 0o604, 0),
    ];
    sys::with_umask(0, || {
        for (name, mode, dev) in all {
            assert_eq!(sys::mknod(f.p(name), mode, dev), Ok(()), "{name}");
        }
    });
    sys::unlink(f.p("gone")).unwrap();
    sys::mknod(f.p("gone"), libc::S_IFCHR | 0o600, libc::makedev(1, 3)).unwrap();
    f.check(|m| {
        for (name, mode, dev) in all {
            let s = stat(m.join(name));
            assert_eq!((s.mode(), s.rdev()), (mode, dev), "{name}");
        }
        assert_eq!(stat(m.join("gone")).rdev(), libc::makedev(1, 3));
        let mut zero = [1; 8];
        ro(m.join("chr")).read_exact_at(&mut zero, 0).unwrap();
        assert_eq!(zero, [0; 8]);
    });
}

/// Departs: the kernel refuses it with EPERM, since a device 0:0 in a layer is a whiteout. Here it is kept under another
/// number with a mark, so that an overlay on top of the mount can keep its whiteouts in it.
#[test]
fn a_callers_device_0_0_is_no_whiteout() {
    let Some(f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let Some(mut f) = f.departs("a device 0:0 is refused there") else { return };
    f.lower(0).file("a", "x").file("hidden", "x");
    f.mount();
    sys::unlink(f.p("hidden")).unwrap();
    sys::mknod(f.p("w"), libc::S_IFCHR | 0o600, 0).unwrap();
    sys::mknod(f.p("hidden"), libc::S_IFCHR | 0o640, 0).unwrap();
    sys::link(f.p("w"), f.p("w2")).unwrap();
    sys::rename(f.p("w"), f.p("w1")).unwrap();
    assert_eq!(sys::mknod(f.p("a"), libc::S_IFCHR | 0o600, 0), Err(Errno::EEXIST));
    f.check(|m| {
        assert_eq!(names(m), ["a", "hidden", "w1", "w2"]);
        for (name, mode) in [("w1", 0o600), ("w2", 0o600), ("hidden", 0o640)] {
            let s = stat(m.join(name));
            assert_eq!((s.mode(), s.rdev()), (libc::S_IFCHR | mode, 0), "{name}");
        }
    });
}

#[test]
fn socket_and_fifo_carry_data() {
    use std::io::{Read, Write};
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).node("low", libc::S_IFIFO | 0o600, 0);
    f.mount();
    let server = std::os::unix::net::UnixListener::bind(f.p("sock")).unwrap();
    let mut out = std::os::unix::net::UnixStream::connect(f.p("sock")).unwrap();
    out.write_all(b"hello").unwrap();
    drop(out);
    let mut text = String::new();
    server.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let mut both = rw(f.p("low"));
    both.write_all(b"abc").unwrap();
    let mut buf = [0; 3];
    both.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"abc");
}

#[test]
fn the_umask_is_the_callers() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.mount();
    for mask in [0, 0o022, 0o077, 0o777] {
        let p = |n: &str| f.p(format!("{n}{mask:o}"));
        sys::with_umask(mask, || {
            drop(sys::open(p("f"), libc::O_CREAT | libc::O_WRONLY, 0o666).unwrap());
            sys::mkdir(p("d"), 0o777).unwrap();
            sys::mknod(p("p"), libc::S_IFIFO | 0o666, 0).unwrap();
        });
    }
    f.check(|m| {
        for mask in [0, 0o022, 0o077, 0o777] {
            let bits = |n: &str| stat(m.join(format!("{n}{mask:o}"))).mode() & 0o7777;
            assert_eq!((bits("f"), bits("d"), bits("p")), (0o666 & !mask, 0o777 & !mask, 0o666 & !mask));
        }
    });
}

/// Who is in the group of a set-group-id directory by a supplementary group may make what runs as that group, as on ext4.
#[test]
fn a_supplementary_group_keeps_the_set_group_id_bit() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let plain = tempfile::tempdir_in(f.dir()).unwrap();
    let dirs = ["low", "up", "hidden", "data"];
    for dir in dirs {
        let setgid = |layer: Layer| drop(layer.owner(0, 50).mode(0o2777));
        match dir {
            "up" => setgid(f.upper().dir(dir)),
            "data" => setgid(f.source("data").dir(".")),
            _ => setgid(f.lower(0).file(format!("{dir}/f"), "x").file(format!("{dir}/n"), "x").dir(dir)),
        }
    }
    sys::lchown(plain.path(), 0, 50).unwrap();
    sys::chmod(plain.path(), 0o2777).unwrap();
    if !kernel_oracle() {
        f.bind("data", "/data", "");
    }
    f.mount();
    for name in ["f", "n"] {
        sys::unlink(f.p("hidden").join(name)).unwrap();
    }
    let make = |dir: &std::path::Path| {
        let mut modes = Vec::new();
        for (who, gid, groups) in [("member", 2, &[50][..]), ("first", 50, &[]), ("stranger", 2, &[])] {
            type Make = fn(&std::path::Path) -> sys::Res<()>;
            let made: [(&str, Make); 3] = [
                ("f", |path| {
                    sys::open(path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o2775).map(drop)
                }),
                ("n", |path| sys::mknod(path, libc::S_IFREG | 0o2775, 0)),
                ("g", |path| {
                    sys::open(path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o2765).map(drop)
                }),
            ];
            for (name, make) in made {
                let path = dir.join(name);
                let _ = sys::unlink(&path);
                sys::as_member(1, gid, groups, || sys::with_umask(0, || make(&path))).unwrap();
                modes.push((who, name, stat(&path).mode() & 0o7777, stat(&path).gid()));
            }
        }
        modes
    };
    let expected = make(plain.path());
    for dir in dirs.iter().filter(|dir| !kernel_oracle() || **dir != "data") {
        assert_eq!(make(&f.p(dir)), expected, "{dir}");
    }
    f.check(|_| ());
}

#[test]
fn owner_is_the_caller() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("d").mode(0o777);
    f.mount();
    let d = f.p("d");
    as_user(1001, 1002, || {
        fs::write(d.join("f"), "x").unwrap();
        sys::mkdir(d.join("sub"), 0o755).unwrap();
        sys::symlink("f", d.join("s")).unwrap();
        sys::mknod(d.join("p"), libc::S_IFIFO | 0o644, 0).unwrap();
        assert_eq!(err(fs::write(d.join("../no"), "x")), Errno::EACCES);
    });
    f.check(|m| {
        for name in ["f", "sub", "s", "p"] {
            let s = stat(m.join("d").join(name));
            assert_eq!((s.uid(), s.gid()), (1001, 1002), "{name}");
        }
        assert_eq!(stat(m.join("d")).uid(), 0);
    });
}

/// Source: inode(7), "The set-group-ID bit".
#[test]
fn setgid_directories_hand_down_their_group() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("d").owner(0, 777).mode(0o2777);
    f.mount();
    let d = f.p("d");
    as_user(1001, 1002, || {
        fs::write(d.join("f"), "x").unwrap();
        sys::mkdir(d.join("sub"), 0o755).unwrap();
        fs::write(d.join("sub/g"), "x").unwrap();
        sys::symlink("f", d.join("s")).unwrap();
        // A file with the bit and group execution, made by somebody outside that group, loses the bit.
        drop(sys::open(d.join("x"), libc::O_CREAT | libc::O_WRONLY, 0o2775).unwrap());
    });
    f.check(|m| {
        for (name, bits) in [("d/f", 0), ("d/sub", 0o2000), ("d/sub/g", 0), ("d/s", 0), ("d/x", 0)] {
            let s = stat(m.join(name));
            assert_eq!((s.gid(), s.mode() & 0o6000), (777, bits), "{name}");
        }
    });
}

/// u::rwx u:1001:rwx g::r-x m::rwx o::--- as `system.posix_acl_default` has it.
fn acl(user: u16, named: Option<(u32, u16)>, group: u16, mask: Option<u16>, other: u16) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    let mut add = |tag: u16, perm: u16, id: u32| {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    };
    add(1, user, u32::MAX);
    if let Some((id, perm)) = named {
        add(2, perm, id);
    }
    add(4, group, u32::MAX);
    if let Some(perm) = mask {
        add(16, perm, u32::MAX);
    }
    add(32, other, u32::MAX);
    out
}

/// Source: acl(5), "OBJECT CREATION AND DEFAULT ACLs".
#[test]
fn default_acls_are_inherited() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let default = acl(7, Some((1001, 7)), 5, Some(7), 0);
    f.lower(0).dir("d").mode(0o755).xattr("system.posix_acl_default", &default);
    f.mount();
    sys::with_umask(0o077, || {
        fs::write(f.p("d/f"), "x").unwrap();
        sys::mkdir(f.p("d/sub"), 0o777).unwrap();
    });
    f.check(|m| {
        // The umask does not count where a default ACL is; the mask is cut to the mode asked for.
        let access = acl(6, Some((1001, 7)), 5, Some(6), 0);
        assert_eq!(sys::getxattr(m.join("d/f"), "system.posix_acl_access"), Ok(access));
        assert_eq!(stat(m.join("d/f")).mode() & 0o7777, 0o660);
        assert_eq!(sys::getxattr(m.join("d/sub"), "system.posix_acl_default"), Ok(default.clone()));
        assert_eq!(stat(m.join("d/sub")).mode() & 0o7777, 0o770);
    });
    let (file, sub) = (f.p("d/f"), f.p("d/sub"));
    as_user(1001, 1001, || {
        fs::write(&file, "allowed by the entry for 1001").unwrap();
        fs::write(sub.join("own"), "x").unwrap();
    });
    as_user(1003, 1003, || assert_eq!(err(fs::read(&file)), Errno::EACCES));
}

/// What is remembered of a directory when something is made in it does not outlive a change of it.
#[test]
fn what_a_directory_hands_down_may_change() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let default = acl(7, Some((1001, 7)), 5, Some(7), 0);
    f.lower(0).dir("d").mode(0o755);
    f.mount();
    let make = |name: &str| sys::mkdir(f.p("d").join(name), 0o775).unwrap();
    sys::with_umask(0o027, || {
        make("plain");
        sys::lchown(f.p("d"), 0, 777).unwrap();
        sys::chmod(f.p("d"), 0o2755).unwrap();
        make("setgid");
        sys::chmod(f.p("d"), 0o755).unwrap();
        assert_eq!(stat(f.p("d")).mode() & 0o7777, 0o755);
        make("plain again");
        sys::setxattr(f.p("d"), "system.posix_acl_default", &default, 0).unwrap();
        make("acl");
        sys::removexattr(f.p("d"), "system.posix_acl_default").unwrap();
        make("plain at last");
    });
    f.check(|m| {
        let all = [
            ("plain", 0, 0o750),
            ("setgid", 777, 0o2750),
            ("plain again", 0, 0o750),
            ("acl", 0, 0o770),
            ("plain at last", 0, 0o750),
        ];
        for (name, gid, mode) in all {
            let made = m.join("d").join(name);
            assert_eq!((stat(&made).gid(), stat(&made).mode() & 0o7777), (gid, mode), "{name}");
            let acl = sys::getxattr(&made, "system.posix_acl_default");
            assert_eq!(acl.ok(), (name == "acl").then(|| default.clone()), "{name}");
        }
    });
}

/// Source: kernel `ovl_workdir_create`, which removes the ACLs of its workdir.
#[test]
fn an_acl_of_the_workdir_reaches_nothing() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("d").mode(0o755).file("d/f", "low").mode(0o640);
    let default = acl(7, Some((1001, 7)), 5, Some(7), 0);
    fs::create_dir_all(f.work("")).unwrap();
    sys::setxattr(f.work(""), "system.posix_acl_default", &default, 0).unwrap();
    f.mount();
    sys::with_umask(0o022, || sys::mkdir(f.p("d/made"), 0o755).unwrap());
    fs::write(f.p("d/f"), "up").unwrap();
    f.check(|m| {
        for (name, mode) in [("d", 0o755), ("d/f", 0o640), ("d/made", 0o755)] {
            assert_eq!(stat(m.join(name)).mode() & 0o7777, mode, "{name}");
            for which in ["system.posix_acl_default", "system.posix_acl_access"] {
                assert_eq!(sys::getxattr(m.join(name), which).err(), Some(Errno::ENODATA), "{name} {which}");
            }
        }
    });
}

#[test]
fn acl_of_a_lower_file_is_obeyed_and_copied_up() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let access = acl(6, Some((1001, 6)), 0, Some(6), 0);
    f.lower(0).file("f", "low").mode(0o600).xattr("system.posix_acl_access", &access);
    f.mount();
    let path = f.p("f");
    as_user(1002, 1002, || assert_eq!(err(fs::read(&path)), Errno::EACCES));
    as_user(1001, 1001, || fs::write(&path, "up").unwrap());
    f.check(|m| {
        assert_eq!(sys::getxattr(m.join("f"), "system.posix_acl_access"), Ok(access.clone()));
        assert_eq!(stat(m.join("f")).mode() & 0o777, 0o660);
        assert_eq!(text(m.join("f")), "up");
    });
    // chmod changes the mask.
    sys::chmod(f.p("f"), 0o640).unwrap();
    f.check(|m| {
        let want = acl(6, Some((1001, 6)), 0, Some(4), 0);
        assert_eq!(sys::getxattr(m.join("f"), "system.posix_acl_access"), Ok(want));
    });
    as_user(1001, 1001, || assert_eq!(err(fs::write(&path, "no")), Errno::EACCES));
}

#[test]
fn refusals_of_creation() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").dir("d").symlink("dangling", "none");
    f.upper().file("u", "x");
    f.mount();
    for name in ["a", "d", "u", "dangling"] {
        assert_eq!(sys::mkdir(f.p(name), 0o755), Err(Errno::EEXIST), "{name}");
        assert_eq!(sys::mknod(f.p(name), libc::S_IFIFO, 0), Err(Errno::EEXIST), "{name}");
        let excl = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        assert_eq!(sys::open(f.p(name), excl, 0o600).err(), Some(Errno::EEXIST), "{name}");
    }
    assert_eq!(sys::mkdir(f.p("none/d"), 0o755), Err(Errno::ENOENT));
    assert_eq!(sys::mkdir(f.p("a/d"), 0o755), Err(Errno::ENOTDIR));
    f.unmount();
    assert_eq!(names(f.up("")), ["u"], "a refused creation left something behind");
}

#[test]
fn creation_over_whiteouts() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("a", "1").file("b/x", "1").file("c", "1").file("d/x", "1");
    f.lower(0).whiteout("a").whiteout("b");
    f.upper().whiteout("c").whiteout("d");
    f.mount();
    for name in ["a", "c"] {
        fs::write(f.p(name), "new").unwrap();
    }
    for name in ["b", "d"] {
        sys::mkdir(f.p(name), 0o755).unwrap();
    }
    f.check(|m| {
        assert_eq!(names(m), ["a", "b", "c", "d"]);
        assert_eq!([text(m.join("a")), text(m.join("c"))], ["new", "new"]);
        assert_eq!(names(m.join("b")), [""; 0]);
        assert_eq!(names(m.join("d")), [""; 0]);
    });
}

#[test]
fn making_a_name_changes_the_times_of_its_directory() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("d").mtime(1000, 0);
    f.mount();
    let before = stat(f.p("d")).nlink();
    fs::write(f.p("d/f"), "").unwrap();
    assert!(mtime(f.p("d")) > (1_600_000_000, 0));
    sys::mkdir(f.p("d/sub"), 0o755).unwrap();
    let (time, links) = (mtime(f.p("d")), stat(f.p("d")).nlink());
    // Overlays may show 1 for every directory; one that counts must count.
    assert!(links == 1 || links == before + 1, "{before} then {links}");
    f.check(|m| assert_eq!(mtime(m.join("d")), time));
}
