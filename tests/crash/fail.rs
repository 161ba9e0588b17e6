//! The disk below the upper layer begins to fail while writers are at work, and later recovers. Every caller hears of it,
//! nobody waits, and each change was made wholly or not at all: at once, after the recovery, and after a remount.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::faulty::Disk;
use super::kill::{WRITERS, layers, part};
use super::model::{ATTRIBUTE, Model, Node, Op};
use super::writer::{Kept, carry_out, choose, shortened};
use crate::common::*;

/// Puts the upper layer and the workdir on a disk that can fail.
fn on_failing_disk(f: &Fixture, seed: u64) -> Disk {
    let (store, at) = (f.dir().join("store"), f.dir().join("disk"));
    fs::create_dir(&store).unwrap();
    fs::create_dir(&at).unwrap();
    for name in ["upper", "work"] {
        fs::rename(f.dir().join(name), store.join(name)).unwrap();
        std::os::unix::fs::symlink(at.join(name), f.dir().join(name)).unwrap();
    }
    Disk::mount(&store, &at, seed)
}

fn fixture() -> Option<Fixture> {
    let f = Fixture::new(2).and_then(Fixture::need_root).and_then(|f| f.departs("no daemon"))?;
    layers(&f, WRITERS);
    Some(f)
}

/// A mount made anew; what a disk that failed let nobody clean up is swept by it.
fn renew(f: &mut Fixture, daemon: i32) {
    assert_eq!(f.daemon(), daemon, "the daemon has ended");
    run(Command::new(program()).arg("umount").arg(f.p(""))).ok();
    assert!(eventually(LIMIT, || daemons_of(&f.p("")).is_empty()), "the daemon stays");
    f.set_mounted(false);
    f.mount();
    assert_eq!(f.temporaries(), [""; 0], "the workdir is not swept");
}

/// How writers fare.
#[derive(Default)]
struct Told {
    done: AtomicU64,
    failed: AtomicU64,
}

/// Which of the trees that may show after `op` failed is there.
#[track_caller]
fn settled(model: &Model, op: &Op, shown: &Model) -> Model {
    let possible = model.possible(op, shown);
    possible.iter().find(|model| model.settled() == *shown).cloned().unwrap_or_else(|| {
        let lines: Vec<String> = possible.iter().map(|model| model.differences(shown)).collect();
        panic!("{:?} failed; is to be / is:\n{}", shortened(op.clone()), lines.join("or\n"))
    })
}

