//! Random grafts against the same thing built by the kernel: an overlay with bind mounts, tmpfs and overlays in it. The
//! same random changes through both give the same errnos and leave the same trees; what is read-only stays as it was.
//!
//! `STRATAFS_SEED` chooses the series, `STRATAFS_GRAFT_SERIES` how many there are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::mount::{By, Mount, Stack, ready, scratch};
use crate::ops::{Op, apply, random, seed};
use crate::snapshot::{Tree, assert_same, take};

const OPTIONS: &str = "redirect_dir=on,index=on,metacopy=off";
const LENGTH: usize = 120;

/// What a graft shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    File,
    Cow,
    Tmpfs,
}

/// One graft of a series.
#[derive(Debug, Clone)]
struct Graft {
    kind: Kind,
    read_only: bool,
    /// Relative to the root of the mount.
    target: String,
    /// The name of its source.
    source: String,
}

impl Graft {
    /// `-v`, or `--tmpfs`, and its word.
    fn words(&self, home: &Path) -> [String; 2] {
        let source = home.join(&self.source);
        let mode = match (self.kind, self.read_only) {
            (Kind::Tmpfs, _) => return ["--tmpfs".to_owned(), format!("/{}:mode=755", self.target)],
            (Kind::Cow, _) => {
                let (upper, work) = (
                    home.join(&self.source).with_extension("upper"),
                    home.join(&self.source).with_extension("work"),
                );
                format!(":O,upperdir={},workdir={}", upper.display(), work.display())
            }
            (_, true) => ":ro".to_owned(),
            (_, false) => String::new(),
        };
        ["-v".to_owned(), format!("{}:/{}{mode}", source.display(), self.target)]
    }

    /// The same by the kernel's mounts.
    fn attach(&self, home: &Path, root: &Path) {
        let (source, target) = (home.join(&self.source), root.join(&self.target));
        let none = None::<&str>;
        match self.kind {
            Kind::Tmpfs => mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), Some("mode=755")),
            Kind::Cow => {
                let (upper, work) = (source.with_extension("upper"), source.with_extension("work"));
                let data = format!(
                    "lowerdir={},upperdir={},workdir={},{OPTIONS}",
                    source.display(),
                    upper.display(),
                    work.display()
                );
                mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
            }
            Kind::Dir | Kind::File => mount(Some(&source), &target, none, MsFlags::MS_BIND, none),
        }
        .unwrap_or_else(|error| panic!("{self:?}: {error}"));
        if self.read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &target, none, flags, none).unwrap();
        }
    }

    fn is_dir(&self) -> bool {
        self.kind != Kind::File
    }
}

