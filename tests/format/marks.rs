//! The marks that stratafs writes, byte for byte against those that the kernel writes for the same change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::layer::{Layer, TRUSTED, USER};
use crate::mount::{By, Stack, ready, scratch};
use crate::ops::{Op, apply};
use crate::snapshot::{Tree, Untouched, differences, summary};
use crate::sys;

/// Its name, which is that of a directory of its own in both lowers, and what is changed in there.
type Scenario = (&'static str, Vec<Op>);

fn scenarios() -> Vec<Scenario> {
    let s = str::to_owned;
    let rename = |from: &str, to: &str| Op::Rename(s(from), s(to));
    let exchange = |one: &str, other: &str| Op::Exchange(s(one), s(other));
    let unlink = |path: &str| Op::Unlink(s(path));
    let mkdir = |path: &str| Op::Mkdir(s(path));
    let create = |path: &str| Op::Create(s(path), s("new"));
    let append = |path: &str| Op::Append(s(path), s("more"));
    let remove = |path: &str| Op::RemoveAll(s(path));
    let chmod = |path: &str| Op::Chmod(s(path), 0o711);
    vec![
        ("unlink", vec![unlink("file"), unlink("dir/file")]),
        ("unlink_upper", vec![create("new"), unlink("new")]),
        ("unlink_copied", vec![append("file"), unlink("file")]),
        ("remove_dir", vec![remove("dir")]),
        ("remove_merged_dir", vec![create("dir/new"), remove("dir")]),
        ("dir_again", vec![remove("dir"), mkdir("dir"), create("dir/file")]),
        ("dir_again_unlink", vec![remove("dir"), mkdir("dir"), create("dir/file"), unlink("dir/file")]),
        ("dir_over_file", vec![unlink("file"), mkdir("file")]),
        ("file_over_dir", vec![remove("dir"), create("dir")]),
        ("file_again", vec![unlink("file"), create("file")]),
        ("new_dir", vec![mkdir("new"), create("new/file"), mkdir("new/sub")]),
        ("create_in_lower_dir", vec![create("dir/new")]),
        ("append", vec![append("file")]),
        ("append_deep", vec![append("dir/sub/file")]),
        ("truncate", vec![Op::Truncate(s("file"), 0)]),
        ("chmod", vec![chmod("file")]),
        ("chmod_then_append", vec![chmod("file"), append("file")]),
        ("chown", vec![Op::Chown(s("file"), 5)]),
        ("chmod_dir", vec![chmod("dir")]),
        ("chown_symlink", vec![Op::Chown(s("symlink"), 5)]),
        ("chown_fifo", vec![Op::Chown(s("fifo"), 5)]),
        ("chmod_device", vec![chmod("device")]),
        ("xattr", vec![Op::SetXattr(s("file"), s("user.a"), s("b"))]),
        ("xattr_escaped", vec![Op::SetXattr(s("file"), s("trusted.overlay.a"), s("b"))]),
        ("xattr_escaped_twice", vec![Op::SetXattr(s("dir"), s("trusted.overlay.overlay.opaque"), s("y"))]),
        ("rename_file", vec![rename("file", "new")]),
        ("rename_file_away", vec![rename("file", "dir/new")]),
        ("rename_file_over", vec![rename("file", "other")]),
        ("rename_new_over", vec![create("new"), rename("new", "file")]),
        ("rename_dir", vec![rename("dir", "moved")]),
        ("rename_dir_away", vec![rename("dir", "dir2/moved")]),
        ("rename_dir_twice", vec![rename("dir", "moved"), rename("moved", "again")]),
        ("rename_dir_then_away", vec![rename("dir", "moved"), rename("moved", "dir2/again")]),
        ("rename_dir_away_and_in_there", vec![rename("dir", "dir2/m"), rename("dir2/m", "dir2/n")]),
        ("rename_dir_and_back", vec![rename("dir", "moved"), rename("moved", "dir")]),
        ("rename_dir_away_and_back", vec![rename("dir", "dir2/moved"), rename("dir2/moved", "dir")]),
        ("rename_merged_dir", vec![create("dir/new"), rename("dir", "moved")]),
        ("rename_inside_moved", vec![rename("dir", "moved"), rename("moved/sub", "moved/sub2")]),
        ("rename_out_of_moved", vec![rename("dir", "moved"), rename("moved/sub", "sub")]),
        ("rename_after_inside", vec![rename("dir/sub", "dir/sub2"), rename("dir", "dir2/moved")]),
        ("rename_parent_after_away", vec![rename("dir", "dir2/moved"), rename("dir2", "dir3")]),
        ("rename_new_dir", vec![mkdir("new"), create("new/file"), rename("new", "newer")]),
        ("rename_new_dir_over_whiteout", vec![mkdir("new"), unlink("file"), rename("new", "file")]),
        ("rename_new_dir_over_dir", vec![mkdir("new"), unlink("e/f"), rename("new", "e")]),
        ("rename_dir_over_dir", vec![unlink("e/f"), rename("dir", "e")]),
        ("rename_opaque_dir", vec![remove("dir"), mkdir("dir"), rename("dir", "moved")]),
        ("rename_into_new_dir", vec![mkdir("new"), rename("file", "new/file"), rename("dir", "new/dir")]),
        ("rename_copied_back", vec![rename("file", "new"), rename("new", "file")]),
        ("exchange_files", vec![exchange("file", "other")]),
        ("exchange_dirs", vec![exchange("dir", "dir2")]),
        ("exchange_file_and_dir", vec![exchange("file", "dir")]),
        ("exchange_new_and_lower", vec![mkdir("new"), exchange("new", "dir")]),
        ("link_lower", vec![Op::Link(s("file"), s("new"))]),
        ("link_new", vec![create("new"), Op::Link(s("new"), s("newer"))]),
        ("hard_append", vec![append("hard1")]),
        ("hard_append_both", vec![append("hard1"), append("hard2")]),
        ("hard_unlink", vec![unlink("hard1")]),
        ("hard_unlink_all", vec![unlink("hard1"), unlink("hard2"), unlink("dir/hard3")]),
        ("hard_append_unlink", vec![append("hard1"), unlink("hard1")]),
        ("hard_append_unlink_other", vec![append("hard1"), unlink("hard2")]),
        (
            "hard_append_unlink_all",
            vec![append("hard1"), unlink("hard1"), unlink("hard2"), unlink("dir/hard3")],
        ),
        ("hard_link", vec![Op::Link(s("hard1"), s("hard4"))]),
        ("hard_rename", vec![rename("hard1", "new")]),
        ("hard_rename_over", vec![rename("file", "hard1")]),
        ("hard_chmod", vec![chmod("hard2")]),
    ]
}

/// Two lowers with one directory for each scenario.
fn lowers(home: &Path, scenarios: &[Scenario]) -> Vec<PathBuf> {
    let layers = [1, 2].map(|number| Layer::new(home, &format!("lower{number}"), number, TRUSTED));
    let [top, bottom] = &layers;
    for (name, _) in scenarios {
        let at = |path: &str| format!("{name}/{path}");
        for layer in &layers {
            layer.dir(&at("dir"));
        }
        bottom.dir(&at("dir/sub"));
        bottom.dir(&at("dir2"));
        bottom.bare_dir(&at("e"));
        for file in ["e/f", "file", "other", "dir/file", "dir/sub/file", "hard1"] {
            bottom.file(&at(file));
        }
        top.file(&at("other"));
        for link in ["hard2", "dir/hard3"] {
            fs::hard_link(bottom.at(&at("hard1")), bottom.at(&at(link))).unwrap();
        }
        std::os::unix::fs::symlink("file", bottom.at(&at("symlink"))).unwrap();
        use nix::sys::stat::SFlag;
        sys::mknod(&bottom.at(&at("fifo")), SFlag::S_IFIFO, 0o640, 0, 0).unwrap();
        sys::mknod(&bottom.at(&at("device")), SFlag::S_IFCHR, 0o640, 5, 7).unwrap();
    }
    layers.map(|layer| layer.root).to_vec()
}

/// A writing mount's upper and workdir as they are on disk, with what may legally differ made equal:
/// - The uuid of a file handle may be the filesystem's or null: bytes 5 to 20 become zero, also in index names.
/// - `upper` marks hold the handle of an upper object, whose inode differs: only the part before it is kept.
/// - The value of `uuid` is random, and it may be lacking, since stratafs has no use for a filesystem uuid.
/// - Times are those of the clock; only copied-up ones would be equal, and `interchange` compares those.
/// - The link count of whiteouts is how many share an inode. The number of their inodes is returned apart: it may be lower than
///   the kernel's, which has one for all removals and one for each rename, made by RENAME_WHITEOUT.
/// - The spare whiteout `#hex` that the kernel leaves in `index` or `work` need not be there.
/// - The size of a directory.
fn dump(stack: &Stack) -> (Tree, usize) {
    let (upper, work) = stack.upper.as_ref().unwrap();
    let mut tree = Tree::new();
    let mut whiteouts = BTreeMap::new();
    let index = work.join("index");
    for (root, label) in [(upper, "upper"), (&index, "index")] {
        walk(root, label, &mut tree, &mut whiteouts);
    }
    (tree, whiteouts.len())
}

/// Adds what is at `path` and below to the tree.
fn walk(path: &Path, label: &str, tree: &mut Tree, whiteouts: &mut BTreeMap<u64, ()>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let mut fields = crate::snapshot::Fields::from([
        ("mode", format!("{:o}", meta.mode())),
        ("owner", format!("{}:{}", meta.uid(), meta.gid())),
    ]);
    let whiteout = meta.mode() & libc::S_IFMT == libc::S_IFCHR && meta.rdev() == 0;
    if whiteout {
        whiteouts.insert(meta.ino(), ());
    }
    if !meta.is_dir() {
        fields.insert("size", format!("{} rdev {}", meta.size(), meta.rdev()));
        if !whiteout {
            fields.insert("links", meta.nlink().to_string());
        }
    }
    for (name, value) in sys::xattrs(path).unwrap() {
        if name.ends_with("overlay.uuid") {
            continue;
        }
        let value = match () {
            () if name.ends_with("overlay.origin") => handle(value),
            () if name.ends_with("overlay.upper") => handle(value).chunks(21).next().unwrap_or(&[]).to_vec(),
            () => value,
        };
        let known =
            ["opaque", "redirect", "origin", "impure", "nlink", "upper", "metacopy", "protattr", "whiteout"];
        let field = known
            .iter()
            .find(|known| name == format!("{TRUSTED}{known}") || name == format!("{USER}{known}"));
        let text = format!("{name}={}; ", value.escape_ascii());
        fields.entry(field.unwrap_or(&"xattrs")).or_default().push_str(&text);
    }
    tree.insert(label.to_owned(), fields);
    if !meta.is_dir() {
        return;
    }
    for entry in fs::read_dir(path).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with('#') {
            continue;
        }
        let shown = if label == "index" { index_name(&name) } else { name.clone() };
        walk(&path.join(&name), &format!("{label}/{shown}"), tree, whiteouts);
    }
}

