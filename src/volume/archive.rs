//! A volume as a tar archive: owners, modes, times to the nanosecond, xattrs, hard links, devices, as PAX has them.
//! Source: pax(1) of POSIX, "ustar" and "pax Interchange Format"; `SCHILY.xattr.` as star and GNU tar write it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::OFlag;
use tar::{Builder, EntryType, Header};

use super::store::Store;
use super::tree;
use crate::error::{Error, Result};
use crate::merge::listing::FileKind;
use crate::sys::stat::{Stat, Timestamp};
use crate::sys::{At, name, open, stat, xattr};

/// In front of the name of an extended attribute.
pub(super) const XATTR: &str = "SCHILY.xattr.";

impl Store {
    /// Writes all that is in a volume to `out` as a tar archive; how many sockets were left out, which tar does not have.
    /// The volume counts as used meanwhile. Errors: `Setup`.
    pub fn export(&self, volume: &str, out: impl Write) -> Result<u64> {
        let attached = self.use_existing(volume, Path::new("(stratafs volume export)"))?;
        let failed = |error: io::Error| {
            Error::Setup(format!("export {volume}: {error}: what was written is no whole archive"))
        };
        let data = attached.open_data()?;
        let mut export = Export { out: Builder::new(out), links: HashMap::new(), sockets: 0 };
        export
            .object(At::fd(data.as_fd()), b"./")
            .and_then(|()| export.below(data.as_fd(), b""))
            .map_err(failed)?;
        export.out.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
        Ok(export.sockets)
    }
}

struct Export<W: Write> {
    out: Builder<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    sockets: u64,
}

impl<W: Write> Export<W> {
    /// All below the directory `place`, whose path is `path`.
    fn below(&mut self, place: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
        let mut names = tree::names(place)?;
        // The same volume is the same archive.
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, _) in names {
            let path = [path, name.as_bytes()].concat();
            let at = At::new(place, &name);
            let explain = |error: io::Error| {
                io::Error::new(error.kind(), format!("{:?}: {error}", OsStr::from_bytes(&path)))
            };
            match stat::stat(at) {
                Ok(facts) if facts.kind == FileKind::Dir => {
                    let path = [&path[..], b"/"].concat();
                    let below = open::dir(place, &name).map_err(io::Error::from).map_err(explain)?;
                    self.object(At::fd(below.as_fd()), &path).map_err(explain)?;
                    self.below(below.as_fd(), &path)?;
                }
                Ok(_) => self.object(at, &path).map_err(explain)?,
                // It went while we looked.
                Err(nix::errno::Errno::ENOENT) => {}
                Err(errno) => return Err(explain(errno.into())),
            }
        }
        Ok(())
    }

    fn object(&mut self, at: At<'_>, path: &[u8]) -> io::Result<()> {
        let mut facts = stat::stat(at)?;
        // Opened first, so that attributes and bytes are those of one file.
        let mut file = match facts.kind {
            FileKind::Regular => Some(File::from(open::file(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?)),
            _ => None,
        };
        if let Some(file) = &file {
            facts = stat::stat(At::fd(file.as_fd()))?;
        }
        let at = file.as_ref().map_or(at, |file| At::fd(file.as_fd()));
        let mut entry = Entry::new(&facts);
        entry.path(path);
        if facts.nlink > 1 && facts.kind != FileKind::Dir {
            if let Some(first) = self.links.get(&(facts.dev, facts.ino)) {
                entry.link(EntryType::Link, first);
                return entry.write(&mut self.out, io::empty());
            }
            self.links.insert((facts.dev, facts.ino), path.to_vec());
        }
        match facts.kind {
            FileKind::Socket => {
                self.sockets += 1;
                return Ok(());
            }
            FileKind::Symlink => entry.link(EntryType::Symlink, name::readlink(at)?.as_bytes()),
            FileKind::Char | FileKind::Block => {
                entry.header.set_device_major(facts.rdev_major)?;
                entry.header.set_device_minor(facts.rdev_minor)?;
            }
            FileKind::Regular => entry.header.set_size(facts.size),
            FileKind::Dir | FileKind::Fifo => {}
        }
        for attribute in xattr::list(at)? {
            let Ok(name) = attribute.to_str() else { continue };
            if let Some(value) = xattr::get(at, &attribute)? {
                // As GNU tar does: a record ends its key at the first `=`.
                entry.record(&format!("{XATTR}{}", name.replace('%', "%25").replace('=', "%3D")), &value);
            }
        }
        match file.take() {
            // A file that shrinks meanwhile is padded, as its header has promised its size.
            Some(file) => entry.write(&mut self.out, file.chain(io::repeat(0)).take(facts.size)),
            None => entry.write(&mut self.out, io::empty()),
        }
    }
}

