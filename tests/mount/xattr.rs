//! Extended attributes: those of users pass through, those of the overlay stay private.

use crate::common::*;

const CREATE: i32 = libc::XATTR_CREATE;
const REPLACE: i32 = libc::XATTR_REPLACE;

#[test]
fn set_get_list_remove() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "x").xattr("user.a", "1").xattr("user.b", "2").dir("dir").xattr("user.a", "d");
    f.upper().file("up", "x").xattr("user.a", "1").xattr("user.b", "2");
    f.mount();
    for name in ["low", "up"] {
        let p = f.p(name);
        sys::setxattr(&p, "user.a", b"changed", 0).unwrap();
        sys::setxattr(&p, "user.empty", b"", 0).unwrap();
        sys::setxattr(&p, "user.bin", &[0, 255, 10], 0).unwrap();
        sys::removexattr(&p, "user.b").unwrap();
        assert_eq!(sys::removexattr(&p, "user.b"), Err(Errno::ENODATA));
    }
    sys::setxattr(f.p("dir"), "user.new", b"n", 0).unwrap();
    f.check(|m| {
        for name in ["low", "up"] {
            let p = m.join(name);
            let want = ["user.a", "user.bin", "user.empty"].map(std::ffi::OsString::from);
            assert_eq!(sys::listxattr(&p).unwrap(), want, "{name}");
            assert_eq!(sys::getxattr(&p, "user.a"), Ok(b"changed".to_vec()));
            assert_eq!(sys::getxattr(&p, "user.empty"), Ok(vec![]));
            assert_eq!(sys::getxattr(&p, "user.bin"), Ok(vec![0, 255, 10]));
            assert_eq!(sys::getxattr(&p, "user.b"), Err(Errno::ENODATA));
        }
        assert_eq!(sys::getxattr(m.join("dir"), "user.a"), Ok(b"d".to_vec()));
        assert_eq!(sys::getxattr(m.join("dir"), "user.new"), Ok(b"n".to_vec()));
    });
}

#[test]
fn flags_of_setxattr() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").xattr("user.a", "1");
    f.mount();
    let p = f.p("f");
    assert_eq!(sys::setxattr(&p, "user.a", b"2", CREATE), Err(Errno::EEXIST));
    assert_eq!(sys::setxattr(&p, "user.new", b"2", REPLACE), Err(Errno::ENODATA));
    assert_eq!(sys::setxattr(&p, "user.a", b"3", REPLACE), Ok(()));
    assert_eq!(sys::setxattr(&p, "user.new", b"4", CREATE), Ok(()));
    f.check(|m| {
        assert_eq!(sys::getxattr(m.join("f"), "user.a"), Ok(b"3".to_vec()));
        assert_eq!(sys::getxattr(m.join("f"), "user.new"), Ok(b"4".to_vec()));
    });
}

/// Source: getxattr(2), listxattr(2).
#[test]
fn sizes_and_small_buffers() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").xattr("user.a", "12345").file("none", "x");
    f.mount();
    for up in [false, true] {
        if up {
            sys::chmod(f.p("f"), 0o600).unwrap();
        }
        let (p, a) = (f.p("f"), std::ffi::OsStr::new("user.a"));
        assert_eq!(sys::getxattr_room(&p, a, 0).map(|r| r.0), Ok(5));
        assert_eq!(sys::getxattr_room(&p, a, 4), Err(Errno::ERANGE));
        assert_eq!(sys::getxattr_room(&p, a, 5), Ok((5, b"12345".to_vec())));
        assert_eq!(sys::listxattr_room(&p, 6), Err(Errno::ERANGE));
        assert_eq!(sys::listxattr_room(&p, 100), Ok(7));
        if !kernel_oracle() {
            // Departs: the kernel counts private names too when it is asked for a size.
            assert_eq!(sys::listxattr_room(&p, 0), Ok(7));
            assert_eq!(sys::listxattr_room(&p, 7), Ok(7));
        }
        assert_eq!(sys::listxattr_room(f.p("none"), 0), Ok(0));
    }
}

#[test]
fn a_failed_change_changes_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x").xattr("user.a", "1").symlink("s", "f");
    f.mount();
    let p = f.p("f");
    assert_eq!(sys::setxattr(&p, "user.a", b"2", CREATE), Err(Errno::EEXIST));
    assert_eq!(sys::removexattr(&p, "user.none"), Err(Errno::ENODATA));
    assert_eq!(sys::setxattr(f.p("s"), "user.x", b"1", 0), Err(Errno::EPERM), "symlinks have no user xattrs");
    assert_eq!(sys::setxattr(&p, "nonamespace", b"1", 0), Err(Errno::EOPNOTSUPP));
    // Whether the file was copied up for nothing is not asked: the kernel does so too.
    f.check(|m| {
        assert_eq!(sys::getxattr(m.join("f"), "user.a"), Ok(b"1".to_vec()));
        assert_eq!(sys::listxattr(m.join("f")), Ok(vec!["user.a".into()]));
        assert_eq!(sys::listxattr(m.join("s")), Ok(vec![]));
    });
}

