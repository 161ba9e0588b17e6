//! Attaching and taking away, over and over, alone and while others ask: nothing is left of what is gone.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Overlay;
use crate::config::{Config, Upper};
use crate::graft;
use crate::inode::Ino;
use crate::overlay::{Caller, Entry, NewNode, Told};

const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0o022, pid: 1 };

struct Tree {
    temp: tempfile::TempDir,
    overlay: Overlay,
}

impl Tree {
    fn new() -> Tree {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let top = temp.path().to_owned();
        for dir in ["lower/d/e", "upper", "work", "mnt", "one/inner", "two"] {
            std::fs::create_dir_all(top.join(dir)).expect("mkdir");
        }
        for file in ["lower/file", "lower/d/f", "one/f", "two/f", "single"] {
            std::fs::write(top.join(file), file).expect("write");
        }
        let upper = Upper { dir: top.join("upper"), work: top.join("work") };
        let config = Config::new(vec![top.join("lower")], Some(upper), top.join("mnt"));
        let overlay = Overlay::new(&config, 256).unwrap_or_else(|e| unreachable!("{e}"));
        overlay.set_up();
        Tree { temp, overlay }
    }

    fn attach(&self, spec: &str) -> Result<(), String> {
        let spec = graft::volume(OsStr::new(spec), self.temp.path()).map_err(|e| e.to_string())?;
        self.overlay.attach(&spec).map_err(|e| e.to_string())
    }

    fn replace(&self, spec: &str, lazy: bool) -> Result<(), String> {
        let spec = graft::volume(OsStr::new(spec), self.temp.path()).map_err(|e| e.to_string())?;
        self.overlay.replace(&spec, lazy).map_err(|e| e.to_string())
    }

    fn detach(&self, target: &str, lazy: bool) -> Result<(), String> {
        self.overlay.detach(Path::new(target), lazy).map_err(|e| e.to_string())
    }

    /// What is at `path`, with one lookup of it.
    fn find(&self, path: &str) -> Option<Entry<'_>> {
        let mut names = path.split('/').map(OsStr::new);
        let mut found = self.overlay.lookup(Ino::ROOT, names.next()?).expect(path).0?;
        for name in names {
            let inner = self.overlay.lookup(found.inode.ino, name).expect(path).0?;
            found = inner;
        }
        Some(found)
    }

    /// The names that are listed, each looked up and forgotten.
    fn list(&self, path: &str) -> Vec<String> {
        let found = (!path.is_empty()).then(|| self.find(path).expect(path));
        let fh = self.overlay.opendir(found.as_ref().map_or(Ino::ROOT, |found| found.inode.ino)).expect(path);
        let mut names = Vec::new();
        let mut given = Vec::new();
        let read = self.overlay.readdirplus(fh, 0, |plus| {
            names.push(plus.entry.name.to_string_lossy().into_owned());
            if let Told::Attributes(attr) = plus.told {
                given.push(attr.ino);
            }
            false
        });
        read.expect(path);
        self.overlay.releasedir(fh);
        // `false` is "there is room for more": each lookup was handed over.
        given.into_iter().for_each(|ino| self.overlay.forget(ino, 1));
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }
}

/// Descriptors below `top`; other tests of this process have others.
fn open_files(top: &Path) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    all.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|path| path.starts_with(top))).count()
}

#[test]
fn a_thousand_times_there_and_back_leave_nothing() {
    let tree = Tree::new();
    let round = |round: usize| {
        let tree = &tree;
        for spec in
            ["./one:/d", "./two:/new/deep/er", "./one:/d/inner", "./single:/file", "./two:/new/other:O"]
        {
            tree.attach(spec).expect(spec);
        }
        assert_eq!(tree.list("d"), ["f", "inner"], "{round}");
        assert_eq!(tree.list("new"), ["deep", "other"], "{round}");
        assert!(tree.find("new/deep/er/f").is_some() && tree.find("d/inner/inner").is_some());
        tree.replace("./two:/d/inner", false).expect("replace");
        assert_eq!(tree.list("d/inner"), ["f"]);
        for target in ["/new/deep/er", "/d/inner", "/d", "/file", "/new/other"] {
            tree.detach(target, round % 2 == 0).expect(target);
        }
        assert_eq!(tree.list(""), ["d", "file"], "{round}");
        assert_eq!(tree.list("d"), ["e", "f"], "{round}");
    };
    (0..5).for_each(round);
    let (known, files) = (tree.overlay.known_inodes(), open_files(tree.temp.path()));
    // Five each.
    (0..200).for_each(round);
    assert_eq!(tree.overlay.known_inodes(), known);
    assert_eq!(open_files(tree.temp.path()), files);
    assert_eq!(known, 1, "only the root is known to anybody");
    assert_eq!(std::fs::read_dir(tree.temp.path().join("upper")).expect("upper").count(), 0);
}

