//! Remounting, signals and supervisor notification of a mount that is up; copies in other namespaces; records of dead daemons.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::*;

fn fixture() -> Option<Fixture> {
    let f = Fixture::new(1).and_then(|f| f.departs("there is no daemon"))?;
    f.lower(0).file("f", "low").file("d/g", "low");
    Some(f)
}

fn signal(pid: i32, sig: i32) {
    no_copies();
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
    assert_eq!(flags("remount,noatime"), "rw,nodev,noatime");
    assert_eq!(flags("remount,atime"), "rw,nodev,relatime");
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

/// A part of the mount that is bound elsewhere keeps the daemon, and is named.
#[test]
fn umount_names_where_else_the_tree_is_mounted() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.mount();
    let other = f.dir().join("other");
    fs::create_dir(&other).unwrap();
    run(Command::new("mount").arg("--bind").arg(f.p("d")).arg(&other)).ok();
    let free = Umount(other.clone());
    let daemon = f.daemon();
    let done = stratafs(&["umount"], &f.p(""));
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains(&format!("mounted at {other:?}")), "{done:?}");
    drop(free);
    assert!(eventually(LIMIT, || !Path::new(&format!("/proc/{daemon}")).exists()), "the daemon stays");
    f.set_mounted(false);
    f.after_unmount();
}

/// mount(8) with `-i` goes to the kernel alone; the daemon keeps its promise.
#[test]
fn a_mount_that_began_read_only_changes_nothing_whatever_the_kernel_allows() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.upper().file("u", "upper");
    f.kept.push(f.up(""));
    f.mount_with(&["-o", "ro"]);
    run(Command::new("mount").args(["-i", "-o", "remount,rw"]).arg(f.p(""))).ok();
    for name in ["f", "u", "new"] {
        assert_eq!(
            err(fs::File::options().append(true).create(true).open(f.p(name))),
            Errno::EROFS,
            "{name}"
        );
    }
    assert_eq!(sys::mkdir(f.p("dir"), 0o755), Err(Errno::EROFS));
    assert_eq!(sys::chmod(f.p("u"), 0o600), Err(Errno::EROFS));
    assert_eq!(err(fs::remove_file(f.p("u"))), Errno::EROFS);
    f.unmount();
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
                let child = spawn(f.command(&args).stdin(Stdio::null()));
                f.set_mounted(true);
                assert!(eventually(LIMIT, || !mounts_at(&f.p("")).is_empty()));
                Some(child)
            }
        };
        fs::metadata(f.p("f")).unwrap();
        fs::rename(&log, &moved).unwrap();
        signal(f.daemon(), libc::SIGHUP);
        assert!(eventually(LIMIT, || log.exists()), "{form}: no new log");
        assert_eq!(stat(&log).mode() & 0o777, stat(&moved).mode() & 0o777, "{form}");
        assert_eq!(text(f.p("f")), "low", "{form}: the mount stays");
        signal(f.daemon(), libc::SIGTERM);
        assert!(eventually(LIMIT, || daemons_of(&f.p("")).is_empty()));
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
    let mut terminal = spawn(
        Command::new("script")
            .args(["-qec", &format!("exec {line}"), "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null()),
    );
    f.set_mounted(true);
    assert!(eventually(LIMIT, || !mounts_at(&f.p("")).is_empty()));
    signal(f.daemon(), libc::SIGHUP);
    assert!(eventually(LIMIT, || mounts_at(&f.p("")).is_empty()), "it stays mounted");
    terminal.wait().unwrap();
    f.after_unmount();
    // In the background there is no terminal, and no file to open again.
    f.mount();
    let pid = f.daemon();
    signal(pid, libc::SIGHUP);
    // Once it was delivered, the daemon has heard of it.
    let pending = || {
        let status = text(format!("/proc/{pid}/status"));
        let bits =
            status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
        bits.into_iter().any(|bits| u64::from_str_radix(bits.trim(), 16).unwrap() != 0)
    };
    assert!(eventually(LIMIT, || !pending()));
    f.check(|m| assert_eq!(text(m.join("f")), "low"));
    assert_eq!(mounts_at(&f.p("")).len(), 1);
}

/// A reader such as `head` takes the first lines and leaves.
#[test]
fn a_closed_log_does_not_end_the_daemon() {
    let Some(mut f) = fixture() else { return };
    f.note_lowers();
    let mut child =
        spawn(f.command(&["-f", "--log-level", "debug"]).stdin(Stdio::null()).stderr(Stdio::piped()));
    f.set_mounted(true);
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.contains('\x1b'), "colours where there is no terminal: {line:?}");
    assert!(eventually(LIMIT, || !mounts_at(&f.p("")).is_empty()));
    for i in 0..100 {
        fs::write(f.p(format!("new{i}")), "x").unwrap();
    }
    fs::write(f.p("f"), "up").unwrap();
    assert_eq!(text(f.p("f")), "up");
    f.unmount();
    assert_eq!(wait(&mut child, LIMIT), Some(0));
}

