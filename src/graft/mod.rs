//! What can be attached at a path of the merged tree, as plain data, and the grammars it is written in: Docker's
//! `-v`, `--mount` and `--tmpfs`, and the volumes of a compose file. Values in, values out: nothing here opens a source.
//!
//! A [`Spec`] says what was asked for; `volume` finds the directory of a volume; `overlay::graft` attaches. A grammar is
//! a file; what they share is in `words` (the words of a mode), `long` (the rules of the long form) and `target`.
//! Specs are sent to daemons and kept in records as JSON. Start reading in `volume_flag`.

pub mod compose;
mod compose_store;
mod compose_volume;
pub mod dotenv;
mod interpolate;
pub mod json;
mod long;
mod mount_flag;
mod name;
mod record;
mod set;
mod shown;
mod size;
mod target;
mod tmpfs_flag;
mod volume_flag;
mod volumes_from;
mod words;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::IdMaps;

pub use compose::{compose, read_text};
pub use mount_flag::{mount, mount_keys};
pub use name::is_volume_name;
pub use set::{check, collect, published};
pub use shown::shown;
pub use target::target;
pub use tmpfs_flag::tmpfs;
pub use volume_flag::volume;
pub use volumes_from::{VolumesFrom, volumes_from};
pub use words::mode_words;

/// One graft: a source attached at a path of the merged tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Where: absolute, without `.`, `..`, empty or trailing components, never `/`.
    #[serde(with = "json::path")]
    pub target: PathBuf,
    /// What.
    pub source: Source,
    /// No change is taken.
    pub read_only: bool,
    /// Changes go to a layer of their own; the source stays as it is.
    pub cow: Option<Cow>,
    /// How long the kernel may believe what it was told.
    pub cache: Cache,
    /// What becomes of the names that the target already has.
    pub shadow: Shadow,
    /// Which file a single-file graft shows when the source's name is given to another.
    pub pin: Pin,
    /// Between ids in the source and ids that callers see.
    pub ids: IdMaps,
    /// Mounts inside the source are part of it.
    pub recursive: bool,
    /// As it was written, for messages and listings.
    pub text: String,
}

/// What is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    /// A directory or file of the host.
    Bind {
        /// Absolute.
        #[serde(with = "json::path")]
        path: PathBuf,
        /// A missing source is made, as this. Nothing: it is an error.
        create: Option<Create>,
    },
    /// A volume of the store.
    Volume(Volume),
    /// A filesystem in memory, empty at each mount.
    Tmpfs {
        /// Bytes; nothing: the kernel's default, half of the memory.
        size: Option<u64>,
        /// Permission bits of its root; nothing: those of the directory that it covers, else 1777.
        mode: Option<u32>,
    },
}

/// A volume, and how it is made if it does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name; nothing: an anonymous one, new for this mount.
    pub name: Option<String>,
    /// It must exist already.
    pub external: bool,
    /// Who makes it; nothing: `local`.
    pub driver: Option<String>,
    /// The driver's options: type, device, o.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// An empty volume is not filled from the layers.
    pub nocopy: bool,
    /// The directory or file in it that is attached, relative, without `..`.
    #[serde(with = "json::maybe_path")]
    pub subpath: Option<PathBuf>,
}

/// What a missing bind source is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Create {
    /// A directory, mode 0755.
    Dir,
    /// An empty file, mode 0644.
    File,
}

/// Where the changes of a copy-on-write graft go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cow {
    /// Nowhere that lasts: they are gone with the mount.
    #[serde(rename = "throw-away")]
    ThrowAway,
    /// Into an upper layer of its own.
    Kept {
        /// The upper layer.
        #[serde(with = "json::path")]
        upper: PathBuf,
        /// Its workdir.
        #[serde(with = "json::path")]
        work: PathBuf,
    },
}

/// How long the kernel may believe what it was told about a source that others change too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Until the next system call.
    #[default]
    Coherent,
    /// So long.
    Ttl(Duration),
    /// For ever: nobody else changes the source.
    Always,
}

/// What becomes of the names that the target already has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shadow {
    /// They are hidden.
    #[default]
    Replace,
    /// They show where the source has no such name.
    Under,
    /// They hide the source's.
    Over,
}

/// Which file a single-file graft shows when the source's name is given to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// The one that has the name.
    #[default]
    Name,
    /// The one that was there at mount.
    Inode,
}
