//! Between the ids that callers see and the ids on disk.

use super::Caller;
use crate::config::{IdMaps, IdRange};
use crate::error::{Error, Result};
use crate::inode::Inode;
use crate::sys::cred;

/// What an id without a mapping shows as. Source: `/proc/sys/kernel/overflowuid`.
const OVERFLOW: u32 = 65534;

/// The owner shown for `uid` on disk.
pub(super) fn shown_uid(ids: &IdMaps, uid: u32) -> u32 {
    ids.squash_uid.unwrap_or_else(|| shown(&ids.uids, uid))
}

/// The group shown for `gid` on disk.
pub(super) fn shown_gid(ids: &IdMaps, gid: u32) -> u32 {
    ids.squash_gid.unwrap_or_else(|| shown(&ids.gids, gid))
}

/// The id on disk of an owner given by a caller. Errors: `Invalid` without a mapping.
pub(super) fn disk_uid(ids: &IdMaps, uid: u32) -> Result<u32> {
    on_disk(&ids.uids, uid)
}

/// The id on disk of a group given by a caller. Errors: `Invalid` without a mapping.
pub(super) fn disk_gid(ids: &IdMaps, gid: u32) -> Result<u32> {
    on_disk(&ids.gids, gid)
}

/// Who owns what this caller makes in `dir`.
pub(super) fn disk_caller(dir: &Inode, caller: Caller) -> Result<cred::Caller> {
    let ids = &dir.stack.terms.ids;
    Ok(cred::Caller { uid: disk_uid(ids, caller.uid)?, gid: disk_gid(ids, caller.gid)?, umask: caller.umask })
}

fn shown(ranges: &[IdRange], id: u32) -> u32 {
    if ranges.is_empty() {
        return id;
    }
    let range = ranges.iter().find(|range| id.checked_sub(range.outside).is_some_and(|at| at < range.size));
    range.map_or(OVERFLOW, |range| range.inside + (id - range.outside))
}

fn on_disk(ranges: &[IdRange], id: u32) -> Result<u32> {
    if ranges.is_empty() {
        return Ok(id);
    }
    let range = ranges.iter().find(|range| id.checked_sub(range.inside).is_some_and(|at| at < range.size));
    range
        .map(|range| range.outside + (id - range.inside))
        .ok_or(Error::Invalid("the id has no mapping in this mount"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_both_ways() {
        let ranges = [
            IdRange { inside: 0, outside: 1000, size: 1 },
            IdRange { inside: 1, outside: 100_000, size: 65536 },
        ];
        assert_eq!(shown(&ranges, 1000), 0);
        assert_eq!(shown(&ranges, 100_007), 8);
        assert_eq!(shown(&ranges, 5), OVERFLOW);
        assert_eq!(on_disk(&ranges, 0), Ok(1000));
        assert_eq!(on_disk(&ranges, 8), Ok(100_007));
        assert!(on_disk(&ranges, 70_000).is_err());
        assert_eq!((shown(&[], 7), on_disk(&[], 7)), (7, Ok(7)));
    }
}
