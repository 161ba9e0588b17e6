//! One file seen through several descriptors and maps while it is copied up.
//!
//! A reader opens a lower file read-only and maps it; a writer opens the same file, writes, closes. The lower's
//! bytes are unchanged, the upper has the data, the reader's descriptor and map see the new bytes.
//! Departs: kernel overlayfs, overlayfs.rst "Non-standard behavior", where the map stays with the old ones.

use crate::common::*;
use std::path::Path;

const PAGE: usize = 4096;

fn page(c: u8) -> Vec<u8> {
    vec![c; 3 * PAGE]
}

/// A lower file of three pages of `o`.
fn fixture() -> Option<Fixture> {
    let mut f = Fixture::new(1)?;
    f.lower(0).file("d/f", page(b'o')).mtime(1_000_000_000, 123_456_789);
    f.mount();
    Some(f)
}

fn departing() -> Option<Fixture> {
    fixture()?.departs("a map made before copy-up stays with the lower file")
}

/// The lower has `o`, the upper and the mount have `new`.
#[track_caller]
fn settled(f: &mut Fixture, new: &[u8]) {
    assert_eq!(fs::read(f.low(0, "d/f")).unwrap(), page(b'o'), "lower");
    assert_eq!(fs::read(f.up("d/f")).unwrap(), new, "upper");
    f.check(|m| assert_eq!(fs::read(m.join("d/f")).unwrap(), new));
}

#[test]
fn reader_sees_what_a_writer_wrote() {
    let Some(mut f) = fixture() else { return };
    let reader = ro(f.p("d/f"));
    assert_eq!(through(&reader), page(b'o'));
    fs::write(f.p("d/f"), page(b'n')).unwrap();
    assert_eq!(through(&reader), page(b'n'));
    assert_eq!(reader.metadata().unwrap().ino(), stat(f.p("d/f")).ino());
    drop(reader);
    settled(&mut f, &page(b'n'));
}

#[test]
fn map_sees_what_a_writer_wrote() {
    let Some(mut f) = departing() else { return };
    let reader = ro(f.p("d/f"));
    let map = Map::shared(&reader, 3 * PAGE);
    assert_eq!(map.get(), page(b'o'));
    let writer = rw(f.p("d/f"));
    writer.write_all_at(b"NEW", PAGE as u64).unwrap();
    assert_eq!(&map.get()[PAGE..PAGE + 4], b"NEWo");
    drop(writer);
    let mut want = page(b'o');
    want[PAGE..PAGE + 3].copy_from_slice(b"NEW");
    assert_eq!(map.get(), want);
    assert_eq!(through(&reader), want);
    drop((map, reader));
    settled(&mut f, &want);
}

/// The map alone keeps the inode in use: the descriptor is closed before the copy-up.
#[test]
fn map_without_descriptor_sees_it_too() {
    let Some(mut f) = departing() else { return };
    let map = Map::shared(&ro(f.p("d/f")), 3 * PAGE);
    assert_eq!(map.get()[0], b'o');
    rw(f.p("d/f")).write_all_at(b"N", 0).unwrap();
    assert_eq!(&map.get()[..2], b"No");
    drop(map);
    let mut want = page(b'o');
    want[0] = b'N';
    settled(&mut f, &want);
}

#[test]
fn map_made_after_the_write_sees_it() {
    let Some(f) = departing() else { return };
    let reader = ro(f.p("d/f"));
    rw(f.p("d/f")).write_all_at(b"N", 0).unwrap();
    let map = Map::shared(&reader, 3 * PAGE);
    assert_eq!(&map.get()[..2], b"No");
    drop((map, reader));
}

/// A page nobody has read yet must not come from the lower after the copy-up.
#[test]
fn page_untouched_before_copy_up_is_new() {
    let Some(mut f) = departing() else { return };
    let reader = ro(f.p("d/f"));
    let map = Map::shared(&reader, 3 * PAGE);
    fs::write(f.p("d/f"), page(b'n')).unwrap();
    assert_eq!(map.get(), page(b'n'));
    drop((map, reader));
    settled(&mut f, &page(b'n'));
}

#[test]
fn truncation_is_seen_by_the_reader() {
    let Some(mut f) = fixture() else { return };
    let reader = ro(f.p("d/f"));
    assert_eq!(through(&reader).len(), 3 * PAGE);
    sys::truncate(f.p("d/f"), 10).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 10);
    assert_eq!(through(&reader), page(b'o')[..10]);
    sys::truncate(f.p("d/f"), PAGE as i64).unwrap();
    let mut want = page(b'o')[..10].to_vec();
    want.resize(PAGE, 0);
    assert_eq!(through(&reader), want);
    drop(reader);
    settled(&mut f, &want);
}

