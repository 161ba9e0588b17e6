//! All volumes of one place: made, found, removed, each in one step.
//!
//! A volume is prepared in `.tmp-*` and gets its name by one rename; it loses it by a rename to `.trash-*`, and what a
//! crash leaves of either is swept at the next opening. Locks: a volume's before the store's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag};

use super::home::{DATA, FILL, Home, LOCK, Lock, USERS, lock_file};
use super::meta::Meta;
use super::users::{self, User};
use super::{driver, name, tree};
use crate::config::helpers::Helpers;
use crate::error::{Error, Result};
use crate::sys::stat::stat;
use crate::sys::{At, attr, name as names, open};

const VOLUMES: &str = "volumes";
const TEMPORARY: &str = ".tmp-";
const TRASH: &str = ".trash-";

/// All volumes of one place.
#[derive(Debug, Clone)]
pub struct Store {
    state: PathBuf,
    path: PathBuf,
    volumes: Arc<OwnedFd>,
    helpers: Helpers,
}

/// A volume as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What it is.
    pub meta: Meta,
    /// Its directory `_data`.
    pub mountpoint: PathBuf,
    /// Who uses it.
    pub users: Vec<User>,
}

/// What became of a volume that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// There was none.
    NotThere,
    /// It stays, since these use it.
    InUse(Vec<User>),
}

/// Makes the directory of volumes private. Earlier versions created it with search permission for all users.
///
/// # Errors
///
/// `Setup` for one of another user, who could put anything there.
fn close_to_others(volumes: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let refused = |why: String| Error::Setup(format!("the store of volumes {path:?} {why}"));
    let failed = |errno: Errno| refused(format!("cannot be used ({})", errno.desc()));
    let found = stat(At::fd(volumes)).map_err(failed)?;
    let own = nix::unistd::geteuid().as_raw();
    if found.uid != own {
        let owner = found.uid;
        return Err(refused(format!(
            "belongs to user {owner}, not to you ({own}): name a store of your own with `--state DIR` or $STRATAFS_STATE"
        )));
    }
    if found.mode & 0o077 == 0 { Ok(()) } else { attr::chmod(At::fd(volumes), 0o700).map_err(failed) }
}

