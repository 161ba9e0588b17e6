//! stratafs: read-only lower layers and one writable upper, merged into one FUSE mount.
//!
//! The rooms, from the top down (imports go down, never up; `tests/rooms.rs` watches):
//! `cli` → `config`, `control` → `fuse` → `overlay` → `copy_up` → `inode` → `layer` → `volume` → `graft` → `sys` → `merge` → `error`, `sync`.
//! Start reading in `merge` for the rules, in `overlay` for the operations.

#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod control;
pub mod copy_up;
pub mod error;
pub mod fuse;
pub mod graft;
pub mod inode;
pub mod layer;
pub mod merge;
pub mod overlay;
pub mod sync;
pub mod sys;
pub mod volume;
