//! What a daemon needs to leave its caller behind, to know where it runs, and to live long in little memory.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, Pid};

/// The two halves of this process. Call it before any thread is started.
/// Errors: `EBUSY` if other threads run, since their locks would stay locked in the child; those of fork(2).
pub fn fork() -> nix::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(1);
    if threads > 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: the process has one thread, so the child finds no lock held by a thread it lacks, and may go on to
    // allocate and run any code. Both halves own their copy of every descriptor.
    unsafe { nix::unistd::fork() }
}

/// Enters the mount namespace that the file at `path` stands for; the working directory becomes its root. The process must
/// have one thread.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN and CAP_SYS_CHROOT, `EINVAL` if it is not the file of a mount namespace.
///
/// Source: setns(2).
pub fn enter_mount_namespace(path: &Path) -> nix::Result<()> {
    let file = std::fs::File::open(path)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNS)
}

/// Calls `act` in the mount namespace that the file at `path` stands for, by a child process that ends with it. The process must
/// have one thread.
///
/// # Errors
///
/// Those of [`enter_mount_namespace`], of fork(2) and of `act`; `ECHILD` if the child ended without a word.
pub fn in_mount_namespace(path: &Path, act: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    match fork()? {
        ForkResult::Parent { child } => match nix::sys::wait::waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, status) => Err(Errno::from_raw(status)),
            _ => Err(Errno::ECHILD),
        },
        ForkResult::Child => {
            let done = enter_mount_namespace(path).and_then(|()| act());
            // SAFETY: ends the process at once, without running what belongs to the parent.
            unsafe { libc::_exit(done.map_or_else(|errno| errno as i32, |()| 0)) }
        }
    }
}

/// Closes every descriptor from the third on that the caller left open, so that nobody waits for a pipe which the
/// daemon does not know it holds. Call it before this process opens any of its own.
pub fn close_inherited() {
    // SAFETY: takes no pointer. Nothing in this process owns a descriptor above standard error yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    // Linux before 5.9. Without /proc they stay open, as for any other daemon.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let all: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in all.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: as above. That of the listing itself is closed already.
        unsafe { libc::close(fd) };
    }
}

/// Lets this process hear how its children end. If SIGCHLD was ignored by the parent process, wait(2) would fail with ECHILD.
/// Source: signal(7), execve(2): what is ignored stays so.
pub fn hear_of_children() {
    // SAFETY: the default action runs no code of this process. The signal exists, so the call cannot fail.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

/// Lifts what the mounting process was limited to, for the daemon serves others: the number of open files, the size of a file, and
/// memory. As far as the administrator allows. A write beyond the size that a file may have is an error and ends no process.
/// Source: setrlimit(2).
pub fn lift_limits() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
    // SAFETY: the handler does nothing, which is safe at any time. Programs that are started later do not get it.
    unsafe { libc::signal(libc::SIGXFSZ, do_nothing as *const () as libc::sighandler_t) };
    let unlimited = [Resource::RLIMIT_FSIZE, Resource::RLIMIT_AS, Resource::RLIMIT_DATA];
    for resource in unlimited.into_iter().chain([Resource::RLIMIT_NOFILE]) {
        let Ok((soft, hard)) = getrlimit(resource) else { continue };
        // That of open files is there to be counted with: memory is kept for each.
        let lifted =
            unlimited.contains(&resource) && setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_ok();
        if !lifted && soft < hard {
            // With the limit as it was the daemon works too, in less room.
            let _ = setrlimit(resource, hard, hard);
        }
    }
}

/// Lets the allocator take blocks of some megabytes, as a worker has for its requests, from the system and give them back to
/// it. By itself it takes the first one so, and puts all that come after it into its heaps, whose memory it clears by hand.
/// Source: mallopt(3), `M_MMAP_THRESHOLD`.
pub fn keep_large_blocks_apart() {
    // SAFETY: takes no pointer. Where a number is not taken, it stays as it was.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        // Left to itself, it would be twice the largest of them.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 20);
    }
}

/// Gives memory that was freed back to the system. The allocator by itself does that only at the end of its heap, and one
/// object that lives keeps everything below it. Takes milliseconds after much was freed; other threads may wait that long
/// to allocate. Where the allocator is another one, it does nothing.
pub fn give_back_memory() {
    // SAFETY: takes no pointer, and changes nothing but pages that no object is in.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// On how many CPUs this process may run. A share of them that a control group allows does not count: a worker
/// that waits costs next to nothing, and to find out takes longer than to open a layer. Source: sched_getaffinity(2).
pub fn cpus() -> usize {
    let count = |set: CpuSet| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).count();
    sched_getaffinity(Pid::from_raw(0)).map_or(1, count)
}

