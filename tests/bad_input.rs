//! What a person or a machine may give that is amiss: every refusal is one line that names the thing and a remedy, leaves
//! no mount and no daemon, and changes nothing on disk. What fails later reaches the caller, and the view stays as it was.
//!
//! Needs root, for other users and for mounts of its own; without it every test here ends at once, saying so.

#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

#[path = "common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::Command;

use common::*;

/// Directories for a mount that is refused, and, apart from them, a program that every user can reach and a device that
/// every user may open, as on most machines.
struct Tree(tempfile::TempDir, tempfile::TempDir);

impl Tree {
    fn new() -> Option<Tree> {
        if mode() != Mode::Root || !nix::unistd::geteuid().is_root() || !fuse() {
            println!("skipped: needs root");
            return None;
        }
        let dir = || tempfile::Builder::new().prefix("stratafs-test-").tempdir().unwrap();
        let tree = Tree(dir(), dir());
        for dir in [&tree.0, &tree.1] {
            sys::chmod(dir.path(), 0o755).unwrap();
        }
        for name in ["l", "l/in", "u", "u/in", "w", "m", "full", "full/x", "other"] {
            fs::create_dir(tree.at(name)).unwrap();
            sys::chmod(tree.at(name), 0o755).unwrap();
        }
        for name in ["file", "l/f", "u/f"] {
            fs::write(tree.at(name), name).unwrap();
        }
        fs::copy(program(), tree.1.path().join("stratafs")).unwrap();
        sys::mknod(tree.1.path().join("fuse"), libc::S_IFCHR | 0o600, libc::makedev(10, 229)).unwrap();
        sys::chmod(tree.1.path().join("fuse"), 0o666).unwrap();
        Some(tree)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program, in this directory.
    fn program(&self) -> Command {
        let mut command = Command::new(self.1.path().join("stratafs"));
        command.current_dir(self.0.path());
        command
    }

    /// A shell in a mount namespace of its own, for what one should not do to the machine. $BIN has program and device.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", script]);
        command.current_dir(self.0.path()).env("BIN", self.1.path());
        command
    }

    /// Whether a process runs this tree's own copy of the program.
    fn runs(&self) -> bool {
        let program = self.1.path().join("stratafs");
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|process| fs::read_link(process.path().join("exe")).ok()).any(|exe| exe == program)
    }

    #[track_caller]
    fn refused(&self, command: &mut Command, parts: &[&str]) {
        let before = sum::tree(self.0.path());
        let done = run(command);
        assert!(done.code.is_some_and(|code| code != 0), "{command:?} is not refused: {done:?}");
        let line = done.err.trim_end();
        assert_eq!(line.lines().count(), 1, "{command:?} says not one line: {:?}", done.err);
        assert!(line.starts_with("stratafs: "), "{line}");
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
        assert_eq!(done.out, "");
        assert_eq!(mounts_at(&self.at("m")), []);
        // The child that has told why it failed may need a moment to end.
        assert!(eventually(LIMIT, || !self.runs()), "{command:?} left a process");
        assert_eq!(sum::diff(&before, &sum::tree(self.0.path())), "", "{command:?} changed something");
    }

    /// By both command lines.
    #[track_caller]
    fn refuses(&self, lower: &str, upper: &str, work: &str, mountpoint: &str, parts: &[&str]) {
        let mut own = self.program();
        own.args(["mount", "-l", lower]);
        let mut list = format!("lowerdir={lower}");
        if !upper.is_empty() {
            own.args(["-u", upper, "-w", work]);
            list.push_str(&format!(",upperdir={upper},workdir={work}"));
        }
        self.refused(own.arg(mountpoint), parts);
        self.refused(self.program().args(["overlay", mountpoint, "-o", &list]), parts);
    }

    #[track_caller]
    fn refuses_options(&self, options: &str, parts: &[&str]) {
        self.refused(
            self.program().args(["mount", "-l", "l", "-u", "u", "-w", "w", "-o", options, "m"]),
            parts,
        );
    }
}

