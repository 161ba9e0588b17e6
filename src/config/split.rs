//! The lexical half of the `-o` grammar: where a list is cut and what a backslash protects. Knows no option by name.
//!
//! Source: overlayfs.rst, "Multiple lower layers" (colons, `\:`, `::`); mount(8), double quotes around a value.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::graft::shown;

/// One element of a comma list: `name`, `name=value` or `name="value"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// As it was written, quotes and backslashes included.
    pub raw: Vec<u8>,
    /// What stands before the first `=`.
    pub name: String,
    /// What stands after it, without quotes; backslashes are still in place.
    pub value: Option<Vec<u8>>,
}

impl Field {
    /// The field as a sentence may hold it: one line, whatever is in it.
    pub fn shown(&self) -> String {
        shown(&self.raw)
    }
}

/// The elements of a comma list. Empty elements are skipped, as mount(8) does.
/// Errors: a quote that is opened and never closed.
pub fn fields(list: &[u8]) -> Result<Vec<Field>> {
    let mut out = Vec::new();
    let mut start = 0;
    while start < list.len() {
        let (equals, end) = field_end(list, start)?;
        if end > start {
            out.push(field(&list[start..end], equals.map(|at| at - start)));
        }
        start = end + 1;
    }
    Ok(out)
}

/// Where the field beginning at `start` has its `=`, and where it ends.
fn field_end(list: &[u8], start: usize) -> Result<(Option<usize>, usize)> {
    let mut equals = None;
    let mut at = start;
    while at < list.len() {
        match list[at] {
            b'\\' => at += 1,
            b',' => break,
            b'=' if equals.is_none() => {
                equals = Some(at);
                if list.get(at + 1) == Some(&b'"') {
                    let end = closing_quote(list, at + 2).ok_or_else(|| {
                        let shown = shown(&list[start..]);
                        Error::Setup(format!(
                            "the double quote opened in `{shown}` is never closed: \
                             end the value with a quote before the comma, or write `\\\"` for a quote in a name"
                        ))
                    })?;
                    return Ok((equals, end + 1));
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok((equals, at.min(list.len())))
}

/// Where the quote is that ends a value: one followed by a comma or by nothing.
fn closing_quote(list: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at < list.len() {
        match list[at] {
            b'\\' => at += 1,
            b'"' if matches!(list.get(at + 1), None | Some(b',')) => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn field(raw: &[u8], equals: Option<usize>) -> Field {
    let (name, value) = match equals {
        None => (raw, None),
        Some(at) => {
            let value = &raw[at + 1..];
            let bare = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
            (&raw[..at], Some(bare.to_vec()))
        }
    };
    Field { raw: raw.to_vec(), name: String::from_utf8_lossy(name).into_owned(), value }
}

/// `text` without its backslashes: each gives its meaning to the byte after it.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            byte => out.push(byte),
        }
    }
    out
}

/// One path, its backslashes resolved.
pub fn path(text: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(text)))
}

/// One path as it is, but for `\,`, without which the list would end.
pub fn without_escaped_commas(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = byte == b'\\' && after.first() == Some(&b',');
        if !escaped {
            out.push(byte);
        }
        rest = after;
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The layers and the data-only layers of a `lowerdir=` value. The reason why not is a sentence without the value.
/// Source: overlayfs.rst, "Data-only lower layers": what follows the first `::` is data-only to the end.
pub fn layers(value: &[u8]) -> std::result::Result<(Vec<PathBuf>, Vec<PathBuf>), &'static str> {
    let (mut lowers, mut data) = (Vec::new(), Vec::new());
    let mut in_data = false;
    let mut rest = value;
    while !rest.is_empty() {
        let end = colon(rest);
        if end == 0 {
            return Err(
                "no layer before a colon: one `:` stands between layers, `::` before a data-only layer",
            );
        }
        let layer = path(&rest[..end]);
        if in_data {
            data.push(layer)
        } else {
            lowers.push(layer)
        }
        rest = match &rest[end..] {
            [] => &[],
            [b':', b':', after @ ..] if !after.is_empty() => {
                in_data = true;
                after
            }
            [b':', after @ ..] if !after.is_empty() => {
                if in_data && !after.starts_with(b":") {
                    return Err(
                        "an ordinary layer cannot follow a data-only one: put it before the first `::`",
                    );
                }
                after
            }
            _ => return Err("a colon at the end: remove it, or write `\\:` for a colon in a name"),
        };
    }
    Ok((lowers, data))
}

/// Where the first colon is that no backslash protects.
fn colon(text: &[u8]) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != b':' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_values(list: &str) -> Vec<(String, Option<String>)> {
        let text = |v: Vec<u8>| String::from_utf8(v).expect("text");
        fields(list.as_bytes()).expect(list).into_iter().map(|f| (f.name, f.value.map(text))).collect()
    }

    #[test]
    fn a_list_is_cut_at_commas_that_nothing_protects() {
        type Case = (&'static str, &'static [(&'static str, Option<&'static str>)]);
        let cases: &[Case] = &[
            ("", &[]),
            (",,", &[]),
            ("ro", &[("ro", None)]),
            ("ro,dev,", &[("ro", None), ("dev", None)]),
            ("a=1,b=", &[("a", Some("1")), ("b", Some(""))]),
            ("a=b=c", &[("a", Some("b=c"))]),
            ("lowerdir=/a\\,b:/c,ro", &[("lowerdir", Some("/a\\,b:/c")), ("ro", None)]),
            ("context=\"s0:c1,c2\",ro", &[("context", Some("s0:c1,c2")), ("ro", None)]),
            ("upperdir=\"/a \\\",b\"", &[("upperdir", Some("/a \\\",b"))]),
            ("upperdir=/it\"s,ro", &[("upperdir", Some("/it\"s")), ("ro", None)]),
            ("upperdir=/ends\\", &[("upperdir", Some("/ends\\"))]),
            ("context=\"\"", &[("context", Some(""))]),
        ];
        for (list, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(n, v)| (n.to_string(), v.map(str::to_owned))).collect();
            assert_eq!(names_and_values(list), expected, "{list}");
        }
    }

    #[test]
    fn an_open_quote_is_an_error_that_shows_it() {
        for list in ["ro,context=\"a,b", "context=\"", "lowerdir=\"a\":b"] {
            let sentence = fields(list.as_bytes()).expect_err(list).to_string();
            assert!(sentence.contains("never closed") && sentence.contains('"'), "{sentence}");
        }
    }

    #[test]
    fn the_raw_field_keeps_quotes() {
        let all = fields(b"context=\"a,b\",ro").expect("list");
        assert_eq!(all[0].shown(), "context=\"a,b\"");
    }

    #[test]
    fn layers_are_cut_at_colons_that_no_backslash_protects() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("", &[], &[]),
            ("/a", &["/a"], &[]),
            ("/a:/b", &["/a", "/b"], &[]),
            ("/a\\:b:/c", &["/a:b", "/c"], &[]),
            ("/a\\\\:/c\\,d", &["/a\\", "/c,d"], &[]),
            ("/a:/b::/d1::/d2", &["/a", "/b"], &["/d1", "/d2"]),
            ("rel:/b", &["rel", "/b"], &[]),
        ];
        for (value, lowers, data) in cases {
            let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
            assert_eq!(layers(value.as_bytes()), Ok((paths(lowers), paths(data))), "{value}");
        }
    }

    #[test]
    fn misplaced_colons_are_errors() {
        for value in ["/a:", "/a::", ":/a", "::/a", "/a:::/b", "/a::/d:/b", ":"] {
            assert!(layers(value.as_bytes()).is_err(), "{value}");
        }
    }
}
