//! When the names of a directory's lower layers are learnt: by one listing, once that costs less than asking layer by layer.

use std::sync::Arc;

use super::Overlay;
use crate::inode::Inode;
use crate::layer::RealDir;
use crate::layer::names::MANY_LAYERS;
use crate::layer::stack::Found;
use crate::merge::resolve::Outcome;

/// A layer's directory is opened, read and closed in the time of so many questions for a name.
const PROBES_PER_LISTING: u32 = 4;

/// So many bytes of a directory, beyond the first block, are listed in the time of one question for a name.
const BYTES_PER_PROBE: u32 = 512;

/// A directory takes a block, even with a single name.
const BLOCK: u32 = 4096;

impl Overlay {
    /// Learns the names of a directory in many layers before it is asked for the first one, where nothing is lost by that: in
    /// many small directories a name that most of them do not have costs as much as a listing, since each is opened and asked for
    /// a whiteout, too. Locks: the directory's names, for reading at least.
    pub(super) fn learn_names_first(&self, parent: &Arc<Inode>) {
        let parts = parent.lower_dirs().len();
        let small = || listing_cost(parent) as usize <= parts * PROBES_PER_LISTING as usize;
        if parts > MANY_LAYERS && parent.parts().names.is_none() && small() {
            self.learn(parent);
        }
    }

    /// Layers that were asked in vain often enough are listed once, and then not asked any more for what they do not have.
    /// A directory in which little is looked for is never listed for that: it may be huge.
    pub(super) fn learn_names(&self, parent: &Arc<Inode>, found: &Found) {
        if parent.parts().names.is_some() {
            return;
        }
        let lowers = parent.lower_dirs().len();
        let vain = match found {
            Outcome::Absent => lowers,
            Outcome::Dir(members) => lowers.saturating_sub(members.len()),
            Outcome::NonDir(layer, ..) => {
                parent.lower_dirs().iter().take_while(|dir| dir.layer() < *layer).count()
            }
            Outcome::Broken(..) => 0,
        };
        if parent.asked_in_vain(u32::try_from(vain).unwrap_or(u32::MAX), || listing_cost(parent)) {
            self.learn(parent);
        }
    }

    fn learn(&self, dir: &Arc<Inode>) {
        // Names can be asked for in a directory that may not be read.
        if let Err(error) = self.shown_names(dir) {
            tracing::debug!("the names of directory {} are not learnt: {error}", dir.ino.0);
        }
    }
}

/// What listing the lower parts of `dir` costs, in questions for a name.
fn listing_cost(dir: &Inode) -> u32 {
    let cost =
        |part: &Arc<RealDir>| PROBES_PER_LISTING + part.bytes().saturating_sub(BLOCK) / BYTES_PER_PROBE;
    dir.lower_dirs().iter().map(cost).fold(0, u32::saturating_add)
}
