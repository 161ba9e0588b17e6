//! Listings: complete, without doubles, with positions that can be gone back to.

use crate::common::*;
use std::collections::HashSet;
use std::path::Path;

/// Names given by a stream, `.` and `..` left out.
fn plain(all: Vec<sys::Dent>) -> Vec<String> {
    let names = all.into_iter().map(|e| e.name.into_string().unwrap());
    names.filter(|n| n != "." && n != "..").collect()
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}

#[test]
fn merged_listing_has_each_name_once() {
    let Some(mut f) = Fixture::new(3) else { return };
    for i in 0..100 {
        f.lower(2).file(format!("d/{i:03}"), "2");
        f.lower(1).file(format!("d/{:03}", i + 50), "1");
        f.lower(0).file(format!("d/{:03}", i + 100), "0");
    }
    f.upper().whiteout("d/000").file("d/999", "u");
    f.mount();
    f.check(|m| {
        let all = plain(Dir::open(m.join("d")).unwrap().rest());
        assert_eq!(all.len(), 200);
        let want: Vec<String> = (1..200).map(|i| format!("{i:03}")).chain(["999".into()]).collect();
        assert_eq!(sorted(all), want);
    });
}

#[test]
fn dot_and_dotdot_are_there() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("d/e");
    f.mount();
    f.check(|m| {
        for dir in ["", "d", "d/e"] {
            let all = Dir::open(m.join(dir)).unwrap().rest();
            for dot in [".", ".."] {
                assert_eq!(all.iter().filter(|e| e.name == dot).count(), 1, "{dir}: {dot}");
            }
            let dot = all.iter().find(|e| e.name == ".").unwrap();
            assert_eq!((dot.ino, dot.kind), (stat(m.join(dir)).ino(), libc::DT_DIR), "{dir}");
        }
        let all = Dir::open(m.join("d/e")).unwrap().rest();
        assert_eq!(all.iter().find(|e| e.name == "..").unwrap().ino, stat(m.join("d")).ino());
    });
}

/// The number and kind in a listing are those that stat gives, in pure and merged directories alike.
#[test]
fn numbers_and_kinds_agree_with_stat() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("m/low", "1").file("m/both", "1").dir("m/dir").symlink("m/link", "x").file("pure/a", "1");
    f.lower(0).file("m/top", "0").file("m/both", "0").node("m/fifo", libc::S_IFIFO | 0o600, 0).dir("m/dir");
    f.upper().file("m/up", "u").file("up/a", "u");
    f.mount();
    fs::write(f.p("m/low"), "copied up").unwrap();
    sys::chmod(f.p("pure/a"), 0o600).unwrap();
    sys::rename(f.p("m/top"), f.p("up/moved")).unwrap();
    sys::rename(f.p("pure"), f.p("up/pure")).unwrap();
    f.check(|m| {
        for dir in ["", "m", "up", "up/pure"] {
            let all = dents(m.join(dir));
            assert!(!all.is_empty());
            for e in all {
                let s = stat(m.join(dir).join(&e.name));
                let kind = libc::S_IFMT & s.mode();
                assert_eq!(e.ino, s.ino(), "{dir}/{:?}", e.name);
                assert_eq!(u32::from(e.kind) << 12, kind, "{dir}/{:?}", e.name);
            }
        }
    });
}

#[test]
fn rewinding_sees_new_names() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/a", "").file("d/b", "");
    f.mount();
    let mut dir = Dir::open(f.p("d")).unwrap();
    assert_eq!(sorted(plain(dir.rest())), ["a", "b"]);
    fs::write(f.p("d/c"), "").unwrap();
    sys::unlink(f.p("d/a")).unwrap();
    dir.rewind();
    assert_eq!(sorted(plain(dir.rest())), ["b", "c"]);
    sys::rename(f.p("d/b"), f.p("d/z")).unwrap();
    dir.rewind();
    assert_eq!(sorted(plain(dir.rest())), ["c", "z"]);
}

/// Source: telldir(3), seekdir(3): a position leads back to the entry that followed it.
#[test]
fn positions_can_be_gone_back_to() {
    let Some(mut f) = Fixture::new(2) else { return };
    for i in 0..1500 {
        f.lower(i % 2).file(format!("d/file-with-a-longer-name-{i}"), "");
    }
    f.mount();
    let mut dir = Dir::open(f.p("d")).unwrap();
    let mut seen = vec![];
    loop {
        let at = dir.tell();
        let Some(e) = dir.next() else { break };
        seen.push((at, e.name));
    }
    let total = seen.len();
    assert!(total == 1500 || total == 1502, "{total} entries");
    let positions: HashSet<i64> = seen.iter().map(|(at, _)| *at).collect();
    assert_eq!(positions.len(), seen.len(), "two entries share a position");
    for i in (0..seen.len()).rev().step_by(37).chain([0, 1, 2, total - 1]) {
        dir.seek(seen[i].0);
        assert_eq!(dir.next().unwrap().name, seen[i].1, "entry {i}");
    }
    dir.seek(seen[700].0);
    assert_eq!(dir.rest().len(), total - 700);
}

