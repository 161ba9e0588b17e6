//! The contract of what stratafs replaces: what the form without a command means, option by option. Each value here is the
//! effect of fuse-overlayfs 1.10 and 2.0 with the same options, unless a test says otherwise.
//! Owners and maps are in `options`; the calls of engines are in `callers`.

use std::process::Command;

use crate::callers::layers;
use crate::common::*;

/// A lower layer with a file, a directory and a name to remove.
fn fixture() -> Option<Fixture> {
    let f = Fixture::new(2).and_then(|f| f.departs("it has no mount program"))?;
    f.lower(0).file("f", "x").file("gone", "x").dir("d");
    Some(f)
}

/// Calls the program without a command, with the layers of `f` and `more` options.
fn call(f: &mut Fixture, more: &str, change: impl FnOnce(&mut Command)) -> Done {
    f.note_lowers();
    let mut command = Command::new(program());
    command.args(["-o", &(layers(f) + more)]).arg(f.p(""));
    change(&mut command);
    let done = run(&mut command);
    f.set_mounted(!mounts_at(&f.p("")).is_empty());
    done
}

#[track_caller]
fn mounted(f: &mut Fixture, more: &str) {
    let done = call(f, more, |_| ());
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{more}");
    assert_eq!(mounts_at(&f.p("")).len(), 1, "{more}");
}

/// The flags of the mount, from mountinfo.
fn flags(f: &Fixture) -> String {
    let list = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let at = f.p("");
    let line = list.lines().rfind(|line| line.split(' ').nth(4) == at.to_str()).unwrap();
    line.split(' ').nth(5).unwrap().to_owned()
}

#[test]
fn root_mounts_without_devices_and_access_times() {
    for (options, shown) in [
        ("", "rw,nodev,noatime"),
        (",suid", "rw,nodev,noatime"),
        (",dev", "rw,noatime"),
        (",dev,suid", "rw,noatime"),
        (",nosuid", "rw,nosuid,nodev,noatime"),
        (",noexec", "rw,nodev,noexec,noatime"),
        (",ro", "ro,nodev,noatime"),
        (",ro,rw", "rw,nodev,noatime"),
        (",atime", "rw,nodev,relatime"),
        // Ignored there; here as mount(8) does it with any filesystem.
        (",nosymfollow", "rw,nodev,noatime,nosymfollow"),
        (",nosymfollow,symfollow", "rw,nodev,noatime"),
    ] {
        let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
        mounted(&mut f, options);
        assert_eq!(flags(&f), shown, "{options}");
        f.unmount();
    }
}

/// buildah and podman write `private` for each `:O` volume; `overlay.mountopt` and /etc/fstab may hold anything.
#[test]
fn words_of_other_programs_are_taken_in_silence() {
    for words in [
        ",private,shared,slave,unbindable",
        ",rprivate,rshared,rslave,runbindable,bind,rbind",
        ",nosymfollow,ino32_t,auto_unmount",
        ",lazytime,relatime,strictatime,diratime,nodiratime,x-systemd.automount,X-mount.mkdir,_netdev,nofail",
        ",fast_ino=1,plugins=,threaded=0,max_idle_threads=3,clone_fd,splice_read,kernel_cache",
    ] {
        let Some(mut f) = fixture() else { return };
        mounted(&mut f, words);
        assert_eq!(names(f.p("")), ["d", "f", "gone"]);
        f.unmount();
    }
}

#[test]
fn an_unknown_option_is_one_line_and_then_the_mount() {
    let Some(mut f) = fixture() else { return };
    let done = call(&mut f, ",metacpy=on,zzzz,ro", |_| ());
    assert_eq!(done.code, Some(0), "{done:?}");
    let lines: Vec<&str> = done.err.lines().collect();
    assert_eq!(lines.len(), 2, "{done:?}");
    for (line, option) in lines.iter().zip(["`metacpy=on`", "`zzzz`"]) {
        assert!(line.starts_with("stratafs: warning: ") && line.contains(option), "{line}");
    }
    assert!(lines[0].contains("did you mean `metacopy`?"), "{done:?}");
    assert!(flags(&f).starts_with("ro"), "the options after it count");
    f.unmount();
    // The form with a command is written by people, and stays strict.
    let done = f.try_mount(&["-o", "zzzz"]);
    assert!(done.code == Some(2) && done.err.contains("`zzzz` is unknown"), "{done:?}");
    assert_eq!(mounts_at(&f.p("")), []);
}

#[test]
fn a_known_option_with_a_wrong_value_is_refused() {
    let Some(mut f) = fixture() else { return };
    let done = call(&mut f, ",xino=maybe", |_| ());
    assert!(done.code == Some(2) && done.err.contains("`xino=maybe`"), "{done:?}");
    assert_eq!(mounts_at(&f.p("")), []);
}

#[test]
fn a_mount_point_with_names_in_it_is_mounted_over() {
    let Some(mut f) = fixture() else { return };
    fs::write(f.p("hidden"), "").unwrap();
    mounted(&mut f, "");
    assert_eq!(names(f.p("")), ["d", "f", "gone"]);
    f.unmount();
    assert_eq!(names(f.p("")), ["hidden"]);
    fs::remove_file(f.p("hidden")).unwrap();
}

/// `fsync=0` leaves no mark that refuses the next mount; `volatile` leaves the kernel's.
/// Source: overlayfs.rst, "Volatile mount".
#[test]
fn without_fsync_a_mount_can_be_made_again() {
    for option in [",fsync=0", ",sync=0"] {
        let Some(mut f) = fixture() else { return };
        mounted(&mut f, option);
        fs::write(f.p("new"), "x").unwrap();
        fs::File::open(f.p("new")).unwrap().sync_all().unwrap();
        f.unmount();
        assert!(!f.work("work/incompat").exists(), "{option}");
        mounted(&mut f, option);
        assert_eq!(text(f.p("new")), "x");
        f.unmount();
        mounted(&mut f, "");
        f.unmount();
        mounted(&mut f, ",volatile");
        f.unmount();
        let done = call(&mut f, option, |_| ());
        assert!(done.code == Some(1) && done.err.contains("volatile"), "{done:?}");
    }
}

