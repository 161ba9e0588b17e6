//! `writeback=on`: the kernel writes later, by whatever descriptor it has.

use crate::common::*;

#[test]
fn a_part_of_a_page_is_written_by_who_may_only_write() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("it has no such cache")) else { return };
    f.lower(0).file("low", "0123456789").file("other", "0123456789");
    f.options = vec!["writeback=on".into()];
    f.mount();
    let w = sys::open(f.p("low"), libc::O_WRONLY, 0).unwrap();
    w.write_all_at(b"ab", 3).unwrap();
    w.sync_all().unwrap();
    drop(w);
    fs::write(f.p("new"), "0123456789").unwrap();
    f.remount();
    let a = sys::open(f.p("new"), libc::O_WRONLY, 0).unwrap();
    a.write_all_at(b"ab", 3).unwrap();
    drop(a);
    // Open for reading before the copy-up, and for writing alone after it.
    let r = ro(f.p("other"));
    let w = sys::open(f.p("other"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
    w.write_all_at(b"cd", 0).unwrap();
    assert_eq!(through(&r), b"0123456789cd");
    drop((r, w));
    f.check(|m| {
        assert_eq!(text(m.join("low")), "012ab56789");
        assert_eq!(text(m.join("new")), "012ab56789");
        assert_eq!(text(m.join("other")), "0123456789cd");
    });
}
