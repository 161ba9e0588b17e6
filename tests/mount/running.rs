//! What a mount that is up is told: other flags, signals, a supervisor's socket; and what a dead one leaves.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::*;

const SOON: Duration = Duration::from_secs(20);

fn fixture() -> Option<Fixture> {
    let f = Fixture::new(1).and_then(|f| f.departs("there is no daemon"))?;
    f.lower(0).file("f", "low").file("d/g", "low");
    Some(f)
}

fn signal(pid: i32, sig: i32) {
    assert_eq!(unsafe { libc::kill(pid, sig) }, 0, "kill {pid}: {}", Errno::last());
}

fn stratafs(args: &[&str], at: &Path) -> Done {
    run(Command::new(program()).args(args).arg(at))
}

#[test]
fn remount_changes_the_flags_that_it_names() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.mount_with(&["-o", "nosuid"]);
    let at = f.p("");
    fs::write(f.p("new"), "x").unwrap();
    let flags = |options: &str| {
        let done = stratafs(&["mount", "-o", options], &at);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{options}");
        let list = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = list.lines().rfind(|line| line.split(' ').nth(4) == at.to_str()).unwrap();
        line.split(' ').nth(5).unwrap().to_owned()
    };
    assert_eq!(flags("remount,ro"), "ro,nosuid,relatime");
    assert_eq!(err(fs::write(f.p("f"), "x")), Errno::EROFS);
    assert_eq!(text(f.p("new")), "x");
    assert_eq!(flags("remount,rw,nodev"), "rw,nosuid,nodev,relatime");
    fs::write(f.p("f"), "up").unwrap();
    assert_eq!(flags("remount,suid"), "rw,nodev,relatime");
    // The form without a command.
    let done = run(Command::new(program()).arg(&at).args(["-o", "remount,ro"]));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    assert_eq!(err(fs::write(f.p("f"), "x")), Errno::EROFS);
    run(Command::new(program()).arg(&at).args(["-o", "remount,rw"])).ok();
    let open = fs::File::options().append(true).open(f.p("f")).unwrap();
    let busy = stratafs(&["mount", "-o", "remount,ro"], &at);
    assert!(busy.code == Some(1) && busy.err.contains("open for writing"), "{busy:?}");
    drop(open);
    f.check(|m| assert_eq!(text(m.join("f")), "up"));
}

#[test]
fn remount_through_mount() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    if !Path::new("/sbin/mount.fuse3").exists() {
        return println!("skipped: no /sbin/mount.fuse3");
    }
    crate::callers::install(&f, "stratafs");
    f.mount();
    let at = f.p("");
    for (options, works) in [("remount,ro", false), ("remount,rw", true)] {
        run(Command::new("mount").args(["-o", options]).arg(&at)).ok();
        assert_eq!(fs::write(f.p("f"), "up").is_ok(), works, "{options}");
    }
    f.check(|m| assert_eq!(text(m.join("f")), "up"));
}

#[test]
fn remount_rw_needs_something_to_write() {
    let Some(mut f) = Fixture::read_only(1).and_then(Fixture::need_root).and_then(|f| f.departs("no daemon"))
    else {
        return;
    };
    f.mount();
    let done = stratafs(&["mount", "-o", "remount,rw"], &f.p(""));
    assert!(done.code == Some(1) && done.err.contains("no upper layer"), "{done:?}");
    f.unmount();
    let Some(mut f) = fixture() else { return };
    f.mount_with(&["-o", "ro"]);
    let done = stratafs(&["mount", "-o", "remount,rw"], &f.p(""));
    assert!(done.code == Some(1) && done.err.contains("mounted with `ro`"), "{done:?}");
    f.unmount();
    let done = stratafs(&["mount", "-o", "remount,ro"], &f.p(""));
    assert!(done.code == Some(1) && done.err.contains("not a mountpoint"), "{done:?}");
}

#[test]
fn sighup_opens_the_log_again() {
    for form in ["foreground", "background"] {
        let Some(mut f) = fixture() else { return };
        let (log, moved) = (f.dir().join("log"), f.dir().join("log.1"));
        let mut args = vec!["--log-file", log.to_str().unwrap(), "--log-level", "debug"];
        let child = match form {
            "background" => {
                f.mount_with(&args);
                None
            }
            _ => {
                args.push("-f");
                f.note_lowers();
                let child = f.command(&args).stdin(Stdio::null()).spawn().unwrap();
                f.set_mounted(true);
                assert!(eventually(SOON, || !mounts_at(&f.p("")).is_empty()));
                Some(child)
            }
        };
        fs::metadata(f.p("f")).unwrap();
        fs::rename(&log, &moved).unwrap();
        signal(f.daemon(), libc::SIGHUP);
        assert!(eventually(SOON, || log.exists()), "{form}: no new log");
        assert_eq!(stat(&log).mode() & 0o777, stat(&moved).mode() & 0o777, "{form}");
        assert_eq!(text(f.p("f")), "low", "{form}: the mount stays");
        signal(f.daemon(), libc::SIGTERM);
        assert!(eventually(SOON, || daemons_of(&f.p("")).is_empty()));
        assert!(text(&log).contains("unmounting"), "{form}: what is said now is in the new file");
        f.after_unmount();
        if let Some(mut child) = child {
            child.wait().unwrap();
        }
    }
}

