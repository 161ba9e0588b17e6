//! Hard links and symlinks.

use crate::common::*;

/// Name, number, link count and content agree for all names of one inode.
#[track_caller]
fn one_inode(m: &std::path::Path, all: &[&str], nlink: u64, data: &str) {
    let ino = stat(m.join(all[0])).ino();
    for name in all {
        let s = stat(m.join(name));
        assert_eq!((s.ino(), s.nlink()), (ino, nlink), "{name}");
        assert_eq!(text(m.join(name)), data, "{name}");
    }
}

#[test]
fn links_of_a_lower_file_survive_copy_up_and_remount() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "old").hardlink("b", "a").hardlink("d/c", "a");
    f.mount();
    one_inode(&f.p(""), &["a", "b", "d/c"], 3, "old");
    let ino = stat(f.p("a")).ino();
    fs::write(f.p("b"), "new").unwrap();
    f.check(|m| {
        one_inode(m, &["a", "b", "d/c"], 3, "new");
        assert_eq!(stat(m.join("a")).ino(), ino);
    });
}

#[test]
fn links_are_one_after_copy_up_by_metadata() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "old").mode(0o644).hardlink("d/b", "a");
    f.mount();
    sys::chmod(f.p("a"), 0o600).unwrap();
    f.check(|m| {
        one_inode(m, &["a", "d/b"], 2, "old");
        assert_eq!(stat(m.join("d/b")).mode() & 0o777, 0o600);
    });
    // Written through the other name after the remount: still one.
    fs::write(f.p("d/b"), "new").unwrap();
    f.check(|m| one_inode(m, &["a", "d/b"], 2, "new"));
}

#[test]
fn link_count_follows_new_and_removed_names() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").hardlink("b", "a").hardlink("c", "a");
    f.mount();
    sys::unlink(f.p("c")).unwrap();
    one_inode(&f.p(""), &["a", "b"], 2, "x");
    sys::link(f.p("b"), f.p("d")).unwrap();
    f.check(|m| {
        one_inode(m, &["a", "b", "d"], 3, "x");
        assert_eq!(missing(m.join("c")), Errno::ENOENT);
    });
    sys::unlink(f.p("a")).unwrap();
    sys::unlink(f.p("b")).unwrap();
    f.check(|m| {
        one_inode(m, &["d"], 1, "x");
        assert_eq!(names(m), ["d"]);
    });
    sys::unlink(f.p("d")).unwrap();
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

#[test]
fn unlink_of_one_lower_name_keeps_the_other() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").hardlink("b", "a");
    f.mount();
    let held = ro(f.p("a"));
    sys::unlink(f.p("a")).unwrap();
    assert_eq!(held.metadata().unwrap().nlink(), 1);
    fs::write(f.p("b"), "new").unwrap();
    drop(held);
    f.check(|m| one_inode(m, &["b"], 1, "new"));
}

#[test]
fn rename_of_one_name_keeps_the_links_one() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").hardlink("b", "a").dir("d");
    f.mount();
    sys::rename(f.p("a"), f.p("d/a2")).unwrap();
    fs::write(f.p("b"), "new").unwrap();
    f.check(|m| {
        one_inode(m, &["b", "d/a2"], 2, "new");
        assert_eq!(missing(m.join("a")), Errno::ENOENT);
    });
}

/// Source: rename(2): both names of one inode stay, and the call succeeds.
#[test]
fn rename_onto_another_name_of_itself_does_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").hardlink("b", "a");
    f.upper().file("u", "y").hardlink("v", "u");
    f.mount();
    assert_eq!(sys::rename(f.p("a"), f.p("b")), Ok(()));
    assert_eq!(sys::rename(f.p("u"), f.p("v")), Ok(()));
    f.check(|m| {
        one_inode(m, &["a", "b"], 2, "x");
        one_inode(m, &["u", "v"], 2, "y");
    });
}

#[test]
fn new_link_to_a_lower_file() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").dir("d");
    f.mount();
    let ino = stat(f.p("a")).ino();
    sys::link(f.p("a"), f.p("d/b")).unwrap();
    one_inode(&f.p(""), &["a", "d/b"], 2, "x");
    fs::write(f.p("d/b"), "new").unwrap();
    f.check(|m| {
        one_inode(m, &["a", "d/b"], 2, "new");
        assert_eq!(stat(m.join("a")).ino(), ino);
    });
}

#[test]
fn link_over_a_whiteout() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").file("gone", "old");
    f.mount();
    sys::unlink(f.p("gone")).unwrap();
    sys::link(f.p("a"), f.p("gone")).unwrap();
    f.check(|m| one_inode(m, &["a", "gone"], 2, "x"));
}

#[test]
fn refusals_of_link() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a", "x").file("b", "y").dir("d");
    f.mount();
    assert_eq!(sys::link(f.p("a"), f.p("b")), Err(Errno::EEXIST));
    assert_eq!(sys::link(f.p("a"), f.p("d")), Err(Errno::EEXIST));
    assert_eq!(sys::link(f.p("d"), f.p("e")), Err(Errno::EPERM));
    assert_eq!(sys::link(f.p("none"), f.p("e")), Err(Errno::ENOENT));
    assert_eq!(sys::link(f.p("a"), f.p("none/e")), Err(Errno::ENOENT));
    assert_eq!(sys::link(f.p("a"), f.p("b/e")), Err(Errno::ENOTDIR));
    assert_eq!(sys::link(f.p("a"), f.dir().join("outside")), Err(Errno::EXDEV));
    assert_eq!(names(f.p("")), ["a", "b", "d"]);
}

