//! Filling a volume so that a crash leaves it empty or full.
//!
//! The content is made in a staging directory, which `meta.json` names before it exists. When all of it is on disk, `meta.json`
//! says so; from then on its entries move into `_data` one by one, and a move that is interrupted is gone on with, never
//! undone, by the next who attaches the volume. Nothing but the staging directory is ever removed, so what somebody else puts
//! into the volume meanwhile, or into a share that is mounted there, is safe.
//! Locks: all here needs the right to fill.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use super::home::{DATA, Home};
use super::meta::{Meta, Populated, Population, Publishing, now};
use super::{name, tree};
use crate::error::Result;
use crate::sys::attr::{SetTime, chmod, chown, utimens, with_owner_access, with_owner_writing};
use crate::sys::stat::Timestamp;
use crate::sys::xattr::{self, SetMode};
use crate::sys::{At, copy, name as names, open, stat};

/// The staging directory beside `_data`.
const BESIDE: &str = "_data.new";
/// Begins its name inside of what is mounted at `_data`.
const INSIDE: &str = ".stratafs-population-";

/// Whether a staging directory has a name that [`begin`] gives. Any other could lead out of the volume, and it is removed.
pub(super) fn is_staging(population: &Population) -> bool {
    let random = |name: &str| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    match population.inside {
        true => population.staging.strip_prefix(INSIDE).is_some_and(random),
        false => population.staging == BESIDE,
    }
}

/// Makes a fresh staging directory.
pub(super) fn begin(home: &Home, inside: bool) -> Result<PathBuf> {
    let staging = if inside { format!("{INSIDE}{}", name::random(8)?) } else { BESIDE.to_owned() };
    let mut meta = home.meta()?;
    let data = home.data()?;
    if meta.population.is_some() {
        // An earlier attempt of this very user.
        meta = recover(home, data.as_fd(), meta)?;
    }
    meta.population = Some(Population { staging: staging.clone(), inside, publishing: None });
    home.write_meta(&meta)?;
    let parent = if inside { data.as_fd() } else { home.dir() };
    let made = names::mkdir(At::new(parent, OsStr::new(&staging)), 0o755);
    made.map_err(|errno| home.failed("it cannot be filled", errno))?;
    Ok(if inside { home.path.join(DATA).join(staging) } else { home.path.join(staging) })
}

/// Makes the staging directory's content the volume's.
pub(super) fn finish(home: &Home, data: BorrowedFd<'_>, layers: &[String]) -> Result<()> {
    let failed = |errno| home.failed("it cannot be filled", errno);
    let mut meta = home.meta()?;
    let Some(population) = &mut meta.population else { return Ok(()) };
    let parent = if population.inside { data } else { home.dir() };
    let filled = open::file(At::new(parent, OsStr::new(&population.staging)), nix::fcntl::OFlag::O_DIRECTORY);
    let filled = filled.map_err(failed)?;
    // An earlier call has come so far; since then the directory's own times are those of the moves.
    if population.publishing.is_none() {
        let facts = stat::stat(At::fd(filled.as_fd())).map_err(failed)?;
        // All content before the word that it is there.
        copy::sync_all(filled.as_fd()).map_err(failed)?;
        let times = [facts.atime, facts.mtime].map(|time| (time.secs, time.nanos));
        population.publishing = Some(Publishing { layers: layers.to_vec(), times });
        home.write_meta(&meta)?;
    }
    recover(home, data, meta).map(drop)
}

/// Ends a filling that somebody has begun: one that is all on disk is finished, any other never was.
pub(super) fn recover(home: &Home, data: BorrowedFd<'_>, mut meta: Meta) -> Result<Meta> {
    let failed = |errno| home.failed("a filling that was interrupted cannot be ended", errno);
    let Some(population) = meta.population.take() else { return Ok(meta) };
    let parent = if population.inside { data } else { home.dir() };
    let staging = At::new(parent, OsStr::new(&population.staging));
    let mut times = None;
    if let Some(publishing) = population.publishing {
        match open::dir(parent, staging.name) {
            Ok(from) => publish(from.as_fd(), data, publishing.times).map_err(failed)?,
            // Its removal was the last step but for the times.
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        times = Some(publishing.times);
        meta.populated = Some(Populated { at: now(), layers: publishing.layers });
    }
    tree::remove(staging).map_err(failed)?;
    if let Some(times) = times.filter(|_| population.inside) {
        // The name that went was in the volume's root.
        set_times(At::fd(data), times).map_err(failed)?;
    }
    names::sync_dir(parent).map_err(failed)?;
    home.write_meta(&meta)?;
    Ok(meta)
}

/// Moves all that is in `from` into `to`, which then looks like `from` did.
fn publish(from: BorrowedFd<'_>, to: BorrowedFd<'_>, times: [(i64, u32); 2]) -> nix::Result<()> {
    for (name, _) in tree::names(from)? {
        let (old, new) = (At::new(from, &name), At::new(to, &name));
        // By descriptor: it has another name when its mode is put back.
        let object = open::path(old)?;
        let object = At::fd(object.as_fd());
        let moved =
            with_owner_writing(At::fd(from), || with_owner_writing(object, || names::rename_new(old, new)))??;
        match moved {
            // Somebody else's, made meanwhile: theirs stays.
            Ok(()) | Err(Errno::EEXIST | Errno::ENOTEMPTY) => {}
            Err(errno) => return Err(errno),
        }
    }
    let (source, root) = (At::fd(from), At::fd(to));
    let (facts, now) = (stat::stat(source)?, stat::stat(root)?);
    if (facts.uid, facts.gid) != (now.uid, now.gid) {
        chown(root, Some(facts.uid), Some(facts.gid))?;
    }
    for attribute in xattr::list(source)? {
        let Some(value) = xattr::get(source, &attribute)? else { continue };
        match with_owner_access(root, || xattr::set(root, &attribute, &value, SetMode::Any)) {
            // What the filesystem of a share does not keep was not kept in the staging directory either.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    // After the owner, whose change clears bits, and after ACLs, which change the group's.
    chmod(root, facts.mode)?;
    set_times(root, times)?;
    copy::sync_all(open::file(root, nix::fcntl::OFlag::O_DIRECTORY)?.as_fd())
}

fn set_times(root: At<'_>, times: [(i64, u32); 2]) -> nix::Result<()> {
    let [atime, mtime] = times.map(|(secs, nanos)| SetTime::To(Timestamp { secs, nanos }));
    utimens(root, atime, mtime)
}
