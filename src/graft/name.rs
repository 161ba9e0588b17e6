//! The names that a volume can have.

use super::shown::shown;

/// The longest name that a directory can have.
const LONGEST: usize = 255;

/// Whether a volume can be called `name`: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, and no longer than the name of a directory.
/// Source: moby `volume/names/names.go`, `RestrictedNamePattern`.
pub fn is_volume_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && (2..=LONGEST).contains(&name.len())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// The volume name that `text` is. The reason why not is a sentence with the text.
pub(super) fn name(text: &[u8]) -> Result<String, String> {
    if let Some(name) = std::str::from_utf8(text).ok().filter(|name| is_volume_name(name)) {
        return Ok(name.to_owned());
    }
    let shown = shown(text);
    Err(match text {
        _ if text.len() > LONGEST => {
            format!("the volume name `{shown}` is too long: give one of at most {LONGEST} bytes")
        }
        // Docker's words, and then which of the two was meant.
        [_] if text[0].is_ascii_alphanumeric() => format!(
            "volume name is too short, names should be at least two alphanumeric characters: `{shown}` has one"
        ),
        [b'~', ..] => format!(
            "`{shown}` is no volume name, and `~` is for a shell to replace: leave the quotes off, or write the \
             path out"
        ),
        _ => format!(
            "\"{shown}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path, or one that begins with `./`"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_docker() {
        for name in ["ab", "0a", "a_.-", "test02_test02-tensorflow-volume", &"a".repeat(255)] {
            assert!(is_volume_name(name), "{name}");
        }
        for (text, part) in [
            ("a", "too short"),
            ("", "invalid characters"),
            ("_a", "invalid characters"),
            (".a", "invalid characters"),
            ("a/b", "absolute path"),
            ("a b", "\"a b\""),
            ("볼륨", "볼륨"),
            ("~/a", "shell"),
            (&"a".repeat(256), "too long"),
        ] {
            let sentence = name(text.as_bytes()).expect_err(text);
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
