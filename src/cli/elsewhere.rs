//! Mounts of ours in other mount namespaces: a container that still runs, a service with a namespace of its own, a shell in
//! `unshare -m`. Such a copy keeps a daemon, and the layers it writes, in use after the mount is gone here.
//!
//! Source: mount_namespaces(7); proc_pid_mountinfo(5).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::mounts;
use super::record::Seen;

/// A process that has a mount in its own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its command, as ps(1) has it.
    pub name: String,
    /// Where the mount is, as that process sees it.
    pub mountpoint: PathBuf,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Holder { pid, name, mountpoint } = self;
        write!(f, "process {pid} ({name}) has it in a mount namespace of its own, at {mountpoint:?}")
    }
}

/// A process of another mount namespace that has the mount of `device`; one that is not `daemon` itself, if there is one. Reads
/// one table of mounts for each namespace that this process may look into.
pub fn holder(device: &str, daemon: u32) -> Option<Holder> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut without: HashSet<PathBuf> = namespace("self").into_iter().collect();
    let mut of_the_daemon = None;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some((text, pid)) = name.to_str().and_then(|text| Some((text, text.parse::<u32>().ok()?))) else {
            continue;
        };
        let Some(own) = namespace(text).filter(|own| !without.contains(own)) else { continue };
        let table = fs::read(entry.path().join("mountinfo")).unwrap_or_default();
        let Some(mount) = mounts::parse(&table).into_iter().find(|mount| mount.device == device) else {
            without.insert(own);
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let found = Holder { pid, name: name.trim_end().to_owned(), mountpoint: mount.mountpoint };
        if pid != daemon {
            return Some(found);
        }
        of_the_daemon = Some(found);
    }
    of_the_daemon
}

/// Which mount has the directory at `path` as its upper layer or workdir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// One of this mount namespace, at this mount point.
    Here(PathBuf, u32),
    /// One of another mount namespace alone.
    Elsewhere(Holder, u32),
    /// None that can be told: it has just gone, or its record cannot be read.
    Unknown,
}

/// Who writes to the upper layer or workdir at `path`, by the records of daemons.
pub fn user_of(path: &Path) -> User {
    let same = |other: &Option<PathBuf>| {
        other
            .as_deref()
            .is_some_and(|other| other == path || fs::canonicalize(other).ok() == fs::canonicalize(path).ok())
    };
    let mounts = mounts::all().unwrap_or_default();
    for (device, seen) in Seen::all() {
        let details = &seen.details;
        if !(same(&details.upper) || same(&details.work)) || !seen.is_alive() {
            continue;
        }
        if let Some(here) = mounts.iter().rfind(|mount| mount.device == device) {
            return User::Here(here.mountpoint.clone(), details.pid);
        }
        if let Some(holder) = holder(&device, details.pid) {
            return User::Elsewhere(holder, details.pid);
        }
    }
    User::Unknown
}