#[test]
fn truncating_open_is_seen_by_the_reader() {
    let Some(mut f) = fixture() else { return };
    let reader = ro(f.p("d/f"));
    assert_eq!(through(&reader).len(), 3 * PAGE);
    let writer = sys::open(f.p("d/f"), libc::O_WRONLY | libc::O_TRUNC, 0).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    writer.write_all_at(b"short", 0).unwrap();
    assert_eq!(through(&reader), b"short");
    drop((reader, writer));
    settled(&mut f, b"short");
}

/// Source: open(2); two opens for writing of one inode share its bytes whichever came first.
#[test]
fn many_opens_in_any_order_share_bytes() {
    let Some(mut f) = fixture() else { return };
    let r1 = ro(f.p("d/f"));
    let w1 = rw(f.p("d/f"));
    let r2 = ro(f.p("d/f"));
    w1.write_all_at(b"1", 0).unwrap();
    let w2 = rw(f.p("d/f"));
    w2.write_all_at(b"2", 1).unwrap();
    drop(r1);
    let r3 = ro(f.p("d/f"));
    for r in [&r2, &r3, &w1, &w2] {
        assert_eq!(&through(r)[..3], b"12o");
    }
    drop((r2, w1));
    let r4 = ro(f.p("d/f"));
    w2.write_all_at(b"3", 2).unwrap();
    let map = Map::shared(&r4, PAGE);
    assert_eq!(&map.get()[..4], b"123o");
    drop((r3, r4, w2, map));
    // Nobody has it open now: the next opens may go another way, and must see the same.
    let w3 = rw(f.p("d/f"));
    w3.write_all_at(b"4", 3).unwrap();
    assert_eq!(&fs::read(f.p("d/f")).unwrap()[..5], b"1234o");
    drop(w3);
    let mut want = page(b'o');
    want[..4].copy_from_slice(b"1234");
    settled(&mut f, &want);
}

#[test]
fn two_maps_and_a_write_share_bytes_after_copy_up() {
    let Some(mut f) = fixture() else { return };
    let (a, b) = (rw(f.p("d/f")), rw(f.p("d/f")));
    let (ma, mb) = (Map::writable(&a, 3 * PAGE), Map::writable(&b, 3 * PAGE));
    ma.put(0, b"A");
    assert_eq!(mb.get()[0], b'A');
    mb.put(PAGE, b"B");
    assert_eq!(through(&a)[PAGE], b'B');
    b.write_all_at(b"W", 2 * PAGE as u64).unwrap();
    assert_eq!(ma.get()[2 * PAGE], b'W');
    drop((ma, mb, a, b));
    let mut want = page(b'o');
    (want[0], want[PAGE], want[2 * PAGE]) = (b'A', b'B', b'W');
    settled(&mut f, &want);
}

/// A private map may show either bytes for pages not yet touched, but never passes its own on.
#[test]
fn private_map_keeps_its_changes_to_itself() {
    let Some(mut f) = fixture() else { return };
    let reader = ro(f.p("d/f"));
    let map = Map::new(&reader, 3 * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE).unwrap();
    map.put(0, b"mine");
    rw(f.p("d/f")).write_all_at(b"theirs", PAGE as u64).unwrap();
    assert_eq!(&map.get()[..5], b"mineo");
    drop((map, reader));
    let mut want = page(b'o');
    want[PAGE..PAGE + 6].copy_from_slice(b"theirs");
    settled(&mut f, &want);
}

#[test]
fn rename_between_open_and_write() {
    let Some(mut f) = departing() else { return };
    let reader = ro(f.p("d/f"));
    let map = Map::shared(&reader, 3 * PAGE);
    sys::rename(f.p("d/f"), f.p("g")).unwrap();
    assert_eq!(through(&reader), page(b'o'));
    rw(f.p("g")).write_all_at(b"N", 0).unwrap();
    assert_eq!(through(&reader)[0], b'N');
    assert_eq!(map.get()[0], b'N');
    assert_eq!(reader.metadata().unwrap().ino(), stat(f.p("g")).ino());
    drop((map, reader));
    f.check(|m| {
        assert_eq!(missing(m.join("d/f")), Errno::ENOENT);
        assert_eq!(fs::read(m.join("g")).unwrap()[..2], *b"No");
    });
}

#[test]
fn chmod_between_open_and_write() {
    let Some(f) = fixture() else { return };
    let reader = ro(f.p("d/f"));
    sys::chmod(f.p("d/f"), 0o600).unwrap();
    assert_eq!(reader.metadata().unwrap().mode() & 0o7777, 0o600);
    rw(f.p("d/f")).write_all_at(b"N", 0).unwrap();
    assert_eq!(through(&reader)[0], b'N');
    drop(reader);
}

