//! Every change of the disk that an operation makes fails once, with each errno: the tree is wholly as before or wholly as
//! after, the caller hears the errno, and a new mount shows the same. The same with a power cut instead of a failure.
//!
//! Times of directories are not looked at: putting them back is a help that comes after the visible step.
//! `STRATAFS_FAULTS=all` tries every errno at every change; otherwise they take turns.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::fault_ops::OPERATIONS;
use crate::config::{Config, FsyncMode, Upper};
use crate::error::Result;
use crate::inode::Ino;
use crate::merge::listing::FileKind;
use crate::overlay::{Caller, Overlay};
use crate::sys::attr::{self, SetTime};
use crate::sys::fault;
use crate::sys::stat::Timestamp;

pub(super) const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0o022, pid: 1 };
const ERRNOS: [Errno; 4] = [Errno::ENOSPC, Errno::EIO, Errno::EDQUOT, Errno::EINTR];
/// Times from here on are of the run.
const BEGUN: i64 = 1_500_000_000;
const BEFORE: i64 = 1_000_000_000;

/// What an operation is called, and what it does on a tree as `layers` makes it.
pub(super) type Operation = (&'static str, fn(&Overlay) -> Result<()>);

/// The choices of a mount that operations ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    metacopy: bool,
    index: bool,
    fsync: FsyncMode,
}

const DEFAULT: Terms = Terms { metacopy: false, index: true, fsync: FsyncMode::Auto };

/// How the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// One change fails. Then the mount is made anew.
    Once(Errno),
    /// One change fails. Then the operation is tried again.
    Retried(Errno),
    /// Everything fails from here on.
    PowerCut,
}

/// Path to what is shown there, in words.
type View = BTreeMap<String, String>;

struct Tree {
    top: tempfile::TempDir,
    terms: Terms,
}

impl Tree {
    /// Layers with something of each kind, an upper one among them that was changed before.
    fn new(terms: Terms) -> Tree {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let tree = Tree { top: tempfile::tempdir_in(base).expect("a directory"), terms };
        layers(tree.top.path());
        let first = tree.overlay();
        for (name, operation) in super::fault_ops::BEFORE {
            operation(&first).unwrap_or_else(|e| unreachable!("{name}: {e}"));
        }
        drop(first);
        for layer in ["lower1", "lower2", "upper", "work/index"].map(|layer| tree.top.path().join(layer)) {
            if layer.is_dir() {
                age(&layer);
            }
        }
        tree
    }

    fn overlay(&self) -> Overlay {
        let at = |name: &str| self.top.path().join(name);
        let upper = Upper { dir: at("upper"), work: at("work") };
        let mut config = Config::new(vec![at("lower1"), at("lower2")], Some(upper), at("mnt"));
        config.marks.metacopy = self.terms.metacopy;
        config.marks.index = self.terms.index;
        config.fsync = self.terms.fsync;
        Overlay::new(&config, 256).unwrap_or_else(|e| unreachable!("{e}"))
    }

