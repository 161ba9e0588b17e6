//! What a change of bytes or owner takes away: set-user-id, set-group-id, capabilities.

use crate::common::*;

/// `cap_net_raw=ep` as `security.capability` has it.
const CAP: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const XATTR: &str = "security.capability";

fn fixture() -> Option<Fixture> {
    let mut f = Fixture::new(1).and_then(Fixture::need_root)?;
    f.lower(0).file("low", "data").owner(1000, 1000).mode(0o6777).xattr(XATTR, CAP);
    f.upper().file("up", "data").owner(1000, 1000).mode(0o6777).xattr(XATTR, CAP);
    f.mount();
    Some(f)
}

const BOTH: [&str; 2] = ["low", "up"];

#[test]
fn looking_takes_nothing_away() {
    let Some(mut f) = fixture() else { return };
    f.check(|m| {
        for name in BOTH {
            assert_eq!(stat(m.join(name)).mode() & 0o7777, 0o6777);
            assert_eq!(sys::getxattr(m.join(name), XATTR), Ok(CAP.to_vec()));
        }
    });
}

/// Source: overlayfs.rst, "Non-directories"; the order of copy-up keeps the capability.
#[test]
fn copy_up_by_metadata_keeps_all() {
    let Some(mut f) = fixture() else { return };
    for name in BOTH {
        sys::utimens(f.p(name), (5, 5), (5, 5)).unwrap();
        sys::setxattr(f.p(name), "user.a", b"1", 0).unwrap();
        sys::link(f.p(name), f.p(format!("{name}2"))).unwrap();
    }
    assert!(f.in_upper("low"));
    f.check(|m| {
        for name in BOTH {
            assert_eq!(stat(m.join(name)).mode() & 0o7777, 0o6777, "{name}");
            assert_eq!(sys::getxattr(m.join(name), XATTR), Ok(CAP.to_vec()), "{name}");
        }
    });
}

#[test]
fn opening_for_writing_takes_nothing_away() {
    let Some(mut f) = fixture() else { return };
    let paths = BOTH.map(|n| f.p(n));
    as_user(1000, 1000, || paths.each_ref().map(|p| drop(rw(p))));
    f.check(|m| {
        for name in BOTH {
            assert_eq!(stat(m.join(name)).mode() & 0o7777, 0o6777, "{name}");
            assert_eq!(sys::getxattr(m.join(name), XATTR), Ok(CAP.to_vec()), "{name}");
        }
    });
}

/// Source: write(2), inode(7), capabilities(7): a writer without CAP_FSETID.
#[test]
fn write_of_a_user_takes_all_away() {
    let Some(mut f) = fixture() else { return };
    let paths = BOTH.map(|n| f.p(n));
    as_user(1000, 1000, || {
        for p in &paths {
            rw(p).write_all_at(b"X", 0).unwrap();
            assert_eq!(stat(p).mode() & 0o7777, 0o777, "{}", p.display());
            assert_eq!(sys::getxattr(p, XATTR), Err(Errno::ENODATA), "{}", p.display());
        }
    });
    f.check(|m| {
        for name in BOTH {
            assert_eq!(stat(m.join(name)).mode() & 0o7777, 0o777, "{name}");
            assert_eq!(sys::getxattr(m.join(name), XATTR), Err(Errno::ENODATA), "{name}");
            assert_eq!(text(m.join(name)), "Xata");
        }
    });
}

#[test]
fn truncation_by_a_user_takes_all_away() {
    for by_handle in [false, true] {
        let Some(mut f) = fixture() else { return };
        let paths = BOTH.map(|n| f.p(n));
        as_user(1000, 1000, || {
            for p in &paths {
                if by_handle { rw(p).set_len(2).unwrap() } else { sys::truncate(p, 2).unwrap() }
            }
        });
        f.check(|m| {
            for name in BOTH {
                assert_eq!(stat(m.join(name)).mode() & 0o7777, 0o777, "{name} by handle: {by_handle}");
                assert_eq!(sys::getxattr(m.join(name), XATTR), Err(Errno::ENODATA), "{name}");
            }
        });
    }
}

