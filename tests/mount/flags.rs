//! Inode flags: immutable and append-only objects of lower layers, what copy-up keeps of flags, and who may set them.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::common::*;

const IMMUTABLE: i32 = 0x10;
const APPEND: i32 = 0x20;
const KEPT: i32 = 0x08 | 0x40 | 0x80;

/// Objects with flags, which go when the test is over, so that it can be cleaned up.
struct Flagged(Vec<PathBuf>);

impl Flagged {
    fn set(&mut self, path: PathBuf, flags: i32) -> Result<(), Errno> {
        let file = ro(&path);
        sys::setflags(&file, sys::getflags(&file)? | flags)?;
        self.0.push(path);
        Ok(())
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        for path in self.0.iter().rev().filter(|path| path.exists()) {
            let file = ro(path);
            let _ = sys::setflags(&file, sys::getflags(&file).unwrap_or(0) & !(IMMUTABLE | APPEND));
        }
    }
}

/// A mount over `imm` and `app`, files, and the directories `imm.d` and `app.d` with a file `f`, all with their flags in the lower layer.
fn fixture() -> Option<(Fixture, Flagged)> {
    let f = Fixture::new(1).and_then(Fixture::need_root)?;
    f.lower(0)
        .file("imm", "low")
        .file("app", "low")
        .file("imm.d/f", "low")
        .file("app.d/f", "low")
        .file("plain", "x")
        .dir("d");
    let mut flagged = Flagged(Vec::new());
    for (name, flag) in [("imm", IMMUTABLE), ("app", APPEND), ("imm.d", IMMUTABLE), ("app.d", APPEND)] {
        if let Err(errno) = flagged.set(f.low(0, name), flag) {
            println!("skipped: the filesystem has no inode flags: {errno}");
            return None;
        }
    }
    Some((f, flagged))
}

fn has(path: impl AsRef<Path>, flag: i32) -> bool {
    sys::getflags(&ro(path)).unwrap() & flag != 0
}

/// All that the flags forbid, as on the lower filesystem itself.
#[track_caller]
fn is_protected(m: &Path) {
    let eperm = Err(Errno::EPERM);
    for (name, is_app) in [("imm", false), ("app", true)] {
        let p = m.join(name);
        assert!(has(&p, if is_app { APPEND } else { IMMUTABLE }), "{name}");
        assert_eq!(sys::open(&p, libc::O_WRONLY, 0).map(drop), eperm, "{name}: write");
        assert_eq!(
            sys::open(&p, libc::O_RDWR | libc::O_APPEND | libc::O_TRUNC, 0).map(drop),
            eperm,
            "{name}: O_TRUNC"
        );
        assert_eq!(sys::truncate(&p, 0), eperm, "{name}: truncate");
        assert_eq!(sys::chmod(&p, 0o600), eperm, "{name}: chmod");
        assert_eq!(sys::lchown(&p, 1, 1), eperm, "{name}: chown");
        assert_eq!(sys::utimens(&p, (1, 1), (1, 1)), eperm, "{name}: utimens");
        assert_eq!(sys::setxattr(&p, "user.a", b"1", 0), eperm, "{name}: setxattr");
        assert_eq!(sys::unlink(&p), eperm, "{name}: unlink");
        assert_eq!(sys::link(&p, m.join("d/linked")), eperm, "{name}: link");
        assert_eq!(sys::rename(&p, m.join("d/moved")), eperm, "{name}: rename");
        assert_eq!(sys::rename(m.join("plain"), &p), eperm, "{name}: replace");
        assert_eq!(sys::renameat2(m.join("plain"), &p, libc::RENAME_EXCHANGE), eperm, "{name}: exchange");
        let append = sys::open(&p, libc::O_WRONLY | libc::O_APPEND, 0).map(drop);
        assert_eq!(append, if is_app { Ok(()) } else { eperm }, "{name}: append");
    }
    for (name, is_app) in [("imm.d", false), ("app.d", true)] {
        let d = m.join(name);
        let made = if is_app { Ok(()) } else { eperm };
        let new = format!("new-{}", names(&d).len());
        assert_eq!(sys::mkdir(d.join(&new), 0o755), made, "{name}: mkdir");
        assert_eq!(sys::link(m.join("plain"), d.join(format!("{new}.l"))), made, "{name}: link into");
        assert_eq!(sys::unlink(d.join("f")), eperm, "{name}: unlink");
        assert_eq!(sys::rename(d.join("f"), m.join("d/moved")), eperm, "{name}: rename from");
        assert_eq!(sys::rename(m.join("plain"), d.join("f")), eperm, "{name}: replace in");
        assert_eq!(sys::chmod(&d, 0o700), eperm, "{name}: chmod");
        assert_eq!(sys::rename(&d, m.join("d/dir")), eperm, "{name}: rename");
        assert_eq!(sys::rmdir(&d), eperm, "{name}: rmdir");
    }
    assert_eq!(names(m.join("d")), [""; 0]);
}

