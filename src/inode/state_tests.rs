use super::*;

/// A walk makes the kernel know every file of a tree, and the daemon with it: half a million files are an everyday mount.
/// With the counts of its `Arc` (16) and what malloc adds (8) an inode is 160 bytes, its name 32 and its place among all
/// inodes 20, which leaves a little to 250. A field that few inodes have belongs into `Rare`, and one that only directories
/// have into `DirNode`.
const INODE: usize = 136;

#[test]
fn an_inode_is_small() {
    assert!(size_of::<Inode>() <= INODE, "{}", size_of::<Inode>());
    assert!(size_of::<State>() <= 80, "{}", size_of::<State>());
    assert_eq!(size_of::<Names>(), size_of::<Name>());
}

#[test]
fn room_for_rare_things_is_given_back_with_the_last_of_them() {
    let mut state = State::default();
    assert!(state.rare_if_any().is_none());
    state.rare_mut().opens.cached += 1;
    state.rare_mut().nlink = Some(3);
    state.tidy();
    assert_eq!((state.rare().opens.cached, state.rare().nlink), (1, Some(3)));
    state.rare_mut().nlink = None;
    state.tidy();
    assert_eq!(state.rare().opens.cached, 1);
    state.rare_mut().opens.cached -= 1;
    state.tidy();
    assert!(state.rare_if_any().is_none());
}
