//! One system call as a value. What is printed of a step is Rust that makes the same step again.

/// A path relative to the root of a tree.
pub type Path = &'static str;

/// Where symlinks lead: never out of the tree. What is opened by one is made there.
pub const TARGETS: [Path; 7] = ["e", "f", "a", "b/e", "c", "nowhere", "./a/f"];

/// How a rename treats what has the new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    Replace,
    NoReplace,
    Exchange,
    Whiteout,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Now,
    Omit,
    To(i64, i64),
}

/// The value of an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Text(&'static str),
    /// Read and write for the owner and the user 1000, and so much (0 to 7) for the mask.
    Acl(u16),
    /// A file capability.
    Capability,
}

/// One call. Open files, maps and directory streams are in slots, each side having its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Slot, path, open(2) flags, mode.
    Open(usize, Path, i32, u32),
    Close(usize),
    /// Slot, length; at the file's position.
    Read(usize, usize),
    /// Slot, byte, length; at the file's position.
    Write(usize, u8, usize),
    /// Slot, offset, length.
    Pread(usize, i64, usize),
    /// Slot, offset, byte, length.
    Pwrite(usize, i64, u8, usize),
    /// Slot, offset, whence.
    Seek(usize, i64, i32),
    /// Slot, offset: all that is not data from there on is zeros.
    Holes(usize, i64),
    Ftruncate(usize, i64),
    /// Slot, mode, offset, length.
    Fallocate(usize, i32, i64, i64),
    /// Slot and offset to read from, slot and offset to write to, length.
    CopyRange(usize, i64, usize, i64, usize),
    Fsync(usize),
    Fstat(usize),
    Fchmod(usize, u32),
    Fchown(usize, u32, u32),
    Futimens(usize, Time, Time),
    Fsetxattr(usize, &'static str, Value),
    Fgetxattr(usize, &'static str),

    Stat(Path),
    StatFollow(Path),
    Truncate(Path, i64),
    Mkdir(Path, u32),
    Rmdir(Path),
    Unlink(Path),
    Rename(Path, Path, Flag),
    Link(Path, Path),
    /// What it leads to, path.
    Symlink(Path, Path),
    Readlink(Path),
    /// Path, format and mode, major and minor number.
    Mknod(Path, u32, u32, u32),
    Chmod(Path, u32),
    Chown(Path, u32, u32),
    Lchown(Path, u32, u32),
    /// Path, access and modification time, of the object itself.
    Utimens(Path, Time, Time),
    /// Path, name, value, XATTR_CREATE or XATTR_REPLACE or none.
    Setxattr(Path, &'static str, Value, i32),
    Getxattr(Path, &'static str),
    Listxattr(Path),
    Removexattr(Path, &'static str),
    List(Path),

    OpenDir(usize, Path),
    /// Slot, how many entries.
    NextDir(usize, usize),
    /// Remembers the position.
    MarkDir(usize),
    /// Goes back to it.
    BackDir(usize),
    Rewind(usize),
    CloseDir(usize),

    /// Slot of the map, slot of the file, length, shared, writable.
    Map(usize, usize, usize, bool, bool),
    /// Slot, offset, length.
    MapGet(usize, usize, usize),
    /// Slot, offset, byte, length.
    MapPut(usize, usize, u8, usize),
    MapSync(usize),
    Unmap(usize),

    /// A whiteout of the kernel's format, in a layer that is made by hand.
    Whiteout(Path),
    /// The mark of an opaque directory, in a layer that is made by hand.
    Opaque(Path),

    /// Where the upper layer is on a small disk: that disk becomes read-only, or takes changes again.
    ReadOnly(bool),

    /// Compares the whole trees.
    Look,
    /// Closes everything, compares, unmounts, mounts, compares.
    Remount,
}

/// A call, and who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub uid: u32,
    pub umask: u32,
    pub op: Op,
}

/// A step of root with a common umask.
pub const fn root(op: Op) -> Step {
    Step { uid: 0, umask: 0o022, op }
}

impl Op {
    /// The variant alone.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(['(', ' ']).next().unwrap_or_default().to_owned()
    }

    /// What it names, if it names all by paths and leaves nothing open.
    pub fn paths(&self) -> Vec<Path> {
        match *self {
            Op::Rename(from, to, _) | Op::Link(from, to) => vec![from, to],
            Op::Stat(path)
            | Op::StatFollow(path)
            | Op::Readlink(path)
            | Op::Listxattr(path)
            | Op::List(path) => {
                vec![path]
            }
            Op::Mkdir(path, _) | Op::Rmdir(path) | Op::Unlink(path) | Op::Symlink(_, path) => vec![path],
            Op::Mknod(path, ..) | Op::Truncate(path, _) | Op::Chmod(path, _) | Op::Utimens(path, ..) => {
                vec![path]
            }
            Op::Chown(path, ..) | Op::Lchown(path, ..) | Op::Setxattr(path, ..) => vec![path],
            Op::Getxattr(path, _) | Op::Removexattr(path, _) => vec![path],
            _ => Vec::new(),
        }
    }

    /// The paths whose names may come or go by it.
    pub fn names(&self) -> Vec<Path> {
        match *self {
            Op::Open(_, path, _, _) => [&[path], &TARGETS[..]].concat(),
            Op::Mkdir(path, _) | Op::Rmdir(path) | Op::Unlink(path) => vec![path],
            Op::Symlink(_, path) | Op::Mknod(path, ..) => vec![path],
            Op::Rename(from, to, _) | Op::Link(from, to) => vec![from, to],
            _ => Vec::new(),
        }
    }
}

impl Op {
    /// Whether it may make a char 0:0 that shows: the kernel's overlay takes the mark for it as what it is on disk.
    pub fn makes_a_whiteout_to_see(&self) -> bool {
        match *self {
            Op::Mknod(_, mode, 0, 0) => mode & libc::S_IFMT == libc::S_IFCHR,
            Op::Rename(_, _, Flag::Whiteout) => true,
            _ => false,
        }
    }
}
