//! Inode numbers: one per object, the same in listings and attributes, before and after copy-up, and after remount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::interchange;
use crate::layer::{Layer, TRUSTED};
use crate::mount::{By, Filesystem, Stack, ready, scratch};
use crate::ops::{Op, apply, scripted};
use crate::snapshot::Untouched;

/// Path to inode number.
type Numbers = BTreeMap<String, u64>;

/// The numbers of everything under `root`: as listed, or as `lstat` tells.
fn numbers(root: &Path, listed: bool) -> Numbers {
    let mut numbers = Numbers::new();
    if !listed {
        numbers.insert(String::new(), fs::symlink_metadata(root).unwrap().ino());
    }
    collect(root, "", listed, &mut numbers);
    numbers
}

/// Adds what is under `path`.
fn collect(root: &Path, path: &str, listed: bool, numbers: &mut Numbers) {
    let entries: Vec<fs::DirEntry> = fs::read_dir(root.join(path)).unwrap().map(Result::unwrap).collect();
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        let below = if path.is_empty() { name } else { format!("{path}/{name}") };
        let number = if listed { entry.ino() } else { fs::symlink_metadata(entry.path()).unwrap().ino() };
        numbers.insert(below.clone(), number);
        if entry.file_type().unwrap().is_dir() {
            collect(root, &below, listed, numbers);
        }
    }
}

/// Fails where two trees number a path that both have differently.
fn assert_stable(what: &str, before: &Numbers, after: &Numbers) {
    let moved: Vec<String> = before
        .iter()
        .filter_map(|(path, number)| Some((path, number, after.get(path)?)))
        .filter(|(_, number, now)| number != now)
        .map(|(path, number, now)| format!("{path:?}: {number:#x}, then {now:#x}"))
        .collect();
    assert!(moved.is_empty(), "{what}: {moved:#?}");
}

/// Fails where objects that are not links of each other share a number. `links` are the groups that may.
fn assert_unique(numbers: &Numbers, links: &[&[&str]]) {
    let mut owners: BTreeMap<u64, Vec<&String>> = BTreeMap::new();
    for (path, number) in numbers {
        owners.entry(*number).or_default().push(path);
    }
    for (number, paths) in owners.iter().filter(|(_, paths)| paths.len() > 1) {
        let allowed = links.iter().any(|group| paths.iter().all(|path| group.contains(&path.as_str())));
        assert!(allowed, "{paths:?} share number {number:#x}");
    }
    for group in links {
        let of_group: Vec<_> = group.iter().map(|path| numbers.get(*path)).collect();
        assert!(
            of_group.windows(2).all(|pair| pair[0] == pair[1]),
            "links {group:?} have numbers {of_group:?}"
        );
    }
}

/// Hard links in the lowers of `interchange::lowers`.
const LINKS: [&[&str]; 3] =
    [&["h/one", "h/two", "h/three"], &["h/pair1", "h/pair2"], &["h/alone1", "a/alone2"]];

/// Listed and told numbers, each from a fresh mount, are the same and unique.
fn view(stack: &Stack, options: &str, point: &Path, links: &[&[&str]]) -> Numbers {
    let mount = stack.mount(By::Strata, options, point);
    let listed = numbers(mount.path(), true);
    let told = numbers(mount.path(), false);
    assert_stable("listed before the first lookup, and told", &listed, &told);
    assert_stable("told, and listed after it", &told, &numbers(mount.path(), true));
    mount.end();
    assert_eq!(told.len(), listed.len() + 1);
    assert_unique(&told, links);
    told
}

/// Changes that copy every object up without moving it.
fn touch_all(root: &Path, paths: &Numbers) {
    for path in paths.keys().filter(|path| !path.is_empty()) {
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        let op = if meta.is_file() {
            Op::Append(path.clone(), "+".to_owned())
        } else {
            Op::Mtime(path.clone(), 1_400_000_000)
        };
        assert_eq!(apply(root, &op), Ok(()), "{op:?}");
    }
}

/// Numbers stay through copy-up of everything and remount.
fn stays(lowers: &[PathBuf], home: &Path, options: &str, links: &[&[&str]]) {
    let untouched = Untouched::new(lowers);
    let stack = Stack::writable(lowers, &home.join("rw"));
    let point = home.join("mount");
    let first = view(&stack, options, &point, links);
    let mount = stack.mount(By::Strata, options, &point);
    let before = numbers(mount.path(), false);
    assert_stable("two mounts of an untouched upper", &first, &before);
    touch_all(mount.path(), &before);
    assert_stable("before and after copy-up", &before, &numbers(mount.path(), false));
    assert_stable("before copy-up, and listed after it", &before, &numbers(mount.path(), true));
    mount.end();
    let after = view(&stack, options, &point, links);
    assert_stable("before copy-up and after remount", &first, &after);
    assert_eq!(first.len(), after.len());
    untouched.check();
}

