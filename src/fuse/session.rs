//! One mount from its birth to its end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fuser::{INodeNo, MountOption, SessionACL};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use super::served::{Adapter, Wishes};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::graft::Spec;
use crate::overlay::Overlay;
use crate::sys::{cred, mount, process};

/// What stands for "for ever": longer than any mount lives, and short enough for the kernel's clock.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How far the kernel reads ahead, in KiB. Twice its own number is worth having where a lower file is read from end to end, and
/// more adds little; but each fault of a map that nobody has read yet costs as much as is read around it.
const READ_AHEAD_KB: u32 = 256;

/// A mount that is up.
#[derive(Debug)]
pub struct Mount {
    session: fuser::Session<Adapter>,
    overlay: Arc<Overlay>,
}

impl Mount {
    /// Opens the layers, mounts, answers INIT. Errors: `Setup`, one sentence that names the thing and the remedy.
    pub fn new(config: Config) -> Result<Mount> {
        let open_files =
            getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft.min(1 << 20)) as usize;
        let overlay = Arc::new(Overlay::new(&config, open_files)?);
        let wishes = Wishes {
            timeout: config.timeout.unwrap_or(FOREVER),
            acl: config.acl,
            xattr: config.xattr,
            passthrough: cred::may_administer() && !config.writeback,
            writeback: config.writeback,
        };
        let adapter = Adapter::new(overlay.clone(), wishes);
        let options = options(&config, overlay.is_writable());
        let session = fuser::Session::new(adapter, &config.mountpoint, &options)
            .map_err(|error| refused(&config.mountpoint, &error))?;
        read_far_ahead(&config.mountpoint);
        if config.mount.nosymfollow {
            if let Err(errno) = mount::forbid_symlinks(&config.mountpoint) {
                tracing::warn!("`nosymfollow` has no effect: {}: only root can set it", errno.desc());
            }
        }
        let notifier = session.notifier();
        overlay.on_change(Box::new(move |ino| {
            // The kernel may have forgotten it already; then there is nothing to say.
            if let Err(error) = notifier.inval_inode(INodeNo(ino.0), -1, 0) {
                tracing::debug!("the kernel was not told of new attributes of {}: {error}", ino.0);
            }
        }));
        let notifier = session.notifier();
        overlay.on_first_read(move |ino, bytes| {
            // Without them it asks.
            if let Err(error) = notifier.store(INodeNo(ino.0), 0, bytes) {
                tracing::debug!("the kernel did not take the bytes of {}: {error}", ino.0);
            }
        });
        let notifier = session.notifier();
        overlay.on_name_change(move |parent, name| {
            let parent = INodeNo(parent.0);
            // It may know the one without the other: a listing that it keeps makes no names known.
            for told in [notifier.inval_entry(parent, name), notifier.inval_inode(parent, 0, 0)] {
                // Or neither; then there is nothing to say.
                if let Err(error) = told {
                    tracing::debug!("the kernel was not told of {name:?} in {}: {error}", parent.0);
                }
            }
        });
        overlay.set_up();
        Ok(Mount { session, overlay })
    }

    /// The merged tree.
    pub fn overlay(&self) -> &Arc<Overlay> {
        &self.overlay
    }

    /// What is attached inside the tree.
    pub fn attached(&self) -> Vec<Spec> {
        self.overlay.attached()
    }

    /// Serves requests until unmounted. Never unmounts itself.
    ///
    /// Crate fuser unmounts by the path when its handle of the mount is dropped, although the mount is gone by then: another mount
    /// that was made at the path meanwhile would go. So the handle is taken out of the session, and is never dropped.
    pub fn run(self) -> Result<()> {
        let Mount { session, overlay } = self;
        let failed = |error: std::io::Error| Error::Sys {
            call: "fuse",
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        let handle = Box::leak(Box::new(session.spawn().map_err(failed)?));
        let serving = std::mem::replace(&mut handle.guard, std::thread::spawn(|| Ok(())));
        let served = serving.join().map_err(|_| Error::Bug("a thread that serves requests panicked"))?;
        overlay.end();
        served.map_err(failed)
    }

    /// Chosen fallbacks, one a line.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.overlay.stack().notes();
        if !self.overlay.passthrough() {
            notes.push("no passthrough: bytes go through the daemon".to_owned());
        }
        notes
    }
}

