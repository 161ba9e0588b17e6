//! The harness of the tests that drive the program by its command line alone.
//!
//! A [`Fixture`] is a temporary directory with layers and a mount. Whatever a test does, three things are looked
//! at for it: no lower layer differs after the mount from before it; the workdir holds no temporaries after
//! an unmount; no daemon is left. A watchdog frees the mount of a test that hangs.
//!
//! Environment:
//! - `STRATAFS_BIN`: the program, instead of the one built with the tests.
//! - `STRATAFS_REQUIRE_FUSE=1`: a missing /dev/fuse is a failure.
//! - `STRATAFS_TEST_MODE`: `root` (default); `userns`, where the test program was started inside `unshare -Urm`;
//!   `fusermount`, where it was started by an ordinary user. The latter two leave out what they may not do.
//! - `STRATAFS_TEST_ORACLE=kernel`: the program is a stand-in that mounts kernel overlayfs. Tests that state a
//!   departure from it, or speak of the daemon, are left out.
//! - `STRATAFS_TEST_KERNEL`: the kernel that this one is made to look like to the program, as far as it can be. Needs root.
//! - `STRATAFS_TEST_TIMEOUT`: seconds after which the watchdog frees the mount of a test, 600 by default.
//! - `STRATAFS_TEST_DIR`: where the layers are made; xattrs are needed there.

#![allow(dead_code, unused_imports, unsafe_code, clippy::unwrap_used, clippy::panic)]

mod host;
pub mod kernel;
pub mod layer;
pub mod older;
pub mod sum;
pub mod sys;
mod wait;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub use layer::Layer;
pub use older::older_kernel;
pub use std::fs::{self, File};
pub use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
pub use sys::{Dir, Errno, Map, as_user, dents, err, no};
pub use wait::{LIMIT, await_later_time, eventually, stop, wait};

/// How privileged the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Root,
    Userns,
    Fusermount,
}

pub fn mode() -> Mode {
    match std::env::var("STRATAFS_TEST_MODE").as_deref() {
        Err(_) | Ok("root") => Mode::Root,
        Ok("userns") => Mode::Userns,
        Ok("fusermount") => Mode::Fusermount,
        Ok(other) => panic!("STRATAFS_TEST_MODE={other}: root, userns or fusermount"),
    }
}

/// The kernel passes reads and writes through to backing files, and the daemon may ask for it.
pub fn passes_through() -> bool {
    mode() == Mode::Root && older_kernel().is_none()
}

/// The stand-in for the program is kernel overlayfs.
pub fn kernel_oracle() -> bool {
    std::env::var("STRATAFS_TEST_ORACLE").as_deref() == Ok("kernel")
}

/// The name of a private xattr as this run's daemon spells it.
pub fn overlay_xattr(name: &str) -> String {
    format!("{}.overlay.{name}", if mode() == Mode::Root { "trusted" } else { "user" })
}

pub fn program() -> PathBuf {
    std::env::var_os("STRATAFS_BIN").map_or_else(|| env!("CARGO_BIN_EXE_stratafs").into(), PathBuf::from)
}

fn timeout() -> Duration {
    let secs = std::env::var("STRATAFS_TEST_TIMEOUT").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(secs.unwrap_or(600))
}

/// True if FUSE can be used; else says so, once per caller.
pub fn fuse() -> bool {
    let there = Path::new("/dev/fuse").exists() || kernel_oracle();
    if !there {
        println!("skipped: no /dev/fuse");
        assert!(
            std::env::var("STRATAFS_REQUIRE_FUSE").as_deref() != Ok("1"),
            "/dev/fuse is required and missing"
        );
    }
    there
}

