//! The edges of what is attached: what may not cross them, and what keeps them where they are.

use super::common::*;

/// One graft in the layers, another one in a directory that the layers have and one in a directory that nobody has.
fn three() -> Option<Fixture> {
    let mut f = Fixture::new(1)?;
    f.lower(0).file("file", "low").file("dir/inner/low", "low").dir("empty/dir");
    f.source("a").file("f", "a").dir("d").file("d/x", "x");
    f.source("b").file("f", "b").dir("d");
    f.source("").file("single", "single");
    f.bind("a", "/a", "");
    f.bind("b", "/dir/inner/b", "");
    f.bind("b", "/nobody/has/b", "");
    f.bind("single", "/single", "");
    f.mount();
    Some(f)
}

#[test]
fn names_do_not_cross_from_one_tree_to_another() {
    let Some(f) = three() else { return };
    let all = ["file", "a/f", "dir/inner/b/f", "single"];
    for (i, from) in all.iter().enumerate() {
        for to in all.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, to)| to) {
            if f.p(from).parent() == f.p(to).parent() {
                continue;
            }
            let beside = f.p(to).with_file_name("new");
            let linked = sys::link(f.p(from), &beside);
            let moved = sys::rename(f.p(from), &beside);
            let exchanged = sys::renameat2(f.p(from), f.p(to), libc::RENAME_EXCHANGE);
            let busy = |r| r == Err(Errno::EXDEV) || r == Err(Errno::EBUSY);
            assert_eq!(linked, Err(Errno::EXDEV), "link {from} {to}");
            assert!(busy(moved), "rename {from} {to}: {moved:?}");
            assert!(busy(exchanged), "exchange {from} {to}: {exchanged:?}");
        }
    }
    assert_eq!(sys::rename(f.p("a/d"), f.p("d")), Err(Errno::EXDEV));
    assert_eq!(sys::rename(f.p("empty"), f.p("a/empty")), Err(Errno::EXDEV));
    assert_eq!(sys::rename(f.p("a/f"), f.p("file")), Err(Errno::EXDEV));
    // mv(1) copies where a rename may not go.
    let moved = run(std::process::Command::new("mv").arg(f.p("a/d")).arg(f.p("moved")));
    assert_eq!(moved.code, Some(0), "{}", moved.err);
    assert_eq!((text(f.p("moved/x")), missing(f.host("a/d"))), ("x".into(), Errno::ENOENT));
}

#[test]
fn a_graft_is_busy_and_so_is_the_way_to_it() {
    let Some(mut f) = three() else { return };
    for point in ["a", "dir/inner/b", "nobody/has/b"] {
        assert_eq!(sys::rmdir(f.p(point)), Err(Errno::EBUSY), "{point}");
        assert_eq!(sys::rename(f.p(point), f.p("elsewhere")), Err(Errno::EBUSY), "{point}");
        fs::create_dir(f.p("other")).unwrap();
        assert!(sys::rename(f.p("other"), f.p(point)).is_err(), "{point}");
        sys::rmdir(f.p("other")).unwrap();
    }
    assert_eq!(sys::rename(f.p("empty"), f.p("a")), Err(Errno::EBUSY));
    assert_eq!(sys::renameat2(f.p("empty"), f.p("a"), libc::RENAME_EXCHANGE), Err(Errno::EBUSY));
    assert_eq!(sys::unlink(f.p("single")), Err(Errno::EBUSY));
    assert_eq!(sys::rename(f.p("single"), f.p("elsewhere")), Err(Errno::EBUSY));
    assert_eq!(sys::rename(f.p("file"), f.p("single")), Err(Errno::EBUSY));
    assert_eq!(sys::link(f.p("file"), f.p("single")), Err(Errno::EEXIST));
    assert_eq!(sys::mkdir(f.p("a"), 0o755), Err(Errno::EEXIST));
    for above in ["dir", "dir/inner", "nobody", "nobody/has"] {
        assert_eq!(sys::rename(f.p(above), f.p("elsewhere")), Err(Errno::EBUSY), "{above}");
        assert_eq!(sys::rename(f.p("empty"), f.p(above)), Err(Errno::EBUSY), "{above}");
        assert_eq!(sys::renameat2(f.p("empty"), f.p(above), libc::RENAME_EXCHANGE), Err(Errno::EBUSY));
        assert_eq!(sys::rmdir(f.p(above)), Err(Errno::ENOTEMPTY), "{above}");
        assert_eq!(sys::unlink(f.p(above)), Err(Errno::EISDIR), "{above}");
    }
    // What is beside is as free as ever.
    sys::unlink(f.p("dir/inner/low")).unwrap();
    sys::rename(f.p("empty/dir"), f.p("dir/moved")).unwrap();
    sys::rmdir(f.p("empty")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["a", "dir", "file", "nobody", "single"]);
        assert_eq!(
            (names(m.join("dir")), names(m.join("dir/inner"))),
            (vec!["inner".into(), "moved".into()], vec!["b".into()])
        );
        assert_eq!(text(m.join("nobody/has/b/f")), "b");
        assert_eq!(sys::rmdir(m.join("dir")), Err(Errno::ENOTEMPTY));
    });
}

