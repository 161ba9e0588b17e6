//! Who changes bytes or owner, and which set-id bits go: each caller, each call and each mode, beside the same on the filesystem
//! itself.

use std::os::fd::AsRawFd;
use std::path::Path;

use crate::common::*;

const OWNER: u32 = 1000;
const GROUP: u32 = 2000;

#[derive(Debug, Clone, Copy)]
enum Who {
    Owner,
    /// By the filesystem group.
    Member,
    /// By a supplementary group.
    Supplementary,
    Other,
    Root,
    RootWithoutFsetid,
}

const ALL: [Who; 6] =
    [Who::Owner, Who::Member, Who::Supplementary, Who::Other, Who::Root, Who::RootWithoutFsetid];

/// Runs `call` on a thread that is this caller.
fn by<T: Send>(who: Who, call: impl FnOnce() -> T + Send) -> T {
    let (uid, gid) = match who {
        Who::Owner => (OWNER, 1000),
        Who::Member => (1001, GROUP),
        Who::Supplementary | Who::Other => (1002, 1002),
        Who::Root | Who::RootWithoutFsetid => (0, 0),
    };
    let call = move || {
        if let Who::RootWithoutFsetid = who {
            const FSETID: u32 = 4;
            // Version 3, this thread; two words of effective, permitted, inheritable.
            let (mut header, mut data) = ([0x2008_0522u32, 0], [0u32; 6]);
            unsafe {
                assert_eq!(libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()), 0);
                data[0] &= !(1 << FSETID);
                assert_eq!(libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()), 0);
            }
        }
        call()
    };
    match who {
        Who::Supplementary => as_user_with(uid, gid, &[GROUP], call),
        Who::Root | Who::RootWithoutFsetid => as_user_with(0, 0, &[], call),
        _ => as_user(uid, gid, call),
    }
}

fn as_user_with<T: Send>(uid: u32, gid: u32, groups: &[u32], call: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unsafe {
                assert_eq!(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), 0);
                assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
                assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
            }
            call()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

