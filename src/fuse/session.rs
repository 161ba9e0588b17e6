//! One mount from its birth to its end. For now it serves an empty tree.

use nix::errno::Errno;

use crate::config::Config;
use crate::error::{Error, Result};

struct Empty;
impl fuser::Filesystem for Empty {}

/// A mount that is up.
pub struct Mount(std::sync::Mutex<fuser::Session<Empty>>);

/// Unmounts from another thread.
pub struct Unmounter(fuser::SessionUnmounter);

impl Mount {
    /// Opens the layers, probes them, mounts, answers INIT.
    pub fn new(config: Config) -> Result<Mount> {
        let mut options = fuser::Config::default();
        options.mount_options = vec![
            fuser::MountOption::FSName(config.fsname),
            fuser::MountOption::CUSTOM("subtype=stratafs".into()),
        ];
        let session = fuser::Session::new(Empty, &config.mountpoint, &options);
        session
            .map(|s| Mount(std::sync::Mutex::new(s)))
            .map_err(|e| Error::Setup(format!("{:?} cannot be mounted: {e}", config.mountpoint)))
    }

    /// A thing that unmounts from another thread.
    pub fn unmounter(&self) -> Unmounter {
        Unmounter(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).unmount_callable())
    }

    /// Serves requests until unmounted.
    pub fn run(self) -> Result<()> {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).run().map_err(|e| Error::Sys {
            call: "fuse",
            errno: Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)),
        })
    }

    /// Chosen fallbacks, one a line.
    pub fn notes(&self) -> Vec<String> {
        vec!["no passthrough: this is an empty tree".to_owned()]
    }
}

impl Unmounter {
    /// Unmounts; the daemon then ends.
    pub fn unmount(&mut self) -> Result<()> {
        self.0.unmount().map_err(|_| Error::Sys { call: "umount2", errno: Errno::EBUSY })
    }
}
