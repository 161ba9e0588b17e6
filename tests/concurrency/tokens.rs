//! Files that go from hand to hand by renames: who has one has it alone, none is lost or doubled, and none forgets how often it was
//! counted up.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::board::{Board, TOKENS};
use crate::common::*;
use crate::worker::{Worker, record, shown, won};

const POOLS: [&str; 3] = ["pool/a", "pool/b", "pool/deep/c"];
const HANDS: &str = "pool/hands";
const LEN: usize = 32;

fn content(token: usize, count: u64) -> Vec<u8> {
    record(&format!("token {token} count {count}"), LEN)
}

/// In the lower layers.
pub fn plant(f: &Fixture) {
    for token in 0..TOKENS {
        let name = format!("{}/{token}", POOLS[token % POOLS.len()]);
        f.lower(token % 2).file(name, content(token, 0)).dir(HANDS);
    }
}

pub fn work(w: &Worker) {
    while w.go() {
        let pool = |w: &Worker| w.at(POOLS[w.pick(POOLS.len())]);
        let (from, to) = (pool(w), pool(w));
        if w.pick(50) == 0 && from != to {
            won(sys::renameat2(&from, &to, libc::RENAME_EXCHANGE), &[Errno::ENOENT], "exchange of pools");
        }
        let token = w.pick(TOKENS);
        let hand = w.at(format!("{HANDS}/{}-{token}", w.id));
        let taken =
            sys::renameat2(from.join(token.to_string()), &hand, [0, libc::RENAME_NOREPLACE][w.pick(2)]);
        if won(taken, &[Errno::ENOENT], "taking a token").is_none() {
            continue;
        }
        count_up(w, &hand, token);
        assert_eq!(sys::rename(&hand, to.join(token.to_string())), Ok(()), "token {token} goes back");
    }
}

/// It is in our hand: nobody else may touch it.
fn count_up(w: &Worker, hand: &Path, token: usize) {
    let count = w.board.count(token).load(Ordering::SeqCst);
    let (old, new) = (content(token, count), content(token, count + 1));
    let facts = stat(hand);
    assert_eq!((facts.nlink(), facts.size()), (1, LEN as u64), "links and size of token {token}");
    let is = |expected: &[u8]| {
        let found = fs::read(hand).unwrap_or_else(|error| panic!("token {token}: {error}"));
        assert_eq!(shown(&found), shown(expected), "token {token}");
    };
    is(&old);
    match w.pick(4) {
        0 => {
            let beside = hand.with_extension("new");
            fs::write(&beside, &new).unwrap();
            sys::rename(&beside, hand).unwrap();
        }
        1 => {
            let file = rw(hand);
            let map = Map::writable(&file, LEN);
            map.put(0, &new);
            map.sync().unwrap();
        }
        2 => {
            sys::chmod(hand, 0o600 + w.pick(64) as u32).unwrap();
            rw(hand).write_all_at(&new, 0).unwrap();
        }
        _ => rw(hand).write_all_at(&new, 0).unwrap(),
    }
    w.board.count(token).fetch_add(1, Ordering::SeqCst);
    is(&new);
}

/// At rest: each is in one pool, and has its count.
pub fn check(f: &Fixture, board: &Board) {
    let mut found = Vec::new();
    for pool in POOLS {
        for name in names(f.p(pool)) {
            let token: usize = name.parse().unwrap_or_else(|_| panic!("{pool}/{name}, which nobody made"));
            let count = board.count(token).load(Ordering::SeqCst);
            let data = fs::read(f.p(pool).join(&name)).unwrap();
            assert_eq!(shown(&data), shown(&content(token, count)), "token {token} at rest");
            found.push(token);
        }
    }
    found.sort_unstable();
    assert_eq!(found, (0..TOKENS).collect::<Vec<_>>(), "tokens that are there");
    assert_eq!(names(f.p(HANDS)), [""; 0]);
}
