//! Driver options with real mounts, in a mount namespace that goes with its shell: no mount outlives a test.

use std::process::Command;

use super::State;
use super::common::{self, Done, fs, run};

/// Nothing, with a word, where no filesystem may be mounted.
pub(super) fn namespace() -> bool {
    let unshare = Command::new("unshare").args(["-m", "--propagation", "private", "true"]).status();
    let may = nix::unistd::geteuid().is_root() && unshare.is_ok_and(|status| status.success());
    if !may {
        println!("skipped: needs root and mount namespaces");
    }
    may
}

/// A shell in a mount namespace of its own; `$BIN` is the program, `$S` the store.
pub(super) fn shell(state: &State, script: &str) -> Done {
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-euc", script]);
    run(command.env("BIN", common::program()).env("STRATAFS_STATE", state.path()).env("S", state.path()))
}

#[test]
fn a_bind_is_mounted_while_the_volume_is_used() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let source = state.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from the host").unwrap();
    let device = format!("device={}", source.display());
    state.ok(&["create", "-o", "type=none", "-o", "o=bind", "-o", &device, "v1"]);
    let done = shell(
        &state,
        r#"
        "$BIN" volume export v1 -o "$S/a.tar"
        tar -tf "$S/a.tar"
        ! grep -q "$S/volumes" /proc/self/mountinfo
        "$BIN" volume rm v1
        "#,
    )
    .ok();
    assert_eq!(done.out, "./\nfile\nv1\n");
    assert_eq!(
        common::text(source.join("file")),
        "from the host",
        "what is mounted is no part of the volume"
    );
}

/// The daemon holds the upper layer, the workdir and the lower layers open: a compose file must not name them by number.
#[test]
fn what_a_process_has_open_is_no_device() {
    if !namespace() {
        return;
    }
    let state = State::new();
    for device in ["/proc/self/fd/3", "/proc/self/cwd", "/proc/self/root", "/proc/thread-self/cwd"] {
        state.ok(&["create", "-o", "type=none", "-o", "o=bind", "-o", &format!("device={device}"), "v1"]);
        let done = shell(&state, r#"exec 3<"$S"; exec "$BIN" volume export v1 -o "$S/a.tar""#);
        assert!(done.code == Some(1) && done.err.contains(device), "{done:?}");
        state.ok(&["rm", "v1"]);
    }
}

/// A user that is killed leaves its mount; who comes next finds it, and `rm` takes the mount away before the directory.
#[test]
fn a_mount_that_was_left_is_found_and_never_emptied() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let source = state.path().join("source");
    fs::create_dir(&source).unwrap();
    let device = format!("device={}", source.display());
    state.ok(&["create", "-o", "type=none", "-o", "o=bind", "-o", &device, "v1"]);
    let done = shell(
        &state,
        r#"
        mkfifo "$S/never"
        "$BIN" volume import v1 "$S/never" &
        import=$!
        exec 3>"$S/never"
        for i in $(seq 100); do ! grep -q "v1/_data" /proc/self/mountinfo || break; sleep 0.05; done
        "$BIN" volume rm v1 || echo refused
        for i in $(seq 100); do ! ls -A "$S/source" | grep -q . || break; sleep 0.05; done
        kill -9 $import
        wait $import || :
        grep -c "v1/_data" /proc/self/mountinfo
        ls -A "$S/source" | sed 's/-[0-9a-f]*$/-HEX/'
        echo kept >"$S/source/file"
        "$BIN" volume export v1 | tar -t
        ! grep -q "v1/_data" /proc/self/mountinfo
        mount --bind "$S/source" "$S/volumes/v1/_data"
        "$BIN" volume rm v1
        "#,
    )
    .ok();
    assert!(done.err.contains("volume is in use - [(stratafs volume import)]"), "{}", done.err);
    // What was half filled is gone; what somebody else put there is not.
    assert_eq!(done.out, "refused\n1\n.stratafs-population-HEX\n./\nfile\nv1\n");
    assert_eq!(common::names(&source), ["file"]);
    assert!(!state.volume("v1").exists());
}

#[test]
fn a_volume_with_a_foreign_mount_in_it_is_not_removed() {
    if !namespace() {
        return;
    }
    let state = State::new();
    state.ok(&["create", "v1"]);
    fs::create_dir(state.data("v1").join("sub")).unwrap();
    let done = shell(
        &state,
        r#"
        mkdir "$S/precious"
        echo 1 >"$S/precious/file"
        mount --bind "$S/precious" "$S/volumes/v1/_data/sub"
        "$BIN" volume rm -f v1 || echo "refused $?"
        cat "$S/precious/file"
        "#,
    )
    .ok();
    assert!(done.err.contains("is mounted at") && done.err.contains("_data/sub"), "{}", done.err);
    assert_eq!(done.out, "refused 1\n1\n");
    assert_eq!(state.ok(&["rm", "v1"]), "v1\n");
}

#[test]
fn a_tmpfs_is_empty_anew_at_each_use() {
    if !namespace() {
        return;
    }
    let state = State::new();
    state.ok(&["create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=700", "v1"]);
    let done = shell(
        &state,
        r#"
        mkdir "$S/tree"
        echo 1 >"$S/tree/file"
        tar -cf "$S/a.tar" -C "$S/tree" .
        "$BIN" volume import v1 "$S/a.tar"
        "$BIN" volume export v1 | tar -t
        "#,
    )
    .ok();
    assert_eq!(done.out, "v1\n./\n");
    assert_eq!(common::names(state.data("v1")), [""; 0]);
}

