//! The control socket of a mount and the commands that use it: what they say, what they refuse, what is left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::common::*;

/// A mount of one lower with some names, and sources beside it.
pub fn up() -> Option<Fixture> {
    if kernel_oracle() {
        println!("skipped: the kernel has no grafts");
        return None;
    }
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
    /// `stratafs WORDS`, where `@` stands for the mountpoint and `~` for the directory with the sources, which is the current one.
    pub fn says(&self, words: &[&str]) -> Done {
        let mut command = Command::new(program());
        command.current_dir(self.dir());
        for word in words {
            let dir = self.dir().to_str().unwrap();
            command.arg(word.replace('@', self.p("").to_str().unwrap()).replace('~', dir));
        }
        run(&mut command)
    }

    /// `stratafs graft WORDS`
    pub fn graft(&self, words: &[&str]) -> Done {
        self.says(&[&["graft"], words].concat())
    }

    /// Refused in one line that has these parts, and nothing else is attached after.
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

    pub fn socket(&self) -> PathBuf {
        let value = sys::getxattr(self.p(""), "user.stratafs.socket").unwrap();
        PathBuf::from(String::from_utf8(value).unwrap())
    }
}

/// One request, one line.
#[track_caller]
pub fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // Whoever refuses before having read it has answered all the same.
    let _ = stream.write_all(format!("{request}\n").as_bytes());
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn the_socket_is_the_owners_and_named_on_the_root() {
    let Some(mut f) = up() else { return };
    let socket = f.socket();
    let facts = stat(&socket);
    assert!(facts.file_type().is_socket() && facts.mode() & 0o7777 == 0o600, "{:o}", facts.mode());
    let listed = sys::listxattr(f.p("")).unwrap();
    assert!(listed.iter().all(|name| !name.to_string_lossy().contains("stratafs")), "{listed:?}");
    assert_eq!(sys::getxattr(f.p("app"), "user.stratafs.socket"), Err(Errno::ENODATA));
    assert_eq!(sys::setxattr(f.p(""), "user.stratafs.socket", b"x", 0), Err(Errno::EPERM));
    assert_eq!(sys::removexattr(f.p(""), "user.stratafs.socket"), Err(Errno::EPERM));
    let verbose = f.says(&["ls", "-v"]).ok().out;
    assert!(verbose.contains(socket.to_str().unwrap()), "{verbose}");
    f.unmount();
    assert!(!socket.exists());
    let left = names(socket.parent().unwrap());
    let number = socket.file_name().unwrap().to_str().unwrap().trim_start_matches("socket.").to_owned();
    assert!(left.iter().all(|name| !name.ends_with(&number)), "{left:?}");
}

