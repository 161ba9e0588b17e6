//! The storage of one service of a compose file: its `volumes`, `tmpfs` and `volumes_from`. Keys that are not storage
//! are read past, whatever they hold.
//!
//! The file is the only thing that is read. Start at [`compose`]; one element of `volumes` is in `compose_volume`, a
//! volume under the top-level key in `compose_store`.
//! Source: compose-spec `05-services.md`, `07-volumes.md`; compose-go `loader`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::interpolate::{Env, interpolate};
use super::shown::{nearest, shown};
use super::yaml::{self, Node};
use super::{Spec, VolumesFrom, compose_volume, tmpfs_flag, volumes_from};
use crate::error::{Error, Result};

/// The largest file that is read: beyond it stands something else than a compose file.
const LARGEST: u64 = 256 << 10;

/// The longest chain of services that take from each other.
const DEEPEST: usize = 64;

/// What a service attaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Its own grafts.
    pub specs: Vec<Spec>,
    /// Those of other services, which its own go over.
    pub inherited: Vec<Spec>,
    /// Other mounts, whose grafts its own go over.
    pub volumes_from: Vec<VolumesFrom>,
    /// What is probably not meant so, a sentence each.
    pub notes: Vec<String>,
}

/// The storage of `service` in the compose file `file`. `env` gives the variables, also HOME and COMPOSE_PROJECT_NAME.
/// Paths are relative to the directory of the file. No source is looked at.
/// Errors: `Setup` with the file, the key, what is wrong and the remedy.
pub fn compose(file: &Path, service: &str, env: impl Fn(&str) -> Option<String>) -> Result<Service> {
    let read = || -> Read<Service> {
        let text = read(file)?;
        let file =
            std::path::absolute(file).map_err(|error| format!("{error}: give the path from the root"))?;
        let dir = file.parent().unwrap_or(Path::new("/")).to_owned();
        let project = Project::new(yaml::read(&text)?, dir, &env)?;
        let mut found = project.service(service, &mut Vec::new(), &mut BTreeMap::new())?;
        found.notes = project.notes.into_inner();
        Ok(found)
    };
    let of_file = |what: &str| {
        format!("compose file `{}`: {}", shown(file.as_os_str().as_bytes()), shown(what.as_bytes()))
    };
    let mut service = read().map_err(|why| Error::Setup(of_file(&why)))?;
    service.notes.iter_mut().for_each(|note| *note = of_file(note));
    Ok(service)
}

fn read(file: &Path) -> std::result::Result<String, String> {
    read_text(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => {
            "it is no file: name the file, for example compose.yaml in it".to_owned()
        }
        std::io::ErrorKind::FileTooLarge => {
            format!("it is larger than {} KiB: name a compose file", LARGEST >> 10)
        }
        std::io::ErrorKind::InvalidData => "it is no text: write it in UTF-8".to_owned(),
        _ => format!("{error}: name a compose file that you may read"),
    })
}

/// The text of a file that another user may have written: a regular file, and no larger than such files are. Never blocks, not even on a FIFO.
///
/// # Errors
///
/// `InvalidInput` for what is no file, `FileTooLarge`, `InvalidData` for what is no UTF-8; what the file answers.
pub fn read_text(file: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    use std::os::unix::fs::OpenOptionsExt;
    let opened = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} KiB", LARGEST >> 10)));
    }
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is no text in UTF-8"))
}

type Read<T> = std::result::Result<T, String>;

/// A compose file, and what the words in it are relative to.
pub(super) struct Project<'a> {
    root: Node,
    dir: PathBuf,
    env: Env<'a>,
    notes: RefCell<Vec<String>>,
}

