//! Carrying out what a mount is asked.

use std::io;

use super::{Answer, Request};
use crate::error::Result;
use crate::graft;
use crate::overlay::Overlay;

/// Does what `request` says and gives the lines of the answer to `tell`; `changed` hears when something else is attached.
/// Errors: those of `tell`, when nobody listens any more.
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
        Request::GraftLs {} => return tell(Answer::Grafts { grafts: overlay.attached() }),
    };
    // Known before the caller hears of it.
    changed();
    tell(answer(done))
}

fn answer(done: Result<()>) -> Answer {
    match done {
        Ok(()) => Answer::Done {},
        Err(error) => Answer::error(error),
    }
}
