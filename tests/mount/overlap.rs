//! Directories of one mount that lie inside one another, as `lowerdir=/` has it: upper layer, workdir and mount point inside
//! a lower layer, the mount point inside the upper layer, layers below the mount point. The kernel's overlayfs takes all of these.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::*;

/// A lower layer that holds the upper layer, the workdir and the mount point.
struct Tree {
    fixture: Fixture,
    root: PathBuf,
}

impl Tree {
    fn new() -> Option<Tree> {
        let fixture = Fixture::new(1).and_then(|f| f.departs("it shows its own layers"))?;
        let root = fixture.dir().join("tree");
        for dir in ["tree", "tree/u", "tree/w", "tree/m", "tree/d", "tree/d/inner"] {
            fs::create_dir(fixture.dir().join(dir)).unwrap();
        }
        fs::write(root.join("file"), "lower").unwrap();
        Some(Tree { fixture, root })
    }

    fn p(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Mounts with these arguments; returns what was said.
    #[track_caller]
    fn mount(&self, args: &[&str]) -> String {
        let done = run(Command::new(program()).arg("mount").args(args).current_dir(&self.root));
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.err);
        done.err
    }

    #[track_caller]
    fn unmount(&self, at: &str) {
        unmount(&self.p(at));
    }
}

/// A process that another test has just forked may keep a file of the mount for a moment, until its exec.
#[track_caller]
fn unmount(at: &Path) {
    let gone = || {
        let done = run(Command::new(program()).arg("umount").arg(at));
        assert!(done.code == Some(0) || done.err.contains("in use"), "{done:?}");
        mounts_at(at).is_empty()
    };
    assert!(eventually(LIMIT, gone), "{at:?} stays in use");
}

/// Whether the daemon reaches lower layers through private clones, which show what is beneath a mount point.
fn fenced() -> bool {
    mode() != Mode::Fusermount && older_kernel().is_none()
}

fn shown(at: &Path) -> Vec<String> {
    names(at)
}

#[test]
fn upper_layer_and_workdir_inside_a_lower_layer_do_not_show() {
    let Some(t) = Tree::new() else { return };
    let _free = Umount(t.p("m"));
    for round in 0..2 {
        let said = t.mount(&["-l", ".", "-u", "u", "-w", "w", "m"]);
        assert!(said.contains("upper layer") && said.contains("does not show in the mount"), "{said}");
        let mut expected = vec!["d", "file"];
        if round == 1 {
            expected.push("made");
        }
        if fenced() {
            expected.push("m");
        }
        expected.sort_unstable();
        assert_eq!(shown(&t.p("m")), expected);
        for name in ["u", "w"] {
            let path = t.p("m").join(name);
            assert_eq!(missing(&path), Errno::ENOENT, "{name}");
            // Each way to create a name.
            assert_eq!(sys::mkdir(&path, 0o755), Err(Errno::EBUSY), "{name}");
            assert_eq!(err(fs::write(&path, "x")), Errno::EBUSY, "{name}");
            assert_eq!(err(std::os::unix::fs::symlink("x", &path)), Errno::EBUSY, "{name}");
            assert_eq!(sys::mknod(&path, libc::S_IFIFO | 0o644, 0), Err(Errno::EBUSY), "{name}");
            assert_eq!(sys::link(t.p("m/file"), &path), Err(Errno::EBUSY), "{name}");
            assert_eq!(sys::rename(t.p("m/file"), &path), Err(Errno::EBUSY), "{name}");
            assert_eq!(sys::rename(t.p("m/d"), &path), Err(Errno::EBUSY), "{name}");
        }
        if fenced() {
            assert_eq!(shown(&t.p("m/m")), [] as [&str; 0], "the directory beneath the mount");
        } else {
            assert_eq!(missing(t.p("m/m")), Errno::ENOENT);
            assert_eq!(sys::mkdir(t.p("m/m"), 0o755), Err(Errno::EBUSY));
        }
        fs::write(t.p("m/made"), "x").unwrap();
        fs::write(t.p("m/file"), "upper").unwrap();
        fs::write(t.p("m/d/inner/new"), "x").unwrap();
        assert_eq!(text(t.p("file")), "lower", "no lower layer is changed");
        assert_eq!(shown(&t.p("d/inner")), [] as [&str; 0]);
        t.unmount("m");
        assert_eq!(text(t.p("u/file")), "upper");
    }
}

