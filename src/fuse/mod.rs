//! The adapter to fuser: translates a request, calls `overlay`, replies. No rule lives here, and no fuser type leaves.
//!
//! `session` makes the mount, `adapter` takes the requests, `served` is what they work on, `convert` translates values, `reply` answers and logs,
//! `passthrough` keeps the kernel's backing files.

mod adapter;
mod convert;
mod passthrough;
mod reply;
mod served;
pub mod session;
