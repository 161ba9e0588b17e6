//! How many layers there may be, which may be read-only, and what is refused.

use std::path::Path;

use crate::common::*;

#[test]
fn five_hundred_lowers() {
    let Some(mut f) = Fixture::new(500) else { return };
    for i in 0..500 {
        f.lower(i).file(format!("only/{i}"), format!("{i}")).file("all", format!("{i}"));
    }
    f.lower(499).file("bottom", "deep down").file("hidden", "x");
    f.lower(250).whiteout("hidden");
    f.mount();
    fs::write(f.p("only/499"), "changed").unwrap();
    sys::unlink(f.p("only/123")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["all", "bottom", "only"]);
        assert_eq!([text(m.join("all")), text(m.join("bottom"))], ["0", "deep down"]);
        assert_eq!(dents(m.join("only")).len(), 499);
        assert_eq!([text(m.join("only/498")), text(m.join("only/499"))], ["498", "changed"]);
        assert_eq!(missing(m.join("only/500")), Errno::ENOENT);
    });
}

/// Names in a directory of many layers are learnt by listing them, which some do not allow.
#[test]
fn a_directory_that_may_not_be_read_can_be_asked_for_names() {
    let Some(mut f) = Fixture::new(20) else { return };
    for i in 0..20 {
        f.lower(i).file(format!("d/only-{i}"), format!("{i}"));
    }
    f.lower(5).whiteout("d/only-9");
    f.mount();
    let as_they_are = |m: &std::path::Path| {
        assert_eq!([text(m.join("d/only-0")), text(m.join("d/only-19"))], ["0", "19"]);
        assert_eq!(missing(m.join("d/only-9")), Errno::ENOENT);
        assert_eq!(missing(m.join("d/other")), Errno::ENOENT);
    };
    let all = |mode| (0..20).for_each(|i| sys::chmod(f.low(i, "d"), mode).unwrap());
    all(0o311);
    as_they_are(&f.p(""));
    all(0o755);
    f.check(as_they_are);
}

/// What whiteouts hide in a layer far below stays hidden, by whatever way the name comes to be asked for.
#[test]
fn whiteout_files_and_opaque_files_count_in_many_layers() {
    let Some(mut f) = Fixture::new(24) else { return };
    for i in 0..24 {
        f.lower(i).file(format!("a/{i}"), "").file(format!("b/c/{i}"), "").file("same", format!("{i}"));
    }
    f.lower(3).dot_whiteout("a/20").dot_whiteout("a/21");
    f.lower(2).file("a/21", "again");
    f.lower(10).dot_opaque("b/c");
    f.lower(11).dot_whiteout("a");
    f.mount();
    f.check(|m| {
        assert_eq!(missing(m.join("a/20")), Errno::ENOENT);
        assert_eq!(text(m.join("a/21")), "again");
        assert_eq!(missing(m.join("a/12")), Errno::ENOENT);
        assert_eq!(names(m.join("a")).len(), 13);
        assert_eq!(names(m.join("b/c")).len(), 11);
        assert_eq!(missing(m.join("b/c/11")), Errno::ENOENT);
        assert_eq!([names(m), names(m.join("b"))], [vec!["a", "b", "same"], vec!["c"]]);
    });
}

/// So many names are not read before somebody asks for one of them, but their directory is as opaque as it says.
#[test]
fn a_large_directory_counts_in_many_layers() {
    let Some(mut f) = Fixture::new(24) else { return };
    for i in 0..24 {
        f.lower(i).file(format!("d/{i}"), format!("{i}"));
    }
    for i in 0..700 {
        f.lower(5).file(format!("d/name-{i}"), "");
    }
    f.lower(20).dot_opaque("d");
    f.lower(12).dot_whiteout("d/13");
    f.mount();
    f.check(|m| {
        assert_eq!([text(m.join("d/20")), text(m.join("d/name-699"))], ["20", ""]);
        assert_eq!([missing(m.join("d/21")), missing(m.join("d/13"))], [Errno::ENOENT; 2]);
        assert_eq!(names(m.join("d")).len(), 720);
    });
}

