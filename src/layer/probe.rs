//! What one layer says about one name.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use nix::Result;
use nix::errno::Errno;

use super::hidden::Hidden;
use super::names::Listed;
use super::real_dir::{Fact, RealDir};
use crate::merge::listing::{FileKind, RawKind};
use crate::merge::mark::{self, Mark, Namespace, Opaque};
use crate::merge::redirect::Redirect;
use crate::merge::resolve::Probe;
use crate::sys::stat::{Stat, stat};
use crate::sys::{At, attr, dir, xattr};

/// Where an object was found in a layer, and what it was then.
#[derive(Debug, Clone)]
pub struct Place {
    /// The directory that has it.
    pub dir: Arc<RealDir>,
    /// Its name there.
    pub name: Box<OsStr>,
    /// What it was when the layer was asked.
    pub stat: Stat,
    /// For a directory: whiteouts in it may be attributes.
    pub xattr_whiteouts: bool,
    /// For a directory: marked opaque by what moves with it. A `.wh.` file of its name stays behind.
    pub opaque: bool,
    /// For a directory: marked impure.
    pub impure: bool,
    /// For a directory: all its names, where they were read with its marks.
    pub listed: Option<Box<Listed>>,
    /// The object itself, where others may give its name to another: of anything but a directory.
    pub object: Option<Arc<OwnedFd>>,
}

/// What one layer says about a name: for the resolver, and where it is if it is there.
#[derive(Debug)]
pub struct Answer {
    /// For the resolver.
    pub probe: Probe,
    /// If there is an object.
    pub place: Option<Place>,
}

impl Answer {
    fn nothing(probe: Probe) -> Answer {
        Answer { probe, place: None }
    }

    /// As the lowest layer answers. Below it there is nowhere to be sent to: what its directories say about that is not read.
    pub fn without_redirect(mut self) -> Answer {
        self.probe = match self.probe {
            Probe::Dir { opaque, .. } => Probe::Dir { opaque, redirect: None },
            Probe::BrokenDir("redirect", _) => Probe::Dir { opaque: false, redirect: None },
            probe => probe,
        };
        self
    }
}

/// How a stack reads its layers.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// Where marks are.
    pub namespace: Namespace,
    /// What must not show.
    pub hidden: &'a Hidden,
}

/// Asks the layer of `dir` about `name` in it. `last` says that no layer below will be asked: then there is nothing to hide.
pub fn name(reader: Reader<'_>, dir: &Arc<RealDir>, name: &OsStr, last: bool) -> Result<Answer> {
    let Reader { namespace, hidden } = reader;
    let fd = dir.fd()?;
    let at = At::new(fd.as_fd(), name);
    if hidden.bars(dir.layer(), fd.as_fd(), name) {
        return Ok(Answer::nothing(Probe::Absent));
    }
    let stat = match stat(at) {
        Ok(stat) if !dir.layer().is_upper() && hidden.is(&stat) => return Ok(Answer::nothing(Probe::Absent)),
        Ok(stat) => stat,
        Err(Errno::ENOENT) => {
            let hidden = !last && !dir.is(Fact::NoWhiteoutFiles) && has_whiteout_file(fd.as_fd(), name)?;
            return Ok(Answer::nothing(if hidden { Probe::Whiteout } else { Probe::Absent }));
        }
        Err(Errno::ENAMETOOLONG) => return Ok(Answer::nothing(Probe::Absent)),
        Err(errno) => return Err(errno),
    };
    if stat.is_whiteout_device() {
        return Ok(Answer::nothing(Probe::Whiteout));
    }
    let mut place = Place {
        dir: dir.clone(),
        name: name.into(),
        stat,
        xattr_whiteouts: false,
        opaque: false,
        impure: false,
        listed: None,
        object: None,
    };
    let mut classified = || classify(namespace, dir, at, last, &mut place);
    let probe = if dir.layer().is_upper() { attr::with_owner_access(at, classified)? } else { classified()? };
    if probe == Probe::Whiteout {
        return Ok(Answer::nothing(probe));
    }
    Ok(Answer { probe, place: Some(place) })
}

/// More names of one directory are not read before somebody asks for one.
const FEW_NAMES: usize = 512;

