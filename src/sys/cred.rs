//! Acting as the caller: filesystem ids, umask and capabilities are those of one thread for the length of one call, so
//! that the upper layer's own filesystem applies its rules for owners, set-group-id directories, default ACLs and
//! set-id bits. Source: setfsuid(2), capabilities(7), umask(2).

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use nix::Result;
use nix::errno::Errno;

use super::At;
use super::stat::stat;

/// Who asks, in ids as they are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Owner of what is made.
    pub uid: u32,
    /// Group of what is made.
    pub gid: u32,
    /// Taken off the mode of what is made, unless a default ACL stands in its place.
    pub umask: u32,
}

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_FSETID: u32 = 4;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
#[derive(Clone, Copy)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

thread_local! {
    /// This thread's umask, once it has one of its own.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
    /// What this thread makes is a caller's, and the caller's umask is meant.
    static ACTING: Cell<bool> = const { Cell::new(false) };
    /// This thread's ids and capabilities when it acts for nobody.
    static OWN: Cell<Option<(u32, u32, [CapData; 2])>> = const { Cell::new(None) };
}

fn capget() -> Result<[CapData; 2]> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: the header names the version whose data are two structures; both live through the call.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    Errno::result(done).map(|_| data)
}

fn capset(data: &[CapData; 2]) -> Result<()> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    // SAFETY: the header names the version whose data are two structures; both live through the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    Errno::result(done).map(drop)
}

fn own() -> Result<(u32, u32, [CapData; 2])> {
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    // SAFETY: neither call touches memory, and neither can fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let own = (uid, gid, capget()?);
    OWN.set(Some(own));
    Ok(own)
}

/// Whether this process may use a capability; asked once at mount.
fn capable(capability: u32) -> bool {
    let has = |word: &CapData| word.effective & (1 << (capability % 32)) != 0;
    own().is_ok_and(|(_, _, data)| data.get((capability / 32) as usize).is_some_and(has))
}

/// Whether `trusted.*` attributes and passthrough are open to this process. The kernel asks for the capability in the
/// first user namespace; in one of its own a process has it, and it is worth nothing here.
pub fn may_administer() -> bool {
    capable(CAP_SYS_ADMIN) && in_first_user_namespace()
}

/// Asked once: the daemon stays in the user namespace in which it was started. Source: kernel `include/uapi/linux/nsfs.h`,
/// `USER_NS_INIT_INO`.
fn in_first_user_namespace() -> bool {
    const FIRST: u64 = 0xEFFF_FFFD;
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // Without /proc the capability has to do; whatever is then refused has its fallback where it is tried.
    *ANSWER.get_or_init(|| std::fs::metadata("/proc/self/ns/user").map_or(true, |facts| facts.ino() == FIRST))
}

/// Gives up, for this thread and those it starts, the power to exceed quotas and to fill what a filesystem keeps for root:
/// what is written is for the mount's callers. Programs that are started have it again. Source: kernel `ovl_fill_super`.
pub fn keep_to_quotas() -> Result<()> {
    let mut data = capget()?;
    data[0].effective &= !(1 << CAP_SYS_RESOURCE);
    OWN.set(None);
    capset(&data)
}

/// Whether modes do not keep this process from anything that belongs to its users.
pub fn may_override_modes() -> bool {
    capable(CAP_DAC_OVERRIDE)
}

/// Who changes the bytes of a file, as far as its set-id bits go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// The process. One that is gone, or cannot be told, is in no group and has no capability.
    pub pid: u32,
    /// Whether it may keep set-id bits, where the kernel has looked already.
    pub keeps_set_id: Option<bool>,
}