/// Source: POSIX readdir(): what is neither added nor removed while a listing goes on is given exactly once.
#[test]
fn deleting_while_listing_misses_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..2000 {
        f.lower(0).file(format!("d/low{i}"), "");
    }
    f.mount();
    for i in 0..1000 {
        fs::write(f.p(format!("d/up{i}")), "").unwrap();
    }
    let mut dir = Dir::open(f.p("d")).unwrap();
    let mut seen = HashSet::new();
    while let Some(e) = dir.next() {
        if e.name == "." || e.name == ".." {
            continue;
        }
        sys::unlink(f.p("d").join(&e.name)).unwrap();
        assert!(seen.insert(e.name), "given twice");
    }
    assert_eq!(seen.len(), 3000);
    drop(dir);
    assert_eq!(names(f.p("d")), [""; 0]);
    sys::rmdir(f.p("d")).unwrap();
    f.check(|m| assert_eq!(names(m), [""; 0]));
}

#[test]
fn adding_while_listing_gives_the_old_names_once() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..500 {
        f.lower(0).file(format!("d/old{i}"), "");
    }
    f.mount();
    let mut dir = Dir::open(f.p("d")).unwrap();
    let mut old = vec![];
    let mut n = 0;
    while let Some(e) = dir.next() {
        let name = e.name.into_string().unwrap();
        if name.starts_with("old") {
            old.push(name);
        }
        if n < 500 {
            fs::write(f.p(format!("d/new{n}")), "").unwrap();
            n += 1;
        }
    }
    let unique: HashSet<&String> = old.iter().collect();
    assert_eq!((old.len(), unique.len()), (500, 500));
}

#[test]
fn twenty_thousand_entries() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(0).dir("d");
    f.lower(1).dir("d");
    for i in 0..20_000 {
        File::create(f.low(i % 2, format!("d/entry-{i:05}"))).unwrap();
    }
    f.mount();
    f.check(|m| {
        let mut dir = Dir::open(m.join("d")).unwrap();
        let all = sorted(plain(dir.rest()));
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().enumerate().all(|(i, n)| *n == format!("entry-{i:05}")));
        assert_eq!(stat(m.join("d/entry-19999")).len(), 0);
        assert_eq!(missing(m.join("d/entry-20000")), Errno::ENOENT);
    });
}

#[test]
fn a_removed_directory_lists_nothing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).dir("low");
    f.mount();
    sys::mkdir(f.p("up"), 0o755).unwrap();
    for name in ["low", "up"] {
        let handle = ro(f.p(name));
        sys::rmdir(f.p(name)).unwrap();
        let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        let left = match Dir::open(proc) {
            Ok(mut d) => plain(d.rest()),
            Err(e) => {
                assert_eq!(e, Errno::ENOENT);
                vec![]
            }
        };
        assert_eq!(left, [""; 0], "{name}");
    }
}

#[test]
fn listing_needs_permission() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("secret/a", "x").dir("secret").mode(0o700);
    f.lower(0).file("blind/a", "x").dir("blind").mode(0o711);
    f.mount();
    let (secret, blind) = (f.p("secret"), f.p("blind"));
    as_user(1000, 1000, || {
        assert_eq!(Dir::open(&secret).err(), Some(Errno::EACCES));
        assert_eq!(missing(secret.join("a")), Errno::EACCES);
        assert_eq!(Dir::open(&blind).err(), Some(Errno::EACCES));
        assert_eq!(text(blind.join("a")), "x");
    });
}

