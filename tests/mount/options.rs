//! Options, one test each: what they promise, again after a remount.

use std::path::Path;
use std::time::Duration;

use crate::common::*;

const OVERRIDE: &str = "user.containers.override_stat";

fn kinds(dir: &Path) -> Vec<(String, u8)> {
    let mut all: Vec<_> =
        dents(dir).into_iter().map(|e| (e.name.to_string_lossy().into_owned(), e.kind)).collect();
    all.sort();
    all
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let facts = stat(path);
    (facts.uid(), facts.gid())
}

/// The values are those of fuse-overlayfs 1.10 and 2.0 with the same commands.
/// Source: fuse-overlayfs(1) `uidmapping`; containers/storage writes the empty first field.
#[test]
fn ids_on_disk_are_shown_by_the_second_number_of_a_triple() {
    for map in ["0:200000:65536", ":0:200000:1000:1000:201000:64536"] {
        let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
        f.lower(0).file("a", "x").owner(0, 5).file("beyond", "x").owner(70_000, 200_005).file("b", "x");
        f.lower(0).symlink("s", "a").dir("d").owner(1000, 1000).mode(0o777);
        f.options = vec![format!("uidmapping={map},gidmapping={map}")];
        f.mount();
        fs::write(f.p("a"), "longer").unwrap();
        let d = f.p("d");
        as_user(201_000, 201_001, || fs::write(d.join("theirs"), "x").unwrap());
        sys::lchown(f.p("b"), 200_007, 200_008).unwrap();
        sys::rename(f.p("beyond"), f.p("moved")).unwrap();
        f.check(|m| {
            assert_eq!(owner(m.join("a")), (200_000, 200_005));
            assert_eq!(owner(m.join("moved")), (65534, 65534));
            assert_eq!(owner(m.join("b")), (200_007, 200_008));
            assert_eq!(owner(m.join("d")), (201_000, 201_000));
            assert_eq!(owner(m.join("d/theirs")), (201_000, 201_001));
        });
        assert_eq!(owner(f.up("a")), (0, 5));
        assert_eq!(owner(f.up("moved")), (70_000, 200_005));
        assert_eq!(owner(f.up("b")), (7, 8));
        assert_eq!(owner(f.up("d/theirs")), (1000, 1001));
    }
}

/// The values are those of fuse-overlayfs 1.10 with the same commands; 2.0 agrees where it lets the caller create.
#[test]
fn a_caller_without_a_range_writes_the_overflow_id() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("given", "x").file("half", "x").owner(70_000, 70_000).dir("d").mode(0o777);
    f.options = vec!["uidmapping=0:200000:65536,gidmapping=0:200000:65536".to_owned()];
    f.mount();
    fs::write(f.p("file"), "x").unwrap();
    sys::mkdir(f.p("dir"), 0o755).unwrap();
    std::os::unix::fs::symlink("x", f.p("link")).unwrap();
    let d = f.p("d");
    as_user(3, 4, || {
        sys::mknod(d.join("fifo"), libc::S_IFIFO | 0o600, 0).unwrap();
        std::os::unix::fs::symlink("x", d.join("link")).unwrap();
        sys::mkdir(d.join("dir"), 0o755).unwrap();
    });
    sys::lchown(f.p("given"), 7, 8).unwrap();
    std::os::unix::fs::lchown(f.p("half"), None, Some(200_003)).unwrap();
    let all = ["file", "dir", "link", "d/fifo", "d/link", "d/dir", "given"];
    f.check(|m| {
        for name in all {
            // 65534 on disk has a place in the range, as any other id there.
            assert_eq!(owner(m.join(name)), (265_534, 265_534), "{name}");
        }
        assert_eq!(owner(m.join("half")), (65534, 200_003));
    });
    for name in all {
        assert_eq!(owner(f.up(name)), (65534, 65534), "{name}");
    }
    assert_eq!(owner(f.up("half")), (70_000, 3));
}