/// A tree with the names that random changes ask for: directories a to d in one another, files e to g.
fn plant(root: &Path, text: &str) {
    for dir in ["a/b", "a/c", "b/a", "c/d/a", "d"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in ["e", "a/e", "a/b/f", "b/f", "c/d/g", "d/e", "g"] {
        fs::write(root.join(file), format!("{file} of {text}")).unwrap();
    }
    fs::hard_link(root.join("g"), root.join("c/e")).unwrap();
    std::os::unix::fs::symlink("e", root.join("h")).unwrap();
}

/// Grafts that follow from the seed, those nearer to the root first, no two at one target or on one source.
fn choose(random: &mut StdRng) -> Vec<Graft> {
    let mut dirs: Vec<String> =
        ["a", "b", "c/d", "a/b", "d", "a/new", "g2/a/b", "c/x"].map(str::to_owned).to_vec();
    let mut files: Vec<String> = ["e", "a/e", "b/f", "d/new", "a/c/z/f"].map(str::to_owned).to_vec();
    let mut grafts: Vec<Graft> = Vec::new();
    for number in 0..random.random_range(1..6) {
        let kind = [Kind::Dir, Kind::Dir, Kind::File, Kind::Cow, Kind::Tmpfs][random.random_range(0..5)];
        let from = if kind == Kind::File { &mut files } else { &mut dirs };
        let target = from.swap_remove(random.random_range(0..from.len()));
        if kind == Kind::Dir || kind == Kind::Cow {
            // Something may go into this one, on what its source has, or on what nobody has.
            dirs.extend([format!("{target}/b/a"), format!("{target}/q")]);
            files.push(format!("{target}/a/e"));
        }
        let read_only = matches!(kind, Kind::Dir | Kind::File) && random.random_bool(0.3);
        grafts.push(Graft { kind, read_only, target, source: format!("s{number}") });
    }
    grafts.sort_by_key(|graft| graft.target.split('/').count());
    // A file cannot be where another graft needs a directory.
    let mut kept: Vec<Graft> = Vec::new();
    for graft in grafts {
        let clash = kept.iter().any(|other| !other.is_dir() && below(&graft.target, &other.target));
        if !clash {
            kept.push(graft);
        }
    }
    kept
}

fn below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether the change would have the kernel move mounts along, or depends on the order of names.
fn differs_by_nature(op: &Op, grafts: &[Graft]) -> bool {
    let above = |path: &String| grafts.iter().any(|graft| below(&graft.target, path));
    match op {
        Op::Rename(from, to) | Op::Exchange(from, to) => above(from) || above(to),
        Op::RemoveAll(path) => above(path) || grafts.iter().any(|graft| graft.target == *path),
        _ => false,
    }
}

/// Whether one side says the same as the other. That a mount is read-only, another one, or busy is what the kernel says before
/// it looks at the names; in one mount it looks first, and may have another of the ordinary reasons to refuse.
fn agree(theirs: Outcome, ours: Outcome) -> bool {
    use Errno::*;
    match (theirs, ours) {
        (Err(EROFS | EXDEV | EBUSY), Err(reason)) => !matches!(reason, EIO | ESTALE | ENOTCONN | ENOSYS),
        _ => theirs == ours,
    }
}

/// What a change came to.
type Outcome = Result<(), Errno>;

/// One side: its own layers and sources.
struct Side {
    by: By,
    home: PathBuf,
    grafts: Vec<Graft>,
}

impl Side {
    fn new(by: By, home: PathBuf, grafts: &[Graft]) -> Side {
        plant(&home.join("lower"), "lower");
        for graft in grafts {
            let source = home.join(&graft.source);
            match graft.kind {
                Kind::File => fs::write(&source, format!("file of {}", graft.source)).unwrap(),
                Kind::Dir | Kind::Cow => plant(&source, &graft.source),
                Kind::Tmpfs => {}
            }
            if graft.kind == Kind::Cow {
                fs::create_dir(source.with_extension("upper")).unwrap();
                fs::create_dir(source.with_extension("work")).unwrap();
            }
        }
        Side { by, home, grafts: grafts.to_vec() }
    }

    /// Mounts everything, works, and takes the tree.
    fn work(&self, ops: &[Op]) -> (Vec<(Op, Outcome)>, Tree) {
        let point = self.home.join("merged");
        let mut stack = Stack::writable(&[self.home.join("lower")], &self.home);
        let mounted: Mount;
        if self.by == By::Strata {
            stack.more = self.grafts.iter().flat_map(|graft| graft.words(&self.home)).collect();
            mounted = stack.mount(self.by, OPTIONS, &point);
        } else {
            mounted = stack.mount(self.by, OPTIONS, &point);
            for graft in &self.grafts {
                self.make_place(&point, graft);
                graft.attach(&self.home, &point);
            }
        }
        let outcome = |op: &Op| (op.clone(), apply(&point, op));
        let outcomes = ops.iter().filter(|op| !differs_by_nature(op, &self.grafts)).map(outcome).collect();
        let tree = take(&point);
        if self.by == By::Kernel {
            for graft in self.grafts.iter().rev() {
                umount2(&point.join(&graft.target), MntFlags::empty()).unwrap();
            }
        }
        mounted.end();
        (outcomes, tree)
    }

    /// A mount point for the kernel, which has nothing like a name that nobody made. In a read-only source it is made from
    /// outside.
    fn make_place(&self, root: &Path, graft: &Graft) {
        let inside = self.grafts.iter().filter(|other| below(&graft.target, &other.target));
        let nearest = inside.max_by_key(|other| other.target.len());
        let place = match nearest {
            Some(other) if other.read_only => {
                self.home.join(&other.source).join(&graft.target[other.target.len() + 1..])
            }
            _ => root.join(&graft.target),
        };
        if graft.is_dir() {
            fs::create_dir_all(place).unwrap();
        } else if !place.exists() {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, "").unwrap();
        }
    }
}

