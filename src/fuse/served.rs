//! What requests work on, and how answers are put together; the requests themselves are in `adapter`.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, ReplyAttr, ReplyCreate,
    ReplyDirectoryPlus, ReplyEntry, ReplyOpen, Request,
};
use nix::fcntl::OFlag;

use super::convert::{entry_attributes, file_type, stat_attributes};
use super::passthrough::Backings;
use super::reply::answer;
use crate::error::{Error, Result};
use crate::inode::{Fh, Ino};
use crate::layer::Stack;
use crate::overlay::{Attr, Caller, Entry, IoMode, Lifetime, Opened, Overlay, Told};
use crate::sys::attr::GET_EXTENDED;
use crate::sys::cred;

/// Sets inode flags. The kernel checks the caller of this ioctl, and converts FS_IOC32_SETFLAGS of a 32-bit program to it. Sent by
/// a 64-bit program, FS_IOC32_SETFLAGS arrives unchecked, so it is not served.
pub const SET_FLAGS: u32 = libc::FS_IOC_SETFLAGS as u32;

/// For an entry without an object, or one that is sent without attributes.
pub const NO_GENERATION: Generation = Generation(0);

fn generation(attr: &Attr) -> Generation {
    Generation(attr.generation.into())
}

/// How many threads may copy up at once, apart from the workers.
const MAX_LONG_WORK: usize = 16;

/// How many requests may wait at once for the filesystem of one tree that does not answer.
const MAX_WAITING: usize = 256;

/// How many requests that nobody waits for, such as reading ahead, the kernel may have sent. A few on a filesystem that does
/// not answer must not keep those on all others back.
const MAX_BACKGROUND: u16 = 1024;

/// What a mount asks of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// How long names and attributes may be kept.
    pub timeout: Duration,
    /// POSIX ACLs.
    pub acl: bool,
    /// Extended attributes at all.
    pub xattr: bool,
    /// Reads and writes go straight to backing files.
    pub passthrough: bool,
    /// The kernel keeps written pages for a while.
    pub writeback: bool,
}

/// The merged tree as fuser sees it.
#[derive(Debug)]
pub struct Adapter(Arc<Served>);

/// What requests work on, on whatever thread they are answered.
#[derive(Debug)]
pub struct Served {
    /// The merged tree.
    pub overlay: Arc<Overlay>,
    /// The backing files that the kernel has.
    pub backings: Backings,
    /// What the mount asked for.
    pub wishes: Wishes,
    long_work: AtomicUsize,
}

impl std::ops::Deref for Adapter {
    type Target = Served;
    fn deref(&self) -> &Served {
        &self.0
    }
}

impl Adapter {
    /// Serves `overlay`.
    pub fn new(overlay: Arc<Overlay>, wishes: Wishes) -> Adapter {
        let long_work = AtomicUsize::new(0);
        Adapter(Arc::new(Served { overlay, backings: Backings::default(), wishes, long_work }))
    }

    /// Does `work` on `ino`: here, or apart if its filesystem may not answer.
    pub fn on(&self, ino: INodeNo, work: impl FnOnce(&Served) + Send + 'static) {
        self.apart_if(self.overlay.waits_for(Ino(ino.0)), false, work);
    }

    /// As `on`, for `name` in `parent`.
    pub fn on_name(&self, parent: INodeNo, name: &OsStr, work: impl FnOnce(&Served) + Send + 'static) {
        self.apart_if(self.overlay.waits_for_name(Ino(parent.0), name), false, work);
    }

    /// As `on`; apart also if much data of `ino` will be copied up by it.
    pub fn maybe_long(&self, ino: INodeNo, work: impl FnOnce(&Served) + Send + 'static) {
        let waits = self.overlay.waits_for(Ino(ino.0));
        let much = waits.is_none() && self.overlay.copies_much(Ino(ino.0));
        self.apart_if(waits, much, work);
    }

    /// Does `work`: here, or, if it may wait for the tree `waits`, whose filesystem may not answer, or copies much, on a
    /// thread of its own, so that the workers stay free for everybody else. Where many copy already, a worker has to do it;
    /// where too many wait for one tree, the request fails. A thread that cannot be had answers EIO by dropping the reply.
    pub fn apart_if(
        &self,
        waits: Option<Arc<Stack>>,
        much: bool,
        work: impl FnOnce(&Served) + Send + 'static,
    ) {
        let place = match (waits, much) {
            (Some(stack), _) => match Apart::begin(&self.0, Counted::Waiting(stack), MAX_WAITING) {
                Some(place) => place,
                None => {
                    return tracing::warn!(
                        "{MAX_WAITING} requests wait for a filesystem that does not answer"
                    );
                }
            },
            (None, true) => match Apart::begin(&self.0, Counted::LongWork, MAX_LONG_WORK) {
                Some(place) => place,
                None => return work(&self.0),
            },
            (None, false) => return work(&self.0),
        };
        place.spawn(work);
    }

