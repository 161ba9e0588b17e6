//! A layer: one tree, opened once, and the device it is on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::numbers::Part;
use super::real_dir::RealDir;
use super::stack::Shared;
use super::upper;
use crate::error::{Error, Result};
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::sys::{At, handle, open, stat};

/// One opened tree.
#[derive(Debug)]
pub struct Layer {
    /// Its root directory.
    pub root: Arc<RealDir>,
    /// The device that `stat` shows for it.
    pub(super) device: u64,
    /// It is reached through a read-only mount of its own.
    pub(super) fenced: bool,
    /// The path it was opened at, for messages.
    pub path: std::path::PathBuf,
}

/// A device that layers are on.
#[derive(Debug)]
pub(super) struct Device {
    /// Its place in the shared number space.
    pub(super) part: Part,
    /// Open for reading: handles are opened through it.
    pub(super) readable: OwnedFd,
    /// Of its filesystem, as origins name it.
    pub(super) uuid: [u8; 16],
    /// Its filesystem may not answer.
    pub(super) may_hang: bool,
}

/// Opens the directory at `path` as layer `id`; its device is one of `devices` then. Errors: `Setup` naming layer and remedy.
pub(super) fn open_layer(
    id: LayerId,
    path: &Path,
    role: &str,
    writable: bool,
    shared: &Shared,
    devices: &mut HashMap<u64, Device>,
) -> Result<Layer> {
    let refused = |what: &str, errno: nix::errno::Errno| {
        Error::Setup(format!("{role} {path:?} {what}: {}", errno.desc()))
    };
    // A lower layer is reached through a read-only mount of its own where that is allowed: a second fence.
    let clone = if writable { None } else { open::clone(path, false, true).ok() };
    let fenced = clone.is_some();
    let fd = match clone {
        Some(fd) => fd,
        None => open::root(path).map_err(|e| refused("cannot be opened", e))?,
    };
    let stat = stat::stat(At::fd(fd.as_fd())).map_err(|e| refused("cannot be opened", e))?;
    if stat.kind != FileKind::Dir {
        return Err(refused("cannot be used", nix::errno::Errno::ENOTDIR));
    }
    if let Entry::Vacant(unknown) = devices.entry(stat.dev) {
        let readable = upper::readable(fd.as_fd()).map_err(|e| refused("cannot be read", e))?;
        let uuid = handle::filesystem_uuid(readable.as_fd());
        let may_hang = stat::may_hang(readable.as_fd()).map_err(|e| refused("cannot be read", e))?;
        unknown.insert(Device { part: shared.numbers.take(), readable, uuid, may_hang });
    }
    let root = RealDir::root(id, fd, shared.pool.clone());
    root.note_bytes(stat.size);
    Ok(Layer { root, device: stat.dev, fenced, path: path.to_owned() })
}
