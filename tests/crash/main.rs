//! What a crash leaves. `kill` ends the daemon by SIGKILL while writers are at work, round after round on one upper layer: the
//! kernel lives on, so every operation that was answered is there. `power` takes cuts of the disk below the upper layer,
//! as a power failure would leave it: what was synced is there, and what was copied up is whole.
//!
//! Environment:
//! - `STRATAFS_CRASH_SEED`: the seed of a run, which prints it; another for each run by default.
//! - `STRATAFS_CRASH_ROUNDS`: crashes of one upper layer, and cuts of one disk.
//! - `STRATAFS_CRASH_SECONDS`: each campaign begins anew with fresh layers until so much time is over; once by default.
//!
//! Needs root; says so and passes otherwise. Start reading in `kill`.

#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod fail;
mod faulty;
mod kill;
mod load;
mod model;
mod power;
mod writer;

use std::time::{Duration, Instant};

/// A number that the environment gives.
fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// How many crashes one upper layer lives through.
fn rounds(default: u64) -> u64 {
    number("STRATAFS_CRASH_ROUNDS").unwrap_or(default)
}

/// Calls `run` with a seed, once or as long as the environment says. A failure is told with the seed that leads to it.
fn campaigns(what: &str, mut run: impl FnMut(u64)) {
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let mut seed = number("STRATAFS_CRASH_SEED").unwrap_or_else(clock);
    let span = Duration::from_secs(number("STRATAFS_CRASH_SECONDS").unwrap_or(0));
    let begun = Instant::now();
    loop {
        println!("{what}: STRATAFS_CRASH_SEED={seed}");
        run(seed);
        if begun.elapsed() >= span {
            return;
        }
        seed = seed.wrapping_add(1);
    }
}
