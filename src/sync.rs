//! Locks that know their level. They are taken downward only (a lower number first); debug builds assert the order
//! per thread. `docs/architecture.md` has the table: what each level guards and what it may be held across.

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The levels, from the outermost inwards.
pub mod level {
    /// The shape of the tree while a directory moves.
    pub const RENAME: u8 = 1;
    /// Which names a directory shows.
    pub const NAMES: u8 = 2;
    /// Copy-up of one inode; the only level that may be held across a copy of data.
    pub const GATE: u8 = 3;
    /// What an inode is made of.
    pub const STATE: u8 = 4;
    /// Numbers to inodes.
    pub const STORE: u8 = 5;
    /// Open handles.
    pub const HANDLES: u8 = 6;
}

#[cfg(debug_assertions)]
mod order {
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes that this thread takes a lock; two of one level only where the level has an order of its own.
    pub fn enter(level: u8, several: bool) {
        HELD.with_borrow_mut(|held| {
            if let Some(&top) = held.iter().max() {
                let downward = if several { top <= level } else { top < level };
                assert!(downward, "a lock of level {level} is taken under one of level {top}");
            }
            held.push(level);
        });
    }

    pub fn leave(level: u8) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|&l| l == level) {
                held.remove(at);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod order {
    #[inline(always)]
    pub fn enter(_level: u8, _several: bool) {}
    #[inline(always)]
    pub fn leave(_level: u8) {}
}

/// Held while a lock is; gives the level back.
#[derive(Debug)]
struct Entered(u8);

impl Entered {
    fn new(level: u8, several: bool) -> Entered {
        order::enter(level, several);
        Entered(level)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        order::leave(self.0);
    }
}

/// A guard with its place in the order.
#[derive(Debug)]
pub struct Held<G> {
    guard: G,
    _entered: Entered,
}

impl<G: std::ops::Deref> std::ops::Deref for Held<G> {
    type Target = G::Target;
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: std::ops::DerefMut> std::ops::DerefMut for Held<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// A mutex of a level.
#[derive(Debug, Default)]
pub struct LevelMutex<T, const LEVEL: u8>(Mutex<T>);

impl<T, const LEVEL: u8> LevelMutex<T, LEVEL> {
    /// Guards `value`.
    pub const fn new(value: T) -> Self {
        LevelMutex(Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Held<MutexGuard<'_, T>> {
        let entered = Entered::new(LEVEL, false);
        Held { guard: self.0.lock(), _entered: entered }
    }

    /// Waits for the lock while another one of the same level is held; the caller keeps to that level's own order.
    pub fn lock_second(&self) -> Held<MutexGuard<'_, T>> {
        let entered = Entered::new(LEVEL, true);
        Held { guard: self.0.lock(), _entered: entered }
    }
}

/// A reader-writer lock of a level.
#[derive(Debug, Default)]
pub struct LevelRwLock<T, const LEVEL: u8>(RwLock<T>);

impl<T, const LEVEL: u8> LevelRwLock<T, LEVEL> {
    /// Guards `value`.
    pub const fn new(value: T) -> Self {
        LevelRwLock(RwLock::new(value))
    }

    /// Waits to read.
    pub fn read(&self) -> Held<RwLockReadGuard<'_, T>> {
        let entered = Entered::new(LEVEL, false);
        Held { guard: self.0.read(), _entered: entered }
    }

    /// Waits to write.
    pub fn write(&self) -> Held<RwLockWriteGuard<'_, T>> {
        let entered = Entered::new(LEVEL, false);
        Held { guard: self.0.write(), _entered: entered }
    }

    /// Waits so long to write; nothing if it takes longer.
    pub fn try_write_for(&self, time: std::time::Duration) -> Option<Held<RwLockWriteGuard<'_, T>>> {
        let entered = Entered::new(LEVEL, false);
        Some(Held { guard: self.0.try_write_for(time)?, _entered: entered })
    }

    /// Waits to read while another one of the same level is held; the caller keeps to that level's own order.
    pub fn read_second(&self) -> Held<RwLockReadGuard<'_, T>> {
        let entered = Entered::new(LEVEL, true);
        Held { guard: self.0.read(), _entered: entered }
    }

    /// What is guarded, where nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Waits to write while another one of the same level is held; the caller keeps to that level's own order.
    pub fn write_second(&self) -> Held<RwLockWriteGuard<'_, T>> {
        let entered = Entered::new(LEVEL, true);
        Held { guard: self.0.write(), _entered: entered }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_downward_only() {
        let outer: LevelMutex<(), { level::NAMES }> = LevelMutex::new(());
        let inner: LevelMutex<(), { level::STATE }> = LevelMutex::new(());
        {
            let _outer = outer.lock();
            let _inner = inner.lock();
        }
        let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _inner = inner.lock();
            let _outer = outer.lock();
        }));
        assert!(wrong.is_err());
    }
}
