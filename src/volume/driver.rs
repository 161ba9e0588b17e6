//! The one driver, `local`: options are checked when a volume is made, and mounted by mount(8) while it is used.
//! Source: moby `volume/local/local_unix.go`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::meta::Meta;
use crate::error::{Error, Result};

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
    if is_bind(options) && !device.starts_with('/') {
        return refused(format!(
            "volume option `device={device}`: a bind needs an absolute path: write it from `/`"
        ));
    }
    Ok(())
}

/// Whether the words of `o` bind a directory.
fn is_bind(options: &BTreeMap<String, String>) -> bool {
    options.get("o").is_some_and(|o| o.split(',').any(|word| matches!(word, "bind" | "rbind")))
}

/// Mounts what the options say at `at`. Errors: `Setup` with mount(8)'s words; a volume that was `created` for this is gone
/// by the time they are read.
pub(super) fn mount(meta: &Meta, at: &Path, created: bool) -> Result<()> {
    let option = |key: &str| meta.options.get(key).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let failed = |why: &str| {
        let name = &meta.name;
        let remedy = match created {
            true => "correct its type, device and o".to_owned(),
            false => format!("see its options with `stratafs volume inspect {name}`"),
        };
        Error::Setup(format!("volume {name:?} cannot be mounted: {why}: {remedy}"))
    };
    let mut words = option("o").to_owned();
    let mut command = Command::new("mount");
    if let Some(host) = network(kind).then(|| address(&words)).flatten() {
        let resolved = resolve(&host).map_err(|why| failed(&format!("`addr={host}`: {why}")))?;
        words = words.replacen(&format!("addr={host}"), &format!("addr={resolved}"), 1);
        // As Docker does: the kernel gets the options as they are. The helpers find an address of their own, and do not
        // take a device without a host.
        command.arg("-i");
    }
    if !kind.is_empty() {
        command.args(["-t", kind]);
    }
    if !words.is_empty() {
        command.args(["-o", &words]);
    }
    command.arg("--").arg(device).arg(at).env("LC_ALL", "C").stdin(Stdio::null());
    let done = command.output().map_err(|error| failed(&format!("mount(8): {error}")))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    match first.trim_end_matches('.') {
        "" => Err(failed(&format!("mount(8) ended with {}", done.status))),
        first => Err(failed(first)),
    }
}

fn network(kind: &str) -> bool {
    matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3")
}

/// The value of the first `addr=` that is a name and no address. Source: moby `getAddress`.
fn address(words: &str) -> Option<String> {
    words
        .split(',')
        .find_map(|word| word.strip_prefix("addr="))
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
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
        ] {
            let sentence = check(LOCAL, &options(bad)).expect_err(bad).to_string();
            assert!(sentence.contains(part), "{sentence}");
        }
        assert!(check("nfs", &options("")).expect_err("driver").to_string().contains("only `local`"));
    }

    #[test]
    fn an_address_is_taken_from_the_options_and_resolved() {
        assert_eq!(address("rw,addr=host.example,port=2049").as_deref(), Some("host.example"));
        assert_eq!(address("rw,mountaddr=h"), None);
        assert_eq!(address("addr="), None);
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
