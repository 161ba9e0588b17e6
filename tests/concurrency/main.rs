//! Many processes and threads at once, on the same names and the same files of one mount, while the kernel forgets what it knows. Each
//! kind of work has something that must hold all the time, or that can be counted in the end. Start reading in `round`.
//!
//! Environment:
//! - `STRATAFS_STRESS_SECONDS`: rounds follow each other until so much time is over; four shorter ones by default.
//! - `STRATAFS_STRESS_SEED`: the seed of the first round, which each run prints; another for each run by default.
//!
//! Needs root; says so and passes otherwise.

#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod board;
mod copies;
mod held;
mod links;
mod logs;
mod ping;
mod round;
mod tokens;
mod trees;
mod watch;
mod worker;

use std::time::{Duration, Instant};

use round::{OPTIONS, Round};

/// Rounds of a run that was not told how long to be. Each has options of its own.
const SHORT: usize = 4;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

#[test]
fn what_many_do_at_once_is_as_if_one_did_it_after_the_other() {
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("STRATAFS_STRESS_SEED").unwrap_or_else(clock);
    let long = number("STRATAFS_STRESS_SECONDS").map(Duration::from_secs);
    // Each round has two loads.
    let load = if long.is_some() { Duration::from_secs(10) } else { Duration::from_millis(400) };
    let (begun, mut rounds, mut operations) = (Instant::now(), 0, 0);
    while rounds < SHORT && long.is_none() || long.is_some_and(|long| begun.elapsed() < long) {
        let seed = seed.wrapping_add(rounds as u64);
        println!(
            "round {rounds}: STRATAFS_STRESS_SEED={seed}, {}",
            OPTIONS[seed as usize % OPTIONS.len()].strata
        );
        let Some(done) = Round::new(seed).and_then(|round| round.run(load)) else { return };
        operations += done;
        rounds += 1;
    }
    println!("{operations} operations in {rounds} rounds, {} s", begun.elapsed().as_secs());
}
