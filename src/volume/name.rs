//! What a volume is called: the refusals of names that the grammar does not have, and names for those without.

use std::io::Read;

use crate::error::{Error, Result};
use crate::graft;

/// The label of a volume that nobody named. Source: moby `volume.AnonymousLabel`.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// Passes a name that a volume can have. Errors: `Setup`.
pub fn check(name: &str) -> Result<()> {
    if graft::is_volume_name(name) {
        return Ok(());
    }
    let short: String = name.chars().take(64).collect();
    let (why, remedy) = match name.len() {
        0 | 1 => ("it is too short", "take at least two letters or digits"),
        256.. => ("it is too long", "take at most 255 bytes"),
        _ if name.contains('/') => ("it reads as a path", "a volume has no `/` in its name"),
        _ => ("only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed", "leave the other characters out"),
    };
    Err(Error::Setup(format!("volume name {short:?}: {why}: {remedy}")))
}

/// 64 hex digits that nothing else has. Errors: `Setup` where /dev/urandom cannot be read.
pub fn anonymous() -> Result<String> {
    random(32)
}

/// Twice as many random hex digits as `bytes`.
pub(super) fn random(bytes: usize) -> Result<String> {
    let mut noise = vec![0; bytes];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut noise))
        .map_err(|error| Error::Setup(format!("/dev/urandom: {error}: make the device")))?;
    Ok(noise.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["ab", "0-", "a.b_c-D", "v1", &"x".repeat(255), &"f".repeat(64)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            ".tmp-1",
            "-a",
            "_a",
            "a b",
            "a/b",
            "/abs",
            "../x",
            "..",
            "ä1",
            "a\n",
            "a:b",
            "a,b",
            &"x".repeat(256),
        ] {
            let sentence = check(bad).expect_err(bad).to_string();
            assert!(sentence.contains("volume name") && !sentence.contains('\n'), "{sentence}");
        }
    }

    /// Every name of one to three bytes, against the grammar spelled out.
    #[test]
    fn short_names_agree_with_the_grammar() {
        let first = |c: char| c.is_ascii_alphanumeric();
        let later = |c: char| first(c) || matches!(c, '_' | '.' | '-');
        let alphabet: Vec<char> = (0u8..=127).map(char::from).collect();
        for a in &alphabet {
            assert!(check(&a.to_string()).is_err());
            for b in &alphabet {
                for c in [None, Some('z'), Some('/'), Some('\0'), Some('.')] {
                    let name: String = [Some(*a), Some(*b), c].into_iter().flatten().collect();
                    let expected = first(*a) && later(*b) && c.is_none_or(later);
                    assert_eq!(check(&name).is_ok(), expected, "{name:?}");
                }
            }
        }
    }

    #[test]
    fn anonymous_names_differ_and_are_names() {
        let (one, two) = (anonymous().expect("one"), anonymous().expect("two"));
        assert!(one != two && one.len() == 64 && check(&one).is_ok());
    }
}
