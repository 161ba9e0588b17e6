//! One element of a service's `volumes` in a compose file, short or long.
//!
//! Source: compose-spec `05-services.md`, "volumes"; compose-go `format/volume.go`.

use std::os::unix::ffi::OsStringExt;

use super::compose::Project;
use super::long::{Kind, Long, Recursive};
use super::shown::{nearest, shown};
use super::volume_flag::{self, Fields};
use super::words::key_value;
use super::yaml::Node;
use super::{Create, Source, Spec, Volume, compose_store, mount_flag, size, target};

type Read<T> = Result<T, String>;

/// The graft of `node`, which stands `at` in `service`.
pub(super) fn read(project: &Project<'_>, service: &str, node: &Node, at: &str) -> Read<Spec> {
    match node {
        Node::Text(_) => {
            let text = project.scalar(node, at)?;
            short(project, service, &text).map_err(|why| format!("{at}: `{text}`: {why}"))
        }
        Node::Map(entries) => {
            let mut element = Element { project, service, at, long: Long::default(), keep_missing: false };
            element.read(entries)
        }
        other => Err(format!("{at} must be text or a mapping, and it is {}", other.kind())),
    }
}

fn short(project: &Project<'_>, service: &str, text: &str) -> Read<Spec> {
    let Fields { source, target, words } = volume_flag::fields(text.as_bytes())?;
    let target = target::target(target)?;
    let source = match source.map(|source| String::from_utf8_lossy(source).into_owned()) {
        None => Source::Volume(Volume::default()),
        // A directory that is missing is made, which is compose's rule, and not that of `-v`.
        Some(path) if path.starts_with(['/', '.', '~']) => {
            Source::Bind { path: project.path(&path)?, create: Some(Create::Dir) }
        }
        Some(key) => Source::Volume(compose_store::volume(project, service, &key)?),
    };
    words.spec(target, source, text.as_bytes())
}

/// An element that is a mapping, as far as it was read.
struct Element<'a> {
    project: &'a Project<'a>,
    service: &'a str,
    at: &'a str,
    long: Long,
    /// `create_host_path: false`; otherwise a missing directory of the host is made.
    keep_missing: bool,
}