/// A listing made before a copy-up, a whiteout or a rename is not shown after it.
#[test]
fn every_change_is_in_the_next_listing() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("d/a", "").file("d/b", "").dir("d/sub").dir("e");
    f.mount();
    let d = f.p("d");
    let look = |want: &[&str]| assert_eq!(names(&d), want);
    look(&["a", "b", "sub"]);
    sys::mkdir(d.join("new"), 0o755).unwrap();
    look(&["a", "b", "new", "sub"]);
    sys::symlink("x", d.join("link")).unwrap();
    look(&["a", "b", "link", "new", "sub"]);
    sys::rename(d.join("sub"), f.p("e/sub")).unwrap();
    look(&["a", "b", "link", "new"]);
    sys::unlink(d.join("a")).unwrap();
    look(&["b", "link", "new"]);
    sys::rmdir(d.join("new")).unwrap();
    look(&["b", "link"]);
    sys::link(d.join("b"), d.join("a")).unwrap();
    look(&["a", "b", "link"]);
    sys::mknod(d.join("fifo"), libc::S_IFIFO | 0o600, 0).unwrap();
    look(&["a", "b", "fifo", "link"]);
    sys::rename(f.p("e/sub"), d.join("back")).unwrap();
    look(&["a", "b", "back", "fifo", "link"]);
}

/// A directory that is open for long is listed right again and again, whatever came and went meanwhile.
#[test]
fn a_directory_kept_open_is_listed_right_after_many_names_came_and_went() {
    let Some(mut f) = Fixture::new(1) else { return };
    for i in 0..300 {
        f.lower(0).file(format!("d/low{i:03}"), "x");
    }
    f.mount();
    let mut first = Dir::open(f.p("d")).unwrap();
    assert_eq!(plain(first.rest()).len(), 300);
    let mut want: Vec<String> = (0..300).map(|i| format!("low{i:03}")).collect();
    for round in 0..12 {
        for i in 0..100 {
            fs::write(f.p(format!("d/{round}-{i}")), "").unwrap();
            sys::unlink(f.p(format!("d/{round}-{i}"))).unwrap();
        }
        sys::unlink(f.p("d").join(want.remove(0))).unwrap();
        fs::write(f.p(format!("d/new{round:02}")), "").unwrap();
        want.push(format!("new{round:02}"));
        // Somebody who is in the middle is not disturbed, and neither is who comes after.
        let second = (round % 3 == 0).then(|| {
            let mut second = Dir::open(f.p("d")).unwrap();
            (0..5).for_each(|_| drop(second.next()));
            second
        });
        first.rewind();
        assert_eq!(sorted(plain(first.rest())), want, "round {round}");
        if let Some(mut second) = second {
            assert!(plain(second.rest()).len() >= want.len() - 5);
        }
        assert_eq!(sorted(plain(Dir::open(f.p("d")).unwrap().rest())), want, "round {round}, anew");
    }
    drop(first);
    f.check(|m| assert_eq!(names(m.join("d")), want));
}

/// What was looked up before is listed by what is known of it, and shows what it has become since.
#[test]
fn names_that_are_known_are_listed_as_they_are_now() {
    let Some(mut f) = Fixture::new(6) else { return };
    for name in ["written", "chmod", "over", "moved", "again", "gone"] {
        f.lower(1).file(format!("d/{name}"), name);
    }
    f.lower(1).file("d/link0", "linked").hardlink("d/link1", "d/link0");
    f.lower(0).file("d/gone", "").file("d/empty", "");
    // Unless it is known, a listing does not ask for a directory of many layers.
    for layer in 0..6 {
        f.lower(layer).dir("d/everywhere").dir("d/opened");
    }
    f.mount();
    for e in dents(f.p("d")) {
        stat(f.p("d").join(e.name));
    }
    fs::write(f.p("d/written"), "longer than it was").unwrap();
    sys::chmod(f.p("d/chmod"), 0o751).unwrap();
    sys::rename(f.p("d/moved"), f.p("d/over")).unwrap();
    fs::remove_file(f.p("d/again")).unwrap();
    fs::create_dir(f.p("d/again")).unwrap();
    fs::remove_file(f.p("d/gone")).unwrap();
    fs::write(f.p("d/link1"), "both have").unwrap();
    sys::chmod(f.p("d/everywhere"), 0o700).unwrap();
    fs::write(f.p("d/opened/new"), "new").unwrap();
    f.check(|m| {
        let mut all: Vec<_> = dents(m.join("d"))
            .into_iter()
            .map(|e| {
                let s = stat(m.join("d").join(&e.name));
                assert_eq!((e.ino, u32::from(e.kind) << 12), (s.ino(), libc::S_IFMT & s.mode()), "{e:?}");
                let size = if s.is_dir() { 0 } else { s.size() };
                (e.name.into_string().unwrap(), s.mode() & 0o777, size)
            })
            .collect();
        all.sort();
        let want = [
            ("again", 0o755, 0),
            ("chmod", 0o751, 5),
            ("empty", 0o644, 0),
            ("everywhere", 0o700, 0),
            ("link0", 0o644, 9),
            ("link1", 0o644, 9),
            ("opened", 0o755, 0),
            ("over", 0o644, 5),
            ("written", 0o644, 18),
        ];
        assert_eq!(all, want.map(|(name, mode, size)| (name.to_owned(), mode, size)));
    });
}

