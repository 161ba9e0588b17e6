//! Whether something attached is in use, and by whom.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Overlay;
use super::way::refused;
use crate::error::Result;
use crate::layer::Stack;
use crate::sys::process::{self, Hold};

/// How long a file that was just closed may take to be closed here: the kernel says so when the caller has gone on already.
const CLOSING: Duration = Duration::from_millis(300);

impl Overlay {
    /// Errors: `Setup`, naming who, if a file or directory of `stack` is open or mapped, or a process stands in it.
    pub(super) fn check_unused(&self, target: &Path, stack: &Arc<Stack>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let Use { open, passed, numbers } = self.use_of(stack);
            let mountpoint = &self.grafts.config.mountpoint;
            let holder = process::holder(mountpoint, open || passed, |ino| numbers.contains(&ino));
            let why = match holder {
                Some(holder) => {
                    let how = match holder.how {
                        Hold::Cwd => "stands in it",
                        Hold::Root => "has its root directory in it",
                        Hold::Program => "runs a program of it",
                        Hold::Open => "has something in it open",
                        Hold::Mapped => "has something in it mapped",
                    };
                    let path = holder.path.map(|path| format!(", {path:?}")).unwrap_or_default();
                    format!("process {} ({}) {how}{path}; end it", holder.pid, holder.name)
                }
                None if !open => return Ok(()),
                None if begun.elapsed() < CLOSING => {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                None => {
                    "something in it is open, by a process that cannot be seen from here; close it".to_owned()
                }
            };
            return Err(refused(target, &format!("it is busy: {why}, or use --lazy")));
        }
    }

    fn use_of(&self, stack: &Arc<Stack>) -> Use {
        let mut seen = Use { open: false, passed: false, numbers: HashSet::new() };
        self.store.each(|inode| {
            if Arc::ptr_eq(&inode.stack, stack) {
                let state = inode.state.read();
                let rare = state.rare();
                seen.open |= !rare.opens.is_none() || rare.open_dirs > 0;
                seen.passed |= state.was_passthrough;
                seen.numbers.insert(inode.st_ino);
            }
        });
        seen
    }
}

/// What is known of a stack.
struct Use {
    /// Something is open.
    open: bool,
    /// Something was passed through: a map of it is one of the source's file, and nobody says here when it goes.
    passed: bool,
    /// The numbers of what the kernel knows.
    numbers: HashSet<u64>,
}
