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

/// A missing subpath is not created, not even by filling the volume with what the layers have at the target; and a volume that
/// was made for it goes again. Source: Docker 26, `mount-subpath`.
#[test]
fn a_part_of_a_volume_must_be_there() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("grafts")) else { return };
    f.lower(0).file("data/part/f", "low").file("data/g", "low");
    f.note_lowers();
    let state = f.dir().join("state");
    let volume = |words: &[&str]| {
        run(std::process::Command::new(program()).arg("volume").args(words).env("STRATAFS_STATE", &state))
            .ok()
            .out
    };
    let mount = |f: &Fixture, part: &str| {
        let words = format!("type=volume,source=parts,target=/data,volume-subpath={part}");
        run(f.command(&["--mount", &words]).env("STRATAFS_STATE", &state))
    };
    let done = mount(&f, "part");
    assert!(done.code == Some(1) && done.err.contains("subpath"), "{done:?}");
    assert_eq!(volume(&["ls", "-q"]), "");
    volume(&["create", "parts"]);
    let data = std::path::PathBuf::from(volume(&["inspect", "-f", "{{.Mountpoint}}", "parts"]).trim_end());
    fs::create_dir(data.join("part")).unwrap();
    mount(&f, "part").ok();
    f.set_mounted(true);
    assert_eq!((names(f.p("data")), names(&data)), (vec![], vec!["part".to_owned()]));
    fs::write(f.p("data/new"), "new").unwrap();
    f.unmount();
    assert_eq!(text(data.join("part/new")), "new");
    assert_eq!(names(f.low(0, "data")), ["g", "part"]);
}

/// A volume that is being filled when the command is interrupted is whole afterwards, or not there; the next mount fills it.
#[test]
fn an_interrupt_while_a_volume_is_filled_leaves_no_part_of_it() {
    const FILES: usize = 400;
    use std::os::unix::process::CommandExt;
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("grafts")) else { return };
    for i in 0..FILES {
        f.lower(0).file(format!("data/f{i}"), vec![b'x'; 20_000]);
    }
    f.note_lowers();
    let state = f.dir().join("state");
    let mount = |f: &Fixture| {
        let mut command = f.command(&["-v", "filled:/data"]);
        command.env("STRATAFS_STATE", &state).process_group(0);
        command
    };
    let mut interrupted = 0;
    for round in 0..12 {
        let mut child = spawn(&mut mount(&f));
        // At other moments in each round: when there is nothing yet, in the middle, when it is up.
        let made = || fs::read_dir(&state).is_ok_and(|mut entries| entries.next().is_some());
        eventually(LIMIT, || made() || child.try_wait().unwrap().is_some());
        std::thread::sleep(std::time::Duration::from_millis(5 * round));
        no_copies();
        unsafe { libc::kill(-(child.id() as i32), libc::SIGINT) };
        let code = wait(&mut child, LIMIT);
        let up =
            eventually(std::time::Duration::from_millis(if code == Some(0) { 2000 } else { 50 }), || {
                !mounts_at(&f.p("")).is_empty()
            });
        if up {
            run(std::process::Command::new(program()).arg("umount").arg(f.p(""))).ok();
        } else {
            interrupted += 1;
        }
        let listed = run(std::process::Command::new(program())
            .args(["volume", "ls", "-q"])
            .env("STRATAFS_STATE", &state));
        let listed = listed.ok().out;
        if listed.trim() == "filled" {
            run(&mut mount(&f)).ok();
            assert_eq!(names(f.p("data")).len(), FILES, "round {round}");
            run(std::process::Command::new(program()).arg("umount").arg(f.p(""))).ok();
            let words = ["volume", "rm", "filled"];
            run(std::process::Command::new(program()).args(words).env("STRATAFS_STATE", &state)).ok();
        } else {
            assert_eq!(listed, "", "round {round}");
        }
    }
    println!("interrupted in {interrupted} of 12 rounds");
}

/// With an ACL, the group's bits of the mode are a mask: without it they would be the group's.
#[test]
fn the_root_of_a_view_is_that_of_its_source() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("grafts")).and_then(Fixture::need_root) else {
        return;
    };
    let acl = |path: &std::path::Path| {
        for words in ["g::r-x,u:7:rwx,m::rwx", "d:u:7:rwx"] {
            run(std::process::Command::new("setfacl").args(["-m", words]).arg(path)).ok();
        }
    };
    let facts = |path: &std::path::Path| {
        let attributes = ["user.k", "system.posix_acl_access", "system.posix_acl_default"];
        let found = stat(path);
        (
            found.mode(),
            found.uid(),
            found.gid(),
            mtime(path),
            attributes.map(|name| sys::getxattr(path, name)),
        )
    };
    f.source("data").file("f", "host").dir(".").owner(1000, 1001).mode(0o2770).xattr("user.k", "v");
    acl(&f.host("data"));
    sys::utimens(f.host("data"), (7, 7), (7, 7)).unwrap();
    let expected = facts(&f.host("data"));
    f.bind_kept("data", "/throw", "O");
    f.mount();
    assert_eq!(facts(&f.p("throw")), expected);
    let may = |at: &std::path::Path, uid, gid| as_user(uid, gid, || fs::write(at.join("new"), "x").is_ok());
    for (uid, gid, allowed) in [(7, 7, true), (9, 1001, false)] {
        assert_eq!(may(&f.p("throw"), uid, gid), allowed, "{uid}:{gid}");
    }
    f.unmount();
    // The same for a mount whose changes are thrown away.
    let args = ["mount".into(), "-l".into(), f.host("data"), "--ephemeral".into(), f.p("")];
    run(std::process::Command::new(program()).args(args)).ok();
    assert_eq!(facts(&f.p("")), expected);
    run(std::process::Command::new(program()).arg("umount").arg(f.p(""))).ok();
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
        // An ordinary user's record is below it, too, and must be found again.
        let tmp = if mode() == Mode::Fusermount { std::env::temp_dir() } else { tmp.clone() };
        run(f.command(&[]).env("TMPDIR", tmp)).ok();
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
    let made = if mode() == Mode::Fusermount { 0 } else { 2 };
    assert_eq!(names(&tmp).len(), made);
    f.unmount();
    assert_eq!(names(&tmp), [] as [&str; 0], "what is thrown away is gone");
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
