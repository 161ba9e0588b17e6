//! What a mount is made of: every choice, checked once and trusted after. Who parses is `cli`; who opens is `layer`.
//!
//! `options` is the `-o` grammar, `draft` gathers what was said and settles what follows from it, `check` looks at
//! the directories a finished `Config` names. Start reading in `options`: its table is the list of what can be said.

pub mod check;
pub mod draft;
pub mod helpers;
pub mod ids;
pub mod options;
pub mod split;

use std::path::PathBuf;
use std::time::Duration;

use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};

use self::helpers::Helpers;
use crate::graft::Spec;

/// Everything needed to make one mount.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Data-only lower layers, topmost first: reached only by the absolute redirect of a metacopy file.
    pub data_lowers: Vec<PathBuf>,
    /// The writable layer; without one the mount is read-only.
    pub upper: Option<Upper>,
    /// Where the merged tree appears.
    pub mountpoint: PathBuf,
    /// What `/proc/mounts` shows as the source.
    pub fsname: String,
    /// How marks are read and written.
    pub marks: Marks,
    /// When copied-up data reaches the disk.
    pub fsync: FsyncMode,
    /// How inode numbers of several devices are made one space.
    pub xino: Xino,
    /// Between the ids on disk and the ids callers see.
    pub ids: IdMaps,
    /// Where owner, mode and type are kept when the daemon may not set them on disk.
    pub xattr_permissions: XattrPermissions,
    /// The kernel obeys POSIX ACLs. Otherwise they are attributes like others: shown, kept, without effect.
    pub acl: bool,
    /// Extended attributes are shown; otherwise every call answers ENOSYS once and is not asked again.
    pub xattr: bool,
    /// Directories show a link count of one, always.
    pub static_nlink: bool,
    /// How long the kernel may keep names and attributes; nothing means for ever.
    pub timeout: Option<Duration>,
    /// The kernel's writeback cache, for mounts without passthrough.
    pub writeback: bool,
    /// How the bytes of lower files flow where there is an upper layer.
    pub lower_io: LowerIo,
    /// The upper layer was made for this mount, and looks like nothing yet.
    pub upper_is_new: bool,
    /// Worker threads; nothing means one per CPU, at least two.
    pub threads: Option<usize>,
    /// The mountpoint may hold names; they are hidden while the mount lasts.
    pub nonempty: bool,
    /// Flags of the mount itself.
    pub mount: MountFlags,
    /// The mount point is inside the upper layer, which must then not lead into the mount.
    pub mountpoint_in_upper: bool,
    /// What is attached inside the merged tree. No two have the same target.
    pub grafts: Vec<Spec>,
    /// Where volumes are; nothing: the usual place of whoever mounts.
    pub state: Option<PathBuf>,
    /// Anonymous volumes go with the mount.
    pub remove_anonymous: bool,
    /// The programs that may mount volumes.
    pub helpers: Helpers,
}

/// The writable layer and the room beside it in which changes are prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// The writable layer.
    pub dir: PathBuf,
    /// On the same filesystem, outside the writable layer.
    pub work: PathBuf,
}

/// How marks in layers are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Renames of directories that have lower parts.
    pub redirect_dir: RedirectDir,
    /// Hard links survive copy-up.
    pub index: bool,
    /// Changes of metadata copy no data.
    pub metacopy: bool,
    /// Marks live in `user.overlay.*`; `None` means: where `trusted.overlay.*` cannot be written.
    pub userxattr: Option<bool>,
    /// Removed names are marked by `.wh.` files even where a whiteout device can be made.
    pub whiteout_files: bool,
}

/// Renames of directories that have lower parts. Source: overlayfs.rst, "redirect_dir".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectDir {
    /// Redirects are written and followed.
    On,
    /// Redirects are followed; none is written, so such a rename is EXDEV.
    Follow,
    /// Redirects are not written, and one that is found is an error.
    NoFollow,
}

/// When copied-up data reaches the disk. Source: overlayfs.rst, "Durability and copy up".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsyncMode {
    /// A copied-up file is on disk before it appears.
    Auto,
    /// Also directories and changes of metadata only.
    Strict,
    /// Nothing is ever synced, and a mark in the workdir refuses the next mount until it is removed.
    Volatile,
    /// Nothing is ever synced, and no mark says so. Source: fuse-overlayfs, `fsync=0`.
    Off,
}

impl FsyncMode {
    /// Whether data ever reaches the disk because of a request.
    pub fn syncs(self) -> bool {
        matches!(self, FsyncMode::Auto | FsyncMode::Strict)
    }
}

/// How the bytes of lower files flow where there is an upper layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LowerIo {
    /// Through the daemon and the page cache of the mount: a reader sees what is written after a copy-up.
    Cached,
    /// From the file itself: a descriptor that was opened before a copy-up goes on showing the lower file.
    Passthrough,
}

/// How inode numbers of several devices are made one space. Source: overlayfs.rst, "Inode properties".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xino {
    /// The high bits tell the devices apart where there are several.
    Auto,
    /// Always, also for a single device.
    On,
    /// Real numbers as they are; collisions are renumbered.
    Off,
}

