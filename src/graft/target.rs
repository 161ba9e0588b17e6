//! Where a graft goes: paths of the merged tree as they are written, and as they are meant.
//!
//! Cleaning is lexical, as everywhere in Docker: `..` takes a name away whatever the name is, and at the root nothing.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::shown::shown;

/// The absolute path `path` without `.`, `..`, empty and trailing components.
/// Source: Go `path.Clean`.
pub(super) fn clean(path: &[u8]) -> PathBuf {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let mut out = b"/".to_vec();
    out.extend(names.join(&b'/'));
    PathBuf::from(OsString::from_vec(out))
}

/// The target that `text` means. The reason why not is a sentence with the text, in Docker's words as far as they go.
/// Source: moby `volume/mounts/linux_parser.go`, `linuxValidateNotRoot`, `linuxValidateAbsolute`.
pub fn target(text: &[u8]) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("target is required: name an absolute path of the merged tree".to_owned());
    }
    let path = absolute(text, "mount path")?;
    if path.as_os_str() == "/" {
        return Err("invalid specification: destination can't be '/': the root is made of the layers, \
                    name a path below it"
            .to_owned());
    }
    Ok(path)
}

/// The absolute path that `text` means, cleaned. `what` says in the refusal which path it is.
pub(super) fn absolute(text: &[u8], what: &str) -> Result<PathBuf, String> {
    if !text.starts_with(b"/") {
        return Err(format!(
            "invalid mount path: '{}' {what} must be absolute: begin it with `/`",
            shown(text)
        ));
    }
    if text.contains(&0) {
        return Err(format!("invalid mount path: '{}' {what} holds a zero byte: take it out", shown(text)));
    }
    Ok(clean(text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Source: Go `path.Clean`, its examples and tests, for absolute paths.
    #[test]
    fn paths_are_cleaned_and_cannot_climb() {
        for (text, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/abc", "/abc"),
            ("/abc/", "/abc"),
            ("//abc//def/", "/abc/def"),
            ("/./abc/./", "/abc"),
            ("/abc/def/..", "/abc"),
            ("/abc/../..", "/"),
            ("/../../abc", "/abc"),
            ("/..a/...", "/..a/..."),
        ] {
            assert_eq!(clean(text.as_bytes()), Path::new(expected), "{text}");
        }
    }

    #[test]
    fn targets_are_absolute_and_not_the_root() {
        assert_eq!(target(b"/a//b/../c").as_deref(), Ok(Path::new("/a/c")));
        for (text, part) in [
            ("", "target is required"),
            ("a", "'a' mount path must be absolute"),
            ("./a", "must be absolute"),
            ("/", "destination can't be '/'"),
            ("/a/..", "destination can't be '/'"),
            ("/../", "destination can't be '/'"),
            ("/a\0b", "zero byte"),
        ] {
            let sentence = target(text.as_bytes()).expect_err(text);
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
