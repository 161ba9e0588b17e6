//! What a name and a path may be.

use crate::common::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn the_longest_name() {
    let Some(mut f) = Fixture::new(1) else { return };
    let (max, over) = ("n".repeat(255), "n".repeat(256));
    let low = "l".repeat(255);
    f.lower(0).file(&low, "low");
    f.mount();
    fs::write(f.p(&max), "x").unwrap();
    assert_eq!(err(fs::write(f.p(&over), "x")), Errno::ENAMETOOLONG);
    assert_eq!(sys::mkdir(f.p(&over), 0o755), Err(Errno::ENAMETOOLONG));
    assert_eq!(sys::rename(f.p(&max), f.p(&over)), Err(Errno::ENAMETOOLONG));
    assert_eq!(missing(f.p(&over)), Errno::ENAMETOOLONG);
    sys::rename(f.p(&max), f.p("d".repeat(255))).unwrap();
    fs::write(f.p(&low), "changed").unwrap();
    f.check(|m| assert_eq!(text(m.join(&low)), "changed"));
    sys::unlink(f.p(&low)).unwrap();
    f.check(|m| assert_eq!(names(m), ["d".repeat(255)]));
}

#[test]
fn names_are_bytes() {
    let Some(mut f) = Fixture::new(1) else { return };
    let all: [&[u8]; 9] =
        [b"\xff\xfe", b"new\nline", b" space ", b"tab\t", b"a:b,c\\d", b"\xc3\xa4", b"...", b"-rf", b"\x01"];
    for (i, name) in all.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
        f.lower(0).file(OsStr::from_bytes(name), format!("{i}"));
    }
    f.mount();
    for (i, name) in all.iter().enumerate() {
        fs::write(f.p(OsStr::from_bytes(name)), format!("{i}!")).unwrap();
    }
    f.check(|m| {
        for (i, name) in all.iter().enumerate() {
            assert_eq!(text(m.join(OsStr::from_bytes(name))), format!("{i}!"));
        }
        let mut listed: Vec<Vec<u8>> = dents(m).into_iter().map(|e| e.name.as_bytes().to_vec()).collect();
        listed.sort();
        let mut want = all.map(<[u8]>::to_vec);
        want.sort();
        assert_eq!(listed, want);
    });
    for name in all {
        sys::unlink(f.p(OsStr::from_bytes(name))).unwrap();
    }
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

/// Names that look like marks but are none.
#[test]
fn names_near_marks_are_ordinary() {
    let Some(mut f) = Fixture::new(1) else { return };
    let all = [".wh", ".whatever", "wh.x", "x.wh.y", "..wh.x", "#1", "#abc", "work", "index", ".opq"];
    f.lower(0).file(".whatever", "low").file("#1", "low");
    f.mount();
    for name in all {
        fs::write(f.p(name), name).unwrap();
    }
    f.check(|m| {
        for name in all {
            assert_eq!(text(m.join(name)), name);
        }
        assert_eq!(names(m).len(), all.len());
    });
}

#[test]
fn names_differ_by_case_and_form() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("name", "lower case").file("\u{e4}", "composed");
    f.mount();
    fs::write(f.p("NAME"), "upper case").unwrap();
    fs::write(f.p("a\u{308}"), "decomposed").unwrap();
    f.check(|m| {
        assert_eq!([text(m.join("name")), text(m.join("NAME"))], ["lower case", "upper case"]);
        assert_eq!([text(m.join("\u{e4}")), text(m.join("a\u{308}"))], ["composed", "decomposed"]);
    });
}

/// A tree deeper than PATH_MAX, made and walked by relative steps. Source: path_resolution(7).
#[test]
fn paths_longer_than_path_max() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("top");
    f.mount();
    let step = "s".repeat(200);
    let top = f.p("top");
    let walk = |work: &(dyn Fn() + Sync), make: bool| {
        sys::private_fs(|| {
            nix::unistd::chdir(&top).unwrap();
            for _ in 0..30 {
                if make {
                    sys::mkdir(&step, 0o755).unwrap();
                }
                nix::unistd::chdir(step.as_str()).unwrap();
            }
            work();
        });
    };
    walk(&|| fs::write("deep", "down here").unwrap(), true);
    walk(&|| assert_eq!(text("deep"), "down here"), false);
    walk(&|| sys::rename("deep", "deeper").unwrap(), false);
    f.remount();
    walk(&|| assert_eq!(text("deeper"), "down here"), false);
    walk(&|| assert_eq!(names("."), ["deeper"]), false);
    sys::rename(f.p("top"), f.p("moved")).unwrap();
    fs::remove_dir_all(f.p("moved")).unwrap();
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

/// The same depth in a lower, so that copy-up must make all its parents.
#[test]
fn deep_lower_is_copied_up() {
    let Some(mut f) = Fixture::new(1) else { return };
    let deep = ["d"; 300].join("/");
    f.lower(0).file(format!("{deep}/f"), "low");
    f.mount();
    fs::write(f.p(format!("{deep}/f")), "up").unwrap();
    f.check(|m| assert_eq!(text(m.join(format!("{deep}/f"))), "up"));
}

#[test]
fn symlinks_lead_within_the_mount() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("d/f", "low").symlink("up", "d/../d/f").symlink("d/back", "../d");
    f.lower(0).symlink("dir", "d");
    f.mount();
    fs::write(f.p("dir/new"), "through a link").unwrap();
    f.check(|m| {
        assert_eq!(text(m.join("up")), "low");
        assert_eq!(text(m.join("d/back/back/f")), "low");
        assert_eq!(text(m.join("d/new")), "through a link");
    });
}

/// A symlink of a layer must never lead the daemon out of that layer.
#[test]
fn symlinks_in_layers_do_not_lead_out() {
    let Some(mut f) = Fixture::new(2) else { return };
    let outside = f.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s").unwrap();
    // The same name is a link outward in one layer and a directory in the other.
    f.lower(1).symlink("d", &outside).symlink("e", &outside);
    f.lower(0).file("d/f", "inside");
    f.mount();
    f.check(|m| assert_eq!(names(m.join("d")), ["f"]));
    fs::write(f.p("d/new"), "x").unwrap();
    f.check(|m| assert_eq!(names(m.join("d")), ["f", "new"]));
    assert_eq!(names(&outside), ["secret"]);
    assert_eq!(names(f.p("e")), ["secret"], "the caller's own path resolution follows it");
}
