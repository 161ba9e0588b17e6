//! Where the layers below are to look for an object that moves: at its path in the merged tree, so that what each of
//! them says about the directories on the way still counts. The path in one of them would lead past the others.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::copy_up::publish::redirect_to;
use crate::error::{Context, Error, Result};
use crate::inode::Inode;
use crate::layer::Upper;
use crate::merge::mark::Mark;
use crate::merge::redirect::{MAX_LEN, Redirect};
use crate::sys::At;

/// The redirect from the root to what is `name` in `parent` and carries the redirect `own`. An ancestor that was itself
/// moved counts by its redirect, not by its name. Errors: `NoRedirect` if it is longer than a redirect may be.
/// Locks: the rename gate is held, no inode's state.
/// Source: kernel `ovl_get_redirect`.
pub(super) fn from_root(
    upper: &Upper,
    parent: &Arc<Inode>,
    name: &OsStr,
    own: Option<&[u8]>,
) -> Result<Redirect> {
    let mut path = step(name, own)?.format();
    let mut dir = parent.clone();
    // A path may be thousands of names deep; what is too long needs no end.
    while !path.starts_with(b"/") && path.len() <= MAX_LEN {
        if dir.state.read().gone {
            return Err(Error::Stale);
        }
        let Some(place) = dir.dir_name() else {
            path.insert(0, b'/');
            break;
        };
        // One that was not copied up has not moved: below, it is found by its name.
        let mark = match dir.upper_dir() {
            Some(real) => upper.mark(At::fd(real.fd().call("openat2")?.as_fd()), Mark::Redirect)?,
            None => None,
        };
        path = [step(&place.name, mark.as_deref())?.format(), path].join(&b'/');
        dir = place.parent;
    }
    redirect_to(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path)).to_owned())
}

/// What a name contributes to the path.
fn step(name: &OsStr, mark: Option<&[u8]>) -> Result<Redirect> {
    let Some(value) = mark else { return Ok(Redirect::Sibling(name.to_owned())) };
    Redirect::parse(value).map_err(|why| Error::BadMark {
        mark: "redirect",
        name: name.to_string_lossy().into_owned(),
        why,
    })
}

/// The redirect that a file whose data is below needs before what is `name` in `parent` gets another name; nothing if
/// it has it already. `same_dir` says that it is only renamed within its directory.
/// Locks: the rename gate and the inode's gate are held, no inode's state.
/// Source: kernel `ovl_set_redirect`, `ovl_need_absolute_redirect`.
pub(super) fn of_moving_file(
    upper: &Upper,
    inode: &Inode,
    parent: &Arc<Inode>,
    name: &OsStr,
    same_dir: bool,
) -> Result<Option<Redirect>> {
    let (data_below, indexed) = {
        let state = inode.state.read();
        (state.rare().data.is_some(), state.rare().index.is_some())
    };
    if !data_below {
        return Ok(None);
    }
    let present = inode.with(|at| upper.mark(at, Mark::Redirect))?;
    match present.as_deref() {
        Some(value) if same_dir || value.starts_with(b"/") => Ok(None),
        // Its other names look for the data elsewhere, so only the whole path will do for a hard link.
        None if same_dir && !indexed => Ok(Some(Redirect::Sibling(name.to_owned()))),
        own => from_root(upper, parent, name, own).map(Some),
    }
}
