//! What a store is after every crash, and what its users see of each other.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::*;
use crate::error::Result;
use crate::graft;
use crate::sys::fault;

fn store() -> (tempfile::TempDir, Store) {
    let temp = tempfile::tempdir().expect("dir");
    let store = Store::open(temp.path()).expect("store");
    (temp, store)
}

fn named(name: &str) -> graft::Volume {
    graft::Volume { name: Some(name.to_owned()), ..graft::Volume::default() }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn create(store: &Store, name: &str) -> Result<(Meta, bool)> {
    store.create(Some(name), None, &BTreeMap::new(), &BTreeMap::new())
}

fn at() -> PathBuf {
    PathBuf::from("/mnt/here")
}

/// Fills as a mount does.
fn fill(attached: &mut Attached) -> Result<()> {
    let dir = attached.population_dir()?;
    fill_dir(&dir).expect("filled");
    attached.finish_population(&["/layer/top".to_owned(), "/layer/base".to_owned()])
}

fn fill_dir(dir: &Path) -> std::io::Result<()> {
    fs::create_dir(dir.join("sub"))?;
    fs::write(dir.join("sub/file"), "content")?;
    fs::write(dir.join("one"), "1")?;
    fs::write(dir.join("two"), "2")?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1750))?;
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1000, 5));
    fs::File::open(dir)?.set_times(times)
}

#[track_caller]
fn is_full(data: &Path) {
    let mut names: Vec<String> = fs::read_dir(data)
        .expect("data")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["one", "sub", "two"]);
    assert_eq!(fs::read_to_string(data.join("sub/file")).expect("file"), "content");
    let root = fs::metadata(data).expect("root");
    assert_eq!((root.mode() & 0o7777, root.mtime(), root.mtime_nsec()), (0o1750, 1000, 5));
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).expect("dir").next().is_none()
}

