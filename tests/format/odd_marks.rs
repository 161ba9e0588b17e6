//! Marks with odd values or in odd places: what the kernel makes of them, stratafs makes of them.

use std::path::PathBuf;

use nix::sys::stat::SFlag;

use crate::layer::{Layer, TRUSTED};
use crate::mount::{By, Stack, ready, scratch};
use crate::seen::look;
use crate::snapshot::{Untouched, differences, summary};
use crate::sys;

/// A word for the name, and what is made under it.
type Odd = (&'static str, fn(&Layer, &str));

/// A directory with a mark.
fn marked_dir(layer: &Layer, path: &str, mark: &str, value: &[u8]) {
    layer.dir(path);
    layer.mark(path, mark, value);
}

/// A regular file with a mark.
fn marked_file(layer: &Layer, path: &str, mark: &str, value: &[u8]) {
    layer.file(path);
    layer.mark(path, mark, value);
}

/// A metacopy file with a value of the mark.
fn metacopy(layer: &Layer, path: &str, value: &[u8]) {
    layer.metacopy(path, "");
    layer.mark(path, "metacopy", value);
}

const ODD: [Odd; 50] = [
    ("none", |_, _| {}),
    ("file", Layer::file),
    ("dir", Layer::dir),
    ("whiteout", Layer::whiteout),
    ("opaque_n", |l, p| marked_dir(l, p, "opaque", b"n")),
    ("opaque_yy", |l, p| marked_dir(l, p, "opaque", b"yy")),
    ("opaque_empty", |l, p| marked_dir(l, p, "opaque", b"")),
    ("opaque_x", |l, p| marked_dir(l, p, "opaque", b"x")),
    ("opaque_file", |l, p| marked_file(l, p, "opaque", b"y")),
    ("opaque_redirect", |l, p| {
        marked_dir(l, p, "opaque", b"y");
        layer_redirect(l, p, b"sibling");
    }),
    ("redirect_empty", |l, p| marked_dir(l, p, "redirect", b"")),
    ("redirect_slash", |l, p| marked_dir(l, p, "redirect", b"/")),
    ("redirect_slashes", |l, p| marked_dir(l, p, "redirect", b"//other//target")),
    ("redirect_end_slash", |l, p| marked_dir(l, p, "redirect", b"/other/target/")),
    ("redirect_relative_path", |l, p| marked_dir(l, p, "redirect", b"other/target")),
    ("redirect_dot", |l, p| marked_dir(l, p, "redirect", b".")),
    ("redirect_dotdot", |l, p| marked_dir(l, p, "redirect", b"..")),
    ("redirect_abs_dotdot", |l, p| marked_dir(l, p, "redirect", b"/other/../other/target")),
    ("redirect_nul", |l, p| marked_dir(l, p, "redirect", b"sibling\0")),
    ("redirect_long", |l, p| marked_dir(l, p, "redirect", &[b'l'; 300])),
    ("redirect_256", |l, p| marked_dir(l, p, "redirect", &[b'l'; 256])),
    ("redirect_long_path", |l, p| marked_dir(l, p, "redirect", "/other/target".repeat(20).as_bytes())),
    ("redirect_to_file", |l, p| marked_dir(l, p, "redirect", b"/other/data")),
    ("redirect_to_whiteout", |l, p| marked_dir(l, p, "redirect", b"/other/gone")),
    ("redirect_to_opaque", |l, p| marked_dir(l, p, "redirect", b"/other/wall")),
    ("redirect_under_opaque", |l, p| marked_dir(l, p, "redirect", b"/other/wall/inner")),
    ("redirect_under_redirect", |l, p| marked_dir(l, p, "redirect", b"/other/moved/inner")),
    ("redirect_to_redirect", |l, p| marked_dir(l, p, "redirect", b"/other/moved")),
    ("redirect_over_link", |l, p| marked_dir(l, p, "redirect", b"/other/link/target")),
    ("redirect_file", |l, p| marked_file(l, p, "redirect", b"/other/data")),
    ("meta_1", |l, p| metacopy(l, p, b"\0")),
    ("meta_3", |l, p| metacopy(l, p, b"\0\x04\0")),
    ("meta_4", |l, p| metacopy(l, p, b"\0\x04\0\0")),
    ("meta_wrong_len", |l, p| metacopy(l, p, b"\0\x05\0\0")),
    ("meta_version", |l, p| metacopy(l, p, b"\x01\x04\0\0")),
    ("meta_flags", |l, p| metacopy(l, p, b"\0\x04\x01\0")),
    ("meta_digest", |l, p| metacopy(l, p, b"\0\x08\0\x01abcd")),
    ("meta_dir", |l, p| marked_dir(l, p, "metacopy", b"")),
    ("meta_with_data", |l, p| marked_file(l, p, "metacopy", b"")),
    ("meta_relative", |l, p| l.metacopy(p, "sibling_data")),
    ("meta_to_dir", |l, p| l.metacopy(p, "/other/target")),
    ("meta_to_whiteout", |l, p| l.metacopy(p, "/other/gone")),
    ("meta_to_meta", |l, p| l.metacopy(p, "/other/meta")),
    ("meta_to_link", |l, p| l.metacopy(p, "/other/soft")),
    ("meta_long", |l, p| l.metacopy(p, &"l".repeat(300))),
    ("xwhiteout_unmarked", Layer::xattr_whiteout),
    ("symlink", |l, p| std::os::unix::fs::symlink(format!("to{}", l.number), l.at(p)).unwrap()),
    ("fifo", |l, p| sys::mknod(&l.at(p), SFlag::S_IFIFO, 0o600, 0, 0).unwrap()),
    ("char_0_1", |l, p| sys::mknod(&l.at(p), SFlag::S_IFCHR, 0o600, 0, 1).unwrap()),
    ("block_0_0", |l, p| sys::mknod(&l.at(p), SFlag::S_IFBLK, 0o600, 0, 0).unwrap()),
];

/// What may be at the bottom.
const BOTTOM: [&str; 3] = ["none", "file", "dir"];

/// Adds a redirect to what is there.
fn layer_redirect(layer: &Layer, path: &str, to: &[u8]) {
    layer.mark(path, "redirect", to);
}

/// The targets that redirects name.
fn targets(layer: &Layer) {
    layer.dir("other/target");
    layer.dir("other/inner");
    layer.file("other/data");
    layer.whiteout("other/gone");
    layer.dir("other/wall");
    layer.mark("other/wall", "opaque", b"y");
    layer.dir("other/wall/inner");
    layer.dir("other/moved");
    layer.mark("other/moved", "redirect", b"target");
    layer.dir("other/moved/inner");
    layer.metacopy("other/meta", "data");
    std::os::unix::fs::symlink(".", layer.at("other/link")).unwrap();
    std::os::unix::fs::symlink("data", layer.at("other/soft")).unwrap();
    layer.dir("place/sibling");
    layer.file("place/sibling_data");
}

/// Compares all pairs of odd things over every bottom, with the top layer as upper or not.
fn compare(writable: bool, options: (&str, &str)) {
    if !ready() {
        return;
    }
    let home = scratch(true);
    // The last one is the first once more: the kernel gets an upper of its own, since it writes marks while looking.
    let layers = [("upper", 0), ("middle", 1), ("bottom", 2), ("twin", 0)];
    let layers = layers.map(|(name, number)| Layer::new(home.path(), name, number, TRUSTED));
    layers.iter().for_each(targets);
    let mut names = Vec::new();
    let bottoms = ODD.iter().filter(|(word, _)| BOTTOM.contains(word)).collect::<Vec<_>>();
    for (top, make_top) in ODD {
        for (middle, make_middle) in ODD {
            for (bottom, make_bottom) in &bottoms {
                let name = format!("{top}-{middle}-{bottom}");
                for (layer, make) in layers.iter().zip([make_top, make_middle, *make_bottom, make_top]) {
                    make(layer, &format!("place/{name}"));
                }
                names.push(name);
            }
        }
    }
    let lowers: Vec<PathBuf> =
        layers[usize::from(writable)..3].iter().map(|layer| layer.root.clone()).collect();
    let stack = |upper: &Layer| {
        let work = upper.root.with_extension("work");
        std::fs::create_dir(&work).unwrap();
        let upper = writable.then(|| (upper.root.clone(), work));
        Stack { lowers: lowers.clone(), data: Vec::new(), upper }
    };
    let untouched = Untouched::new(&lowers);
    let mount = stack(&layers[0]).mount(By::Strata, options.1, &home.path().join("strata"));
    let ours = look(&mount.path().join("place"), &names);
    mount.end();
    let mount = stack(&layers[3]).mount(By::Kernel, options.0, &home.path().join("kernel"));
    let theirs = look(&mount.path().join("place"), &names);
    mount.end();
    untouched.check();
    if std::env::var_os("STRATAFS_SHOW").is_some() {
        theirs.iter().for_each(|(name, fields)| eprintln!("{name}: {fields:?}"));
    }
    let lines = differences(&theirs, &ours, &[]);
    assert!(lines.is_empty(), "kernel and stratafs (top layer first): {}", summary(&lines));
}

#[test]
fn odd_marks_of_lowers_mean_what_they_mean_to_the_kernel() {
    compare(false, ("redirect_dir=on,metacopy=on,index=off", "metacopy=on,redirect_dir=on"));
}

#[test]
fn odd_marks_of_an_upper_mean_what_they_mean_to_the_kernel() {
    compare(true, ("redirect_dir=on,metacopy=on,index=off", "metacopy=on,redirect_dir=on"));
}

#[test]
fn redirects_and_metacopy_that_are_not_followed_are_errors_or_nothing_as_for_the_kernel() {
    let options = "redirect_dir=nofollow,metacopy=off,index=off";
    compare(false, (options, "redirect_dir=nofollow,metacopy=off"));
    compare(true, (options, "redirect_dir=nofollow,metacopy=off"));
}
