//! The command line from outside: help, version, mistakes. Nothing here mounts, so it runs anywhere.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stratafs");

fn stratafs<S: AsRef<OsStr>>(args: &[S]) -> Output {
    Command::new(PROGRAM).args(args).env_remove("STRATAFS_LOG").output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with `status`, prints nothing, and says one line that has all `parts`.
#[track_caller]
fn refuses(args: &[&str], status: i32, parts: &[&str]) {
    let output = stratafs(args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
    assert_eq!(stdout(&output), "", "{args:?}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    assert!(said.starts_with("stratafs: "), "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: {part:?} is not in {said}");
    }
}

/// Directories for a mount that is refused before it is tried.
fn tree() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let dir = tempfile::TempDir::new().expect("dir");
    for name in ["l", "u", "w", "m"] {
        std::fs::create_dir(dir.path().join(name)).expect(name);
    }
    let root = dir.path().to_str().expect("text").to_owned();
    (dir, move |name: &str| format!("{root}/{name}"))
}

#[test]
fn help_teaches_and_goes_to_standard_output() {
    let all = stratafs(&["--help"]);
    assert!(all.status.success() && stderr(&all).is_empty());
    for part in ["stratafs demo", "umount", "mount -t fuse.stratafs", "Exit status:"] {
        assert!(stdout(&all).contains(part), "{part:?} is not in {}", stdout(&all));
    }
    let mount = stdout(&stratafs(&["mount", "--help"]));
    for part in ["lowerdir=A:B::D", "xattr_permissions=0|1|2", "Examples:", "--ephemeral[=<DIR>]"] {
        assert!(mount.contains(part), "{part:?} is not in {mount}");
    }
    assert_eq!(stdout(&stratafs(&["help"])), stdout(&all));
    assert!(stdout(&stratafs(&["-f", "--help"])).contains("lowerdir=A:B::D"), "the form without a command");
    // Help is put together only for who asks for it; each way to ask gets all of it.
    assert_eq!(stdout(&stratafs(&["help", "mount"])), mount);
    assert!(stdout(&stratafs(&["-fh"])).contains("stratafs graft add"), "among other letters");
    assert!(stdout(&stratafs(&["-h"])).contains("stratafs graft add"));
    assert!(stderr(&stratafs::<&str>(&[])).contains("stratafs graft add"), "no argument at all");
}

#[test]
fn version_is_said_in_both_forms() {
    let expected = format!("stratafs {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&stratafs(&["--version"])), expected);
    assert_eq!(stdout(&stratafs(&["-V"])), expected);
    let as_other = Command::new(PROGRAM).arg0("fuse-overlayfs").arg("--version").output().expect("runs");
    assert_eq!(stdout(&as_other), expected);
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&stratafs(&["completions", shell]));
        assert!(script.contains("umount") && script.contains("ephemeral"), "{shell}");
    }
}

