//! An upper layer whose quota is used up: what finds no room is refused with EDQUOT and has changed nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::common::*;

/// Source: kernel `ovl_fill_super`: quotas and the blocks that are kept for root hold for what is written through a mount.
#[test]
fn the_daemon_may_not_exceed_quotas() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("no daemon")) else { return };
    f.mount();
    let resource = 1u64 << 24;
    let tasks = fs::read_dir(format!("/proc/{}/task", f.daemon())).unwrap();
    let mut seen = 0;
    for task in tasks {
        let status = text(task.unwrap().path().join("status"));
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let effective = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(effective & resource, 0, "a thread has CAP_SYS_RESOURCE: {effective:x}");
        seen += 1;
    }
    assert!(seen > 1, "the daemon has threads");
}

/// A subvolume of btrfs with a quota, on which the upper layer and the workdir are.
struct Limited {
    at: std::path::PathBuf,
    _mount: Umount,
}

impl Limited {
    /// Nothing, with a word, where there is no such filesystem.
    fn new(f: &Fixture) -> Option<Limited> {
        let (image, disk) = (f.dir().join("disk.img"), f.dir().join("disk"));
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        fs::create_dir(&disk).unwrap();
        let there = try_spawn(Command::new("mkfs.btrfs").args(["-q", "-f"]).arg(&image));
        let made = there.is_ok_and(|mut made| made.wait().is_ok_and(|status| status.success()));
        let mount = || run(Command::new("mount").args(["-t", "btrfs", "-o", "loop"]).arg(&image).arg(&disk));
        if !made || mount().code != Some(0) {
            println!("skipped: no btrfs, whose quotas are tried");
            return None;
        }
        let at = disk.join("limited");
        let limited = Limited { at: at.clone(), _mount: Umount(disk.clone()) };
        run(Command::new("btrfs").args(["quota", "enable"]).arg(&disk)).ok();
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(&at)).ok();
        for name in ["upper", "work"] {
            fs::rename(f.dir().join(name), at.join(name))
                .or_else(|_| fs::remove_dir(f.dir().join(name)).and_then(|()| fs::create_dir(at.join(name))))
                .unwrap();
            sys::chmod(at.join(name), 0o777).unwrap();
            std::os::unix::fs::symlink(at.join(name), f.dir().join(name)).unwrap();
        }
        Some(limited)
    }

    fn limit(&self, limit: &str) {
        run(Command::new("btrfs").args(["qgroup", "limit", limit]).arg(&self.at)).ok();
    }
}

/// A project of the upper layer alone: nothing is moved into it from the workdir. Source: kernel `ovl_create_upper`; rename(2), EXDEV.
#[test]
fn an_upper_layer_with_a_project_of_its_own_takes_new_directories() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    let (image, disk) = (f.dir().join("disk.img"), f.dir().join("disk"));
    File::create(&image).unwrap().set_len(512 << 20).unwrap();
    fs::create_dir(&disk).unwrap();
    let there = try_spawn(Command::new("mkfs.xfs").args(["-q"]).arg(&image));
    let made = there.is_ok_and(|mut made| made.wait().is_ok_and(|status| status.success()));
    let mount = || run(Command::new("mount").args(["-t", "xfs", "-o", "loop"]).arg(&image).arg(&disk));
    if !made || mount().code != Some(0) {
        return println!("skipped: no xfs, whose projects are tried");
    }
    let free = Umount(disk.clone());
    for name in ["upper", "work"] {
        fs::remove_dir(f.dir().join(name)).unwrap();
        fs::create_dir(disk.join(name)).unwrap();
        std::os::unix::fs::symlink(disk.join(name), f.dir().join(name)).unwrap();
    }
    run(Command::new("xfs_io").args(["-c", "chproj 60", "-c", "chattr +P"]).arg(disk.join("upper"))).ok();
    f.lower(0).file("low/f", "x").file("plain", "x");
    f.mount();
    sys::mkdir(f.p("new"), 0o750).unwrap();
    fs::write(f.p("new/f"), "x").unwrap();
    fs::write(f.p("file"), "x").unwrap();
    sys::unlink(f.p("plain")).unwrap();
    f.check(|m| {
        assert_eq!(
            (names(m), names(m.join("new"))),
            (vec!["file".into(), "low".into(), "new".into()], vec!["f".to_owned()])
        );
        assert_eq!(stat(m.join("new")).mode() & 0o7777, 0o750);
    });
    f.unmount();
    drop(free);
}

