//! Triples of ids: `uidmapping=` and `gidmapping=` of the mount, `uidmap=` and `gidmap=` of a graft.
//!
//! The two families give the first two numbers in opposite orders: see [`Order`].

use std::fmt;

use super::{IdMaps, IdRange};

/// Which side of a map the first number of a triple is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `DISK:SHOWN:SIZE`: options of the mount. Source: fuse-overlayfs(1), `uidmapping=UID:MAPPED-UID:LEN`, and the effect
    /// of 1.10 and 2.0.
    DiskFirst,
    /// `CALLER:DISK:SIZE`: options of a graft.
    CallerFirst,
}

impl Order {
    fn syntax(self) -> &'static str {
        match self {
            Order::DiskFirst => "DISK:SHOWN:SIZE",
            Order::CallerFirst => "CALLER:DISK:SIZE",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Order::DiskFirst => "0:100000:65536",
            Order::CallerFirst => "100000:0:65536",
        }
    }
}

/// The ranges of a mapping value: triples of numbers, all joined by colons. containers/storage writes an empty first field
/// (`:0:1000:1`), which is ignored.
///
/// # Errors
///
/// The reason as a sentence without the value: an incomplete triple, a number that is no id, a range that is empty, passes
/// the last id or overlaps another one on either side.
pub fn parse(value: &str, order: Order) -> Result<Vec<IdRange>, String> {
    let fields: Vec<&str> = value.strip_prefix(':').unwrap_or(value).split(':').collect();
    let triples = fields.chunks_exact(3);
    if !triples.remainder().is_empty() {
        return Err(format!("give whole triples {}, for example `{}`", order.syntax(), order.example()));
    }
    let ranges = triples.map(|triple| range(triple, order)).collect::<Result<Vec<_>, _>>()?;
    disjoint(&ranges)?;
    Ok(ranges)
}

/// Checks that every range is valid and that no id is translated in two ways.
///
/// # Errors
///
/// As [`parse`].
pub fn disjoint(ranges: &[IdRange]) -> Result<(), String> {
    for (at, range) in ranges.iter().enumerate() {
        bounded(range)?;
        if let Some(other) = ranges[..at].iter().find(|other| overlap(range, other)) {
            return Err(format!("{range} overlaps {other}: give each id once on either side"));
        }
    }
    Ok(())
}

fn range(triple: &[&str], order: Order) -> Result<IdRange, String> {
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| format!("`{text}` is not an id: give a whole number from 0 to {}", u32::MAX - 1))
    };
    let (first, second, size) = (number(triple[0])?, number(triple[1])?, number(triple[2])?);
    let range = match order {
        Order::DiskFirst => IdRange { disk: first, shown: second, size },
        Order::CallerFirst => IdRange { disk: second, shown: first, size },
    };
    match size {
        0 => Err(format!("the size of `{}` is 0: give a size of at least 1", triple.join(":"))),
        _ => Ok(range),
    }
}

/// Checks that neither side passes the last id. 2^32 - 1 means "no id" to chown(2), so no range covers it.
fn bounded(range: &IdRange) -> Result<(), String> {
    let fits = |first: u32| first.checked_add(range.size).is_some();
    if range.size > 0 && fits(range.disk) && fits(range.shown) {
        return Ok(());
    }
    Err(format!("{range} passes the last id, {}: give a smaller size", u32::MAX - 1))
}

/// Whether an id would be translated in two ways, on either side. No end overflows: `bounded` has checked it.
fn overlap(a: &IdRange, b: &IdRange) -> bool {
    let meet = |a_first: u32, b_first: u32| a_first < b_first + b.size && b_first < a_first + a.size;
    meet(a.disk, b.disk) || meet(a.shown, b.shown)
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In 64 bits, since a range that is refused is printed too.
        let last = |first: u32| u64::from(first) + u64::from(self.size.max(1)) - 1;
        match self.size {
            1 => write!(f, "disk {} shown as {}", self.disk, self.shown),
            _ => write!(
                f,
                "disk {}-{} shown as {}-{}",
                self.disk,
                last(self.disk),
                self.shown,
                last(self.shown)
            ),
        }
    }
}

/// The id without a meaning: shown for an id on disk that no range covers, and written for a caller's id that no range
/// covers. Source: `/proc/sys/kernel/overflowuid`.
pub const OVERFLOW: u32 = 65534;

/// What callers see for an id on disk.
pub fn shown(ranges: &[IdRange], id: u32) -> u32 {
    if ranges.is_empty() {
        return id;
    }
    let range = ranges.iter().find(|range| id.checked_sub(range.disk).is_some_and(|at| at < range.size));
    range.map_or(OVERFLOW, |range| range.shown + (id - range.disk))
}

impl IdMaps {
    /// The owner shown for `uid` on disk.
    pub fn shown_uid(&self, uid: u32) -> u32 {
        self.squash_uid.unwrap_or_else(|| shown(&self.uids, uid))
    }

    /// The group shown for `gid` on disk.
    pub fn shown_gid(&self, gid: u32) -> u32 {
        self.squash_gid.unwrap_or_else(|| shown(&self.gids, gid))
    }
}

#[cfg(test)]
mod tests {
    use super::Order::{CallerFirst, DiskFirst};
    use super::*;

    fn range(disk: u32, shown: u32, size: u32) -> IdRange {
        IdRange { disk, shown, size }
    }

    #[test]
    fn triples_are_read_with_and_without_an_empty_first_field() {
        let cases: &[(&str, &[IdRange])] = &[
            ("0:1000:1", &[range(0, 1000, 1)]),
            (":0:1000:1", &[range(0, 1000, 1)]),
            (":0:1000:1:1:110000:65536", &[range(0, 1000, 1), range(1, 110000, 65536)]),
            ("0:0:4294967295", &[range(0, 0, u32::MAX)]),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value, DiskFirst).as_deref(), Ok(*expected), "{value}");
        }
        assert_eq!(parse("0:1000:1", CallerFirst).as_deref(), Ok(&[range(1000, 0, 1)][..]));
    }

    #[test]
    fn a_range_is_printed_by_its_sides() {
        assert_eq!(range(0, 200_000, 65536).to_string(), "disk 0-65535 shown as 200000-265535");
        assert_eq!(range(7, 8, 1).to_string(), "disk 7 shown as 8");
    }

    #[test]
    fn everything_else_is_an_error_with_a_remedy() {
        let cases = [
            ("", "whole triples DISK:SHOWN:SIZE"),
            ("0:1", "whole triples"),
            ("0:1:2:3", "whole triples"),
            ("::0:1:2", "whole triples"),
            ("a:1:2", "`a` is not an id"),
            ("-1:1:2", "`-1` is not an id"),
            ("0:1:0", "`0:1:0` is 0"),
            ("4294967295:0:1", "passes the last id"),
            ("0:5:4294967295", "disk 0-4294967294 shown as 5-4294967299 passes the last id"),
            ("0:100:10:5:200:10", "disk 5-14 shown as 200-209 overlaps disk 0-9 shown as 100-109"),
            ("0:100:10:20:105:10", "overlaps"),
        ];
        for (value, part) in cases {
            let why = parse(value, DiskFirst).expect_err(value);
            assert!(why.contains(part), "{value}: {why}");
        }
        let why = parse("0:1", CallerFirst).expect_err("a pair");
        assert!(why.contains("CALLER:DISK:SIZE"), "{why}");
    }
}
