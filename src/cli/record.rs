//! What a running daemon tells about itself: one small file per mount in the runtime directory, locked while it runs.
//!
//! The lock is what counts: it goes with the daemon, however that ends, so a record that is not locked is a dead one's.
//! Without a runtime directory there is no record, and nothing but details in `ls` is missing.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::mounts::{escape, unescape};
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
    /// Which fallbacks were chosen, and why.
    pub notes: Vec<String>,
    /// What is attached inside the merged tree, as it is attached: an anonymous volume has its name here. Without the
    /// options of volumes, since anybody may read the record.
    pub grafts: Vec<Spec>,
}

impl Details {
    /// Those of this process.
    pub fn new(config: &Config, notes: Vec<String>) -> Details {
        Details {
            pid: std::process::id(),
            lowers: config.lowers.clone(),
            data_lowers: config.data_lowers.clone(),
            upper: config.upper.as_ref().map(|upper| upper.dir.clone()),
            work: config.upper.as_ref().map(|upper| upper.work.clone()),
            notes,
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
        self.notes.iter().for_each(|note| put("note", Path::new(note)));
        // A spec is text, numbers and paths, and all of them have a form in JSON.
        let grafts = self.grafts.iter().filter_map(|graft| serde_json::to_string(graft).ok());
        grafts.for_each(|graft| put("graft", Path::new(&graft)));
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
                b"note" => out.notes.push(words),
                b"graft" => out.grafts.extend(serde_json::from_str::<Spec>(&words).ok()),
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

impl Kept {
    /// Writes the record of the mount on `device`; nothing if there is no place for it.
    pub fn new(device: &str, details: &Details) -> Option<Kept> {
        places().into_iter().find_map(|dir| Kept::in_dir(&dir, device, details))
    }

    fn in_dir(dir: &Path, device: &str, details: &Details) -> Option<Kept> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).ok()?;
        if !is_own(dir) {
            return None;
        }
        // What dead daemons have left of earlier mounts on this device number.
        found(dir, device).into_iter().filter_map(Seen::at).for_each(Seen::forget);
        // Device numbers are used again at once, while the daemon of the earlier mount may still be cleaning up: the
        // process id keeps the two records apart.
        let name = format!("{device}.{}", details.pid);
        let (path, fresh) = (dir.join(&name), dir.join(format!(".{name}")));
        // The daemon's umask is empty, so the mode is what it says.
        let file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&fresh).ok()?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
        lock.write_all(&details.to_text()).ok()?;
        // Seen only when it is complete and locked: before, it would look like a dead daemon's.
        fs::rename(&fresh, &path).ok()?;
        Some(Kept { path, lock: Some(lock) })
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
    /// The record of the mount on `device`, if there is one this process may read.
    pub fn of(device: &str) -> Option<Seen> {
        places().into_iter().filter(|dir| is_own(dir)).find_map(|dir| Seen::in_dir(&dir, device))
    }

    /// The newest, since an older one on the same device number is that of a mount that is gone.
    fn in_dir(dir: &Path, device: &str) -> Option<Seen> {
        let when = |path: &PathBuf| path.metadata().and_then(|facts| facts.modified()).ok();
        found(dir, device).into_iter().max_by_key(when).and_then(Seen::at)
    }

    fn at(path: PathBuf) -> Option<Seen> {
        let mut file = File::open(&path).ok()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        Some(Seen { details: Details::from_text(&text), path, file })
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
        }
    }
}

/// The records in `dir` of mounts on `device`, present and past.
fn found(dir: &Path, device: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let ours = names.filter(|name| {
        name.to_str().and_then(|name| name.strip_prefix(device)).is_some_and(|rest| rest.starts_with('.'))
    });
    ours.map(|name| dir.join(name)).collect()
}

/// Where records may be, the best place first. The last is for those whom no login manager has given a directory.
fn places() -> Vec<PathBuf> {
    let uid = nix::unistd::geteuid();
    let system = uid.is_root().then(|| PathBuf::from("/run/stratafs"));
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let shared = std::env::temp_dir().join(format!("stratafs-{uid}"));
    system.into_iter().chain(own.map(|dir| PathBuf::from(dir).join("stratafs"))).chain([shared]).collect()
}

/// Whether nobody but this user, or root, has made the directory: in a shared place anybody may have been there first.
fn is_own(dir: &Path) -> bool {
    let uid = nix::unistd::geteuid().as_raw();
    dir.symlink_metadata()
        .is_ok_and(|facts| facts.is_dir() && [0, uid].contains(&facts.uid()) && facts.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn details() -> Details {
        let grafts = [&b"/s\xff \n:/d\\x:ro"[..], b"vol:/v"];
        let grafts = grafts.map(|text| crate::graft::volume(OsStr::from_bytes(text), Path::new("/")));
        Details {
            pid: 42,
            lowers: vec!["/a b".into(), "/c\nd".into()],
            data_lowers: vec!["/data".into()],
            upper: Some("/u\\x".into()),
            work: Some("/w".into()),
            notes: vec!["no passthrough: not root".to_owned()],
            grafts: grafts.into_iter().flatten().collect(),
        }
    }

    #[test]
    fn details_go_there_and_back() {
        assert_eq!(details().grafts.len(), 2);
        assert_eq!(Details::from_text(&details().to_text()), details());
        assert_eq!(Details::from_text(b"graft {}\ngraft\n"), Details::default());
        assert_eq!(Details::from_text(b"junk\nfuture key\n"), Details::default());
    }

    #[test]
    fn a_record_is_alive_while_it_is_kept_and_then_gone() {
        let dir = tempfile::TempDir::new().expect("dir");
        let dir = dir.path().join("stratafs");
        assert!(Seen::in_dir(&dir, "0:57").is_none());
        let kept = Kept::in_dir(&dir, "0:57", &details()).expect("kept");
        assert_eq!(fs::metadata(dir.join("0:57.42")).expect("record").permissions().mode() & 0o022, 0);
        let seen = Seen::in_dir(&dir, "0:57").expect("seen");
        assert_eq!(seen.details, details());
        assert!(seen.is_alive());
        drop(kept);
        assert!(!seen.is_alive());
        assert!(Seen::in_dir(&dir, "0:57").is_none());
    }

    /// A device number was used again before the first daemon had removed its record, which was the second one's too.
    #[test]
    fn regression_a_daemon_that_ends_leaves_the_record_of_its_successor() {
        let dir = tempfile::TempDir::new().expect("dir");
        let first = Kept::in_dir(dir.path(), "0:1", &details()).expect("kept");
        let second = Kept::in_dir(dir.path(), "0:1", &Details { pid: 43, ..details() }).expect("kept");
        drop(first);
        let seen = Seen::in_dir(dir.path(), "0:1").expect("seen");
        assert!(seen.is_alive() && seen.details.pid == 43);
        drop(second);
    }

    #[test]
    fn a_dead_record_is_replaced() {
        let dir = tempfile::TempDir::new().expect("dir");
        fs::write(dir.path().join("0:1.1"), "pid 1\n").expect("write");
        assert!(!Seen::in_dir(dir.path(), "0:1").expect("seen").is_alive());
        fs::write(dir.path().join("0:2.1"), "pid 1\n").expect("write");
        Seen::in_dir(dir.path(), "0:2").expect("seen").forget();
        assert!(Seen::in_dir(dir.path(), "0:2").is_none());
        let _kept = Kept::in_dir(dir.path(), "0:1", &details()).expect("kept");
        assert_eq!(Seen::in_dir(dir.path(), "0:1").expect("seen").details.pid, 42);
        assert!(!dir.path().join("0:1.1").exists());
    }
}
