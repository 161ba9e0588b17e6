//! What is attached with `ro` takes no change at all, in no way.

use super::common::*;

fn mounted() -> Option<Fixture> {
    let mut f = Fixture::new(1)?;
    f.source("data").file("f", "host").dir("d").file("d/x", "x").dir("empty").symlink("link", "f");
    f.source("data").file("attr", "").xattr("user.k", b"v");
    f.source("").file("single", "single");
    f.bind_kept("data", "/data", "ro");
    f.bind_kept("single", "/single", "ro");
    f.mount();
    Some(f)
}

#[test]
fn every_change_is_refused() {
    let Some(mut f) = mounted() else { return };
    let d = f.p("data");
    let all: Vec<(&str, Result<(), Errno>)> = vec![
        ("create", sys::open(d.join("new"), libc::O_CREAT | libc::O_WRONLY, 0o644).map(drop)),
        (
            "create, exclusive",
            sys::open(d.join("new"), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o644).map(drop),
        ),
        ("mkdir", sys::mkdir(d.join("new"), 0o755)),
        ("fifo", sys::mknod(d.join("new"), libc::S_IFIFO | 0o644, 0)),
        ("socket", sys::mknod(d.join("new"), libc::S_IFSOCK | 0o644, 0)),
        ("symlink", sys::symlink("f", d.join("new"))),
        ("link", sys::link(d.join("f"), d.join("new"))),
        ("unlink", sys::unlink(d.join("f"))),
        ("rmdir", sys::rmdir(d.join("empty"))),
        ("rename", sys::rename(d.join("f"), d.join("new"))),
        ("rename over", sys::rename(d.join("f"), d.join("attr"))),
        ("rename of a directory", sys::rename(d.join("empty"), d.join("d/new"))),
        ("exchange", sys::renameat2(d.join("f"), d.join("d"), libc::RENAME_EXCHANGE)),
        ("open for writing", sys::open(d.join("f"), libc::O_WRONLY, 0).map(drop)),
        ("open for both", sys::open(d.join("f"), libc::O_RDWR, 0).map(drop)),
        ("open to append", sys::open(d.join("f"), libc::O_WRONLY | libc::O_APPEND, 0).map(drop)),
        ("O_TRUNC", sys::open(d.join("f"), libc::O_RDONLY | libc::O_TRUNC, 0).map(drop)),
        ("truncate", sys::truncate(d.join("f"), 0)),
        ("truncate to the same size", sys::truncate(d.join("f"), 4)),
        ("chmod", sys::chmod(d.join("f"), 0o600)),
        ("chmod of the root", sys::chmod(&d, 0o700)),
        ("chown", sys::lchown(d.join("f"), nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())),
        ("chown of a symlink", sys::lchown(d.join("link"), nix::unistd::geteuid().as_raw(), u32::MAX)),
        ("utimens", sys::utimens(d.join("f"), (1, 2), (3, 4))),
        ("utimens of a symlink", sys::utimens(d.join("link"), (1, 2), (3, 4))),
        ("setxattr", sys::setxattr(d.join("f"), "user.new", b"v", 0)),
        (
            "setxattr, to create what is there",
            sys::setxattr(d.join("attr"), "user.k", b"w", libc::XATTR_CREATE),
        ),
        ("setxattr, to replace nothing", sys::setxattr(d.join("f"), "user.k", b"w", libc::XATTR_REPLACE)),
        ("removexattr", sys::removexattr(d.join("attr"), "user.k")),
        ("removexattr of nothing", sys::removexattr(d.join("f"), "user.k")),
        ("flags", sys::setflags(&ro(d.join("f")), 0x40)),
        ("file: write", sys::open(f.p("single"), libc::O_RDWR, 0).map(drop)),
        ("file: truncate", sys::truncate(f.p("single"), 0)),
        ("file: chmod", sys::chmod(f.p("single"), 0o600)),
        ("file: setxattr", sys::setxattr(f.p("single"), "user.k", b"v", 0)),
        ("file: unlink", sys::unlink(f.p("single"))),
    ];
    for (what, done) in all {
        let expected = if what == "file: unlink" { Errno::EBUSY } else { Errno::EROFS };
        assert_eq!(done, Err(expected), "{what}");
    }
    assert_eq!(sys::open(&d, libc::O_TMPFILE | libc::O_RDWR, 0o600).map(drop), Err(Errno::EOPNOTSUPP));
    f.check(|m| {
        assert_eq!(names(m.join("data")), ["attr", "d", "empty", "f", "link"]);
        assert_eq!(text(m.join("data/f")), "host");
    });
}

#[test]
fn changes_of_the_host_show() {
    let Some(mut f) = mounted() else { return };
    f.kept.clear();
    fs::write(f.host("data/f"), "later").unwrap();
    fs::write(f.host("data/new"), "new").unwrap();
    fs::write(f.host("single"), "changed").unwrap();
    f.check(|m| {
        assert_eq!((text(m.join("data/f")), text(m.join("data/new"))), ("later".into(), "new".into()));
        assert_eq!(text(m.join("single")), "changed");
    });
}

#[test]
fn reading_moves_no_access_time() {
    let Some(mut f) = mounted() else { return };
    let old = (1_000_000_000, 0);
    f.kept.clear();
    for path in ["data/f", "data/d", "data", "single"] {
        sys::utimens(f.host(path), old, old).unwrap();
    }
    assert_eq!((text(f.p("data/f")), text(f.p("single"))), ("host".into(), "single".into()));
    assert_eq!((names(f.p("data/d")), names(f.p("data")).len()), (vec!["x".to_owned()], 5));
    let map = Map::shared(&ro(f.p("data/f")), 4);
    assert_eq!(map.get(), b"host");
    for path in ["data/f", "data/d", "data", "single"] {
        assert_eq!(stat(f.host(path)).atime(), old.0, "{path}");
    }
}