/// Layers that stand side by side are reached together, but one that is a mount, or a symlink, is what its path leads to.
#[test]
fn mounts_and_links_among_layers_side_by_side_show_what_is_there() {
    let Some(mut f) = Fixture::new(5).and_then(Fixture::need_tmpfs) else { return };
    for (i, name) in ["plain", "covered", "covered", "moved", "last"].into_iter().enumerate() {
        f.lower(i).file(name, name).file("all", format!("{i}"));
    }
    let far = f.dir().join("far");
    fs::create_dir(&far).unwrap();
    fs::write(far.join("bound"), "far").unwrap();
    let mount = |args: &[&str], at: std::path::PathBuf| {
        run(std::process::Command::new("mount").args(args).arg(&at)).ok();
        Umount(at)
    };
    let mounts = [
        mount(&["-t", "tmpfs", "none"], f.low(1, "")),
        mount(&["--bind", far.to_str().unwrap()], f.low(2, "")),
    ];
    fs::write(f.low(1, "in-memory"), "tmpfs").unwrap();
    fs::rename(f.dir().join("l3"), f.dir().join("elsewhere")).unwrap();
    sys::symlink("elsewhere", f.dir().join("l3")).unwrap();
    f.mount();
    f.check(|m| {
        assert_eq!(names(m), ["all", "bound", "in-memory", "last", "moved", "plain"]);
        assert_eq!([text(m.join("bound")), text(m.join("in-memory"))], ["far", "tmpfs"]);
        assert_eq!([text(m.join("all")), text(m.join("moved"))], ["0", "moved"]);
    });
    f.unmount();
    drop(mounts);
}

#[test]
fn without_upper_nothing_can_be_changed() {
    let Some(mut f) = Fixture::read_only(2) else { return };
    f.lower(1).file("f", "1").dir("d").symlink("s", "f").mode(0o644);
    f.lower(0).file("g", "0");
    f.mount();
    refuses_all(&f);
    f.check(|m| {
        assert_eq!(names(m), ["d", "f", "g", "s"]);
        assert_eq!([text(m.join("f")), text(m.join("g")), text(m.join("s"))], ["1", "0", "1"]);
    });
}

#[test]
fn option_ro_refuses_changes_too() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "1").dir("d").symlink("s", "f");
    f.upper().file("g", "u");
    f.options.push("ro".into());
    f.mount();
    refuses_all(&f);
    f.unmount();
    assert_eq!(names(f.up("")), ["g"]);
}

fn refuses_all(f: &Fixture) {
    let refused = Err(Errno::EROFS);
    assert_eq!(err(fs::write(f.p("f"), "x")), Errno::EROFS);
    assert_eq!(err(fs::write(f.p("new"), "x")), Errno::EROFS);
    assert_eq!(sys::open(f.p("f"), libc::O_RDWR, 0).err(), Some(Errno::EROFS));
    assert_eq!(sys::mkdir(f.p("new"), 0o755), refused);
    assert_eq!(sys::mknod(f.p("new"), libc::S_IFIFO | 0o600, 0), refused);
    assert_eq!(sys::symlink("x", f.p("new")), refused);
    assert_eq!(sys::link(f.p("f"), f.p("new")), refused);
    assert_eq!(sys::unlink(f.p("f")), refused);
    assert_eq!(sys::rmdir(f.p("d")), refused);
    assert_eq!(sys::rename(f.p("f"), f.p("new")), refused);
    assert_eq!(sys::chmod(f.p("f"), 0o600), refused);
    assert_eq!(sys::lchown(f.p("f"), 0, 0), refused);
    assert_eq!(sys::truncate(f.p("f"), 0), refused);
    assert_eq!(sys::utimens(f.p("f"), (1, 1), (1, 1)), refused);
    assert_eq!(sys::setxattr(f.p("f"), "user.a", b"1", 0), refused);
    assert_eq!(sys::removexattr(f.p("f"), "user.a"), refused);
    assert_eq!(sys::access(f.p("f"), libc::W_OK), refused);
    // Names that exist are said to exist before anything else.
    let excl = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    assert_eq!(sys::open(f.p("f"), excl, 0o600).err(), Some(Errno::EEXIST));
    assert_eq!(sys::mkdir(f.p("d"), 0o755), Err(Errno::EEXIST));
}

#[test]
fn a_read_only_mount_may_be_mapped_and_run() {
    let Some(mut f) = Fixture::read_only(1) else { return };
    f.lower(0).file("prog", fs::read("/bin/echo").unwrap()).mode(0o755).file("f", "mapped");
    f.mount();
    f.check(|m| {
        let map = Map::shared(&ro(m.join("f")), 6);
        assert_eq!(map.get(), b"mapped");
        assert_eq!(run(std::process::Command::new(m.join("prog")).arg("hi")).ok().out, "hi\n");
    });
}

