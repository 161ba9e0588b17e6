//! Programs that mount for people: mount(8) and fstab through mount.fuse3, podman, containerd, with their exact calls.
//! Source: libfuse `util/mount.fuse.c`; containers/storage `drivers/overlay/overlay.go`; containerd
//! `fuse-overlayfs-snapshotter`.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::common::*;

fn fixture() -> Option<Fixture> {
    let f = Fixture::new(2).and_then(|f| f.departs("it has no mount program"))?;
    f.lower(0).file("d/a", "top").whiteout("gone");
    f.lower(1).file("d/a", "below").file("d/b", "below").file("gone", "below");
    Some(f)
}

/// Where mount(8) and its helper may be called and the helper is there.
fn helped() -> Option<Fixture> {
    let f = fixture().and_then(Fixture::need_root)?;
    if Path::new("/sbin/mount.fuse3").exists() {
        return Some(f);
    }
    println!("skipped: no /sbin/mount.fuse3");
    None
}

/// Puts the program where mount(8) looks, which has a search path of its own, by `name`. Only this test sees it there: it
/// has a mount namespace of its own.
pub fn install(f: &Fixture, name: &str) {
    let bin = f.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(program(), bin.join(name)).unwrap();
    run(Command::new("mount").arg("--bind").arg(&bin).arg("/usr/local/bin")).ok();
}

pub fn layers(f: &Fixture) -> String {
    let [top, below, upper, work] =
        [f.low(0, ""), f.low(1, ""), f.up(""), f.work("")].map(|p| p.display().to_string());
    format!("lowerdir={top}:{below},upperdir={upper},workdir={work}")
}

#[track_caller]
fn silently(f: &mut Fixture, command: &mut Command) {
    f.note_lowers();
    let done = run(command);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "", ""), "{command:?}");
    assert_eq!(mounts_at(&f.p("")).len(), 1);
    f.set_mounted(true);
    // Another program of the same name would mount, too.
    let exe = fs::read_link(format!("/proc/{}/exe", served_by(&f.p("")))).unwrap();
    assert_eq!(exe, program().canonicalize().unwrap(), "{command:?}");
}

/// The pid that `stratafs ls` names for a mount.
#[track_caller]
fn served_by(at: &Path) -> u32 {
    let list = run(Command::new(program()).arg("ls")).ok().out;
    let line = list.lines().find(|line| line.ends_with(&format!(" {}", at.display())));
    let pid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    pid.unwrap_or_else(|| panic!("no daemon of {}:\n{list}", at.display()))
}

#[track_caller]
fn works(f: &mut Fixture) {
    assert_eq!(names(f.p("d")), ["a", "b"]);
    assert_eq!(text(f.p("d/a")), "top");
    assert_eq!(missing(f.p("gone")), Errno::ENOENT);
    fs::write(f.p("d/b"), "new").unwrap();
    f.check(|m| assert_eq!(text(m.join("d/b")), "new"));
    f.unmount();
}

/// Unmounts as the caller does, not by `stratafs umount`.
#[track_caller]
fn gone_by(f: &mut Fixture, command: &mut Command) {
    let at = f.p("");
    let exe = format!("/proc/{}/exe", served_by(&at));
    run(command).ok();
    assert!(eventually(LIMIT, || fs::read_link(&exe).is_err()), "the daemon outlives {command:?}");
    assert_eq!(mounts_at(&at), []);
    f.after_unmount();
}

#[test]
fn mount_by_type() {
    let Some(mut f) = helped() else { return };
    install(&f, "stratafs");
    let (list, at) = (layers(&f), f.p(""));
    silently(&mut f, Command::new("mount").args(["-t", "fuse.stratafs", "overlay", "-o", &list]).arg(&at));
    assert_eq!(mounts_at(&at)[0].1, "fuse.stratafs");
    assert_eq!(text(at.join("d/a")), "top");
    gone_by(&mut f, Command::new("umount").arg(&at));
    let done =
        run(Command::new("mount").args(["-t", "fuse.stratafs", "x", "-o", "lowerdir=/nowhere"]).arg(&at));
    assert!(
        done.code != Some(0) && done.err.contains("/nowhere") && done.err.contains("does not exist"),
        "{done:?}"
    );
    assert_eq!(mounts_at(&at), []);
}

