//! What a running daemon tells about itself: one small file per mount in the runtime directory, locked while it runs.
//!
//! The lock is what counts: it goes with the daemon, however that ends, so a record that is not locked is a dead one's.
//! Beside it are the control socket, and what is attached: a file of its own, which a new one replaces at each change,
//! as a locked file cannot be. Without a runtime directory there is neither, and a mount is changed by nobody.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::elsewhere;
use super::mounts::{self, Entry, escape, unescape};
use crate::config::Config;
use crate::graft::{self, Spec};

/// What a daemon tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The daemon.
    pub pid: u32,
    /// Lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Data-only layers.
    pub data_lowers: Vec<PathBuf>,
    /// The writable layer.
    pub upper: Option<PathBuf>,
    /// The room beside it.
    pub work: Option<PathBuf>,
    /// Its upper layer is another mount's; this mount is read-only.
    pub given_up: bool,
    /// It was mounted with `ro` although it has an upper layer.
    pub began_read_only: bool,
    /// The lower layers are reached through private clones of their mounts, which have no mounts inside.
    pub fenced: bool,
    /// The maps between ids on disk and ids that callers see, a line for each range.
    pub maps: Vec<String>,
    /// Which fallbacks were chosen, and why.
    pub notes: Vec<String>,
    /// Where the daemon takes requests.
    pub socket: Option<PathBuf>,
    /// What is attached inside the merged tree, as it is now: an anonymous volume has its name here. Without the
    /// options of volumes, since anybody may read the record.
    pub grafts: Vec<Spec>,
}

impl Details {
    /// Those of this process.
    pub fn new(config: &Config, fenced: bool, notes: Vec<String>) -> Details {
        Details {
            pid: std::process::id(),
            given_up: false,
            began_read_only: config.mount.read_only,
            fenced,
            lowers: config.lowers.clone(),
            data_lowers: config.data_lowers.clone(),
            upper: config.upper.as_ref().map(|upper| upper.dir.clone()),
            work: config.upper.as_ref().map(|upper| upper.work.clone()),
            maps: config.ids.lines(),
            notes,
            socket: None,
            grafts: config.grafts.iter().map(graft::published).collect(),
        }
    }

    /// One `key value` a line.
    fn to_text(&self) -> Vec<u8> {
        let mut out = format!("pid {}\n", self.pid).into_bytes();
        let mut put = |key: &str, value: &Path| {
            out.extend(key.as_bytes());
            out.push(b' ');
            out.extend(escape(value));
            out.push(b'\n');
        };
        self.lowers.iter().for_each(|path| put("lower", path));
        self.data_lowers.iter().for_each(|path| put("data", path));
        self.upper.iter().for_each(|path| put("upper", path));
        self.work.iter().for_each(|path| put("work", path));
        let facts = [("fenced", self.fenced), ("readonly", self.began_read_only), ("gaveup", self.given_up)];
        for (key, holds) in facts {
            if holds {
                put(key, Path::new("yes"));
            }
        }
        self.maps.iter().for_each(|map| put("map", Path::new(map)));
        self.notes.iter().for_each(|note| put("note", Path::new(note)));
        self.socket.iter().for_each(|path| put("socket", path));
        out
    }

    fn from_text(text: &[u8]) -> Details {
        let mut out = Details::default();
        for line in text.split(|byte| *byte == b'\n') {
            let mut parts = line.splitn(2, |byte| *byte == b' ');
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            let value = unescape(value);
            let words = String::from_utf8_lossy(&value).into_owned();
            let path = PathBuf::from(OsString::from_vec(value));
            match key {
                b"pid" => out.pid = words.parse().unwrap_or_default(),
                b"lower" => out.lowers.push(path),
                b"data" => out.data_lowers.push(path),
                b"upper" => out.upper = Some(path),
                b"work" => out.work = Some(path),
                b"gaveup" => out.given_up = true,
                b"readonly" => out.began_read_only = true,
                b"fenced" => out.fenced = true,
                b"map" => out.maps.push(words),
                b"note" => out.notes.push(words),
                b"socket" => out.socket = Some(path),
                _ => {}
            }
        }
        out
    }
}

/// A record that is kept as long as this value lives.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

/// What stands beside a record, under its name with this before it.
const SOCKET: &str = "socket.";
const GRAFTS: &str = "grafts.";

/// The path of what is called `kind` beside the record at `path`.
fn beside(path: &Path, kind: &str) -> PathBuf {
    let mut name = OsString::from(kind);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// One graft a line, in JSON. A spec is text, numbers and paths, and all of them have a form there.
fn grafts_text<'a>(grafts: impl Iterator<Item = &'a Spec>) -> String {
    grafts.filter_map(|graft| serde_json::to_string(graft).ok()).map(|line| line + "\n").collect()
}

