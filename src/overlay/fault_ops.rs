//! The operations whose every change is made to fail, and what is done to the tree before.

use std::ffi::OsStr;

use nix::fcntl::OFlag;

use super::fault_tests::{CALLER, Operation};
use crate::error::{Error, Result};
use crate::inode::{Fh, Ino};
use crate::overlay::{Asked, NewNode, Overlay, RenameMode, SetAttr, Writing};
use crate::sys::attr::SetTime;
use crate::sys::stat::Timestamp;
use crate::sys::xattr::SetMode;

const FILE: NewNode<'_> = NewNode::Node { mode: libc::S_IFREG | 0o644, device: (0, 0) };
const FIFO: NewNode<'_> = NewNode::Node { mode: libc::S_IFIFO | 0o600, device: (0, 0) };
const WHITEOUT: NewNode<'_> = NewNode::Node { mode: libc::S_IFCHR | 0o600, device: (0, 0) };
const DIR: NewNode<'_> = NewNode::Dir { mode: 0o755 };

const NOTHING: SetAttr = SetAttr {
    mode: None,
    uid: None,
    gid: None,
    size: None,
    atime: SetTime::Omit,
    mtime: SetTime::Omit,
    fh: None,
};

/// The number of what is at `path`; it stays known.
fn find(overlay: &Overlay, path: &str) -> Result<Ino> {
    let mut at = Ino::ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let entry = overlay.lookup(at, OsStr::new(name))?.0.ok_or(Error::NotFound)?;
        at = entry.inode.ino;
        drop(entry.inode.leak());
    }
    Ok(at)
}

/// The directory and the name of `path`.
fn split<'a>(overlay: &Overlay, path: &'a str) -> Result<(Ino, &'a OsStr)> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    Ok((find(overlay, dir)?, OsStr::new(name)))
}

fn make(overlay: &Overlay, path: &str, node: NewNode<'_>) -> Result<()> {
    let (dir, name) = split(overlay, path)?;
    overlay.make(CALLER, dir, name, node).map(|entry| drop(entry.inode.leak()))
}

fn create(overlay: &Overlay, path: &str) -> Result<()> {
    let (dir, name) = split(overlay, path)?;
    let (entry, opened) = overlay.create(CALLER, dir, name, 0o640, OFlag::O_RDWR)?;
    drop(entry.inode.leak());
    overlay.release(opened.fh);
    Ok(())
}

fn link(overlay: &Overlay, from: &str, to: &str) -> Result<()> {
    let (dir, name) = split(overlay, to)?;
    overlay.link(find(overlay, from)?, dir, name).map(|entry| drop(entry.inode.leak()))
}

fn unlink(overlay: &Overlay, path: &str) -> Result<()> {
    let (dir, name) = split(overlay, path)?;
    overlay.unlink(dir, name)
}

fn rmdir(overlay: &Overlay, path: &str) -> Result<()> {
    let (dir, name) = split(overlay, path)?;
    overlay.rmdir(dir, name)
}

fn rename(overlay: &Overlay, from: &str, to: &str, mode: RenameMode) -> Result<()> {
    let ((parent, name), (new_parent, new_name)) = (split(overlay, from)?, split(overlay, to)?);
    overlay.rename(Asked { parent, name, new_parent, new_name, mode, whiteout_of: None })
}

fn shift(overlay: &Overlay, from: &str, to: &str) -> Result<()> {
    rename(overlay, from, to, RenameMode::Replace)
}

fn swap(overlay: &Overlay, from: &str, to: &str) -> Result<()> {
    rename(overlay, from, to, RenameMode::Exchange)
}

fn change(overlay: &Overlay, path: &str, change: SetAttr) -> Result<()> {
    overlay.setattr(CALLER, find(overlay, path)?, change).map(drop)
}

fn chmod(overlay: &Overlay, path: &str) -> Result<()> {
    change(overlay, path, SetAttr { mode: Some(0o711), ..NOTHING })
}

fn cut(overlay: &Overlay, path: &str, size: u64) -> Result<()> {
    change(overlay, path, SetAttr { size: Some(size), ..NOTHING })
}

fn note(overlay: &Overlay, path: &str) -> Result<()> {
    overlay.setxattr(CALLER, find(overlay, path)?, OsStr::new("user.note"), b"changed", SetMode::Any)
}

