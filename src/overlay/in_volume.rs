//! Opening a volume of the store for a graft, and filling it when it is empty.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Overlay;
use crate::error::{Error, Result};
use crate::graft::{self, Spec};
use crate::inode::Inode;
use crate::layer::Stack;
use crate::volume::{Attached, Store};

/// A volume as long as a graft shows it.
#[derive(Debug)]
pub(super) struct InUse {
    attached: Option<Attached>,
    /// The mount came up.
    up: Arc<AtomicBool>,
    /// It was attached.
    placed: AtomicBool,
    /// It goes when it is not shown any more: anonymous, and the mount was asked to.
    remove: bool,
}

impl Overlay {
    /// The volume's name, what of it shows, and the right to use it. Errors: `Setup` naming the volume and the remedy.
    pub(super) fn open_volume(
        &self,
        spec: &Spec,
        volume: &graft::Volume,
        covered: Option<&Arc<Inode>>,
    ) -> Result<(String, PathBuf, InUse)> {
        let config = &self.grafts.config;
        if covered.is_some_and(|covered| !covered.is_dir()) && volume.subpath.is_none() {
            return Err(super::way::refused(
                &spec.target,
                "cannot mount volume over existing file: not a directory; name a directory",
            ));
        }
        let state = match &config.state {
            Some(state) => state.clone(),
            None => Store::default_dir()?,
        };
        let attached =
            Store::open(&state)?.allow(config.helpers.clone()).attach(volume, &config.mountpoint)?;
        let (name, data, fills) = (attached.name.clone(), attached.data.clone(), attached.needs_population);
        let goes = config.remove_anonymous && attached.anonymous && attached.created;
        // From here on an error takes back what was made.
        let remove = attached.created;
        let mut used = InUse {
            attached: Some(attached),
            up: self.grafts.up.clone(),
            placed: AtomicBool::new(false),
            remove,
        };
        let path = match &volume.subpath {
            None => data,
            Some(inner) => inside(&name, &data, inner)?,
        };
        match &mut used.attached {
            // What the layers have at the target is not what the rest of the volume is for.
            Some(attached) if fills && volume.subpath.is_some() => attached.skip_population(),
            Some(attached) if fills => self.fill(&spec.target, attached)?,
            _ => {}
        }
        used.remove = goes;
        Ok((name, path, used))
    }

    fn fill(&self, target: &Path, volume: &mut Attached) -> Result<()> {
        let from = self.in_layers(target)?.filter(|found| found.is_dir());
        let Some(from) = from else {
            volume.skip_population();
            return Ok(());
        };
        let into = volume.population_dir()?;
        self.copy_out(&from, &into).map_err(|error| {
            Error::Setup(format!(
                "volume {:?} cannot be filled with what the layers have at {target:?}: {error}; make room, or say `nocopy`",
                volume.name
            ))
        })?;
        volume.finish_population(&self.stack.identities())
    }
}

/// The path `inner` in a volume. Errors: `Setup` if there is nothing, or it leads out.
fn inside(name: &str, data: &Path, inner: &Path) -> Result<PathBuf> {
    let refused = |why: &str| {
        Error::Setup(format!("volume {name:?}: subpath {inner:?} {why}: make it, or name another"))
    };
    let real =
        fs::canonicalize(data.join(inner)).map_err(|error| refused(&format!("cannot be used ({error})")))?;
    let root = fs::canonicalize(data).map_err(|error| refused(&format!("cannot be used ({error})")))?;
    if real.starts_with(&root) { Ok(real) } else { Err(refused("leads out of the volume")) }
}

/// Says that what `stack` shows is attached: a volume that was made for it stays.
pub(super) fn keep(stack: &Stack) {
    let keep = stack.keep.lock();
    if let Some(used) = keep.as_ref().and_then(|keep| keep.downcast_ref::<InUse>()) {
        used.placed.store(true, Ordering::Relaxed);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let Some(attached) = self.attached.take() else { return };
        // What was made for an attempt goes with it: for a mount that never came up, or a graft that could not be.
        let stays = self.up.load(Ordering::Relaxed) && self.placed.load(Ordering::Relaxed);
        let failed = attached.created && !stays;
        if !self.remove && !failed {
            return;
        }
        let name = attached.name.clone();
        if let Err(error) = attached.remove() {
            tracing::warn!("volume {name:?} stays: {error}");
        }
    }
}
