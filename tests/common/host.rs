//! What a test attaches: sources of the host, beside the layers.

use std::path::{Path, PathBuf};

use super::{Fixture, Layer, Mode, fs, join, mode};

impl Fixture {
    /// A path on the host, beside the layers: for sources.
    pub fn host(&self, path: impl AsRef<Path>) -> PathBuf {
        join(self.dir().join("host"), path.as_ref())
    }

    /// A source of the host under construction, made if it is not there.
    pub fn source(&self, name: &str) -> Layer {
        fs::create_dir_all(self.host(name)).unwrap();
        Layer::at(self.host(name))
    }

    /// Attaches a source of the host at every mount, in these words of a mode.
    pub fn bind(&mut self, name: &str, target: &str, mode: &str) {
        let colon = if mode.is_empty() { "" } else { ":" };
        self.args.push("-v".into());
        self.args.push(format!("{}:{target}{colon}{mode}", self.host(name).display()).into());
    }

    /// As `bind`, for a source that must be as it was when the mount is gone.
    pub fn bind_kept(&mut self, name: &str, target: &str, mode: &str) {
        self.bind(name, target, mode);
        self.kept.push(self.host(name));
    }

    /// Nothing, with a word, if the daemon of this run may make no tmpfs.
    pub fn need_tmpfs(self) -> Option<Fixture> {
        if mode() != Mode::Fusermount {
            return Some(self);
        }
        println!("skipped: an ordinary user makes no tmpfs");
        None
    }
}
