//! What is attached inside the merged tree: from arguments, a compose file and the records of other mounts to one list.

use std::collections::BTreeMap;
use std::path::Path;

use super::args::GraftArgs;
use super::exit::{Failure, say};
use super::mounts;
use super::record::Seen;
use super::umount;
use crate::error::{Error, Result};
use crate::graft::{self, Source, Spec, VolumesFrom, dotenv};

/// The grafts that `args` ask for, those nearer to the root first. No source is looked at.
pub fn grafts(args: &GraftArgs) -> std::result::Result<Vec<Spec>, Failure> {
    let cwd = || {
        std::env::current_dir().map_err(|error| {
            Error::Setup(format!("the current directory cannot be told ({error}): change to another"))
        })
    };
    let read = || -> Result<(Vec<VolumesFrom>, graft::compose::Service, Vec<Spec>)> {
        let mut given = Vec::new();
        for text in &args.volume {
            given.push(graft::volume(text, &cwd()?)?);
        }
        for text in &args.mount {
            given.push(graft::mount(text, &cwd()?)?);
        }
        for text in &args.tmpfs {
            given.push(graft::tmpfs(text)?);
        }
        let from = args.volumes_from.iter().map(|text| graft::volumes_from(text)).collect::<Result<_>>()?;
        let service = match (&args.compose, &args.service) {
            (Some(file), Some(service)) => compose(file, service)?,
            // The one requires the other.
            _ => graft::compose::Service::default(),
        };
        Ok((from, service, given))
    };
    let (from, service, given) = read().map_err(Failure::usage)?;
    service.notes.iter().for_each(|note| say(&format!("warning: {note}")));
    let mut taken = Vec::new();
    for from in from.iter().chain(&service.volumes_from) {
        taken.extend(from.inherit(inherited(&from.mountpoint)?));
    }
    taken.extend(service.inherited);
    graft::collect(taken, service.specs.into_iter().chain(given).collect()).map_err(Failure::usage)
}

/// What `stratafs` has attached inside its mount at `mountpoint`: binds and volumes, and no tmpfs, whose content is
/// nobody else's. Read from the record of its daemon, where anonymous volumes have their names. A volume must
/// be there still.
/// Errors: `Failed` if there is no such mount, its daemon is gone, or has left no record that can be read.
pub fn inherited(mountpoint: &Path) -> std::result::Result<Vec<Spec>, Failure> {
    let failed = |why: &str| Failure::Failed(format!("--volumes-from {mountpoint:?}: {why}"));
    let mounts = mounts::all()
        .map_err(|error| failed(&format!("/proc/self/mountinfo: {error}: mount /proc first")))?;
    let entry = umount::find(&mounts, mountpoint)
        .map_err(|_| failed("no stratafs is mounted there: `stratafs ls` lists the mounts"))?;
    let seen = Seen::of(entry).ok_or_else(|| {
        failed("its daemon has left no record that you may read: ask as the user who mounted it")
    })?;
    if !seen.is_alive() {
        return Err(failed("its daemon is gone: unmount it with `stratafs umount`, and mount it again"));
    }
    let grafts = seen.details.grafts.into_iter();
    let kept = grafts.filter(|graft| !matches!(graft.source, Source::Tmpfs { .. })).map(|mut graft| {
        if let Source::Volume(volume) = &mut graft.source {
            // It was made with options that the record does not hold; without it there is nothing to share.
            volume.external = volume.name.is_some();
        }
        graft
    });
    Ok(kept.collect())
}