    /// What is left of preparations. The shared whiteout goes with the mount.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.top.path().join("work/work")).expect("workdir").flatten();
        names.map(|name| name.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Two lower layers.
fn layers(top: &Path) {
    for dir in
        ["upper", "work", "lower1/d/sub", "lower2/d/sub", "lower1/only", "lower1/empty", "lower2/gone_dir"]
            .into_iter()
            .chain(["lower1/moved", "lower1/p/q/r", "lower2/marks", "lower2/emptied", "lower2/other/inner"])
    {
        fs::create_dir_all(top.join(dir)).expect("mkdir");
    }
    for file in ["lower1/file", "lower1/d/x", "lower2/d/y", "lower2/gone", "lower2/d/sub/z", "lower1/only/o"]
        .into_iter()
        .chain([
            "lower1/copied",
            "lower2/marks/m",
            "lower2/emptied/e",
            "lower2/second",
            "lower1/p/q/r/deep",
            "lower2/changed",
        ])
    {
        fs::write(top.join(file), file.repeat(20)).expect("write");
    }
    fs::write(top.join("lower1/big"), vec![b'b'; 70_000]).expect("write");
    symlink("file", top.join("lower1/link")).expect("symlink");
    nix::unistd::mkfifo(&top.join("lower1/fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .expect("fifo");
    for (first, other) in [("h1", "d/h2"), ("k1", "k2"), ("i1", "i2")] {
        fs::write(top.join("lower1").join(first), first.repeat(30)).expect("write");
        fs::hard_link(top.join("lower1").join(first), top.join("lower1").join(other)).expect("link");
    }
    ["lower1", "lower2", "upper"].iter().for_each(|layer| set_modes(&top.join(layer)));
    let at = crate::sys::At::new;
    let dir = fs::File::open(top.join("lower1")).expect("open");
    use std::os::fd::AsFd;
    let file = at(dir.as_fd(), OsStr::new("file"));
    crate::sys::xattr::set(file, c"user.note", b"lower", crate::sys::xattr::SetMode::Any).expect("xattr");
}

/// Gives everything below `path` a mode: that of the process's making depends on what other tests do.
fn set_modes(path: &Path) {
    let kind = fs::symlink_metadata(path).expect("stat").file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path).expect("read_dir") {
            set_modes(&entry.expect("entry").path());
        }
    }
    if !kind.is_symlink() {
        let mode = if kind.is_dir() { 0o755 } else { 0o640 };
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    }
}

/// Gives everything below `path` the time before the run.
pub(super) fn age(path: &Path) {
    if fs::symlink_metadata(path).expect("stat").is_dir() {
        for entry in fs::read_dir(path).expect("read_dir") {
            age(&entry.expect("entry").path());
        }
    }
    use std::os::fd::AsFd;
    let (parent, name) = (path.parent().expect("parent"), path.file_name().expect("name"));
    let dir = fs::File::open(parent).expect("open");
    let time = SetTime::To(Timestamp { secs: BEFORE, nanos: 7 });
    attr::utimens(crate::sys::At::new(dir.as_fd(), name), time, time).expect("utimens");
}

/// Looks at everything. With `hold`, each object stays known, as to a kernel that has looked.
fn view(overlay: &Overlay, hold: bool) -> View {
    let mut view = View::new();
    let mut same: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut todo = vec![(Ino::ROOT, String::new())];
    while let Some((dir, path)) = todo.pop() {
        for name in names(overlay, dir) {
            let at = format!("{path}/{name}");
            let found =
                overlay.lookup(dir, OsStr::new(&name)).unwrap_or_else(|e| unreachable!("{at}: {e}")).0;
            let Some(entry) = found else {
                view.insert(at, "listed, but not there".to_owned());
                continue;
            };
            let attr = overlay.getattr(entry.inode.ino).unwrap_or_else(|e| unreachable!("{at}: {e}"));
            if attr.stat.kind == FileKind::Dir {
                todo.push((entry.inode.ino, at.clone()));
            } else {
                same.entry(attr.stat.ino).or_default().push(at.clone());
            }
            view.insert(at, object(overlay, entry.inode.ino));
            if hold || attr.stat.kind == FileKind::Dir {
                drop(entry.inode.leak());
            }
        }
    }
    // Without an index, names whose link is broken have one number until the mount ends.
    let kept = overlay.stack().indexes(FileKind::Regular);
    for paths in same.into_values().filter(|paths| kept && paths.len() > 1) {
        view.insert(format!("same {}", paths.join(" ")), String::new());
    }
    view
}

/// The names of a directory, sorted.
fn names(overlay: &Overlay, dir: Ino) -> Vec<String> {
    let fh = overlay.opendir(dir).expect("opendir");
    let mut names = Vec::new();
    let mut at = 0;
    loop {
        let before = names.len();
        let read = overlay.readdir(fh, at, |entry| {
            names.push(entry.name.to_string_lossy().into_owned());
            at = entry.next;
            false
        });
        read.expect("readdir");
        if names.len() == before {
            break;
        }
    }
    overlay.releasedir(fh);
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

/// What can be seen of one object, in words.
fn object(overlay: &Overlay, ino: Ino) -> String {
    let stat = overlay.getattr(ino).expect("getattr").stat;
    let mut words = format!("{:o} {}:{}", stat.mode, stat.uid, stat.gid);
    if stat.kind != FileKind::Dir {
        let mtime = if stat.mtime.secs >= BEGUN { "now".to_owned() } else { format!("{:?}", stat.mtime) };
        // Without an index, copy-up breaks a link.
        let links = if overlay.stack().indexes(stat.kind) { stat.nlink } else { 0 };
        words += &format!(
            " links {links} size {} {mtime} rdev {}:{}",
            stat.size, stat.rdev_major, stat.rdev_minor
        );
    }
    for name in
        overlay.listxattr(CALLER, ino).expect("listxattr").split(|b| *b == 0).filter(|n| !n.is_empty())
    {
        use std::os::unix::ffi::OsStrExt;
        let mut value = [0; 256];
        let len = overlay.getxattr(ino, OsStr::from_bytes(name), &mut value).expect("getxattr");
        words += &format!(" {}={}", name.escape_ascii(), value[..len].escape_ascii());
    }
    match stat.kind {
        FileKind::Symlink => words += &format!(" {:?}", overlay.readlink(ino).expect("readlink")),
        FileKind::Regular => {
            let fh = overlay.open(CALLER, ino, OFlag::O_RDONLY).expect("open").fh;
            let mut bytes = vec![0; stat.size as usize];
            let got = overlay.read(fh, 0, &mut bytes).expect("read");
            overlay.release(fh);
            let sum = bytes[..got]
                .iter()
                .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            words += &format!(" {got} bytes {sum:x}");
        }
        _ => {}
    }
    words
}

/// What two views differ in.
fn differences(one: &View, other: &View) -> String {
    let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differs = |key: &&&String| one.get(**key) != other.get(**key);
    let line = |key: &String| format!("\n  {key}: {:?} and {:?}", one.get(key), other.get(key));
    keys.iter().filter(differs).map(|key| line(key)).collect()
}

/// Carries the operation out with change number `passes` failing. Returns whether it came to that, or what is wrong.
fn fails_whole(
    terms: Terms,
    operation: Operation,
    passes: u64,
    how: Fault,
    (before, after): (&View, &View),
) -> std::result::Result<bool, String> {
    let tree = Tree::new(terms);
    let overlay = tree.overlay();
    agree("the beginning", before, &view(&overlay, true))?;
    let armed = match how {
        Fault::Once(errno) | Fault::Retried(errno) => fault::arm(passes, errno),
        Fault::PowerCut => fault::crash(passes),
    };
    let done = (operation.1)(&overlay);
    let fired = armed.fired();
    if let Fault::Once(errno) | Fault::Retried(errno) = how {
        drop(armed);
        let now = view(&overlay, false);
        // What could not be synced is there, and may be gone after a power cut: the caller must hear of it.
        let unsynced = terms.fsync == FsyncMode::Strict && done.is_err() && now == *after;
        match &done {
            Ok(()) => agree("it succeeded", after, &now)?,
            Err(error) if error.errno() != errno => return Err(format!("it failed otherwise: {error}")),
            Err(_) if unsynced => {}
            Err(_) => agree("it failed", before, &now)?,
        }
        if done.is_err() && !unsynced && matches!(how, Fault::Retried(_)) {
            (operation.1)(&overlay).map_err(|error| format!("tried again: {error}"))?;
            agree("tried again", after, &view(&overlay, false))?;
        }
        let live = view(&overlay, false);
        drop(overlay);
        agree("mounted again", &live, &view(&tree.overlay(), false))?;
    } else {
        // What would clean up at the end of a mount is cut off, too.
        drop(overlay);
        drop(armed);
    }
    let again = tree.overlay();
    let now = view(&again, false);
    let timeless = how == Fault::PowerCut && operation.0.ends_with(DATA_BELOW);
    let leveled = |view: &View| if timeless { without_times(view) } else { view.clone() };
    let now = leveled(&now);
    let lacks = agree("not before", &leveled(before), &now);
    let too_much = agree("not after", &leveled(after), &now);
    if let (Err(lacks), Err(too_much)) = (lacks, too_much) {
        return Err(format!("{done:?}, mounted again: {lacks}\n{too_much}"));
    }
    drop(again);
    let left = tree.left();
    if left.is_empty() { Ok(fired) } else { Err(format!("left in the workdir: {left:?}")) }
}

/// Data that comes up behind metadata is written into the file that shows: a power cut may leave the time of that.
const DATA_BELOW: &str = "whose data may be below";

fn without_times(view: &View) -> View {
    let old = format!("{:?}", Timestamp { secs: BEFORE, nanos: 7 });
    view.iter().map(|(path, words)| (path.clone(), words.replace(&old, "now"))).collect()
}

/// Errors: what the two views differ in.
fn agree(when: &str, wanted: &View, found: &View) -> std::result::Result<(), String> {
    let lines = differences(wanted, found);
    if lines.is_empty() { Ok(()) } else { Err(format!("{when}, wanted and found:{lines}")) }
}

/// What the operation changes when nothing fails.
fn wanted(terms: Terms, (name, operation): Operation) -> (View, View) {
    let tree = Tree::new(terms);
    let overlay = tree.overlay();
    let before = view(&overlay, true);
    operation(&overlay).unwrap_or_else(|e| unreachable!("{name}: {e}"));
    let after = view(&overlay, false);
    drop(overlay);
    assert_eq!(differences(&after, &view(&tree.overlay(), false)), "", "{name}: mounted again");
    (before, after)
}

/// Every operation whose number leaves `rest` on division by two, so that tests run side by side.
fn every_change(terms: Terms, rest: usize) {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for (number, operation) in OPERATIONS.iter().enumerate().filter(|(number, _)| number % 2 == rest) {
        let (before, after) = wanted(terms, *operation);
        let mut passes = 0;
        loop {
            let mut fired = false;
            for how in faults(terms, number + passes as usize) {
                cases += 1;
                match fails_whole(terms, *operation, passes, how, (&before, &after)) {
                    Ok(came) => fired |= came,
                    Err(what) => {
                        fired = true;
                        wrong.push(format!("{}, change {passes}, {how:?}: {what}\n", operation.0));
                    }
                }
            }
            if !fired || passes == 100 {
                break;
            }
            passes += 1;
        }
        assert!(passes > 0, "{}: nothing was changed", operation.0);
    }
    println!("{terms:?}: {cases} cases");
    assert!(wrong.is_empty(), "{terms:?}: {} wrong\n{}", wrong.len(), wrong.concat());
}

/// How the disk fails at one change: in each way, or in the one whose turn it is.
fn faults(terms: Terms, turn: usize) -> Vec<Fault> {
    let all = std::env::var_os("STRATAFS_FAULTS").is_some_and(|value| value == "all");
    let errnos = if all { ERRNOS.to_vec() } else { vec![ERRNOS[turn % 4]] };
    let both = |errno| [Fault::Once(errno), Fault::Retried(errno)];
    let ways: Vec<Fault> =
        std::iter::once(Fault::PowerCut).chain(errnos.into_iter().flat_map(both)).collect();
    if all || terms == DEFAULT { ways } else { vec![ways[turn % 3]] }
}

#[test]
fn a_failing_change_leaves_the_tree_before_or_after() {
    every_change(DEFAULT, 0);
}

#[test]
fn a_failing_change_leaves_the_other_trees_before_or_after() {
    every_change(DEFAULT, 1);
}

#[test]
fn a_failing_change_with_metacopy_leaves_the_tree_before_or_after() {
    let terms = Terms { metacopy: true, ..DEFAULT };
    (0..2).for_each(|rest| every_change(terms, rest));
}

#[test]
fn a_failing_change_without_index_leaves_the_tree_before_or_after() {
    let terms = Terms { index: false, ..DEFAULT };
    (0..2).for_each(|rest| every_change(terms, rest));
}

#[test]
fn a_failing_change_with_strict_syncing_leaves_the_tree_before_or_after() {
    let terms = Terms { fsync: FsyncMode::Strict, ..DEFAULT };
    (0..2).for_each(|rest| every_change(terms, rest));
}
