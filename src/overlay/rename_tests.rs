//! Renames over directories, with every change of the disk failing once: either all has moved or nothing has.

use std::ffi::OsStr;
use std::path::Path;

use nix::errno::Errno;

use super::{Asked, Mode, Overlay};
use crate::config::{Config, Upper};
use crate::error::Result;
use crate::inode::Ino;
use crate::overlay::{Caller, NewNode};
use crate::sys::xattr::SetMode;

const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0o022, pid: 1 };

fn overlay(top: &Path) -> Overlay {
    let upper = Upper { dir: top.join("upper"), work: top.join("work") };
    let config = Config::new(vec![top.join("lower")], Some(upper), top.join("mnt"));
    Overlay::new(&config, 256).unwrap_or_else(|e| unreachable!("{e}"))
}

fn named<T>(overlay: &Overlay, name: &str, see: impl FnOnce(Ino) -> T) -> Option<T> {
    let found = overlay.lookup(Ino::ROOT, OsStr::new(name)).expect("lookup").0;
    found.map(|entry| see(entry.inode.ino))
}

fn holds(overlay: &Overlay, dir: &str, name: &str) -> bool {
    named(overlay, dir, |ino| overlay.lookup(ino, OsStr::new(name)).expect("lookup").0.is_some())
        == Some(true)
}

/// `new/n` is renamed over `d`, which is as `prepare` leaves it; change number `passes` fails.
/// Returns whether it came to that.
fn fails_whole(passes: u64, prepare: impl FnOnce(&Overlay, Ino) -> Result<()>) -> bool {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let top = temp.path();
    for dir in ["lower/d", "upper/new/n", "work"] {
        std::fs::create_dir_all(top.join(dir)).expect("mkdir");
    }
    std::fs::write(top.join("lower/d/x"), "x").expect("write");
    let first = overlay(top);
    let target = first.lookup(Ino::ROOT, OsStr::new("d")).expect("lookup").0.expect("d");
    prepare(&first, target.inode.ino).unwrap_or_else(|e| unreachable!("{e}"));
    let there = named(&first, "d", |ino| ino);
    let before = first.getattr(target.inode.ino).expect("attributes").stat;

    let armed = crate::sys::fault::arm(passes, Errno::EIO);
    let (name, new_name) = (OsStr::new("new"), OsStr::new("d"));
    let mode = Mode::Replace;
    let asked = Asked { parent: Ino::ROOT, name, new_parent: Ino::ROOT, new_name, mode, whiteout_of: None };
    let renamed = first.rename(asked);
    let fired = armed.fired();
    drop(armed);
    assert!(fired || renamed.is_ok(), "{renamed:?}");
    if let (Err(_), Some(d)) = (&renamed, there) {
        let now = first.getattr(d).expect("attributes").stat;
        let shown = |stat: &crate::sys::stat::Stat| (stat.mode, stat.uid, stat.gid, stat.mtime);
        assert_eq!(shown(&now), shown(&before), "change {passes}");
        assert_eq!(first.getxattr(d, OsStr::new("user.note"), &mut [0; 16]).ok(), Some(4), "change {passes}");
        let node = NewNode::Node { mode: libc::S_IFREG | 0o644, device: (0, 0) };
        let made = first.make(CALLER, d, OsStr::new("touched"), node);
        assert!(made.is_ok(), "change {passes}: {made:?}");
    }
    drop(target);
    let moved = renamed.is_ok();
    let check = |overlay: &Overlay| {
        assert_eq!(named(overlay, "new", drop).is_none(), moved, "change {passes}");
        assert_eq!(holds(overlay, "d", "n"), moved, "change {passes}");
        assert_eq!(holds(overlay, "d", "touched"), !moved && there.is_some(), "change {passes}");
        assert!(!holds(overlay, "d", "x"), "change {passes}");
    };
    check(&first);
    drop(first);
    check(&overlay(top));
    fired
}

fn every_change(prepare: impl Fn(&Overlay, Ino) -> Result<()>) {
    let mut passes = 0;
    while fails_whole(passes, &prepare) {
        passes += 1;
    }
    assert!(passes > 1, "only {passes} changes");
}

#[test]
fn a_directory_with_whiteouts_stays_whole_when_it_is_not_replaced() {
    every_change(|overlay, d| {
        overlay.unlink(d, OsStr::new("x"))?;
        overlay.setxattr(CALLER, d, OsStr::new("user.note"), b"kept", SetMode::Any)
    });
}

#[test]
fn a_directory_over_a_whiteout_has_moved_or_has_not() {
    every_change(|overlay, d| {
        overlay.unlink(d, OsStr::new("x"))?;
        overlay.rmdir(Ino::ROOT, OsStr::new("d"))
    });
}
