//! Export and import: all of a volume goes there and back, nothing leaves it, and half of an archive is none.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use super::State;
use super::common::{self, fs, run, sum, sys};

/// A tree with all that an archive keeps.
fn make_tree(top: &Path) {
    fs::create_dir_all(top.join("dir/sub")).unwrap();
    fs::write(top.join("file"), "content").unwrap();
    fs::write(top.join("dir/sub").join("n".repeat(200)), "long").unwrap();
    fs::write(top.join("new\nline ü"), "odd").unwrap();
    fs::hard_link(top.join("file"), top.join("dir/second")).unwrap();
    std::os::unix::fs::symlink("../file", top.join("dir/link")).unwrap();
    std::os::unix::fs::symlink(format!("/{}", "t".repeat(300)), top.join("far")).unwrap();
    nix::unistd::mkfifo(&top.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    sys::setxattr(top.join("file"), "user.bytes", b"a\n\0=\xff", 0).unwrap();
    sys::setxattr(top.join("dir"), "user.k=v%", b"", 0).unwrap();
    if nix::unistd::geteuid().is_root() {
        sys::mknod(top.join("null"), libc::S_IFCHR | 0o666, libc::makedev(1, 3)).unwrap();
        sys::lchown(top.join("file"), 1234, 70_000).unwrap();
        sys::lchown(top.join("dir/link"), 3_000_000, 5).unwrap();
        sys::lchown(top, 33, 44).unwrap();
    }
    sys::chmod(top.join("file"), 0o4751).unwrap();
    sys::chmod(top.join("dir"), 0o2555).unwrap();
    sys::chmod(top, 0o1777).unwrap();
    let set = |path: &str, secs: u64, nanos: u32| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(secs, nanos);
        fs::File::open(top.join(path)).unwrap().set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    };
    set("file", 1_000_000_000, 123_456_789);
    set("dir/sub", 5, 0);
    set("dir", 7, 1);
    set("", 9, 2);
}

#[track_caller]
fn same_tree(a: &Path, b: &Path) {
    assert_eq!(sum::diff(&sum::tree(a), &sum::tree(b)), "");
    let facts = |path: &Path| {
        let facts = fs::symlink_metadata(path).unwrap();
        (
            facts.mode(),
            facts.uid(),
            facts.gid(),
            facts.mtime(),
            facts.mtime_nsec(),
            facts.nlink(),
            facts.rdev(),
        )
    };
    for name in ["", "file", "dir", "dir/sub", "dir/link", "dir/second", "fifo", "new\nline ü"] {
        assert_eq!(facts(&a.join(name)), facts(&b.join(name)), "{name:?}");
    }
}

#[test]
fn an_archive_brings_back_all_of_a_volume() {
    let state = State::new();
    state.ok(&["create", "v1"]);
    make_tree(&state.data("v1"));
    let file = state.path().join("v1.tar");
    let path = file.to_str().unwrap();
    assert_eq!(state.ok(&["export", "v1", "-o", path]), "");
    assert_eq!(state.ok(&["import", "v2", path]), "v2\n");
    same_tree(&state.data("v1"), &state.data("v2"));
    let linked = |name: &str| fs::metadata(state.data("v2").join(name)).unwrap().ino();
    assert_eq!(linked("file"), linked("dir/second"));
    // Into a volume that exists and is empty, through a pipe.
    state.ok(&["create", "--label", "mine", "v3"]);
    let script = "\"$0\" volume export v1 | \"$0\" volume import v3 -";
    let mut pipe = Command::new("sh");
    pipe.args(["-c", script]).arg(common::program()).env("STRATAFS_STATE", state.path());
    assert_eq!(run(&mut pipe).ok().out, "v3\n");
    same_tree(&state.data("v1"), &state.data("v3"));
    assert_eq!(state.json("v3")["Labels"], serde_json::json!({"mine": ""}));
    assert_eq!(state.json("v3")["Stratafs"]["Populated"]["Layers"], serde_json::json!([]));
    state.refuses(&["import", "v3", path], 1, &["not empty"]);
    // The same volume is the same archive; and others can read it.
    let again = run(&mut state.command(&["export", "v2"])).ok();
    assert_eq!(again.out, String::from_utf8_lossy(&fs::read(&file).unwrap()));
    let out = state.path().join("out");
    fs::create_dir(&out).unwrap();
    let mut tar = Command::new("tar");
    run(tar.arg("-xpf").arg(&file).arg("-C").arg(&out).args([
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
    ]))
    .ok();
    same_tree(&state.data("v1"), &out);
    // And we read theirs.
    for format in ["gnu", "pax", "posix"] {
        let theirs = state.path().join(format!("{format}.tar"));
        let mut tar = Command::new("tar");
        tar.arg(format!("--format={format}")).arg("-cpf").arg(&theirs).args(["--numeric-owner"]);
        if format != "gnu" {
            tar.args(["--xattrs", "--xattrs-include=*"]);
        }
        run(tar.arg("-C").arg(state.data("v1")).arg(".")).ok();
        let name = format!("from-{format}");
        state.ok(&["import", &name, theirs.to_str().unwrap()]);
        match format {
            "gnu" => assert_eq!(
                fs::read(state.data(&name).join("dir/sub").join("n".repeat(200))).unwrap(),
                b"long"
            ),
            _ => same_tree(&state.data("v1"), &state.data(&name)),
        }
    }
}

