//! Layers that somebody made to do harm, or that are damaged: whatever is in them, the mount stays within them, goes on
//! answering, and changes no lower layer. A canary beside the layers must be neither shown nor changed.
//! `hostile_trees` has random ones.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::common::*;

/// What nobody may see through the mount.
const SECRET: &str = "the canary outside of all layers";

/// Ways out, if any of them led anywhere.
pub const WAYS: [&[u8]; 22] = [
    b"..",
    b"../canary",
    b"../canary/secret",
    b"/../canary",
    b"/a/../../canary",
    b"/a/../../../../../../../../etc",
    b"/etc",
    b"/link",
    b"/link/secret",
    b"/a/link/sub",
    b"link",
    b"a\0/../../canary",
    b"\0",
    b"/",
    b"//canary",
    b"/./../canary",
    b"/a/.wh..wh..opq",
    b".wh.a",
    b"/b",
    b"/a/b/c",
    b"a",
    b"\xff\xfe",
];

/// One look at an object: what it is and holds, or why that cannot be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Dir(u32),
    File(u32, Result<Vec<u8>, Errno>),
    Symlink(PathBuf),
    Other(u32, u64),
    Error(Errno),
}

/// Everything that the mount shows, at most so many names. Symlinks are not followed: that would be the caller leaving the
/// mount, not the mount.
pub fn walk(root: &Path, most: usize) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        let Ok(mut stream) = Dir::open(root.join(&dir)) else {
            seen.insert(dir.join("?"), Seen::Error(Errno::EIO));
            continue;
        };
        for entry in stream.rest().into_iter().filter(|entry| entry.name != "." && entry.name != "..") {
            let path = dir.join(&entry.name);
            assert!(seen.len() < most, "more than {most} names, the last one {}", path.display());
            let look = look(&root.join(&path));
            if matches!(look, Seen::Dir(_)) {
                todo.push(path.clone());
            }
            seen.insert(path, look);
        }
    }
    seen
}

fn look(path: &Path) -> Seen {
    let facts = match no(path.symlink_metadata()) {
        Ok(facts) => facts,
        Err(errno) => {
            alive(errno);
            return Seen::Error(errno);
        }
    };
    let mode = facts.mode();
    if facts.is_dir() {
        return Seen::Dir(mode);
    }
    if facts.file_type().is_symlink() {
        return no(fs::read_link(path)).map_or_else(Seen::Error, Seen::Symlink);
    }
    if !facts.is_file() {
        return Seen::Other(mode, facts.rdev());
    }
    let open = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut bytes = Vec::new();
    let read = no(open).and_then(|file| no(file.take(1 << 16).read_to_end(&mut bytes)));
    if let Err(errno) = read {
        alive(errno);
    }
    let found = String::from_utf8_lossy(&bytes).contains(SECRET);
    assert!(!found, "{} shows what is outside of all layers", path.display());
    Seen::File(mode, read.map(|_| bytes))
}

/// An answer is one of a living daemon.
#[track_caller]
pub fn alive(errno: Errno) {
    assert!(!matches!(errno, Errno::ENOTCONN | Errno::ECONNABORTED), "the daemon is gone");
}

/// A fixture with a canary that must be as it was after each unmount.
pub fn fixture(lowers: usize) -> Option<Fixture> {
    let mut f = Fixture::new(lowers).and_then(Fixture::need_root).and_then(|f| f.departs("its own ways"))?;
    fs::create_dir(f.dir().join("canary")).unwrap();
    fs::write(f.dir().join("canary/secret"), SECRET).unwrap();
    fs::create_dir(f.dir().join("canary/sub")).unwrap();
    f.kept.push(f.dir().join("canary"));
    Some(f)
}

fn set_mark(path: &Path, mark: &str, value: &[u8]) -> bool {
    // What a filesystem has no room for cannot do harm.
    sys::setxattr(path, &overlay_xattr(mark), value, 0).is_ok()
}

