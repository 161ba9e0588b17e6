//! Marks that only stratafs knows, of image layers and of fuse-overlayfs: the tree is the one that the kernel shows of
//! layers with its own marks in their place.

use std::fs;
use std::path::PathBuf;

use crate::layer::{Layer, TRUSTED};
use crate::mount::{By, Stack, ready, scratch};
use crate::seen::look;
use crate::snapshot::{Tree, Untouched, differences, summary};
use crate::sys;

/// What one layer says about a name, in either language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent,
    File,
    Dir,
    /// `.wh.NAME`
    WhFile,
    /// `.wh.NAME` beside a file of that name: it concerns the lower layers only.
    WhFileAndFile,
    /// `.wh.NAME` beside a directory of that name.
    WhFileAndDir,
    /// A directory that holds `.wh..wh..opq`.
    WhOpaque,
    /// A directory with `user.fuseoverlayfs.opaque`.
    UserOpaque,
    /// The kernel's own two, mixed with the others.
    Whiteout,
    Opaque,
}

use Kind::{Absent, Dir, File, Opaque, UserOpaque, WhFile, WhFileAndDir, WhFileAndFile, WhOpaque, Whiteout};

const KINDS: [(Kind, &str); 10] = [
    (Absent, "none"),
    (File, "file"),
    (Dir, "dir"),
    (WhFile, "wh"),
    (WhFileAndFile, "whfile"),
    (WhFileAndDir, "whdir"),
    (WhOpaque, "whopq"),
    (UserOpaque, "useropq"),
    (Whiteout, "whiteout"),
    (Opaque, "opaque"),
];

const DEPTH: usize = 3;

/// Says it as image layers and fuse-overlayfs do.
fn foreign(layer: &Layer, kind: Kind, name: &str) {
    let path = &format!("place/{name}");
    if matches!(kind, WhFile | WhFileAndDir | WhFileAndFile) {
        fs::write(layer.at(&format!("place/.wh.{name}")), "").unwrap();
    }
    match kind {
        Absent | WhFile => {}
        File | WhFileAndFile => layer.file(path),
        Dir | WhFileAndDir => layer.dir(path),
        WhOpaque => {
            layer.dir(path);
            let dir = fs::File::open(layer.at(path)).unwrap();
            let before = dir.metadata().unwrap().modified().unwrap();
            fs::write(layer.at(path).join(".wh..wh..opq"), "").unwrap();
            dir.set_modified(before).unwrap();
        }
        UserOpaque => {
            layer.dir(path);
            sys::set_xattr(&layer.at(path), "user.fuseoverlayfs.opaque", b"y").unwrap();
        }
        Whiteout | Opaque => native(layer, kind, name),
    }
}

/// Says the same as the kernel does.
fn native(layer: &Layer, kind: Kind, name: &str) {
    let path = &format!("place/{name}");
    match kind {
        Absent => {}
        File | WhFileAndFile => layer.file(path),
        Dir => layer.dir(path),
        WhFile | Whiteout => layer.whiteout(path),
        WhFileAndDir | WhOpaque | UserOpaque | Opaque => {
            layer.dir(path);
            layer.mark(path, "opaque", b"y");
        }
    }
}

/// The layers in one language, and the names.
fn build(home: &std::path::Path, make: fn(&Layer, Kind, &str)) -> (Vec<PathBuf>, Vec<String>) {
    let layers: Vec<Layer> =
        (0..DEPTH).map(|number| Layer::new(home, &format!("layer{number}"), number, TRUSTED)).collect();
    layers.iter().for_each(|layer| layer.bare_dir("place"));
    let mut names = Vec::new();
    for number in 0..KINDS.len().pow(DEPTH as u32) {
        let mut rest = number;
        let mut said = Vec::new();
        for _ in 0..DEPTH {
            said.push(KINDS[rest % KINDS.len()]);
            rest /= KINDS.len();
        }
        let name = said.iter().map(|(_, word)| *word).collect::<Vec<_>>().join("-");
        layers.iter().zip(&said).for_each(|(layer, (kind, _))| make(layer, *kind, &name));
        names.push(name);
    }
    (layers.into_iter().map(|layer| layer.root).collect(), names)
}

/// What one side shows of the layers in its language.
fn seen(by: By, make: fn(&Layer, Kind, &str), writable: bool) -> Tree {
    let home = scratch(true);
    let (layers, names) = build(home.path(), make);
    let stack = if writable {
        let work = home.path().join("work");
        fs::create_dir(&work).unwrap();
        Stack {
            lowers: layers[1..].to_vec(),
            data: Vec::new(),
            upper: Some((layers[0].clone(), work)),
            more: Vec::new(),
        }
    } else {
        Stack::read_only(&layers)
    };
    let untouched = Untouched::new(&stack.lowers);
    let options = "redirect_dir=on,metacopy=on";
    let mount = stack.mount(by, options, &home.path().join("mount"));
    let tree = look(&mount.path().join("place"), &names);
    mount.end();
    untouched.check();
    tree
}

/// `STRATAFS_FOREIGN=native` gives stratafs the kernel's marks as well: a program that knows no others passes then.
fn compare(writable: bool) {
    if !ready() {
        return;
    }
    let make = match std::env::var_os("STRATAFS_FOREIGN") {
        Some(_) => native,
        None => foreign,
    };
    let lines = differences(&seen(By::Kernel, native, writable), &seen(By::Strata, make, writable), &[]);
    assert!(lines.is_empty(), "kernel marks and foreign marks (top layer first): {}", summary(&lines));
}

#[test]
fn foreign_marks_of_lowers_mean_what_kernel_marks_mean() {
    compare(false);
}

#[test]
fn foreign_marks_of_an_upper_mean_what_kernel_marks_mean() {
    compare(true);
}
