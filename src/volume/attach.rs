//! A volume in use: its record, its driver's mount, the right to fill it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::home::{Home, Lock};
use super::meta::Meta;
use super::store::{Store, missing};
use super::users::{self, Kept};
use super::{driver, population};
use crate::error::{Error, Result};
use crate::graft;
use crate::sys::dir;

/// A volume in use. Dropped, it is used no more: what was not filled to the end is as it was before, and what the driver
/// has mounted goes with the last user. A process that ends in another way is no user either; only the driver's mount then
/// stays until the volume is used or removed again.
#[derive(Debug)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// What is attached. It stays the same directory while the volume is filled.
    pub data: PathBuf,
    /// Nobody named it: it goes with `--rm`.
    pub anonymous: bool,
    /// It was made for this mount.
    pub created: bool,
    /// It is empty and to be filled from the layers: by [`Attached::population_dir`] and [`Attached::finish_population`],
    /// or not at all, by [`Attached::skip_population`]. Others who attach it wait until one of them is done.
    pub needs_population: bool,
    store: Store,
    home: Home,
    driven: bool,
    user: Option<Kept>,
    fill: Option<Lock>,
    filling: bool,
}

/// Which volumes are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// None.
    No,
    /// One that is empty and was never filled.
    IfNew,
    /// One that is empty.
    IfEmpty,
}

impl Store {
    /// Uses a volume for the mount at `mountpoint`, and makes it first if there is none. Waits while somebody else fills it.
    /// Errors: `Setup`; then nothing is left that was not there before.
    pub fn attach(&self, volume: &graft::Volume, mountpoint: &Path) -> Result<Attached> {
        loop {
            let (meta, created) = self.find_or_create(volume)?;
            let fill = if volume.nocopy { Fill::No } else { Fill::IfNew };
            let attached = self.use_volume(&meta.name, created, mountpoint, fill);
            match attached {
                Ok(Some(attached)) => return Ok(attached),
                // Removed in the moment between: made again, unless it was to be there.
                Ok(None) => {}
                Err(error) => {
                    if created {
                        // The error to tell is the first one. In use: somebody else has found it by now.
                        let _ = self.remove(&meta.name, false);
                    }
                    return Err(error);
                }
            }
        }
    }

    fn find_or_create(&self, volume: &graft::Volume) -> Result<(Meta, bool)> {
        if volume.external {
            let name = volume.name.as_deref().unwrap_or_default();
            super::name::check(name)?;
            if self.home(name)?.is_none() {
                return Err(Error::Setup(format!(
                    "volume {name:?} is external, and there is none: make it with `stratafs volume create {name}`"
                )));
            }
        }
        self.create(volume.name.as_deref(), volume.driver.as_deref(), &volume.options, &volume.labels)
    }

    /// Uses a volume that exists already, and is not filled: for `--volumes-from` and for archives. Errors: `Setup`.
    pub fn use_existing(&self, name: &str, mountpoint: &Path) -> Result<Attached> {
        self.use_volume(name, false, mountpoint, Fill::No)?.ok_or_else(|| missing(name))
    }

    /// Nothing if it was removed meanwhile.
    pub(super) fn use_volume(
        &self,
        name: &str,
        created: bool,
        mountpoint: &Path,
        fill: Fill,
    ) -> Result<Option<Attached>> {
        let Some(home) = self.home(name)? else { return Ok(None) };
        let Some(lock) = home.lock(self.dir())? else { return Ok(None) };
        let meta = home.meta()?;
        driver::check(&meta.driver, &meta.options)?;
        home.data()?;
        let user = users::add_locked(&home, mountpoint)?;
        let mut attached = Attached {
            name: name.to_owned(),
            data: home.data_path(),
            anonymous: meta.is_anonymous(),
            created,
            needs_population: false,
            store: self.clone(),
            home,
            driven: meta.needs_mount(),
            user: Some(user),
            fill: None,
            filling: false,
        };
        let mut lock = Some(lock);
        if let Err(error) = attached.prepare(&meta, fill, &mut lock) {
            // `drop` takes the lock itself.
            drop(lock);
            return Err(error);
        }
        Ok(Some(attached))
    }
}