/// Directories and metacopy files that point at every way out, in each layer.
#[test]
fn redirects_do_not_leave_the_layer() {
    for writable in [false, true] {
        let Some(mut f) = fixture(2) else { return };
        let outside = f.dir().join("canary");
        let huge = [b"/".to_vec(), b"x".repeat(255)].concat().repeat(200);
        let ways: Vec<Vec<u8>> =
            WAYS.iter().map(|way| way.to_vec()).chain([b"l".repeat(300), b"/a".repeat(1500), huge]).collect();
        let tops: Vec<PathBuf> = match writable {
            true => vec![f.up(""), f.low(0, "")],
            false => vec![f.low(0, "")],
        };
        for at in tops.iter().chain([&f.low(1, "")]) {
            fs::create_dir_all(at.join("a/b/c")).unwrap();
            sys::symlink(&outside, at.join("link")).unwrap();
            sys::symlink("../../canary", at.join("a/link")).unwrap();
            fs::write(at.join("a/b/c/file"), "inside").unwrap();
        }
        for at in &tops {
            for (n, way) in ways.iter().enumerate() {
                let (dir, file) = (at.join(format!("dir{n}")), at.join(format!("file{n}")));
                fs::create_dir(&dir).unwrap();
                set_mark(&dir, "redirect", way);
                File::create(&file).unwrap().set_len(SECRET.len() as u64).unwrap();
                set_mark(&file, "metacopy", b"");
                set_mark(&file, "redirect", way);
            }
        }
        f.options = vec!["metacopy=on".into()];
        f.mount();
        let seen = walk(&f.p(""), 20_000);
        assert!(seen.keys().all(|path| !path.ends_with("secret")), "a name of the canary shows");
        // Whoever writes and removes there stays inside as well.
        for path in seen.keys().filter(|path| !matches!(seen[*path], Seen::Symlink(_))) {
            let at = f.p(path);
            for result in [
                sys::open(&at, libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_APPEND | libc::O_NONBLOCK, 0)
                    .map(drop),
                sys::mkdir(at.join("new"), 0o755),
                sys::rename(&at, f.p(format!("moved{}", path.display()).replace('/', "_"))),
            ] {
                result.unwrap_or_else(alive);
            }
        }
        let after = walk(&f.p(""), 20_000);
        f.remount();
        assert_eq!(walk(&f.p(""), 20_000), after);
    }
}

/// Directories that lead back to those they are in, through one layer and through several.
#[test]
fn redirects_in_a_circle_end() {
    let Some(mut f) = fixture(4) else { return };
    for layer in 0..4 {
        let at = |path: &str| f.low(layer, path);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::create_dir_all(at("d/e")).unwrap();
        fs::write(at(&format!("a/b/c/in{layer}")), "x").unwrap();
        for (dir, to) in [("a/b", "/a"), ("a/b/c", "/a/b"), ("d", "/a"), ("d/e", "/d"), ("a", "/d")] {
            assert!(set_mark(&at(dir), "redirect", to.as_bytes()));
        }
    }
    f.mount();
    let before = walk(&f.p(""), 10_000);
    assert!(before.len() > 3, "{before:?}");
    for path in before.keys().rev() {
        sys::rename(f.p(path), f.p("z")).unwrap_or_else(alive);
        sys::rename(f.p("z"), f.p(path)).unwrap_or_else(alive);
    }
    let after = walk(&f.p(""), 10_000);
    f.remount();
    assert_eq!(walk(&f.p(""), 10_000), after);
}

