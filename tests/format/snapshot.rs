//! A whole tree as values that can be compared, through a mount or of a bare layer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::sys;

/// What is known about one object: the field's name and its value.
pub type Fields = BTreeMap<&'static str, String>;
/// Path from the root, `.` for the root itself, to what is there.
pub type Tree = BTreeMap<String, Fields>;

/// Everything under `root` that a program can see, but for access and change times, and the size and link count of
/// directories, which filesystems count as they like.
pub fn take(root: &Path) -> Tree {
    let (mut tree, mut inodes) = (Tree::new(), BTreeMap::new());
    walk(root, ".", &mut tree, &mut inodes);
    for paths in inodes.values().filter(|paths: &&Vec<String>| paths.len() > 1) {
        for path in paths {
            tree.get_mut(path).unwrap().insert("same as", paths[0].clone());
        }
    }
    tree
}

/// Adds the object at `path` and all below it.
fn walk(root: &Path, path: &str, tree: &mut Tree, inodes: &mut BTreeMap<(u64, u64), Vec<String>>) {
    let full = root.join(path);
    match object(&full) {
        Ok((fields, meta)) => {
            tree.insert(path.to_owned(), fields);
            if !meta.is_dir() {
                inodes.entry((meta.dev(), meta.ino())).or_default().push(path.to_owned());
                return;
            }
        }
        Err(error) => {
            tree.insert(path.to_owned(), Fields::from([("error", error.to_string())]));
            return;
        }
    }
    let mut names: Vec<String> = match fs::read_dir(&full) {
        Ok(entries) => entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
        Err(error) => vec![format!("?{error}")],
    };
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(all, names.len(), "{} lists a name twice", full.display());
    for name in names {
        let below = if path == "." { name } else { format!("{path}/{name}") };
        walk(root, &below, tree, inodes);
    }
}

/// The fields of one object, without its children.
fn object(path: &Path) -> std::io::Result<(Fields, fs::Metadata)> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let mut fields = Fields::from([
        ("mode", format!("{:o}", meta.mode())),
        ("owner", format!("{}:{}", meta.uid(), meta.gid())),
        ("mtime", format!("{}.{:09}", meta.mtime(), meta.mtime_nsec())),
        ("xattrs", shown(&sys::xattrs(path)?)),
    ]);
    if !kind.is_dir() {
        fields.insert("nlink", meta.nlink().to_string());
        fields.insert("size", meta.size().to_string());
    }
    if kind.is_char_device() || kind.is_block_device() {
        fields.insert("rdev", meta.rdev().to_string());
    }
    if kind.is_symlink() {
        fields.insert("target", fs::read_link(path)?.to_string_lossy().into_owned());
    }
    if kind.is_file() {
        let content = fs::read(path).map(|bytes| match bytes.len() {
            0..=64 => bytes.escape_ascii().to_string(),
            len => format!("{len} bytes {:02x?}", &Sha256::digest(&bytes)[..8]),
        });
        fields.insert("content", content.unwrap_or_else(|error| error.to_string()));
    }
    Ok((fields, meta))
}

/// Extended attributes as text.
pub fn shown(xattrs: &BTreeMap<String, Vec<u8>>) -> String {
    let one = |(name, value): (&String, &Vec<u8>)| format!("{name}={}", value.escape_ascii());
    xattrs.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// What differs between two trees, a line per field, `ignored` fields aside.
pub fn differences(left: &Tree, right: &Tree, ignored: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    let nothing = Fields::new();
    let mut paths: Vec<&String> = left.keys().chain(right.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let (a, b) = (left.get(path), right.get(path));
        if a.is_none() || b.is_none() {
            let side = if a.is_none() { "right" } else { "left" };
            lines.push(format!("{path}: only in the {side} one: {:?}", a.or(b).unwrap()));
            continue;
        }
        let (a, b) = (a.unwrap_or(&nothing), b.unwrap_or(&nothing));
        let mut names: Vec<&&str> = a.keys().chain(b.keys()).filter(|name| !ignored.contains(name)).collect();
        names.sort();
        names.dedup();
        for name in names.into_iter().filter(|name| a.get(*name) != b.get(*name)) {
            lines.push(format!("{path}: {name}: {:?} and {:?}", a.get(name), b.get(name)));
        }
    }
    lines
}

/// Fails with what differs, `what` being both names.
pub fn assert_same(what: &str, left: &Tree, right: &Tree, ignored: &[&str]) {
    let lines = differences(left, right, ignored);
    assert!(lines.is_empty(), "{what}: {}", summary(&lines));
}

/// The first lines and how many there are.
pub fn summary(lines: &[String]) -> String {
    let first: Vec<&str> = lines.iter().take(25).map(String::as_str).collect();
    format!("{} differences\n  {}", lines.len(), first.join("\n  "))
}

/// The lowers as they are before a test, to see that they still are so after it.
pub struct Untouched(Vec<(std::path::PathBuf, Tree)>);

impl Untouched {
    /// Remembers all layers.
    pub fn new(lowers: &[std::path::PathBuf]) -> Untouched {
        Untouched(lowers.iter().map(|lower| (lower.clone(), take(lower))).collect())
    }

    /// Fails where a layer has changed.
    pub fn check(&self) {
        self.check_but(&[]);
    }

    /// Fails where a layer has changed in another field than the `ignored` ones.
    pub fn check_but(&self, ignored: &[&str]) {
        for (layer, before) in &self.0 {
            assert_same(
                &format!("layer {} before and after", layer.display()),
                before,
                &take(layer),
                ignored,
            );
        }
    }
}
