//! `--filter KEY=VALUE`. Source: moby `api/types/filters`, `volume/service/convert.go`.

use crate::cli::exit::Failure;
use crate::volume::Volume;

/// What a volume must be to be meant.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter {
    dangling: Option<bool>,
    /// `all=`, of `prune`.
    pub all: bool,
    drivers: Vec<String>,
    names: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    not_labels: Vec<(String, Option<String>)>,
}

impl Filter {
    /// Reads filters; `known` are the keys that this command has.
    pub fn new(filters: &[String], known: &[&str]) -> Result<Filter, Failure> {
        let mut out = Filter::default();
        for filter in filters {
            let refused = |why: &str| Err(Failure::Usage(format!("--filter {filter}: {why}")));
            let Some((key, value)) = filter.split_once('=') else {
                return refused("no value: write `--filter KEY=VALUE`");
            };
            // `label!=x` is a key of its own.
            let key = key.trim().to_lowercase();
            if !known.contains(&key.as_str()) {
                return refused(&format!("no such filter: there are {}", known.join(", ")));
            }
            let label = || {
                let (key, value) =
                    value.split_once('=').map_or((value, None), |(key, value)| (key, Some(value.to_owned())));
                (key.to_owned(), value)
            };
            match key.as_str() {
                "dangling" | "all" => {
                    let yes = match value {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return refused("it is no yes or no: write `true` or `false`"),
                    };
                    match key.as_str() {
                        "all" => out.all = yes,
                        _ if out.dangling.is_some_and(|before| before != yes) => {
                            return refused("it is asked for both ways: leave one out");
                        }
                        _ => out.dangling = Some(yes),
                    }
                }
                "driver" => out.drivers.push(value.to_owned()),
                "name" => out.names.push(value.to_owned()),
                "label" => out.labels.push(label()),
                _ => out.not_labels.push(label()),
            }
        }
        Ok(out)
    }

    /// Whether a volume is meant.
    pub fn takes(&self, volume: &Volume) -> bool {
        let meta = &volume.meta;
        let has = |(key, value): &(String, Option<String>)| {
            meta.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        self.dangling.is_none_or(|dangling| dangling == volume.users.is_empty())
            && (self.drivers.is_empty() || self.drivers.contains(&meta.driver))
            && (self.names.is_empty() || self.names.iter().any(|part| matches(part, &meta.name)))
            && self.labels.iter().all(has)
            && !self.not_labels.iter().any(has)
    }
}

/// Whether a name has a part, at its ends where the part says so.
fn matches(part: &str, name: &str) -> bool {
    let (start, part) = part.strip_prefix('^').map_or((false, part), |part| (true, part));
    let (end, part) = part.strip_suffix('$').map_or((false, part), |part| (true, part));
    match (start, end) {
        (true, true) => name == part,
        (true, false) => name.starts_with(part),
        (false, true) => name.ends_with(part),
        (false, false) => name.contains(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_or_refused() {
        let read = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
            Filter::new(&filters, &["dangling", "driver", "label", "name"])
        };
        let filter = read(&["label=a", "label=b=c=d", "dangling=1"]).expect("filter");
        assert_eq!(filter.labels, [("a".to_owned(), None), ("b".to_owned(), Some("c=d".to_owned()))]);
        assert_eq!(filter.dangling, Some(true));
        for (bad, part) in [
            ("label", "KEY=VALUE"),
            ("size=1", "dangling, driver"),
            ("dangling=maybe", "`true`"),
            ("label!=x", "no such"),
        ] {
            let Err(Failure::Usage(sentence)) = read(&[bad]) else { unreachable!("{bad}") };
            assert!(sentence.contains(part), "{sentence}");
        }
        assert!(read(&["dangling=1", "dangling=0"]).is_err());
        let not = Filter::new(&["label!=x=y".to_owned()], &["label!"]).expect("filter");
        assert_eq!(not.not_labels, [("x".to_owned(), Some("y".to_owned()))]);
    }

    #[test]
    fn names_match_by_part() {
        for (part, name, expected) in [
            ("b", "abc", true),
            ("^b", "abc", false),
            ("^ab", "abc", true),
            ("c$", "abc", true),
            ("^ab$", "abc", false),
        ] {
            assert_eq!(matches(part, name), expected, "{part} {name}");
        }
    }
}