#[test]
fn layers_that_are_not_there_or_no_directories() {
    let Some(t) = Tree::new() else { return };
    for (lower, upper, work, noun) in [
        ("gone", "", "", "lower layer"),
        ("gone", "u", "w", "lower layer"),
        ("l", "gone", "w", "upper layer"),
        ("l", "u", "gone", "workdir"),
    ] {
        t.refuses(lower, upper, work, "m", &[noun, "/gone\"", "does not exist", "create it"]);
    }
    for (lower, upper, work, noun) in
        [("file", "", "", "lower layer"), ("l", "file", "w", "upper layer"), ("l", "u", "file", "workdir")]
    {
        t.refuses(lower, upper, work, "m", &[noun, "/file\"", "not a directory", "name a directory"]);
    }
    t.refused(t.program().args(["m", "-o", "lowerdir=l:gone"]), &["/gone\"", "does not exist"]);
}

#[test]
fn layers_closed_to_an_ordinary_user() {
    let Some(t) = Tree::new() else { return };
    sys::chmod(t.at("other"), 0o700).unwrap();
    fs::create_dir(t.at("other/in")).unwrap();
    for name in ["u", "w", "m"] {
        sys::lchown(t.at(name), 1000, 1000).unwrap();
    }
    let as_user = |args: &[&str]| {
        let mut command = t.shell(
            "mount --bind $BIN/fuse /dev/fuse && \
             exec setpriv --reuid 1000 --regid 1000 --clear-groups $BIN/stratafs \"$@\"",
        );
        command.arg("sh").args(args);
        command
    };
    t.refused(&mut as_user(&["mount", "-l", "other", "m"]), &["lower layer", "/other\"", "permissions"]);
    t.refused(
        &mut as_user(&["mount", "-l", "other/in", "m"]),
        &["lower layer", "/other/in\"", "permissions"],
    );
    let upper = ["mount", "-l", "l", "-u", "full", "-w", "w", "m"];
    t.refused(&mut as_user(&upper), &["upper layer", "/full\"", "written", "permissions"]);
    let work = ["mount", "-l", "l", "-u", "u", "-w", "full", "m"];
    t.refused(&mut as_user(&work), &["workdir", "/full\"", "written", "permissions"]);
    t.refused(&mut as_user(&["mount", "-l", "l", "full/x"]), &["mountpoint", "/full/x\"", "of your own"]);
    if !fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line == "user_allow_other"))
    {
        let parts = ["/m\"", "user_allow_other", "leave `allow_other`"];
        t.refused(&mut as_user(&["mount", "-l", "l", "-o", "allow_other", "m"]), &parts);
    }
}

#[test]
fn directories_that_are_in_the_way_of_each_other() {
    let Some(t) = Tree::new() else { return };
    fs::create_dir(t.at("u/work")).unwrap();
    fs::create_dir(t.at("w/upper")).unwrap();
    t.refuses("l", "u", "u/work", "m", &["workdir", "/u/work\"", "inside upper layer", "beside"]);
    t.refuses("l", "w/upper", "w", "m", &["upper layer", "/w/upper\"", "inside workdir", "beside"]);
    t.refuses("u/in", "u", "w", "m", &["lower layer", "/u/in\"", "inside upper layer", "move the layer"]);
    t.refuses("u", "u", "w", "m", &["upper layer", "/u\"", "same directory", "once"]);
    t.refuses("l", "u", "u", "m", &["workdir", "same directory", "once"]);
    t.refuses("l", "u", "l", "m", &["workdir", "same directory", "once"]);
    t.refused(t.program().args(["m", "-o", "lowerdir=l:l/../l"]), &["/l\"", "same directory", "once"]);
    t.refuses("l", "u", "w", "w/upper", &["mountpoint", "/w/upper\"", "in workdir", "outside it"]);
}

