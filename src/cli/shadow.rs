//! `stratafs shadow`: what grafts hide of the layers, and what the layers have otherwise than a volume. Printed as the daemon
//! finds it: a tree may be large.

use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use super::args::ShadowArgs;
use super::exit::{Failure, Outcome};
use super::live;
use crate::control::{Answer, Hidden, Request, client};
use crate::graft;
use crate::sys::clock;

/// Prints a line for each path.
pub fn shadow(args: &ShadowArgs) -> Outcome {
    let socket = live::socket_of(&args.mount)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut first = true;
    let request = Request::Shadow { stale: args.stale };
    let answered = client::ask(&socket, &request, |answer| {
        let Answer::Hidden(hidden) = answer else { return true };
        if args.json {
            let before = if first { "[" } else { "," };
            first = false;
            // A reader that has seen enough is told no more.
            serde_json::to_string(&json(&hidden)).is_ok_and(|text| write!(out, "{before}\n{text}").is_ok())
        } else {
            writeln!(out, "{}", line(&hidden)).is_ok()
        }
    });
    let last = live::last(&socket, answered);
    if args.json && !matches!(last, Ok(None)) {
        let end = if first { "[]\n" } else { "\n]\n" };
        // Whoever read the lines has gone.
        let _ = out.write_all(end.as_bytes());
    }
    // A reader such as `head` may have seen enough.
    let _ = out.flush();
    match last? {
        None | Some(Answer::Done {}) => Ok(()),
        Some(_) => Err(Failure::Failed("the daemon's answer is none to this question".to_owned())),
    }
}

fn line(hidden: &Hidden) -> String {
    let path = graft::shown(hidden.path.as_os_str().as_bytes());
    let Some(stale) = hidden.stale else {
        let target = graft::shown(hidden.target.as_os_str().as_bytes());
        let what = hidden.volume.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        return format!("{path}  {}  under {}{what} at {target}", hidden.kind, hidden.by);
    };
    let newer = match stale.layers.cmp(&stale.graft) {
        std::cmp::Ordering::Greater => "layers newer".to_owned(),
        std::cmp::Ordering::Less => format!("{} newer", hidden.by),
        std::cmp::Ordering::Equal => "same time".to_owned(),
    };
    let (graft, layers) = (clock::local(stale.graft.0), clock::local(stale.layers.0));
    format!("{path}  {} {graft}  layers {layers}  ({newer})", hidden.by)
}

fn json(hidden: &Hidden) -> serde_json::Value {
    let time = |(secs, nanos): (i64, u32)| serde_json::json!({ "seconds": secs, "nanoseconds": nanos });
    let mut value = serde_json::to_value(hidden).unwrap_or_default();
    if let (Some(stale), Some(fields)) = (hidden.stale, value.as_object_mut()) {
        fields.remove("stale");
        let newer = match stale.layers.cmp(&stale.graft) {
            std::cmp::Ordering::Greater => "layers",
            std::cmp::Ordering::Less => "graft",
            std::cmp::Ordering::Equal => "neither",
        };
        fields.insert("graft_modified".to_owned(), time(stale.graft));
        fields.insert("layers_modified".to_owned(), time(stale.layers));
        fields.insert("newer".to_owned(), newer.into());
    } else if let Some(fields) = value.as_object_mut() {
        fields.remove("stale");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Stale;

    #[test]
    fn lines_say_who_is_newer() {
        let mut hidden = Hidden {
            path: "/model_test/main.py".into(),
            kind: "file".into(),
            target: "/model_test".into(),
            by: "volume".into(),
            volume: Some("models".into()),
            stale: None,
        };
        assert_eq!(line(&hidden), "/model_test/main.py  file  under volume models at /model_test");
        for (graft, layers, says, field) in [
            ((1, 0), (1, 1), "(layers newer)", "layers"),
            ((2, 0), (1, 1), "(volume newer)", "graft"),
            ((1, 1), (1, 1), "(same time)", "neither"),
        ] {
            hidden.stale = Some(Stale { graft, layers });
            let text = line(&hidden);
            assert!(text.starts_with("/model_test/main.py  volume 19") && text.ends_with(says), "{text}");
            assert_eq!(json(&hidden)["newer"], field);
        }
    }
}
