//! `writeback=on`: the kernel writes later, by whatever descriptor it has.

use std::path::Path;
use std::process::Command;

use crate::common::*;

#[test]
fn a_part_of_a_page_is_written_by_who_may_only_write() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no such cache")) else { return };
    f.lower(0).file("low", "0123456789").file("other", "0123456789");
    f.options = vec!["writeback=on".into()];
    f.mount();
    let w = sys::open(f.p("low"), libc::O_WRONLY, 0).unwrap();
    w.write_all_at(b"ab", 3).unwrap();
    w.sync_all().unwrap();
    drop(w);
    fs::write(f.p("new"), "0123456789").unwrap();
    f.remount();
    let a = sys::open(f.p("new"), libc::O_WRONLY, 0).unwrap();
    a.write_all_at(b"ab", 3).unwrap();
    drop(a);
    // Open for reading before the copy-up, and for writing alone after it.
    let r = ro(f.p("other"));
    let w = sys::open(f.p("other"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
    w.write_all_at(b"cd", 0).unwrap();
    assert_eq!(through(&r), b"0123456789cd");
    drop((r, w));
    f.check(|m| {
        assert_eq!(text(m.join("low")), "012ab56789");
        assert_eq!(text(m.join("new")), "012ab56789");
        assert_eq!(text(m.join("other")), "0123456789cd");
    });
}

/// With this cache the kernel keeps the times of a file itself. What it shows is what is on disk in the end.
#[test]
fn times_are_those_of_the_next_mount() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no such cache")) else { return };
    type Change = (&'static str, fn(&Path));
    fn file(path: &Path) -> File {
        rw(path)
    }
    let changes: [Change; 22] = [
        ("truncate to the same", |p| sys::truncate(p, 10).unwrap()),
        ("ftruncate to the same", |p| file(p).set_len(10).unwrap()),
        ("truncate shorter", |p| sys::truncate(p, 3).unwrap()),
        ("truncate longer", |p| sys::truncate(p, 30).unwrap()),
        ("truncate to nothing twice", |p| (0..2).for_each(|_| sys::truncate(p, 0).unwrap())),
        ("O_TRUNC", |p| drop(sys::open(p, libc::O_RDWR | libc::O_TRUNC, 0).unwrap())),
        ("O_TRUNC twice", |p| {
            (0..2).for_each(|_| drop(sys::open(p, libc::O_RDWR | libc::O_TRUNC, 0).unwrap()))
        }),
        ("write", |p| file(p).write_all_at(b"x", 4).unwrap()),
        ("append", |p| {
            sys::open(p, libc::O_WRONLY | libc::O_APPEND, 0).unwrap().write_all_at(b"x", 0).unwrap()
        }),
        ("write and utimens", |p| {
            file(p).write_all_at(b"x", 4).unwrap();
            sys::utimens(p, (5, 5), (7, 7)).unwrap();
        }),
        ("utimens and write", |p| {
            sys::utimens(p, (5, 5), (7, 7)).unwrap();
            file(p).write_all_at(b"x", 4).unwrap();
        }),
        ("utimens", |p| sys::utimens(p, (5, 5), (7, 7)).unwrap()),
        ("fallocate", |p| sys::fallocate(&file(p), 0, 0, 9000).unwrap()),
        ("fallocate inside", |p| sys::fallocate(&file(p), libc::FALLOC_FL_KEEP_SIZE, 0, 9000).unwrap()),
        ("punch", |p| {
            sys::fallocate(&file(p), libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE, 0, 5).unwrap()
        }),
        ("copy_file_range", |p| {
            assert_eq!(sys::copy_file_range(&ro(p.with_file_name("from")), 0, &file(p), 0, 4), Ok(4))
        }),
        ("chmod", |p| sys::chmod(p, 0o600).unwrap()),
        ("setxattr", |p| sys::setxattr(p, "user.a", b"1", 0).unwrap()),
        ("link", |p| sys::link(p, p.with_extension("linked")).unwrap()),
        ("rename", |p| {
            sys::rename(p, p.with_extension("moved")).unwrap();
            sys::rename(p.with_extension("moved"), p).unwrap();
        }),
        ("map", |p| Map::writable(&file(p), 10).put(0, b"mapped")),
        ("write and chmod", |p| {
            file(p).write_all_at(b"x", 4).unwrap();
            sys::chmod(p, 0o600).unwrap();
        }),
    ];
    let name = |change: &str| change.replace(' ', "-");
    for at in ["low", "up", "data"] {
        for (change, _) in &changes {
            let path = format!("{at}/{}", name(change));
            match at {
                "low" => drop(f.lower(0).file(path, "0123456789").mtime(1000, 1)),
                "up" => drop(f.upper().file(path, "0123456789").mtime(1000, 1)),
                _ => drop(f.source("data").file(name(change), "0123456789").mtime(1000, 1)),
            }
        }
    }
    drop(f.lower(0).file("low/from", "from"));
    drop(f.upper().file("up/from", "from"));
    drop(f.source("data").file("from", "from"));
    f.bind("data", "/data", "cache=always");
    f.options = vec!["writeback=on".into()];
    f.mount();
    let mut before = Vec::new();
    for at in ["low", "up", "data"] {
        for (change, make) in &changes {
            let path = f.p(at).join(name(change));
            make(&path);
            before.push((format!("{at}: {change}"), path.clone(), mtime(&path), stat(&path).len()));
        }
    }
    f.remount();
    let differs: Vec<String> = before
        .iter()
        .filter(|(_, path, time, len)| (mtime(path), stat(path).len()) != (*time, *len))
        .map(|(what, path, time, _)| {
            format!("{what}: {time:?} before, {:?} after unmount and mount", mtime(path))
        })
        .collect();
    assert!(differs.is_empty(), "{}", differs.join("\n"));
}

/// The kernel would never ask for the size of a file that the host changes.
#[test]
fn a_tree_of_the_host_is_refused_beside_this_cache() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no such cache")) else { return };
    f.source("data").file("f", "x");
    f.options = vec!["writeback=on".into()];
    f.bind("data", "/data", "");
    let done = f.try_mount(&[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains("`writeback=on`")
            && done.err.contains("/data")
            && done.err.contains("cache=always"),
        "{}",
        done.err
    );
    f.args.clear();
    f.bind("data", "/data", "O");
    f.mount();
    fs::write(f.p("data/f"), "own").unwrap();
    assert_eq!(text(f.host("data/f")), "x");
    let source = format!("{}:/live", f.host("data").display());
    let done = run(Command::new(program()).args(["graft", "add"]).arg(f.p("")).args(["-v", &source]));
    assert!(done.code != Some(0) && done.err.contains("`writeback=on`"), "{done:?}");
}
