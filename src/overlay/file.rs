//! Opening and closing files, and how their bytes flow.
//!
//! The kernel lets an inode be open cached (bytes through the daemon and the kernel's page cache) or passed through
//! (bytes straight between the caller and one backing file), never both. A lower file of a writable stack is cached: a
//! descriptor opened before a copy-up then sees what is written after it. A file in the upper layer is passed through
//! unless somebody still has it open cached. `docs/architecture.md` has the table of states.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use parking_lot::RwLock;

use super::attr::Lifetime;
use super::give_way::is_read_below;
use super::protect::Change;
use super::{Caller, Overlay};
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Fh, Ino, Inode, OpenFile};
use crate::layer::Stack;
use crate::merge::listing::FileKind;
use crate::sys::{At, attr, copy, open, stat};

/// How the bytes of an open file flow.
#[derive(Debug)]
pub enum IoMode {
    /// Through the daemon and the kernel's page cache. True: pages cached before are still right.
    Cached(bool),
    /// Through the daemon, each time: others change the file, too.
    Uncached,
    /// From and to the backing file.
    Passthrough {
        /// Open, for the kernel to take.
        fd: Arc<OwnedFd>,
        /// Writes through it leave set-id bits as they are.
        keeps_set_id: bool,
        /// It is in a lower layer, beneath an upper one.
        below: bool,
    },
}

/// An open file.
#[derive(Debug)]
pub struct Opened {
    /// Its number.
    pub fh: Fh,
    /// How its bytes flow.
    pub mode: IoMode,
    /// Its filesystem wants to know when a descriptor is closed.
    pub flushes: bool,
}

/// What the daemon keeps of open(2) flags: it writes where the kernel says with each request, through the page cache,
/// whatever the caller asked.
const KEPT: OFlag = OFlag::O_ACCMODE.union(OFlag::O_SYNC).union(OFlag::O_DSYNC);

/// The access mode in open(2) flags.
fn access(flags: OFlag) -> OFlag {
    flags & OFlag::O_ACCMODE
}

/// What fcntl(2) may take back while a file is open. The kernel opens a backing file with the flags that the file has then, and
/// knows of no change: dd(1) with `oflag=direct` clears the flag for its last block, which would be refused.
/// Source: kernel `fuse_passthrough_open`, `backing_file_open`.
const MAY_CHANGE: OFlag = OFlag::O_APPEND.union(OFlag::O_DIRECT);

fn writes(flags: OFlag) -> bool {
    access(flags) != OFlag::O_RDONLY
}

fn has_set_id(mode: u32) -> bool {
    mode & (libc::S_ISUID | libc::S_ISGID) != 0
}

/// How bytes flow that the kernel does not pass through. Where others write, too, each read asks, however long names and
/// attributes hold: pages would stay old until the next open.
pub(super) fn through_the_daemon(stack: &Stack, pages_hold: bool) -> IoMode {
    match Lifetime::of(stack) {
        Lifetime::Forever => IoMode::Cached(pages_hold),
        Lifetime::For(_) | Lifetime::None => IoMode::Uncached,
    }
}

impl Overlay {
    /// Opens the regular file `ino`. Opening for writing copies up. Errors: `ReadOnly`; what the layers answer.
    pub fn open(&self, caller: Caller, ino: Ino, flags: OFlag) -> Result<Opened> {
        // Not the one that has its names now: the kernel opens what it calls `ino`.
        let inode = self.store.get(ino).filter(|inode| !inode.gave_way()).ok_or(Error::Stale)?;
        if inode.kind != FileKind::Regular {
            return Err(Error::Invalid("only regular files are opened here"));
        }
        let truncates = flags.contains(OFlag::O_TRUNC);
        if truncates || writes(flags) {
            inode.stack.check_writable()?;
            let append = flags.contains(OFlag::O_APPEND);
            self.check_protected(&inode, if truncates { Change::Any } else { Change::Bytes { append } })?;
        } else {
            if let Some(opened) = self.open_again(&inode, flags) {
                return Ok(opened);
            }
        }
        let made = match (writes(flags), truncates) {
            (_, true) => {
                let need = Need::Truncated { by: caller.writer() };
                self.copy_up.ensure_open(&inode, need)?
            }
            (true, false) => self.copy_up.ensure_open(&inode, Need::Data)?,
            (false, false) => None,
        };
        let made = match made {
            // It is open already as the caller wants it, or for more.
            Some(made) if writes(flags) && flags & KEPT == access(flags) => {
                let mode = stat::stat(At::fd(made.as_fd())).call("statx")?.mode;
                return self.open_made(caller, &inode, flags, made, mode);
            }
            made => made.filter(|_| truncates),
        };
        let found = inode.with_data(|at, in_upper| {
            Ok((self.open_real(&inode.stack, at, flags, in_upper).call("openat2")?, in_upper))
        });
        if truncates {
            match (&made, &found) {
                // It was cut off when it came up.
                (Some(_), _) => {}
                (None, Ok((fd, _))) if writes(flags) => Overlay::cut(&inode.stack, caller, fd)?,
                (None, Ok(_)) => {
                    Overlay::cut(
                        &inode.stack,
                        caller,
                        &inode.with_data(|at, _| open::file(at, OFlag::O_WRONLY).call("openat2"))?,
                    )?;
                }
                (None, Err(_)) => {}
            }
        }
        let (fd, in_upper) = match (found, made) {
            (Ok(found), _) => found,
            // The data below is hidden by now: that no second descriptor can be had must not lose it for nothing.
            (Err(_), Some(made)) => (made, true),
            (Err(error), None) => return Err(error),
        };
        let set_id = has_set_id(stat::stat(At::fd(fd.as_fd())).call("statx")?.mode);
        self.opened(caller, &inode, flags, Arc::new(fd), in_upper, set_id)
    }

