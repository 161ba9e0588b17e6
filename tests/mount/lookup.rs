//! Which layer a name comes from.

use crate::common::*;

/// Source: overlayfs.rst, "Upper and Lower": the upper object is visible.
#[test]
fn upper_hides_lower() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("a", "low1").file("b", "low1").file("c", "low1");
    f.lower(0).file("a", "low0").file("b", "low0");
    f.upper().file("a", "up");
    f.mount();
    f.check(|m| {
        assert_eq!([text(m.join("a")), text(m.join("b")), text(m.join("c"))], ["up", "low0", "low1"]);
        assert_eq!(names(m), ["a", "b", "c"]);
        assert_eq!(missing(m.join("d")), Errno::ENOENT);
        assert_eq!(missing(m.join("a/x")), Errno::ENOTDIR);
        assert_eq!(missing(m.join("d/x")), Errno::ENOENT);
    });
}

#[test]
fn directories_merge_and_top_attributes_win() {
    let Some(mut f) = Fixture::new(3) else { return };
    f.lower(2).file("d/two", "2").file("d/sub/two", "2").dir("d").mode(0o700).mtime(100, 1);
    f.lower(1).file("d/one", "1").file("d/two", "1").dir("d").mode(0o750).mtime(200, 2);
    f.lower(0).file("d/sub/zero", "0").dir("d").mode(0o711).mtime(300, 3).xattr("user.top", "yes");
    f.mount();
    f.check(|m| {
        let d = m.join("d");
        assert_eq!(names(&d), ["one", "sub", "two"]);
        assert_eq!(names(d.join("sub")), ["two", "zero"]);
        assert_eq!(text(d.join("two")), "1");
        assert_eq!(stat(&d).mode() & 0o7777, 0o711);
        assert_eq!(mtime(&d), (300, 3));
        assert_eq!(sys::getxattr(&d, "user.top"), Ok(b"yes".to_vec()));
    });
}

#[test]
fn a_file_between_directories_ends_the_merge() {
    let Some(mut f) = Fixture::new(3) else { return };
    f.lower(2).file("d/deep", "2").file("e/deep", "2");
    f.lower(1).file("d", "a file").file("e", "a file");
    f.lower(0).file("d/top", "0");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m.join("d")), ["top"]);
        assert_eq!(missing(m.join("d/deep")), Errno::ENOENT);
        assert_eq!(text(m.join("e")), "a file");
        assert_eq!(missing(m.join("e/deep")), Errno::ENOTDIR);
    });
}

#[test]
fn whiteouts_of_devices_hide_in_every_layer() {
    let Some(mut f) = Fixture::new(3) else { return };
    f.lower(2).file("a", "2").file("b", "2").file("d/x", "2").file("d/y", "2").file("keep", "2");
    f.lower(1).whiteout("a").whiteout("d/x");
    f.lower(0).file("d/z", "0");
    f.upper().whiteout("b").whiteout("d/z").whiteout("never");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m), ["d", "keep"]);
        assert_eq!(names(m.join("d")), ["y"]);
        for name in ["a", "b", "d/x", "d/z", "never"] {
            assert_eq!(missing(m.join(name)), Errno::ENOENT, "{name}");
        }
    });
}

#[test]
fn a_name_above_a_whiteout_is_shown() {
    let Some(mut f) = Fixture::new(3) else { return };
    f.lower(2).file("a", "2").file("d/old", "2");
    f.lower(1).whiteout("a").whiteout("d");
    f.lower(0).file("a", "0").file("d/new", "0");
    f.mount();
    f.check(|m| {
        assert_eq!(text(m.join("a")), "0");
        assert_eq!(names(m.join("d")), ["new"]);
    });
}

#[test]
fn whiteout_of_a_directory_hides_its_tree() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("d/e/f", "1").file("x", "1");
    f.lower(0).whiteout("d");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m), ["x"]);
        assert_eq!(missing(m.join("d/e/f")), Errno::ENOENT);
    });
}

/// Source: OCI image-spec layer.md, "Whiteouts".
#[test]
fn whiteouts_of_archives_hide_and_are_not_shown() {
    let Some(mut f) = Fixture::new(2).and_then(|f| f.departs("`.wh.` files are ordinary there")) else {
        return;
    };
    f.lower(1).file("a", "1").file("d/x", "1").file("d/y", "1").file("u", "1").file("tree/deep/f", "1");
    f.lower(0).dot_whiteout("a").dot_whiteout("d/x").dot_whiteout("tree").dot_whiteout("never");
    f.upper().dot_whiteout("u");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m), ["d"]);
        assert_eq!(names(m.join("d")), ["y"]);
        for name in ["a", "u", "d/x", "tree", ".wh.a", ".wh.u", ".wh.never", "d/.wh.x"] {
            assert_eq!(missing(m.join(name)), Errno::ENOENT, "{name}");
        }
    });
}

/// A whiteout of archives touches lower layers only, never a name of its own layer.
#[test]
fn whiteout_of_archives_spares_its_own_layer() {
    let Some(mut f) = Fixture::new(2).and_then(|f| f.departs("`.wh.` files are ordinary there")) else {
        return;
    };
    f.lower(1).file("a", "1").file("d/old", "1");
    f.lower(0).file("a", "0").dot_whiteout("a").file("d/new", "0").dot_whiteout("d");
    f.mount();
    f.check(|m| {
        assert_eq!(text(m.join("a")), "0");
        assert_eq!(names(m.join("d")), ["new"]);
    });
}

