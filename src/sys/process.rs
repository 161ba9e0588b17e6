//! Splitting the process in two, for a daemon that leaves its caller behind.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::unistd::ForkResult;

/// The two halves of this process. Call it before any thread is started.
/// Errors: `EBUSY` if other threads run, since their locks would stay locked in the child; those of fork(2).
pub fn fork() -> nix::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(1);
    if threads > 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: the process has one thread, so the child finds no lock held by a thread it lacks, and may go on to
    // allocate and run any code. Both halves own their copy of every descriptor.
    unsafe { nix::unistd::fork() }
}