#[test]
fn unlinked_lower_file_is_read_to_the_end() {
    let Some(mut f) = fixture() else { return };
    let reader = ro(f.p("d/f"));
    let map = Map::shared(&reader, 3 * PAGE);
    sys::unlink(f.p("d/f")).unwrap();
    fs::write(f.p("d/f"), "another").unwrap();
    assert_eq!(through(&reader), page(b'o'));
    assert_eq!(map.get(), page(b'o'));
    assert_eq!(reader.metadata().unwrap().len(), 3 * PAGE as u64);
    drop((map, reader));
    f.check(|m| assert_eq!(text(m.join("d/f")), "another"));
}

#[test]
fn writer_of_an_unlinked_file_writes_on() {
    let Some(mut f) = fixture() else { return };
    let reader = ro(f.p("d/f"));
    let writer = rw(f.p("d/f"));
    writer.write_all_at(b"1", 0).unwrap();
    sys::unlink(f.p("d/f")).unwrap();
    writer.write_all_at(b"2", 1).unwrap();
    assert_eq!(&through(&reader)[..3], b"12o");
    assert_eq!(writer.metadata().unwrap().nlink(), 0);
    drop((reader, writer));
    f.check(|m| assert_eq!(missing(m.join("d/f")), Errno::ENOENT));
}

/// Every write is visible in stat at once, through the path and through any descriptor.
#[test]
fn stat_is_right_after_write_and_after_close() {
    let Some(mut f) = fixture() else { return };
    let path = f.p("d/f");
    let start = mtime(&path);
    assert_eq!(start, (1_000_000_000, 123_456_789));
    let w = rw(&path);
    for i in 1..=5u64 {
        w.write_all_at(b"more", 3 * PAGE as u64 * i).unwrap();
        let want = 3 * PAGE as u64 * i + 4;
        assert_eq!(stat(&path).len(), want, "path after write {i}");
        assert_eq!(w.metadata().unwrap().len(), want, "handle after write {i}");
    }
    let written = mtime(&path);
    assert!(written > start, "{written:?}");
    drop(w);
    assert_eq!(stat(&path).len(), 15 * PAGE as u64 + 4);
    let closed = mtime(&path);
    assert!(closed >= written);
    assert_eq!(stat(f.up("d/f")).len(), 15 * PAGE as u64 + 4);
    f.remount();
    assert_eq!(mtime(&path), closed, "the time shown before the remount was not the one kept");
}

