//! The one error type. Variants are meanings; `errno` is the only table to errno and `level` says how loud to be.
//! Rooms below `overlay` return it; only `fuse/reply.rs` answers and logs with it.

use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno;

/// What went wrong with a request, or with setting a mount up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No such name. The hottest answer of an overlay: carries nothing, so it does not allocate.
    NotFound,
    /// The name is taken.
    Exists,
    /// A directory that still shows names.
    NotEmpty,
    /// A directory where something else is needed.
    IsDir,
    /// Something else where a directory is needed.
    NotDir,
    /// A change to something that takes none: no upper layer, or a read-only mount.
    ReadOnly,
    /// The operation may not be done on this object, whoever asks.
    NotPermitted(&'static str),
    /// The caller may not do this.
    Denied,
    /// Something is attached at the name, or below it.
    Busy(&'static str),
    /// The operation would have to cross from one tree to another.
    CrossDevice(&'static str),
    /// The path to the lower object is longer than a redirect may be.
    NoRedirect,
    /// A malformed argument.
    Invalid(&'static str),
    /// The name is longer than the upper layer can hold.
    NameTooLong,
    /// No such extended attribute.
    NoAttribute,
    /// The caller's buffer is too small.
    Range,
    /// The filesystem below, or an option, does not offer this.
    Unsupported,
    /// A request that the kernel need not make again: it does by itself what there is to do.
    NotServed,
    /// An ioctl that is not handled.
    NoIoctl,
    /// The object behind a number is gone.
    Stale,
    /// A mark in a layer that cannot be followed: which, where, why.
    BadMark {
        /// The mark's name, for example `redirect`.
        mark: &'static str,
        /// The name of the object that carries it.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The kernel refused a call.
    Sys {
        /// The call, for example `renameat2`.
        call: &'static str,
        /// What it was refused with.
        errno: Errno,
    },
    /// An internal contradiction.
    Bug(&'static str),
    /// Another mount has the directory.
    InUse {
        /// What it is to this mount: `upperdir` or `workdir`.
        role: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Something a person has to put right before the mount can be made: one sentence with name, value and remedy.
    Setup(String),
}

/// How loud an error is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// An ordinary answer.
    Trace,
    /// A refusal.
    Debug,
    /// A broken mark or a failed disk.
    Warn,
    /// A fault of this program.
    Error,
}

/// The result of anything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The errno the caller of a system call sees.
    pub fn errno(&self) -> Errno {
        match self {
            Error::NotFound => Errno::ENOENT,
            Error::Exists => Errno::EEXIST,
            Error::NotEmpty => Errno::ENOTEMPTY,
            Error::IsDir => Errno::EISDIR,
            Error::NotDir => Errno::ENOTDIR,
            Error::ReadOnly => Errno::EROFS,
            Error::Busy(_) => Errno::EBUSY,
            Error::NotPermitted(_) => Errno::EPERM,
            Error::Denied => Errno::EACCES,
            Error::CrossDevice(_) | Error::NoRedirect => Errno::EXDEV,
            Error::Invalid(_) => Errno::EINVAL,
            Error::NameTooLong => Errno::ENAMETOOLONG,
            Error::NoAttribute => Errno::ENODATA,
            Error::Range => Errno::ERANGE,
            Error::Unsupported => Errno::EOPNOTSUPP,
            Error::NotServed => Errno::ENOSYS,
            Error::NoIoctl => Errno::ENOTTY,
            Error::Stale => Errno::ESTALE,
            // The kernel answers EPERM or EINVAL here, as if the caller had erred. The data is what is wrong.
            Error::BadMark { .. } => Errno::EIO,
            Error::Sys { errno, .. } => *errno,
            Error::InUse { .. } => Errno::EBUSY,
            Error::Bug(_) | Error::Setup(_) => Errno::EIO,
        }
    }

    /// How loud the error is in the log.
    pub fn level(&self) -> Level {
        match self {
            Error::NotFound | Error::NoAttribute | Error::Range | Error::NotServed | Error::NoIoctl => {
                Level::Trace
            }
            Error::BadMark { .. } => Level::Warn,
            Error::Sys { errno: Errno::EIO | Errno::ENOSPC | Errno::EDQUOT | Errno::EUCLEAN, .. } => {
                Level::Warn
            }
            Error::Bug(_) | Error::Setup(_) => Level::Error,
            _ => Level::Debug,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotPermitted(why) | Error::CrossDevice(why) | Error::Invalid(why) => {
                write!(f, "{}: {why}", self.errno().desc())
            }
            Error::BadMark { mark, name, why } => {
                write!(f, "the mark `{mark}` on {name:?} cannot be followed: {why}")
            }
            Error::Sys { call, errno } => write!(f, "{call}: {}", errno.desc()),
            Error::Bug(what) => write!(f, "internal contradiction: {what}"),
            Error::InUse { role, path } => write!(
                f,
                "{role} {path:?} is in use by another mount: unmount that one first, or give another {role}"
            ),
            Error::Setup(sentence) => f.write_str(sentence),
            Error::NoRedirect => {
                write!(
                    f,
                    "{}: the path to the lower object is longer than a mark may be",
                    self.errno().desc()
                )
            }
            _ => f.write_str(self.errno().desc()),
        }
    }
}

impl std::error::Error for Error {}

/// Gives a refused call its name, and the common refusals their meaning.
pub trait Context<T> {
    /// Names the call that was refused.
    fn call(self, call: &'static str) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn call(self, call: &'static str) -> Result<T> {
        self.map_err(|errno| match errno {
            Errno::ENOENT => Error::NotFound,
            Errno::EEXIST => Error::Exists,
            Errno::ENOTEMPTY => Error::NotEmpty,
            Errno::ENODATA => Error::NoAttribute,
            Errno::ERANGE => Error::Range,
            errno => Error::Sys { call, errno },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_keeps_its_errno_and_gets_a_name() {
        let error = Err::<(), _>(Errno::ENOSPC).call("write").expect_err("refused");
        assert_eq!(error.errno(), Errno::ENOSPC);
        assert_eq!(error.level(), Level::Warn);
        assert_eq!(error.to_string(), "write: No space left on device");
        assert_eq!(Err::<(), _>(Errno::ENOENT).call("openat2"), Err(Error::NotFound));
    }
}
