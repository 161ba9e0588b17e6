//! What a rename needs. Source: kernel `ovl_rename`.

/// One side of a rename, after it was copied up: what is in the upper layer at the name, and what beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// What the name shows.
    pub shows: Shows,
    /// The lower layers would show an object at this name if the upper layer said nothing.
    pub lower_shows: bool,
    /// The upper layer has a whiteout at this name.
    pub upper_whiteout: bool,
}

/// What a name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Nothing.
    Nothing,
    /// Anything but a directory.
    NonDir,
    /// A directory that only the upper layer has.
    UpperDir {
        /// It is marked opaque already.
        opaque: bool,
    },
    /// A directory with parts in lower layers.
    MergedDir,
}

/// What the caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An existing target goes.
    Replace,
    /// An existing target is an error; the caller has checked that there is none.
    NoReplace,
    /// Both names stay, with their objects swapped.
    Exchange,
}

/// A mark that an upper directory gets before it moves, so that it means the same at its new place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirMark {
    /// None.
    None,
    /// Redirect to where the lowers keep it.
    Redirect,
    /// Opaque, so that the lowers at the new name do not show through.
    Opaque,
}

/// The one system call that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// `renameat2` without flags: leaves nothing at the old name.
    Plain,
    /// `RENAME_WHITEOUT`: leaves a whiteout at the old name.
    LeaveWhiteout,
    /// `RENAME_EXCHANGE`: both objects change places; also used to move a whiteout of the new name to the old one.
    Exchange,
}

/// Marks first, then the move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// For the object at the old name.
    pub mark_old: DirMark,
    /// For the object at the new name, when they are exchanged.
    pub mark_new: DirMark,
    /// The call.
    pub step: Move,
    /// The target is an upper directory with only marks in it, or none: it must be emptied first by exchanging it.
    pub clear_target: bool,
}

/// The two refusals that rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A directory with lower parts cannot move without a redirect: EXDEV.
    NoRedirect,
}

/// What to do so that both names show the right thing, now and after a remount.
/// `redirects` says whether redirects may be written; `target_marks` that the target directory holds marks.
pub fn plan(old: Side, new: Side, mode: Mode, redirects: bool, target_marks: bool) -> Result<Plan, Refusal> {
    let mark_old =
        mark_for(old.shows, new.lower_shows || new.upper_whiteout || is_merged(new.shows), redirects)?;
    let exchange = mode == Mode::Exchange;
    let mark_new = if exchange {
        mark_for(new.shows, old.lower_shows || is_merged(old.shows), redirects)?
    } else {
        DirMark::None
    };
    let step = match (exchange, old.lower_shows) {
        (true, _) => Move::Exchange,
        // The whiteout of the new name is just what the old name needs.
        (false, true) if new.upper_whiteout => Move::Exchange,
        (false, true) => Move::LeaveWhiteout,
        (false, false) => Move::Plain,
    };
    Ok(Plan { mark_old, mark_new, step, clear_target: !exchange && target_marks })
}

fn is_merged(shows: Shows) -> bool {
    shows == Shows::MergedDir
}

fn mark_for(shows: Shows, lower_at_target: bool, redirects: bool) -> Result<DirMark, Refusal> {
    match shows {
        Shows::Nothing | Shows::NonDir => Ok(DirMark::None),
        Shows::MergedDir if redirects => Ok(DirMark::Redirect),
        Shows::MergedDir => Err(Refusal::NoRedirect),
        Shows::UpperDir { opaque: false } if lower_at_target => Ok(DirMark::Opaque),
        Shows::UpperDir { .. } => Ok(DirMark::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(shows: Shows, lower_shows: bool, upper_whiteout: bool) -> Side {
        Side { shows, lower_shows, upper_whiteout }
    }

    const NOTHING: Side = Side { shows: Shows::Nothing, lower_shows: false, upper_whiteout: false };

    #[test]
    fn the_old_name_never_shows_a_lower_object_again() {
        let moved = |old: Side, new: Side| plan(old, new, Mode::Replace, true, false).expect("allowed").step;
        assert_eq!(moved(side(Shows::NonDir, false, false), NOTHING), Move::Plain);
        assert_eq!(moved(side(Shows::NonDir, true, false), NOTHING), Move::LeaveWhiteout);
        assert_eq!(moved(side(Shows::NonDir, true, false), side(Shows::Nothing, true, true)), Move::Exchange);
        assert_eq!(moved(side(Shows::NonDir, false, false), side(Shows::Nothing, true, true)), Move::Plain);
    }

    #[test]
    fn a_directory_means_the_same_at_its_new_place() {
        let marked =
            |old: Side, new: Side| plan(old, new, Mode::Replace, true, false).expect("allowed").mark_old;
        assert_eq!(marked(side(Shows::MergedDir, true, false), NOTHING), DirMark::Redirect);
        let pure = side(Shows::UpperDir { opaque: false }, false, false);
        assert_eq!(marked(pure, NOTHING), DirMark::None);
        assert_eq!(marked(pure, side(Shows::Nothing, true, true)), DirMark::Opaque);
        assert_eq!(marked(pure, side(Shows::MergedDir, true, false)), DirMark::Opaque);
        let opaque = side(Shows::UpperDir { opaque: true }, false, false);
        assert_eq!(marked(opaque, side(Shows::Nothing, true, true)), DirMark::None);
    }

    #[test]
    fn without_redirects_a_merged_directory_stays() {
        let merged = side(Shows::MergedDir, true, false);
        assert_eq!(plan(merged, NOTHING, Mode::Replace, false, false), Err(Refusal::NoRedirect));
        let file = side(Shows::NonDir, false, false);
        assert_eq!(plan(file, merged, Mode::Exchange, false, false), Err(Refusal::NoRedirect));
    }

    #[test]
    fn an_exchange_marks_both_sides() {
        let merged = side(Shows::MergedDir, true, false);
        let pure = side(Shows::UpperDir { opaque: false }, false, false);
        let made = plan(merged, pure, Mode::Exchange, true, true).expect("allowed");
        let expected = Plan {
            mark_old: DirMark::Redirect,
            mark_new: DirMark::Opaque,
            step: Move::Exchange,
            clear_target: false,
        };
        assert_eq!(made, expected);
    }
}
