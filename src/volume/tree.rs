//! What can be done to a whole tree: removing it, and adding up what is in it. Neither crosses a mount.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;

use crate::merge::listing::FileKind;
use crate::sys::{At, attr, cred, dir, name, open, stat};

/// How deep a tree is entered with a descriptor per level; what is deeper is moved up first.
const DEEP: usize = 200;

/// The names in a directory, with their types where the filesystem tells.
pub(super) fn names(place: BorrowedFd<'_>) -> Result<Vec<(OsString, Option<FileKind>)>> {
    let mut names = Vec::new();
    dir::read(place, false, |entry| {
        names.push((entry.name.to_owned(), entry.kind));
        Ok(())
    })?;
    Ok(names)
}

/// Removes what is at `at`, and all below it. No such name is as good. Errors: EBUSY where something is mounted below.
pub(super) fn remove(at: At<'_>) -> Result<()> {
    match name::unlink(at) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    match open_dir(at) {
        Ok(top) => {
            let mut moved = 0;
            clear(top.as_fd(), top.as_fd(), 0, &mut moved)?;
        }
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    gone(name::rmdir(at))
}

fn open_dir(at: At<'_>) -> Result<std::os::fd::OwnedFd> {
    open::dir_of_mount(at.dir, at.name)
        .map_err(|errno| if errno == Errno::EXDEV { Errno::EBUSY } else { errno })
}

fn gone(result: Result<()>) -> Result<()> {
    if result == Err(Errno::ENOENT) { Ok(()) } else { result }
}

/// Removes all below `place`, which is `depth` below `top`.
fn clear(top: BorrowedFd<'_>, place: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> Result<()> {
    if !cred::may_override_modes() {
        // What its owner closed must not stay; who is not its owner is refused below.
        let _ = attr::chmod(At::fd(place), 0o700);
    }
    // What was moved up here meanwhile is found by the next round.
    loop {
        let names = names(place)?;
        if names.is_empty() {
            return Ok(());
        }
        for (name, kind) in names {
            let at = At::new(place, &name);
            if kind != Some(FileKind::Dir) {
                match name::unlink(at) {
                    Err(Errno::EISDIR | Errno::EPERM) => {}
                    result => {
                        gone(result)?;
                        continue;
                    }
                }
            }
            if depth >= DEEP {
                *moved += 1;
                let up = OsString::from(format!(".deep-{moved}"));
                match name::rename_new(at, At::new(top, &up)) {
                    Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => continue,
                    Err(errno) => return Err(errno),
                }
            }
            let below = match open_dir(at) {
                Err(Errno::ENOENT) => continue,
                result => result?,
            };
            clear(top, below.as_fd(), depth + 1, moved)?;
            gone(name::rmdir(at))?;
        }
    }
}

/// The bytes of all files below `place`, each counted once, directories not at all: as Docker counts them.
/// Source: moby `pkg/directory`.
pub(super) fn size(place: BorrowedFd<'_>) -> Result<u64> {
    fn add(place: BorrowedFd<'_>, seen: &mut HashSet<(u64, u64)>) -> Result<u64> {
        let mut bytes = 0;
        for (name, _) in names(place)? {
            let at = At::new(place, &name);
            match stat::stat(at) {
                Ok(facts) if facts.kind == FileKind::Dir => match open::dir(place, OsStr::new(&name)) {
                    Ok(below) => bytes += add(below.as_fd(), seen)?,
                    Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(errno),
                },
                Ok(facts) if facts.nlink > 1 && !seen.insert((facts.dev, facts.ino)) => {}
                Ok(facts) => bytes += facts.size,
                // It went while we looked.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(bytes)
    }
    add(place, &mut HashSet::new())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_tree_goes_whole_and_what_a_symlink_leads_to_stays() {
        let temp = tempfile::tempdir().expect("dir");
        fs::create_dir_all(temp.path().join("t/a/b")).expect("dirs");
        fs::create_dir(temp.path().join("kept")).expect("dir");
        fs::write(temp.path().join("kept/file"), "x").expect("file");
        fs::write(temp.path().join("t/a/b/file"), "x").expect("file");
        std::os::unix::fs::symlink("../kept", temp.path().join("t/link")).expect("link");
        fs::set_permissions(temp.path().join("t/a"), fs::Permissions::from_mode(0o0)).expect("mode");
        let top = open::root(temp.path()).expect("top");
        remove(At::new(top.as_fd(), OsStr::new("t"))).expect("removed");
        remove(At::new(top.as_fd(), OsStr::new("t"))).expect("nothing left to remove");
        assert!(!temp.path().join("t").exists() && temp.path().join("kept/file").exists());
    }

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_goes_too() {
        let temp = tempfile::tempdir().expect("dir");
        let top = open::root(temp.path()).expect("top");
        let mut place = top.try_clone().expect("clone");
        for _ in 0..3000 {
            name::mkdir(At::new(place.as_fd(), OsStr::new("d")), 0o755).expect("dir");
            place = open::dir(place.as_fd(), OsStr::new("d")).expect("open");
        }
        drop(place);
        remove(At::new(top.as_fd(), OsStr::new("d"))).expect("removed");
        assert!(dir::is_empty(top.as_fd()).expect("empty"));
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let temp = tempfile::tempdir().expect("dir");
        fs::create_dir(temp.path().join("d")).expect("dir");
        fs::write(temp.path().join("d/one"), [0; 1000]).expect("file");
        fs::hard_link(temp.path().join("d/one"), temp.path().join("two")).expect("link");
        fs::write(temp.path().join("three"), [0; 23]).expect("file");
        assert_eq!(size(open::root(temp.path()).expect("top").as_fd()), Ok(1023));
    }
}
