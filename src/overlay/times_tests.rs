//! A copy-up changes times on disk and restores them. No other operation sees the times in between, and no time that
//! another operation sets meanwhile is lost.
//!
//! The tests hold the copy-up before each of its changes of the disk while another thread runs. That thread either
//! finishes or waits for a lock of the copy-up. Which of the two does not matter; the result does. A thread that is still
//! running after `HOLD` counts as waiting: on a slow machine a test may miss a fault, but never reports one that is not
//! there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::fault_tests::{CALLER, age};
use crate::config::{Config, Upper};
use crate::error::Result;
use crate::inode::Ino;
use crate::overlay::{Asked, NewNode, Overlay, RenameMode, SetAttr, Told};
use crate::sys::attr::SetTime;
use crate::sys::fault;
use crate::sys::stat::Timestamp;
use crate::sys::xattr::SetMode;

/// How long a copy-up is held for a thread that may be waiting for it.
const HOLD: Duration = Duration::from_millis(200);
/// The time of all files and directories before the test.
const OLD: i64 = 1_000_000_000;
/// A time that a caller sets.
const SET: i64 = 1_200_000_000;
const AT_SET: SetTime = SetTime::To(Timestamp { secs: SET, nanos: 0 });
const NOTHING: SetAttr = SetAttr {
    mode: None,
    uid: None,
    gid: None,
    size: None,
    atime: SetTime::Omit,
    mtime: SetTime::Omit,
    fh: None,
};

type Operation = fn(&Overlay) -> Result<()>;

struct Tree {
    top: tempfile::TempDir,
    overlay: Arc<Overlay>,
}

impl Tree {
    fn new() -> Tree {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let top = tempfile::tempdir_in(base).expect("a directory");
        let at = |name: &str| top.path().join(name);
        for dir in ["lower/d/sub", "upper", "work", "mnt", "host"] {
            fs::create_dir_all(at(dir)).expect("mkdir");
        }
        for file in ["lower/d/file", "lower/d/other", "lower/d/third", "lower/d/hard", "lower/below"] {
            fs::write(at(file), file).expect("write");
        }
        fs::hard_link(at("lower/d/hard"), at("lower/d/hard2")).expect("link");
        age(&at("lower"));
        let upper = Upper { dir: at("upper"), work: at("work") };
        let mut config = Config::new(vec![at("lower")], Some(upper), at("mnt"));
        config.marks.metacopy = true;
        let overlay = Overlay::new(&config, 256).unwrap_or_else(|e| unreachable!("{e}"));
        overlay.set_up();
        let spec = crate::graft::volume(OsStr::new("./host:/d/way/graft"), top.path());
        overlay.attach(&spec.expect("a graft")).unwrap_or_else(|e| unreachable!("{e}"));
        Tree { top, overlay: Arc::new(overlay) }
    }

    /// The mtime that the upper layer has of `path`.
    fn upper_mtime(&self, path: &str) -> i64 {
        fs::metadata(self.top.path().join("upper").join(path)).expect(path).mtime()
    }
}

/// The number of what is at `path`; it stays known.
fn find(overlay: &Overlay, path: &str) -> Ino {
    let mut at = Ino::ROOT;
    for name in path.split('/') {
        let found = overlay.lookup(at, OsStr::new(name)).expect(path).0.expect(path);
        at = found.inode.ino;
        drop(found.inode.leak());
    }
    at
}

fn change(overlay: &Overlay, path: &str, change: SetAttr) -> Result<()> {
    overlay.setattr(CALLER, find(overlay, path), change).map(drop)
}

fn chmod(overlay: &Overlay, path: &str) -> Result<()> {
    change(overlay, path, SetAttr { mode: Some(0o700), ..NOTHING })
}

fn open_to_write(overlay: &Overlay, path: &str) -> Result<()> {
    let opened = overlay.open(CALLER, find(overlay, path), OFlag::O_WRONLY)?;
    overlay.release(opened.fh);
    Ok(())
}

fn make(overlay: &Overlay, dir: &str, name: &str) -> Result<()> {
    let node = NewNode::Node { mode: libc::S_IFREG | 0o644, device: (0, 0) };
    overlay.make(CALLER, find(overlay, dir), OsStr::new(name), node).map(|entry| drop(entry.inode.leak()))
}

