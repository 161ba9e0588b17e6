//! Every combination of what four layers can say about a name, compared with the kernel's reading of the same layers.

use std::path::{Path, PathBuf};

use crate::layer::{Layer, TRUSTED, USER};
use crate::mount::{By, Stack, ready, scratch};
use crate::seen::look;
use crate::snapshot::{Untouched, differences, summary};

/// What one layer says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent,
    Whiteout,
    File,
    Dir,
    Opaque,
    /// A directory with a redirect to a sibling, which every layer has.
    Relative,
    /// ... to a sibling that no layer has.
    RelativeLost,
    /// ... to a path from the root, which every layer has.
    Absolute,
    /// ... to a path that no layer has.
    AbsoluteLost,
    /// A metacopy file: the data is whatever the layers below have under this name.
    Metacopy,
    /// ... the data is at a path that every layer has.
    MetacopyAbsolute,
    /// ... the data is at a path that no layer has.
    MetacopyLost,
    /// An empty file with the mark of a whiteout; the directory says that there are such.
    XattrWhiteout,
}

use Kind::{
    Absent, Absolute, AbsoluteLost, Dir, File, Metacopy, MetacopyAbsolute, MetacopyLost, Opaque, Relative,
    RelativeLost, Whiteout, XattrWhiteout,
};

const KINDS: [(Kind, &str); 12] = [
    (Absent, "none"),
    (Whiteout, "whiteout"),
    (File, "file"),
    (Dir, "dir"),
    (Opaque, "opaque"),
    (Relative, "rel"),
    (RelativeLost, "rellost"),
    (Absolute, "abs"),
    (AbsoluteLost, "abslost"),
    (Metacopy, "meta"),
    (MetacopyAbsolute, "metaabs"),
    (MetacopyLost, "metalost"),
];

/// Layers of the product.
const DEPTH: usize = 4;
/// The directory of the names.
const PLACE: &str = "place";

/// How the layers are mounted and marked.
#[derive(Debug, Clone, Copy)]
struct Form {
    writable: bool,
    /// The directory of the names says, in every lower layer, that it holds xattr whiteouts.
    xattr_whiteouts: bool,
    space: &'static str,
    kinds: &'static [(Kind, &'static str)],
    /// For the kernel and for stratafs.
    options: (&'static str, &'static str),
}

const READ_ONLY: Form = Form {
    writable: false,
    xattr_whiteouts: false,
    space: TRUSTED,
    kinds: &KINDS,
    options: ("redirect_dir=on,metacopy=on,index=off", "metacopy=on,redirect_dir=on"),
};
const WRITABLE: Form = Form { writable: true, ..READ_ONLY };

/// Says in `layer` what `kind` means for `name`.
fn make(layer: &Layer, kind: Kind, name: &str) {
    let path = &format!("{PLACE}/{name}");
    let redirected = |to: &str| {
        layer.dir(path);
        layer.mark(path, "redirect", to.as_bytes());
    };
    match kind {
        Absent => {}
        Whiteout => layer.whiteout(path),
        File => layer.file(path),
        Dir => layer.dir(path),
        Opaque => {
            layer.dir(path);
            layer.mark(path, "opaque", b"y");
        }
        Relative => redirected("sibling"),
        RelativeLost => redirected("lost"),
        Absolute => redirected("/other/target"),
        AbsoluteLost => redirected("/other/lost"),
        Metacopy => layer.metacopy(path, ""),
        MetacopyAbsolute => layer.metacopy(path, "/other/data"),
        MetacopyLost => layer.metacopy(path, "/other/lost"),
        XattrWhiteout => layer.xattr_whiteout(path),
    }
}

/// The layers that say, under each name, what its index in base `kinds` tells; all begin with `top`. The last one is the
/// first once more: the kernel gets an upper of its own, since it writes marks into an upper while looking.
fn build(home: &Path, form: Form, top: usize) -> (Vec<Layer>, Vec<String>) {
    let mut layers: Vec<Layer> =
        (0..DEPTH).map(|number| Layer::new(home, &format!("layer{number}"), number, form.space)).collect();
    layers.push(Layer::new(home, "twin", 0, form.space));
    for layer in &layers {
        layer.dir("other/target");
        layer.file("other/data");
        layer.dir(&format!("{PLACE}/sibling"));
        if form.xattr_whiteouts && (layer.number > 0 || !form.writable) {
            layer.mark(PLACE, "opaque", b"x");
        }
    }
    let kinds = form.kinds;
    let mut names = Vec::new();
    for number in 0..kinds.len().pow(DEPTH as u32 - 1) {
        let mut rest = number;
        let mut said = vec![kinds[top]];
        for _ in 1..DEPTH {
            said.push(kinds[rest % kinds.len()]);
            rest /= kinds.len();
        }
        let name = said.iter().map(|(_, word)| *word).collect::<Vec<_>>().join("-");
        for (layer, (kind, _)) in layers.iter().zip(said.iter().chain(&said[..1])) {
            make(layer, *kind, &name);
        }
        names.push(name);
    }
    (layers, names)
}

