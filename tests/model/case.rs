//! One run: layers, a mount of them, a plain copy of what they show, and steps that are carried out on both.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::attached::{self, Attached};
use crate::format::mount::{By, Filesystem, Mount, Stack, scratch};
use crate::format::snapshot::{Tree, Untouched, differences, summary, take};
use crate::layers::{copy_of_view, make_layers, set_time};
use crate::op::{Flag, Op, Step};
use crate::side::{Answer, Outcome, Side};
use crate::small::{ROOM, SmallDisk, WIDE};

/// The options of a mount, and with them what may differ by the papers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    Default,
    Metacopy,
    Volatile,
    Strict,
    NoRedirect,
    NoIndex,
    Writeback,
    Timeout,
    /// The upper layer is on a filesystem with little room.
    Full,
    /// Directories of the host and a tmpfs are attached.
    Grafts,
    /// The tmpfs is in one of the directories.
    NestedGrafts,
    /// The marks of a mount without privilege.
    Userxattr,
    /// The lower layers are on a filesystem without file handles, ACLs and attributes.
    Ram,
    /// Files of one layer are hard links of files of another.
    Linked,
    /// Some steps in an attached directory are made on the host.
    HostChanges,
}

/// How a layer comes to be: by hand in the kernel's format, or as the upper layer of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Hand,
    Kernel,
    Strata,
}

/// A whole run. What is printed of it is Rust that makes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub terms: Terms,
    /// The lowest first.
    pub layers: Vec<(Maker, Vec<Step>)>,
    pub steps: Vec<Step>,
}

/// Where a run went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How many steps had been begun.
    pub at: usize,
    /// What a shrunk run must fail by as well.
    pub kind: String,
    pub text: String,
}

impl Terms {
    pub const ALL: [Terms; 15] = [
        Terms::Default,
        Terms::Metacopy,
        Terms::Volatile,
        Terms::Strict,
        Terms::NoRedirect,
        Terms::NoIndex,
        Terms::Writeback,
        Terms::Timeout,
        Terms::Full,
        Terms::Grafts,
        Terms::NestedGrafts,
        Terms::Userxattr,
        Terms::Ram,
        Terms::Linked,
        Terms::HostChanges,
    ];

    fn strata(self) -> &'static str {
        match self {
            Terms::Default | Terms::Full | Terms::Grafts | Terms::NestedGrafts => "redirect_dir=on",
            Terms::Ram | Terms::Linked | Terms::HostChanges => "redirect_dir=on",
            Terms::Userxattr => "userxattr",
            Terms::Metacopy => "metacopy=on",
            Terms::Volatile => "volatile",
            Terms::Strict => "fsync=strict",
            Terms::NoRedirect => "redirect_dir=off",
            Terms::NoIndex => "index=off",
            Terms::Writeback => "writeback=on",
            Terms::Timeout => "timeout=0",
        }
    }

    pub fn kernel(self) -> &'static str {
        match self {
            Terms::Metacopy => "redirect_dir=on,index=on,metacopy=on",
            Terms::NoRedirect => "redirect_dir=follow,index=on,metacopy=off",
            Terms::NoIndex => "redirect_dir=on,index=off,metacopy=off",
            Terms::Userxattr => "userxattr",
            _ => "redirect_dir=on,index=on,metacopy=off",
        }
    }

    /// The options with which layers are made as upper layers of mounts.
    pub fn making(self) -> &'static str {
        match self {
            Terms::Userxattr => "userxattr",
            Terms::Metacopy => "redirect_dir=on,index=on,metacopy=on",
            _ => "redirect_dir=on,index=on,metacopy=off",
        }
    }

    /// Names of one file in several layers, or of one that is copied up, stay names of one file.
    pub fn links(self) -> bool {
        !matches!(self, Terms::NoIndex | Terms::Userxattr | Terms::Ram)
    }
}

/// Carries the run out on fresh trees.
pub fn run(case: &Case) -> Result<(), Failure> {
    let at = std::cell::Cell::new(0);
    let ran = catch_unwind(AssertUnwindSafe(|| run_on(case, &at)));
    let (kind, text) = match ran {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(told)) => told,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            ("panic".to_owned(), text.unwrap_or_default())
        }
    };
    Err(Failure { at: at.get(), kind, text })
}

