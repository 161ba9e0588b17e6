//! The words of a mode: Docker's, which stand in the third field of `-v` only, and our own, which stand there, are keys
//! of `--mount`, and are elements of `x-stratafs` in a compose file.
//!
//! Words are of classes, and of a class there may be one. Which class fits which source is settled in [`Words::spec`],
//! since the words may come before the source is known.

use std::path::PathBuf;
use std::time::Duration;

use super::shown::{nearest, shown};
use super::{Cache, Cow, Create, Pin, Shadow, Source, Spec, target};
use crate::config::{IdMaps, ids};

/// What a word is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Access,
    Label,
    Propagation,
    Copy,
    Consistency,
    Cow,
    Upper,
    Work,
    Cache,
    Shadow,
    Pin,
    Create,
    Recursion,
    Squash,
    Uids,
    Gids,
}

/// Docker's words. Source: moby `volume/mounts/{parser,linux_parser,volume_copy}.go`.
const DOCKER: [(&str, Class); 17] = [
    ("rw", Class::Access),
    ("ro", Class::Access),
    ("rro", Class::Access),
    ("ro-non-recursive", Class::Access),
    ("ro-force-recursive", Class::Access),
    ("z", Class::Label),
    ("Z", Class::Label),
    ("private", Class::Propagation),
    ("rprivate", Class::Propagation),
    ("slave", Class::Propagation),
    ("rslave", Class::Propagation),
    ("shared", Class::Propagation),
    ("rshared", Class::Propagation),
    ("nocopy", Class::Copy),
    ("consistent", Class::Consistency),
    ("cached", Class::Consistency),
    ("delegated", Class::Consistency),
];

/// Our own: before the `=`, after it as a sentence shows it, the class.
const OWN: [(&str, &str, Class); 12] = [
    ("O", "", Class::Cow),
    ("mode", "cow", Class::Cow),
    ("upperdir", "DIR", Class::Upper),
    ("workdir", "DIR", Class::Work),
    ("cache", "coherent|ttl:SECS|always", Class::Cache),
    ("shadow", "replace|under|over", Class::Shadow),
    ("pin", "name|inode", Class::Pin),
    ("create", "dir|file", Class::Create),
    ("nonrecursive", "", Class::Recursion),
    ("squash", "UID[-GID]", Class::Squash),
    ("uidmap", "CALLER:DISK:SIZE", Class::Uids),
    ("gidmap", "CALLER:DISK:SIZE", Class::Gids),
];

type Why = Result<(), String>;

/// The words of one mode, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Each word and its class, in order.
    given: Vec<(Class, String)>,
    pub(super) read_only: bool,
    nocopy: bool,
    cow: bool,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    cache: Cache,
    shadow: Shadow,
    pin: Pin,
    create: Option<Create>,
    nonrecursive: bool,
    ids: IdMaps,
    /// Triples are checked against each other, so all of them are read again with each.
    uids: Vec<String>,
    gids: Vec<String>,
}

/// Whether every word of `mode` is known by its name.
pub(super) fn is_mode(mode: &[u8]) -> bool {
    mode.split(|byte| *byte == b',').all(|word| docker(word).is_some() || own(key_value(word).0).is_some())
}

/// Whether colons in `word` are its own: it has a key of ours, and a value.
pub(super) fn takes_colons(word: &[u8]) -> bool {
    matches!(key_value(word), (key, Some(_)) if own(key).is_some())
}

/// Every word of a mode, or what stands before its `=`.
pub fn mode_words() -> impl Iterator<Item = &'static str> {
    DOCKER.iter().map(|(word, _)| *word).chain(keys())
}

/// The keys of ours.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|(key, ..)| *key)
}

fn docker(word: &[u8]) -> Option<Class> {
    DOCKER.iter().find(|(known, _)| known.as_bytes() == word).map(|(_, class)| *class)
}

fn own(key: &[u8]) -> Option<(&'static str, Class)> {
    OWN.iter().find(|(known, ..)| known.as_bytes() == key).map(|(_, value, class)| (*value, *class))
}

/// A word around its first `=`.
pub(super) fn key_value(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    }
}

impl Words {
    /// Takes a whole mode. The reason why not begins in Docker's words.
    pub(super) fn mode(mode: &[u8]) -> Result<Words, String> {
        let mut words = Words::default();
        for word in mode.split(|byte| *byte == b',') {
            words.word(word).map_err(|why| format!("invalid mode: {}: {why}", shown(mode)))?;
        }
        Ok(words)
    }

