//! Carrying out what a mount is asked.

use std::io;

use super::{Answer, Hidden, Request, Stale};
use crate::error::Result;
use crate::graft::{self, Source};
use crate::merge::listing::FileKind;
use crate::overlay::{self, Overlay};
use crate::sys::stat::Timestamp;

/// Does what `request` says and gives the lines of the answer to `tell`; `changed` is called when the record of the mount has
/// something new to say. Errors: those of `tell`, when the caller has closed the connection.
pub fn carry_out(
    overlay: &Overlay,
    request: Request,
    changed: impl Fn(),
    tell: &mut dyn FnMut(Answer) -> io::Result<()>,
) -> io::Result<()> {
    let done = match request {
        Request::GraftAdd { spec } => graft::check(&spec).and_then(|()| overlay.attach(&spec)),
        Request::GraftRm { target, lazy } => overlay.detach(&target, lazy),
        Request::GraftReplace { spec, lazy } => {
            graft::check(&spec).and_then(|()| overlay.replace(&spec, lazy))
        }
        Request::Shadow { stale } => {
            let mut told = Ok(());
            let done = overlay.shadow(stale, &mut |hidden| {
                told = tell(Answer::Hidden(said(hidden)));
                told.is_ok()
            });
            told?;
            return tell(answer(done));
        }
        Request::GiveUp {} => overlay.give_up(),
        Request::GraftLs {} => return tell(Answer::Grafts { grafts: overlay.attached() }),
    };
    // Known before the caller hears of it.
    changed();
    tell(answer(done))
}

fn said(hidden: overlay::Hidden) -> Hidden {
    let (by, volume) = match &hidden.graft.source {
        Source::Bind { .. } => ("bind", None),
        Source::Volume(volume) => ("volume", volume.name.clone()),
        Source::Tmpfs { .. } => ("tmpfs", None),
    };
    let kind = match hidden.kind {
        FileKind::Regular => "file",
        FileKind::Dir => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Char => "character device",
        FileKind::Block => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    };
    let time = |time: Timestamp| (time.secs, time.nanos);
    Hidden {
        path: hidden.path,
        kind: kind.to_owned(),
        target: hidden.graft.target.clone(),
        by: by.to_owned(),
        volume,
        stale: hidden.stale.map(|stale| Stale { graft: time(stale.graft), layers: time(stale.layers) }),
    }
}

fn answer(done: Result<()>) -> Answer {
    match done {
        Ok(()) => Answer::Done {},
        Err(error) => Answer::error(error),
    }
}
