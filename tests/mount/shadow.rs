//! What grafts hide of the layers, and what a volume has in an older version than they.

use super::common::*;

/// A mount over what an image had at first, with its volume filled, then the same over what the image has now.
fn rebuilt() -> Option<Fixture> {
    if kernel_oracle() {
        println!("skipped: the kernel has no grafts");
        return None;
    }
    let mut f = Fixture::new(1)?;
    let old = f.dir().join("old");
    fs::create_dir_all(old.join("model_test/model/deep")).unwrap();
    let volume = f.dir().join("volume");
    fs::create_dir_all(volume.join("model/deep")).unwrap();
    let l = f.lower(0);
    let l = l.dir("model_test").file("model_test/main.py", "new\n").mtime(1_800_000_000, 0);
    let l = l.dir("model_test/model").dir("model_test/model/deep");
    let l = l.file("model_test/model/deep/same", "same").mtime(1, 0);
    let l = l.file("model_test/model/deep/bytes", "abcd").mtime(2, 5);
    let l = l
        .file("model_test/added", "only in the layers")
        .dir("model_test/added.d")
        .file("model_test/added.d/x", "");
    let l = l
        .symlink("model_test/link", "there")
        .symlink("model_test/kept", "there")
        .file("model_test/kind", "file");
    l.node("model_test/fifo", libc::S_IFIFO | 0o644, 0);
    for (name, data, mtime) in [
        ("main.py", "old version\n", (1_700_000_000, 0)),
        ("model/deep/same", "same", (9, 0)),
        ("model/deep/bytes", "abcx", (2, 5)),
        ("own", "only in the volume", (1, 0)),
    ] {
        fs::write(volume.join(name), data).unwrap();
        sys::utimens(volume.join(name), mtime, mtime).unwrap();
    }
    sys::symlink("elsewhere", volume.join("link")).unwrap();
    sys::symlink("there", volume.join("kept")).unwrap();
    sys::symlink("there", volume.join("kind")).unwrap();
    sys::mknod(volume.join("fifo"), libc::S_IFIFO | 0o600, 0).unwrap();
    f.mount();
    Some(f)
}

fn paths(out: &str) -> Vec<&str> {
    out.lines().map(|line| line.split("  ").next().unwrap()).collect()
}

