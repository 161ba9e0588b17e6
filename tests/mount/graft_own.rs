//! What is attached for the mount alone: filesystems in memory, and views of sources that stay as they are.

use super::common::*;

#[test]
fn a_tmpfs_is_empty_has_its_size_and_mode_and_is_gone_with_the_mount() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("grafts")).and_then(Fixture::need_tmpfs) else {
        return;
    };
    f.lower(0).file("tmp/low", "low");
    f.args.extend(["--tmpfs".into(), "/tmp:size=1m,mode=700".into(), "--tmpfs".into(), "/run/lock".into()]);
    f.args.extend(["--mount".into(), "type=tmpfs,target=/ro,readonly".into()]);
    f.mount();
    assert_eq!((names(f.p("tmp")), stat(f.p("tmp")).mode() & 0o7777), (vec![], 0o700));
    assert_eq!(stat(f.p("run/lock")).mode() & 0o7777, 0o1777);
    assert_eq!(err(fs::write(f.p("ro/x"), "x")), Errno::EROFS);
    fs::write(f.p("tmp/some"), vec![1; 500_000]).unwrap();
    assert_eq!(err(fs::write(f.p("tmp/more"), vec![1; 2_000_000])), Errno::ENOSPC);
    sys::unlink(f.p("tmp/more")).unwrap();
    sys::link(f.p("tmp/some"), f.p("tmp/hard")).unwrap();
    assert_eq!(sys::rename(f.p("tmp/some"), f.p("run/lock/some")), Err(Errno::EXDEV));
    sys::symlink("some", f.p("tmp/link")).unwrap();
    let open = rw(f.p("tmp/hard"));
    sys::unlink(f.p("tmp/hard")).unwrap();
    sys::unlink(f.p("tmp/some")).unwrap();
    assert_eq!((through(&open).len(), open.metadata().unwrap().nlink()), (500_000, 0));
    drop(open);
    f.remount();
    assert_eq!((names(f.p("tmp")), f.in_upper("tmp")), (vec![], false));
    f.unmount();
    assert_eq!(names(f.low(0, "tmp")), ["low"]);
}

#[test]
fn a_view_leaves_its_source_as_it_is() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("grafts")) else { return };
    f.lower(0).dir("d");
    f.source("data").file("f", "host").file("d/x", "x").file("gone", "g");
    f.source("").file("single", "s");
    let own = f.host("made");
    fs::create_dir_all(&own).unwrap();
    let tmp = f.dir().join("tmp");
    fs::create_dir(&tmp).unwrap();
    for dir in ["up", "work"] {
        fs::create_dir(own.join(dir)).unwrap();
    }
    f.bind_kept("data", "/throw", "O");
    let kept = format!("O,upperdir={},workdir={}", own.join("up").display(), own.join("work").display());
    f.bind_kept("data", "/kept", &kept);
    f.bind_kept("single", "/d/single", "mode=cow");
    let mount = |f: &mut Fixture| {
        f.note_lowers();
        run(f.command(&[]).env("TMPDIR", &tmp)).ok();
        f.set_mounted(true);
    };
    mount(&mut f);
    for dir in ["throw", "kept"] {
        fs::write(f.p(dir).join("f"), "changed").unwrap();
        fs::write(f.p(dir).join("new"), "new").unwrap();
        sys::unlink(f.p(dir).join("gone")).unwrap();
        sys::rename(f.p(dir).join("d"), f.p(dir).join("moved")).unwrap();
        assert_eq!(names(f.p(dir)), ["f", "moved", "new"]);
        assert_eq!(sys::rename(f.p(dir).join("new"), f.p("new")), Err(Errno::EXDEV));
    }
    fs::write(f.p("d/single"), "mine").unwrap();
    assert_eq!(text(f.p("d/single")), "mine");
    assert_eq!(sys::unlink(f.p("d/single")), Err(Errno::EBUSY));
    let made =
        || names(&tmp).into_iter().filter(|name| !name.ends_with(&format!("-{}", nix::unistd::geteuid())));
    assert_eq!(made().count(), 2);
    f.unmount();
    assert_eq!(made().count(), 0, "what is thrown away is gone");
    assert_eq!(
        (names(f.host("data")), text(f.host("single"))),
        (vec!["d".into(), "f".into(), "gone".into()], "s".into())
    );
    mount(&mut f);
    assert_eq!(
        (names(f.p("throw")), text(f.p("throw/f"))),
        (vec!["d".into(), "f".into(), "gone".into()], "host".into())
    );
    assert_eq!(
        (names(f.p("kept")), text(f.p("kept/f"))),
        (vec!["f".into(), "moved".into(), "new".into()], "changed".into())
    );
    assert_eq!(text(f.p("d/single")), "s");
    f.unmount();
}
