//! `stratafs ls`: the mounts the kernel knows, with what their daemons tell about themselves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::args::LsArgs;
use super::elsewhere::{self, Holder};
use super::exit::{Failure, Outcome};
use super::mounts::{self, Entry};
use super::record::{self, Details, Seen};
use crate::graft::{Source, Spec, shown};

/// A mount and its daemon.
struct Row {
    entry: Entry,
    daemon: Daemon,
    /// It is mounted in another mount namespace alone.
    elsewhere: Option<Holder>,
}

/// What is known of the daemon.
enum Daemon {
    /// No record that this process may read.
    Unknown,
    /// It runs.
    Alive(Details),
    /// It ended without unmounting.
    Dead(Details),
}

impl Row {
    fn new(entry: Entry) -> Row {
        let daemon = match Seen::of(&entry) {
            None => Daemon::Unknown,
            Some(seen) if seen.is_alive() => Daemon::Alive(seen.details),
            Some(seen) => Daemon::Dead(seen.details),
        };
        Row { entry, daemon, elsewhere: None }
    }

    fn details(&self) -> Option<&Details> {
        match &self.daemon {
            Daemon::Unknown => None,
            Daemon::Alive(details) | Daemon::Dead(details) => Some(details),
        }
    }

    fn mode(&self) -> &'static str {
        if self.entry.is_read_only() || self.details().is_some_and(|d| d.upper.is_none()) {
            "ro"
        } else {
            "rw"
        }
    }

    fn pid(&self) -> String {
        match &self.daemon {
            Daemon::Unknown => "-".to_owned(),
            Daemon::Alive(details) => details.pid.to_string(),
            Daemon::Dead(_) => "dead".to_owned(),
        }
    }
}

