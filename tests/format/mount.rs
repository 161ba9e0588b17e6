//! One way to mount a stack of layers through stratafs and one through the kernel, both undone when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// After so long a mount is freed by force: a hung daemon must not hang the machine.
const MOUNT_LIMIT: Duration = Duration::from_secs(600);
/// So long may the command line take to answer.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The layers of one mount.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
    /// Data-only, topmost first.
    pub data: Vec<PathBuf>,
    /// Upper and work directory.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Further words for stratafs.
    pub more: Vec<String>,
}

/// Who makes the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Kernel,
    Strata,
}

/// A mount, ended when dropped.
pub struct Mount {
    point: PathBuf,
    by: By,
    log: PathBuf,
    watch: Option<Sender<()>>,
}

impl Stack {
    /// A read-only stack.
    pub fn read_only(lowers: &[PathBuf]) -> Stack {
        Stack { lowers: lowers.to_vec(), data: Vec::new(), upper: None, more: Vec::new() }
    }

    /// A stack whose upper and work directories are made in `home`.
    pub fn writable(lowers: &[PathBuf], home: &Path) -> Stack {
        let (upper, work) = (home.join("upper"), home.join("work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        Stack { lowers: lowers.to_vec(), data: Vec::new(), upper: Some((upper, work)), more: Vec::new() }
    }

    /// The upper directory of a writable stack.
    pub fn upper(&self) -> &Path {
        &self.upper.as_ref().unwrap().0
    }

    /// `lowerdir=`, and `upperdir=` and `workdir=` where there are any.
    fn options(&self) -> String {
        let join = |paths: &[PathBuf], by: &str| {
            paths.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>().join(by)
        };
        let mut options = format!("lowerdir={}", join(&self.lowers, ":"));
        if !self.data.is_empty() {
            options += &format!("::{}", join(&self.data, "::"));
        }
        if let Some((upper, work)) = &self.upper {
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        options
    }

    /// Mounts at `point`, which is made. Panics with the reason where that fails.
    pub fn mount(&self, by: By, options: &str, point: &Path) -> Mount {
        fs::create_dir_all(point).unwrap();
        let log = point.with_extension("log");
        let mounted = Mount { point: point.to_owned(), by, log: log.clone(), watch: None };
        match by {
            By::Kernel => {
                let all = format!("{},{options}", self.options());
                let end = Instant::now() + COMMAND_LIMIT;
                let go =
                    || mount(Some("overlay"), point, Some("overlay"), MsFlags::empty(), Some(all.as_str()));
                while let Err(error) = go() {
                    // Somebody else's new mount namespace may hold a copy of the previous mount for a moment.
                    let wait = error == Errno::EBUSY && Instant::now() < end;
                    assert!(wait, "the kernel refuses {all}: {error} (see dmesg)");
                    thread::sleep(Duration::from_millis(20));
                }
                mounted
            }
            By::Strata => {
                let status = run(self.command(options, point), &log);
                assert!(status.success(), "stratafs mount: {status}\n{}", mounted.log());
                mounted.watched()
            }
        }
    }

    /// The command line of stratafs for this stack. Data-only lowers have no short option.
    fn command(&self, options: &str, point: &Path) -> Command {
        let mut command = Command::new(program());
        if self.data.is_empty() {
            command.arg("mount");
            for lower in &self.lowers {
                command.arg("-l").arg(lower);
            }
            if let Some((upper, work)) = &self.upper {
                command.arg("-u").arg(upper).arg("-w").arg(work);
            }
            command.args(&self.more).arg("-o").arg(options).arg(point);
        } else {
            command.arg(point).arg("-o").arg(format!("{},{options}", self.options()));
        }
        command
    }
}

impl Mount {
    /// Where the tree is.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Unmounts and waits until the layers are free.
    pub fn end(mut self) {
        // A process that another test thread is about to start holds, until it runs its program, what we have had open.
        let end = Instant::now() + COMMAND_LIMIT;
        while let Err(reason) = self.unmount() {
            assert!(Instant::now() < end, "{reason}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        if self.by == By::Strata {
            await_end(&self.point);
            let log = self.log();
            assert!(!log.contains("panicked"), "the daemon panicked:\n{log}");
        }
        assert!(device(&self.point).is_none(), "{} is still mounted", self.point.display());
        self.watch = None;
    }

    /// Asks once for the end of the mount.
    fn unmount(&self) -> Result<(), String> {
        if self.by == By::Kernel {
            return umount2(&self.point, MntFlags::empty()).map_err(|error| error.to_string());
        }
        let mut command = Command::new(program());
        command.arg("umount").arg(&self.point);
        let status = run(command, &self.log);
        status.success().then_some(()).ok_or_else(|| format!("stratafs umount: {status}"))
    }

    /// What the command line and the daemon said.
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts the watchdog.
    fn watched(mut self) -> Mount {
        let (sender, receiver) = channel();
        let point = self.point.clone();
        let device =
            device(&point).unwrap_or_else(|| panic!("exit 0, but nothing is mounted\n{}", self.log()));
        thread::spawn(move || {
            if receiver.recv_timeout(MOUNT_LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: {} took longer than {MOUNT_LIMIT:?} and is freed", point.display());
                // Either may fail because the mount has just ended, which is what is wanted.
                let _ = umount2(&point, MntFlags::MNT_DETACH);
                let _ = abort(&device);
            }
        });
        self.watch = Some(sender);
        self
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(device) = device(&self.point) {
            if thread::panicking() {
                eprintln!("log of {}:\n{}", self.point.display(), self.log());
            }
            // A failure leaves a mount behind; a panic in a drop would hide the reason of the first one.
            let _ = umount2(&self.point, MntFlags::MNT_DETACH);
            if self.by == By::Strata {
                let _ = abort(&device);
            }
        }
    }
}

/// A filesystem mounted for one test.
pub struct Filesystem(PathBuf);

impl Filesystem {
    /// An empty tmpfs at `point`, which is made.
    pub fn tmpfs(point: &Path) -> Filesystem {
        Filesystem::of("tmpfs", point, Some("size=64m"))
    }

    /// An empty filesystem in memory, of this type, at `point`, which is made.
    pub fn of(kind: &str, point: &Path, options: Option<&str>) -> Filesystem {
        fs::create_dir_all(point).unwrap();
        mount(Some(kind), point, Some(kind), MsFlags::empty(), options).unwrap();
        Filesystem(point.to_owned())
    }

    /// A small ext4 in a file beside `point`, or nothing where the machine cannot.
    pub fn ext4(point: &Path) -> Option<Filesystem> {
        fs::create_dir_all(point).unwrap();
        let (image, log) = (point.with_extension("img"), point.with_extension("log"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        if !Path::new("/dev/loop-control").exists() || !Path::new("/usr/sbin/mkfs.ext4").exists() {
            return None;
        }
        let mut make = Command::new("/usr/sbin/mkfs.ext4");
        make.args(["-q", "-F"]).arg(&image);
        let mut attach = Command::new("mount");
        attach.args(["-o", "loop"]).arg(&image).arg(point);
        (run(make, &log).success() && run(attach, &log).success()).then(|| Filesystem(point.to_owned()))
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // Detached, so that a daemon that has not quite ended does not leave it behind.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Whether the machine can run these tests; says why where not.
pub fn ready() -> bool {
    let fuse = Path::new("/dev/fuse").exists();
    let required = std::env::var_os("STRATAFS_REQUIRE_FUSE").is_some_and(|value| value == "1");
    assert!(fuse || !required, "STRATAFS_REQUIRE_FUSE=1, but there is no /dev/fuse");
    let overlay = fs::read_to_string("/proc/filesystems")
        .unwrap_or_default()
        .lines()
        .any(|line| line.ends_with("\toverlay"));
    let lacking = [
        (nix::unistd::geteuid().is_root(), "root"),
        (fuse, "/dev/fuse"),
        (overlay, "the kernel's overlayfs"),
    ];
    let lacking: Vec<&str> = lacking.iter().filter(|(there, _)| !there).map(|(_, what)| *what).collect();
    if !lacking.is_empty() {
        eprintln!("skipped: needs {}", lacking.join(" and "));
    }
    lacking.is_empty()
}

/// A fresh directory on a real disk filesystem, or in memory where many objects are made and marks are possible there.
pub fn scratch(many: bool) -> tempfile::TempDir {
    let base = std::env::var_os("STRATAFS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let memory = Path::new("/dev/shm");
    let make = |base: &Path| tempfile::Builder::new().prefix("stratafs-format-").tempdir_in(base).unwrap();
    if many && memory.is_dir() {
        let dir = make(memory);
        let marks = ["trusted.overlay.test", "user.overlay.test"];
        if marks.iter().all(|mark| crate::sys::set_xattr(dir.path(), mark, b"y").is_ok()) {
            for mark in marks {
                crate::sys::remove_xattr(dir.path(), mark).unwrap();
            }
            return dir;
        }
    }
    make(&base)
}

/// The program under test.
fn program() -> PathBuf {
    std::env::var_os("STRATAFS_BIN").map_or_else(|| env!("CARGO_BIN_EXE_stratafs").into(), PathBuf::from)
}

/// Runs a command with its output in `log`: a pipe would stay open as long as the daemon does.
fn run(mut command: Command, log: &Path) -> ExitStatus {
    let out = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(File::open("/dev/null").unwrap()).stdout(out.try_clone().unwrap()).stderr(out);
    let mut child: Child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let end = Instant::now() + COMMAND_LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("{command:?} gave no answer in {COMMAND_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until no process names `point` on its command line: the daemon has let go of the layers.
fn await_end(point: &Path) {
    let needle = point.to_str().unwrap().as_bytes();
    let named = || {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes
            .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
            .any(|line| line.split(|byte| *byte == 0).any(|word| word == needle))
    };
    let end = Instant::now() + COMMAND_LIMIT;
    while named() {
        assert!(Instant::now() < end, "the daemon of {} still runs after umount", point.display());
        thread::sleep(Duration::from_millis(5));
    }
}

/// `MAJOR:MINOR` of what is mounted at `point`, without touching it.
fn device(point: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    table.lines().map(fields).find(|line| Path::new(&line[4]) == point).map(|line| line[2].clone())
}

/// Ends a FUSE connection from the kernel's side, so that nobody waits for its daemon any more.
fn abort(device: &str) -> std::io::Result<()> {
    let minor = device.split_once(':').unwrap().1;
    let abort = |control: &Path| fs::write(control.join(minor).join("abort"), "1");
    let usual = Path::new("/sys/fs/fuse/connections");
    if usual.join(minor).is_dir() {
        return abort(usual);
    }
    let control = tempfile::tempdir()?;
    mount(Some("fusectl"), control.path(), Some("fusectl"), MsFlags::empty(), None::<&str>)?;
    let done = abort(control.path());
    umount2(control.path(), MntFlags::MNT_DETACH)?;
    done
}
