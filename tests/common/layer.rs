//! A small language for building layers. A path is relative to the layer; parents are made on the way.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{overlay_xattr, sys};

/// A layer under construction. The words `mode` to `xattr` speak of the object made last.
pub struct Layer {
    root: PathBuf,
    last: PathBuf,
}

impl Layer {
    pub fn at(root: PathBuf) -> Layer {
        Layer { last: root.clone(), root }
    }

    fn enter(&mut self, path: &Path) -> PathBuf {
        let at = self.root.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        self.last = at.clone();
        at
    }

    /// A regular file; the parent's mtime is whatever that makes it.
    pub fn file(mut self, path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> Layer {
        let at = self.enter(path.as_ref());
        std::fs::write(at, data).unwrap();
        self
    }

    pub fn dir(mut self, path: impl AsRef<Path>) -> Layer {
        let at = self.enter(path.as_ref());
        std::fs::create_dir_all(at).unwrap();
        self
    }

    pub fn symlink(mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Layer {
        let at = self.enter(path.as_ref());
        sys::symlink(target, at).unwrap();
        self
    }

    /// Another name, `path`, of the file `old` of this layer.
    pub fn hardlink(mut self, path: impl AsRef<Path>, old: impl AsRef<Path>) -> Layer {
        let at = self.enter(path.as_ref());
        sys::link(self.root.join(old), at).unwrap();
        self
    }

    /// A fifo, socket or device, with `mode` holding the type as well.
    pub fn node(mut self, path: impl AsRef<Path>, mode: u32, dev: u64) -> Layer {
        let at = self.enter(path.as_ref());
        sys::mknod(at, mode, dev).unwrap();
        self
    }

    /// The kernel's whiteout: a character device 0:0.
    pub fn whiteout(self, path: impl AsRef<Path>) -> Layer {
        self.node(path, libc::S_IFCHR, 0)
    }

    /// The whiteout of layer archives: an empty file `.wh.NAME`.
    pub fn dot_whiteout(self, path: impl AsRef<Path>) -> Layer {
        let path = path.as_ref();
        let mut name = b".wh.".to_vec();
        name.extend_from_slice(path.file_name().unwrap().as_bytes());
        self.file(path.with_file_name(std::ffi::OsStr::from_bytes(&name)), "")
    }

    /// A directory with the kernel's mark that hides what lowers have under its name.
    pub fn opaque(self, path: impl AsRef<Path>) -> Layer {
        let name = overlay_xattr("opaque");
        self.dir(path).xattr(&name, b"y")
    }

    /// A directory with the mark of layer archives: `.wh..wh..opq` in it.
    pub fn dot_opaque(mut self, path: impl AsRef<Path>) -> Layer {
        let at = self.enter(path.as_ref());
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join(".wh..wh..opq"), "").unwrap();
        self
    }

    pub fn mode(self, mode: u32) -> Layer {
        sys::chmod(&self.last, mode).unwrap();
        self
    }

    pub fn owner(self, uid: u32, gid: u32) -> Layer {
        sys::lchown(&self.last, uid, gid).unwrap();
        self
    }

    /// Access and modification time, in seconds and nanoseconds.
    pub fn mtime(self, secs: i64, nanos: i64) -> Layer {
        sys::utimens(&self.last, (secs, nanos), (secs, nanos)).unwrap();
        self
    }

    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Layer {
        sys::setxattr(&self.last, name, value.as_ref(), 0).unwrap();
        self
    }
}