/// What a user sees: names, modes, lengths, bytes, attributes.
fn view(m: &Path) -> BTreeMap<std::path::PathBuf, String> {
    let whole = sum::tree(m);
    let words = whole.into_iter().map(|(path, entry)| {
        // btrfs stamps a file that is written before it looks for room.
        let stamped = entry.mode & libc::S_IFMT == libc::S_IFDIR || path == Path::new("upper");
        let times = (!stamped).then_some(entry.mtime);
        (
            path,
            format!(
                "{:o} {:?} {} {times:?} {:x?} {:?}",
                entry.mode, entry.owner, entry.size, entry.content, entry.xattrs
            ),
        )
    });
    words.collect()
}

type Change = (&'static str, fn(&Path) -> sys::Res<()>);

/// Each can be made once, whatever of the others was made. The first are too large to find room.
const CHANGES: [Change; 12] = [
    ("open", |m| sys::open(m.join("big"), libc::O_WRONLY, 0).map(drop)),
    ("chmod", |m| sys::chmod(m.join("d/big"), 0o600)),
    ("truncate", |m| sys::truncate(m.join("cut"), 3 << 20)),
    ("rename", |m| sys::rename(m.join("moved"), m.join("d/moved"))),
    ("write", |m| {
        // Not on what an earlier write has left.
        let file = sys::open(m.join("upper"), libc::O_WRONLY, 0)?;
        no(file.write_at(&[b'w'; 4096], 1 << 20)).map(drop)
    }),
    ("link", |m| sys::link(m.join("linked"), m.join("d/link"))),
    ("small", |m| sys::chmod(m.join("small"), 0o600)),
    ("mkdir", |m| sys::mkdir(m.join("new"), 0o755)),
    ("create", |m| sys::open(m.join("d/created"), libc::O_CREAT | libc::O_WRONLY, 0o644).map(drop)),
    ("symlink", |m| sys::symlink("to", m.join("d/e/symlink"))),
    ("unlink", |m| sys::unlink(m.join("d/gone"))),
    ("setxattr", |m| sys::setxattr(m.join("d/e"), "user.note", &[b'n'; 2000], 0)),
];

#[test]
fn a_used_up_quota_refuses_the_change_and_keeps_the_view() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("its own errnos"))
    else {
        return;
    };
    let Some(limited) = Limited::new(&f) else { return };
    let big = vec![b'b'; 3 << 20];
    for name in ["big", "d/big", "cut", "moved", "linked"] {
        f.lower(0).file(name, &big).owner(1000, 1000);
    }
    for name in ["small", "d/gone", "d/e/in"] {
        f.lower(0).file(name, "small").owner(1000, 1000);
    }
    for dir in ["d", "d/e", ""] {
        sys::lchown(f.low(0, dir), 1000, 1000).unwrap();
    }
    f.upper().file("upper", "u").owner(1000, 1000);
    limited.limit("4M");
    f.mount();
    let root = f.p("");
    let filled = as_user(1000, 1000, || {
        let filler = sys::open(root.join("filler"), libc::O_CREAT | libc::O_WRONLY, 0o644).unwrap();
        (0..8192u64).find_map(|block| no(filler.write_all_at(&[b'f'; 4096], block * 4096)).err())
    });
    assert_eq!(filled, Some(Errno::EDQUOT));
    let mut refused = Vec::new();
    for (name, change) in CHANGES {
        let before = view(&root);
        match as_user(1000, 1000, || change(&root)) {
            Ok(()) => {
                let opened = name == "open";
                assert!(opened || view(&root) != before, "{name} succeeded and nothing shows");
            }
            Err(errno) => {
                assert_eq!(errno, Errno::EDQUOT, "{name}");
                let after = view(&root);
                let differs: Vec<_> =
                    after.iter().filter(|(path, words)| before.get(*path) != Some(words)).collect();
                assert!(before == after, "{name} was refused and shows: {differs:?}");
                refused.push(name);
            }
        }
    }
    println!("refused: {refused:?}");
    assert!(
        ["open", "chmod", "truncate", "rename", "write", "link"].iter().all(|name| refused.contains(name))
    );
    assert!(!f.in_upper("big") && !f.in_upper("d/big") && !f.in_upper("linked"));
    let seen = view(&root);
    limited.limit("none");
    // The workdir is empty but for the shared whiteout, which goes with the mount.
    f.remount();
    assert_eq!(view(&root), seen);
    for (name, change) in CHANGES.iter().filter(|(name, _)| refused.contains(name)) {
        assert_eq!(as_user(1000, 1000, || change(&root)), Ok(()), "{name}, with room again");
    }
    let seen = view(&root);
    f.remount();
    assert_eq!(view(&root), seen);
    f.unmount();
}
