//! Changing what is attached inside a mount that is up: what shows before and after, what is refused, who is told.

use super::common::*;
use super::graft_control::up;

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
    f.graft(&["rm", "@", "/app"]).ok();
    assert_eq!(names(f.p("app")), ["main.py", "only"]);
    assert_eq!(text(f.p("app/main.py")), "layers");
    assert_eq!(missing(f.p("app/new")), Errno::ENOENT);
    assert!(!f.in_upper("app"));
}

/// The kernel keeps listings and absent names of layers for ever, and a listing makes no names known to it.
#[test]
fn what_the_kernel_has_cached_is_told() {
    let Some(f) = up().and_then(Fixture::need_tmpfs) else { return };
    let root = |f: &Fixture| names(f.p(""));
    assert_eq!(root(&f), ["app", "empty", "file"]);
    assert_eq!(root(&f), ["app", "empty", "file"]);
    assert_eq!(missing(f.p("new")), Errno::ENOENT);
    assert_eq!(missing(f.p("other/deep")), Errno::ENOENT);
    f.graft(&["add", "@", "-v", "./one:/new", "-v", "./two:/other/deep", "--tmpfs", "/empty/t"]).ok();
    assert_eq!(root(&f), ["app", "empty", "file", "new", "other"]);
    assert_eq!(
        (names(f.p("other")), names(f.p("other/deep"))),
        (vec!["deep".into()], names(f.dir().join("two")))
    );
    assert_eq!(text(f.p("new/main.py")), "one");
    assert_eq!(names(f.p("empty")), ["t"]);
    f.graft(&["rm", "@", "/new", "/other/deep", "/empty/t"]).ok();
    assert_eq!(root(&f), ["app", "empty", "file"]);
    assert_eq!((missing(f.p("new")), missing(f.p("other"))), (Errno::ENOENT, Errno::ENOENT));
    assert_eq!(names(f.p("empty")), [] as [&str; 0]);
    // Names that nobody has looked up: only the listing is cached.
    f.graft(&["add", "@", "-v", "./one:/never"]).ok();
    let mut listed = Dir::open(f.p("")).unwrap();
    let seen = |dir: &mut Dir| dir.rest().into_iter().filter(|e| e.name == "never").count();
    assert_eq!(seen(&mut listed), 1);
    f.graft(&["rm", "@", "/never"]).ok();
    listed.rewind();
    assert_eq!(seen(&mut listed), 0);
    assert!(!f.in_upper("empty") && !f.in_upper("other"));
}

#[test]
fn a_reader_of_a_directory_misses_and_repeats_nothing_that_stays() {
    let Some(f) = up() else { return };
    for i in 0..600 {
        fs::write(f.p(format!("app/f{i:03}")), "").unwrap();
    }
    let mut dir = Dir::open(f.p("app")).unwrap();
    let mut seen: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(entry) = dir.next() {
        seen.push(entry.name.to_string_lossy().into_owned());
        at += 1;
        match at {
            50 => drop(
                f.graft(&[
                    "add",
                    "@",
                    "-v",
                    "./one:/app/a",
                    "-v",
                    "./one/one:/app/f000",
                    "-v",
                    "./two:/app/z",
                ])
                .ok(),
            ),
            300 => drop(f.graft(&["rm", "@", "/app/a", "/app/f000"]).ok()),
            _ => {}
        }
    }
    let stayed: Vec<&String> = seen.iter().filter(|name| name.starts_with('f') && *name != "f000").collect();
    assert_eq!(stayed.len(), 599, "missed or repeated: {seen:?}");
    assert_eq!(stayed.iter().collect::<std::collections::BTreeSet<_>>().len(), 599);
    drop(dir);
    f.graft(&["rm", "@", "/app/z"]).ok();
}

