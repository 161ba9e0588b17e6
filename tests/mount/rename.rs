//! rename(2) and its flags, over every meeting of layers.

use crate::common::*;

const NOREPLACE: u32 = libc::RENAME_NOREPLACE;
const EXCHANGE: u32 = libc::RENAME_EXCHANGE;
const WHITEOUT: u32 = libc::RENAME_WHITEOUT;

#[test]
fn files_of_every_layer_move() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "l").mtime(1000, 5).file("both", "l").dir("d");
    f.upper().file("up", "u").file("both", "u");
    f.mount();
    let ino = stat(f.p("low")).ino();
    sys::rename(f.p("low"), f.p("d/low2")).unwrap();
    sys::rename(f.p("up"), f.p("up2")).unwrap();
    sys::rename(f.p("both"), f.p("both2")).unwrap();
    assert!(f.is_whiteout("low") && f.is_whiteout("both"));
    assert!(!f.in_upper("up"));
    f.check(|m| {
        assert_eq!(names(m), ["both2", "d", "up2"]);
        assert_eq!([text(m.join("d/low2")), text(m.join("up2")), text(m.join("both2"))], ["l", "u", "u"]);
        assert_eq!(mtime(m.join("d/low2")), (1000, 5));
        assert_eq!(stat(m.join("d/low2")).ino(), ino);
    });
}

#[test]
fn renaming_over_files() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "a").file("b", "b").file("c", "c").file("w", "w");
    f.upper().file("u", "u").file("v", "v");
    f.mount();
    sys::unlink(f.p("w")).unwrap();
    sys::rename(f.p("a"), f.p("b")).unwrap();
    sys::rename(f.p("u"), f.p("c")).unwrap();
    sys::rename(f.p("v"), f.p("w")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["b", "c", "w"]);
        assert_eq!(["b", "c", "w"].map(|n| text(m.join(n))), ["a", "u", "v"]);
    });
    sys::unlink(f.p("b")).unwrap();
    f.check(|m| assert_eq!(names(m), ["c", "w"]));
}

#[test]
fn there_and_back_again() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "a").file("d/x", "x");
    f.mount();
    for _ in 0..3 {
        sys::rename(f.p("a"), f.p("b")).unwrap();
        sys::rename(f.p("b"), f.p("a")).unwrap();
        sys::rename(f.p("d"), f.p("e")).unwrap();
        sys::rename(f.p("e"), f.p("d")).unwrap();
    }
    f.check(|m| {
        assert_eq!(names(m), ["a", "d"]);
        assert_eq!([text(m.join("a")), text(m.join("d/x"))], ["a", "x"]);
    });
}

/// Source: overlayfs.rst, "redirect_dir": relative within one parent, absolute otherwise.
#[test]
fn lower_and_merged_directories_move_by_redirect() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("d/x", "1").file("d/sub/y", "1").file("m/x", "1").dir("other");
    f.lower(0).file("m/y", "0");
    f.upper().file("m/z", "u");
    f.mount();
    let ino = stat(f.p("d")).ino();
    sys::rename(f.p("d"), f.p("d2")).unwrap();
    sys::rename(f.p("m"), f.p("other/m2")).unwrap();
    assert_eq!(sys::getxattr(f.up("d2"), overlay_xattr("redirect")), Ok(b"d".to_vec()));
    assert_eq!(sys::getxattr(f.up("other/m2"), overlay_xattr("redirect")), Ok(b"/m".to_vec()));
    assert!(f.is_whiteout("d") && f.is_whiteout("m"));
    assert!(!f.in_upper("d2/x"), "a renamed directory is not copied");
    f.check(|m| {
        assert_eq!(names(m), ["d2", "other"]);
        assert_eq!(text(m.join("d2/sub/y")), "1");
        assert_eq!(names(m.join("other/m2")), ["x", "y", "z"]);
        assert_eq!(stat(m.join("d2")).ino(), ino);
        assert_eq!(sys::listxattr(m.join("d2")), Ok(vec![]));
    });
    // Moved once more, the redirect still names where the lower is.
    sys::rename(f.p("d2"), f.p("other/d3")).unwrap();
    assert_eq!(sys::getxattr(f.up("other/d3"), overlay_xattr("redirect")), Ok(b"/d".to_vec()));
    sys::rename(f.p("other"), f.p("o2")).unwrap();
    sys::rename(f.p("o2/d3/sub"), f.p("top")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["o2", "top"]);
        assert_eq!(names(m.join("o2")), ["d3", "m2"]);
        assert_eq!(names(m.join("o2/d3")), ["x"]);
        assert_eq!(text(m.join("top/y")), "1");
    });
}

