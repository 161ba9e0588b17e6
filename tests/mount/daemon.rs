//! The life of the daemon: how it comes up, what it leaves, how it goes.

use crate::common::*;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A fixture with one lower file, for tests that have no meaning without a daemon.
fn fixture() -> Option<Fixture> {
    let f = Fixture::new(1).and_then(|f| f.departs("there is no daemon"))?;
    f.lower(0).file("f", "low").file("d/g", "low");
    Some(f)
}

fn signal(pid: i32, sig: i32) {
    no_copies();
    assert_eq!(unsafe { libc::kill(pid, sig) }, 0, "kill {pid}: {}", Errno::last());
}

#[test]
fn the_mount_is_there_when_the_command_returns() {
    let Some(mut f) = fixture() else { return };
    for _ in 0..10 {
        f.mount();
        assert_eq!(text(f.p("f")), "low");
        assert!(mounts_at(&f.p(""))[0].1.starts_with("fuse"));
        f.unmount();
        assert_eq!(names(f.p("")), [""; 0]);
    }
}

/// Callers such as podman read standard error to its end: the daemon must not hold it open.
#[test]
fn standard_streams_are_let_go() {
    let Some(mut f) = fixture() else { return };
    f.note_lowers();
    let mut cmd = f.command(&[]);
    let mut child = spawn(cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    f.set_mounted(true);
    assert_eq!(wait(&mut child, LIMIT), Some(0));
    let (sent, got) = std::sync::mpsc::channel();
    std::thread::spawn(move || sent.send(child.wait_with_output().unwrap()));
    let out = got.recv_timeout(LIMIT).expect("the daemon keeps stdout or stderr open");
    assert_eq!((out.stdout, out.stderr), (vec![], vec![]), "chatter on success");
}

#[test]
fn the_daemon_holds_no_directory() {
    let Some(mut f) = fixture() else { return };
    f.mount();
    let cwd = fs::read_link(format!("/proc/{}/cwd", f.daemon())).unwrap();
    assert_eq!(cwd.to_str(), Some("/"));
}

#[test]
fn sigterm_and_sigint_unmount() {
    for sig in [libc::SIGTERM, libc::SIGINT] {
        let Some(mut f) = fixture() else { return };
        f.mount();
        // By another process, whose open file no program that is started meanwhile has a copy of.
        run(Command::new("sh").args(["-c", "printf 'written before the signal' >\"$0\""]).arg(f.p("f"))).ok();
        let pid = f.daemon();
        signal(pid, sig);
        assert!(eventually(LIMIT, || mounts_at(&f.p("")).is_empty()), "mounted after signal {sig}");
        assert!(eventually(LIMIT, || daemons_of(&f.p("")).is_empty()), "alive after signal {sig}");
        f.after_unmount();
        f.mount();
        assert_eq!(text(f.p("f")), "written before the signal");
    }
}

#[test]
fn sighup_of_a_terminal_does_not_end_it() {
    let Some(mut f) = fixture() else { return };
    f.mount();
    let pid = f.daemon();
    let sid = unsafe { libc::getsid(pid) };
    assert_ne!(sid, unsafe { libc::getsid(0) }, "the daemon stays in the session of its caller");
}

#[test]
fn umount2_ends_the_daemon() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.mount();
    assert_eq!(unsafe { libc::umount2(sys::c(f.p("")).as_ptr(), 0) }, 0);
    assert!(eventually(LIMIT, || daemons_of(&f.p("")).is_empty()));
    f.after_unmount();
}

#[test]
fn fusermount_ends_the_daemon() {
    let Some(mut f) = fixture() else { return };
    f.mount();
    run(Command::new("fusermount3").arg("-u").arg(f.p(""))).ok();
    assert!(eventually(LIMIT, || daemons_of(&f.p("")).is_empty()));
    f.after_unmount();
}

#[test]
fn foreground() {
    let Some(mut f) = fixture() else { return };
    f.note_lowers();
    let log = File::create(f.dir().join("log")).unwrap();
    let mut child =
        spawn(f.command(&["-f"]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log));
    f.set_mounted(true);
    assert!(eventually(LIMIT, || !mounts_at(&f.p("")).is_empty()), "not mounted in time");
    assert_eq!(text(f.p("f")), "low");
    assert_eq!(f.daemon(), child.id() as i32, "-f stays the process that was started");
    f.unmount();
    assert_eq!(wait(&mut child, LIMIT), Some(0));
    // The same, ended by a signal.
    f.note_lowers();
    let mut child = spawn(f.command(&["-f"]).stdin(Stdio::null()).stderr(Stdio::null()));
    f.set_mounted(true);
    assert!(eventually(LIMIT, || !mounts_at(&f.p("")).is_empty()));
    signal(child.id() as i32, libc::SIGTERM);
    assert_eq!(wait(&mut child, LIMIT), Some(0));
    assert_eq!(mounts_at(&f.p("")), []);
    f.after_unmount();
}

#[test]
fn umount_of_what_is_no_mount_fails() {
    let Some(f) = fixture() else { return };
    let done = run(Command::new(program()).arg("umount").arg(f.p("")));
    assert!(done.code.is_some_and(|c| c != 0), "{done:?}");
    assert!(done.err.contains("mnt"), "{:?} does not name the directory", done.err);
}