/// As `name`, for a directory in a lower layer whose names will be asked for, too: its marks and its names are read from one
/// descriptor, and none is looked for that is not there. Nothing where that cannot be, and `name` is to say why.
pub fn dir_with_names(reader: Reader<'_>, parent: &Arc<RealDir>, name: &OsStr) -> Option<Answer> {
    let Reader { namespace, hidden } = reader;
    let above = parent.fd().ok()?;
    if hidden.bars(parent.layer(), above.as_fd(), name) {
        return None;
    }
    let fd = dir::open(At::new(above.as_fd(), name), true).ok()?;
    let at = At::fd(fd.as_fd());
    let stat = stat(at).ok().filter(|stat| !hidden.is(stat))?;
    let mut listed = Listed::with_names();
    let read = dir::entries(&fd, |entry| {
        if hidden.is_entry(parent.layer(), fd.as_fd(), &entry) {
            return Ok(());
        }
        listed.add(entry.name);
        match (entry.kind, &mut listed.names) {
            // It may be a whiteout.
            (None | Some(FileKind::Char), names) => *names = None,
            (Some(kind), Some(names)) => names.push((entry.name.into(), entry.ino, RawKind::Object(kind))),
            (Some(_), None) => {}
        }
        if listed.words() > FEW_NAMES { Err(Errno::ECANCELED) } else { Ok(()) }
    });
    read.ok()?;
    let hides = !parent.is(Fact::NoWhiteoutFiles) && has_whiteout_file(above.as_fd(), name).ok()?;
    let mut marks = attribute_marks(namespace, at).ok()?;
    if marks.opaque == Opaque::XattrWhiteouts {
        listed.names = None;
    }
    if listed.opaque_file {
        marks.opaque = Opaque::Yes;
    }
    let mut place = Place {
        dir: parent.clone(),
        name: name.into(),
        stat,
        xattr_whiteouts: false,
        opaque: false,
        impure: false,
        listed: Some(Box::new(listed)),
        object: None,
    };
    let probe = dir_probe(namespace, at, &mut place, marks, hides).ok()?;
    Some(Answer { probe, place: Some(place) })
}

/// What the marks of an object say.
fn classify(namespace: Namespace, dir: &RealDir, at: At<'_>, last: bool, place: &mut Place) -> Result<Probe> {
    match place.stat.kind {
        FileKind::Dir => {
            let mut marks = attribute_marks(namespace, at)?;
            // Files as marks say only what is hidden below; what moves takes its own with it.
            if last && !marks.redirect && !dir.layer().is_upper() {
                return dir_probe(namespace, at, place, marks, false);
            }
            // `.wh.` of a name that its own layer has as well hides the layers below, and only these.
            let hides = !dir.is(Fact::NoWhiteoutFiles) && has_whiteout_file(at.dir, at.name)?;
            if marks.opaque != Opaque::Yes && has_opaque_file(at) {
                marks.opaque = Opaque::Yes;
            }
            dir_probe(namespace, at, place, marks, hides)
        }
        FileKind::Regular if place.stat.size == 0 => empty_file_probe(namespace, at),
        FileKind::Regular => file_probe(namespace, at),
        _ => Ok(Probe::Other),
    }
}

fn has_whiteout_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    let whiteout = [mark::WHITEOUT_PREFIX, name.as_bytes()].concat();
    match stat(At::new(dir, &OsString::from_vec(whiteout))) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether an empty file is a whiteout.
pub fn is_xattr_whiteout(namespace: Namespace, at: At<'_>) -> Result<bool> {
    Ok(xattr::get(at, namespace.attribute(Mark::Whiteout))?.is_some())
}

/// Whether the object at `at`, which is `found`, hides its name: a device, or an empty file with an attribute.
pub fn is_whiteout(namespace: Namespace, at: At<'_>, found: &Stat) -> Result<bool> {
    let may_be = found.kind == FileKind::Regular && found.size == 0;
    Ok(found.is_whiteout_device() || (may_be && is_xattr_whiteout(namespace, at)?))
}

/// The marks of a directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirMarks {
    /// What the opaque marks say, in any spelling.
    pub opaque: Opaque,
    /// The `impure` mark.
    pub impure: bool,
    redirect: bool,
}

/// Whether the directory at `at` has the file that marks it opaque.
fn has_opaque_file(at: At<'_>) -> bool {
    let file = Path::new(at.name).join(OsStr::from_bytes(mark::OPAQUE_FILE.to_bytes()));
    stat(At::new(at.dir, file.as_os_str())).is_ok()
}

/// Reads those marks of the directory at `at` that are attributes.
pub fn attribute_marks(namespace: Namespace, at: At<'_>) -> Result<DirMarks> {
    let mut marks = DirMarks::default();
    // Most directories have no attribute at all: one call says so.
    for attribute in xattr::list(at)? {
        let name = attribute.as_c_str();
        let is = |mark| namespace.attribute(mark) == name;
        if is(Mark::Opaque) || name == mark::FUSE_OVERLAYFS_OPAQUE {
            match Opaque::parse(&xattr::get(at, name)?.unwrap_or_default()) {
                Opaque::No => {}
                Opaque::Yes => marks.opaque = Opaque::Yes,
                Opaque::XattrWhiteouts if marks.opaque == Opaque::No => marks.opaque = Opaque::XattrWhiteouts,
                Opaque::XattrWhiteouts => {}
            }
        }
        marks.redirect |= is(Mark::Redirect);
        marks.impure |= is(Mark::Impure);
    }
    Ok(marks)
}