/// An upper layer in which directories were renamed, now a lower one: a redirect names where an object is in the merged
/// tree, and not where it is in a layer whose names are hidden. Source: kernel `ovl_get_redirect`.
#[test]
fn a_redirect_is_a_path_of_the_merged_tree() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("e/sub/file", "1").file("e/f", "data").file("e/g", "data").dir("x");
    f.lower(0).dir("d").xattr(&overlay_xattr("redirect"), "e").whiteout("e");
    f.options.push("metacopy=on".into());
    f.mount();
    let redirect = |path: &str| sys::getxattr(f.up(path), overlay_xattr("redirect"));
    sys::rename(f.p("d/sub"), f.p("x/moved")).unwrap();
    assert_eq!(redirect("x/moved"), Ok(b"/d/sub".to_vec()));
    sys::rename(f.p("d/f"), f.p("x/f")).unwrap();
    sys::link(f.p("d/g"), f.p("x/g")).unwrap();
    if mode() == Mode::Root {
        assert_eq!(redirect("x/f"), Ok(b"/d/f".to_vec()));
        assert_eq!(redirect("x/g"), Ok(b"/d/g".to_vec()));
    }
    f.check(|m| {
        assert_eq!(text(m.join("x/moved/file")), "1");
        assert_eq!(["x/f", "x/g", "d/g"].map(|n| text(m.join(n))), ["data"; 3]);
    });
}

/// An ancestor that was moved by this mount counts by its redirect.
#[test]
fn a_redirect_follows_those_of_its_ancestors() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a/b/c/file", "1").file("a/b/f", "data").dir("x");
    f.options.push("metacopy=on".into());
    f.mount();
    sys::rename(f.p("a/b"), f.p("a/b2")).unwrap();
    sys::rename(f.p("a"), f.p("a2")).unwrap();
    sys::rename(f.p("a2/b2/f"), f.p("a2/b2/f2")).unwrap();
    sys::rename(f.p("a2/b2/f2"), f.p("x/f")).unwrap();
    sys::rename(f.p("a2/b2/c"), f.p("a2/b2/c2")).unwrap();
    sys::rename(f.p("a2/b2/c2"), f.p("x/c")).unwrap();
    assert_eq!(sys::getxattr(f.up("x/c"), overlay_xattr("redirect")), Ok(b"/a/b/c".to_vec()));
    f.check(|m| {
        assert_eq!(text(m.join("x/c/file")), "1");
        assert_eq!(text(m.join("x/f")), "data");
    });
}

#[test]
fn a_new_directory_at_the_old_name_is_empty() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/x", "1");
    f.mount();
    sys::rename(f.p("d"), f.p("e")).unwrap();
    sys::mkdir(f.p("d"), 0o755).unwrap();
    fs::write(f.p("d/new"), "n").unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("d")), ["new"]);
        assert_eq!(names(m.join("e")), ["x"]);
    });
    fs::remove_dir_all(f.p("d")).unwrap();
    sys::rename(f.p("e"), f.p("d")).unwrap();
    f.check(|m| assert_eq!(names(m.join("d")), ["x"]));
}

#[test]
fn an_upper_directory_moved_over_a_lower_name_hides_it() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/x", "1").dir("empty").file("gone/x", "1").file("file", "f");
    f.mount();
    fs::remove_dir_all(f.p("gone")).unwrap();
    for name in ["new1", "new2", "new3"] {
        sys::mkdir(f.p(name), 0o755).unwrap();
        fs::write(f.p(name).join("n"), name).unwrap();
    }
    assert_eq!(sys::rename(f.p("new1"), f.p("d")), Err(Errno::ENOTEMPTY));
    sys::unlink(f.p("d/x")).unwrap();
    sys::rename(f.p("new1"), f.p("d")).unwrap();
    sys::rename(f.p("new2"), f.p("empty")).unwrap();
    sys::rename(f.p("new3"), f.p("gone")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["d", "empty", "file", "gone"]);
        for (dir, data) in [("d", "new1"), ("empty", "new2"), ("gone", "new3")] {
            assert_eq!(names(m.join(dir)), ["n"], "{dir}");
            assert_eq!(text(m.join(dir).join("n")), data);
        }
    });
}

#[test]
fn a_lower_directory_moves_over_an_empty_merged_one() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("a/x", "1").file("b/y", "1");
    f.lower(0).file("b/z", "0");
    f.mount();
    sys::unlink(f.p("b/y")).unwrap();
    sys::unlink(f.p("b/z")).unwrap();
    sys::rename(f.p("a"), f.p("b")).unwrap();
    f.check(|m| {
        assert_eq!(names(m), ["b"]);
        assert_eq!(names(m.join("b")), ["x"]);
    });
}

