//! Where tests make the n-th change of the disk fail. Outside test builds a point is nothing at all.

use nix::Result;

/// Passes, or fails with the errno that a test has armed.
#[cfg(any(test, feature = "faults"))]
pub fn point() -> Result<()> {
    armed::pass()
}

/// Passes.
#[cfg(not(any(test, feature = "faults")))]
#[inline(always)]
pub fn point() -> Result<()> {
    Ok(())
}

#[cfg(any(test, feature = "faults"))]
pub use armed::{Armed, arm};

#[cfg(any(test, feature = "faults"))]
mod armed {
    use std::cell::Cell;

    use nix::errno::Errno;

    thread_local! {
        static LEFT: Cell<Option<(u64, Errno)>> = const { Cell::new(None) };
        static PASSED: Cell<u64> = const { Cell::new(0) };
    }

    /// While it lives, one change made by this thread fails.
    #[derive(Debug)]
    pub struct Armed(());

    /// Lets `passes` changes of this thread pass and fails the next one with `errno`.
    pub fn arm(passes: u64, errno: Errno) -> Armed {
        LEFT.set(Some((passes, errno)));
        PASSED.set(0);
        Armed(())
    }

    impl Armed {
        /// Whether the fault has happened.
        pub fn fired(&self) -> bool {
            LEFT.get().is_none()
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            LEFT.set(None);
        }
    }

    pub fn pass() -> nix::Result<()> {
        PASSED.set(PASSED.get() + 1);
        match LEFT.get() {
            None => Ok(()),
            Some((0, errno)) => {
                LEFT.set(None);
                Err(errno)
            }
            Some((left, errno)) => {
                LEFT.set(Some((left - 1, errno)));
                Ok(())
            }
        }
    }
}
