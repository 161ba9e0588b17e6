//! Tests of the checks: one directory tree each, one thing wrong with it.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::config::Upper;

/// A tree with two lower layers, an upper layer, a workdir and a mountpoint.
struct Tree(TempDir);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(TempDir::new().expect("temporary directory"));
        for name in ["l1", "l2", "u", "w", "m"] {
            fs::create_dir(tree.path(name)).expect(name);
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect(name);
        path
    }

    fn config(&self) -> Config {
        let upper = Upper { dir: self.path("u"), work: self.path("w") };
        Config::new(vec![self.path("l1"), self.path("l2")], Some(upper), self.path("m"))
    }

    /// The notes about the directories of `change`d configuration.
    fn notes(&self, change: impl FnOnce(&mut Config)) -> String {
        self.checked(change).expect("accepted").join("\n")
    }

    fn checked(&self, change: impl FnOnce(&mut Config)) -> Result<Vec<String>> {
        let mut config = self.config();
        change(&mut config);
        let mut ways = Ways::default();
        let dirs = layers(&config, &mut ways)?;
        twice(&dirs)?;
        room(&config, &dirs)?;
        let mut overlaps = Overlaps { notes: nested(&dirs)?, ..Overlaps::default() };
        mountpoint(&config, &dirs, &mut ways, &mut overlaps)?;
        Ok(overlaps.notes)
    }

    /// The sentence the directories of `change`d configuration are refused with, and "" if they are not.
    fn refusal(&self, change: impl FnOnce(&mut Config)) -> String {
        match self.checked(change) {
            Ok(_) => String::new(),
            Err(error) => {
                assert!(matches!(error, Error::Setup(_)));
                let sentence = error.to_string();
                assert!(!sentence.contains('\n') && sentence.contains(": "), "no remedy: {sentence}");
                sentence
            }
        }
    }
}

fn upper(config: &mut Config, change: impl FnOnce(&mut Upper)) {
    change(config.upper.as_mut().expect("upper"));
}

#[track_caller]
fn says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}

#[test]
fn five_plain_directories_are_in_order() {
    let tree = Tree::new();
    assert_eq!(tree.refusal(|_| ()), "");
    assert_eq!(tree.refusal(|c| c.upper = None), "");
    let inner = tree.dir("l1/inner");
    assert_eq!(tree.refusal(|c| c.lowers.push(inner)), "", "lower layers may overlap");
}

#[test]
fn missing_directories_are_named() {
    let tree = Tree::new();
    let gone = tree.path("gone");
    says(
        &tree.refusal(|c| c.lowers[1] = gone.clone()),
        &["lower layer", "gone", "lowerdir=", "does not exist"],
    );
    says(&tree.refusal(|c| c.data_lowers.push(gone.clone())), &["data-only layer", "gone"]);
    says(&tree.refusal(|c| upper(c, |u| u.dir = gone.clone())), &["upper layer", "gone", "upperdir="]);
    says(&tree.refusal(|c| upper(c, |u| u.work = gone.clone())), &["workdir", "gone", "workdir="]);
    says(&tree.refusal(|c| c.mountpoint = gone.clone()), &["mountpoint", "gone", "mkdir -p"]);
}

#[test]
fn things_that_are_no_directories_are_named() {
    let tree = Tree::new();
    let file = tree.path("file");
    fs::write(&file, "").expect("file");
    says(&tree.refusal(|c| c.lowers[0] = file.clone()), &["lower layer", "not a directory"]);
    says(&tree.refusal(|c| upper(c, |u| u.work = file.clone())), &["workdir", "not a directory"]);
    says(&tree.refusal(|c| c.mountpoint = file.clone()), &["mountpoint", "not a directory"]);
    says(&tree.refusal(|c| c.lowers[0] = file.join("below")), &["lower layer", "correct the path"]);
}