/// An ACL that names an id without a range is refused: the overflow id must not get the rights. Departs: fuse-overlayfs
/// stores ids in ACLs as they are given.
#[test]
fn ids_in_acls_are_mapped_and_never_become_the_overflow_id() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("a", "x").mode(0o600).xattr(ACL_NAME, ACL);
    f.options = vec!["uidmapping=0:200000:65536,gidmapping=0:200000:65536".to_owned()];
    f.mount();
    // The third entry of the ACL names user 5.
    let with_user = |id: u32| [&ACL[..16], &id.to_le_bytes(), &ACL[20..]].concat();
    assert_eq!(sys::getxattr(f.p("a"), ACL_NAME), Ok(with_user(200_005)));
    assert_eq!(sys::setxattr(f.p("a"), ACL_NAME, &with_user(7), 0), Err(Errno::EINVAL));
    sys::setxattr(f.p("a"), ACL_NAME, &with_user(200_009), 0).unwrap();
    f.check(|m| assert_eq!(sys::getxattr(m.join("a"), ACL_NAME), Ok(with_user(200_009))));
    assert_eq!(sys::getxattr(f.up("a"), ACL_NAME), Ok(with_user(9)));
}

#[test]
fn every_file_shows_the_squashed_owner() {
    for (option, shown) in [
        ("squash_to_uid=12,squash_to_gid=13", (12, 13)),
        ("squash_to_root", (0, 0)),
        ("squash_to_root,squash_to_gid=13", (0, 13)),
    ] {
        let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
        f.lower(0).file("a", "x").owner(5, 6).dir("d").owner(7, 8).mode(0o777).symlink("s", "a");
        f.options = vec![option.to_owned()];
        f.mount();
        fs::write(f.p("a"), "longer").unwrap();
        let d = f.p("d");
        as_user(1000, 1001, || fs::write(d.join("new"), "x").unwrap());
        f.check(|m| {
            for name in ["a", "d", "s", "d/new"] {
                assert_eq!(owner(m.join(name)), shown, "{option} {name}");
            }
        });
        assert_eq!(owner(f.up("a")), (5, 6), "copy-up keeps the owner on disk");
        assert_eq!(owner(f.up("d/new")), (1000, 1001));
    }
}

/// `mode`, where a closure of that name hides it.
fn mode_of_run() -> Mode {
    mode()
}