/// The kind of what went wrong, and all of it.
type Told = (String, String);

/// Everything of a run that is set up once.
struct Run<'a> {
    case: &'a Case,
    stack: Stack,
    point: PathBuf,
    plain: PathBuf,
    begun: i64,
    /// A map was written, so that the time of a file is the kernel's choice.
    times_vague: bool,
    small: Option<SmallDisk>,
    attached: Option<Attached>,
}

fn run_on(case: &Case, at: &std::cell::Cell<usize>) -> Result<(), Told> {
    // Where little room means the same to both trees.
    let home = scratch(case.terms == Terms::Full);
    let top = home.path();
    fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
    let memory = (case.terms == Terms::Ram).then(|| Filesystem::of("ramfs", &top.join("ram"), None));
    let lowers = make_layers(case, top, memory.as_ref().map_or(top, Filesystem::path));
    let untouched = Untouched::new(&lowers);
    let plain = top.join("plain");
    let seen = copy_of_view(case.terms, &lowers, top, &plain);
    let small = (case.terms == Terms::Full).then(|| SmallDisk::new(&top.join("small")));
    let begun = now();
    let attached = Attached::new(case.terms, top, &plain);
    let mut stack = Stack::writable(&lowers, small.as_ref().map_or(top, |small| small.path()));
    stack.more = attached.as_ref().map(Attached::words).unwrap_or_default();
    for dir in [stack.upper(), &plain] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        set_time(dir);
    }
    let point = top.join("merged");
    let mut run = Run { case, stack, point, plain, begun, times_vague: false, small, attached };
    let mut mount = run.mount();
    if let Some(seen) = seen {
        let ours = take(mount.path());
        // The root is of the upper layer, which the kernel had not in this case.
        let lines = run.differences_of_layers(&seen, &ours);
        expect("first look", lines.into_iter().filter(|line| !line.starts_with(".:")).collect())?;
    }
    let mut sides = [Side::new(mount.path(), begun), Side::new(&run.plain, begun)];
    for (number, step) in case.steps.iter().enumerate() {
        at.set(number + 1);
        mount = run.step(step, mount, &mut sides)?;
    }
    at.set(case.steps.len());
    mount = run.step(&crate::op::root(Op::Remount), mount, &mut sides)?;
    let ours = take(mount.path());
    mount.end();
    untouched.check();
    run.attached.iter().for_each(Attached::check);
    run.kernel_agrees(&ours)
}