fn grafts_in(text: &str) -> Vec<Spec> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Kept {
    /// Writes the record of the mount of `device` into the first of `places` that takes it; `None` if none does.
    pub fn new(device: &str, places: &[PathBuf], details: &Details) -> Option<Kept> {
        places.iter().find_map(|dir| Kept::in_dir(dir, device, details))
    }

    fn in_dir(dir: &Path, device: &str, details: &Details) -> Option<Kept> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).ok()?;
        if !is_own(dir) {
            return None;
        }
        let names = names(dir);
        // What dead daemons have left of earlier mounts on this device number.
        found(dir, &names, device).filter_map(Seen::at).for_each(Seen::forget);
        // The lock tells for certain; that there is a program, not even a zombie, costs one call.
        forget_dead(dir, &names, |pid| fs::read_link(format!("/proc/{pid}/exe")).is_err());
        sweep(dir, &names);
        // Device numbers are used again at once, while the daemon of the earlier mount may still be cleaning up: the
        // process id keeps the two records apart.
        let name = format!("{device}.{}", details.pid);
        let (path, fresh) = (dir.join(&name), dir.join(format!(".{name}")));
        // The daemon's umask is empty, so the mode is what it says.
        let file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&fresh).ok()?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
        let details = Details { socket: Some(beside(&path, SOCKET)), ..details.clone() };
        lock.write_all(&details.to_text()).ok()?;
        let kept = Kept { path, lock: Some(lock) };
        kept.write_grafts(details.grafts.iter()).ok()?;
        // Seen only when it is complete and locked: before, it would look like a dead daemon's.
        fs::rename(&fresh, &kept.path).ok()?;
        Some(kept)
    }

    /// Where the daemon is to take requests.
    pub fn socket(&self) -> PathBuf {
        beside(&self.path, SOCKET)
    }

    /// Says what is attached now. One caller at a time.
    pub fn attached(&self, grafts: &[Spec]) {
        let published: Vec<Spec> = grafts.iter().map(graft::published).collect();
        if let Err(error) = self.write_grafts(published.iter()) {
            tracing::warn!("the record of what is attached is behind: {error}");
        }
    }

    /// Says that the upper layer is another mount's. The record is locked, so that it grows instead of being replaced.
    pub fn given_up(&self) {
        let Some(lock) = &self.lock else { return };
        let mut file: &File = lock;
        if let Err(error) = file.write_all(b"gaveup yes\n") {
            tracing::warn!("the record still names the upper layer: {error}");
        }
    }

    fn write_grafts<'a>(&self, grafts: impl Iterator<Item = &'a Spec>) -> std::io::Result<()> {
        let (path, fresh) = (beside(&self.path, GRAFTS), beside(&self.path, ".grafts."));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
        file.write_all(grafts_text(grafts).as_bytes())?;
        fs::rename(&fresh, &path)
    }
}

impl Kept {
    /// Removes the record at the end of a daemon. The lock goes when the process does: who waits for it then finds no
    /// process any more.
    pub fn leave(mut self) {
        std::mem::forget(self.lock.take());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A record left behind is unlocked, and so says itself that it is a dead one's.
        let _ = fs::remove_file(&self.path);
        remove_beside(&self.path);
    }
}

/// A record as another process sees it.
#[derive(Debug)]
pub struct Seen {
    /// What it says.
    pub details: Details,
    path: PathBuf,
    file: File,
}

impl Seen {
    /// The record of the mount `entry`, if there is one that this process may read. One that shows inside the mount itself is an
    /// older one, and reading it would keep the mount in use.
    pub fn of(entry: &Entry) -> Option<Seen> {
        let places = places_outside(&entry.mountpoint).into_iter().filter(|dir| is_own(dir));
        places.into_iter().find_map(|dir| Seen::in_dir(&dir, &entry.device))
    }

    /// All records that this process may read, with the device of each.
    pub fn all() -> Vec<(String, Seen)> {
        let mut all = Vec::new();
        for dir in places().into_iter().filter(|dir| is_own(dir)) {
            for name in names(&dir) {
                let is_record = name.starts_with(|c: char| c.is_ascii_digit());
                let Some((device, _)) = name.rsplit_once('.').filter(|_| is_record) else { continue };
                all.extend(Seen::at(dir.join(&name)).map(|seen| (device.to_owned(), seen)));
            }
        }
        all
    }

    /// The newest, since an older one on the same device number is that of a mount that is gone.
    fn in_dir(dir: &Path, device: &str) -> Option<Seen> {
        let when = |path: &PathBuf| path.metadata().and_then(|facts| facts.modified()).ok();
        found(dir, &names(dir), device).max_by_key(when).and_then(Seen::at)
    }

