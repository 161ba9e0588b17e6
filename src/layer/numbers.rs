//! Which part of the number space each device of each stack has, so that no two objects show one number.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::merge::ino::DEVICES;

/// The parts of the number space that are taken, shared by all stacks of a mount.
#[derive(Debug, Default)]
pub struct Numbers {
    taken: Mutex<u128>,
}

/// A part of the number space, given back when it goes.
#[derive(Debug)]
pub struct Part {
    index: u8,
    numbers: Arc<Numbers>,
}

impl Numbers {
    /// The lowest part that is free. When all are taken, the index of none: numbers then come from a counter.
    pub fn take(self: &Arc<Numbers>) -> Part {
        let mut taken = self.taken.lock();
        let index = (0..DEVICES).find(|index| *taken & (1 << index) == 0).unwrap_or(DEVICES);
        if index < DEVICES {
            *taken |= 1 << index;
        }
        Part { index, numbers: self.clone() }
    }
}

impl Part {
    /// For `merge::ino::pack`.
    pub fn index(&self) -> u8 {
        self.index
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.index < DEVICES {
            *self.numbers.taken.lock() &= !(1 << self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_given_once_and_again_when_it_is_back() {
        let numbers = Arc::new(Numbers::default());
        let mut parts: Vec<Part> = (0..u32::from(DEVICES)).map(|_| numbers.take()).collect();
        assert!(parts.iter().enumerate().all(|(i, part)| usize::from(part.index()) == i));
        assert_eq!(numbers.take().index(), DEVICES);
        drop(parts.remove(5));
        assert_eq!(numbers.take().index(), 5);
    }
}