/// Whether the kernel that runs is this one or a newer one; not, if it does not say. Source: uname(2).
pub fn kernel_is_since(major: u32, minor: u32) -> bool {
    let running = nix::sys::utsname::uname().ok();
    let release = running.as_ref().and_then(|running| running.release().to_str());
    release.and_then(version) >= Some((major, minor))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// How a process holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is the working directory.
    Cwd,
    /// It is the root directory.
    Root,
    /// It is the program.
    Program,
    /// There is a descriptor of it.
    Open,
    /// It is mapped.
    Mapped,
}

/// A process that holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its command, as ps(1) has it.
    pub name: String,
    /// How.
    pub how: Hold,
    /// What, as far as it can be told.
    pub path: Option<PathBuf>,
}

/// A process that holds something which is in the filesystem mounted at `mountpoint` and has a number that `is_one` knows: by
/// standing in it; if something is known to be `open`, also by that, which takes longer to find out. The filesystem itself is not asked: it may be this very process that would have to answer.
/// Source: proc(5), statx(2) `AT_STATX_DONT_SYNC`.
pub fn holder(mountpoint: &Path, open: bool, is_one: impl Fn(u64) -> bool) -> Option<Holder> {
    let (device, _) = identity(mountpoint)?;
    let holds = |path: &Path| identity(path).is_some_and(|(on, ino)| on == device && is_one(ino));
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.into_iter().find_map(|pid| {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let places = [("cwd", Hold::Cwd), ("root", Hold::Root), ("exe", Hold::Program)];
        let place =
            places.into_iter().map(|(name, how)| (dir.join(name), how)).take(if open { 3 } else { 2 });
        let descriptors = open.then(|| std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten());
        let opened = descriptors.into_iter().flatten().map(|entry| (entry.path(), Hold::Open));
        let held = place.chain(opened).find(|(path, _)| holds(path));
        let held = held.map(|(path, how)| (std::fs::read_link(path).ok(), how));
        let mapped = || Some((mapped(&dir, device, &is_one)?, Hold::Mapped));
        let (path, how) = held.or_else(|| if open { mapped() } else { None })?;
        Some((pid, path, how))
    });
    found.map(|(pid, path, how)| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Holder { pid, name: name.trim_end().to_owned(), how, path }
    })
}

/// The path of what the process has mapped, if it has a number that `is_one` knows. Source: proc_pid_maps(5).
fn mapped(dir: &Path, device: (u32, u32), is_one: impl Fn(u64) -> bool) -> Option<Option<PathBuf>> {
    let text = std::fs::read(dir.join("maps")).ok()?;
    let on = format!("{:02x}:{:02x}", device.0, device.1);
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = String::from_utf8_lossy(line);
        let mut words = line.splitn(6, ' ').skip(3);
        let there = words.next()? == on && is_one(words.next()?.parse().ok()?);
        there.then(|| words.next().map(|path| PathBuf::from(path.trim_start())))
    })
}

/// Device and number of what is at `path`, as far as the kernel has it in memory.
fn identity(path: &Path) -> Option<((u32, u32), u64)> {
    let mut raw = MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let done = path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and `raw` has room for the answer; both live through the call.
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_INO, raw.as_mut_ptr()) }
    });
    if done.ok()? != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    let raw = unsafe { raw.assume_init() };
    Some(((raw.stx_dev_major, raw.stx_dev_minor), raw.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers() {
        assert_eq!(version("6.12.48+deb13-amd64\n"), Some((6, 12)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
        assert_eq!(version(""), None);
        assert!(kernel_is_since(3, 0) && !kernel_is_since(1000, 0));
    }

    #[test]
    fn only_cpus_that_this_process_may_use_count() {
        let one = |set: &mut CpuSet| (0..CpuSet::count()).find(|cpu| set.is_set(*cpu) == Ok(true));
        let all = cpus();
        assert!(all >= std::thread::available_parallelism().expect("count").get());
        let thread = std::thread::spawn(move || {
            let mut allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
            let (first, mut single) = (one(&mut allowed).expect("a CPU"), CpuSet::new());
            single.set(first).expect("set");
            nix::sched::sched_setaffinity(Pid::from_raw(0), &single).expect("affinity");
            cpus()
        });
        assert_eq!((thread.join().expect("thread"), cpus()), (1, all));
    }

    #[test]
    fn a_process_with_threads_is_not_split() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv().is_err());
        assert_eq!(fork().err(), Some(Errno::EBUSY));
        drop(hold);
        assert!(thread.join().expect("thread"));
    }
}
