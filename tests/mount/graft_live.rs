//! Changing what is attached inside a mount that is up: add, remove, replace, list, and what is said about it.

use super::common::*;
use std::os::unix::net::UnixStream;
use std::process::Command;

/// A mount of one lower with some names, and sources beside it.
pub fn up() -> Option<Fixture> {
    let mut f = Fixture::new(1)?;
    let l = f.lower(0);
    l.dir("app").file("app/main.py", "layers").file("app/only", "layers").dir("empty").file("file", "layers");
    for name in ["one", "two"] {
        fs::create_dir(f.dir().join(name)).unwrap();
        fs::write(f.dir().join(name).join("main.py"), name).unwrap();
        fs::write(f.dir().join(name).join(name), name).unwrap();
    }
    f.mount();
    Some(f)
}

impl Fixture {
    /// `stratafs graft WORDS`, where `@` stands for the mountpoint and `~` for the directory with the sources.
    pub fn graft(&self, words: &[&str]) -> Done {
        let mut command = Command::new(program());
        command.arg("graft").current_dir(self.dir());
        for word in words {
            let dir = self.dir().to_str().unwrap();
            command.arg(word.replace('@', self.p("").to_str().unwrap()).replace('~', dir));
        }
        run(&mut command)
    }

    /// Refused in one line that has these parts.
    #[track_caller]
    pub fn refuses(&self, words: &[&str], parts: &[&str]) {
        let before = self.graft(&["ls", "@", "--json"]).ok().out;
        let done = self.graft(words);
        assert!(done.code.is_some_and(|code| code == 1 || code == 2), "{words:?}: {done:?}");
        assert_eq!(done.err.lines().count(), 1, "{words:?}: {}", done.err);
        for part in parts {
            assert!(done.err.contains(part), "{words:?}: {part:?} is not in {:?}", done.err);
        }
        assert_eq!(self.graft(&["ls", "@", "--json"]).ok().out, before, "{words:?} has changed something");
    }

    fn socket(&self) -> std::path::PathBuf {
        let value = sys::getxattr(self.p(""), "user.stratafs.socket").unwrap();
        std::path::PathBuf::from(String::from_utf8(value).unwrap())
    }
}

#[test]
fn what_is_added_shows_at_once_and_what_it_hid_shows_after() {
    let Some(f) = up() else { return };
    assert_eq!(names(f.p("app")), ["main.py", "only"]);
    assert_eq!(text(f.p("app/main.py")), "layers");
    assert_eq!(missing(f.p("app/one")), Errno::ENOENT);
    f.graft(&["add", "@", "-v", "./one:/app"]).ok();
    assert_eq!(names(f.p("app")), ["main.py", "one"]);
    assert_eq!(text(f.p("app/main.py")), "one");
    assert_eq!(missing(f.p("app/only")), Errno::ENOENT);
    fs::write(f.p("app/new"), "new").unwrap();
    assert_eq!(text(f.dir().join("one/new")), "new");
    let listed = f.graft(&["ls", "@"]).ok().out;
    let mut lines = listed.lines();
    assert!(lines.next().unwrap().starts_with("TARGET "), "{listed}");
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row, ["/app", "bind", f.dir().join("one").to_str().unwrap(), "rw"]);
    f.graft(&["rm", "@", "/app"]).ok();
    assert_eq!(f.graft(&["ls", "@"]).ok().out, "");
    assert_eq!(names(f.p("app")), ["main.py", "only"]);
    assert_eq!(text(f.p("app/main.py")), "layers");
    assert_eq!(missing(f.p("app/new")), Errno::ENOENT);
    assert!(!f.in_upper("app"));
}
