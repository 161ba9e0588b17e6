//! What one writer's part of the tree shows: read from disk, or followed in memory operation by operation.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::*;

/// The attribute that writers set.
pub const ATTRIBUTE: &str = "user.crash";

/// A file or directory beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Dir {
        mode: u32,
    },
    Symlink(PathBuf),
    /// By number: several names may have one file.
    File(u64),
}

#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    pub data: Arc<Vec<u8>>,
    /// What it was since its last sync, where the kernel may keep back what is written.
    pub earlier: Vec<Arc<Vec<u8>>>,
    pub mode: u32,
    pub attribute: Option<Vec<u8>>,
}

impl Content {
    fn new(data: Arc<Vec<u8>>, mode: u32, attribute: Option<Vec<u8>>) -> Content {
        Content { data, earlier: Vec::new(), mode, attribute }
    }

    /// Whether a crash may leave `shown` of it: each byte as it was written last or since the last sync, or still a hole.
    fn may_be(&self, shown: &Content) -> bool {
        if (self.mode, &self.attribute) != (shown.mode, &shown.attribute) {
            return false;
        }
        if self.earlier.is_empty() {
            return self.data == shown.data;
        }
        let all: Vec<&[u8]> = self.earlier.iter().chain([&self.data]).map(|data| data.as_slice()).collect();
        let (least, most) =
            (all.iter().map(|data| data.len()).min(), all.iter().map(|data| data.len()).max());
        let len = shown.data.len();
        Some(len) >= least
            && Some(len) <= most
            && shown.data.iter().enumerate().all(|(at, byte)| {
                let hole = *byte == 0 && all.iter().any(|data| at >= data.len());
                hole || all.iter().any(|data| data.get(at) == Some(byte))
            })
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = String::from_utf8_lossy(&self.data[..self.data.len().min(12)]).into_owned();
        let (len, earlier) = (self.data.len(), self.earlier.len());
        write!(f, "{len} bytes ({head:?}...; {earlier} others), {:o}, {:?}", self.mode, self.attribute)
    }
}

/// A tree, by paths from its root. A file's number is that of the first of its names in the order of paths, once `settled`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    pub names: BTreeMap<PathBuf, Node>,
    pub files: BTreeMap<u64, Content>,
    /// Whether the kernel may keep back what is written, until a sync.
    pub writeback: bool,
}