/// Five hundred layers, of which each hides names of the next, twenty times over.
#[test]
fn many_layers_of_marks() {
    let Some(mut f) = fixture(500) else { return };
    for layer in 0..500 {
        let dir = f.low(layer, "d");
        fs::create_dir(&dir).unwrap();
        for n in 0..20 {
            fs::write(dir.join(format!("n{layer}-{n}")), "").unwrap();
            let hidden = format!("n{}-{n}", layer + 1);
            match n % 3 {
                0 => sys::mknod(dir.join(hidden), libc::S_IFCHR, 0).unwrap(),
                1 => drop(File::create(dir.join(format!(".wh.{hidden}"))).unwrap()),
                _ => {}
            }
        }
        // Each layer that leads back shows all that is below it once more.
        if layer < 3 {
            fs::create_dir(dir.join("loop")).unwrap();
            set_mark(&dir.join("loop"), "redirect", b"/d");
        }
    }
    f.mount();
    let seen = walk(&f.p(""), 100_000);
    assert!(seen.contains_key(Path::new("d/n0-0")));
    assert!(!seen.contains_key(Path::new("d/n1-0")) && !seen.contains_key(Path::new("d/n1-1")));
    assert!(seen.contains_key(Path::new("d/n1-2")));
}

/// Names that archives of layers use for marks, as objects of every kind.
#[test]
fn names_of_marks_are_no_objects_of_any_kind() {
    let Some(mut f) = fixture(2) else { return };
    let names = [".wh.a", ".wh..wh..opq", ".wh..wh.plnk", ".wh..wh.aufs", ".wh.", ".wh..wh.", ".wh.."];
    for layer in 0..2 {
        for (kind, dir) in ["dir", "link", "fifo", "socket", "char", "full"].into_iter().enumerate() {
            fs::create_dir(f.low(layer, dir)).unwrap();
            fs::write(f.low(layer, format!("{dir}/a")), "a").unwrap();
            for name in names.iter().map(|name| f.low(layer, format!("{dir}/{name}"))) {
                match kind {
                    0 => fs::create_dir_all(name.join("in")).unwrap(),
                    1 => sys::symlink(f.dir().join("canary"), name).unwrap(),
                    2 => sys::mknod(name, libc::S_IFIFO | 0o666, 0).unwrap(),
                    3 => sys::mknod(name, libc::S_IFSOCK | 0o666, 0).unwrap(),
                    4 => sys::mknod(name, libc::S_IFCHR | 0o666, 1).unwrap(),
                    _ => fs::write(name, SECRET).unwrap(),
                }
            }
        }
    }
    f.mount();
    let seen = walk(&f.p(""), 100);
    let marks: Vec<_> = seen.keys().filter(|path| path.display().to_string().contains(".wh.")).collect();
    assert!(marks.is_empty(), "shown: {marks:?}");
    for dir in ["dir", "link", "fifo", "socket", "char", "full"] {
        fs::remove_dir_all(f.p(dir)).unwrap();
        sys::mkdir(f.p(dir), 0o755).unwrap();
    }
    f.check(|root| assert_eq!(walk(root, 100).len(), 6));
}

/// Attributes as large as the filesystem takes them, of every name that means something.
#[test]
fn huge_attributes() {
    let Some(mut f) = fixture(2) else { return };
    for layer in 0..2 {
        for (n, mark) in MARKS.iter().enumerate() {
            for (m, len) in [2000, 60_000, 65_536].into_iter().enumerate() {
                for kind in ["file", "dir"] {
                    let path = f.low(layer, format!("{kind}{n}-{m}"));
                    if kind == "dir" {
                        fs::create_dir(&path).unwrap()
                    } else {
                        fs::write(&path, "data").unwrap()
                    }
                    // As long as there is room.
                    (1..6).any(|shift| sys::setxattr(&path, mark, &b"x".repeat(len >> shift), 0).is_ok());
                }
            }
        }
    }
    f.mount();
    let seen = walk(&f.p(""), 1000);
    for path in seen.keys() {
        // None of them is a symlink.
        sys::chmod(f.p(path), 0o700).unwrap_or_else(alive);
    }
    let after = walk(&f.p(""), 1000);
    f.remount();
    assert_eq!(walk(&f.p(""), 1000), after);
}