#[test]
fn an_upper_filled_before_is_shown() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "low").file("d/x", "low");
    f.mount();
    fs::write(f.p("a"), "up").unwrap();
    sys::rename(f.p("d"), f.p("e")).unwrap();
    f.unmount();
    // The layers may be looked at between mounts, and the upper moved with its workdir.
    let (upper, work) = (f.dir().join("upper2"), f.dir().join("work2"));
    fs::rename(f.up(""), &upper).unwrap();
    fs::rename(f.work(""), &work).unwrap();
    fs::rename(&upper, f.up("")).unwrap();
    fs::rename(&work, f.work("")).unwrap();
    f.mount();
    f.check(|m| {
        assert_eq!(text(m.join("a")), "up");
        assert_eq!(text(m.join("e/x")), "low");
    });
}

#[test]
fn the_upper_becomes_a_lower() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "base").file("d/x", "base").file("d/y", "base").file("gone", "base");
    f.mount();
    fs::write(f.p("a"), "second").unwrap();
    sys::unlink(f.p("gone")).unwrap();
    sys::unlink(f.p("d/x")).unwrap();
    sys::rename(f.p("d"), f.p("e")).unwrap();
    let view = sum::tree(&f.p(""));
    f.unmount();
    let Some(mut g) = Fixture::read_only(2) else { return };
    fs::remove_dir(g.low(0, "")).unwrap();
    fs::remove_dir(g.low(1, "")).unwrap();
    let cp = |from, to| run(std::process::Command::new("cp").arg("-a").arg(from).arg(to)).ok();
    cp(f.up(""), g.low(0, ""));
    cp(f.low(0, ""), g.low(1, ""));
    g.mount();
    let again = sum::tree(&g.p(""));
    let strip = |t: sum::Tree| t.into_iter().map(|(p, e)| (p, (e.mode, e.owner, e.size, e.content)));
    assert!(strip(view).eq(strip(again)), "the same stack without a writable layer shows another tree");
}

#[test]
fn bad_layers_are_refused_with_one_sentence() {
    let Some(f) = Fixture::new(1).and_then(|f| f.departs("it has its own words")) else { return };
    let (missing_dir, file) = (f.dir().join("missing"), f.dir().join("file"));
    fs::write(&file, "").unwrap();
    let cases = [
        (vec!["-l", missing_dir.to_str().unwrap()], "missing"),
        (vec!["-l", file.to_str().unwrap()], "file"),
        (vec!["-l", f.low(0, "").to_str().unwrap(), "-u", missing_dir.to_str().unwrap()], "missing"),
        (vec!["-l", f.low(0, "").to_str().unwrap(), "-o", "no_such_option"], "no_such_option"),
    ]
    .map(|(args, word)| (args.into_iter().map(String::from).collect::<Vec<_>>(), word));
    for (args, word) in cases {
        let done = run(std::process::Command::new(program()).arg("mount").args(&args).arg(f.p("")));
        assert!(done.code.is_some_and(|c| c != 0), "{args:?}: {done:?}");
        assert!(done.err.contains(word), "{args:?}: {:?} does not name {word}", done.err);
        assert_eq!(done.err.trim_end().lines().count(), 1, "{args:?}: {:?}", done.err);
        assert_eq!(mounts_at(&f.p("")), []);
        assert_eq!(daemons_of(&f.p("")), [] as [i32; 0]);
    }
}

#[test]
fn a_broken_mark_refuses_rather_than_lies() {
    let Some(mut f) = Fixture::new(2).and_then(Fixture::need_root) else { return };
    f.lower(1).file("d/x", "1").file("ok", "1");
    f.lower(0).dir("d").xattr("trusted.overlay.redirect", "../escape/../../etc");
    f.mount();
    assert!([Errno::EIO, Errno::EINVAL, Errno::ESTALE].contains(&missing(f.p("d"))));
    assert_eq!(text(f.p("ok")), "1");
}

/// A redirect that is not followed is an error where it could lead anywhere, and nothing where its parent has no part below.
#[test]
fn a_redirect_that_is_not_followed_counts_where_a_layer_is_left_to_ask() {
    let Some(mut f) = Fixture::new(2) else { return };
    let redirect = overlay_xattr("redirect");
    let marked = |layer: Layer, path: &str, to: &str| drop(layer.dir(path).xattr(&redirect, to));
    for (path, to) in
        [("alone/a", "x"), ("alone/b", "/x"), ("c", "nowhere"), ("d", "x"), ("e", "/x"), ("f", "a-file")]
    {
        marked(f.upper(), path, to);
    }
    for (path, to) in [("one/g", "/x"), ("h", "x"), ("i", "nowhere")] {
        marked(f.lower(0), path, to);
    }
    marked(f.lower(1), "last/j", "/x");
    f.lower(0).dir("c");
    f.lower(1).dir("x/inside").file("a-file", "x");
    f.options.push(if mode() == Mode::Root { "redirect_dir=nofollow" } else { "userxattr" }.into());
    f.mount();
    f.check(|m| {
        for shown in ["alone/a", "alone/b", "one/g", "last/j"] {
            assert_eq!(names(m.join(shown)), [""; 0], "{shown}");
        }
        for refused in ["c", "d", "e", "f", "h", "i"] {
            let expected = if kernel_oracle() { Errno::EPERM } else { Errno::EIO };
            assert_eq!(missing(m.join(refused)), expected, "{refused}");
        }
    });
}

