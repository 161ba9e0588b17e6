//! Looks at the directories a `Config` names, before any is opened for good, so that what a person has to put right
//! is said in one sentence. What only shows in use (extended attributes, rename flags) is `layer::probe`'s matter.
//!
//! Source: overlayfs.rst, "Sharing and copying layers" and "workdir"; where the kernel answers EINVAL, EBUSY or ELOOP
//! and writes to dmesg, this names the directories.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat, geteuid};

use super::Config;
use crate::error::{Error, Result};

/// What directories that lie inside one another come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Overlaps {
    /// Sentences about what shows otherwise than its path says.
    pub notes: Vec<String>,
    /// The mount point is inside the upper layer.
    pub mountpoint_in_upper: bool,
    /// The workdir takes no changes, so the mount takes none.
    pub read_only: bool,
}

/// Checks the layers, the mountpoint and the way to mount.
///
/// # Errors
///
/// `Setup`, one sentence with the directory or device and the remedy.
pub fn check(config: &Config) -> Result<Overlaps> {
    if let Some(work) = immutable_workdir(config) {
        let mut config = config.clone();
        config.mount.read_only = true;
        let mut overlaps = check(&config)?;
        overlaps.read_only = true;
        overlaps.notes.push(format!("workdir {work:?} is immutable (chattr +i): the mount is read-only"));
        return Ok(overlaps);
    }
    let mut ways = Ways::default();
    let layers = layers(config, &mut ways)?;
    twice(&layers)?;
    room(config, &layers)?;
    let mut overlaps = Overlaps { notes: nested(&layers)?, ..Overlaps::default() };
    mountpoint(config, &layers, &mut ways, &mut overlaps)?;
    device()?;
    Ok(overlaps)
}

/// The workdir, if nothing can be made or removed in it (chattr(1), `i`). The mount is read-only then. Source: kernel
/// `ovl_make_workdir`; access(2), EPERM.
fn immutable_workdir(config: &Config) -> Option<&Path> {
    let work = &config.upper.as_ref().filter(|_| !config.mount.read_only)?.work;
    let writable = faccessat(AT_FDCWD, work, AccessFlags::W_OK, AtFlags::AT_EACCESS);
    (writable == Err(Errno::EPERM)).then_some(work)
}

/// What a directory is to the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Lower,
    Data,
    Upper,
    Work,
}

impl Role {
    fn noun(self) -> &'static str {
        match self {
            Role::Lower => "lower layer",
            Role::Data => "data-only layer",
            Role::Upper => "upper layer",
            Role::Work => "workdir",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Role::Lower => "-l or lowerdir=",
            Role::Data => "datadir+= or `::` in lowerdir=",
            Role::Upper => "-u or upperdir=",
            Role::Work => "-w or workdir=",
        }
    }

    fn written(self) -> bool {
        matches!(self, Role::Upper | Role::Work)
    }
}

/// A device and an inode number: what tells two directories apart, whatever they are called.
type Identity = (u64, u64);

/// A directory that is there, and those above it.
struct Dir<'a> {
    role: Role,
    path: &'a Path,
    identity: Identity,
    /// From its parent to the root, by the path without symbolic links.
    above: Rc<[Identity]>,
}

impl Dir<'_> {
    fn shown(&self) -> String {
        format!("{} {:?}", self.role.noun(), self.path)
    }

    fn is_inside(&self, other: &Dir<'_>) -> bool {
        self.above.contains(&other.identity)
    }
}

fn setup<T>(sentence: String) -> Result<T> {
    Err(Error::Setup(sentence))
}

fn layers<'a>(config: &'a Config, ways: &mut Ways) -> Result<Vec<Dir<'a>>> {
    let mut out = Vec::with_capacity(config.lowers.len() + config.data_lowers.len() + 2);
    if let Some(upper) = &config.upper {
        out.push(layer(Role::Upper, &upper.dir, config, ways)?);
        out.push(layer(Role::Work, &upper.work, config, ways)?);
    }
    for path in &config.lowers {
        out.push(layer(Role::Lower, path, config, ways)?);
    }
    for path in &config.data_lowers {
        out.push(layer(Role::Data, path, config, ways)?);
    }
    Ok(out)
}

/// One layer: there, a directory, readable, and writable where it will be written.
fn layer<'a>(role: Role, path: &'a Path, config: &Config, ways: &mut Ways) -> Result<Dir<'a>> {
    let shown = format!("{} {path:?} ({})", role.noun(), role.options());
    let (facts, plain) = directory(&shown, path)?;
    let mut needed = AccessFlags::R_OK | AccessFlags::X_OK;
    if role.written() && !config.mount.read_only {
        needed |= AccessFlags::W_OK;
    }
    match faccessat(AT_FDCWD, path, needed, AtFlags::AT_EACCESS) {
        Ok(()) => {}
        Err(Errno::EROFS) => {
            return setup(format!(
                "{shown} is on a read-only filesystem: name one that can be written, or mount with `-o ro`"
            ));
        }
        Err(errno) => {
            let verb = if needed.contains(AccessFlags::W_OK) { "written" } else { "read" };
            return setup(format!(
                "{shown} cannot be {verb} ({}): change its permissions or mount as its owner",
                errno.desc()
            ));
        }
    }
    Ok(Dir { role, path, identity: (facts.dev(), facts.ino()), above: ways.above(&shown, path, plain)? })
}

