//! Opening and closing files, and how their bytes flow.
//!
//! The kernel lets an inode be open cached (bytes through the daemon and the kernel's page cache) or passed through
//! (bytes straight between the caller and one backing file), never both. A lower file of a writable stack is cached: a
//! descriptor opened before a copy-up then sees what is written after it. A file in the upper layer is passed through
//! unless somebody still has it open cached. `docs/architecture.md` has the table of states.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use parking_lot::RwLock;

use super::attr::Lifetime;
use super::{Caller, Overlay};
use crate::copy_up::Need;
use crate::error::{Context, Error, Result};
use crate::inode::{Fh, Ino, Inode, OpenFile};
use crate::layer::Stack;
use crate::merge::listing::FileKind;
use crate::sys::{At, attr, copy, cred, open, stat};

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
    },
}

/// An open file.
#[derive(Debug)]
pub struct Opened {
    /// Its number.
    pub fh: Fh,
    /// How its bytes flow.
    pub mode: IoMode,
    /// A shared mapping may change it without the kernel's attribute cache noticing.
    pub may_be_mapped: bool,
    /// Its filesystem wants to know when a descriptor is closed.
    pub flushes: bool,
}

/// What the daemon keeps of open(2) flags: it writes at the offset that the kernel gives, through the page cache,
/// whatever the caller asked.
const KEPT: OFlag = OFlag::O_ACCMODE.union(OFlag::O_SYNC).union(OFlag::O_DSYNC);

/// The access mode in open(2) flags.
fn access(flags: OFlag) -> OFlag {
    flags & OFlag::O_ACCMODE
}

/// The flags that the daemon's own descriptor of a file of `stack` has.
fn kept(stack: &Stack, flags: OFlag) -> OFlag {
    // Where others append, too, only the file itself knows its end.
    flags & if stack.is_direct() { KEPT | OFlag::O_APPEND } else { KEPT }
}

fn writes(flags: OFlag) -> bool {
    access(flags) != OFlag::O_RDONLY
}

/// How bytes flow that the kernel does not pass through. Where others write, too, each read asks, however long names and
/// attributes hold: pages would stay old until the next open.
fn through_the_daemon(stack: &Stack, pages_hold: bool) -> IoMode {
    match Lifetime::of(stack) {
        Lifetime::Forever => IoMode::Cached(pages_hold),
        Lifetime::For(_) | Lifetime::None => IoMode::Uncached,
    }
}