/// A directory of many layers is listed without a look at its layers, and looked up by whoever uses it then.
#[test]
fn directories_of_many_layers_are_listed_before_they_are_looked_up() {
    let Some(mut f) = Fixture::new(6) else { return };
    let names = ["changed", "filled", "gone", "hidden", "made-again", "moved", "renamed", "seen"];
    for layer in 0..6 {
        for name in names {
            f.lower(layer).dir(format!("d/{name}")).file(format!("d/{name}/{layer}"), name);
        }
    }
    f.lower(0).dir("d/seen").mode(0o711);
    f.lower(2).opaque("d/hidden");
    f.mount();
    let list = |m: &Path| dents(m.join("d")).into_iter().map(|e| (e.name, e.ino)).collect::<Vec<_>>();
    let listed = list(&f.p(""));
    let opened = File::open(f.p("d/seen")).unwrap();
    // Twice, and then used: each lookup that the kernel takes back is one of those that it was told of.
    assert_eq!(list(&f.p("")), listed);
    sys::chmod(f.p("d/changed"), 0o700).unwrap();
    fs::write(f.p("d/filled/new"), "new").unwrap();
    fs::remove_dir_all(f.p("d/gone")).unwrap();
    fs::remove_dir_all(f.p("d/made-again")).unwrap();
    fs::create_dir(f.p("d/made-again")).unwrap();
    sys::rename(f.p("d/moved"), f.p("moved")).unwrap();
    sys::rename(f.p("d/renamed"), f.p("d/other")).unwrap();
    assert_eq!(opened.metadata().unwrap().ino(), stat(f.p("d/seen")).ino());
    drop(opened);
    f.check(|m| {
        for round in 0..2 {
            let mut all: Vec<_> = list(m)
                .into_iter()
                .map(|(name, ino)| {
                    let path = m.join("d").join(&name);
                    assert_eq!(ino, stat(&path).ino(), "{name:?} in round {round}");
                    let (mode, inside) = (stat(&path).mode() & 0o777, fs::read_dir(&path).unwrap().count());
                    (name.into_string().unwrap(), mode, inside)
                })
                .collect();
            all.sort();
            let want = [
                ("changed", 0o700, 6),
                ("filled", 0o755, 7),
                ("hidden", 0o755, 3),
                ("made-again", 0o755, 0),
                ("other", 0o755, 6),
                ("seen", 0o711, 6),
            ];
            assert_eq!(
                all,
                want.map(|(name, mode, inside)| (name.to_owned(), mode, inside)),
                "round {round}"
            );
        }
        assert_eq!(fs::read_dir(m.join("moved")).unwrap().count(), 6);
    });
}

/// `impure` says that a directory has children with the number of a lower object. Listing it takes the mark away where none has,
/// as in the kernel.
#[test]
fn a_directory_is_marked_impure_while_it_has_a_child_from_below() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "x").file("both/low", "x").file("both/other", "x");
    f.mount();
    let marked = |f: &Fixture, dir: &str| sys::getxattr(f.up(dir), overlay_xattr("impure")).is_ok();
    sys::mkdir(f.p("d"), 0o755).unwrap();
    sys::mkdir(f.p("d/own"), 0o755).unwrap();
    assert!(!marked(&f, "d"));
    sys::rename(f.p("low"), f.p("d/low")).unwrap();
    assert_eq!((names(f.p("d")), marked(&f, "d")), (vec!["low".into(), "own".into()], true));
    f.check(|m| {
        let entry = dents(m.join("d")).into_iter().find(|entry| entry.name == "low").unwrap();
        assert_eq!(entry.ino, stat(m.join("d/low")).ino());
    });
    sys::unlink(f.p("d/low")).unwrap();
    assert_eq!((names(f.p("d")), marked(&f, "d")), (vec!["own".into()], false));
    // And again, so that nothing remembers that there was none.
    sys::rename(f.p("both/low"), f.p("d/again")).unwrap();
    assert!(marked(&f, "d"));
    f.check(|m| {
        let entry = dents(m.join("d")).into_iter().find(|entry| entry.name == "again").unwrap();
        assert_eq!(entry.ino, stat(m.join("d/again")).ino());
    });
    // One that is merged keeps it: lower children may come up at any time.
    fs::write(f.p("both/other"), "y").unwrap();
    sys::unlink(f.p("both/other")).unwrap();
    assert_eq!((names(f.p("both")), marked(&f, "both")), (vec![], true));
}
