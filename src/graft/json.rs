//! Paths in JSON: text where they are UTF-8, which people can read, and else an array of their bytes, which loses none.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For `#[serde(with)]` on a `PathBuf`.
pub mod path {
    use super::{Deserialize, Deserializer, Lossless, Path, PathBuf, Serialize, Serializer};

    /// The path as text or bytes.
    pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        Lossless(path.to_owned()).serialize(to)
    }

    /// The path that text or bytes mean.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Lossless::deserialize(from).map(|path| path.0)
    }
}

/// For `#[serde(with)]` on an `Option<PathBuf>`.
pub(super) mod maybe_path {
    use super::{Deserialize, Deserializer, Lossless, PathBuf, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        path.clone().map(Lossless).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Lossless>::deserialize(from)?.map(|path| path.0))
    }
}

struct Lossless(PathBuf);

impl Serialize for Lossless {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => to.serialize_str(text),
            None => to.collect_seq(self.0.as_os_str().as_bytes()),
        }
    }
}

impl<'de> Deserialize<'de> for Lossless {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Lossless;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, as text or as an array of bytes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Lossless, E> {
        Ok(Lossless(PathBuf::from(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Lossless, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element::<u8>()? {
            bytes.push(byte);
        }
        Ok(Lossless(PathBuf::from(OsString::from_vec(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_other_bytes_come_back_as_they_were() {
        let cases: &[(&[u8], &str)] = &[
            (b"/a b", "\"/a b\""),
            ("/볼륨".as_bytes(), "\"/볼륨\""),
            (b"/\xff", "[47,255]"),
            (b"", "\"\""),
        ];
        for (bytes, json) in cases {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(serde_json::to_string(&Lossless(path.clone())).expect("json"), *json);
            assert_eq!(serde_json::from_str::<Lossless>(json).expect("path").0, path);
        }
        assert!(serde_json::from_str::<Lossless>("[256]").is_err());
        assert!(serde_json::from_str::<Lossless>("1").is_err());
    }
}
