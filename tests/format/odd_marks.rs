//! Marks with odd values or in odd places: what the kernel makes of them, stratafs makes of them.

use std::path::PathBuf;

use nix::sys::stat::SFlag;

use crate::layer::{Layer, TRUSTED};
use crate::mount::{By, Stack, ready, scratch};
use crate::seen::{assert_not_stale, look};
use crate::snapshot::{Untouched, differences, summary};
use crate::sys;

/// A word for the name, and what is made under it.
type Odd = (&'static str, fn(&Layer, &str));

/// A directory with a mark.
fn marked_dir(layer: &Layer, path: &str, mark: &str, value: &[u8]) {
    layer.dir(path);
    layer.mark(path, mark, &own(layer, path, value));
}

/// The redirect, led to the targets of this name alone where it has any (see `targets`).
fn own(layer: &Layer, path: &str, value: &[u8]) -> Vec<u8> {
    let name = path.trim_start_matches("place/");
    match std::str::from_utf8(value) {
        Ok(text) if layer.at(&format!("other/{name}")).exists() => {
            let text = text.replace("/other/", &format!("/other/{name}/"));
            text.replace("sibling", &format!("{name}.sibling")).into_bytes()
        }
        _ => value.to_vec(),
    }
}

/// A metacopy file with a redirect.
fn metacopy_to(layer: &Layer, path: &str, to: &str) {
    layer.metacopy(path, "");
    layer.mark(path, "redirect", &own(layer, path, to.as_bytes()));
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

const ODD: [Odd; 49] = [
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
        l.mark(p, "redirect", &own(l, p, b"sibling"));
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
    ("meta_relative", |l, p| metacopy_to(l, p, "sibling_data")),
    ("meta_to_dir", |l, p| metacopy_to(l, p, "/other/target")),
    ("meta_to_whiteout", |l, p| metacopy_to(l, p, "/other/gone")),
    ("meta_to_meta", |l, p| metacopy_to(l, p, "/other/meta")),
    ("meta_to_link", |l, p| metacopy_to(l, p, "/other/soft")),
    ("meta_long", |l, p| metacopy_to(l, p, &"l".repeat(300))),
    ("symlink", |l, p| std::os::unix::fs::symlink(format!("to{}", l.number), l.at(p)).unwrap()),
    ("fifo", |l, p| sys::mknod(&l.at(p), SFlag::S_IFIFO, 0o600, 0, 0).unwrap()),
    ("char_0_1", |l, p| sys::mknod(&l.at(p), SFlag::S_IFCHR, 0o600, 0, 1).unwrap()),
    ("block_0_0", |l, p| sys::mknod(&l.at(p), SFlag::S_IFBLK, 0o600, 0, 0).unwrap()),
];

/// What may be at the bottom.
const BOTTOM: [&str; 3] = ["none", "file", "dir"];
/// What may be in the middle under an upper, where targets of its own for each name cost much.
const MIDDLE: [&str; 7] =
    ["none", "file", "dir", "whiteout", "opaque_redirect", "redirect_to_redirect", "meta_to_meta"];

/// The targets that redirects name, under `other` and beside the names. To the kernel, two names in an upper that lead to one
/// lower object are stale, so under an upper each name has its own. A sibling is then hidden by the upper.
fn targets(layer: &Layer, other: &str, beside: &str, hidden: bool) {
    let at = |path: &str| format!("{other}/{path}");
    layer.dir(&at("target"));
    layer.dir(&at("inner"));
    layer.file(&at("data"));
    layer.whiteout(&at("gone"));
    layer.dir(&at("wall"));
    layer.mark(&at("wall"), "opaque", b"y");
    layer.dir(&at("wall/inner"));
    layer.dir(&at("moved"));
    layer.mark(&at("moved"), "redirect", b"target");
    layer.dir(&at("moved/inner"));
    layer.metacopy(&at("meta"), "data");
    std::os::unix::fs::symlink(".", layer.at(&at("link"))).unwrap();
    std::os::unix::fs::symlink("data", layer.at(&at("soft"))).unwrap();
    let (dir, file) = (format!("{beside}sibling"), format!("{beside}sibling_data"));
    if hidden {
        [dir, file].iter().for_each(|path| layer.whiteout(path));
    } else {
        layer.dir(&dir);
        layer.file(&file);
    }
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
    layers.iter().for_each(|layer| layer.bare_dir("place"));
    if !writable {
        layers.iter().for_each(|layer| targets(layer, "other", "place/", false));
    }
    let mut names = Vec::new();
    let bottoms = ODD.iter().filter(|(word, _)| BOTTOM.contains(word)).collect::<Vec<_>>();
    for (top, make_top) in ODD {
        for (middle, make_middle) in ODD.iter().filter(|(word, _)| !writable || MIDDLE.contains(word)) {
            for (bottom, make_bottom) in &bottoms {
                let name = format!("{top}-{middle}-{bottom}");
                if writable && ["redirect", "meta"].iter().any(|word| name.contains(word)) {
                    let beside = format!("place/{name}.");
                    layers.iter().for_each(|layer| {
                        targets(layer, &format!("other/{name}"), &beside, layer.number == 0)
                    });
                }
                for (layer, make) in layers.iter().zip([make_top, *make_middle, *make_bottom, make_top]) {
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
        Stack { lowers: lowers.clone(), data: Vec::new(), upper, more: Vec::new() }
    };
    let untouched = Untouched::new(&lowers);
    let mount = stack(&layers[0]).mount(By::Strata, options.1, &home.path().join("strata"));
    let ours = look(&mount.path().join("place"), &names);
    mount.end();
    let mount = stack(&layers[3]).mount(By::Kernel, options.0, &home.path().join("kernel"));
    let theirs = look(&mount.path().join("place"), &names);
    mount.end();
    untouched.check();
    assert_not_stale(&theirs);
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