/// Works below `root` until `end`. What a failing disk answers is heard, and what shows then is looked at, as reading works.
fn work(
    root: &Path,
    mut model: Model,
    mut rng: StdRng,
    told: &Told,
    [failing, end]: [&AtomicBool; 2],
) -> Model {
    let mut kept = Kept::new();
    while !end.load(Ordering::SeqCst) {
        for op in choose(&model, &kept, &mut rng) {
            match carry_out(root, &model, &mut kept, &op) {
                Ok(()) => {
                    model.apply(&op);
                    told.done.fetch_add(1, Ordering::SeqCst);
                }
                // Of a long write the first part may have been made.
                Err(Errno::EIO | Errno::ECONNABORTED) if failing.load(Ordering::SeqCst) => {
                    model = settled(&model, &op, &Model::read(root));
                    told.failed.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Err(errno) => panic!("{:?} answers {errno}", shortened(op)),
            }
        }
    }
    model
}

fn assert_shows(f: &Fixture, when: &str, models: &[Model]) {
    for (writer, model) in models.iter().enumerate() {
        let root = f.p(part(writer));
        let shown = Model::read(&root);
        assert!(model.settled() == shown, "{when}: is to be / is:\n{}", model.differences(&shown));
        for (path, _) in model.files_by_name() {
            assert_eq!(stat(root.join(path)).nlink(), model.links(path), "{when}: names of {path:?}");
        }
    }
}

fn changes_fail(seed: u64, option: &str) {
    let Some(mut f) = fixture() else { return };
    f.options = vec![option.to_owned()];
    let disk = on_failing_disk(&f, seed);
    let mut rng = StdRng::seed_from_u64(seed);
    f.mount();
    let mut models: Vec<Model> = (0..WRITERS).map(|writer| Model::read(&f.p(part(writer)))).collect();
    let told = Told::default();
    let failed = || told.failed.load(Ordering::SeqCst);
    for round in 0..crate::rounds(4) {
        let daemon = f.daemon();
        let (failing, end) = (AtomicBool::new(false), AtomicBool::new(false));
        let one_in = [1, 2, 5, 20][round as usize % 4];
        models = std::thread::scope(|scope| {
            let start = |(writer, model): (usize, &Model)| {
                let (root, rng) = (f.p(part(writer)), StdRng::seed_from_u64(rng.random()));
                let (model, told, until) = (model.clone(), &told, [&failing, &end]);
                scope.spawn(move || work(&root, model, rng, told, until))
            };
            let writers: Vec<_> = models.iter().enumerate().map(start).collect();
            let pause = || std::thread::sleep(Duration::from_millis(300));
            pause();
            failing.store(true, Ordering::SeqCst);
            disk.faults.set(one_in, 0);
            let before = failed();
            eventually(Duration::from_secs(2), || failed() > before + 40);
            disk.faults.set(0, 0);
            // What was under way may be heard of a little later.
            pause();
            failing.store(false, Ordering::SeqCst);
            pause();
            end.store(true, Ordering::SeqCst);
            let joined = writers.into_iter().map(|writer| writer.join());
            joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        assert_shows(&f, "recovered", &models);
        renew(&mut f, daemon);
        assert_shows(&f, "mounted again", &models);
    }
    f.unmount();
    let (done, failed) = (told.done.into_inner(), told.failed.into_inner());
    println!("{option}: {done} operations done, {failed} failed");
    assert!(done > 0 && failed > 0, "nothing was tried");
}

#[test]
fn a_disk_that_fails_changes_makes_each_wholly_or_not_at_all() {
    crate::campaigns("fail", |seed| changes_fail(seed, "fsync=auto"));
}

#[test]
fn a_disk_that_fails_changes_with_metacopy_makes_each_wholly_or_not_at_all() {
    crate::campaigns("fail, metacopy", |seed| changes_fail(seed, "metacopy=on"));
}

/// Forgets what the kernel keeps of names and attributes, and the pages with them.
fn forget_all() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// An answer while nothing may be readable: the right one, or EIO.
#[track_caller]
fn right_or_eio<T: PartialEq + std::fmt::Debug>(
    what: &Path,
    found: sys::Res<T>,
    right: &[sys::Res<T>],
) -> bool {
    if found == Err(Errno::EIO) {
        return true;
    }
    assert!(right.contains(&found), "{what:?}: {found:?}, and right is {right:?}");
    false
}

/// What is answered where a tree has no such name: on the way there may be a file in the place of a directory.
fn missing_in(model: &Model, path: &Path) -> Errno {
    let mut above = path.ancestors().skip(1).filter_map(|dir| model.names.get(dir));
    if above.all(|node| matches!(node, Node::Dir { .. })) { Errno::ENOENT } else { Errno::ENOTDIR }
}

/// Asks for everything in a tree that is one of `possible`. Returns how often that failed.
fn probe(root: &Path, possible: &[Model]) -> u64 {
    let mut failed = 0;
    let paths: std::collections::BTreeSet<&PathBuf> = possible.iter().flat_map(|m| m.names.keys()).collect();
    for path in paths {
        let at = root.join(path);
        let of = |fact: &dyn Fn(&Model, &Node) -> sys::Res<Vec<u8>>| -> Vec<sys::Res<Vec<u8>>> {
            let one = |model: &Model| match model.names.get(path) {
                Some(node) => fact(model, node),
                None => Err(missing_in(model, path)),
            };
            possible.iter().map(one).collect()
        };
        let mode = no(at.symlink_metadata()).map(|facts| format!("{:o}", facts.mode()).into_bytes());
        let modes = of(&|model, node| {
            Ok(format!(
                "{:o}",
                match node {
                    Node::Dir { mode } => libc::S_IFDIR | mode,
                    Node::Symlink(_) => libc::S_IFLNK | 0o777,
                    Node::File(_) => libc::S_IFREG | model.content(path).unwrap().mode,
                }
            )
            .into_bytes())
        });
        failed += u64::from(right_or_eio(path, mode, &modes));
        if possible.iter().all(|model| model.content(path).is_some()) {
            let data = of(&|model, _| Ok(model.content(path).unwrap().data.to_vec()));
            failed += u64::from(right_or_eio(path, no(fs::read(&at)), &data));
            let value = of(&|model, _| model.content(path).unwrap().attribute.clone().ok_or(Errno::ENODATA));
            failed += u64::from(right_or_eio(path, sys::getxattr(&at, ATTRIBUTE), &value));
        }
        if possible.iter().all(|model| matches!(model.names.get(path), Some(Node::Dir { .. }))) {
            let list = of(&|model, _| {
                let names = model.names.keys().filter(|name| name.parent() == Some(path));
                Ok(format!("{:?}", names.map(|name| name.file_name().unwrap()).collect::<Vec<_>>())
                    .into_bytes())
            });
            let read = || -> std::io::Result<Vec<u8>> {
                let names: std::io::Result<Vec<_>> =
                    fs::read_dir(&at)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
                let mut names = names?;
                names.sort();
                Ok(format!("{names:?}").into_bytes())
            };
            failed += u64::from(right_or_eio(path, no(read()), &list));
        }
    }
    failed
}

/// Works below `root` until the disk fails, or until `end`. What was asked for last may have been done.
fn work_until_failure(
    root: &Path,
    mut model: Model,
    mut rng: StdRng,
    end: &AtomicBool,
) -> (Model, Option<Op>) {
    let mut kept = Kept::new();
    while !end.load(Ordering::SeqCst) {
        for op in choose(&model, &kept, &mut rng) {
            match carry_out(root, &model, &mut kept, &op) {
                Ok(()) => model.apply(&op),
                Err(Errno::EIO | Errno::ECONNABORTED) => return (model, Some(op)),
                Err(errno) => panic!("{:?} answers {errno}", shortened(op)),
            }
        }
    }
    (model, None)
}

fn everything_fails(seed: u64) {
    let Some(mut f) = fixture() else { return };
    let disk = on_failing_disk(&f, seed);
    let mut rng = StdRng::seed_from_u64(seed);
    f.mount();
    let mut models: Vec<Model> = (0..WRITERS).map(|writer| Model::read(&f.p(part(writer)))).collect();
    let mut failed = 0;
    for _ in 0..crate::rounds(4) {
        let daemon = f.daemon();
        let end = AtomicBool::new(false);
        let one_in = *[1, 3, 10].choose(&mut rng).unwrap();
        let stopped: Vec<(Model, Option<Op>)> = std::thread::scope(|scope| {
            let start = |(writer, model): (usize, &Model)| {
                let (root, rng) = (f.p(part(writer)), StdRng::seed_from_u64(rng.random()));
                let (model, end) = (model.clone(), &end);
                scope.spawn(move || work_until_failure(&root, model, rng, end))
            };
            let writers: Vec<_> = models.iter().enumerate().map(start).collect();
            std::thread::sleep(Duration::from_millis(300));
            forget_all();
            disk.faults.set(one_in, one_in);
            std::thread::sleep(Duration::from_millis(200));
            end.store(true, Ordering::SeqCst);
            let joined = writers.into_iter().map(|writer| writer.join());
            joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        for (writer, (model, asked)) in stopped.iter().enumerate() {
            let possible = match asked {
                // How much of a long write was made is not known before it can be read.
                Some(Op::Append(..)) | None => vec![model.clone()],
                Some(op) => model.possible(op, model),
            };
            if !matches!(asked, Some(Op::Append(..))) {
                forget_all();
                failed += probe(&f.p(part(writer)), &possible);
            }
        }
        disk.faults.set(0, 0);
        models = Vec::new();
        for (writer, (model, asked)) in stopped.iter().enumerate() {
            let shown = Model::read(&f.p(part(writer)));
            let op = asked.clone().unwrap_or(Op::Sync(PathBuf::new()));
            models.push(settled(model, &op, &shown));
        }
        assert_shows(&f, "recovered", &models);
        renew(&mut f, daemon);
        assert_shows(&f, "mounted again", &models);
    }
    f.unmount();
    println!("{failed} reading calls failed");
    assert!(failed > 0, "nothing failed");
}

#[test]
fn a_disk_that_fails_altogether_is_shown_as_it_is_once_it_recovers() {
    crate::campaigns("fail, reads", everything_fails);
}

/// Source: fsync(2), write(2): what did not reach the disk is told.
#[test]
fn what_an_open_file_asks_of_a_failing_disk_is_answered_and_works_again_later() {
    let Some(mut f) = fixture() else { return };
    let disk = on_failing_disk(&f, 1);
    f.mount();
    let daemon = f.daemon();
    let (lower, upper) = (rw(f.p("w0/big")), rw(f.p("w0/small")));
    upper.write_all_at(b"OF", 0).unwrap();
    disk.faults.set(1, 0);
    assert_eq!(no(upper.write_all_at(b"XX", 0)), Err(Errno::EIO));
    assert_eq!(no(upper.sync_all()), Err(Errno::EIO));
    assert_eq!(no(upper.set_len(1)), Err(Errno::EIO));
    assert_eq!(sys::open(f.p("w1/big"), libc::O_RDWR, 0).err(), Some(Errno::EIO));
    assert_eq!(sys::mkdir(f.p("w0/new"), 0o755), Err(Errno::EIO));
    assert_eq!(sys::rename(f.p("w0/d"), f.p("w0/moved")), Err(Errno::EIO));
    assert_eq!(sys::unlink(f.p("w0/linked")), Err(Errno::EIO));
    assert_eq!(sys::chmod(f.p("w0/soft").with_file_name("d"), 0o700), Err(Errno::EIO));
    assert_eq!(through(&upper), b"OF the lower layer");
    assert_eq!(missing(f.p("w0/new")), Errno::ENOENT);
    disk.faults.set(0, 0);
    upper.write_all_at(b"of", 0).unwrap();
    lower.write_all_at(b"X", 0).unwrap();
    for file in [&upper, &lower] {
        file.sync_all().unwrap();
    }
    drop((lower, upper));
    let view = |m: &Path| {
        assert_eq!(text(m.join("w0/small")), "of the lower layer");
        assert!(text(m.join("w0/big")).starts_with("X123"));
        assert!(text(m.join("w1/big")).starts_with("0123"));
        assert_eq!(names(m.join("w0")), ["big", "d", "empty", "linked", "small", "soft"]);
        assert_eq!(stat(m.join("w0/linked")).nlink(), 3);
    };
    view(&f.p(""));
    renew(&mut f, daemon);
    f.check(view);
    f.unmount();
}