#[test]
fn what_is_immutable_or_append_only_below_is_so_in_the_mount() {
    let Some((mut f, _flagged)) = fixture() else { return };
    f.mount();
    let before = sys::getflags(&ro(f.low(0, "imm"))).unwrap();
    is_protected(&f.p(""));
    assert!(!f.in_upper("imm") && !f.in_upper("imm.d"));
    // What is inside an immutable directory can be written: the directory comes up, and stays what it is.
    fs::write(f.p("imm.d/f"), "new").unwrap();
    sys::open(f.p("app"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap().write_all_at(b"er", 0).unwrap();
    assert!(f.in_upper("imm.d") && f.in_upper("app"));
    for (name, letter) in [("imm.d", b"i"), ("app", b"a"), ("app.d", b"a")] {
        assert_eq!(sys::getxattr(f.up(name), overlay_xattr("protattr")), Ok(letter.to_vec()), "{name}");
        assert!(!has(f.up(name), IMMUTABLE | APPEND), "{name}: or nothing could be put into it");
    }
    f.check(|m| {
        is_protected(m);
        assert_eq!((text(m.join("imm.d/f")), text(m.join("app"))), ("new".into(), "lower".into()));
    });
    assert_eq!(sys::getflags(&ro(f.low(0, "imm"))).unwrap(), before);
    // Taken away, they are gone.
    for name in ["imm", "app", "imm.d", "app.d"] {
        let file = ro(f.p(name));
        sys::setflags(&file, sys::getflags(&file).unwrap() & !(IMMUTABLE | APPEND)).unwrap();
        assert!(!has(f.p(name), IMMUTABLE | APPEND), "{name}");
    }
    sys::unlink(f.p("imm")).unwrap();
    fs::write(f.p("app"), "short").unwrap();
    sys::unlink(f.p("imm.d/f")).unwrap();
    f.check(|m| {
        assert!(!has(m.join("imm.d"), IMMUTABLE | APPEND));
        assert_eq!((names(m.join("imm.d")), text(m.join("app"))), (vec![], "short".into()));
    });
}

#[test]
fn other_flags_come_along() {
    let Some((mut f, mut flagged)) = fixture() else { return };
    for name in ["plain", "d"] {
        flagged.set(f.low(0, name), KEPT).unwrap();
    }
    f.mount();
    fs::write(f.p("plain"), "new").unwrap();
    sys::mkdir(f.p("d/sub"), 0o755).unwrap();
    f.check(|m| {
        for name in ["plain", "d"] {
            assert_eq!(sys::getflags(&ro(m.join(name))).unwrap() & KEPT, KEPT, "{name}");
        }
    });
}

/// Flags that one of the two has set bind the other.
#[test]
fn the_kernel_and_stratafs_read_each_others_flags() {
    let Some((mut f, _flagged)) =
        fixture().and_then(|(f, flagged)| Some((f.departs("it is the kernel")?, flagged)))
    else {
        return;
    };
    f.mount();
    let file = ro(f.p("plain"));
    sys::setflags(&file, sys::getflags(&file).unwrap() | IMMUTABLE).unwrap();
    drop(file);
    f.unmount();
    let at = f.dir().join("kernel");
    fs::create_dir(&at).unwrap();
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        f.low(0, "").display(),
        f.up("").display(),
        f.work("").display()
    );
    run(std::process::Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(&at)).ok();
    let mounted = Umount(at.clone());
    assert!(has(at.join("plain"), IMMUTABLE));
    assert_eq!(sys::unlink(at.join("plain")), Err(Errno::EPERM));
    let file = ro(at.join("plain"));
    sys::setflags(&file, sys::getflags(&file).unwrap() & !IMMUTABLE).unwrap();
    let dir = ro(at.join("d"));
    sys::setflags(&dir, sys::getflags(&dir).unwrap() | APPEND).unwrap();
    drop((file, dir, mounted));
    assert!(eventually(LIMIT, || mounts_at(&at).is_empty()));
    f.mount();
    assert!(!has(f.p("plain"), IMMUTABLE) && has(f.p("d"), APPEND));
    fs::write(f.p("plain"), "free").unwrap();
    assert_eq!(sys::chmod(f.p("d"), 0o700), Err(Errno::EPERM));
    let dir = ro(f.p("d"));
    sys::setflags(&dir, sys::getflags(&dir).unwrap() & !APPEND).unwrap();
}

/// The request for programs of 32 bits, made by one of 64: the kernel passes it on without a look at who asks.
#[test]
fn flags_are_set_by_who_may() {
    let Some((mut f, _flagged)) =
        fixture().and_then(|(f, flagged)| Some((f.departs("it has no grafts")?, flagged)))
    else {
        return;
    };
    f.source("data").file("root", "x").mode(0o644);
    f.bind("data", "/data", "");
    f.mount();
    const SET32: libc::c_ulong = 0x4004_6602;
    let flags = IMMUTABLE | APPEND | KEPT;
    for name in ["plain", "imm", "data/root"] {
        let path = f.p(name);
        let before = sys::getflags(&ro(&path)).unwrap();
        for uid in [1000, 0] {
            let done = as_user(uid, uid, || {
                let file = ro(&path);
                let done = unsafe { libc::ioctl(file.as_raw_fd(), SET32, &raw const flags) };
                let by_the_book = if uid == 0 { Err(Errno::EPERM) } else { sys::setflags(&file, flags) };
                (if done == 0 { Ok(()) } else { Err(Errno::last()) }, by_the_book)
            });
            assert!(matches!(done.0, Err(Errno::ENOTTY | Errno::EPERM)), "{name} by {uid}: {done:?}");
            assert!(done.1.is_err(), "{name} by {uid}");
            assert_eq!(sys::getflags(&ro(&path)).unwrap(), before, "{name} by {uid}");
        }
        assert!(!f.in_upper(name), "{name} was copied up");
    }
    // In a user namespace of one's own every capability is there, and none counts.
    let script = "import fcntl, os, struct, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\n\
                  for cmd in (0x40046602, 0x40086602):\n  try:\n    fcntl.ioctl(fd, cmd, struct.pack('L', 0x30))\n    print('set')\n  except OSError as e:\n    print('refused')";
    let mut attacker = std::process::Command::new("setpriv");
    attacker.args([
        "--reuid",
        "1000",
        "--regid",
        "1000",
        "--clear-groups",
        "unshare",
        "-Ur",
        "python3",
        "-c",
        script,
    ]);
    let done = run(attacker.arg(f.p("plain")));
    assert_eq!((done.code, done.out.as_str()), (Some(0), "refused\nrefused\n"), "{done:?}");
    assert!(!has(f.p("plain"), IMMUTABLE | APPEND));
}

/// Source: kernel `ovl_make_workdir`: where nothing can be made in the workdir, the mount is read-only; xfstests overlay/035.
#[test]
fn an_immutable_workdir_makes_the_mount_read_only() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("f", "low");
    f.upper().file("u", "upper");
    let mut flagged = Flagged(Vec::new());
    if let Err(errno) = flagged.set(f.work(""), IMMUTABLE) {
        return println!("skipped: the filesystem has no inode flags: {errno}");
    }
    f.kept.push(f.up(""));
    f.note_lowers();
    let done = run(&mut f.command(&[]));
    f.set_mounted(true);
    assert!(kernel_oracle() || done.err.contains("is immutable"), "{done:?}");
    assert_eq!((text(f.p("f")), text(f.p("u"))), ("low".into(), "upper".into()));
    assert_eq!(err(fs::write(f.p("new"), "x")), Errno::EROFS);
    assert_eq!(err(fs::write(f.p("f"), "x")), Errno::EROFS);
    let remounted =
        run(std::process::Command::new(program()).args(["mount", "-o", "remount,rw"]).arg(f.p("")));
    assert!(kernel_oracle() || remounted.code == Some(1), "{remounted:?}");
    f.unmount();
}
