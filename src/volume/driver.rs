//! The one driver, `local`: options are checked when a volume is made, and mounted while it is used.
//!
//! The daemon makes the system calls itself, as dockerd does: mount(8) would choose a program by the type and the device, and
//! run it with all rights of the daemon. Filesystems are mounted by mount(2), so that they get the very arguments that
//! dockerd passes; binds by open_tree(2) and move_mount(2), so that a read-only bind is never writable.
//! Source: moby `volume/local/local_unix.go`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::helper;
use super::home::Home;
use super::meta::Meta;
use super::plan::{self, Plan, Way};
use crate::config::helpers::{DIR, Helpers};
use crate::error::{Error, Result};
use crate::sys::mount as sys;

pub(super) const LOCAL: &str = "local";

/// Passes a driver and options that make sense together. Errors: `Setup`.
pub(super) fn check(driver: &str, options: &BTreeMap<String, String>) -> Result<()> {
    let refused = |sentence: String| Err(Error::Setup(sentence));
    if driver != LOCAL {
        return refused(format!(
            "volume driver {driver:?}: only `{LOCAL}` exists: leave the driver out, or write `{LOCAL}`"
        ));
    }
    for (key, value) in options {
        match key.as_str() {
            "type" | "device" | "o" => {}
            "size" => {
                return refused(format!(
                    "volume option `size={value}`: a limit needs project quota, which stratafs does not set: for one in memory \
                     write `type=tmpfs`, `device=tmpfs`, `o=size={value}`"
                ));
            }
            _ => {
                return refused(format!(
                    "volume option `{key}={value}`: `{LOCAL}` has type, device and o: write one of these"
                ));
            }
        }
        if value.contains('\0') {
            return refused(format!("volume option `{key}`: its value has a NUL: leave it out"));
        }
    }
    for (key, needed) in [("type", "device"), ("device", "type"), ("o", "device"), ("o", "type")] {
        if options.contains_key(key) && !options.contains_key(needed) {
            return refused(format!(
                "volume option `{key}={}` needs `{needed}` too: add `-o {needed}=...`",
                options[key]
            ));
        }
    }
    let device = options.get("device").map_or("", String::as_str);
    let port = plan::host_of_share(device).and_then(|(host, _)| host.rsplit_once(':')).map(|(_, port)| port);
    if options.get("type").is_some_and(|kind| kind == "cifs")
        && port.is_some_and(|port| port.parse::<u16>().is_ok())
    {
        return refused(format!(
            "volume option `device={device}`: a share has no port: write `port=` within `o`"
        ));
    }
    if plan::binds(options) && !device.starts_with('/') {
        return refused(format!(
            "volume option `device={device}`: a bind needs an absolute path: write it from `/`"
        ));
    }
    Ok(())
}

/// Mounts what the options say over the volume's data directory. No program runs but a helper of `helpers`, which is the
/// administrator's. Errors: `Setup` naming the option, its value and the remedy; a volume that was `created` for this is gone
/// by the time they are read.
pub(super) fn mount(meta: &Meta, home: &Home, created: bool, helpers: &Helpers) -> Result<()> {
    let failed = |why: String| {
        let name = &meta.name;
        let options = match created {
            true => String::new(),
            false => format!("; `stratafs volume inspect {name}` shows its options"),
        };
        Error::Setup(format!("volume {name:?} cannot be mounted: {why}{options}"))
    };
    let kind = meta.options.get("type").map_or("", String::as_str);
    let helper = match helpers.find(kind) {
        _ if plan::binds(&meta.options) => None,
        // Mounted without it, as if it were not there.
        Err(error) if plan::is_kernels(kind) => {
            tracing::warn!("no helper mounts volume {:?}: {error}", meta.name);
            None
        }
        found => found.map_err(|error| failed(format!("`type={kind}`: {error}")))?,
    };
    if let Some(helper) = helper {
        return helper::mount(&helper, meta, &home.data_path()).map_err(failed);
    }
    match plan::plan(&meta.options, resolve).map_err(failed)? {
        Way::Kernel(plan) => by_kernel(&plan, home, failed),
        Way::Program => Err(failed(format!(
            "`type={kind}` is no filesystem that stratafs mounts, and no program is allowed for it: mount it on the host and bind \
             that directory (`type=none`, `o=bind`, `device=/DIR`), or see `--allow-helper` and {DIR}/helpers"
        ))),
    }
}

fn by_kernel(plan: &Plan, home: &Home, failed: impl Fn(String) -> Error) -> Result<()> {
    let data = home.data()?;
    let mounted = match plan.is_bind() {
        true => sys::bind(Path::new(&plan.source), data.as_fd(), plan.flags),
        false => sys::filesystem(data.as_fd(), &plan.source, &plan.fstype, plan.flags, &plan.data),
    };
    mounted.map_err(|errno| failed(explained(plan, errno)))?;
    let Some(propagation) = plan.propagation else { return Ok(()) };
    // Opened again, it is the root of what was mounted.
    let propagated = home.data().map(|root| sys::propagate(root.as_fd(), propagation));
    match propagated {
        Ok(Ok(())) => Ok(()),
        refused => {
            if let Err(errno) = unmount(&home.data_path()) {
                tracing::warn!("unmounting {:?}: {}", home.data_path(), errno.desc());
            }
            let errno = refused?.err().unwrap_or(Errno::EINVAL);
            Err(failed(format!(
                "the propagation in `o` cannot be set ({}): write one word of private, shared, slave, unbindable",
                errno.desc()
            )))
        }
    }
}