/// Names in the directory of all volumes, leftovers too.
fn all(store: &Store) -> Vec<String> {
    let list = fs::read_dir(store.state().join("volumes")).expect("volumes");
    list.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_volume_is_made_once_and_other_options_are_refused_with_the_difference() {
    let (_temp, store) = store();
    let options = map(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]);
    let (meta, created) = store.create(Some("v1"), None, &options, &map(&[("a", "b")])).expect("made");
    assert!(created && meta.driver == "local" && meta.labels == map(&[("a", "b")]));
    assert!(!create(&store, "v1").expect("as it is").1);
    assert!(!store.create(Some("v1"), Some("local"), &options, &BTreeMap::new()).expect("the same").1);
    let other = map(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=2m")]);
    let sentence = store.create(Some("v1"), None, &other, &BTreeMap::new()).expect_err("other").to_string();
    assert!(sentence.contains("o=\"size=1m\", not \"size=2m\""), "{sentence}");
    let fewer = map(&[("type", "tmpfs"), ("device", "tmpfs")]);
    let sentence = store.create(Some("v1"), None, &fewer, &BTreeMap::new()).expect_err("fewer").to_string();
    assert!(sentence.contains("not asked for"), "{sentence}");
    assert!(store.create(Some("v1"), Some("nfs"), &options, &BTreeMap::new()).is_err());
    assert_eq!(store.get("v1").expect("there").map(|v| v.meta), Some(meta));
}

#[test]
fn an_external_volume_must_be_there() {
    let (_temp, store) = store();
    let external = graft::Volume { external: true, ..named("ext") };
    let sentence = store.attach(&external, &at()).expect_err("missing").to_string();
    assert!(sentence.contains("stratafs volume create ext"), "{sentence}");
    assert_eq!(store.names().expect("names"), [""; 0]);
    create(&store, "ext").expect("made");
    store.attach(&external, &at()).expect("there");
}

#[test]
fn a_volume_in_use_stays_and_says_where() {
    let (_temp, store) = store();
    let one =
        store.attach(&graft::Volume { nocopy: true, ..named("v1") }, Path::new("/mnt/one")).expect("one");
    assert!(one.created && !one.anonymous && !one.needs_population);
    let two =
        store.attach(&graft::Volume { nocopy: true, ..named("v1") }, Path::new("/mnt/two")).expect("two");
    let sentence = store.remove("v1", true).expect_err("in use").to_string();
    assert!(sentence.starts_with("remove v1: volume is in use - [/mnt/one,/mnt/two]"), "{sentence}");
    drop(one);
    assert!(store.remove("v1", false).expect_err("in use").to_string().contains("[/mnt/two]"));
    two.remove().expect("removed by its last user");
    assert!(store.remove("v1", false).expect_err("gone").to_string().contains("no such volume: v1"));
    store.remove("v1", true).expect("missing is no matter by force");
    assert!(all(&store).is_empty());
}

/// A daemon that was killed has left its record, and no lock.
#[test]
fn a_dead_user_is_no_user() {
    let (temp, store) = store();
    create(&store, "v1").expect("made");
    let users = temp.path().join("volumes/v1/users");
    fs::write(users.join("1.0"), r#"{"Mountpoint":"/mnt/x","Pid":1,"Namespace":0}"#).expect("record");
    fs::write(users.join(".1.1"), "").expect("record");
    assert_eq!(store.get("v1").expect("volume").expect("there").users, []);
    drop(store.attach(&named("v1"), &at()).expect("attached"));
    assert!(store.names().expect("names") == ["v1"] && store.remove("v1", false).is_ok());
}

#[test]
fn an_empty_volume_is_filled_once() {
    let (_temp, store) = store();
    let mut first = store.attach(&named("v1"), &at()).expect("first");
    assert!(first.needs_population);
    fill(&mut first).expect("filled");
    is_full(&first.data);
    let populated = first.meta().expect("meta").populated.expect("recorded");
    assert_eq!(populated.layers, ["/layer/top", "/layer/base"]);
    drop(first);
    let second = store.attach(&named("v1"), &at()).expect("second");
    assert!(!second.needs_population);
    for name in ["one", "two", "sub/file"] {
        fs::remove_file(second.data.join(name)).expect("rm");
    }
    fs::remove_dir(second.data.join("sub")).expect("rmdir");
    drop(second);
    assert!(!store.attach(&named("v1"), &at()).expect("third").needs_population, "emptied by its owner");
}

#[test]
fn what_is_not_empty_or_not_to_be_copied_is_not_filled() {
    let (temp, store) = store();
    create(&store, "v1").expect("made");
    fs::create_dir(temp.path().join("volumes/v1/_data/lost+found")).expect("dir");
    assert!(!store.attach(&named("v1"), &at()).expect("attached").needs_population);
    let nocopy = graft::Volume { nocopy: true, ..named("v2") };
    assert!(!store.attach(&nocopy, &at()).expect("attached").needs_population);
    let mut asked = store.attach(&named("v2"), &at()).expect("attached");
    assert!(asked.needs_population);
    asked.skip_population();
    assert!(store.attach(&graft::Volume::default(), &at()).expect("anonymous").needs_population);
    assert!(store.attach(&named("v2"), &at()).expect("attached").needs_population, "skipped is not filled");
}

#[test]
fn a_filling_given_up_leaves_the_volume_empty() {
    let (temp, store) = store();
    let mut first = store.attach(&named("v1"), &at()).expect("first");
    fill_dir(&first.population_dir().expect("dir")).expect("filled");
    drop(first);
    assert!(
        is_empty(&temp.path().join("volumes/v1/_data")) && !temp.path().join("volumes/v1/_data.new").exists()
    );
    let mut second = store.attach(&named("v1"), &at()).expect("second");
    assert!(second.needs_population);
    fill(&mut second).expect("filled");
    is_full(&second.data);
}

#[test]
fn what_somebody_makes_meanwhile_stays() {
    let (_temp, store) = store();
    let mut first = store.attach(&named("v1"), &at()).expect("first");
    fill_dir(&first.population_dir().expect("dir")).expect("filled");
    fs::write(first.data.join("one"), "theirs").expect("write");
    first.finish_population(&[]).expect("filled");
    assert_eq!(fs::read_to_string(first.data.join("one")).expect("one"), "theirs");
    assert_eq!(fs::read_to_string(first.data.join("two")).expect("two"), "2");
}

#[test]
fn the_second_waits_for_the_first_and_sees_a_full_volume() {
    let (_temp, store) = store();
    let mut first = store.attach(&named("v1"), &at()).expect("first");
    let (send, receive) = mpsc::channel();
    let waiting = std::thread::spawn({
        let store = store.clone();
        move || {
            let second = store.attach(&named("v1"), Path::new("/mnt/second")).expect("second");
            is_full(&second.data);
            send.send(second.needs_population).expect("sent");
        }
    });
    // It is a user of the volume as soon as it waits.
    let begun = std::time::Instant::now();
    while !store.remove("v1", false).expect_err("in use").to_string().contains("/mnt/second") {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it is no user");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(receive.recv_timeout(std::time::Duration::from_millis(200)).is_err(), "it did not wait");
    fill(&mut first).expect("filled");
    assert_eq!(receive.recv(), Ok(false));
    waiting.join().expect("ended");
}

#[test]
fn many_at_once_make_and_fill_one_volume() {
    let (_temp, store) = store();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || {
                let mut attached = store.attach(&named("v1"), &at()).expect("attached");
                let filled = attached.needs_population;
                if filled {
                    fill(&mut attached).expect("filled");
                }
                is_full(&attached.data);
                (attached.created, filled)
            })
        })
        .collect();
    let done: Vec<(bool, bool)> = threads.into_iter().map(|thread| thread.join().expect("ended")).collect();
    assert_eq!(done.iter().filter(|(created, _)| *created).count(), 1, "{done:?}");
    assert_eq!(done.iter().filter(|(_, filled)| *filled).count(), 1, "{done:?}");
}

