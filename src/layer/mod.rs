//! Layers: directory trees opened once at mount, and what they say about a name.
//!
//! `real_dir` keeps directories reachable with few descriptors, `probe` turns one name in one layer into a
//! `merge::resolve::Probe`, `upper` is the only writer of marks, `workdir` the room where changes are prepared. `direct` is
//! a single tree without marks, which others may change, too: what a bind or a volume shows.
//! This room knows nothing of inode numbers that callers see, of handles or of FUSE.

pub mod direct;
pub mod ephemeral;
pub mod hidden;
pub mod names;
pub mod numbers;
pub mod override_stat;
pub mod probe;
pub mod real_dir;
pub mod recent;
pub mod stack;
pub mod tree;
pub mod upper;
pub mod workdir;

pub use names::{Learning, LowerNames, Parts};
pub use probe::Place;
pub use real_dir::{DirPool, RealDir};
pub use stack::{Kept, Shared, Stack, Terms};
pub use tree::Layer;
pub use upper::Upper;
pub use workdir::Workdir;