#[test]
fn an_unreadable_layer_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if geteuid().is_root() {
        return; // Root reads everything.
    }
    let tree = Tree::new();
    fs::set_permissions(tree.path("l1"), fs::Permissions::from_mode(0o0)).expect("chmod");
    says(&tree.refusal(|_| ()), &["lower layer", "cannot be read", "permissions"]);
    fs::set_permissions(tree.path("l1"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(tree.path("u"), fs::Permissions::from_mode(0o555)).expect("chmod");
    says(&tree.refusal(|_| ()), &["upper layer", "cannot be written"]);
}

#[test]
fn one_directory_in_two_places_is_refused_by_any_name() {
    let tree = Tree::new();
    let link = tree.path("link");
    symlink(tree.path("l1"), &link).expect("symlink");
    says(&tree.refusal(|c| c.lowers.push(link.clone())), &["l1", "link", "same directory", "once"]);
    says(&tree.refusal(|c| upper(c, |u| u.dir = link)), &["upper layer", "lower layer", "same directory"]);
    says(
        &tree.refusal(|c| upper(c, |u| u.work = u.dir.clone())),
        &["upper layer", "workdir", "same directory"],
    );
    says(&tree.refusal(|c| c.data_lowers.push(c.lowers[0].clone())), &["data-only layer", "same directory"]);
}

#[test]
fn a_workdir_elsewhere_is_refused() {
    let tree = Tree::new();
    let inside = tree.dir("u/w");
    says(&tree.refusal(|c| upper(c, |u| u.work = inside)), &["workdir", "is inside upper layer", "beside"]);
    let inside = tree.dir("w/u");
    says(&tree.refusal(|c| upper(c, |u| u.dir = inside)), &["upper layer", "is inside workdir", "beside"]);
    let inside = tree.dir("l2/w");
    says(
        &tree.notes(|c| upper(c, |u| u.work = inside)),
        &["workdir", "is inside lower layer", "does not show"],
    );
    let shm = TempDir::new_in("/dev/shm").expect("shm");
    if shm.path().metadata().expect("shm").dev() != tree.0.path().metadata().expect("tree").dev() {
        let work = shm.path().to_owned();
        says(&tree.refusal(|c| upper(c, |u| u.work = work)), &["different filesystems", "beside"]);
    }
}

#[test]
fn an_upper_layer_may_be_inside_a_lower_one_and_not_the_reverse() {
    let tree = Tree::new();
    let inside = tree.dir("l1/a/u");
    says(
        &tree.notes(|c| upper(c, |u| u.dir = inside)),
        &["upper layer", "is inside lower layer", "does not show"],
    );
    let inside = tree.dir("u/a/l");
    says(
        &tree.refusal(|c| c.lowers[0] = inside.clone()),
        &["lower layer", "is inside upper layer", "move the layer"],
    );
    let link = tree.path("link");
    symlink(&inside, &link).expect("symlink");
    says(&tree.refusal(|c| c.lowers[0] = link), &["link", "is inside upper layer"]);
    let inside = tree.dir("l2/deep/er");
    says(&tree.notes(|c| c.lowers.push(inside)), &["l2/deep/er", "is inside lower layer", "both places"]);
    assert_eq!(tree.notes(|_| ()), "");
}

#[test]
fn a_mountpoint_with_names_needs_a_word_or_to_be_a_layer() {
    let tree = Tree::new();
    tree.dir("m/name");
    says(&tree.refusal(|_| ()), &["not empty", "-o nonempty"]);
    assert_eq!(tree.refusal(|c| c.nonempty = true), "");
    says(&tree.refusal(|c| c.mountpoint = "/proc".into()), &["carries a mount already", "umount"]);
    tree.dir("l2/name");
    tree.dir("u/name");
    assert_eq!(tree.refusal(|c| c.mountpoint = c.lowers[1].clone()), "");
    assert_eq!(tree.refusal(|c| c.mountpoint = tree.path("u")), "");
}

#[test]
fn a_mountpoint_and_a_layer_may_contain_each_other_but_for_the_workdir() {
    let tree = Tree::new();
    let inside = tree.dir("l1/m");
    says(&tree.notes(|c| c.mountpoint = inside), &["mountpoint", "is inside lower layer"]);
    says(&tree.refusal(|c| c.mountpoint = tree.path("w")), &["workdir", "outside"]);
    let inside = tree.dir("w/work");
    says(&tree.refusal(|c| c.mountpoint = inside), &["is in workdir", "outside"]);
    let inside = tree.dir("m/l");
    let below = |c: &mut Config| {
        c.lowers.push(inside);
        c.nonempty = true;
    };
    assert_eq!(tree.notes(below), "");
}
