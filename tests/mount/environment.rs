//! What the daemon gets from the process that mounts: signals, limits, a /proc, a filter of system calls.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::common::*;

fn fixture() -> Option<Fixture> {
    let f = Fixture::new(1).and_then(|f| f.departs("there is no daemon"))?;
    f.lower(0).file("f", "low").file("big", "0123456789".repeat(20_000));
    Some(f)
}

/// The words that mount, behind `script`, which ends with `"$@"`.
fn behind(f: &Fixture, script: &str, more: &[&str]) -> Command {
    let command = f.command(more);
    let words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect();
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).args(words);
    shell
}

/// Programs that let others reap their children start stratafs, too. Source: signal(7), "SIGCHLD".
#[test]
fn an_ignored_sigchld_is_heard_again() {
    let Some(mut f) = fixture() else { return };
    let ignoring = |command: &mut Command| {
        let ignore = || {
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        };
        unsafe { command.pre_exec(ignore) };
        run(command)
    };
    f.note_lowers();
    let done = ignoring(&mut f.command(&[]));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    f.set_mounted(true);
    assert_eq!(text(f.p("f")), "low");
    let done = ignoring(Command::new(program()).arg("umount").arg(f.p("")));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    f.set_mounted(false);
    f.after_unmount();
}

/// The daemon writes for all callers, whatever the one who mounts may write.
#[test]
fn a_limit_of_file_sizes_ends_no_daemon() {
    for (limit, lifted) in [("-Sf 4", true), ("-f 4", false)] {
        let Some(mut f) = fixture() else { return };
        f.note_lowers();
        run(&mut behind(&f, &format!("ulimit {limit}; exec \"$@\""), &[])).ok();
        f.set_mounted(true);
        let mut file = fs::File::options().append(true).open(f.p("big"));
        let written = file.as_mut().map(|file| no(std::io::Write::write_all(file, b"more")));
        match written {
            // Root with CAP_SYS_RESOURCE lifts the other limit as well.
            Ok(written) => {
                assert!(written.is_ok() || (!lifted && written == Err(Errno::EFBIG)), "{written:?}")
            }
            Err(error) => assert_eq!((error.raw_os_error(), lifted), (Some(libc::EFBIG), false)),
        }
        drop(file);
        fs::write(f.p("small"), "x").unwrap();
        f.check(|m| assert_eq!(text(m.join("small")), "x"));
    }
}

#[test]
fn too_little_memory_is_said_at_once() {
    let Some(mut f) = fixture() else { return };
    f.note_lowers();
    let done = run(&mut behind(&f, "ulimit -v 150000; exec \"$@\"", &["-o", "threads=2"]));
    if done.code == Some(0) {
        f.set_mounted(true);
        let limits = text(format!("/proc/{}/limits", f.daemon()));
        let line = limits.lines().find(|line| line.starts_with("Max address space")).unwrap();
        assert!(line.contains("unlimited"), "root with CAP_SYS_RESOURCE lifts it: {line}");
        return f.unmount();
    }
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("146 MiB") && done.err.contains("`ulimit -v`"), "{done:?}");
    assert_eq!(mounts_at(&f.p("")), []);
}

/// Another process has the caller's number there, and it may have all capabilities.
#[test]
fn a_proc_of_another_pid_namespace_is_not_trusted() {
    const FILES: usize = 12;
    for (proc, mode) in [("", 0o777), ("--mount-proc", 0o777)] {
        let Some(f) = fixture().and_then(Fixture::need_root) else { return };
        for i in 0..FILES {
            f.lower(0).file(format!("s{i}"), "0123456789").mode(0o4777);
        }
        let m = f.p("").display().to_string();
        let script = format!(
            "unshare -m -p -f {proc} sh -ec '\"$@\"
            for i in $(seq 0 {}); do setpriv --reuid 65534 --regid 65534 --clear-groups truncate -s 5 {m}/s$i; done
            stat -c %a {m}/s*
            {} umount {m}' sh \"$@\"",
            FILES - 1,
            program().display(),
        );
        let done = run(&mut behind(&f, &script, &[]));
        assert_eq!(done.code, Some(0), "{proc}: {done:?}");
        assert_eq!(done.out, format!("{mode:o}\n").repeat(FILES), "{proc}");
    }
}

#[test]
fn a_signal_unmounts_without_proc() {
    if older_kernel().is_some() {
        return println!(
            "skipped: without setxattrat(2), since Linux 6.13, nothing is mounted without /proc"
        );
    }
    let Some(f) = fixture().and_then(Fixture::need_root) else { return };
    let mut daemon = spawn(&mut behind(
        &f,
        "exec unshare -m sh -ec 'mount -t tmpfs none /proc; exec \"$@\"' sh \"$@\"",
        &["-f"],
    ));
    let table = format!("/proc/{}/mountinfo", daemon.id());
    let at = f.p("").display().to_string();
    let up = || fs::read_to_string(&table).is_ok_and(|table| table.contains(&format!(" {at} ")));
    assert!(eventually(LIMIT, up), "it is not mounted");
    let ended = || {
        // It may not listen yet; two at once detach it as well.
        unsafe { libc::kill(daemon.id() as i32, libc::SIGTERM) };
        std::thread::sleep(std::time::Duration::from_millis(50));
        daemon.try_wait().unwrap().is_some()
    };
    assert!(eventually(LIMIT, ended), "SIGTERM does not end it");
}
