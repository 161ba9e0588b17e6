//! Files of which everybody makes and removes names of his own: the names are those that were made, and link counts are right.

use std::collections::BTreeMap;

use crate::common::*;
use crate::worker::{Worker, bytes_at, link, record, shown};

const FILES: usize = 4;
/// What belongs to one worker in a file.
const PART: u64 = 64;
const DIRS: [&str; 2] = ["links/a", "links/b"];

fn base(file: usize) -> String {
    format!("{}/base{file}", DIRS[file % 2])
}

/// In the lower layers. Hard links need the index to stay what they are.
pub fn plant(f: &Fixture, hard_links: bool) {
    for file in 0..FILES {
        let low = f.lower(file % 2).file(base(file), record(&format!("links of {file}"), 5000)).dir(DIRS[0]);
        let low = low.dir(DIRS[1]);
        if hard_links && file < 2 {
            low.hardlink(format!("links/low{file}"), base(file));
        }
    }
}

pub fn work(w: &Worker) {
    // Own names, and which file each is.
    let mut own: BTreeMap<String, usize> = BTreeMap::new();
    let mut parts: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    let inos: Vec<u64> = (0..FILES).map(|file| stat(w.at(base(file))).ino()).collect();
    // What an earlier load has left.
    for name in listed(w) {
        sys::unlink(w.at(name)).unwrap();
    }
    while w.go() {
        let number = w.step();
        let some = |w: &Worker, own: &BTreeMap<String, usize>| {
            let at = w.pick(own.len().max(1));
            own.iter().nth(at).map(|(name, file)| (name.clone(), *file))
        };
        let file = w.pick(FILES);
        let fresh = format!("{}/{}-{number}", DIRS[w.pick(2)], w.id);
        match (w.pick(8), some(w, &own)) {
            (0 | 1, _) if own.len() < 12 => {
                link(&w.at(base(file)), &w.at(&fresh));
                own.insert(fresh, file);
            }
            (2 | 3, Some((name, _))) => {
                sys::unlink(w.at(&name)).unwrap();
                own.remove(&name);
                let there = w.at(&name).symlink_metadata().is_ok();
                assert!(!there, "{name} is there after its unlink");
            }
            (4, Some((name, file))) => {
                sys::rename(w.at(&name), w.at(&fresh)).unwrap();
                own.remove(&name);
                own.insert(fresh, file);
            }
            (5, Some((name, file))) => {
                let (other, its) = some(w, &own).unwrap();
                sys::rename(w.at(&name), w.at(&other)).unwrap();
                // Two names of one file: nothing happens, and both stay. Source: rename(2).
                if its != file {
                    own.remove(&name);
                    own.insert(other, file);
                }
            }
            (6, Some((name, file))) => {
                let part = record(&format!("worker {} number {number}", w.id), PART as usize);
                rw(w.at(&name)).write_all_at(&part, 5000 + w.id as u64 * PART).unwrap();
                parts.insert(file, part);
            }
            (_, Some((name, file))) => look(w, &name, file, &own, &parts, inos[file]),
            _ => {}
        }
    }
    for (name, file) in &own {
        look(w, name, *file, &own, &parts, inos[*file]);
    }
    assert_eq!(listed(w), own.into_keys().collect::<Vec<_>>(), "names of worker {}", w.id);
}

/// Our names.
fn listed(w: &Worker) -> Vec<String> {
    let mine = format!("{}-", w.id);
    let of =
        |dir: &str| names(w.at(dir)).into_iter().filter(|name| name.starts_with(&mine)).collect::<Vec<_>>();
    DIRS.iter().flat_map(|dir| of(dir).into_iter().map(move |name| format!("{dir}/{name}"))).collect()
}

/// By one of our names.
fn look(
    w: &Worker,
    name: &str,
    file: usize,
    own: &BTreeMap<String, usize>,
    parts: &BTreeMap<usize, Vec<u8>>,
    ino: u64,
) {
    let facts = stat(w.at(name));
    let least = 1 + own.values().filter(|other| **other == file).count() as u64;
    assert_eq!(facts.ino(), ino, "number of {name}, a name of file {file}");
    assert!(facts.nlink() >= least, "{name} has {} names, and {least} are known", facts.nlink());
    let open = ro(w.at(name));
    assert_eq!(shown(&bytes_at(&open, 0, 64)), format!("links of {file}"), "{name}");
    if let Some(part) = parts.get(&file) {
        let found = bytes_at(&open, 5000 + w.id as u64 * PART, PART as usize);
        assert_eq!(shown(&found), shown(part), "our part by {name}");
    }
}

/// At rest: as many names as the count says.
pub fn check(f: &Fixture) {
    let mut found: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (path, entry) in sum::tree(&f.p("links")) {
        if entry.mode & libc::S_IFMT == libc::S_IFREG {
            let facts = stat(f.p("links").join(path));
            let counted = found.entry(facts.ino()).or_insert((facts.nlink(), 0));
            assert_eq!(counted.0, facts.nlink(), "two names of one file have two counts");
            counted.1 += 1;
        }
    }
    assert_eq!(found.len(), FILES);
    for (count, names) in found.values() {
        assert_eq!(count, names, "link count and names at rest");
    }
}