#[test]
fn mountpoints_that_cannot_be_mounted_on() {
    let Some(t) = Tree::new() else { return };
    t.refuses("l", "u", "w", "gone", &["mountpoint", "/gone\"", "does not exist", "mkdir -p"]);
    t.refuses("l", "u", "w", "file", &["mountpoint", "/file\"", "not a directory", "name a directory"]);
    // The form without a command mounts over names, as what it replaces does.
    t.refused(
        t.program().args(["mount", "-l", "l", "-u", "u", "-w", "w", "full"]),
        &["mountpoint", "/full\"", "not empty", "nonempty"],
    );
}

#[test]
fn workdirs_that_are_none() {
    let Some(t) = Tree::new() else { return };
    t.refuses("l", "u", "full", "m", &["workdir", "/full\"", "\"x\"", "empty directory"]);
    let elsewhere = "mount -t tmpfs none other && exec $BIN/stratafs mount -l l -u u -w other m";
    let parts = ["/u\"", "/other\"", "different filesystems", "beside"];
    t.refused(&mut t.shell(elsewhere), &parts);
}

/// ramfs takes no attributes of users; what is made on it goes with the namespace, so the shell lists it.
#[test]
fn an_upper_without_attributes() {
    let Some(t) = Tree::new() else { return };
    let script = "mount -t ramfs none other && mkdir other/u other/w && $BIN/stratafs mount -l l -u other/u -w other/w m; \
                  code=$?; test \"$(find other -mindepth 1 | sort | tr '\\n' ' ')\" = 'other/u other/w ' || echo left; exit $code";
    t.refused(&mut t.shell(script), &["upperdir", "/other/u\"", "extended attributes", "use ext4"]);
}

#[test]
fn an_upper_or_workdir_in_use() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("a", "x");
    f.mount();
    let (dir, before) = (f.dir().to_owned(), [sum::tree(&f.up("")), sum::tree(&f.work(""))]);
    for name in ["m2", "u2", "w2"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    for (upper, work, named) in
        [("upper", "w2", "upperdir"), ("u2", "work", "workdir"), ("upper", "work", "upperdir")]
    {
        let mut again = Command::new(program());
        again.args(["mount", "-l", "l0", "-u", upper, "-w", work, "m2"]).current_dir(&dir);
        let done = run(&mut again);
        assert_eq!((done.code, done.err.trim_end().lines().count()), (Some(1), 1), "{done:?}");
        for part in [named, "in use by the mount at", "unmount that one first"] {
            assert!(done.err.contains(part), "{part:?} is not in {:?}", done.err);
        }
        assert_eq!(mounts_at(&dir.join("m2")), []);
    }
    for name in ["u2", "w2"] {
        assert_eq!(names(dir.join(name)), [] as [&str; 0], "something is left in {name}");
    }
    assert_eq!(sum::diff(&before[0], &sum::tree(&f.up(""))), "");
    assert_eq!(sum::diff(&before[1], &sum::tree(&f.work(""))), "");
    f.check(|m| assert_eq!(text(m.join("a")), "x"));
}