/// A mount in use is not torn from its users, and success is not claimed.
#[test]
fn umount_of_a_busy_mount_fails() {
    let Some(mut f) = fixture() else { return };
    f.mount();
    let held = ro(f.p("f"));
    let done = run(Command::new(program()).arg("umount").arg(f.p("")));
    assert!(done.code.is_some_and(|c| c != 0), "{done:?}");
    assert!(!mounts_at(&f.p("")).is_empty());
    assert_eq!(through(&held), b"low");
    drop(held);
    f.unmount();
}

/// Source: DESIGN of copy-up: two mounts cannot share an upper or a workdir.
#[test]
fn a_second_mount_of_the_same_upper_is_refused() {
    let Some(mut f) = fixture() else { return };
    f.mount();
    let second = f.dir().join("mnt2");
    fs::create_dir(&second).unwrap();
    let _guard = Umount(second.clone());
    let mut cmd = Command::new(program());
    cmd.arg("mount")
        .arg("-l")
        .arg(f.low(0, ""))
        .arg("-u")
        .arg(f.up(""))
        .arg("-w")
        .arg(f.work(""))
        .arg(&second);
    let done = run(&mut cmd);
    assert!(done.code.is_some_and(|c| c != 0), "{done:?}");
    assert!(done.err.to_lowercase().contains("busy") || done.err.contains("use"), "{:?}", done.err);
    assert_eq!(mounts_at(&second), []);
    assert_eq!(text(f.p("f")), "low", "the first mount goes on");
    f.unmount();
    run(&mut cmd).ok();
    run(Command::new(program()).arg("umount").arg(&second)).ok();
}

#[test]
fn leftovers_in_the_workdir_are_swept() {
    let Some(mut f) = fixture() else { return };
    f.mount();
    fs::write(f.p("f"), "up").unwrap();
    f.unmount();
    fs::create_dir_all(f.work("work/#deadbeef/sub")).unwrap();
    fs::write(f.work("work/#deadbeef/sub/x"), "half copied").unwrap();
    fs::write(f.work("work/#1"), "half copied").unwrap();
    f.mount();
    assert_eq!(f.temporaries(), [""; 0]);
    assert_eq!(text(f.p("f")), "up");
}

#[test]
fn a_killed_daemon_leaves_a_mountable_upper() {
    let Some(mut f) = fixture() else { return };
    for i in 0..50 {
        f.lower(0).file(format!("many/{i}"), vec![b'o'; 200_000]);
    }
    f.mount();
    let pid = f.daemon();
    std::thread::scope(|s| {
        let f = &f;
        s.spawn(move || {
            for i in 0..50 {
                // The daemon dies under this; what fails from then on is none of this test's business.
                let Ok(w) = sys::open(f.p(format!("many/{i}")), libc::O_RDWR, 0) else { return };
                if w.write_all_at(b"n", 0).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(30));
        signal(pid, libc::SIGKILL);
    });
    assert!(eventually(LIMIT, || daemons_of(&f.p("")).is_empty()));
    let gone = run(Command::new(program()).arg("umount").arg(f.p("")));
    if gone.code != Some(0) {
        run(Command::new("fusermount3").args(["-u", "-z"]).arg(f.p(""))).ok();
    }
    assert_eq!(mounts_at(&f.p("")), []);
    f.set_mounted(false);
    f.mount();
    f.check(|m| {
        for i in 0..50 {
            let data = fs::read(m.join(format!("many/{i}"))).unwrap();
            assert_eq!(data.len(), 200_000, "half a file");
            assert!(data[1..].iter().all(|b| *b == b'o'));
        }
    });
}

/// The form in which mount(8), podman and containerd call it.
#[test]
fn options_in_the_style_of_mount() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(1).file("a", "1").file("b", "1");
    f.lower(0).file("a", "0");
    let opts = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        f.low(0, "").display(),
        f.low(1, "").display(),
        f.up("").display(),
        f.work("").display()
    );
    let forms: [&[&str]; 3] =
        [&["overlay", "MNT", "-o", &opts], &["-o", &opts, "MNT"], &["MNT", "-o", &opts]];
    for (i, form) in forms.into_iter().enumerate() {
        f.note_lowers();
        let mnt = f.p("").to_str().unwrap().to_owned();
        let args = form.iter().map(|a| if *a == "MNT" { &mnt } else { *a });
        run(Command::new(program()).args(args)).ok();
        f.set_mounted(true);
        assert_eq!([text(f.p("a")), text(f.p("b"))], ["0", "1"], "{form:?}");
        fs::write(f.p(format!("new{i}")), "x").unwrap();
        f.unmount();
        assert!(f.in_upper(format!("new{i}")));
    }
}

#[test]
fn callers_flags_are_accepted() {
    let Some(mut f) = fixture() else { return };
    f.mount_with(&["-o", "rw,dev,suid,noatime", "-o", "volatile"]);
    assert_eq!(text(f.p("f")), "low");
    f.unmount();
    fs::remove_dir_all(f.work("work/incompat")).unwrap_or(());
    f.mount();
}

#[test]
fn relative_paths_are_of_the_caller() {
    let Some(mut f) = fixture() else { return };
    f.note_lowers();
    let mut cmd = Command::new(program());
    cmd.args(["mount", "-l", "l0", "-u", "upper", "-w", "work"]).arg(f.p("")).current_dir(f.dir());
    run(&mut cmd).ok();
    f.set_mounted(true);
    assert_eq!(text(f.p("f")), "low");
    fs::write(f.p("f"), "up").unwrap();
    f.unmount();
    assert_eq!(text(f.up("f")), "up");
}
