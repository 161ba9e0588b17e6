//! No content of a file selects a program: neither the options of a volume, nor a compose file, nor what the store holds.

use super::State;
use super::common::{self, Done, fs};
use super::driver::{namespace, shell};

/// What mount.fuse would start: a shell that leaves a mark.
fn device(state: &State) -> String {
    format!("env#-Ssh -c \"id >{}\"", state.path().join("mark").display())
}

#[track_caller]
fn refused(state: &State, done: &Done, parts: &[&str]) {
    assert_eq!((done.code, done.err.lines().count()), (Some(1), 1), "{}{}", done.out, done.err);
    for part in parts {
        assert!(done.err.contains(part), "{part:?} is not in {}", done.err);
    }
    assert!(!state.path().join("mark").exists(), "a program has run");
    assert!(!common::text("/proc/self/mountinfo").contains(&state.path().display().to_string()));
}

#[test]
fn a_compose_file_starts_no_program() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let device = device(&state).replace('\'', "''");
    for kind in ["fuse", "fuse.sh", "fuse3", "fuseblk"] {
        let text = format!(
            "services: {{a: {{volumes: ['data:/data']}}}}\nvolumes: {{data: {{driver_opts: {{type: {kind}, device: '{device}'}}}}}}\n"
        );
        fs::write(state.path().join("compose.yml"), text).unwrap();
        let done = shell(
            &state,
            r#"
            mkdir -p "$S/lower" "$S/merged"
            exec "$BIN" mount -l "$S/lower" --ephemeral --compose "$S/compose.yml" --service a "$S/merged"
            "#,
        );
        refused(&state, &done, &["_data\"", &format!("`type={kind}`"), "bind"]);
        assert_eq!(state.ok(&["ls", "-q"]), "", "a volume that was made for it is left");
    }
}

#[test]
fn the_options_of_a_volume_start_no_program() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let device = format!("device={}", device(&state));
    for kind in ["type=fuse", "type=fuse.env", "type=fuse3", "type=mount.fuse3", "type=auto", "type=cgroup"] {
        state.ok(&["create", "-o", kind, "-o", &device, "v1"]);
        let done = shell(&state, r#"exec "$BIN" volume export v1"#);
        refused(&state, &done, &["\"v1\"", &format!("`{kind}`"), "inspect v1"]);
        state.ok(&["rm", "v1"]);
    }
}

/// `mount` in a directory of the caller's, in front of the system's.
#[test]
fn no_program_is_searched_in_the_path() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let bin = state.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["mount", "mount.nfs", "mount.cifs", "umount", "modprobe", "sh", "fusermount3", "fusermount"]
    {
        fs::write(bin.join(name), format!("#!/bin/sh\nid >{}\n", state.path().join("mark").display()))
            .unwrap();
        common::sys::chmod(bin.join(name), 0o755).unwrap();
    }
    state.ok(&["create", "-o", "type=tmpfs", "-o", "device=tmpfs", "tmp"]);
    state.ok(&[
        "create",
        "-o",
        "type=nfs",
        "-o",
        "device=:/x",
        "-o",
        "o=addr=127.0.0.1,soft,retrans=0",
        "nfs",
    ]);
    let done = shell(
        &state,
        r#"
        export PATH=$S/bin:$PATH
        "$BIN" volume export tmp -o "$S/a.tar"
        "$BIN" volume export nfs || echo "exit status $?"
        "#,
    );
    assert_eq!((done.code, done.out.as_str()), (Some(0), "exit status 1\n"), "{}", done.err);
    assert!(!state.path().join("mark").exists(), "a program of $PATH has run");
}

