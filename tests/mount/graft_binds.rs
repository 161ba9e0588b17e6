//! Directories and files of the host, attached in the merged tree.

use super::common::*;

#[test]
fn a_directory_of_the_host_shows_and_takes_changes() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("etc/conf", "low");
    f.source("data").file("a", "host").dir("d").file("d/b", "deep");
    f.bind("data", "/data", "");
    f.mount();
    assert_eq!(names(f.p("")), ["data", "etc"]);
    assert_eq!(names(f.p("data")), ["a", "d"]);
    fs::write(f.p("data/new"), "mount").unwrap();
    fs::create_dir(f.p("data/d/e")).unwrap();
    sys::rename(f.p("data/a"), f.p("data/d/e/a")).unwrap();
    sys::unlink(f.p("data/d/b")).unwrap();
    sys::symlink("new", f.p("data/link")).unwrap();
    sys::link(f.p("data/new"), f.p("data/hard")).unwrap();
    assert_eq!(text(f.host("data/new")), "mount");
    assert_eq!(names(f.host("data")), ["d", "hard", "link", "new"]);
    assert_eq!(stat(f.p("data/hard")).nlink(), 2);
    f.check(|m| {
        assert_eq!(names(m.join("data")), ["d", "hard", "link", "new"]);
        assert_eq!(text(m.join("data/d/e/a")), "host");
        assert_eq!(text(m.join("data/link")), "mount");
        assert_eq!(stat(m.join("data/hard")).ino(), stat(m.join("data/new")).ino());
    });
    assert_eq!(names(f.up("")), [] as [&str; 0]);
}

#[test]
fn a_file_of_the_host_shows_in_a_directory_of_the_layers() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("etc/conf", "low").file("etc/other", "other");
    f.source("").file("conf", "host");
    f.bind("conf", "/etc/conf", "");
    f.bind("conf", "/etc/new", "");
    f.mount();
    assert_eq!(names(f.p("etc")), ["conf", "new", "other"]);
    fs::write(f.p("etc/conf"), "changed").unwrap();
    assert_eq!((text(f.host("conf")), text(f.p("etc/new"))), ("changed".into(), "changed".into()));
    fs::write(f.p("etc/other"), "upper").unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("etc")), ["conf", "new", "other"]);
        assert_eq!((text(m.join("etc/conf")), text(m.join("etc/other"))), ("changed".into(), "upper".into()));
    });
    assert_eq!(names(f.up("etc")), ["other"]);
}

#[test]
fn what_is_attached_hides_what_was_there() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/low", "low").file("file", "low");
    f.source("d").file("host", "host");
    f.source("").file("file", "of the host");
    f.bind("d", "/d", "");
    f.bind("file", "/file", "");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m.join("d")), ["host"]);
        assert_eq!(missing(m.join("d/low")), Errno::ENOENT);
        assert_eq!(text(m.join("file")), "of the host");
    });
}

#[test]
fn a_path_that_no_layer_has_is_made_of_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("srv");
    f.source("data").file("a", "host");
    f.bind("data", "/srv/www/deep/data", "");
    f.bind("data", "/other/data", "ro");
    f.mount();
    assert_eq!(names(f.p("")), ["other", "srv"]);
    assert_eq!(names(f.p("srv/www")), ["deep"]);
    assert_eq!(text(f.p("srv/www/deep/data/a")), "host");
    assert_eq!(stat(f.p("srv/www")).mode(), libc::S_IFDIR | 0o755);
    fs::write(f.p("srv/www/deep/data/b"), "b").unwrap();
    assert!(
        !f.in_upper("srv") && !f.in_upper("other"),
        "looking and changing inside makes nothing in the upper"
    );
    // A name made beside makes the directories.
    fs::write(f.p("srv/www/index"), "index").unwrap();
    assert!(f.in_upper("srv/www/index") && !f.in_upper("srv/www/deep"));
    f.check(|m| {
        assert_eq!(names(m.join("srv/www")), ["deep", "index"]);
        assert_eq!(names(m.join("srv/www/deep")), ["data"]);
        assert_eq!(names(m.join("srv/www/deep/data")), ["a", "b"]);
    });
    f.unmount();
    f.args.clear();
    f.mount();
    assert_eq!(names(f.p("srv/www")), ["index"]);
}

#[test]
fn a_read_only_root_holds_what_takes_changes() {
    let Some(mut f) = Fixture::read_only(1) else { return };
    f.lower(0).file("etc/conf", "low");
    f.source("data").file("a", "host");
    f.bind("data", "/new/data", "");
    f.mount();
    fs::write(f.p("new/data/b"), "b").unwrap();
    assert_eq!(text(f.host("data/b")), "b");
    assert_eq!(err(fs::write(f.p("etc/conf"), "x")), Errno::EROFS);
    assert_eq!(err(fs::write(f.p("new/x"), "x")), Errno::EROFS);
    f.check(|m| assert_eq!(names(m.join("new/data")), ["a", "b"]));
}