#[test]
fn a_supervisor_hears_of_the_mount() {
    let Some(mut f) = fixture() else { return };
    let path = f.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    sys::chmod(&path, 0o666).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("nothing was said");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    f.note_lowers();
    let mut child = spawn(f.command(&["-f"]).stdin(Stdio::null()).env("NOTIFY_SOCKET", &path));
    f.set_mounted(true);
    assert!(hear().lines().any(|line| line == "READY=1"));
    assert_eq!(text(f.p("f")), "low", "ready means mounted");
    f.unmount();
    assert!(hear().lines().any(|line| line == "STOPPING=1"));
    assert_eq!(wait(&mut child, LIMIT), Some(0));
}

#[test]
fn the_record_of_a_dead_daemon_is_removed() {
    for by_ls in [true, false] {
        let Some(f) = fixture().and_then(Fixture::need_root) else { return };
        // Other tests, each in a mount namespace of its own, must not remove this record.
        fs::create_dir_all("/run/stratafs").unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "records", "/run/stratafs"])).ok();
        let _records = Umount("/run/stratafs".into());
        // Unmounted before them.
        let mut f = f;
        f.mount();
        let list = run(Command::new(program()).args(["ls", "-v"])).ok().out;
        let block = list.split("\n\n").find(|block| block.starts_with(f.p("").to_str().unwrap())).unwrap();
        let socket = block.lines().find_map(|line| line.trim().strip_prefix("socket")).unwrap().trim();
        let record = socket.replace("socket.", "");
        assert!(Path::new(&record).exists(), "{list}");
        signal(f.daemon(), libc::SIGKILL);
        // It has no name before it has let go of its record.
        let is_listed_as_dead = || run(Command::new(program()).arg("ls")).ok().out.contains("dead");
        assert!(eventually(LIMIT, is_listed_as_dead));
        assert!(Path::new(&record).exists());
        // By another program than ours.
        free(&f.p(""));
        assert_eq!(mounts_at(&f.p("")), []);
        f.set_mounted(false);
        assert!(Path::new(&record).exists());
        // Another mount may have the device number for a while.
        let removed = || {
            match by_ls {
                true => drop(run(Command::new(program()).arg("ls")).ok()),
                false => {
                    f.mount();
                    f.unmount();
                }
            }
            !Path::new(&record).exists() && !Path::new(socket).exists()
        };
        assert!(eventually(LIMIT, removed), "by_ls: {by_ls}");
    }
}

/// Crate fuser unmounted by the path once more when its session ended, whatever was mounted there by then.
#[test]
fn regression_a_daemon_that_ends_leaves_the_next_mount_at_its_path_alone() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.mount();
    let (at, pid) = (f.p(""), f.daemon());
    signal(pid, libc::SIGSTOP);
    // umount(8) would ask the stopped daemon about the path.
    assert_eq!(unsafe { libc::umount2(sys::c(&at).as_ptr(), 0) }, 0, "{}", Errno::last());
    run(Command::new("mount").args(["-t", "tmpfs", "next"]).arg(&at)).ok();
    signal(pid, libc::SIGCONT);
    assert!(eventually(LIMIT, || fs::read_link(format!("/proc/{pid}/exe")).is_err()));
    assert_eq!(mounts_at(&at).len(), 1, "the next mount is gone");
    run(Command::new("umount").arg(&at)).ok();
    f.after_unmount();
}

