//! Sources that stop answering, or whose server is killed: whoever asks for them waits, or is told; nobody else is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use super::common::*;

/// A second mount, whose tree is the source of the first. Its daemon can be stopped and killed.
struct Source {
    at: PathBuf,
    daemon: i32,
    _free: Umount,
}

impl Source {
    fn new(f: &Fixture, name: &str) -> Source {
        let (low, at) = (f.dir().join(format!("{name}-low")), f.dir().join(name));
        for dir in [&low, &at] {
            fs::create_dir(dir).unwrap();
        }
        fs::create_dir_all(low.join("d/e")).unwrap();
        fs::write(low.join("f"), "far").unwrap();
        fs::write(low.join("d/x"), "x").unwrap();
        let (upper, work) = (f.dir().join(format!("{name}-up")), f.dir().join(format!("{name}-work")));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let mut mount = Command::new(program());
        mount
            .args(["mount", "-o", "timeout=0", "-l"])
            .arg(&low)
            .arg("-u")
            .arg(&upper)
            .arg("-w")
            .arg(&work)
            .arg(&at);
        run(&mut mount).ok();
        let daemon = daemons_of(&at)[0];
        Source { _free: Umount(at.clone()), at, daemon }
    }

    fn signal(&self, signal: i32) {
        if signal == libc::SIGSTOP {
            return stop(self.daemon);
        }
        assert_eq!(unsafe { libc::kill(self.daemon, signal) }, 0);
        let ended = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon)).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
        };
        if signal == libc::SIGKILL {
            assert!(eventually(LIMIT, ended), "the daemon of the source goes on");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // So that nobody waits for it any longer.
        unsafe { libc::kill(self.daemon, libc::SIGCONT) };
        unsafe { libc::kill(self.daemon, libc::SIGKILL) };
    }
}

type Ask = Box<dyn FnOnce() -> bool + Send>;

/// Two far sources and a near one, in the root and in a directory.
fn far() -> Option<(Fixture, Source, Source)> {
    let mut f = Fixture::new(1)?.departs("grafts")?;
    f.lower(0).file("low", "low").file("dir/low", "low");
    f.source("near").file("f", "near");
    let (one, two) = (Source::new(&f, "one"), Source::new(&f, "two"));
    for (source, target) in [(&one.at, "/one"), (&two.at, "/dir/two"), (&f.host("near"), "/near")] {
        f.args.extend(["-v".into(), format!("{}:{target}", source.display()).into()]);
    }
    f.args.extend(["-v".into(), format!("{}:/dir/single", one.at.join("f").display()).into()]);
    f.mount();
    Some((f, one, two))
}

/// Does something on a thread of its own, which may wait for ever.
fn apart<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(what()));
    told
}

fn waits<T: std::fmt::Debug>(told: &Receiver<T>, what: &str) {
    let told = told.recv_timeout(Duration::from_millis(200));
    assert!(matches!(told, Err(RecvTimeoutError::Timeout)), "{what} does not wait: {told:?}");
}

/// All that has to do with the rest of the mount is answered.
fn rest_lives(f: &Fixture, other: &str) {
    let (root, other) = (f.p(""), f.p(other));
    let done = apart(move || {
        assert_eq!(names(&root), ["dir", "low", "near", "one"]);
        assert_eq!(names(root.join("dir")), ["low", "single", "two"]);
        assert_eq!((text(root.join("low")), text(root.join("near/f"))), ("low".into(), "near".into()));
        assert_eq!(text(other.join("f")), "far");
        assert_eq!(stat(root.join("dir")).mode() & libc::S_IFMT, libc::S_IFDIR);
        sys::statvfs(&root).unwrap();
        sys::statvfs(root.join("near")).unwrap();
        fs::write(root.join("new"), "new").unwrap();
        fs::write(root.join("dir/new"), "new").unwrap();
        sys::rename(root.join("new"), root.join("dir/new2")).unwrap();
        sys::unlink(root.join("dir/new")).unwrap();
        sys::unlink(root.join("dir/new2")).unwrap();
        fs::create_dir(root.join("dir/d")).unwrap();
        sys::rmdir(root.join("dir/d")).unwrap();
        fs::write(root.join("near/new"), "new").unwrap();
        sys::unlink(root.join("near/new")).unwrap();
        assert_eq!(sys::rmdir(root.join("one")), Err(Errno::EBUSY));
    });
    match done.recv_timeout(LIMIT) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => panic!("the rest of the mount does not answer"),
        Err(RecvTimeoutError::Disconnected) => panic!("the rest of the mount answers wrongly"),
    }
}