impl Store {
    /// Where volumes are unless somebody says otherwise: $STRATAFS_STATE, else /var/lib/stratafs for root, else
    /// $XDG_DATA_HOME/stratafs or ~/.local/share/stratafs. Errors: `Setup` if there is no home.
    pub fn default_dir() -> Result<PathBuf> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(state) = variable("STRATAFS_STATE") {
            return Ok(state);
        }
        if nix::unistd::geteuid().is_root() {
            return Ok("/var/lib/stratafs".into());
        }
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        let data = data.or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        data.map(|data| data.join("stratafs")).ok_or_else(|| {
            Error::Setup(
                "no place for volumes: $HOME is not set: name one with `--state DIR` or $STRATAFS_STATE"
                    .to_owned(),
            )
        })
    }

    /// The store at `state`, made if there is none, with what crashes have left taken away. Errors: `Setup`.
    pub fn open(state: &Path) -> Result<Store> {
        let failed = |error: std::io::Error| {
            Error::Setup(format!(
                "--state {state:?}: no store of volumes can be opened there ({error}): name a directory of your own with \
                 `--state DIR` or $STRATAFS_STATE"
            ))
        };
        DirBuilder::new().recursive(true).mode(0o755).create(state).map_err(failed)?;
        let state = std::fs::canonicalize(state).map_err(failed)?;
        let path = state.join(VOLUMES);
        // What is in a volume is for those who are shown it in a mount: a set-id program or a device that was left there would work
        // for everybody who may come here. Source: CVE-2021-41091.
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let volumes = open::root(&path).map_err(|errno| failed(errno.into()))?;
        close_to_others(volumes.as_fd(), &path)?;
        let store = Store { state, path, volumes: Arc::new(volumes), helpers: Helpers::default() };
        store.sweep();
        Ok(store)
    }

    /// The same store, whose volumes these programs may mount, beyond those of the administrator's file.
    pub fn allow(self, helpers: Helpers) -> Store {
        Store { helpers, ..self }
    }

    pub(super) fn helpers(&self) -> &Helpers {
        &self.helpers
    }

    /// Where it is.
    pub fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.volumes.as_fd()
    }

    /// Makes a volume, an anonymous one without a name; false if there is one of that name already.
    /// Errors: `Setup` for names and options that make no sense, and if the one there has another driver or other
    /// options than are asked for. Departs: Docker takes the old one silently, with its old options.
    pub fn create(
        &self,
        name: Option<&str>,
        driver: Option<&str>,
        options: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(Meta, bool)> {
        let driver = driver.filter(|driver| !driver.is_empty()).unwrap_or(driver::LOCAL);
        let mut labels = labels.clone();
        let name = match name {
            Some(name) => {
                name::check(name)?;
                name.to_owned()
            }
            None => {
                labels.insert(name::ANONYMOUS_LABEL.to_owned(), String::new());
                name::anonymous()?
            }
        };
        driver::check(driver, options)?;
        if let Some(home) = self.home(&name)? {
            return existing(&home, driver, options).map(|meta| (meta, false));
        }
        let meta = Meta::new(&name, driver, options, &labels);
        let draft = self.draft(&meta)?;
        match draft.publish()? {
            true => Ok((meta, true)),
            // Somebody else has made it in this moment.
            false => match self.home(&name)? {
                Some(home) => existing(&home, driver, options).map(|meta| (meta, false)),
                None => Err(Error::Setup(format!("volume {name:?} comes and goes: try again"))),
            },
        }
    }

    /// The directory of a volume; nothing if there is none.
    pub(super) fn home(&self, name: &str) -> Result<Option<Home>> {
        if name::check(name).is_err() {
            return Ok(None);
        }
        Home::open(self.dir(), &self.path, name)
    }

    /// A volume. Nothing if there is none. Errors: `Setup` if it is broken.
    pub fn get(&self, name: &str) -> Result<Option<Volume>> {
        loop {
            let Some(home) = self.home(name)? else { return Ok(None) };
            let look =
                || Ok(Volume { meta: home.meta()?, mountpoint: home.data_path(), users: users::all(&home)? });
            match look() {
                // It is being removed, which leaves half of it for a moment, and is not broken.
                Err(_) if !home.has_its_name(self.dir())? => {}
                looked => return looked.map(Some),
            }
        }
    }

    /// The names of all volumes, broken ones too, in order.
    pub fn names(&self) -> Result<Vec<String>> {
        let all = tree::names(self.dir()).map_err(|errno| {
            Error::Setup(format!(
                "{:?} cannot be listed ({}): use a store of your own",
                self.path,
                errno.desc()
            ))
        })?;
        let mut names: Vec<String> =
            all.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect();
        names.retain(|name| name::check(name).is_ok());
        names.sort();
        Ok(names)
    }

    /// The bytes of the files in a volume, as Docker counts them. Errors: `Setup`.
    pub fn size(&self, name: &str) -> Result<u64> {
        let Some(home) = self.home(name)? else { return Err(missing(name)) };
        tree::size(home.data()?.as_fd()).map_err(|errno| home.failed("it cannot be measured", errno))
    }

    /// Removes a volume and all that is in it. With `force` one that is not there is no error, and one whose meta.json is
    /// broken goes too. Errors: `Setup` if it is in use, or if something is mounted in it.
    pub fn remove(&self, name: &str, force: bool) -> Result<()> {
        match self.remove_unused(name, force)? {
            Removal::Removed => Ok(()),
            Removal::NotThere if force => Ok(()),
            Removal::NotThere => Err(missing(name)),
            Removal::InUse(users) => {
                let places: Vec<&str> = users.iter().map(|user| user.mountpoint.as_str()).collect();
                Err(Error::Setup(format!(
                    "remove {name}: volume is in use - [{}]: unmount it there first",
                    places.join(",")
                )))
            }
        }
    }

    /// As `remove`, but a volume that is not there, or is in use, is no error. `force` removes a broken one.
    pub fn remove_unused(&self, name: &str, force: bool) -> Result<Removal> {
        let Some(home) = self.home(name)? else { return Ok(Removal::NotThere) };
        let Some(_lock) = home.lock(self.dir())? else { return Ok(Removal::NotThere) };
        let users = users::all_locked(&home)?;
        if !users.is_empty() {
            return Ok(Removal::InUse(users));
        }
        let driven = match home.meta() {
            Ok(meta) => meta.needs_mount(),
            Err(_) if force => false,
            Err(error) => return Err(error),
        };
        let data = home.data_path();
        if driven && driver::is_mounted(&data) {
            // Its last user died without unmounting. What is mounted there is no part of the volume.
            driver::unmount(&data).map_err(|errno| home.failed("it cannot be unmounted", errno))?;
        }
        if let Some(at) = driver::mounted(&home.path).first() {
            return Err(Error::Setup(format!(
                "remove {name}: something is mounted at {at:?}, whose content must not be removed: `umount {}` first",
                at.display()
            )));
        }
        self.discard(&home).map(|()| Removal::Removed)
    }

    /// Takes the name away, then the content. Locks: the volume's lock is held, and nobody uses it.
    fn discard(&self, home: &Home) -> Result<()> {
        let failed = |errno| home.failed("it cannot be removed", errno);
        let trash = OsString::from(format!("{TRASH}{}", name::random(8)?));
        {
            let _lock = self.lock()?;
            let named = At::new(self.dir(), OsStr::new(&home.name));
            names::rename_new(named, At::new(self.dir(), &trash)).map_err(failed)?;
            // Before the content goes: else a crash could bring the name back with half of it.
            names::sync_dir(self.dir()).map_err(failed)?;
        }
        if let Err(errno) = tree::remove(At::new(self.dir(), &trash)) {
            // The volume is gone. The rest is tried again whenever the store is opened.
            tracing::warn!("{:?} is left behind: {}", self.path.join(&trash), errno.desc());
        }
        Ok(())
    }

    /// Waits for the lock under which names come and go.
    fn lock(&self) -> Result<Lock> {
        let path = self.state.join(LOCK);
        let failed = |why: String| {
            Error::Setup(format!(
                "{path:?} cannot be locked ({why}): use a store of your own with `--state DIR`"
            ))
        };
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|error| failed(error.to_string()))?;
        if file.metadata().is_ok_and(|facts| facts.mode() & 0o077 != 0) {
            // An earlier version made it so. The lock works all the same where this is not permitted.
            let _ = file.set_permissions(Permissions::from_mode(0o600));
        }
        match lock_file(file, FlockArg::LockExclusive) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(failed("somebody has it".to_owned())),
            Err(errno) => Err(failed(errno.desc().to_owned())),
        }
    }

    /// A new volume without a name yet.
    pub(super) fn draft(&self, meta: &Meta) -> Result<Draft<'_>> {
        let file = format!("{TEMPORARY}{}", name::random(8)?);
        let at = At::new(self.dir(), OsStr::new(&file));
        let failed = |errno: Errno| {
            Error::Setup(format!(
                "volume {:?} cannot be made in {:?} ({}): see to that directory and its filesystem",
                meta.name,
                self.path,
                errno.desc()
            ))
        };
        // A directory that is not locked yet looks like one that a crash has left.
        let store = self.lock()?;
        names::mkdir(at, 0o700).map_err(failed)?;
        let made = || {
            let home = Home::open(self.dir(), &self.path, &file)?.ok_or(Error::Stale)?;
            let lock = home.lock(self.dir())?.ok_or(Error::Stale)?;
            drop(store);
            names::mkdir(home.at(DATA), 0o755).map_err(failed)?;
            // Whatever the umask of the caller.
            attr::chmod(home.at(DATA), 0o755).map_err(failed)?;
            names::mkdir(home.at(USERS), 0o700).map_err(failed)?;
            open::create(home.at(FILL), OFlag::O_RDWR, 0o600).map_err(failed)?;
            home.write_meta(meta)?;
            Ok((home, lock))
        };
        match made() {
            Ok((home, lock)) => {
                Ok(Draft { store: self, home, name: meta.name.clone(), published: false, _lock: lock })
            }
            Err(error) => {
                // What stays is swept at the next opening.
                let _ = tree::remove(at);
                Err(error)
            }
        }
    }

    /// Takes away what crashes have left, as far as that is allowed. Whoever still makes or removes something holds its lock.
    fn sweep(&self) {
        let Ok(all) = tree::names(self.dir()) else { return };
        let ours = |name: &OsString| {
            [TEMPORARY, TRASH].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        };
        for (name, _) in all.into_iter().filter(|(name, _)| ours(name)) {
            let Ok(_store) = self.lock() else { return };
            let at = At::new(self.dir(), &name);
            let Ok(place) = open::dir(self.dir(), &name) else { continue };
            let held = match open::file(At::new(place.as_fd(), OsStr::new(LOCK)), OFlag::O_RDWR) {
                Ok(file) => lock_file(file.into(), FlockArg::LockExclusiveNonblock),
                // Half made or half removed.
                Err(Errno::ENOENT) => {
                    self.swept(at);
                    continue;
                }
                Err(errno) => Err(errno),
            };
            if let Ok(Some(_lock)) = held {
                self.swept(at);
            }
        }
    }

    fn swept(&self, at: At<'_>) {
        if let Err(errno) = tree::remove(at) {
            tracing::warn!("{:?} is left behind: {}", self.path.join(at.name), errno.desc());
        }
    }
}

