//! Lower files that all workers change at the same moment: one copy-up for all of them, and no change of anybody is lost.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::board::WORKERS;
use crate::common::*;
use crate::worker::{Worker, bytes_at, link, record, shown, won};

pub const FILES: usize = 40;
/// What belongs to one worker at the begin of a file.
const PART: usize = 512;
const PARTS: usize = WORKERS * PART;
/// Milliseconds in which all are at one file.
const TURN: u128 = 25;

fn name(file: usize) -> String {
    format!("copies/{file}")
}

/// What the lower layer has.
fn initial(file: usize) -> Vec<u8> {
    // Some are so big that their copy-up gets a thread of its own.
    let len = if file % 20 == 0 { 5 << 20 } else { PARTS + 4096 * (file % 20) + 100 };
    let line = record(&format!("file {file} of the lower layer"), 64);
    line.into_iter().cycle().take(len).collect()
}

/// In the lower layers.
pub fn plant(f: &Fixture) {
    for file in 0..FILES {
        f.lower(file % 2).file(name(file), initial(file));
    }
}

/// What one worker has written.
#[derive(Default)]
struct Known {
    parts: BTreeMap<usize, Vec<u8>>,
    attributes: BTreeMap<usize, Vec<u8>>,
}

pub fn work(w: &Worker) {
    let attribute = format!("user.worker{}", w.id);
    let mut known = before(w, &attribute);
    let mut held: Vec<(usize, File)> = Vec::new();
    while w.go() {
        // The clock is the same for all processes.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let file = (now / TURN) as usize % FILES;
        let path = w.at(name(file));
        let number = w.step();
        match w.pick(8) {
            0..=2 => {
                let part = record(&format!("file {file} worker {} number {number}", w.id), PART);
                let open = rw(&path);
                open.write_all_at(&part, (w.id * PART) as u64).unwrap();
                known.parts.insert(file, part);
                is_known(w.id, file, &open, &known);
                held.push((file, open));
            }
            3 => sys::chmod(&path, 0o600 + w.pick(64) as u32).unwrap(),
            4 => {
                let value = record(&format!("file {file} number {number}"), 64);
                sys::setxattr(&path, &attribute, &value, 0).unwrap();
                known.attributes.insert(file, value);
            }
            5 => sys::utimens(&path, (1, 1), (1_000_000_000 + number as i64, 0)).unwrap(),
            6 => {
                // One more name for a moment.
                let other = w.at(format!("copies/of-{}", w.id));
                link(&path, &other);
                is_known(w.id, file, &ro(&other), &known);
                sys::unlink(&other).unwrap();
            }
            _ => is_known(w.id, file, &ro(&path), &known),
        }
        if let Some(value) = known.attributes.get(&file) {
            let found = sys::getxattr(&path, &attribute);
            assert_eq!(found.as_ref(), Ok(value), "{attribute} of file {file}");
        }
        // Descriptors that were there before and after the copy-up.
        for (file, open) in &held {
            is_known(w.id, *file, open, &known);
        }
        if held.len() > 4 {
            held.remove(w.pick(4));
        }
    }
    for file in 0..FILES {
        let path = w.at(name(file));
        is_known(w.id, file, &ro(&path), &known);
        let value = won(sys::getxattr(&path, &attribute), &[Errno::ENODATA], "getxattr");
        assert_eq!(value.as_ref(), known.attributes.get(&file), "{attribute} of file {file}, in the end");
    }
}

/// What an earlier load has left of this worker.
fn before(w: &Worker, attribute: &str) -> Known {
    let mut known = Known::default();
    for file in 0..FILES {
        let path = w.at(name(file));
        let part = bytes_at(&ro(&path), (w.id * PART) as u64, PART);
        let ours = part.starts_with(format!("file {file} worker {} ", w.id).as_bytes());
        assert!(ours || part == initial_at(file, w.id * PART, PART), "file {file}: {}", shown(&part));
        known.parts.insert(file, part);
        if let Some(value) = won(sys::getxattr(&path, attribute), &[Errno::ENODATA], "getxattr") {
            known.attributes.insert(file, value);
        }
    }
    known
}

/// Our part, and the end of the file, which nobody changes.
#[track_caller]
fn is_known(id: usize, file: usize, open: &File, known: &Known) {
    let initial = initial_at(file, id * PART, PART);
    let expected = known.parts.get(&file).unwrap_or(&initial);
    let found = bytes_at(open, (id * PART) as u64, PART);
    assert_eq!(shown(&found), shown(expected), "the part of worker {id} in file {file}");
    assert!(found == *expected, "the part of worker {id} in file {file}: not all of it");
    let found = bytes_at(open, PARTS as u64, 100);
    assert_eq!(shown(&found), shown(&initial_at(file, PARTS, 100)), "what file {file} has behind the parts");
}

fn initial_at(file: usize, at: usize, len: usize) -> Vec<u8> {
    let line = record(&format!("file {file} of the lower layer"), 64);
    line.into_iter().cycle().skip(at % 64).take(len).collect()
}