#[test]
fn names_of_marks_cannot_be_made() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("`.wh.` files are ordinary there")) else {
        return;
    };
    f.lower(0).file("a", "0").dir("d");
    f.mount();
    for name in [".wh.new", ".wh..wh..opq", "d/.wh.x", ".wh."] {
        let at = f.p(name);
        assert_eq!(err(fs::write(&at, "")), Errno::EINVAL, "create {name}");
        assert_eq!(sys::mkdir(&at, 0o755), Err(Errno::EINVAL), "mkdir {name}");
        assert_eq!(sys::mknod(&at, libc::S_IFIFO | 0o644, 0), Err(Errno::EINVAL), "mknod {name}");
        assert_eq!(sys::symlink("t", &at), Err(Errno::EINVAL), "symlink {name}");
        assert_eq!(sys::link(f.p("a"), &at), Err(Errno::EINVAL), "link {name}");
        assert_eq!(sys::rename(f.p("a"), &at), Err(Errno::EINVAL), "rename {name}");
    }
    assert_eq!(names(f.p("")), ["a", "d"]);
}

/// Source: overlayfs.rst, "whiteouts and opaque directories".
#[test]
fn opaque_directory_hides_what_is_below() {
    let Some(mut f) = Fixture::new(3) else { return };
    f.lower(2).file("d/two", "2").file("e/two", "2");
    f.lower(1).opaque("d").file("d/one", "1").file("e/one", "1");
    f.lower(0).file("d/zero", "0");
    f.upper().opaque("e").file("e/up", "u");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m.join("d")), ["one", "zero"]);
        assert_eq!(names(m.join("e")), ["up"]);
        assert_eq!(missing(m.join("d/two")), Errno::ENOENT);
        assert_eq!(missing(m.join("e/one")), Errno::ENOENT);
    });
}

#[test]
fn foreign_spellings_of_opaque_are_read() {
    let Some(mut f) = Fixture::new(2).and_then(|f| f.departs("one spelling is known there")) else { return };
    f.lower(1).file("a/x", "1").file("b/x", "1").file("c/x", "1").file("c/sub/x", "1");
    f.lower(0).dir("a").xattr("user.fuseoverlayfs.opaque", "y").dot_opaque("b").file("b/y", "0");
    f.upper().dot_opaque("c/sub");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m.join("a")), [""; 0]);
        assert_eq!(names(m.join("b")), ["y"]);
        assert_eq!(names(m.join("c")), ["sub", "x"]);
        assert_eq!(names(m.join("c/sub")), [""; 0]);
        assert_eq!(missing(m.join("b/.wh..wh..opq")), Errno::ENOENT);
        assert_eq!(sys::listxattr(m.join("a")), Ok(vec![]));
    });
}

/// Source: overlayfs.rst, "redirect_dir".
#[test]
fn redirects_lead_to_another_name() {
    let Some(mut f) = Fixture::new(2).and_then(Fixture::need_root) else { return };
    let redirect = overlay_xattr("redirect");
    f.lower(1).file("old/x", "1").file("far/away/y", "1").file("far/away/sub/z", "1");
    f.lower(0).dir("new").xattr(&redirect, "old").file("new/zero", "0").whiteout("old");
    f.upper().dir("near").xattr(&redirect, "/far/away").file("near/up", "u").whiteout("far/away");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m), ["far", "near", "new"]);
        assert_eq!(names(m.join("new")), ["x", "zero"]);
        assert_eq!(names(m.join("near")), ["sub", "up", "y"]);
        assert_eq!(text(m.join("near/sub/z")), "1");
        assert_eq!(names(m.join("far")), [""; 0]);
        assert_eq!(sys::listxattr(m.join("near")), Ok(vec![]));
    });
}

/// Each layer's redirect is followed from where that layer was reached.
#[test]
fn redirects_chain_through_layers() {
    let Some(mut f) = Fixture::new(3).and_then(Fixture::need_root) else { return };
    let redirect = overlay_xattr("redirect");
    f.lower(2).file("first/a", "2").file("first/deep/b", "2");
    f.lower(1).dir("second").xattr(&redirect, "first").whiteout("first").file("second/c", "1");
    f.lower(0).dir("third").xattr(&redirect, "/second").whiteout("second").file("third/d", "0");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m), ["third"]);
        assert_eq!(names(m.join("third")), ["a", "c", "d", "deep"]);
        assert_eq!(text(m.join("third/deep/b")), "2");
    });
}

#[test]
fn every_kind_of_object_shows_through() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0)
        .file("file", "f")
        .symlink("link", "file")
        .node("fifo", libc::S_IFIFO | 0o640, 0)
        .node("sock", libc::S_IFSOCK | 0o600, 0)
        .node("null", libc::S_IFCHR | 0o666, libc::makedev(1, 3))
        .node("blk", libc::S_IFBLK | 0o660, libc::makedev(7, 200));
    f.mount();
    f.check(|m| {
        let kinds = names(m).iter().map(|n| stat(m.join(n)).mode() & libc::S_IFMT).collect::<Vec<_>>();
        let (c, b) = (libc::S_IFCHR, libc::S_IFBLK);
        assert_eq!(kinds, [b, libc::S_IFIFO, libc::S_IFREG, libc::S_IFLNK, c, libc::S_IFSOCK]);
        assert_eq!(stat(m.join("null")).rdev(), libc::makedev(1, 3));
        assert_eq!(stat(m.join("blk")).rdev(), libc::makedev(7, 200));
        fs::write(m.join("null"), "into the void").unwrap();
        assert_eq!(text(m.join("null")), "");
        assert_eq!(text(m.join("link")), "f");
    });
}