fn by_attribute(mut f: Fixture, value: u8, attribute: &str) {
    let root = mode() == Mode::Root;
    f.lower(0).file("low", "data").mode(0o640).dir("dir").mode(0o750).file("dir/x", "x").symlink("s", "low");
    f.lower(0).node("fifo", libc::S_IFIFO | 0o600, 0);
    // As another tool has left it.
    f.lower(0).file("kept", "").mode(0o644).xattr(OVERRIDE, "1:2:0620:char-4-5");
    f.options = vec![format!("xattr_permissions={value}")];
    f.mount();
    let p = |name: &str| f.p(name);
    sys::chmod(p("low"), 0o4711).unwrap();
    sys::chmod(p("dir"), 0o711).unwrap();
    fs::write(p("dir/x"), "longer").unwrap();
    fs::write(p("new"), "x").unwrap();
    sys::chmod(p("new"), 0o400).unwrap();
    sys::mkdir(p("newdir"), 0o700).unwrap();
    fs::write(p("newdir/inside"), "x").unwrap();
    sys::symlink("new", p("newlink")).unwrap();
    sys::mknod(p("newfifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    sys::mknod(p("sock"), libc::S_IFSOCK | 0o644, 0).unwrap();
    sys::rename(p("newfifo"), p("moved")).unwrap();
    sys::utimens(p("fifo"), (5, 5), (5, 5)).unwrap();
    if root {
        sys::mknod(p("char"), libc::S_IFCHR | 0o640, libc::makedev(1, 3)).unwrap();
        sys::mknod(p("block"), libc::S_IFBLK | 0o640, libc::makedev(7, 9)).unwrap();
        sys::lchown(p("block"), 3, 4).unwrap();
        sys::lchown(p("low"), 11, 12).unwrap();
        sys::lchown(p("kept"), 21, 22).unwrap();
    }
    let own = owner(f.dir());
    f.check(|m| {
        let mode = |name: &str| stat(m.join(name)).mode();
        assert_eq!(mode("low"), libc::S_IFREG | if root { 0o711 } else { 0o4711 });
        assert_eq!(owner(m.join("low")), if root { (11, 12) } else { own });
        assert_eq!(mode("dir"), libc::S_IFDIR | 0o711);
        assert_eq!(mode("new"), libc::S_IFREG | 0o400);
        assert_eq!(text(m.join("new")), "x");
        assert_eq!(text(m.join("dir/x")), "longer");
        assert_eq!(mode("newdir"), libc::S_IFDIR | 0o700);
        assert_eq!(mode("moved"), libc::S_IFIFO | 0o644);
        assert_eq!(mode("fifo"), libc::S_IFIFO | 0o600);
        assert_eq!(mode("sock"), libc::S_IFSOCK | 0o644);
        assert_eq!(mode("kept"), libc::S_IFCHR | 0o620);
        assert_eq!(stat(m.join("kept")).rdev(), libc::makedev(4, 5));
        let kept = match mode_of_run() {
            Mode::Root => (21, 22),
            // Ids that the namespace does not have.
            Mode::Userns => (65534, 65534),
            Mode::Fusermount => (1, 2),
        };
        assert_eq!(owner(m.join("kept")), kept);
        assert_eq!(fs::read_link(m.join("newlink")).unwrap(), Path::new("new"));
        let mut expected = vec![
            ("dir", libc::DT_DIR),
            ("fifo", libc::DT_FIFO),
            ("kept", libc::DT_CHR),
            ("low", libc::DT_REG),
            ("moved", libc::DT_FIFO),
            ("new", libc::DT_REG),
            ("newdir", libc::DT_DIR),
            ("newlink", libc::DT_LNK),
            ("s", libc::DT_LNK),
            ("sock", libc::DT_SOCK),
        ];
        if root {
            assert_eq!(mode("char"), libc::S_IFCHR | 0o640);
            assert_eq!(stat(m.join("char")).rdev(), libc::makedev(1, 3));
            assert_eq!((mode("block"), owner(m.join("block"))), (libc::S_IFBLK | 0o640, (3, 4)));
            assert_eq!(stat(m.join("block")).rdev(), libc::makedev(7, 9));
            expected.extend([("block", libc::DT_BLK), ("char", libc::DT_CHR)]);
            expected.sort_unstable();
        }
        let expected: Vec<_> = expected.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        assert_eq!(kinds(m), expected);
        for name in ["low", "moved", "newdir"] {
            assert_eq!(sys::listxattr(m.join(name)).unwrap(), [] as [&str; 0], "{name}");
            assert_eq!(sys::getxattr(m.join(name), attribute).err(), Some(Errno::ENODATA));
        }
    });
    let on_disk: &[&str] =
        if root { &["moved", "fifo", "sock", "char", "block"] } else { &["moved", "fifo"] };
    for name in on_disk {
        let facts = stat(f.up(name));
        assert!(facts.is_file() && owner(f.up(name)) == own, "{name} on disk");
        assert!(sys::getxattr(f.up(name), attribute).is_ok(), "{name} has no {attribute}");
    }
    f.unmount();
    f.mount();
    for name in ["moved", "sock", "fifo", "low"] {
        sys::unlink(f.p(name)).unwrap();
    }
    f.check(|m| assert_eq!(missing(m.join("fifo")), Errno::ENOENT));
}

/// Source: fuse-overlayfs(1) `xattr_permissions`; containers/storage `pkg/idtools`.
#[test]
fn owner_mode_and_type_in_a_user_attribute() {
    let Some(f) = Fixture::new(1) else { return };
    by_attribute(f, 2, OVERRIDE);
}

#[test]
fn owner_mode_and_type_in_a_security_attribute() {
    let Some(f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    by_attribute(f, 1, "security.fuseoverlayfs.override_stat");
}

/// An access ACL for one more user: owner rw, user 5 r, group r, mask r, others nothing.
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 5, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16,
    0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];
const ACL_NAME: &str = "system.posix_acl_access";

#[test]
fn without_acl_support_acls_are_kept_and_have_no_effect() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("a", "x").mode(0o600).xattr(ACL_NAME, ACL).xattr("user.note", "n").file("b", "x");
    f.mount();
    let reads = |m: &Path| {
        let a = m.join("a");
        as_user(5, 5, || fs::read(a).is_ok())
    };
    assert!(reads(&f.p("")), "the ACL lets user 5 read");
    f.unmount();
    f.options = vec!["noacl".to_owned()];
    f.mount();
    sys::setxattr(f.p("b"), ACL_NAME, ACL, 0).unwrap();
    let b = f.p("b");
    assert_eq!(as_user(9, 9, || sys::setxattr(b, ACL_NAME, ACL, 0)), Err(Errno::EPERM));
    f.check(|m| {
        assert!(!reads(m), "the mode does not");
        for name in ["a", "b"] {
            assert_eq!(sys::getxattr(m.join(name), ACL_NAME), Ok(ACL.to_vec()), "{name}");
        }
        assert_eq!(sys::listxattr(m.join("a")).unwrap().len(), 2);
    });
}

#[test]
fn without_xattrs_none_is_shown_and_marks_work() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").xattr("user.note", "n").dir("d/sub").file("d/x", "x");
    f.options = vec!["noxattr".to_owned()];
    f.mount();
    fs::write(f.p("a"), "longer").unwrap();
    fs::remove_dir_all(f.p("d")).unwrap();
    sys::mkdir(f.p("d"), 0o755).unwrap();
    f.check(|m| {
        assert_eq!(sys::getxattr(m.join("a"), "user.note"), Err(Errno::EOPNOTSUPP));
        assert_eq!(sys::setxattr(m.join("a"), "user.b", b"1", 0), Err(Errno::EOPNOTSUPP));
        assert_eq!(sys::listxattr(m.join("a")), Err(Errno::EOPNOTSUPP));
        assert_eq!(names(m.join("d")), [] as [&str; 0]);
    });
    assert_eq!(sys::getxattr(f.up("a"), "user.note"), Ok(b"n".to_vec()), "copy-up takes it along");
}