/// What the kernel's refusal means, and the remedy.
fn explained(plan: &Plan, errno: Errno) -> String {
    let Plan { source, fstype, .. } = plan;
    let device = format!("`device={source}`");
    match errno {
        Errno::EPERM => "mounting needs root: run stratafs as root".to_owned(),
        Errno::ENOENT | Errno::ENXIO => format!("{device} does not exist: correct the path"),
        Errno::ENOTDIR if plan.is_bind() => {
            format!("{device} is not a directory: name the directory that holds it")
        }
        Errno::ENODEV => format!(
            "`type={fstype}`: the running kernel has no such filesystem: load its module with `modprobe {fstype}`"
        ),
        Errno::ENOTBLK => format!(
            "{device} is not a block device: set one up with `losetup --find --show FILE`, and name the device that it prints"
        ),
        Errno::EBUSY => format!("{device} is in use: unmount it elsewhere"),
        Errno::EACCES | Errno::EROFS => format!("{device} is read-only: add `ro` to `o`"),
        Errno::ELOOP if plan.is_bind() => {
            format!("{device} leads to what a process has open: name the directory itself")
        }
        Errno::EINVAL if plan.is_bind() => {
            format!(
                "{device} is unbindable, or has mounts inside that this user namespace may not leave out: write \
                 `o=rbind`, or name another directory"
            )
        }
        Errno::EINVAL => format!(
            "the kernel refuses `o={}` for `type={fstype}`, or the content of {device}: correct them, `dmesg` says more",
            without_secrets(&plan.data)
        ),
        Errno::ENOSYS => format!("{device}: this kernel binds nothing so: it must be Linux 5.12 or later"),
        errno => format!("{device} as `type={fstype}`: {}: correct type, device and o", errno.desc()),
    }
}

/// The words of `o` without passwords.
fn without_secrets(data: &str) -> String {
    let shown = |word: &str| match word.split_once('=') {
        Some((key, _)) if key.contains("pass") || key.contains("secret") => format!("{key}=********"),
        _ => word.to_owned(),
    };
    data.split(',').map(shown).collect::<Vec<_>>().join(",")
}

/// An address of the host, one of IPv4 before others. Source: Go `net.ResolveIPAddr`.
fn resolve(host: &str) -> std::result::Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let found: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .map_err(|error| {
            format!("the name cannot be resolved ({error}); write an address or correct the name")
        })?
        .map(|found| found.ip())
        .collect();
    found
        .iter()
        .find(|ip| ip.is_ipv4())
        .or(found.first())
        .copied()
        .ok_or_else(|| "it has no address".to_owned())
}

/// Unmounts what is at `at`; what is still in use there is detached.
pub(super) fn unmount(at: &Path) -> nix::Result<()> {
    match umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EBUSY) => umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW),
        result => result,
    }
}

/// Whether something is mounted at `path`, as this thread sees it.
pub(super) fn is_mounted(path: &Path) -> bool {
    mounted(path).iter().any(|at| at == path)
}

/// Where something is mounted at or below `path`. Asks no filesystem. Source: proc(5), "/proc/pid/mountinfo".
pub(super) fn mounted(path: &Path) -> Vec<PathBuf> {
    let table = std::fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    let places =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    places
        .map(|place| PathBuf::from(OsString::from_vec(unescape(place))))
        .filter(|at| at.starts_with(path))
        .collect()
}

/// Undoes the three octal digits after a backslash that stand for blanks.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(digits) => {
                out.push(
                    digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
                );
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        text.split(';')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn options_need_each_other_as_in_docker() {
        for good in [
            "",
            "type=tmpfs;device=tmpfs",
            "type=tmpfs;device=tmpfs;o=size=1m",
            "type=nfs;device=:/x;o=addr=h,rw",
            "type=none;device=/x;o=bind",
            "type=;device=",
        ] {
            assert_eq!(check(LOCAL, &options(good)), Ok(()), "{good}");
        }
        for (bad, part) in [
            ("type=nfs", "`device`"),
            ("device=/x", "`type`"),
            ("o=rw", "`device`"),
            ("type=nfs;o=rw", "`device`"),
            ("device=/x;o=bind", "`type`"),
            ("size=1m", "quota"),
            ("type=nfs;device=:/x;sise=1", "`sise=1`"),
            ("type=none;device=rel;o=bind", "absolute"),
            ("type=cifs;device=//h:445/x", "`port=`"),
        ] {
            let sentence = check(LOCAL, &options(bad)).expect_err(bad).to_string();
            assert!(sentence.contains(part), "{sentence}");
        }
        assert!(check("nfs", &options("")).expect_err("driver").to_string().contains("only `local`"));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_secrets("username=u,password=p,pass=q,ro"),
            "username=u,password=********,pass=********,ro"
        );
    }

    #[test]
    fn hosts_are_resolved() {
        assert_eq!(resolve("10.0.0.1").map(|ip| ip.to_string()), Ok("10.0.0.1".to_owned()));
        assert_eq!(resolve("localhost").map(|ip| ip.is_loopback()), Ok(true));
        assert!(resolve("no-such-host.invalid").expect_err("name").contains("resolved"));
    }

    #[test]
    fn places_with_blanks_are_read() {
        assert_eq!(unescape(b"/a\\040b\\134c\\09"), b"/a b\\c\\09");
        assert!(is_mounted(Path::new("/proc")) && !is_mounted(Path::new("/no/such/place")));
    }
}