#[test]
fn a_stopped_source_keeps_only_its_own_waiting() {
    let Some((mut f, one, _two)) = far() else { return };
    assert_eq!((text(f.p("one/f")), text(f.p("dir/single"))), ("far".into(), "far".into()));
    let open = rw(f.p("one/d/x"));
    let list = Dir::open(f.p("one/d")).unwrap();
    one.signal(libc::SIGSTOP);
    let mut waiting: Vec<(String, Receiver<bool>)> = Vec::new();
    for round in 0..8 {
        let at = f.p("one");
        let single = f.p("dir/single");
        let asks: Vec<(&str, Ask)> = vec![
            (
                "stat of the root",
                Box::new({
                    let at = at.clone();
                    move || at.symlink_metadata().is_ok()
                }),
            ),
            (
                "lookup",
                Box::new({
                    let at = at.join(format!("n{round}"));
                    move || !at.exists()
                }),
            ),
            (
                "read",
                Box::new({
                    let at = at.join("f");
                    move || fs::read(at).is_ok()
                }),
            ),
            (
                "create",
                Box::new({
                    let at = at.join(format!("c{round}"));
                    move || fs::write(at, "c").is_ok()
                }),
            ),
            (
                "mkdir",
                Box::new({
                    let at = at.join(format!("d{round}"));
                    move || fs::create_dir(at).is_ok()
                }),
            ),
            (
                "ls",
                Box::new({
                    let at = at.clone();
                    move || fs::read_dir(at).is_ok()
                }),
            ),
            (
                "statfs",
                Box::new({
                    let at = at.clone();
                    move || sys::statvfs(at).is_ok()
                }),
            ),
            ("single", Box::new(move || fs::read(single).is_ok())),
        ];
        for (what, ask) in asks {
            waiting.push((format!("{what} {round}"), apart(ask)));
        }
    }
    let written =
        apart(move || no(std::os::unix::fs::FileExt::write_all_at(&open, b"y", 0)).map(|()| drop(open)));
    for (what, told) in &waiting {
        let done = told.try_recv();
        assert!(matches!(done, Err(TryRecvError::Empty)), "{what} does not wait: {done:?}");
    }
    for _ in 0..3 {
        rest_lives(&f, "dir/two");
    }
    waits(&waiting[0].1, "stat");
    drop(list);
    rest_lives(&f, "dir/two");
    one.signal(libc::SIGCONT);
    for (what, told) in &waiting {
        assert_eq!(told.recv_timeout(LIMIT), Ok(true), "{what}");
    }
    assert_eq!(written.recv_timeout(LIMIT), Ok(Ok(())));
    f.check(|m| {
        assert_eq!((text(m.join("one/c3")), text(m.join("one/d/x"))), ("c".into(), "y".into()));
        assert_eq!(names(m.join("one")).len(), 18);
    });
}

#[test]
fn a_killed_source_says_so_and_nobody_else_does() {
    let Some((mut f, one, _two)) = far() else { return };
    let open = rw(f.p("one/f"));
    assert_eq!(text(f.p("dir/single")), "far");
    one.signal(libc::SIGKILL);
    // What was asked in the moment of its death is answered ECONNABORTED.
    let dead = || err(one.at.symlink_metadata()) == Errno::ENOTCONN;
    assert!(eventually(LIMIT, dead));
    for _ in 0..3 {
        assert_eq!(err(f.p("one").symlink_metadata()), Errno::ENOTCONN);
        assert_eq!(err(fs::read(f.p("one/f"))), Errno::ENOTCONN);
        assert_eq!(err(fs::read_dir(f.p("one"))), Errno::ENOTCONN);
        assert_eq!(err(fs::write(f.p("one/new"), "n")), Errno::ENOTCONN);
        assert_eq!(err(fs::read(f.p("dir/single"))), Errno::ENOTCONN);
        assert_eq!(sys::statvfs(f.p("one")).map(drop), Err(Errno::ENOTCONN));
        // What is open may be read past the daemon of the source, which was passing it through.
        let read = no(open.read_at(&mut [0; 3], 0));
        assert!([Ok(3), Err(Errno::ENOTCONN), Err(Errno::EIO)].contains(&read), "{read:?}");
        rest_lives(&f, "dir/two");
    }
    drop(open);
    rest_lives(&f, "dir/two");
    f.unmount();
}

