//! `--mount`: one record of `key[=value]` fields, as Docker reads it, with our own words as further keys.
//!
//! Source: docker/cli `opts/mount.go`. Of a key of Docker's that is given twice the last counts, as there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::long::{Kind, Long, Recursive, text};
use super::shown::{nearest, shown};
use super::words::{self, key_value, one_of};
use super::{Spec, record, size};
use crate::error::{Error, Result};

/// Keys that take a value.
const WITH_VALUE: [&str; 16] = [
    "type",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "consistency",
    "bind-propagation",
    "bind-recursive",
    "volume-subpath",
    "volume-label",
    "volume-driver",
    "volume-opt",
    "tmpfs-size",
    "tmpfs-mode",
    "image-subpath",
];

/// Keys that mean yes without a value.
const YES_OR_NO: [&str; 5] = ["readonly", "ro", "volume-nocopy", "bind-create-src", "bind-nonrecursive"];

/// Every key of `--mount` that says something here.
pub fn mount_keys() -> impl Iterator<Item = &'static str> {
    let refused = ["image-subpath", "bind-nonrecursive"];
    WITH_VALUE.into_iter().chain(YES_OR_NO).filter(move |key| !refused.contains(key))
}

type Why = std::result::Result<(), String>;

/// The graft that `--mount given` asks for. A source that begins with `.` is below `cwd`; no source is looked at.
/// Errors: `Setup` with the text, what is wrong with it, in Docker's words where it has some, and the remedy.
pub fn mount(given: &OsStr, cwd: &Path) -> Result<Spec> {
    let given = given.as_bytes();
    parse(given, cwd).map_err(|why| Error::Setup(format!("--mount `{}`: {why}", shown(given))))
}

fn parse(given: &[u8], cwd: &Path) -> std::result::Result<Spec, String> {
    if given.is_empty() {
        return Err("it says nothing: write type=bind|volume|tmpfs,source=SRC,target=DST".to_owned());
    }
    let mut long = Long::default();
    for field in record::fields(given)? {
        take(&mut long, &field)?;
    }
    long.spec(cwd, given)
}

fn take(long: &mut Long, field: &[u8]) -> Why {
    let (given, value) = key_value(field);
    // Ours are exact; Docker's are read in any case.
    if let Some(taken) = long.words.own(given, value) {
        return taken;
    }
    let key = shown(given).to_lowercase();
    let known = WITH_VALUE.contains(&key.as_str()) || YES_OR_NO.contains(&key.as_str());
    let kind = match key.split_once('-') {
        Some(("bind", _)) => Some(Kind::Bind),
        Some(("volume", _)) => Some(Kind::Volume),
        Some(("tmpfs", _)) => Some(Kind::Tmpfs),
        _ => None,
    };
    if let Some(kind) = kind.filter(|_| known) {
        long.of_kind.push((kind, key.clone()));
    }
    match value {
        _ if YES_OR_NO.contains(&key.as_str()) => flag(long, &key, yes(&key, value)?),
        Some(value) if known => set(long, &key, value).map_err(|why| format!("`{}`: {why}", shown(field))),
        Some(_) => Err(format!("unexpected key '{key}' in '{}': {}", shown(field), remedy(&key))),
        None => Err(format!("invalid field '{}' must be a key=value pair: {}", shown(field), remedy(&key))),
    }
}

fn set(long: &mut Long, key: &str, value: &[u8]) -> Why {
    match key {
        "type" => long.kind = Kind::read(value)?,
        "source" | "src" => long.source = value.to_vec(),
        "target" | "dst" | "destination" => long.target = value.to_vec(),
        "consistency" => consistency(value)?,
        "bind-propagation" => long.propagation(value)?,
        "bind-recursive" => long.recursive = Recursive::read(value)?,
        "volume-subpath" => long.subpath = value.to_vec(),
        "volume-label" => long.volume.labels.extend([pair(value)?]),
        "volume-driver" => long.volume.driver = Some(text(value)?).filter(|name| !name.is_empty()),
        "volume-opt" => long.volume.options.extend([pair(value)?]),
        "tmpfs-size" => long.size = Some(size::bytes(value)?),
        "tmpfs-mode" => long.mode = Some(size::mode(value)?),
        _ => {
            return Err(
                "it needs an engine that keeps images, and there is none here: give the directory that is meant as \
                 the source of a bind"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

fn flag(long: &mut Long, key: &str, yes: bool) -> Why {
    match key {
        "readonly" | "ro" => long.read_only = yes,
        "volume-nocopy" => long.volume.nocopy = yes,
        "bind-create-src" => long.create_source = yes,
        // Docker has taken it away with engine 29.
        _ => {
            return Err("`bind-nonrecursive` is no more: write bind-recursive=disabled".to_owned());
        }
    }
    Ok(())
}

/// Source: Go `strconv.ParseBool`.
fn yes(key: &str, value: Option<&[u8]>) -> std::result::Result<bool, String> {
    match value {
        None | Some(b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True") => Ok(true),
        Some(b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False") => Ok(false),
        Some(value) => Err(format!("invalid value for {key}: {}: give true or false", shown(value))),
    }
}

/// What two hosts may see of each other's changes, which is no question on one.
pub(super) fn consistency(value: &[u8]) -> Why {
    let known = [("default", ()), ("consistent", ()), ("cached", ()), ("delegated", ())];
    one_of(shown(value).to_lowercase().as_bytes(), &known)
}

fn pair(value: &[u8]) -> std::result::Result<(String, String), String> {
    let (key, value) = key_value(value);
    if key.is_empty() {
        return Err("nothing stands before its second `=`: write KEY=VALUE".to_owned());
    }
    Ok((text(key)?, text(value.unwrap_or_default())?))
}

fn remedy(key: &str) -> String {
    let known = WITH_VALUE.into_iter().chain(YES_OR_NO).chain(words::keys());
    match nearest(key, known) {
        Some(near) if near == key => format!("write `{near}=VALUE`"),
        Some(near) => format!("did you mean `{near}`?"),
        None => "remove it (`stratafs mount --help` lists the keys)".to_owned(),
    }
}

#[cfg(test)]
#[path = "mount_flag_tests.rs"]
mod tests;