#[test]
fn link_of_a_symlink_and_of_a_fifo() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).symlink("s", "nowhere").node("p", libc::S_IFIFO | 0o644, 0);
    f.mount();
    sys::link(f.p("s"), f.p("s2")).unwrap();
    sys::link(f.p("p"), f.p("p2")).unwrap();
    f.check(|m| {
        for (a, b) in [("s", "s2"), ("p", "p2")] {
            let (a, b) = (stat(m.join(a)), stat(m.join(b)));
            assert_eq!((a.ino(), a.nlink(), a.mode()), (b.ino(), 2, b.mode()));
        }
        assert_eq!(fs::read_link(m.join("s2")).unwrap().to_str(), Some("nowhere"));
    });
}

#[test]
fn links_of_eight_threads_are_one() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("a0", "old");
    for i in 1..8 {
        f.lower(0).hardlink(format!("a{i}"), "a0");
    }
    f.mount();
    std::thread::scope(|s| {
        for i in 0..8 {
            let f = &f;
            s.spawn(move || {
                let path = f.p(format!("a{i}"));
                fs::OpenOptions::new().append(true).open(path).unwrap().set_len(4 + i).unwrap();
            });
        }
    });
    let len = stat(f.p("a0")).len();
    f.check(|m| {
        for i in 0..8 {
            let s = stat(m.join(format!("a{i}")));
            assert_eq!((s.ino(), s.nlink(), s.len()), (stat(m.join("a0")).ino(), 8, len));
        }
    });
}

#[test]
fn symlinks_read_as_made() {
    let Some(mut f) = Fixture::new(1) else { return };
    let long = "x/".repeat(1000);
    f.lower(0).symlink("low", "../some/where").symlink("gone", "old").symlink("long", &long);
    f.mount();
    sys::unlink(f.p("gone")).unwrap();
    sys::symlink("fresh", f.p("gone")).unwrap();
    sys::symlink("/absolute/../odd//path", f.p("new")).unwrap();
    assert_eq!(sys::symlink("t", f.p("low")), Err(Errno::EEXIST));
    assert_eq!(sys::symlink("", f.p("empty")), Err(Errno::ENOENT));
    assert_eq!(err(fs::read_link(f.p(""))), Errno::EINVAL);
    f.check(|m| {
        for (name, to) in
            [("low", "../some/where"), ("gone", "fresh"), ("new", "/absolute/../odd//path"), ("long", &long)]
        {
            let at = m.join(name);
            assert_eq!(fs::read_link(&at).unwrap().to_str(), Some(to));
            assert_eq!(stat(&at).len(), to.len() as u64);
            assert_eq!(stat(&at).mode(), libc::S_IFLNK | 0o777);
        }
    });
}

/// Found by killing daemons: the file was in the index, for its lost name, and the directory of those it still had was in no upper
/// layer; the redirect to the data asked for one.
#[test]
fn regression_a_link_to_a_name_whose_directory_is_below() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("one", "content").hardlink("d/e/two", "one");
    f.options = vec!["metacopy=on".into()];
    f.mount();
    fs::remove_file(f.p("one")).unwrap();
    sys::link(f.p("d/e/two"), f.p("new")).unwrap();
    fs::rename(f.p("new"), f.p("d/newer")).unwrap();
    f.check(|root| {
        assert_eq!(text(root.join("d/newer")), "content");
        assert_eq!(text(root.join("d/e/two")), "content");
        assert_eq!(stat(root.join("d/newer")).nlink(), 2);
        assert_eq!(stat(root.join("d/newer")).ino(), stat(root.join("d/e/two")).ino());
    });
    fs::remove_file(f.p("d/e/two")).unwrap();
    f.check(|root| assert_eq!(text(root.join("d/newer")), "content"));
}

/// dpkg renames and links what it replaces. No mark holds so long a path, so the data comes up; the kernel answers EXDEV.
#[test]
fn a_file_whose_data_stays_below_moves_from_any_depth() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("EXDEV beyond 256 bytes")) else { return };
    let deep = ["directory-of-forty-bytes-in-a-long-path-"; 8].join("/");
    let file = |name: &str| format!("{deep}/{name}");
    let names = ["moved", "linked", "changed", "exchanged", "hard"];
    for name in names {
        f.lower(0).file(file(name), name).mode(0o644);
    }
    f.lower(0).hardlink(file("hard-too"), file("hard")).file(file("back"), "back");
    if mode() == Mode::Root {
        f.options.push("metacopy=on,redirect_dir=on".into());
    }
    f.mount();
    sys::mkdir(f.p("to"), 0o755).unwrap();
    sys::rename(f.p(file("moved")), f.p("to/moved")).unwrap();
    sys::link(f.p(file("linked")), f.p("to/linked")).unwrap();
    // Only its metadata is up when it moves.
    sys::chmod(f.p(file("changed")), 0o600).unwrap();
    sys::rename(f.p(file("changed")), f.p("to/changed")).unwrap();
    sys::renameat2(f.p(file("exchanged")), f.p(file("back")), libc::RENAME_EXCHANGE).unwrap();
    sys::rename(f.p(file("back")), f.p("to/exchanged")).unwrap();
    sys::link(f.p(file("hard")), f.p("to/hard")).unwrap();
    f.check(|m| {
        for name in names {
            assert_eq!(text(m.join("to").join(name)), name);
        }
        assert_eq!(text(m.join(file("exchanged"))), "back");
        assert_eq!(text(m.join(file("hard-too"))), "hard");
        assert_eq!(stat(m.join("to/changed")).mode() & 0o777, 0o600);
        for gone in ["moved", "changed"] {
            assert_eq!(missing(m.join(file(gone))), Errno::ENOENT);
        }
    });
}
