//! What stratafs writes the kernel reads, and the other way round: an upper can be carried between them at any time.

use std::fs;
use std::path::{Path, PathBuf};

use crate::layer::{Layer, TRUSTED};
use crate::mount::{By, Stack, ready, scratch};
use crate::ops::{Op, apply_all, random, scripted, seed};
use crate::snapshot::{Tree, Untouched, assert_same, take};
use crate::sys;

/// Options of both sides.
#[derive(Clone, Copy)]
struct Options {
    kernel: &'static str,
    strata: &'static str,
}

const PLAIN: Options =
    Options { kernel: "redirect_dir=on,index=on,metacopy=off", strata: "redirect_dir=on,index=on" };
const METACOPY: Options = Options {
    kernel: "redirect_dir=on,index=on,metacopy=on",
    strata: "redirect_dir=on,index=on,metacopy=on",
};

/// Two lower layers with something of every kind, some names in both; some marks in the upper one of them.
pub fn lowers(home: &Path) -> Vec<PathBuf> {
    let layers = [1, 2].map(|number| Layer::new(home, &format!("lower{number}"), number, TRUSTED));
    let [top, bottom] = &layers;
    for layer in &layers {
        for dir in
            ["a", "b", "b/c", "c", "d", "d/a", "d/b", "e/dir", "f/one", "f/two", "m/one", "m/one/inner"]
        {
            layer.dir(dir);
        }
        for dir in ["m/two", "m/there", "m/deep/er", "h", "n"] {
            layer.dir(dir);
        }
        for file in ["a/file", "a/long", "c/a", "c/b", "d/c", "e/file", "e/over", "e/target", "e/x", "e/y"] {
            layer.file(file);
        }
        for file in ["m/two/file", "m/two/gone", "b/file", "a/a", "a/b", "b/a", "g"] {
            layer.file(file);
        }
        sys::set_xattr(&layer.at("a/file"), "user.lower", b"value").unwrap();
        fs::write(layer.at("a/big"), vec![b'0' + layer.number as u8; 70_000]).unwrap();
        std::os::unix::fs::symlink("../a/file", layer.at("b/link")).unwrap();
        std::os::unix::fs::symlink("target", layer.at("e/link")).unwrap();
        sys::mknod(&layer.at("b/fifo"), nix::sys::stat::SFlag::S_IFIFO, 0o640, 0, 0).unwrap();
        for (first, others) in [
            ("h/one", vec!["h/two", "h/three"]),
            ("h/pair1", vec!["h/pair2"]),
            ("h/alone1", vec!["a/alone2"]),
        ] {
            layer.file(first);
            others.iter().for_each(|other| fs::hard_link(layer.at(first), layer.at(other)).unwrap());
        }
    }
    bottom.file("c/c");
    top.whiteout("c/c");
    bottom.dir("c/hidden");
    top.whiteout("c/hidden");
    bottom.dir("c/d");
    top.dir("c/d");
    top.mark("c/d", "opaque", b"y");
    bottom.dir("d/origin");
    top.dir("d/d");
    top.mark("d/d", "redirect", b"origin");
    top.whiteout("d/origin");
    layers.map(|layer| layer.root).to_vec()
}

/// A place to work in: lowers, and uppers by name.
struct Place {
    home: tempfile::TempDir,
    lowers: Vec<PathBuf>,
    untouched: Untouched,
    mounts: std::cell::Cell<usize>,
}

impl Place {
    fn new() -> Place {
        let home = scratch(false);
        let lowers = lowers(home.path());
        let untouched = Untouched::new(&lowers);
        Place { home, lowers, untouched, mounts: std::cell::Cell::new(0) }
    }

    /// The stack whose upper is called `name`.
    fn stack(&self, name: &str) -> Stack {
        Stack::writable(&self.lowers, &self.home.path().join(name))
    }

    /// Mounts, makes the changes, and tells how they went and what is there before the unmount.
    fn work(&self, upper: &str, by: By, options: Options, ops: &[Op]) -> (Vec<String>, Tree) {
        self.mounts.set(self.mounts.get() + 1);
        let point = self.home.path().join(format!("mount{}", self.mounts.get()));
        let options = if by == By::Kernel { options.kernel } else { options.strata };
        let mount = self.stack(upper).mount(by, options, &point);
        let outcomes = apply_all(mount.path(), ops);
        let tree = take(mount.path());
        mount.end();
        self.untouched.check();
        (outcomes.iter().map(|(op, outcome)| format!("{op:?}: {outcome:?}")).collect(), tree)
    }