#[test]
fn grafts_in_grafts_whatever_comes_first() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("a");
    f.source("outer").file("inner/covered", "c").file("own", "own");
    f.source("inner").file("x", "inner").dir("deep");
    f.source("").file("file", "single");
    // The deepest first: they are attached by depth.
    f.bind("file", "/a/inner/deep/file", "");
    f.bind("inner", "/a/inner", "");
    f.bind("inner", "/a/made/up/here", "");
    f.bind_kept("outer", "/a", "ro");
    f.mount();
    assert_eq!(names(f.p("a")), ["inner", "made", "own"]);
    assert_eq!(names(f.p("a/inner")), ["deep", "x"]);
    assert_eq!(names(f.p("a/inner/deep")), ["file"]);
    fs::write(f.p("a/inner/y"), "y").unwrap();
    fs::write(f.p("a/inner/deep/file"), "changed").unwrap();
    assert_eq!(err(fs::write(f.p("a/own"), "x")), Errno::EROFS);
    assert_eq!(err(fs::write(f.p("a/made/x"), "x")), Errno::EROFS);
    f.check(|m| {
        assert_eq!(names(m.join("a/inner")), ["deep", "x", "y"]);
        assert_eq!(names(m.join("a/made/up/here")), ["deep", "x", "y"]);
        assert_eq!(names(m.join("a/made/up/here/deep")), [] as [&str; 0]);
        assert_eq!(text(m.join("a/inner/deep/file")), "changed");
    });
}

#[test]
fn a_name_made_on_the_way_inside_a_graft_makes_the_directories_there() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("a");
    f.source("outer").file("own", "own");
    f.source("inner").file("x", "inner");
    f.bind("outer", "/a", "");
    f.bind("inner", "/a/made/up/here", "");
    f.mount();
    assert_eq!(names(f.host("outer")), ["own"]);
    fs::write(f.p("a/made/file"), "f").unwrap();
    assert_eq!(names(f.host("outer")), ["made", "own"]);
    assert_eq!(names(f.host("outer/made")), ["file"]);
    f.check(|m| {
        assert_eq!(names(m.join("a/made")), ["file", "up"]);
        assert_eq!(names(m.join("a/made/up/here")), ["x"]);
    });
}

#[test]
fn symlinks_on_the_way_to_a_target_stay_inside() {
    let Some(mut f) = Fixture::new(1) else { return };
    let (inside, outside) = (f.host("data"), f.dir().join("outside"));
    f.lower(0).dir("real").symlink("abs", "/real").symlink("rel", "real/../real").symlink("away", &outside);
    fs::create_dir(&outside).unwrap();
    f.source("data").file("a", "host");
    f.bind("data", "/abs/one", "");
    f.bind("data", "/rel/two", "");
    f.bind("data", "/away/three", "");
    f.mount();
    f.check(|m| {
        assert_eq!(names(m.join("real")), ["one", "two"]);
        assert_eq!(text(m.join("real/two/a")), "host");
        // What the link leads to on the host is nothing to the mount; the target is there inside.
        let three = m.join(outside.strip_prefix("/").unwrap()).join("three");
        assert_eq!(text(three.join("a")), "host");
    });
    assert_eq!(names(&outside), [] as [&str; 0]);
    assert_eq!(names(inside), ["a"]);
}

#[test]
fn the_same_source_twice_is_two_trees_with_the_same_content() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.source("data").file("a", "host").hardlink("b", "a");
    f.bind("data", "/one", "");
    f.bind("data", "/two", "ro");
    f.mount();
    fs::write(f.p("one/a"), "changed").unwrap();
    assert_eq!(text(f.p("two/b")), "changed");
    assert_eq!(err(fs::write(f.p("two/a"), "x")), Errno::EROFS);
    assert_eq!(sys::link(f.p("one/a"), f.p("two/c")), Err(Errno::EXDEV));
    f.check(|m| {
        let number = |path: &str| stat(m.join(path)).ino();
        assert_eq!((number("one/a"), number("two/a")), (number("one/b"), number("two/b")));
        assert_ne!(number("one/a"), number("two/a"));
        assert_eq!(stat(m.join("two/a")).nlink(), 2);
    });
}

#[test]
fn a_layer_of_the_mount_is_attached_only_where_nothing_changes_it() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("d").file("d/f", "lower");
    let source = f.low(0, "d");
    let spec = |mode: &str| format!("{}:/x{mode}", source.display());
    let done = f.try_mount(&["-v", &spec("")]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("must not change") && done.err.contains("`ro`"), "{}", done.err);
    f.mount_with(&["-v", &spec(":ro")]);
    assert_eq!(text(f.p("x/f")), "lower");
    f.unmount();
    f.mount_with(&["-v", &spec(":O")]);
    fs::write(f.p("x/f"), "copied up").unwrap();
    assert_eq!((text(f.p("x/f")).as_str(), text(f.low(0, "d/f")).as_str()), ("copied up", "lower"));
}