#[test]
fn directories_have_one_link() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("low/a").dir("low/b").file("one", "x").hardlink("two", "one");
    f.upper().dir("up/a").dir("up/b");
    f.mount();
    assert_eq!(stat(f.p("up")).nlink(), 4);
    f.unmount();
    f.options = vec!["static_nlink".to_owned()];
    f.mount();
    sys::mkdir(f.p("up/c"), 0o755).unwrap();
    f.check(|m| {
        for name in ["", "low", "up", "low/a"] {
            assert_eq!(stat(m.join(name)).nlink(), 1, "{name:?}");
        }
        assert_eq!(stat(m.join("one")).nlink(), 2);
    });
}

/// The upper is changed behind the mount, which only a mount that keeps nothing for long may show soon.
#[test]
fn names_and_attributes_are_kept_as_long_as_timeout_says() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "x");
    f.upper().file("a", "x").mode(0o644);
    for (timeout, soon) in [("0", true), ("0.2", true), ("1000", false)] {
        f.options = vec![format!("timeout={timeout}")];
        sys::chmod(f.up("a"), 0o644).unwrap();
        f.mount();
        // Held, so that the kernel keeps the inode even when somebody has it drop its caches.
        let held = sys::open(f.p("a"), libc::O_PATH, 0).unwrap();
        let bits = || held.metadata().unwrap().mode() & 0o777;
        assert_eq!(bits(), 0o644);
        sys::chmod(f.up("a"), 0o600).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(bits(), if soon { 0o600 } else { 0o644 }, "timeout={timeout}");
        drop(held);
        f.unmount();
    }
}

