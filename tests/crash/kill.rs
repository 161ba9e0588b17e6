//! The daemon is ended by SIGKILL while writers are at work; then everything that was answered is there.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::Model;
use super::writer::{self, Stopped};
use crate::common::{kernel::shown, *};

pub const WRITERS: usize = 3;
const SOURCE: &str = "attached";

pub fn part(writer: usize) -> String {
    format!("w{writer}")
}

/// What there is before the first change: files of all sizes, hard links, directories in one layer and in both.
pub fn layers(f: &Fixture, layered: usize) {
    for writer in 0..layered {
        let at = |name: &str| format!("{}/{name}", part(writer));
        let (low, high) = (f.lower(1), f.lower(0));
        let low = low.file(at("small"), "of the lower layer").xattr("user.crash", b"low");
        let low = low.file(at("big"), b"0123456789abcdef".repeat(100_000)).file(at("d/in"), "low");
        let low = low
            .file(at("d/e/deep"), "low")
            .file(at("linked"), "one of three")
            .hardlink(at("d/two"), at("linked"));
        low.hardlink(at("d/e/three"), at("linked")).symlink(at("soft"), "to").dir(at("empty"));
        high.file(at("d/in"), "over it")
            .file(at("d/high"), "h")
            .whiteout(at("empty/none"))
            .opaque(at("d/walled"));
    }
}

/// What is attached for the last writer: a directory of the host.
fn source(f: &mut Fixture) {
    let names = f.source(SOURCE).file("small", "of the host").file("d/in", "of the host").dir("empty");
    names.file("big", b"0123456789abcdef".repeat(100_000)).hardlink("d/two", "small").symlink("soft", "to");
    f.bind(SOURCE, &format!("/{}", part(WRITERS - 1)), "");
}