/// While somebody waits for a stopped source, the mount is busy; the daemon goes when it is detached, and takes its own things with it.
#[test]
fn unmounting_beside_a_stopped_source() {
    let Some((mut f, one, _two)) = far() else { return };
    let open = rw(f.p("one/f"));
    one.signal(libc::SIGSTOP);
    let at = f.p("one/d/x");
    let read = apart(move || no(fs::read(at)));
    waits(&read, "read");
    let daemon = f.daemon();
    let busy = run(Command::new(program()).arg("umount").arg(f.p("")));
    assert_eq!(busy.code, Some(1));
    assert!(busy.err.contains("in use"), "{}", busy.err);
    rest_lives(&f, "dir/two");
    run(Command::new(program()).args(["umount", "--lazy"]).arg(f.p(""))).ok();
    assert_eq!(mounts_at(&f.p("")), []);
    f.set_mounted(false);
    one.signal(libc::SIGCONT);
    assert_eq!(read.recv_timeout(LIMIT), Ok(Ok(b"x".to_vec())));
    drop(open);
    let gone = || !Path::new(&format!("/proc/{daemon}")).exists();
    assert!(eventually(LIMIT, gone), "the daemon stays");
    f.after_unmount();
}

/// Nobody has anything open any more, but the daemon itself waits for the source with what it still has to close.
#[test]
fn an_idle_mount_ends_beside_a_stopped_source() {
    let Some((mut f, one, _two)) = far() else { return };
    f.args.extend(["-v".into(), format!("{}:/cow:O", f.host("near").display()).into()]);
    f.remount();
    fs::write(f.p("cow/new"), "new").unwrap();
    let open = rw(f.p("one/f"));
    open.write_all_at(b"bytes", 0).unwrap();
    one.signal(libc::SIGSTOP);
    drop(open);
    // `stratafs umount` fails if the daemon does not end within a limit of its own.
    f.unmount();
    one.signal(libc::SIGCONT);
    assert_eq!(names(f.host("near")), ["f"]);
}

/// The connection is cut while many wait. The daemon ends, and what it made for the mount goes with it.
#[test]
fn a_mount_that_is_cut_off_beside_a_stopped_source_leaves_nothing() {
    let Some((mut f, one, _two)) = far() else { return };
    if mode() == Mode::Fusermount {
        return println!("skipped: an ordinary user cuts nothing off");
    }
    let tmp = f.dir().join("tmp");
    fs::create_dir(&tmp).unwrap();
    f.args.extend(["-v".into(), format!("{}:/cow:O", f.host("near").display()).into()]);
    f.unmount();
    f.note_lowers();
    run(f.command(&[]).env("TMPDIR", &tmp)).ok();
    f.set_mounted(true);
    // It may go while it is looked at.
    let view = || names(&tmp).into_iter().any(|name| tmp.join(name).join("upper").exists());
    assert!(view());
    fs::write(f.p("cow/new"), "new").unwrap();
    let open = rw(f.p("one/f"));
    one.signal(libc::SIGSTOP);
    let waiting: Vec<_> = (0..20)
        .map(|i| {
            let at = f.p(format!("one/n{i}"));
            apart(move || no(fs::write(at, "n")))
        })
        .collect();
    waits(&waiting[0], "create");
    let daemon = f.daemon();
    // It stays mounted, being in use.
    unsafe { libc::umount2(sys::c(f.p("")).as_ptr(), libc::MNT_FORCE) };
    for told in &waiting {
        let done = told.recv_timeout(LIMIT).expect("cut off");
        assert!([Err(Errno::ECONNABORTED), Err(Errno::ENOTCONN)].contains(&done), "{done:?}");
    }
    assert!(eventually(LIMIT, || !view()), "what was made for the mount is left");
    drop(open);
    run(Command::new(program()).args(["umount", "--lazy"]).arg(f.p(""))).ok();
    f.set_mounted(false);
    one.signal(libc::SIGCONT);
    assert!(eventually(LIMIT, || !Path::new(&format!("/proc/{daemon}")).exists()), "the daemon stays");
    f.after_unmount();
}
