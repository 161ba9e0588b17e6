//! Data-only layers, and private attributes of a layer that an overlay inside it has written.

use std::path::PathBuf;

use crate::layer::{Layer, TRUSTED, USER};
use crate::mount::{By, Stack, ready, scratch};
use crate::snapshot::{Untouched, assert_same, take};
use crate::sys;

/// Both mounts of the same stack show the same.
fn compare(what: &str, stack: &Stack, options: (&str, &str), home: &std::path::Path) {
    let untouched = Untouched::new(&[stack.lowers.clone(), stack.data.clone()].concat());
    let mount = stack.mount(By::Kernel, options.0, &home.join("kernel"));
    let theirs = take(mount.path());
    mount.end();
    let mount = stack.mount(By::Strata, options.1, &home.join("strata"));
    let mut ours = take(mount.path());
    mount.end();
    untouched.check();
    // Which error a broken mark gives is not compared.
    let mut theirs = theirs;
    for tree in [&mut theirs, &mut ours] {
        let texts = tree.values_mut().flat_map(|fields| fields.values_mut());
        texts.filter(|text| text.contains("os error")).for_each(|text| *text = "error".to_owned());
    }
    assert_same(&format!("{what}: kernel and stratafs"), &theirs, &ours, &[]);
}

/// Two ordinary layers over two data-only ones. The kernel wants a data-only layer to be found by absolute redirects only.
#[test]
fn data_only_layers_are_reached_by_absolute_redirects_only() {
    if !ready() {
        return;
    }
    for space in [TRUSTED, USER] {
        let home = scratch(false);
        let names = ["top", "next", "data1", "data2"];
        let layers: Vec<Layer> =
            names.iter().enumerate().map(|(at, name)| Layer::new(home.path(), name, at, space)).collect();
        let [top, next, data1, data2] = &layers[..] else { panic!("four layers") };
        for layer in [top, next] {
            layer.dir("dir");
        }
        for data in [data1, data2] {
            data.dir("only_in_data");
            data.dir("dir");
            data.file("blob");
            data.file("by_name");
            data.file("dir/by_name");
        }
        data2.file("blob2");
        data2.file("dir/blob3");
        data1.whiteout("blob2");
        top.metacopy("to_first", "/blob");
        top.metacopy("to_second", "/blob2");
        next.metacopy("dir/from_next", "/blob");
        top.metacopy("through_next", "/dir/from_next");
        top.metacopy("by_name", "");
        top.metacopy("dir/relative", "by_name");
        top.metacopy("lost", "/nowhere");
        top.metacopy("dir/to_dir", "/only_in_data");
        let roots: Vec<PathBuf> = layers.iter().map(|layer| layer.root.clone()).collect();
        let stack =
            Stack { lowers: roots[..2].to_vec(), data: roots[2..].to_vec(), upper: None, more: Vec::new() };
        let options = match space {
            TRUSTED => ("redirect_dir=on,metacopy=on", "redirect_dir=on,metacopy=on"),
            _ => ("userxattr", "userxattr"),
        };
        compare("data-only layers", &stack, options, home.path());
        let one =
            Stack { lowers: roots[..1].to_vec(), data: roots[2..3].to_vec(), upper: None, more: Vec::new() };
        compare("one layer over one of data", &one, options, home.path());
    }
}

/// The kernel answers EIO where the way to the data leads through a directory that an ordinary layer has as well. Here the
/// data is found.
#[test]
fn data_in_a_directory_that_ordinary_layers_have_is_found() {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let layers: Vec<Layer> = ["top", "next", "data"]
        .iter()
        .enumerate()
        .map(|(at, name)| Layer::new(home.path(), name, at, TRUSTED))
        .collect();
    layers.iter().for_each(|layer| layer.dir("dir"));
    layers[2].file("dir/blob");
    layers[0].metacopy("dir/to_deep", "/dir/blob");
    let roots: Vec<PathBuf> = layers.iter().map(|layer| layer.root.clone()).collect();
    let stack =
        Stack { lowers: roots[..2].to_vec(), data: roots[2..].to_vec(), upper: None, more: Vec::new() };
    let mount = stack.mount(By::Strata, "redirect_dir=on,metacopy=on", &home.path().join("mount"));
    let shown = std::fs::read_to_string(mount.path().join("dir/to_deep")).unwrap();
    mount.end();
    assert_eq!(shown, std::fs::read_to_string(roots[2].join("dir/blob")).unwrap());
}

