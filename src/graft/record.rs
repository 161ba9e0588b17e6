//! One record of comma-separated values, as strict about quotes as Docker's reader is.
//!
//! The crates for this take a stray or open quote for a part of the value, and a path that was cut in the wrong place
//! would be mounted. Source: Go `encoding/csv`; RFC 4180.

use super::shown::shown;

/// The fields of `text`, which is one record. The reason why not is a sentence.
pub(super) fn fields(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest {
            [b'"', inside @ ..] => quoted(inside)?,
            _ => plain(rest)?,
        };
        fields.push(field);
        match after {
            [] => return Ok(fields),
            // The separator, since no field ends elsewhere.
            [_, after @ ..] => rest = after,
        }
    }
}

fn plain(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let end = text.iter().position(|byte| *byte == b',').unwrap_or(text.len());
    let (field, after) = text.split_at(end);
    if field.contains(&b'"') {
        return Err(format!(
            "parse error: bare \" in non-quoted field `{}`: put the whole field in quotes, and write \"\" for one in it",
            shown(field)
        ));
    }
    if field.contains(&b'\n') {
        return Err(format!(
            "the field `{}` has a second line: put the whole field in quotes, or give --mount again",
            shown(field)
        ));
    }
    Ok((field.to_vec(), after))
}

/// What stands up to the closing quote, and what follows that.
fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut field = Vec::new();
    let mut rest = text;
    loop {
        match rest {
            [b'"', b'"', after @ ..] => {
                field.push(b'"');
                rest = after;
            }
            [b'"', after @ ..] if matches!(after, [] | [b',', ..]) => return Ok((field, after)),
            [b'"', ..] | [] => {
                return Err(format!(
                    "parse error: extraneous or missing \" in quoted-field `\"{}`: end the field with one quote, and \
                     write \"\" for one in it",
                    shown(text)
                ));
            }
            [byte, after @ ..] => {
                field.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_at_commas_outside_of_quotes() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[""]),
            ("a", &["a"]),
            ("a,b", &["a", "b"]),
            ("a,,", &["a", "", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("a=1,\"o=x,y\"\"z\"", &["a=1", "o=x,y\"z"]),
            ("\"\",\"\"\"\"", &["", "\""]),
            ("\"a\nb\"", &["a\nb"]),
            (" a , b", &[" a ", " b"]),
        ];
        for (text, expected) in cases {
            let expected: Vec<Vec<u8>> = expected.iter().map(|field| field.as_bytes().to_vec()).collect();
            assert_eq!(fields(text.as_bytes()), Ok(expected), "{text}");
        }
        for text in ["\"", "a,\"b", "\"a\"b", "a\"b\"", "\"a\"\"", "a=\"b,c\"", "a\nb"] {
            let sentence = fields(text.as_bytes()).expect_err(text);
            assert!(!sentence.contains('\n') && sentence.contains("quotes") | sentence.contains("quote"));
        }
    }
}
