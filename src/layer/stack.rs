//! A stack: an optional upper layer over ordered lower ones. The mount's root is the first; a graft is another.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use nix::errno::Errno;
use parking_lot::Mutex;

use super::direct::Direct;
use super::hidden::Hidden;
use super::names::{MANY_LAYERS, Parts};
use super::numbers::Numbers;
use super::probe::{self, Answer, Place};
use super::real_dir::{DirPool, Fact, RealDir};
use super::recent::Recent;
use super::tree::{Device, Fences, Layer, Way, open_layer, private_room};
use super::upper::Upper;
use super::workdir::Use;
use crate::config::{Config, FsyncMode, IdMaps, RedirectDir, XattrPermissions, Xino};
use crate::error::{Context, Error, Result};
use crate::graft::Cache;
use crate::merge::listing::FileKind;
use crate::merge::mark::{Mark, Namespace};
use crate::merge::origin::Origin;
use crate::merge::resolve::{Outcome, Policy, Probe, Resolver, Step, Target};
use crate::merge::{LayerId, ino};
use crate::sync::{LevelRwLock, level};
use crate::sys::{At, cred, handle, stat};

/// What the stacks of one mount have in common.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The open directories.
    pub pool: Arc<DirPool>,
    /// The number space.
    pub numbers: Arc<Numbers>,
    /// What was looked up a moment ago where others make changes, too.
    pub recent: Arc<Recent>,
}

/// What a stack shows of what its layers have, and for how long that holds.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Between the ids on disk and the ids callers see.
    pub ids: IdMaps,
    /// Where owner, mode and type are kept.
    pub permissions: XattrPermissions,
    /// How long the kernel may believe what it is told.
    pub cache: Cache,
}

impl Shared {
    /// For a mount that may have `room` directories open at once.
    pub fn new(room: usize) -> Shared {
        Shared {
            pool: DirPool::new(room),
            numbers: Arc::default(),
            recent: Recent::new((room / 8).clamp(16, 1024)),
        }
    }
}

/// What the resolver found, with everything that was learnt on the way.
pub type Found = Outcome<Place>;

/// What goes when it is not in use any more.
pub type Kept = Box<dyn Any + Send + Sync>;

/// An optional upper layer over ordered lower ones.
#[derive(Debug)]
pub struct Stack {
    /// Index 0 is the upper's place; empty there if there is none.
    pub(super) upper_layer: Option<Layer>,
    pub(super) lowers: Vec<Layer>,
    pub(super) data_only: Vec<Layer>,
    /// The writable layer's marks and workdir.
    pub upper: Option<Upper>,
    /// A tree without marks, whose only layer has the upper's place.
    pub(super) direct: Option<Direct>,
    /// Some layer is on a filesystem that may not answer.
    pub may_hang: bool,
    /// The kernel passes reads and writes to files of this tree through; cleared for good when it refuses one.
    pub passes: AtomicBool,
    /// Requests that wait on threads of their own for its filesystem.
    pub waiting: AtomicUsize,
    /// What must stay as long as the stack is in use: a directory made for it, a volume.
    pub keep: Mutex<Option<Kept>>,
    /// Where marks are read.
    pub namespace: Namespace,
    /// What must not show of what the layers have.
    pub hidden: Hidden,
    pub(super) policy: Policy,
    /// Several devices share one number space.
    pub(super) pack_devices: bool,
    /// Hard links survive copy-up.
    pub index: bool,
    /// What it shows.
    pub terms: Terms,
    /// The open directories of all layers.
    pub pool: Arc<DirPool>,
    pub(super) devices: HashMap<u64, Device>,
    /// Level 1: taken for writing by whoever moves a directory or touches two directories' names.
    pub rename_gate: LevelRwLock<(), { level::RENAME }>,
}

