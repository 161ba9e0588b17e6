//! Programs that sync what they must not lose, and write down when they were told that it is safe.
//!
//! A name is a kind and a number. What is asked for and what is promised is a version of it: 0 is what the lower layer has.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::Rng;
use rand::rngs::StdRng;

use crate::common::*;

pub const WRITERS: usize = 2;
/// How many names of each kind the lower layer has for each writer.
pub const REPLACED: u64 = 10;
pub const ONCE: u64 = 40;
/// Copying so much up takes a moment.
const LARGE: usize = 100_000;

/// What was asked for and what was promised, by name.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    pub asked: BTreeMap<String, u64>,
    pub promised: BTreeMap<String, u64>,
}

impl Versions {
    pub fn promised(&self, name: &str) -> u64 {
        self.promised.get(name).copied().unwrap_or(0)
    }

    pub fn asked(&self, name: &str) -> u64 {
        self.asked.get(name).copied().unwrap_or(0)
    }
}

/// The bytes of one version of a name, of which no two are alike.
pub fn content(name: &str, version: u64) -> Vec<u8> {
    let len = if name.contains("/up") { LARGE } else { 100 + (version as usize * 7919) % 30_000 };
    let word = format!("{name} in version {version}; ");
    word.bytes().cycle().take(len).collect()
}

/// One line of a log.
pub fn record(name: &str, number: u64) -> Vec<u8> {
    format!("{name}: record {number} {}\n", "x".repeat(number as usize % 300)).into_bytes()
}

pub fn part(writer: usize) -> String {
    format!("w{writer}")
}

/// The lower layer that the writers begin with.
pub fn lower(at: &Path) {
    for writer in 0..WRITERS {
        let part = part(writer);
        let file = |name: String| {
            let path = at.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content(&name, 0)).unwrap();
        };
        (0..REPLACED).for_each(|n| file(format!("{part}/rep{n}")));
        for n in 0..ONCE {
            file(format!("{part}/up{n}"));
            file(format!("{part}/gone{n}"));
            file(format!("{part}/dir{n}/inside"));
        }
        file(format!("{part}/log"));
    }
}

/// A writer's log and place.
pub struct Writer<'a> {
    pub root: PathBuf,
    pub part: String,
    pub log: &'a Mutex<Versions>,
    pub rng: StdRng,
}

impl Writer<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn ask(&self, name: &str, version: u64) {
        self.log.lock().unwrap().asked.insert(name.to_owned(), version);
    }

    fn promise(&self, name: &str, version: u64) {
        self.log.lock().unwrap().promised.insert(name.to_owned(), version);
    }

    fn sync_dir(&self) {
        File::open(self.at(&self.part)).unwrap().sync_all().unwrap();
    }

    fn written(&self, path: &Path, bytes: &[u8]) {
        let mut file = File::create(path).unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
    }

    pub fn work(&mut self, stop: &AtomicBool) {
        let mut done = BTreeMap::new();
        while !stop.load(Ordering::SeqCst) {
            let kind = ["new", "sub", "rep", "up", "dir", "gone", "log"][self.rng.random_range(0..7)];
            let number = done.entry(kind).or_insert(0);
            *number += 1;
            self.change(kind, *number - 1);
        }
    }

    fn change(&mut self, kind: &str, number: u64) {
        let name = |n: u64| format!("{}/{kind}{n}", self.part);
        let once = name(number);
        match kind {
            // A file that was not there; also in a directory that was not there.
            "new" | "sub" => {
                let path = if kind == "new" { self.at(&once) } else { self.at(&once).join("inside") };
                self.ask(&once, 1);
                if kind == "sub" {
                    fs::create_dir(self.at(&once)).unwrap();
                }
                self.written(&path, &content(&once, 1));
                self.promise(&once, 1);
            }
            // The whole of a file is replaced in one step, as careful programs do.
            "rep" => {
                let name = name(number % REPLACED);
                let version = self.log.lock().unwrap().asked(&name) + 1;
                let new = self.at(&format!("{}/tmp{}", self.part, number % REPLACED));
                self.ask(&name, version);
                self.written(&new, &content(&name, version));
                fs::rename(new, self.at(&name)).unwrap();
                if self.rng.random() {
                    self.sync_dir();
                    self.promise(&name, version);
                }
            }
            // A change that copies up and is not synced.
            "up" if number < ONCE => {
                self.ask(&once, 1);
                let path = self.at(&once);
                if self.rng.random() {
                    sys::chmod(&path, 0o600).unwrap();
                } else {
                    File::options().append(true).open(&path).unwrap().write_all(b"and more").unwrap();
                }
                self.promise(&once, 1);
            }
            "dir" if number < ONCE => {
                self.ask(&once, 1);
                fs::rename(self.at(&once), self.at(&format!("{}/moved{number}", self.part))).unwrap();
                self.sync_dir();
                self.promise(&once, 1);
            }
            "gone" if number < ONCE => {
                self.ask(&once, 1);
                fs::remove_file(self.at(&once)).unwrap();
                self.sync_dir();
                self.promise(&once, 1);
            }
            "log" => {
                let name = format!("{}/log", self.part);
                let count = self.log.lock().unwrap().asked(&name);
                self.ask(&name, count + 1);
                let mut file = File::options().append(true).open(self.at(&name)).unwrap();
                file.write_all(&record(&name, count)).unwrap();
                file.sync_data().unwrap();
                self.promise(&name, count + 1);
            }
            _ => {}
        }
    }
}