/// A file handle in the kernel's wrapping, without its uuid.
fn handle(mut value: Vec<u8>) -> Vec<u8> {
    value.iter_mut().skip(5).take(16).for_each(|byte| *byte = 0);
    value
}

/// The name of an index entry, which is such a handle in hexadecimal digits.
fn index_name(name: &str) -> String {
    let digits = name.char_indices();
    digits.map(|(at, digit)| if (10..42).contains(&at) { '0' } else { digit }).collect()
}

/// Where hard links of lower files have fewer upper names than the kernel gives them.
const LINKED_LATER: [&str; 3] = [
    "upper/hard_append_both/",
    "upper/hard_append_unlink_all/dir: impure",
    "upper/hard_unlink_all/dir: impure",
];

/// Makes the changes of all scenarios through one mount each of the kernel and of stratafs, and compares the uppers.
fn compare(options: &str) {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let scenarios = scenarios();
    let lowers = lowers(home.path(), &scenarios);
    let untouched = Untouched::new(&lowers);
    let mut dumps = Vec::new();
    for by in [By::Kernel, By::Strata] {
        let stack = Stack::writable(&lowers, &home.path().join(format!("{by:?}")));
        let mount = stack.mount(by, options, &home.path().join(format!("mount{by:?}")));
        for (name, ops) in &scenarios {
            for op in ops {
                let outcome = apply(&mount.path().join(name), op);
                assert_eq!(outcome, Ok(()), "{by:?}, {name}: {op:?}");
            }
        }
        mount.end();
        dumps.push(dump(&stack));
    }
    untouched.check();
    if std::env::var_os("STRATAFS_SHOW").is_some() {
        dumps[0].0.iter().for_each(|(name, fields)| eprintln!("{name}: {fields:?}"));
    }
    let mut lines = differences(&dumps[0].0, &dumps[1].0, &[]);
    // The kernel gives a hard link of a lower file its own upper name whenever it is written or removed by that name. Here
    // the index entry serves all names until one of them moves: a request tells the file, not the name it was opened by.
    lines.retain(|line| !LINKED_LATER.iter().any(|name| line.starts_with(name)));
    lines.retain(|line| {
        !(line.starts_with("index/") && (line.contains("U+1") || line.contains("links: Some(\"3\")")))
    });
    assert!(lines.is_empty(), "uppers of the kernel and of stratafs: {}", summary(&lines));
    let (theirs, ours) = (dumps[0].1, dumps[1].1);
    assert!(ours <= theirs, "whiteouts have {ours} inodes, the kernel needs {theirs}");
}

#[test]
fn marks_are_those_of_the_kernel() {
    compare("redirect_dir=on,index=on");
}

#[test]
fn marks_with_metacopy_are_those_of_the_kernel() {
    compare("redirect_dir=on,index=on,metacopy=on");
}

#[test]
fn marks_without_index_are_those_of_the_kernel() {
    compare("redirect_dir=on,index=off");
}
