//! Acting as another user, on one thread alone.

#![allow(unsafe_code)]

use nix::errno::Errno;

/// No change of an id.
const SAME: libc::c_long = -1;
/// The group of all ordinary users of the model.
pub const GROUP: u32 = 1000;

/// Gives this thread an umask of its own and takes other groups than its own away. For good.
pub fn settle() {
    // SAFETY: both change this thread alone; the list is empty.
    let done = unsafe {
        [
            libc::syscall(libc::SYS_unshare, libc::c_long::from(libc::CLONE_FS)),
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()),
        ]
    };
    assert_eq!(done, [0, 0], "{}", Errno::last());
}

/// Runs `act` as `uid` with this umask. An ordinary user has no capabilities meanwhile.
pub fn acting<T>(uid: u32, umask: u32, act: impl FnOnce() -> T) -> T {
    // SAFETY: takes no pointer.
    unsafe { libc::umask(umask) };
    if uid == 0 {
        return act();
    }
    become_user(uid, GROUP);
    let done = act();
    become_user(0, 0);
    done
}

/// The raw calls change this thread only; those of libc would change them all.
fn become_user(uid: u32, gid: u32) {
    let user = || unsafe { libc::syscall(libc::SYS_setresuid, SAME, libc::c_long::from(uid), SAME) };
    let group = || unsafe { libc::syscall(libc::SYS_setresgid, SAME, libc::c_long::from(gid), SAME) };
    // Who is no longer root may not change the group.
    let done = if uid == 0 { (user(), group()) } else { (group(), user()) };
    assert_eq!(done, (0, 0), "becoming {uid}:{gid}: {}", Errno::last());
}
