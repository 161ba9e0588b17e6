//! Which inode a name is. Copy-up gives an object another number on disk, and not every object can have a mark that says where it
//! comes from: with `userxattr` no symlink, fifo or socket, and nothing whose lower layer has no file handles. A file may
//! have names in several layers.

use std::path::Path;
use std::process::Command;

use crate::common::*;

/// Makes the lower layer of `f` one of the kernel's overlayfs, which gives no file handles. Nothing, with a word, where that is not
/// allowed.
fn lower_without_handles(f: &Fixture) -> Option<Umount> {
    if mode() == Mode::Fusermount {
        println!("skipped: an ordinary user mounts no overlayfs");
        return None;
    }
    let (base, empty) = (f.dir().join("base"), f.dir().join("empty"));
    fs::rename(f.low(0, ""), &base).unwrap();
    for dir in [&empty, &f.low(0, "")] {
        fs::create_dir(dir).unwrap();
        sys::chmod(dir, 0o755).unwrap();
    }
    let options = format!("lowerdir={}:{},userxattr", base.display(), empty.display());
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(f.low(0, ""));
    run(&mut mount).ok();
    Some(Umount(f.low(0, "")))
}

fn fill(layer: Layer) {
    let layer =
        layer.file("file", "data").mode(0o644).symlink("link", "to").node("fifo", libc::S_IFIFO | 0o644, 0);
    let layer =
        layer.node("sock", libc::S_IFSOCK | 0o644, 0).file("h1", "hard").mode(0o644).hardlink("h2", "h1");
    layer.file("d/inner", "inner").mode(0o644).dir("e");
}

/// Everything that is asked of `path` has an answer, and none has changed but what was told.
#[track_caller]
fn is_whole(path: &Path, kind: &str, mode: u32) {
    let found = stat(path);
    match kind {
        "link" => assert_eq!(fs::read_link(path).unwrap(), Path::new("to")),
        "fifo" => assert!(found.file_type().is_fifo()),
        "sock" => assert!(found.file_type().is_socket()),
        "h1" => assert_eq!(text(path), "hard"),
        _ => assert_eq!(text(path), "data"),
    }
    if kind != "link" {
        assert_eq!(found.mode() & 0o7777, mode, "{path:?}");
    }
    assert_eq!(sys::listxattr(path).map(|names| names.len()), Ok(0), "{path:?}");
}

/// Renames, links and changes each object of `fill` that lies in `at`, then looks at all again after unmount and mount.
fn move_all(f: &mut Fixture, at: &str, stays_linked: bool) {
    let kinds = ["file", "link", "fifo", "sock", "h1"];
    for kind in kinds {
        let [here, moved, linked, away] =
            ["", "-moved", "-linked", "-away"].map(|end| f.p(at).join(format!("{kind}{end}")));
        let inside = f.p(at).join("d").join(kind);
        let held = sys::open(&here, libc::O_PATH | libc::O_NOFOLLOW, 0).unwrap();
        let open = (kind == "file" || kind == "h1").then(|| ro(&here));
        let ino = stat(&here).ino();
        let is_it = |path: &Path, mode| {
            is_whole(path, kind, mode);
            assert_eq!(stat(path).ino(), ino, "{path:?}");
            assert_eq!(held.metadata().unwrap().ino(), ino, "{path:?}: through a descriptor");
            if let Some(open) = &open {
                assert_eq!(open.metadata().unwrap().mode() & 0o7777, mode, "{path:?}: through an open file");
                assert_eq!(through(open).len(), 4);
            }
        };
        sys::rename(&here, &moved).unwrap();
        is_it(&moved, 0o644);
        assert_eq!(missing(&here), Errno::ENOENT);
        if kind != "link" {
            sys::chmod(&moved, 0o600).unwrap();
        }
        is_it(&moved, 0o600);
        sys::rename(&moved, &inside).unwrap();
        is_it(&inside, 0o600);
        sys::link(&inside, &linked).unwrap();
        is_it(&linked, 0o600);
        sys::unlink(&inside).unwrap();
        is_it(&linked, 0o600);
        // Whoever takes its place is another.
        fs::write(&here, "new").unwrap();
        sys::renameat2(&linked, &here, libc::RENAME_EXCHANGE).unwrap();
        is_it(&here, 0o600);
        assert_eq!(text(&linked), "new");
        sys::rename(&here, &linked).unwrap();
        is_it(&linked, 0o600);
        let listed = dents(f.p(at)).into_iter().find(|entry| linked.ends_with(&entry.name)).unwrap();
        assert_eq!(listed.ino, ino, "as it is listed");
        sys::link(&linked, &away).unwrap();
        sys::unlink(&linked).unwrap();
        is_it(&away, 0o600);
        sys::unlink(&away).unwrap();
        let left = u64::from(kind == "h1" && stays_linked);
        assert_eq!(held.metadata().unwrap().nlink(), left);
        if let Some(open) = &open {
            assert_eq!(through(open).len(), 4, "{kind}: it has no name any more");
        }
        // Nobody has it now, and the next one under the name is another.
        drop((held, open));
        fs::write(&away, "after").unwrap();
        assert_eq!(text(&away), "after");
    }
    let at = at.to_owned();
    f.check(|m| {
        let m = m.join(&at);
        assert_eq!(names(m.join("d")), ["inner"]);
        for kind in kinds {
            assert_eq!(missing(m.join(kind)), Errno::ENOENT);
            assert_eq!(text(m.join(format!("{kind}-away"))), "after");
        }
        assert_eq!(text(m.join("h2")), "hard");
        assert_eq!(stat(m.join("h2")).mode() & 0o777, if stays_linked { 0o600 } else { 0o644 });
    });
}