/// Gives this thread, and all it starts, a mount namespace of its own, once.
///
/// Somebody else's `unshare -m` on the machine copies every mount there is, and such a copy keeps a daemon alive or an
/// upper busy long after it was unmounted here. For the same reason, our copies of foreign FUSE mounts go at once.
/// Where it is not allowed, the tests run without.
fn private_mounts() {
    thread_local! { static DONE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) } }
    if DONE.replace(true) || unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return;
    }
    let (root, none) = (sys::c("/"), std::ptr::null());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    assert_eq!(unsafe { libc::mount(none, root.as_ptr(), none, private, none.cast()) }, 0);
    let table = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let needed = [std::env::temp_dir(), std::env::current_dir().unwrap(), program()];
    for line in table.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(at), Some(kind)) = (words.next(), words.next()) else { continue };
        if kind.starts_with("fuse") && kind != "fusectl" && !needed.iter().any(|n| n.starts_with(at)) {
            unsafe { libc::umount2(sys::c(at).as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Done {
    /// The exit code; nothing if it was ended by a signal or had to be ended after the timeout.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> Done {
        assert_eq!(self.code, Some(0), "exit code; stderr: {}", self.err);
        self
    }
}

/// Runs a command to its end, for at most twice `LIMIT`: commands have limits of their own. Output goes through files, so
/// that a daemon which keeps its standard streams does not keep us.
pub fn run(cmd: &mut Command) -> Done {
    let (out, errs) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    cmd.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(errs.try_clone().unwrap());
    let mut child = spawn(cmd);
    let code = wait(&mut child, 2 * LIMIT);
    if code.is_none() && child.try_wait().unwrap().is_none() {
        eprintln!("{cmd:?}: ended by the test's limit of {:?} for a command", 2 * LIMIT);
        let _ = child.kill();
        let _ = child.wait();
    }
    Done { code, out: read_all(&out), err: read_all(&errs) }
}

/// Held while a child of this program may have copies of what it has open, which is from fork to exec.
static FORKING: Mutex<()> = Mutex::new(());

/// Runs `fork`, which returns when the child has no copies of what this program has open. No other child has any meanwhile: what
/// this thread closed before is closed, however long the machine takes to start a program for another test.
pub fn forking<T>(fork: impl FnOnce() -> T) -> T {
    let _alone = FORKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    fork()
}

/// Waits until no child has copies of what this thread has closed. What starts a command needs no such word before it.
pub fn no_copies() {
    forking(|| ());
}

/// Starts a command.
pub fn try_spawn(cmd: &mut Command) -> std::io::Result<Child> {
    older::become_older();
    forking(|| cmd.spawn())
}

/// Starts a command, which is there.
pub fn spawn(cmd: &mut Command) -> Child {
    try_spawn(cmd).unwrap_or_else(|e| panic!("{cmd:?}: {e}"))
}

fn read_all(f: &File) -> String {
    let mut buf = vec![0; f.metadata().unwrap().len() as usize];
    f.read_exact_at(&mut buf, 0).unwrap();
    String::from_utf8_lossy(&buf).into_owned()
}

/// The lines of the mount table that speak of `mountpoint`: device minor and filesystem type. Asks no daemon.
pub fn mounts_at(mountpoint: &Path) -> Vec<(u32, String)> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let rows = table.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(' ').collect();
        let dash = f.iter().position(|w| *w == "-")?;
        let minor = f[2].split_once(':')?.1.parse().ok()?;
        (Path::new(f[4]) == mountpoint).then(|| (minor, f[dash + 1].to_owned()))
    });
    rows.collect()
}

/// Processes, not zombies, that are the program and name `mountpoint` in their arguments.
pub fn daemons_of(mountpoint: &Path) -> Vec<i32> {
    let mut out = Vec::new();
    for e in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = e.file_name().to_str().and_then(|s| s.parse::<i32>().ok()) else { continue };
        let Ok(cmdline) = fs::read(e.path().join("cmdline")) else { continue };
        let mut args = cmdline.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned());
        let ours = args.next().is_some_and(|a| Path::new(&a).file_name() == program().file_name());
        if ours && args.any(|a| Path::new(&a) == mountpoint) && !is_zombie(pid) {
            out.push(pid);
        }
    }
    out
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Takes a mount away from a daemon that may not answer.
pub fn free(mountpoint: &Path) {
    for (minor, kind) in mounts_at(mountpoint) {
        if kind.starts_with("fuse") {
            let _ = fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
        }
        let r = unsafe { libc::umount2(sys::c(mountpoint).as_ptr(), libc::MNT_DETACH) };
        if r != 0 {
            let _ = run(Command::new("fusermount3").args(["-u", "-z"]).arg(mountpoint));
        }
    }
}

/// Bites if it is not called off in time: frees the mount, and ends the whole run if even that frees no one.
struct Watchdog {
    state: Arc<(Mutex<bool>, Condvar)>,
    bit: Arc<AtomicBool>,
}

