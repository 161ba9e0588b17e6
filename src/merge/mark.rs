//! Names and values of the marks that layers carry, and which extended attributes of a layer are private.
//! Source: overlayfs.rst, "whiteouts and opaque directories"; `docs/on-disk-format.md` has the whole table.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::listing::FileKind;

/// `.wh.NAME` hides NAME in the layers below. Source: OCI image-spec, layer.md, "Whiteouts".
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// In a directory: hides everything of the layers below. Source: OCI image-spec, layer.md, "Opaque Whiteout".
pub const OPAQUE_FILE: &CStr = c".wh..wh..opq";
/// The device numbers under which a layer keeps a char 0:0 that is no whiteout.
pub const DISGUISED_DEVICE: (u32, u32) = (0, 1);
/// The opaque mark of fuse-overlayfs.
pub const FUSE_OVERLAYFS_OPAQUE: &CStr = c"user.fuseoverlayfs.opaque";
const FUSE_OVERLAYFS: &[u8] = b"user.fuseoverlayfs.";

/// Where a mount writes its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.*`
    Trusted,
    /// `user.overlay.*`: option `userxattr`, and mounts without privilege.
    User,
}

/// The marks kept in extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// On a directory: `y` hides the layers below, `x` says that whiteouts in it are extended attributes.
    Opaque,
    /// Where the layers below keep this object.
    Redirect,
    /// The lower object this one was copied up from.
    Origin,
    /// On a directory: some child's number is its origin's.
    Impure,
    /// The link count of an indexed inode, relative to a real one.
    Nlink,
    /// On an index entry of a directory: its upper object.
    Upper,
    /// Metadata is here, data below.
    Metacopy,
    /// Append-only and immutable flags.
    Protattr,
    /// On an empty file in an `x` directory: a whiteout.
    Whiteout,
    /// On char 0:1: it is really 0:0. Only stratafs writes and reads it; the kernel shows 0:1.
    Device,
}

impl Namespace {
    /// The namespace of a mount that writes no marks and so cannot try. `wanted` is what was asked for.
    pub fn of_reader(wanted: Option<bool>, privileged: bool) -> Namespace {
        if wanted == Some(true) || !privileged { Namespace::User } else { Namespace::Trusted }
    }

    /// What all marks of this namespace begin with: these attributes are private in a mount that uses it. Attributes of
    /// the other namespace are ordinary ones.
    fn prefix(self) -> &'static [u8] {
        match self {
            Namespace::Trusted => b"trusted.overlay.",
            Namespace::User => b"user.overlay.",
        }
    }

    /// Whether objects of this kind take marks. Source: xattr(7): `user.*` is for regular files and directories.
    pub fn marks(self, kind: FileKind) -> bool {
        self == Namespace::Trusted || matches!(kind, FileKind::Regular | FileKind::Dir)
    }

    /// The attribute that carries `mark`.
    pub fn attribute(self, mark: Mark) -> &'static CStr {
        match (self, mark) {
            (Namespace::Trusted, Mark::Opaque) => c"trusted.overlay.opaque",
            (Namespace::Trusted, Mark::Redirect) => c"trusted.overlay.redirect",
            (Namespace::Trusted, Mark::Origin) => c"trusted.overlay.origin",
            (Namespace::Trusted, Mark::Impure) => c"trusted.overlay.impure",
            (Namespace::Trusted, Mark::Nlink) => c"trusted.overlay.nlink",
            (Namespace::Trusted, Mark::Upper) => c"trusted.overlay.upper",
            (Namespace::Trusted, Mark::Metacopy) => c"trusted.overlay.metacopy",
            (Namespace::Trusted, Mark::Protattr) => c"trusted.overlay.protattr",
            (Namespace::Trusted, Mark::Whiteout) => c"trusted.overlay.whiteout",
            (Namespace::Trusted, Mark::Device) => c"trusted.overlay.stratafs.device",
            (Namespace::User, Mark::Device) => c"user.overlay.stratafs.device",
            (Namespace::User, Mark::Opaque) => c"user.overlay.opaque",
            (Namespace::User, Mark::Redirect) => c"user.overlay.redirect",
            (Namespace::User, Mark::Origin) => c"user.overlay.origin",
            (Namespace::User, Mark::Impure) => c"user.overlay.impure",
            (Namespace::User, Mark::Nlink) => c"user.overlay.nlink",
            (Namespace::User, Mark::Upper) => c"user.overlay.upper",
            (Namespace::User, Mark::Metacopy) => c"user.overlay.metacopy",
            (Namespace::User, Mark::Protattr) => c"user.overlay.protattr",
            (Namespace::User, Mark::Whiteout) => c"user.overlay.whiteout",
        }
    }
}

/// In front of what a user calls by a private name; each nesting level adds one.
const ESCAPE: &[u8] = b"overlay.";

/// The name under which a layer keeps the attribute that callers call `name`: that of a mark is escaped, so that an overlay
/// with its layers in this mount, the kernel's or fuse-overlayfs, can keep its own marks here.
/// Source: overlayfs.rst, "Nesting overlayfs mounts".
pub fn stored_attribute(namespace: Namespace, name: &OsStr) -> OsString {
    match split(namespace, name.as_bytes()) {
        Some((prefix, rest)) => OsString::from_vec([prefix, ESCAPE, rest].concat()),
        None => name.to_owned(),
    }
}

/// The name by which callers know the attribute that a layer keeps as `name`; nothing if it is private.
pub fn shown_attribute(namespace: Namespace, name: &[u8]) -> Option<OsString> {
    let Some((prefix, rest)) = split(namespace, name) else { return Some(OsString::from_vec(name.to_vec())) };
    let inner = rest.strip_prefix(ESCAPE)?;
    Some(OsString::from_vec([prefix, inner].concat()))
}