#[test]
fn files_and_grafts_inside_grafts_come_and_go() {
    let Some(f) = up() else { return };
    f.graft(&["add", "@", "-v", "./one/one:/file", "-v", "./two:/app/sub", "-v", "./one:/app"]).ok();
    assert_eq!(text(f.p("file")), "one");
    assert_eq!(names(f.p("app")), ["main.py", "one", "sub"]);
    assert_eq!(text(f.p("app/sub/main.py")), "two");
    f.refuses(&["rm", "@", "/app"], &["/app", "busy", "/app/sub", "--lazy"]);
    f.refuses(&["replace", "@", "-v", "./two:/app"], &["/app", "busy", "/app/sub"]);
    f.graft(&["rm", "@", "/app/sub", "/app", "/file"]).ok();
    assert_eq!(
        (names(f.p("app")), text(f.p("file"))),
        (vec!["main.py".into(), "only".into()], "layers".into())
    );
    f.graft(&["add", "@", "-v", "./one:/app", "-v", "./two:/app/sub"]).ok();
    f.graft(&["rm", "--lazy", "@", "/app"]).ok();
    assert_eq!(f.graft(&["ls", "@"]).ok().out, "");
    assert_eq!(missing(f.p("app/sub")), Errno::ENOENT);
    assert!(!f.dir().join("one/sub").exists());
    // Below something that is there: it would hide that.
    f.graft(&["add", "@", "-v", "./two:/app/sub"]).ok();
    f.refuses(&["add", "@", "-v", "./one:/app"], &["/app", "attached below", "remove that first"]);
    f.graft(&["rm", "@", "/app/sub"]).ok();
}

#[test]
fn replace_puts_the_new_one_in_the_same_place() {
    let Some(f) = up() else { return };
    f.graft(&["add", "@", "-v", "./one:/app"]).ok();
    assert_eq!(
        (names(f.p("app")), text(f.p("app/main.py"))),
        (vec!["main.py".into(), "one".into()], "one".into())
    );
    f.graft(&["replace", "@", "-v", "./two:/app:ro"]).ok();
    assert_eq!(
        (names(f.p("app")), text(f.p("app/main.py"))),
        (vec!["main.py".into(), "two".into()], "two".into())
    );
    assert_eq!(err(fs::write(f.p("app/main.py"), "x")), Errno::EROFS);
    f.graft(&["replace", "@", "--mount", "type=bind,source=./one,target=/app"]).ok();
    fs::write(f.p("app/main.py"), "written").unwrap();
    assert_eq!(text(f.dir().join("one/main.py")), "written");
    f.refuses(&["replace", "@", "-v", "./one/one:/app"], &["/app", "file and a directory"]);
    f.refuses(&["replace", "@", "-v", "./one:/empty"], &["/empty", "nothing is attached there"]);
    f.graft(&["rm", "@", "/app"]).ok();
}

/// The process that holds, and what it says it holds.
fn held(f: &Fixture, script: &str) -> std::process::Child {
    let mut child = spawn(
        std::process::Command::new("sh")
            .args(["-c", &format!("{script}; echo; exec sleep 60")])
            .current_dir(f.p("app"))
            .stdout(std::process::Stdio::piped()),
    );
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    child
}