/// Runs `copy_up`, with `action` before change number `passes` of the disk. Returns whether there was one.
fn held(tree: &Tree, copy_up: Operation, passes: u64, action: impl FnOnce() + 'static) -> bool {
    let paused = fault::pause(passes, action);
    copy_up(&tree.overlay).unwrap_or_else(|e| unreachable!("change {passes}: {e}"));
    paused.fired()
}

/// Runs `other` on a thread of its own while `copy_up` is held before change number `passes`, and lets both finish.
/// Returns what `other` returned; nothing if the copy-up has fewer changes.
fn beside<T: Send + 'static>(
    tree: &Tree,
    copy_up: Operation,
    passes: u64,
    other: impl FnOnce(&Overlay) -> T + Send + 'static,
) -> Option<T> {
    let started: Arc<Mutex<Option<JoinHandle<T>>>> = Arc::default();
    let (thread, overlay) = (started.clone(), tree.overlay.clone());
    let fired = held(tree, copy_up, passes, move || {
        let (done, is_done) = mpsc::channel();
        *thread.lock().expect("lock") = Some(std::thread::spawn(move || {
            let result = other(&overlay);
            // The copy-up may not wait any more.
            let _ = done.send(());
            result
        }));
        // Either way the copy-up goes on.
        let _ = is_done.recv_timeout(HOLD);
    });
    let started = started.lock().expect("lock").take();
    assert_eq!(fired, started.is_some());
    started.map(|thread| thread.join().expect("the other thread"))
}

/// Operations that bring something into the upper directory `d` and change nothing that `d` shows.
const COPY_UPS: &[(&str, Operation)] = &[
    ("a file", |o| open_to_write(o, "d/file")),
    ("a hard link", |o| chmod(o, "d/hard")),
    ("a directory", |o| chmod(o, "d/sub")),
    ("a directory on the way to a graft", |o| make(o, "d/way", "made")),
];

/// What a lookup and a listing say of `d`, and what `stat` does.
fn times_of_d(overlay: &Overlay) -> Vec<(&'static str, i64)> {
    let (looked_up, _) = overlay.lookup(Ino::ROOT, OsStr::new("d")).expect("lookup");
    let looked_up = looked_up.expect("d");
    let mut times = vec![("lookup", looked_up.attr.stat.mtime.secs)];
    let attr = overlay.getattr(looked_up.inode.ino).expect("getattr");
    times.push(("getattr", attr.stat.mtime.secs));
    let fh = overlay.opendir(Ino::ROOT).expect("opendir");
    let read = overlay.readdirplus(fh, 0, |plus| {
        if let (b"d", Told::Attributes(attr)) = (plus.entry.name.as_encoded_bytes(), plus.told) {
            times.push(("readdirplus", attr.stat.mtime.secs));
        }
        false
    });
    read.expect("readdirplus");
    overlay.releasedir(fh);
    times
}

#[test]
fn a_reader_never_sees_the_time_that_a_copy_up_gives_a_directory() {
    for (what, copy_up) in COPY_UPS {
        for is_up in [false, true] {
            let mut passes = 0;
            loop {
                // Each way of reading begins while the copy-up is held; none waits for another.
                let mut fired = false;
                for way in 0..3 {
                    let tree = Tree::new();
                    if is_up {
                        chmod(&tree.overlay, "d").expect("chmod");
                    }
                    let times = beside(&tree, *copy_up, passes, move |o| match way {
                        0 => {
                            let found = o.lookup(Ino::ROOT, OsStr::new("d")).expect("lookup").0.expect("d");
                            vec![("lookup", found.attr.stat.mtime.secs)]
                        }
                        1 => {
                            let ino =
                                o.lookup(Ino::ROOT, OsStr::new("d")).expect("lookup").0.expect("d").inode.ino;
                            vec![("getattr", o.getattr(ino).expect("getattr").stat.mtime.secs)]
                        }
                        _ => times_of_d(o),
                    });
                    fired |= times.is_some();
                    for (how, mtime) in times.into_iter().flatten() {
                        assert_eq!(mtime, OLD, "{what}, change {passes}, up before: {is_up}, by {how}");
                    }
                    assert_eq!(tree.upper_mtime("d"), OLD, "{what}, change {passes}, up before: {is_up}");
                }
                if !fired {
                    break;
                }
                passes += 1;
            }
            assert!(passes > 1, "{what}: {passes} changes");
        }
    }
}

