//! The `uidmapping=` and `gidmapping=` values: whole triples CALLER:DISK:SIZE, joined by colons.
//!
//! containers/storage writes an empty first field (`:0:1000:1`); people do not. Both are read.

use super::IdRange;

/// The runs of a mapping value. The reason why not is a sentence without the value.
pub fn parse(value: &str) -> Result<Vec<IdRange>, String> {
    let fields: Vec<&str> = value.strip_prefix(':').unwrap_or(value).split(':').collect();
    let triples = fields.chunks_exact(3);
    if !triples.remainder().is_empty() {
        return Err("give whole triples CALLER:DISK:SIZE, for example `0:100000:65536`".to_owned());
    }
    let mut ranges = Vec::with_capacity(triples.len());
    for triple in triples {
        let range = range(triple)?;
        if let Some(other) = ranges.iter().find(|other| overlap(&range, other)) {
            return Err(format!(
                "{} overlaps {}: give each id once on either side",
                shown(&range),
                shown(other)
            ));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn range(triple: &[&str]) -> Result<IdRange, String> {
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| format!("`{text}` is not an id: give a whole number from 0 to {}", u32::MAX - 1))
    };
    let range = IdRange { inside: number(triple[0])?, outside: number(triple[1])?, size: number(triple[2])? };
    if range.size == 0 {
        return Err(format!("{} maps nothing: give a size of at least 1", shown(&range)));
    }
    // The last id, 2^32 - 1, means "no id" to chown(2) and can be in no run.
    if range.inside.checked_add(range.size).is_none() || range.outside.checked_add(range.size).is_none() {
        return Err(format!(
            "{} goes past the last id, {}: give a smaller size",
            shown(&range),
            u32::MAX - 1
        ));
    }
    Ok(range)
}

/// Whether an id would be translated in two ways, on either side. No end can overflow: `range` has seen to it.
fn overlap(a: &IdRange, b: &IdRange) -> bool {
    let meet = |a_first: u32, b_first: u32| a_first < b_first + b.size && b_first < a_first + a.size;
    meet(a.inside, b.inside) || meet(a.outside, b.outside)
}

fn shown(range: &IdRange) -> String {
    format!("{}:{}:{}", range.inside, range.outside, range.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(inside: u32, outside: u32, size: u32) -> IdRange {
        IdRange { inside, outside, size }
    }

    #[test]
    fn triples_are_read_with_and_without_an_empty_first_field() {
        let cases: &[(&str, &[IdRange])] = &[
            ("0:1000:1", &[run(0, 1000, 1)]),
            (":0:1000:1", &[run(0, 1000, 1)]),
            (":0:1000:1:1:110000:65536", &[run(0, 1000, 1), run(1, 110000, 65536)]),
            ("0:0:4294967295", &[run(0, 0, u32::MAX)]),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value).as_deref(), Ok(*expected), "{value}");
        }
    }

    #[test]
    fn everything_else_is_an_error_with_a_remedy() {
        let cases = [
            ("", "whole triples"),
            ("0:1", "whole triples"),
            ("0:1:2:3", "whole triples"),
            ("::0:1:2", "whole triples"),
            ("a:1:2", "`a` is not an id"),
            ("-1:1:2", "`-1` is not an id"),
            ("0:1:0", "maps nothing"),
            ("4294967295:0:1", "goes past the last id"),
            ("0:5:4294967295", "goes past the last id"),
            ("0:100:10:5:200:10", "5:200:10 overlaps 0:100:10"),
            ("0:100:10:20:105:10", "overlaps"),
        ];
        for (value, part) in cases {
            let why = parse(value).expect_err(value);
            assert!(why.contains(part), "{value}: {why}");
        }
    }
}