impl Attached {
    /// Mounts, recovers, and finds out whether the volume is to be filled. Locks: `lock` is the volume's; it is given
    /// back while another fills. The record of use keeps the volume from being removed meanwhile.
    fn prepare(&mut self, meta: &Meta, fill: Fill, lock: &mut Option<Lock>) -> Result<()> {
        if self.driven && !driver::is_mounted(&self.data) {
            driver::mount(meta, &self.home, self.created, self.store.helpers())?;
        }
        loop {
            let meta = self.home.meta()?;
            let data = self.home.data()?;
            let wanted = |meta: &Meta| -> Result<bool> {
                let failed = |errno: Errno| self.home.failed("its content cannot be listed", errno);
                let asked = fill == Fill::IfEmpty || (fill == Fill::IfNew && meta.is_unfilled());
                Ok(asked && dir::is_empty(data.as_fd()).map_err(failed)?)
            };
            if meta.population.is_none() && !wanted(&meta)? {
                return Ok(());
            }
            if let Some(right) = self.home.try_fill()? {
                // Who had it is dead, or has finished in the moment between.
                let meta = self.home.meta()?;
                let meta = population::recover(&self.home, data.as_fd(), meta)?;
                self.needs_population = wanted(&meta)?;
                self.fill = self.needs_population.then_some(right);
                return Ok(());
            }
            *lock = None;
            self.home.wait_for_fill()?;
            let retaken = self.home.lock(self.store.dir())?;
            *lock = Some(retaken.ok_or(Error::Bug("a volume was removed while it was in use"))?);
        }
    }

    /// A fresh directory to fill: what is in it when [`Attached::finish_population`] is called, and its owner, mode, times
    /// and xattrs, are then the volume's. Errors: `Setup`.
    pub fn population_dir(&mut self) -> Result<PathBuf> {
        if self.fill.is_none() {
            return Err(Error::Bug("a volume is filled by who has no right to"));
        }
        let inside = driver::is_mounted(&self.data);
        // Before anything is made: what is half made is found by it.
        self.filling = true;
        population::begin(&self.home, inside)
    }

    /// Makes the filled directory's content the volume's: after a crash all of it is there, or nothing. `layers` are what
    /// it was filled from, topmost first, and are kept. Names that somebody else has made in the volume meanwhile
    /// stay as they are. Errors: `Setup`; then the volume is filled at its next use, or now by calling this again.
    pub fn finish_population(&mut self, layers: &[String]) -> Result<()> {
        if !self.filling {
            return Err(Error::Bug("a volume's filling ends that has not begun"));
        }
        population::finish(&self.home, self.home.data()?.as_fd(), layers)?;
        self.filling = false;
        self.skip_population();
        Ok(())
    }

    /// Leaves the volume empty: there is nothing to fill it with. Its next user may have something.
    pub fn skip_population(&mut self) {
        self.abandon();
        self.needs_population = false;
        self.fill = None;
    }

    /// Uses the volume no more and removes it, as `--rm` does with anonymous ones. Errors: `Setup` if others use it.
    pub fn remove(self) -> Result<()> {
        let (store, name) = (self.store.clone(), self.name.clone());
        drop(self);
        store.remove(&name, false)
    }

    /// What the volume is now.
    pub fn meta(&self) -> Result<Meta> {
        self.home.meta()
    }

    /// Opens what is attached as a place.
    pub(super) fn open_data(&self) -> Result<OwnedFd> {
        self.home.data()
    }

    fn abandon(&mut self) {
        if !std::mem::take(&mut self.filling) {
            return;
        }
        let gone = self
            .home
            .data()
            .and_then(|data| population::recover(&self.home, data.as_fd(), self.home.meta()?));
        if let Err(error) = gone {
            // Found by the next user.
            tracing::warn!("the filling of volume {:?} is left behind: {error}", self.name);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.skip_population();
        let lock = self.home.lock(self.store.dir());
        self.user = None;
        if !self.driven || !matches!(lock, Ok(Some(_))) {
            return;
        }
        // Mounts are those of a namespace: users in others have their own.
        let namespace = users::namespace();
        let others = users::all_locked(&self.home).unwrap_or_default();
        let last = others.iter().all(|user| user.namespace != namespace);
        if last && driver::is_mounted(&self.data) {
            if let Err(errno) = driver::unmount(&self.data) {
                tracing::warn!("unmounting {:?}: {}", self.data, errno.desc());
            }
        }
    }
}