#[test]
fn the_root_of_a_graft_is_the_root_of_its_source() {
    let Some(mut f) = three() else { return };
    sys::chmod(f.p("a"), 0o710).unwrap();
    sys::utimens(f.p("a"), (5, 6), (7, 8)).unwrap();
    sys::setxattr(f.p("a"), "user.k", b"v", 0).unwrap();
    sys::chmod(f.p("single"), 0o640).unwrap();
    assert_eq!((stat(f.host("a")).mode() & 0o7777, mtime(f.host("a"))), (0o710, (7, 8)));
    assert_eq!(sys::getxattr(f.host("a"), "user.k"), Ok(b"v".to_vec()));
    f.check(|m| {
        assert_eq!((stat(m.join("a")).mode() & 0o7777, mtime(m.join("a"))), (0o710, (7, 8)));
        assert_eq!(stat(m.join("single")).mode() & 0o7777, 0o640);
        // `..` of its root is the directory that it is in.
        let inside = |path: &str| m.join(path);
        let dots = |path: &str| {
            let all = Dir::open(inside(path)).unwrap().rest();
            all.into_iter().find(|e| e.name == "..").unwrap().ino
        };
        assert_eq!(dots("a"), stat(m).ino());
        assert_eq!(dots("dir/inner/b"), stat(inside("dir/inner")).ino());
        assert_eq!(dots("nobody/has/b"), stat(inside("nobody/has")).ino());
    });
}

#[test]
fn a_tmpfs_lets_in_whom_the_directory_below_does() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_tmpfs) else { return };
    f.lower(0).dir("secret").mode(0o700).dir("shared").mode(0o2770).dir("given").mode(0o700);
    f.args.extend(["--tmpfs".into(), "/secret".into(), "--mount".into(), "type=tmpfs,dst=/shared".into()]);
    f.args.extend(["--tmpfs".into(), "/given:mode=711".into(), "--tmpfs".into(), "/none".into()]);
    f.mount();
    f.check(|m| {
        let mode = |name: &str| stat(m.join(name)).mode() & 0o7777;
        assert_eq!(
            [mode("secret"), mode("shared"), mode("given"), mode("none")],
            [0o700, 0o2770, 0o711, 0o1777]
        );
    });
}

#[test]
fn statfs_answers_for_the_filesystem_that_is_asked_about() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_tmpfs) else { return };
    f.lower(0).dir("d");
    f.source("a").file("f", "a");
    f.bind("a", "/a", "");
    f.args.extend(["--tmpfs".into(), "/t:size=8m".into()]);
    f.mount();
    f.check(|m| {
        let room = |path: &str| sys::statvfs(m.join(path)).unwrap();
        assert_eq!(room("t").f_blocks * room("t").f_frsize, 8 << 20);
        assert_eq!(room("a/f").f_blocks, room("d").f_blocks);
        assert_ne!(room("").f_blocks * room("").f_frsize, 8 << 20);
    });
    let of = |path| sys::statvfs(path).unwrap().f_files;
    assert_eq!((of(f.p("a")), of(f.p("d"))), (of(f.host("a")), of(f.up(""))));
}