/// The prefix that makes `name` that of a mark, and the rest of it.
fn split(namespace: Namespace, name: &[u8]) -> Option<(&'static [u8], &[u8])> {
    let prefixes = [namespace.prefix(), FUSE_OVERLAYFS];
    prefixes.into_iter().find_map(|prefix| Some((prefix, name.strip_prefix(prefix)?)))
}

/// What an opaque attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opaque {
    /// Nothing.
    #[default]
    No,
    /// The layers below do not show through.
    Yes,
    /// Whiteouts in this directory may be extended attributes.
    XattrWhiteouts,
}

impl Opaque {
    /// What the value of an opaque attribute says; an unknown value says nothing, as in the kernel.
    pub fn parse(value: &[u8]) -> Opaque {
        match value {
            b"y" => Opaque::Yes,
            b"x" => Opaque::XattrWhiteouts,
            _ => Opaque::No,
        }
    }
}

/// The value of a metacopy attribute is whole: empty, or with a header of four bytes. What the header says is for
/// fs-verity, which is not checked here. Source: kernel `ovl_check_metacopy_xattr`, `struct ovl_metacopy`.
pub fn metacopy_is_valid(value: &[u8]) -> bool {
    value.is_empty() || value.len() >= 4
}

/// The base of a stored link count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NlinkBase {
    /// Relative to the upper object.
    Upper,
    /// Relative to the lower object.
    Lower,
}

/// The value of a `nlink` mark: the overlay's link count minus the real one, with the base it is relative to.
pub fn format_nlink(base: NlinkBase, difference: i64) -> Vec<u8> {
    let letter = match base {
        NlinkBase::Upper => 'U',
        NlinkBase::Lower => 'L',
    };
    format!("{letter}{difference:+}").into_bytes()
}

/// Reads what `format_nlink` writes; nothing for garbage.
pub fn parse_nlink(value: &[u8]) -> Option<(NlinkBase, i64)> {
    let (letter, rest) = value.split_first()?;
    let base = match letter {
        b'U' => NlinkBase::Upper,
        b'L' => NlinkBase::Lower,
        _ => return None,
    };
    Some((base, std::str::from_utf8(rest).ok()?.parse().ok()?))
}

/// The name that `.wh.NAME` hides; nothing for other names, for `.wh.` alone, and for the opaque file.
pub fn hidden_by(name: &[u8]) -> Option<&[u8]> {
    let hidden = name.strip_prefix(WHITEOUT_PREFIX)?;
    (!hidden.is_empty() && name != OPAQUE_FILE.to_bytes()).then_some(hidden)
}

/// A name that belongs to marks and can never be shown or made.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_attributes_are_hidden_and_escaped() {
        let text = |name: OsString| name.to_string_lossy().into_owned();
        let stored = |name: &str| text(stored_attribute(Namespace::Trusted, OsStr::new(name)));
        let shown = |name: &str| shown_attribute(Namespace::Trusted, name.as_bytes()).map(text);
        assert_eq!(stored("trusted.overlay.foo"), "trusted.overlay.overlay.foo");
        assert_eq!(stored("user.overlay.opaque"), "user.overlay.opaque");
        assert_eq!(
            stored_attribute(Namespace::User, OsStr::new("user.overlay.opaque")),
            OsString::from("user.overlay.overlay.opaque")
        );
        assert_eq!(stored("user.fuseoverlayfs.opaque"), "user.fuseoverlayfs.overlay.opaque");
        assert_eq!(stored("user.note"), "user.note");
        assert_eq!(shown("trusted.overlay.opaque"), None);
        assert_eq!(shown("trusted.overlay.overlay.foo").as_deref(), Some("trusted.overlay.foo"));
        assert_eq!(
            shown("trusted.overlay.overlay.overlay.foo").as_deref(),
            Some("trusted.overlay.overlay.foo")
        );
        assert_eq!(shown("security.capability").as_deref(), Some("security.capability"));
    }

    #[test]
    fn link_counts_are_written_as_the_kernel_writes_them() {
        assert_eq!(format_nlink(NlinkBase::Upper, -1), b"U-1");
        assert_eq!(format_nlink(NlinkBase::Lower, 0), b"L+0");
        assert_eq!(parse_nlink(b"U-1"), Some((NlinkBase::Upper, -1)));
        assert_eq!(parse_nlink(b"L+2"), Some((NlinkBase::Lower, 2)));
        for garbage in [&b""[..], b"U", b"X+1", b"U+x", b"U\xff"] {
            assert_eq!(parse_nlink(garbage), None);
        }
    }

    #[test]
    fn a_metacopy_header_is_whole_or_absent() {
        for good in [&b""[..], &[0, 4, 0, 0], &[0, 36, 0, 1, 7]] {
            assert!(metacopy_is_valid(good));
        }
        for bad in [&[0u8][..], &[0, 4], &[0, 4, 0]] {
            assert!(!metacopy_is_valid(bad));
        }
    }

    #[test]
    fn whiteout_files_name_what_they_hide() {
        assert_eq!(hidden_by(b".wh.a"), Some(&b"a"[..]));
        assert_eq!(hidden_by(b".wh."), None);
        assert_eq!(hidden_by(b".wh..wh..opq"), None);
        assert_eq!(hidden_by(b"a"), None);
        assert!(is_reserved(b".wh.") && is_reserved(b".wh..wh..opq") && !is_reserved(b".whale"));
    }
}