/// A process with a mount namespace of its own, which has a copy of each mount: a service, a shell in `unshare -m`, a process
/// that its container has left behind. It ends with this value.
pub struct Namespace(std::process::Child);

impl Namespace {
    /// Runs `script` in the namespace, then sleeps.
    pub fn new(script: &str) -> Namespace {
        let script = format!("{script} echo; exec sleep 600");
        let mut holder = spawn(
            Command::new("unshare")
                .args(["-m", "--propagation", "private", "sh", "-c", &script])
                .stdout(Stdio::piped()),
        );
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let namespace = Namespace(holder);
        assert!(eventually(LIMIT, || text(format!("/proc/{}/comm", namespace.pid())) == "sleep\n"));
        namespace
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn end(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Source: the kernel's overlayfs and fuse-overlayfs mount the layer again, as podman asks after it stopped a container of
/// which a process is left.
#[test]
fn a_copy_of_the_mount_in_another_namespace_is_named_and_taken_over() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.mount();
    let at = f.p("").display().to_string();
    fs::write(f.p("new"), "old daemon").unwrap();
    let mut holder = Namespace::new("");
    let old = f.daemon();
    let named = format!("process {} (sleep)", holder.pid());
    let done = stratafs(&["umount"], &f.p(""));
    assert!(
        done.code == Some(1) && done.err.contains(&named) && done.err.contains("unmounted here"),
        "{done:?}"
    );
    assert_eq!(mounts_at(&f.p("")), []);
    let list = run(Command::new(program()).arg("ls")).ok().out;
    assert!(list.contains(&format!("{at} (of process {}, sleep)", holder.pid())), "{list}");
    let list = run(Command::new(program()).args(["ls", "-v"])).ok().out;
    assert!(list.contains(&format!("mounted  not here: {named}")), "{list}");
    f.set_mounted(false);
    f.mount();
    assert_eq!(text(f.p("new")), "old daemon");
    // The process that is left reads what it read, and writes nothing.
    let there = |command: &str| {
        let line = format!("cd '{at}' && {command}");
        run(Command::new("nsenter").args(["-t", &holder.pid().to_string(), "-m", "sh", "-c", &line]))
    };
    assert_eq!(there("cat f new").ok().out, "lowold daemon");
    let refused = there("echo x >f2");
    assert!(refused.code != Some(0) && refused.err.contains("Read-only"), "{refused:?}");
    // Neither the old daemon nor its end disturbs the new one.
    fs::write(f.p("f"), "new daemon").unwrap();
    fs::remove_dir_all(f.p("d")).unwrap();
    holder.end();
    assert!(eventually(LIMIT, || !Path::new(&format!("/proc/{old}/exe")).exists()));
    sys::mkdir(f.p("d"), 0o755).unwrap();
    sys::rename(f.p("f"), f.p("d/f")).unwrap();
    f.check(|m| {
        assert_eq!(
            (text(m.join("d/f")), text(m.join("new"))),
            ("new daemon".to_owned(), "old daemon".to_owned())
        );
        assert_eq!(names(m), ["d", "new"]);
    });
}

#[test]
fn a_copy_with_a_file_open_for_writing_is_named_and_not_taken_over() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    f.mount();
    let mut holder = Namespace::new(&format!("exec 3>>'{}';", f.p("f").display()));
    let done = stratafs(&["umount"], &f.p(""));
    assert_eq!(done.code, Some(1), "{done:?}");
    f.set_mounted(false);
    let done = f.try_mount(&[]);
    let named = format!("process {} (sleep)", holder.pid());
    assert!(done.code == Some(1) && done.err.contains("upperdir") && done.err.contains(&named), "{done:?}");
    // One that ends while the next mount waits is no obstacle.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            holder.end();
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
