//! Asking a mount.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use super::{Answer, Request};
use crate::sys::socket;

/// Asks whoever listens at `path`. Gives the lines that come before the last one to `each`, until it wants no more; returns
/// the last one, or nothing if `each` wanted no more. Errors: nobody listens, or what was said is no answer.
pub fn ask(
    path: &Path,
    request: &Request,
    mut each: impl FnMut(Answer) -> bool,
) -> io::Result<Option<Answer>> {
    let mut socket = socket::connect(path)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match socket.write_all(&line) {
        // Who refuses before having read it has said why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        sent => sent?,
    }
    let mut reader = BufReader::new(socket);
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer: Answer = serde_json::from_slice(&line)?;
        if answer.is_last() {
            return Ok(Some(answer));
        }
        if !each(answer) {
            return Ok(None);
        }
    }
}
