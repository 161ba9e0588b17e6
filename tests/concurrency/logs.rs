//! Files that all append to under a lock, while their names change places: no record is lost, doubled or torn.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use crate::board::{LOGS, WORKERS};
use crate::common::*;
use crate::worker::{Worker, record, shown, won};

const RECORD: usize = 64;
/// Names that a log may have.
const NAMES: usize = LOGS + 2;

pub fn name(number: usize) -> String {
    format!("log/{}/{number}", if number % 2 == 0 { "even" } else { "odd" })
}

fn header(log: usize) -> Vec<u8> {
    record(&format!("log {log}"), RECORD)
}

fn line(log: usize, worker: usize, number: u64) -> Vec<u8> {
    record(&format!("log {log} worker {worker} number {number}"), RECORD)
}

/// In the lower layers.
pub fn plant(f: &Fixture) {
    for log in 0..LOGS {
        f.lower(log % 2).file(name(log), header(log));
    }
}

/// How many records of each worker a log holds, and which log it is. Panics where they are not whole, one after the other.
#[track_caller]
pub fn read(data: &[u8]) -> (usize, [u64; WORKERS]) {
    let log = (0..LOGS).find(|log| data.starts_with(&header(*log)));
    let log = log.unwrap_or_else(|| panic!("no log begins like this: {}", shown(data)));
    let mut counts = [0; WORKERS];
    for (at, found) in data.chunks(RECORD).enumerate().skip(1) {
        let worker = std::str::from_utf8(found).ok().and_then(|text| text.split(' ').nth(3)?.parse().ok());
        let Some(worker) = worker.filter(|worker: &usize| *worker < WORKERS) else {
            panic!("log {log}, record {at} of {}: {}", data.len() / RECORD, found.escape_ascii());
        };
        let next = line(log, worker, counts[worker]);
        assert_eq!(shown(found), shown(&next), "log {log}, record {at}");
        counts[worker] += 1;
    }
    (log, counts)
}

fn lock(file: &File) {
    // SAFETY: takes no pointer.
    while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        assert_eq!(Errno::last(), Errno::EINTR, "flock");
    }
}

pub fn work(w: &Worker) {
    while w.go() {
        let (a, b) = (w.at(name(w.pick(NAMES))), w.at(name(w.pick(NAMES))));
        match w.pick(20) {
            0 => drop(won(sys::renameat2(&a, &b, libc::RENAME_EXCHANGE), &[Errno::ENOENT], "exchange")),
            1 => {
                let lost = [Errno::ENOENT, Errno::EEXIST];
                won(sys::renameat2(&a, &b, libc::RENAME_NOREPLACE), &lost, "rename");
            }
            // Without a lock: whatever is there is whole.
            2 => {
                if let Some(file) = won(sys::open(&a, libc::O_RDONLY, 0), &[Errno::ENOENT], "open") {
                    read(&through(&file));
                }
            }
            choice => append(w, &a, choice),
        }
    }
}

fn append(w: &Worker, path: &std::path::Path, choice: usize) {
    let flags = libc::O_RDWR | libc::O_APPEND;
    let Some(file) = won(sys::open(path, flags, 0), &[Errno::ENOENT], "open") else { return };
    lock(&file);
    let mut first = [0; RECORD];
    file.read_exact_at(&mut first, 0).unwrap();
    let (log, _) = read(&first);
    if choice == 3 {
        let (_, counts) = read(&through(&file));
        let known: Vec<u64> =
            (0..WORKERS).map(|worker| w.board.records(log, worker).load(Ordering::SeqCst)).collect();
        assert_eq!(counts.to_vec(), known, "records of log {log}, by worker, read under its lock");
    }
    let mine = w.board.records(log, w.id);
    let next = line(log, w.id, mine.load(Ordering::SeqCst));
    std::io::Write::write_all(&mut &file, &next).unwrap();
    // Before the lock is given back, which is with the descriptor.
    mine.fetch_add(1, Ordering::SeqCst);
    if choice == 4 {
        file.sync_data().unwrap();
    }
}

/// At rest: each log is there once, with what it has taken.
pub fn check(f: &Fixture, board: &crate::board::Board) {
    let mut found = Vec::new();
    for number in 0..NAMES {
        let Ok(data) = fs::read(f.p(name(number))) else { continue };
        let (log, counts) = read(&data);
        let known: Vec<u64> =
            (0..WORKERS).map(|worker| board.records(log, worker).load(Ordering::SeqCst)).collect();
        assert_eq!(counts.to_vec(), known, "records of log {log}, by worker, at rest");
        found.push(log);
    }
    found.sort_unstable();
    assert_eq!(found, (0..LOGS).collect::<Vec<_>>(), "logs that are there");
}
