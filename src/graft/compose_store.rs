//! A volume under the top-level `volumes` of a compose file: what it is called in the store, and how it is made.
//!
//! Source: compose-spec `07-volumes.md`; compose-go `loader/normalize.go`, `loader/validate.go`.

use super::Volume;
use super::compose::Project;
use super::name::is_volume_name;
use super::shown::nearest;
use super::yaml::Node;

const KEYS: [&str; 5] = ["driver", "driver_opts", "external", "labels", "name"];

/// The volume that `service` calls `key`. The reason why not is a sentence.
pub(super) fn volume(project: &Project<'_>, service: &str, key: &str) -> Result<Volume, String> {
    let node = declared(project, service, key)?;
    let at = format!("volumes.{key}");
    check_keys(node, &at)?;
    let text = |name: &str| match node.get(name) {
        Some(node) => project.scalar(node, &format!("{at}.{name}")).map(Some),
        None => Ok(None),
    };
    let pairs = |name: &str| match node.get(name) {
        Some(node) => project.pairs(node, &format!("{at}.{name}")),
        None => Ok(Default::default()),
    };
    let (external, old_name) = external(project, node, &at)?;
    let given = text("name")?.filter(|name| !name.is_empty());
    if external {
        for other in ["driver", "driver_opts", "labels"] {
            if node.get(other).is_some() {
                return Err(format!(
                    "conflicting parameters \"external\" and \"{other}\" specified for volume \"{key}\": an external \
                     volume is there already, leave one of them out"
                ));
            }
        }
        if given.is_some() && old_name.is_some() {
            return Err(format!("{at}: volume.external.name and volume.name conflict; only use volume.name"));
        }
        let name = named(given.or(old_name).unwrap_or_else(|| key.to_owned()), &at)?;
        return Ok(Volume { name: Some(name), external, ..Volume::default() });
    }
    let own = project.name()?;
    let name = named(given.unwrap_or_else(|| format!("{own}_{key}")), &at)?;
    let mut labels = pairs("labels")?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    for (label, value) in [("project", own), ("volume", key.to_owned()), ("version", version)] {
        labels.insert(format!("com.docker.compose.{label}"), value);
    }
    Ok(Volume {
        name: Some(name),
        driver: text("driver")?.filter(|driver| !driver.is_empty()),
        options: pairs("driver_opts")?,
        labels,
        ..Volume::default()
    })
}

/// What stands under the key, which may be nothing.
fn declared<'a>(project: &'a Project<'_>, service: &str, key: &str) -> Result<&'a Node, String> {
    let entries = match project.top("volumes") {
        None => &[],
        Some(Node::Map(entries)) => entries.as_slice(),
        Some(other) => return Err(format!("volumes must be a mapping, and it is {}", other.kind())),
    };
    let Some((_, node)) = entries.iter().find(|(other, _)| other == key) else {
        let remedy = match nearest(key, entries.iter().map(|(other, _)| other.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "declare it with `{key}:` under the top-level `volumes:`, or begin a path of the host with `./`"
            ),
        };
        return Err(format!(
            "service \"{service}\" refers to undefined volume {key}: invalid compose project: {remedy}"
        ));
    };
    match node {
        Node::Null | Node::Map(_) => Ok(node),
        other => Err(format!("volumes.{key} must be a mapping, and it is {}", other.kind())),
    }
}

fn check_keys(node: &Node, at: &str) -> Result<(), String> {
    let Node::Map(entries) = node else { return Ok(()) };
    let unknown = entries.iter().find(|(key, _)| !KEYS.contains(&key.as_str()) && !key.starts_with("x-"));
    match unknown {
        Some((key, _)) => {
            Err(format!("{at}: additional properties '{key}' not allowed: give {}", KEYS.join(", ")))
        }
        None => Ok(()),
    }
}

/// Whether the volume must exist, and the name it has in the old form of saying so.
fn external(project: &Project<'_>, node: &Node, at: &str) -> Result<(bool, Option<String>), String> {
    let at = format!("{at}.external");
    match node.get("external") {
        None => Ok((false, None)),
        Some(node @ Node::Map(entries)) => {
            if let Some((key, _)) = entries.iter().find(|(key, _)| key != "name") {
                return Err(format!("{at}: additional properties '{key}' not allowed: give name"));
            }
            let name =
                node.get("name").map(|name| project.scalar(name, &format!("{at}.name"))).transpose()?;
            Ok((true, name.filter(|name| !name.is_empty())))
        }
        Some(node) => Ok((project.boolean(node, &at)?, None)),
    }
}

fn named(name: String, at: &str) -> Result<String, String> {
    if is_volume_name(&name) {
        return Ok(name);
    }
    Err(format!(
        "{at}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
         allowed: give another with `name:`"
    ))
}