/// Compares one chunk: the combinations that begin with kind number `top`.
fn chunk(form: Form, top: usize) -> Vec<String> {
    let home = scratch(true);
    let (layers, names) = build(home.path(), form, top);
    let roots: Vec<PathBuf> = layers.iter().map(|layer| layer.root.clone()).collect();
    let lowers = &roots[usize::from(form.writable)..DEPTH];
    let stack = |upper: &PathBuf| {
        let work = upper.with_extension("work");
        std::fs::create_dir(&work).unwrap();
        let upper = form.writable.then(|| (upper.clone(), work));
        Stack { lowers: lowers.to_vec(), data: Vec::new(), upper }
    };
    let untouched = Untouched::new(lowers);
    let upper = Untouched::new(&roots[..1]);

    let mount = stack(&roots[0]).mount(By::Strata, form.options.1, &home.path().join("strata"));
    let ours = look(&mount.path().join(PLACE), &names);
    mount.end();
    // Marks of origin may be added to merged directories that have none: the kernel does so, too.
    upper.check_but(&["xattrs"]);
    let mount = stack(&roots[DEPTH]).mount(By::Kernel, form.options.0, &home.path().join("kernel"));
    let theirs = look(&mount.path().join(PLACE), &names);
    mount.end();
    untouched.check();
    differences(&theirs, &ours, &[])
}

/// Compares the chunks whose number leaves `part` when divided by `parts`.
fn compare(form: Form, part: usize, parts: usize) {
    if !ready() {
        return;
    }
    let mut lines = Vec::new();
    for top in (part..form.kinds.len()).step_by(parts) {
        lines.extend(chunk(form, top));
    }
    assert!(lines.is_empty(), "kernel and stratafs (top layer first): {}", summary(&lines));
}

#[test]
fn lower_layers_mean_what_they_mean_to_the_kernel_first_half() {
    compare(READ_ONLY, 0, 2);
}

#[test]
fn lower_layers_mean_what_they_mean_to_the_kernel_second_half() {
    compare(READ_ONLY, 1, 2);
}

#[test]
fn upper_over_lowers_means_what_it_means_to_the_kernel_first_half() {
    compare(WRITABLE, 0, 2);
}

#[test]
fn upper_over_lowers_means_what_it_means_to_the_kernel_second_half() {
    compare(WRITABLE, 1, 2);
}

/// With xattr whiteouts, whose directories the kernel cannot list when a name in them is broken (EIO for the whole
/// listing), so there are no marks that break a name.
const XATTR_KINDS: [(Kind, &str); 8] = [
    (Absent, "none"),
    (Whiteout, "whiteout"),
    (File, "file"),
    (Dir, "dir"),
    (Opaque, "opaque"),
    (Relative, "rel"),
    (Absolute, "abs"),
    (XattrWhiteout, "xwhiteout"),
];
const XATTR: Form = Form { xattr_whiteouts: true, kinds: &XATTR_KINDS, ..READ_ONLY };

#[test]
fn xattr_whiteouts_of_lowers_mean_what_they_mean_to_the_kernel() {
    compare(XATTR, 0, 1);
}

#[test]
fn xattr_whiteouts_under_an_upper_mean_what_they_mean_to_the_kernel() {
    compare(Form { writable: true, ..XATTR }, 0, 1);
}

/// What `userxattr` can mark: directories and regular files. The kernel refuses redirects and metacopy with it.
const USER_KINDS: [(Kind, &str); 6] = [
    (Absent, "none"),
    (Whiteout, "whiteout"),
    (File, "file"),
    (Dir, "dir"),
    (Opaque, "opaque"),
    (XattrWhiteout, "xwhiteout"),
];

#[test]
fn marks_of_the_user_namespace_mean_what_they_mean_to_the_kernel() {
    let options = ("userxattr,index=off", "userxattr");
    let form = Form { space: USER, kinds: &USER_KINDS, options, ..XATTR };
    compare(form, 0, 1);
    compare(Form { writable: true, ..form }, 0, 1);
}

#[test]
fn marks_of_the_other_namespace_mean_nothing() {
    const KINDS: [(Kind, &str); 5] =
        [(Absent, "none"), (File, "file"), (Dir, "dir"), (Opaque, "opaque"), (XattrWhiteout, "xwhiteout")];
    compare(Form { space: USER, kinds: &KINDS, ..XATTR }, 0, 1);
    compare(Form { kinds: &KINDS, options: ("userxattr,index=off", "userxattr"), ..XATTR }, 0, 1);
}
