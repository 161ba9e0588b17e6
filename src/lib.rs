//! stratafs: read-only lower layers and one writable upper, merged into one FUSE mount.
//!
//! The rooms, from the top down (imports go down, never up; `tests/rooms.rs` watches):
//! `cli` → `config`, `control` → `fuse` → `overlay` → `copy_up` → `inode` → `layer` → `volume` → `graft` → `sys` → `merge` → `error`, `sync`.
//! Start reading in `merge` for the rules, in `overlay` for the operations.

#![warn(missing_docs)]
// A request that panics leaves its caller waiting for the end of the daemon. Rooms that answer requests index nothing; where
// they must, the reason stands beside it.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unreachable))]

pub mod cli;
pub mod config;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod control;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod copy_up;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod error;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod fuse;
pub mod graft;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod inode;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod layer;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod merge;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod overlay;
pub mod sync;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod sys;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]
pub mod volume;