#[test]
fn noreplace() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "a").file("b", "b").dir("d").file("w", "w");
    f.upper().file("u", "u");
    f.mount();
    sys::unlink(f.p("w")).unwrap();
    for to in ["b", "d", "u"] {
        assert_eq!(sys::renameat2(f.p("a"), f.p(to), NOREPLACE), Err(Errno::EEXIST), "{to}");
    }
    assert_eq!(sys::renameat2(f.p("a"), f.p("w"), NOREPLACE), Ok(()));
    assert_eq!(sys::renameat2(f.p("d"), f.p("e"), NOREPLACE), Ok(()));
    assert_eq!(sys::renameat2(f.p("u"), f.p("b"), NOREPLACE | EXCHANGE), Err(Errno::EINVAL));
    f.check(|m| {
        assert_eq!(names(m), ["b", "e", "u", "w"]);
        assert_eq!(text(m.join("w")), "a");
    });
}

#[test]
fn exchange() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "a").file("b", "b").file("d/x", "x").file("m/y", "y");
    f.upper().file("u", "u").file("m/z", "z").file("n/new", "n");
    f.mount();
    sys::renameat2(f.p("a"), f.p("b"), EXCHANGE).unwrap();
    sys::renameat2(f.p("u"), f.p("d"), EXCHANGE).unwrap();
    sys::renameat2(f.p("m"), f.p("n"), EXCHANGE).unwrap();
    assert_eq!(sys::renameat2(f.p("a"), f.p("none"), EXCHANGE), Err(Errno::ENOENT));
    f.check(|m| {
        assert_eq!(names(m), ["a", "b", "d", "m", "n", "u"]);
        assert_eq!([text(m.join("a")), text(m.join("b")), text(m.join("d"))], ["b", "a", "u"]);
        assert_eq!(names(m.join("u")), ["x"]);
        assert_eq!(names(m.join("n")), ["y", "z"]);
        assert_eq!(names(m.join("m")), ["new"]);
    });
}

/// Source: renameat2(2): a whiteout is left at the old name. The mount shows it, as it shows one made by mknod(2): an
/// overlay on top looks for it.
#[test]
fn the_whiteout_flag_leaves_a_whiteout() {
    let Some(f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let Some(mut f) = f.departs("overlayfs refuses the flag") else { return };
    f.lower(0).file("a", "a").file("d/x", "x").file("over", "o").file("w", "w");
    f.upper().file("u", "u").file("v", "v");
    f.mount();
    sys::unlink(f.p("w")).unwrap();
    for (from, to) in [("a", "a2"), ("d", "d2"), ("u", "over"), ("v", "w")] {
        assert_eq!(sys::renameat2(f.p(from), f.p(to), WHITEOUT), Ok(()), "{from}");
    }
    f.check(|m| {
        assert_eq!(names(m), ["a", "a2", "d", "d2", "over", "u", "v", "w"]);
        assert_eq!(["a2", "d2/x", "over", "w"].map(|n| text(m.join(n))), ["a", "x", "u", "v"]);
        for old in ["a", "d", "u", "v"] {
            let left = stat(m.join(old));
            assert!(left.file_type().is_char_device() && left.rdev() == 0, "{old}: {left:?}");
        }
    });
    sys::renameat2(f.p("a2"), f.p("a"), WHITEOUT).unwrap();
    sys::unlink(f.p("a2")).unwrap();
    sys::unlink(f.p("d")).unwrap();
    f.check(|m| assert_eq!(names(m), ["a", "d2", "over", "u", "v", "w"]));
}

/// Where marks are `user.*` no device carries one.
#[test]
fn the_whiteout_flag_is_refused_where_no_whiteout_can_be_shown() {
    let Some(f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let Some(mut f) = f.departs("overlayfs refuses the flag") else { return };
    f.lower(0).file("a", "a");
    f.options.push("userxattr".into());
    f.mount();
    assert_eq!(sys::renameat2(f.p("a"), f.p("b"), WHITEOUT), Err(Errno::EINVAL));
    f.check(|m| assert_eq!(names(m), ["a"]));
}

#[test]
fn refusals_of_rename() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "a").file("d/x", "x").dir("d/sub").dir("empty").dir("e2");
    f.mount();
    assert_eq!(sys::rename(f.p("d"), f.p("d/sub/in")), Err(Errno::EINVAL));
    assert_eq!(sys::rename(f.p("d/sub"), f.p("d")), Err(Errno::ENOTEMPTY));
    assert_eq!(sys::rename(f.p("a"), f.p("d")), Err(Errno::EISDIR));
    assert_eq!(sys::rename(f.p("empty"), f.p("a")), Err(Errno::ENOTDIR));
    assert_eq!(sys::rename(f.p("empty"), f.p("d")), Err(Errno::ENOTEMPTY));
    assert_eq!(sys::rename(f.p("none"), f.p("a")), Err(Errno::ENOENT));
    assert_eq!(sys::rename(f.p("a"), f.p("none/a")), Err(Errno::ENOENT));
    assert_eq!(sys::rename(f.p("a"), f.p("a/b")), Err(Errno::ENOTDIR));
    assert_eq!(sys::rename(f.p("a"), f.dir().join("out")), Err(Errno::EXDEV));
    assert_eq!(sys::rename(f.p("a"), f.p("a")), Ok(()));
    assert_eq!(sys::rename(f.p("d"), f.p("d")), Ok(()));
    f.check(|m| assert_eq!(names(m), ["a", "d", "e2", "empty"]));
}