impl Watchdog {
    fn start(mountpoint: PathBuf) -> Watchdog {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let bit = Arc::new(AtomicBool::new(false));
        let (s, b) = (state.clone(), bit.clone());
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            let off = |limit| {
                let done = s.0.lock().unwrap();
                *s.1.wait_timeout_while(done, limit, |done| !*done).unwrap().0
            };
            if off(timeout()) {
                return;
            }
            b.store(true, Ordering::SeqCst);
            let at = mountpoint.display();
            eprintln!("watchdog: {test}: ended by STRATAFS_TEST_TIMEOUT ({:?}): {at} is freed", timeout());
            free(&mountpoint);
            if !off(LIMIT) {
                eprintln!(
                    "watchdog: {test}: still hangs {LIMIT:?} after {at} was freed: this ends the program"
                );
                std::process::abort();
            }
        });
        Watchdog { state, bit }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.state.0.lock().unwrap() = true;
        self.state.1.notify_all();
    }
}

/// A mount of a test's own that goes, lazily, when this is dropped.
pub struct Umount(pub PathBuf);

impl Drop for Umount {
    fn drop(&mut self) {
        free(&self.0);
    }
}

/// Layers, a mount point, and what must hold about them.
pub struct Fixture {
    dir: tempfile::TempDir,
    lowers: usize,
    writable: bool,
    /// Options given at every mount, also at the remounts of [`Fixture::check`].
    pub options: Vec<String>,
    /// Arguments given at every mount: what is attached in it.
    pub args: Vec<std::ffi::OsString>,
    /// Trees beside the layers that must be as they were, once the mount is gone: sources that take no change.
    pub kept: Vec<PathBuf>,
    kept_before: Vec<sum::Tree>,
    /// A limit of open files for the daemon.
    pub nofile: Option<u32>,
    /// System calls of the daemon that are answered without being made. Needs root.
    pub answers: Vec<sys::Answer>,
    /// The lowers as they were when they were mounted.
    before: Option<Vec<sum::Tree>>,
    mounted: bool,
    watchdog: Watchdog,
}

impl Fixture {
    /// `lowers` empty lower layers and an empty upper. Nothing if the test has to be skipped.
    pub fn new(lowers: usize) -> Option<Fixture> {
        Fixture::build(lowers, true)
    }

    /// The same without an upper layer.
    pub fn read_only(lowers: usize) -> Option<Fixture> {
        Fixture::build(lowers, false)
    }