/// The storage of a service. Variables are those of the environment, and then those of the file `.env` beside it.
/// Source: docs.docker.com, "Interpolation", `.env` file.
fn compose(file: &Path, service: &str) -> Result<graft::compose::Service> {
    let beside = file.parent().map(|dir| dir.join(".env")).unwrap_or_default();
    let variables = match graft::read_text(&beside) {
        Ok(text) => dotenv::read(&text, &variable)
            .map_err(|why| Error::Setup(format!("variables in {beside:?}: {why}")))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            return Err(Error::Setup(format!(
                "variables in {beside:?}: {error}: make it readable, or remove it"
            )));
        }
    };
    graft::compose(file, service, |name| variable(name).or_else(|| variables.get(name).cloned()))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;

    use super::*;

    fn words(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    /// `.env` may have been written by another user.
    #[test]
    fn reading_env_beside_a_compose_file_never_blocks_and_is_not_quoted() {
        let dir = tempfile::TempDir::new().expect("dir");
        let (file, beside) = (dir.path().join("compose.yml"), dir.path().join(".env"));
        fs::write(&file, "services: {a: {volumes: ['/x:/x']}}").expect("file");
        let sentence = || match compose(&file, "a") {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        for (make, part) in [
            ("mkfifo", "it is no file"),
            ("ln -s /dev/zero", "it is no file"),
            ("truncate -s 1M", "larger than 256 KiB"),
            ("echo 'not=a secret $6$salt$hash:1' | tee", "line 1: "),
            ("echo 'no:t a secret' | tee", ""),
        ] {
            let script = format!("rm -f \"$0\"; {make} \"$0\" >/dev/null");
            let made = std::process::Command::new("sh").args(["-c", &script]).arg(&beside).status();
            assert!(made.expect("sh").success(), "{make}");
            let sentence = sentence();
            assert!(sentence.contains(part) && !sentence.contains("secret"), "{make}: {sentence}");
        }
    }

    #[test]
    fn all_that_is_asked_for_is_one_list_by_depth() {
        let dir = tempfile::TempDir::new().expect("dir");
        let file = dir.path().join("compose.yml");
        fs::write(dir.path().join(".env"), "STRATAFS_TEST_TARGET=/from/env # where\n").expect("env");
        let text = "services: {a: {volumes: ['${STRATAFS_TEST_TARGET}:/c/d/e'], volumes_from: [b]}, b: {volumes: [/c, /x]}}";
        fs::write(&file, text).expect("file");
        let args = GraftArgs {
            volume: words(&[".:/a/b", "/x:/x"]),
            mount: words(&["type=tmpfs,target=/a"]),
            tmpfs: words(&["/run/lock"]),
            compose: Some(file),
            service: Some("a".to_owned()),
            ..GraftArgs::default()
        };
        let all = grafts(&args).expect("grafts");
        let targets: Vec<_> = all.iter().map(|graft| graft.target.to_str().expect("text")).collect();
        assert_eq!(targets, ["/c", "/x", "/a", "/a/b", "/run/lock", "/c/d/e"]);
        assert_eq!(all[1].text, "/x:/x");
        let source = |path: &Path| Source::Bind { path: path.to_owned(), create: None };
        assert_eq!(all[3].source, source(&std::env::current_dir().expect("cwd")));
        let Source::Bind { path, .. } = &all[5].source else { unreachable!("bind") };
        assert_eq!(path, Path::new("/from/env"));
    }

    #[test]
    fn what_makes_no_sense_is_usage_and_what_is_not_there_is_failed() {
        let usage = |args: GraftArgs| match grafts(&args) {
            Err(Failure::Usage(sentence)) => sentence,
            other => unreachable!("{other:?}"),
        };
        let twice = GraftArgs { volume: words(&["/a:/x"]), tmpfs: words(&["/x"]), ..GraftArgs::default() };
        assert!(usage(twice).contains("Duplicate mount point: /x"));
        let volume = GraftArgs { volume: words(&["a:b"]), ..GraftArgs::default() };
        assert!(usage(volume).starts_with("-v `a:b`"));
        let from = GraftArgs { volumes_from: words(&["/:ro"]), ..GraftArgs::default() };
        match grafts(&from) {
            Err(Failure::Failed(sentence)) => {
                assert!(sentence.contains("\"/\"") && sentence.contains("stratafs ls"), "{sentence}");
            }
            other => unreachable!("{other:?}"),
        }
    }
}
