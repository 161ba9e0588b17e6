//! unlink and rmdir: what goes, what is left in the upper for it.

use crate::common::*;

#[test]
fn unlink_of_a_lower_file_leaves_a_whiteout() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("a", "1").file("d/b", "1").file("both", "1").symlink("s", "a");
    f.lower(0).file("both", "0");
    f.mount();
    for name in ["a", "d/b", "both", "s"] {
        sys::unlink(f.p(name)).unwrap();
        assert_eq!(missing(f.p(name)), Errno::ENOENT);
        assert!(f.is_whiteout(name), "{name}");
        assert_eq!(sys::unlink(f.p(name)), Err(Errno::ENOENT));
    }
    f.check(|m| {
        assert_eq!(names(m), ["d"]);
        assert_eq!(names(m.join("d")), [""; 0]);
    });
}

#[test]
fn unlink_of_an_upper_file_leaves_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("d");
    f.upper().file("old", "u");
    f.mount();
    fs::write(f.p("new"), "").unwrap();
    fs::write(f.p("d/new"), "").unwrap();
    for name in ["old", "new", "d/new"] {
        sys::unlink(f.p(name)).unwrap();
        assert!(!f.in_upper(name), "{name}");
    }
    f.check(|m| assert_eq!(names(m), ["d"]));
}

#[test]
fn unlink_of_a_copied_up_file_leaves_a_whiteout() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "low");
    f.mount();
    fs::write(f.p("a"), "up").unwrap();
    sys::unlink(f.p("a")).unwrap();
    assert!(f.is_whiteout("a"));
    f.check(|m| assert_eq!(missing(m.join("a")), Errno::ENOENT));
    fs::write(f.p("a"), "again").unwrap();
    f.check(|m| assert_eq!(text(m.join("a")), "again"));
    sys::unlink(f.p("a")).unwrap();
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

#[test]
fn a_name_hidden_by_an_opaque_directory_leaves_no_whiteout() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/a", "low");
    f.upper().opaque("d").file("d/a", "up");
    f.mount();
    sys::unlink(f.p("d/a")).unwrap();
    assert!(!f.in_upper("d/a"));
    f.check(|m| assert_eq!(names(m.join("d")), [""; 0]));
}

/// Source: overlayfs.rst, "whiteouts and opaque directories".
#[test]
fn rmdir_of_lower_and_merged_directories() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).dir("low").file("merged/x", "1").file("merged/y", "1").file("hidden/x", "1");
    f.lower(0).whiteout("hidden/x").dir("merged");
    f.upper().dir("merged").dir("up").whiteout("merged/y");
    f.mount();
    assert_eq!(sys::rmdir(f.p("merged")), Err(Errno::ENOTEMPTY));
    sys::unlink(f.p("merged/x")).unwrap();
    for name in ["low", "merged", "hidden"] {
        sys::rmdir(f.p(name)).unwrap();
        assert!(f.is_whiteout(name), "{name}");
    }
    sys::rmdir(f.p("up")).unwrap();
    assert!(!f.in_upper("up"));
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

#[test]
fn rmdir_sees_names_of_every_layer() {
    let Some(mut f) = Fixture::new(3) else { return };
    f.lower(2).file("a/x", "2");
    f.lower(1).dir("a").file("b/x", "1");
    f.lower(0).dir("a").dir("b");
    f.upper().dir("a").dir("b").file("c/x", "u");
    f.mount();
    for name in ["a", "b", "c"] {
        assert_eq!(sys::rmdir(f.p(name)), Err(Errno::ENOTEMPTY), "{name}");
    }
    f.check(|m| assert_eq!(["a/x", "b/x", "c/x"].map(|n| text(m.join(n))), ["2", "1", "u"]));
}

/// A new directory where a lower one was: what the lower one held does not come back.
#[test]
fn mkdir_after_rmdir_is_empty() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/x", "old").file("d/sub/y", "old");
    f.mount();
    fs::remove_dir_all(f.p("d")).unwrap();
    assert_eq!(missing(f.p("d")), Errno::ENOENT);
    sys::mkdir(f.p("d"), 0o755).unwrap();
    f.check(|m| assert_eq!(names(m.join("d")), [""; 0]));
    sys::mkdir(f.p("d/sub"), 0o755).unwrap();
    fs::write(f.p("d/sub/z"), "new").unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("d")), ["sub"]);
        assert_eq!(names(m.join("d/sub")), ["z"]);
    });
    if mode() == Mode::Root {
        assert_eq!(sys::getxattr(f.up("d"), overlay_xattr("opaque")), Ok(b"y".to_vec()));
    }
}

