//! Between the kernel's values and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, OpenFlags, RenameFlags, TimeOrNow, WriteFlags};

use crate::merge::listing::FileKind;
use crate::overlay::{Attr, RenameMode, Writing};
use crate::sys::attr::SetTime;
use crate::sys::cred::Writer;
use crate::sys::stat::Timestamp;

/// The type as fuser names it.
pub fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Dir => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Char => FileType::CharDevice,
        FileKind::Block => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// What the flags of rename(2) say of what has the new name.
pub fn rename_mode(flags: RenameFlags) -> RenameMode {
    if flags.contains(RenameFlags::RENAME_EXCHANGE) {
        RenameMode::Exchange
    } else if flags.contains(RenameFlags::RENAME_NOREPLACE) {
        RenameMode::NoReplace
    } else {
        RenameMode::Replace
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let base = if time.secs >= 0 { UNIX_EPOCH.checked_add(secs) } else { UNIX_EPOCH.checked_sub(secs) };
    base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// fuser hands the seconds and the nanoseconds of a request over as the two parts of one duration. Before 1970 it takes
/// both off the epoch, though the nanoseconds count forwards; the parts themselves are right.
fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { secs: after.as_secs() as i64, nanos: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Timestamp { secs: (before.as_secs() as i64).wrapping_neg(), nanos: before.subsec_nanos() }
        }
    }
}

/// What a time is to be set to.
pub fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Omit,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::To(timestamp(time)),
    }
}

/// Attributes as the kernel takes them. `ino` is the node in an entry, and the number shown in a getattr answer.
fn attributes(attr: &Attr, ino: u64) -> FileAttr {
    let stat = &attr.stat;
    FileAttr {
        ino: INodeNo(ino),
        size: stat.size,
        blocks: stat.blocks,
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.kind),
        perm: stat.mode as u16,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: encode_device(stat.rdev_major, stat.rdev_minor),
        blksize: stat.blksize,
        flags: 0,
    }
}

/// Attributes for an entry, whose number is the node's.
pub fn entry_attributes(attr: &Attr) -> FileAttr {
    attributes(attr, attr.ino.0)
}

/// Attributes for a getattr answer, whose number is the one that `stat` shows.
pub fn stat_attributes(attr: &Attr) -> FileAttr {
    attributes(attr, attr.stat.ino)
}

/// Device numbers in the kernel's 32 bits. Source: kernel `new_encode_dev`.
fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Device numbers out of the kernel's 32 bits. Source: kernel `new_decode_dev`.
pub fn decode_device(device: u32) -> (u32, u32) {
    ((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00))
}

/// How a WRITE is to be made. The flags of the file are those that it has now, not those it was opened with.
pub fn writing(pid: u32, write: WriteFlags, file: OpenFlags) -> Writing {
    Writing {
        by: Writer { pid, keeps_set_id: Some(!write.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)) },
        appends: file.0 & libc::O_APPEND != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let second = Duration::from_secs(1);
        assert_eq!(
            system_time(Timestamp { secs: -1, nanos: 1 }),
            UNIX_EPOCH - Duration::from_nanos(999_999_999)
        );
        assert_eq!(system_time(Timestamp { secs: -5, nanos: 0 }), UNIX_EPOCH - 5 * second);
        assert_eq!(timestamp(UNIX_EPOCH + Duration::new(17, 5)), Timestamp { secs: 17, nanos: 5 });
        // As fuser builds it from (-3, 7).
        assert_eq!(timestamp(UNIX_EPOCH - Duration::new(3, 7)), Timestamp { secs: -3, nanos: 7 });
    }

    #[test]
    fn device_numbers_survive_the_kernels_encoding() {
        for device in [(0, 0), (1, 3), (8, 17), (259, 70_000), (4095, 0xfffff)] {
            assert_eq!(decode_device(encode_device(device.0, device.1)), device);
        }
    }
}
