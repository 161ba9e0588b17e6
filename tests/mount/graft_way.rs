//! A graft stays at its path, whatever others do in the tree around it; single files follow their name or do not.

use std::path::Path;

use super::common::*;

/// A graft deep in a source that the host changes.
fn deep() -> Option<Fixture> {
    let mut f = Fixture::new(1)?;
    f.lower(0).dir("data");
    f.source("data").dir("a/b").file("a/b/own", "own").file("a/beside", "beside");
    f.source("inner").file("x", "inner");
    f.bind("data", "/data", "");
    f.bind("inner", "/data/a/b/here", "");
    f.mount();
    Some(f)
}

fn numbers_agree(dir: &Path) {
    for e in dents(dir) {
        assert_eq!(e.ino, stat(dir.join(&e.name)).ino(), "{}", dir.join(&e.name).display());
    }
}

#[test]
fn the_way_leads_through_what_takes_its_place() {
    let Some(mut f) = deep() else { return };
    let (here, there) = (f.p("data"), f.host("data"));
    for round in 0..20 {
        fs::create_dir_all(there.join("next/b")).unwrap();
        fs::write(there.join("next/b/new"), round.to_string()).unwrap();
        sys::renameat2(there.join("next"), there.join("a"), libc::RENAME_EXCHANGE).unwrap();
        if round % 2 == 0 {
            assert_eq!(names(here.join("a")), ["b"]);
            assert_eq!(names(here.join("a/b")), ["here", "new"]);
        }
        assert_eq!(text(here.join("a/b/new")), round.to_string());
        assert_eq!(text(here.join("a/b/here/x")), "inner");
        assert!(!names(here.join("next/b")).contains(&"here".to_owned()), "it does not go along");
        assert_eq!(sys::rename(here.join("a"), here.join("z")), Err(Errno::EBUSY));
        numbers_agree(&here);
        numbers_agree(&here.join("a/b"));
        fs::remove_dir_all(there.join("next")).unwrap();
    }
    f.check(|m| assert_eq!(names(m.join("data/a/b")), ["here", "new"]));
}

#[test]
fn the_way_stays_where_a_directory_is_taken_away() {
    let Some(mut f) = deep() else { return };
    let (here, there) = (f.p("data"), f.host("data"));
    assert_eq!(text(here.join("a/b/here/x")), "inner");
    fs::remove_dir_all(there.join("a")).unwrap();
    assert_eq!(names(&here), ["a"]);
    numbers_agree(&here);
    assert_eq!((names(here.join("a")), names(here.join("a/b"))), (vec!["b".into()], vec!["here".into()]));
    numbers_agree(&here.join("a"));
    assert_eq!(text(here.join("a/b/here/x")), "inner");
    assert_eq!(names(&there), [] as [&str; 0], "nothing is made for it");
    // It comes back, and what is in it shows.
    fs::create_dir(there.join("a")).unwrap();
    fs::write(there.join("a/back"), "back").unwrap();
    assert_eq!(names(here.join("a")), ["b", "back"]);
    assert_eq!(text(here.join("a/b/here/x")), "inner");
    // A file cannot lead there.
    fs::remove_dir_all(there.join("a")).unwrap();
    fs::write(there.join("a"), "a file").unwrap();
    assert_eq!(text(here.join("a/b/here/x")), "inner");
    sys::unlink(there.join("a")).unwrap();
    // A name made on the way makes the directories.
    fs::write(here.join("a/b/made"), "made").unwrap();
    assert_eq!(text(there.join("a/b/made")), "made");
    numbers_agree(&here);
    f.check(|m| assert_eq!(names(m.join("data/a/b")), ["here", "made"]));
}

#[test]
fn a_directory_that_the_host_moves_takes_nothing_with_it() {
    let Some(mut f) = deep() else { return };
    let (here, there) = (f.p("data"), f.host("data"));
    assert_eq!(text(here.join("a/b/here/x")), "inner");
    sys::rename(there.join("a"), there.join("z")).unwrap();
    assert_eq!(
        (names(here.join("z")), names(here.join("z/b"))),
        (vec!["b".into(), "beside".into()], vec!["own".into()])
    );
    assert_eq!(missing(here.join("z/b/here")), Errno::ENOENT);
    assert_eq!(names(here.join("a/b")), ["here"]);
    assert_eq!(text(here.join("a/b/here/x")), "inner");
    sys::rename(here.join("z/b"), here.join("free")).unwrap();
    sys::rmdir(here.join("z")).err();
    sys::rename(there.join("z"), there.join("a")).unwrap();
    assert_eq!(names(here.join("a")), ["b", "beside"]);
    assert_eq!(names(here.join("a/b")), ["here"]);
    f.check(|m| {
        assert_eq!(
            (names(m.join("data")), names(m.join("data/free"))),
            (vec!["a".into(), "free".into()], vec!["own".into()])
        );
        assert_eq!(text(m.join("data/a/b/here/x")), "inner");
    });
}

