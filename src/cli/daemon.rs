//! The life of a daemon: leave the caller behind, bring the mount up, say so, serve, clean up.
//!
//! The process forks before it has any thread, and the child does all the work; the parent only waits for one report
//! through a pipe. So the caller gets an exit status that is true, and the mount is up when it sees it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::elsewhere::{self, User};
use super::exit::{Failure, Outcome, say};
use super::record::{self, Details, Kept};
use super::umount::detach;
use super::{log, mounts};
use crate::config::{Config, check};
use crate::control::socket::Server;
use crate::error::Error;
use crate::fuse::session::Mount;
use crate::layer::ephemeral::Ephemeral;
use crate::sys::{process, program};

/// A mount to be made and served.
pub struct Job {
    /// What it is made of. With `ephemeral` the upper layer is a placeholder.
    pub config: Config,
    /// Where to make a fresh upper layer for this mount.
    pub ephemeral: Option<PathBuf>,
    /// The caller waits until the mount is gone.
    pub foreground: bool,
    /// Whether notes about a mount that is up go to standard error.
    pub notes: Notes,
    /// Where the log goes.
    pub target: log::Target,
    /// What is logged.
    pub level: log::Level,
}

/// Which notes about a mount that is up are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notes {
    /// A line each, to a person.
    Printed,
    /// Nothing: engines take what a mount program says for an error.
    Silent,
}

/// How many mounts inside a layer a note names.
const FEW_PLACES: usize = 6;

impl Notes {
    fn print(self, notes: &[String]) {
        if self == Notes::Printed {
            notes.iter().for_each(|note| say(&format!("note: {note}")));
        }
    }

    /// What the lower layers leave out, if it is to be said: mounts inside a layer, where the daemon may make a private clone.
    fn about_mounts(self, config: &Config) -> Vec<String> {
        if self == Notes::Silent || !crate::sys::cred::may_administer() {
            return Vec::new();
        }
        let mounts = mounts::all().unwrap_or_default();
        let note = |lower: &PathBuf| {
            let mut places = mounts::left_out(&mounts, lower);
            // The child may have mounted by now.
            places.retain(|place| *place != config.mountpoint);
            let named: Vec<String> =
                places.iter().take(FEW_PLACES).map(|place| place.display().to_string()).collect();
            let more = match places.len().saturating_sub(FEW_PLACES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            (!places.is_empty()).then(|| {
                let named = named.join(", ");
                format!("{named}{more}: mounted inside lower layer {lower:?}, and not part of it")
            })
        };
        config.lowers.iter().filter_map(note).collect()
    }
}

/// Begins the report of a mount that is up; notes follow, a line each. Any other report is the sentence that says why it is not.
const UP: &[u8] = b"+";

/// Makes the mount; returns when it is up, or in the foreground when it is gone again.
pub fn start(job: Job) -> Outcome {
    if nix::unistd::geteuid().is_root() {
        // Where root may not mount, crate fuser would search `$PATH` for it.
        let found = check::fusermount().unwrap_or_else(|| "/usr/bin/fusermount3".into());
        program::set_fusermount(&found);
    }
    let notes = job.notes;
    if job.foreground {
        let mut all = notes.about_mounts(&job.config);
        return serve(job, |overlaps| {
            all.extend(overlaps);
            notes.print(&all);
            Ok(())
        });
    }
    let failed = |what: &str, errno: nix::Error| Failure::Failed(format!("{what}: {}", errno.desc()));
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("pipe2", errno))?;
    match process::fork().map_err(|errno| failed("fork", errno))? {
        ForkResult::Parent { child } => {
            drop(writer);
            // While the child works.
            let mut all = notes.about_mounts(&job.config);
            all.extend(wait_for_report(reader, child)?);
            notes.print(&all);
            // Until somebody has asked, the kernel takes the root for a directory of user 0 that nobody may change.
            let _ = std::fs::metadata(&job.config.mountpoint);
            Ok(())
        }
        ForkResult::Child => {
            drop(reader);
            in_background(job, writer);
            // The parent speaks for both.
            Ok(())
        }
    }
}

