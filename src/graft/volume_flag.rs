//! `-v`, `--volume`: `DST`, `SRC:DST` or `SRC:DST:MODE`, as Docker reads it.
//!
//! What follows the second colon is the mode. Docker takes no colon in it; here words of ours may have colons in their
//! values (`cache=ttl:5`, `uidmap=0:1000:1`), and any other is still one field too many.
//! Source: moby `volume/mounts/linux_parser.go`, `ParseMountRaw`; docker/cli `cli/compose/loader/volume.go`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::shown::shown;
use super::words::{self, Words};
use super::{Source, Spec, Volume, name, target};
use crate::error::{Error, Result};

/// The graft that `-v text` asks for. A source that begins with `.` is below `cwd`; no source is looked at.
/// Errors: `Setup` with the text, what is wrong with it, in Docker's words where it has some, and the remedy.
pub fn volume(text: &OsStr, cwd: &Path) -> Result<Spec> {
    let text = text.as_bytes();
    parse(text, cwd).map_err(|why| Error::Setup(format!("-v `{}`: {why}", shown(text))))
}

fn parse(text: &[u8], cwd: &Path) -> std::result::Result<Spec, String> {
    let Fields { source, target, words } = fields(text)?;
    let target = target::target(target)?;
    let source = match source {
        None => Source::Volume(Volume::default()),
        Some(text) if is_path(text) => Source::Bind { path: bind_path(text, cwd)?, create: None },
        Some(text) => Source::Volume(Volume { name: Some(name::name(text)?), ..Volume::default() }),
    };
    words.spec(target, source, text)
}

/// The fields of the short form.
pub(super) struct Fields<'a> {
    pub(super) source: Option<&'a [u8]>,
    pub(super) target: &'a [u8],
    pub(super) words: Words,
}

/// Cuts the short form into its fields.
pub(super) fn fields(text: &[u8]) -> std::result::Result<Fields<'_>, String> {
    const FORM: &str = "write [SRC:]DST[:MODE]";
    if text.is_empty() {
        return Err(format!("invalid empty volume spec: {FORM}"));
    }
    let parts: Vec<&[u8]> = text.splitn(3, |byte| *byte == b':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("invalid spec: {}: empty section between colons: {FORM}", shown(text)));
    }
    match parts[..] {
        [target] => Ok(Fields { source: None, target, words: Words::default() }),
        [_, mode] if words::is_mode(mode) => Err(format!(
            "invalid volume specification: '{}': `{}` is a mode, and a mode follows source and target: {FORM}",
            shown(text),
            shown(mode)
        )),
        [source, target] => Ok(Fields { source: Some(source), target, words: Words::default() }),
        [source, target, mode] => {
            let own = |word: &[u8]| !word.contains(&b':') || words::takes_colons(word);
            if !mode.split(|byte| *byte == b',').all(own) {
                return Err(format!(
                    "invalid spec: {}: too many colons: {FORM}; for colons in a path use --mount",
                    shown(text)
                ));
            }
            Ok(Fields { source: Some(source), target, words: Words::mode(mode)? })
        }
        // `splitn` gives one to three.
        _ => Err(format!("invalid spec: {}: {FORM}", shown(text))),
    }
}

/// Whether a source is a path of the host, as opposed to the name of a volume.
pub(super) fn is_path(source: &[u8]) -> bool {
    source.starts_with(b"/") || source.starts_with(b".")
}

/// A source that is a path, from the root.
pub(super) fn bind_path(source: &[u8], cwd: &Path) -> std::result::Result<std::path::PathBuf, String> {
    target::absolute(cwd.join(OsStr::from_bytes(source)).as_os_str().as_bytes(), "source path")
}

#[cfg(test)]
#[path = "volume_flag_tests.rs"]
mod tests;