    /// Whether nothing may be changed, of a mode that says only that. The reason why not names another word.
    pub(super) fn access(&self) -> Result<bool, String> {
        let passes = |class| matches!(class, Class::Access | Class::Label | Class::Consistency);
        match self.given.iter().find(|(class, _)| !passes(*class)) {
            Some((_, word)) => Err(format!("the mode of the other mount holds: leave `{word}` out")),
            None => Ok(self.read_only),
        }
    }

    fn word(&mut self, word: &[u8]) -> Why {
        let Some(class) = docker(word) else {
            let (key, value) = key_value(word);
            return self.own(key, value).unwrap_or_else(|| Err(unknown(word)));
        };
        self.once(class, word)?;
        match class {
            Class::Access => self.read_only = word != b"rw",
            Class::Copy => self.nocopy = true,
            // Labels, propagation and consistency mean nothing inside one FUSE mount.
            _ => {}
        }
        Ok(())
    }

    /// Takes one of our own words; nothing if it is none of them.
    pub(super) fn own(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<Why> {
        let (takes, class) = own(key)?;
        let word = match value {
            Some(value) => [key, b"=", value].concat(),
            None => key.to_vec(),
        };
        Some(self.once(class, &word).and_then(|()| {
            let set = match (value, takes) {
                (None, "") => self.set(class, b""),
                (Some(value), takes) if !takes.is_empty() => self.set(class, value),
                (None, takes) => Err(format!("it needs a value: write `{}={takes}`", shown(key))),
                (Some(_), _) => Err(format!("it takes no value: write `{}`", shown(key))),
            };
            set.map_err(|why| format!("`{}`: {why}", shown(&word)))
        }))
    }

    fn once(&mut self, class: Class, word: &[u8]) -> Why {
        let word = shown(word);
        let many = matches!(class, Class::Uids | Class::Gids);
        if let Some((_, other)) = self.given.iter().find(|(given, _)| *given == class && !many) {
            return Err(format!("`{other}` and `{word}` are of one kind: leave one of them out"));
        }
        self.given.push((class, word));
        Ok(())
    }

    fn set(&mut self, class: Class, value: &[u8]) -> Why {
        match class {
            Class::Cow if value.is_empty() => self.cow = true,
            Class::Cow => self.cow = one_of(value, &[("cow", true)])?,
            Class::Upper => self.upper = Some(layer(value)?),
            Class::Work => self.work = Some(layer(value)?),
            Class::Cache => self.cache = cache(value)?,
            Class::Shadow => {
                let words = [("replace", Shadow::Replace), ("under", Shadow::Under), ("over", Shadow::Over)];
                self.shadow = one_of(value, &words)?;
            }
            Class::Pin => self.pin = one_of(value, &[("name", Pin::Name), ("inode", Pin::Inode)])?,
            Class::Create => {
                self.create = Some(one_of(value, &[("dir", Create::Dir), ("file", Create::File)])?);
            }
            Class::Recursion => self.nonrecursive = true,
            Class::Squash => (self.ids.squash_uid, self.ids.squash_gid) = squash(value)?,
            Class::Uids => self.ids.uids = triples(&mut self.uids, value)?,
            Class::Gids => self.ids.gids = triples(&mut self.gids, value)?,
            Class::Access | Class::Label | Class::Propagation | Class::Copy | Class::Consistency => {}
        }
        Ok(())
    }

    /// The graft of `source` at `target` in this mode.
    /// The reason why not: a word that does not fit the source, or two that contradict each other.
    pub(super) fn spec(self, target: PathBuf, mut source: Source, text: &[u8]) -> Result<Spec, String> {
        for (class, word) in &self.given {
            fits(*class, &source).map_err(|why| format!("`{word}` {why}"))?;
        }
        let cow = self.copy_on_write()?;
        match &mut source {
            Source::Bind { create, .. } => *create = self.create.or(*create),
            Source::Volume(volume) => volume.nocopy |= self.nocopy,
            Source::Tmpfs { .. } => {}
        }
        Ok(Spec {
            target,
            source,
            read_only: self.read_only,
            cow,
            cache: self.cache,
            shadow: self.shadow,
            pin: self.pin,
            ids: self.ids,
            recursive: !self.nonrecursive,
            text: shown(text),
        })
    }

    /// Source: podman-run(1), "Overlay Volume Mounts": both directories or neither.
    fn copy_on_write(&self) -> Result<Option<Cow>, String> {
        let word = |class| self.given.iter().find(|(given, _)| *given == class).map_or("", |(_, word)| word);
        match (self.cow, &self.upper, &self.work) {
            (true, ..) if self.read_only => Err(format!(
                "`{}` keeps changes and read-only takes none: leave one of them out",
                word(Class::Cow)
            )),
            (true, None, None) => Ok(Some(Cow::ThrowAway)),
            (true, Some(upper), Some(work)) => {
                Ok(Some(Cow::Kept { upper: upper.clone(), work: work.clone() }))
            }
            (false, None, None) => Ok(None),
            (false, Some(_), _) => Err(format!("`{}` is for copy-on-write: add `O`", word(Class::Upper))),
            (false, None, Some(_)) => Err(format!("`{}` is for copy-on-write: add `O`", word(Class::Work))),
            (true, Some(_), None) => Err(format!(
                "`{}` has no workdir: add `workdir=DIR`, an empty directory on the same filesystem",
                word(Class::Upper)
            )),
            (true, None, Some(_)) => Err(format!(
                "`{}` has no upper layer: add `upperdir=DIR`, on the same filesystem",
                word(Class::Work)
            )),
        }
    }
}

/// Whether a word of `class` fits `source`; the reason why not follows the word.
fn fits(class: Class, source: &Source) -> Why {
    let kind = match source {
        Source::Bind { .. } => "bind",
        Source::Volume(_) => "volume",
        Source::Tmpfs { .. } => "tmpfs",
    };
    let (only, docker) = match (class, source) {
        (Class::Propagation, Source::Volume(_) | Source::Tmpfs { .. }) => {
            ("a bind", ": field BindOptions must not be specified")
        }
        (Class::Copy, Source::Bind { .. } | Source::Tmpfs { .. }) => {
            ("a volume", ": field VolumeOptions must not be specified")
        }
        (Class::Create | Class::Recursion, Source::Volume(_) | Source::Tmpfs { .. }) => ("a bind", ""),
        (Class::Access | Class::Label | Class::Consistency | Class::Shadow, Source::Tmpfs { .. }) => {
            return Ok(());
        }
        (_, Source::Tmpfs { .. }) => ("a bind or a volume", ""),
        _ => return Ok(()),
    };
    Err(format!("is for {only}, and this is a {kind}{docker}: leave it out"))
}

fn unknown(word: &[u8]) -> String {
    let text = shown(word);
    let remedy = match text.as_str() {
        // Docker's pages list these two for `-v`; its parser refuses them.
        "readonly" => "write `ro`".to_owned(),
        "volume-nocopy" => "write `nocopy`".to_owned(),
        "" => "take the comma out that has no word beside it".to_owned(),
        text => {
            let key = shown(key_value(word).0);
            let near = nearest(&key, mode_words());
            match near {
                Some(near) if near != text => format!("did you mean `{near}`?"),
                _ => "give ro, rw, nocopy, O, cache=, shadow=, pin=, uidmap=, gidmap=, squash= or create="
                    .to_owned(),
            }
        }
    };
    format!("`{text}` is no word of a mode: {remedy}")
}

pub(super) fn one_of<T: Copy>(value: &[u8], words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| word.as_bytes() == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("`{}` is not one of its values: give {}", shown(value), words.join(", "))
    })
}