/// One entry: a header, and records for what does not fit into it.
struct Entry {
    header: Header,
    records: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn new(facts: &Stat) -> Entry {
        let mut header = Header::new_ustar();
        header.set_entry_type(match facts.kind {
            FileKind::Regular | FileKind::Socket => EntryType::Regular,
            FileKind::Dir => EntryType::Directory,
            FileKind::Symlink => EntryType::Symlink,
            FileKind::Char => EntryType::Char,
            FileKind::Block => EntryType::Block,
            FileKind::Fifo => EntryType::Fifo,
        });
        header.set_mode(facts.mode);
        header.set_uid(facts.uid.into());
        header.set_gid(facts.gid.into());
        header.set_mtime(u64::try_from(facts.mtime.secs).unwrap_or(0));
        header.set_size(0);
        let mut entry = Entry { header, records: Vec::new() };
        if facts.mtime.nanos != 0 || facts.mtime.secs < 0 {
            entry.record("mtime", decimal(facts.mtime).as_bytes());
        }
        entry
    }

    fn record(&mut self, key: &str, value: &[u8]) {
        self.records.push((key.to_owned(), value.to_vec()));
    }

    fn path(&mut self, path: &[u8]) {
        if !fits(&mut self.header.as_old_mut().name, path) {
            self.record("path", path);
        }
    }

    fn link(&mut self, kind: EntryType, to: &[u8]) {
        self.header.set_entry_type(kind);
        self.header.set_size(0);
        if !fits(&mut self.header.as_old_mut().linkname, to) {
            self.record("linkpath", to);
        }
    }

    fn write(mut self, out: &mut Builder<impl Write>, data: impl Read) -> io::Result<()> {
        if !self.records.is_empty() {
            out.append_pax_extensions(self.records.iter().map(|(key, value)| (key.as_str(), &value[..])))?;
        }
        self.header.set_cksum();
        out.append(&self.header, data)
    }
}

/// Puts `text` into a field; false if only its beginning fits, or if a reader could take it for something else.
fn fits(field: &mut [u8], text: &[u8]) -> bool {
    field.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    text.len() <= field.len() && text.is_ascii()
}

/// Seconds as a decimal number. The parts of a time before 1970 are a negative second and nanoseconds after it.
fn decimal(time: Timestamp) -> String {
    match (time.secs, time.nanos) {
        (secs, 0) => secs.to_string(),
        (secs, nanos) if secs >= 0 => format!("{secs}.{nanos:09}"),
        (secs, nanos) => format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos),
    }
}

/// What `decimal` says; nothing if it is no number.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = secs.parse().ok().filter(|secs| *secs >= 0)?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (sign, nanos) {
        (1, nanos) => Timestamp { secs, nanos },
        (_, 0) => Timestamp { secs: -secs, nanos: 0 },
        (_, nanos) => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (1, 5, "1.000000005"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.500000000"),
            (-3, 999_999_999, "-2.000000001"),
        ] {
            assert_eq!(decimal(Timestamp { secs, nanos }), text);
            assert_eq!(time(text.as_bytes()), Some(Timestamp { secs, nanos }));
        }
        assert_eq!(time(b"7.25"), Some(Timestamp { secs: 7, nanos: 250_000_000 }));
        assert_eq!(time(b"1.1234567899"), Some(Timestamp { secs: 1, nanos: 123_456_789 }));
        for bad in ["", "x", "1.x", "1.-1", "--1", "1e3"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }
}