#[test]
fn sighup_of_a_terminal_in_the_foreground_unmounts() {
    let Some(mut f) = fixture() else { return };
    f.note_lowers();
    let command = f.command(&["-f"]);
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ");
    let mut terminal = Command::new("script")
        .args(["-qec", &format!("exec {line}"), "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    f.set_mounted(true);
    assert!(eventually(SOON, || !mounts_at(&f.p("")).is_empty()));
    signal(f.daemon(), libc::SIGHUP);
    assert!(eventually(SOON, || mounts_at(&f.p("")).is_empty()), "it stays mounted");
    terminal.wait().unwrap();
    f.after_unmount();
    // In the background there is no terminal, and no file to open again.
    f.mount();
    signal(f.daemon(), libc::SIGHUP);
    f.check(|m| assert_eq!(text(m.join("f")), "low"));
}

/// A reader such as `head` takes the first lines and leaves.
#[test]
fn a_closed_log_does_not_end_the_daemon() {
    let Some(mut f) = fixture() else { return };
    f.note_lowers();
    let mut child = f
        .command(&["-f", "--log-level", "debug"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    f.set_mounted(true);
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.contains('\x1b'), "colours where there is no terminal: {line:?}");
    assert!(eventually(SOON, || !mounts_at(&f.p("")).is_empty()));
    for i in 0..100 {
        fs::write(f.p(format!("new{i}")), "x").unwrap();
    }
    fs::write(f.p("f"), "up").unwrap();
    assert_eq!(text(f.p("f")), "up");
    f.unmount();
    assert_eq!(wait(&mut child, SOON), Some(0));
}

#[test]
fn a_supervisor_hears_of_the_mount() {
    let Some(mut f) = fixture() else { return };
    let path = f.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    sys::chmod(&path, 0o666).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("nothing was said");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    f.note_lowers();
    let mut child = f.command(&["-f"]).stdin(Stdio::null()).env("NOTIFY_SOCKET", &path).spawn().unwrap();
    f.set_mounted(true);
    assert!(hear().lines().any(|line| line == "READY=1"));
    assert_eq!(text(f.p("f")), "low", "ready means mounted");
    f.unmount();
    assert!(hear().lines().any(|line| line == "STOPPING=1"));
    assert_eq!(wait(&mut child, SOON), Some(0));
}

#[test]
fn the_record_of_a_dead_daemon_is_removed() {
    for by_ls in [true, false] {
        let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
        // Other tests, each in a mount namespace of its own, must not remove this record.
        fs::create_dir_all("/run/stratafs").unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "records", "/run/stratafs"])).ok();
        let _records = Umount("/run/stratafs".into());
        f.mount();
        let list = run(Command::new(program()).args(["ls", "-v"])).ok().out;
        let block = list.split("\n\n").find(|block| block.starts_with(f.p("").to_str().unwrap())).unwrap();
        let socket = block.lines().find_map(|line| line.trim().strip_prefix("socket")).unwrap().trim();
        let record = socket.replace("socket.", "");
        assert!(Path::new(&record).exists(), "{list}");
        signal(f.daemon(), libc::SIGKILL);
        assert!(eventually(SOON, || daemons_of(&f.p("")).is_empty()));
        let dead = run(Command::new(program()).arg("ls")).ok().out;
        assert!(dead.contains("dead") && Path::new(&record).exists(), "a dead mount is listed: {dead}");
        // By another program than ours.
        free(&f.p(""));
        assert_eq!(mounts_at(&f.p("")), []);
        f.set_mounted(false);
        assert!(Path::new(&record).exists());
        match by_ls {
            true => drop(run(Command::new(program()).arg("ls")).ok()),
            false => drop(f.mount()),
        }
        assert!(!Path::new(&record).exists() && !Path::new(socket).exists(), "by_ls: {by_ls}");
    }
}

/// A service, a shell in `unshare -m` or a container that still runs takes a copy of each mount along.
#[test]
fn a_copy_of_the_mount_in_another_namespace_is_named() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.mount();
    let at = f.p("").display().to_string();
    let mut holder = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", "echo; exec sleep 600"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let named = format!("process {} (sleep)", holder.id());
    assert!(eventually(SOON, || text(format!("/proc/{}/comm", holder.id())) == "sleep\n"));
    let done = stratafs(&["umount"], &f.p(""));
    assert!(
        done.code == Some(1) && done.err.contains(&named) && done.err.contains("unmounted here"),
        "{done:?}"
    );
    assert_eq!(mounts_at(&f.p("")), []);
    let list = run(Command::new(program()).arg("ls")).ok().out;
    assert!(list.contains(&format!("{at} (of process {}, sleep)", holder.id())), "{list}");
    let list = run(Command::new(program()).args(["ls", "-v"])).ok().out;
    assert!(list.contains(&format!("mounted  not here: {named}")), "{list}");
    // The next mount waits a while, and then says who has it.
    f.set_mounted(false);
    let done = f.try_mount(&[]);
    assert!(done.code == Some(1) && done.err.contains("upperdir") && done.err.contains(&named), "{done:?}");
    // One that ends while the next mount waits is no obstacle.
    let pid = holder.id() as i32;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            signal(pid, libc::SIGKILL);
            holder.wait().unwrap();
        });
        f.mount();
    });
    f.check(|m| assert_eq!(text(m.join("f")), "low"));
}

#[test]
fn an_upper_layer_in_use_is_named_with_its_mount() {
    let Some(mut f) = fixture() else { return };
    f.mount();
    let second = f.dir().join("second");
    fs::create_dir(&second).unwrap();
    let _free = Umount(second.clone());
    let mut command = Command::new(program());
    command
        .args(["mount", "-l"])
        .arg(f.low(0, ""))
        .arg("-u")
        .arg(f.up(""))
        .arg("-w")
        .arg(f.work(""))
        .arg(&second);
    let done = run(&mut command);
    let named =
        format!("in use by the mount at {:?} (process {})", f.p("").canonicalize().unwrap(), f.daemon());
    assert!(done.code == Some(1) && done.err.contains(&named), "{named}: {done:?}");
    assert_eq!(mounts_at(&second), []);
}
