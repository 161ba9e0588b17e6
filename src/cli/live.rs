//! `stratafs graft`: changes what is attached inside a mount that is up, by asking its daemon.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::args::{AddArgs, GraftArgs, GraftCommand};
use super::exit::{Failure, Outcome, say};
use super::record::Seen;
use super::{grafts, mounts, umount};
use crate::control::{Answer, Request, client};
use crate::graft::{self, Source, Spec};
use crate::sys::process;

/// Does what the arguments say.
pub fn graft(command: GraftCommand) -> Outcome {
    // What the caller has open in the graft would be named as ours.
    process::close_inherited();
    match command {
        GraftCommand::Add { what, mount } => add(&mount, what),
        GraftCommand::Rm { lazy, mount, targets } => remove(&mount, &targets, lazy),
        GraftCommand::Replace { volume, mount_spec, lazy, mount } => {
            let args = GraftArgs {
                volume: volume.into_iter().collect(),
                mount: mount_spec.into_iter().collect(),
                ..GraftArgs::default()
            };
            let socket = socket_of(&mount)?;
            let specs = grafts::grafts(&args)?;
            specs.into_iter().try_for_each(|spec| change(&socket, &Request::GraftReplace { spec, lazy }))
        }
        GraftCommand::Ls { json, mount } => list(&mount, json),
    }
}

/// All or none: one that cannot be attached takes those before it away again.
fn add(mount: &Path, what: AddArgs) -> Outcome {
    let args =
        GraftArgs { volume: what.volume, mount: what.mount_spec, tmpfs: what.tmpfs, ..GraftArgs::default() };
    let specs = grafts::grafts(&args)?;
    let socket = socket_of(mount)?;
    let mut done: Vec<PathBuf> = Vec::new();
    for spec in specs {
        let target = spec.target.clone();
        if let Err(failure) = change(&socket, &Request::GraftAdd { spec }) {
            for target in done.into_iter().rev() {
                // The first failure is the one to tell. Somebody may have begun to use it, and keeps it then.
                let _ = change(&socket, &Request::GraftRm { target, lazy: true });
            }
            return Err(failure);
        }
        done.push(target);
    }
    Ok(())
}

/// Each; those after one that cannot be removed, too.
fn remove(mount: &Path, targets: &[OsString], lazy: bool) -> Outcome {
    let clean = |target: &OsString| graft::target(target.as_bytes()).map_err(Failure::Usage);
    let targets: Vec<PathBuf> = targets.iter().map(clean).collect::<Result<_, _>>()?;
    let socket = socket_of(mount)?;
    let mut outcome = Ok(());
    for target in targets {
        if let Err(Failure::Failed(sentence) | Failure::Usage(sentence)) =
            change(&socket, &Request::GraftRm { target, lazy })
        {
            say(&sentence);
            outcome = Err(Failure::Said);
        }
    }
    outcome
}

fn list(mount: &Path, json: bool) -> Outcome {
    let socket = socket_of(mount)?;
    let Answer::Grafts { grafts } = ask(&socket, &Request::GraftLs {})? else { return Err(strange()) };
    let text = if json {
        serde_json::to_string(&grafts).map_err(|error| Failure::Failed(error.to_string()))? + "\n"
    } else {
        table(&grafts)
    };
    // A reader such as `head` may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// One graft a line, each column as wide as it must be. Nothing for none.
fn table(grafts: &[Spec]) -> String {
    if grafts.is_empty() {
        return String::new();
    }
    let heading = ["TARGET", "TYPE", "SOURCE", "MODE"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(heading).chain(grafts.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut out = String::new();
    for [target, kind, source, mode] in &rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{target:<a$}  {kind:<b$}  {source:<c$}  {mode}",
            a = widths[0],
            b = widths[1],
            c = widths[2]
        );
    }
    out
}

fn row(spec: &Spec) -> [String; 4] {
    let shown = |path: &Path| graft::shown(path.as_os_str().as_bytes());
    let (kind, source) = match &spec.source {
        Source::Bind { path, .. } => ("bind", shown(path)),
        Source::Volume(volume) => {
            let inner = volume.subpath.as_ref().map(|path| format!("/{}", shown(path))).unwrap_or_default();
            ("volume", format!("{}{inner}", volume.name.as_deref().unwrap_or("-")))
        }
        Source::Tmpfs { .. } => ("tmpfs", "-".to_owned()),
    };
    let mode = match (&spec.cow, spec.read_only) {
        (Some(_), _) => "cow",
        (None, true) => "ro",
        (None, false) => "rw",
    };
    [shown(&spec.target), kind.to_owned(), source, mode.to_owned()]
}

/// Where the daemon of our mount at `mount` takes requests. The mount itself is not asked: its daemon may be dead.
pub fn socket_of(mount: &Path) -> Result<PathBuf, Failure> {
    let mounts = mounts::all()
        .map_err(|error| Failure::Failed(format!("/proc/self/mountinfo: {error}: mount /proc first")))?;
    let entry = umount::find(&mounts, mount)?;
    let seen = Seen::of(entry).ok_or_else(|| {
        Failure::Failed(format!(
            "{mount:?}: its daemon has left no record that you may read: ask as the user who mounted it"
        ))
    })?;
    if !seen.is_alive() {
        return Err(Failure::Failed(format!(
            "{mount:?}: its daemon has died: `stratafs umount` clears the mount"
        )));
    }
    seen.details.socket.ok_or_else(|| {
        Failure::Failed(format!(
            "{mount:?}: its daemon is an older one, and takes no requests: mount it again"
        ))
    })
}

fn change(socket: &Path, request: &Request) -> Outcome {
    match ask(socket, request)? {
        Answer::Done {} => Ok(()),
        _ => Err(strange()),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Answer, Failure> {
    last(socket, client::ask(socket, request, |_| true))?.ok_or_else(strange)
}

/// The last line of an answer; what went wrong is one sentence.
pub fn last(socket: &Path, answered: std::io::Result<Option<Answer>>) -> Result<Option<Answer>, Failure> {
    match answered {
        Ok(Some(Answer::Error { sentence })) => Err(Failure::Failed(sentence)),
        Ok(answer) => Ok(answer),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Failure::Failed("the daemon has ended, or the mount is ending: mount it again".to_owned()))
        }
        Err(error) => Err(Failure::Failed(format!(
            "the control socket {socket:?} cannot be used ({error}): ask as the mount's owner or as root"
        ))),
    }
}

fn strange() -> Failure {
    Failure::Failed(
        "the daemon's answer is none to this question: it is of another version, mount again".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn grafts_are_listed_in_columns() {
        let spec = |text: &str| graft::volume(OsStr::new(text), Path::new("/")).expect(text);
        let grafts = [spec("/src:/a\tb:ro"), spec("data:/var/lib/data"), spec("/x:/c:O")];
        let expected = "\
TARGET         TYPE    SOURCE  MODE
/a\\tb          bind    /src    ro
/var/lib/data  volume  data    rw
/c             bind    /x      cow
";
        assert_eq!(table(&grafts), expected);
        assert_eq!(table(&[]), "");
    }
}
