//! Readers, writers and walkers on a mount while grafts are added, removed and replaced. Whatever they meet is the old state or
//! the new one, and every byte that was acknowledged is in the source that took it.
//!
//! Five seconds by default, sixty with STRATAFS_LONG=1.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::common::*;

const LAYERS: &str = "layers";
const SOURCES: [&str; 3] = ["one", "two", "three"];

/// Who holds what is at `swap`.
fn state_of(f: &Fixture) -> Option<(String, Vec<String>)> {
    // A directory opened once is one tree, whatever becomes of its name.
    let dir = fs::File::open(f.p("swap")).ok()?;
    let path = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&dir).to_string());
    let id = fs::read_to_string(path.join("id")).ok()?;
    let mut names: Vec<String> =
        fs::read_dir(path).ok()?.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with("log-"));
    names.sort();
    Some((id, names))
}

#[test]
fn nothing_is_lost_and_nothing_in_between_is_seen_while_grafts_change() {
    if kernel_oracle() {
        return println!("skipped: the kernel has no grafts");
    }
    let Some(mut f) = Fixture::new(2) else { return };
    let time = match std::env::var_os("STRATAFS_LONG") {
        Some(_) => Duration::from_secs(60),
        None => Duration::from_secs(5),
    };
    f.lower(0)
        .dir("swap")
        .file("swap/id", LAYERS)
        .file("swap/layers", "")
        .dir("swap/both")
        .file("swap/both/f", "");
    let l = f.lower(1).dir("walk").dir("plain");
    (0..40).fold(l, |l, i| l.dir(format!("walk/d{i}")).file(format!("walk/d{i}/f"), "f"));
    for source in SOURCES {
        fs::create_dir_all(f.dir().join(source).join("both")).unwrap();
        fs::write(f.dir().join(source).join("id"), source).unwrap();
        fs::write(f.dir().join(source).join(source), "").unwrap();
        fs::write(f.dir().join(source).join("both/f"), "").unwrap();
    }
    f.mount();
    f.graft(&["add", "@", "-v", "./one:/plain/in"]).ok();
    let expected = |id: &str| -> Vec<String> {
        let mut names = vec!["both".to_owned(), "id".to_owned(), id.to_owned()];
        names.sort();
        names
    };
    let end = Instant::now() + time;
    let running = || Instant::now() < end;
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let complain = |what: String| wrong.lock().unwrap().push(what);
    // Lines that were written and acknowledged, by the source that the writer's directory turned out to be.
    let written: Mutex<BTreeMap<(String, String), u64>> = Mutex::default();
    let (changes, looks, lines, walks) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while running() {
                    match state_of(&f) {
                        Some((id, names)) if names == expected(&id) => {}
                        seen => complain(format!("a mixture: {seen:?}")),
                    }
                    for name in ["swap/id", "swap/both/f", "swap", "swap/both"] {
                        if let Err(error) = f.p(name).symlink_metadata() {
                            complain(format!("{name}, which always is there: {error}"));
                        }
                    }
                    for name in ["swap/layers", "swap/one", "new/deep/id", "new", "new/deep", "plain/file"] {
                        match f.p(name).symlink_metadata().map_err(|e| e.raw_os_error()) {
                            Ok(_) | Err(Some(libc::ENOENT)) => {}
                            error => complain(format!("{name}: {error:?}")),
                        }
                    }
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for writer in 0..2 {
            let (f, written, lines, complain, running) = (&f, &written, &lines, &complain, &running);
            scope.spawn(move || {
                let log = format!("log-{writer}");
                while running() {
                    // What is open is one tree's; which one is read from beside it.
                    let Ok(dir) = fs::File::open(f.p("swap")) else {
                        complain("swap cannot be opened".to_owned());
                        continue;
                    };
                    let dir =
                        Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&dir).to_string());
                    let Ok(id) = fs::read_to_string(dir.join("id")) else {
                        complain("an open directory has lost its file".to_owned());
                        continue;
                    };
                    let opened =
                        fs::OpenOptions::new().append(true).create(true).mode(0o644).open(dir.join(&log));
                    let mut file = match opened {
                        Ok(file) => file,
                        Err(error) => {
                            complain(format!("{id}/{log}: {error}"));
                            continue;
                        }
                    };
                    for _ in 0..20 {
                        match file.write_all(b"a line of sixteen\n") {
                            Ok(()) => {
                                *written.lock().unwrap().entry((id.clone(), log.clone())).or_default() += 1;
                                lines.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => complain(format!("a write to {id}/{log}: {error}")),
                        }
                    }
                    // By a path, which leads to whatever is there now.
                    match fs::OpenOptions::new().append(true).create(true).open(f.p("plain/file")) {
                        Ok(mut file) => {
                            if let Err(error) = file.write_all(b"x") {
                                complain(format!("plain/file: {error}"));
                            }
                        }
                        Err(error) => complain(format!("plain/file: {error}")),
                    }
                }
            });
        }
        scope.spawn(|| {
            while running() {
                let walked = names(f.p("walk")).len();
                if !(40..=41).contains(&walked) {
                    complain(format!("{walked} names in walk"));
                }
                for i in 0..40 {
                    if let Err(error) = fs::read(f.p(format!("walk/d{i}/f"))) {
                        complain(format!("walk/d{i}/f: {error}"));
                    }
                }
                walks.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            // Makes and removes what may lie on the way.
            while running() {
                let made = sys::mkdir(f.p("new"), 0o755);
                let gone = sys::rmdir(f.p("new"));
                match (made, gone) {
                    (Ok(()), Ok(())) | (Err(Errno::EEXIST), Ok(())) => {}
                    (Ok(()) | Err(Errno::EEXIST), Err(Errno::ENOTEMPTY | Errno::EBUSY | Errno::ENOENT)) => {}
                    odd => complain(format!("mkdir and rmdir of new: {odd:?}")),
                }
                if sys::rename(f.p("plain"), f.p("moved")) != Err(Errno::EBUSY) {
                    complain("plain moved, and something is attached in it".to_owned());
                }
            }
        });
        let mut i = 0;
        while running() {
            let (source, other) = (SOURCES[i % 3], SOURCES[(i + 1) % 3]);
            let (spec, next) = (format!("./{source}:/swap"), format!("./{other}:/swap"));
            let does = |words: &[&str]| {
                let done = f.graft(words);
                if done.code != Some(0) {
                    complain(format!("{words:?}: {}", done.err));
                }
                changes.fetch_add(1, Ordering::Relaxed);
            };
            does(&["add", "@", "-v", &spec]);
            does(&["replace", "--lazy", "@", "-v", &next]);
            does(&["add", "@", "-v", "./two:/walk/in"]);
            let nested = f.graft(&["add", "@", "-v", "./three:/new/deep"]);
            does(&["rm", "--lazy", "@", "/swap"]);
            does(&["rm", "--lazy", "@", "/walk/in"]);
            if nested.code == Some(0) {
                does(&["rm", "--lazy", "@", "/new/deep"]);
            }
            i += 1;
        }
    });
    let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} changes, {} looks, {} lines, {} walks",
        seen(&changes),
        seen(&looks),
        seen(&lines),
        seen(&walks)
    );
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} complaints, the first: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    for count in [&changes, &looks, &lines, &walks] {
        assert!(seen(count) > 0);
    }
    f.graft(&["rm", "@", "/plain/in"]).ok();
    assert_eq!(f.graft(&["ls", "@"]).ok().out, "");
    let written = written.into_inner().unwrap();
    for ((id, log), count) in &written {
        let at = if id == LAYERS { f.p("swap").join(log) } else { f.dir().join(id).join(log) };
        assert_eq!(text(&at).lines().count() as u64, *count, "lines in {id}/{log}");
    }
    let _ = sys::rmdir(f.p("new"));
    assert_eq!(names(f.p("swap")).iter().filter(|name| !name.starts_with("log-")).count(), 3);
    assert_eq!(names(f.p("")), ["plain", "swap", "walk"]);
}
