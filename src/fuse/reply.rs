//! Answering: the only place that turns errors into errnos for the kernel and writes them to the log, once.

use fuser::Errno;
use tracing::{debug, error, trace, warn};

use crate::error::{Error, Level};

/// The errno for the kernel; the log hears what was refused, as loud as it deserves.
pub fn refusal(operation: &'static str, ino: u64, error: &Error) -> Errno {
    match error.level() {
        Level::Trace => trace!(operation, ino, "{error}"),
        Level::Debug => debug!(operation, ino, "{error}"),
        Level::Warn => warn!(operation, ino, "{error}"),
        Level::Error => error!(operation, ino, "{error}"),
    }
    Errno::from_i32(error.errno() as i32)
}

/// Answers with `$value` if `$result` is good, and with its errno if not.
macro_rules! answer {
    ($operation:literal, $ino:expr, $reply:expr, $result:expr, $value:pat => $good:expr) => {
        match $result {
            Ok($value) => $good,
            Err(error) => $reply.error($crate::fuse::reply::refusal($operation, $ino, &error)),
        }
    };
}
pub(super) use answer;
