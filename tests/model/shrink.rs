//! Takes away from a failing run what it does not need to fail.

use std::time::{Duration, Instant};

use crate::case::{Case, Failure, run};
use crate::op::Step;

/// The smallest run found in `limit` that fails as `failure` does, and how it fails.
pub fn shrink(case: Case, failure: Failure, limit: Duration) -> (Case, Failure) {
    // What goes wrong on the way is known.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let shrunk = shrink_quietly(case, failure, limit);
    std::panic::set_hook(told);
    shrunk
}

fn shrink_quietly(mut case: Case, mut failure: Failure, limit: Duration) -> (Case, Failure) {
    let end = Instant::now() + limit;
    let kind = failure.kind.clone();
    let keeps = |case: &Case| match run(case) {
        Err(found) if found.kind == kind => Some(found),
        _ => None,
    };
    // What comes after the failure had no part in it.
    let mut cut = case.clone();
    cut.steps.truncate(failure.at);
    if let Some(found) = keeps(&cut) {
        (case, failure) = (cut, found);
    }
    loop {
        let before = size(&case);
        for part in 0..=case.layers.len() {
            let mut chunk = steps_of(&mut case, part).len().div_ceil(2);
            while chunk > 0 && Instant::now() < end {
                let mut at = 0;
                while at < steps_of(&mut case, part).len() && Instant::now() < end {
                    let mut less = case.clone();
                    let steps = steps_of(&mut less, part);
                    steps.drain(at..(at + chunk).min(steps.len()));
                    match keeps(&less) {
                        Some(found) => (case, failure) = (less, found),
                        None => at += chunk,
                    }
                }
                chunk /= 2;
            }
        }
        for layer in (1..case.layers.len()).rev() {
            let mut less = case.clone();
            less.layers.remove(layer);
            if let Some(found) = keeps(&less) {
                (case, failure) = (less, found);
            }
        }
        if size(&case) == before || Instant::now() >= end {
            return (case, failure);
        }
    }
}

/// The steps of the run, or of one layer.
fn steps_of(case: &mut Case, part: usize) -> &mut Vec<Step> {
    match part {
        0 => &mut case.steps,
        part => &mut case.layers[part - 1].1,
    }
}

fn size(case: &Case) -> usize {
    case.steps.len() + case.layers.iter().map(|(_, steps)| 1 + steps.len()).sum::<usize>()
}
