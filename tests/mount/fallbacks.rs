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
    assert_eq!(notes.contains("no passthrough"), !privileged, "{notes}");
    assert_eq!(notes.contains("by the daemon alone"), mode() == Mode::Fusermount, "{notes}");
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
