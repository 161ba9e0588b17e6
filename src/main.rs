//! The `stratafs` program: parses the command line and does what it says.

use std::process::ExitCode;

fn main() -> ExitCode {
    abort_on_panic();
    stratafs::cli::main(std::env::args_os().collect())
}

/// Ends the process at a panic, as `panic = "abort"` does in release builds.
///
/// A worker that unwinds would leave its caller waiting for ever. When the daemon ends, callers get ENOTCONN.
fn abort_on_panic() {
    if cfg!(panic = "unwind") {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            report(info);
            std::process::abort();
        }));
    }
}
