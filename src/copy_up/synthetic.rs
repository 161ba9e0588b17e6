//! Directories that no layer has, on the way to a graft: made when somebody makes a name in one, as a lower directory
//! would be copied up.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::CopyUp;
use crate::error::{Context, Error, Result};
use crate::inode::Inode;
use crate::layer::probe;
use crate::layer::real_dir::Fact;
use crate::sys::stat::stat;
use crate::sys::{At, attr, name};

/// The permissions of a directory that nobody gave any.
pub const MODE: u32 = 0o755;

impl CopyUp {
    /// Locks: the directory's gate is held, its parent has an upper part.
    pub(super) fn make_synthetic(&self, dir: &Arc<Inode>) -> Result<()> {
        let upper_part = &dir.node.as_dir().ok_or(Error::NotDir)?.upper;
        let place = dir.dir_name().ok_or(Error::Stale)?;
        let parent = place.parent.upper_dir().ok_or(Error::Bug("a parent without upper part"))?;
        let parent_fd = parent.fd().call("openat2")?;
        let at = At::new(parent_fd.as_fd(), &place.name);
        let made = if dir.stack.is_direct() {
            match name::mkdir(at, MODE) {
                // Somebody else has made it meanwhile: it is the same to whoever makes a name in it.
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(errno) => return Err(Error::Sys { call: "mkdirat", errno }),
            }
            parent.child_that_is(&place.name, stat(at).call("statx")?.ino)
        } else {
            let upper = dir.stack.writable()?;
            let hides = |found| probe::is_whiteout(dir.stack.namespace, at, &found).is_ok_and(|hides| hides);
            let whiteout = stat(at).is_ok_and(hides);
            let temp = upper.temp();
            name::mkdir(temp.at(), 0o700).call("mkdirat")?;
            attr::chmod(temp.at(), MODE).call("fchmodat2")?;
            // Whatever a lower layer has here, now or later, was not seen when the name was made.
            upper.set_opaque(temp.at())?;
            // The parent shows the directory already, so its times stay.
            self.keep_times(&place.parent, parent, || {
                upper.place(temp, parent_fd.as_fd(), &place.name, whiteout)?;
                upper.remove_whiteout_file(parent_fd.as_fd(), &place.name)
            })?;
            dir.state.write().opaque = true;
            parent.child(&place.name)
        };
        made.note(Fact::NoWhiteoutFiles, true);
        if upper_part.set(made).is_err() {
            return Err(Error::Bug("a directory was made twice"));
        }
        self.changed(dir);
        Ok(())
    }
}