#[test]
fn trusted_and_security_pass_through() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("f", "x").xattr("trusted.t", "1").xattr("security.s", "2").symlink("s", "f");
    f.mount();
    sys::setxattr(f.p("f"), "trusted.new", b"3", 0).unwrap();
    sys::setxattr(f.p("s"), "trusted.link", b"4", 0).unwrap();
    let path = f.p("f");
    as_user(1000, 1000, || {
        assert_eq!(sys::getxattr(&path, "trusted.t"), Err(Errno::ENODATA));
        assert_eq!(sys::setxattr(&path, "trusted.t", b"x", 0), Err(Errno::EPERM));
        assert_eq!(sys::setxattr(&path, "security.s", b"x", 0), Err(Errno::EPERM));
        assert_eq!(sys::listxattr(&path).unwrap().iter().filter(|n| *n == "trusted.t").count(), 0);
    });
    f.check(|m| {
        assert_eq!(sys::getxattr(m.join("f"), "trusted.t"), Ok(b"1".to_vec()));
        assert_eq!(sys::getxattr(m.join("f"), "security.s"), Ok(b"2".to_vec()));
        assert_eq!(sys::getxattr(m.join("f"), "trusted.new"), Ok(b"3".to_vec()));
        assert_eq!(sys::getxattr(m.join("s"), "trusted.link"), Ok(b"4".to_vec()));
    });
}

/// Source: overlayfs.rst, "Nesting overlayfs mounts".
#[test]
fn private_names_are_escaped() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("d").xattr("trusted.overlay.overlay.old", "o").file("d/f", "x");
    f.mount();
    let d = f.p("d");
    sys::setxattr(&d, "trusted.overlay.opaque", b"y", 0).unwrap();
    sys::setxattr(&d, "trusted.overlay.overlay.deep", b"2", 0).unwrap();
    assert_eq!(sys::getxattr(f.up("d"), "trusted.overlay.overlay.opaque"), Ok(b"y".to_vec()));
    assert_eq!(sys::getxattr(f.up("d"), "trusted.overlay.overlay.overlay.deep"), Ok(b"2".to_vec()));
    f.check(|m| {
        let d = m.join("d");
        let want = ["trusted.overlay.old", "trusted.overlay.opaque", "trusted.overlay.overlay.deep"];
        assert_eq!(sys::listxattr(&d).unwrap(), want.map(std::ffi::OsString::from));
        assert_eq!(sys::getxattr(&d, "trusted.overlay.old"), Ok(b"o".to_vec()));
        assert_eq!(sys::getxattr(&d, "trusted.overlay.opaque"), Ok(b"y".to_vec()));
        assert_eq!(names(&d), ["f"], "an escaped mark is no mark");
    });
    sys::removexattr(f.p("d"), "trusted.overlay.opaque").unwrap();
    assert_eq!(sys::getxattr(f.up("d"), "trusted.overlay.overlay.opaque"), Err(Errno::ENODATA));
}

/// fuse-overlayfs with its layers in this mount keeps its marks here, and they are no marks of this mount.
#[test]
fn marks_of_fuse_overlayfs_are_escaped() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("they are attributes like others")) else {
        return;
    };
    f.lower(0).file("d/f", "x");
    f.mount();
    for name in ["user.fuseoverlayfs.opaque", "user.fuseoverlayfs.origin"] {
        sys::setxattr(f.p("d"), name, b"y", 0).unwrap();
    }
    f.check(|m| {
        let d = m.join("d");
        assert_eq!(sys::getxattr(&d, "user.fuseoverlayfs.opaque"), Ok(b"y".to_vec()));
        assert_eq!(sys::listxattr(&d).unwrap().len(), 2);
        assert_eq!(names(&d), ["f"], "an escaped mark is no mark");
    });
    assert_eq!(sys::getxattr(f.up("d"), "user.fuseoverlayfs.overlay.opaque"), Ok(b"y".to_vec()));
}

