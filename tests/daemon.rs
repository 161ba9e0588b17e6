//! The daemon from outside: up when the command returns, gone when it is told to go, nothing left behind.
//! Needs /dev/fuse and the right to mount; without them every test here ends at once, saying so.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_stratafs");

/// Directories for a mount, which is taken away in the end whatever happened.
struct Tree(tempfile::TempDir);

impl Tree {
    /// Nothing if no mount can be made here at all.
    fn new() -> Option<Tree> {
        let tree = Tree(tempfile::TempDir::new().expect("dir"));
        for name in ["l", "u", "w", "m", "tmp"] {
            std::fs::create_dir(tree.path(name)).expect(name);
        }
        let output = tree.run(&["mount", "-l", "l", "m"]);
        if !output.status.success() {
            eprintln!("skipped: {}", stderr(&output));
            return None;
        }
        tree.run_well(&["umount", "m"]);
        Some(tree)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .current_dir(self.0.path())
            .env("TMPDIR", self.path("tmp"))
            .env_remove("STRATAFS_LOG");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// Succeeds, without a word.
    #[track_caller]
    fn run_well(&self, args: &[&str]) {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert_eq!((output.stdout.len(), stderr(&output).as_str()), (0, ""), "{args:?}");
    }

    fn mountpoint(&self) -> PathBuf {
        self.path("m").canonicalize().unwrap_or_else(|_| self.path("m"))
    }

    fn is_mounted(&self) -> bool {
        let wanted = format!(" {} ", self.path("m").display());
        std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains(&wanted)
    }

    /// The daemon, as `ls` tells it.
    fn daemon(&self) -> Pid {
        let list = String::from_utf8(self.run(&["ls"]).stdout).expect("text");
        let at = self.path("m").display().to_string();
        let line = list.lines().find(|line| line.ends_with(&at)).expect("a line for the mount");
        Pid::from_raw(line.split_whitespace().nth(1).expect("pid").parse().expect("a running daemon"))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.is_mounted() {
            self.run(&["umount", "--lazy", "m"]);
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// How long a test waits for a state. Only a fault takes so long, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(60);

#[track_caller]
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn is_running(pid: Pid) -> bool {
    // A zombie has ended, though nobody may have asked for its status yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn names(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("dir").count()
}

#[test]
fn a_mount_is_up_when_the_command_returns_and_its_daemon_is_gone_after_umount() {
    let Some(tree) = Tree::new() else { return };
    for form in
        [&["mount", "-l", "l", "-u", "u", "-w", "w", "m"][..], &["src", "m", "-o", "rw,lowerdir=l,dev,suid"]]
    {
        tree.run_well(form);
        assert!(tree.is_mounted());
        let daemon = tree.daemon();
        assert!(is_running(daemon));
        assert_eq!(std::fs::read_link(format!("/proc/{daemon}/cwd")).expect("cwd"), Path::new("/"));
        tree.run_well(&["umount", "m"]);
        assert!(!tree.is_mounted());
        soon("the daemon ends", || !is_running(daemon));
    }
}

#[test]
fn the_list_tells_layers_and_source() {
    let Some(tree) = Tree::new() else { return };
    tree.run_well(&["a source", "m", "-o", "lowerdir=l,upperdir=u,workdir=w"]);
    let text = String::from_utf8(tree.run(&["ls", "-v"]).stdout).expect("text");
    let block =
        text.split("\n\n").find(|b| b.starts_with(&*tree.path("m").to_string_lossy())).expect("block");
    for (key, value) in [("upper", tree.path("u")), ("lower", tree.path("l")), ("source", "a source".into())]
    {
        let line = format!("  {key:<8} {}", value.display());
        assert!(block.lines().any(|l| l == line), "{key} is not in {block}");
    }
    let json = String::from_utf8(tree.run(&["ls", "--json"]).stdout).expect("text");
    assert!(json.contains(&format!("\"mountpoint\":\"{}\"", tree.mountpoint().display())));
    tree.run_well(&["umount", "m"]);
}

#[test]
fn a_second_mount_at_the_same_place_after_unmounting_works() {
    let Some(tree) = Tree::new() else { return };
    for _ in 0..5 {
        tree.run_well(&["mount", "-l", "l", "-u", "u", "-w", "w", "m"]);
        tree.run_well(&["umount", "m"]);
    }
}

#[test]
fn a_signal_unmounts() {
    let Some(tree) = Tree::new() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        tree.run_well(&["mount", "-l", "l", "m"]);
        let daemon = tree.daemon();
        kill(daemon, signal).expect("kill");
        soon("the daemon ends", || !is_running(daemon));
        assert!(!tree.is_mounted(), "{signal}");
    }
}

#[test]
fn a_mount_in_use_is_busy_and_a_second_signal_detaches_it() {
    let Some(tree) = Tree::new() else { return };
    tree.run_well(&["mount", "-l", "l", "m"]);
    let daemon = tree.daemon();
    let used = std::fs::File::open(tree.path("m"));
    let Ok(used) = used else { return tree.run_well(&["umount", "m"]) };
    let busy = tree.run(&["umount", "m"]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(stderr(&busy).contains("--lazy"), "{}", stderr(&busy));
    // Two signals of which the first is still pending are one, so more follow until the daemon has seen two.
    soon("the mount is detached", || {
        // The daemon may have ended.
        let _ = kill(daemon, Signal::SIGTERM);
        !tree.is_mounted()
    });
    drop(used);
    soon("the daemon ends", || !is_running(daemon));
}

#[test]
fn an_ephemeral_upper_layer_goes_with_the_mount() {
    let Some(tree) = Tree::new() else { return };
    tree.run_well(&["mount", "-l", "l", "--ephemeral", "m"]);
    assert_eq!(names(&tree.path("tmp")), 1);
    tree.run_well(&["umount", "m"]);
    assert_eq!(names(&tree.path("tmp")), 0);

    std::fs::create_dir(tree.path("elsewhere")).expect("dir");
    tree.run_well(&["mount", "-l", "l", "--ephemeral=elsewhere", "m"]);
    assert_eq!(names(&tree.path("elsewhere")), 1);
    let daemon = tree.daemon();
    kill(daemon, Signal::SIGTERM).expect("kill");
    soon("the daemon ends", || !is_running(daemon));
    assert_eq!(names(&tree.path("elsewhere")), 0);
}

#[test]
fn a_dead_daemons_mount_is_shown_as_such_and_cleared() {
    let Some(tree) = Tree::new() else { return };
    tree.run_well(&["mount", "-l", "l", "m"]);
    let daemon = tree.daemon();
    kill(daemon, Signal::SIGKILL).expect("kill");
    soon("the daemon ends", || !is_running(daemon));
    // The threads of a killed process end one by one, and the last takes the lock of the record along.
    soon("the list says that it is dead", || {
        let list = String::from_utf8(tree.run(&["ls"]).stdout).expect("text");
        let at = tree.path("m").display().to_string();
        list.lines().any(|line| line.ends_with(&at) && line.contains(" dead "))
    });
    // The device is closed after that, and who asks meanwhile is answered that the connection was aborted.
    soon("the kernel says that it is dead", || {
        std::fs::read_dir(tree.path("m")).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });
    let again = tree.run(&["mount", "-l", "l", "m"]);
    assert!(stderr(&again).contains("daemon has died"), "{}", stderr(&again));
    tree.run_well(&["umount", "m"]);
    assert!(!tree.is_mounted());
}

#[test]
fn the_foreground_lasts_as_long_as_the_mount() {
    let Some(tree) = Tree::new() else { return };
    let spawn = || -> Child {
        let mut command = tree.command(&["mount", "-f", "-l", "l", "m"]);
        command.stderr(Stdio::piped()).spawn().expect("the program runs")
    };
    let child = spawn();
    soon("the mount is up", || tree.is_mounted());
    kill(Pid::from_raw(child.id().try_into().expect("pid")), Signal::SIGINT).expect("kill");
    let output = child.wait_with_output().expect("wait");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));

    let mut child = spawn();
    soon("the mount is up", || tree.is_mounted());
    tree.run_well(&["umount", "m"]);
    assert!(child.wait().expect("wait").success());
}

/// A caller that reads our output to its end, or passes a pipe it forgot, is not kept waiting by the daemon.
#[test]
fn the_daemon_holds_nothing_of_its_callers() {
    let Some(tree) = Tree::new() else { return };
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("({PROGRAM} mount -l l m 7>&1 8</dev/null) 2>&1 | cat"));
    let begun = Instant::now();
    let output = command.current_dir(tree.0.path()).output().expect("sh");
    assert!(begun.elapsed() < LIMIT);
    assert!(output.stdout.is_empty() && tree.is_mounted());
    let open = std::fs::read_dir(format!("/proc/{}/fd", tree.daemon())).expect("fd");
    let pipes = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    assert!(!pipes.map(|to| to.to_string_lossy().into_owned()).any(|to| to.starts_with("pipe:")));
    tree.run_well(&["umount", "m"]);

    // In the foreground what is beyond the standard streams.
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec {PROGRAM} mount -f -l l m 7<l")).current_dir(tree.0.path());
    let mut daemon = command.spawn().expect("sh");
    soon("it is mounted", || tree.is_mounted());
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("fd");
    let lower = tree.path("l");
    assert!(!open.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == lower)));
    tree.run_well(&["umount", "m"]);
    daemon.wait().expect("ended");
}

