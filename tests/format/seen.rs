//! What a mount shows of many names of one directory: first the listing, then every name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::snapshot::{Fields, Tree, shown};
use crate::sys;

/// What is seen of the names under `dir`. The listing comes first, so a mount must be fresh to be asked.
pub fn look(dir: &Path, names: &[String]) -> Tree {
    let listed = listing(dir).unwrap_or_else(|error| panic!("listing {}: {error}", dir.display()));
    let mut tree = Tree::new();
    for (name, kind) in &listed {
        tree.entry(name.clone()).or_default().insert("listed", kind.clone());
    }
    for name in names.iter().chain(listed.keys()) {
        let fields = tree.entry(name.clone()).or_default();
        fields.entry("listed").or_insert_with(|| "no".to_owned());
        if let Err(error) = object(&dir.join(name), fields) {
            fields.insert("lookup", failure(&error));
        }
    }
    tree
}

/// Names and their types as the listing tells them.
fn listing(dir: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().map_or_else(|error| failure(&error), |kind| format!("{kind:?}"));
        assert!(names.insert(name, kind).is_none(), "{} is listed twice", entry.path().display());
    }
    Ok(names)
}

/// Looks at one object.
fn object(path: &Path, fields: &mut Fields) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    fields.insert("lookup", format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid()));
    fields.insert("mtime", meta.mtime().to_string());
    let xattrs = sys::xattrs(path).map_err(io::Error::from);
    fields.insert("xattrs", xattrs.map_or_else(|error| failure(&error), |xattrs| shown(&xattrs)));
    if meta.is_dir() {
        let children = listing(path).map(|names| {
            let child = |(name, kind): (&String, &String)| {
                let content =
                    fs::read(path.join(name)).map_or_else(|error| failure(&error), |data| text(&data));
                format!("{name}({kind} {content})")
            };
            names.iter().map(child).collect::<Vec<_>>().join(" ")
        });
        fields.insert("children", children.unwrap_or_else(|error| failure(&error)));
    } else {
        fields.insert("size", format!("{} in {} blocks", meta.size(), meta.blocks()));
    }
    if meta.is_file() {
        let content = fs::read(path).map_or_else(|error| failure(&error), |data| text(&data));
        fields.insert("content", content);
    }
    if meta.is_symlink() {
        fields.insert("content", fs::read_link(path)?.display().to_string());
    }
    Ok(())
}

/// File content as text.
fn text(data: &[u8]) -> String {
    data.escape_ascii().to_string()
}

/// What `assert_not_stale` looks for.
const STALE: &str = "stale";

/// The kernel answers ESTALE for the second of two names in an upper that lead to the same lower object. Layers that do so
/// make the answers depend on the order of questions, and the test worthless: it is to be corrected then.
pub fn assert_not_stale(kernel: &Tree) {
    let stale =
        |fields: &Fields| fields.values().any(|value| value.split([' ', '(', ')']).any(|word| word == STALE));
    let names: Vec<&String> =
        kernel.iter().filter(|(_, fields)| stale(fields)).map(|(name, _)| name).collect();
    assert!(names.is_empty(), "two names lead to one lower object: {:?}", &names[..names.len().min(10)]);
}

/// "Absent" is an answer of its own; for broken marks the kernel has several errors (EIO, EINVAL, EPERM, ESTALE) where
/// stratafs has EIO, so only that there is one is compared. `STRATAFS_ERRNO=1` tells them apart, for the curious.
fn failure(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "absent".to_owned(),
        Some(libc::ESTALE) => STALE.to_owned(),
        _ if std::env::var_os("STRATAFS_ERRNO").is_some() => format!("error {error}"),
        _ => "error".to_owned(),
    }
}
