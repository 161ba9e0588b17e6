//! The same layers under the kernel's overlayfs.

use std::path::Path;
use std::process::Command;

use super::{Fixture, LIMIT, Umount, eventually, fs, mounts_at, run, sum};

impl Fixture {
    /// What the kernel's overlayfs shows of the layers, with these options beside the layers. It takes the upper layer over for
    /// the while.
    #[track_caller]
    pub fn as_the_kernel_shows(&self, options: &str) -> sum::Tree {
        let at = self.dir().join("kernel");
        fs::create_dir_all(&at).unwrap();
        let lowers: Vec<_> =
            (0..self.lowers).map(|layer| self.low(layer, "").display().to_string()).collect();
        let layers = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=on,{options}",
            lowers.join(":"),
            self.up("").display(),
            self.work("").display()
        );
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(&at)).ok();
        let mounted = Umount(at.clone());
        let tree = shown(&at);
        drop(mounted);
        assert!(eventually(LIMIT, || mounts_at(&at).is_empty()), "the kernel's mount stays");
        tree
    }
}

/// A tree without what the two need not agree in: link counts of directories.
pub fn shown(root: &Path) -> sum::Tree {
    let mut tree = sum::tree(root);
    for entry in tree.values_mut().filter(|entry| entry.mode & libc::S_IFMT == libc::S_IFDIR) {
        entry.nlink = 0;
    }
    tree
}
