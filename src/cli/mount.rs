//! `stratafs mount` and the form without a command: from arguments to a job for the daemon.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::{DaemonArgs, HelperArgs, MountArgs};
use super::daemon::{self, Job, Notes};
use super::exit::{Failure, Outcome, say};
use super::grafts;
use super::log::{self, Level, Target};
use super::remount;
use crate::config::draft::{Draft, absolute};
use crate::config::helpers::Helpers;
use crate::config::{Config, MountFlags, check, options};
use crate::sys::process;

/// `stratafs mount`
pub fn mount(args: MountArgs) -> Outcome {
    let mut draft = draft(&args.options)?;
    if draft.remount {
        return remount::remount(&args.mountpoint, &args.options);
    }
    let both = |what: &str, short: &str, long: &str| {
        Failure::Usage(format!(
            "{what} is given both by `{short}` and by `-o {long}=`: leave one of them out"
        ))
    };
    if !args.lower.is_empty() {
        if !draft.lowers.is_empty() {
            return Err(both("the lower layer", "-l", "lowerdir"));
        }
        draft.lowers = args.lower;
    }
    for (given, field, short, long) in
        [(args.upper, &mut draft.upper, "-u", "upperdir"), (args.work, &mut draft.work, "-w", "workdir")]
    {
        if given.is_some() && field.is_some() {
            return Err(both(&format!("the {long}"), short, long));
        }
        *field = field.take().or(given);
    }
    let ephemeral = match args.ephemeral {
        Some(_) if draft.upper.is_some() || draft.work.is_some() => {
            return Err(Failure::Usage(
                "`--ephemeral` makes an upper layer and `-o upperdir=` or `workdir=` names one: leave one of them out"
                    .to_owned(),
            ));
        }
        Some(dir) => {
            // Stands in until the daemon has made the real one.
            (draft.upper, draft.work) = (Some("upper".into()), Some("work".into()));
            draft.ephemeral = true;
            Some(absolute(dir.unwrap_or_else(std::env::temp_dir)).map_err(Failure::usage)?)
        }
        None => None,
    };
    let mut how = args.daemon;
    if draft.debug {
        how.debug();
    }
    let mut config = draft.into_config(args.mountpoint).map_err(Failure::usage)?;
    config.grafts = grafts::grafts(&args.grafts)?;
    config.state = args.grafts.state.map(absolute).transpose().map_err(Failure::usage)?;
    config.remove_anonymous = args.grafts.rm;
    config.helpers = Helpers::given(&args.grafts.allow_helper).map_err(Failure::usage)?;
    start(config, ephemeral, how, Notes::Printed)
}

/// What the form without a command means where nothing is said, and `stratafs mount` does not: the defaults of what it
/// replaces. Source: the effect of fuse-overlayfs 1.10 and 2.0.
fn helper_defaults() -> Draft {
    Draft {
        nonempty: true,
        mount: MountFlags { nodev: true, noatime: true, ..MountFlags::default() },
        // Where device nodes cannot be made, or must not be seen. Any value counts.
        whiteout_files: std::env::var_os("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT").is_some(),
        ..Draft::default()
    }
}

/// The form without a command. `dry` looks at everything and mounts nothing, as `mount --fake` asks.
pub fn helper(args: HelperArgs, dry: bool) -> Outcome {
    let mut draft = helper_defaults();
    let mut unknown = Vec::new();
    for list in &args.options {
        unknown.extend(options::parse_tolerant(&mut draft, list).map_err(Failure::usage)?);
    }
    if let (true, Some(mountpoint)) = (draft.remount, args.places.last()) {
        let mountpoint = absolute(mountpoint.clone()).map_err(Failure::usage)?;
        if let Some(namespace) = &args.namespace {
            enter(namespace)?;
        }
        return remount::remount(&mountpoint, &args.options);
    }
    unknown.iter().for_each(|unknown| say(&format!("warning: {unknown}; ignored")));
    let debug = args.debug || draft.debug;
    let mut places = args.places.into_iter();
    let (first, second) = (places.next().unwrap_or_default(), places.next());
    let mountpoint = match second {
        Some(mountpoint) => {
            // So that `mount -a` finds the line of fstab mounted already.
            let source = first.to_string_lossy().into_owned();
            draft.fsname = draft.fsname.or(Some(source).filter(|name| !name.is_empty()));
            mountpoint
        }
        None => first,
    };
    if is_passed_descriptor(&mountpoint) {
        return Err(Failure::Usage(format!(
            "mountpoint {mountpoint:?} is a descriptor passed by mount(8): leave `drop_privileges` out"
        )));
    }
    let config = draft.into_config(mountpoint).map_err(Failure::usage)?;
    if let Some(namespace) = &args.namespace {
        enter(namespace)?;
    }
    if dry {
        return check::check(&config).map(drop).map_err(Failure::from);
    }
    let mut how = args.daemon;
    if debug {
        how.debug();
    }
    start(config, None, how, Notes::Silent)
}

/// mount.fuse3 with `drop_privileges` opens the device itself and hands over `/dev/fd/N`.
fn is_passed_descriptor(path: &Path) -> bool {
    path.starts_with("/dev/fd")
}

/// Enters the mount namespace that mount(8) names with `-N`: a process id, or a file such as `/proc/1/ns/mnt`.
fn enter(namespace: &Path) -> Outcome {
    let pid = namespace.to_str().and_then(|text| text.parse::<u32>().ok());
    let path = pid.map_or(namespace.to_owned(), |pid| format!("/proc/{pid}/ns/mnt").into());
    process::enter_mount_namespace(&path).map_err(|errno| {
        Failure::Failed(format!(
            "-N {namespace:?}: the mount namespace cannot be entered ({}): name a process or a file such as \
             /proc/PID/ns/mnt, as root",
            errno.desc()
        ))
    })
}

fn draft(lists: &[OsString]) -> Result<Draft, Failure> {
    let mut draft = Draft::default();
    lists.iter().try_for_each(|list| options::parse(&mut draft, list)).map_err(Failure::usage)?;
    Ok(draft)
}

fn start(config: Config, ephemeral: Option<PathBuf>, how: DaemonArgs, notes: Notes) -> Outcome {
    process::close_inherited();
    let level = Level::new(how.log_level.as_deref())?;
    let target = match &how.log_file {
        Some(path) => Target::File(log::LogFile::open(path)?),
        None if how.foreground => Target::Stderr,
        None => Target::Syslog,
    };
    daemon::start(Job { config, ephemeral, foreground: how.foreground, notes, target, level })
}