/// The trees without what differs by nature: times, which are of two runs; what lasts no longer than a mount.
fn comparable(tree: &Tree, without: &[&Graft]) -> Tree {
    let kept =
        |path: &&String| !without.iter().any(|graft| **path == graft.target || below(path, &graft.target));
    tree.keys().filter(kept).map(|path| (path.clone(), tree[path].clone())).collect()
}

#[test]
fn random_grafts_are_what_mounts_of_the_kernel_are() {
    if !ready() {
        return;
    }
    let count = std::env::var("STRATAFS_GRAFT_SERIES").ok().map_or(12, |text| text.parse().unwrap());
    let seed = seed();
    for series in seed..seed + count {
        let mut chooser = StdRng::seed_from_u64(series);
        let grafts = choose(&mut chooser);
        let ops = random(series, LENGTH);
        eprintln!("series {series}: {grafts:?}");
        let dir = scratch(false);
        let kernel = Side::new(By::Kernel, dir.path().join("kernel"), &grafts);
        let strata = Side::new(By::Strata, dir.path().join("strata"), &grafts);
        let fixed: Vec<PathBuf> = ["lower".to_owned()]
            .into_iter()
            .chain(grafts.iter().filter(|g| g.kind == Kind::Cow || g.read_only).map(|g| g.source.clone()))
            .map(|name| strata.home.join(name))
            .collect();
        let before: Vec<Tree> = fixed.iter().map(|path| take(path)).collect();
        let (expected, kernel_tree) = kernel.work(&ops);
        let (outcomes, tree) = strata.work(&ops);
        let what = format!("series {series} of {grafts:?}");
        for (number, (theirs, ours)) in expected.iter().zip(&outcomes).enumerate() {
            let told = || expected[..=number].iter().map(|done| format!("\n{done:?}")).collect::<String>();
            // In one mount the kernel does nothing at all for a name that is moved onto itself, before it asks us.
            let nothing = matches!(&theirs.0, Op::Rename(from, to) if from == to) && ours.1.is_ok();
            let same = nothing || agree(theirs.1, ours.1);
            assert!(same, "{what}: {theirs:?}, but {:?}, after{}", ours.1, told());
        }
        // Numbers of two filesystems of the kernel may be the same by chance.
        let ignored = ["mtime", "same as"];
        assert_same(&what, &comparable(&kernel_tree, &[]), &comparable(&tree, &[]), &ignored);
        let fleeting: Vec<&Graft> = grafts.iter().filter(|graft| graft.kind == Kind::Tmpfs).collect();
        let (_, again) = strata.work(&[]);
        let told = format!("{what}, mounted again");
        assert_same(&told, &comparable(&tree, &fleeting), &comparable(&again, &fleeting), &[]);
        for (path, before) in fixed.iter().zip(before) {
            assert_same(&format!("{what}: {} has changed", path.display()), &before, &take(path), &[]);
        }
        drop(dir);
    }
}

/// The program says no in one line and nothing is mounted, for what the kernel's mounts refuse as well.
#[test]
fn a_file_does_not_go_onto_a_directory() {
    if !ready() {
        return;
    }
    let dir = scratch(false);
    plant(&dir.path().join("lower"), "lower");
    fs::write(dir.path().join("file"), "").unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    let (point, lower) = (dir.path().join("merged"), dir.path().join("lower"));
    fs::create_dir(&point).unwrap();
    for (source, target) in [("file", "/a"), ("directory", "/e")] {
        let spec = format!("{}:{target}", dir.path().join(source).display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
        let done =
            command.arg("mount").arg("-l").arg(&lower).args(["-v", &spec]).arg(&point).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.lines().count() == 1 && said.contains(target) && said.contains("directory"), "{said}");
    }
}
