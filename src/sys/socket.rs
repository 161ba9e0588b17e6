//! Sockets in the filesystem, whatever the length of their paths.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as listen_to, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// The longest path that fits an address, its end included. Source: unix(7).
const LONGEST: usize = 108;

/// A socket at `path` that nobody but this user can connect to, from the first moment on.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // On Linux the file gets the mode of the socket. Source: unix(7), kernel `unix_bind_bsd`.
    fchmod(&fd, Mode::from_bits_truncate(0o600))?;
    let (_dir, short) = shorten(path)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(&short)?)?;
    listen_to(&fd, Backlog::new(16)?)?;
    Ok(UnixListener::from(fd))
}

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_dir, short) = shorten(path)?;
    UnixStream::connect(short)
}

/// A path for `path` that fits an address, as long as the descriptor is open.
fn shorten(path: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    if path.as_os_str().len() < LONGEST {
        return Ok((None, path.to_owned()));
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let fd = open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut short = OsString::from(format!("/proc/self/fd/{}/", fd.as_raw_fd()));
    short.push(path.file_name().unwrap_or(OsStr::new("")));
    Ok((Some(fd), short.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_socket_is_its_owners_wherever_it_is() {
        let dir = tempfile::TempDir::new().expect("dir");
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("dir");
        for path in [dir.path().join("socket"), deep.join("socket")] {
            let listener = listen(&path).expect("listen");
            assert_eq!(path.metadata().expect("socket").mode() & 0o7777, 0o600);
            let _caller = connect(&path).expect("connect");
            listener.accept().expect("accept");
        }
    }
}
