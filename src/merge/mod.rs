//! The rules: what several layers together mean. Values in, values out; no descriptor, no clock, no FUSE.
//!
//! Start with `resolve` (one name over many layers), then `listing` (all names of one directory), then `remove`
//! and `rename` (what a change needs). `mark` has the names of everything that is written into layers.

pub mod acl;
pub mod ino;
pub mod listing;
pub mod mark;
pub mod origin;
pub mod override_stat;
pub mod protection;
pub mod redirect;
pub mod remove;
pub mod rename;
pub mod resolve;

/// A layer's place in its stack: 0 is the upper, 1 the topmost lower, and so on. A stack without an upper starts at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub u16);

impl LayerId {
    /// The writable layer's place.
    pub const UPPER: LayerId = LayerId(0);

    /// Whether this is the writable layer.
    pub fn is_upper(self) -> bool {
        self == LayerId::UPPER
    }
}