/// Ends the daemon while all writers are at work, after `span`.
fn crash(f: &mut Fixture, models: &[Model], rng: &mut StdRng, span: Duration) -> Vec<Stopped> {
    let daemon = f.daemon();
    let killed = AtomicBool::new(false);
    let roots: Vec<PathBuf> = (0..WRITERS).map(|writer| f.p(part(writer))).collect();
    let stopped = std::thread::scope(|scope| {
        let start = |(root, model): (&PathBuf, &Model)| {
            let (root, model, rng, killed) =
                (root.clone(), model.clone(), StdRng::seed_from_u64(rng.random()), &killed);
            scope.spawn(move || writer::work(&root, model, rng, killed))
        };
        let writers: Vec<_> = roots.iter().zip(models).map(start).collect();
        std::thread::sleep(span);
        killed.store(true, Ordering::SeqCst);
        assert_eq!(unsafe { libc::kill(daemon, libc::SIGKILL) }, 0);
        let joined = writers.into_iter().map(|writer| writer.join());
        joined.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    assert!(eventually(LIMIT, || daemons_of(&f.p("")).is_empty()), "alive after SIGKILL");
    stopped
}

/// Which of the states that may show does show.
#[track_caller]
fn settle(round: u64, writer: usize, stopped: &Stopped, shown: &Model) -> Model {
    let possible = match &stopped.asked {
        None => vec![stopped.model.clone()],
        Some(op) => stopped.model.possible(op, shown),
    };
    if possible.iter().any(|model| model.may_be(shown)) {
        // What was kept back and is there now will stay.
        Model { writeback: stopped.model.writeback, ..shown.clone() }
    } else {
        panic!(
            "round {round}, writer {writer}: the mount shows neither what was before {:?} nor what comes after it, \
             after {:?}; is to be / is:\n{}",
            stopped.asked,
            stopped.last,
            possible.iter().map(|model| model.differences(shown)).collect::<Vec<_>>().join("or\n")
        )
    }
}

/// A mount that is crashed.
struct Terms {
    options: &'static str,
    /// What the kernel's overlayfs needs to show the same.
    kernel: &'static str,
    /// The last writer works in a directory of the host that is attached, and not in the layers.
    attached: bool,
}

/// Crashes one upper layer again and again.
fn campaign(seed: u64, terms: &Terms) {
    let Terms { options, kernel, attached } = *terms;
    let Some(mut f) = Fixture::new(2).and_then(Fixture::need_root).and_then(|f| f.departs("no daemon"))
    else {
        return;
    };
    let layered = if attached { WRITERS - 1 } else { WRITERS };
    layers(&f, layered);
    if attached {
        source(&mut f);
    }
    f.options = vec![options.to_owned()];
    let lowers = [sum::tree(&f.low(0, "")), sum::tree(&f.low(1, ""))];
    let mut rng = StdRng::seed_from_u64(seed);
    f.mount();
    let writeback = options.contains("writeback=on");
    let read = |writer| Model { writeback, ..Model::read(&f.p(part(writer))) };
    let mut models: Vec<Model> = (0..WRITERS).map(read).collect();
    let (mut answered, mut left) = (0, 0);
    for round in 0..crate::rounds(5) {
        let span = Duration::from_millis(rng.random_range(20..600));
        let stopped = crash(&mut f, &models, &mut rng, span);
        run(Command::new(program()).args(["umount", "--lazy"]).arg(f.p(""))).ok();
        assert!(mounts_at(&f.p("")).is_empty(), "mounted after `umount --lazy`");
        for (layer, before) in lowers.iter().enumerate() {
            let changes = sum::diff(before, &sum::tree(&f.low(layer, "")));
            assert!(changes.is_empty(), "round {round}: lower layer {layer} changed:\n{changes}");
        }
        if attached {
            // Without any mount: it is in the directory itself.
            let writer = WRITERS - 1;
            settle(round, writer, &stopped[writer], &Model::read(&f.host(SOURCE)));
        }
        left += f.temporaries().len();
        f.set_mounted(false);
        f.mount();
        assert_eq!(f.temporaries(), [""; 0], "the workdir is not swept");
        let expected: Vec<String> = (0..WRITERS).map(part).collect();
        assert_eq!(names(f.p("")), expected);
        for (writer, stopped) in stopped.iter().enumerate() {
            answered += stopped.answered;
            let root = f.p(part(writer));
            models[writer] = settle(round, writer, stopped, &Model::read(&root));
            for (path, _) in models[writer].files_by_name() {
                let links = stat(root.join(path)).nlink();
                assert_eq!(links, models[writer].links(path), "round {round}: names of {writer}/{path:?}");
            }
        }
        let mut ours = shown(&f.p(""));
        ours.retain(|path, _| !attached || !path.starts_with(part(WRITERS - 1)));
        f.unmount();
        let theirs = f.as_the_kernel_shows(kernel);
        let differences = sum::diff(&theirs, &ours);
        assert!(
            differences.is_empty(),
            "round {round}: the kernel (was) and stratafs (is) differ:\n{differences}"
        );
        f.mount();
    }
    f.unmount();
    println!("{options}: {answered} operations answered, {left} leftovers swept");
    assert!(answered > 0, "no operation was answered before the daemon was ended");
}

const METACOPY: &str = "index=on,metacopy=on";
const NO_METACOPY: &str = "index=on,metacopy=off";

#[test]
fn a_killed_daemon_loses_nothing_that_was_answered() {
    let terms = Terms { options: "fsync=auto", kernel: NO_METACOPY, attached: false };
    crate::campaigns("kill", |seed| campaign(seed, &terms));
}

#[test]
fn a_killed_daemon_loses_nothing_with_metacopy() {
    let terms = Terms { options: "metacopy=on", kernel: METACOPY, attached: false };
    crate::campaigns("kill, metacopy", |seed| campaign(seed, &terms));
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_synced_with_writeback() {
    let terms = Terms { options: "metacopy=on,writeback=on", kernel: METACOPY, attached: false };
    crate::campaigns("kill, writeback", |seed| campaign(seed, &terms));
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_answered_in_a_bind() {
    let terms = Terms { options: "fsync=auto", kernel: NO_METACOPY, attached: true };
    crate::campaigns("kill, bind", |seed| campaign(seed, &terms));
}
