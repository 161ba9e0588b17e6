//! What requests work on, and how answers are put together; the requests themselves are in `adapter`.

use std::io;
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
use crate::overlay::{Attr, Caller, Entry, IoMode, Lifetime, Opened, Overlay};
use crate::sys::cred;

/// Node numbers are never used for another object while the kernel knows them, so one generation is enough.
pub const GENERATION: Generation = Generation(0);

/// How many threads may copy up at once, apart from the workers.
const MAX_LONG_WORK: usize = 16;

/// How many requests may wait at once for filesystems that do not answer.
const MAX_WAITING: usize = 512;

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
    waiting: AtomicUsize,
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
        let (long_work, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Adapter(Arc::new(Served { overlay, backings: Backings::default(), wishes, long_work, waiting }))
    }

    /// Does `work` on `ino`: here, or apart if its filesystem may not answer.
    pub fn on(&self, ino: INodeNo, work: impl FnOnce(&Served) + Send + 'static) {
        self.apart_if(self.overlay.may_wait(Ino(ino.0)), false, work);
    }

    /// As `on`; apart also if much data of `ino` will be copied up by it.
    pub fn maybe_long(&self, ino: INodeNo, work: impl FnOnce(&Served) + Send + 'static) {
        let waits = self.overlay.may_wait(Ino(ino.0));
        self.apart_if(waits, !waits && self.overlay.copies_much(Ino(ino.0)), work);
    }

    /// Does `work`: here, or, if it may wait for a filesystem that does not answer, or copies much, on a thread of its own, so
    /// that the workers stay free for everybody else. Where many copy already, a worker has to do it; where too many
    /// wait, the request fails. A thread that cannot be had answers EIO by dropping the reply.
    pub fn apart_if(&self, waits: bool, much: bool, work: impl FnOnce(&Served) + Send + 'static) {
        let place = match (waits, much) {
            (true, _) => match Apart::begin(&self.0, |served| &served.waiting, MAX_WAITING) {
                Some(place) => place,
                None => {
                    return tracing::warn!("{MAX_WAITING} requests wait for filesystems that do not answer");
                }
            },
            (false, true) => match Apart::begin(&self.0, |served| &served.long_work, MAX_LONG_WORK) {
                Some(place) => place,
                None => return work(&self.0),
            },
            (false, false) => return work(&self.0),
        };
        let spawned = std::thread::Builder::new().name("apart".to_owned()).spawn(move || {
            // The umask would be that of the worker which made this thread, whatever it is at the moment. Without one of
            // its own the thread makes its temporaries with fewer rights, and gives them the right ones after.
            let _ = cred::set_thread_umask(0);
            work(&place.served);
        });
        if let Err(error) = spawned {
            tracing::error!("no thread for a request that may take long: {error}");
        }
    }
}

/// One of the places for threads of their own.
struct Apart {
    served: Arc<Served>,
    count: fn(&Served) -> &AtomicUsize,
}

impl Apart {
    fn begin(served: &Arc<Served>, count: fn(&Served) -> &AtomicUsize, most: usize) -> Option<Apart> {
        let place = Apart { served: served.clone(), count };
        // Counted first and given back by the drop, so that two who come at once do not both take the last place.
        (count(served).fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        (self.count)(&self.served).fetch_sub(1, Ordering::Relaxed);
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
            GENERATION,
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

/// Each read and write comes to the daemon; a map is made of fresh pages.
const UNCACHED: FopenFlags = FopenFlags::FOPEN_NOFLUSH.union(FopenFlags::FOPEN_DIRECT_IO);

/// What no open ever needs: a flush at close. Writes reach the upper file at once.
pub fn cached_flags(pages_hold: bool) -> FopenFlags {
    let keep = if pages_hold { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
    FopenFlags::FOPEN_NOFLUSH | keep
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
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
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
        let name_lifetime = self.lifetime(entry.lifetime);
        let ino = entry.inode.leak().ino;
        let fh = FileHandle(opened.fh.0);
        // One answer with one lifetime for the name and the attributes. A write that the kernel passes on makes it forget
        // size and times by itself; a store to a shared mapping does not, and the name has to be asked for again with them.
        let forgets = attr.ino.0 == attr.stat.ino && !opened.may_be_mapped;
        let ttl = if forgets { name_lifetime } else { Duration::ZERO };
        let attributes = entry_attributes(&attr);
        let (fd, keeps_set_id) = match opened.mode {
            IoMode::Cached(pages_hold) => {
                return reply.created(&ttl, &attributes, GENERATION, fh, cached_flags(pages_hold));
            }
            IoMode::Uncached => return reply.created(&ttl, &attributes, GENERATION, fh, UNCACHED),
            IoMode::Passthrough { fd, keeps_set_id } => (fd, keeps_set_id),
        };
        match self.backings.of(ino, &fd, keeps_set_id, |fd| reply.open_backing(fd)) {
            Ok(backing) => {
                let flags = FopenFlags::FOPEN_NOFLUSH;
                reply.created_passthrough(&ttl, &attributes, GENERATION, fh, flags, &backing);
            }
            Err(error) => {
                self.not_passed(opened.fh, fd, &error);
                reply.created(&ttl, &attributes, GENERATION, fh, cached_flags(false));
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
            let attributes = match &plus.attr {
                Some(attr) => entry_attributes(attr),
                // The kernel makes no inode of the dot names; of a broken name it must ask again.
                None => {
                    fuser::FileAttr { ino: INodeNo(plus.node.0), kind: file_type(entry.kind), ..absent() }
                }
            };
            let ttl = match &plus.attr {
                Some(attr) => self.entry_attr_lifetime(attr),
                None => Duration::ZERO,
            };
            reply.add(INodeNo(entry.st_ino), entry.next, entry.name, &ttl, &attributes, GENERATION)
        });
        answer!("readdirplus", ino.0, reply, listed, () => reply.ok())
    }

    /// Opens `ino` and answers.
    pub fn open_for(&self, caller: Caller, ino: INodeNo, flags: OFlag, reply: ReplyOpen) {
        let opened = self.overlay.open(caller, Ino(ino.0), flags);
        answer!("open", ino.0, reply, opened, opened => {
            let fh = FileHandle(opened.fh.0);
            let (fd, keeps_set_id) = match opened.mode {
                IoMode::Cached(pages_hold) => return reply.opened(fh, cached_flags(pages_hold)),
                IoMode::Uncached => return reply.opened(fh, UNCACHED),
                IoMode::Passthrough { fd, keeps_set_id } => (fd, keeps_set_id),
            };
            match self.backings.of(Ino(ino.0), &fd, keeps_set_id, |fd| reply.open_backing(fd)) {
                Ok(backing) => reply.opened_passthrough(fh, FopenFlags::FOPEN_NOFLUSH, &backing),
                Err(error) => {
                    self.not_passed(opened.fh, fd, &error);
                    reply.opened(fh, cached_flags(false));
                }
            }
        })
    }

    /// Notes that the kernel does not take a backing file. A lasting reason turns passthrough off for good.
    fn not_passed(&self, fh: Fh, fd: Arc<std::os::fd::OwnedFd>, error: &io::Error) {
        if self.overlay.passthrough() {
            tracing::info!("no passthrough: {error}");
            self.overlay.set_passthrough(false);
        }
        self.overlay.not_passed(fh, fd);
    }
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