/// What an operation is called, what it does, and whether the mtime that it leaves is right.
type Change = (&'static str, Operation, fn(i64) -> bool);

/// Changes of `d`.
const CHANGES: &[Change] = &[
    ("another copy-up", |o| open_to_write(o, "d/other"), |mtime| mtime == OLD),
    ("utimes", |o| change(o, "d", SetAttr { atime: AT_SET, mtime: AT_SET, ..NOTHING }), |mtime| mtime == SET),
    ("create", |o| make(o, "d", "made"), |mtime| mtime > SET),
    ("link", |o| o.link(find(o, "d/other"), find(o, "d"), OsStr::new("made")).map(drop), |mtime| mtime > SET),
    ("unlink", |o| o.unlink(find(o, "d"), OsStr::new("other")), |mtime| mtime > SET),
    ("rename", |o| rename(o, false), |mtime| mtime > SET),
    ("rename that leaves a whiteout", |o| rename(o, true), |mtime| mtime > SET),
];

fn rename(overlay: &Overlay, whiteout: bool) -> Result<()> {
    let (parent, new_parent) = (find(overlay, "d"), find(overlay, "d"));
    let (name, new_name) = (OsStr::new("other"), OsStr::new("renamed"));
    let mode = RenameMode::Replace;
    overlay.rename(Asked {
        parent,
        name,
        new_parent,
        new_name,
        mode,
        whiteout_of: whiteout.then_some(CALLER),
    })
}

#[test]
fn a_copy_up_restores_no_time_over_that_of_another_change() {
    for (what, copy_up) in COPY_UPS {
        for (other, operation, is_right) in CHANGES {
            let mut passes = 0;
            loop {
                let tree = Tree::new();
                chmod(&tree.overlay, "d").expect("chmod");
                let Some(done) = beside(&tree, *copy_up, passes, *operation) else { break };
                done.unwrap_or_else(|e| unreachable!("{other}: {e}"));
                let mtime = tree.upper_mtime("d");
                assert!(is_right(mtime), "{other} beside the copy-up of {what}, change {passes}: {mtime}");
                passes += 1;
            }
            assert!(passes > 1, "{what}: {passes} changes");
        }
    }
}

/// A copy-up beside the other change is held instead: its whole window lies in that change.
#[test]
fn a_copy_up_within_another_change_restores_no_older_time() {
    for (other, operation, is_right) in CHANGES {
        let mut passes = 0;
        loop {
            let tree = Tree::new();
            chmod(&tree.overlay, "d").expect("chmod");
            let Some(done) = beside(&tree, *operation, passes, |o| open_to_write(o, "d/file")) else { break };
            done.unwrap_or_else(|e| unreachable!("{other}: {e}"));
            let mtime = tree.upper_mtime("d");
            assert!(is_right(mtime), "a copy-up beside {other}, change {passes}: {mtime}");
            passes += 1;
        }
        assert!(passes > 0, "{other}: {passes} changes");
    }
}

#[test]
fn data_that_comes_up_restores_nothing_over_a_newer_change() {
    let value = OsStr::new("security.capability");
    // Version 2, no capabilities: twenty bytes. Source: linux/capability.h, `struct vfs_cap_data`.
    let capability: Vec<u8> = [&[0, 0, 0, 2][..], &[0; 16]].concat();
    let mut passes = 0;
    loop {
        let tree = Tree::new();
        chmod(&tree.overlay, "below").expect("chmod");
        let ino = find(&tree.overlay, "below");
        let capable = tree.overlay.setxattr(CALLER, ino, value, &capability, SetMode::Any).is_ok();
        let done = beside(
            &tree,
            |o| open_to_write(o, "below"),
            passes,
            move |o| {
                change(o, "below", SetAttr { atime: AT_SET, mtime: AT_SET, ..NOTHING })?;
                if capable { o.removexattr(ino, value) } else { Ok(()) }
            },
        );
        let Some(done) = done else { break };
        done.unwrap_or_else(|e| unreachable!("change {passes}: {e}"));
        assert_eq!(tree.upper_mtime("below"), SET, "change {passes}");
        assert!(tree.overlay.getxattr(ino, value, &mut [0; 64]).is_err(), "change {passes}");
        passes += 1;
    }
    assert!(passes > 1, "{passes} changes");
}