fn options(config: &Config, writable: bool) -> fuser::Config {
    let flags = &config.mount;
    let privileged = nix::unistd::geteuid().is_root();
    let mut mount = vec![MountOption::FSName(config.fsname.clone()), MountOption::DefaultPermissions];
    // Mounted by the daemon itself, only the kernel's own option tells the type; fusermount3 has a word for it.
    mount.push(if privileged {
        MountOption::CUSTOM("subtype=stratafs".to_owned())
    } else {
        MountOption::Subtype("stratafs".to_owned())
    });
    let read_only = flags.read_only || !writable;
    mount.push(if read_only { MountOption::RO } else { MountOption::RW });
    mount.push(if flags.nosuid || !privileged { MountOption::NoSuid } else { MountOption::Suid });
    mount.push(if flags.nodev || !privileged { MountOption::NoDev } else { MountOption::Dev });
    mount.push(if flags.noexec { MountOption::NoExec } else { MountOption::Exec });
    if flags.noatime {
        mount.push(MountOption::NoAtime);
    }
    if flags.sync {
        mount.push(MountOption::Sync);
    }
    if flags.dirsync {
        mount.push(MountOption::DirSync);
    }
    if !flags.context.is_empty() {
        if knows_selinux() {
            mount.extend(flags.context.iter().map(|context| MountOption::CUSTOM(context.clone())));
        } else {
            tracing::info!("no SELinux in the kernel: {} left out", flags.context.join(","));
        }
    }
    let mut options = fuser::Config::default();
    options.mount_options = mount;
    options.acl = if flags.allow_root {
        SessionACL::RootAndOwner
    } else if flags.allow_other.unwrap_or(privileged) {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    options.n_threads = Some(config.threads.unwrap_or_else(process::cpus).max(2));
    options.clone_fd = true;
    options
}

/// Lets the kernel read further ahead. At INIT it takes less than its own number only; that one root may raise. Source: kernel `process_init_reply`; Documentation/ABI/testing/sysfs-class-bdi.
fn read_far_ahead(mountpoint: &Path) {
    let Ok((0, minor)) = mount::device(mountpoint) else { return };
    let knob = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    let set = File::options().read(true).write(true).open(knob).and_then(|knob| {
        let mut text = [0; 16];
        let length = knob.read_at(&mut text, 0)?;
        let now = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).trim().parse::<u32>();
        let more = now.is_ok_and(|now| now < READ_AHEAD_KB);
        if more { knob.write_all_at(READ_AHEAD_KB.to_string().as_bytes(), 0) } else { Ok(()) }
    });
    // Without the right, or where /sys is read-only, it stays as it is.
    if let Err(error) = set {
        tracing::debug!("the kernel reads ahead as far as it did: {error}");
    }
}

/// A kernel without SELinux refuses a mount with a label; callers name one all the same. Source: mount(8).
fn knows_selinux() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("selinuxfs"))
}

/// One line from what the kernel, or fusermount3 in a line of its own, has said.
fn refused(mountpoint: &Path, error: &std::io::Error) -> Error {
    let said = error.to_string();
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let remedy = if said.contains("user_allow_other") {
        "leave `allow_other` and `allow_root` out, or have the administrator set it"
    } else if said.contains("fusermount") {
        "name a mountpoint of your own, and see that fusermount3 is set-user-id root, or mount as root or within \
         `unshare -Urm`"
    } else {
        "the kernel log may say more (`dmesg`)"
    };
    Error::Setup(format!("{mountpoint:?} cannot be mounted: {said}: {remedy}"))
}