#[test]
fn options_that_make_no_sense() {
    let Some(t) = Tree::new() else { return };
    for (options, parts) in [
        ("redirectdir=on", &["`redirectdir=on`", "did you mean `redirect_dir`"][..]),
        ("zzzz", &["`zzzz`", "unknown", "remove it"]),
        ("index=maybe", &["`index=maybe`", "on or off"]),
        ("redirect_dir=sideways", &["`redirect_dir=sideways`", "nofollow"]),
        ("xattr_permissions=3", &["`xattr_permissions=3`", "0, 1, 2"]),
        ("uidmapping=0:100", &["`uidmapping=0:100`", "DISK:SHOWN:SIZE"]),
        ("uidmapping=0:1000:10:5:2000:10", &["overlaps"]),
        ("squash_to_uid=root", &["`squash_to_uid=root`", "whole number"]),
        ("timeout=soon", &["`timeout=soon`", "seconds"]),
        ("threads=0", &["`threads=0`", "1 to 1024"]),
        ("volatile=yes", &["`volatile=yes`", "no value"]),
        ("fsync", &["`fsync`", "auto|strict|volatile"]),
        ("context=\"a,b", &["context=", "never closed"]),
        ("userxattr,metacopy=on", &["`metacopy=on`", "`userxattr`", "leave one"]),
        ("redirect_dir=off,metacopy=on", &["`metacopy=on`", "`redirect_dir=off`", "leave one"]),
        ("nfs_export=on", &["`nfs_export=on`", "give nfs_export=off"]),
        ("remount", &["\"m\" is not a mountpoint", "stratafs ls"]),
        ("upperdir=", &["`upperdir=`", "write a path"]),
    ] {
        t.refuses_options(options, parts);
    }
    t.refused(t.program().args(["mount", "m"]), &["lower layer", "-l DIR"]);
    t.refused(t.program().args(["mount", "-l", "l", "-u", "u", "m"]), &["no workdir", "-w DIR"]);
}

/// The tables of every form are beside the grammars, in `src/graft`.
#[test]
fn grafts_that_make_no_sense() {
    let Some(t) = Tree::new() else { return };
    fs::write(t.at("c.yml"), "services: {web: {volumes: ['data:/data']}}\nvolumes: {dat: }\n").unwrap();
    fs::write(t.at("v.yml"), "version: '9'\nservices: {web: }\n").unwrap();
    for (args, parts) in [
        (&["-v", "/a:/b:ro:rw"][..], &["-v `/a:/b:ro:rw`", "too many colons", "[SRC:]DST[:MODE]"][..]),
        (&["-v", "l:b"], &["'b' mount path must be absolute"]),
        (&["-v", "./l:/"], &["destination can't be '/'", "below it"]),
        (&["-v", "./l:/x:readonly"], &["invalid mode: readonly", "write `ro`"]),
        (&["-v", "a/b:/x"], &["\"a/b\"", "invalid characters", "./"]),
        (
            &["--mount", "type=bind,src=/a,dst=/x,tmpfs-size=1m"],
            &["cannot mix 'tmpfs-*'", "leave `tmpfs-size` out"],
        ),
        (&["--mount", "type=bind,src=/a,dst=/x,zzz=1"], &["unexpected key 'zzz'", "--help"]),
        (&["--mount", "type=image,src=a,dst=/x"], &["`image`", "engine"]),
        (&["--tmpfs", "/x:size=huge"], &["--tmpfs `/x:size=huge`", "invalid size: 'huge'", "64m"]),
        (&["-v", "./l:/x", "--tmpfs", "/x/"], &["Duplicate mount point: /x", "leave one"]),
        (&["--volumes-from", "m:rslave"], &["invalid mode: rslave", "leave `rslave` out"]),
        (&["--volumes-from", "m"], &["--volumes-from \"m\"", "no stratafs is mounted there"]),
        (&["--compose", "gone.yml", "--service", "web"], &["`gone.yml`", "No such file"]),
        (&["--compose", "c.yml", "--service", "wep"], &["no such service: wep", "`web`"]),
        (&["--compose", "c.yml", "--service", "web"], &["undefined volume data", "did you mean `dat`?"]),
        (&["--compose", "v.yml", "--service", "web"], &["version `9`", "leave `version` out"]),
    ] {
        t.refused(t.program().args(["mount", "-l", "l"]).args(args).arg("m"), parts);
    }
}

#[test]
fn a_machine_without_the_device() {
    let Some(t) = Tree::new() else { return };
    let mount = "exec $BIN/stratafs mount -l l -u u -w w m";
    let hidden = format!("mount -t tmpfs none /dev && {mount}");
    t.refused(&mut t.shell(&hidden), &["/dev/fuse", "does not exist", "modprobe fuse"]);
    for other in ["/dev/null", "file"] {
        let replaced = format!("mount --bind {other} /dev/fuse && {mount}");
        t.refused(&mut t.shell(&replaced), &["/dev/fuse", "not the FUSE device", "--device /dev/fuse"]);
    }
}

