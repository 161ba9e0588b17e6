//! What is looked up ahead is told to the reader, and given back if it never comes.

use std::ffi::OsString;
use std::path::Path;

use super::super::Told;
use super::*;
use crate::config::Config;
use crate::inode::Ino;

const NAMES: usize = 100;

fn overlay(top: &Path) -> Overlay {
    std::fs::create_dir(top.join("lower")).expect("mkdir");
    for at in 0..NAMES {
        std::fs::write(top.join(format!("lower/{at}")), "x").expect("write");
    }
    let config = Config::new(vec![top.join("lower")], None, top.join("mnt"));
    Overlay::new(&config, 256).unwrap_or_else(|error| unreachable!("{error}"))
}

/// The names from `offset` on for which there is room, and where to go on.
fn read(overlay: &Overlay, fh: Fh, offset: u64, room: usize) -> (Vec<(OsString, Ino)>, u64) {
    let (mut told, mut next) = (Vec::new(), offset);
    let each = |plus: super::super::DirEntryPlus<'_>| {
        if told.len() == room {
            return true;
        }
        let ino = if let Told::Attributes(attr) = plus.told { attr.ino } else { Ino(0) };
        told.push((plus.entry.name.to_owned(), ino));
        next = plus.entry.next;
        false
    };
    overlay.readdirplus(fh, offset, each).unwrap_or_else(|error| unreachable!("{error}"));
    (told, next)
}

fn sighted(overlay: &Overlay, fh: Fh) -> usize {
    overlay.handles.dir(fh).map_or(0, |dir| dir.ahead.lock().sighted())
}

#[test]
fn a_reader_that_comes_again_finds_its_names_looked_up_and_gives_each_back_once() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let overlay = overlay(temp.path());
    let fh = overlay.opendir(Ino::ROOT).expect("opendir");
    let before = overlay.store.len();
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let (told, next) = read(&overlay, fh, offset, 10);
        overlay.look_ahead(fh);
        let last = told.len() < 10;
        // Of one that comes once, nobody knows whether it wants more.
        let wanted = if offset == 0 || last { 0 } else { 10.min(NAMES + 2 - (all.len() + told.len())) };
        assert_eq!(sighted(&overlay, fh), wanted, "from {offset} on");
        all.extend(told);
        offset = next;
        if last {
            break;
        }
    }
    assert_eq!(all.len(), NAMES + 2);
    overlay.releasedir(fh);
    assert_eq!(overlay.store.len(), before + NAMES);
    for (name, ino) in all.iter().filter(|(name, _)| name != "." && name != "..") {
        assert!(overlay.store.get(*ino).is_some(), "{name:?} was told and is not known");
        overlay.forget(*ino, 1);
    }
    assert_eq!(overlay.store.len(), before);
}

#[test]
fn what_nobody_comes_to_is_given_back() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let overlay = overlay(temp.path());
    let before = overlay.store.len();
    for goes_on_at in [None, Some(0), Some(50)] {
        let fh = overlay.opendir(Ino::ROOT).expect("opendir");
        let (mut all, offset) = read(&overlay, fh, 0, 10);
        all.extend(read(&overlay, fh, offset, 10).0);
        overlay.look_ahead(fh);
        assert_eq!(sighted(&overlay, fh), 10);
        all.extend(goes_on_at.map(|offset| read(&overlay, fh, offset, 5).0).unwrap_or_default());
        overlay.releasedir(fh);
        all.iter().filter(|(_, ino)| ino.0 != 0).for_each(|(_, ino)| overlay.forget(*ino, 1));
        assert_eq!(overlay.store.len(), before, "{goes_on_at:?}");
    }
}