impl Run<'_> {
    fn mount(&self) -> Mount {
        if self.case.terms == Terms::Volatile {
            let work = &self.stack.upper.as_ref().unwrap().1;
            // It is not there before the first mount.
            let _ = fs::remove_dir_all(work.join("work/incompat"));
        }
        self.stack.mount(By::Strata, self.case.terms.strata(), &self.point)
    }

    fn step(&mut self, step: &Step, mount: Mount, sides: &mut [Side; 2]) -> Result<Mount, Told> {
        match step.op {
            Op::Look => {
                self.look("live", &take(mount.path()))?;
                return Ok(mount);
            }
            Op::Remount => return self.remount(mount, sides),
            Op::MapPut(..) => self.times_vague = true,
            Op::ReadOnly(on) => {
                self.set_disk(on, ROOM);
                return Ok(mount);
            }
            _ => {}
        }
        if self.attached.as_ref().is_some_and(|attached| attached.differs_by_nature(step)) {
            return Ok(mount);
        }
        let [strata, plain] = sides;
        let on_the_host = self.attached.as_ref().and_then(|attached| attached.host_of(step));
        let ours = match on_the_host {
            Some(host) => {
                strata.touch(step);
                Side::new(&host, self.begun).step(step)
            }
            None => strata.step(step),
        };
        if self.refused_by_terms(step, &ours) {
            return Ok(mount);
        }
        if self.case.terms == Terms::Full && matches!(ours, Err(Errno::ENOSPC | Errno::EROFS)) {
            // Nothing has changed, and the plain tree, which has room, takes no part.
            let told = self.look("no room", &take(mount.path()));
            return told.map(|()| mount).map_err(|(kind, text)| (kind, format!("{step:?}: {text}")));
        }
        let before = self.source_dir(step);
        let theirs = match self.case.terms {
            Terms::Full => plain.step(&as_far_as(step, &ours)),
            _ => plain.step(step),
        };
        if let (Err(_), Some((dir, meta))) = (&theirs, before) {
            let time = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
            let omit = TimeSpec::UTIME_OMIT;
            match utimensat(AT_FDCWD, &dir, &omit, &time, UtimensatFlags::FollowSymlink) {
                // What is read-only has another time by nobody.
                Ok(()) | Err(Errno::EROFS) => {}
                Err(errno) => panic!("{}: {errno}", dir.display()),
            }
        }
        let wrong = [&ours, &theirs].into_iter().any(|outcome| matches!(outcome, Ok(Answer::Wrong(_))));
        if wrong || !self.same(&ours, &theirs) {
            let what = format!("{step:?}\n  plain: {}\n  mount: {}", short(&theirs), short(&ours));
            return Err((kind_of(step, &ours, &theirs), what));
        }
        Ok(mount)
    }

    /// As `SmallDisk::set`, where there is one.
    fn set_disk(&self, read_only: bool, room: &str) {
        self.small.iter().for_each(|small| small.set(read_only, room));
    }

    /// The plain directory that a rename with a whiteout is from: some filesystems make the whiteout before they refuse, and
    /// the time tells of it.
    fn source_dir(&self, step: &Step) -> Option<(PathBuf, fs::Metadata)> {
        let Op::Rename(from, _, Flag::Whiteout) = step.op else { return None };
        let dir = self.plain.join(from).parent()?.to_owned();
        let meta = fs::metadata(&dir).ok()?;
        Some((dir, meta))
    }

    /// A rename of a directory that the options forbid. The plain tree takes no part in it.
    fn refused_by_terms(&self, step: &Step, ours: &Outcome) -> bool {
        let rename = matches!(step.op, Op::Rename(..));
        let forbids = matches!(self.case.terms, Terms::NoRedirect | Terms::Userxattr);
        forbids && rename && *ours == Err(Errno::EXDEV)
    }

    fn same(&self, ours: &Outcome, theirs: &Outcome) -> bool {
        if self.attached.is_some() && attached::refuse(theirs, ours) {
            return true;
        }
        match (ours, theirs) {
            (Ok(Answer::Fields(ours)), Ok(Answer::Fields(theirs))) => {
                let vague = self.vague(&theirs["mode"]);
                let counts = |key: &str| !(vague && key == "mtime" || self.ignored().contains(&key));
                let keys = ours.keys().chain(theirs.keys()).filter(|key| counts(key));
                keys.into_iter().all(|key| ours.get(key) == theirs.get(key))
            }
            // The lower file's filesystem has no attributes, so it has none with this name; the kernel's overlay says so, too.
            (Err(Errno::EOPNOTSUPP), Err(Errno::ENODATA) | Ok(Answer::Done)) => self.case.terms == Terms::Ram,
            _ => ours == theirs,
        }
    }

    /// What the trees may differ in.
    fn ignored(&self) -> &'static [&'static str] {
        ignored(self.case.terms)
    }

    /// Whether the time of an object with this mode is left out.
    fn vague(&self, mode: &str) -> bool {
        let kind = u32::from_str_radix(mode, 8).unwrap() & libc::S_IFMT;
        // FUSE is not told that somebody wrote into a fifo.
        kind == libc::S_IFIFO || (self.times_vague && kind == libc::S_IFREG)
    }

    fn remount(&mut self, mount: Mount, sides: &mut [Side; 2]) -> Result<Mount, Told> {
        for side in sides.iter_mut() {
            side.close().map_err(|what| ("stream".to_owned(), what))?;
        }
        let live = take(mount.path());
        self.look("live", &live)?;
        // A mount needs some room to find out what it can do.
        self.set_disk(false, WIDE);
        mount.end();
        self.attached.iter().for_each(Attached::next_tmpfs);
        let work = &self.stack.upper.as_ref().unwrap().1;
        let left: Vec<String> = fs::read_dir(work.join("work"))
            .map(|names| names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        expect("workdir", left.into_iter().filter(|name| name != "incompat").collect())?;
        let mount = self.mount();
        self.set_disk(false, ROOM);
        let again = take(mount.path());
        // The kernel has its own clock for what it keeps, and the time on disk is that of the writing back.
        let ignored: &[&str] = if self.case.terms == Terms::Writeback { &["mtime"] } else { &[] };
        let lasting =
            |tree: &Tree| self.attached.as_ref().map_or(tree.clone(), |attached| attached.lasting(tree));
        expect("remount", differences(&lasting(&live), &lasting(&again), ignored))?;
        Ok(mount)
    }

    /// The whole trees.
    fn look(&self, when: &str, ours: &Tree) -> Result<(), Told> {
        let theirs = self.leveled(&take(&self.plain));
        expect(when, differences(&theirs, &self.leveled(ours), self.ignored()))
    }

    /// A tree with the times of this run as "now".
    fn leveled(&self, tree: &Tree) -> Tree {
        let mut tree = tree.clone();
        for fields in tree.values_mut() {
            let vague = fields.get("mode").is_some_and(|mode| self.vague(mode));
            let Some(mtime) = fields.get_mut("mtime") else { continue };
            let seconds: i64 = mtime.split('.').next().unwrap().parse().unwrap();
            if vague {
                *mtime = "whenever".to_owned();
            } else if seconds >= self.begun {
                *mtime = "now".to_owned();
            }
        }
        tree
    }

    /// The kernel's overlay of the same layers shows the same, where the papers say so.
    fn kernel_agrees(&self, ours: &Tree) -> Result<(), Told> {
        if self.case.steps.iter().any(|step| step.op.makes_a_whiteout_to_see()) {
            return Ok(());
        }
        if self.case.terms == Terms::Volatile {
            let work = &self.stack.upper.as_ref().unwrap().1;
            // What a volatile mount leaves keeps the kernel away, as it is meant to.
            let _ = fs::remove_dir_all(work.join("work/incompat"));
        }
        self.set_disk(false, WIDE);
        let mount = self.stack.mount(By::Kernel, self.case.terms.kernel(), &self.point);
        let theirs = take(mount.path());
        mount.end();
        expect("kernel", self.differences_of_layers(&theirs, ours))
    }

    /// What differs between what the kernel shows of the layers and what the mount shows, but for what is attached in it.
    fn differences_of_layers(&self, theirs: &Tree, ours: &Tree) -> Vec<String> {
        match &self.attached {
            None => differences(theirs, ours, &[]),
            // One of the names of a file may be beneath something.
            Some(attached) => differences(&attached.layers(theirs), &attached.layers(ours), &["same as"]),
        }
    }
}