    /// As `open`, for reading, of a lower file that was opened before and so can be: the daemon opens it when it is asked for
    /// bytes that the kernel does not have any more. Nothing where the file itself must be opened now.
    fn open_again(&self, inode: &Arc<Inode>, flags: OFlag) -> Option<Opened> {
        let stack = &inode.stack;
        // Others may take its name away, or the kernel wants the file itself.
        if stack.is_direct() || !inode.was_opened() || (self.passthrough() && !stack.is_writable()) {
            return None;
        }
        let mut state = inode.state.write();
        let is_lower = state.upper_ino == 0 && state.lower().is_some() && !state.was_passthrough;
        let rare = state.rare();
        let is_plain = rare.data.is_none() && rare.orphan.is_none() && rare.now.is_none();
        if !is_lower || !is_plain || rare.opens.passthrough > 0 || self.may_read_below(inode, &state) {
            return None;
        }
        state.rare_mut().opens.cached += 1;
        drop(state);
        let file = OpenFile {
            inode: inode.clone(),
            flags,
            plain_writer: false,
            passthrough: AtomicBool::new(false),
            fd: RwLock::default(),
        };
        let fh = self.handles.add_file(file);
        Some(Opened { fh, mode: through_the_daemon(stack, true), flushes: stack.flushes() })
    }

    /// Opens the real file at `at`, in the upper layer or not, as the caller wants the file open. With a writeback cache a writer
    /// must be able to read: the kernel fills the rest of a page by the descriptor that wrote a part of it.
    /// Source: kernel `fuse_write_begin`.
    fn open_real(&self, stack: &Stack, at: At<'_>, flags: OFlag, in_upper: bool) -> nix::Result<OwnedFd> {
        let may_change = writes(flags) || (in_upper && stack.is_writable());
        if !may_change {
            // What takes no change does not change by being read, not even its times.
            return open::file(at, (flags & KEPT) | OFlag::O_NOATIME)
                .or_else(|_| open::file(at, flags & KEPT));
        }
        let kept = flags & KEPT;
        let open = |kept| match open::file(at, kept) {
            // It takes nothing but appends, and says so by an inode flag.
            Err(Errno::EPERM) if flags.contains(OFlag::O_APPEND) => open::file(at, kept | OFlag::O_APPEND),
            opened => opened,
        };
        if !self.settings.writeback || access(flags) != OFlag::O_WRONLY {
            return open(kept);
        }
        // What the daemon may not read it can still write.
        open((kept - OFlag::O_ACCMODE) | OFlag::O_RDWR).or_else(|_| open(kept))
    }

    fn cut(stack: &Stack, caller: Caller, fd: &OwnedFd) -> Result<()> {
        // Cutting nothing off an empty file still sets its times, as O_TRUNC does.
        let (ids, file) = (&stack.terms.ids, fd.as_fd());
        let cut = || attr::truncate(file, 0);
        caller.writer().run(At::fd(file), |gid| ids.shown_gid(gid), cut).call("ftruncate")
    }

    /// As `open` for a file that was just made, with the descriptor it was made by and the mode it has.
    pub(super) fn open_made(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        flags: OFlag,
        made: OwnedFd,
        mode: u32,
    ) -> Result<Opened> {
        let set_id = has_set_id(mode);
        self.opened(caller, inode, flags, Arc::new(made), true, set_id)
    }