#[test]
fn private_xattrs_are_hidden() {
    let Some(mut f) = Fixture::new(2) else { return };
    let opaque = overlay_xattr("opaque");
    f.lower(1).file("d/f", "x").dir("e").file("g", "x").hardlink("h", "g");
    f.lower(0).opaque("d").xattr("user.mine", "1");
    f.mount();
    sys::rename(f.p("e"), f.p("e2")).unwrap();
    fs::write(f.p("g"), "copied up").unwrap();
    sys::unlink(f.p("h")).unwrap();
    f.check(|m| {
        assert_eq!(sys::listxattr(m.join("d")), Ok(vec!["user.mine".into()]));
        assert_eq!(sys::getxattr(m.join("d"), &opaque), Err(Errno::ENODATA));
        for name in ["", "e2", "g"] {
            assert_eq!(sys::listxattr(m.join(name)), Ok(vec![]), "{name:?}");
            for private in ["origin", "impure", "redirect", "nlink", "upper"] {
                let got = sys::getxattr(m.join(name), overlay_xattr(private));
                assert_eq!(got, Err(Errno::ENODATA), "{name:?} {private}");
            }
        }
    });
}

#[test]
fn private_marks_do_not_spread_by_copy_up() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("d/low", "1");
    f.lower(0).opaque("d").file("d/top", "0");
    f.mount();
    // The opaque mark belongs to the lower directory, not to its copy: both hide the same, so either is right ...
    sys::chmod(f.p("d"), 0o700).unwrap();
    f.check(|m| assert_eq!(names(m.join("d")), ["top"]));
    // ... but what lies between them must stay visible.
    assert_eq!(sys::getxattr(f.up("d"), overlay_xattr("opaque")), Err(Errno::ENODATA));
}

#[test]
fn large_and_many_values() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "x");
    f.mount();
    let p = f.p("f");
    for i in 0..40 {
        sys::setxattr(&p, &format!("user.name-{i:03}"), &[b'v'; 20], 0).unwrap();
    }
    let name = format!("user.{}", "n".repeat(250));
    sys::setxattr(&p, &name, b"long name", 0).unwrap();
    assert_eq!(sys::setxattr(&p, &format!("user.{}", "n".repeat(251)), b"", 0), Err(Errno::ERANGE));
    assert_eq!(sys::setxattr(&p, "user.big", &vec![0; 65537], 0), Err(Errno::E2BIG));
    f.check(|m| {
        assert_eq!(sys::listxattr(m.join("f")).unwrap().len(), 41);
        assert_eq!(sys::getxattr(m.join("f"), &name), Ok(b"long name".to_vec()));
    });
}

#[test]
fn xattrs_of_the_root() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).dir("").xattr("user.bottom", "1");
    f.lower(0).dir("").xattr("user.top", "1");
    f.upper().dir("").xattr("user.upper", "1");
    f.mount();
    sys::setxattr(f.p(""), "user.new", b"1", 0).unwrap();
    f.check(|m| {
        let want = ["user.new", "user.upper"].map(std::ffi::OsString::from);
        assert_eq!(sys::listxattr(m).unwrap(), want, "those of the topmost directory alone");
    });
}

/// What was not there is remembered, and forgotten when it comes.
#[test]
fn attributes_that_were_asked_for_in_vain_are_seen_when_they_come() {
    let Some(f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let mut f = f;
    f.lower(0).file("low", "").dir("d");
    f.upper().file("up", "");
    f.mount();
    let acl = [
        2u32.to_le_bytes().to_vec(),
        vec![1, 0, 6, 0],
        vec![0xff; 4],
        vec![2, 0, 4, 0],
        7u32.to_le_bytes().to_vec(),
    ];
    let rest =
        [vec![4, 0, 4, 0], vec![0xff; 4], vec![16, 0, 4, 0], vec![0xff; 4], vec![32, 0, 0, 0], vec![0xff; 4]];
    let acl = [acl.concat(), rest.concat()].concat();
    for path in ["low", "up", "d"].map(|name| f.p(name)) {
        for (name, value) in [("security.selinux", &b"label"[..]), ("system.posix_acl_access", &acl)] {
            for _ in 0..2 {
                assert_eq!(sys::getxattr(&path, name), Err(Errno::ENODATA), "{name} of {path:?}");
            }
            assert_eq!(sys::setxattr(&path, name, value, 0), Ok(()), "{name} of {path:?}");
            assert_eq!(sys::getxattr(&path, name).as_deref(), Ok(value), "{name} of {path:?}");
            assert_eq!(sys::removexattr(&path, name), Ok(()), "{name} of {path:?}");
            assert_eq!(sys::getxattr(&path, name), Err(Errno::ENODATA), "{name} of {path:?}");
            assert_eq!(sys::setxattr(&path, name, value, 0), Ok(()), "{name} of {path:?}");
        }
    }
    f.check(|m| {
        for name in ["low", "up", "d"] {
            assert_eq!(sys::getxattr(m.join(name), "security.selinux").as_deref(), Ok(&b"label"[..]));
            assert_eq!(sys::getxattr(m.join(name), "system.posix_acl_access").as_deref(), Ok(&*acl));
        }
    });
}
