//! What the program's exit status means: one map, shown by `--help` and kept by every command.

use std::process::ExitCode;

use crate::error::Error;
use crate::graft::shown;

/// The map, as help shows it.
pub const MAP: &str = "\
Exit status:
  0  done; for mount: the mount is up
  1  it could not be done; one line on standard error says why and what to do
  2  the command line makes no sense; nothing was touched";

/// Why a command ends without having done what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// It could not be done.
    Failed(String),
    /// It could not be done, and what there is to say has been said.
    Said,
}

/// What a command comes to.
pub type Outcome = std::result::Result<(), Failure>;

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Said => 1,
            Failure::Usage(_) => 2,
        }
    }

    /// A contradiction in what was said, as opposed to something amiss with the world.
    pub fn usage(error: Error) -> Failure {
        Failure::Usage(error.to_string())
    }

    /// The one line on standard error, the exit status.
    pub fn report(&self) -> ExitCode {
        if let Failure::Usage(sentence) | Failure::Failed(sentence) = self {
            say(sentence);
        }
        ExitCode::from(self.status())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// One line on standard error, whatever is in it: names of files, processes and options may hold control characters. Callers
/// such as podman show it to people as it is.
pub fn say(sentence: &str) {
    let sentence = shown(sentence.as_bytes());
    // Standard error may be closed, and then there is nobody to tell.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("stratafs: {sentence}\n").as_bytes());
}