impl Overlay {
    /// Opens the regular file `ino`. Opening for writing copies up. Errors: `ReadOnly`; what the layers answer.
    pub fn open(&self, caller: Caller, ino: Ino, flags: OFlag) -> Result<Opened> {
        let inode = self.inode(ino)?;
        if inode.kind != FileKind::Regular {
            return Err(Error::Invalid("only regular files are opened here"));
        }
        let truncates = flags.contains(OFlag::O_TRUNC);
        let made = match (writes(flags), truncates) {
            (_, true) => {
                let need = Need::Truncated { keeps_set_id: caller.uid == 0 };
                self.copy_up.ensure_open(&inode, need)?
            }
            (true, false) => self.copy_up.ensure(&inode, Need::Data).map(|()| None)?,
            (false, false) => None,
        };
        let found = inode.with_data(|at, in_upper| {
            let opened = if (in_upper && inode.stack.is_writable()) || writes(flags) {
                self.open_real(&inode.stack, at, flags)
            } else {
                // What takes no change does not change by being read, not even its times.
                open::file(at, (flags & KEPT) | OFlag::O_NOATIME).or_else(|_| open::file(at, flags & KEPT))
            };
            Ok((opened.call("openat2")?, in_upper))
        });
        if truncates {
            match (&made, &found) {
                // It was cut off when it came up.
                (Some(_), _) => {}
                (None, Ok((fd, _))) if writes(flags) => self.cut(caller, fd)?,
                (None, Ok(_)) => {
                    self.cut(
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
        self.opened(caller, &inode, flags, Arc::new(fd), in_upper)
    }

    /// Opens the real file at `at` as the caller wants the file open. With a writeback cache a writer must be able to read:
    /// the kernel fills the rest of a page by the descriptor that wrote a part of it. Source: kernel `fuse_write_begin`.
    fn open_real(&self, stack: &Stack, at: At<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
        let kept = kept(stack, flags);
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

    fn cut(&self, caller: Caller, fd: &OwnedFd) -> Result<()> {
        // Cutting nothing off an empty file still sets its times, as O_TRUNC does.
        let cut = || attr::truncate(fd.as_fd(), 0);
        let done = if caller.uid == 0 { cut() } else { cred::without_fsetid(cut) };
        done.call("ftruncate")
    }

    /// As `open` for a file that was just made, with the descriptor it was made by.
    pub(super) fn open_made(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        flags: OFlag,
        made: Option<OwnedFd>,
    ) -> Result<Opened> {
        let fd = made.ok_or(Error::Bug("a file was made but not opened"))?;
        self.opened(caller, inode, flags, Arc::new(fd), true)
    }

    /// Chooses the mode and notes the open file.
    fn opened(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        flags: OFlag,
        fd: Arc<OwnedFd>,
        in_upper: bool,
    ) -> Result<Opened> {
        let set_id = writes(flags) && {
            let mode = stat::stat(At::fd(fd.as_fd())).call("statx")?.mode;
            mode & (libc::S_ISUID | libc::S_ISGID) != 0
        };
        let mut state = inode.state.write();
        // Another may have copied the file up between the open and here.
        let in_upper_now = state.upper_ino != 0 && state.data.is_none();
        let may_pass = self.passthrough()
            && inode.stack.passes.load(Ordering::Relaxed)
            && (in_upper || !inode.stack.is_writable())
            && in_upper == in_upper_now
            // Whether a write clears the set-id bits depends on the writer, and only a cached write tells who it is.
            && !set_id;
        let passes = state.opens.passthrough > 0 || (may_pass && state.opens.cached == 0);
        let stale_pages = state.opens.was_passthrough && !passes;
        let plain_writer = writes(flags) && caller.uid != 0;
        if passes && set_id && plain_writer && state.opens.keeps_set_id {
            // Its writes will go where nobody asks who wrote: the bits go before the first one.
            let mode = stat::stat(At::fd(fd.as_fd())).call("statx")?.mode;
            attr::chmod(At::fd(fd.as_fd()), mode & !(libc::S_ISUID | libc::S_ISGID)).call("fchmodat2")?;
        }
        let fd = if passes && in_upper != in_upper_now {
            // What is open is the lower file. It must not become the one that the next writer's bytes go to.
            let located = inode.locate_locked(&state)?;
            Arc::new(open::file(located.at(), flags & KEPT).call("openat2")?)
        } else {
            fd
        };
        let opens = &mut state.opens;
        opens.plain_writers += u32::from(plain_writer);
        if passes {
            if opens.passthrough == 0 {
                opens.keeps_set_id = caller.uid == 0;
            }
            opens.passthrough += 1;
            opens.was_passthrough = true;
            opens.maybe_mapped |= access(flags) == OFlag::O_RDWR;
        } else {
            opens.cached += 1;
            opens.was_passthrough = false;
        }
        opens.writers += u32::from(writes(flags));
        if inode.stack.is_direct() && state.orphan.is_none() {
            // Others may give its name away while it is open. Whose close may wait for its filesystem, only files that are open have.
            let place = if inode.stack.flushes() { open::again_as_path(&fd).ok() } else { None };
            state.orphan = Some(place.map_or_else(|| fd.clone(), Arc::new));
        }
        let opens = &mut state.opens;
        let keeps_set_id = opens.keeps_set_id;
        let may_be_mapped = opens.maybe_mapped;
        let attributes_move = passes && writes(flags);
        drop(state);
        if attributes_move {
            // From here on the kernel changes size and times without the daemon; what it remembers is not to be trusted.
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
            IoMode::Passthrough { fd, keeps_set_id }
        } else {
            through_the_daemon(&inode.stack, !stale_pages)
        };
        Ok(Opened { fh, mode, may_be_mapped, flushes: inode.stack.flushes() })
    }

    /// Says that the kernel does not pass the open file through after all, because of `error`: neither this nor any other of
    /// its tree, from now on. How its bytes flow instead.
    pub fn not_passed(&self, fh: Fh, fd: Arc<OwnedFd>, error: &std::io::Error) -> IoMode {
        let Some(file) = self.handles.file(fh) else { return IoMode::Cached(false) };
        let stack = &file.inode.stack;
        if stack.passes.swap(false, Ordering::Relaxed) {
            tracing::info!("no passthrough for {}: {error}", stack.identities().join(", "));
        }
        let mode = through_the_daemon(stack, false);
        if !file.passthrough.swap(false, Ordering::Relaxed) {
            return mode;
        }
        let mut state = file.inode.state.write();
        state.opens.passthrough -= 1;
        state.opens.cached += 1;
        let in_upper = state.upper_ino != 0;
        drop(state);
        *file.fd.write() = Some((fd, in_upper));
        mode
    }

    /// Closes an open file. Returns its inode if it was passed through.
    pub fn release(&self, fh: Fh) -> Option<Ino> {
        let file = self.handles.remove_file(fh)?;
        let mut state = file.inode.state.write();
        let opens = &mut state.opens;
        opens.writers -= u32::from(writes(file.flags));
        opens.plain_writers -= u32::from(file.plain_writer);
        let passed = file.passthrough.load(Ordering::Relaxed);
        let count = if passed { &mut opens.passthrough } else { &mut opens.cached };
        *count -= 1;
        let opens = state.opens;
        if file.inode.stack.is_direct() && opens.passthrough + opens.cached == 0 {
            // Without a name it stays reachable; but not as an open file, whose close might wait for its filesystem.
            let place = state.orphan.take().filter(|_| state.names.is_empty());
            state.orphan = place.map(|open| open::again_as_path(&open).map_or(open, Arc::new));
        }
        passed.then_some(file.inode.ino)
    }

    pub(super) fn file(&self, fh: Fh) -> Result<Arc<OpenFile>> {
        self.handles.file(fh).ok_or(Error::Sys { call: "read", errno: nix::errno::Errno::EBADF })
    }

    /// The daemon's own descriptor of an open file, on the upper object if there is one now.
    pub(super) fn descriptor(&self, file: &OpenFile) -> Result<Arc<OwnedFd>> {
        let in_upper = {
            let state = file.inode.state.read();
            state.upper_ino != 0 && state.data.is_none()
        };
        if let Some((fd, on_upper)) = &*file.fd.read() {
            if *on_upper || !in_upper {
                return Ok(fd.clone());
            }
        }
        let (fd, on_upper) = file.inode.with_data(|at, on_upper| {
            Ok((Arc::new(self.open_real(&file.inode.stack, at, file.flags).call("openat2")?), on_upper))
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
        let in_upper = file.inode.has_upper();
        if self.copy_up.fsync() == crate::config::FsyncMode::Volatile && !file.inode.stack.is_direct() {
            if in_upper {
                self.look_for_losses(&file);
            }
            return self.nothing_lost();
        }
        if !in_upper {
            return Ok(());
        }
        let metadata_only = file.inode.state.read().data.is_some();
        if metadata_only {
            // What is open is the data below, which has not changed; what has is the upper object.
            let upper = file
                .inode
                .with(|at| attr::with_owner_access(at, || open::file(at, OFlag::O_RDONLY)).call("openat2"))?;
            return copy::sync(upper.as_fd(), data_only).call("fsync");
        }
        copy::sync(self.descriptor(&file)?.as_fd(), data_only).call("fsync")
    }
}