/// The child: what goes wrong before the mount is up goes to the parent, after it to the log.
fn in_background(job: Job, writer: OwnedFd) {
    let mut writer = Some(File::from(writer));
    // Fails only for a leader of a group, which a fresh child is not.
    let _ = setsid();
    let up = |notes: Vec<String>| {
        leave_terminal()?;
        let report = [UP, notes.join("\n").as_bytes()].concat();
        // Without a parent there is nobody who knows of the mount, so it must not stay.
        let gone = |_| Failure::Failed("the caller went away before the mount was up".to_owned());
        writer.take().map_or(Ok(()), |mut pipe| pipe.write_all(&report)).map_err(gone)
    };
    if let Err(failure) = serve(job, up) {
        let (Failure::Usage(sentence) | Failure::Failed(sentence)) = failure else { return };
        match &mut writer {
            // Nobody left to tell if it fails.
            Some(pipe) => drop(pipe.write_all(sentence.as_bytes())),
            None => tracing::error!("{sentence}"),
        }
    }
}

/// Brings the mount up, calls `up`, serves until it is unmounted, cleans up.
fn serve(job: Job, up: impl FnOnce(Vec<String>) -> Outcome) -> Outcome {
    let hangup = Hangup::of(&job);
    log::begin(job.target, job.level);
    // Modes are made by the callers of the mount; the daemon's own mask would take bits away.
    umask(Mode::empty());
    crate::sys::process::lift_limits();
    check_memory(job.config.threads)?;
    crate::sys::cred::keep_to_quotas()
        .map_err(|errno| Failure::Failed(format!("capset: {}", errno.desc())))?;
    // Before anything is made that has to be cleaned up: a signal then waits for the thread below.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;

    let mut config = job.config;
    let ephemeral = match &job.ephemeral {
        Some(parent) => Some(Ephemeral::new(parent)?),
        None => None,
    };
    if let Some(made) = &ephemeral {
        config.upper = Some(made.upper());
        config.upper_is_new = true;
    }
    let overlaps = check::check(&config)?;
    config.mountpoint_in_upper = overlaps.mountpoint_in_upper;
    config.mount.read_only |= overlaps.read_only;
    // The name that /proc/mounts will show, however the caller came here.
    config.mountpoint = std::fs::canonicalize(&config.mountpoint).map_err(|error| {
        Error::Setup(format!(
            "mountpoint {:?} cannot be reached ({error}): correct the path",
            config.mountpoint
        ))
    })?;
    if !job.foreground {
        // Every path is absolute by now, and no directory is to be kept busy.
        std::env::set_current_dir("/").map_err(|error| Failure::Failed(format!("chdir /: {error}")))?;
    }

    // Before the mount, which may cover some of them.
    let places = record::places_outside(&config.mountpoint);
    let mount = made(&config)?;
    // As they are attached: anonymous volumes have names by now.
    config.grafts = mount.attached();
    // Whatever else may be mounted on the machine, this is the last thing that was mounted there.
    let device = device_of(&config.mountpoint);
    let record = device.as_deref().and_then(|name| {
        let details = Details::new(&config, mount.overlay().stack().is_fenced(), mount.notes());
        Kept::new(name, &places, &details)
    });
    let record = record.map(Arc::new);
    let control = record.as_ref().and_then(|record| control(record, &mount));
    obey(signals, hangup, config.mountpoint, device)?;
    // If `up` fails, dropping the mount unmounts it.
    up(overlaps.notes)?;
    // The socket may be inside the mount, which answers from now on.
    let ready = job.foreground.then(|| std::thread::spawn(|| notify_supervisor(NotifyState::Ready)));
    let served = mount.run();
    // In order, however soon the mount has ended.
    if ready.is_some_and(|ready| ready.join().is_ok()) {
        notify_supervisor(NotifyState::Stopping);
    }
    // What callers of the control socket still change is given back first.
    drop(control);
    // The record goes last: `stratafs umount` waits for it.
    drop(ephemeral);
    if let Some(record) = record.and_then(Arc::into_inner) {
        record.leave();
    }
    served.map_err(Failure::from)
}

/// How long a mount waits for a copy in another mount namespace, such as that of a container that is ending.
const LEAVING_ELSEWHERE: Duration = Duration::from_secs(2);