    /// Does `work`, which closes something on `ino`, as `on`; it is done however many others wait.
    pub fn closing(&self, ino: INodeNo, work: impl FnOnce(&Served) + Send + 'static) {
        match self.overlay.waits_for(Ino(ino.0)) {
            Some(stack) => {
                let counted = Counted::Waiting(stack);
                counted.of(&self.0).fetch_add(1, Ordering::Relaxed);
                Apart { served: self.0.clone(), counted }.spawn(work);
            }
            None => work(&self.0),
        }
    }
}

/// What a thread of its own is counted among.
enum Counted {
    /// Those that copy much.
    LongWork,
    /// Those that wait for the filesystem of a tree.
    Waiting(Arc<Stack>),
}

impl Counted {
    fn thread(&self) -> &'static str {
        match self {
            Counted::LongWork => "copy-up",
            Counted::Waiting(_) => "waiting",
        }
    }

    fn of<'a>(&'a self, served: &'a Served) -> &'a AtomicUsize {
        match self {
            Counted::LongWork => &served.long_work,
            Counted::Waiting(stack) => &stack.waiting,
        }
    }
}

/// One of the places for threads of their own.
struct Apart {
    served: Arc<Served>,
    counted: Counted,
}

impl Apart {
    fn begin(served: &Arc<Served>, counted: Counted, most: usize) -> Option<Apart> {
        // Counted first and given back by the drop, so that two who come at once do not both take the last place.
        let before = counted.of(served).fetch_add(1, Ordering::Relaxed);
        let place = Apart { served: served.clone(), counted };
        (before < most).then_some(place)
    }

    fn spawn(self, work: impl FnOnce(&Served) + Send + 'static) {
        let name = self.counted.thread().to_owned();
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            // The umask would be that of the worker which made this thread, whatever it is at the moment. Without one of
            // its own the thread makes its temporaries with fewer rights, and gives them the right ones after.
            let _ = cred::set_thread_umask(0);
            work(&self.served);
        });
        if let Err(error) = spawned {
            tracing::error!("no thread for a request that may take long: {error}");
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.counted.of(&self.served).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Served {
    /// How long the kernel may believe an answer, in this mount's terms.
    pub fn lifetime(&self, lifetime: Lifetime) -> Duration {
        match lifetime {
            Lifetime::Forever => self.wishes.timeout,
            Lifetime::For(time) => time.min(self.wishes.timeout),
            Lifetime::None => Duration::ZERO,
        }
    }

    /// Gives a looked-up name to the kernel, which keeps the lookup until it forgets.
    pub fn entry(&self, reply: ReplyEntry, entry: Entry<'_>) {
        let attr = entry.attr;
        let name_lifetime = self.lifetime(entry.lifetime);
        drop(entry.inode.leak());
        reply.entry_with_ttls(
            &self.entry_attr_lifetime(&attr),
            &name_lifetime,
            &entry_attributes(&attr),
            generation(&attr),
        );
    }

    /// An entry tells the node as the object's number. Where the two differ the kernel asks for the attributes again.
    pub fn entry_attr_lifetime(&self, attr: &Attr) -> Duration {
        if attr.ino.0 == attr.stat.ino { self.lifetime(attr.lifetime) } else { Duration::ZERO }
    }

    /// Answers with attributes.
    pub fn attr(&self, reply: ReplyAttr, attr: &Attr) {
        reply.attr(&self.lifetime(attr.lifetime), &stat_attributes(attr));
    }
}

/// Who asks.
pub fn caller(req: &Request, umask: u32) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), umask, pid: req.pid() }
}

/// The number that was given for an open file.
pub fn handle(fh: FileHandle) -> Fh {
    Fh(fh.0)
}

/// Flags of open(2).
pub fn flags(bits: i32) -> OFlag {
    OFlag::from_bits_retain(bits)
}

/// What an open file is to be for the kernel. Most need no flush at close: writes reach the file at once.
fn open_flags(mode: &IoMode, flushes: bool) -> FopenFlags {
    let how = match mode {
        IoMode::Cached(true) => FopenFlags::FOPEN_KEEP_CACHE,
        IoMode::Cached(false) | IoMode::Passthrough { .. } => FopenFlags::empty(),
        // Each read and write comes to the daemon; a map is made of fresh pages.
        IoMode::Uncached => FopenFlags::FOPEN_DIRECT_IO,
    };
    if flushes { how } else { FopenFlags::FOPEN_NOFLUSH | how }
}

