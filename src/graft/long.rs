//! The long form of a graft, where each thing said has a key: what may be said together. `--mount` and the mappings of a
//! compose file are two ways to write it.
//!
//! Source: moby `volume/mounts/linux_parser.go`, `validateMountConfigImpl`; docker/cli `opts/mount.go`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::shown::{nearest, shown};
use super::words::{Words, one_of};
use super::{Create, Source, Spec, Volume, name, target, volume_flag};

/// What is attached, by Docker's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Bind,
    #[default]
    Volume,
    Tmpfs,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Bind => "bind",
            Kind::Volume => "volume",
            Kind::Tmpfs => "tmpfs",
        }
    }

    /// Those of Docker's types that one host without an engine can have.
    pub(super) fn read(text: &[u8]) -> Result<Kind, String> {
        let text = shown(text).to_lowercase();
        match text.as_str() {
            "bind" => Ok(Kind::Bind),
            "volume" => Ok(Kind::Volume),
            "tmpfs" => Ok(Kind::Tmpfs),
            "" => Err("type is required: give bind, volume or tmpfs".to_owned()),
            "npipe" => Err("type `npipe` is a pipe of Windows, which no directory here can hold: leave it out".to_owned()),
            "cluster" => Err(
                "type `cluster` is a volume that the managers of a Swarm hand out, and there is none here: use type \
                 volume, with volume-opt for storage on a network"
                    .to_owned(),
            ),
            "image" => Err(
                "type `image` needs an engine that keeps images, and there is none here: unpack the image, and give \
                 its directory as a bind with readonly, or as a layer with -l"
                    .to_owned(),
            ),
            text => {
                let remedy = match nearest(text, ["bind", "volume", "tmpfs"]) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "give bind, volume or tmpfs".to_owned(),
                };
                Err(format!("mount type unknown: `{text}`: {remedy}"))
            }
        }
    }
}

/// What `bind-recursive` says about mounts inside the source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Recursive {
    #[default]
    Enabled,
    Disabled,
    Writable,
    ReadOnly,
}

impl Recursive {
    pub(super) fn read(text: &[u8]) -> Result<Recursive, String> {
        let words = [
            ("enabled", Recursive::Enabled),
            ("disabled", Recursive::Disabled),
            ("writable", Recursive::Writable),
            ("readonly", Recursive::ReadOnly),
        ];
        one_of(text, &words)
    }
}

/// Whatever was said, before it is known to fit together.
#[derive(Debug, Default)]
pub(super) struct Long {
    pub(super) kind: Kind,
    pub(super) source: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) read_only: bool,
    pub(super) propagation: Option<String>,
    pub(super) recursive: Recursive,
    pub(super) create_source: bool,
    /// All but its name and its subpath.
    pub(super) volume: Volume,
    pub(super) subpath: Vec<u8>,
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) words: Words,
    /// Keys that belong to one type: which, and as they were written.
    pub(super) of_kind: Vec<(Kind, String)>,
}

impl Long {
    /// Takes the value of a key that says how mounts propagate, which has no effect inside one FUSE mount.
    pub(super) fn propagation(&mut self, value: &[u8]) -> Result<(), String> {
        let value = shown(value).to_lowercase();
        let known = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
        if !known.contains(&value.as_str()) {
            return Err(format!("invalid propagation mode: {value}: give {}", known.join(", ")));
        }
        self.propagation = Some(value);
        Ok(())
    }

