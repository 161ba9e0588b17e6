//! Which mounts there are: `/proc/self/mountinfo`, read without asking any filesystem, so that a dead or busy daemon
//! cannot hang the reader. Source: proc(5), "/proc/pid/mountinfo".

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::config::MountFlags;

/// The type of our mounts.
pub const OUR_TYPE: &str = "fuse.stratafs";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `major:minor` of the filesystem: its name for as long as it is mounted anywhere.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Options of this mount, `rw` or `ro` first.
    pub options: String,
    /// The type, subtype included.
    pub fs_type: String,
    /// The source, as given at mount.
    pub source: String,
    /// Options of the filesystem, `rw` or `ro` first.
    pub super_options: String,
}

impl Entry {
    /// Whether stratafs serves it.
    pub fn is_ours(&self) -> bool {
        self.fs_type == OUR_TYPE
    }

    /// The flags of the mount, as options name them.
    pub fn flags(&self) -> MountFlags {
        let all: Vec<&str> = self.options.split(',').chain(self.super_options.split(',')).collect();
        let has = |name: &str| all.contains(&name);
        MountFlags {
            read_only: self.is_read_only(),
            nosuid: has("nosuid"),
            nodev: has("nodev"),
            noexec: has("noexec"),
            nosymfollow: has("nosymfollow"),
            noatime: has("noatime"),
            sync: has("sync"),
            dirsync: has("dirsync"),
            ..MountFlags::default()
        }
    }

    /// Whether no change is taken.
    pub fn is_read_only(&self) -> bool {
        let says_ro = |options: &str| options.split(',').any(|option| option == "ro");
        says_ro(&self.options) || says_ro(&self.super_options)
    }
}

/// All mounts this process sees, in the order they were made.
pub fn all() -> std::io::Result<Vec<Entry>> {
    // Room at once: the kernel looks for the place to go on at each read.
    let mut text = Vec::with_capacity(64 * 1024);
    std::fs::File::open("/proc/self/mountinfo")?.read_to_end(&mut text)?;
    Ok(parse(&text))
}

/// The mount one sees at `path`, which is its mountpoint: the last one made there.
pub fn at<'a>(mounts: &'a [Entry], path: &Path) -> Option<&'a Entry> {
    mounts.iter().rev().find(|entry| entry.mountpoint == path)
}

/// The mounts below `layer` that a private clone of its mount does not have, each place once. `layer` has no symlinks.
pub fn left_out<'a>(mounts: &'a [Entry], layer: &Path) -> Vec<&'a Path> {
    let below = |entry: &&Entry| entry.mountpoint != layer && entry.mountpoint.starts_with(layer);
    let mut all: Vec<&Path> = mounts.iter().filter(below).map(|entry| entry.mountpoint.as_path()).collect();
    all.sort_unstable();
    // A mount inside another mount is left out with it.
    let mut outermost: Vec<&Path> = Vec::new();
    for place in all {
        if !outermost.last().is_some_and(|last| place.starts_with(last)) {
            outermost.push(place);
        }
    }
    outermost
}

/// The entries of a mountinfo text. Lines that are no entries are skipped: a later kernel may add some.
pub fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Entry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // Optional fields stand between the sixth one and a lone hyphen.
    let hyphen = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(&unescape(field)).into_owned());
    Some(Entry {
        device: text(2)?,
        mountpoint: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        options: text(5)?,
        fs_type: text(hyphen + 1)?,
        source: text(hyphen + 2)?,
        super_options: text(hyphen + 3)?,
    })
}

/// `text` with `\040` and its kin resolved.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

/// `path` with space, tab, newline and backslash written as `\040` and its kin.
pub fn escape(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend(format!("\\{byte:03o}").into_bytes()),
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw,discard
36 22 0:57 / /mnt/a\\040b rw,nosuid - fuse.stratafs my\\134src rw,user_id=0
37 36 0:58 / /mnt/x ro,relatime shared:2 master:3 - fuse.stratafs stratafs rw
38 36 0:59 / /mnt/x rw - tmpfs tmpfs rw
not a line
";

    #[test]
    fn entries_are_read_with_and_without_optional_fields() {
        let all = parse(TEXT.as_bytes());
        assert_eq!(all.len(), 4);
        assert_eq!(all[1].mountpoint, Path::new("/mnt/a b"));
        assert_eq!((all[1].device.as_str(), all[1].source.as_str()), ("0:57", "my\\src"));
        assert!(all[1].is_ours() && !all[1].is_read_only() && all[2].is_read_only());
        assert_eq!(at(&all, Path::new("/mnt/x")).map(|e| e.fs_type.as_str()), Some("tmpfs"));
        assert_eq!(at(&all, Path::new("/mnt")), None);
    }

    #[test]
    fn mounts_below_a_layer_are_left_out_once() {
        let all = parse(TEXT.as_bytes());
        let out = |layer: &str| {
            left_out(&all, Path::new(layer)).into_iter().map(Path::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(out("/"), [Path::new("/mnt/a b"), Path::new("/mnt/x")]);
        assert_eq!(out("/mnt/x"), [] as [&Path; 0]);
        let nested =
            parse(b"1 1 0:1 / /a rw - t s rw\n2 1 0:2 / /a/b rw - t s rw\n3 1 0:3 / /ab rw - t s rw\n");
        let out: Vec<_> = left_out(&nested, Path::new("/"));
        assert_eq!(out, [Path::new("/a"), Path::new("/ab")]);
    }

    #[test]
    fn escapes_go_there_and_back() {
        let path = Path::new("/a b\\c\td\ne");
        assert_eq!(escape(path), b"/a\\040b\\134c\\011d\\012e");
        assert_eq!(unescape(&escape(path)), path.as_os_str().as_bytes());
        assert_eq!(unescape(b"\\9\\04"), b"\\9\\04");
    }
}
