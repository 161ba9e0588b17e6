//! Many layers: names are then learnt by listing, which must not change what they mean.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::layer::{Layer, TRUSTED};
use crate::mount::{By, Stack, ready, scratch};
use crate::ops::seed;
use crate::snapshot::{Untouched, assert_same, take};
use crate::sys;

/// More than a directory may have before it is listed instead of asked.
const LAYERS: usize = 40;
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// How layers say that something is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// As the kernel does.
    Marks,
    /// By files, as layers of images do.
    Files,
}

impl Spelling {
    fn hide(self, layer: &Layer, path: &str) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        match self {
            Spelling::Marks => layer.whiteout(path),
            Spelling::Files => fs::write(layer.at(above).join(format!(".wh.{name}")), "").unwrap(),
        }
    }

    fn hide_below(self, layer: &Layer, path: &str) {
        match self {
            Spelling::Marks => layer.mark(path, "opaque", b"y"),
            Spelling::Files => fs::write(layer.at(path).join(".wh..wh..opq"), "").unwrap(),
        }
    }

    /// Layers that say the same for the same `seed`, in either spelling.
    fn layers(self, seed: u64, home: &Path) -> Vec<PathBuf> {
        let mut random = StdRng::seed_from_u64(seed);
        let make = |number: usize| {
            let layer = Layer::new(home, &format!("{self:?}{number}"), number, TRUSTED);
            for name in NAMES {
                say(&mut random, &layer, self, name, 2);
            }
            same_times(&layer.root, number);
            layer.root
        };
        (0..LAYERS).map(make).collect()
    }
}

/// Gives all that has names a time that tells the layer, whenever it was made.
fn same_times(dir: &Path, number: usize) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        match () {
            () if kind.is_dir() => same_times(&path, number),
            () if kind.is_file() => sys::set_mtime(&path, 1_000_000_000 + number as i64).unwrap(),
            () => {}
        }
    }
    sys::set_mtime(dir, 1_000_000_000 + number as i64).unwrap();
}

/// What a random layer says about a name; more often than not, nothing.
fn say(random: &mut StdRng, layer: &Layer, spelling: Spelling, path: &str, depth: usize) {
    match random.random_range(0..24) {
        0 | 1 => layer.file(path),
        2 => spelling.hide(layer, path),
        3 => {
            layer.dir(path);
            spelling.hide_below(layer, path);
            below(random, layer, spelling, path, depth);
        }
        // Further down it would make a tree without end.
        4 if !path.contains('/') => {
            layer.dir(path);
            let to = format!("/{}", NAMES[random.random_range(0..NAMES.len())]);
            layer.mark(path, "redirect", to.as_bytes());
            below(random, layer, spelling, path, depth);
        }
        5..=14 => {
            layer.dir(path);
            below(random, layer, spelling, path, depth);
        }
        _ => {}
    }
}

fn below(random: &mut StdRng, layer: &Layer, spelling: Spelling, path: &str, depth: usize) {
    for name in NAMES.iter().filter(|_| depth > 0) {
        say(random, layer, spelling, &format!("{path}/{name}"), depth - 1);
    }
}

/// What is said when every path is asked for, none of whose directories was listed before.
fn asked(root: &Path) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    let mut waiting: Vec<String> = NAMES.map(str::to_owned).into();
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let answer = match fs::symlink_metadata(&full) {
            Ok(meta) if meta.is_dir() => {
                waiting.extend(NAMES.iter().map(|name| format!("{path}/{name}")));
                format!("directory {:o} of {}", meta.mode(), meta.mtime())
            }
            Ok(_) => format!("{:?}", fs::read_to_string(&full)),
            Err(error) => error.kind().to_string(),
        };
        if path.matches('/').count() < 4 {
            said.insert(path, answer);
        }
    }
    said
}

#[test]
fn forty_layers_mean_what_they_mean_to_the_kernel_listed_first_and_asked_first() {
    if !ready() {
        return;
    }
    let (home, seed) = (scratch(true), seed());
    let roots = Spelling::Marks.layers(seed, home.path());
    let files = Spelling::Files.layers(seed, home.path());
    let untouched = Untouched::new(&[roots.clone(), files.clone()].concat());
    let options = "metacopy=off,redirect_dir=follow";
    let point = |name: &str| home.path().join(name);

    let kernel = Stack::read_only(&roots).mount(By::Kernel, options, &point("kernel"));
    let (mut tree, answers) = (take(kernel.path()), asked(kernel.path()));
    // The kernel lists the whiteouts of a directory that only one layer has, and then does not find them.
    tree.retain(|_, fields| !fields.get("error").is_some_and(|error| error.starts_with("No such file")));
    kernel.end();
    for (spelling, roots) in [(Spelling::Marks, &roots), (Spelling::Files, &files)] {
        for (writable, asked_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let stack = match writable {
                true => Stack::writable(roots, home.path()),
                false => Stack::read_only(roots),
            };
            let what = format!("{spelling:?}, writable: {writable}, asked first: {asked_first}");
            let mount = stack.mount(By::Strata, options, &point("strata"));
            let early = asked_first.then(|| asked(mount.path()));
            let mut ours = take(mount.path());
            // The root of a writable stack is the upper one's.
            ours.insert(".".to_owned(), tree["."].clone());
            assert_same(&format!("{what}: listed"), &tree, &ours, &[]);
            for ours in early.into_iter().chain([asked(mount.path())]) {
                assert_eq!(answers, ours, "{what}");
            }
            mount.end();
        }
    }
    untouched.check();
}
