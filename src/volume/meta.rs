//! What a volume is, as `meta.json` keeps it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::name::ANONYMOUS_LABEL;

/// The version of `meta.json` that is written; a later one is not read.
pub(super) const VERSION: u32 = 1;

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    pub(super) version: u32,
    /// Its name, which is its directory's too.
    pub name: String,
    /// Who makes it: `local`.
    pub driver: String,
    /// The driver's options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was made, RFC 3339, UTC.
    pub created_at: String,
    /// The one time it was filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub populated: Option<Populated>,
    /// A filling that is under way, or was when the machine went down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) population: Option<Population>,
}

/// How a volume was filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Populated {
    /// When, RFC 3339, UTC.
    pub at: String,
    /// The layers it was filled from, topmost first, as the mount names them; none if from an archive.
    pub layers: Vec<String>,
}

/// A filling that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Population {
    /// The directory that is filled before its entries move into `_data`.
    pub staging: String,
    /// Whether that directory is inside `_data`, since something is mounted there.
    pub inside: bool,
    /// All is in the staging directory and on disk; only the move is left, and is never undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publishing: Option<Publishing>,
}

/// What the move of a filled directory's entries ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Publishing {
    /// As in `Populated`.
    pub layers: Vec<String>,
    /// The times that the volume's root gets: seconds and nanoseconds of last access and last write.
    pub times: [(i64, u32); 2],
}

impl Meta {
    /// That of a new volume.
    pub(super) fn new(
        name: &str,
        driver: &str,
        options: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
    ) -> Meta {
        Meta {
            version: VERSION,
            name: name.to_owned(),
            driver: driver.to_owned(),
            options: options.clone(),
            labels: labels.clone(),
            created_at: now(),
            populated: None,
            population: None,
        }
    }

    /// Whether nobody named it.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }

    /// Whether something is mounted at `_data` while it is used.
    pub(super) fn needs_mount(&self) -> bool {
        ["type", "device"].iter().any(|key| self.options.get(*key).is_some_and(|value| !value.is_empty()))
    }

    /// Whether it is to be filled if it is found empty. What is in memory is empty anew at every mount.
    pub(super) fn is_unfilled(&self) -> bool {
        self.populated.is_none() || self.options.get("type").is_some_and(|kind| kind == "tmpfs")
    }
}

/// The time, RFC 3339, UTC.
pub(super) fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as a date. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn rfc3339(secs: u64) -> String {
    let (days, rest) = (secs / 86400 + 719_468, secs % 86400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_dates() {
        for (secs, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(secs), date);
        }
    }

    #[test]
    fn it_goes_there_and_back() {
        let mut meta =
            Meta::new("v1", "local", &BTreeMap::from([("o".into(), "x=1".into())]), &BTreeMap::new());
        meta.populated = Some(Populated { at: now(), layers: vec!["/a".into()] });
        let publishing = Some(Publishing { layers: Vec::new(), times: [(-1, 5), (2, 999_999_999)] });
        meta.population = Some(Population { staging: "_data.new".into(), inside: false, publishing });
        let text = serde_json::to_string(&meta).expect("text");
        assert_eq!(serde_json::from_str::<Meta>(&text).expect("meta"), meta);
    }
}
