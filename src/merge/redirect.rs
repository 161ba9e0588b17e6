//! Redirects: where the layers below keep an object that was renamed above them.
//! Source: overlayfs.rst, "redirect_dir"; kernel `ovl_check_redirect`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The longest redirect that is written. Source: kernel `OVL_REDIRECT_MAX`.
pub const MAX_LEN: usize = 256;
/// The longest redirect that is read.
const MAX_READ: usize = 4096;

/// Where the layers below keep an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// In the same parent, under this name.
    Sibling(OsString),
    /// At this path from each layer's root; no leading slash, no empty or dot component.
    FromRoot(OsString),
}

impl Redirect {
    /// Reads the value of a redirect attribute. Errors: what is wrong with it, in words.
    pub fn parse(value: &[u8]) -> Result<Redirect, &'static str> {
        // The kernel reads it as a string.
        let value = value.split(|&b| b == 0).next().unwrap_or_default();
        if value.is_empty() {
            return Err("it is empty");
        }
        if value.len() > MAX_READ {
            return Err("it is longer than a path can be");
        }
        match value.strip_prefix(b"/") {
            Some(path) => {
                path.split(|&b| b == b'/').try_for_each(check_component)?;
                Ok(Redirect::FromRoot(OsString::from_vec(path.to_vec())))
            }
            None => {
                check_component(value)?;
                Ok(Redirect::Sibling(OsString::from_vec(value.to_vec())))
            }
        }
    }

    /// The value of the attribute that says this.
    pub fn format(&self) -> Vec<u8> {
        match self {
            Redirect::Sibling(name) => name.as_bytes().to_vec(),
            Redirect::FromRoot(path) => [b"/", path.as_bytes()].concat(),
        }
    }

    /// Where to look for the whole path when a directory in the middle of it carries this redirect: `before` are the
    /// components that lead to that directory's parent, `after` those below it.
    pub fn within(&self, before: &OsStr, after: &OsStr) -> OsString {
        let (base, step) = match self {
            Redirect::Sibling(name) => (before.as_bytes(), name.as_bytes()),
            Redirect::FromRoot(path) => (&b""[..], path.as_bytes()),
        };
        let parts = [base, step, after.as_bytes()];
        let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        OsString::from_vec(parts.join(&b'/'))
    }
}

fn check_component(component: &[u8]) -> Result<(), &'static str> {
    match component {
        b"" => Err("a component of it is empty"),
        b"." | b".." => Err("a component of it is a dot name"),
        [..] if component.contains(&b'/') => Err("it is relative and contains a slash"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_a_name_or_a_path_from_the_root() {
        assert_eq!(Redirect::parse(b"d"), Ok(Redirect::Sibling("d".into())));
        assert_eq!(Redirect::parse(b"/a/b"), Ok(Redirect::FromRoot("a/b".into())));
        assert_eq!(Redirect::parse(b"d\0/.."), Ok(Redirect::Sibling("d".into())));
        for bad in [&b""[..], b"/", b"a/b", b"..", b"/a/../b", b"/a//b", b"/a/", b"/./a"] {
            assert!(Redirect::parse(bad).is_err(), "{:?}", bad);
        }
        for good in [&b"d"[..], b"/a/b", b"/d"] {
            assert_eq!(Redirect::parse(good).expect("good").format(), good);
        }
    }

    #[test]
    fn a_redirect_in_the_middle_rewrites_what_follows() {
        let sibling = Redirect::Sibling("old".into());
        let root = Redirect::FromRoot("x/y".into());
        assert_eq!(sibling.within("a".as_ref(), "b/c".as_ref()), OsStr::new("a/old/b/c"));
        assert_eq!(sibling.within("".as_ref(), "".as_ref()), OsStr::new("old"));
        assert_eq!(root.within("a".as_ref(), "b".as_ref()), OsStr::new("x/y/b"));
    }
}