#[test]
fn what_cannot_be_attached_leaves_nothing() {
    let tree = Tree::new();
    tree.attach("./one:/d/e").expect("attach");
    let known = tree.overlay.known_inodes();
    for (spec, part) in [
        ("./one:/file", "not a directory"),
        ("./single:/d", "attached below"),
        ("./single:/d/e", "Duplicate mount point"),
        ("./single:/d/f/x", "no directory"),
        ("./nowhere:/x/y", "does not exist"),
        ("./made:/file:create=dir", "not a directory"),
        ("./one:/d/e/../../d/e", "Duplicate mount point"),
    ] {
        let why = tree.attach(spec).expect_err(spec);
        assert!(why.contains(part) && !why.contains('\n'), "{spec}: {why}");
        assert_eq!(tree.overlay.known_inodes(), known, "{spec}");
    }
    assert!(!tree.temp.path().join("made").exists());
    let why = tree.replace("./single:/d/e", false).expect_err("a file");
    assert!(why.contains("each other's place"), "{why}");
    assert!(tree.detach("/d", false).expect_err("nothing there").contains("nothing is attached"));
    assert_eq!(tree.list("d/e"), ["f", "inner"]);
    assert_eq!(tree.overlay.attached().len(), 1);
}

#[test]
fn what_is_inside_goes_with_it_only_if_asked() {
    let tree = Tree::new();
    tree.attach("./one:/d").expect("outer");
    tree.attach("./two:/d/inner").expect("inner");
    tree.attach("./two:/d/not/there").expect("inner");
    for refused in [tree.detach("/d", false), tree.replace("./two:/d", false)] {
        assert!(refused.expect_err("busy").contains("attached inside"));
    }
    assert_eq!(tree.overlay.attached().len(), 3);
    assert_eq!(tree.list("d"), ["f", "inner", "not"]);
    tree.replace("./two:/d", true).expect("replace");
    assert_eq!(tree.list("d"), ["f"]);
    tree.attach("./one:/d/new").expect("inner");
    tree.detach("/d", true).expect("detach");
    assert_eq!(tree.overlay.attached(), []);
    assert_eq!(tree.overlay.known_inodes(), 1);
}

#[test]
fn a_directory_that_nobody_made_is_gone_with_its_graft_unless_it_was_made() {
    let tree = Tree::new();
    tree.attach("./one:/a/b").expect("attach");
    let held = tree.overlay.lookup(Ino::ROOT, OsStr::new("a")).expect("lookup").0.expect("a");
    let dir = held.inode.ino;
    tree.detach("/a/b", false).expect("detach");
    // Who stands in it can make nothing there.
    let node = NewNode::Dir { mode: 0o755 };
    assert!(tree.overlay.make(CALLER, dir, OsStr::new("x"), node).is_err());
    assert!(tree.find("a").is_none());
    drop(held);
    tree.attach("./one:/a/b").expect("attach");
    let dir = tree.find("a").expect("a");
    drop(tree.overlay.make(CALLER, dir.inode.ino, OsStr::new("x"), node).expect("make"));
    drop(dir);
    tree.detach("/a/b", false).expect("detach");
    assert_eq!(tree.list("a"), ["x"]);
    assert!(tree.temp.path().join("upper/a/x").is_dir());
}

#[test]
fn a_name_is_the_old_thing_or_the_new_whoever_asks_meanwhile() {
    let tree = Tree::new();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let file = tree.find("d/f").expect("both have it");
                    assert!(tree.overlay.getattr(file.inode.ino).is_ok());
                    drop(file);
                    let names = tree.list("d");
                    assert!(names == ["e", "f"] || names == ["f", "inner"], "{names:?}");
                    let made =
                        tree.overlay.make(CALLER, Ino::ROOT, OsStr::new("x"), NewNode::Dir { mode: 0o755 });
                    match made {
                        Ok(_) => {
                            let gone = tree.overlay.rmdir(Ino::ROOT, OsStr::new("x")).map_err(|e| e.errno());
                            use nix::errno::Errno::{EBUSY, ENOENT, ENOTEMPTY};
                            assert!(
                                gone.is_ok() || gone.is_err_and(|e| [EBUSY, ENOENT, ENOTEMPTY].contains(&e))
                            );
                        }
                        Err(error) => assert_eq!(error.errno(), nix::errno::Errno::EEXIST),
                    }
                }
            });
        }
        for i in 0..300 {
            tree.attach("./one:/d").expect("attach");
            // Somebody may have made the directory, or be about to.
            let nested = tree.attach("./two:/x/y");
            if i % 3 == 0 {
                tree.replace("./one:/d", true).expect("replace");
            }
            if nested.is_ok() {
                tree.detach("/x/y", true).expect("detach");
            }
            tree.detach("/d", true).expect("detach");
        }
        ended.store(true, Ordering::Relaxed);
    });
    // Nobody else has it by now.
    let _ = tree.overlay.rmdir(Ino::ROOT, OsStr::new("x"));
    assert_eq!(tree.list(""), ["d", "file"]);
    assert_eq!(tree.overlay.known_inodes(), 1);
}
