//! Inodes: what the kernel knows by number, and where each is on disk.
//!
//! `node` is one inode, `state` what changes about it, `store` finds them by number and counts the kernel's lookups, `handle` are the open files and directories,
//! `copied_up` finds those whose number on disk has changed, `points` the names where other trees are attached.
//! This room knows where objects are, not what operations mean.

pub mod copied_up;
pub mod handle;
pub mod listing;
pub mod node;
pub mod points;
pub mod state;
pub mod store;

pub use copied_up::CopiedUp;
pub use handle::{Fh, Handles, OpenDir, OpenFile};
pub use node::{Attributes, DirNode, Inode, Located, Node};
pub use points::{Point, Points, Root};
pub use state::{LowerFile, Name, State};
pub use store::{InodeRef, Store};

/// An inode's number in this mount: the FUSE node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The mount's root.
    pub const ROOT: Ino = Ino(crate::merge::ino::ROOT);
}
