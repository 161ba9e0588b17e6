//! Objects that go to and fro between two names: whoever looks sees one of them, never both or none.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::board::BALLS;
use crate::common::*;
use crate::worker::{Worker, won};

/// Two names of each: a file and a directory that change directories, a directory and a hard link that stay in theirs.
const BOTH: [[&str; 2]; BALLS] = [
    ["ping/one/file", "ping/two/file"],
    ["ping/dir0", "ping/dir1"],
    ["ping/one/dir", "ping/two/dir"],
    ["ping/link0", "ping/link1"],
];

/// In the lower layers. Hard links need the index to stay what they are.
pub fn plant(f: &Fixture, hard_links: bool) {
    let low = f.lower(1).file(BOTH[0][0], "ball 0").file(format!("{}/in", BOTH[1][0]), "ball 1");
    let low = low.file(format!("{}/in", BOTH[2][0]), "ball 2").file(BOTH[3][0], "ball 3").dir("ping/two");
    if hard_links {
        low.hardlink("ping/other", BOTH[3][0]);
    }
    f.lower(0).file(format!("{}/more", BOTH[1][0]), "of the upper one");
}

pub fn work(w: &Worker) {
    while w.go() {
        let ball = w.pick(BALLS);
        // One process moves each.
        if ball % 2 == w.process && w.pick(4) != 0 {
            throw(w, ball);
        } else {
            look(w, ball);
        }
    }
}

fn there(path: &Path) -> bool {
    won(no(path.symlink_metadata()), &[Errno::ENOENT], path.display()).is_some()
}

fn paths(w: &Worker, ball: usize) -> [PathBuf; 2] {
    BOTH[ball].map(|path| w.at(path))
}

/// Where it is after so many moves, each of which counts at its begin and at its end: from where, to where it is or goes.
fn way(moves: u64) -> (usize, usize) {
    let to = moves.div_ceil(2) as usize % 2;
    (1 - to, to)
}

fn throw(w: &Worker, ball: usize) {
    let (both, moves) = (paths(w, ball), w.board.moves(ball));
    let (from, to) = way(moves.fetch_add(1, Ordering::SeqCst) + 1);
    assert_eq!(sys::rename(&both[from], &both[to]), Ok(()), "ball {ball}, from {from}");
    assert!(there(&both[to]) && !there(&both[from]), "ball {ball}, thrown from {from}");
    moves.fetch_add(1, Ordering::SeqCst);
}

fn look(w: &Worker, ball: usize) {
    let (both, moves) = (paths(w, ball), w.board.moves(ball));
    let before = moves.load(Ordering::SeqCst);
    let (from, to) = way(before);
    let source_first = w.pick(2) == 0;
    let (at_from, at_to) = if source_first {
        let at_from = there(&both[from]);
        (at_from, there(&both[to]))
    } else {
        let at_to = there(&both[to]);
        (there(&both[from]), at_to)
    };
    let listed = both.clone().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        names(path.parent().unwrap()).contains(&name)
    });
    let data = match BOTH[ball][0].ends_with("dir") || BOTH[ball][0].ends_with("dir0") {
        true => fs::read(both[to].join("in")),
        false => fs::read(&both[to]),
    };
    if moves.load(Ordering::SeqCst) != before {
        return;
    }
    if before % 2 == 0 {
        assert!(at_to && !at_from, "ball {ball} lies: at its place {at_to}, at the other {at_from}");
        assert!(listed[to] && !listed[from], "ball {ball} lies: its place is {to}, listed {listed:?}");
        assert_eq!(data.unwrap(), format!("ball {ball}").as_bytes());
    } else if source_first {
        assert!(at_from || at_to, "ball {ball} flies, and is at neither name");
    } else {
        assert!(!at_to || !at_from, "ball {ball} flies, and is at both names");
    }
}

/// At rest: it is where its number of moves says.
pub fn check(f: &Fixture, board: &crate::board::Board) {
    for (ball, both) in BOTH.iter().enumerate() {
        let moves = board.moves(ball).load(Ordering::SeqCst);
        assert_eq!(moves % 2, 0, "ball {ball} flies at rest");
        let (from, to) = way(moves);
        assert!(there(&f.p(both[to])) && !there(&f.p(both[from])), "ball {ball} after {moves} moves");
    }
}
