//! The wall: every system call that needs `unsafe`.

pub mod process;
