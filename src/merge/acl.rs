//! POSIX ACLs: what a new object inherits when it is made outside its directory and moved in.
//! Source: acl(5), "OBJECT CREATION AND DEFAULT ACLs"; kernel `posix_acl_create`.

const VERSION: [u8; 4] = [2, 0, 0, 0];
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What a new object gets from its directory's default ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// Its mode bits; the caller's umask plays no part.
    pub mode: u32,
    /// Its access ACL, in the kernel's xattr form; nothing if the mode says it all.
    pub access: Option<Vec<u8>>,
}

/// What an object made with `mode` in a directory with this default ACL gets. Nothing if the value is not an ACL.
pub fn inherit(default_acl: &[u8], mode: u32) -> Option<Inherited> {
    let entries = default_acl.strip_prefix(&VERSION[..])?;
    if entries.is_empty() || entries.len() % 8 != 0 {
        return None;
    }
    let mut access = default_acl.to_vec();
    let has_mask = entries.chunks_exact(8).any(|entry| tag(entry) == MASK);
    let mut new_mode = mode & !0o777;
    for entry in access.get_mut(VERSION.len()..)?.chunks_exact_mut(8) {
        let bits = match tag(entry) {
            USER_OBJ => 6,
            GROUP_OBJ if !has_mask => 3,
            MASK => 3,
            OTHER => 0,
            _ => continue,
        };
        let [_, _, low, high, ..] = entry else { continue };
        let permissions = u16::from_le_bytes([*low, *high]) & ((mode >> bits) as u16 & 7);
        [*low, *high] = permissions.to_le_bytes();
        new_mode |= u32::from(permissions) << bits;
    }
    let minimal = entries.len() == 3 * 8;
    Some(Inherited { mode: new_mode, access: (!minimal).then_some(access) })
}

fn tag(entry: &[u8]) -> u16 {
    entry.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_vec();
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[test]
    fn a_minimal_default_acl_is_only_a_mode() {
        let default = acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        assert_eq!(inherit(&default, 0o666), Some(Inherited { mode: 0o640, access: None }));
    }

    #[test]
    fn the_mask_takes_the_group_bits() {
        let default = acl(&[(USER_OBJ, 7, 0), (2, 7, 1000), (GROUP_OBJ, 7, 0), (MASK, 7, 0), (OTHER, 5, 0)]);
        let inherited = inherit(&default, 0o644).expect("an ACL");
        assert_eq!(inherited.mode, 0o644);
        let expected = acl(&[(USER_OBJ, 6, 0), (2, 7, 1000), (GROUP_OBJ, 7, 0), (MASK, 4, 0), (OTHER, 4, 0)]);
        assert_eq!(inherited.access, Some(expected));
    }

    #[test]
    fn garbage_is_no_acl() {
        assert_eq!(inherit(b"", 0o644), None);
        assert_eq!(inherit(b"\x02\0\0\0abc", 0o644), None);
    }
}
