//! Power failures: the disk below the upper layer is copied while programs are at work, and each copy is looked at as
//! the machine would find it when it comes up again. Source: docs/semantics.md, "fsync: auto, strict, volatile".

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, Mounted};
use super::load::{self, ONCE, REPLACED, Versions, WRITERS, Writer, content, record};
use crate::common::*;

/// The layers on a mounted disk, and a mount of them, which goes before the disk.
struct View {
    home: PathBuf,
    mounted: bool,
}

impl View {
    fn new(disk: &Mounted) -> View {
        for name in ["low", "up", "work", "mnt", "kernel"] {
            fs::create_dir_all(disk.0.join(name)).unwrap();
        }
        View { home: disk.0.clone(), mounted: false }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    fn try_mount(&mut self, mode: &str) -> Done {
        let mut command = Command::new(program());
        command.arg("mount").arg("-l").arg(self.at("low")).arg("-u").arg(self.at("up"));
        command.arg("-w").arg(self.at("work")).args(["-o", &format!("fsync={mode}")]).arg(self.at("mnt"));
        let done = run(&mut command);
        self.mounted = done.code == Some(0);
        done
    }

    fn unmount(&mut self) {
        let umount = || run(Command::new(program()).arg("umount").arg(self.at("mnt")));
        // A process that another test has just forked may keep our files for a moment, until its exec.
        eventually(LIMIT, || umount().code == Some(0) || mounts_at(&self.at("mnt")).is_empty());
        assert_eq!(mounts_at(&self.at("mnt")), [], "still mounted after umount");
        self.mounted = false;
        assert_eq!(daemons_of(&self.at("mnt")), [] as [i32; 0]);
    }

    fn seen(&self, at: &str) -> sum::Tree {
        let mut tree = sum::tree(&self.at(at));
        // Link counts of directories are nobody's promise.
        tree.values_mut()
            .filter(|entry| entry.mode & libc::S_IFMT == libc::S_IFDIR)
            .for_each(|dir| dir.nlink = 0);
        tree
    }

    fn seen_by_the_kernel(&self) -> sum::Tree {
        let layers = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=on,index=on",
            self.at("low").display(),
            self.at("up").display(),
            self.at("work").display()
        );
        let at = self.at("kernel");
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(&at)).ok();
        let _mounted = Mounted(at);
        self.seen("kernel")
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.mounted {
            drop(Umount(self.at("mnt")));
        }
    }
}

/// A copy of the disk, with what had been promised before it was made and asked for after.
struct Cut {
    name: String,
    before: Versions,
    after: Versions,
}

/// Lets programs work on a fresh disk, and copies it at random moments.
fn load_and_cut(disk: &Disk, mode: &str, rng: &mut StdRng) -> Option<(sum::Tree, Vec<Cut>)> {
    let Some(mounted) = disk.mount("disk") else {
        println!("skipped: the kernel has no {}", disk.kind);
        return None;
    };
    let mut view = View::new(&mounted);
    load::lower(&view.at("low"));
    let low = sum::tree(&view.at("low"));
    // The layers are older than the mount.
    unsafe { libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&File::open(&mounted.0).unwrap())) };
    view.try_mount(mode).ok();
    let (log, stop) = (Mutex::new(Versions::default()), AtomicBool::new(false));
    let cuts = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let rng = StdRng::seed_from_u64(rng.random());
            let mut writer = Writer { root: view.at("mnt"), part: load::part(writer), log: &log, rng };
            let stop = &stop;
            scope.spawn(move || writer.work(stop));
        }
        let mut cuts = Vec::new();
        for number in 0..crate::rounds(3) {
            std::thread::sleep(Duration::from_millis(rng.random_range(30..500)));
            let before = log.lock().unwrap().clone();
            let name = format!("cut{number}");
            disk.cut(&name);
            cuts.push(Cut { name, before, after: log.lock().unwrap().clone() });
        }
        stop.store(true, Ordering::SeqCst);
        cuts
    });
    view.unmount();
    Some((low, cuts))
}

/// What a mount shows of a disk that has lost its power.
struct Check<'a> {
    root: PathBuf,
    upper: PathBuf,
    kind: &'static str,
    cut: &'a Cut,
    /// A directory has both its names.
    half_moved: bool,
    wrong: Vec<String>,
}