#[test]
fn truncating_open_by_a_user_takes_all_away() {
    let Some(mut f) = fixture() else { return };
    let paths = BOTH.map(|n| f.p(n));
    as_user(1000, 1000, || {
        for p in &paths {
            drop(sys::open(p, libc::O_WRONLY | libc::O_TRUNC, 0).unwrap());
        }
    });
    f.check(|m| {
        for name in BOTH {
            assert_eq!(stat(m.join(name)).mode() & 0o7777, 0o777, "{name}");
            assert_eq!(sys::getxattr(m.join(name), XATTR), Err(Errno::ENODATA), "{name}");
        }
    });
}

/// With CAP_FSETID the mode bits stay; the capability goes all the same.
#[test]
fn write_of_root_keeps_the_mode() {
    let Some(mut f) = fixture() else { return };
    for name in BOTH {
        rw(f.p(name)).write_all_at(b"X", 0).unwrap();
    }
    f.check(|m| {
        for name in BOTH {
            assert_eq!(stat(m.join(name)).mode() & 0o7777, 0o6777, "{name}");
            assert_eq!(sys::getxattr(m.join(name), XATTR), Err(Errno::ENODATA), "{name}");
        }
    });
}

/// Source: chown(2).
#[test]
fn chown_takes_all_away_even_from_root() {
    let Some(mut f) = fixture() else { return };
    for name in BOTH {
        sys::lchown(f.p(name), 1001, 1001).unwrap();
        assert_eq!(stat(f.p(name)).mode() & 0o7777, 0o777, "{name}");
    }
    f.check(|m| {
        for name in BOTH {
            let s = stat(m.join(name));
            assert_eq!((s.uid(), s.gid(), s.mode() & 0o7777), (1001, 1001, 0o777), "{name}");
            assert_eq!(sys::getxattr(m.join(name), XATTR), Err(Errno::ENODATA), "{name}");
        }
    });
}

/// A set-group-id bit without group execution is none of the bits that go.
#[test]
fn chown_of_a_directory_keeps_its_bits() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("d").mode(0o2755);
    f.mount();
    sys::lchown(f.p("d"), 5, 5).unwrap();
    f.check(|m| assert_eq!(stat(m.join("d")).mode() & 0o7777, 0o2755));
}

/// Source: chmod(2): set-group-id for a group the caller is not in.
#[test]
fn chmod_drops_a_foreign_set_group_id() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("f", "x").owner(1000, 2000).mode(0o755);
    f.mount();
    let path = f.p("f");
    as_user(1000, 1000, || sys::chmod(&path, 0o6755).unwrap());
    f.check(|m| assert_eq!(stat(m.join("f")).mode() & 0o7777, 0o4755));
}

#[test]
fn write_through_a_shared_map_is_no_write_call_but_keeps_working() {
    let Some(mut f) = fixture() else { return };
    for name in BOTH {
        let w = rw(f.p(name));
        let map = Map::writable(&w, 4);
        map.put(0, b"M");
        map.sync().unwrap();
    }
    f.check(|m| {
        for name in BOTH {
            assert_eq!(text(m.join(name)), "Mata");
        }
    });
}

/// Source: chmod(2), "S_ISGID"; kernel `posix_acl_update_mode`.
#[test]
fn an_acl_set_by_a_stranger_to_the_group_takes_the_setgid_bit() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0)
        .file("foreign", "x")
        .owner(1000, 50)
        .mode(0o2755)
        .file("own", "x")
        .owner(1000, 1000)
        .mode(0o2755);
    f.mount();
    // u::rwx, u:1001:r, g::r-x, m::r-x, o::r
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let acl = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(2, 4, 1001),
        entry(4, 5, u32::MAX),
        entry(16, 5, u32::MAX),
        entry(32, 4, u32::MAX),
    ]
    .concat();
    for name in ["foreign", "own"] {
        let path = f.p(name);
        as_user(1000, 1000, || sys::setxattr(&path, "system.posix_acl_access", &acl, 0)).unwrap();
    }
    f.check(|m| {
        assert_eq!(stat(m.join("foreign")).mode() & 0o7777, 0o754);
        assert_eq!(stat(m.join("own")).mode() & 0o7777, 0o2754);
    });
}
