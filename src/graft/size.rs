//! Sizes as Docker takes them: bytes, or a number and a unit of 1024 to some power.

use super::shown::shown;

/// The bytes that `text` means: `64m`, `1.5g`, `2 GiB`, `65536`. The reason why not is a sentence with the text.
/// Source: docker/go-units `size.go`, `RAMInBytes`.
pub(super) fn bytes(text: &[u8]) -> Result<u64, String> {
    let amount = std::str::from_utf8(text).ok().and_then(parse).filter(|bytes| *bytes < MAX);
    // As Docker, which drops what is left of a byte.
    amount.map(|bytes| bytes as u64).ok_or_else(|| {
        format!(
            "invalid size: '{}': give a number and a unit (b, k, m, g, t), for example 64m or 1.5g",
            shown(text)
        )
    })
}

/// More than any filesystem can hold: the first size that Docker has no number for.
const MAX: f64 = 9_223_372_036_854_775_808.0;

fn parse(text: &str) -> Option<f64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, unit) = text.split_at(last + 1);
    // One space may stand before the unit.
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    (number >= 0.0).then_some(number * 1024_f64.powi(power))
}

/// The permission bits that `text` means in octal.
/// Source: docker/cli `opts/mount.go`, `tmpfs-mode`.
pub(super) fn mode(text: &[u8]) -> Result<u32, String> {
    let mode = std::str::from_utf8(text).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| {
        format!("`{}` is no mode: give permission bits in octal, for example 1777 or 0755", shown(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: docker/go-units `size_test.go`, `TestRAMInBytes`.
    #[test]
    fn sizes_are_those_of_docker() {
        const K: u64 = 1024;
        for (text, expected) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 * K),
            ("32K", 32 * K),
            ("32kb", 32 * K),
            ("32Kib", 32 * K),
            ("32 kb", 32 * K),
            ("64m", 64 * K * K),
            ("65536k", 64 * K * K),
            ("1.5g", 3 * K * K * K / 2),
            ("1gb", K * K * K),
            ("1tib", K * K * K * K),
            ("2P", 2 * K * K * K * K * K),
            ("32.", 32),
            (".5k", 512),
            ("1.9", 1),
        ] {
            assert_eq!(bytes(text.as_bytes()), Ok(expected), "{text}");
        }
        for text in [
            "", "hello", "-32", "-1k", " 32 ", "32 mm", "32x", "32mbx", "32bb", "50%", "1e400", "9e18k",
            "nan",
        ] {
            let sentence = bytes(text.as_bytes()).expect_err(text);
            assert!(sentence.contains(&format!("'{text}'")), "{sentence}");
        }
    }

    #[test]
    fn modes_are_octal() {
        for (text, expected) in [("1777", 0o1777), ("0755", 0o755), ("0", 0), ("7777", 0o7777)] {
            assert_eq!(mode(text.as_bytes()), Ok(expected), "{text}");
        }
        for text in ["", "8", "rwx", "17777", "-1", "0o755", "99999999999999999"] {
            assert!(mode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
