//! The daemon and the processes of a load from outside: what they use, whether they get on, and where they stand if they do not.

use std::fmt;
use std::time::{Duration, Instant};

use crate::common::*;

/// So long may a worker be about one step.
const PATIENCE: Duration = Duration::from_secs(180);
/// What a daemon may keep that has nothing to remember any more, beyond what it had at the begin: freed memory that the allocator keeps.
const KEPT_KB: u64 = 16 << 10;
const KEPT_FILES: u64 = 8;

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    memory_kb: u64,
    files: u64,
}

impl Usage {
    pub fn of(pid: i32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Usage {
            memory_kb: memory.and_then(|text| text.parse().ok()).unwrap_or(0),
            files: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |list| list.count() as u64),
        }
    }

    pub fn max(self, other: Usage) -> Usage {
        Usage { memory_kb: self.memory_kb.max(other.memory_kb), files: self.files.max(other.files) }
    }

    /// Once the kernel has forgotten everything. It does so after a while.
    pub fn settled(pid: i32, first: Usage) -> Usage {
        eventually(LIMIT, || {
            forget_all();
            Usage::of(pid).files <= first.files + KEPT_FILES
        });
        Usage::of(pid)
    }

    /// Fails where more is in use than at the begin.
    #[track_caller]
    pub fn check(self, first: Usage) {
        assert!(
            self.files <= first.files + KEPT_FILES,
            "descriptors: {} before, {} at rest",
            first.files,
            self.files
        );
        let most = first.memory_kb + KEPT_KB;
        assert!(self.memory_kb <= most, "memory: {} KiB before, {} at rest", first.memory_kb, self.memory_kb);
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB {} files", self.memory_kb, self.files)
    }
}

/// Makes the kernel forget names and inodes that nobody uses.
pub fn forget_all() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// Since when each worker has not done a step.
#[derive(Default)]
pub struct Stalls(Vec<(u64, Option<Instant>)>);

impl Stalls {
    /// The workers that have done none for too long.
    pub fn of(&mut self, operations: &[u64]) -> Vec<usize> {
        self.0.resize(operations.len(), (u64::MAX, None));
        for (known, now) in self.0.iter_mut().zip(operations) {
            if known.0 != *now {
                *known = (*now, Some(Instant::now()));
            }
        }
        let long = |since: &Option<Instant>| since.is_some_and(|since| since.elapsed() > PATIENCE);
        (0..self.0.len()).filter(|worker| long(&self.0[*worker].1)).collect()
    }
}

/// Where each thread of a process stands in the kernel.
pub fn stacks(pid: i32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return format!("{pid}: gone\n") };
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let one = |task: std::path::PathBuf| {
        let (name, call) = (read(task.join("comm")), read(task.join("syscall")));
        format!("{}: {} in {}{}", task.display(), name.trim_end(), call, read(task.join("stack")))
    };
    tasks.flatten().map(|entry| one(entry.path())).collect()
}
