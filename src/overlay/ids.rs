//! Translates between the ids on disk and the ids that callers see.

use super::Caller;
use crate::config::ids::{OVERFLOW, shown};
use crate::config::{IdMaps, IdRange, Unmapped};
use crate::error::{Error, Result};
use crate::inode::Inode;
use crate::sys::cred;

/// The id on disk of an owner given by a caller.
///
/// # Errors
///
/// `Invalid` where no range covers it and the maps refuse that.
pub(super) fn disk_uid(ids: &IdMaps, uid: u32) -> Result<u32> {
    on_disk(&ids.uids, uid, ids.unmapped)
}

/// The id on disk of a group given by a caller.
///
/// # Errors
///
/// As [`disk_uid`].
pub(super) fn disk_gid(ids: &IdMaps, gid: u32) -> Result<u32> {
    on_disk(&ids.gids, gid, ids.unmapped)
}

/// Whether this caller may have a set-group-id bit on a file of the group `gid`, an id on disk: as one who is in the group, or root.
/// Source: kernel `setattr_should_drop_sgid`, `mode_strip_sgid`.
pub(super) fn may_set_group_id(ids: &IdMaps, caller: Caller, gid: u32) -> bool {
    let gid = shown(&ids.gids, gid);
    caller.uid == 0 || caller.gid == gid || cred::is_in_group(caller.pid, gid)
}

/// A POSIX ACL as callers see it, from what is on disk. What is no ACL is left as it is.
pub(super) fn shown_acl(ids: &IdMaps, value: &mut [u8]) {
    for (tag, id) in named_ids(value) {
        let on_disk = u32::from_le_bytes(*id);
        let shown = if tag == ACL_USER { shown(&ids.uids, on_disk) } else { shown(&ids.gids, on_disk) };
        *id = shown.to_le_bytes();
    }
}

/// A POSIX ACL as it is on disk, from what a caller gave. Never grants the overflow id what the caller granted another.
///
/// # Errors
///
/// `Invalid` for an id that no range covers.
pub(super) fn disk_acl(ids: &IdMaps, value: &mut [u8]) -> Result<()> {
    for (tag, id) in named_ids(value) {
        let ranges = if tag == ACL_USER { &ids.uids } else { &ids.gids };
        *id = on_disk(ranges, u32::from_le_bytes(*id), Unmapped::Refused)?.to_le_bytes();
    }
    Ok(())
}

const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// The ids in an ACL that name somebody. Source: kernel include/uapi/linux/posix_acl_xattr.h: after the version eight bytes
/// each, tag, permissions, id.
fn named_ids(value: &mut [u8]) -> impl Iterator<Item = (u16, &mut [u8; 4])> {
    let entries = value.get_mut(4..).unwrap_or_default().chunks_exact_mut(8);
    entries.filter_map(|entry| {
        let (head, id) = entry.split_first_chunk_mut::<4>()?;
        let tag = u16::from_le_bytes([head[0], head[1]]);
        let named = tag == ACL_USER || tag == ACL_GROUP;
        Some((tag, id.first_chunk_mut::<4>()?)).filter(|_| named)
    })
}

/// Who owns what this caller makes in `dir`.
pub(super) fn disk_caller(dir: &Inode, caller: Caller) -> Result<cred::Caller> {
    let ids = &dir.stack.terms.ids;
    Ok(cred::Caller { uid: disk_uid(ids, caller.uid)?, gid: disk_gid(ids, caller.gid)?, umask: caller.umask })
}

fn on_disk(ranges: &[IdRange], id: u32, unmapped: Unmapped) -> Result<u32> {
    if ranges.is_empty() {
        return Ok(id);
    }
    let range = ranges.iter().find(|range| id.checked_sub(range.shown).is_some_and(|at| at < range.size));
    match (range, unmapped) {
        (Some(range), _) => Ok(range.disk + (id - range.shown)),
        (None, Unmapped::Overflow) => Ok(OVERFLOW),
        (None, Unmapped::Refused) => Err(Error::Invalid("no range of this mount's id map covers the id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_acls_are_mapped_both_ways() {
        let uids = vec![IdRange { disk: 1000, shown: 0, size: 10 }];
        let ids = IdMaps { uids, ..IdMaps::default() };
        let entry =
            |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7u16.to_le_bytes(), &id.to_le_bytes()].concat();
        let acl = |user: u32| {
            let entries =
                [entry(1, u32::MAX), entry(ACL_USER, user), entry(ACL_GROUP, user), entry(0x20, u32::MAX)];
            [&2u32.to_le_bytes()[..], &entries.concat()].concat()
        };
        let mut value = acl(1005);
        shown_acl(&ids, &mut value);
        let mut given = acl(5);
        given[24..28].copy_from_slice(&1005u32.to_le_bytes());
        assert_eq!(value, given);
        disk_acl(&ids, &mut value).expect("mapped");
        assert_eq!(value, acl(1005));
        assert!(disk_acl(&ids, &mut acl(10)).is_err());
        disk_acl(&ids, &mut [1, 2]).expect("no ACL");
    }

    #[test]
    fn ids_are_mapped_both_ways() {
        let ranges =
            [IdRange { disk: 1000, shown: 0, size: 1 }, IdRange { disk: 100_000, shown: 1, size: 65536 }];
        assert_eq!(shown(&ranges, 1000), 0);
        assert_eq!(shown(&ranges, 100_007), 8);
        assert_eq!(shown(&ranges, 5), OVERFLOW);
        assert_eq!(on_disk(&ranges, 0, Unmapped::Refused), Ok(1000));
        assert_eq!(on_disk(&ranges, 8, Unmapped::Overflow), Ok(100_007));
        assert!(on_disk(&ranges, 70_000, Unmapped::Refused).is_err());
        assert_eq!(on_disk(&ranges, 70_000, Unmapped::Overflow), Ok(OVERFLOW));
        assert_eq!((shown(&[], 7), on_disk(&[], 7, Unmapped::Refused)), (7, Ok(7)));
    }
}