#[test]
fn what_is_hidden_is_listed_with_its_kind_and_the_graft() {
    let Some(f) = rebuilt().and_then(Fixture::need_tmpfs) else { return };
    assert_eq!(f.says(&["shadow", "@"]).ok().out, "");
    assert_eq!(f.says(&["shadow", "--json", "@"]).ok().out, "[]\n");
    f.graft(&[
        "add",
        "@",
        "-v",
        "./volume:/model_test",
        "--tmpfs",
        "/model_test/model/deep",
        "-v",
        "./old:/none",
    ])
    .ok();
    let out = f.says(&["shadow", "@"]).ok().out;
    assert_eq!(
        paths(&out),
        [
            "/model_test",
            "/model_test/added",
            "/model_test/added.d",
            "/model_test/added.d/x",
            "/model_test/fifo",
            "/model_test/kept",
            "/model_test/kind",
            "/model_test/link",
            "/model_test/main.py",
            "/model_test/model",
            "/model_test/model/deep",
            "/model_test/model/deep/bytes",
            "/model_test/model/deep/same",
        ]
    );
    for line in [
        "/model_test  directory  under bind at /model_test",
        "/model_test/added  file  under bind at /model_test",
        "/model_test/link  symlink  under bind at /model_test",
        "/model_test/fifo  fifo  under bind at /model_test",
        "/model_test/model/deep/same  file  under tmpfs at /model_test/model/deep",
    ] {
        assert!(out.lines().any(|l| l == line), "{line:?} is not in\n{out}");
    }
    let json = f.says(&["shadow", "--json", "@"]).ok().out;
    assert!(json.starts_with("[\n{") && json.ends_with("}\n]\n") && json.lines().count() == 15, "{json}");
    assert!(json.contains(r#""kind":"fifo""#) && json.contains(r#""by":"tmpfs""#), "{json}");
    f.graft(&["rm", "@", "/model_test/model/deep", "/model_test", "/none"]).ok();
    // What is changed in the mount belongs to its layers.
    fs::write(f.p("model_test/main.py"), "changed").unwrap();
    fs::remove_file(f.p("model_test/added")).unwrap();
    f.graft(&["add", "@", "-v", "./volume:/model_test", "-v", "./volume/own:/model_test/main.py"]).ok();
    let out = f.says(&["shadow", "@"]).ok().out;
    assert!(!paths(&out).contains(&"/model_test/added"), "{out}");
    assert!(out.contains("/model_test/main.py  file  under bind at /model_test/main.py"), "{out}");
}

#[test]
fn stale_files_are_named_with_both_times() {
    let Some(mut f) = rebuilt().and_then(Fixture::need_tmpfs) else { return };
    f.graft(&["add", "@", "-v", "./volume:/model_test:ro", "--tmpfs", "/other"]).ok();
    let out = f.says(&["shadow", "--stale", "@"]).ok().out;
    assert_eq!(
        paths(&out),
        ["/model_test/kind", "/model_test/link", "/model_test/main.py", "/model_test/model/deep/bytes"]
    );
    let line = out.lines().find(|line| line.contains("main.py")).unwrap();
    assert!(
        line.starts_with("/model_test/main.py  bind 2023-11-1") && line.ends_with("(layers newer)"),
        "{line}"
    );
    assert!(line.contains("  layers 2027-01-1"), "{line}");
    assert!(out.lines().any(|line| line.contains("bytes") && line.ends_with("(same time)")), "{out}");
    let json = f.says(&["shadow", "--stale", "--json", "@"]).ok().out;
    assert!(json.contains(r#""layers_modified":{"nanoseconds":5,"seconds":2}"#), "{json}");
    assert!(json.contains(r#""newer":"layers""#) && json.lines().count() == 6, "{json}");
    f.unmount();
    // A named volume, filled from what the layers had when it was made.
    let state = f.dir().join("state").to_str().unwrap().to_owned();
    let with = ["--state", state.as_str(), "-v", "models:/model_test"];
    f.mount_with(&with);
    assert_eq!(f.says(&["shadow", "--stale", "@"]).ok().out, "");
    fs::write(f.p("model_test/main.py"), "edited in the volume\n").unwrap();
    let out = f.says(&["shadow", "--stale", "@"]).ok().out;
    assert_eq!(paths(&out), ["/model_test/main.py"]);
    assert!(out.contains("  volume ") && out.contains("  layers "), "{out}");
    assert!(f.says(&["shadow", "@"]).ok().out.contains("under volume models at /model_test"));
}

#[test]
fn names_that_show_beside_a_graft_are_not_hidden() {
    let Some(f) = rebuilt() else { return };
    f.graft(&["add", "@", "-v", "./volume:/model_test:shadow=under"]).ok();
    let out = f.says(&["shadow", "@"]).ok().out;
    assert!(!paths(&out).contains(&"/model_test/added") && !paths(&out).contains(&"/model_test"), "{out}");
    assert!(paths(&out).contains(&"/model_test/main.py"), "{out}");
    f.graft(&["replace", "@", "-v", "./volume:/model_test:shadow=over"]).ok();
    assert_eq!(f.says(&["shadow", "@"]).ok().out, "");
}

#[test]
fn a_reader_that_has_seen_enough_ends_it() {
    let Some(f) = rebuilt().and_then(Fixture::need_tmpfs) else { return };
    let many = f.p("many");
    fs::create_dir(&many).unwrap();
    (0..3000).for_each(|i| fs::write(many.join(format!("file-with-a-long-name-{i}")), "").unwrap());
    f.graft(&["add", "@", "--tmpfs", "/many"]).ok();
    let all = f.says(&["shadow", "@"]).ok().out;
    assert_eq!(all.lines().count(), 3001);
    let first = format!("'{}' shadow '{}' | head -n 1", program().display(), f.p("").display());
    let done = run(std::process::Command::new("sh").args(["-c", &first]));
    assert_eq!((done.out.lines().count(), done.err.as_str()), (1, ""));
    assert_eq!(f.says(&["shadow", "@"]).ok().out.lines().count(), 3001);
}
