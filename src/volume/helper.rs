//! Mounting by a helper: a program that the administrator allows for a type.

use std::path::Path;

use super::driver;
use super::meta::Meta;
use crate::config::helpers::Helper;
use crate::sys::program;

/// Runs `HELPER SOURCE TARGET -o WORDS`, as mount(8) calls its helpers, for the volume with its data directory at `at`.
/// Errors: the option with its value, or what the helper printed; then nothing is mounted.
pub(super) fn mount(helper: &Helper, meta: &Meta, at: &Path) -> Result<(), String> {
    let option = |key: &str| meta.options.get(key).map_or("", String::as_str);
    let named = |why: String| format!("the helper {:?} for `type={}`: {why}", helper.program, helper.kind);
    Helper::check_source(option("device"))?;
    let words = helper.options(option("o"))?;
    let real = std::fs::canonicalize(&helper.program);
    let real = real.map_err(|error| named(format!("{error}: correct its path, or install it")))?;
    helper.check_program(&real).map_err(named)?;
    let cannot_run = |error: std::io::Error| named(format!("it cannot be run ({error}): correct its path"));
    let mut command = program::command(&helper.program).map_err(cannot_run)?;
    command.arg(option("device")).arg(at);
    if !words.is_empty() {
        command.args(["-o", &words]);
    }
    let (status, output) = program::run(command).map_err(cannot_run)?;
    let mounted = driver::is_mounted(at);
    if status.success() && mounted {
        return Ok(());
    }
    if mounted {
        if let Err(errno) = driver::unmount(at) {
            tracing::warn!("unmounting {at:?}: {}", errno.desc());
        }
    }
    let first = output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it printed nothing");
    let ended = match status.success() {
        true => "it has ended, and nothing is mounted".to_owned(),
        false => format!("it has failed, {status}"),
    };
    Err(named(format!("{ended}: {}: correct type, device and o", first.trim_end_matches('.'))))
}
