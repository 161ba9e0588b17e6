//! The file `.env` beside a compose file: variables for it, a line each.
//!
//! Source: docs.docker.com, "Set, use, and manage variables in a Compose file", "`.env` file syntax".

use std::collections::BTreeMap;

use super::interpolate::interpolate;

/// The variables that `text` sets. `env` gives those that it uses; they go before its own. The reason why not is a
/// sentence with the number of the line.
pub fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut at = 0;
    while !rest.is_empty() {
        let here = rest;
        let (whole, after) = here.split_once('\n').unwrap_or((here, ""));
        (at, rest) = (at + 1, after);
        let line = whole.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Without the line itself: it may be a secret, or a symlink to another user's secret.
        let wrong = |why: &str| format!("line {at}: {why}");
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = match line.split_once(['=', ':']) {
            Some((name, value)) => (name.trim(), value.trim()),
            // Taken over from the environment, where it is asked for first anyway.
            None => continue,
        };
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() || !name.chars().all(is_part) {
            return Err(wrong("write NAME=VALUE"));
        }
        let known = |name: &str| env(name).or_else(|| all.get(name).cloned());
        let used = |value: &str| {
            interpolate(value, &known, &|_| {})
                .map_err(|_| wrong("a `$` that begins no variable, or one that is not set and has to be"))
        };
        let value = match value.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                // Up to the quote that closes it, on whatever line.
                let begin = here.find(quote).map_or(0, |begin| begin + 1);
                let inside = &here[begin..];
                let end = closing(inside, quote).ok_or_else(|| wrong("close the quote"))?;
                let lines = inside[..end].matches('\n').count();
                if lines > 0 {
                    rest = inside[end..].split_once('\n').map_or("", |(_, after)| after);
                }
                let value = if quote == '"' {
                    used(&unescaped(&inside[..end]))?
                } else {
                    inside[..end].replace("\\'", "'")
                };
                at += lines;
                value
            }
            _ => used(value.find(" #").map_or(value, |end| &value[..end]).trim_end())?,
        };
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

/// Where `quote` stands in `text` without a backslash before it.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at)
    })
}

/// What double quotes hold, with its backslashes resolved; those that say nothing stay. A dollar sign is `$$` then.
/// Source: compose-go, `dotenv` `expandEscapes`.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let octal = after.bytes().take(4).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
        let code = after.get(..octal).filter(|code| code.starts_with('0'));
        if let Some(code) = code.and_then(|code| u32::from_str_radix(code, 8).ok()).and_then(char::from_u32) {
            out.push(code);
            rest = &after[octal..];
            continue;
        }
        let mut letters = after.chars();
        let letter = letters.next();
        match letter {
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\')) => out.push(c),
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
        rest = letters.as_str();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_quotes_comments_and_variables() {
        let text = "# comment\n\nA=1\nexport B = two words # comment\nC=\nD='$A # raw'\nE=\"${A} \\\"x\\\" \\$A\" # c\n\
                    F: yaml\nG=${HOME}/${A}\nNAMED\nA.b=x#y";
        let env = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let all = read(text, &env).expect("env");
        let pairs: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("A", "1"),
            ("A.b", "x#y"),
            ("B", "two words"),
            ("C", ""),
            ("D", "$A # raw"),
            ("E", "1 \"x\" $A"),
            ("F", "yaml"),
            ("G", "/home/me/1"),
        ];
        assert_eq!(pairs, expected);
    }

    /// Source: python-dotenv 1.2.2 and compose-go's godotenv_test.go, which agree on these.
    #[test]
    fn a_quoted_value_may_have_lines_and_escapes() {
        let text = "FOO=\"foo\nbar # no\nbaz\" # c\nD=./data\nVAR='Let\\'s go!'\nW=\"C:\\path\\q\"\nK[0]=1\nP='a\nb'\nL=last";
        let all = read(text, &|_| None).expect("env");
        let pairs: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("D", "./data"),
            ("FOO", "foo\nbar # no\nbaz"),
            ("K[0]", "1"),
            ("L", "last"),
            ("P", "a\nb"),
            ("VAR", "Let's go!"),
            ("W", "C:\\path\\q"),
        ];
        assert_eq!(pairs, expected);
        let sentence = read("A=1\nB=\"x\ny\"\n=2", &|_| None).expect_err("a line without a name");
        assert!(sentence.starts_with("line 4: "), "{sentence}");
    }

    #[test]
    fn what_is_no_variable_is_named_with_its_line() {
        for (text, part) in [
            ("A=1\n=2", "line 2: write NAME=VALUE"),
            ("a b=1", "line 1"),
            ("A='x", "close the quote"),
            ("A=\"x\\\"", "close the quote"),
            ("A=${", "begins no variable"),
            ("A=${B:?set B}", "is not set and has to be"),
        ] {
            let sentence = read(text, &|_| None).expect_err(text);
            assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
        }
    }
}