/// Makes the mount. Takes over an upper layer that only a mount of another mount namespace has: that mount becomes
/// read-only. The kernel's overlayfs and fuse-overlayfs write to such a layer twice.
///
/// # Errors
///
/// As of [`Mount::new`]; for an upper layer or workdir in use, the error names the mount that uses it.
fn made(config: &Config) -> Result<Mount, Failure> {
    let begun = Instant::now();
    let is_own =
        |path: &Path| config.upper.as_ref().is_some_and(|upper| path == upper.dir || path == upper.work);
    loop {
        let (role, path) = match Mount::new(config.clone()) {
            // Those of a graft are found when others are attached already, and are not waited for.
            Err(Error::InUse { role, path }) if is_own(&path) => (role, path),
            result => return result.map_err(Failure::from),
        };
        let mut user = elsewhere::user_of(&path);
        // It may be on its way out; otherwise one of the two must stop writing.
        if !matches!(user, User::Here(..)) && begun.elapsed() < LEAVING_ELSEWHERE {
            continue;
        }
        if let User::Elsewhere(holder, daemon) = &user {
            match elsewhere::take_over(holder, daemon) {
                Ok(()) => continue,
                Err(why) => {
                    tracing::warn!("{path:?} cannot be taken over from process {}: {why}", daemon.details.pid)
                }
            }
            user = elsewhere::user_of(&path);
        }
        let sentence = match user {
            User::Here(at, pid) => format!(
                "{role} {path:?} is in use by the mount at {at:?} (process {pid}): unmount that one first, or give another {role}"
            ),
            User::Elsewhere(holder, daemon) => format!(
                "{role} {path:?} is in use in another mount namespace (daemon {}): {holder}; end that process, or give \
                 another {role}",
                daemon.details.pid
            ),
            User::Unknown => Error::InUse { role, path }.to_string(),
        };
        return Err(Failure::Failed(sentence));
    }
}

/// What SIGHUP means.
#[derive(Debug)]
enum Hangup {
    /// The terminal that the daemon was started on has gone: unmount.
    Unmounts,
    /// A log rotation program requests that the log file is reopened, where there is one.
    Reopens(Option<Arc<log::LogFile>>),
}

impl Hangup {
    fn of(job: &Job) -> Hangup {
        match &job.target {
            log::Target::File(file) => Hangup::Reopens(Some(file.clone())),
            // Only a process with a controlling terminal can open this.
            _ if job.foreground && File::open("/dev/tty").is_ok() => Hangup::Unmounts,
            _ => Hangup::Reopens(None),
        }
    }
}

/// Notifies a supervisor, such as systemd with `Type=notify`, of the state of the daemon. Does nothing without `$NOTIFY_SOCKET`.
/// Source: sd_notify(3).
fn notify_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("$NOTIFY_SOCKET cannot be notified: {error}");
    }
}

/// The socket by which a mount that is up is changed; nothing, with a word in the log, if it cannot be made.
fn control(record: &Arc<Kept>, mount: &Mount) -> Option<Server> {
    let kept = record.clone();
    let path = record.socket();
    mount.overlay().set_socket(&path);
    let overlay = Arc::downgrade(mount.overlay());
    let changed = move |grafts: &[crate::graft::Spec]| {
        kept.attached(grafts);
        if overlay.upgrade().is_some_and(|overlay| overlay.has_given_up()) {
            kept.given_up();
        }
    };
    let started = Server::start(path, mount.overlay(), changed);
    started.inspect_err(|error| tracing::warn!("no control socket: {error}")).ok()
}

/// The device number of our mount at `mountpoint`, found without asking the mount, which may not answer.
fn device_at(mountpoint: &Path) -> Option<String> {
    let Ok(mounts) = mounts::all() else {
        // Without /proc the kernel says it.
        return device_of(mountpoint);
    };
    mounts::at(&mounts, mountpoint).filter(|entry| entry.is_ours()).map(|entry| entry.device.clone())
}

/// The number of the device that is mounted at `mountpoint`, as in mountinfo.
fn device_of(mountpoint: &Path) -> Option<String> {
    let (major, minor) = crate::sys::mount::device(mountpoint).ok()?;
    Some(format!("{major}:{minor}"))
}

/// How long a signal waits for a mount that is in use, before it says so.
const LETTING_GO: Duration = Duration::from_secs(2);

