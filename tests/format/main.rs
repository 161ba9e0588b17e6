//! Kernel overlayfs over the same layers shows the same tree, both ways. Black box: only the command line is used,
//! `stratafs mount` and `stratafs umount`; `STRATAFS_BIN` names another program with that command line.
//!
//! Start reading at `combinations` for what marks mean, at `interchange` for what is written.
//! Needs root, `/dev/fuse` and the kernel's overlayfs; says so and passes where one is lacking.

#![allow(clippy::unwrap_used, clippy::panic)]

mod combinations;
mod deep;
mod foreign;
mod grafts;
mod interchange;
mod layer;
mod marks;
mod mount;
mod numbers;
mod odd_marks;
mod ops;
mod seen;
mod snapshot;
mod special;
mod sys;