    fn build(lowers: usize, writable: bool) -> Option<Fixture> {
        if !fuse() {
            return None;
        }
        private_mounts();
        let base = std::env::var_os("STRATAFS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("stratafs-test-").tempdir_in(base).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let probe = sys::setxattr(dir.path(), "user.stratafs-test", b"1", 0);
        assert_eq!(probe, Ok(()), "{}: xattrs are needed; set STRATAFS_TEST_DIR", dir.path().display());
        let names = (0..lowers).map(|i| format!("l{i}"));
        for name in names.chain(["upper", "work", "mnt"].map(String::from)) {
            // The mode is set by hand: the umask of the run must not show in the tests.
            fs::create_dir(dir.path().join(&name)).unwrap();
            sys::chmod(dir.path().join(&name), 0o755).unwrap();
        }
        let watchdog = Watchdog::start(dir.path().join("mnt"));
        let (options, before) = (Vec::new(), None);
        Some(Fixture {
            dir,
            lowers,
            writable,
            options,
            args: Vec::new(),
            kept: Vec::new(),
            kept_before: Vec::new(),
            nofile: None,
            answers: Vec::new(),
            before,
            mounted: false,
            watchdog,
        })
    }

    /// Nothing, with a word, if this run is not that of a real root.
    pub fn need_root(self) -> Option<Fixture> {
        if mode() == Mode::Root {
            return Some(self);
        }
        println!("skipped: needs root");
        None
    }

    /// Nothing, with a word, where the kernel passes no reads and writes through.
    pub fn need_passthrough(self) -> Option<Fixture> {
        if passes_through() {
            return Some(self);
        }
        println!("skipped: needs passthrough");
        None
    }

    /// Nothing, with a word, on kernel overlayfs, which does it otherwise on purpose.
    pub fn departs(self, how: &str) -> Option<Fixture> {
        if !kernel_oracle() {
            return Some(self);
        }
        println!("skipped: the kernel differs: {how}");
        None
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn lower(&self, i: usize) -> Layer {
        assert!(i < self.lowers && !self.mounted, "layers are built before the mount");
        Layer::at(self.low(i, ""))
    }

    pub fn upper(&self) -> Layer {
        assert!(self.writable && !self.mounted, "layers are built before the mount");
        Layer::at(self.up(""))
    }

    /// A path in the mount.
    pub fn p(&self, path: impl AsRef<Path>) -> PathBuf {
        join(self.dir().join("mnt"), path.as_ref())
    }

    /// A path in a lower layer, below the mount.
    pub fn low(&self, i: usize, path: impl AsRef<Path>) -> PathBuf {
        join(self.dir().join(format!("l{i}")), path.as_ref())
    }

    /// A path in the upper layer, below the mount.
    pub fn up(&self, path: impl AsRef<Path>) -> PathBuf {
        join(self.dir().join("upper"), path.as_ref())
    }

    /// A path in the workdir.
    pub fn work(&self, path: impl AsRef<Path>) -> PathBuf {
        join(self.dir().join("work"), path.as_ref())
    }

    /// The command that mounts, with more arguments before the mount point.
    pub fn command(&self, more: &[&str]) -> Command {
        let mut args: Vec<std::ffi::OsString> = vec!["mount".into()];
        for i in 0..self.lowers {
            args.extend(["-l".into(), self.low(i, "").into()]);
        }
        if self.writable {
            args.extend(["-u".into(), self.up("").into(), "-w".into(), self.work("").into()]);
        }
        for o in &self.options {
            args.extend(["-o".into(), o.into()]);
        }
        args.extend(self.args.iter().cloned());
        args.extend(more.iter().map(Into::into));
        args.push(self.p("").into());
        let mut cmd = match self.nofile {
            None => Command::new(program()),
            Some(n) => {
                let mut sh = Command::new("sh");
                sh.arg("-c").arg(format!("ulimit -n {n} && exec \"$0\" \"$@\"")).arg(program());
                sh
            }
        };
        cmd.args(args);
        if !self.answers.is_empty() {
            sys::with_answers(&mut cmd, &self.answers);
        }
        cmd
    }

    /// Notes how the lowers are now; after the next unmount they must be the same.
    pub fn note_lowers(&mut self) {
        self.before = Some((0..self.lowers).map(|i| sum::tree(&self.low(i, ""))).collect());
        self.kept_before = self.kept.iter().map(|kept| sum::tree(kept)).collect();
    }

    /// Mounts and says how that went.
    pub fn try_mount(&mut self, more: &[&str]) -> Done {
        assert!(!self.mounted, "mounted already");
        self.note_lowers();
        let done = run(&mut self.command(more));
        self.mounted = !mounts_at(&self.p("")).is_empty();
        done
    }

    #[track_caller]
    pub fn mount(&mut self) -> &mut Fixture {
        self.mount_with(&[])
    }

    #[track_caller]
    pub fn mount_with(&mut self, more: &[&str]) -> &mut Fixture {
        let done = self.try_mount(more);
        assert_eq!(done.code, Some(0), "mount failed: {}", done.err);
        assert!(self.mounted, "exit 0 but nothing is mounted");
        self
    }

    /// Tells the fixture that the test itself has mounted or unmounted.
    pub fn set_mounted(&mut self, yes: bool) {
        self.mounted = yes;
    }

    /// Unmounts and looks at what is left behind.
    #[track_caller]
    pub fn unmount(&mut self) {
        assert!(self.mounted, "not mounted");
        let mut done = run(Command::new(program()).arg("umount").arg(self.p("")));
        // A process that another test has just forked may keep our files for a moment, until its exec.
        eventually(LIMIT, || {
            if done.code != Some(0) && !mounts_at(&self.p("")).is_empty() {
                done = run(Command::new(program()).arg("umount").arg(self.p("")));
            }
            done.code == Some(0) || mounts_at(&self.p("")).is_empty()
        });
        assert_eq!(done.code, Some(0), "umount failed: {}", done.err);
        assert_eq!(mounts_at(&self.p("")), [], "still mounted after umount");
        self.mounted = false;
        assert_eq!(daemons_of(&self.p("")), [] as [i32; 0], "the daemon outlives umount");
        self.after_unmount();
    }

    /// What must hold once the mount is gone, however it went.
    #[track_caller]
    pub fn after_unmount(&mut self) {
        self.mounted = false;
        let changes = self.lower_changes();
        assert!(changes.is_empty(), "lower layers changed:\n{changes}");
        let left = self.temporaries();
        assert!(left.is_empty(), "temporaries left in the workdir: {left:?}");
    }

    /// Names below `work/` of the workdir.
    pub fn temporaries(&self) -> Vec<std::ffi::OsString> {
        let Ok(list) = fs::read_dir(self.work("work")) else { return Vec::new() };
        list.map(|e| e.unwrap().file_name()).filter(|n| n != "incompat").collect()
    }

    fn lower_changes(&mut self) -> String {
        let Some(before) = self.before.take() else { return String::new() };
        let all = before.iter().enumerate().map(|(i, old)| {
            let now = sum::tree(&self.low(i, ""));
            let d = sum::diff(old, &now);
            if d.is_empty() { d } else { format!(" layer {i}:\n{d}") }
        });
        let layers: String = all.collect();
        let kept = self.kept.iter().zip(std::mem::take(&mut self.kept_before)).map(|(kept, old)| {
            let d = sum::diff(&old, &sum::tree(kept));
            if d.is_empty() { d } else { format!(" source {}:\n{d}", kept.display()) }
        });
        layers + &kept.collect::<String>()
    }

    #[track_caller]
    pub fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    /// Runs assertions, unmounts, mounts, and runs them again: what the mount shows must not live in memory only.
    #[track_caller]
    pub fn check(&mut self, assertions: impl Fn(&Path)) {
        let root = self.p("");
        assertions(&root);
        self.remount();
        assertions(&root);
    }

    /// The pid of this mount's daemon.
    #[track_caller]
    pub fn daemon(&self) -> i32 {
        let all = daemons_of(&self.p(""));
        assert_eq!(all.len(), 1, "one daemon is expected for the mount, not {all:?}");
        all[0]
    }

    /// True after a whiteout for `path` was left in the upper.
    pub fn is_whiteout(&self, path: impl AsRef<Path>) -> bool {
        let at = self.up(path);
        let dot = at.with_file_name(format!(".wh.{}", at.file_name().unwrap().to_string_lossy()));
        let device = at.symlink_metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0);
        device || ((mode() != Mode::Root || !self.answers.is_empty()) && dot.symlink_metadata().is_ok())
    }

    /// True if the upper has anything under this name, a whiteout or not.
    pub fn in_upper(&self, path: impl AsRef<Path>) -> bool {
        self.up(path).symlink_metadata().is_ok()
    }
}

fn join(base: PathBuf, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { base } else { base.join(path) }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.finish();
        if mode() != Mode::Root {
            // What a test or a daemon closed to its owner must not keep the directory from going.
            let _ = run(Command::new("chmod").args(["-R", "u+rwX"]).arg(self.dir()));
        }
    }
}

