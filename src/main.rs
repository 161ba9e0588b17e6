//! The `stratafs` program: parses the command line and does what it says.

use std::process::ExitCode;

fn main() -> ExitCode {
    stratafs::cli::main(std::env::args_os().collect())
}
