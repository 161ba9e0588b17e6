//! Walking paths one name at a time, where the kernel has no openat2(2) or a filter of calls keeps it away (Linux before 5.6, old
//! container engines). Each step opens one name of an open directory and follows nothing, so a walk ends beneath where it began,
//! whatever is renamed meanwhile.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat, openat2, readlinkat};
use nix::sys::stat::Mode;

use super::At;
use super::stat::stat;
use crate::merge::listing::FileKind;

/// How often a path may lead through a symlink. Source: path_resolution(7).
const LINKS: u32 = 40;

/// Whether the kernel resolves paths by rules, with openat2(2).
pub(super) fn kernel_resolves() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // A filter may answer EPERM as well as ENOSYS, which an object may, too; there is nothing at `/` that would.
    *ANSWER.get_or_init(|| openat2(AT_FDCWD, "/", OpenHow::new().flags(PLACE)).is_ok())
}

const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What a walk does with a mount on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounts {
    Entered,
    Refused,
}

/// Opens `path` beneath `dir`.
///
/// # Errors
///
/// `ELOOP` for a symlink; `EXDEV` for a path that is absolute or goes up, and for a mount where those are refused.
pub(super) fn beneath(
    dir: BorrowedFd<'_>,
    path: &OsStr,
    flags: OFlag,
    mode: Mode,
    mounts: Mounts,
) -> Result<OwnedFd> {
    let bytes = path.as_bytes();
    if bytes.is_empty() {
        return Err(Errno::ENOENT);
    }
    if bytes.starts_with(b"/") {
        return Err(Errno::EXDEV);
    }
    let names: Vec<&[u8]> =
        bytes.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    let own = match mounts {
        Mounts::Refused => Some(mount_of(dir)?),
        Mounts::Entered => None,
    };
    let (last, way) = names.split_last().map_or((&b"."[..], &[][..]), |(last, way)| (*last, way));
    let mut here: Option<OwnedFd> = None;
    for name in way {
        here = Some(step(here.as_ref().map_or(dir, AsFd::as_fd), name, own)?);
    }
    let here = here.as_ref().map_or(dir, AsFd::as_fd);
    if last == b".." {
        return Err(Errno::EXDEV);
    }
    // So ends the path of a directory.
    let dir_only = if [&b"/"[..], b"/."].iter().any(|end| bytes.ends_with(end)) {
        OFlag::O_DIRECTORY
    } else {
        OFlag::empty()
    };
    let flags = flags | dir_only | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = open_name(here, OsStr::from_bytes(last), flags, mode)?;
    same_mount(opened.as_fd(), own)?;
    Ok(opened)
}

/// Opens the directory at `path`, which may lead through symlinks, but not through those of procfs that lead to what a process has
/// open.
///
/// # Errors
///
/// `ELOOP` for such a symlink, and for too many.
pub(super) fn by_names(path: &Path) -> Result<OwnedFd> {
    let root = |path: &str| openat(AT_FDCWD, path, PLACE, Mode::empty());
    let mut here = root(if path.is_absolute() { "/" } else { "." })?;
    let mut links = 0;
    // What is still to be walked, the next part last.
    let mut rest = parts(path);
    while let Some(part) = rest.pop() {
        let name: &OsStr = &part;
        match openat(here.as_fd(), name, PLACE, Mode::empty()) {
            Ok(next) => here = next,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                if stat(At::new(here.as_fd(), name))?.kind != FileKind::Symlink {
                    return Err(Errno::ENOTDIR);
                }
                links += 1;
                if links > LINKS || is_magic(here.as_fd())? {
                    return Err(Errno::ELOOP);
                }
                let to = PathBuf::from(readlinkat(here.as_fd(), name)?);
                if to.is_absolute() {
                    here = root("/")?;
                }
                rest.extend(parts(&to));
            }
            Err(Errno::EINTR) => rest.push(part),
            Err(errno) => return Err(errno),
        }
    }
    Ok(here)
}

/// The names of a path, last one first.
fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Whether the symlinks of a directory may lead to what a process has open: those of procfs do, but for the few at its root, which
/// are names of other things in procfs. Source: proc(5).
fn is_magic(dir: BorrowedFd<'_>) -> Result<bool> {
    let kind = nix::sys::statfs::fstatfs(dir)?.filesystem_type();
    if kind != nix::sys::statfs::PROC_SUPER_MAGIC {
        return Ok(false);
    }
    const PROC_ROOT_INO: u64 = 1;
    Ok(stat(At::fd(dir))?.ino != PROC_ROOT_INO)
}

/// One directory further.
fn step(dir: BorrowedFd<'_>, name: &[u8], mount: Option<u64>) -> Result<OwnedFd> {
    if name == b".." {
        return Err(Errno::EXDEV);
    }
    let name = OsStr::from_bytes(name);
    let next = match open_name(dir, name, PLACE, Mode::empty()) {
        // openat2(2) says of a symlink on the way that it is one.
        Err(Errno::ENOTDIR) if stat(At::new(dir, name)).is_ok_and(|it| it.kind == FileKind::Symlink) => {
            return Err(Errno::ELOOP);
        }
        result => result?,
    };
    same_mount(next.as_fd(), mount)?;
    Ok(next)
}

