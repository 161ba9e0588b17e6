//! Black-box tests of real mounts, one file per verb. They know the command line and the layers, nothing else.
//! Start reading in `common`, then in `coherence`.

#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod ahead;
mod attr;
mod callers;
mod coherence;
mod compose;
mod contract;
mod copy_up;
mod create;
mod daemon;
mod data;
mod dot_wh;
mod environment;
mod fallbacks;
mod flags;
mod forget;
mod graft_binds;
mod graft_bounds;
mod graft_content;
mod graft_control;
mod graft_hang;
mod graft_host;
mod graft_hung;
mod graft_live;
mod graft_load;
mod graft_numbers;
mod graft_own;
mod graft_ro;
mod graft_sshfs;
mod graft_way;
mod hostile;
mod hostile_trees;
mod identity;
mod layers;
mod limits;
mod link;
mod locks;
mod lookup;
mod lower_io;
mod mmap;
mod names;
mod odd_sources;
mod open;
mod options;
mod orders;
mod orphan;
mod overlap;
mod privs;
mod quota;
mod readdir;
mod readdir_changes;
mod remove;
mod rename;
mod running;
mod set_id;
mod shadow;
mod story;
mod stress;
mod sync;
mod writeback;
mod xattr;