/// The facts of a directory that has to be there, and whether its path leads to it without a symlink at the end.
fn directory(shown: &str, path: &Path) -> Result<(Metadata, bool)> {
    // Joined anew: a slash at the end would follow a link.
    let named = path.parent().zip(path.file_name()).map(|(parent, name)| parent.join(name));
    let itself = named.and_then(|path| path.symlink_metadata().ok());
    if let Some(facts) = itself.filter(Metadata::is_dir) {
        return Ok((facts, true));
    }
    match fs::metadata(path) {
        Ok(facts) if facts.is_dir() => Ok((facts, false)),
        Ok(_) => setup(format!("{shown} is not a directory: name a directory")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            setup(format!("{shown} does not exist: create it or correct the path"))
        }
        Err(error) if is_dead(&error) => setup(dead(shown, path)),
        Err(error) => {
            setup(format!("{shown} cannot be reached ({error}): correct the path or its permissions"))
        }
    }
}

fn is_dead(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOTCONN as i32)
}

fn dead(shown: &str, path: &Path) -> String {
    format!("{shown} is a mount whose daemon has died: clear it with `stratafs umount {path:?}`")
}

/// The ways to the root from directories that have been asked about: many layers have one parent.
#[derive(Default)]
struct Ways {
    known: HashMap<PathBuf, Rc<[Identity]>>,
}

impl Ways {
    /// Who the directories above `path` are, from its parent to the root; `plain` if it does not end in a symlink.
    fn above(&mut self, shown: &str, path: &Path, plain: bool) -> Result<Rc<[Identity]>> {
        let above = match path.parent().filter(|_| plain) {
            Some(parent) => self.from(parent),
            None => fs::canonicalize(path)
                .and_then(|real| real.parent().map_or_else(|| Ok(Rc::from([])), |parent| self.from(parent))),
        };
        above.map_err(|error| Error::Setup(format!("{shown} cannot be reached ({error}): correct the path")))
    }

    /// Who `dir` and the directories above it are.
    fn from(&mut self, dir: &Path) -> std::io::Result<Rc<[Identity]>> {
        if let Some(way) = self.known.get(dir) {
            return Ok(way.clone());
        }
        let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let real = fs::canonicalize(here)?;
        let identity = |dir: &Path| fs::metadata(dir).map(|facts| (facts.dev(), facts.ino()));
        let way: Rc<[Identity]> = real.ancestors().map(identity).collect::<std::io::Result<_>>()?;
        self.known.insert(dir.to_owned(), way.clone());
        Ok(way)
    }
}