#[test]
fn without_redirects_a_lower_directory_stays() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/x", "x").file("m/x", "x");
    f.upper().dir("m").dir("pure");
    f.options.push("redirect_dir=off".into());
    f.mount();
    assert_eq!(sys::rename(f.p("d"), f.p("e")), Err(Errno::EXDEV));
    assert_eq!(sys::rename(f.p("m"), f.p("e")), Err(Errno::EXDEV));
    sys::rename(f.p("pure"), f.p("pure2")).unwrap();
    // mv(1) falls back to copying.
    assert_eq!(run(std::process::Command::new("mv").arg(f.p("d")).arg(f.p("e"))).code, Some(0));
    f.check(|m| {
        assert_eq!(names(m), ["e", "m", "pure2"]);
        assert_eq!(names(m.join("e")), ["x"]);
    });
}

#[test]
fn rename_is_atomic_for_those_who_look() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "low");
    f.mount();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (target, tmp) = (f.p("f"), f.p("tmp"));
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let data = text(&target);
                assert!(data == "low" || data.starts_with("new "), "{data:?}");
            }
        });
        for i in 0..500 {
            fs::write(&tmp, format!("new {i}")).unwrap();
            sys::rename(&tmp, &target).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    f.check(|m| {
        assert_eq!(names(m), ["f"]);
        assert_eq!(text(m.join("f")), "new 499");
    });
}

#[test]
fn permissions_are_obeyed() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("closed/a", "x").dir("open").mode(0o777).file("open/b", "b");
    f.mount();
    let p = |n: &str| f.p(n);
    let (a, b, c) = (p("closed/a"), p("open/a"), p("open/c"));
    let (closed, open_b) = (p("closed/b"), p("open/b"));
    let r = as_user(1000, 1000, || {
        [sys::rename(&a, &b), sys::rename(&open_b, &closed), sys::rename(&open_b, &c)]
    });
    assert_eq!(r, [Err(Errno::EACCES), Err(Errno::EACCES), Ok(())]);
    f.check(|m| assert_eq!(names(m.join("open")), ["c"]));
}

#[test]
fn open_files_follow_their_name() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/f", "old");
    f.mount();
    let w = rw(f.p("d/f"));
    sys::rename(f.p("d"), f.p("e")).unwrap();
    w.write_all_at(b"new", 0).unwrap();
    sys::rename(f.p("e/f"), f.p("g")).unwrap();
    w.write_all_at(b"!", 3).unwrap();
    assert_eq!(w.metadata().unwrap().ino(), stat(f.p("g")).ino());
    drop(w);
    f.check(|m| assert_eq!(text(m.join("g")), "new!"));
}

/// Ends the other thread of a test even if this one fails.
struct StopAtEnd<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A file that loses one of its names is never mistaken for the one that takes it.
#[test]
fn a_replaced_link_stays_the_file_it_was() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.upper().file("a", "link").xattr("user.who", "link").hardlink("b", "a");
    f.mount();
    let held = ro(f.p("a"));
    // Both names are known to the daemon.
    assert_eq!(stat(f.p("b")).nlink(), 2);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(sys::fgetxattr(&held, "user.who"), Ok(b"link".to_vec()));
            }
        });
        let _stop = StopAtEnd(&stop);
        let (mut first, mut second) = (f.p("a"), f.p("b"));
        for round in 0..300 {
            let other = f.p("other");
            fs::write(&other, "other").unwrap();
            sys::setxattr(&other, "user.who", b"other", 0).unwrap();
            let flags = if round % 2 == 0 { 0 } else { EXCHANGE };
            sys::renameat2(&other, &first, flags).unwrap();
            assert_eq!(text(&first), "other");
            if flags == EXCHANGE {
                assert_eq!(text(&other), "link");
                sys::unlink(&other).unwrap();
            }
            sys::unlink(&first).unwrap();
            // The kernel counts names by itself, too, and refuses where it has come to none.
            assert_eq!(stat(&second).nlink(), 1);
            sys::link(&second, &first).unwrap();
            // The name that is known longest is the one by which the daemon finds a file.
            std::mem::swap(&mut first, &mut second);
        }
    });
    drop(held);
    f.check(|m| {
        assert_eq!([text(m.join("a")), text(m.join("b"))], ["link", "link"]);
        assert_eq!(stat(m.join("a")).nlink(), 2);
    });
}
