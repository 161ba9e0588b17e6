//! Waiting for states. Times are never asserted: a test waits for what must come, with a limit that only a fault reaches.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use super::sys;

/// How long a test waits for a state or a command. Only a fault takes so long, however busy the machine is.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `cond` holds; false if it does not within `limit`.
pub fn eventually(limit: Duration, mut cond: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !cond() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// The exit code of a child, if it ends in time and by itself.
pub fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the clock that filesystems take times from has moved on, so that the next change has a later time.
pub fn await_later_time() {
    let begun = sys::now(libc::CLOCK_REALTIME);
    assert!(eventually(LIMIT, || sys::now(libc::CLOCK_REALTIME_COARSE) > begun), "the clock stands still");
}

/// Stops a process and waits until all of its threads have stopped: each stops by itself, and answers until it does.
#[track_caller]
pub fn stop(pid: i32) {
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    let stopped = || {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks.all(|task| {
            let stat = fs::read_to_string(task.path().join("stat"));
            // A thread may end while it is looked at.
            stat.is_ok_and(|stat| {
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
            })
        })
    };
    assert!(eventually(LIMIT, stopped), "process {pid} does not stop");
}
