//! Changing a mount while one of its sources does not answer: only what has to do with that source waits.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::common::*;
use super::graft_control::up;

/// A daemon that is stopped as long as this lives.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Stopped {
        stop(pid);
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}

/// `stratafs graft WORDS`, not waited for.
fn start(f: &Fixture, words: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.arg("graft").current_dir(f.dir()).stderr(std::process::Stdio::null());
    for word in words {
        command.arg(word.replace('@', f.p("").to_str().unwrap()));
    }
    spawn(&mut command)
}

/// Does something that must not wait for the stopped daemon, which is stopped for longer than `LIMIT`.
#[track_caller]
fn at_once<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    assert!(begun.elapsed() < LIMIT, "{what} took {:?}", begun.elapsed());
    done
}

#[test]
fn a_source_that_does_not_answer_keeps_nobody_from_other_grafts() {
    let Some(f) = up() else { return };
    let mut other = Fixture::new(1).unwrap();
    other.lower(0).dir("src").file("src/f", "slow").file("src/g", "slow").dir("never");
    other.mount();
    let slow = |name: &str, at: &str| format!("{}:{at}", other.p(name).display());
    f.graft(&["add", "@", "-v", &slow("src", "/slow"), "-v", "./one:/app"]).ok();
    assert_eq!(text(f.p("slow/f")), "slow");
    let stopped = Stopped::new(other.daemon());
    // A source that cannot be opened now.
    let mut adding = start(&f, &["add", "@", "-v", &slow("never/asked", "/late:create=dir")]);
    // Somebody who looks for something in the attached one.
    let mut looking =
        spawn(Command::new("stat").arg(f.p("slow/nobody-asked")).stderr(std::process::Stdio::null()));
    std::thread::sleep(Duration::from_millis(300));
    assert!(adding.try_wait().unwrap().is_none() && looking.try_wait().unwrap().is_none());
    at_once("ls", || assert_eq!(f.graft(&["ls", "@"]).ok().out.lines().count(), 3));
    at_once("rm", || f.graft(&["rm", "@", "/app"]).ok());
    at_once("add", || f.graft(&["add", "@", "-v", "./two:/app", "-v", "./one:/new/deep"]).ok());
    at_once("a look", || {
        assert_eq!((text(f.p("app/main.py")), names(f.p("new"))), ("two".into(), vec!["deep".into()]))
    });
    at_once("the same target", || f.refuses(&["add", "@", "-v", "./one:/late"], &["/late", "being changed"]));
    at_once("the list of the root", || assert!(names(f.p("")).contains(&"slow".into())));
    at_once("rm --lazy", || f.graft(&["rm", "--lazy", "@", "/slow"]).ok());
    at_once("what is gone", || assert_eq!(missing(f.p("slow")), Errno::ENOENT));
    fs::create_dir(f.p("slow")).unwrap();
    drop(stopped);
    assert!(adding.wait().unwrap().success());
    assert!(!looking.wait().unwrap().success());
    assert_eq!(names(f.p("late")), [] as [&str; 0]);
    f.graft(&["rm", "@", "/late", "/app", "/new/deep"]).ok();
    drop(f);
    other.unmount();
}

#[test]
fn a_mount_ends_while_it_is_being_changed() {
    let Some(mut f) = up() else { return };
    let mut other = Fixture::new(1).unwrap();
    other.lower(0).dir("src");
    other.mount();
    let stopped = Stopped::new(other.daemon());
    let mut adding = start(&f, &["add", "@", "-v", &format!("{}:/late", other.p("src").display())]);
    std::thread::sleep(Duration::from_millis(300));
    // `stratafs umount` fails if the daemon does not end within a limit of its own.
    f.unmount();
    assert!(!adding.wait().unwrap().success());
    drop(stopped);
    other.unmount();
}