/// A volume that is being made. Dropped before it has its name, it is gone.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    store: &'a Store,
    pub home: Home,
    name: String,
    published: bool,
    _lock: Lock,
}

impl Draft<'_> {
    /// Gives it its name, in one step; false if somebody has that name.
    pub fn publish(mut self) -> Result<bool> {
        let failed = |errno| self.home.failed("it cannot get its name", errno);
        names::sync_dir(self.home.dir()).map_err(failed)?;
        let _store = self.store.lock()?;
        let from = At::new(self.store.dir(), OsStr::new(&self.home.name));
        match names::rename_new(from, At::new(self.store.dir(), OsStr::new(&self.name))) {
            Ok(()) => {}
            Err(Errno::EEXIST | Errno::ENOTEMPTY) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        }
        self.published = true;
        names::sync_dir(self.store.dir()).map_err(failed)?;
        Ok(true)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            self.store.swept(At::new(self.store.dir(), OsStr::new(&self.home.name)));
        }
    }
}

/// The volume that has the name, if it is what is asked for. Nothing asked for is anything.
fn existing(home: &Home, driver: &str, options: &BTreeMap<String, String>) -> Result<Meta> {
    let meta = home.meta()?;
    let mut differences = Vec::new();
    if meta.driver != driver {
        differences.push(format!("driver {:?}, not {driver:?}", meta.driver));
    }
    if !options.is_empty() {
        let keys: std::collections::BTreeSet<&String> = meta.options.keys().chain(options.keys()).collect();
        for key in keys {
            match (meta.options.get(key), options.get(key)) {
                (Some(has), Some(asked)) if has != asked => {
                    differences.push(format!("{key}={has:?}, not {asked:?}"))
                }
                (Some(has), None) => differences.push(format!("{key}={has:?}, which is not asked for")),
                (None, Some(asked)) => differences.push(format!("no {key}, not {asked:?}")),
                _ => {}
            }
        }
    }
    if differences.is_empty() {
        return Ok(meta);
    }
    Err(Error::Setup(format!(
        "volume {:?} exists already, with {}: take another name, leave the options out, or remove it with \
         `stratafs volume rm {}`",
        home.name,
        differences.join("; "),
        home.name
    )))
}

/// There is no such volume.
pub(super) fn missing(name: &str) -> Error {
    Error::Setup(format!("no such volume: {name}: `stratafs volume ls` lists those there are"))
}