/// A walk over all names by more callers than there are workers. Without a private clone the daemon would walk into its own
/// mount and wait for itself.
#[test]
fn a_walk_over_a_mount_inside_its_own_layer_ends() {
    let Some(t) = Tree::new() else { return };
    let _free = Umount(t.p("m"));
    t.mount(&["-l", ".", "-u", "u", "-w", "w", "-o", "threads=2,timeout=0", "m"]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let done = run(Command::new("find").arg(t.p("m")).arg("-ls"));
                    assert_eq!(done.code, Some(0), "{}", done.err);
                    // May be absent; must be answered.
                    let _ = fs::metadata(t.p("m/m"));
                }
            });
        }
    });
    t.unmount("m");
}

/// Each mount is inside the layers of the other, so that a path leads from one daemon to the other and back. An ordinary user
/// could hang both for good.
#[test]
fn mounts_inside_each_others_layers_do_not_wait_for_each_other() {
    let Some(t) = Tree::new() else { return };
    for dir in ["m2", "u2", "w2", "d/late"] {
        fs::create_dir(t.p(dir)).unwrap();
    }
    let _free = (Umount(t.p("m")), Umount(t.p("m2")), Umount(t.p("d/late")));
    let options = ["-o", "threads=2,timeout=0"];
    t.mount(&[&["-l", ".", "-u", "u", "-w", "w"][..], &options, &["m"]].concat());
    // A directory that the first daemon knows already becomes a mount point.
    assert_eq!(shown(&t.p("m/d")), ["inner", "late"]);
    assert_eq!(shown(&t.p("m/d/late")), [] as [&str; 0]);
    t.mount(&[&["-l", ".", "-u", "u2", "-w", "w2"][..], &options, &["m2"]].concat());
    t.mount(&[&["-l", "."][..], &options, &["d/late"]].concat());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    for at in ["m", "m2", "d/late"] {
                        // A name may be gone, or not to be entered; it must be answered.
                        let done = run(Command::new("find").arg(t.p(at)).args(["-maxdepth", "8", "-ls"]));
                        assert!(done.code.is_some(), "{done:?}");
                    }
                    let _ = fs::read_dir(t.p("m/m2/m/m2/m"));
                    let _ = fs::read_dir(t.p("m/d/late/d/late"));
                }
            });
        }
    });
    for at in ["d/late", "m2", "m"] {
        t.unmount(at);
    }
}

#[test]
fn an_ephemeral_upper_layer_may_be_inside_the_lower_layer() {
    let Some(t) = Tree::new() else { return };
    let _free = Umount(t.p("m"));
    let said = t.mount(&["-l", ".", &format!("--ephemeral={}", t.p("d").display()), "m"]);
    assert!(said.contains("does not show"), "{said}");
    let made: Vec<_> = shown(&t.p("d")).into_iter().filter(|name| name != "inner").collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let inside = t.p("m/d").join(&made[0]);
    assert_eq!(shown(&inside), [] as [&str; 0], "neither the upper layer nor the workdir shows");
    fs::write(t.p("m/d/new"), "x").unwrap();
    t.unmount("m");
    assert_eq!(shown(&t.p("d")), ["inner"]);
}

#[test]
fn the_mount_point_may_be_inside_the_upper_layer() {
    let Some(t) = Tree::new() else { return };
    fs::create_dir(t.p("u/at")).unwrap();
    let _free = Umount(t.p("u/at"));
    for round in 0..2 {
        // The second time the mount point is not empty.
        let said = t.mount(&["-l", "d", "-u", "u", "-w", "w", "-o", "nonempty", "u/at"]);
        assert!(said.contains("mountpoint") && said.contains("inside upper layer"), "{said}");
        let beneath: &[&str] = if round == 0 { &[] } else { &["below"] };
        if fenced() {
            assert_eq!(shown(&t.p("u/at/at")), beneath);
            fs::write(t.p("u/at/at/below"), "x").unwrap();
        } else {
            assert_eq!(missing(t.p("u/at/at")), Errno::ENOENT);
            assert_eq!(sys::mkdir(t.p("u/at/at"), 0o755), Err(Errno::EBUSY));
        }
        fs::write(t.p("u/at/new"), "x").unwrap();
        t.unmount("u/at");
        assert_eq!(text(t.p("u/new")), "x");
        assert_eq!(shown(&t.p("u/at")), if fenced() { vec!["below"] } else { vec![] });
    }
}