/// Runs `change` on a fresh store and crashes at each of its steps; `look` sees the store as it is opened after each
/// crash, and whether the change had said it was done.
fn at_every_crash(
    before: impl Fn(&Store),
    change: impl Fn(&Store) -> Result<()>,
    look: impl Fn(&Store, bool),
) {
    for step in 0.. {
        let (temp, store) = store();
        before(&store);
        let armed = fault::crash(step);
        let done = change(&store).is_ok();
        let fired = armed.fired();
        drop(armed);
        drop(store);
        let store = Store::open(temp.path()).expect("the store opens after a crash");
        look(&store, done);
        let left = all(&store).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
        assert_eq!(left, [""; 0], "left after a crash at step {step}");
        if !fired {
            assert!(done && step > 3, "{step} steps");
            return;
        }
    }
}

#[test]
fn a_crash_while_a_volume_is_made_leaves_all_of_it_or_nothing() {
    let change =
        |store: &Store| store.create(Some("v1"), None, &BTreeMap::new(), &map(&[("a", "b")])).map(drop);
    at_every_crash(
        |_| {},
        change,
        |store, done| {
            let there = store.get("v1").expect("not broken");
            assert!(there.is_some() || !done);
            if let Some(volume) = there {
                assert_eq!(volume.meta.labels, map(&[("a", "b")]));
                assert!(store.attach(&named("v1"), &at()).expect("usable").needs_population);
            }
        },
    );
}

#[test]
fn a_crash_while_a_volume_is_removed_leaves_all_of_it_or_nothing() {
    let before =
        |store: &Store| fill(&mut store.attach(&named("v1"), &at()).expect("attached")).expect("filled");
    at_every_crash(
        before,
        |store| store.remove("v1", false),
        |store, done| {
            let there = store.get("v1").expect("not broken");
            assert!(there.is_none() || !done);
            if let Some(volume) = there {
                is_full(&volume.mountpoint);
            }
        },
    );
}