    /// Chooses the mode and notes the open file. `set_id` says that it has a set-id bit.
    fn opened(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        flags: OFlag,
        fd: Arc<OwnedFd>,
        in_upper: bool,
        set_id: bool,
    ) -> Result<Opened> {
        let changes = writes(flags) || flags.contains(OFlag::O_TRUNC);
        let mut state = loop {
            let state = inode.state.write();
            let must_wait = changes && is_read_below(&state);
            if !must_wait && !inode.gave_way() {
                break state;
            }
            drop(state);
            self.let_write(inode)?;
        };
        // Another may have copied the file up between the open and here.
        let in_upper_now = state.has_upper_data();
        let opens = state.rare().opens;
        let below = self.may_read_below(inode, &state) && !changes && !in_upper;
        let may_pass = self.passthrough()
            && inode.stack.passes.load(Ordering::Relaxed)
            && (in_upper || below || !inode.stack.is_writable())
            && in_upper == in_upper_now
            && !flags.intersects(MAY_CHANGE)
            // Whether a write clears the set-id bits depends on the writer, and only a cached write tells who it is. A reader
            // keeps out of the way, too: a writer who comes while it is passed through must be.
            && !(set_id && inode.stack.is_writable());
        let passes = opens.passthrough > 0 || (may_pass && opens.cached == 0);
        let stale_pages = state.was_passthrough && !passes;
        let plain_writer = writes(flags) && caller.uid != 0;
        if passes && set_id && plain_writer && opens.keeps_set_id {
            // Its writes will go where nobody asks who wrote: the bits go before the first one.
            let mode = stat::stat(At::fd(fd.as_fd())).call("statx")?.mode;
            attr::chmod(At::fd(fd.as_fd()), mode & !(libc::S_ISUID | libc::S_ISGID)).call("fchmodat2")?;
        }
        let fd = if passes && is_read_below(&state) {
            // Nobody has written yet what the upper layer has, so both are the same, and the kernel takes one.
            let below =
                || Ok(Arc::new(open::file(state.locate_below()?.at(), flags & KEPT).call("openat2")?));
            if in_upper { below()? } else { fd }
        } else if passes && in_upper != in_upper_now {
            // What is open is the lower file. It must not become the one that the next writer's bytes go to.
            let located = inode.locate_locked(&state)?;
            Arc::new(open::file(located.at(), flags & KEPT).call("openat2")?)
        } else {
            fd
        };
        if inode.note_opened() && !passes && !in_upper && !writes(flags) {
            self.fill_pages(inode, &state, &fd);
        }
        state.was_passthrough = passes;
        state.maybe_mapped |= passes && access(flags) == OFlag::O_RDWR;
        let rare = state.rare_mut();
        let opens = &mut rare.opens;
        opens.plain_writers += u32::from(plain_writer);
        if passes {
            if opens.passthrough == 0 {
                opens.keeps_set_id = caller.uid == 0;
                opens.below = below;
            }
            opens.passthrough += 1;
        } else {
            opens.cached += 1;
        }
        opens.writers += u32::from(writes(flags));
        let (keeps_set_id, below) = (opens.keeps_set_id, opens.below);
        if inode.stack.is_direct() && rare.orphan.is_none() {
            // Others may give its name away while it is open. Whose close may wait for its filesystem, only files that are open have.
            let place = if inode.stack.flushes() { open::again_as_path(&fd).ok() } else { None };
            rare.orphan = Some(place.map_or_else(|| fd.clone(), Arc::new));
        }
        // From here on the kernel changes size and times without the daemon.
        let unnoticed = state.maybe_mapped || !self.settings.writes_noticed;
        drop(state);
        if passes && writes(flags) && unnoticed {
            // What it remembers is not to be trusted.
            self.copy_up.changed(inode);
        }
        let file = OpenFile {
            inode: inode.clone(),
            flags,
            plain_writer,
            passthrough: AtomicBool::new(passes),
            // A file whose name others may take away cannot be opened again by it.
            fd: RwLock::new((!passes || inode.stack.is_direct()).then(|| (fd.clone(), in_upper))),
        };
        let fh = self.handles.add_file(file);
        let mode = if passes {
            IoMode::Passthrough { fd, keeps_set_id, below }
        } else {
            match through_the_daemon(&inode.stack, !stale_pages) {
                IoMode::Uncached if self.keeps_pages_to_map(fd.as_fd(), flags) => IoMode::Cached(false),
                mode => mode,
            }
        };
        Ok(Opened { fh, mode, flushes: inode.stack.flushes() })
    }

    /// Whether the kernel has to keep pages of the open file, since it could not map it otherwise (before Linux 6.6) and databases
    /// map theirs. Before each read it asks whether they are right. Not if the file says that it is empty, as those of procfs do
    /// though they have bytes: the kernel would read none.
    fn keeps_pages_to_map(&self, fd: BorrowedFd<'_>, flags: OFlag) -> bool {
        let is_empty = || stat::stat(At::fd(fd)).is_ok_and(|stat| stat.size == 0);
        !self.maps_uncached.load(Ordering::Relaxed) && (writes(flags) || !is_empty())
    }

