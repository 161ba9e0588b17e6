//! `-o remount,...`: changes the flags of a mount that is up, as mount(8) does with any filesystem.
//!
//! The kernel keeps the flags; the daemon takes no part. With `ro` no change reaches it.

use std::ffi::OsString;
use std::path::Path;

use nix::errno::Errno;

use super::exit::{Failure, Outcome};
use super::mounts;
use super::record::Seen;
use super::umount::find;
use crate::config::draft::Draft;
use crate::config::options;
use crate::sys::mount;

/// Gives the mount at `at` the flags that `lists` name; those that they do not name stay.
///
/// mount(8) passes the options of the mount along, those of the kernel too, so unknown ones are skipped, and layers do
/// not count.
pub fn remount(at: &Path, lists: &[OsString]) -> Outcome {
    let mounts = mounts::all()
        .map_err(|error| Failure::Failed(format!("/proc/self/mountinfo: {error}: mount /proc first")))?;
    let entry = find(&mounts, at)?;
    let mut draft = Draft { mount: entry.flags(), ..Draft::default() };
    for list in lists {
        options::parse_tolerant(&mut draft, list).map_err(Failure::usage)?;
    }
    let refused = |why: &str| Err(Failure::Failed(format!("{at:?} cannot be remounted `rw`: {why}")));
    if entry.is_read_only() && !draft.mount.read_only {
        let Some(Seen { details, .. }) = Seen::of(entry) else {
            return refused("the record of its daemon cannot be read: run this as the user who mounted it");
        };
        if details.began_read_only {
            return refused(
                "it was mounted with `ro`, and its upper layer was left alone: unmount it and mount it again",
            );
        }
        let takes_changes = |graft: &crate::graft::Spec| !graft.read_only;
        if details.upper.is_none() && !details.grafts.iter().any(takes_changes) {
            return refused("it has no upper layer: mount it with `-u` and `-w`, or `--ephemeral`");
        }
    }
    mount::remount(&entry.mountpoint, draft.mount.bits()).map_err(|errno| {
        let remedy = match errno {
            Errno::EBUSY => "files are open for writing: close them first (`fuser -vm` lists the processes)",
            Errno::EPERM => "only root may: run it as root",
            _ => "the kernel log may say more (`dmesg`)",
        };
        Failure::Failed(format!("{at:?} cannot be remounted ({}): {remedy}", errno.desc()))
    })
}
