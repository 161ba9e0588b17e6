//! Serves the merged tree.

pub mod session;