/// A symlink that another user has put where root's log is to be would have root write to any file.
#[test]
fn a_log_does_not_follow_a_symlink_of_another_user() {
    let Some(tree) = Tree::new() else { return };
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: needs root");
    }
    let (link, target) = (tree.path("log"), tree.path("target"));
    std::os::unix::fs::symlink(&target, &link).expect("link");
    std::os::unix::fs::lchown(&link, Some(12345), None).expect("owner");
    let refused = tree.run(&["mount", "-l", "l", "--log-file", "log", "m"]);
    assert!(stderr(&refused).contains("another user") && !target.exists(), "{}", stderr(&refused));
    std::os::unix::fs::lchown(&link, Some(0), None).expect("owner");
    tree.run_well(&["mount", "-l", "l", "--log-file", "log", "m"]);
    assert!(target.exists());
    tree.run_well(&["umount", "m"]);
}

#[test]
fn the_log_goes_to_the_file_that_is_named() {
    let Some(tree) = Tree::new() else { return };
    tree.run_well(&["mount", "-l", "l", "--log-file", "log", "--log-level", "info", "m"]);
    let daemon = tree.daemon();
    kill(daemon, Signal::SIGTERM).expect("kill");
    soon("the daemon ends", || !is_running(daemon));
    let log = std::fs::read_to_string(tree.path("log")).expect("log");
    assert!(log.contains("signal 15"), "{log}");
}