#[test]
fn a_user_without_the_helper() {
    let Some(t) = Tree::new() else { return };
    for name in ["u", "w", "m"] {
        sys::lchown(t.at(name), 1000, 1000).unwrap();
    }
    let script = "mount --bind $BIN/fuse /dev/fuse && \
                  exec env PATH=/nowhere \"$(command -v setpriv)\" --reuid 1000 --regid 1000 --clear-groups \
                  $BIN/stratafs mount -l l -u u -w w m";
    t.refused(&mut t.shell(script), &["fusermount3", "was not found", "install the package fuse3"]);
}

/// A fixture whose directory is a tmpfs of `size`, and what takes that away.
fn on_tmpfs(size: &str) -> Option<(Fixture, Umount)> {
    let f = Fixture::new(1).and_then(Fixture::need_root)?;
    let options = format!("size={size},mode=755");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(f.dir())).ok();
    for name in ["l0", "upper", "work", "mnt"] {
        fs::create_dir(f.dir().join(name)).unwrap();
    }
    let guard = Umount(f.dir().to_owned());
    Some((f, guard))
}

#[test]
fn a_full_upper_fails_the_change_and_keeps_the_view() {
    let Some((mut f, tmpfs)) = on_tmpfs("3m") else { return };
    let big = vec![7; 2 << 20];
    f.lower(0).file("d/big", &big).file("d/small", "small").dir("d/sub");
    f.mount();
    let d = f.p("d");
    assert_eq!(sys::open(d.join("big"), libc::O_RDWR, 0).err(), Some(Errno::ENOSPC));
    assert_eq!(sys::chmod(d.join("big"), 0o600), Err(Errno::ENOSPC));
    assert_eq!(sys::rename(d.join("big"), d.join("moved")), Err(Errno::ENOSPC));
    assert!(!f.in_upper("d/big") && !f.is_whiteout("d/big"));
    assert_eq!(f.temporaries(), [] as [&str; 0], "half a file is left");
    // What fits is done.
    fs::write(d.join("small"), "longer").unwrap();
    let mut filled = fs::File::create(d.join("filler")).unwrap();
    let whole = std::io::Write::write_all(&mut filled, &big);
    assert_eq!(whole.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    drop(filled);
    sys::unlink(d.join("filler")).unwrap();
    f.check(|m| {
        assert_eq!(names(m.join("d")), ["big", "small", "sub"]);
        assert_eq!(fs::read(m.join("d/big")).unwrap(), vec![7; 2 << 20]);
        assert_eq!(stat(m.join("d/big")).mode() & 0o777, 0o644);
        assert_eq!(text(m.join("d/small")), "longer");
    });
    f.unmount();
    drop(tmpfs);
}

#[test]
fn an_upper_that_becomes_read_only_fails_every_change() {
    let Some((mut f, tmpfs)) = on_tmpfs("8m") else { return };
    f.lower(0).file("d/a", "low").file("b", "low");
    f.upper().file("u", "up");
    f.mount();
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(f.dir())).ok();
    let view = |m: &std::path::Path| {
        assert_eq!(
            (names(m), names(m.join("d"))),
            (vec!["b".into(), "d".into(), "u".into()], vec!["a".to_owned()])
        );
        assert_eq!([text(m.join("b")), text(m.join("d/a")), text(m.join("u"))], ["low", "low", "up"]);
        assert_eq!(stat(m.join("b")).mode() & 0o777, 0o644);
    };
    view(&f.p(""));
    let erofs = Err(Errno::EROFS);
    for name in ["b", "d/a", "u"] {
        assert_eq!(no(fs::write(f.p(name), "x")), erofs, "{name}");
        assert_eq!(sys::chmod(f.p(name), 0o600), erofs);
        assert_eq!(sys::unlink(f.p(name)), erofs);
        assert_eq!(sys::rename(f.p(name), f.p("new")), erofs);
        assert_eq!(sys::setxattr(f.p(name), "user.a", b"1", 0), erofs);
    }
    assert_eq!(sys::mkdir(f.p("new"), 0o755), erofs);
    assert_eq!(sys::symlink("a", f.p("new")), erofs);
    assert_eq!(sys::rename(f.p("d"), f.p("new")), erofs);
    view(&f.p(""));
    run(Command::new("mount").args(["-o", "remount,rw"]).arg(f.dir())).ok();
    f.check(view);
    fs::write(f.p("b"), "works again").unwrap();
    f.unmount();
    drop(tmpfs);
}

