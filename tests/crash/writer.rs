//! A writer: changes one part of the tree at random and knows at any time what must be there.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::model::{ATTRIBUTE, Model, Node, Op};
use crate::common::*;

/// Where a writer stood when the mount went.
pub struct Stopped {
    /// After the last operation that was answered.
    pub model: Model,
    /// The one that was not.
    pub asked: Option<Op>,
    /// The last operations, for whoever looks into a failure.
    pub last: Vec<Op>,
    pub answered: u64,
}

/// Works below `root` until the daemon is gone, which `killed` says beforehand. Panics where an operation fails for another
/// reason.
pub fn work(root: &Path, mut model: Model, mut rng: StdRng, killed: &AtomicBool) -> Stopped {
    let mut stopped = Stopped { model: Model::default(), asked: None, last: Vec::new(), answered: 0 };
    let mut waiting: Vec<Op> = Vec::new();
    let mut kept: Kept = Kept::new();
    loop {
        if waiting.is_empty() {
            waiting = choose(&model, &kept, &mut rng);
            waiting.reverse();
        }
        let Some(op) = waiting.pop() else { continue };
        match carry_out(root, &model, &mut kept, &op) {
            Ok(()) => {
                model.apply(&op);
                stopped.answered += 1;
                if stopped.last.len() == 30 {
                    stopped.last.remove(0);
                }
                stopped.last.push(shortened(op));
            }
            Err(Errno::ENOTCONN | Errno::ECONNABORTED | Errno::EIO) if killed.load(Ordering::SeqCst) => {
                stopped.model = model;
                stopped.asked = Some(op);
                return stopped;
            }
            Err(errno) => panic!("{:?} answers {errno}, after {:?}", shortened(op), stopped.last),
        }
    }
}

/// The same for reading by people.
pub fn shortened(op: Op) -> Op {
    match op {
        Op::Append(path, bytes) => Op::Append(path, bytes[..bytes.len().min(8)].to_vec()),
        Op::Overwrite(path, at, bytes) => Op::Overwrite(path, at, bytes[..bytes.len().min(8)].to_vec()),
        Op::WriteKept(number, at, bytes) => Op::WriteKept(number, at, bytes[..bytes.len().min(8)].to_vec()),
        op => op,
    }
}

/// Open files by their numbers in the model.
pub type Kept = BTreeMap<u64, File>;

pub fn carry_out(root: &Path, model: &Model, kept: &mut Kept, op: &Op) -> sys::Res<()> {
    let at = |path: &Path| root.join(path);
    match op {
        Op::Mkdir(path, mode) => sys::mkdir(at(path), *mode),
        Op::Rmdir(path) => sys::rmdir(at(path)),
        Op::Create(path, mode) => {
            sys::open(at(path), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, *mode).map(drop)
        }
        Op::Symlink(target, path) => sys::symlink(target, at(path)),
        Op::Append(path, bytes) => {
            let file = sys::open(at(path), libc::O_WRONLY | libc::O_APPEND, 0)?;
            written(&file, bytes, None)
        }
        Op::Overwrite(path, from, bytes) => {
            let file = sys::open(at(path), libc::O_RDWR, 0)?;
            written(&file, bytes, Some(*from))
        }
        Op::Truncate(path, len) => sys::truncate(at(path), *len as i64),
        Op::Sync(path) => no(sys::open(at(path), libc::O_RDONLY, 0)?.sync_all()),
        Op::Link(old, new) => sys::link(at(old), at(new)),
        Op::Unlink(path) => sys::unlink(at(path)),
        Op::Rename(old, new) => sys::rename(at(old), at(new)),
        Op::Exchange(one, other) => sys::renameat2(at(one), at(other), libc::RENAME_EXCHANGE),
        Op::Chmod(path, mode) => sys::chmod(at(path), *mode),
        Op::SetAttribute(path, value) => sys::setxattr(at(path), ATTRIBUTE, value, 0),
        Op::RemoveAttribute(path) => sys::removexattr(at(path), ATTRIBUTE),
        Op::Keep(path) => {
            let file = sys::open(at(path), libc::O_RDWR, 0)?;
            kept.insert(model.number(path), file);
            Ok(())
        }
        Op::WriteKept(number, from, bytes) => written(&kept[number], bytes, Some(*from)),
        Op::SyncKept(number) => no(kept[number].sync_data()),
    }
}