#[test]
fn kinds_replace_each_other() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("file", "old").file("dir/x", "old").symlink("link", "file");
    f.mount();
    sys::unlink(f.p("file")).unwrap();
    sys::mkdir(f.p("file"), 0o755).unwrap();
    fs::remove_dir_all(f.p("dir")).unwrap();
    fs::write(f.p("dir"), "now a file").unwrap();
    sys::unlink(f.p("link")).unwrap();
    sys::mknod(f.p("link"), libc::S_IFIFO | 0o600, 0).unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("file")), [""; 0]);
        assert_eq!(text(m.join("dir")), "now a file");
        assert!(stat(m.join("link")).file_type().is_fifo());
    });
}

#[test]
fn refusals_of_removal() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").dir("d").file("full/x", "x").symlink("s", "d");
    f.mount();
    assert_eq!(sys::rmdir(f.p("a")), Err(Errno::ENOTDIR));
    assert_eq!(sys::rmdir(f.p("s")), Err(Errno::ENOTDIR));
    assert_eq!(sys::unlink(f.p("d")), Err(Errno::EISDIR));
    assert_eq!(sys::rmdir(f.p("none")), Err(Errno::ENOENT));
    assert_eq!(sys::unlink(f.p("none")), Err(Errno::ENOENT));
    assert_eq!(sys::unlink(f.p("a/x")), Err(Errno::ENOTDIR));
    assert_eq!(sys::rmdir(f.p("full")), Err(Errno::ENOTEMPTY));
    assert_eq!(sys::rmdir(f.p("")), Err(Errno::EBUSY));
    assert_eq!(sys::rmdir(f.p("d/.")), Err(Errno::EINVAL));
    assert_eq!(names(f.p("")), ["a", "d", "full", "s"]);
    f.unmount();
    assert_eq!(names(f.up("")), [""; 0], "a refused removal left something behind");
}

/// Source: unlink(2) and the sticky bit, inode(7).
#[test]
fn permissions_and_sticky_bit_are_obeyed() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("closed").mode(0o755).file("closed/a", "x").mode(0o666);
    f.lower(0).dir("sticky").mode(0o1777).file("sticky/other", "x").owner(1, 1);
    f.lower(0).file("sticky/mine", "x").owner(1000, 1000);
    f.mount();
    let paths = ["closed/a", "sticky/other", "sticky/mine"].map(|n| f.p(n));
    let r = as_user(1000, 1000, || paths.each_ref().map(sys::unlink));
    assert_eq!(r, [Err(Errno::EACCES), Err(Errno::EPERM), Ok(())]);
    f.check(|m| assert_eq!(names(m.join("sticky")), ["other"]));
}

#[test]
fn removal_changes_times_and_link_counts() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/a", "x").dir("d/sub").dir("d").mtime(1000, 1);
    f.mount();
    assert_eq!(mtime(f.p("d")), (1000, 1));
    sys::unlink(f.p("d/a")).unwrap();
    let first = mtime(f.p("d"));
    assert!(first > (1000, 1));
    await_later_time();
    sys::rmdir(f.p("d/sub")).unwrap();
    let second = mtime(f.p("d"));
    assert!(second > first);
    f.check(|m| assert_eq!(mtime(m.join("d")), second));
}

#[test]
fn whole_tree_goes_and_comes_back() {
    let Some(mut f) = Fixture::new(2) else { return };
    for d in 0..10 {
        for i in 0..20 {
            f.lower(1).file(format!("t/{d}/{i}"), "1");
            f.lower(0).file(format!("t/{d}/{}", i + 10), "0");
        }
    }
    f.mount();
    fs::remove_dir_all(f.p("t")).unwrap();
    f.check(|m| assert_eq!(names(m), [""; 0]));
    assert!(f.is_whiteout("t"));
    fs::create_dir_all(f.p("t/3")).unwrap();
    fs::write(f.p("t/3/5"), "new").unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("t")), ["3"]);
        assert_eq!(names(m.join("t/3")), ["5"]);
    });
}