impl Element<'_> {
    fn read(&mut self, entries: &[(String, Node)]) -> Read<Spec> {
        for (key, node) in entries.iter().filter(|(_, node)| *node != Node::Null) {
            let at = format!("{}.{key}", self.at);
            match key.as_str() {
                "type" => {
                    let kind = self.project.scalar(node, &at)?;
                    self.long.kind = Kind::read(kind.as_bytes()).map_err(|why| format!("{at}: {why}"))?;
                }
                "source" => self.long.source = self.project.scalar(node, &at)?.into_bytes(),
                "target" => self.long.target = self.project.scalar(node, &at)?.into_bytes(),
                "read_only" => self.long.read_only = self.project.boolean(node, &at)?,
                "consistency" => {
                    let value = self.project.scalar(node, &at)?;
                    mount_flag::consistency(value.as_bytes()).map_err(|why| format!("{at}: {why}"))?;
                }
                "bind" => self.each(node, &at, Self::bind)?,
                "volume" => self.each(node, &at, Self::volume)?,
                "tmpfs" => self.each(node, &at, Self::tmpfs)?,
                "image" => {
                    return Err(format!(
                        "{at}: it needs an engine that keeps images, and there is none here: \
                                        leave it out"
                    ));
                }
                "x-stratafs" => self.words(node, &at)?,
                key if key.starts_with("x-") => {}
                key => return Err(unknown(key, self.at, &KEYS)),
            }
        }
        if !entries.iter().any(|(key, node)| key == "type" && *node != Node::Null) {
            return Err(format!("{}: type is required: give bind, volume or tmpfs", self.at));
        }
        self.resolve()?;
        let text = self.text();
        let base = self.project.dir();
        std::mem::take(&mut self.long)
            .spec(base, text.as_bytes())
            .map_err(|why| format!("{}: {why}", self.at))
    }

    /// Gives the source its meaning in the project.
    fn resolve(&mut self) -> Read<()> {
        if self.long.source.is_empty() {
            return Ok(());
        }
        let source = String::from_utf8_lossy(&self.long.source).into_owned();
        match self.long.kind {
            Kind::Bind => {
                let path = self.project.path(&source).map_err(|why| format!("{}.source: {why}", self.at))?;
                self.long.source = path.into_os_string().into_vec();
                self.long.create_source = !self.keep_missing;
            }
            Kind::Volume => {
                let said = std::mem::take(&mut self.long.volume);
                let mut volume = compose_store::volume(self.project, self.service, &source)
                    .map_err(|why| format!("{}: {why}", self.at))?;
                volume.nocopy = said.nocopy;
                self.long.source = volume.name.clone().unwrap_or_default().into_bytes();
                self.long.volume = volume;
            }
            Kind::Tmpfs => {}
        }
        Ok(())
    }

    /// Reads the mapping under `type`'s own key.
    fn each(
        &mut self,
        node: &Node,
        at: &str,
        take: impl Fn(&mut Self, &str, &Node, &str) -> Read<()>,
    ) -> Read<()> {
        let Node::Map(entries) = node else {
            return Err(format!("{at} must be a mapping, and it is {}", node.kind()));
        };
        let entries = entries.iter().filter(|(key, node)| *node != Node::Null && !key.starts_with("x-"));
        entries.into_iter().try_for_each(|(key, node)| take(self, key, node, &format!("{at}.{key}")))
    }

    fn bind(&mut self, key: &str, node: &Node, at: &str) -> Read<()> {
        const KEYS: [&str; 4] = ["propagation", "create_host_path", "recursive", "selinux"];
        let at_key = |why| format!("{at}: {why}");
        self.long.of_kind.push((Kind::Bind, format!("bind.{key}")));
        match key {
            "create_host_path" => self.keep_missing = !self.project.boolean(node, at)?,
            "propagation" => {
                let value = self.project.scalar(node, at)?;
                self.long.propagation(value.as_bytes()).map_err(at_key)?;
            }
            "recursive" => {
                let value = self.project.scalar(node, at)?;
                self.long.recursive = Recursive::read(value.as_bytes()).map_err(at_key)?;
            }
            "selinux" => {
                let value = self.project.scalar(node, at)?;
                if !["z", "Z"].contains(&value.as_str()) {
                    return Err(format!("{at}: `{value}` is not one of its values: give z, Z"));
                }
            }
            key => return Err(unknown(key, &format!("{}.bind", self.at), &KEYS)),
        }
        Ok(())
    }

    fn volume(&mut self, key: &str, node: &Node, at: &str) -> Read<()> {
        const KEYS: [&str; 3] = ["nocopy", "subpath", "labels"];
        self.long.of_kind.push((Kind::Volume, format!("volume.{key}")));
        match key {
            "nocopy" => self.long.volume.nocopy = self.project.boolean(node, at)?,
            "subpath" => self.long.subpath = self.project.scalar(node, at)?.into_bytes(),
            // Of an anonymous volume; a named one has those of its declaration.
            "labels" => self.long.volume.labels = self.project.pairs(node, at)?,
            key => return Err(unknown(key, &format!("{}.volume", self.at), &KEYS)),
        }
        Ok(())
    }

    fn tmpfs(&mut self, key: &str, node: &Node, at: &str) -> Read<()> {
        const KEYS: [&str; 2] = ["size", "mode"];
        self.long.of_kind.push((Kind::Tmpfs, format!("tmpfs.{key}")));
        let value = self.project.scalar(node, at)?;
        match (key, node) {
            ("size", _) => {
                self.long.size = Some(size::bytes(value.as_bytes()).map_err(|why| format!("{at}: {why}"))?);
            }
            // As compose: a number is the number that it is, and YAML writes octal ones as 0o1777.
            ("mode", Node::Number(_)) => {
                let mode: Option<u32> = value.parse().ok().filter(|mode| *mode <= 0o7777);
                // A usual mode of a directory gives its owner all permissions.
                let is_usual = |mode: u32| mode & 0o700 == 0o700;
                if let (Some(number), Ok(octal)) = (mode, size::mode(value.as_bytes())) {
                    if is_usual(octal) && !is_usual(number) {
                        self.project.note(format!(
                            "{at}: {value} is decimal, and the mode is 0o{number:o}: write \"{value}\" or 0o{value} for octal digits"
                        ));
                    }
                }
                self.long.mode = Some(mode.ok_or_else(|| {
                    format!(
                        "{at}: `{value}` is no mode: write permission bits in octal, as \"1777\" or 0o1777"
                    )
                })?);
            }
            ("mode", _) => {
                self.long.mode = Some(size::mode(value.as_bytes()).map_err(|why| format!("{at}: {why}"))?);
            }
            (key, _) => return Err(unknown(key, &format!("{}.tmpfs", self.at), &KEYS)),
        }
        Ok(())
    }

    /// Words of ours: text, with commas between them, or a list.
    fn words(&mut self, node: &Node, at: &str) -> Read<()> {
        let list = match node {
            Node::List(list) => list.as_slice(),
            node => std::slice::from_ref(node),
        };
        for node in list {
            let text = self.project.scalar(node, at)?;
            for word in text.split(',') {
                let (key, value) = key_value(word.as_bytes());
                let taken = self.long.words.own(key, value);
                taken
                    .unwrap_or_else(|| {
                        Err(format!(
                            "`{word}` is none of our words: give cache=, shadow=, pin=, O or another of them"
                        ))
                    })
                    .map_err(|why| format!("{at}: {why}"))?;
            }
        }
        Ok(())
    }

    /// As `--mount` would have it, for listings.
    fn text(&self) -> String {
        let mut fields = vec![format!("type={}", self.long.kind.as_str())];
        for (key, value) in [("source", &self.long.source), ("target", &self.long.target)] {
            if !value.is_empty() {
                fields.push(format!("{key}={}", shown(value)));
            }
        }
        if self.long.read_only {
            fields.push("readonly".to_owned());
        }
        fields.join(",")
    }
}

const KEYS: [&str; 10] = [
    "type",
    "source",
    "target",
    "read_only",
    "consistency",
    "bind",
    "volume",
    "tmpfs",
    "image",
    "x-stratafs",
];

fn unknown(key: &str, at: &str, known: &[&str]) -> String {
    let remedy = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("give {}", known.join(", ")),
    };
    format!("{at}: additional properties '{key}' not allowed: {remedy}")
}
