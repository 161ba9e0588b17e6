//! Listings of directories that change while they are read.

use crate::common::sys::Dir;
use crate::common::*;

/// What is renamed while it is read gets a name that its reader does not come to. Source: xfstests generic/736.
#[test]
fn a_listing_ends_though_each_name_is_renamed_as_it_is_read() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no grafts")) else { return };
    const FILES: usize = 1500;
    for i in 0..FILES {
        drop(f.lower(0).file(format!("low/f{i:05}"), ""));
        drop(f.source("data").file(format!("f{i:05}"), ""));
    }
    f.bind("data", "/data", "");
    f.mount();
    sys::mkdir(f.p("made"), 0o755).unwrap();
    for i in 0..FILES {
        drop(File::create(f.p(format!("made/f{i:05}"))).unwrap());
    }
    for at in ["low", "made", "data"] {
        let mut dir = Dir::open(f.p(at)).unwrap();
        let mut read = 0;
        while let Some(entry) = dir.next() {
            let name = entry.name.to_str().unwrap();
            if name.starts_with('.') {
                continue;
            }
            let is_new = name.starts_with("new");
            assert!(!is_new || at == "data", "{at}: {name} was made since the reader began");
            read += 1;
            assert!(read <= 2 * FILES, "{at}: a name is read twice, or the listing has no end");
            // Every tenth stays.
            if is_new || !name.ends_with('0') {
                sys::rename(f.p(at).join(name), f.p(at).join(format!("new{read}"))).unwrap();
            }
        }
        assert!(read >= FILES, "{at}: {read} of {FILES} names");
        // From the beginning all of them are there.
        dir.rewind();
        let all = dir.rest();
        assert_eq!(all.len(), FILES + 2, "{at}");
        assert_eq!(
            all.iter().filter(|entry| entry.name.to_str().unwrap().starts_with("new")).count(),
            FILES * 9 / 10
        );
    }
}

/// A name that stays is neither missed nor repeated while others come, go and are renamed without pause.
#[test]
fn names_that_stay_are_read_once_while_others_are_renamed_without_pause() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no grafts")) else { return };
    const FILES: usize = 300;
    for i in 0..FILES {
        drop(f.lower(0).file(format!("low/stays{i}"), "").file(format!("low/goes{i}"), ""));
        drop(f.source("data").file(format!("stays{i}"), "").file(format!("goes{i}"), ""));
    }
    f.bind("data", "/data", "");
    f.mount();
    for at in ["low", "data"] {
        let over = std::sync::atomic::AtomicBool::new(false);
        let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let name = |i: usize, round: usize| match round {
                    0 => f.p(at).join(format!("goes{i}")),
                    round => f.p(at).join(format!("went{i}-{round}")),
                };
                for round in 0.. {
                    for i in 0..FILES {
                        if is_over() {
                            return;
                        }
                        sys::rename(name(i, round), name(i, round + 1)).unwrap();
                    }
                }
            });
            for _ in 0..10 {
                let mut seen = std::collections::HashMap::new();
                for entry in Dir::open(f.p(at)).unwrap().rest() {
                    *seen.entry(entry.name).or_insert(0) += 1;
                }
                let stays = seen.iter().filter(|(name, _)| name.to_str().unwrap().starts_with("stays"));
                let times: Vec<i32> = stays.map(|(_, times)| *times).collect();
                let twice = seen.values().any(|times| *times > 1);
                if twice || times.len() != FILES {
                    over.store(true, std::sync::atomic::Ordering::Relaxed);
                    panic!("{at}: {} of {FILES} names that stay; one twice: {twice}", times.len());
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
