//! Listings of large directories, whose names are looked up before their reader comes to them.

use crate::common::*;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

const NAMES: usize = 3000;

/// What a file that is there should be: its mode, and what is in it.
type Files = BTreeMap<String, (u32, String)>;

/// Looks at a file as who lists its directory with `ls -l` does.
fn look(at: &Path, name: &str, files: &Files) {
    let path = at.join(name);
    match files.get(name) {
        Some((mode, content)) => {
            let s = stat(&path);
            assert_eq!((s.mode() & 0o7777, s.len()), (*mode, content.len() as u64), "{name}");
        }
        None => assert_eq!(missing(&path), Errno::ENOENT, "{name}"),
    }
}

/// Changes one of the files that the reader has not come to.
fn change(at: &Path, files: &mut Files, passed: &HashSet<String>, rng: &mut StdRng) {
    // One with two names is changed no more: it would change under both.
    let is_own = |name: &String| name.starts_with('f') && !files.contains_key(&format!("linked-{name}"));
    let ahead = files.keys().filter(|name| is_own(name) && !passed.contains(*name));
    let Some(name) = ahead.choose(rng).cloned() else { return };
    let (path, (mode, content)) = (at.join(&name), files.remove(&name).unwrap());
    match rng.random_range(0..6) {
        0 => sys::unlink(path).unwrap(),
        1 => {
            sys::chmod(path, 0o640).unwrap();
            files.insert(name, (0o640, content));
        }
        2 => {
            fs::write(path, "written").unwrap();
            files.insert(name, (mode, "written".into()));
        }
        3 => {
            let moved = format!("moved-{name}");
            sys::rename(path, at.join(&moved)).unwrap();
            files.insert(moved, (mode, content));
        }
        4 => {
            // The name comes back as another file.
            sys::unlink(&path).unwrap();
            fs::write(&path, "another file").unwrap();
            sys::chmod(&path, 0o600).unwrap();
            files.insert(name, (0o600, "another file".into()));
        }
        _ => {
            let linked = format!("linked-{name}");
            sys::link(path, at.join(&linked)).unwrap();
            files.insert(linked, (mode, content.clone()));
            files.insert(name, (mode, content));
        }
    }
}

#[test]
fn what_changes_before_its_reader_comes_is_listed_as_it_is_then() {
    let Some(mut f) = Fixture::new(2) else { return };
    let mut files = Files::new();
    for at in 0..NAMES {
        let (name, content) = (format!("f{at:04}"), "x".repeat(at % 7));
        f.lower(at % 2).file(format!("d/{name}"), &content);
        files.insert(name, (0o644, content));
    }
    f.mount();
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut dir = Dir::open(f.p("d")).unwrap();
    let (mut passed, mut lookups) = (HashSet::new(), 0);
    while let Some(entry) = dir.next() {
        let name = entry.name.into_string().unwrap();
        if name == "." || name == ".." {
            continue;
        }
        look(&f.p("d"), &name, &files);
        lookups += 1;
        passed.insert(name);
        if lookups % 100 == 0 {
            // The daemon looks ahead now.
            std::thread::sleep(Duration::from_millis(2));
            (0..20).for_each(|_| change(&f.p("d"), &mut files, &passed, &mut rng));
        }
        if lookups == NAMES / 2 {
            // Back, and over the same names once more.
            let here = dir.tell();
            dir.rewind();
            (0..NAMES / 4).for_each(|_| drop(dir.next()));
            dir.seek(here);
        }
    }
    drop(dir);
    let unchanged = (0..NAMES).map(|at| format!("f{at:04}")).filter(|name| files.contains_key(name));
    assert_eq!(unchanged.filter(|name| !passed.contains(name)).count(), 0, "left out by the listing");
    f.check(|m| {
        let all: Vec<String> = names(m.join("d"));
        assert_eq!(all, files.keys().cloned().collect::<Vec<_>>());
        for (name, (_, content)) in &files {
            look(&m.join("d"), name, &files);
            assert_eq!(&text(m.join("d").join(name)), content, "{name}");
        }
    });
}

#[test]
fn readers_of_one_directory_do_not_get_in_each_others_way() {
    let Some(mut f) = Fixture::new(1) else { return };
    (0..NAMES).for_each(|at| drop(f.lower(0).file(format!("d/f{at:04}"), "x".repeat(at % 9))));
    f.mount();
    f.check(|m| {
        std::thread::scope(|scope| {
            for reader in 0..4 {
                let at = m.join("d");
                scope.spawn(move || {
                    // Some leave before the end.
                    let enough = if reader % 2 == 0 { NAMES } else { NAMES / (reader + 1) };
                    let mut seen = 0;
                    let mut dir = Dir::open(&at).unwrap();
                    while let (Some(entry), true) = (dir.next(), seen < enough) {
                        let Some(number) = entry.name.to_str().unwrap().strip_prefix('f') else { continue };
                        let number: u64 = number.parse().unwrap();
                        assert_eq!(stat(at.join(&entry.name)).len(), number % 9);
                        seen += 1;
                    }
                    assert_eq!(seen, enough);
                });
            }
        });
    });
}