impl Stack {
    /// Opens the layers of `config`. Errors: `Setup` naming the layer and the remedy.
    pub fn open(config: &Config, shared: &Shared) -> Result<Stack> {
        let pool = shared.pool.clone();
        // Where the mount point is inside the upper layer, the upper layer must not lead into the mount.
        let around = config.upper.as_ref().filter(|_| config.mountpoint_in_upper);
        let (room, work) = around.and_then(private_room).unzip();
        let upper = match &config.upper {
            Some(dirs) => Some(Upper::open(dirs, work, &config.marks, use_of(config))?),
            None => None,
        };
        let namespace = match &upper {
            Some(upper) => upper.namespace,
            None => Namespace::of_reader(config.marks.userxattr, cred::may_administer()),
        };
        let mut devices = HashMap::new();
        let fences = Fences::around(config.lowers.iter().chain(&config.data_lowers).map(PathBuf::as_path));
        let mut open = |id: u16, path: &Path, role: &str, way: Way<'_>| {
            open_layer(LayerId(id), path, role, way, shared, &mut devices)
        };
        let upper_layer = match &config.upper {
            Some(dirs) => Some(open(0, &dirs.dir, "upperdir", room.map_or(Way::Plain, Way::Open))?),
            None => None,
        };
        let mut lowers = Vec::new();
        for (i, path) in config.lowers.iter().enumerate() {
            lowers.push(open(i as u16 + 1, path, "lowerdir", Way::Fenced(&fences))?);
        }
        let mut data_only = Vec::new();
        for (i, path) in config.data_lowers.iter().enumerate() {
            data_only.push(open(
                (config.lowers.len() + i) as u16 + 1,
                path,
                "lowerdir",
                Way::Fenced(&fences),
            )?);
        }
        let hidden = hidden(config, &upper, [upper_layer.as_slice(), &lowers, &data_only])?;
        let mut stack = Stack {
            hidden,
            upper_layer,
            lowers,
            data_only,
            upper,
            direct: None,
            may_hang: false,
            passes: AtomicBool::new(true),
            waiting: AtomicUsize::new(0),
            keep: Mutex::default(),
            namespace,
            policy: Policy {
                redirect: config.marks.redirect_dir != RedirectDir::NoFollow,
                metacopy: config.marks.metacopy,
                data_only: !config.data_lowers.is_empty(),
            },
            pack_devices: config.xino != Xino::Off,
            index: false,
            terms: Terms {
                ids: config.ids.clone(),
                permissions: config.xattr_permissions,
                cache: Cache::Always,
            },
            pool,
            devices,
            rename_gate: LevelRwLock::new(()),
        };
        stack.may_hang = stack.devices.values().any(|device| device.may_hang);
        stack.open_index(config)?;
        Ok(stack)
    }

    /// Hard links are indexed where asked for, and where every lower layer gives handles by which to index.
    fn open_index(&mut self, config: &Config) -> Result<()> {
        let (Some(upper), Some(dirs), true) = (&mut self.upper, &config.upper, config.marks.index) else {
            return Ok(());
        };
        let mut asked = HashSet::new();
        for layer in self.lowers.iter().filter(|layer| asked.insert(layer.device)) {
            let fd = layer.root.fd().call("open")?;
            if handle::name_to_handle(At::fd(fd.as_fd())).is_err() {
                tracing::info!("no index: the filesystem of {:?} has no file handles", layer.path);
                return Ok(());
            }
        }
        if use_of(config) != Use::ReadOnly && !upper.abilities.hard_links {
            tracing::info!("no index: the filesystem of {:?} has no hard links", dirs.dir);
            return Ok(());
        }
        let there = upper.workdir.open_index(&dirs.work, use_of(config))?;
        self.index = there && self.index_belongs_here()?;
        if there && !self.index {
            tracing::warn!("no index: it was made over other layers than these, which were moved or copied");
        }
        Ok(())
    }

    /// An index names lower objects by handle, so it means something only over the layers it was made over: the upper
    /// root remembers the topmost lower root, and the index directory the upper root.
    /// Source: overlayfs.rst, "Sharing and copying layers"; kernel `ovl_verify_set_fh`.
    fn index_belongs_here(&self) -> Result<bool> {
        let (Some(upper), Some(layer), Some(lower)) = (&self.upper, &self.upper_layer, self.lowers.first())
        else {
            return Ok(true);
        };
        let index = upper.workdir.index().ok_or(Error::Bug("an index without a directory"))?;
        let upper_fd = layer.root.fd().call("open")?;
        let lower_fd = lower.root.fd().call("open")?;
        let lower_root = self.origin_of(LayerId(1), At::fd(lower_fd.as_fd()));
        let upper_root = self.origin_of(LayerId::UPPER, At::fd(upper_fd.as_fd()));
        let origin =
            upper.verify(At::fd(upper_fd.as_fd()), Mark::Origin, lower_root.and_then(|o| o.format(false)))?;
        let pair =
            upper.verify(At::fd(index.as_fd()), Mark::Upper, upper_root.and_then(|o| o.format(true)))?;
        Ok(origin && pair)
    }

    /// How the layers are read.
    fn reader(&self) -> probe::Reader<'_> {
        probe::Reader { namespace: self.namespace, hidden: &self.hidden }
    }

    /// Whether changes are possible at all.
    pub fn is_writable(&self) -> bool {
        self.direct.as_ref().map_or(self.upper.is_some(), |direct| !direct.read_only)
    }

    /// Errors: `ReadOnly` where no change is possible.
    pub fn check_writable(&self) -> Result<()> {
        // The kernel refuses changes by itself, until root remounts the filesystem behind the daemon's back.
        let closed = |upper: &Upper| upper.is_given_up() || upper.is_read_only();
        let is_closed = self.upper.as_ref().is_some_and(closed);
        if self.is_writable() && !is_closed { Ok(()) } else { Err(Error::ReadOnly) }
    }

    /// Whether owner, mode and type are in attributes.
    pub fn by_attribute(&self) -> bool {
        self.terms.permissions != XattrPermissions::Off
    }

    /// Whether this is one tree without marks, which others may change, too.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether hard links of objects of this kind survive copy-up: their count is kept in a mark.
    pub fn indexes(&self, kind: FileKind) -> bool {
        self.index && self.namespace.marks(kind)
    }

    /// The writable layer, with its marks. Errors: `ReadOnly` without one.
    pub fn writable(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or(Error::ReadOnly)
    }

    /// The root directories, topmost first.
    pub fn roots(&self) -> impl Iterator<Item = &Arc<RealDir>> {
        self.upper_layer.iter().chain(&self.lowers).map(|layer| &layer.root)
    }

    /// The layer with this place.
    pub fn layer(&self, id: LayerId) -> Option<&Layer> {
        if id.is_upper() {
            return self.upper_layer.as_ref();
        }
        let i = usize::from(id.0) - 1;
        self.lowers.get(i).or_else(|| self.data_only.get(i - self.lowers.len()))
    }

    /// What the layers say together about `name` in the directory that `parents` make up.
    pub fn resolve(&self, parents: Parts<'_>, name: &OsStr) -> Result<Found> {
        if self.is_direct() {
            return parents.upper.map_or(Ok(Outcome::Absent), |dir| super::direct::resolve(dir, name));
        }
        let mut resolver = Resolver::new(self.policy, name);
        // Whoever asks for a directory of many layers will ask for a name in it.
        let in_many = parents.lowers.len() > MANY_LAYERS
            && parents.names.is_some_and(|names| names.layers_with(name) > MANY_LAYERS);
        let (deepest, mut parents) = (parents.deepest(), parents.walk());
        let mut last: Option<LayerId> = None;
        loop {
            let (layer, answer, step) = match resolver.target().clone() {
                Target::Sibling(name) => {
                    let Some((dir, last)) = parents.next(&name) else { break };
                    let with_names = (in_many && !dir.layer().is_upper())
                        .then(|| probe::dir_with_names(self.reader(), dir, &name));
                    let answer = match with_names.flatten() {
                        Some(answer) => answer,
                        None => probe::name(self.reader(), dir, &name, last).call("statx")?,
                    };
                    (dir.layer(), answer, Step::Continue)
                }
                Target::FromRoot(path) => {
                    let Some(layer) = self.lower_after(last) else { break };
                    let lowest = self.is_lowest(layer.root.layer());
                    let walked = probe::path(self.reader(), &layer.root, &path, lowest).call("statx")?;
                    let step = match walked.redirect {
                        Some(redirect) => resolver.redirected(redirect),
                        None => Step::Continue,
                    };
                    (layer.root.layer(), walked.answer, if walked.ends { Step::Stop } else { step })
                }
            };
            last = Some(layer);
            let lowest = self.is_lowest(layer);
            // Not followed, a redirect leads nowhere that no other part of the parent has. Source: kernel `ovl_lookup`.
            let leads_nowhere = lowest || (!self.policy.redirect && deepest == Some(layer));
            let answer = if leads_nowhere { answer.without_redirect() } else { answer };
            resolver.at_lowest(lowest);
            if feed(&mut resolver, layer, answer) == Step::Stop || step == Step::Stop {
                break;
            }
        }
        Ok(resolver.finish())
    }

    /// Whether no layer below this one has names.
    fn is_lowest(&self, layer: LayerId) -> bool {
        usize::from(layer.0) == self.lowers.len()
    }

    fn lower_after(&self, last: Option<LayerId>) -> Option<&Layer> {
        self.lowers.get(usize::from(last.map_or(0, |id| id.0)))
    }

    /// The data of a metacopy file at `path` in the data-only layers.
    pub fn data_only(&self, path: &OsStr) -> Result<Option<Place>> {
        for layer in &self.data_only {
            let walked = probe::path(self.reader(), &layer.root, path, true).call("statx")?;
            if let (Probe::File { metacopy: None }, Some(place)) = (walked.answer.probe, walked.answer.place)
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The directory at `place`, ready to be asked for names.
    pub fn enter(&self, place: &Place) -> Arc<RealDir> {
        if self.is_direct() {
            return place.dir.child_that_is(&place.name, place.stat.ino);
        }
        let dir = place.dir.child(&place.name);
        dir.note_bytes(place.stat.size);
        dir.note(Fact::XattrWhiteouts, place.xattr_whiteouts);
        dir.note(Fact::Impure, place.impure);
        dir.note(Fact::NoWhiteoutFiles, place.listed.as_ref().is_some_and(|listed| !listed.whiteout_files));
        dir
    }

    /// The number shown for the real inode `ino` on `device`; nothing if it must be given by a counter.
    pub fn pack_ino(&self, device: u64, ino: u64) -> Option<u64> {
        if self.is_direct() {
            // Mounts and subvolumes inside have devices of their own.
            let own = self.devices.get(&device);
            let part = own.or_else(|| self.devices.values().next())?.part.index();
            let fits = own.is_some() && ino::pack(part, ino).is_some();
            return ino::pack(part, if fits { ino } else { ino::fold(device, ino) });
        }
        let index = self.devices.get(&device).map_or(ino::DEVICES, |device| device.part.index());
        ino::pack(if self.pack_devices { index } else { 0 }, ino)
    }

    fn device_of(&self, layer: &Layer) -> Option<&Device> {
        self.devices.get(&layer.device)
    }

    /// The device of a layer.
    pub fn device(&self, id: LayerId) -> u64 {
        self.layer(id).map_or(0, |layer| layer.device)
    }

    /// Whether every layer is on one device, so that numbers are the real ones.
    pub fn one_device(&self) -> bool {
        self.devices.len() == 1
    }

    /// The origin mark of the lower object at `at` in layer `id`; nothing where its filesystem has no handles.
    pub fn origin_of(&self, id: LayerId, at: At<'_>) -> Option<Origin> {
        let (kind, bytes) = handle::name_to_handle(at).ok()?;
        let uuid = self.device_of(self.layer(id)?)?.uuid;
        Some(Origin { uuid, handle_type: u8::try_from(kind).ok()?, handle: bytes })
    }

    /// Device and inode of the lower object that `origin` names, with its link count where the object could be opened.
    pub fn find_origin(&self, origin: &Origin) -> Option<(u64, u64, Option<u32>)> {
        let mut seen = Vec::new();
        let mut refused = false;
        let same_filesystem =
            |layer: &&Layer| self.device_of(layer).is_some_and(|device| device.uuid == origin.uuid);
        for layer in self.lowers.iter().filter(same_filesystem) {
            if seen.contains(&layer.device) {
                continue;
            }
            seen.push(layer.device);
            let Some(Device { readable, .. }) = self.device_of(layer) else { continue };
            let opened =
                handle::open_by_handle(readable.as_fd(), i32::from(origin.handle_type), &origin.handle);
            match opened {
                Ok(fd) => {
                    let stat = stat::stat(At::fd(fd.as_fd())).ok()?;
                    return Some((stat.dev, stat.ino, Some(stat.nlink)));
                }
                Err(errno) => refused |= errno == Errno::EPERM,
            }
        }
        // Without the right to open handles the number inside it has to do, if there is only one place it can mean.
        match seen[..] {
            [device] if refused => Some((device, origin.inode_hint()?, None)),
            _ => None,
        }
    }

    /// What tells the lower layers of this stack from others, topmost first: path, device and inode number of each.
    pub fn identities(&self) -> Vec<String> {
        let layers = self.upper_layer.iter().chain(&self.lowers);
        let identity = |layer: &Layer| {
            let root = layer.root.fd().and_then(|fd| stat::stat(At::fd(fd.as_fd())));
            let ino = root.map_or(0, |root| root.ino);
            format!("{} ({:x}:{ino})", layer.path.display(), layer.device)
        };
        layers.map(identity).collect()
    }

    /// Whether every lower layer is reached through a private, read-only clone of its mount.
    pub fn is_fenced(&self) -> bool {
        self.lowers.iter().chain(&self.data_only).all(|layer| layer.fenced)
    }

    /// Lines about what does not work here, for `stratafs ls -v`.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.is_fenced() {
            notes.push("lower layers are kept from changes by the daemon alone: it may not make read-only mounts of them".to_owned());
        }
        notes.extend(self.upper.iter().flat_map(|upper| upper.notes(self.index)));
        notes
    }
}

