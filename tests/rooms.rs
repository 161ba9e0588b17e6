//! The rooms of the source: imports go down, never up; `fuser` and `unsafe` stay where they belong; files stay short.
//! `docs/architecture.md` has the map. Source is read as text: what a line says is what counts, not what it expands to.

use std::path::{Path, PathBuf};

/// The rooms, from the top down. A room may import from those below it, and from itself.
const ORDER: [&str; 13] = [
    "main", "cli", "control", "fuse", "overlay", "copy_up", "inode", "layer", "volume", "graft", "sys",
    "merge", "error",
];

/// The lock types: std and parking_lot below, so every room may have them.
const LOCKS: &str = "sync";

/// Plain data: what a mount is made of, checked and without methods that do anything. It stands beside `cli`, and
/// rooms below may read it.
const CONFIG: &str = "config";

/// Imports beyond the order, each with its reason.
const ALLOWED: [(&str, &str, &str); 8] = [
    ("fuse", CONFIG, "the session is made from the configuration"),
    (
        "overlay",
        CONFIG,
        "operations ask for the choices of the mount: id maps, fsync, where permissions are kept",
    ),
    ("copy_up", CONFIG, "copy-up asks when to sync"),
    ("layer", CONFIG, "layers are opened as the configuration names them"),
    (CONFIG, "graft", "a mount is made of grafts too"),
    ("graft", CONFIG, "a graft has id maps as the mount has"),
    ("volume", CONFIG, "a volume is opened as the configuration says"),
    (CONFIG, "error", "what makes no sense is refused in the words of `error::Error::Setup`"),
];

/// Longer files, each with its reason.
const LONG: [(&str, usize, &str); 1] =
    [("tests/common/mod.rs", 650, "the harness of all tests that mount: read from the top, in one piece")];
const LINES: usize = 500;

/// A source file, by its path from the top of the package.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// `src/layer/probe.rs` is in `layer`, `src/error.rs` in `error`.
    fn room(&self) -> &str {
        let inside = self.path.trim_start_matches("src/");
        inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
    }

    /// The lines that are no comments, by number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        lines.filter(|(_, line)| !line.starts_with("//"))
    }
}

fn sources(top: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = vec![root.join(top)];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(dir) = dirs.pop() {
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| unreachable!("{}: {e}", dir.display()));
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| unreachable!("{}: {e}", path.display()));
        let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        Source { path, text }
    };
    found.into_iter().map(read).collect()
}

/// The rooms that a line names by `crate::room`, also in `use crate::{a, b}`.
fn rooms_named(line: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for part in line.split("crate::").skip(1) {
        let word =
            |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        match part.strip_prefix('{') {
            Some(list) => {
                // First words at the outermost level of the braces.
                let mut depth = 0;
                let mut start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && c.is_alphanumeric() => {
                            rooms.push(&list[at..at + word(&list[at..])]);
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => rooms.push(&part[..word(part)]),
        }
    }
    rooms
}

/// Why `room` may not import `other`; nothing if it may.
fn climb(room: &str, other: &str) -> Option<&'static str> {
    if room == other || other == LOCKS || ALLOWED.iter().any(|(from, to, _)| (*from, *to) == (room, other)) {
        return None;
    }
    let level = |name: &str| ORDER.iter().position(|room| *room == name);
    // Beside `cli`: it imports what `cli` does not hold, and is imported by what is above.
    let (from, to) = match (room, other) {
        ("main" | "cli", CONFIG) => return None,
        (CONFIG, _) => return Some("config is plain data and knows errors only"),
        (_, CONFIG) => {
            return Some("config is read by fuse, overlay, copy_up and layer; tell this room what it needs");
        }
        (room, other) => (level(room), level(other)),
    };
    match (from, to) {
        (Some(from), Some(to)) if from < to => None,
        (Some(_), Some(_)) => Some("it climbs"),
        _ => Some("no such room in the table of tests/rooms.rs"),
    }
}

#[test]
fn imports_go_down() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.path != "src/lib.rs") {
        for (at, line) in source.code() {
            for other in rooms_named(line) {
                if let Some(why) = climb(source.room(), other) {
                    wrong.push(format!("{}:{at}: {} imports {other}: {why}", source.path, source.room()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The wall knows no rules: of `merge` it borrows one word, the type of an object.
#[test]
fn the_wall_borrows_one_word() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.room() == "sys") {
        let more =
            |line: &str| line.contains("crate::merge") && !line.contains("crate::merge::listing::FileKind");
        wrong.extend(
            source.code().filter(|(_, line)| more(line)).map(|(at, _)| format!("{}:{at}", source.path)),
        );
    }
    assert!(wrong.is_empty(), "sys imports more of merge than FileKind: {}", wrong.join(", "));
}

#[test]
fn fuser_stays_in_its_room() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.room() != "fuse") {
        let names = |line: &str| line.contains("fuser::") || line.contains("use fuser");
        wrong.extend(
            source.code().filter(|(_, line)| names(line)).map(|(at, _)| format!("{}:{at}", source.path)),
        );
    }
    assert!(wrong.is_empty(), "fuser is named outside src/fuse: {}", wrong.join(", "));
}

#[test]
fn unsafe_stays_behind_the_wall() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.room() != "sys") {
        let words = |line: &str| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|w| w == "unsafe" || w == "unsafe_code")
        };
        wrong.extend(
            source.code().filter(|(_, line)| words(line)).map(|(at, _)| format!("{}:{at}", source.path)),
        );
    }
    assert!(wrong.is_empty(), "unsafe outside src/sys: {}", wrong.join(", "));
}