#[test]
fn a_line_of_fstab() {
    let Some(mut f) = helped() else { return };
    install(&f, "stratafs");
    let (at, fstab) = (f.p(""), f.dir().join("fstab"));
    for line in [
        "overlay AT fuse.stratafs noauto,nofail,x-systemd.automount,LIST 0 0",
        "stratafs#overlay AT fuse noatime,LIST 0 0",
    ] {
        let line = line.replace("AT", at.to_str().unwrap()).replace("LIST", &layers(&f));
        fs::write(&fstab, line + "\n").unwrap();
        silently(&mut f, Command::new("mount").arg("--fstab").arg(&fstab).arg(&at));
        assert_eq!(text(at.join("d/a")), "top");
        gone_by(&mut f, Command::new("umount").arg(&at));
    }
    let line = format!("overlay {} fuse.stratafs {} 0 0\n", at.display(), layers(&f));
    fs::write(&fstab, line).unwrap();
    for _ in 0..2 {
        // The second finds it mounted and leaves it alone.
        run(Command::new("mount").args(["-a", "--fstab"]).arg(&fstab)).ok();
        assert_eq!(mounts_at(&at).len(), 1);
    }
    gone_by(&mut f, Command::new("umount").arg(&at));
}

/// The driver's home is the working directory, lowers are links in it, and the list holds whatever the storage.conf of
/// the machine and the user namespace add.
#[test]
fn the_call_of_podman() {
    for more in
        ["", ",volatile", ",context=\"system_u:object_r:container_file_t:s0:c7,c9\"", ",xattr_permissions=2"]
    {
        let Some(mut f) = fixture() else { return };
        fs::create_dir(f.dir().join("l")).unwrap();
        symlink("../l0", f.dir().join("l/AAAA")).unwrap();
        symlink("../l1", f.dir().join("l/BBBB")).unwrap();
        let home = f.dir().to_owned();
        let label = more.contains("context");
        if label && fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs") {
            continue;
        }
        let id = |option: &str, id: u32| format!(",{option}=:{id}:0:1");
        let maps = if mode() == Mode::Fusermount {
            id("uidmapping", stat(&home).uid()) + &id("gidmapping", stat(&home).gid())
        } else {
            ",uidmapping=:0:0:65536,gidmapping=:0:0:65536".to_owned()
        };
        let h = home.display();
        let list = format!("lowerdir={h}/l/AAAA:{h}/l/BBBB,upperdir={h}/upper,workdir={h}/work{more}{maps}");
        let target = f.p("");
        silently(&mut f, Command::new(program()).args(["-o", &list]).arg(&target).current_dir(&home));
        assert_eq!(names(target.join("d")), ["a", "b"]);
        assert_eq!((stat(target.join("d/a")).uid(), text(target.join("d/a")).as_str()), (0, "top"), "{list}");
        gone_by(&mut f, Command::new("fusermount3").arg("-u").arg(&target));
        // Read-only: the diff of the layer is the topmost lower.
        let list = format!("lowerdir={h}/upper:{h}/l/AAAA:{h}/l/BBBB");
        silently(&mut f, Command::new(program()).args(["-o", &list]).arg(&target).current_dir(&home));
        assert_eq!(err(fs::write(target.join("new"), "x")), Errno::EROFS);
        gone_by(&mut f, Command::new("fusermount3").arg("-u").arg(&target));
    }
}

/// By the name of the program it was written for.
#[test]
fn the_call_of_containerd() {
    let Some(mut f) = helped() else { return };
    install(&f, "fuse-overlayfs");
    let (at, list) = (f.p(""), layers(&f));
    let call = |list: &str| {
        let mut command = Command::new("/sbin/mount.fuse3");
        // Its shell has the search path of the caller: ours is the first of this name, and found at all.
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.arg("overlay").arg(&at).args(["-o", list, "-t", "fuse-overlayfs"]);
        command
    };
    silently(&mut f, &mut call(&list));
    assert_eq!(text(at.join("d/a")), "top");
    gone_by(&mut f, Command::new("umount").arg(&at));
    // What the snapshotter tries before it starts: two lowers, no upper.
    let lowers = list.split(',').next().unwrap().to_owned();
    silently(&mut f, &mut call(&lowers));
    assert_eq!(err(fs::write(at.join("new"), "x")), Errno::EROFS);
    gone_by(&mut f, Command::new("umount").arg(&at));
    assert!(eventually(LIMIT, || f.try_mount(&[]).code == Some(0)));
    works(&mut f);
}
