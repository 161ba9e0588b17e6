//! A tar archive as the content of a volume: all of it or nothing, and nothing outside of the volume.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use tar::EntryType;

use super::archive::{XATTR, time};
use super::attach::Fill;
use super::meta::{Meta, Populated, now};
use super::reader::{Head, Reader, device};
use super::store::Store;
use super::{driver, name};
use crate::error::{Error, Result};
use crate::sys::attr::{SetTime, chmod, chown, utimens};
use crate::sys::stat::Timestamp;
use crate::sys::xattr::{self, SetMode};
use crate::sys::{At, copy, name as names, open};

impl Store {
    /// Makes the content of the tar archive `from` that of the volume `volume`, which is made if there is none, and else has
    /// to be empty. Returns whether it was made. Errors: `Setup`; then the volume is as it was.
    pub fn import(&self, volume: &str, from: impl Read) -> Result<bool> {
        name::check(volume)?;
        let refused = |why: String| Error::Setup(format!("import {volume}: {why}"));
        let not_empty = || refused("the volume is not empty: name a new one, or empty it first".to_owned());
        if self.home(volume)?.is_some() {
            let user = Path::new("(stratafs volume import)");
            let Some(mut attached) = self.use_volume(volume, false, user, Fill::IfEmpty)? else {
                return Err(refused("the volume was removed in this moment: try again".to_owned()));
            };
            if !attached.needs_population {
                return Err(not_empty());
            }
            let dir = attached.population_dir()?;
            let top = open::root(&dir).map_err(|errno| refused(errno.desc().to_owned()))?;
            unpack(top.as_fd(), from).map_err(refused)?;
            attached.finish_population(&[])?;
            return Ok(false);
        }
        let mut meta = Meta::new(volume, driver::LOCAL, &BTreeMap::new(), &BTreeMap::new());
        meta.populated = Some(Populated { at: now(), layers: Vec::new() });
        let draft = self.draft(&meta)?;
        let top = draft.home.data()?;
        unpack(top.as_fd(), from).map_err(refused)?;
        let synced =
            open::file(At::fd(top.as_fd()), OFlag::O_DIRECTORY).and_then(|top| copy::sync_all(top.as_fd()));
        synced.map_err(|errno| refused(format!("it cannot be written to the disk ({})", errno.desc())))?;
        match draft.publish()? {
            true => Ok(true),
            false => Err(not_empty()),
        }
    }
}

/// Why an archive is refused, with its remedy.
type Refused<T> = std::result::Result<T, String>;

/// Unpacks into the directory `top`, which is empty.
fn unpack(top: BorrowedFd<'_>, mut from: impl Read) -> Refused<()> {
    let mut magic = Vec::new();
    from.by_ref().take(6).read_to_end(&mut magic).map_err(unreadable)?;
    for (start, program) in
        [(&b"\x1f\x8b"[..], "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")]
    {
        if magic.starts_with(start) {
            return Err(format!("the archive is compressed: give it through `{program} -dc`"));
        }
    }
    let mut unpack = Unpack { top, dirs: BTreeMap::new() };
    let mut archive = Reader::new(Cursor::new(magic).chain(from));
    while let Some(head) = archive.next().map_err(unreadable)? {
        let named = |why: String| format!("{:?} in the archive: {why}", OsStr::from_bytes(&head.path));
        unpack.entry(&head, &mut archive).map_err(named)?;
    }
    archive.finish().map_err(unreadable)?;
    unpack.finish_dirs()
}

struct Unpack<'a> {
    top: BorrowedFd<'a>,
    /// What directories get when all that is in them is there.
    dirs: BTreeMap<Vec<u8>, Attributes>,
}

/// What an object gets besides its content.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: Timestamp,
    xattrs: HashMap<CString, Vec<u8>>,
}

impl Unpack<'_> {
    fn entry(&mut self, head: &Head, data: &mut impl Read) -> Refused<()> {
        let kind = head.kind();
        let parts = components(&head.path)?;
        let attributes = attributes(head)?;
        let Some((last, above)) = parts.split_last() else {
            if kind != EntryType::Directory {
                return Err("it would replace the volume itself: leave it out".to_owned());
            }
            self.dirs.insert(Vec::new(), attributes);
            return Ok(());
        };
        let place = self.place(above)?;
        let at = At::new(place.as_fd(), last);
        if kind == EntryType::Directory {
            match names::mkdir(at, 0o700) {
                Ok(()) => {}
                Err(Errno::EEXIST) if open::dir(place.as_fd(), last).is_ok() => {}
                Err(errno) => return Err(told(errno)),
            }
            self.dirs.insert(parts.join(OsStr::new("/")).as_bytes().to_vec(), attributes);
            return Ok(());
        }
        match names::unlink(at) {
            // A later entry of the same name replaces the earlier, as tar has it.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR | Errno::EPERM) => {
                return Err("it would replace a directory: leave one out".to_owned());
            }
            Err(errno) => return Err(told(errno)),
        }
        self.make(head, data, at, &attributes)
    }

    /// Makes what is no directory.
    fn make(&self, head: &Head, data: &mut impl Read, at: At<'_>, attributes: &Attributes) -> Refused<()> {
        let kind = head.kind();
        let target = || head.link.as_deref().ok_or_else(|| "a link to nothing: leave it out".to_owned());
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let mut file = File::from(open::create(at, OFlag::O_WRONLY, 0o600).map_err(told)?);
                copy_data(data, &mut file)?;
            }
            EntryType::Symlink => names::symlink(OsStr::from_bytes(target()?), at).map_err(told)?,
            EntryType::Link => {
                let parts = components(target()?)?;
                let (last, above) =
                    parts.split_last().ok_or("a hard link to the volume itself: leave it out")?;
                let place = self.place(above)?;
                // It has its attributes already: those of its first name.
                return names::link(At::new(place.as_fd(), last), at).map_err(told);
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let format = match kind {
                    EntryType::Char => libc::S_IFCHR,
                    EntryType::Block => libc::S_IFBLK,
                    _ => libc::S_IFIFO,
                };
                let (major, minor) = device(head).map_err(header_is_broken)?;
                names::mknod(at, format | 0o600, major, minor).map_err(told)?;
            }
            other => return Err(format!("a type that is not known, {other:?}: leave it out")),
        }
        attributes.set(at, kind != EntryType::Symlink)
    }

    /// Opens a directory of the volume, made as far as it is missing. Never through a symlink.
    fn place(&self, path: &[&OsStr]) -> Refused<OwnedFd> {
        let mut place = open::dir(self.top, OsStr::new(".")).map_err(told)?;
        for part in path {
            let at = At::new(place.as_fd(), part);
            match names::mkdir(at, 0o755) {
                Ok(()) => chmod(at, 0o755).map_err(told)?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(told(errno)),
            }
            place = open::dir(place.as_fd(), part).map_err(|errno| match errno {
                Errno::ELOOP | Errno::ENOTDIR => {
                    format!("its path leads through {part:?}, which is no directory: leave it out")
                }
                errno => told(errno),
            })?;
        }
        Ok(place)
    }

    /// The deepest first: times of a directory change with what is made in it, and a closed one cannot be entered.
    fn finish_dirs(&self) -> Refused<()> {
        for (path, attributes) in self.dirs.iter().rev() {
            let explain = |why: String| format!("{:?} in the archive: {why}", OsStr::from_bytes(path));
            let dir = self.place(&components(path)?).map_err(explain)?;
            attributes.set(At::fd(dir.as_fd()), true).map_err(explain)?;
        }
        Ok(())
    }
}