/// fuse-overlayfs 1.10 and 2.0 read it; any value counts.
#[test]
fn an_environment_variable_asks_for_whiteout_files() {
    for (set, device) in [(true, false), (false, true)] {
        let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
        let done = call(&mut f, "", |command| {
            if set {
                command.env("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1");
            }
        });
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        fs::remove_file(f.p("gone")).unwrap();
        sys::rename(f.p("f"), f.p("g")).unwrap();
        for name in ["gone", "f"] {
            assert_eq!(f.up(name).symlink_metadata().is_ok(), device, "{name}");
            assert_eq!(f.up(format!(".wh.{name}")).exists(), set, "{name}");
        }
        f.check(|m| assert_eq!(names(m), ["d", "g"]));
    }
}

#[test]
fn noxattrs_takes_a_number() {
    for (option, shown) in [(",noxattrs=1", false), (",noxattrs=0", true), (",noxattrs", false)] {
        let Some(mut f) = fixture() else { return };
        f.lower(1).file("a", "x").xattr("user.note", "n");
        mounted(&mut f, option);
        assert_eq!(sys::getxattr(f.p("a"), "user.note").is_ok(), shown, "{option}");
        assert_eq!(sys::setxattr(f.p("f"), "user.note", b"n", 0).is_ok(), shown, "{option}");
        f.unmount();
    }
}

/// A user namespace of one id, as rootless podman with one id has it: the owners of an image are not in it.
#[test]
fn squash_to_root_copies_up_files_of_owners_that_the_user_namespace_does_not_have() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    let names = ["append", "move", "mode", "own", "remove", "link"];
    for name in names {
        f.lower(0).file(name, "x").owner(1234, 1235).mode(0o4666);
    }
    f.lower(0).dir("dir").owner(1234, 1235).mode(0o777).file("dir/in", "x").owner(1234, 1234).mode(0o666);
    f.lower(0).symlink("link.s", "x").owner(1234, 1234);
    for dir in ["upper", "work", "mnt"] {
        sys::lchown(f.dir().join(dir), 1000, 1000).unwrap();
    }
    let device = f.dir().join("fuse");
    sys::mknod(&device, libc::S_IFCHR | 0o666, libc::makedev(10, 229)).unwrap();
    sys::chmod(&device, 0o666).unwrap();
    f.note_lowers();
    let script = r#"
        set -e
        "$0" -o "$1" "$2"
        cd "$2"
        echo y >>append
        mv move moved; chmod 600 mode; chown 0:0 own; rm remove; ln link linked
        echo y >>dir/in; mv dir dir2; mv link.s link.s2
        stat -c '%n %u:%g %a' append moved mode own linked dir2 dir2/in
        cd /; "$0" umount "$2""#;
    let outer = r#"mount --bind "$3/fuse" /dev/fuse
        exec setpriv --reuid 1000 --regid 1000 --clear-groups unshare -Urm sh -c "$4" "$0" "$1" "$2""#;
    // Where every user may read it.
    let copy = f.dir().join("stratafs");
    fs::copy(program(), &copy).unwrap();
    let list = layers(&f) + ",squash_to_root";
    let done = run(Command::new("unshare").args(["-m", "sh", "-ec", outer]).arg(&copy).arg(&list).args([
        f.p("").as_os_str(),
        f.dir().as_os_str(),
        script.as_ref(),
    ]));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
    // The set-id bit went with the owner.
    assert_eq!(
        done.out,
        "append 0:0 666\nmoved 0:0 666\nmode 0:0 600\nown 0:0 666\nlinked 0:0 666\ndir2 0:0 777\ndir2/in 0:0 666\n"
    );
    let owner = |path| (stat(f.up(path)).uid(), stat(f.up(path)).gid());
    for name in ["append", "moved", "mode", "own", "linked", "dir2", "dir2/in"] {
        assert_eq!(owner(name), (1000, 1000), "{name}");
    }
    fs::remove_file(device).unwrap();
    fs::remove_file(copy).unwrap();
}

/// mount(8) with `-N` leaves it to its helper to enter the namespace.
#[test]
fn a_mount_is_made_in_the_namespace_that_is_named() {
    let Some(mut f) = fixture().and_then(Fixture::need_root) else { return };
    let mut other = crate::running::Namespace::new("");
    let pid = other.pid();
    for namespace in [pid.to_string(), format!("/proc/{pid}/ns/mnt")] {
        f.note_lowers();
        let done = run(Command::new(program()).args([
            "overlay",
            f.p("").to_str().unwrap(),
            "-o",
            &layers(&f),
            "-N",
            &namespace,
        ]));
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        assert_eq!(mounts_at(&f.p("")), [], "nothing is mounted here");
        let there = |command: &str| {
            run(Command::new("nsenter").args(["-t", &pid.to_string(), "-m", "sh", "-c", command]))
        };
        assert_eq!(there(&format!("ls {}", f.p("").display())).ok().out, "d\nf\ngone\n");
        there(&format!("{} umount {}", program().display(), f.p("").display())).ok();
    }
    other.end();
    let done =
        run(Command::new(program()).args(["-o", &layers(&f), f.p("").to_str().unwrap(), "-N", "/dev/null"]));
    assert!(done.code == Some(1) && done.err.contains("-N \"/dev/null\""), "{done:?}");
}