/// What an overlay stored in a layer as a private attribute of its user: shown one level down, obeyed by nobody.
#[test]
fn escaped_private_attributes_are_shown_and_not_obeyed() {
    if !ready() {
        return;
    }
    for (space, options) in [
        (TRUSTED, ("redirect_dir=on,metacopy=on", "redirect_dir=on,metacopy=on")),
        (USER, ("userxattr", "userxattr")),
        // The namespace that is not in use is an ordinary one.
        (USER, ("redirect_dir=on,metacopy=on", "redirect_dir=on,metacopy=on")),
        (TRUSTED, ("userxattr", "userxattr")),
    ] {
        let home = scratch(false);
        let layers = ["top", "bottom"].map(|name| Layer::new(home.path(), name, name.len(), space));
        let [top, bottom] = &layers;
        for layer in &layers {
            for dir in ["once", "twice", "other", "target", "private"] {
                layer.dir(dir);
            }
            layer.file("file");
        }
        top.mark("once", "overlay.opaque", b"y");
        top.mark("once", "overlay.redirect", b"/target");
        top.mark("twice", "overlay.overlay.opaque", b"y");
        top.mark("private", "opaque", b"n");
        top.mark("private", "impure", b"y");
        top.mark("private", "unknown", b"y");
        top.mark("file", "overlay.metacopy", b"");
        top.mark("file", "protattr", b"");
        bottom.mark("other", "overlay.opaque", b"y");
        sys::set_xattr(&top.at("other"), "trusted.overlayed", b"y").unwrap();
        sys::set_xattr(&top.at("other"), "trusted.other", b"y").unwrap();
        let lowers = [top.root.clone(), bottom.root.clone()];
        compare("escaped attributes", &Stack::read_only(&lowers), options, home.path());

        let mount = Stack::read_only(&lowers).mount(By::Strata, options.1, &home.path().join("look"));
        let mark =
            |path: &str, name: &str| sys::get_xattr(&mount.path().join(path), &format!("{space}{name}"));
        let in_use = (space == USER) == (options.1 == "userxattr");
        if in_use {
            assert_eq!(mark("once", "opaque"), Ok(b"y".to_vec()));
            assert_eq!(mark("twice", "overlay.opaque"), Ok(b"y".to_vec()));
            assert_eq!(mark("private", "opaque"), Err(nix::errno::Errno::ENODATA));
            assert!(mount.path().join("once/own6").exists(), "an escaped mark is obeyed");
        } else {
            assert_eq!(mark("private", "opaque"), Ok(b"n".to_vec()));
        }
        mount.end();
    }
}

/// What is set through the mount is read back through it, stored escaped, and never obeyed.
#[test]
fn private_attributes_set_through_the_mount_are_escaped() {
    if !ready() {
        return;
    }
    let home = scratch(false);
    let bottom = Layer::new(home.path(), "bottom", 1, TRUSTED);
    bottom.dir("dir");
    let lowers = [bottom.root.clone()];
    for by in [By::Kernel, By::Strata] {
        let stack = Stack::writable(&lowers, &home.path().join(format!("{by:?}")));
        let point = home.path().join(format!("mount{by:?}"));
        let name = "trusted.overlay.opaque";
        let mount = stack.mount(by, "redirect_dir=on", &point);
        let dir = mount.path().join("dir");
        sys::set_xattr(&dir, name, b"y").unwrap();
        assert_eq!(sys::get_xattr(&dir, name), Ok(b"y".to_vec()), "{by:?}");
        mount.end();
        let stored = sys::get_xattr(&stack.upper().join("dir"), "trusted.overlay.overlay.opaque");
        assert_eq!(stored, Ok(b"y".to_vec()), "{by:?}");
        let mount = stack.mount(by, "redirect_dir=on", &point);
        assert!(sys::xattrs(&dir).unwrap().contains_key(name), "{by:?}");
        assert!(dir.join("own1").exists(), "{by:?}");
        sys::remove_xattr(&dir, name).unwrap();
        assert!(!sys::xattrs(&dir).unwrap().contains_key(name), "{by:?}");
        mount.end();
        let stored = sys::get_xattr(&stack.upper().join("dir"), "trusted.overlay.overlay.opaque");
        assert_eq!(stored, Err(nix::errno::Errno::ENODATA), "{by:?}");
    }
}
