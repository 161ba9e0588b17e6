//! Owner, mode and type kept in an extended attribute, where the daemon may not set them on disk.
//! Value: `UID:GID:MODE[:TYPE]`. Source: containers/storage `pkg/idtools`; fuse-overlayfs `xattr_permissions`.

use std::ffi::CStr;

use super::listing::FileKind;

/// The attributes, in the order in which they are looked for.
pub const ATTRIBUTES: [&CStr; 3] = [
    c"user.containers.override_stat",
    c"security.fuseoverlayfs.override_stat",
    c"user.fuseoverlayfs.override_stat",
];

/// What the attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Type and device number; nothing if the object's own type stands.
    pub kind: Option<(FileKind, u32, u32)>,
}

impl Override {
    /// Reads a value; nothing for garbage.
    pub fn parse(value: &[u8]) -> Option<Override> {
        let text = std::str::from_utf8(value).ok()?;
        let mut fields = text.splitn(4, ':');
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let mode = u32::from_str_radix(fields.next()?, 8).ok()? & 0o7777;
        let kind = match fields.next() {
            None => None,
            Some(kind) => Some(parse_kind(kind)?),
        };
        Some(Override { uid, gid, mode, kind })
    }

    /// The value that says this, with the dash form of device numbers.
    pub fn format(&self) -> String {
        let base = format!("{}:{}:{:04o}", self.uid, self.gid, self.mode);
        let Some((kind, major, minor)) = self.kind else { return base };
        match kind {
            FileKind::Dir => format!("{base}:dir"),
            FileKind::Regular => format!("{base}:file"),
            FileKind::Symlink => format!("{base}:symlink"),
            FileKind::Fifo => format!("{base}:pipe"),
            FileKind::Socket => format!("{base}:socket"),
            FileKind::Block => format!("{base}:block-{major}-{minor}"),
            FileKind::Char => format!("{base}:char-{major}-{minor}"),
        }
    }
}

fn parse_kind(text: &str) -> Option<(FileKind, u32, u32)> {
    let plain = |kind| Some((kind, 0, 0));
    match text {
        "dir" => return plain(FileKind::Dir),
        "file" => return plain(FileKind::Regular),
        "symlink" => return plain(FileKind::Symlink),
        "pipe" => return plain(FileKind::Fifo),
        "socket" => return plain(FileKind::Socket),
        _ => {}
    }
    let (kind, numbers) = match text.strip_prefix("block") {
        Some(rest) => (FileKind::Block, rest),
        None => (FileKind::Char, text.strip_prefix("char")?),
    };
    // Podman writes dashes, fuse-overlayfs 2.0 colons.
    let mut numbers = numbers.split(['-', ':']).skip(1);
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    numbers.next().is_none().then_some((kind, major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_devices_are_read_and_the_dash_is_written() {
        let device = Override { uid: 0, gid: 6, mode: 0o660, kind: Some((FileKind::Block, 8, 1)) };
        assert_eq!(Override::parse(b"0:6:0660:block-8-1"), Some(device));
        assert_eq!(Override::parse(b"0:6:660:block:8:1"), Some(device));
        assert_eq!(device.format(), "0:6:0660:block-8-1");
    }

    #[test]
    fn a_missing_type_leaves_the_objects_own() {
        assert_eq!(Override::parse(b"1:2:4755"), Some(Override { uid: 1, gid: 2, mode: 0o4755, kind: None }));
        for garbage in [&b""[..], b"1:2", b"1:2:x", b"1:2:7:what", b"1:2:7:char-1", b"a:b:0", b"\xff"] {
            assert_eq!(Override::parse(garbage), None);
        }
    }
}
