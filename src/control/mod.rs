//! What a running mount is told and asks: requests and answers as lines of JSON over a socket of the mount, which only
//! its owner and root may use.
//!
//! A request is one line; its answer is any number of `hidden` lines and then one line of another kind. `socket` listens,
//! `requests` carries out, `client` asks. Start reading here: these are the words of the protocol.

pub mod client;
mod requests;
pub mod socket;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::graft::{Spec, json};

/// What a mount can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Attach this.
    GraftAdd {
        /// What and where.
        spec: Spec,
    },
    /// Take away what is attached.
    GraftRm {
        /// Where.
        #[serde(with = "json::path")]
        target: PathBuf,
        /// Also if it is in use.
        #[serde(default)]
        lazy: bool,
    },
    /// Put this in the place of what is attached at its target, in one step.
    GraftReplace {
        /// What and where.
        spec: Spec,
        /// Also if the old one is in use.
        #[serde(default)]
        lazy: bool,
    },
    /// Say what is attached.
    GraftLs {},
    /// Leave the upper layer and the workdir to another mount. The caller has made the filesystem of this mount read-only.
    GiveUp {},
    /// Say what grafts hide.
    Shadow {
        /// Only what volumes and binds have otherwise than the layers.
        #[serde(default)]
        stale: bool,
    },
}

/// A line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done {},
    /// It is not, and nothing has changed.
    Error {
        /// Why, in one line.
        sentence: String,
    },
    /// What is attached, in the order in which it was.
    Grafts {
        /// As they can be attached again: an anonymous volume has its name.
        grafts: Vec<Spec>,
    },
    /// Something that a graft hides; more lines follow.
    Hidden(Hidden),
}

/// Something that the layers have and a graft hides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hidden {
    /// In the merged tree.
    #[serde(with = "json::path")]
    pub path: PathBuf,
    /// What it is: `file`, `directory`, `symlink`, ...
    pub kind: String,
    /// Where the graft is attached.
    #[serde(with = "json::path")]
    pub target: PathBuf,
    /// What the graft is: `bind`, `volume`, `tmpfs`.
    pub by: String,
    /// The name of a volume.
    pub volume: Option<String>,
    /// When the two that differ were written last, in seconds since 1970 and nanoseconds.
    pub stale: Option<Stale>,
}

/// Times of two that differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stale {
    /// That of the graft.
    pub graft: (i64, u32),
    /// That of the layers.
    pub layers: (i64, u32),
}

impl Answer {
    fn error(sentence: impl std::fmt::Display) -> Answer {
        // A line, whatever is in it.
        Answer::Error { sentence: sentence.to_string().replace('\n', " ") }
    }

    /// Whether no line of the same answer follows.
    fn is_last(&self) -> bool {
        !matches!(self, Answer::Hidden(_))
    }

    /// As a line.
    fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| {
            // Paths, texts and numbers all have a form; a caller must have an answer in any case.
            br#"{"answer":"error","sentence":"the answer has no form in JSON"}"#.to_vec()
        });
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::*;

    #[test]
    fn requests_and_answers_go_there_and_back() {
        let spec = crate::graft::volume(OsStr::new("/a:/b:ro"), Path::new("/")).expect("spec");
        for request in [
            Request::GraftAdd { spec: spec.clone() },
            Request::GraftRm { target: "/b".into(), lazy: true },
            Request::GraftReplace { spec: spec.clone(), lazy: false },
            Request::GraftLs {},
            Request::GiveUp {},
            Request::Shadow { stale: true },
        ] {
            let text = serde_json::to_string(&request).expect("text");
            assert_eq!(serde_json::from_str::<Request>(&text).expect(&text), request);
        }
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"do":"graft-rm","target":"/b"}"#).expect("request"),
            Request::GraftRm { target: "/b".into(), lazy: false }
        );
        for text in [r#"{"do":"graft-ls","more":1}"#, r#"{"do":"graft-rm"}"#, r#"{"do":"dance"}"#, "[]", ""] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
        for answer in [Answer::Done {}, Answer::error("a\nb"), Answer::Grafts { grafts: vec![spec.clone()] }]
        {
            let line = answer.to_line();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Answer>(&line).expect("answer"), answer);
        }
    }
}