#[test]
fn what_cannot_be_mounted_is_one_line_with_the_option_and_the_remedy() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let image = state.path().join("image");
    fs::write(&image, vec![0; 1 << 16]).unwrap();
    let image = format!("device={}", image.display());
    for (options, part) in [
        (["type=none", "o=bind", "device=/no/such/dir"], "`device=/no/such/dir` does not exist: correct"),
        (["type=none", "o=bind", "device=/etc/passwd"], "`device=/etc/passwd` is not a directory: name"),
        (["type=none", "o=rw", "device=/srv"], "`type=none` names no filesystem"),
        (["type=ext4", "o=rw", "device=/"], "`device=/` is not a block device: set one up with `losetup"),
        (["type=ext4", "o=rw", &image], "is not a block device: set one up with `losetup"),
        (["type=ext4", "o=loop", &image], "`o=loop`: no loop device is set up"),
        (["type=ext4", "o=ro", "device=UUID=1-2"], "write `/dev/disk/by-uuid/1-2`"),
        (
            ["type=nfs", "o=addr=no-such-host.invalid,rw", "device=:/x"],
            "`o=addr=no-such-host.invalid`: the name cannot be resolved",
        ),
        (["type=tmpfs", "o=size=wrong", "device=tmpfs"], "refuses `o=size=wrong` for `type=tmpfs`"),
        (["type=tmpfs", "o=shared,private", "device=tmpfs"], "one word of private, shared"),
        (["type=zfs", "o=rw", "device=pool/data"], "no such filesystem: load its module with `modprobe zfs`"),
    ] {
        let [kind, o, device] = options;
        state.ok(&["create", "-o", kind, "-o", o, "-o", device, "v1"]);
        let done = shell(
            &state,
            r#""$BIN" volume export v1 && exit; rc=$?; ! grep "$S/volumes" /proc/self/mountinfo; exit $rc"#,
        );
        assert_eq!((done.code, done.err.lines().count()), (Some(1), 1), "{}", done.err);
        assert!(
            done.err.contains(part) && done.err.contains("\"v1\"") && done.err.contains("inspect v1"),
            "{part:?} is not in {}",
            done.err
        );
        assert_eq!(done.out, "", "what is mounted");
        assert_eq!(state.json("v1")["Stratafs"]["Users"], serde_json::json!([]));
        state.ok(&["rm", "v1"]);
    }
}

/// The second user finds the mount, and the first to go leaves it.
#[test]
fn users_share_one_mount_and_the_last_takes_it_away() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let source = state.path().join("source");
    fs::create_dir(&source).unwrap();
    // More than a pipe holds: who writes it waits for its reader.
    fs::write(source.join("file"), vec![0; 1 << 20]).unwrap();
    let device = format!("device={}", source.display());
    state.ok(&["create", "-o", "type=none", "-o", "o=bind", "-o", &device, "v1"]);
    let done = shell(
        &state,
        r#"
        mounts() { grep -c "v1/_data" /proc/self/mountinfo || :; }
        users() { "$BIN" volume inspect -f '{{len .Stratafs.Users}}' v1; }
        mkfifo "$S/one" "$S/two"
        "$BIN" volume export v1 >"$S/one" & exec 3<"$S/one"
        "$BIN" volume export v1 >"$S/two" & exec 4<"$S/two"
        for i in $(seq 100); do [ "$(users)" = 2 ] && break; sleep 0.05; done
        echo "$(users) $(mounts)"
        cat <&3 >/dev/null; exec 3<&-; wait %1
        echo "$(users) $(mounts)"
        cat <&4 >/dev/null; exec 4<&-; wait %2
        echo "$(users) $(mounts)"
        "#,
    )
    .ok();
    assert_eq!(done.out, "2 1\n1 1\n0 0\n");
}

#[test]
fn what_is_mounted_is_filled_and_keeps_what_it_has() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let source = state.path().join("source");
    fs::create_dir(&source).unwrap();
    let device = format!("device={}", source.display());
    state.ok(&["create", "-o", "type=none", "-o", "o=bind", "-o", &device, "v1"]);
    let done = shell(
        &state,
        r#"
        mkdir -p "$S/tree/sub"
        echo 1 >"$S/tree/sub/file"
        chown 33:44 "$S/tree"
        chmod 1750 "$S/tree"
        touch -d '2001-02-03 04:05:06.789 UTC' "$S/tree"
        tar --format=pax -cf "$S/a.tar" -C "$S/tree" .
        "$BIN" volume import v1 "$S/a.tar"
        TZ=UTC stat -c '%a %u %g %y' "$S/source"
        find "$S/source" -mindepth 1 -printf '%P\n' | sort
        "$BIN" volume import v1 "$S/a.tar" || echo refused
        ! grep -q "$S/volumes" /proc/self/mountinfo
        "#,
    )
    .ok();
    assert_eq!(done.out, "v1\n1750 33 44 2001-02-03 04:05:06.789000000 +0000\nsub\nsub/file\nrefused\n");
    assert!(done.err.contains("not empty"), "{}", done.err);
}
