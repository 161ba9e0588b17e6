//! All grafts of one mount: which goes before which, and what may not stand together.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::shown::shown;
use super::{Cache, Cow, Source, Spec, is_volume_name, target};
use crate::config::ids;
use crate::error::{Error, Result};

/// The grafts of a mount: of `inherited`, taken over from other mounts, those whose target is not also given, and
/// `given`. What stands nearer to the root comes first, so a graft inside another comes after it.
/// Errors: `Setup` for a target that is given twice. Of two inherited ones the later counts.
/// Source: moby `daemon/volumes.go`, `registerMountPoints`; `daemon/volumes_unix.go`, `sortMounts`.
pub fn collect(inherited: Vec<Spec>, given: Vec<Spec>) -> Result<Vec<Spec>> {
    for (at, spec) in given.iter().enumerate() {
        check(spec)?;
        if let Some(other) = given[..at].iter().find(|other| other.target == spec.target) {
            return Err(Error::Setup(format!(
                "Duplicate mount point: {}: `{}` and `{}` are both attached there, leave one of them out",
                shown(spec.target.as_os_str().as_bytes()),
                other.text,
                spec.text
            )));
        }
    }
    let mut all: Vec<Spec> = Vec::with_capacity(inherited.len() + given.len());
    for spec in inherited {
        check(&spec)?;
        all.retain(|other| other.target != spec.target);
        all.push(spec);
    }
    all.retain(|spec| given.iter().all(|other| other.target != spec.target));
    all.extend(given);
    // Stable: what was said first stays first among equals.
    all.sort_by_key(|spec| spec.target.components().count());
    Ok(all)
}

/// `spec` as anybody may know it: the options of a volume may hold passwords, and who attaches it again needs none.
pub fn published(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    if let Source::Volume(volume) = &mut spec.source
        && !volume.options.is_empty()
    {
        volume.options.clear();
        let name = volume.name.as_deref().map(|name| format!("source={name},")).unwrap_or_default();
        let target = shown(spec.target.as_os_str().as_bytes());
        let access = if spec.read_only { ",readonly" } else { "" };
        spec.text = format!("type=volume,{name}target={target}{access}");
    }
    spec
}

/// Whether `spec` is one that a grammar could have made, for those that come from elsewhere.
/// Errors: `Setup` with what is wrong with it.
pub fn check(spec: &Spec) -> Result<()> {
    why_not(spec).map_or(Ok(()), |why| {
        Err(Error::Setup(format!("the graft `{}` cannot be: {why}", shown(spec.text.as_bytes()))))
    })
}

fn why_not(spec: &Spec) -> Option<&'static str> {
    if !is_clean(&spec.target) || spec.target == Path::new("/") {
        return Some("its target is no clean absolute path below the root");
    }
    match &spec.source {
        Source::Bind { path, .. } if !is_clean(path) => Some("its source is no clean absolute path"),
        Source::Volume(volume) if volume.name.as_deref().is_some_and(|name| !is_volume_name(name)) => {
            Some("a volume cannot have this name")
        }
        Source::Volume(volume) if volume.subpath.as_deref().is_some_and(|path| !is_inside(path)) => {
            Some("its subpath leaves the volume")
        }
        Source::Tmpfs { mode: Some(mode), .. } if *mode > 0o7777 => Some("its mode has unknown bits"),
        Source::Tmpfs { .. } if spec.cow.is_some() => Some("a tmpfs has nothing to copy"),
        _ if spec.cow.is_some() && spec.read_only => Some("it is read-only and keeps changes"),
        _ if matches!(&spec.cow, Some(Cow::Kept { upper, work }) if !is_clean(upper) || !is_clean(work)) => {
            Some("a layer of its changes is no clean absolute path")
        }
        _ if matches!(spec.cache, Cache::Ttl(ttl) if ttl > Duration::from_secs(1_000_000_000)) => {
            Some("its cache=ttl: is longer than any mount lives")
        }
        _ if ids::disjoint(&spec.ids.uids).is_err() || ids::disjoint(&spec.ids.gids).is_err() => {
            Some("its maps of ids overlap or pass the last id")
        }
        _ => None,
    }
}

fn is_clean(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    // Paths compare by components, so that `/a/` would equal `/a`.
    target::absolute(bytes, "").is_ok_and(|clean| clean.as_os_str() == path.as_os_str())
}

/// Relative, of names only.
fn is_inside(path: &Path) -> bool {
    !path.as_os_str().is_empty()
        && is_clean(&Path::new("/").join(path))
        && !path.as_os_str().as_bytes().starts_with(b"/")
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