/// Once the way to a moved directory stopped there, and what the lowest layer has of it was gone after the next mount.
/// Source: kernel `ovl_lookup_single`: the lowest layer's redirects are not read.
#[test]
fn regression_a_mark_on_the_way_in_the_lowest_layer_is_not_followed() {
    for mark in ["bad/redirect", "/elsewhere", "elsewhere"] {
        let Some(mut f) = Fixture::new(2).and_then(Fixture::need_root) else { return };
        f.lower(1).dir("way").xattr(&overlay_xattr("redirect"), mark).file("way/d/low", "low");
        f.lower(0).file("way/d/high", "high");
        f.options.push("redirect_dir=on".into());
        f.mount();
        assert_eq!(names(f.p("way/d")), ["high", "low"], "{mark}");
        sys::rename(f.p("way/d"), f.p("moved")).unwrap();
        f.check(|m| assert_eq!(names(m.join("moved")), ["high", "low"], "{mark}"));
    }
}

/// An empty file with the attribute of a whiteout hides its name in the upper layer as well, and gives it to what is made there.
#[test]
fn a_whiteout_by_attribute_in_the_upper_layer_gives_way() {
    let Some(mut f) = Fixture::new(1) else { return };
    let (whiteout, opaque) = (overlay_xattr("whiteout"), overlay_xattr("opaque"));
    let kinds = ["file", "dir", "link", "hard", "moved", "moved-dir", "stays"];
    let mut upper = f.upper().dir("d").xattr(&opaque, b"x");
    for kind in kinds {
        drop(f.lower(0).file(format!("d/{kind}"), "lower"));
        upper = upper.file(format!("d/{kind}"), "").xattr(&whiteout, b"y");
    }
    drop(upper.dir("only").xattr(&opaque, b"x").file("only/low", "").xattr(&whiteout, b"y"));
    f.lower(0).file("only/low", "lower").file("other", "other").dir("source");
    f.mount();
    for kind in kinds {
        assert_eq!(missing(f.p("d").join(kind)), Errno::ENOENT, "{kind}");
    }
    fs::write(f.p("d/file"), "new").unwrap();
    sys::mkdir(f.p("d/dir"), 0o755).unwrap();
    sys::symlink("to", f.p("d/link")).unwrap();
    sys::link(f.p("d/file"), f.p("d/hard")).unwrap();
    sys::rename(f.p("other"), f.p("d/moved")).unwrap();
    sys::mkdir(f.p("made"), 0o755).unwrap();
    sys::rename(f.p("made"), f.p("d/moved-dir")).unwrap();
    sys::rmdir(f.p("only")).unwrap();
    f.check(|m| {
        let d = m.join("d");
        assert_eq!(
            (text(d.join("file")), text(d.join("hard")), text(d.join("moved"))),
            ("new".into(), "new".into(), "other".into())
        );
        assert_eq!(fs::read_link(d.join("link")).unwrap(), Path::new("to"));
        assert_eq!((names(d.join("dir")), names(d.join("moved-dir"))), (vec![], vec![]));
        assert_eq!(missing(d.join("stays")), Errno::ENOENT);
        assert_eq!(missing(m.join("only")), Errno::ENOENT);
    });
    // What has been put in its place is no whiteout when it goes.
    sys::unlink(f.p("d/file")).unwrap();
    f.check(|m| assert_eq!(missing(m.join("d/file")), Errno::ENOENT));
}

/// Found by a random tree: a file with the mark of a whiteout shows, since it is not empty, and was gone once it was cut to nothing.
#[test]
fn regression_a_file_with_the_mark_of_a_whiteout_stays_when_it_is_emptied() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("the file is gone at the next mount")) else {
        return;
    };
    let whiteout = overlay_xattr("whiteout");
    for name in ["truncated", "opened", "written"] {
        drop(f.upper().file(name, "not empty").xattr(&whiteout, b"y"));
    }
    f.lower(0).file("truncated", "lower");
    f.mount();
    sys::truncate(f.p("truncated"), 0).unwrap();
    drop(File::create(f.p("opened")).unwrap());
    fs::write(f.p("written"), "").unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["opened", "truncated", "written"]);
        assert_eq!((text(m.join("truncated")), text(m.join("opened"))), (String::new(), String::new()));
    });
}
