//! An older kernel, as far as a filter of system calls can make one of this: its missing calls answer ENOSYS, and what FUSE offers at
//! INIT is cut down to what that kernel offers.
//!
//! The filter holds for this test program and all that it starts. It answers the calls; the one read(2) of each daemon that brings
//! INIT is made here, in its place, and the message is changed before it gets it. Source: seccomp_unotify(2).

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Once;

/// What a kernel has.
#[derive(Debug)]
struct Kernel {
    name: &'static str,
    /// Minor version of the protocol, and the flags that it offers at INIT. Source: `FUSE_KERNEL_MINOR_VERSION` and `FUSE_*` of
    /// include/uapi/linux/fuse.h at that version.
    minor: u32,
    flags: u64,
    missing: &'static [&'static [libc::c_long]],
}

/// Calls that came after Linux 6.1: fchmodat2, statmount, listmount, setxattrat, getxattrat, listxattrat, removexattrat,
/// open_tree_attr. The later ones have no name in libc. Source: include/uapi/asm-generic/unistd.h.
const AFTER_6_1: &[libc::c_long] = &[libc::SYS_fchmodat2, 457, 458, 463, 464, 465, 466, 467];

/// Those that filters of container engines keep away, too.
const FILTERED: &[libc::c_long] = &[libc::SYS_fsopen, libc::SYS_mount_setattr, libc::SYS_openat2];

const AFTER_5_4: &[libc::c_long] = &[
    libc::SYS_faccessat2,
    libc::SYS_close_range,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fspick,
    libc::SYS_fsmount,
];

const KERNELS: [Kernel; 2] = [
    // Debian 12.
    Kernel { name: "6.1", minor: 37, flags: 0x3_7fff_ffff, missing: &[AFTER_6_1, FILTERED] },
    Kernel { name: "5.4", minor: 31, flags: 0x07ff_ffff, missing: &[AFTER_6_1, FILTERED, AFTER_5_4] },
];

/// Bytes that crate fuser asks for when it reads a request.
const REQUEST_ROOM: u32 = (16 << 20) + 4096;

/// The kernel that this run is on, if `STRATAFS_TEST_KERNEL` names an older one.
pub fn older_kernel() -> Option<&'static str> {
    chosen().map(|kernel| kernel.name)
}

fn chosen() -> Option<&'static Kernel> {
    let name = std::env::var("STRATAFS_TEST_KERNEL").ok().filter(|name| !name.is_empty())?;
    let known = KERNELS.iter().find(|kernel| kernel.name == name);
    Some(
        known.unwrap_or_else(|| {
            panic!("STRATAFS_TEST_KERNEL={name}: {:?}", KERNELS.map(|kernel| kernel.name))
        }),
    )
}

/// From now on this program, and all that it starts, is on the older kernel that was asked for.
pub fn become_older() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let Some(kernel) = chosen() else { return };
        let listener = filter(kernel);
        std::thread::spawn(move || {
            let mut met = HashSet::new();
            while let Some(call) = receive(&listener) {
                serve(&listener, kernel, &call, &mut met);
            }
        });
    });
}

fn filter(kernel: &Kernel) -> OwnedFd {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let room = (std::mem::offset_of!(libc::seccomp_data, args) + 2 * 8) as u32;
    let mut program = vec![line(LOAD, 0, 0, number)];
    for call in kernel.missing.iter().copied().flatten() {
        program.push(line(EQUAL, 0, 1, *call as u32));
        program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    program.extend([
        line(EQUAL, 0, 3, libc::SYS_read as u32),
        line(LOAD, 0, 0, room),
        line(EQUAL, 0, 1, REQUEST_ROOM),
        line(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // All threads of this program, whichever starts a daemon.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        | libc::SECCOMP_FILTER_FLAG_TSYNC
        | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
    let listener =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    assert!(listener >= 0, "seccomp: {}: an older kernel is made by root", std::io::Error::last_os_error());
    unsafe { OwnedFd::from_raw_fd(listener as i32) }
}

const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) } == 0 {
            return Some(call);
        }
        match std::io::Error::last_os_error().raw_os_error() {
            // ENOENT: the caller ended meanwhile.
            Some(libc::EINTR | libc::ENOENT) => {}
            _ => return None,
        }
    }
}

/// Makes the first read of a daemon for it; lets it make the others.
fn serve(listener: &OwnedFd, kernel: &Kernel, call: &libc::seccomp_notif, met: &mut HashSet<(u32, String)>) {
    let read = if met.insert((call.pid, began(call.pid))) { init_for(kernel, call) } else { None };
    let mut answer: libc::seccomp_notif_resp = unsafe { std::mem::zeroed() };
    answer.id = call.id;
    match read {
        Some(read) => answer.val = read as i64,
        None => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    }
    // Who has ended meanwhile needs no answer.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) };
}

/// When a thread began, which tells it from the next one with its number.
fn began(thread: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).unwrap_or_default();
    let facts = stat.rsplit_once(") ").map_or("", |(_, facts)| facts);
    facts.split(' ').nth(19).unwrap_or_default().to_owned()
}

/// Reads INIT from the caller's descriptor, and gives it to the caller as an older kernel would have written it. How many bytes
/// it has; nothing if that is not what the caller is about to read.
fn init_for(kernel: &Kernel, call: &libc::seccomp_notif) -> Option<usize> {
    const OPCODE: usize = 4;
    const FUSE_INIT: u32 = 26;
    // struct fuse_in_header, then major, minor, max_readahead, flags, flags2.
    const MINOR: usize = 40 + 4;
    const FLAGS: usize = 40 + 12;
    const FLAGS2: usize = 40 + 16;
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, call.pid, 0) };
    if process < 0 {
        return None; // A thread that is not the first of its process serves requests.
    }
    let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
    // This program is under the filter itself.
    let path = format!("/proc/{}/fd/{}", call.pid, call.data.args[0]);
    if !std::fs::read_link(path).is_ok_and(|to| to.ends_with("fuse")) {
        return None;
    }
    let device =
        unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), call.data.args[0] as i32, 0) };
    assert!(device >= 0, "pidfd_getfd: {}", std::io::Error::last_os_error());
    let device = unsafe { File::from_raw_fd(device as i32) };
    let mut message = vec![0u8; 1 << 20];
    let read = std::io::Read::read(&mut &device, &mut message).ok()?;
    let word = |message: &[u8], at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
    assert_eq!(word(&message, OPCODE), FUSE_INIT, "the first request of a mount");
    let older = [
        (MINOR, word(&message, MINOR).min(kernel.minor)),
        (FLAGS, word(&message, FLAGS) & kernel.flags as u32),
        (FLAGS2, word(&message, FLAGS2) & (kernel.flags >> 32) as u32),
    ];
    for (at, value) in older {
        message[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let local = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: read };
    let remote = libc::iovec { iov_base: call.data.args[1] as *mut libc::c_void, iov_len: read };
    let written = unsafe { libc::process_vm_writev(call.pid as i32, &local, 1, &remote, 1, 0) };
    assert_eq!(written, read as isize, "process_vm_writev: {}", std::io::Error::last_os_error());
    Some(read)
}