/// A store that somebody else wrote is checked as a command line is.
#[test]
fn a_forged_meta_json_starts_no_program() {
    if !namespace() {
        return;
    }
    let state = State::new();
    state.ok(&["create", "v1"]);
    let path = state.volume("v1").join("meta.json");
    let mut meta: serde_json::Value = serde_json::from_str(&common::text(&path)).unwrap();
    meta["Options"] = serde_json::json!({"type": "fuse", "device": device(&state)});
    meta["Helper"] = serde_json::json!("/bin/sh");
    meta["AllowHelper"] = serde_json::json!(["fuse=/bin/sh"]);
    fs::write(&path, meta.to_string()).unwrap();
    let done = shell(&state, r#"exec "$BIN" volume export v1"#);
    refused(&state, &done, &["\"v1\"", "`type=fuse`"]);
}

#[test]
fn what_the_kernel_mounts_has_the_options_that_were_written() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let source = state.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    let bound = format!("device={}", source.display());
    for (name, kind, o, device) in [
        ("tmpfs", "type=tmpfs", "o=ro,nosuid,nodev,noexec,noatime,size=1m,mode=710", "device=scratch"),
        ("none", "type=tmpfs", "o=size=2m", "device=none"),
        ("bind", "type=none", "o=bind,ro,nosuid,noexec", &bound),
        ("rbind", "type=none", "o=rbind,rslave", &bound),
        ("plain", "type=none", "o=bind", &bound),
    ] {
        state.ok(&["create", "-o", kind, "-o", o, "-o", device, name]);
    }
    let done = shell(
        &state,
        r#"
        mount -t tmpfs below "$S/source/sub"
        mkdir "$S/lower"
        for v in tmpfs none bind rbind plain; do
            mkdir "$S/$v"
            "$BIN" mount -l "$S/lower" --ephemeral -v $v:/data:nocopy "$S/$v"
            grep " $S/volumes/$v/_data" /proc/self/mountinfo | sed "s|.* $S/volumes/||; s|master:[0-9]* ||"
            "$BIN" umount "$S/$v"
        done
        ! grep "$S/volumes" /proc/self/mountinfo
        "#,
    )
    .ok();
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(
        lines[0].starts_with("tmpfs/_data ro,nosuid,nodev,noexec,noatime - tmpfs scratch ro,"),
        "{}",
        lines[0]
    );
    assert!(lines[0].contains("size=1024k,mode=710"), "{}", lines[0]);
    assert!(lines[1].contains("- tmpfs none rw,size=2048k"), "{}", lines[1]);
    assert!(lines[2].starts_with("bind/_data ro,nosuid,noexec,"), "{}", lines[2]);
    assert!(
        lines[3].starts_with("rbind/_data rw,") && lines[4].starts_with("rbind/_data/sub rw,"),
        "{}",
        done.out
    );
    assert!(lines[5].starts_with("plain/_data rw,") && lines.len() == 6, "{}", done.out);
}

/// A filesystem on a disk. The loop device is of the test's own.
#[test]
fn a_disk_is_mounted_by_its_type() {
    let tools =
        ["/usr/sbin/mkfs.ext4", "/usr/sbin/losetup"].iter().all(|tool| std::path::Path::new(tool).exists());
    if !namespace() || !tools {
        return;
    }
    let state = State::new();
    let done = shell(
        &state,
        r#"
        truncate -s 8M "$S/image"
        /usr/sbin/mkfs.ext4 -q "$S/image"
        disk=$(/usr/sbin/losetup --find --show "$S/image") || { echo skipped; exit 0; }
        trap '/usr/sbin/losetup -d "$disk"' EXIT
        "$BIN" volume create -o type=ext4 -o device="$disk" -o o=noatime,nosuid,errors=remount-ro v1
        "$BIN" volume export v1 | tar -t
        mkdir "$S/lower" "$S/merged"
        "$BIN" mount -l "$S/lower" --ephemeral -v v1:/data "$S/merged"
        grep "v1/_data" /proc/self/mountinfo | sed "s|.* $S/volumes/||; s|/dev/loop[0-9]*|DISK|"
        echo kept >"$S/merged/data/file"
        "$BIN" umount "$S/merged"
        "$BIN" volume export v1 | tar -xO file
        "#,
    )
    .ok();
    if done.out.contains("skipped") {
        println!("skipped: needs loop devices");
        return;
    }
    let line = "v1/_data rw,nosuid,noatime - ext4 DISK rw,errors=remount-ro\n";
    assert!(done.out.contains(line) && done.out.ends_with("kept\n"), "{}", done.out);
}