impl Served {
    /// Asks the kernel for what this mount wishes and the kernel has.
    pub fn ask_kernel(&self, config: &mut KernelConfig) {
        let mut wanted = vec![
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_HAS_IOCTL_DIR,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        let maps = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
        self.overlay.set_maps_uncached(maps);
        wanted.push(match maps {
            true => InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            false => InitFlags::FUSE_AUTO_INVAL_DATA,
        });
        if self.wishes.acl && self.wishes.xattr {
            wanted.push(InitFlags::FUSE_POSIX_ACL);
        }
        if self.wishes.writeback {
            wanted.push(InitFlags::FUSE_WRITEBACK_CACHE);
        }
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::info!("the kernel does not offer {flag:?}");
            }
        }
        if config.set_max_background(MAX_BACKGROUND).is_err() {
            tracing::info!("the kernel keeps its own number of background requests");
        }
        if self.wishes.passthrough {
            // One filesystem below ours: the upper layer may not be stacked itself.
            let stacked = config.set_max_stack_depth(1).is_ok();
            self.overlay
                .set_passthrough(stacked && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok());
        }
    }

    /// Gives a new open file to the kernel, with its name.
    pub fn created(&self, reply: ReplyCreate, entry: Entry<'_>, opened: Opened) {
        let attr = entry.attr;
        // One answer with one lifetime for the name and the attributes.
        let ttl = self.lifetime(entry.lifetime).min(self.entry_attr_lifetime(&attr));
        let ino = entry.inode.leak().ino;
        let fh = FileHandle(opened.fh.0);
        let (attributes, generation) = (entry_attributes(&attr), generation(&attr));
        let flags = open_flags(&opened.mode, opened.flushes);
        let (fd, keeps_set_id, below) = match opened.mode {
            IoMode::Passthrough { fd, keeps_set_id, below } => (fd, keeps_set_id, below),
            _ => return reply.created(&ttl, &attributes, generation, fh, flags),
        };
        match self.backings.of((ino, below), &fd, keeps_set_id, |fd| reply.open_backing(fd)) {
            Ok(backing) => {
                reply.created_passthrough(&ttl, &attributes, generation, fh, flags, &backing);
            }
            Err(error) => {
                let mode = self.overlay.not_passed(opened.fh, fd, &error);
                reply.created(&ttl, &attributes, generation, fh, open_flags(&mode, opened.flushes));
            }
        }
    }

    /// Lists a directory with the attributes of its names.
    pub fn list_with_attributes(
        &self,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.overlay.readdirplus(handle(fh), offset, |plus| {
            let entry = plus.entry;
            let own = || fuser::FileAttr {
                ino: INodeNo(entry.st_ino),
                kind: file_type(entry.kind),
                nlink: 1,
                ..absent()
            };
            let (attributes, ttl, generation) = match &plus.told {
                Told::Attributes(attr) => {
                    (entry_attributes(attr), self.entry_attr_lifetime(attr), generation(attr))
                }
                Told::Unseen => (own(), Duration::ZERO, NO_GENERATION),
                // The kernel makes no inode of the dot names, nor where a size cannot be.
                Told::Nothing => (fuser::FileAttr { size: u64::MAX, ..own() }, Duration::ZERO, NO_GENERATION),
            };
            reply.add(INodeNo(entry.st_ino), entry.next, entry.name, &ttl, &attributes, generation)
        });
        answer!("readdirplus", ino.0, reply, listed, () => reply.ok());
        self.overlay.look_ahead(handle(fh));
    }

    /// The inode flags of `ino` as the ioctl `cmd` asks for them. Errors: `NoIoctl` for any other.
    pub fn flags_of(&self, ino: INodeNo, cmd: u32) -> Result<Vec<u8>> {
        let (get, get32) = (libc::FS_IOC_GETFLAGS as u32, libc::FS_IOC32_GETFLAGS as u32);
        match cmd {
            GET_EXTENDED => self.overlay.extended_flags(Ino(ino.0)),
            _ if cmd == get || cmd == get32 => Ok(self.overlay.flags(Ino(ino.0))?.to_ne_bytes().to_vec()),
            _ => Err(Error::NoIoctl),
        }
    }

    /// Opens `ino` and answers.
    pub fn open_for(&self, caller: Caller, ino: INodeNo, flags: OFlag, reply: ReplyOpen) {
        let opened = self.overlay.open(caller, Ino(ino.0), flags);
        answer!("open", ino.0, reply, opened, opened => {
            let fh = FileHandle(opened.fh.0);
            let flags = open_flags(&opened.mode, opened.flushes);
            let (fd, keeps_set_id, below) = match opened.mode {
                IoMode::Passthrough { fd, keeps_set_id, below } => (fd, keeps_set_id, below),
                _ => return reply.opened(fh, flags),
            };
            match self.backings.of((Ino(ino.0), below), &fd, keeps_set_id, |fd| reply.open_backing(fd)) {
                Ok(backing) => reply.opened_passthrough(fh, flags, &backing),
                Err(error) => {
                    let mode = self.overlay.not_passed(opened.fh, fd, &error);
                    reply.opened(fh, open_flags(&mode, opened.flushes));
                }
            }
        })
    }
}

/// Runs `work` on so many bytes of room, which holds whatever it held: made once for each thread, since to clear a megabyte
/// takes longer than to read a small file.
pub fn with_buffer(len: usize, work: impl FnOnce(&mut [u8])) {
    thread_local! {
        static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    ROOM.with_borrow_mut(|room| {
        if room.len() < len {
            *room = vec![0; len];
        }
        let room = room.get_mut(..len).unwrap_or_default();
        work(room);
    });
}

/// An answer that says that there is nothing, and may be remembered.
pub fn absent() -> fuser::FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    fuser::FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The names, if the caller has room for them. Errors: `Range`.
pub fn fit(names: Vec<u8>, size: u32) -> Result<Vec<u8>> {
    if size != 0 && names.len() > size as usize { Err(Error::Range) } else { Ok(names) }
}
