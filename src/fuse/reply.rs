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
    errno_for_kernel(error)
}

/// To the kernel's FUSE client ENOSYS says that the daemon does not know the request, and it asks no more: after one of a
/// source's fsync(2), every fsync(2) in the mount would succeed and do nothing. What it is meant to say has its own errno.
/// Source: kernel `fs/fuse/file.c`, `fc->no_fsync` and its like.
fn errno_for_kernel(error: &Error) -> Errno {
    match (error, error.errno()) {
        (Error::NotServed, _) => Errno::ENOSYS,
        (_, nix::errno::Errno::ENOSYS) => Errno::EOPNOTSUPP,
        (_, errno) => Errno::from_i32(errno as i32),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_of_a_source_is_taken_for_the_daemons_own() {
        let told = |errno| {
            let error = Error::Sys { call: "fsync", errno };
            refusal("fsync", 1, &error).code()
        };
        assert_eq!(told(nix::errno::Errno::ENOSYS), libc::EOPNOTSUPP);
        // An errno that has no name here, as NFS lets out: an answer of 0 would be success, one of 512 and more none.
        assert_eq!(told(nix::errno::Errno::from_raw(524)), libc::EIO);
        assert_eq!(told(nix::errno::Errno::ENOSPC), libc::ENOSPC);
    }
}
