//! Every combination of what four layers can say about a name, compared with the kernel's reading of the same layers.

use std::path::{Path, PathBuf};

use crate::layer::{Layer, TRUSTED, USER};
use crate::mount::{By, Stack, ready, scratch};
use crate::seen::{assert_not_stale, look};
use crate::snapshot::{Untouched, differences, summary};

/// What one layer says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent,
    Whiteout,
    File,
    Dir,
    Opaque,
    /// A directory with a redirect to a sibling, which every lower layer has.
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

/// Layers of the product: four, or what `STRATAFS_DEPTH` says, for those in a hurry.
fn depth() -> usize {
    std::env::var("STRATAFS_DEPTH").map_or(4, |text| text.parse().unwrap())
}

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
    let redirected = |to: String| {
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
        Relative => redirected(format!("{name}.target")),
        RelativeLost => redirected("lost".to_owned()),
        Absolute => redirected(format!("/other/{name}")),
        AbsoluteLost => redirected("/other/lost".to_owned()),
        Metacopy => layer.metacopy(path, ""),
        MetacopyAbsolute => layer.metacopy(path, &format!("/data/{name}")),
        MetacopyLost => layer.metacopy(path, "/other/lost"),
        XattrWhiteout => layer.xattr_whiteout(path),
    }
}

/// Makes in `layer` what the redirects of a name lead to. Each name has its own targets: to the kernel, two names in an upper
/// that lead to one lower object are stale. For that reason siblings are hidden by the top layer, which no redirect reads.
fn targets(layer: &Layer, said: &[(Kind, &str)], name: &str) {
    let any = |kind: Kind| said.iter().any(|(said, _)| *said == kind);
    if any(Relative) && layer.number == 0 {
        layer.whiteout(&format!("{PLACE}/{name}.target"));
    } else if any(Relative) {
        layer.small_dir(&format!("{PLACE}/{name}.target"));
    }
    if any(Absolute) {
        layer.small_dir(&format!("other/{name}"));
    }
    if any(MetacopyAbsolute) {
        layer.file(&format!("data/{name}"));
    }
}

/// The layers that say, under each name, what its index in base `kinds` tells; all begin with `top`. The last one is the
/// first once more: the kernel gets an upper of its own, since it writes marks into an upper while looking.
fn build(home: &Path, form: Form, top: usize) -> (Vec<Layer>, Vec<String>) {
    let mut layers: Vec<Layer> =
        (0..depth()).map(|number| Layer::new(home, &format!("layer{number}"), number, form.space)).collect();
    layers.push(Layer::new(home, "twin", 0, form.space));
    for layer in &layers {
        ["other", "data", PLACE].iter().for_each(|dir| layer.bare_dir(dir));
        if form.xattr_whiteouts && (layer.number > 0 || !form.writable) {
            layer.mark(PLACE, "opaque", b"x");
        }
    }
    let kinds = form.kinds;
    let mut names = Vec::new();
    for number in 0..kinds.len().pow(depth() as u32 - 1) {
        let mut rest = number;
        let mut said = vec![kinds[top]];
        for _ in 1..depth() {
            said.push(kinds[rest % kinds.len()]);
            rest /= kinds.len();
        }
        let name = said.iter().map(|(_, word)| *word).collect::<Vec<_>>().join("-");
        for (layer, (kind, _)) in layers.iter().zip(said.iter().chain(&said[..1])) {
            make(layer, *kind, &name);
            targets(layer, &said, &name);
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
    let lowers = &roots[usize::from(form.writable)..depth()];
    let stack = |upper: &PathBuf| {
        let work = upper.with_extension("work");
        std::fs::create_dir(&work).unwrap();
        let upper = form.writable.then(|| (upper.clone(), work));
        Stack { lowers: lowers.to_vec(), data: Vec::new(), upper, more: Vec::new() }
    };
    let untouched = Untouched::new(lowers);
    let upper = Untouched::new(&roots[..1]);

    let mount = stack(&roots[0]).mount(By::Strata, form.options.1, &home.path().join("strata"));
    let ours = look(&mount.path().join(PLACE), &names);
    mount.end();
    // Marks of origin may be added to merged directories that have none: the kernel does so, too.
    upper.check_but(&["xattrs"]);
    let mount = stack(&roots[depth()]).mount(By::Kernel, form.options.0, &home.path().join("kernel"));
    let theirs = look(&mount.path().join(PLACE), &names);
    mount.end();
    untouched.check();
    assert_not_stale(&theirs);
    let mut lines = differences(&theirs, &ours, &[]);
    // The kernel lists an xattr whiteout where no directory of a layer above the lowest says that there are such, and
    // cannot look it up. Here it may be listed or not.
    lines.retain(|line| {
        !(line.contains("xwhiteout") && line.contains(": listed: ") && line.ends_with("and Some(\"no\")"))
    });
    lines
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

const NO_REDIRECTS: [(Kind, &str); 5] =
    [(Absent, "none"), (File, "file"), (Dir, "dir"), (Opaque, "opaque"), (XattrWhiteout, "xwhiteout")];

#[test]
fn marks_of_the_other_namespace_mean_nothing() {
    let form = Form { kinds: &NO_REDIRECTS, ..XATTR };
    compare(Form { space: USER, ..form }, 0, 1);
    compare(Form { options: ("userxattr,index=off", "userxattr"), ..form }, 0, 1);
}

/// No directory of these layers says that it holds any: the kernel heeds them in the whole layer once it has seen one.
#[test]
fn xattr_whiteouts_are_ordinary_files_where_no_directory_says_that_it_holds_them() {
    compare(Form { xattr_whiteouts: false, kinds: &NO_REDIRECTS, ..XATTR }, 0, 1);
}
