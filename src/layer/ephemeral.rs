//! An upper layer and a workdir that are made for one mount and go with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::Upper;
use crate::error::{Error, Result};

/// The two directories, removed when this value goes.
#[derive(Debug)]
pub struct Ephemeral {
    root: PathBuf,
}

impl Ephemeral {
    /// Fresh directories in `parent`, for whom they are made alone.
    /// Errors: `Setup` if they cannot be made there.
    pub fn new(parent: &Path) -> Result<Ephemeral> {
        let failed = |error: std::io::Error| {
            Error::Setup(format!(
                "--ephemeral: no directory can be made in {parent:?} ({error}): name a writable one with \
                 `--ephemeral=DIR` or $TMPDIR"
            ))
        };
        let dir = tempfile::Builder::new().prefix("stratafs-").tempdir_in(parent).map_err(failed)?;
        // From here on it is removed by `drop` below, which also opens directories that nobody may enter.
        let made = Ephemeral { root: dir.keep() };
        let upper = made.upper();
        fs::create_dir(&upper.dir).and_then(|()| fs::create_dir(&upper.work)).map_err(failed)?;
        for dir in [&upper.dir, &upper.work] {
            fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(made)
    }

    /// Where they are.
    pub fn upper(&self) -> Upper {
        Upper { dir: self.root.join("upper"), work: self.root.join("work") }
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.root) {
            tracing::warn!("{:?} is left behind: {error}", self.root);
        }
    }
}

/// Removes `dir` and all below it, directories that nobody may enter included.
pub fn remove_tree(dir: &Path) -> std::io::Result<()> {
    fs::remove_dir_all(dir).or_else(|_| {
        open_up(dir);
        fs::remove_dir_all(dir)
    })
}

/// Lets the owner into every directory below `dir`: a layer may hold some that are closed to all.
fn open_up(dir: &Path) {
    // What stays closed makes the removal fail, and that is reported.
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_go_with_the_value() {
        use std::os::unix::fs::MetadataExt;
        let parent = tempfile::TempDir::new().expect("parent");
        let made = Ephemeral::new(parent.path()).expect("made");
        let upper = made.upper();
        assert_eq!(fs::metadata(&upper.dir).expect("upper").mode() & 0o7777, 0o700);
        assert!(upper.work.is_dir());
        fs::create_dir_all(upper.dir.join("closed/inner")).expect("dirs");
        fs::set_permissions(upper.dir.join("closed"), Permissions::from_mode(0o0)).expect("chmod");
        drop(made);
        assert!(!upper.dir.exists() && !upper.work.exists());
        assert_eq!(fs::read_dir(parent.path()).expect("parent").count(), 0);
    }

    #[test]
    fn a_missing_parent_is_named_with_its_remedy() {
        let error = Ephemeral::new(Path::new("/nowhere/at/all")).expect_err("parent").to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("--ephemeral=DIR"), "{error}");
    }
}