    /// Says that the kernel does not pass the open file through after all, because of `error`: neither this nor any other of
    /// its tree, from now on. How its bytes flow instead.
    pub fn not_passed(&self, fh: Fh, fd: Arc<OwnedFd>, error: &std::io::Error) -> IoMode {
        let Some(file) = self.handles.file(fh) else { return IoMode::Cached(false) };
        let stack = &file.inode.stack;
        if file.inode.state.read().rare().opens.below {
            if self.passes_below.swap(false, Ordering::Relaxed) {
                tracing::info!("no passthrough for lower files: {error}");
            }
        } else if stack.passes.swap(false, Ordering::Relaxed) {
            tracing::info!("no passthrough for {}: {error}", stack.identities().join(", "));
        }
        let mode = through_the_daemon(stack, false);
        if !file.passthrough.swap(false, Ordering::Relaxed) {
            return mode;
        }
        let mut state = file.inode.state.write();
        let opens = &mut state.rare_mut().opens;
        opens.passthrough -= 1;
        opens.cached += 1;
        let in_upper = state.upper_ino != 0;
        drop(state);
        *file.fd.write() = Some((fd, in_upper));
        mode
    }

    /// Closes an open file. Returns its inode if it was passed through, and whether from a lower layer beneath an upper one.
    pub fn release(&self, fh: Fh) -> Option<(Ino, bool)> {
        let file = self.handles.remove_file(fh)?;
        let mut state = file.inode.state.write();
        let unnamed = state.names.is_empty();
        let rare = state.rare_mut();
        let opens = &mut rare.opens;
        opens.writers -= u32::from(writes(file.flags));
        opens.plain_writers -= u32::from(file.plain_writer);
        let passed = file.passthrough.load(Ordering::Relaxed);
        let below = opens.below;
        let count = if passed { &mut opens.passthrough } else { &mut opens.cached };
        *count -= 1;
        if file.inode.stack.is_direct() && opens.is_none() {
            // Without a name it stays reachable; but not as an open file, whose close might wait for its filesystem.
            let place = rare.orphan.take().filter(|_| unnamed);
            rare.orphan = place.map(|open| open::again_as_path(&open).map_or(open, Arc::new));
        }
        state.tidy();
        passed.then_some((file.inode.ino, below))
    }

    pub(super) fn file(&self, fh: Fh) -> Result<Arc<OpenFile>> {
        self.handles.file(fh).ok_or(Error::Sys { call: "read", errno: nix::errno::Errno::EBADF })
    }

    /// The daemon's own descriptor of an open file, on the upper object if there is one now.
    pub(super) fn descriptor(&self, file: &OpenFile) -> Result<Arc<OwnedFd>> {
        let in_upper = file.inode.state.read().has_upper_data();
        let gave_way = file.inode.gave_way();
        if let Some((fd, on_upper)) = &*file.fd.read() {
            if if gave_way { !*on_upper } else { *on_upper || !in_upper } {
                return Ok(fd.clone());
            }
        }
        if gave_way {
            // Its bytes are those of the lower file for as long as it is open.
            let below = file.inode.state.read().locate_below()?;
            return Ok(Arc::new(open::file(below.at(), OFlag::O_RDONLY).call("openat2")?));
        }
        let (fd, on_upper) = file.inode.with_data(|at, on_upper| {
            let opened = self.open_real(&file.inode.stack, at, file.flags, on_upper).call("openat2")?;
            Ok((Arc::new(opened), on_upper))
        })?;
        *file.fd.write() = Some((fd.clone(), on_upper));
        Ok(fd)
    }

    /// Hands what was written to the open file over to a filesystem that keeps it until then. Errors: what it answers.
    pub fn flush(&self, fh: Fh) -> Result<()> {
        let file = self.file(fh)?;
        match file.inode.stack.flushes() {
            true => copy::flush(self.descriptor(&file)?.as_fd()).call("close"),
            // What was written is in the file already, and locks are the kernel's.
            false => Ok(()),
        }
    }

    /// Writes what was written to the open file to the disk.
    pub fn fsync(&self, fh: Fh, data_only: bool) -> Result<()> {
        let file = self.file(fh)?;
        let inode = file.inode.now();
        let in_upper = inode.has_upper();
        if !self.copy_up.fsync().syncs() && !file.inode.stack.is_direct() {
            if in_upper {
                self.look_for_losses(&file);
            }
            return self.nothing_lost();
        }
        if !in_upper {
            return Ok(());
        }
        let data_is_below = file.inode.gave_way() || inode.state.read().rare().data.is_some();
        if data_is_below {
            // What is open is the data below, which has not changed; what has is the upper object.
            let upper = inode
                .with(|at| attr::with_owner_access(at, || open::file(at, OFlag::O_RDONLY)).call("openat2"))?;
            return copy::sync(upper.as_fd(), data_only).call("fsync");
        }
        copy::sync(self.descriptor(&file)?.as_fd(), data_only).call("fsync")
    }
}
