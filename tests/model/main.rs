//! The mount beside a plain directory: random calls are made in both, and every answer, and the whole trees, must agree.
//!
//! A run has one to five lower layers, made by hand, by the kernel's overlayfs or by stratafs; the plain directory is a copy
//! of what the kernel shows of them. At points within a run, and at its end, the trees are compared: live, after unmount and
//! mount, and as the kernel's overlay shows the same layers. No lower layer may have changed.
//!
//! `STRATAFS_MODEL_SECONDS` says how long to go on, 40 by default; `STRATAFS_MODEL_SEED` with which seed to begin;
//! `STRATAFS_MODEL_RUNS` ends after so many runs; `STRATAFS_MODEL_TERMS` has all of them with one set of options. A run that fails is shrunk and printed as Rust, to become one of `regressions`.
//! Needs root, `/dev/fuse` and the kernel's overlayfs; says so and passes where one is lacking.
//!
//! Start reading at `case`.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

#[allow(dead_code)]
mod format;
use format::sys;

mod attached;
mod case;
mod generate;
mod layers;
mod map;
mod op;
mod regressions;
mod shrink;
mod side;
mod small;
mod stream;
mod who;

use std::time::{Duration, Instant};

use case::{Case, Failure};

/// How many steps a run has.
const LENGTH: usize = 150;
/// How long a failing run may be shrunk.
const SHRINKING: Duration = Duration::from_secs(90);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The options that all runs are to have, if the environment says so.
fn terms() -> Option<case::Terms> {
    let name = std::env::var("STRATAFS_MODEL_TERMS").ok()?;
    let found = case::Terms::ALL.into_iter().find(|terms| format!("{terms:?}") == name);
    Some(found.unwrap_or_else(|| panic!("STRATAFS_MODEL_TERMS={name}: one of {:?}", case::Terms::ALL)))
}

/// The run as Rust, and how it fails.
fn report(case: &Case, failure: &Failure) -> String {
    let steps =
        |steps: &[op::Step]| steps.iter().map(|step| format!("        {step:?},\n")).collect::<String>();
    let layer = |(maker, made): &(case::Maker, Vec<op::Step>)| {
        format!("      ({maker:?}, vec![\n{}      ]),\n", steps(made))
    };
    let layers: String = case.layers.iter().map(layer).collect();
    format!(
        "{}\n\nCase {{\n    terms: {:?},\n    layers: vec![\n{layers}    ],\n    steps: vec![\n{}    ],\n}}",
        failure.text,
        case.terms,
        steps(&case.steps)
    )
}

#[test]
fn random_calls_answer_as_on_a_plain_directory() {
    if !format::mount::ready() {
        return;
    }
    who::settle();
    let end = Instant::now() + Duration::from_secs(number("STRATAFS_MODEL_SECONDS").unwrap_or(40));
    let first = number("STRATAFS_MODEL_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000_000));
    let runs = number("STRATAFS_MODEL_RUNS").unwrap_or(u64::MAX);
    let mut done = 0;
    while done < runs && (done == 0 || Instant::now() < end) {
        let seed = first + done;
        let case = generate::case(seed, LENGTH, terms());
        if let Err(failure) = case::run(&case) {
            eprintln!("STRATAFS_MODEL_SEED={seed} fails at step {}: {}", failure.at, failure.text);
            let (case, failure) = shrink::shrink(case, failure, SHRINKING);
            panic!("STRATAFS_MODEL_SEED={seed}\n{}", report(&case, &failure));
        }
        done += 1;
    }
    println!("{done} runs of {LENGTH} steps, from STRATAFS_MODEL_SEED={first}");
}
