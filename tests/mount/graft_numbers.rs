//! Numbers of what is attached: one each, the same in stat, in listings and after a remount.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::common::*;

/// What tells an object: the directory it was found in first, and what it is there; all names of it give the same.
fn numbers(root: &Path) -> HashMap<PathBuf, u64> {
    let mut all = HashMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let own = stat(&dir).ino();
        for e in Dir::open(&dir).unwrap().rest() {
            let path = dir.join(&e.name);
            if e.name == "." {
                assert_eq!(e.ino, own, "{}", path.display());
            }
            if e.name == "." || e.name == ".." {
                continue;
            }
            let found = stat(&path);
            assert_eq!(e.ino, found.ino(), "{}", path.display());
            assert_eq!(u32::from(e.kind) << 12, found.mode() & libc::S_IFMT, "{}", path.display());
            if found.is_dir() {
                todo.push(path.clone());
            }
            all.insert(path, found.ino());
        }
    }
    all
}

/// No two objects show one number; names of one object are those that `same` gives.
fn different(root: &Path, same: &[[&str; 2]]) {
    let all = numbers(root);
    let mut by_number: HashMap<u64, Vec<&PathBuf>> = HashMap::new();
    for (path, ino) in &all {
        by_number.entry(*ino).or_default().push(path);
    }
    let shared = by_number.values().filter(|paths| paths.len() > 1).count();
    assert_eq!(shared, same.len(), "{by_number:#?}");
    for [one, two] in same {
        assert_eq!(all[&root.join(one)], all[&root.join(two)], "{one} {two}");
    }
}

fn many() -> Option<Fixture> {
    let mut f = Fixture::new(2)?.departs("grafts")?;
    f.lower(0).file("low", "1").hardlink("low2", "low").dir("dir/inner").file("dir/inner/f", "f");
    f.lower(1).file("dir/lower", "2");
    f.upper().file("up", "3").dir("dir").file("dir/up", "4");
    f.source("a").file("f", "a").hardlink("d/f2", "f").dir("d/e").symlink("l", "f");
    f.source("b").file("f", "b").dir("deep/er");
    f.source("").file("single", "s");
    f.bind("a", "/a", "");
    f.bind("a", "/again/a", "ro");
    f.bind("b", "/dir/b", "cache=always");
    f.bind("single", "/dir/inner/single", "");
    f.bind("single", "/dir/inner/pinned", "pin=inode");
    f.bind("b", "/dir/b/deep/made/b", "");
    f.bind("a", "/cow", "O");
    Some(f)
}

const SAME: [[&str; 2]; 4] =
    [["low", "low2"], ["a/f", "a/d/f2"], ["again/a/f", "again/a/d/f2"], ["cow/f", "cow/d/f2"]];

#[test]
fn numbers_are_one_each_and_stay() {
    let Some(mut f) = many() else { return };
    f.mount();
    let before = numbers(&f.p(""));
    different(&f.p(""), &SAME);
    f.remount();
    assert_eq!(numbers(&f.p("")), before);
    // In another order of asking, too.
    f.remount();
    let mut paths: Vec<_> = before.iter().collect();
    paths.sort();
    for (path, ino) in paths.into_iter().rev() {
        assert_eq!(stat(path).ino(), *ino, "{}", path.display());
    }
    different(&f.p(""), &SAME);
}

#[test]
fn numbers_stay_while_others_change_what_is_there() {
    let Some(mut f) = many() else { return };
    f.mount();
    let number = stat(f.p("a/f")).ino();
    sys::rename(f.host("a/f"), f.host("a/moved")).unwrap();
    assert_eq!((stat(f.p("a/moved")).ino(), stat(f.p("a/d/f2")).ino()), (number, number));
    sys::unlink(f.host("a/d/f2")).unwrap();
    sys::rename(f.p("a/moved"), f.p("a/d/again")).unwrap();
    assert_eq!((stat(f.p("a/d/again")).ino(), stat(f.p("a/d/again")).nlink()), (number, 1));
    let dir = stat(f.p("a/d/e")).ino();
    sys::rename(f.host("a/d/e"), f.host("a/e")).unwrap();
    assert_eq!(stat(f.p("a/e")).ino(), dir);
    for i in 0..50 {
        fs::write(f.host(format!("a/n{i}")), "").unwrap();
        if i % 3 == 0 {
            sys::unlink(f.host(format!("a/n{i}"))).unwrap();
            fs::create_dir(f.host(format!("a/d{i}"))).unwrap();
        }
        numbers(&f.p("a"));
    }
    let before = numbers(&f.p("a"));
    f.remount();
    let after = numbers(&f.p("a"));
    assert_eq!(after.len(), before.len());
    assert_eq!(after[&f.p("a/d/again")], number);
}

/// Mounts inside a source have numbers of their own, which may be those of other objects of it.
#[test]
fn mounts_inside_a_source_have_other_numbers() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_tmpfs) else { return };
    f.lower(0).file("low", "low");
    f.source("a").file("f", "a").dir("t1").dir("d/t2").file("file", "covered");
    let mut inside = Vec::new();
    for (at, size) in [("t1", "size=1m"), ("d/t2", "size=2m")] {
        let path = f.host("a").join(at);
        let flags = ["-t", "tmpfs", "-o", size, "none"];
        run(std::process::Command::new("mount").args(flags).arg(&path)).ok();
        inside.push(Umount(path.clone()));
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("x"), at).unwrap();
        sys::link(path.join("x"), path.join("d/x2")).unwrap();
    }
    let over = f.host("a/file");
    run(std::process::Command::new("mount").arg("--bind").arg(f.host("a/t1/x")).arg(&over)).ok();
    inside.push(Umount(over));
    f.bind("a", "/a", "");
    // Leaving mounts out takes a private mount of the source, with mount_setattr(2).
    let alone = older_kernel().is_none();
    if alone {
        f.bind("a", "/alone", "nonrecursive");
    }
    f.mount();
    f.check(|m| {
        let all = numbers(&m.join("a"));
        assert_eq!(text(m.join("a/file")), "t1");
        // The same file by three names of two mounts.
        assert_eq!(all[&m.join("a/file")], all[&m.join("a/t1/x")]);
        assert_eq!(all[&m.join("a/t1/x")], all[&m.join("a/t1/d/x2")]);
        let objects: std::collections::HashSet<_> = all.values().collect();
        assert_eq!(objects.len(), all.len() - 3, "{all:#?}");
        assert_eq!(stat(m.join("a/t1/x")).nlink(), 2);
        assert_eq!(sys::link(m.join("a/t1/x"), m.join("a/new")), Err(Errno::EXDEV));
        assert_eq!(sys::rename(m.join("a/t1/x"), m.join("a/d/t2/new")), Err(Errno::EXDEV));
        assert_eq!(sys::rmdir(m.join("a/t1")), Err(Errno::EBUSY));
        let size = |path: &str| sys::statvfs(m.join(path)).map(|room| room.f_blocks * room.f_frsize);
        assert_eq!((size("a/t1"), size("a/d/t2/d")), (Ok(1 << 20), Ok(2 << 20)));
        if alone {
            let covered = (names(m.join("alone/t1")), text(m.join("alone/file")));
            assert_eq!(covered, (Vec::<String>::new(), "covered".into()));
            numbers(&m.join("alone"));
        }
    });
    f.unmount();
    drop(inside);
}
