//! `stratafs umount`: unmounts, and returns when the daemon has ended too, so that its layers are free.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::args::UmountArgs;
use super::elsewhere;
use super::exit::{Failure, Outcome, say};
use super::mounts::{self, Entry};
use super::record::Seen;
use crate::config::check::fusermount;
use crate::config::draft::absolute;
use crate::sys::program;

/// When, and how often, other mount namespaces are looked into.
const LOOK_AFTER: Duration = Duration::from_millis(400);

/// How long a daemon may take to end after its mount is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Unmounts each; those after one that cannot be unmounted, too.
pub fn umount(args: UmountArgs) -> Outcome {
    let mut outcome = Ok(());
    for path in &args.mountpoints {
        if let Err(Failure::Failed(sentence) | Failure::Usage(sentence)) = one(path, args.lazy) {
            say(&sentence);
            outcome = Err(Failure::Said);
        }
    }
    outcome
}

fn one(path: &Path, lazy: bool) -> Outcome {
    let mounts =
        mounts::all().map_err(|error| failed(format!("/proc/self/mountinfo: {error}: mount /proc first")))?;
    let entry = find(&mounts, path)?;
    // Opened before, since the daemon removes it in the end.
    let record = Seen::of(entry);
    let bound = bound_elsewhere(&mounts, entry);
    detach(&entry.mountpoint, lazy)?;
    match record {
        Some(record) if !lazy => wait(record, entry, &bound),
        _ => Ok(()),
    }
}

/// Our mount at `path`, by whatever name. The mount itself is not asked: its daemon may be dead.
pub fn find<'a>(mounts: &'a [Entry], path: &Path) -> Result<&'a Entry, Failure> {
    let full = absolute(path.to_owned()).map_err(Failure::from)?;
    let entry = names(&full)
        .find_map(|name| mounts::at(mounts, &name))
        .ok_or_else(|| failed(format!("{path:?} is not a mountpoint: `stratafs ls` lists the mounts")))?;
    if !entry.is_ours() {
        return Err(failed(format!(
            "{path:?} is a mount of type {}, not of stratafs: unmount it with umount(8)",
            entry.fs_type
        )));
    }
    Ok(entry)
}

/// The names `path` may have in mountinfo, the cheap ones first.
fn names(path: &Path) -> impl Iterator<Item = PathBuf> {
    let as_it_is = Some(path.components().collect());
    let (parent, name) = (path.parent().map(Path::to_owned), path.file_name().map(OsStr::to_owned));
    let real_parent = std::iter::once_with(move || Some(parent?.canonicalize().ok()?.join(name?)));
    let full = path.to_owned();
    let real = std::iter::once_with(move || full.canonicalize().ok());
    std::iter::once(as_it_is).chain(real_parent).chain(real).flatten()
}

/// Unmounts what is at `path` by the system call where it is allowed, else by the helper.
pub fn detach(path: &Path, lazy: bool) -> Outcome {
    let flags = MntFlags::UMOUNT_NOFOLLOW | if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => by_helper(path, lazy),
        Err(Errno::EBUSY) => Err(busy(path)),
        Err(errno) => Err(failed(format!("{path:?} cannot be unmounted: {}", errno.desc()))),
    }
}

fn by_helper(path: &Path, lazy: bool) -> Outcome {
    let helper = fusermount().ok_or_else(|| {
        failed(
            "fusermount3 was not found, and only root unmounts without it: install the package fuse3"
                .to_owned(),
        )
    })?;
    let cannot_run = |error| failed(format!("{helper:?} cannot be run: {error}"));
    let mut command = program::command(&helper).map_err(cannot_run)?;
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(path);
    let (status, output) = program::run(command).map_err(cannot_run)?;
    let said = output.trim().replace('\n', "; ");
    match status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(busy(path)),
        false => Err(failed(format!("{path:?} cannot be unmounted: {said}"))),
    }
}

fn busy(path: &Path) -> Failure {
    failed(format!(
        "{path:?} is in use: end the programs that use it (`fuser -vm {path:?}` names them), or detach it with `--lazy`"
    ))
}

