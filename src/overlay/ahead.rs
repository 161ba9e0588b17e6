//! Looking ahead of who lists a large directory: while it works on the names that it got, those that come next are looked up.
//!
//! Only what lies in a lower layer alone is kept for it. Nobody changes that, so what was read of it holds for as long as it
//! has its name and has not come up; both are looked at when the name is told.

use std::collections::VecDeque;
use std::ffi::OsStr;

use super::Overlay;
use super::attr::Lifetime;
use super::lookup::Entry;
use super::readdir::DOTS;
use crate::inode::handle::Sighted;
use crate::inode::{Attributes, Fh, OpenDir, State};
use crate::merge::listing::FileKind;

/// More names than these are not looked up before somebody asks: others wait for the worker that does it.
const FARTHEST: usize = 256;

impl Overlay {
    /// Looks up the names that the reader of the directory `fh` will come to; returns when it comes. Done by the worker that
    /// has just answered it.
    pub fn look_ahead(&self, fh: Fh) {
        let Some(dir) = self.handles.dir(fh) else { return };
        let Some((next, names, turn)) = dir.ahead.lock().look() else { return };
        if Lifetime::of(&dir.inode.stack) != Lifetime::Forever {
            return;
        }
        let (mut at, mut left) = (next.saturating_sub(DOTS), names.min(FARTHEST));
        while left > 0 {
            let Ok(batch) = self.listed(&dir, at) else { return };
            let Some((last, _)) = batch.last() else { return };
            at = *last;
            for (next, listed) in batch.iter().take(left) {
                if !dir.ahead.lock().is_at(turn) {
                    return;
                }
                if listed.kind == FileKind::Dir || dir.inode.point(&listed.name).is_some() {
                    continue;
                }
                // What cannot be looked up will say so when its turn comes.
                let Ok(Some(found)) = self.lookup_in(&dir.inode, &listed.name) else { continue };
                let Some(sighted) = sighted(found, next + DOTS) else { continue };
                if let Some(late) = dir.ahead.lock().keep(turn, sighted) {
                    return self.forget(late.inode.ino, 1);
                }
            }
            left = left.saturating_sub(batch.len());
        }
    }

    /// What was sighted of the name `name`, after which the listing of `dir` goes on at `next`, if it still is as it was then;
    /// with one lookup of it. Those of names before it, which the reader has passed, are given back.
    pub(super) fn sighted(
        &self,
        dir: &OpenDir,
        ahead: &mut VecDeque<Sighted>,
        name: &OsStr,
        next: u64,
    ) -> Option<Sighted> {
        while ahead.front().is_some_and(|sighted| sighted.next <= next) {
            let sighted = ahead.pop_front()?;
            sighted.inode.note_attributes(Attributes::Told);
            let holds = {
                let _names = dir.inode.names().read();
                let state = sighted.inode.state.read();
                sighted.next == next && state.has_name(&dir.inode, name) && is_below_alone(&state)
            };
            if holds {
                return Some(sighted);
            }
            self.forget(sighted.inode.ino, 1);
        }
        None
    }

    /// Gives back what nobody came to.
    pub(super) fn not_come_to(&self, ahead: VecDeque<Sighted>) {
        for sighted in ahead {
            self.forget(sighted.inode.ino, 1);
        }
    }
}

/// What was found, if it can be kept; the lookup goes back if not.
fn sighted(found: Entry<'_>, next: u64) -> Option<Sighted> {
    let is_told_by_it = found.attr.ino.0 == found.attr.stat.ino;
    (is_told_by_it && is_below_alone(&found.inode.state.read())).then_some(())?;
    Some(Sighted { next, stat: found.attr.stat, inode: found.inode.leak() })
}

/// Whether nothing that is known of an object can change before it comes up.
fn is_below_alone(state: &State) -> bool {
    let rare = state.rare();
    !state.gone
        && state.upper_ino == 0
        && state.lower().is_some()
        && rare.data.is_none()
        && rare.nlink.is_none()
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
