//! Random trees of what `hostile` has one by one, in all layers and in the index, under random changes.
//!
//! `STRATAFS_HOSTILE_SEED` and `STRATAFS_HOSTILE_ROUNDS` are for longer runs.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::common::*;
use crate::hostile::{MARKS, WAYS, alive, fixture, walk};

/// Makes a random tree of harm at `at`.
fn grow(rng: &mut StdRng, at: &Path, depth: usize) {
    const NAMES: [&str; 14] = [
        "a",
        "b",
        "c",
        "d",
        "e",
        "link",
        ".wh.a",
        ".wh.b",
        ".wh..wh..opq",
        ".wh..wh.plnk",
        ".wh.",
        "..x",
        "#1",
        "\u{ff}",
    ];
    const TARGETS: [&str; 7] =
        ["..", "/", "../canary", "a", "../../../../../..", "link", "b/../../canary/secret"];
    for _ in 0..rng.random_range(2..8) {
        let path = at.join(NAMES.choose(rng).unwrap());
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match rng.random_range(0..12) {
            0..=4 => {
                fs::create_dir(&path).unwrap();
                if depth > 0 {
                    grow(rng, &path, depth - 1);
                }
            }
            5 | 6 => fs::write(&path, format!("{:08x}", rng.random::<u32>()).repeat(rng.random_range(0..9)))
                .unwrap(),
            7 => sys::symlink(TARGETS.choose(rng).unwrap(), &path).unwrap(),
            8 => sys::mknod(&path, libc::S_IFCHR, rng.random_range(0..2)).unwrap(),
            9 => sys::mknod(&path, libc::S_IFIFO | 0o600, 0).unwrap(),
            10 => sys::mknod(&path, libc::S_IFBLK | 0o600, 0).unwrap(),
            _ => File::create(&path).unwrap().set_len(40).unwrap(),
        }
        while rng.random_range(0..3) == 0 {
            let value: Vec<u8> = match rng.random_range(0..6) {
                0 => b"y".to_vec(),
                1 => Vec::new(),
                2 => (0..rng.random_range(0..40)).map(|_| rng.random()).collect(),
                3 => [&b"\0\xfb\x1d\0\x01"[..], &rng.random::<[u8; 24]>()].concat(),
                _ => WAYS.choose(rng).unwrap().to_vec(),
            };
            // What the filesystem refuses cannot be in a layer.
            let _ = sys::setxattr(&path, MARKS.choose(rng).unwrap(), &value, 0);
        }
    }
}

/// Whether no part of the path is a symlink: one would lead whoever follows it out of the mount.
fn is_real(root: &Path, path: &Path) -> bool {
    let is_link =
        |part: &Path| root.join(part).symlink_metadata().is_ok_and(|facts| facts.file_type().is_symlink());
    !path.ancestors().any(is_link)
}

/// One random change of what the mount shows. Whatever it answers, it answers.
fn change(rng: &mut StdRng, root: &Path, shown: &[PathBuf]) {
    let real: Vec<&PathBuf> = shown.iter().filter(|path| is_real(root, path)).collect();
    let pick = |rng: &mut StdRng| root.join(real.choose(rng).map_or(Path::new("a"), |path| path.as_path()));
    let (path, other) = (pick(rng), pick(rng));
    if !is_real(root, Path::new("a")) {
        return;
    }
    let way = rng.random_range(0..11);
    let done = match way {
        0 => sys::open(&path, libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_APPEND, 0)
            .and_then(|mut file| no(std::io::Write::write_all(&mut file, b"changed"))),
        1 => sys::rename(&path, &other),
        2 => sys::renameat2(&path, &other, libc::RENAME_EXCHANGE),
        3 => sys::unlink(&path),
        4 => sys::rmdir(&path),
        5 => sys::mkdir(path.join("new"), 0o755),
        6 => sys::link(&path, &other),
        7 => sys::chmod(&path, 0o700),
        8 => sys::truncate(&path, rng.random_range(0..100)),
        9 => sys::setxattr(&path, "user.x", b"value", 0),
        _ => sys::open(path.join("made"), libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o644).map(drop),
    };
    if done.is_ok() {
        // Shown where the test fails.
        let at = |path: &Path| path.strip_prefix(root).unwrap().to_owned();
        println!("{way} {:?} {:?}", at(&path), at(&other));
    }
    done.unwrap_or_else(alive);
}

fn empty(dir: &Path) {
    for entry in Dir::open(dir).map(|mut dir| dir.rest()).unwrap_or_default() {
        if entry.name != "." && entry.name != ".." {
            let path = dir.join(&entry.name);
            if let Err(Errno::EISDIR | Errno::EPERM) = sys::unlink(&path) {
                empty(&path);
                sys::rmdir(&path).unwrap_or_else(alive);
            }
        }
    }
}

#[test]
fn random_trees_of_harm() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("STRATAFS_HOSTILE_SEED").unwrap_or_else(rand::random);
    for seed in seed..seed.saturating_add(number("STRATAFS_HOSTILE_ROUNDS").unwrap_or(12)) {
        let Some(mut f) = fixture(3) else { return };
        println!("STRATAFS_HOSTILE_SEED={seed} STRATAFS_HOSTILE_ROUNDS=1");
        let mut rng = StdRng::seed_from_u64(seed);
        for layer in [f.up(""), f.low(0, ""), f.low(1, ""), f.low(2, "")] {
            grow(&mut rng, &layer, 3);
        }
        fs::create_dir(f.work("index")).unwrap();
        grow(&mut rng, &f.work("index"), 0);
        f.options = vec![
            ["metacopy=on", "metacopy=off", "index=off", "userxattr"].choose(&mut rng).unwrap().to_string(),
        ];
        f.mount();
        for _ in 0..4 {
            let shown: Vec<PathBuf> = walk(&f.p(""), 100_000).into_keys().collect();
            for _ in 0..40 {
                change(&mut rng, &f.p(""), &shown);
            }
        }
        let before = walk(&f.p(""), 100_000);
        f.remount();
        let after = walk(&f.p(""), 100_000);
        for path in before.keys().chain(after.keys()) {
            assert_eq!(before.get(path), after.get(path), "{}: before and after a remount", path.display());
        }
        empty(&f.p(""));
        walk(&f.p(""), 100_000);
        f.unmount();
    }
}
