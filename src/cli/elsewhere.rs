//! Mounts of ours in other mount namespaces: a container that still runs, a service with a namespace of its own, a shell in
//! `unshare -m`. Such a copy keeps a daemon, and the layers it writes, in use after the mount is gone here.
//!
//! Source: mount_namespaces(7); proc_pid_mountinfo(5).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::mounts;
use super::record::Seen;
use crate::config::MountFlags;
use crate::control::{Answer, Request, client};
use crate::sys::{mount, process};

/// A process that has a mount in its own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its command, as ps(1) has it.
    pub name: String,
    /// Where the mount is, as that process sees it.
    pub mountpoint: PathBuf,
    /// The flags of the mount.
    pub flags: MountFlags,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Holder { pid, name, mountpoint, .. } = self;
        write!(f, "process {pid} ({name}) has it in a mount namespace of its own, at {mountpoint:?}")
    }
}

/// A process of another mount namespace that has the mount of `device`; one that is not `daemon` itself, if there is one. Reads
/// one table of mounts for each namespace that this process may look into.
pub fn holder(device: &str, daemon: u32) -> Option<Holder> {
    // The kernel gives a device number again at once: a mount of another daemon that lives is no copy of this one.
    let is_anothers =
        |(other, seen): &(String, Seen)| other == device && seen.details.pid != daemon && seen.is_alive();
    if Seen::all().iter().any(is_anothers) {
        return None;
    }
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
        let Some(mount) =
            mounts::parse(&table).into_iter().find(|mount| mount.is_ours() && mount.device == device)
        else {
            without.insert(own);
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let found = Holder {
            pid,
            name: name.trim_end().to_owned(),
            flags: mount.flags(),
            mountpoint: mount.mountpoint,
        };
        if pid != daemon {
            return Some(found);
        }
        of_the_daemon = Some(found);
    }
    of_the_daemon
}

/// Which mount has the directory at `path` as its upper layer or workdir.
#[derive(Debug)]
pub enum User {
    /// One of this mount namespace, at this mount point.
    Here(PathBuf, u32),
    /// One of another mount namespace alone, with the record of its daemon.
    Elsewhere(Holder, Box<Seen>),
    /// The mount has just ended, or its record cannot be read.
    Unknown,
}

/// Returns the mount whose upper layer or workdir is `path`, by the records of daemons.
pub fn user_of(path: &Path) -> User {
    let real = fs::canonicalize(path).ok();
    let same = |other: &Option<PathBuf>| {
        let other = other.as_deref();
        let is_real = || other.and_then(|other| fs::canonicalize(other).ok()) == real;
        other == Some(path) || (real.is_some() && is_real())
    };
    let mounts = mounts::all().unwrap_or_default();
    let mut elsewhere = User::Unknown;
    for (device, seen) in Seen::all() {
        let details = &seen.details;
        if details.given_up || !(same(&details.upper) || same(&details.work)) || !seen.is_alive() {
            continue;
        }
        if let Some(here) = mounts.iter().rfind(|mount| mount.is_ours() && mount.device == device) {
            return User::Here(here.mountpoint.clone(), details.pid);
        }
        if let Some(holder) = holder(&device, details.pid) {
            elsewhere = User::Elsewhere(holder, Box::new(seen));
        }
    }
    elsewhere
}

/// Makes the mount that `holder` has read-only and lets its daemon leave the upper layer to another mount. A process
/// that uses the old mount continues to read.
///
/// # Errors
///
/// Why not, as a clause: the mount cannot be reached, a file is open for writing in it, or its daemon does not answer.
pub fn take_over(holder: &Holder, daemon: &Seen) -> Result<(), String> {
    let flags = MountFlags { read_only: true, ..holder.flags.clone() };
    let namespace = PathBuf::from(format!("/proc/{}/ns/mnt", holder.pid));
    let remounted =
        process::in_mount_namespace(&namespace, || mount::remount(&holder.mountpoint, flags.bits()));
    remounted.map_err(|errno| match errno {
        Errno::EBUSY => "files are open for writing in it".to_owned(),
        errno => format!("it cannot be made read-only ({})", errno.desc()),
    })?;
    let socket = daemon.details.socket.as_deref().ok_or("its daemon takes no requests")?;
    match client::ask(socket, &Request::GiveUp {}, |_| true) {
        Ok(Some(Answer::Done {})) => Ok(()),
        Ok(Some(Answer::Error { sentence })) => Err(sentence),
        Ok(_) => Err("its daemon did not say whether it left".to_owned()),
        Err(error) => Err(format!("its daemon does not answer ({error})")),
    }
}