/// Lists the mounts. Prints nothing, or `[]`, if there are none.
pub fn ls(args: LsArgs) -> Outcome {
    let mounts = mounts::all()
        .map_err(|error| Failure::Failed(format!("/proc/self/mountinfo: {error}: mount /proc first")))?;
    record::forget_all_dead();
    let rows: Vec<Row> = mounts.iter().filter(|entry| entry.is_ours()).cloned().map(Row::new).collect();
    let rows: Vec<Row> = rows.into_iter().chain(elsewhere(&mounts)).collect();
    let text = match (args.json, args.verbose) {
        (true, _) => json(&rows),
        (_, true) => verbose(&rows, &mounts),
        _ => table(&rows),
    };
    // A reader such as `head` may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// The mounts of daemons that this user runs and other mount namespaces have.
fn elsewhere(mounts: &[Entry]) -> Vec<Row> {
    let is_here = |device: &str| mounts.iter().any(|mount| mount.device == device);
    let all = Seen::all().into_iter().filter(|(device, seen)| !is_here(device) && seen.is_alive());
    let row = |(device, seen): (String, Seen)| {
        let holder = elsewhere::holder(&device, seen.details.pid)?;
        let entry = Entry {
            device,
            mountpoint: holder.mountpoint.clone(),
            options: String::new(),
            fs_type: mounts::OUR_TYPE.to_owned(),
            source: String::new(),
            super_options: String::new(),
        };
        Some(Row { entry, daemon: Daemon::Alive(seen.details), elsewhere: Some(holder) })
    };
    all.filter_map(row).collect()
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("{:<4} {:<8} {:<10} MOUNTPOINT\n", "MODE", "PID", "LAYERS");
    for row in rows {
        let layers = row.details().map_or("-".to_owned(), |d| {
            let upper = if d.upper.is_some() { "1+" } else { "" };
            format!("{upper}{}", d.lowers.len() + d.data_lowers.len())
        });
        let of =
            row.elsewhere.as_ref().map(|holder| format!(" (of process {}, {})", holder.pid, holder.name));
        let at = format!("{}{}", row.entry.mountpoint.display(), of.unwrap_or_default());
        let at = shown(at.as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<4} {:<8} {layers:<10} {at}", row.mode(), row.pid());
    }
    out
}

fn verbose(rows: &[Row], mounts: &[Entry]) -> String {
    let blocks: Vec<String> = rows.iter().map(|row| block(row, mounts)).collect();
    blocks.join("\n")
}

/// A mount, its mountpoint as the heading.
fn block(row: &Row, mounts: &[Entry]) -> String {
    let mut out = format!("{}\n", shown(row.entry.mountpoint.as_os_str().as_bytes()));
    let mut put = |key: &str, value: &str| {
        let value = shown(value.as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {key:<8} {value}");
    };
    put("mode", row.mode());
    match &row.elsewhere {
        Some(holder) => put("mounted", &format!("not here: {holder}")),
        None => {
            put("source", &row.entry.source);
            put("options", &format!("{} {}", row.entry.options, row.entry.super_options));
        }
    }
    match &row.daemon {
        Daemon::Unknown => put("daemon", "unknown: another user's, or in another container"),
        Daemon::Alive(details) => put("daemon", &format!("process {}", details.pid)),
        Daemon::Dead(details) => {
            put("daemon", &format!("process {} has died: `stratafs umount` clears the mount", details.pid));
        }
    }
    if let Some(details) = row.details() {
        let text = |path: &Path| path.display().to_string();
        details.upper.iter().for_each(|path| put("upper", &text(path)));
        details.work.iter().for_each(|path| put("work", &text(path)));
        details.lowers.iter().for_each(|path| put("lower", &text(path)));
        details.data_lowers.iter().for_each(|path| put("data", &text(path)));
        let left_out = details.lowers.iter().flat_map(|lower| {
            let real = lower.canonicalize().unwrap_or_else(|_| lower.clone());
            mounts::left_out(mounts, &real)
        });
        let left_out = left_out.filter(|place| details.fenced && *place != row.entry.mountpoint);
        left_out.for_each(|place| put("without", &format!("{}, mounted in a lower layer", text(place))));
        details.maps.iter().for_each(|map| put("map", map));
        details.grafts.iter().for_each(|spec| put("graft", &graft(spec)));
        details.socket.iter().for_each(|path| put("socket", &text(path)));
        details.notes.iter().for_each(|note| put("note", note));
    }
    out
}

/// What is attached, and where.
fn graft(spec: &Spec) -> String {
    let source = match &spec.source {
        Source::Bind { path, .. } => path.display().to_string(),
        Source::Volume(volume) => {
            let inner = volume.subpath.as_ref().map(|path| format!("/{}", path.display()));
            format!("volume {}{}", volume.name.as_deref().unwrap_or("-"), inner.unwrap_or_default())
        }
        Source::Tmpfs { .. } => "tmpfs".to_owned(),
    };
    let mode = match (&spec.cow, spec.read_only) {
        (Some(_), _) => ", copy-on-write",
        (None, true) => ", read-only",
        (None, false) => "",
    };
    let maps: String = spec.ids.lines().iter().map(|map| format!(", {map}")).collect();
    format!("{} is {source}{mode}{maps}", spec.target.display())
}

fn json(rows: &[Row]) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    let path = |path: &Path| string(&path.to_string_lossy());
    let paths = |all: &[std::path::PathBuf]| list(all.iter().map(|one| path(one)).collect());
    let rows = rows.iter().map(|row| {
        let (entry, none) = (&row.entry, Details::default());
        let details = row.details().unwrap_or(&none);
        let alive = match row.daemon {
            Daemon::Unknown => "null",
            Daemon::Alive(_) => "true",
            Daemon::Dead(_) => "false",
        };
        let fields = [
            ("mountpoint", path(&entry.mountpoint)),
            ("source", string(&entry.source)),
            ("device", string(&entry.device)),
            ("mode", string(row.mode())),
            ("options", string(&entry.options)),
            ("super_options", string(&entry.super_options)),
            ("pid", row.details().map_or("null".to_owned(), |d| d.pid.to_string())),
            ("alive", alive.to_owned()),
            ("holder", row.elsewhere.as_ref().map_or("null".to_owned(), |holder| holder.pid.to_string())),
            ("upper", details.upper.as_deref().map_or("null".to_owned(), path)),
            ("work", details.work.as_deref().map_or("null".to_owned(), path)),
            ("lowers", paths(&details.lowers)),
            ("data_lowers", paths(&details.data_lowers)),
            // A spec is text, numbers and paths, and all of them have a form in JSON.
            ("grafts", serde_json::to_string(&details.grafts).unwrap_or_else(|_| "[]".to_owned())),
            ("maps", list(details.maps.iter().map(|map| string(map)).collect())),
            ("notes", list(details.notes.iter().map(|note| string(note)).collect())),
        ];
        let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("\n  {{{}}}", fields.join(","))
    });
    let rows: Vec<String> = rows.collect();
    if rows.is_empty() { "[]\n".to_owned() } else { format!("[{}\n]\n", rows.join(",")) }
}

/// A JSON string.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let mounts = mounts::parse(
            b"36 22 0:57 / /mnt/a\\040b rw,nosuid - fuse.stratafs src rw,user_id=0\n\
              37 22 0:58 / /mnt/c ro - fuse.stratafs src ro\n",
        );
        let details = Details {
            pid: 42,
            lowers: vec!["/l1".into(), "/l\"2".into()],
            upper: Some("/u".into()),
            work: Some("/w".into()),
            fenced: true,
            maps: vec!["uid disk 0-65535 shown as 200000-265535".into()],
            notes: vec!["no passthrough: tab\there".into()],
            grafts: ["/host:/etc/x:ro,uidmap=5:0:1", "data:/data:O", "/anonymous"]
                .iter()
                .flat_map(|text| crate::graft::volume(text.as_ref(), Path::new("/")))
                .collect(),
            ..Details::default()
        };
        let daemons = [Daemon::Alive(details), Daemon::Unknown];
        mounts
            .into_iter()
            .zip(daemons)
            .map(|(entry, daemon)| Row { entry, daemon, elsewhere: None })
            .collect()
    }

    #[test]
    fn the_table_has_a_line_per_mount() {
        let table = table(&rows());
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["rw", "42", "1+2", "/mnt/a", "b"]);
        assert_eq!(lines[2], ["ro", "-", "-", "/mnt/c"]);
        assert_eq!(super::table(&[]), "");
    }

    #[test]
    fn names_with_control_characters_stay_on_their_line() {
        let mut rows = rows();
        rows[0].entry.mountpoint = "/a\x1b[2J\nb".into();
        rows[0].entry.source = "x\n  daemon   process 1".to_owned();
        for text in [table(&rows), verbose(&rows, &[]), json(&rows)] {
            assert!(
                !text.contains('\x1b') && !text.contains("\nb") && !text.contains("\n  daemon   process 1"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_long_form_shows_layers_and_notes() {
        let text = verbose(&rows(), &mounts::parse(b"1 1 0:1 / /l1/proc rw - proc p rw\n"));
        for part in [
            "/mnt/a b\n",
            "  upper    /u\n",
            "  lower    /l1\n",
            "  without  /l1/proc, mounted in a lower layer\n",
            "  map      uid disk 0-65535 shown as 200000-265535\n",
            "  graft    /etc/x is /host, read-only, uid disk 0 shown as 5\n",
            "  graft    /data is volume data, copy-on-write\n",
            "  graft    /anonymous is volume -\n",
            "  note     no passthrough",
            "\n\n/mnt/c\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert_eq!(verbose(&[], &[]), "");
    }

    #[test]
    fn json_is_quoted_and_has_every_key_for_every_mount() {
        let text = json(&rows());
        for part in [
            "\"pid\":42",
            "\"/l\\\"2\"",
            "tab\\u0009here",
            "\"alive\":true",
            "\"alive\":null",
            "\"pid\":null",
            "\"grafts\":[{\"target\":\"/etc/x\",",
            "\"grafts\":[],",
            "\"maps\":[\"uid disk 0-65535",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert_eq!(text.matches("\"lowers\":[").count(), 2);
        assert_eq!(json(&[]), "[]\n");
    }
}