#[test]
fn numbers_stay_through_copy_up_and_remount() {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let lowers = interchange::lowers(home.path());
    stays(&lowers, home.path(), "redirect_dir=on,index=on", &LINKS);
}

#[test]
fn numbers_stay_with_metacopy() {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let lowers = interchange::lowers(home.path());
    stays(&lowers, home.path(), "redirect_dir=on,index=on,metacopy=on", &LINKS);
}

#[test]
fn numbers_follow_what_is_renamed() {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let lowers = interchange::lowers(home.path());
    let stack = Stack::writable(&lowers, &home.path().join("rw"));
    let point = home.path().join("mount");
    let options = "redirect_dir=on,index=on";
    let moves =
        [("m/one", "m/uno"), ("m/two", "two"), ("e/file", "a/renamed"), ("h/one", "h/uno"), ("b/link", "g2")];
    let mount = stack.mount(By::Strata, options, &point);
    let before = numbers(mount.path(), false);
    for (from, to) in moves {
        let op = Op::Rename(from.to_owned(), to.to_owned());
        assert_eq!(apply(mount.path(), &op), Ok(()), "{op:?}");
    }
    let after = numbers(mount.path(), false);
    mount.end();
    let again = view(&stack, options, &point, &[&["h/uno", "h/two", "h/three"], LINKS[1], LINKS[2]]);
    for (from, to) in moves {
        assert_eq!(Some(&before[from]), after.get(to), "{from} renamed to {to}");
        assert_eq!(Some(&before[from]), again.get(to), "{from} renamed to {to}, after remount");
    }
}

#[test]
fn numbers_agree_after_many_changes() {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let lowers = interchange::lowers(home.path());
    let stack = Stack::writable(&lowers, &home.path().join("rw"));
    let point = home.path().join("mount");
    let options = "redirect_dir=on,index=on";
    let mount = stack.mount(By::Strata, options, &point);
    for op in scripted() {
        assert_eq!(apply(mount.path(), &op), Ok(()), "{op:?}");
    }
    let told = numbers(mount.path(), false);
    assert_stable("told and listed", &told, &numbers(mount.path(), true));
    mount.end();
    let links: [&[&str]; 3] = [&["h/one", "h/two", "h/four"], LINKS[1], &["a/file", "a/file2"]];
    assert_unique(&told, &links);
    assert_stable("before and after remount", &told, &view(&stack, options, &point, &links));
}

/// Layers on filesystems of their own, whose inode numbers begin alike.
#[test]
fn numbers_of_several_filesystems_do_not_meet() {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let tmpfs = Filesystem::tmpfs(&home.path().join("tmpfs"));
    let ext4 = Filesystem::ext4(&home.path().join("ext4"));
    let mut places = vec![tmpfs.path(), home.path()];
    match &ext4 {
        Some(ext4) => places.push(ext4.path()),
        None => eprintln!("without a loop-mounted ext4"),
    }
    let twin = Filesystem::tmpfs(&home.path().join("twin"));
    places.push(twin.path());
    let mut lowers = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let layer = Layer::new(place, "layer", number, TRUSTED);
        for dir in ["merged".to_owned(), "merged/deep".to_owned(), format!("dir{number}")] {
            layer.dir(&dir);
            for file in 0..40 {
                layer.file(&format!("{dir}/f{number}_{file}"));
            }
        }
        fs::hard_link(layer.at(&format!("dir{number}/same")), layer.at(&format!("dir{number}/link")))
            .unwrap();
        lowers.push(layer.root);
    }
    let links: Vec<[String; 2]> =
        (0..lowers.len()).map(|number| [format!("dir{number}/same"), format!("dir{number}/link")]).collect();
    let links: Vec<Vec<&str>> =
        links.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
    let links: Vec<&[&str]> = links.iter().map(Vec::as_slice).collect();
    for options in ["redirect_dir=on,index=on", "redirect_dir=on,index=on,xino=on"] {
        let home = home.path().join(if options.ends_with("xino=on") { "xino" } else { "auto" });
        stays(&lowers, &home, options, &links);
    }
}
