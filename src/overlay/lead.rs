//! Ways to what is attached inside a tree that others change, too. A graft stays at its path: where others put another
//! directory on the way, the way leads on through that one; where they take one away, a directory that nobody made stands
//! in its place; a directory that they move elsewhere takes nothing with it.

use std::ffi::OsStr;
use std::sync::Arc;

use super::Overlay;
use super::graft::set_point;
use super::lookup::Entry;
use crate::error::Result;
use crate::inode::{Inode, Point, Points};

impl Overlay {
    /// What shows under `name` in `parent`, where `was` was on the way to a graft. Locks: the parent's names, for reading at least.
    pub(super) fn led_locked(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        was: Arc<Inode>,
    ) -> Result<Option<Entry<'_>>> {
        let found = self.united_locked(parent, name)?;
        let dir = found.as_ref().map(|found| &*found.inode).filter(|inode| inode.is_dir());
        let now = match dir {
            Some(dir) if Arc::ptr_eq(dir, &was) => return Ok(found),
            // Somebody has made a name in a directory that nobody had made, so it is there now.
            Some(dir) if is_made_of(&was, dir) => return self.entry_of(parent, was.ino).map(Some),
            Some(dir) => {
                self.store.hold(dir);
                Point::Way(dir.clone())
            }
            None if was.is_synthetic() => return self.entry_of(parent, was.ino).map(Some),
            None => Point::Synthetic(self.synthetic(parent, name)?),
        };
        if let Some(unused) = self.lead(parent, name, &was, now)? {
            self.forget(unused.ino, 1);
        }
        drop(found);
        self.lookup_locked(parent, name)
    }

    /// Others have given the directory `dir` a new name: what is attached below it stays where it was.
    pub(super) fn leave_behind(&self, dir: &Arc<Inode>) -> Result<()> {
        if dir.state.read().rare().points.is_none() {
            return Ok(());
        }
        let Some(old) = dir.dir_name() else { return Ok(()) };
        let now = Point::Synthetic(self.synthetic(&old.parent, &old.name)?);
        if let Some(unused) = self.lead(&old.parent, &old.name, dir, now)? {
            self.forget(unused.ino, 1);
        }
        Ok(())
    }

    /// Leads the way by `name` in `parent` through `now`, which is held, instead of `was`. Returns the one of the two that is to be
    /// held no longer: `now` if somebody was quicker.
    fn lead(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        was: &Arc<Inode>,
        now: Point,
    ) -> Result<Option<Arc<Inode>>> {
        let (Point::Way(dir) | Point::Synthetic(dir)) = &now else { return Ok(None) };
        let dir = dir.clone();
        let _one = self.grafts.leading.lock();
        match parent.point(name) {
            Some(Point::Way(still) | Point::Synthetic(still)) if Arc::ptr_eq(&still, was) => {}
            _ => return Ok(Some(dir)),
        }
        self.move_points(was, &dir)?;
        set_point(parent, name, Some(now));
        was.state.write().rare_mut().points = None;
        Ok(Some(was.clone()))
    }

    /// Lets the names that lead to grafts from `from` lead there from `to`, too. Locks: `leading`.
    fn move_points(&self, from: &Arc<Inode>, to: &Arc<Inode>) -> Result<()> {
        let Some(points) = from.state.read().rare().points.clone() else { return Ok(()) };
        let mut moved = to.state.read().rare().points.as_deref().cloned().unwrap_or_default();
        for (name, point) in points.iter() {
            let point = match point {
                Point::Graft(root) => {
                    root.inode().state.write().rare_mut().above = Some(to.clone());
                    point.clone()
                }
                // What is there now is seen when it is asked for.
                Point::Way(inner) | Point::Synthetic(inner) => {
                    let dir = self.synthetic(to, name)?;
                    self.move_points(inner, &dir)?;
                    inner.state.write().rare_mut().points = None;
                    self.forget(inner.ino, 1);
                    Point::Synthetic(dir)
                }
            };
            moved = moved.with(name, point);
        }
        to.state.write().rare_mut().points = (!moved.is_empty()).then(|| Arc::<Points>::new(moved));
        Ok(())
    }
}

/// Whether the directory that nobody had made was made meanwhile, and is `dir` on disk.
fn is_made_of(was: &Inode, dir: &Inode) -> bool {
    was.upper_dir().zip(dir.upper_dir()).is_some_and(|(was, dir)| was.ino() != 0 && was.ino() == dir.ino())
}