/// Who is on the way while it changes may come to where the old one is now; who asks after it finds the graft.
#[test]
fn the_graft_is_there_whenever_its_way_has_changed() {
    let Some(mut f) = deep() else { return };
    let (here, there) = (f.p("data"), f.host("data"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let going = || !stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while going() {
                    let seen = no(fs::read(here.join("a/b/here/x")));
                    assert!(seen == Ok(b"inner".to_vec()) || seen == Err(Errno::ENOENT), "{seen:?}");
                    let _ = fs::read_dir(here.join("a/b")).map(|list| list.count());
                }
            });
        }
        for _ in 0..100 {
            let found = || assert_eq!(text(here.join("a/b/here/x")), "inner");
            sys::rename(there.join("a"), there.join("z")).unwrap();
            found();
            fs::create_dir_all(there.join("a/b")).unwrap();
            found();
            fs::remove_dir_all(there.join("a")).unwrap();
            found();
            sys::rename(there.join("z"), there.join("a")).unwrap();
            found();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    f.check(|m| assert_eq!(names(m.join("data/a/b")), ["here", "own"]));
}

#[test]
fn a_single_file_follows_its_name_and_a_pinned_one_stays() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("etc/named", "low").file("etc/pinned", "low");
    f.source("etc").file("conf", "first");
    f.bind("etc/conf", "/etc/named", "");
    f.bind("etc/conf", "/etc/pinned", "pin=inode");
    f.mount();
    let open = rw(f.p("etc/named"));
    for round in 0..20 {
        fs::write(f.host("etc/conf~"), format!("round {round}")).unwrap();
        sys::rename(f.host("etc/conf~"), f.host("etc/conf")).unwrap();
        assert_eq!(text(f.p("etc/named")), format!("round {round}"));
        assert_eq!(text(f.p("etc/pinned")), "first");
        for e in dents(f.p("etc")) {
            assert_eq!(e.ino, stat(f.p("etc").join(&e.name)).ino(), "{:?}", e.name);
        }
    }
    assert_eq!(through(&open), b"first");
    fs::write(f.p("etc/pinned"), "written").unwrap();
    assert_eq!((through(&open), stat(f.p("etc/pinned")).nlink()), (b"written".to_vec(), 0));
    fs::write(f.p("etc/named"), "written").unwrap();
    assert_eq!(text(f.host("etc/conf")), "written");
    // Gone for a while, and there again.
    sys::unlink(f.host("etc/conf")).unwrap();
    assert_eq!((missing(f.p("etc/named")), text(f.p("etc/pinned"))), (Errno::ENOENT, "written".into()));
    fs::write(f.host("etc/conf"), "again").unwrap();
    assert_eq!(text(f.p("etc/named")), "again");
    drop(open);
    f.check(|m| assert_eq!(text(m.join("etc/named")), "again"));
}

#[test]
fn what_may_be_kept_is_kept_for_so_long() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.source("data").file("f", "1");
    f.bind("data", "/short", "cache=ttl:2");
    f.bind("data", "/always", "cache=always");
    f.bind("data", "/now", "");
    f.mount();
    let look = |f: &Fixture, dir: &str| (stat(f.p(dir).join("f")).len(), f.p(dir).join("new").exists());
    // A round tells nothing where the machine took longer than the two seconds, or made the kernel forget.
    let kept = eventually(2 * LIMIT, || {
        fs::write(f.host("data/f"), "1").unwrap();
        let _ = sys::unlink(f.host("data/new"));
        f.remount();
        assert!(["short", "always", "now"].iter().all(|dir| look(&f, dir) == (1, false)));
        let begun = std::time::Instant::now();
        fs::write(f.host("data/f"), "12345").unwrap();
        fs::write(f.host("data/new"), "new").unwrap();
        assert_eq!(look(&f, "now"), (5, true));
        let (short, always) = (look(&f, "short"), look(&f, "always"));
        // Bytes are those of the file, however long names and attributes are believed. A kernel that has to keep pages asks for
        // no more of them than it believes there are.
        let bytes = text(f.p("short/f"));
        assert!(bytes == "12345" || (older_kernel().is_some() && bytes == "1"), "{bytes}");
        std::thread::sleep(std::time::Duration::from_millis(2050).saturating_sub(begun.elapsed()));
        assert_eq!(look(&f, "short"), (5, true));
        short == (1, false) && always == (1, false) && look(&f, "always") == (1, false)
    });
    assert!(kept, "names and attributes are not believed for two seconds, or not for ever");
    // Changes through the mount are seen at once in any case.
    for dir in ["short", "always"] {
        fs::write(f.p(dir).join("own"), dir).unwrap();
        assert_eq!(text(f.p(dir).join("own")), dir);
        assert!(names(f.p(dir)).contains(&"own".to_owned()));
        sys::chmod(f.p(dir).join("own"), 0o600).unwrap();
        assert_eq!(stat(f.p(dir).join("own")).mode() & 0o777, 0o600);
        sys::unlink(f.p(dir).join("own")).unwrap();
        assert_eq!(missing(f.p(dir).join("own")), Errno::ENOENT);
    }
    f.check(|m| assert_eq!(names(m.join("always")), ["f", "new"]));
}
