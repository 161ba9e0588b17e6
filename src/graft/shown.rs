//! Bytes of a command line or a file as a sentence may hold them: one line, whatever they are.

use std::fmt::Write;

/// `bytes` as text without control characters; bytes that are no text show as U+FFFD.
pub fn shown(bytes: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The word of `known` that somebody may have meant by `word`: two slips of the finger, but never half of it.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let slips = |other: &str| strsim::damerau_levenshtein(other, &word.to_lowercase());
    known
        .into_iter()
        .map(|other| (slips(other), other))
        .filter(|(slips, _)| *slips <= 2.min(word.chars().count() / 2))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_line() {
        assert_eq!(shown("/볼륨 \"a\"\n\t\x7f".as_bytes()), "/볼륨 \"a\"\\n\\t\\u{7f}");
        assert_eq!(shown(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("rslav", ["slave", "rslave"]), Some("rslave"));
        assert_eq!(nearest("no-copy", ["ro", "nocopy"]), Some("nocopy"));
        assert_eq!(nearest("zzzz", ["ro", "rw", "z"]), None);
        assert_eq!(nearest("x", ["z"]), None);
    }
}
