//! Tests of records: their text, their lock, and what is removed of dead daemons.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn details() -> Details {
    let grafts = [&b"/s\xff \n:/d\\x:ro"[..], b"vol:/v"];
    let grafts = grafts.map(|text| crate::graft::volume(OsStr::from_bytes(text), Path::new("/")));
    Details {
        pid: 42,
        lowers: vec!["/a b".into(), "/c\nd".into()],
        data_lowers: vec!["/data".into()],
        upper: Some("/u\\x".into()),
        work: Some("/w".into()),
        given_up: true,
        began_read_only: true,
        fenced: true,
        maps: vec!["uid disk 0-65535 shown as 200000-265535".to_owned()],
        notes: vec!["no passthrough: not root".to_owned()],
        socket: None,
        grafts: grafts.into_iter().flatten().collect(),
    }
}

#[test]
fn details_go_there_and_back() {
    let grafts = details().grafts;
    assert_eq!(grafts.len(), 2);
    assert_eq!(grafts_in(&grafts_text(grafts.iter())), grafts);
    assert_eq!(grafts_in("{}\n\njunk\n"), []);
    let text = Details { socket: Some("/s t".into()), ..details() };
    assert_eq!(Details { grafts, ..Details::from_text(&text.to_text()) }, text);
    assert_eq!(Details::from_text(b"junk\nfuture key\n"), Details::default());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_read_as_a_record(lines in proptest::collection::vec(
        ("(pid|lower|data|upper|work|map|note|socket|)", proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)), 0..8,
    )) {
        let text: Vec<u8> = lines.iter().flat_map(|(key, rest)| [key.as_bytes(), b" ", rest, b"\n"].concat()).collect();
        let read = Details::from_text(&text);
        proptest::prop_assert_eq!(Details::from_text(&read.to_text()), read);
        let _ = grafts_in(&String::from_utf8_lossy(&text));
    }
}

#[test]
fn a_record_is_alive_while_it_is_kept_and_then_gone() {
    let dir = tempfile::TempDir::new().expect("dir");
    let dir = dir.path().join("stratafs");
    assert!(Seen::in_dir(&dir, "0:57").is_none());
    let kept = Kept::in_dir(&dir, "0:57", &details()).expect("kept");
    assert_eq!(fs::metadata(dir.join("0:57.42")).expect("record").permissions().mode() & 0o022, 0);
    let seen = Seen::in_dir(&dir, "0:57").expect("seen");
    assert_eq!(seen.details, Details { socket: Some(kept.socket()), ..details() });
    assert!(seen.is_alive());
    kept.attached(&details().grafts[..1]);
    assert_eq!(Seen::in_dir(&dir, "0:57").expect("seen").details.grafts, details().grafts[..1]);
    fs::write(kept.socket(), "").expect("socket");
    drop(kept);
    assert_eq!(fs::read_dir(&dir).expect("dir").count(), 0);
    assert!(!seen.is_alive());
    assert!(Seen::in_dir(&dir, "0:57").is_none());
}

/// A device number was used again before the first daemon had removed its record, which was the second one's too.
#[test]
fn regression_a_daemon_that_ends_leaves_the_record_of_its_successor() {
    let dir = tempfile::TempDir::new().expect("dir");
    let first = Kept::in_dir(dir.path(), "0:1", &details()).expect("kept");
    let second = Kept::in_dir(dir.path(), "0:1", &Details { pid: 43, ..details() }).expect("kept");
    drop(first);
    let seen = Seen::in_dir(dir.path(), "0:1").expect("seen");
    assert!(seen.is_alive() && seen.details.pid == 43);
    drop(second);
}

#[test]
fn a_dead_record_is_replaced() {
    let dir = tempfile::TempDir::new().expect("dir");
    fs::write(dir.path().join("0:1.1"), "pid 1\n").expect("write");
    assert!(!Seen::in_dir(dir.path(), "0:1").expect("seen").is_alive());
    fs::write(dir.path().join("0:2.1"), "pid 1\n").expect("write");
    Seen::in_dir(dir.path(), "0:2").expect("seen").forget();
    assert!(Seen::in_dir(dir.path(), "0:2").is_none());
    let _kept = Kept::in_dir(dir.path(), "0:1", &details()).expect("kept");
    assert_eq!(Seen::in_dir(dir.path(), "0:1").expect("seen").details.pid, 42);
    assert!(!dir.path().join("0:1.1").exists());
}

#[test]
fn what_stands_beside_no_record_is_swept() {
    let dir = tempfile::TempDir::new().expect("dir");
    let living = Kept::in_dir(dir.path(), "0:1", &details()).expect("kept");
    fs::write(living.socket(), "").expect("socket");
    for name in ["socket.0:2.1", "grafts.0:2.1", ".grafts.0:2.1", "socket.0:3.1", "0:3.1", "other"] {
        fs::write(dir.path().join(name), "").expect(name);
    }
    sweep(dir.path(), &names(dir.path()));
    let mut names = names(dir.path());
    names.sort();
    // A dead daemon's record says that its mount is dead, until that is cleared.
    assert_eq!(names, ["0:1.42", "0:3.1", "grafts.0:1.42", "other", "socket.0:1.42", "socket.0:3.1"]);
}