impl Attributes {
    /// In an order in which none takes another away: a new owner clears bits and capabilities.
    fn set(&self, at: At<'_>, has_mode: bool) -> Refused<()> {
        let root = nix::unistd::geteuid().is_root();
        if root {
            chown(at, Some(self.uid), Some(self.gid)).map_err(told)?;
        }
        for (attribute, value) in &self.xattrs {
            match xattr::set(at, attribute, value, SetMode::Any) {
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                // As tar does for ordinary users, who can neither give files away nor mark them.
                Err(Errno::EPERM) if !root => {}
                Err(errno) => return Err(format!("its attribute {attribute:?}: {}", told(errno))),
            }
        }
        if has_mode {
            chmod(at, self.mode).map_err(told)?;
        }
        utimens(at, SetTime::To(self.mtime), SetTime::To(self.mtime)).map_err(told)
    }
}

/// The names on the way, relative to the volume. Refuses what would leave it.
fn components(path: &[u8]) -> Refused<Vec<&OsStr>> {
    if path.starts_with(b"/") {
        return Err("it is absolute, and would not be in the volume: make it relative".to_owned());
    }
    if path.contains(&0) {
        return Err("its name has a NUL: leave it out".to_owned());
    }
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts: Vec<&OsStr> = parts.map(OsStr::from_bytes).collect();
    if parts.contains(&OsStr::new("..")) {
        return Err("it has `..`, and could leave the volume: leave it out".to_owned());
    }
    Ok(parts)
}

fn attributes(head: &Head) -> Refused<Attributes> {
    let fields = head.header.as_old();
    let id = |key: &str, field: &[u8]| {
        let id = head.number(key, field).map_err(header_is_broken)?;
        // The highest means "leave it as it is" to chown(2).
        let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(id);
        id.map_err(|id| format!("its {key} {id} is no id: leave it out"))
    };
    let mtime = match head.record("mtime") {
        Some(text) => time(text).ok_or("its time is no number: write the archive again")?,
        None => {
            let secs = head.number("mtime", &fields.mtime).map_err(header_is_broken)?;
            let secs =
                i64::try_from(secs).map_err(|_| format!("its time {secs} is too far away: leave it out"))?;
            Timestamp { secs, nanos: 0 }
        }
    };
    let mut xattrs = HashMap::new();
    for (key, value) in head.records() {
        let Some(name) = key.strip_prefix(XATTR.as_bytes()) else { continue };
        let name = String::from_utf8_lossy(name).replace("%3D", "=").replace("%25", "%");
        let name = CString::new(name).map_err(|_| "an attribute's name has a NUL: leave it out")?;
        xattrs.insert(name, value.to_vec());
    }
    let (uid, gid) = (id("uid", &fields.uid)?, id("gid", &fields.gid)?);
    let mode = head.number("mode", &fields.mode).map_err(header_is_broken)?;
    Ok(Attributes { uid, gid, mode: (mode & 0o7777) as u32, mtime, xattrs })
}

fn header_is_broken(error: io::Error) -> String {
    format!("its header is broken ({error}): write the archive again")
}

fn copy_data(from: &mut impl Read, to: &mut File) -> Refused<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let got = from.read(&mut buffer).map_err(unreadable)?;
        if got == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..got).unwrap_or(&buffer))
            .map_err(|error| told(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
    }
}

fn unreadable(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the archive has no end: it was cut off; write it again".to_owned(),
        _ => format!("the archive cannot be read ({error}): give a whole, plain tar archive"),
    }
}

fn told(errno: Errno) -> String {
    let remedy = match errno {
        Errno::ENOSPC | Errno::EDQUOT => "make room",
        Errno::EPERM | Errno::EACCES => "import as root, or leave it out",
        _ => "see to the volume's filesystem, or leave it out",
    };
    format!("{}: {remedy}", errno.desc())
}
