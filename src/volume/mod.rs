//! Volumes on disk: directories with a name and a life of their own, which mounts attach and fill.
//!
//! A [`Store`] is a directory, `STATE/volumes`, with one directory per volume: `_data`, what is attached; `meta.json`, what it
//! is; `users/`, one locked record per user; `lock`, held while the volume changes; `fill.lock`, held while it is filled.
//! What is visible changes by one rename. Nothing here knows of layers or of FUSE: the caller fills a volume from what
//! it shows. Start reading at [`Store::attach`]; `docs/on-disk-format.md` has the layout.

mod archive;
mod attach;
mod driver;
mod helper;
mod home;
mod import;
mod meta;
mod name;
mod plan;
mod population;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod users;

pub use attach::Attached;
pub use meta::{Meta, Populated};
pub use name::{ANONYMOUS_LABEL, check as check_name};
pub use store::{Removal, Store, Volume};
pub use users::User;