/// No directory in two places, by whatever name.
fn twice(layers: &[Dir<'_>]) -> Result<()> {
    for (at, dir) in layers.iter().enumerate() {
        if let Some(other) = layers[..at].iter().find(|other| other.identity == dir.identity) {
            return setup(format!(
                "{} and {} are the same directory: name each directory once",
                other.shown(),
                dir.shown()
            ));
        }
    }
    Ok(())
}

/// The upper layer and the workdir: names are moved from one to the other.
fn room(config: &Config, layers: &[Dir<'_>]) -> Result<()> {
    let find = |role| layers.iter().find(|dir| dir.role == role);
    let (Some(upper), Some(work)) = (find(Role::Upper), find(Role::Work)) else {
        return Ok(());
    };
    if upper.identity.0 != work.identity.0 && !config.mount.read_only {
        return setup(format!(
            "{} and {} are on different filesystems, and names are moved between them: name a workdir beside \
             the upper layer",
            upper.shown(),
            work.shown()
        ));
    }
    for (inner, outer) in [(work, upper), (upper, work)] {
        if inner.is_inside(outer) {
            return setup(format!(
                "{} is inside {}: name a workdir beside the upper layer",
                inner.shown(),
                outer.shown()
            ));
        }
    }
    Ok(())
}

/// Directories inside one another. The upper layer and the workdir may be inside a layer that is read, where they do not
/// show. Not the other way round: a change of the upper layer would be a change of the lower one.
/// Source: kernel `ovl_check_overlapping_layers`.
fn nested(layers: &[Dir<'_>]) -> Result<Vec<String>> {
    let (written, read): (Vec<_>, Vec<_>) = layers.iter().partition(|dir| dir.role.written());
    let mut notes = Vec::new();
    for written in &written {
        for read in &read {
            if read.is_inside(written) {
                return setup(format!(
                    "{} is inside {}, so a change of the one would change the other: move the layer out",
                    read.shown(),
                    written.shown()
                ));
            }
            if written.is_inside(read) {
                notes.push(format!(
                    "{} is inside {}: it does not show in the mount",
                    written.shown(),
                    read.shown()
                ));
            }
        }
    }
    let by_identity: HashMap<Identity, &Dir<'_>> = read.iter().map(|dir| (dir.identity, *dir)).collect();
    // Layers side by side share the way to the root, which is looked at once.
    let mut seen = HashSet::new();
    for inner in read.iter().filter(|dir| seen.insert(Rc::as_ptr(&dir.above))) {
        if let Some(outer) = inner.above.iter().find_map(|above| by_identity.get(above)) {
            notes.push(format!(
                "{} is inside {}: its names show in both places",
                inner.shown(),
                outer.shown()
            ));
        }
    }
    Ok(notes)
}

/// The mountpoint: there, empty or meant. It may be inside a layer, or hold layers: these are open before the mount hides
/// them.
fn mountpoint(config: &Config, layers: &[Dir<'_>], ways: &mut Ways, overlaps: &mut Overlaps) -> Result<()> {
    let path = &config.mountpoint;
    let shown = format!("mountpoint {path:?}");
    let (facts, plain) = match directory(&shown, path) {
        Err(Error::Setup(_)) if !path.exists() && path.symlink_metadata().is_err_and(not_found) => {
            return setup(format!("{shown} does not exist: create it with `mkdir -p {path:?}`"));
        }
        facts => facts?,
    };
    let identity = (facts.dev(), facts.ino());
    let above = ways.above(&shown, path, plain)?;
    for layer in layers {
        let is_inside = above.contains(&layer.identity);
        if layer.role == Role::Work && (layer.identity == identity || is_inside) {
            return setup(format!(
                "{shown} is in {}, which the daemon changes: choose a mountpoint outside it",
                layer.shown()
            ));
        }
        // Mounting over a layer is common (`lowerdir=/usr,... /usr`).
        if layer.identity == identity {
            return Ok(());
        }
        if is_inside {
            overlaps
                .notes
                .push(format!("{shown} is inside {}: there the mount does not show", layer.shown()));
            overlaps.mountpoint_in_upper |= layer.role == Role::Upper;
        }
    }
    // Source: fusermount(1): a user mounts only where that user may write.
    if !geteuid().is_root() && faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_err() {
        return setup(format!(
            "{shown} cannot be written by you, and only root mounts on what is not his: name a directory of your own"
        ));
    }
    if !config.nonempty && !is_empty(&shown, path)? {
        if above.first().is_some_and(|parent| parent.0 != identity.0) {
            return setup(format!(
                "{shown} carries a mount already, and that is not empty: unmount it with `umount {path:?}`, name an \
                 empty directory or give `-o nonempty`"
            ));
        }
        return setup(format!(
            "{shown} is not empty, and the mount would hide what is in it: name an empty directory or give `-o nonempty`"
        ));
    }
    Ok(())
}

fn not_found(error: std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

fn is_empty(shown: &str, path: &Path) -> Result<bool> {
    let mut names = fs::read_dir(path).map_err(|error| {
        // The kernel may still remember the directory itself.
        Error::Setup(match is_dead(&error) {
            true => dead(shown, path),
            false => {
                format!("{shown} cannot be read ({error}): change its permissions or give `-o nonempty`")
            }
        })
    })?;
    Ok(names.next().is_none())
}

/// The way to mount: the device, and a helper for those who may not call mount(2).
fn device() -> Result<()> {
    let device = "/dev/fuse";
    match fs::File::options().read(true).write(true).open(device) {
        Ok(file) if is_fuse(&file) => {}
        Ok(_) => {
            return setup(format!(
                "{device} is not the FUSE device: make it with `mknod {device} c 10 229`, or start the container with \
                 `--device {device}`"
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return setup(format!(
                "{device} does not exist: load the module with `modprobe fuse`, or start the container with \
                 `--device {device}`"
            ));
        }
        Err(error) => {
            return setup(format!(
                "{device} cannot be opened ({error}): change its permissions, or start the container with \
                 `--device {device}`"
            ));
        }
    }
    if !geteuid().is_root() && fusermount().is_none() {
        return setup(
            "fusermount3 was not found, and only root mounts without it: install the package fuse3, or run as root"
                .to_owned(),
        );
    }
    Ok(())
}

/// Source: kernel Documentation/admin-guide/devices.txt, character devices 10.
fn is_fuse(file: &fs::File) -> bool {
    let fuse = nix::sys::stat::makedev(10, 229);
    file.metadata().is_ok_and(|facts| facts.file_type().is_char_device() && facts.rdev() == fuse)
}

/// The directories in which root finds programs, whatever `$PATH` says.
pub const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/run/wrappers/bin";

/// The helper that mounts and unmounts for ordinary users, by the name it has here. Root's `$PATH` may be another user's.
pub fn fusermount() -> Option<PathBuf> {
    let given = if geteuid().is_root() { None } else { std::env::var_os("PATH") };
    let path = given.unwrap_or_else(|| SYSTEM_PATH.into());
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .flat_map(|dir| [dir.join("fusermount3"), dir.join("fusermount")])
        .find(|file| faccessat(AT_FDCWD, file, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