    fn at(path: PathBuf) -> Option<Seen> {
        // A fifo in its place must not block.
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let mut file = File::options().read(true).custom_flags(flags).open(&path).ok()?;
        if !file.metadata().is_ok_and(|facts| facts.is_file()) {
            return None;
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        let mut details = Details::from_text(&text);
        details.grafts =
            fs::read_to_string(beside(&path, GRAFTS)).map(|text| grafts_in(&text)).unwrap_or_default();
        Some(Seen { details, path, file })
    }

    /// Whether the daemon runs.
    pub fn is_alive(&self) -> bool {
        match self.file.try_clone() {
            // The lock is given back at once, when the value goes.
            Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
            Err(_) => true,
        }
    }

    /// Removes what a dead daemon has left.
    pub fn forget(self) {
        if !self.is_alive() {
            // What cannot be removed is replaced by the next mount on this device number.
            let _ = fs::remove_file(&self.path);
            remove_beside(&self.path);
        }
    }
}

/// Removes the records of dead daemons whose mount is gone, in all places where they may be.
pub fn forget_all_dead() {
    for dir in places().into_iter().filter(|dir| is_own(dir)) {
        let names = names(&dir);
        forget_dead(&dir, &names, |_| true);
        sweep(&dir, &names);
    }
}

/// Removes the records among `names` whose daemon `may_be_dead`, is dead, and has left no mount that `ls` would call dead.
fn forget_dead(dir: &Path, names: &[String], may_be_dead: impl Fn(u32) -> bool) {
    let mut mounted: Option<Vec<String>> = None;
    for name in names {
        let Some((device, Ok(pid))) = name.rsplit_once('.').map(|(device, pid)| (device, pid.parse())) else {
            continue;
        };
        if !device.starts_with(|c: char| c.is_ascii_digit()) || !may_be_dead(pid) {
            continue;
        }
        let Some(seen) = Seen::at(dir.join(name)).filter(|seen| !seen.is_alive()) else { continue };
        let mounted = mounted.get_or_insert_with(|| {
            mounts::all().map(|all| all.into_iter().map(|entry| entry.device).collect()).unwrap_or_default()
        });
        if !mounted.iter().any(|mounted| mounted == device) && elsewhere::holder(device, pid).is_none() {
            seen.forget();
        }
    }
}

/// The places for a record that do not lie below `mountpoint`, which has no symlinks, best first. To be called before the mount
/// is made: a daemon that writes its record through its own mount would wait for its own reply.
pub fn places_outside(mountpoint: &Path) -> Vec<PathBuf> {
    let real = |dir: &Path| dir.ancestors().find_map(|above| fs::canonicalize(above).ok());
    let is_outside = |dir: &PathBuf| {
        // By the name first: a mount that is up may not answer.
        !dir.starts_with(mountpoint) && real(dir).is_some_and(|real| !real.starts_with(mountpoint))
    };
    places().into_iter().filter(is_outside).collect()
}

fn remove_beside(record: &Path) {
    for kind in [SOCKET, GRAFTS] {
        // It may not be there; and without a record nobody looks for it.
        let _ = fs::remove_file(beside(record, kind));
    }
}

/// What the directory `dir` has; nothing, if it cannot be read. No name of ours has other letters than those of a `str`.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes what stands beside records that are gone. The record of a living daemon is there before what is beside it, at
/// least under its hidden name.
fn sweep(dir: &Path, names: &[String]) {
    for name in names {
        let Some(record) = [SOCKET, GRAFTS, ".grafts."].iter().find_map(|kind| name.strip_prefix(kind))
        else {
            continue;
        };
        // Looked for again, since it may have been made after the listing.
        let is_there = dir.join(record).symlink_metadata().is_ok();
        let begins = || Seen::at(dir.join(format!(".{record}"))).is_some_and(|seen| seen.is_alive());
        if !is_there && !begins() {
            // Somebody else may sweep, too.
            let _ = fs::remove_file(dir.join(name));
        }
    }
}

/// The records in `dir`, which has `names`, of mounts on `device`, present and past.
fn found<'a>(dir: &'a Path, names: &'a [String], device: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    let is_ours = move |name: &&String| name.strip_prefix(device).is_some_and(|rest| rest.starts_with('.'));
    names.iter().filter(is_ours).map(move |name| dir.join(name))
}

/// Where records may be, the best place first. The last is for those whom no login manager has given a directory.
fn places() -> Vec<PathBuf> {
    let uid = nix::unistd::geteuid();
    let system = uid.is_root().then(|| PathBuf::from("/run/stratafs"));
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let shared = std::env::temp_dir().join(format!("stratafs-{uid}{}", namespace_suffix()));
    system.into_iter().chain(own.map(|dir| PathBuf::from(dir).join("stratafs"))).chain([shared]).collect()
}

/// Keeps the root of a user namespace from taking the place of the machine's root: both are user 0 to themselves.
fn namespace_suffix() -> String {
    /// Source: kernel include/linux/proc_ns.h, `PROC_USER_INIT_INO`.
    const INITIAL: u64 = 0xEFFF_FFFD;
    match fs::metadata("/proc/self/ns/user").map(|facts| facts.ino()) {
        Ok(INITIAL) | Err(_) => String::new(),
        Ok(namespace) => format!("-{namespace}"),
    }
}

/// Whether nobody but this user, or root, has made the directory: in a shared place anybody may have been there first.
fn is_own(dir: &Path) -> bool {
    let uid = nix::unistd::geteuid().as_raw();
    dir.symlink_metadata()
        .is_ok_and(|facts| facts.is_dir() && [0, uid].contains(&facts.uid()) && facts.mode() & 0o022 == 0)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