impl Check<'_> {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(name)).ok()
    }

    fn is(&mut self, right: bool, name: &str, why: &str) {
        if !right {
            let found = self.read(name).map(|bytes| {
                let head = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
                format!("{} bytes, {head:?}", bytes.len())
            });
            self.wrong.push(format!("{name}: {why}; there is {found:?}"));
        }
    }

    fn whole(&mut self, name: &str, file: &str) {
        let right = self.read(file) == Some(content(name, 1));
        self.is(right, file, "was synced, and is not what was written");
    }

    fn replaced(&mut self, name: &str) {
        let versions = self.cut.before.promised(name)..=self.cut.after.asked(name);
        let found = self.read(name);
        let right = versions.clone().any(|version| found == Some(content(name, version)));
        self.is(right, name, &format!("is no version of {versions:?}"));
    }

    /// The lower file as it is, or the copy, whole, with or without what was done to it then.
    fn copied_up(&mut self, name: &str, strict: bool) {
        let (lower, found) = (content(name, 0), self.read(name).unwrap_or_default());
        self.is(found.starts_with(&lower), name, "is neither the lower file nor a whole copy");
        if strict && self.cut.before.promised(name) == 1 {
            let there = self.upper.join(name).symlink_metadata().is_ok();
            self.is(there, name, "was copied up with fsync=strict, and is not in the upper layer");
        }
    }

    fn moved(&mut self, part: &str, number: u64) {
        let (old, new) = (format!("{part}/dir{number}"), format!("{part}/moved{number}"));
        let at = |dir: &str| self.read(&format!("{dir}/inside"));
        let whole = Some(content(&format!("{old}/inside"), 0));
        let (was, is) = (at(&old), at(&new));
        let there = |dir: &str| self.root.join(dir).symlink_metadata().is_ok();
        let one = (was == whole && !there(&new)) || (is == whole && !there(&old));
        // btrfs may write to its log that a name has moved, and not yet the whiteout that the same call left in its place.
        let both = self.kind == "btrfs" && was == whole && is == whole;
        self.half_moved |= both;
        let one = one || (both && self.cut.before.promised(&old) == 0);
        self.is(one, &old, "is not at one of its two names");
        let promised = self.cut.before.promised(&old) == 1;
        self.is(!promised || is == whole, &new, "the renamed directory is back at its old name");
    }

    fn all(&mut self, strict: bool) {
        for writer in 0..WRITERS {
            let part = load::part(writer);
            let promised: Vec<String> = self.cut.before.promised.keys().cloned().collect();
            for name in promised.iter().filter(|name| name.starts_with(&format!("{part}/"))) {
                match &name[part.len() + 1..] {
                    kind if kind.starts_with("new") => self.whole(name, name),
                    kind if kind.starts_with("sub") => self.whole(name, &format!("{name}/inside")),
                    _ => {}
                }
            }
            (0..REPLACED).for_each(|n| self.replaced(&format!("{part}/rep{n}")));
            for n in 0..ONCE {
                self.copied_up(&format!("{part}/up{n}"), strict);
                self.moved(&part, n);
                let gone = format!("{part}/gone{n}");
                let found = self.read(&gone);
                let right = if self.cut.before.promised(&gone) == 1 {
                    found.is_none()
                } else {
                    found.is_none_or(|bytes| bytes == content(&gone, 0))
                };
                self.is(right, &gone, "was removed, or is there in part");
            }
            let log = format!("{part}/log");
            let records = (0..self.cut.before.promised(&log)).flat_map(|n| record(&log, n));
            let synced: Vec<u8> = content(&log, 0).into_iter().chain(records).collect();
            let right = self.read(&log).is_some_and(|bytes| bytes.starts_with(&synced));
            self.is(right, &log, "has not all records that were synced");
            let known = ["new", "sub", "rep", "tmp", "up", "dir", "moved", "gone", "log"];
            for name in names(self.root.join(&part)) {
                self.is(known.iter().any(|kind| name.starts_with(kind)), &name, "was made by nobody");
            }
        }
    }
}

fn look(disk: &Disk, mode: &str, low: &sum::Tree, cut: &Cut) {
    let what = format!("{}, fsync={mode}, {}", disk.kind, cut.name);
    let mounted = disk.mount(&cut.name).unwrap_or_else(|| panic!("{what}: the disk cannot be mounted"));
    let mut view = View::new(&mounted);
    if mode == "volatile" {
        let refused = view.try_mount("auto");
        assert!(
            refused.code != Some(0) && refused.err.contains("volatile"),
            "{what}: not refused: {refused:?}"
        );
        return;
    }
    view.try_mount(mode).ok();
    let left: Vec<_> = names(view.at("work/work"));
    assert_eq!(left, [""; 0], "{what}: the workdir is not swept");
    let (root, upper) = (view.at("mnt"), view.at("up"));
    let mut check = Check { root, upper, kind: disk.kind, cut, half_moved: false, wrong: Vec::new() };
    check.all(mode == "strict");
    assert!(check.wrong.is_empty(), "{what}:\n  {}", check.wrong.join("\n  "));
    let ours = view.seen("mnt");
    view.unmount();
    // Of two names of one lower directory the kernel shows one, and answers ESTALE for the other.
    if !check.half_moved {
        let differences = sum::diff(&view.seen_by_the_kernel(), &ours);
        assert!(differences.is_empty(), "{what}: the kernel (was) and stratafs (is) differ:\n{differences}");
    }
    let changes = sum::diff(low, &sum::tree(&view.at("low")));
    assert!(changes.is_empty(), "{what}: the lower layer changed:\n{changes}");
    println!("{what}: {} promises kept", cut.before.promised.values().sum::<u64>());
}

fn campaign(kind: &'static str, mode: &str) {
    crate::campaigns(&format!("power, {kind}, {mode}"), |seed| {
        // Sets up a mount namespace for this thread, and skips where there is no root.
        let Some(_fixture) =
            Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("no daemon"))
        else {
            return;
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let Some(disk) = Disk::new(kind) else { return };
        let Some((low, cuts)) = load_and_cut(&disk, mode, &mut rng) else { return };
        for cut in &cuts {
            look(&disk, mode, &low, cut);
            disk.forget(&cut.name);
        }
    });
}

#[test]
fn what_was_synced_outlives_a_power_failure_on_ext4() {
    campaign("ext4", "auto");
}

/// Here copies share their blocks with the lower files.
#[test]
fn what_was_synced_outlives_a_power_failure_on_xfs() {
    campaign("xfs", "auto");
}

#[test]
fn what_was_synced_outlives_a_power_failure_on_btrfs() {
    campaign("btrfs", "auto");
}

#[test]
fn copies_are_on_disk_when_the_call_returns_with_fsync_strict() {
    campaign("ext4", "strict");
    campaign("xfs", "strict");
}

#[test]
fn a_volatile_upper_is_refused_after_a_power_failure() {
    campaign("ext4", "volatile");
    campaign("xfs", "volatile");
}