/// Source: podman `pkg/specgen/generate/storage.go`: the daemon leaves its directory, so relative paths mean nothing.
fn layer(value: &[u8]) -> Result<PathBuf, String> {
    target::absolute(value, "layer")
}

/// Times beyond this many seconds are longer than any mount lives.
const LONGEST_TTL: f64 = 1e9;

fn cache(value: &[u8]) -> Result<Cache, String> {
    if let Some(seconds) = value.strip_prefix(b"ttl:") {
        let text = shown(seconds);
        let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=LONGEST_TTL).contains(seconds));
        return seconds.map(|seconds| Cache::Ttl(Duration::from_secs_f64(seconds))).ok_or_else(|| {
            format!("`{text}` is not a time: give seconds from 0 to 1000000000, for example ttl:0.5")
        });
    }
    match value {
        b"coherent" => Ok(Cache::Coherent),
        b"always" => Ok(Cache::Always),
        _ => {
            Err(format!("`{}` is not one of its values: give coherent, ttl:SECONDS or always", shown(value)))
        }
    }
}

/// All of the ranges so far. Colons or hyphens stand between the numbers of a triple.
fn triples(all: &mut Vec<String>, value: &[u8]) -> Result<Vec<crate::config::IdRange>, String> {
    all.push(shown(value).replace('-', ":"));
    ids::parse(&all.join(":"), ids::Order::CallerFirst)
}

fn squash(value: &[u8]) -> Result<(Option<u32>, Option<u32>), String> {
    let text = shown(value);
    let id = |text: &str| {
        text.parse::<u32>().ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
            format!(
                "`{text}` is not an id: give a whole number from 0 to {}, as UID or UID-GID",
                u32::MAX - 1
            )
        })
    };
    match text.split_once(['-', ':']) {
        Some((uid, gid)) => Ok((Some(id(uid)?), Some(id(gid)?))),
        None => Ok((Some(id(&text)?), None)),
    }
}
