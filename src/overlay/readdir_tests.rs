//! What the kernel is told of names that were not looked up.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::inode::{Node, State};

/// What the kernel is told of the only name in the root.
fn told(overlay: &Overlay) -> (u64, Told) {
    let fh = overlay.opendir(Ino::ROOT).expect("opendir");
    let mut all = Vec::new();
    let each = |plus: DirEntryPlus<'_>| {
        all.push((plus.entry.name.to_owned(), plus.entry.st_ino, plus.told));
        false
    };
    overlay.readdirplus(fh, 0, each).expect("readdirplus");
    overlay.releasedir(fh);
    let (_, st_ino, told) = all.into_iter().find(|(name, ..)| name == "d").expect("the name");
    (st_ino, told)
}

/// One directory in more layers than are asked about it by a listing.
fn overlay(top: &Path) -> Overlay {
    let layers: Vec<_> = (0..=FEW_LAYERS).map(|layer| top.join(layer.to_string())).collect();
    layers.iter().for_each(|layer| std::fs::create_dir_all(layer.join("d")).expect("mkdir"));
    let config = Config::new(layers, None, top.join("mnt"));
    Overlay::new(&config, 256).unwrap_or_else(|error| unreachable!("{error}"))
}

#[test]
fn a_directory_of_many_layers_is_told_unseen_until_it_is_known() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let overlay = overlay(temp.path());
    for _ in 0..2 {
        let (st_ino, first) = told(&overlay);
        assert!(matches!(first, Told::Unseen), "{first:?}");
        let found = overlay.lookup(Ino::ROOT, OsStr::new("d")).expect("lookup").0.expect("found");
        let ino = found.inode.leak().ino;
        assert_eq!(ino.0, st_ino);
        let (_, known) = told(&overlay);
        assert!(matches!(known, Told::Attributes(attr) if attr.ino == ino), "{known:?}");
        // Looked up once, told of twice, once of them without a lookup: and so the kernel forgets it.
        overlay.forgotten(ino, 3);
        assert!(overlay.store.get(ino).is_none());
    }
}

/// The kernel would take the name for another directory's, and whoever stands in it would stand nowhere.
#[test]
fn a_name_that_is_known_by_a_counted_number_is_left_alone() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let overlay = overlay(temp.path());
    let (own, _) = told(&overlay);
    let root = overlay.store.get(Ino::ROOT).expect("the root");
    let other = Inode::new(Ino(own), own, FileKind::Fifo, root.stack.clone(), Node::NonDir, State::default());
    drop(overlay.store.insert(Arc::new(other)).expect("the number is free").leak());
    assert!(matches!(told(&overlay).1, Told::Nothing));
    let found = overlay.lookup(Ino::ROOT, OsStr::new("d")).expect("lookup").0.expect("found");
    let counted = found.inode.leak().ino;
    assert_ne!(counted.0, own);
    // Told of twice without a lookup, and looked up once.
    overlay.forgotten(Ino(own), 3);
    assert!(overlay.store.get(Ino(own)).is_none());
    assert!(matches!(told(&overlay).1, Told::Nothing));
    overlay.forget(counted, 1);
    assert!(matches!(told(&overlay).1, Told::Unseen));
}
