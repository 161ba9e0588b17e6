//! Layers and sources on filesystems that lack something: ACLs, user attributes, a settled size.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::*;

/// A ramfs at a directory of the fixture: it has neither ACLs nor user attributes. Nothing, with a word, where it may not be
/// mounted.
fn ramfs(at: PathBuf) -> Option<Umount> {
    if mode() != Mode::Root {
        println!("skipped: only root mounts a ramfs");
        return None;
    }
    fs::create_dir_all(&at).unwrap();
    run(Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(&at)).ok();
    sys::chmod(&at, 0o755).unwrap();
    Some(Umount(at))
}

fn fill(at: &Path) {
    Layer::at(at.to_owned()).file("open", "for all").mode(0o644).file("closed", "for root").mode(0o600);
    Layer::at(at.to_owned())
        .file("dir/inner", "inner")
        .mode(0o664)
        .file("group", "for a group")
        .owner(1001, 1002)
        .mode(0o640);
}

/// Everybody reads what the mode lets them read, as on the filesystem itself.
#[track_caller]
fn is_open(m: &Path) {
    assert_eq!(names(m), ["closed", "dir", "group", "open"]);
    for (uid, gid) in [(0, 0), (1001, 1001), (1003, 1002), (1004, 1004)] {
        let read = |name: &str| as_user(uid, gid, || sys::open(m.join(name), libc::O_RDONLY, 0).map(drop));
        assert_eq!((read("open"), read("dir/inner")), (Ok(()), Ok(())), "uid {uid}");
        assert_eq!(read("closed"), if uid == 0 { Ok(()) } else { Err(Errno::EACCES) }, "uid {uid}");
        assert_eq!(read("group"), if uid == 1004 { Err(Errno::EACCES) } else { Ok(()) }, "uid {uid}");
        let write = as_user(uid, gid, || sys::open(m.join("open"), libc::O_WRONLY, 0).map(drop));
        assert_eq!(write, if uid == 0 { Ok(()) } else { Err(Errno::EACCES) }, "uid {uid}");
    }
}

#[test]
fn a_layer_without_acls_is_open_as_its_modes_say() {
    let Some(mut f) = Fixture::new(1) else { return };
    let Some(_lower) = ramfs(f.low(0, "")) else { return };
    fill(&f.low(0, ""));
    f.mount();
    f.check(is_open);
    fs::write(f.p("open"), "changed").unwrap();
    assert_eq!(sys::setxattr(f.p("dir"), "user.new", b"x", libc::XATTR_REPLACE), Err(Errno::ENODATA));
    sys::setxattr(f.p("dir"), "user.new", b"of the upper layer", libc::XATTR_CREATE).unwrap();
    f.check(is_open);
    f.unmount();
}

#[test]
fn a_bind_without_acls_is_open_as_its_modes_say() {
    let Some(mut f) = Fixture::new(1) else { return };
    let Some(_source) = ramfs(f.host("ram")) else { return };
    fill(&f.host("ram"));
    f.bind("ram", "/ram", "");
    f.mount();
    f.check(|m| is_open(&m.join("ram")));
    // What is made there, and what the filesystem refuses.
    fs::write(f.p("ram/new"), "x").unwrap();
    sys::mkdir(f.p("ram/made"), 0o755).unwrap();
    sys::rename(f.p("ram/new"), f.p("ram/made/new")).unwrap();
    assert_eq!(text(f.host("ram/made/new")), "x");
    assert_eq!(
        sys::setxattr(f.p("ram/made"), "user.k", b"v", 0),
        sys::setxattr(f.host("ram/made"), "user.k", b"v", 0)
    );
    let run_here =
        |at: &Path| run(Command::new("setfacl").args(["-m", "u:1004:r"]).arg(at.join("closed"))).code;
    assert_eq!(run_here(&f.p("ram")), run_here(&f.host("ram")));
    f.unmount();
}

#[test]
fn proc_and_sys_can_be_attached_and_read() {
    let Some(mut f) = Fixture::new(1) else { return };
    for name in ["/proc", "/sys"] {
        f.args.extend(["-v".into(), format!("{name}:{name}:ro").into()]);
    }
    f.mount();
    f.check(|m| {
        for file in ["proc/version", "proc/sys/kernel/ostype", "sys/kernel/fscaps"] {
            let of_host = Path::new("/").join(file);
            if of_host.exists() {
                assert_eq!(text(m.join(file)), text(of_host), "{file}");
            }
        }
        assert!(names(m.join("sys")).contains(&"kernel".to_owned()));
        if mode() == Mode::Root {
            let read = as_user(1001, 1001, || fs::read_to_string(m.join("proc/version")));
            assert_eq!(read.unwrap(), text("/proc/version"));
        }
    });
}
