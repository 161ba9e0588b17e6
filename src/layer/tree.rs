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
use crate::config;
use crate::error::{Error, Result};
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::sys::{At, handle, mount, open, stat};

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

/// Read-only mounts through which lower layers are reached, where those are allowed: a second fence. Layers that stand side by
/// side are reached through one of the directory they are in, since each takes the kernel as long as many requests.
#[derive(Debug)]
pub(super) struct Fences<'a> {
    /// By directory, where more than one layer is in it.
    shared: HashMap<&'a Path, Option<Fence>>,
}

/// A read-only mount of a directory.
#[derive(Debug)]
struct Fence {
    tree: OwnedFd,
    /// The mount that the directory itself is on.
    mount: u64,
}

impl<'a> Fences<'a> {
    /// Those that the layers at `paths` share.
    pub(super) fn around(paths: impl Iterator<Item = &'a Path>) -> Fences<'a> {
        let mut layers: HashMap<&Path, usize> = HashMap::new();
        for parent in paths.filter_map(Path::parent) {
            *layers.entry(parent).or_default() += 1;
        }
        let many = layers.into_iter().filter(|&(_, layers)| layers > 1);
        Fences { shared: many.map(|(parent, _)| (parent, Fence::around(parent))).collect() }
    }

    /// The directory at `path` behind a fence; nothing where none is allowed.
    fn open(&self, path: &Path) -> Option<OwnedFd> {
        self.open_shared(path).or_else(|| open::clone(path, false, true).ok())
    }

    /// The directory at `path` behind the fence that it shares. Not where something is mounted on it, which the shared fence
    /// does not show, and not where the path ends in a symlink, which leads elsewhere.
    fn open_shared(&self, path: &Path) -> Option<OwnedFd> {
        let (parent, name) = path.parent().zip(path.file_name())?;
        let fence = self.shared.get(parent)?.as_ref()?;
        let there = mount::place_of(path).ok()?;
        let fd = open::dir_of_mount(fence.tree.as_fd(), name).ok()?;
        let stat = stat::stat(At::fd(fd.as_fd())).ok()?;
        (there.mount == fence.mount && (there.dev, there.ino) == (stat.dev, stat.ino)).then_some(fd)
    }
}

impl Fence {
    fn around(dir: &Path) -> Option<Fence> {
        let mount = mount::place_of(&dir.join(".")).ok()?.mount;
        Some(Fence { tree: open::clone(dir, false, true).ok()?, mount })
    }
}

/// The upper layer and the workdir, open beneath one private clone of the mount that both are on, so that names can be moved
/// between them and no mount inside shows. `None` where they are not on one mount, or no clone is allowed.
pub(super) fn private_room(dirs: &config::Upper) -> Option<(OwnedFd, OwnedFd)> {
    let above = dirs.dir.ancestors().find(|above| dirs.work.starts_with(above))?;
    let mount = mount::place_of(&above.join(".")).ok()?.mount;
    let tree = open::clone(above, false, false).ok()?;
    let open = |path: &Path| {
        let there = mount::place_of(path).ok()?;
        let fd = open::dir_of_mount(tree.as_fd(), path.strip_prefix(above).ok()?.as_os_str()).ok()?;
        let stat = stat::stat(At::fd(fd.as_fd())).ok()?;
        (there.mount == mount && (there.dev, there.ino) == (stat.dev, stat.ino)).then_some(fd)
    };
    Some((open(&dirs.dir)?, open(&dirs.work)?))
}

/// How a layer is to be opened.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// Behind one of these, where one is allowed.
    Fenced(&'a Fences<'a>),
    /// It is open already, beneath a private clone of its mount.
    Open(OwnedFd),
    /// By its path.
    Plain,
}

/// Opens the directory at `path` as layer `id`; its device is one of `devices` then. Errors: `Setup` naming layer and
/// remedy.
pub(super) fn open_layer(
    id: LayerId,
    path: &Path,
    role: &str,
    way: Way<'_>,
    shared: &Shared,
    devices: &mut HashMap<u64, Device>,
) -> Result<Layer> {
    let refused = |what: &str, errno: nix::errno::Errno| {
        Error::Setup(format!("{role} {path:?} {what}: {}", errno.desc()))
    };
    let clone = match way {
        Way::Fenced(fences) => fences.open(path),
        Way::Open(fd) => Some(fd),
        Way::Plain => None,
    };
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