/// One write(2), so that it is known what may be there without an answer.
fn written(file: &File, bytes: &[u8], at: Option<u64>) -> sys::Res<()> {
    let (fd, from) = (file.as_raw_fd(), bytes.as_ptr().cast());
    let n = unsafe {
        match at {
            None => libc::write(fd, from, bytes.len()),
            Some(at) => libc::pwrite(fd, from, bytes.len(), at as i64),
        }
    };
    match n {
        n if n == bytes.len() as isize => Ok(()),
        n if n < 0 => Err(Errno::last()),
        // The rest found no daemon.
        _ => Err(Errno::ECONNABORTED),
    }
}

/// Bytes that tell where they come from.
fn bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let word = format!("{:08x}.", rng.random::<u32>());
    word.bytes().cycle().take(len).collect()
}

/// Names by kind, and a name that is free.
struct View<'a> {
    dirs: Vec<&'a Path>,
    files: Vec<&'a Path>,
    others: Vec<&'a Path>,
}

impl View<'_> {
    fn of(model: &Model) -> View<'_> {
        let mut view = View { dirs: Vec::new(), files: Vec::new(), others: Vec::new() };
        for (path, node) in &model.names {
            match node {
                Node::Dir { .. } => view.dirs.push(path),
                Node::File(_) => view.files.push(path),
                Node::Symlink(_) => view.others.push(path),
            }
        }
        view
    }

    /// A name that is not there, in a directory that is not too deep.
    fn free(&self, model: &Model, rng: &mut StdRng) -> PathBuf {
        loop {
            let shallow: Vec<&&Path> = self.dirs.iter().filter(|dir| dir.components().count() < 4).collect();
            let dir = shallow.choose(rng).map_or(Path::new(""), |dir| **dir);
            let dir = if rng.random_range(0..4) == 0 { Path::new("") } else { dir };
            let path = dir.join(format!("n{}", rng.random_range(0..40)));
            if !model.names.contains_key(&path) {
                return path;
            }
        }
    }
}