/// An error that nobody hears of has a comment above it that says why it does no harm. This is what clippy's
/// `let_underscore_must_use` would forbid altogether.
#[test]
fn dropped_errors_say_why() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| !source.path.ends_with("tests.rs")) {
        let mut above = "";
        for (at, line) in source.text.lines().map(str::trim).enumerate() {
            if line.starts_with("#[cfg(test)]") {
                break;
            }
            if line.starts_with("let _ = ") {
                if !above.starts_with("//") {
                    wrong.push(format!("{}:{}", source.path, at + 1));
                }
                // One comment may be for several.
                continue;
            }
            above = line;
        }
    }
    assert!(wrong.is_empty(), "`let _ =` without a word: {}", wrong.join(", "));
}

#[test]
fn files_stay_short() {
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let lines = source.text.lines().count();
        let limit = LONG.iter().find(|(path, ..)| *path == source.path).map_or(LINES, |(_, limit, _)| *limit);
        if lines > limit {
            wrong.push(format!("{} has {lines} lines, and {limit} are enough", source.path));
        }
        if limit > LINES && lines <= LINES {
            wrong.push(format!("{} is no long file any more: take it out of the table", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_says_what_climbs() {
    for (room, other) in
        [("overlay", "layer"), ("fuse", "overlay"), ("layer", "merge"), ("inode", "sync"), ("sys", "merge")]
    {
        assert_eq!(climb(room, other), None, "{room} {other}");
    }
    for (room, other) in [
        ("layer", "overlay"),
        ("merge", "sys"),
        ("overlay", "fuse"),
        ("merge", "config"),
        ("error", "merge"),
        ("cli", "attic"),
    ] {
        assert!(climb(room, other).is_some(), "{room} {other}");
    }
    assert_eq!(rooms_named("use crate::{error::{Error, Result}, sys};"), ["error", "sys"]);
    assert_eq!(rooms_named("f(crate::sys::stat::x, crate::merge::y)"), ["sys", "merge"]);
}

/// A program is started by `sys::program` alone, which searches none.
#[test]
fn programs_start_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.path != "src/sys/program.rs") {
        // Tests come last, as a module of their own; an item for tests may stand before them.
        let lines: Vec<&str> = source.text.lines().collect();
        let begins = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {");
        let tests = lines.windows(2).position(begins).unwrap_or(usize::MAX);
        let starts = |line: &str| {
            let words = ["Command::new(", "execv", "execve", "posix_spawn", "libc::system("];
            words.iter().any(|word| line.contains(word)) && !line.contains("clap::Command::new(")
        };
        let lines = source.code().take_while(|(at, _)| *at <= tests);
        wrong.extend(lines.filter(|(_, line)| starts(line)).map(|(at, _)| format!("{}:{at}", source.path)));
    }
    assert!(wrong.is_empty(), "a program is started outside src/sys/program.rs: {}", wrong.join(", "));
}

/// The tests of mounts start programs where no other test has copies of open files meanwhile.
#[test]
fn tests_of_mounts_start_programs_through_one_door() {
    let mut wrong = Vec::new();
    for source in sources("tests/mount").iter().chain(&sources("tests/common")) {
        let starts = |line: &str| [".spawn()", ".output()"].iter().any(|word| line.contains(word));
        let lines = source.code().filter(|(_, line)| starts(line) && !line.contains("forking(||"));
        wrong.extend(lines.map(|(at, _)| format!("{}:{at}", source.path)));
    }
    assert!(wrong.is_empty(), "start it by `run`, `spawn` or `try_spawn`: {}", wrong.join(", "));
}