/// Every attribute that means something to the mount.
pub const MARKS: [&str; 15] = [
    "trusted.overlay.opaque",
    "trusted.overlay.redirect",
    "trusted.overlay.metacopy",
    "trusted.overlay.origin",
    "trusted.overlay.impure",
    "trusted.overlay.nlink",
    "trusted.overlay.upper",
    "trusted.overlay.protattr",
    "trusted.overlay.whiteout",
    "trusted.overlay.overlay.opaque",
    "user.overlay.redirect",
    "user.fuseoverlayfs.opaque",
    "user.containers.override_stat",
    "user.fuseoverlayfs.origin",
    "system.posix_acl_default",
];

/// Origins that are those of other objects: of the canary, of a file that shows beside it, of a directory for a file, and of one for
/// all, as a careless copy of an upper layer leaves them. None may make two objects one, or show what is not in a layer.
#[test]
fn origins_of_others_make_no_two_objects_one() {
    let Some(mut f) = fixture(1) else { return };
    f.lower(0).file("low", "of the lower layer").file("d/in", "in").file("mark", "x").file("e/mark", "y");
    fs::write(f.up("first"), "first of the upper layer").unwrap();
    // The kernel's own form: what copy-up leaves, from each of these.
    let origins: Vec<Vec<u8>> = {
        let canary = f.dir().join("canary");
        let mut all = Vec::new();
        for dir in [f.low(0, ""), canary] {
            let (upper, work, at) = (f.dir().join("u"), f.dir().join("w"), f.dir().join("k"));
            [&upper, &work, &at].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
            let done = run(std::process::Command::new(program())
                .args(["mount", "-l"])
                .arg(&dir)
                .arg("-u")
                .arg(&upper)
                .arg("-w")
                .arg(&work)
                .arg(&at));
            done.ok();
            for path in sum::tree(&dir).keys() {
                sys::chmod(at.join(path), 0o755).unwrap();
            }
            run(std::process::Command::new(program()).arg("umount").arg(&at)).ok();
            for path in sum::tree(&upper).keys() {
                all.push(sys::getxattr(upper.join(path), overlay_xattr("origin")).unwrap());
            }
            [&upper, &work].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
        }
        all
    };
    assert!(origins.len() >= 6, "{}", origins.len());
    sys::setxattr(f.up(""), &overlay_xattr("impure"), b"y", 0).unwrap();
    for (n, origin) in origins.iter().enumerate() {
        for copy in ["a", "b"] {
            let (file, dir) = (f.up(format!("file{n}{copy}")), f.up(format!("dir{n}{copy}")));
            fs::write(&file, format!("own bytes of {n}{copy}")).unwrap();
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(format!("inside{n}{copy}")), "").unwrap();
            for path in [file, dir] {
                assert!(set_mark(&path, "origin", origin));
            }
        }
    }
    f.mount();
    let right = |root: &Path| {
        let seen = walk(root, 1000);
        assert!(seen.keys().all(|path| !path.ends_with("secret")));
        assert_eq!(text(root.join("low")), "of the lower layer");
        for n in 0..origins.len() {
            for copy in ["a", "b"] {
                assert_eq!(text(root.join(format!("file{n}{copy}"))), format!("own bytes of {n}{copy}"));
                assert_eq!(names(root.join(format!("dir{n}{copy}"))), [format!("inside{n}{copy}")]);
            }
        }
    };
    right(&f.p(""));
    let open: Vec<File> = (0..origins.len()).map(|n| ro(f.p(format!("file{n}a")))).collect();
    for (n, reader) in open.iter().enumerate() {
        fs::write(f.p(format!("file{n}b")), format!("own bytes of {n}b")).unwrap();
        assert_eq!(through(reader), format!("own bytes of {n}a").as_bytes());
    }
    drop(open);
    f.check(right);
}
