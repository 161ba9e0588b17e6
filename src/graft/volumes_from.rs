//! `--volumes-from`: `MOUNTPOINT[:MODE]`, what another mount has attached, at the same targets.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::shown::shown;
use super::words::Words;
use super::{Source, Spec};
use crate::error::{Error, Result};

/// Another mount, and what may be done with its grafts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumesFrom {
    /// Where it is mounted, as it was given.
    pub mountpoint: PathBuf,
    /// None of its grafts takes a change here.
    pub read_only: bool,
}

/// The mount that `--volumes-from text` names. It is not looked for.
/// Errors: `Setup` with the text, what is wrong with it, in Docker's words where it has some, and the remedy.
/// Source: moby `volume/mounts/linux_parser.go`, `ParseVolumesFrom`.
pub fn volumes_from(text: &OsStr) -> Result<VolumesFrom> {
    let text = text.as_bytes();
    parse(text).map_err(|why| Error::Setup(format!("--volumes-from `{}`: {why}", shown(text))))
}

/// The same, wherever it is written.
pub(super) fn parse(text: &[u8]) -> std::result::Result<VolumesFrom, String> {
    let mut parts = text.splitn(2, |byte| *byte == b':');
    let mountpoint = parts.next().unwrap_or_default();
    if mountpoint.is_empty() {
        return Err("volumes-from specification cannot be an empty string: write MOUNTPOINT[:ro]".to_owned());
    }
    Ok(VolumesFrom {
        mountpoint: PathBuf::from(OsStr::from_bytes(mountpoint)),
        read_only: read_only(parts.next().unwrap_or_default())?,
    })
}

/// What the mode behind a name says.
pub(super) fn read_only(mode: &[u8]) -> std::result::Result<bool, String> {
    match mode {
        b"" => Ok(false),
        mode => Words::mode(mode)?.access().map_err(|why| format!("invalid mode: {}: {why}", shown(mode))),
    }
}

impl VolumesFrom {
    /// What is taken over of `grafts`, those of the mount: binds and volumes, which are never filled again. No change
    /// is taken where the mount takes none, nor where this one asked for none.
    /// Source: moby `daemon/volumes.go`, `registerMountPoints`.
    pub fn inherit(&self, grafts: Vec<Spec>) -> Vec<Spec> {
        let kept = grafts.into_iter().filter(|graft| !matches!(graft.source, Source::Tmpfs { .. }));
        kept.map(|mut graft| {
            graft.read_only |= self.read_only;
            if graft.read_only {
                // Nothing is kept of changes that are not taken.
                graft.cow = None;
            }
            if let Source::Volume(volume) = &mut graft.source {
                volume.nocopy = true;
            }
            graft
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::graft::{tmpfs, volume};

    #[test]
    fn a_mountpoint_and_a_mode() {
        for (text, mountpoint, read_only) in [
            ("/mnt/a", "/mnt/a", false),
            ("a", "a", false),
            ("/mnt/a:", "/mnt/a", false),
            ("/mnt/a:rw", "/mnt/a", false),
            ("/mnt/a:ro", "/mnt/a", true),
            ("/mnt/a:z,ro", "/mnt/a", true),
        ] {
            let expected = VolumesFrom { mountpoint: mountpoint.into(), read_only };
            assert_eq!(volumes_from(OsStr::new(text)), Ok(expected), "{text}");
        }
        for (text, parts) in [
            ("", &["cannot be an empty string"][..]),
            (":ro", &["cannot be an empty string"]),
            ("/mnt/a:rslave", &["invalid mode: rslave", "leave `rslave` out"]),
            ("/mnt/a:nocopy", &["invalid mode: nocopy", "leave `nocopy` out"]),
            ("/mnt/a:ro,O", &["invalid mode: ro,O", "leave `O` out"]),
            ("/mnt/a:ro,rw", &["invalid mode: ro,rw"]),
            ("/mnt/a:ro:rw", &["invalid mode: ro:rw"]),
            ("/mnt/a:readonly", &["`readonly`", "write `ro`"]),
        ] {
            let sentence = volumes_from(OsStr::new(text)).expect_err(text).to_string();
            for part in parts {
                assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
            }
        }
    }

    #[test]
    fn binds_and_volumes_are_taken_over_and_never_filled() {
        let given = |text: &str| volume(OsStr::new(text), Path::new("/")).expect(text);
        let grafts = vec![
            given("/src:/bind:O"),
            given("vol:/vol:ro"),
            tmpfs(OsStr::new("/tmp")).expect("tmpfs"),
            given("vol:/rw"),
        ];
        let from = |read_only| VolumesFrom { mountpoint: "/m".into(), read_only };
        let kept = from(false).inherit(grafts.clone());
        let targets: Vec<_> = kept.iter().map(|graft| graft.target.to_str().expect("text")).collect();
        assert_eq!(targets, ["/bind", "/vol", "/rw"]);
        assert_eq!(kept.iter().map(|graft| graft.read_only).collect::<Vec<_>>(), [false, true, false]);
        assert!(matches!(&kept[1].source, Source::Volume(volume) if volume.nocopy));
        let read_only = from(true).inherit(grafts);
        assert!(read_only.iter().all(|graft| graft.read_only && graft.cow.is_none()));
    }
}
