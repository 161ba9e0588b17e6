//! A disk that can be copied as it is at one moment: an image file on a filesystem that shares blocks between files.
//!
//! The clone of the image waits for whoever is writing a block, holds off whoever comes, and is made in one step, so it has every
//! block that the filesystem on the disk had written before, and none after: what a power failure leaves of a disk without a
//! cache of its own. What was not written back by then is lost in the copy. (Losing what a disk's cache holds is the
//! business of the filesystem's own flushes, which are passed on here as they are.)

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::*;

/// Something mounted that goes when this is dropped.
#[derive(Debug)]
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = sys::c(&self.0);
        let ended = || unsafe { libc::umount2(at.as_ptr(), 0) } == 0;
        // A daemon may take a moment to let go.
        if !eventually(LIMIT, ended) {
            eprintln!("{} is busy and is detached", self.0.display());
            unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// The disk, and where its copies are.
#[derive(Debug)]
pub struct Disk {
    pub kind: &'static str,
    store: Mounted,
    _home: tempfile::TempDir,
}

fn made(command: &str, args: &[&str], file: &Path) -> bool {
    let mut make = Command::new(command);
    let there = make
        .args(args)
        .arg(file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    there.is_ok_and(|status| status.success())
}

fn image(file: &Path, bytes: u64, kind: &str) -> bool {
    let room = File::create(file).and_then(|image| image.set_len(bytes));
    room.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let force = if kind == "ext4" { "-F" } else { "-f" };
    made(&format!("mkfs.{kind}"), &["-q", force], file)
}

/// Mounts the filesystem in `file` at `at`, which is made; nothing where the kernel has none of this kind.
fn mounted(file: &Path, kind: &str, at: &Path) -> Option<Mounted> {
    fs::create_dir_all(at).unwrap();
    made("mount", &["-t", kind, "-o", "loop", &file.display().to_string()], at)
        .then(|| Mounted(at.to_owned()))
}

impl Disk {
    /// An empty disk with a filesystem of this kind; nothing, with a word, where the machine cannot.
    pub fn new(kind: &'static str) -> Option<Disk> {
        // A cut must not wait for a real disk.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let home = tempfile::Builder::new().prefix("stratafs-crash-").tempdir_in(base).unwrap();
        let file = home.path().join("store.img");
        let store = image(&file, 4 << 30, "xfs").then(|| mounted(&file, "xfs", &home.path().join("store")));
        let Some(store) = store.flatten() else {
            println!("skipped: no xfs, on which a disk can be cloned");
            return None;
        };
        let disk = Disk { kind, store, _home: home };
        if !image(&disk.file("disk"), 400 << 20, kind) {
            println!("skipped: no mkfs.{kind}");
            return None;
        }
        Some(disk)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.store.0.join(format!("{name}.img"))
    }

    /// The disk, or a copy of it by name, mounted.
    pub fn mount(&self, name: &str) -> Option<Mounted> {
        mounted(&self.file(name), self.kind, &self.store.0.join(name))
    }

    /// Copies the disk as it is now.
    pub fn cut(&self, name: &str) {
        let (from, to) = (File::open(self.file("disk")).unwrap(), File::create(self.file(name)).unwrap());
        let cloned = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
        assert_eq!(cloned, 0, "FICLONE: {}", Errno::last());
    }

    /// Removes a copy that was looked at.
    pub fn forget(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }
}