#[test]
fn user_attributes_carry_the_marks_if_asked() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/x", "x").file("a", "data");
    f.options = vec!["userxattr".to_owned()];
    f.mount();
    fs::remove_dir_all(f.p("d")).unwrap();
    sys::mkdir(f.p("d"), 0o755).unwrap();
    sys::chmod(f.p("a"), 0o600).unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("d")), [] as [&str; 0]);
        assert_eq!(sys::listxattr(m.join("d")).unwrap(), [] as [&str; 0]);
    });
    assert_eq!(sys::getxattr(f.up("d"), "user.overlay.opaque"), Ok(b"y".to_vec()));
    assert!(sys::getxattr(f.up("a"), "user.overlay.origin").is_ok());
    assert!(sys::getxattr(f.up("d"), "trusted.overlay.opaque").is_err());
}

/// Source: overlayfs.rst, "Volatile mount".
#[test]
fn a_volatile_upper_is_not_mounted_again_unnoticed() {
    for option in ["volatile", "fsync=volatile"] {
        let Some(mut f) = Fixture::new(1) else { return };
        f.lower(0).file("a", "x");
        f.options = vec![option.to_owned()];
        f.mount();
        fs::write(f.p("a"), "longer").unwrap();
        rw(f.p("a")).sync_all().unwrap();
        f.unmount();
        let again = f.try_mount(&[]);
        assert_eq!((again.code, again.err.trim_end().lines().count()), (Some(1), 1), "{}", again.err);
        assert!(again.err.contains("volatile") && again.err.contains("incompat"), "{}", again.err);
        // As containers/storage does before it mounts again.
        fs::remove_dir_all(f.work("work/incompat/volatile")).unwrap();
        f.mount();
        assert_eq!(text(f.p("a")), "longer");
    }
}

#[test]
fn strict_syncing_changes_nothing_to_see() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/a", "x").file("d/b", "x").dir("old");
    f.options = vec!["fsync=strict".to_owned()];
    f.mount();
    fs::write(f.p("d/a"), "longer").unwrap();
    sys::chmod(f.p("d/b"), 0o600).unwrap();
    sys::rename(f.p("d/b"), f.p("c")).unwrap();
    sys::mkdir(f.p("new"), 0o755).unwrap();
    sys::link(f.p("c"), f.p("new/c")).unwrap();
    sys::symlink("c", f.p("s")).unwrap();
    sys::rmdir(f.p("old")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["c", "d", "new", "s"]);
        assert_eq!((text(m.join("d/a")).as_str(), names(m.join("d")).len()), ("longer", 1));
        assert_eq!(stat(m.join("new/c")).nlink(), 2);
    });
}

#[test]
fn a_read_only_mount_leaves_its_upper_alone() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "low").file("b", "low");
    f.upper().file("a", "up");
    let before = sum::tree(&f.up(""));
    f.options = vec!["ro".to_owned()];
    f.mount();
    f.check(|m| {
        assert_eq!((text(m.join("a")).as_str(), text(m.join("b")).as_str()), ("up", "low"));
        assert_eq!(err(fs::write(m.join("b"), "x")), Errno::EROFS);
        assert_eq!(sys::unlink(m.join("a")), Err(Errno::EROFS));
        assert_eq!(sys::chmod(m.join("b"), 0o600), Err(Errno::EROFS));
        assert_eq!(sys::mkdir(m.join("d"), 0o755), Err(Errno::EROFS));
    });
    assert_eq!(sum::diff(&before, &sum::tree(&f.up(""))), "");
}

/// As podman writes it: the label has a comma and stands in double quotes. Source: mount(8): without SELinux in the
/// kernel the four options are left out.
#[test]
fn a_quoted_label_is_one_option() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x");
    f.options = vec!["context=\"system_u:object_r:container_file_t:s0:c1,c2\",noatime".to_owned()];
    if fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs") {
        let done = f.try_mount(&[]);
        assert!(done.code == Some(0) || done.err.contains("context"), "{}", done.err);
        return;
    }
    f.mount();
    f.check(|m| assert_eq!(text(m.join("a")), "x"));
}
