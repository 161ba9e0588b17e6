//! What the removal of a name needs. Source: kernel `ovl_do_remove`.

/// What stands under the name that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The upper layer has an object there.
    pub upper: Option<UpperObject>,
    /// The lower layers would show an object there if the upper layer said nothing.
    pub lower_shows: bool,
}

/// The upper layer's part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpperObject {
    /// Anything but a directory.
    NonDir,
    /// A directory without any entry.
    EmptyDir,
    /// A directory that has nothing but marks in it.
    DirWithMarks,
}

/// The one visible step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Remove the upper object; nothing is beneath.
    Remove,
    /// Take the upper directory out into the workdir, then clear it there; nothing is beneath.
    TakeOut,
    /// Put a whiteout where the upper layer has nothing.
    AddWhiteout,
    /// Replace the upper non-directory by a whiteout.
    ReplaceByWhiteout,
    /// Exchange the upper directory with a whiteout, then clear it in the workdir.
    ExchangeWithWhiteout,
}

/// What to do so that the name is gone, now and after a remount.
pub fn plan(facts: Facts) -> Plan {
    match (facts.upper, facts.lower_shows) {
        (None, _) => Plan::AddWhiteout,
        (Some(UpperObject::NonDir), true) => Plan::ReplaceByWhiteout,
        (Some(UpperObject::EmptyDir | UpperObject::DirWithMarks), true) => Plan::ExchangeWithWhiteout,
        (Some(UpperObject::DirWithMarks), false) => Plan::TakeOut,
        (Some(UpperObject::NonDir | UpperObject::EmptyDir), false) => Plan::Remove,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whiteout_is_left_exactly_where_the_lowers_would_show_through() {
        use UpperObject::*;
        let table = [
            (None, true, Plan::AddWhiteout),
            (Some(NonDir), false, Plan::Remove),
            (Some(NonDir), true, Plan::ReplaceByWhiteout),
            (Some(EmptyDir), false, Plan::Remove),
            (Some(EmptyDir), true, Plan::ExchangeWithWhiteout),
            (Some(DirWithMarks), false, Plan::TakeOut),
            (Some(DirWithMarks), true, Plan::ExchangeWithWhiteout),
        ];
        for (upper, lower_shows, expected) in table {
            assert_eq!(plan(Facts { upper, lower_shows }), expected);
        }
    }
}