/// Opens, does one thing with the file, and closes it.
fn opened(overlay: &Overlay, path: &str, flags: OFlag, act: impl FnOnce(Fh) -> Result<()>) -> Result<()> {
    let fh = overlay.open(CALLER, find(overlay, path)?, flags)?.fh;
    let done = act(fh);
    overlay.release(fh);
    done
}

fn write(overlay: &Overlay, path: &str) -> Result<()> {
    opened(overlay, path, OFlag::O_WRONLY, |fh| {
        overlay.write(fh, 3, b"written", Writing { by: CALLER.writer(), appends: false }).map(drop)
    })
}

fn truncate_by_open(overlay: &Overlay, path: &str) -> Result<()> {
    opened(overlay, path, OFlag::O_WRONLY | OFlag::O_TRUNC, |_| Ok(()))
}

const TIME: SetTime = SetTime::To(Timestamp { secs: 77, nanos: 5 });

/// What is done before: something of each kind is in the upper layer, or hidden by it.
pub(super) const BEFORE: &[Operation] = &[
    ("unlink a lower file", |o| unlink(o, "gone")),
    ("remove a lower directory", |o| rmdir(o, "gone_dir")),
    ("make a directory", |o| make(o, "new", DIR)),
    ("make one in it", |o| make(o, "new/inner", DIR)),
    ("make an empty one", |o| make(o, "vacant", DIR)),
    ("make a file", |o| create(o, "new/file")),
    ("write it", |o| write(o, "new/file")),
    ("copy a file up", |o| write(o, "copied")),
    ("leave marks in a directory", |o| unlink(o, "marks/m")),
    ("leave marks in another", |o| unlink(o, "emptied/e")),
    ("copy an indexed file up", |o| chmod(o, "k1")),
    ("remove one name of a lower file", |o| unlink(o, "i1")),
    ("copy the metadata of a file up", |o| chmod(o, "changed")),
    ("move a directory", |o| shift(o, "moved", "elsewhere")),
];

