//! Inode flags that forbid changes, and the mark that keeps them on what was copied up.

/// Which changes the inode flags of an object forbid to everybody. Source: chattr(1), `a` and `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// All.
    pub immutable: bool,
    /// All but appends, and new names in a directory.
    pub append: bool,
}

impl Protection {
    /// What the value of the mark `protattr` says: a letter for each flag. Source: kernel `ovl_check_protattr`.
    pub fn parse(value: &[u8]) -> Protection {
        // A letter that is not known ends it.
        let letters = value.iter().take_while(|letter| matches!(letter, b'a' | b'i'));
        letters.fold(Protection::default(), |protection, letter| match letter {
            b'a' => Protection { append: true, ..protection },
            _ => Protection { immutable: true, ..protection },
        })
    }

    /// The value of the mark; nothing if there is no need for one. Source: kernel `ovl_set_protattr`.
    pub fn format(self) -> Option<&'static [u8]> {
        match (self.append, self.immutable) {
            (true, true) => Some(b"ai"),
            (true, false) => Some(b"a"),
            (false, true) => Some(b"i"),
            (false, false) => None,
        }
    }

    /// What either forbids.
    pub fn or(self, other: Protection) -> Protection {
        Protection { immutable: self.immutable || other.immutable, append: self.append || other.append }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (immutable, append) in [(false, false), (true, false), (false, true), (true, true)] {
            let protection = Protection { immutable, append };
            assert_eq!(protection.format().map(Protection::parse).unwrap_or_default(), protection);
        }
        assert_eq!(Protection::parse(b"ia"), Protection { immutable: true, append: true });
        assert_eq!(Protection::parse(b"a?i"), Protection { immutable: false, append: true });
    }
}