#[test]
fn a_crash_while_a_volume_is_filled_leaves_it_empty_or_full() {
    let change = |store: &Store| {
        let mut attached = store.attach(&named("v1"), &at())?;
        fill(&mut attached)?;
        // What is dropped after a crash can do nothing any more; here it tries.
        drop(attached);
        Ok(())
    };
    at_every_crash(
        |store| drop(create(store, "v1").expect("made")),
        change,
        |store, done| {
            let mut attached = store.attach(&named("v1"), &at()).expect("usable");
            assert!(!done || !attached.needs_population);
            if attached.needs_population {
                assert!(is_empty(&attached.data));
                fill(&mut attached).expect("filled");
            }
            is_full(&attached.data);
            assert!(attached.meta().expect("meta").population.is_none());
            assert!(!attached.data.with_file_name("_data.new").exists());
        },
    );
}

/// As where something is mounted at `_data`: the staging directory is in it.
#[test]
fn a_crash_while_a_volume_is_filled_from_inside_leaves_what_others_have_in_it() {
    let home = |store: &Store| store.home("v1").expect("store").expect("volume");
    let recover = |home: &super::home::Home| {
        let data = home.data().expect("data");
        super::population::recover(home, data.as_fd(), home.meta().expect("meta"))
    };
    let change = |store: &Store| {
        let home = home(store);
        fill_dir(&super::population::begin(&home, true)?).expect("filled");
        fs::write(home.data_path().join("theirs"), "kept").expect("write");
        super::population::finish(&home, home.data()?.as_fd(), &[])
    };
    let look = |store: &Store, done: bool| {
        let home = home(store);
        let meta = recover(&home).expect("recovered");
        let theirs = home.data_path().join("theirs");
        assert!(!theirs.exists() || fs::read_to_string(&theirs).expect("theirs") == "kept");
        if meta.populated.is_some() {
            let before = fs::metadata(home.data_path()).expect("root");
            assert_eq!((before.mode() & 0o7777, before.mtime(), before.mtime_nsec()), (0o1750, 1000, 5));
            fs::remove_file(theirs).expect("theirs");
            let times = fs::FileTimes::new().set_modified(before.modified().expect("time"));
            fs::File::open(home.data_path()).expect("root").set_times(times).expect("times");
            is_full(&home.data_path());
        } else {
            let left = fs::read_dir(home.data_path()).expect("data").flatten().map(|entry| entry.file_name());
            assert!(!done && left.into_iter().all(|name| name == "theirs"));
        }
    };
    at_every_crash(|store| drop(create(store, "v1").expect("made")), change, look);
}

#[test]
fn a_broken_volume_is_named_and_the_others_are_there() {
    let (temp, store) = store();
    for name in ["v1", "v2"] {
        create(&store, name).expect("made");
    }
    let file = temp.path().join("volumes/v1/meta.json");
    for content in ["", "{", "[]", r#"{"Version":1,"Name":"v2","Driver":"local","CreatedAt":""}"#, "\0"] {
        fs::write(&file, content).expect("write");
        for sentence in [
            store.get("v1").expect_err("broken").to_string(),
            store.attach(&named("v1"), &at()).expect_err("broken").to_string(),
            store.remove("v1", false).expect_err("broken").to_string(),
        ] {
            assert!(sentence.contains("v1/meta.json") && sentence.contains("rm -f v1"), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }
    let later = r#"{"Version":2,"Name":"v1","Driver":"local","CreatedAt":""}"#;
    fs::write(&file, later).expect("write");
    assert!(store.get("v1").expect_err("later").to_string().contains("later stratafs"));
    assert_eq!(store.names().expect("names"), ["v1", "v2"]);
    assert!(store.get("v2").expect("whole").is_some());
    fs::remove_dir(temp.path().join("volumes/v2/_data")).expect("rmdir");
    assert!(store.attach(&named("v2"), &at()).expect_err("gone").to_string().contains("v2/_data"));
    store.remove("v1", true).expect("by force");
    store.remove("v2", false).expect("removed");
}