#[test]
fn layers_may_lie_below_the_mount_point() {
    let Some(t) = Tree::new() else { return };
    let _free = Umount(t.root.clone());
    t.mount(&["-l", "d", "-u", "u", "-w", "w", "-o", "nonempty", "."]);
    assert_eq!(shown(&t.root), ["inner"]);
    fs::write(t.p("new"), "x").unwrap();
    fs::write(t.p("inner/new"), "x").unwrap();
    unmount(&t.root);
    assert_eq!((text(t.p("u/new")), text(t.p("u/inner/new"))), ("x".to_owned(), "x".to_owned()));
}

#[test]
fn a_lower_layer_inside_what_is_written_is_refused_and_nested_lower_layers_are_noted() {
    let Some(t) = Tree::new() else { return };
    fs::create_dir(t.p("u/low")).unwrap();
    fs::create_dir(t.p("w/low")).unwrap();
    let _free = Umount(t.p("m"));
    for inside in ["u/low", "w/low"] {
        let done = run(Command::new(program())
            .args(["mount", "-l", inside, "-u", "u", "-w", "w", "m"])
            .current_dir(&t.root));
        assert!(
            done.code == Some(1) && done.err.contains("a change of the one would change the other"),
            "{done:?}"
        );
    }
    fs::remove_dir(t.p("w/low")).unwrap();
    let said = t.mount(&["-l", "d/inner", "-l", "d", "-u", "u", "-w", "w", "m"]);
    assert!(said.contains("names show in both places"), "{said}");
    t.unmount("m");
}

/// Source: kernel `clone_private_mount`: a layer is one filesystem.
#[test]
fn mounts_inside_a_lower_layer_are_left_out_and_said() {
    let Some(t) = Tree::new().filter(|_| mode() == Mode::Root && fenced()) else { return };
    run(Command::new("mount").args(["-t", "tmpfs", "inside"]).arg(t.p("d"))).ok();
    let _inner = Umount(t.p("d"));
    fs::write(t.p("d/of-the-mount"), "x").unwrap();
    let _free = Umount(t.p("m"));
    let said = t.mount(&["-l", ".", "-u", "u", "-w", "w", "m"]);
    let place = t.p("d").display().to_string();
    assert!(said.contains(&format!("{place}: mounted inside lower layer")), "{said}");
    assert_eq!(shown(&t.p("m/d")), ["inner"]);
    let list = run(Command::new(program()).args(["ls", "-v"])).ok().out;
    assert!(list.contains(&format!("  without  {place}, mounted in a lower layer\n")), "{list}");
    t.unmount("m");
    run(Command::new("umount").arg(t.p("d"))).ok();
}

/// The record of the mount and its control socket have a place that the mount does not cover.
#[test]
fn a_mount_over_the_runtime_directory_does_not_wait_for_itself() {
    let Some(t) = Tree::new().filter(|_| mode() == Mode::Root) else { return };
    let _free = Umount(PathBuf::from("/run"));
    let args = ["mount", "-l", "/run", "-u", "u", "-w", "w", "-o", "nonempty", "/run"];
    let done = run(Command::new(program()).args(args).current_dir(&t.root));
    assert_eq!(done.code, Some(0), "{}", done.err);
    fs::write("/run/stratafs-test-name", "x").unwrap();
    let list = run(Command::new(program()).args(["ls", "-v"])).ok().out;
    let block = list.split("\n\n").find(|block| block.starts_with("/run\n")).unwrap_or_default();
    assert!(block.contains("daemon   process"), "{list}");
    unmount(Path::new("/run"));
    assert_eq!(text(t.p("u/stratafs-test-name")), "x");
    drop(t.fixture);
}