    /// What a fresh mount shows.
    fn view(&self, upper: &str, by: By, options: Options) -> Tree {
        self.work(upper, by, options, &[]).1
    }
}

/// One side writes; after it, both sides show what the writer showed.
fn one_writes(writer: By, options: Options, ops: &[Op]) {
    let place = Place::new();
    let (outcomes, tree) = place.work("one", writer, options, ops);
    let told = || outcomes.join("\n");
    let again = place.view("one", writer, options);
    assert_same(&format!("{writer:?} before and after remount, after\n{}\n", told()), &tree, &again, &[]);
    for reader in [By::Strata, By::Kernel, writer] {
        let read = place.view("one", reader, options);
        assert_same(&format!("{writer:?} wrote, {reader:?} reads, after\n{}\n", told()), &tree, &read, &[]);
    }
}

/// The changes that the script is meant to make must all be possible, or it tests less than it seems to.
#[test]
fn the_script_succeeds_through_both() {
    if !ready() {
        return;
    }
    let place = Place::new();
    for by in [By::Kernel, By::Strata] {
        let outcomes = place.work(&format!("{by:?}"), by, PLAIN, &scripted()).0;
        let failed: Vec<&String> = outcomes.iter().filter(|outcome| !outcome.ends_with("Ok(())")).collect();
        assert!(failed.is_empty(), "{by:?}: {failed:#?}");
    }
}

#[test]
fn scripted_changes_by_stratafs_are_read_by_the_kernel() {
    if ready() {
        one_writes(By::Strata, PLAIN, &scripted());
        one_writes(By::Strata, METACOPY, &scripted());
    }
}

#[test]
fn scripted_changes_by_the_kernel_are_read_by_stratafs() {
    if ready() {
        one_writes(By::Kernel, PLAIN, &scripted());
        one_writes(By::Kernel, METACOPY, &scripted());
    }
}

/// How many series of random changes, and how long each is.
const SERIES: u64 = 6;
const LENGTH: usize = 150;

#[test]
fn random_changes_by_stratafs_are_read_by_the_kernel() {
    if ready() {
        let seed = seed();
        for series in seed..seed + SERIES {
            eprintln!("series {series}");
            one_writes(By::Strata, if series % 2 == 0 { PLAIN } else { METACOPY }, &random(series, LENGTH));
        }
    }
}

#[test]
fn random_changes_by_the_kernel_are_read_by_stratafs() {
    if ready() {
        let seed = seed();
        for series in seed..seed + SERIES {
            eprintln!("series {series}");
            one_writes(By::Kernel, if series % 2 == 0 { PLAIN } else { METACOPY }, &random(series, LENGTH));
        }
    }
}

#[test]
fn an_upper_is_worked_on_in_turns() {
    if !ready() {
        return;
    }
    let seed = seed();
    for options in [PLAIN, METACOPY] {
        for first in [By::Kernel, By::Strata] {
            let second = if first == By::Kernel { By::Strata } else { By::Kernel };
            let place = Place::new();
            for (round, by) in [first, second, first, second].into_iter().enumerate() {
                let ops = if round == 0 { scripted() } else { random(seed + round as u64, LENGTH) };
                let (outcomes, tree) = place.work("one", by, options, &ops);
                let told = format!("round {round} by {by:?}:\n{}\n", outcomes.join("\n"));
                for reader in [By::Strata, By::Kernel] {
                    let read = place.view("one", reader, options);
                    assert_same(&format!("read by {reader:?} after {told}"), &tree, &read, &[]);
                }
            }
        }
    }
}

/// The same changes, on uppers of their own, have the same outcomes and lead to the same tree. Times are told by the
/// clock, so they are not compared.
#[test]
fn the_same_changes_have_the_same_outcomes() {
    if !ready() {
        return;
    }
    let seed = seed();
    for series in seed..seed + SERIES {
        let options = if series % 2 == 0 { PLAIN } else { METACOPY };
        let place = Place::new();
        let ops = random(series, LENGTH);
        let (kernel, theirs) = place.work("kernel", By::Kernel, options, &ops);
        let (strata, ours) = place.work("strata", By::Strata, options, &ops);
        let different: Vec<String> =
            kernel.iter().zip(&strata).filter(|(a, b)| a != b).map(|(a, b)| format!("{a} but {b}")).collect();
        assert!(different.is_empty(), "series {series}, kernel and stratafs: {different:#?}");
        assert_same(&format!("series {series}, kernel and stratafs"), &theirs, &ours, &["mtime"]);
    }
}
