//! Makes layers by hand: ordinary objects, and marks in one of the two namespaces.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;

use crate::sys;

/// The namespace of marks under privilege.
pub const TRUSTED: &str = "trusted.overlay.";
/// The namespace of marks with `userxattr`.
pub const USER: &str = "user.overlay.";

/// One layer under construction.
#[derive(Debug, Clone)]
pub struct Layer {
    pub root: PathBuf,
    /// Distinguishes its contents from those of the other layers.
    pub number: usize,
    /// Prefix of its marks.
    pub space: &'static str,
}

impl Layer {
    /// An empty layer called `name` in `home`.
    pub fn new(home: &Path, name: &str, number: usize, space: &'static str) -> Layer {
        let root = home.join(name);
        fs::create_dir_all(&root).unwrap();
        Layer { root, number, space }
    }

    /// The full path of `path`.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A regular file of 12 bytes that tell the layer; every layer has its own mode and time.
    pub fn file(&self, path: &str) {
        fs::write(self.at(path), format!("data of L{:03}", self.number)).unwrap();
        self.finish(path);
    }

    /// A directory, with its parents, with one child of this layer's own and one that other layers have as well.
    pub fn dir(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
        fs::write(self.at(path).join(format!("own{}", self.number)), "").unwrap();
        fs::write(self.at(path).join("same"), format!("L{}", self.number)).unwrap();
        self.finish(path);
    }

    /// A directory, with its parents, with one child of this layer's own: the cheapest one that shows a merge.
    pub fn small_dir(&self, path: &str) {
        self.bare_dir(path);
        fs::write(self.at(path).join(format!("own{}", self.number)), "").unwrap();
    }

    /// An empty directory, with its parents.
    pub fn bare_dir(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    /// A regular file as metadata-only copy-up leaves it: the size of the data, a hole, and the mark.
    pub fn metacopy(&self, path: &str, redirect: &str) {
        fs::File::create(self.at(path)).unwrap().set_len(12).unwrap();
        self.mark(path, "metacopy", b"");
        if !redirect.is_empty() {
            self.mark(path, "redirect", redirect.as_bytes());
        }
        self.finish(path);
    }

    /// A character device 0:0.
    pub fn whiteout(&self, path: &str) {
        sys::mknod(&self.at(path), SFlag::S_IFCHR, 0, 0, 0).unwrap();
    }

    /// An empty regular file with the mark that makes it a whiteout in a directory of the right kind.
    pub fn xattr_whiteout(&self, path: &str) {
        fs::write(self.at(path), "").unwrap();
        self.mark(path, "whiteout", b"y");
    }

    /// One mark.
    pub fn mark(&self, path: &str, name: &str, value: &[u8]) {
        sys::set_xattr(&self.at(path), &format!("{}{name}", self.space), value).unwrap();
    }

    /// Gives what was made a mode, a time and an attribute that tell the layer.
    fn finish(&self, path: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.at(path);
        let execute = if path.is_dir() { 0o111 } else { 0 };
        let mode = 0o640 | execute | self.number as u32;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        sys::set_xattr(&path, "user.layer", self.number.to_string().as_bytes()).unwrap();
        sys::set_mtime(&path, 1_000_000_000 + self.number as i64).unwrap();
    }
}