impl Writer {
    /// Runs `change` of the bytes or the owner of `file`, after which the filesystem has cleared the set-id bits as it would for the writer
    /// itself. `shown` is the group that the writer sees for one on disk.
    /// Source: kernel `setattr_should_drop_suidgid`, `setattr_should_drop_sgid`.
    pub fn run<T>(
        self,
        file: At<'_>,
        shown: impl FnOnce(u32) -> u32,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.keeps_set_id == Some(true) {
            return change();
        }
        let found = stat(file)?;
        // Most files have none.
        if found.mode & (libc::S_ISUID | libc::S_ISGID) == 0 {
            return change();
        }
        let process = Process::look(self.pid);
        if self.keeps_set_id.is_none() && process.has(Capability::Fsetid) {
            return change();
        }
        // A set-group-id bit that is not for executing goes only where a stranger to the group writes.
        let not_for_executing = found.mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID;
        let is_member = not_for_executing && process.is_in(shown(found.gid));
        let (_, own_gid, _) = own()?;
        let gid = if is_member { found.gid } else { own_gid };
        without_fsetid(|| with_fsgid(gid, own_gid, change))
    }
}

/// Runs `change` with this filesystem group, which is `own` otherwise.
fn with_fsgid<T>(gid: u32, own: u32, change: impl FnOnce() -> Result<T>) -> Result<T> {
    if gid == own {
        return change();
    }
    // `without_fsetid`, within which this is called, sets it back, whatever happens.
    // SAFETY: the call touches no memory.
    unsafe { libc::setfsgid(gid) };
    let changed = change();
    // SAFETY: as above.
    unsafe { libc::setfsgid(own) };
    changed
}

/// What /proc tells of a process; of one that is gone nothing. Nothing of any if /proc is that of another pid namespace: there,
/// another process has the number. Source: proc_pid_status(5), `NSpid`.
struct Process {
    status: String,
    in_our_namespace: bool,
}

impl Process {
    fn look(pid: u32) -> Process {
        let status_of = |of: &str| std::fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
        let own = status_of("self");
        let numbers = line(&own, "NSpid").map(str::parse).collect::<std::result::Result<Vec<u32>, _>>();
        if numbers != Ok(vec![std::process::id()]) {
            return Process { status: String::new(), in_our_namespace: false };
        }
        let status = status_of(&pid.to_string());
        let namespace =
            |of: &str| std::fs::metadata(format!("/proc/{of}/ns/user")).map(|facts| facts.ino()).ok();
        let theirs = namespace(&pid.to_string());
        Process { status, in_our_namespace: theirs.is_some() && theirs == namespace("self") }
    }

    fn line(&self, key: &str) -> impl Iterator<Item = &str> {
        line(&self.status, key)
    }

    /// The filesystem group counts, and the supplementary ones.
    fn is_in(&self, gid: u32) -> bool {
        self.line("Gid").skip(3).chain(self.line("Groups")).any(|group| group.parse() == Ok(gid))
    }

    /// A capability in a user namespace of the process' own is worth nothing here.
    fn has(&self, capability: Capability) -> bool {
        let effective = self.line("CapEff").next().and_then(|bits| u64::from_str_radix(bits, 16).ok());
        self.in_our_namespace && effective.is_some_and(|bits| bits & (1 << capability as u32) != 0)
    }
}

/// The words of a line of /proc/PID/status.
fn line<'a>(status: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace()
}

/// A capability that a caller may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// To act as the owner of any file.
    Fowner = 3,
    /// To keep set-id bits.
    Fsetid = CAP_FSETID,
    /// To set the flags that forbid changes.
    LinuxImmutable = 9,
}

/// Whether the process `pid` has a capability that counts here: in the daemon's own user namespace. One that is gone has none.
pub fn has_capability(pid: u32, capability: Capability) -> bool {
    Process::look(pid).has(capability)
}

/// Whether the process `pid` has `gid` among its supplementary groups. No, if that cannot be found out.
pub fn is_in_group(pid: u32, gid: u32) -> bool {
    Process::look(pid).line("Groups").any(|group| group.parse() == Ok(gid))
}

