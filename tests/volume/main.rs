//! `stratafs volume` from outside, on stores of its own: Docker's words, lines and statuses; what crashes leave; archives.
//!
//! What is mounted by driver options needs root and a mount namespace; without them those tests end at once, saying so.

#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

mod archive;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Done, run, sum};

/// A store of a test's own.
#[derive(Debug)]
struct State(tempfile::TempDir);

impl State {
    fn new() -> State {
        State(tempfile::Builder::new().prefix("stratafs-test-").tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.path().join("volumes").join(name)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.volume(name).join("_data")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(common::program());
        command.arg("volume").args(args).env("STRATAFS_STATE", self.path());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    /// What is printed, of a command that does what it is asked.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args).ok();
        assert_eq!(done.err, "", "{args:?}");
        done.out
    }

    /// Refused with one line that has all `parts`, and nothing is changed.
    #[track_caller]
    fn refuses(&self, args: &[&str], status: i32, parts: &[&str]) -> Done {
        let before = self.tree();
        let done = self.run(args);
        assert_eq!(done.code, Some(status), "{args:?}: {}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{args:?}: {}", done.err);
        assert!(done.err.starts_with("stratafs: "), "{args:?}: {}", done.err);
        for part in parts {
            assert!(done.err.contains(part), "{args:?}: {part:?} is not in {}", done.err);
        }
        assert_eq!(sum::diff(&before, &self.tree()), "", "{args:?} changed something");
        done
    }

    /// All there is in the store. When users came and went shows in times, and is no change.
    fn tree(&self) -> sum::Tree {
        let mut tree = sum::tree(self.path());
        for (path, entry) in &mut tree {
            if !path.components().any(|part| part.as_os_str() == "_data") {
                entry.mtime = (0, 0);
            }
        }
        tree
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(&self.ok(&["inspect", name])).unwrap();
        all[0].clone()
    }
}