impl Fixture {
    /// The last look at the layers. After a failure it only tells, since a second panic would hide the first.
    fn finish(&mut self) {
        let flag = self.watchdog.bit.clone();
        let bit = || flag.load(Ordering::SeqCst);
        if std::thread::panicking() || bit() {
            free(&self.p(""));
            let changes = self.lower_changes();
            if !changes.is_empty() {
                eprintln!("and lower layers changed:\n{changes}");
            }
            assert!(std::thread::panicking() || !bit(), "the watchdog had to free the mount");
            return;
        }
        if self.mounted {
            self.unmount();
        } else {
            self.after_unmount();
        }
    }
}

/// Names in a directory, sorted, as text.
#[track_caller]
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let all: BTreeSet<String> =
        dents(dir).into_iter().map(|e| e.name.to_string_lossy().into_owned()).collect();
    all.into_iter().collect()
}

/// The content of a file as text.
#[track_caller]
pub fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    String::from_utf8(fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// Attributes, symlinks not followed.
#[track_caller]
pub fn stat(path: impl AsRef<Path>) -> fs::Metadata {
    let path = path.as_ref();
    path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The errno of asking for a name; panics if it is there.
#[track_caller]
pub fn missing(path: impl AsRef<Path>) -> Errno {
    err(path.as_ref().symlink_metadata())
}

/// Modification time in seconds and nanoseconds.
pub fn mtime(path: impl AsRef<Path>) -> (i64, i64) {
    let m = stat(path);
    (m.mtime(), m.mtime_nsec())
}

/// Opens for reading and writing.
#[track_caller]
pub fn rw(path: impl AsRef<Path>) -> File {
    sys::open(path, libc::O_RDWR, 0).unwrap()
}

/// Opens for reading.
#[track_caller]
pub fn ro(path: impl AsRef<Path>) -> File {
    sys::open(path, libc::O_RDONLY, 0).unwrap()
}

/// The whole content through a descriptor, whatever its position.
pub fn through(f: &File) -> Vec<u8> {
    let mut out = Vec::new();
    let mut buf = [0; 65536];
    loop {
        match f.read_at(&mut buf, out.len() as u64).unwrap() {
            0 => return out,
            n => out.extend_from_slice(&buf[..n]),
        }
    }
}