fn dir_probe(
    namespace: Namespace,
    at: At<'_>,
    place: &mut Place,
    marks: DirMarks,
    hides: bool,
) -> Result<Probe> {
    place.xattr_whiteouts = marks.opaque == Opaque::XattrWhiteouts;
    place.opaque = marks.opaque == Opaque::Yes;
    place.impure = marks.impure;
    // An opaque directory ends the search, so where it would go on does not matter.
    let opaque = place.opaque || hides;
    if opaque || !marks.redirect {
        return Ok(Probe::Dir { opaque, redirect: None });
    }
    Ok(match read_redirect(namespace, at)? {
        Ok(redirect) => Probe::Dir { opaque: false, redirect },
        Err(why) => Probe::BrokenDir("redirect", why),
    })
}

/// An empty file may have either mark, and most have none: one call says so. The mark of the directory only tells listings to
/// look for whiteouts. Source: kernel `ovl_path_is_whiteout`.
fn empty_file_probe(namespace: Namespace, at: At<'_>) -> Result<Probe> {
    let marked = xattr::list(at)?;
    let has = |mark| marked.iter().any(|name| name.as_c_str() == namespace.attribute(mark));
    if has(Mark::Whiteout) {
        return Ok(Probe::Whiteout);
    }
    if has(Mark::Metacopy) { file_probe(namespace, at) } else { Ok(Probe::File { metacopy: None }) }
}

fn file_probe(namespace: Namespace, at: At<'_>) -> Result<Probe> {
    let Some(value) = xattr::get(at, namespace.attribute(Mark::Metacopy))? else {
        return Ok(Probe::File { metacopy: None });
    };
    if !mark::metacopy_is_valid(&value) {
        return Ok(Probe::BrokenFile("metacopy", "its header is cut off"));
    }
    Ok(match read_redirect(namespace, at)? {
        Ok(redirect) => Probe::File { metacopy: Some(redirect) },
        Err(why) => Probe::BrokenFile("redirect", why),
    })
}

fn read_redirect(
    namespace: Namespace,
    at: At<'_>,
) -> Result<std::result::Result<Option<Redirect>, &'static str>> {
    let value = xattr::get(at, namespace.attribute(Mark::Redirect))?;
    Ok(value.map(|value| Redirect::parse(&value)).transpose())
}

/// What a walk from a layer's root found on its way to a path.
#[derive(Debug)]
pub struct Walked {
    /// What is at the path's end.
    pub answer: Answer,
    /// A directory on the way was opaque, a whiteout or no directory: the layers below have no say. Unless what comes
    /// after an opaque one says where they keep it, by a path from the root.
    pub ends: bool,
    /// A directory on the way sends the layers below elsewhere.
    pub redirect: Option<OsString>,
}

/// Asks a layer about `path` from its root, obeying the marks of the directories on the way; but for redirects, if it is the
/// `lowest`. Source: kernel `ovl_lookup_layer`, `ovl_lookup_single`.
pub fn path(reader: Reader<'_>, root: &Arc<RealDir>, path: &OsStr, lowest: bool) -> Result<Walked> {
    let mut dir = root.clone();
    let mut walked = Walked { answer: Answer::nothing(Probe::Absent), ends: false, redirect: None };
    let components: Vec<&OsStr> = path.as_bytes().split(|&b| b == b'/').map(OsStr::from_bytes).collect();
    // Where the layers below keep the directory that was come to.
    let mut below = OsString::new();
    for (i, component) in components.iter().enumerate() {
        let answer = name(reader, &dir, component, false)?;
        let answer = if lowest { answer.without_redirect() } else { answer };
        if i + 1 == components.len() {
            walked.ends &= !leads_from_root(&answer.probe);
            walked.answer = answer;
            break;
        }
        let from_root = leads_from_root(&answer.probe);
        match (answer.probe, answer.place) {
            (Probe::Dir { opaque, redirect }, Some(place)) => {
                walked.ends = opaque || (walked.ends && !from_root);
                let after = join(components.get(i + 1..).unwrap_or_default());
                let redirected = redirect.is_some() || walked.redirect.is_some();
                let step = redirect.unwrap_or_else(|| Redirect::Sibling(component.into()));
                walked.redirect = redirected.then(|| step.within(&below, &after));
                below = step.within(&below, OsStr::new(""));
                dir = dir.child(component);
                dir.note(Fact::XattrWhiteouts, place.xattr_whiteouts);
            }
            (Probe::Absent, _) => break,
            (probe @ Probe::BrokenDir(..), _) => {
                walked.answer = Answer::nothing(probe);
                break;
            }
            _ => {
                walked.ends = true;
                break;
            }
        }
    }
    Ok(walked)
}

/// Whether the layers below are told by a path from the root where they keep it. Source: kernel `ovl_check_redirect`.
fn leads_from_root(probe: &Probe) -> bool {
    match probe {
        Probe::Dir { opaque: false, redirect } | Probe::File { metacopy: Some(redirect) } => {
            matches!(redirect, Some(Redirect::FromRoot(_)))
        }
        _ => false,
    }
}

fn join(components: &[&OsStr]) -> OsString {
    OsString::from_vec(components.iter().map(|c| c.as_bytes()).collect::<Vec<_>>().join(&b'/'))
}
