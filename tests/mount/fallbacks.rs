//! What a daemon without privilege does in another way, and that it says so.

use std::process::Command;

use crate::common::*;

fn notes(f: &Fixture) -> String {
    let list = run(Command::new(program()).args(["ls", "-v"])).ok().out;
    let at = f.p("").display().to_string();
    let block = list.split("\n\n").find(|block| block.starts_with(&at)).unwrap_or_default();
    block.lines().filter(|line| line.trim_start().starts_with("note")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_list_of_mounts_names_what_was_chosen() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no list")) else { return };
    f.lower(0).file("a", "x");
    f.mount();
    let notes = notes(&f);
    let privileged = mode() == Mode::Root;
    assert_eq!(notes.contains("user.overlay.*"), !privileged, "{notes}");
    assert_eq!(notes.contains("no passthrough"), !passes_through(), "{notes}");
    let unfenced = mode() == Mode::Fusermount || older_kernel().is_some();
    assert_eq!(notes.contains("by the daemon alone"), unfenced, "{notes}");
}

/// Directories and files that their owner may not write stop an ordinary user's daemon on disk, but none of what the user
/// may do in the mount.
#[test]
fn what_its_owner_may_not_write_is_copied_up_all_the_same() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("ro/sub/x", "x").mode(0o400).file("ro/y", "data").mode(0o444).hardlink("ro/z", "ro/y");
    for dir in ["ro/sub", "ro"] {
        sys::chmod(f.low(0, dir), 0o555).unwrap();
    }
    f.mount();
    sys::utimens(f.p("ro/sub/x"), (5, 5), (5, 5)).unwrap();
    sys::chmod(f.p("ro/y"), 0o600).unwrap();
    fs::write(f.p("ro/y"), "new").unwrap();
    sys::setxattr(f.p("ro/z"), "user.note", b"1", 0).unwrap();
    sys::chmod(f.p("ro/z"), 0o400).unwrap();
    f.check(|m| {
        for dir in ["ro", "ro/sub"] {
            assert_eq!(stat(m.join(dir)).mode() & 0o777, 0o555, "{dir}");
        }
        assert_eq!(mtime(m.join("ro/sub/x")), (5, 5));
        assert_eq!(stat(m.join("ro/sub/x")).mode() & 0o777, 0o400);
        for name in ["ro/y", "ro/z"] {
            let facts = stat(m.join(name));
            assert_eq!((facts.nlink(), facts.mode() & 0o777, text(m.join(name)).as_str()), (2, 0o400, "new"));
        }
    });
    sys::chmod(f.p("ro"), 0o755).unwrap();
    sys::unlink(f.p("ro/z")).unwrap();
    sys::rename(f.p("ro/sub"), f.p("ro/moved")).unwrap();
    assert_eq!(stat(f.p("ro/y")).nlink(), 1);
    sys::chmod(f.p("ro/moved"), 0o700).unwrap();
    sys::unlink(f.p("ro/moved/x")).unwrap();
    sys::chmod(f.p("ro/moved"), 0o500).unwrap();
    sys::rmdir(f.p("ro/moved")).unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("ro")), ["y"]);
        assert_eq!(stat(m.join("ro/y")).nlink(), 1);
    });
}

/// Who owns a directory may change it, though not enter it.
#[test]
fn a_directory_that_may_not_be_entered_is_still_its_owners() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("low").mode(0o600);
    f.upper().dir("y").mode(0o600).dir("r").mode(0o600).dir("z").mode(0);
    f.mount();
    assert!(sys::listxattr(f.p("r")).is_ok());
    sys::chmod(f.p("y"), 0o700).unwrap();
    sys::utimens(f.p("z"), (5, 5), (5, 5)).unwrap();
    sys::rename(f.p("z"), f.p("moved")).unwrap();
    sys::rmdir(f.p("r")).unwrap();
    sys::chmod(f.p("low"), 0o700).unwrap();
    f.check(|m| {
        let modes = ["low", "moved", "y"].map(|name| stat(m.join(name)).mode() & 0o777);
        assert_eq!((names(m).len(), modes), (3, [0o700, 0, 0o700]));
    });
}

/// A call that is answered with `errno` whatever its arguments.
fn always(call: libc::c_long, errno: i32) -> sys::Answer {
    sys::Answer { call, argument: (0, 0, 0), errno }
}