    /// The graft. A source that begins with `.` is below `base`.
    pub(super) fn spec(mut self, base: &Path, text: &[u8]) -> Result<Spec, String> {
        let target = target::target(&self.target)?;
        let kind = self.kind;
        if let Some((other, key)) = self.of_kind.iter().find(|(other, _)| *other != kind) {
            return Err(format!(
                "cannot mix '{}-*' options with mount type '{}': leave `{key}` out, or give type={}",
                other.as_str(),
                kind.as_str(),
                other.as_str()
            ));
        }
        let source = match kind {
            Kind::Bind => self.bind(base),
            Kind::Volume => self.volume(),
            Kind::Tmpfs => self.tmpfs(),
        };
        let source =
            source.map_err(|why| format!("invalid mount config for type \"{}\": {why}", kind.as_str()))?;
        self.words.read_only = self.read_only;
        let mut spec = self.words.spec(target, source, text)?;
        spec.recursive &= self.recursive != Recursive::Disabled;
        Ok(spec)
    }

    fn bind(&self, base: &Path) -> Result<Source, String> {
        if self.source.is_empty() {
            return Err(
                "field Source must not be empty: name the directory or file of the host with source="
                    .to_owned(),
            );
        }
        let needs = |value: &str, other: &str| {
            Err(format!(
                "option 'bind-recursive={value}' requires '{other}' to be specified in conjunction: add it"
            ))
        };
        match self.recursive {
            Recursive::Writable if !self.read_only => return needs("writable", "readonly"),
            Recursive::ReadOnly if !self.read_only => return needs("readonly", "readonly"),
            Recursive::ReadOnly if self.propagation.as_deref() != Some("rprivate") => {
                return needs("readonly", "bind-propagation=rprivate");
            }
            _ => {}
        }
        let path = match volume_flag::is_path(&self.source) {
            true => volume_flag::bind_path(&self.source, base)?,
            false => target::absolute(&self.source, "source path")
                .map_err(|why| format!("{why}, or with `./` for a path below the current directory"))?,
        };
        Ok(Source::Bind { path, create: self.create_source.then_some(Create::Dir) })
    }

    fn volume(&mut self) -> Result<Source, String> {
        let mut volume = std::mem::take(&mut self.volume);
        let anonymous = self.source.is_empty();
        if anonymous && !self.subpath.is_empty() {
            return Err(
                "must not set Subpath when using anonymous volumes: name the volume with source=".to_owned()
            );
        }
        if anonymous && self.read_only {
            return Err(
                "must not set ReadOnly mode when using anonymous volumes: name the volume with source=, or \
                        leave readonly out"
                    .to_owned(),
            );
        }
        if !anonymous {
            volume.name = Some(name::name(&self.source)?);
        }
        volume.subpath = subpath(&self.subpath)?;
        Ok(Source::Volume(volume))
    }

    fn tmpfs(&self) -> Result<Source, String> {
        if !self.source.is_empty() {
            return Err(format!(
                "field Source must not be specified: leave `{}` out, since a tmpfs begins empty",
                shown(&self.source)
            ));
        }
        // As Docker: none is said of a size of nothing, and the kernel chooses.
        Ok(Source::Tmpfs { size: self.size.filter(|size| *size > 0), mode: self.mode })
    }
}

/// A path inside a volume, cleaned; nothing is the volume itself.
/// Source: Go `filepath.IsLocal`.
fn subpath(text: &[u8]) -> Result<Option<PathBuf>, String> {
    let mut depth = 0_usize;
    let mut names: Vec<&[u8]> = Vec::new();
    let local = !text.starts_with(b"/") && !text.contains(&0);
    let stays = text.split(|byte| *byte == b'/').all(|name| match name {
        b"" | b"." => true,
        b".." => {
            names.pop();
            depth.checked_sub(1).map(|less| depth = less).is_some()
        }
        name => {
            names.push(name);
            depth += 1;
            true
        }
    });
    if !local || !stays {
        return Err(format!(
            "subpath must be a relative path within the volume: `{}` leaves it, take `/` or `..` off its beginning",
            shown(text)
        ));
    }
    let path = names.join(&b'/');
    Ok((!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(&path))))
}

/// Text for a name of a driver, a label or an option. The reason why not is a sentence.
pub(super) fn text(value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| format!("`{}` is no text: write it in UTF-8", shown(value)))
}
