//! Where tests make the n-th change of the disk fail, or hold the thread before it. Outside test builds a point is nothing
//! at all.

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
pub use armed::{Armed, Paused, arm, crash, pause};

#[cfg(any(test, feature = "faults"))]
mod armed {
    use std::cell::{Cell, RefCell};

    use nix::errno::Errno;

    /// What runs before a change, after so many.
    type Action = (u64, Box<dyn FnOnce()>);

    thread_local! {
        static ACTION: RefCell<Option<Action>> = const { RefCell::new(None) };
        static LEFT: Cell<Option<(u64, Errno)>> = const { Cell::new(None) };
        static PASSED: Cell<u64> = const { Cell::new(0) };
        static DOWN: Cell<bool> = const { Cell::new(false) };
        static CRASHES: Cell<bool> = const { Cell::new(false) };
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

    /// Lets `passes` changes of this thread pass and fails all that come after, those that would clean up included: what
    /// is then on disk is what a power cut leaves.
    pub fn crash(passes: u64) -> Armed {
        CRASHES.set(true);
        arm(passes, Errno::EIO)
    }

    /// While it lives, one change made by this thread waits for an action of the test.
    #[derive(Debug)]
    pub struct Paused(());

    /// Lets `passes` changes of this thread pass and runs `action` before the next one, under the locks that it holds.
    pub fn pause(passes: u64, action: impl FnOnce() + 'static) -> Paused {
        ACTION.set(Some((passes, Box::new(action))));
        Paused(())
    }

    impl Paused {
        /// Whether the action has run.
        pub fn fired(&self) -> bool {
            ACTION.with_borrow(Option::is_none)
        }
    }

    impl Drop for Paused {
        fn drop(&mut self) {
            ACTION.set(None);
        }
    }

    /// Takes the action that is due.
    fn due() -> Option<Box<dyn FnOnce()>> {
        ACTION.with_borrow_mut(|next| {
            let (left, _) = next.as_mut()?;
            if *left > 0 {
                *left -= 1;
                return None;
            }
            next.take().map(|(_, action)| action)
        })
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
            CRASHES.set(false);
            DOWN.set(false);
        }
    }

    pub fn pass() -> nix::Result<()> {
        if let Some(action) = due() {
            action();
        }
        PASSED.set(PASSED.get() + 1);
        match LEFT.get() {
            None if DOWN.get() => Err(Errno::EIO),
            None => Ok(()),
            Some((0, errno)) => {
                LEFT.set(None);
                DOWN.set(CRASHES.get());
                Err(errno)
            }
            Some((left, errno)) => {
                LEFT.set(Some((left - 1, errno)));
                Ok(())
            }
        }
    }
}