/// Nothing can be prepared or locked in writing there, and nothing has to be.
#[test]
fn an_upper_on_a_read_only_filesystem_is_mounted_with_ro() {
    let Some((mut f, tmpfs)) = on_tmpfs("8m") else { return };
    f.lower(0).file("a", "low").file("b", "low").hardlink("c", "b");
    f.mount();
    fs::write(f.p("a"), "up").unwrap();
    fs::write(f.p("b"), "linked").unwrap();
    f.unmount();
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(f.dir())).ok();
    let refused = f.try_mount(&[]);
    assert_eq!((refused.code, refused.err.trim_end().lines().count()), (Some(1), 1), "{}", refused.err);
    assert!(refused.err.contains("read-only filesystem") && refused.err.contains("-o ro"), "{}", refused.err);
    f.options = vec!["ro".to_owned()];
    f.mount();
    f.check(|m| {
        assert_eq!(["a", "b", "c"].map(|name| text(m.join(name))), ["up", "linked", "linked"]);
        assert_eq!(err(fs::write(m.join("a"), "x")), Errno::EROFS);
    });
    f.unmount();
    drop(tmpfs);
}

/// The lower layer is a mount whose daemon dies: every access of it fails from then on.
#[test]
fn a_lower_that_fails_leaves_no_half_copied_file() {
    // Goes after the one that stands on it.
    let Some(mut below) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let Some(mut f) = Fixture::new(1) else { return };
    below.lower(0).file("d/a", vec![1; 100_000]).file("b", "low");
    below.mount();
    fs::remove_dir(f.low(0, "")).unwrap();
    std::os::unix::fs::symlink(below.p(""), f.low(0, "")).unwrap();
    f.upper().file("d/u", "up");
    f.mount();
    assert_eq!(fs::read(f.p("d/a")).unwrap().len(), 100_000);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(below.daemon()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    assert!(eventually(LIMIT, || daemons_of(&below.p("")).is_empty()), "the daemon below does not end");
    let dead = [Errno::ENOTCONN, Errno::EIO, Errno::ECONNABORTED];
    let failed = sys::open(f.p("d/a"), libc::O_RDWR, 0).map(drop);
    assert!(failed.is_err_and(|errno| dead.contains(&errno)), "{failed:?}");
    assert!(sys::chmod(f.p("b"), 0o600).is_err());
    assert!(!f.in_upper("d/a") && !f.in_upper("b"));
    assert_eq!(text(f.p("d/u")), "up");
    assert_eq!(f.temporaries(), [] as [&str; 0]);
    // The lower cannot be compared any more, so the fixtures are not asked to.
    for mount in [f.p(""), below.p("")] {
        run(Command::new(program()).args(["umount", "--lazy"]).arg(mount));
    }
    below.after_unmount();
    fs::remove_file(f.low(0, "")).unwrap();
    std::os::unix::fs::symlink(below.low(0, ""), f.low(0, "")).unwrap();
    f.set_mounted(false);
    f.mount();
    assert_eq!(
        (names(f.p("d")), fs::read(f.p("d/a")).unwrap()),
        (vec!["a".into(), "u".into()], vec![1; 100_000])
    );
}