#[test]
fn sockets_are_left_out_with_a_word() {
    let state = State::new();
    state.ok(&["create", "v1"]);
    let _socket = std::os::unix::net::UnixListener::bind(state.data("v1").join("s")).unwrap();
    assert!(fs::metadata(state.data("v1").join("s")).unwrap().file_type().is_socket());
    let done = state.run(&["export", "v1", "-o", state.path().join("a.tar").to_str().unwrap()]).ok();
    assert!(done.err.contains("sockets are left out, 1 of them"), "{}", done.err);
}

/// One entry of an archive.
fn entry(archive: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.set_cksum();
    archive.append(&header, data).unwrap();
}

#[test]
fn an_archive_never_leaves_its_volume() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let state = State::new();
    let outside = state.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let (target, secret) = (outside.to_str().unwrap(), outside.join("secret"));
    let target_file = secret.to_str().unwrap();
    state.ok(&["create", "empty"]);
    type Entries<'a> = [(tar::EntryType, &'a str, &'a str)];
    let cases: [(&Entries, &str); 9] = [
        (&[(Regular, "../x", "")], "`..`"),
        (&[(Regular, "a/../../x", "")], "`..`"),
        (&[(Regular, "/etc/x", "")], "absolute"),
        (&[(Symlink, "l", target), (Regular, "l/x", "")], "no directory"),
        (&[(Symlink, "l", target), (Directory, "l/sub", "")], "no directory"),
        (&[(Symlink, "l", target), (Link, "h", "l/secret")], "no directory"),
        (&[(Link, "h", target_file)], "absolute"),
        (&[(Link, "h", "../../outside/secret")], "`..`"),
        (&[(Directory, "d", ""), (Regular, "d/f", ""), (Regular, "d", "")], "replace a directory"),
    ];
    for (i, (entries, part)) in cases.into_iter().enumerate() {
        let mut archive = tar::Builder::new(Vec::new());
        for (kind, path, link) in entries {
            entry(&mut archive, *kind, path, link, b"");
        }
        let file = state.path().join(format!("{i}.tar"));
        fs::write(&file, archive.into_inner().unwrap()).unwrap();
        for volume in ["new", "empty"] {
            state.refuses(&["import", volume, file.to_str().unwrap()], 1, &["in the archive", part]);
        }
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A symlink that leads away is content like any other, and a later entry replaces it, not what it leads to.
    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, Symlink, "l", target_file, b"");
    entry(&mut archive, Regular, "l", "", b"mine");
    let file = state.path().join("good.tar");
    fs::write(&file, archive.into_inner().unwrap()).unwrap();
    state.ok(&["import", "empty", file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(state.data("empty").join("l")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}

/// An archive that ends anywhere before its end, and an import that is killed, leave a volume as it was.
#[test]
fn an_import_that_does_not_end_changes_nothing() {
    let state = State::new();
    state.ok(&["create", "v1"]);
    make_tree(&state.data("v1"));
    let whole = state.path().join("whole.tar");
    state.ok(&["export", "v1", "-o", whole.to_str().unwrap()]);
    let bytes = fs::read(&whole).unwrap();
    state.ok(&["create", "empty"]);
    let part = state.path().join("part.tar");
    for len in (0..bytes.len() - 1024).step_by(512).chain([1, 700, bytes.len() - 1025]) {
        fs::write(&part, &bytes[..len]).unwrap();
        for volume in ["new", "empty"] {
            state.refuses(&["import", volume, part.to_str().unwrap()], 1, &["cut off"]);
        }
    }
    fs::write(&part, [&[0x1f, 0x8b][..], &bytes].concat()).unwrap();
    state.refuses(&["import", "new", part.to_str().unwrap()], 1, &["gzip -dc"]);
    fs::write(&part, [&b"no archive, but longer than a header would be"[..], &bytes].concat()).unwrap();
    state.refuses(&["import", "new", part.to_str().unwrap()], 1, &["no tar archive"]);
    for volume in ["new", "empty"] {
        let mut import = state.command(&["import", volume]);
        let mut import = common::spawn(import.stdin(Stdio::piped()).stdout(Stdio::null()));
        let mut pipe = import.stdin.take().unwrap();
        pipe.write_all(&bytes[..bytes.len() - 1024]).unwrap();
        pipe.flush().unwrap();
        let staged = || {
            let mut dirs = vec![state.volume("empty").join("_data.new")];
            let all = fs::read_dir(state.path().join("volumes")).unwrap().flatten();
            dirs.extend(
                all.map(|e| e.path().join("_data")).filter(|p| p.to_str().unwrap().contains(".tmp-")),
            );
            dirs.iter().any(|dir| dir.join("file").exists())
        };
        assert!(common::eventually(common::LIMIT, staged), "{volume}");
        import.kill().unwrap();
        import.wait().unwrap();
        assert_eq!(state.ok(&["ls", "-q"]), "empty\nv1\n");
        assert_eq!(fs::read_dir(state.data("empty")).unwrap().count(), 0);
        assert_eq!(state.ok(&["import", volume, whole.to_str().unwrap()]), format!("{volume}\n"));
        same_tree(&state.data("v1"), &state.data(volume));
        assert!(!state.volume(volume).join("_data.new").exists());
        state.ok(&["rm", volume]);
        state.ok(&["create", "empty"]);
    }
}

#[test]
fn an_archive_is_not_written_to_a_terminal() {
    let state = State::new();
    state.ok(&["create", "v1"]);
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{} volume export v1", common::program().display()), "/dev/null"]);
    if !Path::new("/usr/bin/script").exists() {
        println!("skipped: no script(1)");
        return;
    }
    let done = run(script.env("STRATAFS_STATE", state.path()));
    assert!(done.code == Some(2) && done.out.contains("not for a terminal"), "{done:?}");
}

/// What GNU tar writes in base 256, since the field has no room for its octal digits: times before 1970 and after 2242, and high ids.
#[test]
fn numbers_beyond_octal_digits_come_back() {
    let state = State::new();
    let from = state.path().join("from");
    fs::create_dir(&from).unwrap();
    let times =
        [("old", -1_000_000_000, 0), ("first", -1, 0), ("half", -2, 500_000_000), ("far", 15_000_000_000, 0)];
    for (name, secs, nanos) in times {
        fs::write(from.join(name), name).unwrap();
        sys::utimens(from.join(name), (secs, nanos), (secs, nanos)).unwrap();
    }
    for (name, id) in [("high", 3_000_000_000), ("highest", u32::MAX - 1)] {
        fs::write(from.join(name), name).unwrap();
        sys::lchown(from.join(name), id, id).unwrap();
    }
    sys::mknod(from.join("device"), libc::S_IFBLK | 0o600, libc::makedev(4095, 1_048_575)).unwrap();
    for format in ["gnu", "oldgnu", "posix"] {
        let file = state.path().join(format!("{format}.tar"));
        let mut tar = Command::new("tar");
        tar.arg(format!("--format={format}"))
            .arg("-cpf")
            .arg(&file)
            .args(["--numeric-owner", "-C"])
            .arg(&from)
            .arg(".");
        run(&mut tar).ok();
        state.ok(&["import", format, file.to_str().unwrap()]);
        for entry in fs::read_dir(&from).unwrap() {
            let (a, name) = (entry.as_ref().unwrap().metadata().unwrap(), entry.unwrap().file_name());
            let b = state.data(format).join(&name).symlink_metadata().unwrap();
            let facts = |m: &fs::Metadata| (m.uid(), m.gid(), m.rdev(), m.mode());
            assert_eq!(facts(&a), facts(&b), "{format}: {name:?}");
            let nanos = if format == "posix" { a.mtime_nsec() } else { 0 };
            if !["high", "highest", "device"].contains(&name.to_str().unwrap()) {
                assert_eq!((b.mtime(), b.mtime_nsec()), (a.mtime(), nanos), "{format}: {name:?}");
            }
        }
    }
}

#[test]
fn an_id_that_nobody_has_is_refused() {
    let state = State::new();
    state.ok(&["create", "empty"]);
    for uid in [u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let mut header = tar::Header::new_gnu();
        header.set_path("f").unwrap();
        header.set_mode(0o644);
        header.set_uid(uid);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, &b""[..]).unwrap();
        let file = state.path().join("ids.tar");
        fs::write(&file, archive.into_inner().unwrap()).unwrap();
        state.refuses(&["import", "ids", file.to_str().unwrap()], 1, &["its uid", "is no id"]);
    }
}
