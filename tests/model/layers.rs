//! The lower layers of a run, and the plain copy of what they show.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FsPath, PathBuf};
use std::process::Command;

use crate::case::{Case, Maker, Terms, ignored};
use crate::format::mount::{By, Stack};
use crate::format::snapshot::{Tree, differences, summary, take};
use crate::side::Side;

/// The time that everything has before a run.
const BEFORE: i64 = 1_000_000_000;

pub fn set_time(path: &FsPath) {
    crate::format::sys::set_mtime(path, BEFORE).unwrap();
}

/// Makes the layers, the lowest first; returns them topmost first.
pub fn make_layers(case: &Case, top: &FsPath, place: &FsPath) -> Vec<PathBuf> {
    let mut lowers: Vec<PathBuf> = Vec::new();
    for (number, (maker, steps)) in case.layers.iter().enumerate() {
        let home = place.join(format!("layer{number}"));
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        let work = |root: &FsPath| {
            let mut side = Side::new(root, 0);
            for step in steps {
                // Many lead nowhere, as random steps do.
                let _ = side.step(step);
            }
            side.close().unwrap();
        };
        let layer = home.join("upper");
        if *maker == Maker::Hand || lowers.is_empty() || case.terms == Terms::Ram {
            fs::create_dir(&layer).unwrap();
            work(&layer);
            if !lowers.is_empty() {
                prune(case.terms, &layer, &lowers, &top.join(format!("prune{number}")));
            }
        } else {
            let stack = Stack::writable(&lowers, &home);
            let by = if *maker == Maker::Kernel { By::Kernel } else { By::Strata };
            let mount = stack.mount(by, case.terms.making(), &home.join("merged"));
            work(mount.path());
            mount.end();
            // Its index holds one more link of some files.
            fs::remove_dir_all(home.join("work")).unwrap();
        }
        if case.terms == Terms::Linked {
            lowers.first().iter().for_each(|below| link_files(below, &layer));
        }
        fs::set_permissions(&layer, fs::Permissions::from_mode(0o755)).unwrap();
        age(&layer);
        lowers.insert(0, layer);
    }
    lowers
}

/// Makes files at the root of a layer hard links of those of the layer below.
fn link_files(below: &FsPath, layer: &FsPath) {
    let is_file = |path: &FsPath| path.symlink_metadata().is_ok_and(|meta| meta.is_file());
    let files = crate::generate::NAMES.iter().map(|name| below.join(name)).filter(|path| is_file(path));
    let free = crate::generate::NAMES.iter().rev().map(|name| layer.join(name));
    for (file, name) in files.zip(free.filter(|path| path.symlink_metadata().is_err())).take(3) {
        fs::hard_link(file, name).unwrap();
    }
}

/// Takes whiteouts away that are in a directory without anything below: the kernel lists them there, and nobody leaves them.
fn prune(terms: Terms, layer: &FsPath, lowers: &[PathBuf], home: &FsPath) {
    let stack = Stack::writable(&[&[layer.to_owned()], lowers].concat(), &home.join("pruning"));
    let options =
        if terms == Terms::Userxattr { "userxattr" } else { "redirect_dir=on,index=on,metacopy=on" };
    let mount = stack.mount(By::Kernel, options, &home.join("pruned"));
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(mount.path().join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            match fs::symlink_metadata(mount.path().join(&path)) {
                Ok(meta) if meta.is_dir() => todo.push(path),
                Ok(_) => {}
                Err(_) => fs::remove_file(layer.join(&path)).unwrap(),
            }
        }
    }
    mount.end();
}

/// Gives everything under `root` the time before the run.
pub fn age(root: &FsPath) {
    if fs::symlink_metadata(root).unwrap().is_dir() {
        for entry in fs::read_dir(root).unwrap() {
            age(&entry.unwrap().path());
        }
    }
    set_time(root);
}

/// Makes `plain` what the layers show: by the kernel's overlay, which this project did not write. Returns what that shows.
pub fn copy_of_view(terms: Terms, lowers: &[PathBuf], top: &FsPath, plain: &FsPath) -> Option<Tree> {
    fs::create_dir(plain).unwrap();
    if lowers.is_empty() {
        return None;
    }
    let home = top.join("copy");
    fs::create_dir(&home).unwrap();
    let stack = Stack::writable(lowers, &home);
    let mount = stack.mount(By::Kernel, terms.kernel(), &home.join("merged"));
    let tree = take(mount.path());
    let mut copy = Command::new("cp");
    let from = format!("{}/.", mount.path().display());
    let done = copy.args(["-a", "--preserve=all"]).arg(from).arg(plain).output().unwrap();
    assert!(done.status.success(), "cp: {}", String::from_utf8_lossy(&done.stderr));
    let lines: Vec<String> = differences(&tree, &take(plain), ignored(terms))
        .into_iter()
        .filter(|line| !line.starts_with(".:"))
        .collect();
    assert!(lines.is_empty(), "the copy is not the view: {}", summary(&lines));
    mount.end();
    Some(tree)
}