#[test]
fn other_users_are_refused_and_may_read_the_name() {
    let Some(f) = up().and_then(Fixture::need_root) else { return };
    let socket = f.socket();
    let (connected, read) = as_user(1000, 1000, || {
        (
            UnixStream::connect(&socket).map(drop).map_err(|e| e.kind()),
            sys::getxattr(f.p(""), "user.stratafs.socket"),
        )
    });
    assert_eq!(connected, Err(std::io::ErrorKind::PermissionDenied));
    assert_eq!(read.as_deref(), Ok(socket.as_os_str().as_encoded_bytes()));
    // Whoever gets past the permissions of the file is asked for himself.
    sys::chmod(&socket, 0o777).unwrap();
    let answer = as_user(1000, 1000, || ask(&socket, r#"{"do":"graft-ls"}"#));
    assert!(answer.contains("another user's"), "{answer}");
}

#[test]
fn what_is_no_request_is_answered_with_an_error() {
    let Some(f) = up() else { return };
    let socket = f.socket();
    let long = "x".repeat(100_000);
    for request in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"do":"graft-ls","what":1}"#,
        r#"{"do":"graft-rm"}"#,
        r#"{"do":"graft-rm","target":7}"#,
        r#"{"do":"graft-rm","target":"relative"}"#,
        r#"{"do":"graft-rm","target":"/app/../.."}"#,
        r#"{"do":"graft-add","spec":{}}"#,
        r#"{"do":"graft-add","spec":{"target":"/","source":{"type":"tmpfs","size":null,"mode":null},"read_only":false,"cow":null,"cache":"coherent","shadow":"replace","pin":"name","ids":{"uids":[],"gids":[],"squash_uid":null,"squash_gid":null},"recursive":true,"text":"x"}}"#,
        "\u{0}\u{ff}",
        &"[".repeat(10_000),
        &long,
    ] {
        let answer = ask(&socket, request);
        assert!(answer.starts_with(r#"{"answer":"error","sentence":""#), "{request:.60}: {answer}");
    }
    // Bytes that are no text, and a line without an end.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"\xff\xfe\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("error"), "{line}");
    stream.write_all(br#"{"do":"graft-ls"}"#).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    line.clear();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), r#"{"answer":"grafts","grafts":[]}"#);
    // More than any request.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let part = vec![b' '; 1 << 16];
    let sent = (0..64).take_while(|_| stream.write_all(&part).is_ok()).count();
    let mut answer = Vec::new();
    // It may be closed before all of it was sent.
    let _ = stream.read_to_end(&mut answer);
    assert!(sent < 64 || answer.starts_with(b"{\"answer\":\"error\""), "{sent}");
    assert_eq!(ask(&socket, r#"{"do":"graft-ls"}"#), r#"{"answer":"grafts","grafts":[]}"#);
}

#[test]
fn callers_who_say_nothing_keep_nobody_else_out_for_ever() {
    let Some(mut f) = up() else { return };
    let socket = f.socket();
    let silent: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let answer = ask(&socket, r#"{"do":"graft-ls"}"#);
    assert!(answer.contains("try again later"), "{answer}");
    drop(silent);
    let free = || ask(&socket, r#"{"do":"graft-ls"}"#).contains("grafts");
    assert!(eventually(LIMIT, free));
    // They do not keep the mount from ending either.
    let _silent = UnixStream::connect(&socket).unwrap();
    f.unmount();
}

#[test]
fn grafts_are_listed_for_people_and_programs_and_in_the_record() {
    let Some(mut f) = up().and_then(Fixture::need_tmpfs) else { return };
    f.unmount();
    f.mount_with(&["-v", &format!("{}/one:/app:ro", f.dir().display())]);
    f.graft(&["add", "@", "--tmpfs", "/empty:size=1m", "-v", "./two:/new/place:O"]).ok();
    let table = f.graft(&["ls", "@"]).ok().out;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let (one, two) = (f.dir().join("one"), f.dir().join("two"));
    assert_eq!(rows[0], ["TARGET", "TYPE", "SOURCE", "MODE"]);
    assert_eq!(rows[1], ["/app", "bind", one.to_str().unwrap(), "ro"]);
    assert_eq!(rows[2], ["/empty", "tmpfs", "-", "rw"]);
    assert_eq!(rows[3], ["/new/place", "bind", two.to_str().unwrap(), "cow"]);
    let json = f.graft(&["ls", "--json", "@"]).ok().out;
    assert!(
        json.starts_with("[{") && json.contains(r#""target":"/app""#) && json.lines().count() == 1,
        "{json}"
    );
    let record = || {
        let socket = f.socket();
        let name = socket.file_name().unwrap().to_str().unwrap().replace("socket.", "grafts.");
        text(socket.with_file_name(name))
    };
    assert_eq!(record().lines().count(), 3);
    f.graft(&["rm", "@", "/empty"]).ok();
    assert_eq!(record().lines().filter(|line| line.contains("/empty")).count(), 0);
    f.graft(&["replace", "@", "-v", "./two:/app"]).ok();
    assert!(record().contains("two"));
    // Another mount takes over what is attached now.
    let mut other = Fixture::new(1).unwrap();
    other.lower(0).dir("app");
    other.mount_with(&["--volumes-from", f.p("").to_str().unwrap()]);
    assert_eq!(text(other.p("app/main.py")), "two");
    other.unmount();
    f.graft(&["rm", "@", "/app", "/new/place"]).ok();
    assert_eq!(record(), "");
}

#[test]
fn what_cannot_be_attached_changes_nothing() {
    let Some(f) = up() else { return };
    f.graft(&["add", "@", "-v", "./one:/app"]).ok();
    for (words, parts) in [
        (&["add", "@"][..], &["required"][..]),
        (&["add", "@", "-v", "relative"], &["relative"]),
        (&["add", "@", "-v", "./one:/"], &["'/'"]),
        (&["add", "@", "-v", "./one:/x:ro:more"], &["./one:/x:ro:more"]),
        (&["add", "@", "-v", "./one:/x", "-v", "./two:/x"], &["Duplicate mount point: /x"]),
        (&["add", "@", "-v", "./one:/app"], &["Duplicate mount point", "/app"]),
        (&["add", "@", "-v", "./nothing:/x"], &["does not exist", "nothing"]),
        (&["add", "@", "-v", "./one:/file"], &["/file", "not a directory"]),
        (&["add", "@", "-v", "./one/one:/empty"], &["/empty", "is a directory"]),
        (&["add", "@", "-v", "./one:/file/x"], &["/file/x", "no directory"]),
        (&["add", "@", "-v", "@/app:/x"], &["inside the mount itself"]),
        (&["add", "@", "-v", "~/mnt:/x"], &["inside the mount itself"]),
        (&["add", "@", "-v", "./two:/new", "-v", "./nothing:/x"], &["does not exist"]),
        (&["add", "@", "--tmpfs", "/x:size=much"], &["size"]),
        (&["add", "@", "--mount", "type=bind,source=./one,target=/x,what=1"], &["what"]),
        (&["rm", "@", "/nothing"], &["/nothing", "nothing is attached there"]),
        (&["rm", "@", "app"], &["'app'", "absolute"]),
        (&["rm", "@"], &["required"]),
        (&["replace", "@"], &["required"]),
        (&["ls", "~/one"], &["not a mountpoint"]),
        (&["add", "~/one", "-v", "./one:/x"], &["not a mountpoint"]),
    ] {
        let done = f.graft(words);
        assert!(matches!(done.code, Some(1 | 2)), "{words:?}: {done:?}");
        for part in parts {
            assert!(done.err.contains(part), "{words:?}: {part:?} is not in {:?}", done.err);
        }
        assert_eq!(f.graft(&["ls", "@"]).ok().out.lines().count(), 2, "{words:?} has changed something");
        assert_eq!(missing(f.p("x")), Errno::ENOENT, "{words:?}");
    }
    assert_eq!(names(f.p("")), ["app", "empty", "file"]);
    f.graft(&["rm", "@", "/app"]).ok();
}
