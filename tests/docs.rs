//! The papers do what they say. Every block of a paper that is marked `sh` is run as it stands, one paper after the
//! other in a shell and a directory of its own; where a `text` block follows, it is what the commands print.
//!
//! In a `text` block a line `...` stands for any lines, and `...` within a line for any characters. The commands are
//! shown as root sees them, so the run needs root and /dev/fuse; without them it ends at once and says so, or fails
//! where `STRATAFS_REQUIRE_FUSE=1`. Every paper runs in a mount namespace, where the program is in /usr/local/bin.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The papers with commands, and where the program is.
const PAPERS: [&str; 8] = [
    "README.md",
    "docs/architecture.md",
    "docs/on-disk-format.md",
    "docs/reliability.md",
    "docs/semantics.md",
    "docs/tutorial.md",
    "docs/volumes.md",
    "docs/volumes-tutorial.md",
];
const PROGRAM: &str = env!("CARGO_BIN_EXE_stratafs");
/// The paper whose first commands make a machine ready: these are run by `.ci/run`, not here.
const README: &str = "README.md";

/// Goes before the commands of a paper. `$1` is where their output goes, `$2` the directory with the program.
const BEFORE: &str = r#"
set -eu
out=$1 top=$PWD
exec >"$out/before" 2>&1
# A copy of a mount of somebody else's would keep its daemon alive.
program=$(readlink -f "$2/stratafs")
awk '$3 ~ /^fuse[.]/ { print $2 }' /proc/self/mounts | while read -r at; do
    case "$top:$program" in "$at"/* | *:"$at"/*) ;; *) umount -l "$at" || : ;; esac
done
mount --bind "$2" /usr/local/bin
PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
ours() { awk -v top="$top/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | sort -r; }
trap 'ours | while read -r at; do stratafs umount --lazy "$at" 2>/dev/null || umount -l "$at"; done' EXIT
trap 'exit 143' TERM
set --
"#;
/// Goes after them: a paper leaves no mount.
const AFTER: &str = "\nexec >\"$out/left\"\nours\n";

/// Commands that stand together, and what they are said to print.
#[derive(Debug)]
struct Block {
    /// The line of the paper where the commands begin.
    line: usize,
    commands: String,
    prints: Option<String>,
}

fn paper(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| unreachable!("{}: {e}", path.display()))
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    // Only blank lines may stand between commands and what they print.
    let mut adjacent = false;
    while let Some((at, line)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            adjacent &= line.is_empty();
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let body: String = inside.map(|line| format!("{line}\n")).collect();
        match (kind, blocks.last_mut()) {
            ("sh", _) => blocks.push(Block { line: at + 2, commands: body, prints: None }),
            ("text", Some(block)) if adjacent => block.prints = Some(body),
            _ => {}
        }
        adjacent = kind == "sh";
    }
    blocks
}

/// Whether `printed` is what `pattern` says.
fn agrees(pattern: &[&str], printed: &[&str]) -> bool {
    match pattern.split_first() {
        None => printed.is_empty(),
        Some((&"...", rest)) => (0..=printed.len()).any(|skipped| agrees(rest, &printed[skipped..])),
        Some((line, rest)) => {
            printed.first().is_some_and(|first| line_agrees(line, first)) && agrees(rest, &printed[1..])
        }
    }
}

fn line_agrees(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Why the commands cannot be run here.
fn obstacle() -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        // No fault of the machine: the run as root has them.
        println!("skipped: the papers show what root sees");
        return None;
    }
    for tool in ["unshare", "getfattr", "setfattr", "mount.fuse3"] {
        if !succeeds(Command::new("sh").args(["-c", &format!("command -v {tool}")])) {
            return Some(format!("no {tool}"));
        }
    }
    let namespace = succeeds(Command::new("unshare").args(["-m", "--propagation", "private", "true"]));
    (!namespace).then(|| "no mount namespaces".to_owned())
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs the blocks of one paper in one shell; says what is not as it is said to be.
fn run(name: &str, blocks: &[Block]) -> Result<(), String> {
    let temporary = tempfile::TempDir::new().map_err(|e| e.to_string())?;
    let made = |what: &str| -> PathBuf {
        let dir = temporary.path().join(what);
        std::fs::create_dir(&dir).unwrap_or_else(|e| unreachable!("{}: {e}", dir.display()));
        dir
    };
    let (here, out, bin) = (made("here"), made("out"), made("bin"));
    symlink(PROGRAM, bin.join("stratafs")).map_err(|e| e.to_string())?;
    let mut script = BEFORE.to_owned();
    for (i, block) in blocks.iter().enumerate() {
        script += &format!("exec >\"$out/{i}\" 2>&1\n{}", block.commands);
    }
    script += AFTER;
    let ended = Command::new("timeout")
        .args([
            "--kill-after=10",
            "120",
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .args([&out, &bin])
        .current_dir(&here)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("TMPDIR", &here)
        .env_remove("STRATAFS_LOG")
        .stdin(Stdio::null())
        .status()
        .map_err(|e| e.to_string())?;
    let printed = |what: &str| std::fs::read_to_string(out.join(what)).ok();
    let mut wrong = String::new();
    for (i, block) in blocks.iter().enumerate() {
        let Some(got) = printed(&i.to_string()) else { break };
        // The last block that has printed is the one that failed.
        let failed = !ended.success() && printed(&(i + 1).to_string()).is_none();
        let differs = block.prints.as_ref().is_some_and(|said| {
            let (said, got): (Vec<&str>, Vec<&str>) = (said.lines().collect(), got.lines().collect());
            !agrees(&said, &got)
        });
        if failed || differs {
            let said = block.prints.as_deref().unwrap_or("(nothing is said)\n");
            let how = if failed { format!(", {ended}") } else { String::new() };
            wrong += &format!(
                "{name}:{}{how}\n{}-- is said to print\n{said}-- prints\n{got}\n",
                block.line, block.commands
            );
        }
    }
    match printed("left") {
        Some(left) if !left.is_empty() => wrong += &format!("{name}: still mounted at the end:\n{left}"),
        None if wrong.is_empty() => {
            let said = printed("before").unwrap_or_default();
            wrong += &format!("{name}: {ended} before the first command:\n{said}");
        }
        _ => {}
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// All papers in one test: they are short, and the machine's /dev/fuse is one.
#[test]
fn papers_do_what_they_say() {
    match obstacle() {
        Some(why) => {
            println!("skipped: {why}");
            assert_ne!(std::env::var("STRATAFS_REQUIRE_FUSE").as_deref(), Ok("1"), "{why}");
            return;
        }
        None if !nix::unistd::geteuid().is_root() => return,
        None => {}
    }
    let mut wrong = String::new();
    for name in PAPERS {
        let mut blocks = blocks(&paper(name));
        if name == README {
            blocks.remove(0);
        }
        if !blocks.is_empty() {
            wrong += &run(name, &blocks).err().unwrap_or_default();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The two commands of the README for a fresh machine are steps of `.ci/run`, letter for letter.
#[test]
fn the_first_commands_are_those_that_the_checks_run() {
    let blocks = blocks(&paper(README));
    let first: Vec<&str> = blocks.first().map(|block| block.commands.lines().collect()).unwrap_or_default();
    assert_eq!(first.len(), 2, "{first:?}");
    let ci = paper(".ci/run");
    let steps: Vec<&str> = ci.lines().filter_map(|line| line.strip_prefix("step ")).collect();
    for command in first {
        let command = command.split(" #").next().unwrap_or(command).trim_end();
        let is_step = |step: &&str| step.splitn(3, ' ').nth(2) == Some(command);
        assert!(steps.iter().any(is_step), "`{command}` is no step of .ci/run");
    }
}

/// The compose files of the tutorial are those that the tests mount.
#[test]
fn the_tutorial_has_the_compose_files_of_the_tests() {
    let tutorial = paper("docs/volumes-tutorial.md");
    for name in ["wide.yml", "right.yml", "nfs.yml"] {
        let file = paper(&format!("tests/data/compose/{name}"));
        assert!(tutorial.contains(&format!("<<'END'\n{file}END\n")), "{name}");
    }
}

/// Every test that `docs/semantics.md` names exists, and every section names one.
#[test]
fn promises_name_tests_that_exist() {
    let mut tests = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for dir in [
        "tests",
        "tests/mount",
        "tests/format",
        "tests/crash",
        "src",
        "src/merge",
        "src/overlay",
        "src/config",
        "src/fuse",
        "src/sys",
    ] {
        let entries = std::fs::read_dir(root.join(dir)).unwrap_or_else(|e| unreachable!("{dir}: {e}"));
        let sources =
            entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "rs"));
        for source in sources {
            tests += &std::fs::read_to_string(&source).unwrap_or_else(|e| unreachable!("{source:?}: {e}"));
        }
    }
    let text = paper("docs/semantics.md");
    let mut missing = Vec::new();
    for section in text.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap_or_default();
        let body = section.split("\n## ").next().unwrap_or_default();
        let named: Vec<&str> = body
            .lines()
            .filter_map(|line| line.strip_prefix("Test: "))
            .flat_map(|line| line.split('`').skip(1).step_by(2))
            .collect();
        if named.is_empty() {
            missing.push(format!("\"{heading}\" names no test"));
        }
        let unknown = named.into_iter().filter(|path| {
            let name = path.rsplit("::").next().unwrap_or(path);
            !tests.contains(&format!("fn {name}("))
        });
        missing.extend(unknown.map(|name| format!("\"{heading}\" names `{name}`, which is no test")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn dots_stand_for_anything() {
    let agrees = |pattern: &str, text: &str| {
        agrees(&pattern.lines().collect::<Vec<_>>(), &text.lines().collect::<Vec<_>>())
    };
    for (pattern, text) in [
        ("a\nb", "a\nb"),
        ("a\n...\nb", "a\nb"),
        ("a\n...\nb", "a\nx\ny\nb"),
        ("...", ""),
        ("a...c", "abc"),
        ("a...c...", "abcd"),
        ("...b...d", "abccd"),
    ] {
        assert!(agrees(pattern, text), "{pattern:?} {text:?}");
    }
    for (pattern, text) in
        [("a", ""), ("", "a"), ("a...c", "abd"), ("a\n...", "b"), ("a", "a\nb"), ("a...b...c", "ac")]
    {
        assert!(!agrees(pattern, text), "{pattern:?} {text:?}");
    }
}

#[test]
fn only_output_right_after_commands_belongs_to_them() {
    let found = blocks("```sh\na\n```\n\n```text\nA\n```\n```sh\nb\n```\nwords\n```text\nB\n```\n");
    let shown: Vec<_> = found.iter().map(|b| (b.line, b.commands.as_str(), b.prints.as_deref())).collect();
    assert_eq!(shown, [(2, "a\n", Some("A\n")), (9, "b\n", None)]);
}
