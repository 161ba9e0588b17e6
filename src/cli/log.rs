//! Where the log goes, and how much of it: standard error, a file, or syslog.
//!
//! Records that fuser writes through `log` come along. On success nothing is written at the default level.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use parking_lot::Mutex;

use syslog_tracing::{Facility, Options, Syslog};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::exit::Failure;
use super::log_limit::Limited;

/// Where the log goes.
#[derive(Debug)]
pub enum Target {
    /// In the foreground.
    Stderr,
    /// In the background.
    Syslog,
    /// Where `--log-file` says.
    File(Arc<LogFile>),
}

/// The file of `--log-file`. Its directory stays open, so that opening it again never leads through the mount.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    dir: OwnedFd,
    file: Mutex<File>,
}

impl LogFile {
    /// Opens the file at `path` at its end, and creates it first if there is none.
    ///
    /// # Errors
    ///
    /// `Failed`, with the path and the remedy.
    pub fn open(path: &Path) -> Result<Arc<LogFile>, Failure> {
        let failed = |why: String| {
            Failure::Failed(format!(
                "--log-file {path:?} cannot be opened ({why}): name a file in a writable directory"
            ))
        };
        // In a directory that others may write, one of them could have root write where he may not.
        let own = [0, nix::unistd::geteuid().as_raw()];
        if std::fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink() && !own.contains(&it.uid())) {
            return Err(failed("it is a symlink that another user has made".to_owned()));
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| failed(error.to_string()))?;
        // Where the path leads now: later a symlink may lead into the mount.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = crate::sys::open::root(parent).map_err(|errno| failed(errno.desc().to_owned()))?;
        Ok(Arc::new(LogFile { path, dir, file: Mutex::new(file) }))
    }

    /// Opens the file again, for a program that has moved the old one away. A new one gets the old one's mode. If it cannot be
    /// opened, the log continues in the old file, with an error.
    pub fn reopen(&self) {
        let Ok(facts) = self.file.lock().metadata() else { return };
        if !facts.is_file() {
            // A terminal or a pipe stays what it is.
            return;
        }
        let mode = facts.mode() & 0o777;
        // A fifo that another user has put there must not block.
        let how = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | how;
        let name = self.path.file_name().unwrap_or_default();
        match openat(&self.dir, name, flags, Mode::from_bits_truncate(mode)) {
            Ok(file) => {
                let file = File::from(file);
                match file.metadata().is_ok_and(|facts| facts.is_file()) {
                    true => *self.file.lock() = file,
                    false => tracing::error!("--log-file {:?} is no regular file any more", self.path),
                }
            }
            Err(errno) => {
                tracing::error!("--log-file {:?} cannot be opened again: {}", self.path, errno.desc())
            }
        }
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged, checked.
pub struct Level(Targets);

impl Level {
    /// The level of `--log-level`, else of `STRATAFS_LOG`, else `warn`.
    /// Errors: `Usage` for words that are no level.
    pub fn new(option: Option<&str>) -> Result<Level, Failure> {
        let variable = std::env::var("STRATAFS_LOG").ok().filter(|text| !text.is_empty());
        let (name, text) = match (option, &variable) {
            (Some(text), _) => ("--log-level", text),
            (None, Some(text)) => ("STRATAFS_LOG=", text.as_str()),
            // fuser warns when somebody else has unmounted, which is how a mount ends.
            (None, None) => ("", "warn,fuser=error"),
        };
        // A bare word that is no level would be taken as the name of a module and silence everything else.
        let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        let known = text.split(',').all(|part| is_level(part.rsplit('=').next().unwrap_or(part)));
        known.then_some(()).and_then(|()| text.parse().ok()).map(Level).ok_or_else(|| {
            Failure::Usage(format!(
                "{name} `{text}` is not a level: give error, warn, info, debug, trace or MODULE=LEVEL,..."
            ))
        })
    }
}

/// Begins to log. A second call changes nothing.
pub fn begin(target: Target, level: Level) {
    // A reader of the log that has gone, as after `| head`, must not end the daemon: by itself the crate would print the error,
    // and panic where that fails too.
    if matches!(target, Target::Syslog) {
        // syslog(3) reads the time zone at its first line, under a lock; by then the mount may cover /etc.
        crate::sys::clock::local(0);
    }
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).log_internal_errors(false);
    // An error means that a subscriber is there already: one set by a test.
    let _ = match target {
        Target::Stderr => {
            let colours = std::io::stderr().is_terminal();
            builder
                .with_ansi(colours)
                .with_writer(Limited::new(std::io::stderr))
                .finish()
                .with(level.0)
                .try_init()
        }
        Target::File(file) => {
            builder.with_ansi(false).with_writer(Limited::new(file)).finish().with(level.0).try_init()
        }
        // Connected now: the mount may cover /dev.
        Target::Syslog => {
            match Syslog::new(c"stratafs", Options::LOG_PID | Options::LOG_NDELAY, Facility::Daemon) {
                // syslog adds the time itself.
                Some(syslog) => builder
                    .with_ansi(false)
                    .without_time()
                    .with_writer(Limited::new(syslog))
                    .finish()
                    .with(level.0)
                    .try_init(),
                None => Ok(()),
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists_of_levels_are_taken_and_other_words_are_not() {
        for text in ["error", "warn", "info", "debug", "trace", "DEBUG", "off", "stratafs=debug,fuser=warn"] {
            assert!(Level::new(Some(text)).is_ok(), "{text}");
        }
        for text in ["loud", "", "stratafs=loud"] {
            let failure = Level::new(Some(text)).err();
            assert!(matches!(failure, Some(Failure::Usage(s)) if s.contains("--log-level")), "{text}");
        }
    }
}