/// One change, of things that are there and names that are not, so that it must succeed.
#[derive(Debug, Clone)]
pub enum Op {
    Mkdir(PathBuf, u32),
    Rmdir(PathBuf),
    Create(PathBuf, u32),
    Symlink(PathBuf, PathBuf),
    Append(PathBuf, Vec<u8>),
    Overwrite(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Sync(PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    /// The second name may be there, as one of the same kind.
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Chmod(PathBuf, u32),
    SetAttribute(PathBuf, Vec<u8>),
    RemoveAttribute(PathBuf),
    /// Opens a file, to go on with it whatever becomes of its names.
    Keep(PathBuf),
    /// Writes to a file that was kept, by its number.
    WriteKept(u64, u64, Vec<u8>),
    SyncKept(u64),
}

impl Model {
    /// What is at `root`.
    pub fn read(root: &Path) -> Model {
        let mut model = Model::default();
        let mut numbers = BTreeMap::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            for entry in dents(root.join(&dir)) {
                let path = dir.join(&entry.name);
                let full = root.join(&path);
                let facts = stat(&full);
                let mode = facts.mode() & 0o7777;
                let node = if facts.is_dir() {
                    todo.push(path.clone());
                    Node::Dir { mode }
                } else if facts.file_type().is_symlink() {
                    Node::Symlink(fs::read_link(&full).unwrap())
                } else {
                    assert!(facts.is_file(), "{} is of no kind that anybody made", full.display());
                    let next = numbers.len() as u64;
                    let number = *numbers.entry(facts.ino()).or_insert(next);
                    let data = fs::read(&full).unwrap();
                    assert_eq!(data.len() as u64, facts.size(), "{}: size and bytes differ", full.display());
                    let attribute = sys::getxattr(&full, ATTRIBUTE).ok();
                    let content = Content::new(Arc::new(data), mode, attribute);
                    let before = model.files.insert(number, content.clone());
                    let same = before.is_none_or(|before| before == content);
                    assert!(same, "{} differs from another name of the same file", full.display());
                    Node::File(number)
                };
                model.names.insert(path, node);
            }
        }
        model.settled()
    }

    /// The same with numbers that follow from the names alone, so that equal trees are equal values.
    pub fn settled(&self) -> Model {
        let mut numbers = BTreeMap::new();
        let mut settled = Model { writeback: self.writeback, ..Model::default() };
        for (path, node) in &self.names {
            let node = match node {
                Node::File(number) => {
                    let next = numbers.len() as u64;
                    let new = *numbers.entry(*number).or_insert(next);
                    settled.files.insert(new, self.files[number].clone());
                    Node::File(new)
                }
                node => node.clone(),
            };
            settled.names.insert(path.clone(), node);
        }
        settled
    }

    /// The names of files, and the files.
    pub fn files_by_name(&self) -> impl Iterator<Item = (&PathBuf, &Content)> {
        self.names.keys().filter_map(|path| self.content(path).map(|content| (path, content)))
    }

    /// How many names a file has.
    pub fn links(&self, path: &Path) -> u64 {
        let node = &self.names[path];
        self.names.values().filter(|other| *other == node).count() as u64
    }

    pub fn content(&self, path: &Path) -> Option<&Content> {
        match self.names.get(path)? {
            Node::File(number) => self.files.get(number),
            _ => None,
        }
    }

    /// Which file has this name.
    pub fn number(&self, path: &Path) -> u64 {
        match self.names.get(path) {
            Some(Node::File(number)) => *number,
            other => panic!("{path:?} is {other:?}"),
        }
    }

    fn content_mut(&mut self, path: &Path) -> &mut Content {
        self.files.get_mut(&self.number(path)).unwrap()
    }

    /// The bytes of a file, which are about to change.
    fn data_mut(&mut self, number: u64) -> &mut Vec<u8> {
        let content = self.files.get_mut(&number).unwrap();
        if self.writeback {
            content.earlier.push(content.data.clone());
        }
        Arc::make_mut(&mut content.data)
    }

    /// Whether a crash may leave `shown` of it.
    pub fn may_be(&self, shown: &Model) -> bool {
        let (one, other) = (self.settled(), shown.settled());
        one.names == other.names && one.files.iter().all(|(number, file)| file.may_be(&other.files[number]))
    }

    fn take(&mut self, path: &Path) -> Vec<(PathBuf, Node)> {
        let below: Vec<PathBuf> = self.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        below
            .into_iter()
            .map(|name| {
                let node = self.names.remove(&name).unwrap();
                (name.strip_prefix(path).unwrap().to_owned(), node)
            })
            .collect()
    }

    fn put(&mut self, path: &Path, tree: Vec<(PathBuf, Node)>) {
        for (below, node) in tree {
            let name = if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) };
            self.names.insert(name, node);
        }
    }

    /// Follows a change.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Mkdir(path, mode) => drop(self.names.insert(path.clone(), Node::Dir { mode: *mode })),
            Op::Rmdir(path) | Op::Unlink(path) => drop(self.names.remove(path)),
            Op::Create(path, mode) => {
                let number = self.files.keys().next_back().map_or(0, |last| last + 1);
                let content = Content::new(Arc::default(), *mode, None);
                self.files.insert(number, content);
                self.names.insert(path.clone(), Node::File(number));
            }
            Op::Symlink(target, path) => drop(self.names.insert(path.clone(), Node::Symlink(target.clone()))),
            Op::Append(path, more) => self.data_mut(self.number(path)).extend_from_slice(more),
            Op::Overwrite(path, at, bytes) => self.overwrite(self.number(path), *at as usize, bytes),
            Op::WriteKept(number, at, bytes) => self.overwrite(*number, *at as usize, bytes),
            Op::Truncate(path, len) => self.data_mut(self.number(path)).resize(*len as usize, 0),
            Op::Sync(path) => self.content_mut(path).earlier.clear(),
            Op::SyncKept(number) => self.files.get_mut(number).unwrap().earlier.clear(),
            Op::Keep(_) => {}
            Op::Link(old, new) => drop(self.names.insert(new.clone(), self.names[old].clone())),
            Op::Rename(old, new) => {
                if self.names.get(old) == self.names.get(new) && matches!(self.names[old], Node::File(_)) {
                    // Two names of one file: rename(2) does nothing.
                    return;
                }
                let tree = self.take(old);
                self.take(new);
                self.put(new, tree);
            }
            Op::Exchange(one, other) => {
                let (first, second) = (self.take(one), self.take(other));
                self.put(one, second);
                self.put(other, first);
            }
            Op::Chmod(path, mode) => match self.names.get_mut(path) {
                Some(Node::Dir { mode: old }) => *old = *mode,
                _ => self.content_mut(path).mode = *mode,
            },
            Op::SetAttribute(path, value) => self.content_mut(path).attribute = Some(value.clone()),
            Op::RemoveAttribute(path) => self.content_mut(path).attribute = None,
        }
    }

    fn overwrite(&mut self, number: u64, at: usize, bytes: &[u8]) {
        let data = self.data_mut(number);
        data.resize(data.len().max(at + bytes.len()), 0);
        data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What may show after this change was asked for and not answered: nothing of it, or all, or the first bytes of what
    /// was written, as long as the file `shown` is.
    pub fn possible(&self, op: &Op, shown: &Model) -> Vec<Model> {
        let mut whole = self.clone();
        whole.apply(op);
        let mut all = vec![self.clone(), whole];
        if let Op::Append(path, more) = op {
            let before = self.content(path).map_or(0, |content| content.data.len());
            let now = shown.content(path).map_or(0, |content| content.data.len());
            if (before..before + more.len()).contains(&now) {
                let mut part = self.clone();
                part.apply(&Op::Append(path.clone(), more[..now - before].to_vec()));
                all.push(part);
            }
        }
        all
    }

    /// What differs from `other`, in lines; empty if nothing does.
    pub fn differences(&self, other: &Model) -> String {
        let (one, other) = (self.settled(), other.settled());
        let show = |model: &Model, path: &Path| match model.names.get(path) {
            None => "nothing".to_owned(),
            Some(Node::File(number)) => format!("file {number}: {:?}", model.files[number]),
            Some(node) => format!("{node:?}"),
        };
        let paths: std::collections::BTreeSet<&PathBuf> =
            one.names.keys().chain(other.names.keys()).collect();
        let mut lines = String::new();
        for path in paths {
            let (a, b) = (one.content(path), other.content(path));
            let content = a.is_none() && b.is_none() || a.zip(b).is_some_and(|(a, b)| a.may_be(b));
            let same = one.names.get(path) == other.names.get(path) && content;
            if !same {
                let name = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
                lines += &format!("  {name}: {} / {}\n", show(&one, path), show(&other, path));
            }
        }
        lines
    }
}