/// A file of a layer may have names in another layer that do not show, and counts them.
pub fn ignored(terms: Terms) -> &'static [&'static str] {
    if terms == Terms::Linked { &["nlink"] } else { &[] }
}

fn expect(kind: &str, lines: Vec<String>) -> Result<(), Told> {
    if lines.is_empty() { Ok(()) } else { Err((kind.to_owned(), format!("{kind}: {}", summary(&lines)))) }
}

/// The step as far as the other side had room for it.
fn as_far_as(step: &Step, ours: &Outcome) -> Step {
    let Ok(Answer::Number(done)) = ours else { return *step };
    let less = |len: usize| len.min(*done as usize);
    let op = match step.op {
        Op::Write(slot, byte, len) => Op::Write(slot, byte, less(len)),
        Op::Pwrite(slot, at, byte, len) => Op::Pwrite(slot, at, byte, less(len)),
        Op::CopyRange(from, at, to, to_at, len) => Op::CopyRange(from, at, to, to_at, less(len)),
        op => op,
    };
    Step { op, ..*step }
}

/// What a shrunk run must have in common with this one: the call, and how both sides answered.
fn kind_of(step: &Step, ours: &Outcome, theirs: &Outcome) -> String {
    let one = |outcome: &Outcome| match outcome {
        Err(errno) => format!("{errno:?}"),
        Ok(Answer::Wrong(_)) => "wrong".to_owned(),
        Ok(_) => "ok".to_owned(),
    };
    format!("{} {} {}", step.op.name(), one(theirs), one(ours))
}

/// An outcome that fits on some lines.
fn short(outcome: &Outcome) -> String {
    let text = match outcome {
        Ok(Answer::Bytes(bytes)) => format!("{} bytes {}", bytes.len(), bytes.escape_ascii()),
        outcome => format!("{outcome:?}"),
    };
    text.chars().take(600).collect()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}
