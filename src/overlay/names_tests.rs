//! Names of inodes, and what a lower file is called, whatever becomes of them.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::inode::state::Names;
use crate::inode::{Ino, Inode, LowerFile, Node, State};
use crate::layer::{RealDir, Shared, Stack};
use crate::merge::listing::FileKind;

/// A directory of the merged tree, and the real one behind it.
fn dir(path: &Path) -> (Arc<Inode>, Arc<RealDir>) {
    let config = Config::new(vec![path.to_owned()], None, path.to_owned());
    let stack = Stack::open(&config, &Shared::new(16)).expect("a stack");
    let real = stack.roots().next().expect("a root").clone();
    let node = Node::dir(Default::default(), Default::default());
    (Arc::new(Inode::new(Ino(2), 2, FileKind::Dir, Arc::new(stack), node, State::default())), real)
}

fn lower_name(state: &State) -> &OsStr {
    state.lower().expect("a lower file").name
}

#[test]
fn a_lower_file_has_its_name_there_whatever_becomes_of_the_others() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (parent, real) = dir(temp.path());
    let [first, second, third] = ["first", "second", "third"].map(OsStr::new);
    for shown_as in [first, second] {
        let mut state = State::default();
        state.set_lower(LowerFile { dir: Some(real.clone()), name: first.into(), ino: 7, nlink: 1 });
        assert_eq!(lower_name(&state), first);
        state.push_name(&parent, shown_as, false);
        assert_eq!(lower_name(&state), first);
        state.push_name(&parent, third, true);
        assert_eq!((lower_name(&state), state.names.len()), (first, 2));
        state.remove_name_at(0);
        assert_eq!((lower_name(&state), &*state.names[0].name), (first, third));
        state.push_name(&parent, second, true);
        state.remove_name_at(1);
        state.remove_name_at(0);
        assert_eq!((lower_name(&state), state.names.len()), (first, 0));
        state.push_name(&parent, third, true);
        assert_eq!(lower_name(&state), first);
        assert_eq!(state.lower().expect("a lower file").to_file().name, first.into());
    }
}

#[test]
fn names_come_and_go_in_any_number() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (parent, _) = dir(temp.path());
    let mut state = State::default();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        state.push_name(&parent, name.as_ref(), false);
        assert_eq!(state.position(&parent, name.as_ref()), Some(i));
    }
    state.remove_name_at(0);
    let names: Vec<_> = state.names.iter().map(|name| name.name.clone()).collect();
    assert_eq!(names, ["c", "b"].map(|name| OsStr::new(name).into()));
    state.remove_name_at(1);
    assert!(matches!(state.names, Names::One(_)));
    state.remove_name_at(0);
    assert!(matches!(state.names, Names::None));
}
