//! `stratafs volume inspect`. Source: docker/cli `cli/command/inspect`.

use serde::Serialize;
use serde_json::{Value, json};

use super::args::InspectArgs;
use super::print;
use super::template::Template;
use crate::cli::exit::{Failure, Outcome, say};
use crate::volume::{Store, Volume};

/// Shows the volumes that there are, and says which there are not.
pub fn inspect(store: &Store, args: &InspectArgs) -> Outcome {
    let format = args.format.as_deref();
    let template = match format {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::new(format, false)?),
    };
    let (mut found, mut outcome) = (Vec::new(), Ok(()));
    for name in &args.volumes {
        let why = match store.get(name) {
            Ok(Some(volume)) => {
                found.push(object(&volume));
                continue;
            }
            // Docker's words.
            Ok(None) => format!("get {name}: no such volume: `stratafs volume ls` lists those there are"),
            Err(error) => error.to_string(),
        };
        say(&why);
        outcome = Err(Failure::Said);
    }
    match template {
        Some(template) => {
            for object in &found {
                print(&(template.fill(object)? + "\n"));
            }
        }
        None if format == Some("json") => print(&format!("{}\n", Value::Array(found))),
        None => print(&pretty(&Value::Array(found))),
    }
    outcome
}

/// What Docker shows, and under `Stratafs` what only we know.
fn object(volume: &Volume) -> Value {
    let meta = &volume.meta;
    let users: Vec<Value> =
        volume.users.iter().map(|user| json!({"Mountpoint": user.mountpoint, "Pid": user.pid})).collect();
    let populated =
        meta.populated.as_ref().map(|populated| json!({"At": populated.at, "Layers": populated.layers}));
    json!({
        "CreatedAt": meta.created_at, "Driver": meta.driver, "Labels": meta.labels,
        "Mountpoint": volume.mountpoint.to_string_lossy(), "Name": meta.name, "Options": meta.options, "Scope": "local",
        "Stratafs": {"Populated": populated, "Users": users},
    })
}

/// With four blanks a level, as Docker indents.
fn pretty(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // A value of plain texts always has a text.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(out).unwrap_or_default() + "\n"
}
