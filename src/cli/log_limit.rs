//! A limit of log lines: what a caller does again and again must not fill the disk that the log is on.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines of one second. Those of the levels debug and trace are asked for, and have no limit.
const LINES: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);

/// Writes lines as `M` does, but not too many. What was left out is said with the next line after that.
#[derive(Debug)]
pub struct Limited<M> {
    to: M,
    window: Arc<Mutex<Window>>,
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl<M> Limited<M> {
    /// Around `to`.
    pub fn new(to: M) -> Limited<M> {
        Limited { to, window: Arc::default() }
    }
}

impl Window {
    /// Whether one more line is written at `now`, and how many were left out before it; nothing if it is left out itself.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= SECOND) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Limited<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(Some(self.to.make_writer()))
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        if *meta.level() > Level::INFO {
            return Line(Some(self.to.make_writer_for(meta)));
        }
        let Some(left_out) = self.window.lock().admit(Instant::now()) else { return Line(None) };
        if left_out > 0 {
            // The log may be closed; a failure to write to it is ignored, as for other lines.
            let _ = writeln!(
                self.to.make_writer_for(meta),
                "{left_out} lines were left out: more than {LINES} in a second"
            );
        }
        Line(Some(self.to.make_writer_for(meta)))
    }
}

/// One line of the log, or nowhere.
#[derive(Debug)]
pub struct Line<W>(Option<W>);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.as_mut().map_or(Ok(bytes.len()), |to| to.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_says_what_is_missing() {
        let mut window = Window::default();
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let first: Vec<_> = (0..60).map(|_| window.admit(at(0))).collect();
        assert_eq!(first.iter().filter(|line| line.is_some()).count(), LINES as usize);
        assert_eq!(
            (window.admit(at(999)), window.admit(at(1000)), window.admit(at(1001))),
            (None, Some(11), Some(0))
        );
    }
}
