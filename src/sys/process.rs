//! What a daemon needs to leave its caller behind, and to live long in little memory.
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

/// Closes every descriptor from the third on that the caller left open, so that nobody waits for a pipe which the
/// daemon does not know it holds. Call it before this process opens any of its own.
pub fn close_inherited() {
    // SAFETY: takes no pointer. Nothing in this process owns a descriptor above standard error yet.
    // An old kernel answers ENOSYS and the descriptors stay open, as for any other daemon.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Gives memory that was freed back to the system. The allocator by itself does that only at the end of its heap, and one
/// object that lives keeps everything below it. Takes milliseconds after much was freed; other threads may wait that long
/// to allocate. Where the allocator is another one, it does nothing.
pub fn give_back_memory() {
    // SAFETY: takes no pointer, and changes nothing but pages that no object is in.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_split() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv().is_err());
        assert_eq!(fork().err(), Some(Errno::EBUSY));
        drop(hold);
        assert!(thread.join().expect("thread"));
    }
}