/// All that a person does in a mount, and all of it there after unmount and mount.
fn work_in(f: &mut Fixture) {
    f.lower(0)
        .file("gone", "x")
        .file("changed", "old")
        .file("d/f", "x")
        .file("d/sub/g", "g")
        .symlink("link", "to");
    f.lower(0)
        .file("h1", "hard")
        .hardlink("h2", "h1")
        .dir("empty")
        .file("moved", "moved")
        .file("hidden/x", "x");
    f.mount();
    for round in 0..2 {
        sys::unlink(f.p("gone")).unwrap();
        fs::write(f.p("changed"), format!("new {round}")).unwrap();
        fs::remove_dir_all(f.p("d")).unwrap();
        sys::mkdir(f.p("d"), 0o755).unwrap();
        fs::write(f.p("d/own"), "own").unwrap();
        sys::rename(f.p("moved"), f.p("d/moved")).unwrap();
        sys::rename(f.p("link"), f.p("link2")).unwrap();
        sys::link(f.p("changed"), f.p("linked")).unwrap();
        fs::write(f.p("h1"), "one").unwrap();
        sys::rmdir(f.p("empty")).unwrap();
        fs::remove_dir_all(f.p("hidden")).unwrap();
        fs::write(f.p("hidden"), "a file").unwrap();
        f.check(|m| {
            assert_eq!(names(m), ["changed", "d", "h1", "h2", "hidden", "link2", "linked"]);
            assert_eq!(names(m.join("d")), ["moved", "own"]);
            assert_eq!(
                (text(m.join("changed")), text(m.join("linked"))),
                (format!("new {round}"), format!("new {round}"))
            );
            assert_eq!((text(m.join("hidden")), text(m.join("d/moved"))), ("a file".into(), "moved".into()));
            assert_eq!(text(m.join("h1")), "one");
        });
        // Back to what it was, over what hides it now.
        if round == 0 {
            fs::write(f.p("gone"), "again").unwrap();
            sys::rename(f.p("d/moved"), f.p("moved")).unwrap();
            sys::rename(f.p("link2"), f.p("link")).unwrap();
            sys::unlink(f.p("linked")).unwrap();
            sys::mkdir(f.p("empty"), 0o755).unwrap();
            sys::unlink(f.p("hidden")).unwrap();
            sys::mkdir(f.p("hidden"), 0o755).unwrap();
            f.check(|m| {
                assert_eq!(
                    names(m),
                    ["changed", "d", "empty", "gone", "h1", "h2", "hidden", "link", "moved"]
                );
                assert_eq!((names(m.join("hidden")), names(m.join("empty"))), (vec![], vec![]));
                assert_eq!(fs::read_link(m.join("link")).unwrap().to_str(), Some("to"));
            });
        }
    }
}

fn answered(answers: &[sys::Answer]) -> Option<Fixture> {
    let mut f =
        Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("it makes other calls"))?;
    f.answers = answers.to_vec();
    Some(f)
}

/// mergerfs and network filesystems.
#[test]
fn renames_without_flags_lose_nothing() {
    const RENAMEAT2: libc::c_long = libc::SYS_renameat2;
    for flags in [1, 2, 4] {
        let refused = sys::Answer { call: RENAMEAT2, argument: (4, flags, flags), errno: libc::EINVAL };
        let Some(mut f) = answered(&[refused]) else { return };
        work_in(&mut f);
    }
    let refused = |flags| sys::Answer { call: RENAMEAT2, argument: (4, flags, flags), errno: libc::EINVAL };
    let Some(mut f) = answered(&[refused(1), refused(2), refused(4)]) else { return };
    work_in(&mut f);
    let Some(mut f) = answered(&[refused(1), refused(2), refused(4), sys::NO_DEVICES]) else { return };
    work_in(&mut f);
}

#[test]
fn a_filesystem_without_hard_links_loses_nothing() {
    let Some(mut f) =
        answered(&[sys::Answer { call: libc::SYS_linkat, argument: (0, 0, 0), errno: libc::EPERM }])
    else {
        return;
    };
    f.lower(0)
        .file("gone", "x")
        .file("also-gone", "x")
        .file("h1", "hard")
        .hardlink("h2", "h1")
        .file("d/f", "x");
    f.mount();
    sys::unlink(f.p("gone")).unwrap();
    sys::unlink(f.p("also-gone")).unwrap();
    fs::write(f.p("h1"), "one").unwrap();
    fs::remove_dir_all(f.p("d")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["h1", "h2"]);
        assert_eq!((text(m.join("h1")), text(m.join("h2"))), ("one".into(), "hard".into()));
    });
}

/// A call that answers well and does nothing is no ability. Without marks and without whiteouts what was removed would come back.
#[test]
fn an_upper_layer_that_forgets_is_refused() {
    let set = [libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr, 463].map(|call| always(call, 0));
    let Some(mut f) = answered(&set) else { return };
    f.lower(0).file("a", "x");
    let done = f.try_mount(&[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains("keeps no extended attributes for marks") && done.err.contains("upper"),
        "{}",
        done.err
    );
    assert_eq!((names(f.up("")), f.temporaries().len()), (vec![], 0), "nothing is left");

    // Filters of container engines answer EPERM to what they do not know.
    let later = [libc::SYS_fchmodat2, libc::SYS_openat2, libc::SYS_mount_setattr, 463, 464, 465, 466];
    let Some(mut f) = answered(&later.map(|call| always(call, libc::EPERM))) else { return };
    work_in(&mut f);
    let Some(mut f) = answered(&[always(libc::SYS_renameat2, libc::ENOSYS)]) else { return };
    work_in(&mut f);

    // Devices that are not there: `.wh.` files are taken.
    let nothing = sys::Answer { errno: 0, ..sys::NO_DEVICES };
    let Some(mut f) = answered(&[nothing]) else { return };
    work_in(&mut f);

    // Nor these.
    let Some(mut f) = answered(&[always(libc::SYS_mknodat, 0)]) else { return };
    f.lower(0).file("a", "x");
    let done = f.try_mount(&[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("keeps no whiteouts"), "{}", done.err);
    assert_eq!((names(f.up("")), f.temporaries().len()), (vec![], 0), "nothing is left");
}