#[test]
fn objects_that_can_have_no_origin_stay_the_same_when_they_move() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("the number changes with copy-up")) else {
        return;
    };
    fill(f.lower(0));
    f.options.push("userxattr".into());
    move_all(f.mount(), "", true);
}

#[test]
fn objects_of_a_layer_without_file_handles_stay_the_same_when_they_move() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("the number changes with copy-up")) else {
        return;
    };
    fill(f.lower(0));
    let Some(_lower) = lower_without_handles(&f) else { return };
    move_all(f.mount(), "", false);
    f.unmount();
}

#[test]
fn a_hard_link_without_an_index_stays_the_same_when_it_moves() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("the number changes with copy-up")) else {
        return;
    };
    fill(f.lower(0));
    f.options.push("index=off".into());
    move_all(f.mount(), "", false);
}

#[test]
fn objects_of_a_copy_on_write_graft_stay_the_same_when_they_move() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no grafts")) else { return };
    fill(f.source("data"));
    for dir in ["graft-up", "graft-work"] {
        fs::create_dir(f.host(dir)).unwrap();
    }
    f.options.push("userxattr".into());
    let mode =
        format!("O,upperdir={},workdir={}", f.host("graft-up").display(), f.host("graft-work").display());
    f.bind_kept("data", "/graft", &mode);
    move_all(f.mount(), "graft", true);
}

/// Hard links between layer trees, as `cp -al` and ostree make them.
#[test]
fn one_file_under_names_in_two_layers_is_one_inode() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(0).file("a", "old").mode(0o644).file("d/other", "");
    sys::link(f.low(0, "a"), f.low(1, "b")).unwrap();
    sys::link(f.low(0, "a"), f.low(1, "c")).unwrap();
    if kernel_oracle() {
        f.options.push("index=on".into());
    }
    f.mount();
    let one = |m: &Path, all: &[&str], nlink: u64, data: &str| {
        let ino = stat(m.join(all[0])).ino();
        for name in all {
            assert_eq!((stat(m.join(name)).ino(), stat(m.join(name)).nlink()), (ino, nlink), "{name}");
            assert_eq!(text(m.join(name)), data, "{name}");
        }
    };
    one(&f.p(""), &["a", "b", "c"], 3, "old");
    let append = |name: &str, data: &str| {
        let file = sys::open(f.dir().join("mnt").join(name), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
        file.write_all_at(data.as_bytes(), 0).unwrap();
    };
    append("a", " a");
    one(&f.p(""), &["a", "b", "c"], 3, "old a");
    append("b", " b");
    sys::chmod(f.p("b"), 0o600).unwrap();
    sys::rename(f.p("b"), f.p("d/b")).unwrap();
    one(&f.p(""), &["a", "d/b", "c"], 3, "old a b");
    f.check(|m| {
        one(m, &["a", "d/b", "c"], 3, "old a b");
        assert_eq!(stat(m.join("c")).mode() & 0o777, 0o600);
        assert_eq!(missing(m.join("b")), Errno::ENOENT);
    });
    sys::unlink(f.p("c")).unwrap();
    f.check(|m| one(m, &["a", "d/b"], 2, "old a b"));
    sys::unlink(f.p("a")).unwrap();
    sys::unlink(f.p("d/b")).unwrap();
    f.check(|m| assert_eq!(names(m), ["d"]));
}

#[test]
fn one_file_under_names_in_two_layers_is_two_without_an_index() {
    let Some(mut f) = Fixture::new(2) else { return };
    f.lower(0).file("a", "old").mode(0o644);
    sys::link(f.low(0, "a"), f.low(1, "b")).unwrap();
    f.options.push("index=off".into());
    f.mount();
    fs::write(f.p("a"), "new").unwrap();
    sys::chmod(f.p("b"), 0o600).unwrap();
    sys::rename(f.p("b"), f.p("c")).unwrap();
    f.check(|m| {
        assert_eq!((text(m.join("a")), text(m.join("c"))), ("new".into(), "old".into()));
        assert_eq!((stat(m.join("a")).mode() & 0o777, stat(m.join("c")).mode() & 0o777), (0o644, 0o600));
    });
}

#[test]
fn a_read_only_mount_shows_one_file_in_two_layers_as_one() {
    let Some(mut f) = Fixture::read_only(2).and_then(|f| f.departs("it needs an index, so an upper layer"))
    else {
        return;
    };
    f.lower(0).file("a", "old");
    sys::link(f.low(0, "a"), f.low(1, "b")).unwrap();
    f.mount();
    f.check(|m| assert_eq!(stat(m.join("a")).ino(), stat(m.join("b")).ino()));
}
