//! The file `.env` beside a compose file: variables for it, a line each.
//!
//! Source: docs.docker.com, "Set, use, and manage variables in a Compose file", "`.env` file syntax".

use std::collections::BTreeMap;

use super::interpolate::interpolate;
use super::shown::shown;

/// The variables that `text` sets. `env` gives those that it uses; they go before its own. The reason why not is a
/// sentence with the number of the line.
pub fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut at = 0;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        (at, rest) = (at + 1, after);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {at} `{}`: {why}", shown(line.as_bytes()));
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = match line.split_once(['=', ':']) {
            Some((name, value)) => (name.trim(), value.trim()),
            // Taken over from the environment, where it is asked for first anyway.
            None => continue,
        };
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(is_part) {
            return Err(wrong("write NAME=VALUE"));
        }
        let known = |name: &str| env(name).or_else(|| all.get(name).cloned());
        let value = match value.as_bytes() {
            [b'\'', inside @ ..] => {
                let end =
                    inside.iter().position(|byte| *byte == b'\'').ok_or_else(|| wrong("close the quote"))?;
                value[1..=end].to_owned()
            }
            [b'"', ..] => {
                let inside = double_quoted(&value[1..]).ok_or_else(|| wrong("close the quote"))?;
                interpolate(&inside, &known, &|_| {}).map_err(|why| wrong(&why))?
            }
            _ => {
                let bare = value.find(" #").map_or(value, |end| &value[..end]);
                interpolate(bare.trim_end(), &known, &|_| {}).map_err(|why| wrong(&why))?
            }
        };
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

/// What stands before the closing quote, with its backslashes resolved; nothing if there is none.
fn double_quoted(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next()? {
            '"' => return Some(out),
            '\\' => match letters.next()? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                '$' => out.push_str("$$"),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
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

    #[test]
    fn what_is_no_variable_is_named_with_its_line() {
        for (text, part) in [
            ("A=1\n=2", "line 2 `=2`: write NAME=VALUE"),
            ("a b=1", "line 1"),
            ("A='x", "close the quote"),
            ("A=\"x\\\"", "close the quote"),
            ("A=${", "invalid interpolation"),
            ("A=${B:?set B}", "set B"),
        ] {
            let sentence = read(text, &|_| None).expect_err(text);
            assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
        }
    }
}
