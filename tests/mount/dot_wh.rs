//! Whiteouts that are files named `.wh.`, where no device can be made.

use crate::common::*;

fn without_devices() -> Option<Fixture> {
    let mut f = Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("it needs devices"))?;
    f.answers.push(sys::NO_DEVICES);
    Some(f)
}

#[test]
fn a_removed_file_stays_away_after_its_directory_was_listed_or_copied_up() {
    let Some(mut f) = without_devices() else { return };
    f.lower(0).file("d/f", "low").file("d/g", "low").file("d/keep", "x").file("e/f", "low").dir("d/sub");
    f.lower(0).file("e/keep", "x");
    f.mount();
    // A listing of a directory with an upper part has seen that no whiteout is in it; so has the copy-up that made it.
    fs::write(f.p("d/new"), "x").unwrap();
    assert_eq!(names(f.p("d")), ["f", "g", "keep", "new", "sub"]);
    sys::unlink(f.p("d/f")).unwrap();
    assert!(f.is_whiteout("d/f"));
    sys::rename(f.p("d/g"), f.p("d/moved")).unwrap();
    sys::rmdir(f.p("d/sub")).unwrap();
    sys::unlink(f.p("e/f")).unwrap();
    f.check(|m| {
        for gone in ["d/f", "d/g", "d/sub", "e/f"] {
            assert_eq!(missing(m.join(gone)), Errno::ENOENT, "{gone}");
        }
        assert_eq!(names(m.join("d")), ["keep", "moved", "new"]);
        assert_eq!(names(m.join("e")), ["keep"]);
        assert_eq!(text(m.join("d/moved")), "low");
    });
    fs::write(f.p("d/f"), "again").unwrap();
    sys::mkdir(f.p("d/sub"), 0o755).unwrap();
    f.check(|m| {
        assert_eq!(text(m.join("d/f")), "again");
        assert_eq!(names(m.join("d/sub")), [] as [&str; 0]);
    });
    sys::unlink(f.p("d/f")).unwrap();
    sys::unlink(f.p("d/moved")).unwrap();
    sys::rmdir(f.p("d/sub")).unwrap();
    f.check(|m| assert_eq!(names(m.join("d")), ["keep", "new"]));
}

/// A `.wh.` file beside a directory hides what is below it there, and stays behind when the directory moves.
#[test]
fn a_directory_that_a_whiteout_file_covers_hides_what_is_below_at_its_new_name() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("no such whiteouts")) else { return };
    f.lower(0).file("a/low", "low").file("d/x", "low").file("e/y", "low");
    f.upper().file("a/up", "up").file(".wh.a", "");
    f.mount();
    assert_eq!(names(f.p("a")), ["up"]);
    sys::rename(f.p("d"), f.p("away")).unwrap();
    sys::rename(f.p("a"), f.p("d")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["away", "d", "e"]);
        assert_eq!((names(m.join("d")), names(m.join("away"))), (vec!["up".into()], vec!["x".to_owned()]));
    });
    sys::renameat2(f.p("d"), f.p("e"), libc::RENAME_EXCHANGE).unwrap();
    f.check(|m| {
        assert_eq!((names(m.join("d")), names(m.join("e"))), (vec!["y".into()], vec!["up".to_owned()]));
    });
    f.unmount();
}