#[test]
fn no_arguments_is_a_mistake_that_is_answered_with_help() {
    let none = stratafs::<&str>(&[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("Examples:"));
}

#[test]
fn a_mistyped_command_names_the_nearest() {
    let typo = stratafs(&["moutn", "-l", "a", "m"]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(stderr(&typo).contains("'mount'"), "{}", stderr(&typo));
    refuses(&["moutn", "-l", "a", "-o", "ro", "m"], 2, &["stratafs mount"]);
    refuses(&["-l", "a", "m"], 2, &["stratafs mount"]);
}

#[test]
fn a_command_line_that_makes_no_sense_is_status_2() {
    let (_dir, at) = tree();
    let (l, m) = (at("l"), at("m"));
    let (l, m) = (l.as_str(), m.as_str());
    refuses(&["-o", "lowerdir=/l"], 2, &["MOUNTPOINT"]);
    refuses(&["a", "b", "c", "-o", "ro"], 2, &["`stratafs --help`"]);
    refuses(&["mount", "-o", "lowredir=/l", m], 2, &["`lowredir=/l`", "`lowerdir`"]);
    refuses(&["-o", "lowerdir=/l,xino=maybe", m], 2, &["`xino=maybe`", "auto, on, off"]);
    refuses(&["-o", "lowerdir=/l,context=\"a,b", m], 2, &["never closed"]);
    refuses(&["-o", "ro", m], 2, &["no lower layer", "lowerdir="]);
    refuses(&["mount", m], 2, &["no lower layer", "-l DIR"]);
    refuses(&["mount", "-l", l, "-u", "u", m], 2, &["no workdir", "-w DIR"]);
    refuses(&["mount", "-l", l, "-o", "lowerdir=/x", m], 2, &["`-l`", "lowerdir="]);
    refuses(&["mount", "-l", l, "-u", "u", "-o", "upperdir=/x", m], 2, &["`-u`", "upperdir="]);
    refuses(&["mount", "-l", l, "--ephemeral", "-o", "upperdir=/x", m], 2, &["--ephemeral"]);
    refuses(&["mount", "-l", l, "-o", "userxattr,metacopy=on", m], 2, &["`userxattr`", "leave one"]);
    refuses(&["mount", "-l", l, "--log-level", "loud", m], 2, &["--log-level", "`loud`"]);
    refuses(&["x", "/dev/fd/5", "-o", "lowerdir=/l"], 2, &["/dev/fd/5", "drop_privileges"]);
    let both = stratafs(&["mount", "-l", l, "-u", "u", "--ephemeral", m]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn directories_that_are_amiss_are_status_1() {
    let (_dir, at) = tree();
    let (l, u, w, m, gone) = (at("l"), at("u"), at("w"), at("m"), at("gone"));
    let (l, u, w, m, gone) = (l.as_str(), u.as_str(), w.as_str(), m.as_str(), gone.as_str());
    for foreground in [&[][..], &["-f"]] {
        let refuses = |args: &[&str], parts: &[&str]| {
            refuses(&[&["mount"], foreground, args].concat(), 1, parts);
        };
        refuses(&["-l", gone, m], &["lower layer", "gone", "does not exist"]);
        refuses(&["-l", l, gone], &["mountpoint", "gone", "mkdir"]);
        refuses(&["-l", l, "-l", l, m], &["same directory"]);
        refuses(&["-l", l, "-u", u, "-w", gone, m], &["workdir", "gone"]);
        refuses(&["-l", l, "-u", u, "-w", u, m], &["same directory"]);
        refuses(&["-l", l, "--ephemeral=/nowhere", m], &["--ephemeral", "/nowhere"]);
        refuses(&["-l", l, "--log-file", "/nowhere/log", m], &["--log-file", "/nowhere/log"]);
        let _ = w;
    }
    std::fs::write(Path::new(m).join("name"), "").expect("file");
    refuses(&["mount", m, "-o", &format!("rw,lowerdir={l},dev,suid")], 1, &["not empty", "nonempty"]);
}

#[test]
fn relative_paths_are_those_of_the_caller() {
    let (dir, _) = tree();
    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM).args(args).current_dir(dir.path()).output().expect("runs");
        stderr(&output)
    };
    let gone = dir.path().join("gone");
    assert!(run(&["mount", "-l", "gone", "m"]).contains(&format!("{gone:?}")));
    assert!(run(&["-o", "lowerdir=l:gone", "m"]).contains(&format!("{gone:?}")));
}

#[test]
fn unmounting_what_is_no_mount_of_ours_is_status_1() {
    let (_dir, at) = tree();
    refuses(&["umount", &at("m")], 1, &["is not a mountpoint", "stratafs ls"]);
    refuses(&["unmount", "--lazy", "/proc"], 1, &["type proc", "umount(8)"]);
    let two = stratafs(&["umount", &at("m"), &at("gone")]);
    assert_eq!((two.status.code(), stderr(&two).lines().count()), (Some(1), 2));
}

#[test]
fn the_list_of_mounts_is_json_on_demand() {
    let list = stratafs(&["ls", "--json"]);
    assert!(list.status.success());
    assert!(stdout(&list).starts_with('[') && stdout(&list).ends_with("]\n"));
    assert_eq!(stratafs(&["ls", "-v", "--json"]).status.code(), Some(2));
}

/// mount(8) calls its helpers as `mount.TYPE SOURCE TARGET [-sfnv] [-o OPTIONS]`, where -f means to mount nothing.
#[test]
fn a_fake_mount_checks_and_mounts_nothing() {
    let (_dir, at) = tree();
    let fake = |options: &str| {
        let mut command = Command::new(PROGRAM);
        command.arg0("/sbin/mount.stratafs").args(["none", &at("m"), "-f", "-n", "-o", options]);
        command.output().expect("runs")
    };
    assert!(stderr(&fake(&format!("lowerdir={}", at("gone")))).contains("does not exist"));
    if Path::new("/dev/fuse").exists() {
        let good = fake(&format!("lowerdir={}", at("l")));
        assert!(good.status.success() && !stdout(&stratafs(&["ls"])).contains(&at("m")), "{}", stderr(&good));
    }
}

#[test]
fn the_commands_for_a_mount_that_is_up_teach_and_refuse() {
    let graft = stdout(&stratafs(&["graft", "--help"]));
    for part in ["add", "rm", "replace", "ls", "graft rm --lazy", "-v ./src:/app:ro"] {
        assert!(graft.contains(part), "{part:?} is not in {graft}");
    }
    assert!(stdout(&stratafs(&["shadow", "--help"])).contains("(layers newer)"));
    assert!(stdout(&stratafs(&["completions", "bash"])).contains("--stale"));
    for args in [&["graft", "ls", "/"][..], &["graft", "rm", "/", "/a"], &["shadow", "/"]] {
        refuses(args, 1, &["\"/\""]);
    }
    refuses(&["graft", "rm", "/", "a"], 2, &["'a'", "absolute"]);
    refuses(&["graft", "add", "/", "-v", "/a:/b:zz"], 2, &["zz"]);
    for args in [&["graft"][..], &["graft", "add", "/"], &["graft", "replace", "/"], &["graft", "rm", "/"]] {
        let output = stratafs(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!stderr(&output).is_empty() && stdout(&output).is_empty(), "{args:?}");
    }
}
