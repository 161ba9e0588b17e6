//! `--tmpfs`: `DST[:OPTION,...]`, with the options of Docker's tmpfs, and `shadow=`.
//!
//! Source: docker-run(1), `--tmpfs`; moby `volume/mounts` and `moby/sys/mount`, the options that a tmpfs may have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::shown::{nearest, shown};
use super::words::{Words, key_value};
use super::{Source, Spec, size, target};
use crate::error::{Error, Result};

/// Options of a mount: a graft is none, so what the whole tree was mounted with holds.
const OF_MOUNTS: [&str; 29] = [
    "defaults",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "mand",
    "nomand",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "noswap",
];

/// Options of the kernel's tmpfs that a graft does not have.
const OF_TMPFS: [&str; 6] = ["uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"];

/// The graft that `--tmpfs text` asks for.
/// Errors: `Setup` with the text, what is wrong with it and the remedy.
pub fn tmpfs(text: &OsStr) -> Result<Spec> {
    let text = text.as_bytes();
    parse(text).map_err(|why| Error::Setup(format!("--tmpfs `{}`: {why}", shown(text))))
}

/// The graft of a tmpfs in this form, wherever it is written.
pub(super) fn parse(text: &[u8]) -> std::result::Result<Spec, String> {
    let mut parts = text.splitn(2, |byte| *byte == b':');
    let target = target::target(parts.next().unwrap_or_default())?;
    let (mut size, mut mode, mut words) = (None, None, Words::default());
    let options = parts.next().unwrap_or_default().split(|byte| *byte == b',');
    for option in options.filter(|option| !option.is_empty()) {
        let named = |why: String| format!("`{}`: {why}", shown(option));
        match key_value(option) {
            (b"ro", None) => words.read_only = true,
            (b"rw", None) => words.read_only = false,
            // As the kernel: nothing is no limit, of which half of the memory is the nearest it has.
            (b"size", Some(value)) => {
                size = Some(size::bytes(value).map_err(named)?).filter(|size| *size > 0)
            }
            (b"mode", Some(value)) => mode = Some(size::mode(value).map_err(named)?),
            (key, value) => {
                let taken = match key {
                    b"mode" => None,
                    _ => words.own(key, value),
                };
                match taken {
                    Some(taken) => taken?,
                    None => other(&shown(key), &shown(option))?,
                }
            }
        }
    }
    words.spec(target, Source::Tmpfs { size, mode }, text)
}

fn other(key: &str, option: &str) -> std::result::Result<(), String> {
    if OF_MOUNTS.contains(&option) {
        return Ok(());
    }
    Err(if OF_TMPFS.contains(&key) {
        format!("`{option}`: a graft in memory has a size and a mode only: leave it out")
    } else {
        let known = ["ro", "rw", "size", "mode", "shadow"].into_iter().chain(OF_MOUNTS);
        let remedy = match nearest(key, known) {
            Some("size") => "write size=BYTES, for example size=64m".to_owned(),
            Some("mode") => "write mode=OCTAL, for example mode=1777".to_owned(),
            Some(near) if near != key => format!("did you mean `{near}`?"),
            _ => "give size=, mode=, ro, rw or shadow=".to_owned(),
        };
        format!("invalid tmpfs option `{option}`: {remedy}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graft::Shadow;

    #[test]
    fn a_target_and_options() {
        let size = |size, mode| Source::Tmpfs { size, mode };
        for (text, target, source, read_only) in [
            ("/run", "/run", size(None, None), false),
            ("/run/", "/run", size(None, None), false),
            ("/run:", "/run", size(None, None), false),
            ("/run:rw,noexec,nosuid,size=65536k", "/run", size(Some(64 << 20), None), false),
            ("/a/../run:size=64m,mode=1777", "/run", size(Some(64 << 20), Some(0o1777)), false),
            ("/run:ro,mode=0755,", "/run", size(None, Some(0o755)), true),
            ("/run:size=0", "/run", size(None, None), false),
            ("/run:size=1m,size=2m", "/run", size(Some(2 << 20), None), false),
        ] {
            let spec = tmpfs(OsStr::new(text)).expect(text);
            assert_eq!((spec.target.to_str(), &spec.source), (Some(target), &source), "{text}");
            assert_eq!((spec.read_only, spec.text.as_str()), (read_only, text));
        }
        let under = tmpfs(OsStr::new("/run:shadow=under")).expect("spec");
        assert_eq!(under.shadow, Shadow::Under);
    }

    #[test]
    fn what_is_none_is_named_with_its_remedy() {
        for (text, parts) in [
            ("", &["target is required"][..]),
            ("run", &["'run' mount path must be absolute"]),
            (":size=1", &["target is required"]),
            ("/", &["destination can't be '/'"]),
            ("/run:size=50%", &["`size=50%`", "invalid size: '50%'", "64m"]),
            ("/run:size", &["`size`", "size=BYTES"]),
            ("/run:mode", &["`mode`", "mode=OCTAL"]),
            ("/run:mode=rwx", &["`mode=rwx`", "octal"]),
            ("/run:mode=cow", &["`mode=cow`", "octal"]),
            ("/run:uid=1000", &["`uid=1000`", "leave it out"]),
            ("/run:noexe", &["`noexe`", "`noexec`"]),
            ("/run:zzzz", &["`zzzz`", "size="]),
            ("/run:size=1m:ro", &["'1m:ro'"]),
            ("/run:O", &["`O`", "tmpfs"]),
            ("/run:cache=always", &["`cache=always`", "tmpfs"]),
            ("/run:create=dir", &["`create=dir`", "bind"]),
        ] {
            let sentence = tmpfs(OsStr::new(text)).expect_err(text).to_string();
            assert!(sentence.starts_with("--tmpfs `") && !sentence.contains('\n'), "{sentence}");
            for part in parts {
                assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
            }
        }
    }
}
