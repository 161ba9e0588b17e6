//! Objects of trees that others change, held between a lookup and the request that follows it. If the host replaces the file
//! in between, the object cannot be found by its name any more.
//!
//! A descriptor keeps a removed file's blocks and its filesystem in use, so none is kept longer than a request takes.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long an object is held. A caller who is kept from going on for longer looks the name up again.
const MOMENT: Duration = Duration::from_secs(1);

/// The objects of one mount that were looked up a moment ago, by the number that the kernel calls them.
#[derive(Debug)]
pub struct Recent {
    room: usize,
    held: Mutex<Held>,
}

/// A tree's part in it. Dropped, nothing of the tree is held, and its filesystem can be unmounted.
#[derive(Debug)]
pub struct Holder {
    tree: u64,
    recent: Arc<Recent>,
}

#[derive(Debug)]
struct Object {
    tree: u64,
    fd: Arc<OwnedFd>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Held {
    trees: u64,
    objects: HashMap<u64, Object>,
    /// In the order in which they were looked up. One that was looked up again stands here twice.
    order: VecDeque<(u64, Instant)>,
    /// Whether a thread is there that lets go of them.
    is_watched: bool,
}

impl Recent {
    /// For at most so many objects.
    pub fn new(room: usize) -> Arc<Recent> {
        Arc::new(Recent { room, held: Mutex::default() })
    }

    fn hold(self: &Arc<Recent>, tree: u64, number: u64, fd: Arc<OwnedFd>) {
        let now = Instant::now();
        let mut held = self.held.lock();
        let before = held.objects.insert(number, Object { tree, fd, since: now });
        held.order.push_back((number, now));
        let gone = if held.order.len() > self.room { held.oldest() } else { None };
        if !held.is_watched {
            let recent = self.clone();
            let watch = std::thread::Builder::new().name("recent".to_owned()).spawn(move || recent.watch());
            held.is_watched = watch.is_ok();
        }
        drop(held);
        // Closed without the lock: it may be the last word on a removed file, and take long.
        drop((before, gone));
    }

    fn get(&self, number: u64) -> Option<Arc<OwnedFd>> {
        self.held.lock().objects.get(&number).map(|object| object.fd.clone())
    }

    /// Lets go of what is held longer than a moment, until nothing is held.
    fn watch(&self) {
        loop {
            std::thread::sleep(MOMENT / 2);
            let mut gone = Vec::new();
            let mut held = self.held.lock();
            while held.order.front().is_some_and(|(_, since)| since.elapsed() > MOMENT) {
                gone.extend(held.oldest());
            }
            held.is_watched = !held.order.is_empty();
            let is_over = !held.is_watched;
            drop(held);
            drop(gone);
            if is_over {
                return;
            }
        }
    }
}

impl Holder {
    /// For one more tree.
    pub fn new(recent: &Arc<Recent>) -> Holder {
        let mut held = recent.held.lock();
        held.trees += 1;
        Holder { tree: held.trees, recent: recent.clone() }
    }

    /// Holds the object `fd` of the tree, which the kernel is told of as `number`.
    pub fn hold(&self, number: u64, fd: Arc<OwnedFd>) {
        self.recent.hold(self.tree, number, fd);
    }

    /// The object that was last told of as `number`, if that was a moment ago.
    pub fn get(&self, number: u64) -> Option<Arc<OwnedFd>> {
        self.recent.get(number)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut held = self.recent.held.lock();
        let (gone, stays) =
            std::mem::take(&mut held.objects).into_iter().partition(|(_, object)| object.tree == self.tree);
        held.objects = stays;
        drop(held);
        let gone: HashMap<u64, Object> = gone;
        drop(gone);
    }
}

impl Held {
    /// Takes the oldest out; nothing if it was looked up again since.
    fn oldest(&mut self) -> Option<Arc<OwnedFd>> {
        let (number, since) = self.order.pop_front()?;
        let is_it = self.objects.get(&number).is_some_and(|object| object.since == since);
        if is_it { self.objects.remove(&number).map(|object| object.fd) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn objects_are_held_for_a_moment_and_no_more_than_there_is_room_for() {
        let recent = Recent::new(2);
        let file = || Arc::new(OwnedFd::from(File::open("/").expect("/")));
        let (one, other) = (Holder::new(&recent), Holder::new(&recent));
        (1..=3).for_each(|number| one.hold(number, file()));
        assert!(recent.get(1).is_none() && recent.get(2).is_some() && recent.get(3).is_some());
        let begun = Instant::now();
        while recent.get(3).is_some() {
            assert!(begun.elapsed() < Duration::from_secs(600), "it is held for ever");
            std::thread::sleep(MOMENT / 10);
        }
        one.hold(4, file());
        other.hold(5, file());
        assert!(recent.get(4).is_some(), "held though nothing was for a while");
        drop(one);
        assert!(recent.get(4).is_none() && recent.get(5).is_some(), "what a tree held goes with it");
    }
}
