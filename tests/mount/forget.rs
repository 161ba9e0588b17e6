//! What the kernel forgets and looks up again is the same object as before.

use crate::common::*;
use std::time::Duration;

/// Takes dentries and inodes that are not in use away from the kernel; a directory goes after what is in it.
fn drop_caches() {
    for _ in 0..3 {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two names of one file, of which one is open; the directory of the other one is forgotten meanwhile.
#[test]
fn a_name_goes_from_a_forgotten_directory() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("low");
    f.upper().dir("a").dir("b").file("a/f", "data").hardlink("b/g", "a/f");
    f.mount();
    assert_eq!(stat(f.p("b/g")).ino(), stat(f.p("a/f")).ino());
    let h = rw(f.p("a/f"));
    drop_caches();
    sys::unlink(f.p("b/g")).unwrap();
    fs::write(f.p("b/g"), "another file").unwrap();
    sys::chmod(f.p("b/g"), 0o600).unwrap();
    assert_eq!(h.metadata().unwrap().nlink(), 1);
    sys::unlink(f.p("a/f")).unwrap();
    // Nothing but the descriptor leads to the file now; the name that it once had is another's.
    let s = h.metadata().unwrap();
    assert_eq!((s.nlink(), s.len()), (0, 4));
    h.set_permissions(fs::Permissions::from_mode(0o611)).unwrap();
    h.set_len(2).unwrap();
    assert_eq!(through(&h), b"da");
    assert_eq!(h.metadata().unwrap().mode() & 0o777, 0o611);
    drop(h);
    f.check(|m| {
        assert_eq!(text(m.join("b/g")), "another file");
        assert_eq!(stat(m.join("b/g")).mode() & 0o777, 0o600);
    });
}

#[test]
fn a_forgotten_directory_moves() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).dir("low").file("low/b/deep/other", "lower");
    f.upper().dir("a").dir("low").dir("low/b").dir("low/b/deep");
    f.upper().file("a/f", "data").hardlink("low/b/deep/g", "a/f");
    f.mount();
    assert_eq!(stat(f.p("low/b/deep/g")).ino(), stat(f.p("a/f")).ino());
    let h = rw(f.p("a/f"));
    drop_caches();
    sys::rename(f.p("low/b"), f.p("moved")).unwrap();
    fs::create_dir_all(f.p("low/b/deep")).unwrap();
    fs::write(f.p("low/b/deep/g"), "another file").unwrap();
    sys::unlink(f.p("a/f")).unwrap();
    h.set_permissions(fs::Permissions::from_mode(0o611)).unwrap();
    h.set_len(2).unwrap();
    drop(h);
    drop_caches();
    f.check(|m| {
        assert_eq!(text(m.join("low/b/deep/g")), "another file");
        assert_eq!(
            (text(m.join("moved/deep/g")), stat(m.join("moved/deep/g")).mode()),
            ("da".into(), 0o100611)
        );
        assert_eq!(text(m.join("moved/deep/other")), "lower");
    });
}