fn open_name(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    loop {
        match openat(dir, name, flags, mode) {
            // A lease of another process.
            Err(Errno::EINTR) => continue,
            result => return result,
        }
    }
}

fn same_mount(fd: BorrowedFd<'_>, mount: Option<u64>) -> Result<()> {
    match mount {
        Some(mount) if mount_of(fd)? != mount => Err(Errno::EXDEV),
        _ => Ok(()),
    }
}

/// The number of the mount that `fd` was opened through. Source: proc_pid_fdinfo(5), `mnt_id`.
fn mount_of(fd: BorrowedFd<'_>) -> Result<u64> {
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let number = facts.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    number.and_then(|number| number.trim().parse().ok()).ok_or(Errno::ENOSYS)
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::*;

    use std::fs;
    use std::os::unix::fs::symlink;

    /// Each path, opened in both ways, answers the same and leads to the same.
    #[test]
    fn a_walk_answers_as_openat2() {
        let temp = tempfile::tempdir().expect("temp");
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("d/e")).expect("dir");
        fs::write(at("d/f"), "x").expect("file");
        for (to, name) in [("d", "link"), ("f", "d/l"), ("/", "root"), ("nothing", "dangles")] {
            symlink(to, at(name)).expect("link");
        }
        let top = open::root(temp.path()).expect("top");
        use nix::fcntl::ResolveFlag as R;
        let never = R::RESOLVE_BENEATH | R::RESOLVE_NO_SYMLINKS | R::RESOLVE_NO_MAGICLINKS;
        let paths = [
            "d",
            "d/e",
            "d//e/",
            "d/./e",
            ".",
            "",
            "..",
            "d/../d",
            "/",
            "/etc",
            "link",
            "link/e",
            "d/l",
            "root",
            "root/etc",
            "dangles",
            "dangles/x",
            "d/f",
            "d/f/x",
            "d/f/",
            "nothing",
            "nothing/x",
        ];
        let flags = [
            PLACE,
            OFlag::O_PATH | OFlag::O_NOFOLLOW,
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW,
            OFlag::O_WRONLY | OFlag::O_NOFOLLOW,
        ];
        for path in paths {
            for flags in flags {
                let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(never);
                let which = |fd: Result<OwnedFd>| {
                    fd.map(|fd| {
                        let it = stat(At::fd(fd.as_fd())).expect("stat");
                        (it.dev, it.ino)
                    })
                };
                let by_kernel = which(openat2(&top, path, how));
                let walked =
                    which(beneath(top.as_fd(), OsStr::new(path), flags, Mode::empty(), Mounts::Entered));
                // A way up that stays beneath is not walked.
                if path != "d/../d" {
                    assert_eq!(walked, by_kernel, "{path:?} {flags:?}");
                } else {
                    assert_eq!(walked, Err(Errno::EXDEV));
                }
            }
        }
    }

    #[test]
    fn a_walk_by_names_answers_as_openat2() {
        let temp = tempfile::tempdir().expect("temp");
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("d/e")).expect("dir");
        fs::write(at("f"), "x").expect("file");
        symlink(at("d"), at("absolute")).expect("link");
        symlink("../d/./e/..", at("d/relative")).expect("link");
        symlink("loop", at("loop")).expect("link");
        symlink("/proc/self/cwd", at("magic")).expect("link");
        let own = fs::File::open(temp.path()).expect("open");
        let by_fd = format!("/proc/self/fd/{}", own.as_raw_fd());
        let inside =
            ["", "d/e", "absolute", "absolute/e", "d/relative/e", "loop", "magic", "f", "f/x", "nothing"];
        let inside = inside.map(|name| at(name).into_os_string().into_string().expect("text"));
        let outside =
            ["/proc/self", "/proc/self/fd", "/proc/thread-self/cwd", "/proc/self/root", &by_fd, ".", ".."];
        for path in inside.iter().map(String::as_str).chain(outside) {
            let which = |fd: Result<OwnedFd>| {
                fd.map(|fd| {
                    let it = stat(At::fd(fd.as_fd())).expect("stat");
                    (it.dev, it.ino)
                })
            };
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let how = OpenHow::new().flags(flags).resolve(nix::fcntl::ResolveFlag::RESOLVE_NO_MAGICLINKS);
            assert_eq!(which(by_names(Path::new(path))), which(openat2(AT_FDCWD, path, how)), "{path:?}");
        }
    }

    #[test]
    fn a_walk_that_refuses_mounts_stops_at_one() {
        let top = open::root(Path::new("/")).expect("top");
        let walk = |path: &str, mounts| beneath(top.as_fd(), OsStr::new(path), PLACE, Mode::empty(), mounts);
        assert!(walk("proc/self/../sys", Mounts::Entered).is_err());
        assert!(walk("proc/sys", Mounts::Entered).is_ok());
        assert_eq!(walk("proc/sys", Mounts::Refused).err(), Some(Errno::EXDEV));
        assert_eq!(walk("proc", Mounts::Refused).err(), Some(Errno::EXDEV));
    }
}
