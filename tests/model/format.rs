//! What the tests of the format have already: mounts of both kinds, and trees as values.

#[path = "../format/mount.rs"]
pub mod mount;
#[path = "../format/snapshot.rs"]
pub mod snapshot;
#[path = "../format/sys.rs"]
pub mod sys;