type Call = (&'static str, fn(&Path) -> Result<(), Errno>);

fn open_to_write(path: &Path, more: i32) -> Result<File, Errno> {
    sys::open(path, libc::O_RDWR | more, 0)
}

const CALLS: [Call; 12] = [
    ("write", |path| no(open_to_write(path, 0)?.write_all_at(b"x", 0))),
    ("write nothing", |path| {
        let file = open_to_write(path, 0)?;
        assert_eq!(unsafe { libc::pwrite(file.as_raw_fd(), [0u8; 0].as_ptr().cast(), 0, 0) }, 0);
        Ok(())
    }),
    ("append", |path| no(open_to_write(path, libc::O_APPEND)?.write_all_at(b"x", 0))),
    ("truncate", |path| sys::truncate(path, 2)),
    ("truncate to nothing", |path| sys::truncate(path, 0)),
    ("truncate to the same", |path| sys::truncate(path, 4)),
    ("ftruncate", |path| no(open_to_write(path, 0)?.set_len(3))),
    ("O_TRUNC", |path| open_to_write(path, libc::O_TRUNC).map(drop)),
    ("fallocate", |path| sys::fallocate(&open_to_write(path, 0)?, 0, 0, 8192)),
    ("copy_file_range", |path| {
        let from = sys::open(path.with_file_name("from"), libc::O_RDONLY, 0)?;
        sys::copy_file_range(&from, 0, &open_to_write(path, 0)?, 0, 4).map(drop)
    }),
    ("chgrp to a group of one's own", |path| sys::lchown(path, u32::MAX, 1000)),
    ("chmod to what it is", |path| sys::chmod(path, stat(path).mode() & 0o7777)),
];

/// With and without execution by the group; all may write, so that nothing but set-id bits decides.
const MODES: [u32; 7] = [0o6777, 0o6767, 0o2777, 0o2767, 0o4777, 0o6666, 0o777];

/// Those of this run. Before Linux 5.11 the kernel clears the bits itself, with a rule that leaves a set-group-id bit without group
/// execute permission. Source: kernel `fuse_setattr`, `should_remove_suid`.
fn modes() -> impl Iterator<Item = u32> {
    let all = older_kernel() != Some("5.4");
    MODES.into_iter().filter(move |mode| all || mode & 0o2010 != 0o2000)
}

fn name(mode: u32, who: Who, call: &str) -> String {
    format!("{mode:o}-{who:?}-{}", call.replace(' ', "_"))
}

fn fill(mut layer: Layer) {
    layer = layer.file("from", "from").mode(0o666);
    for mode in modes() {
        for who in ALL {
            for (call, _) in CALLS {
                layer = layer.file(name(mode, who, call), "data").owner(OWNER, GROUP).mode(mode);
            }
        }
    }
}

/// Makes each call by each caller, on each file; what it answered, and the mode after it.
fn all_calls(at: &Path, held: bool) -> Vec<(String, Result<(), Errno>, u32)> {
    let mut outcomes = Vec::new();
    for mode in modes() {
        for who in ALL {
            for (call, make) in CALLS {
                let name = name(mode, who, call);
                let path = at.join(&name);
                // Somebody reads it all the time.
                let reader = held.then(|| by(Who::Other, || ro(&path)));
                let answer = by(who, || make(&path));
                outcomes.push((name, answer, stat(&path).mode() & 0o7777));
                drop(reader);
            }
        }
    }
    outcomes
}

#[track_caller]
fn compare(
    at: &str,
    expected: &[(String, Result<(), Errno>, u32)],
    found: &[(String, Result<(), Errno>, u32)],
) {
    let differences: Vec<String> = expected
        .iter()
        .zip(found)
        .filter(|(expected, found)| expected != found)
        .map(|(expected, found)| {
            format!("{}: {:?} {:o}, not {:?} {:o}", found.0, found.1, found.2, expected.1, expected.2)
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{at}, {} of {}:\n{}",
        differences.len(),
        expected.len(),
        differences.join("\n")
    );
}

#[test]
fn set_id_bits_go_as_on_the_filesystem_itself() {
    let Some(mut f) =
        Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("it has no grafts"))
    else {
        return;
    };
    for held in [false, true] {
        let plain = if held { "plain-held" } else { "plain" };
        fill(f.source(plain));
    }
    for dir in ["low", "low-held"] {
        fs::create_dir(f.low(0, dir)).unwrap();
        fill(Layer::at(f.low(0, dir)));
        let up = dir.replace("low", "up");
        fs::create_dir(f.up(&up)).unwrap();
        fill(Layer::at(f.up(&up)));
        let data = dir.replace("low", "data");
        fill(f.source(&data));
        f.bind(&data, &format!("/{data}"), "");
    }
    f.mount();
    let plain = [all_calls(&f.host("plain"), false), all_calls(&f.host("plain-held"), true)];
    for (held, expected) in [false, true].into_iter().zip(&plain) {
        for at in ["low", "up", "data"] {
            let at = if held { format!("{at}-held") } else { at.to_owned() };
            compare(&at, expected, &all_calls(&f.p(&at), held));
        }
    }
    f.remount();
    for at in ["low", "up"] {
        for (name, _, mode) in &plain[0] {
            assert_eq!(stat(f.p(at).join(name)).mode() & 0o7777, *mode, "{at}/{name}");
        }
    }
}

/// A reader of another name has nothing to do with who writes.
#[test]
fn roots_write_keeps_the_bits_of_a_file_that_another_user_reads() {
    for options in [None, Some("index=off")] {
        let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
        f.lower(0).file("b", "data").mode(0o4755);
        f.options.extend(options.map(str::to_owned));
        f.mount();
        sys::link(f.p("b"), f.p("c")).unwrap();
        let reader = as_user(1000, 1000, || ro(f.p("c")));
        sys::open(f.p("c"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap().write_all_at(b"x", 0).unwrap();
        assert_eq!(through(&reader), b"datax");
        drop(reader);
        f.check(|m| assert_eq!(stat(m.join("c")).mode() & 0o7777, 0o4755));
    }
}