fn end(mut child: std::process::Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_is_in_use_is_refused_and_who_uses_it_is_named() {
    let Some(f) = up() else { return };
    f.graft(&["add", "@", "-v", "./one:/app"]).ok();
    let pid = std::process::id().to_string();
    let busy = |parts: &[&str]| {
        f.refuses(&["rm", "@", "/app"], &[&["/app", "busy", "--lazy"], parts].concat());
        f.refuses(&["replace", "@", "-v", "./two:/app"], &[&["busy"], parts].concat());
    };
    let file = ro(f.p("app/main.py"));
    busy(&[&pid, "open", "main.py"]);
    let map = Map::shared(&file, 3);
    drop(file);
    busy(&[&pid, "mapped", "main.py"]);
    drop(map);
    let dir = Dir::open(f.p("app")).unwrap();
    busy(&[&pid, "open"]);
    drop(dir);
    let child = held(&f, ":");
    busy(&[&child.id().to_string(), "stands in it", "(s"]);
    end(child);
    let child = held(&f, "exec 3<main.py; cd /");
    busy(&[&child.id().to_string(), "open"]);
    end(child);
    f.graft(&["rm", "@", "/app"]).ok();
    assert_eq!(text(f.p("app/main.py")), "layers");
}

#[test]
fn lazily_removed_what_is_open_stays_usable() {
    let Some(f) = up() else { return };
    f.graft(&["add", "@", "-v", "./one:/app"]).ok();
    let file = rw(f.p("app/main.py"));
    let map = Map::writable(&file, 3);
    let mut dir = Dir::open(f.p("app")).unwrap();
    let child = held(&f, ":");
    f.graft(&["rm", "--lazy", "@", "/app"]).ok();
    assert_eq!(text(f.p("app/main.py")), "layers");
    assert_eq!(through(&file), b"one");
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(text(f.dir().join("one/main.py")), "abc");
    map.put(0, b"x");
    map.sync().unwrap();
    assert_eq!(text(f.dir().join("one/main.py")), "xbc");
    file.set_len(10).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    assert_eq!(dir.rest().len(), 4, "with the two dots");
    let cwd = std::path::PathBuf::from(format!("/proc/{}/cwd", child.id()));
    assert_eq!(text(cwd.join("one")), "one");
    fs::write(cwd.join("made"), "in it").unwrap();
    assert_eq!(text(f.dir().join("one/made")), "in it");
    assert_eq!(missing(f.p("app/made")), Errno::ENOENT);
    // The same source again, beside those who still have the old one.
    f.graft(&["add", "@", "-v", "./one:/app"]).ok();
    assert_eq!(text(f.p("app/made")), "in it");
    f.graft(&["replace", "--lazy", "@", "-v", "./two:/app"]).ok();
    assert_eq!((text(f.p("app/main.py")), text(cwd.join("one"))), ("two".into(), "one".into()));
    end(child);
    drop((file, map, dir));
    f.graft(&["rm", "@", "/app"]).ok();
}

#[test]
fn open_files_and_memory_are_back_after_many_changes() {
    let Some(f) = up() else { return };
    let pid = f.daemon();
    let count = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let resident = || {
        let text = text(format!("/proc/{pid}/status"));
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let socket = f.socket();
    let spec = |target: &str| {
        format!(
            r#"{{"target":"{target}","source":{{"type":"bind","path":"{}","create":null}},"read_only":false,"cow":null,"cache":"coherent","shadow":"replace","pin":"name","ids":{{"uids":[],"gids":[],"squash_uid":null,"squash_gid":null}},"recursive":true,"text":""}}"#,
            f.dir().join("one").display()
        )
    };
    let round = |round: u32| {
        for target in ["/app", "/deep/er"] {
            let done = super::graft_control::ask(
                &socket,
                &format!(r#"{{"do":"graft-add","spec":{}}}"#, spec(target)),
            );
            assert_eq!(done, r#"{"answer":"done"}"#);
            // Whether it is mapped takes long to find out, once it was read.
            if round % 10 == 0 {
                let _ = text(f.p(&target[1..]).join("main.py"));
            }
        }
        for target in ["/app", "/deep/er"] {
            let request = format!(r#"{{"do":"graft-rm","target":"{target}"}}"#);
            no_copies();
            let done = super::graft_control::ask(&socket, &request);
            assert_eq!(done, r#"{"answer":"done"}"#);
        }
    };
    (0..50).for_each(round);
    let (files, memory) = (count(), resident());
    (0..450).for_each(round);
    let back = || count() <= files && resident() < memory + 2048;
    assert!(eventually(LIMIT, back), "{} of {files}, {} of {memory} KiB", count(), resident());
}