impl<'a> Project<'a> {
    fn new(root: Node, dir: PathBuf, env: Env<'a>) -> Read<Project<'a>> {
        if !matches!(root, Node::Map(_)) {
            return Err(format!("it is {}: a compose file is a mapping with `services`", root.kind()));
        }
        let project = Project { root, dir, env, notes: RefCell::default() };
        if let Some(version) = project.root.get("version") {
            let version = project.scalar(version, "version")?;
            let part = version.split('.').next().unwrap_or_default();
            let numbers =
                version.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
            if !numbers || !["2", "3"].contains(&part) {
                return Err(format!(
                    "version `{version}` is unknown: write it for version 2 or 3, or leave `version` out as compose does now"
                ));
            }
        }
        Ok(project)
    }

    /// Notes what is probably not meant so, once.
    pub(super) fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// The value of the top-level `key`.
    pub(super) fn top(&self, key: &str) -> Option<&Node> {
        self.root.get(key)
    }

    /// What a path in the file is relative to.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A value as text, its variables replaced. `at` is where it stands.
    pub(super) fn scalar(&self, node: &Node, at: &str) -> Read<String> {
        match node {
            Node::Text(text) => {
                let unset = |name: &str| {
                    self.note(format!(
                        "{at}: the variable {name} is not set, and stands for nothing: set it, or write ${{{name}:-DEFAULT}}"
                    ))
                };
                interpolate(text, self.env, &unset).map_err(|why| format!("{at}: {why}"))
            }
            Node::Number(text) => Ok(text.clone()),
            Node::Bool(value) => Ok(value.to_string()),
            other => Err(format!("{at} must be text, and it is {}", other.kind())),
        }
    }

    /// A value that is yes or no.
    pub(super) fn boolean(&self, node: &Node, at: &str) -> Read<bool> {
        let no = || format!("{at} must be true or false");
        match node {
            Node::Bool(value) => Ok(*value),
            // A variable stands there, and text is what it gives.
            Node::Text(_) => match self.scalar(node, at)?.to_lowercase().as_str() {
                "true" | "yes" | "y" | "on" => Ok(true),
                "false" | "no" | "n" | "off" => Ok(false),
                other => Err(format!("{}, and it is `{other}`", no())),
            },
            other => Err(format!("{}, and it is {}", no(), other.kind())),
        }
    }

    /// A mapping of texts, or a list of `key=value`.
    pub(super) fn pairs(&self, node: &Node, at: &str) -> Read<BTreeMap<String, String>> {
        match node {
            Node::Map(entries) => entries
                .iter()
                .map(|(key, node)| match node {
                    Node::Null => Ok((key.clone(), String::new())),
                    node => Ok((key.clone(), self.scalar(node, &format!("{at}.{key}"))?)),
                })
                .collect(),
            Node::List(list) => list
                .iter()
                .map(|node| {
                    let pair = self.scalar(node, at)?;
                    let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
                    Ok((key.to_owned(), value.to_owned()))
                })
                .collect(),
            other => Err(format!("{at} must be a mapping or a list, and it is {}", other.kind())),
        }
    }

    /// The path that `text` means: `~` is the home directory, and what is relative is below the file's directory.
    pub(super) fn path(&self, text: &str) -> Read<PathBuf> {
        let home = match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = (self.env)("HOME").filter(|home| home.starts_with('/'));
                Some(
                    home.ok_or_else(|| format!("`{text}`: HOME is not set: set it, or write the path out"))?
                        + rest,
                )
            }
            Some(_) => {
                return Err(format!("`{text}`: homes of other users are not known: write the path out"));
            }
            None => None,
        };
        let path = self.dir.join(home.as_deref().unwrap_or(text));
        super::target::absolute(path.as_os_str().as_bytes(), "source path")
    }

    /// What this project is called, which is a part of the names of its volumes.
    /// Source: docs.docker.com, "Specify a project name": the environment, then the file, then the directory.
    pub(super) fn name(&self) -> Read<String> {
        let environment = (self.env)("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty());
        let named = match (environment, self.top("name")) {
            (Some(name), _) => Some((name, "COMPOSE_PROJECT_NAME")),
            (None, Some(node)) => Some((self.scalar(node, "name")?, "name")),
            (None, None) => None,
        };
        if let Some((name, place)) = named {
            return match normalised(&name) {
                same if same == name && !same.is_empty() => Ok(name),
                other => Err(format!(
                    "{place}: invalid project name \"{name}\": must consist only of lowercase alphanumeric characters, \
                     hyphens, and underscores as well as start with a letter or number: write `{}`",
                    if other.is_empty() { "project" } else { &other }
                )),
            };
        }
        let dir = self.dir.file_name().unwrap_or(OsStr::new("")).to_string_lossy();
        match normalised(&dir) {
            name if name.is_empty() => Err(format!(
                "project name must not be empty: the directory `{}` gives none, so write `name:` at the top, or set \
                 COMPOSE_PROJECT_NAME",
                self.dir.display()
            )),
            name => Ok(name),
        }
    }

    /// The service `name`. `asking` are those that asked for it, `known` those that were read already: without it,
    /// services that share others would be read again and again.
    fn service(
        &self,
        name: &str,
        asking: &mut Vec<String>,
        known: &mut BTreeMap<String, Service>,
    ) -> Read<Service> {
        if let Some(service) = known.get(name) {
            return Ok(service.clone());
        }
        if asking.iter().any(|other| other == name) {
            return Err(format!(
                "services.{name} takes from itself, by way of {}: take one `volumes_from` or `extends` out",
                asking.join(", ")
            ));
        }
        if asking.len() >= DEEPEST {
            return Err(format!(
                "services.{name} stands at the end of {DEEPEST} services that take from each other: take one out"
            ));
        }
        asking.push(name.to_owned());
        let node = self.find(name)?;
        let mut service = Service::default();
        if let Some(base) = node.get("extends") {
            service = self.extended(name, base, asking, known)?;
        }
        let own = self.own(name, node)?;
        service.specs.retain(|spec| own.iter().all(|other| other.target != spec.target));
        service.specs.extend(own);
        for (at, text) in self.texts(node, name, "volumes_from")? {
            self.taken(&text, &mut service, asking, known).map_err(|why| format!("{at}: `{text}`: {why}"))?;
        }
        asking.pop();
        known.insert(name.to_owned(), service.clone());
        Ok(service)
    }

    fn find(&self, name: &str) -> Read<&Node> {
        let Some(services) = self.top("services") else {
            return Err("it has no services: a compose file is a mapping with `services`".to_owned());
        };
        let Node::Map(entries) = services else {
            return Err(format!("services must be a mapping, and it is {}", services.kind()));
        };
        let Some((_, node)) = entries.iter().find(|(key, _)| key == name) else {
            let names: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
            let remedy = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if names.is_empty() => "it has none".to_owned(),
                None => format!("it has {}", names.join(", ")),
            };
            return Err(format!("no such service: {name}: {remedy}"));
        };
        match node {
            Node::Map(_) | Node::Null => Ok(node),
            other => Err(format!("services.{name} must be a mapping, and it is {}", other.kind())),
        }
    }

    /// What a service begins with that is another's with changes.
    fn extended(
        &self,
        name: &str,
        base: &Node,
        asking: &mut Vec<String>,
        known: &mut BTreeMap<String, Service>,
    ) -> Read<Service> {
        let at = format!("services.{name}.extends");
        if base.get("file").is_some() {
            return Err(format!(
                "{at}.file names another file, and one is read: write the volumes of that service into this file"
            ));
        }
        let base = match base {
            Node::Map(_) => {
                base.get("service").ok_or_else(|| format!("{at} names no service: write `service: NAME`"))?
            }
            node => node,
        };
        let base = self.scalar(base, &at)?;
        self.service(&base, asking, known).map_err(|why| format!("{at}: {why}"))
    }

    /// The grafts of `volumes` and `tmpfs`.
    fn own(&self, name: &str, node: &Node) -> Read<Vec<Spec>> {
        let mut specs = Vec::new();
        let key = format!("services.{name}.volumes");
        match node.get("volumes") {
            None => {}
            Some(Node::List(list)) => {
                for (at, node) in list.iter().enumerate() {
                    specs.push(compose_volume::read(self, name, node, &format!("{key}[{at}]"))?);
                }
            }
            Some(other) => return Err(format!("{key} must be a list, and it is {}", other.kind())),
        }
        for (at, text) in self.texts(node, name, "tmpfs")? {
            specs.push(tmpfs_flag::parse(text.as_bytes()).map_err(|why| format!("{at}: `{text}`: {why}"))?);
        }
        Ok(specs)
    }

    /// One element of `volumes_from`.
    fn taken(
        &self,
        text: &str,
        service: &mut Service,
        asking: &mut Vec<String>,
        known: &mut BTreeMap<String, Service>,
    ) -> Read<()> {
        if let Some(container) = text.strip_prefix("container:") {
            let other = volumes_from::parse(container.as_bytes())?;
            if !other.mountpoint.is_absolute() {
                return Err(
                    "there is no engine here that has containers: name the mountpoint of another stratafs mount, as \
                     `container:/MOUNTPOINT`"
                        .to_owned(),
                );
            }
            service.volumes_from.push(other);
            return Ok(());
        }
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        let read_only = volumes_from::read_only(mode.as_bytes())?;
        let other = self.service(name, asking, known)?;
        let from = VolumesFrom { mountpoint: PathBuf::new(), read_only };
        for spec in from.inherit(other.inherited.into_iter().chain(other.specs).collect()) {
            // The last one counts, as among mounts, and the list cannot grow beyond the targets there are.
            service.inherited.retain(|taken| taken.target != spec.target);
            service.inherited.push(spec);
        }
        for mut mount in other.volumes_from {
            mount.read_only |= read_only;
            if !service.volumes_from.contains(&mount) {
                service.volumes_from.push(mount);
            }
        }
        Ok(())
    }

    /// A key of a service that holds text or a list of texts: each with where it stands.
    fn texts(&self, node: &Node, service: &str, key: &str) -> Read<Vec<(String, String)>> {
        let at = format!("services.{service}.{key}");
        match node.get(key) {
            None => Ok(Vec::new()),
            Some(Node::List(list)) => list
                .iter()
                .enumerate()
                .map(|(index, node)| {
                    let at = format!("{at}[{index}]");
                    Ok((at.clone(), self.scalar(node, &at)?))
                })
                .collect(),
            Some(node @ Node::Text(_)) if key == "tmpfs" => Ok(vec![(at.clone(), self.scalar(node, &at)?)]),
            Some(other) => Err(format!("{at} must be a list, and it is {}", other.kind())),
        }
    }
}

/// Source: compose-go `loader/normalize.go`, `NormalizeProjectName`.
fn normalised(name: &str) -> String {
    let is_part = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let name: String = name.to_lowercase().chars().filter(is_part).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "compose_notes_tests.rs"]
mod notes_tests;