/// The kernel keeps what it knows of a file that is opened for writing only, and notices each write.
#[test]
fn stat_is_right_after_each_of_many_appends() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.upper().file("up", "0");
    f.mount();
    for len in 1..20 {
        assert_eq!(stat(f.p("up")).len(), len);
        let before = stat(f.p("up")).modified().unwrap();
        await_later_time();
        let append = sys::open(f.p("up"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
        assert_eq!(stat(f.p("up")).len(), len);
        append.write_all_at(b"x", 0).unwrap();
        assert_eq!(stat(f.p("up")).len(), len + 1, "while it is open");
        if len % 2 == 0 {
            drop(append);
        }
        let now = stat(f.p("up"));
        assert!((now.len(), now.modified().unwrap() > before) == (len + 1, true), "{now:?}");
    }
    drop(sys::open(f.p("up"), libc::O_WRONLY | libc::O_TRUNC, 0).unwrap());
    assert_eq!(stat(f.p("up")).len(), 0);
    f.check(|m| assert_eq!(stat(m.join("up")).len(), 0));
}

/// Source: mmap(2): mtime is updated between the write and a following msync with MS_SYNC.
#[test]
fn stat_is_right_after_a_shared_map_was_written() {
    let Some(mut f) = fixture() else { return };
    let path = f.p("d/f");
    let w = rw(&path);
    let map = Map::writable(&w, 3 * PAGE);
    let before = mtime(&path);
    await_later_time();
    map.put(0, b"N");
    map.sync().unwrap();
    let synced = mtime(&path);
    assert!(synced > before, "{synced:?} after {before:?}");
    assert_eq!(stat(&path).len(), 3 * PAGE as u64);
    drop((map, w));
    let after = mtime(&path);
    assert!(after >= synced);
    f.remount();
    assert_eq!(mtime(&path), after);
    assert_eq!(fs::read(&path).unwrap()[..2], *b"No");
}

/// Readers and a writer at once, over the moment of the copy-up: a byte is old or new, never torn or lost.
#[test]
fn readers_across_the_copy_up_see_old_or_new() {
    let Some(f) = departing() else { return };
    let path = f.p("d/f");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..3 {
            let (path, stop) = (&path, &stop);
            s.spawn(move || {
                let held = ro(path);
                let map = Map::shared(&held, 3 * PAGE);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(map.get().iter().all(|b| b"on".contains(b)));
                    assert!(fs::read(path).unwrap().iter().all(|b| b"on".contains(b)));
                }
                assert_eq!(through(&held), page(b'n'));
                assert_eq!(map.get(), page(b'n'));
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(30));
        let w = rw(&path);
        for at in 0..3 {
            w.write_all_at(&vec![b'n'; PAGE], (at * PAGE) as u64).unwrap();
        }
        drop(w);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A lower file that was opened before is opened by the daemon when somebody wants bytes that the kernel does not have. Much may
/// have happened to it by then.
#[test]
fn what_happens_between_open_and_read() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("there a reader keeps the lower file")) else {
        return;
    };
    // Too large to be handed to the kernel at the first open.
    let old = vec![b'o'; 200 << 10];
    type Change = fn(&Fixture, &Path);
    let changes: [(&str, Change, &str); 9] = [
        ("nothing", |_, _| (), ""),
        ("written", |_, at| rw(at).write_all_at(b"new", 0).unwrap(), "new"),
        ("cut", |_, at| fs::write(at, "new").unwrap(), "only new"),
        ("mode", |_, at| sys::chmod(at, 0o600).unwrap(), ""),
        ("renamed", |f, at| sys::rename(at, f.p("moved")).unwrap(), ""),
        ("hidden", |f, at| sys::rename(f.p("other"), at).unwrap(), ""),
        ("removed", |_, at| sys::unlink(at).unwrap(), ""),
        (
            "written-removed",
            |_, at| {
                rw(at).write_all_at(b"new", 0).unwrap();
                sys::unlink(at).unwrap();
            },
            "new",
        ),
        (
            "written-renamed",
            |f, at| {
                rw(at).write_all_at(b"new", 0).unwrap();
                sys::rename(at, f.p("moved too")).unwrap();
            },
            "new",
        ),
    ];
    for (name, ..) in &changes {
        f.lower(0).file(format!("d/{name}"), &old).file("other", "another");
    }
    f.mount();
    for (name, change, new) in &changes {
        let path = f.p("d").join(name);
        drop(ro(&path));
        let readers = [ro(&path), ro(&path)];
        change(&f, &path);
        let want = match *new {
            "only new" => b"new".to_vec(),
            new => [new.as_bytes(), &old[new.len()..]].concat(),
        };
        for reader in readers {
            assert!(through(&reader) == want, "{name}: {:?}", &through(&reader)[..8]);
            assert_eq!(reader.metadata().unwrap().len(), want.len() as u64, "{name}");
        }
    }
    f.check(|m| {
        assert_eq!(names(m.join("d")), ["cut", "hidden", "mode", "nothing", "written"]);
        assert_eq!(text(m.join("d/hidden")), "another");
        assert_eq!(fs::read(m.join("moved")).unwrap(), old);
        assert_eq!(fs::read(m.join("moved too")).unwrap()[..4], *b"newo");
    });
}

/// Small files are in the kernel's cache before they are read for the first time; whoever changes them at that very moment is
/// seen all the same.
#[test]
fn first_open_and_first_change_at_once() {
    let Some(mut f) = Fixture::new(1) else { return };
    let files = 400;
    let old = vec![b'o'; 5000];
    for i in 0..files {
        f.lower(0).file(format!("d/{i}"), &old);
    }
    f.mount();
    let wanted = |i: usize| match i % 4 {
        0 => b"new".to_vec(),
        1 => old[..10].to_vec(),
        2 => [&b"NEW"[..], &old[3..]].concat(),
        _ => [&old[..], &b"more"[..]].concat(),
    };
    // Both at once for one file after the other: whoever fails leaves nobody waiting.
    for i in 0..files {
        let path = f.p(format!("d/{i}"));
        let turn = std::sync::Barrier::new(2);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                turn.wait();
                let (seen, new) = (fs::read(&path).unwrap(), wanted(i));
                let torn = seen.len() == 5000 && seen[3..] == old[3..];
                // Beside a truncation FUSE lets zeros be read as far as the file went.
                let kept = seen.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
                let cut = new.len() < 5000 && new.starts_with(&seen[..kept]);
                let known = seen == old || seen == new || seen.is_empty() || torn || cut;
                assert!(known, "{i}: {} bytes, of which {:?}", seen.len(), &seen[..seen.len().min(20)]);
            });
            turn.wait();
            match i % 4 {
                0 => fs::write(&path, "new").unwrap(),
                1 => sys::truncate(&path, 10).unwrap(),
                2 => rw(&path).write_all_at(b"NEW", 0).unwrap(),
                _ => rw(&path).write_all_at(b"more", 5000).unwrap(),
            }
            assert_eq!(fs::read(&path).unwrap(), wanted(i), "{i}");
        });
    }
    f.check(|m| {
        for i in 0..files {
            assert_eq!(fs::read(m.join(format!("d/{i}"))).unwrap(), wanted(i), "{i}");
            assert_eq!(stat(m.join(format!("d/{i}"))).len(), wanted(i).len() as u64, "{i}");
        }
    });
}