/// Gives this thread a umask of its own and sets it.
pub fn set_thread_umask(umask: u32) -> Result<()> {
    let current = UMASK.get();
    if current == Some(umask) {
        return Ok(());
    }
    if current.is_none() {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
    UMASK.set(Some(umask));
    Ok(())
}

/// Sees to it that what this thread makes next has all bits of `mode`, but for those that the caller's umask takes off while
/// it acts as a caller. The umask of the last caller stays in force where it takes none of them off: most callers have the
/// same, and changing it twice would cost two calls for each object.
pub(super) fn admit(mode: u32) -> Result<()> {
    match UMASK.get() {
        Some(umask) if umask & mode != 0 && !ACTING.get() => set_thread_umask(0),
        _ => Ok(()),
    }
}

/// What this thread takes off the modes of what it makes. It has a umask of its own from now on.
pub fn thread_umask() -> Result<u32> {
    if UMASK.get().is_none() {
        set_thread_umask(0)?;
    }
    Ok(UMASK.get().unwrap_or(0))
}

/// Runs `make` with this umask. What the thread makes for itself after it loses no bits to it: `admit` sees to that.
pub fn with_umask<T>(umask: u32, make: impl FnOnce() -> Result<T>) -> Result<T> {
    set_thread_umask(umask)?;
    ACTING.set(true);
    let made = make();
    ACTING.set(false);
    made
}

/// Runs `make` with the caller's ids and umask. Capabilities stay, but for the one that would keep the set-group-id
/// bit of files in foreign groups. Errors: EPERM if the ids cannot be taken on.
pub fn as_caller<T>(caller: Caller, make: impl FnOnce() -> Result<T>) -> Result<T> {
    with_umask(caller.umask, || with_ids(caller, make))
}

fn with_ids<T>(caller: Caller, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let (uid, gid, capabilities) = own()?;
    if caller.uid == uid && caller.gid == gid {
        return make();
    }
    let restore = Restore { uid, gid, capabilities };
    // SAFETY: the calls touch no memory. The group first: without uid 0 it could not be changed any more.
    unsafe {
        libc::setfsgid(caller.gid);
        libc::setfsuid(caller.uid);
        // A second call with an impossible id changes nothing and tells what is in force.
        if libc::setfsuid(u32::MAX) as u32 != caller.uid || libc::setfsgid(u32::MAX) as u32 != caller.gid {
            return Err(Errno::EPERM);
        }
    }
    // Leaving uid 0 has dropped the filesystem capabilities. The kernel has checked the caller's right to do this on
    // the merged tree, so the way through the upper layer is open.
    let mut kept = capabilities;
    kept[0].effective &= !(1 << CAP_FSETID);
    capset(&kept)?;
    let made = make();
    drop(restore);
    made
}

/// Runs `change` without the power to keep set-id bits, so that the filesystem clears them as it does for an ordinary
/// writer. Does nothing special where the process has no such power.
pub fn without_fsetid<T>(change: impl FnOnce() -> Result<T>) -> Result<T> {
    let (uid, gid, capabilities) = own()?;
    if capabilities[0].effective & (1 << CAP_FSETID) == 0 {
        return change();
    }
    let restore = Restore { uid, gid, capabilities };
    let mut without = capabilities;
    without[0].effective &= !(1 << CAP_FSETID);
    capset(&without)?;
    let changed = change();
    drop(restore);
    changed
}

struct Restore {
    uid: u32,
    gid: u32,
    capabilities: [CapData; 2],
}

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: the calls touch no memory; going back to the process' own ids is always allowed.
        unsafe {
            libc::setfsuid(self.uid);
            libc::setfsgid(self.gid);
        }
        if let Err(errno) = capset(&self.capabilities) {
            // The thread would go on with too little power and refuse what it should do; it never has too much.
            tracing::error!("a worker could not take back its capabilities: {errno}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{At, open, stat};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_made_after_a_caller_keeps_its_mode() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = open::root(temp.path()).expect("root");
        let make = |name: &str| {
            open::create(At::new(dir.as_fd(), name.as_ref()), nix::fcntl::OFlag::O_WRONLY, 0o666).map(drop)
        };
        let mode = |name: &str| stat::stat(At::new(dir.as_fd(), name.as_ref())).expect("stat").mode & 0o7777;
        let (uid, gid, _) = own().expect("own ids");
        as_caller(Caller { uid, gid, umask: 0o777 }, || make("theirs")).expect("create");
        make("ours").expect("create");
        assert_eq!((mode("theirs"), mode("ours")), (0, 0o666));
    }
}