/// One operation, or a few that belong together.
pub fn choose(model: &Model, kept: &Kept, rng: &mut StdRng) -> Vec<Op> {
    if model.writeback && rng.random() {
        return choose_kept(model, kept, rng);
    }
    let view = View::of(model);
    let free = |rng: &mut StdRng| view.free(model, rng);
    let file = |rng: &mut StdRng| view.files.choose(rng).map(|path| path.to_path_buf());
    let dir = |rng: &mut StdRng| view.dirs.choose(rng).map(|path| path.to_path_buf());
    let size = |path: &Path| model.content(path).map_or(0, |content| content.data.len());
    let empty = |path: &Path| model.names.keys().filter(|name| name.starts_with(path)).count() == 1;
    let crowded = model.names.len() > 60;
    let one = match rng.random_range(0..20) {
        0 | 1 if !crowded => Some(Op::Mkdir(free(rng), 0o700)),
        2 | 3 if !crowded => Some(Op::Create(free(rng), 0o600)),
        4 if !crowded => Some(Op::Symlink(format!("to{}", rng.random::<u16>()).into(), free(rng))),
        5 if !crowded => file(rng).map(|old| Op::Link(old, free(rng))),
        0..=6 => {
            let all: Vec<&&Path> = view.files.iter().chain(&view.others).collect();
            all.choose(rng).map(|path| Op::Unlink(path.to_path_buf()))
        }
        7 => dir(rng).filter(|path| empty(path)).map(Op::Rmdir),
        8 | 9 => file(rng).filter(|path| size(path) < 1 << 20).map(|path| {
            let len = *[1, 100, 5000, 70_000].choose(rng).unwrap();
            Op::Append(path, bytes(rng, len))
        }),
        10 => file(rng).map(|path| {
            // Within one page, so that it is there or not.
            let at = rng.random_range(0..=size(&path) as u64) & !4095;
            let len = rng.random_range(1..4096);
            Op::Overwrite(path, at, bytes(rng, len))
        }),
        11 => file(rng).map(|path| {
            let len = rng.random_range(0..=size(&path) as u64 + 5000);
            Op::Truncate(path, len)
        }),
        12 => file(rng).map(Op::Sync),
        13 => file(rng).map(|path| Op::Chmod(path, 0o600 + rng.random_range(0..64))),
        14 => dir(rng).map(|path| Op::Chmod(path, 0o700 + rng.random_range(0..64))),
        15 => file(rng).map(|path| {
            let set = model.content(&path).is_some_and(|content| content.attribute.is_some());
            let len = rng.random_range(1..200);
            if set && rng.random() {
                Op::RemoveAttribute(path)
            } else {
                Op::SetAttribute(path, bytes(rng, len))
            }
        }),
        16 => file(rng).map(|old| Op::Rename(old, free(rng))),
        17 => dir(rng).and_then(|old| {
            let new = match dir(rng) {
                // Over an empty directory.
                Some(other) if empty(&other) && other != old => other,
                _ => free(rng),
            };
            let apart = !new.starts_with(&old) && !old.starts_with(&new);
            let deep = new.components().count() > 3;
            (apart && !deep).then_some(Op::Rename(old, new))
        }),
        18 => {
            let (a, b) = (view.dirs.choose(rng), view.files.choose(rng));
            a.zip(b).filter(|(a, b)| !b.starts_with(a)).and_then(|(a, b)| {
                (b.components().count() < 3).then(|| Op::Exchange(a.to_path_buf(), b.to_path_buf()))
            })
        }
        // What careful programs do: a new file, whole on disk, in the place of the old one.
        _ => {
            let Some(old) = file(rng) else { return Vec::new() };
            let new = free(rng);
            let len = rng.random_range(1..20_000);
            let data = bytes(rng, len);
            return vec![
                Op::Create(new.clone(), 0o600),
                Op::Append(new.clone(), data),
                Op::Sync(new.clone()),
                Op::Rename(new, old),
            ];
        }
    };
    one.into_iter().collect()
}

/// What is written to files that stay open: closing one writes back what the kernel has kept.
fn choose_kept(model: &Model, kept: &Kept, rng: &mut StdRng) -> Vec<Op> {
    let long = |path: &&PathBuf| model.content(path).is_some_and(|content| content.earlier.len() > 6);
    let files: Vec<&PathBuf> = model.files_by_name().map(|(path, _)| path).collect();
    if let Some(path) = files.iter().copied().find(long) {
        return vec![Op::Sync(path.clone())];
    }
    let numbers: Vec<u64> = kept.keys().copied().collect();
    let open = numbers.choose(rng).copied();
    let one = match (rng.random_range(0..8), open) {
        (0, _) if kept.len() < 8 => files.choose(rng).map(|path| Op::Keep(path.to_path_buf())),
        (1, Some(number)) => Some(Op::SyncKept(number)),
        (_, Some(number)) if model.files[&number].earlier.len() > 6 => Some(Op::SyncKept(number)),
        (_, Some(number)) => {
            let at = rng.random_range(0..=model.files[&number].data.len() as u64);
            let len = *[1, 100, 5000, 20_000].choose(rng).unwrap();
            Some(Op::WriteKept(number, at, bytes(rng, len)))
        }
        _ => None,
    };
    one.into_iter().collect()
}
