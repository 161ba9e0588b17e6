//! Where the log goes, and how much of it: standard error, a file, or syslog.
//!
//! Records that fuser writes through `log` come along. On success nothing is written at the default level.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use syslog_tracing::{Facility, Options, Syslog};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::exit::Failure;

/// Where the log goes.
#[derive(Debug)]
pub enum Target {
    /// In the foreground.
    Stderr,
    /// In the background.
    Syslog,
    /// Where `--log-file` says.
    File(File),
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

/// The file of `--log-file`, opened at its end.
pub fn open(path: &Path) -> Result<File, Failure> {
    File::options().create(true).append(true).open(path).map_err(|error| {
        Failure::Failed(format!(
            "--log-file {path:?} cannot be opened ({error}): name a file in a writable directory"
        ))
    })
}

/// Begins to log. A second call changes nothing.
pub fn begin(target: Target, level: Level) {
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE);
    // An error means that a subscriber is there already: one set by a test.
    let _ = match target {
        Target::Stderr => builder.with_writer(std::io::stderr).finish().with(level.0).try_init(),
        Target::File(file) => {
            builder.with_ansi(false).with_writer(Arc::new(file)).finish().with(level.0).try_init()
        }
        Target::Syslog => match Syslog::new(c"stratafs", Options::LOG_PID, Facility::Daemon) {
            // syslog adds the time itself.
            Some(syslog) => {
                builder.with_ansi(false).without_time().with_writer(syslog).finish().with(level.0).try_init()
            }
            None => Ok(()),
        },
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