/// Starts the thread that handles signals: SIGTERM and SIGINT unmount, and detach the second time; SIGHUP does what `hangup`
/// says.
fn obey(mut signals: Signals, hangup: Hangup, at: PathBuf, device: Option<String>) -> Outcome {
    // Whether a signal to unmount is among these; the others are handled.
    let unmounts = move |signals: &mut dyn Iterator<Item = i32>| {
        signals.fold(false, |unmounts, signal| match (signal, &hangup) {
            (SIGHUP, Hangup::Reopens(file)) => {
                file.iter().for_each(|file| file.reopen());
                unmounts
            }
            _ => {
                tracing::info!("signal {signal}: unmounting");
                true
            }
        })
    };
    let thread = move || {
        let mut told = false;
        loop {
            if !unmounts(&mut signals.wait()) {
                continue;
            }
            // Another mount may be at this path by now.
            if device.is_none() || device_at(&at) != device {
                tracing::warn!("{at:?} is detached; the daemon ends when the last program has let go of it");
                continue;
            }
            let mut lazy = std::mem::replace(&mut told, true);
            let begun = Instant::now();
            let mut detached = detach(&at, lazy);
            // A program that has just been started may have a file of the mount open for a moment.
            while detached.is_err() && !lazy && begun.elapsed() < LETTING_GO {
                std::thread::sleep(Duration::from_millis(50));
                lazy = unmounts(&mut signals.pending());
                detached = detach(&at, lazy);
            }
            if let Err(Failure::Failed(why) | Failure::Usage(why)) = detached {
                let remedy = if lazy { "" } else { "; a second signal detaches it" };
                tracing::warn!("{why}{remedy}");
            }
        }
    };
    let named = std::thread::Builder::new().name("signals".to_owned()).spawn(thread);
    named.map(drop).map_err(|error| Failure::Failed(format!("no thread for signals: {error}")))
}

/// The parent: the notes of a mount that is up, what the child says otherwise, or how it died without a word.
fn wait_for_report(reader: OwnedFd, child: Pid) -> Result<Vec<String>, Failure> {
    let mut report = Vec::new();
    // An unreadable pipe is as good as an empty one.
    let _ = File::from(reader).read_to_end(&mut report);
    if let Some(notes) = report.strip_prefix(UP) {
        return Ok(String::from_utf8_lossy(notes).lines().map(str::to_owned).collect());
    }
    let status = waitpid(child, None);
    if !report.is_empty() {
        return Err(Failure::Failed(String::from_utf8_lossy(&report).into_owned()));
    }
    let how = match status {
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
        Ok(WaitStatus::Exited(_, status)) => format!("exit status {status}"),
        _ => "reason unknown".to_owned(),
    };
    Err(Failure::Failed(format!(
        "the daemon ended before the mount was up ({how}): mount again with `-f --log-level debug` to see more"
    )))
}

/// Standard input, output and error go nowhere: a caller that reads them to their end must not wait for the daemon.
fn leave_terminal() -> Outcome {
    let failed = |what: String| Failure::Failed(format!("/dev/null: {what}"));
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|e| failed(e.to_string()))?;
    let null = null.as_fd();
    let all = dup2_stdin(null).and_then(|()| dup2_stdout(null)).and_then(|()| dup2_stderr(null));
    all.map_err(|errno| failed(errno.desc().to_owned()))
}

/// Errors: the daemon may have too little memory to begin with: it would end at the first request.
fn check_memory(threads: Option<usize>) -> Outcome {
    /// What each worker takes of the address space: room for the largest request, its stack, and a heap of its own.
    const EACH: u64 = 96 << 20;
    const OTHER: u64 = 128 << 20;
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get().max(2)));
    let needed = OTHER + EACH * threads as u64;
    match getrlimit(Resource::RLIMIT_AS) {
        Ok((soft, _)) if soft < needed => Err(Failure::Failed(format!(
            "the daemon may use {} MiB of memory (`ulimit -v`) and needs {} with {threads} threads: raise the limit, or say `-o threads=2`",
            soft >> 20,
            needed >> 20
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What the parent makes of a child that writes `report` and ends as the shell command `end` says.
    fn outcome(report: &[u8], end: &str) -> Result<Vec<String>, Failure> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        File::from(writer).write_all(report).expect("report");
        let mut child = Command::new("sh").args(["-c", end]).spawn().expect("child");
        let outcome = wait_for_report(reader, Pid::from_raw(child.id().try_into().expect("pid")));
        // Where the parent had to know how the child ended, its status has been taken already.
        let _ = child.wait();
        outcome
    }

    #[test]
    fn the_parent_repeats_the_report_or_says_how_the_child_died() {
        let sentence = |outcome| match outcome {
            Err(Failure::Failed(sentence)) => sentence,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(outcome(UP, "exit 0"), Ok(vec![]));
        assert_eq!(outcome(b"+one\ntwo", "exit 0"), Ok(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(sentence(outcome(b"no such layer", "exit 0")), "no such layer");
        assert!(sentence(outcome(b"", "exit 101")).contains("exit status 101"));
        assert!(sentence(outcome(b"", "kill -KILL $$")).contains("SIGKILL"));
    }
}
