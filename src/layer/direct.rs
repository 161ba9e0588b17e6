//! A tree taken as it is: no marks, no whiteouts, one layer, which has the upper's place. Others may change it meanwhile,
//! so what is known of a name is only a hint, and an object is told by its inode number.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use nix::errno::Errno;
use parking_lot::Mutex;

use super::hidden::Hidden;
use super::probe::Place;
use super::real_dir::{Fact, RealDir};
use super::recent::Holder;
use super::stack::{Found, Shared, Stack, Terms};
use super::tree::{Device, Layer};
use crate::error::{Context, Error, Result};
use crate::merge::LayerId;
use crate::merge::listing::FileKind;
use crate::merge::mark::Namespace;
use crate::merge::resolve::{Data, Outcome, Policy};
use crate::sync::LevelRwLock;
use crate::sys::mount::Inside;
use crate::sys::stat::{self, stat};
use crate::sys::{At, open};

/// What there is to say of such a tree.
#[derive(Debug)]
pub(super) struct Direct {
    /// No change is taken.
    pub read_only: bool,
    /// There may be mounts inside.
    pub has_mounts: bool,
    /// What was looked up a moment ago.
    pub recent: Holder,
}

impl Stack {
    /// The tree below the directory `root`, which was opened at `path`, with the mounts `inside`.
    /// Errors: what the directory answers.
    pub fn direct(
        root: OwnedFd,
        path: &Path,
        inside: Inside,
        read_only: bool,
        terms: Terms,
        shared: &Shared,
    ) -> Result<Stack> {
        let facts = stat(At::fd(root.as_fd())).call("statx")?;
        let may_hang = inside.may_hang || stat::may_hang(root.as_fd()).call("fstatfs")?;
        // Such a program may keep what was written by one descriptor, and a sync by another would not reach it: the kernel's own
        // descriptor of a backing file is one that nobody can sync.
        let passes = !inside.may_hang && !stat::is_fuse(root.as_fd()).call("fstatfs")?;
        let has_mounts = inside.some || stat::has_subvolumes(root.as_fd()).call("fstatfs")?;
        let readable = open::path(At::fd(root.as_fd())).call("fcntl")?;
        // Nobody asks for the uuid: there are no origins.
        let device = Device { part: shared.numbers.take(), readable, uuid: [0; 16], may_hang };
        let root = RealDir::root(LayerId::UPPER, root, shared.pool.clone());
        root.note(Fact::NoWhiteoutFiles, true);
        let layer = Layer { root, device: facts.dev, fenced: read_only, path: path.to_owned() };
        Ok(Stack {
            upper_layer: Some(layer),
            lowers: Vec::new(),
            data_only: Vec::new(),
            upper: None,
            direct: Some(Direct { read_only, has_mounts, recent: Holder::new(&shared.recent) }),
            may_hang,
            passes: AtomicBool::new(passes),
            waiting: AtomicUsize::new(0),
            keep: Mutex::default(),
            // Nobody asks: there are no marks.
            namespace: Namespace::User,
            hidden: Hidden::default(),
            policy: Policy { redirect: false, metacopy: false, data_only: false },
            pack_devices: true,
            index: false,
            terms,
            pool: shared.pool.clone(),
            devices: HashMap::from([(facts.dev, device)]),
            rename_gate: LevelRwLock::new(()),
        })
    }
}

impl Stack {
    /// Whether its filesystem may keep what was written to itself until a file is closed, and tells only then what was lost.
    pub fn flushes(&self) -> bool {
        self.is_direct() && self.may_hang
    }

    /// Holds an object, which the kernel is told of as `number`, until the request comes for which it was looked up. Only in a tree
    /// that others change.
    pub fn hold(&self, number: u64, object: Arc<OwnedFd>) {
        if let Some(direct) = &self.direct {
            direct.recent.hold(number, object);
        }
    }

    /// What `hold` holds.
    pub fn held(&self, number: u64) -> Option<Arc<OwnedFd>> {
        self.direct.as_ref()?.recent.get(number)
    }

    /// Whether a tree without marks may have mounts inside, whose names are listed by other numbers than theirs.
    pub fn has_mounts(&self) -> bool {
        self.direct.as_ref().is_some_and(|direct| direct.has_mounts)
    }
}

/// What is under `name` in `dir` now.
pub(super) fn resolve(dir: &Arc<RealDir>, name: &OsStr) -> Result<Found> {
    let fd = dir.fd().call("openat2")?;
    // By descriptor: the next request must find the same object, whatever has its name by then.
    let object = match open::path(At::new(fd.as_fd(), name)) {
        Ok(object) => object,
        Err(Errno::ENOENT) => return Ok(Outcome::Absent),
        Err(Errno::ENAMETOOLONG) => return Err(Error::NameTooLong),
        Err(errno) => return Err(Error::Sys { call: "openat2", errno }),
    };
    let stat = stat(At::fd(object.as_fd())).call("statx")?;
    let place = Place {
        dir: dir.clone(),
        name: name.into(),
        stat,
        xattr_whiteouts: false,
        opaque: false,
        impure: false,
        listed: None,
        object: Some(Arc::new(object)),
    };
    Ok(match stat.kind {
        FileKind::Dir => Outcome::Dir([(LayerId::UPPER, place)].into_iter().collect()),
        _ => Outcome::NonDir(LayerId::UPPER, place, Data::Here),
    })
}