/// Waits until the daemon has ended. A copy of the mount in another mount namespace keeps it; the error names it within a
/// second.
fn wait(record: Seen, entry: &Entry, bound: &[PathBuf]) -> Outcome {
    let path = &entry.mountpoint;
    let begun = Instant::now();
    let mut next_look = LOOK_AFTER;
    let mut suspect = None;
    let mut pause = Duration::from_millis(1);
    while record.is_alive() {
        let pid = record.details.pid;
        if begun.elapsed() > next_look {
            next_look = begun.elapsed() + LOOK_AFTER;
            if let Some(other) = still_bound(entry, bound) {
                return Err(failed(format!(
                    "{path:?} is unmounted, but the same tree is mounted at {other:?}, too: unmount that, and its daemon, process \
                     {pid}, ends"
                )));
            }
            let holder = elsewhere::holder(&entry.device, pid);
            // Another daemon may have the device number by now, and no record yet.
            let seen_before = std::mem::replace(&mut suspect, holder.as_ref().map(|holder| holder.pid));
            if let Some(holder) = holder.filter(|holder| Some(holder.pid) == seen_before) {
                return Err(failed(format!(
                    "{path:?} is unmounted here, but {holder}: its daemon, process {pid}, ends when that \
                     namespace unmounts it or its last process ends"
                )));
            }
        }
        if begun.elapsed() > PATIENCE {
            return Err(failed(format!(
                "{path:?} is unmounted, but its daemon, process {pid}, has not ended: it may be waiting for a disk; \
                 leave its layers alone until it has"
            )));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    record.forget();
    Ok(())
}

/// Where else this mount namespace has the mount, while it is up: bound, or a part of it. Afterwards another daemon's mount may have
/// its device number.
fn bound_elsewhere(mounts: &[Entry], entry: &Entry) -> Vec<PathBuf> {
    let same = |other: &&Entry| other.device == entry.device && other.mountpoint != entry.mountpoint;
    mounts.iter().filter(same).map(|other| other.mountpoint.clone()).collect()
}

/// One of the places that is still mounted.
fn still_bound(entry: &Entry, bound: &[PathBuf]) -> Option<PathBuf> {
    let mounts = if bound.is_empty() { return None } else { mounts::all().ok()? };
    let is_one = |other: &&Entry| other.device == entry.device && bound.contains(&other.mountpoint);
    mounts.iter().find(is_one).map(|other| other.mountpoint.clone())
}

fn failed(sentence: String) -> Failure {
    Failure::Failed(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(found: Result<&Entry, Failure>) -> String {
        match found {
            Err(Failure::Failed(sentence)) => sentence,
            other => unreachable!("{other:?}"),
        }
    }

    /// Once the next mount of another daemon, which had got the device number, was taken for a part of the one that had gone.
    #[test]
    fn regression_only_places_that_were_there_before_are_named() {
        let text = b"1 2 0:57 / /m rw - fuse.stratafs s rw\n3 2 0:57 /d /x rw - fuse.stratafs s rw\n4 2 0:58 / /y rw - fuse.stratafs s rw\n";
        let mounts = mounts::parse(text);
        let entry = |at: &str| mounts.iter().find(|it| it.mountpoint == Path::new(at)).expect("entry");
        assert_eq!(bound_elsewhere(&mounts, entry("/m")), [PathBuf::from("/x")]);
        assert_eq!(bound_elsewhere(&mounts, entry("/y")), [] as [PathBuf; 0]);
        assert_eq!(still_bound(entry("/m"), &[]), None);
    }

    #[test]
    fn a_mount_is_found_by_any_name_and_strangers_are_refused() {
        let dir = tempfile::TempDir::new().expect("dir");
        let real = dir.path().canonicalize().expect("real");
        std::fs::create_dir(real.join("m")).expect("m");
        std::os::unix::fs::symlink(real.join("m"), real.join("link")).expect("link");
        let text = format!(
            "1 2 0:57 / {}/m rw - fuse.stratafs s rw\n3 2 0:5 / /t rw - tmpfs t rw\n",
            real.display()
        );
        let mounts = mounts::parse(text.as_bytes());
        for name in ["m", "m/", "./m", "link"] {
            assert_eq!(find(&mounts, &real.join(name)).map(|e| e.device.as_str()), Ok("0:57"), "{name}");
        }
        assert!(sentence(find(&mounts, Path::new("/t"))).contains("type tmpfs"));
        assert!(sentence(find(&mounts, &real)).contains("not a mountpoint"));
        assert!(sentence(find(&mounts, Path::new("/nowhere"))).contains("not a mountpoint"));
    }
}
