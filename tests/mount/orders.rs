//! Every order of opens, maps, writes, renames and removals around one copy-up.
//!
//! Each order has a lower file of its own. After every step, everybody who holds the file sees the same bytes, those
//! a plain file would have. What is single steps in `coherence` is here all of them in all orders.

use crate::common::*;

const PAGE: usize = 4096;

/// One step of a story about one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A reader opens it.
    Open,
    /// The reader maps its first page.
    MapIt,
    /// The reader closes; its map stays.
    Close,
    /// Somebody opens, writes three bytes and closes.
    Write,
    /// Somebody opens for appending, adds a page and closes.
    Append,
    /// Somebody opens with truncation and writes a page.
    Replace,
    /// A second writer opens and stays.
    Hold,
    /// That writer writes.
    HeldWrite,
    /// The mode changes, which needs no data.
    Chmod,
    /// It gets another name.
    Rename,
    /// Its name goes.
    Unlink,
}

use Step::*;

/// Pairs of which the first must come before the second, where both are in the story.
const BEFORE: [(Step, Step); 10] = [
    (Open, MapIt),
    (MapIt, Close),
    (Open, Close),
    (Hold, HeldWrite),
    (Open, Unlink),
    (Hold, Unlink),
    (Write, Unlink),
    (Append, Unlink),
    (Replace, Unlink),
    (Rename, Unlink),
];

/// All orders of `steps` that make sense.
fn orders(steps: &[Step]) -> Vec<Vec<Step>> {
    if steps.is_empty() {
        return vec![vec![]];
    }
    let mut out = vec![];
    for (i, first) in steps.iter().enumerate() {
        let rest: Vec<Step> = steps[..i].iter().chain(&steps[i + 1..]).copied().collect();
        if BEFORE.iter().any(|(a, b)| b == first && rest.contains(a)) {
            continue;
        }
        for mut order in orders(&rest) {
            order.insert(0, *first);
            out.push(order);
        }
    }
    out
}

/// The file of one order as it should be, and those who hold it.
#[derive(Default)]
struct Story {
    name: Option<String>,
    want: Vec<u8>,
    reader: Option<File>,
    map: Option<Map>,
    held: Option<File>,
}

impl Story {
    fn step(&mut self, f: &Fixture, step: Step) {
        let at = self.name.as_ref().map(|n| f.p(n));
        let path = || at.as_ref().unwrap();
        match step {
            Open => self.reader = Some(ro(path())),
            MapIt => self.map = Some(Map::shared(self.reader.as_ref().unwrap(), PAGE)),
            Close => self.reader = None,
            Write => {
                rw(path()).write_all_at(b"WWW", 10).unwrap();
                self.want[10..13].copy_from_slice(b"WWW");
            }
            Append => {
                use std::io::Write;
                let mut a = sys::open(path(), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
                a.write_all(&[b'A'; PAGE]).unwrap();
                self.want.extend([b'A'; PAGE]);
            }
            Replace => {
                fs::write(path(), [b'R'; 2 * PAGE]).unwrap();
                self.want = vec![b'R'; 2 * PAGE];
            }
            Hold => self.held = Some(rw(path())),
            HeldWrite => {
                self.held.as_ref().unwrap().write_all_at(b"HH", 100).unwrap();
                self.want[100..102].copy_from_slice(b"HH");
            }
            Chmod => sys::chmod(path(), 0o640).unwrap(),
            Rename => {
                let to = format!("{}-renamed", self.name.as_ref().unwrap());
                sys::rename(path(), f.p(&to)).unwrap();
                self.name = Some(to);
            }
            Unlink => {
                sys::unlink(path()).unwrap();
                self.name = None;
            }
        }
    }

    fn look(&self, f: &Fixture, tale: &str) {
        let same = |who: &str, got: &[u8]| {
            let at = got.iter().zip(&self.want).position(|(a, b)| a != b);
            assert!(at.is_none(), "{tale}: {who} sees another byte at {}", at.unwrap());
        };
        for (who, handle) in [("reader", &self.reader), ("held writer", &self.held)] {
            let Some(handle) = handle else { continue };
            let m = handle.metadata().unwrap();
            assert_eq!(m.len(), self.want.len() as u64, "{tale}: size for the {who}");
            let got = through(handle);
            assert_eq!(got.len(), self.want.len(), "{tale}: bytes for the {who}");
            same(who, &got);
            if let Some(name) = &self.name {
                assert_eq!(m.ino(), stat(f.p(name)).ino(), "{tale}: number for the {who}");
            }
        }
        if let Some(map) = self.map.as_ref().filter(|_| !kernel_oracle()) {
            same("map", &map.get());
        }
        if let Some(name) = &self.name {
            assert_eq!(stat(f.p(name)).len(), self.want.len() as u64, "{tale}: size by name");
            same("path", &fs::read(f.p(name)).unwrap());
        }
    }
}

fn all(steps: &[Step]) {
    let Some(mut f) = Fixture::new(1) else { return };
    let orders = orders(steps);
    for i in 0..orders.len() {
        f.lower(0).file(format!("d{}/{i}", i % 8), [b'o'; 2 * PAGE]).mode(0o600);
    }
    f.mount();
    let mut left = vec![];
    for (i, order) in orders.iter().enumerate() {
        let name = Some(format!("d{}/{i}", i % 8));
        let mut story = Story { name, want: vec![b'o'; 2 * PAGE], ..Story::default() };
        for (n, step) in order.iter().enumerate() {
            story.step(&f, *step);
            story.look(&f, &format!("after {:?}", &order[..=n]));
        }
        left.push((story.name.take(), std::mem::take(&mut story.want)));
    }
    assert!(!left.is_empty());
    f.check(|m| {
        for ((name, want), order) in left.iter().zip(&orders) {
            if let Some(name) = name {
                assert!(fs::read(m.join(name)).unwrap() == *want, "after a remount, {order:?}");
            }
        }
        let shown: usize = (0..8).map(|d| dents(m.join(format!("d{d}"))).len()).sum();
        assert_eq!(shown, left.iter().filter(|(name, _)| name.is_some()).count());
    });
}

#[test]
fn reader_map_writers_and_rename() {
    all(&[Open, MapIt, Close, Write, Hold, HeldWrite, Rename]);
}

#[test]
fn reader_map_writers_and_removal() {
    all(&[Open, MapIt, Close, Write, Hold, HeldWrite, Unlink]);
}

#[test]
fn growing_and_replacing() {
    all(&[Open, MapIt, Close, Append, Replace, Hold, HeldWrite]);
}

#[test]
fn metadata_before_data() {
    all(&[Open, MapIt, Chmod, Write, Rename, Append]);
}
