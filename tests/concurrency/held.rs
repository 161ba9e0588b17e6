//! Descriptors and shared maps that stay open while their files are copied up, renamed, exchanged, replaced and unlinked by others: each
//! goes on showing its own file.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use crate::board::WORKERS;
use crate::common::*;
use crate::worker::{Worker, bytes_at, record, shown, won};

const NAMES: usize = 16;
/// What belongs to one worker in a file, behind the line that says which it is.
const PART: usize = 128;
const LEN: usize = PART * (1 + WORKERS);

fn name(number: usize) -> String {
    format!("held/{}/{number}", number % 3)
}

fn content(id: &str) -> Vec<u8> {
    let mut data = record(id, PART);
    data.resize(LEN, b'.');
    data
}

/// In the lower layers.
pub fn plant(f: &Fixture) {
    for number in 0..NAMES {
        f.lower(number % 2).file(name(number), content(&format!("planted {number}")));
    }
}

/// A file that is held in three ways.
struct Held {
    id: String,
    ino: u64,
    write: File,
    read: File,
    map: Map,
}

impl Held {
    fn open(path: &std::path::Path) -> Option<Held> {
        let write = won(sys::open(path, libc::O_RDWR, 0), &[Errno::ENOENT], "open")?;
        // The same file once more, whatever its name is by now, and if it has none.
        let read = sys::open(format!("/proc/self/fd/{}", write.as_raw_fd()), libc::O_RDONLY, 0);
        let read = read.unwrap_or_else(|errno| panic!("a second open of an open file: {errno}"));
        let map = Map::writable(&write, LEN);
        let id = shown(&bytes_at(&write, 0, PART));
        Some(Held { id, ino: write.metadata().unwrap().ino(), write, read, map })
    }

    /// All three show the same file, with our part in it.
    fn check(&self, mine: u64, part: Option<&Vec<u8>>) {
        let mapped = self.map.get();
        let by = [("read", &self.read), ("write", &self.write)];
        for (how, file) in by {
            assert_eq!(shown(&bytes_at(file, 0, PART)), self.id, "the {how} descriptor");
            assert_eq!(file.metadata().unwrap().ino(), self.ino, "number by the {how} descriptor");
        }
        assert_eq!(shown(&mapped[..PART]), self.id, "the map");
        let Some(part) = part else { return };
        for (how, file) in by {
            assert_eq!(
                shown(&bytes_at(file, mine, PART)),
                shown(part),
                "{} by the {how} descriptor",
                self.id
            );
        }
        assert_eq!(shown(&mapped[mine as usize..][..PART]), shown(part), "{} by the map", self.id);
    }
}

pub fn work(w: &Worker) {
    let mut held: Vec<Held> = Vec::new();
    // Our part of each file, by what the file says it is.
    let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mine = (PART * (1 + w.id)) as u64;
    while w.go() {
        let number = w.step();
        let (a, b) = (w.at(name(w.pick(NAMES))), w.at(name(w.pick(NAMES))));
        match w.pick(10) {
            0 | 1 => held.extend(Held::open(&a)),
            2 => replace(w, number, &a),
            3 => drop(won(sys::rename(&a, &b), &[Errno::ENOENT], "rename")),
            4 => drop(won(sys::renameat2(&a, &b, libc::RENAME_EXCHANGE), &[Errno::ENOENT], "exchange")),
            5 => {
                won(sys::unlink(&a), &[Errno::ENOENT], "unlink");
                replace(w, number, &b);
            }
            _ if held.is_empty() => {}
            choice => {
                let one = &held[w.pick(held.len())];
                let part = record(&format!("worker {} number {number}", w.id), PART);
                match choice {
                    6 => one.map.put(mine as usize, &part),
                    7 => {
                        one.map.put(mine as usize, &part);
                        one.map.sync().unwrap();
                    }
                    8 => {
                        one.write.write_all_at(&part, mine).unwrap();
                        one.write.sync_data().unwrap();
                    }
                    _ => one.write.write_all_at(&part, mine).unwrap(),
                }
                parts.insert(one.id.clone(), part);
            }
        }
        for one in &held {
            one.check(mine, parts.get(&one.id));
        }
        if held.len() > 6 {
            held.remove(w.pick(6));
        }
    }
}

/// A new file in the place of whatever has the name.
fn replace(w: &Worker, number: u64, path: &std::path::Path) {
    let beside = w.at(format!("held/new-{}", w.id));
    fs::write(&beside, content(&format!("made by {} number {number}", w.id))).unwrap();
    sys::rename(&beside, path).unwrap();
}

/// At rest: whatever has a name is a whole file.
pub fn check(f: &Fixture) {
    for number in 0..NAMES {
        let Ok(data) = fs::read(f.p(name(number))) else { continue };
        let whole = data.len() == LEN && (data.starts_with(b"planted ") || data.starts_with(b"made by "));
        assert!(whole, "{}: {} bytes, {}", name(number), data.len(), shown(&data));
    }
}