pub(super) const OPERATIONS: &[Operation] = &[
    ("create", |o| create(o, "made")),
    ("create in a lower directory", |o| create(o, "d/sub/made")),
    ("create deep", |o| create(o, "p/q/r/made")),
    ("create over a whiteout", |o| create(o, "gone")),
    ("mkdir", |o| make(o, "made", DIR)),
    ("mkdir in a lower directory", |o| make(o, "d/made", DIR)),
    ("mkdir over a whiteout", |o| make(o, "gone_dir", DIR)),
    ("mknod", |o| make(o, "only/made", FILE)),
    ("make a fifo over a whiteout", |o| make(o, "gone", FIFO)),
    ("make a device 0:0", |o| make(o, "made", WHITEOUT)),
    ("make a device 0:0 over a whiteout", |o| make(o, "gone", WHITEOUT)),
    ("symlink", |o| make(o, "d/made", NewNode::Symlink(OsStr::new("file")))),
    ("symlink over a whiteout", |o| make(o, "gone", NewNode::Symlink(OsStr::new("file")))),
    ("link a lower file", |o| link(o, "file", "d/made")),
    ("link a lower symlink", |o| link(o, "link", "made")),
    ("link a copied-up file", |o| link(o, "copied", "new/made")),
    ("link an upper file over a whiteout", |o| link(o, "new/file", "gone")),
    ("link a lower hard link", |o| link(o, "h1", "made")),
    ("link an indexed hard link", |o| link(o, "k2", "only/made")),
    ("unlink a lower file", |o| unlink(o, "d/x")),
    ("unlink an upper file", |o| unlink(o, "new/file")),
    ("unlink a copied-up file", |o| unlink(o, "copied")),
    ("unlink a lower hard link", |o| unlink(o, "d/h2")),
    ("unlink an indexed hard link", |o| unlink(o, "k1")),
    ("unlink the lower name of an indexed hard link", |o| unlink(o, "k2")),
    ("unlink the last name of a hard link", |o| unlink(o, "i2")),
    ("rmdir of a lower directory", |o| rmdir(o, "empty")),
    ("rmdir of an upper directory", |o| rmdir(o, "vacant")),
    ("rmdir of a directory with marks", |o| rmdir(o, "marks")),
    ("rename a lower file", |o| shift(o, "d/x", "d/made")),
    ("rename an upper file", |o| shift(o, "new/file", "made")),
    ("rename an upper file over a lower one", |o| shift(o, "new/file", "d/x")),
    ("rename a lower file over a whiteout", |o| shift(o, "second", "gone")),
    ("rename a copied-up file over an upper one", |o| shift(o, "copied", "new/file")),
    ("rename a lower hard link", |o| shift(o, "h1", "only/made")),
    ("rename over an indexed hard link", |o| shift(o, "file", "k2")),
    ("rename over the last name of a hard link", |o| shift(o, "file", "i2")),
    ("rename a lower directory", |o| shift(o, "only", "made")),
    ("rename a merged directory", |o| shift(o, "d", "new/d")),
    ("rename a moved directory", |o| shift(o, "elsewhere", "d/back")),
    ("rename an upper directory over an empty one", |o| shift(o, "new", "vacant")),
    ("rename an upper directory over a lower one", |o| shift(o, "new", "empty")),
    ("rename a directory over one with marks", |o| shift(o, "other", "marks")),
    ("rename a directory over a whiteout", |o| shift(o, "vacant", "gone_dir")),
    ("rename a directory within a lower one", |o| shift(o, "p/q", "p/made")),
    ("exchange files", |o| swap(o, "file", "d/y")),
    ("exchange directories", |o| swap(o, "d", "only")),
    ("exchange an upper directory and a lower one", |o| swap(o, "new/inner", "d/sub")),
    ("exchange a file and a directory", |o| swap(o, "h1", "other")),
    ("exchange hard links", |o| swap(o, "h1", "k2")),
    ("rename without replacing", |o| rename(o, "file", "d/made", RenameMode::NoReplace)),
    ("chmod of a lower file", |o| chmod(o, "p/q/r/deep")),
    ("chmod of a lower directory", |o| chmod(o, "d/sub")),
    ("chmod of a lower fifo", |o| chmod(o, "fifo")),
    ("chmod of a lower hard link", |o| chmod(o, "d/h2")),
    ("chmod of an upper file", |o| chmod(o, "new/file")),
    ("chown of a lower file", |o| change(o, "file", SetAttr { uid: Some(5), gid: Some(6), ..NOTHING })),
    ("chown of a lower symlink", |o| change(o, "link", SetAttr { uid: Some(5), ..NOTHING })),
    ("utimes of a lower file", |o| change(o, "big", SetAttr { atime: TIME, mtime: TIME, ..NOTHING })),
    ("truncate a lower file", |o| cut(o, "big", 10)),
    ("truncate a lower file to nothing", |o| cut(o, "big", 0)),
    ("truncate a lower hard link", |o| cut(o, "h1", 10)),
    ("lengthen an upper file", |o| cut(o, "new/file", 1000)),
    ("setxattr of a lower file", |o| note(o, "file")),
    ("setxattr of a lower directory", |o| note(o, "d")),
    ("removexattr of a lower file", |o| o.removexattr(find(o, "file")?, OsStr::new("user.note"))),
    ("write a lower file", |o| write(o, "big")),
    ("write a lower hard link", |o| write(o, "d/h2")),
    ("write an upper file", |o| write(o, "new/file")),
    ("open to truncate a lower file", |o| truncate_by_open(o, "d/x")),
    ("open to truncate an upper file", |o| truncate_by_open(o, "new/file")),
    ("open to truncate a copied-up hard link", |o| truncate_by_open(o, "k2")),
    ("truncate a file whose data may be below", |o| cut(o, "changed", 0)),
    ("shorten a file whose data may be below", |o| cut(o, "changed", 10)),
    ("write a file whose data may be below", |o| write(o, "changed")),
    ("open to truncate a file whose data may be below", |o| truncate_by_open(o, "changed")),
    ("rename a file whose data may be below", |o| shift(o, "changed", "d/made")),
    ("link a file whose data may be below", |o| link(o, "changed", "d/made")),
    ("fallocate", |o| opened(o, "second", OFlag::O_RDWR, |fh| o.fallocate(CALLER.writer(), fh, 0, 5, 5000))),
    ("copy a range", |o| {
        opened(o, "second", OFlag::O_RDWR, |to| {
            opened(o, "big", OFlag::O_RDONLY, |from| {
                o.copy_range(CALLER.writer(), (from, 5), (to, 9), 99).map(drop)
            })
        })
    }),
];