/// Where owner, mode and type are kept when the daemon may not set them on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrPermissions {
    /// On the object itself.
    Off,
    /// In `security.fuseoverlayfs.override_stat`, for root.
    Security,
    /// In `user.containers.override_stat`, for ordinary users.
    User,
}

/// One range of ids: `size` ids from `disk` in a layer are shown to callers as those from `shown`.
///
/// Its text form, for messages and listings, is `disk 0-65535 shown as 200000-265535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id on disk.
    #[serde(alias = "outside")]
    pub disk: u32,
    /// First id that callers see.
    #[serde(alias = "inside")]
    pub shown: u32,
    /// Number of ids; `ids::parse` refuses zero.
    pub size: u32,
}

/// What happens when a caller creates, or gives away, with an id that no range covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unmapped {
    /// EINVAL. Grafts, as mounts with an id map of the kernel refuse it.
    #[default]
    Refused,
    /// The overflow id, 65534, is written to disk. `uidmapping=` and `gidmapping=`. Source: fuse-overlayfs 1.10 and 2.0.
    Overflow,
}

/// The maps between ids on disk and ids that callers see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// User ids; empty means unchanged.
    pub uids: Vec<IdRange>,
    /// Group ids; empty means unchanged.
    pub gids: Vec<IdRange>,
    /// What an id that a caller gives and no range covers becomes.
    #[serde(skip)]
    pub unmapped: Unmapped,
    /// Every file shows this owner.
    pub squash_uid: Option<u32>,
    /// Every file shows this group.
    pub squash_gid: Option<u32>,
}

impl IdMaps {
    /// What they do, a line for each range or squashed id: `uid disk 0-65535 shown as 200000-265535`.
    pub fn lines(&self) -> Vec<String> {
        let sides = [("uid", &self.uids, self.squash_uid), ("gid", &self.gids, self.squash_gid)];
        sides
            .into_iter()
            .flat_map(|(kind, ranges, squash)| {
                let ranges = ranges.iter().map(move |range| format!("{kind} {range}"));
                ranges.chain(squash.map(|id| format!("{kind} always shown as {id}")))
            })
            .collect()
    }
}

/// Flags of the mount itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountFlags {
    /// `ro`: no change is taken even though there is an upper layer.
    pub read_only: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// `nodev`
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
    /// `nosymfollow`: the kernel follows no symlink of the mount. Only root's own mount(2) can set it.
    pub nosymfollow: bool,
    /// `noatime`
    pub noatime: bool,
    /// `sync`
    pub sync: bool,
    /// `dirsync`
    pub dirsync: bool,
    /// `allow_other`; nothing means: where it is allowed, that is as root or with `user_allow_other`.
    pub allow_other: Option<bool>,
    /// `allow_root`: root may look in as well as the owner, nobody else.
    pub allow_root: bool,
    /// `context="..."` and its kin, passed to the kernel as they are.
    pub context: Vec<String>,
}

impl MountFlags {
    /// As mount(2) takes them. Without any word about access times a remount keeps them as they are, so `relatime` is said.
    pub fn bits(&self) -> MsFlags {
        let all = [
            (self.read_only, MsFlags::MS_RDONLY),
            (self.nosuid, MsFlags::MS_NOSUID),
            (self.nodev, MsFlags::MS_NODEV),
            (self.noexec, MsFlags::MS_NOEXEC),
            (self.noatime, MsFlags::MS_NOATIME),
            (!self.noatime, MsFlags::MS_RELATIME),
            (self.sync, MsFlags::MS_SYNCHRONOUS),
            (self.dirsync, MsFlags::MS_DIRSYNC),
            (self.nosymfollow, MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW)),
        ];
        all.into_iter().filter(|(set, _)| *set).fold(MsFlags::empty(), |all, (_, flag)| all | flag)
    }
}

impl Default for Marks {
    fn default() -> Self {
        Marks {
            redirect_dir: RedirectDir::On,
            index: true,
            metacopy: false,
            userxattr: None,
            whiteout_files: false,
        }
    }
}

impl Config {
    /// A mount of `lowers` at `mountpoint` with everything else as it is by default.
    pub fn new(lowers: Vec<PathBuf>, upper: Option<Upper>, mountpoint: PathBuf) -> Config {
        Config {
            lowers,
            data_lowers: Vec::new(),
            upper,
            mountpoint,
            fsname: "stratafs".to_owned(),
            marks: Marks::default(),
            fsync: FsyncMode::Auto,
            xino: Xino::Auto,
            ids: IdMaps { unmapped: Unmapped::Overflow, ..IdMaps::default() },
            xattr_permissions: XattrPermissions::Off,
            acl: true,
            xattr: true,
            static_nlink: false,
            timeout: None,
            writeback: false,
            lower_io: LowerIo::Cached,
            upper_is_new: false,
            threads: None,
            nonempty: false,
            mount: MountFlags::default(),
            mountpoint_in_upper: false,
            grafts: Vec::new(),
            state: None,
            remove_anonymous: false,
            helpers: Helpers::default(),
        }
    }
}