/// What the layers of a stack, topmost first, must not show.
fn hidden(config: &Config, upper: &Option<Upper>, layers: [&[Layer]; 3]) -> Result<Hidden> {
    let root = layers[0].first().map(|layer| layer.root.fd()).transpose().call("open")?;
    let written = root.iter().map(|root| root.as_fd()).chain(upper.iter().map(|upper| upper.workdir.root()));
    let paths = config.upper.iter().flat_map(|dirs| [dirs.dir.as_path(), dirs.work.as_path()]);
    let mut hidden = Hidden::new(written, paths).call("statx")?;
    let lowers = || layers[1].iter().chain(layers[2]);
    let some_lower = lowers().any(|layer| !layer.fenced);
    // Mounts inside root's upper layer are root's own.
    let guards_upper = some_lower || !cred::may_administer() || config.mountpoint_in_upper;
    let guards_upper = guards_upper && layers[0].iter().any(|layer| !layer.fenced);
    let mut guarded = vec![guards_upper];
    guarded.extend(lowers().map(|layer| !layer.fenced));
    for layer in layers[0].iter().filter(|_| guards_upper).chain(lowers().filter(|layer| !layer.fenced)) {
        layer.root.stay_on_one_mount();
    }
    hidden.guard(guarded);
    Ok(hidden)
}

fn use_of(config: &Config) -> Use {
    match config.fsync {
        _ if config.mount.read_only => Use::ReadOnly,
        FsyncMode::Volatile => Use::Volatile,
        FsyncMode::Auto | FsyncMode::Strict | FsyncMode::Off => Use::Durable,
    }
}

fn feed(resolver: &mut Resolver<Place>, layer: LayerId, answer: Answer) -> Step {
    match (answer.probe, answer.place) {
        (probe, Some(place)) => resolver.feed(layer, place, probe),
        (Probe::BrokenDir(mark, why) | Probe::BrokenFile(mark, why), None) => resolver.broken(mark, why),
        (Probe::Whiteout, None) => Step::Stop,
        (_, None) => Step::Continue,
    }
}
