//! Listening: a socket of the mount, one thread that accepts, and one for each caller, so that one whose request waits for
//! a source that does not answer keeps nobody else waiting.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt};
use parking_lot::Mutex;

use super::{Answer, Request, requests};
use crate::graft::Spec;
use crate::overlay::Overlay;
use crate::sys::socket;

/// So many callers at once.
const MOST_CALLERS: usize = 16;
/// The longest request, in bytes.
const LONGEST: u64 = 1 << 20;
/// How long a caller may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the end of a mount waits for requests that are being carried out.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Hears what is attached after a change, one change at a time.
type Changed = Box<dyn Fn(&[Spec]) + Send + Sync>;

/// The socket of a mount, while it is there.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: Arc<UnixListener>,
    served: Arc<Served>,
    thread: Option<JoinHandle<()>>,
}

struct Served {
    /// Not kept alive by callers: what it holds is given back when the mount ends.
    overlay: Weak<Overlay>,
    changed: Mutex<Changed>,
    ending: AtomicBool,
    next: AtomicU64,
    callers: Mutex<HashMap<u64, Arc<UnixStream>>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Served")
    }
}

impl Server {
    /// Listens at `path` for requests about `overlay`. `changed` hears what is attached after each change.
    /// Errors: what making the socket or the thread answers.
    pub fn start(
        path: PathBuf,
        overlay: &Arc<Overlay>,
        changed: impl Fn(&[Spec]) + Send + Sync + 'static,
    ) -> io::Result<Server> {
        let listener = Arc::new(socket::listen(&path)?);
        let served = Arc::new(Served {
            overlay: Arc::downgrade(overlay),
            changed: Mutex::new(Box::new(changed)),
            ending: AtomicBool::new(false),
            next: AtomicU64::new(0),
            callers: Mutex::default(),
        });
        let (accepting, serving) = (listener.clone(), served.clone());
        let thread =
            thread::Builder::new().name("control".to_owned()).spawn(move || accept(&accepting, &serving));
        match thread {
            Ok(thread) => Ok(Server { path, listener, served, thread: Some(thread) }),
            Err(error) => {
                remove(&path);
                Err(error)
            }
        }
    }
}

impl Drop for Server {
    /// Takes no more requests. Those that are being carried out get a while to end: what the mount holds is given back
    /// only after them.
    fn drop(&mut self) {
        self.served.ending.store(true, Ordering::SeqCst);
        remove(&self.path);
        // Wakes the thread that accepts. A socket that is broken already has ended it.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It does not panic: that would have ended the process.
            let _ = thread.join();
        }
        for caller in self.served.callers.lock().values() {
            // Its caller may have gone.
            let _ = caller.shutdown(std::net::Shutdown::Both);
        }
        let begun = Instant::now();
        while !self.served.callers.lock().is_empty() {
            if begun.elapsed() > LAST_WORDS {
                return tracing::warn!("the mount ends while it is being changed: a source does not answer");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn remove(path: &Path) {
    // Whoever finds it left behind finds nobody listening.
    let _ = std::fs::remove_file(path);
}

fn accept(listener: &UnixListener, served: &Arc<Served>) {
    loop {
        let caller = match listener.accept() {
            Ok((caller, _)) => Arc::new(caller),
            Err(_) if served.ending.load(Ordering::SeqCst) => return,
            Err(error) => {
                // No descriptors left, or memory; the caller waits in the queue meanwhile.
                tracing::warn!("control socket: {error}");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if served.ending.load(Ordering::SeqCst) {
            return;
        }
        if let Err(sentence) = served.take(&caller) {
            // Who does not listen need not be told.
            let _ = (&*caller).write_all(&Answer::error(sentence).to_line());
        }
    }
}

impl Served {
    /// Gives the caller a thread. Errors: why not.
    fn take(self: &Arc<Served>, caller: &Arc<UnixStream>) -> Result<(), String> {
        let known =
            getsockopt(&**caller, sockopt::PeerCredentials).map_err(|errno| errno.desc().to_owned())?;
        let own = nix::unistd::geteuid().as_raw();
        if ![0, own].contains(&known.uid()) {
            return Err("the mount is another user's: ask as its owner or as root".to_owned());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut callers = self.callers.lock();
            if callers.len() >= MOST_CALLERS {
                return Err(format!("{MOST_CALLERS} callers are being answered already: try again later"));
            }
            callers.insert(number, caller.clone());
        }
        let (served, caller) = (self.clone(), caller.clone());
        let spawned = thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = served.listen_to(&caller) {
                tracing::debug!("control socket: {error}");
            }
            // Before it is taken off the list: the end of the mount waits for that.
            drop(caller);
            served.callers.lock().remove(&number);
        });
        spawned.map(drop).map_err(|error| {
            self.callers.lock().remove(&number);
            format!("the daemon has no thread for another caller: {error}")
        })
    }

    /// Answers requests until the caller goes. Errors: those of the socket.
    fn listen_to(&self, caller: &UnixStream) -> io::Result<()> {
        // Of the thread's own, as for requests that are answered apart.
        if let Err(errno) = crate::sys::cred::set_thread_umask(0) {
            tracing::debug!("umask of a control thread: {}", errno.desc());
        }
        caller.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(caller);
        let mut line = Vec::new();
        loop {
            line.clear();
            (&mut reader).take(LONGEST).read_until(b'\n', &mut line)?;
            if line.is_empty() || self.ending.load(Ordering::SeqCst) {
                return Ok(());
            }
            let mut tell = |answer: Answer| (&mut &*caller).write_all(&answer.to_line());
            if line.len() as u64 >= LONGEST && line.last() != Some(&b'\n') {
                // Where the next request begins cannot be told.
                return tell(Answer::error("the request is too long"));
            }
            match serde_json::from_slice::<Request>(&line) {
                Err(error) => tell(Answer::error(format!("this is no request: {error}")))?,
                Ok(request) => {
                    let Some(overlay) = self.overlay.upgrade() else { return Ok(()) };
                    requests::carry_out(&overlay, request, || self.tell_changed(&overlay), &mut tell)?;
                }
            }
        }
    }

    fn tell_changed(&self, overlay: &Overlay) {
        // Asked under the lock, so that who comes last says what holds last.
        let changed = self.changed.lock();
        changed(&overlay.attached());
    }
}
