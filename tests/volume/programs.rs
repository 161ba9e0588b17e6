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

/// Programs in a directory of the caller's, in front of the system's. Root without the right to mount needs fusermount3.
#[test]
fn root_searches_no_program_in_the_path() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let bin = state.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in [
        "mount",
        "mount.nfs",
        "mount.cifs",
        "umount",
        "modprobe",
        "sh",
        "fusermount3",
        "fusermount",
        "mkdir",
        "ls",
    ] {
        let script = format!("#!/bin/sh\nid >{}\n", state.path().join("mark").display());
        fs::write(bin.join(name), script).unwrap();
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
        unprivileged=$(command -v setpriv) || unprivileged=
        mkdir "$S/lower" "$S/merged" "$S/other"
        "$BIN" mount -l "$S/lower" "$S/merged" || :
        export PATH=$S/bin:$PATH
        "$BIN" volume export tmp -o "$S/a.tar"
        "$BIN" volume export nfs || echo "exit status $?"
        "$BIN" demo >"$S/out" 2>&1 || :
        if [ "$unprivileged" ]; then
            set -- "$unprivileged" --bounding-set -sys_admin --inh-caps -sys_admin "$BIN"
            "$@" umount "$S/merged" || :
            "$@" mount -l "$S/lower" "$S/other" || :
        fi
        "$BIN" umount "$S/merged" || :
        "#,
    );
    assert_eq!((done.code, done.out.as_str()), (Some(0), "exit status 1\n"), "{}", done.err);
    assert!(!state.path().join("mark").exists(), "a program of $PATH has run");
}

/// A store written by another user is checked like a command line.
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

/// A helper that writes down how it was started, and mounts a tmpfs.
fn helper(state: &State) -> String {
    let path = state.path().join("helper");
    let script = format!(
        "#!/bin/sh\nexec >>{}\necho \"argv $*\"\necho \"umask $(umask) cwd $(pwd)\"\n\
         echo \"environ $(tr '\\0' ' ' </proc/$$/environ)\"\n\
         for fd in /proc/$$/fd/*; do case $fd in */[012]|*/10|*/255) ;; *) ! [ -e $fd ] || echo \"descriptor $fd\"; esac; done\n\
         exec /bin/mount -t tmpfs helped \"$2\"\n",
        state.path().join("log").display()
    );
    fs::write(&path, script).unwrap();
    common::sys::chmod(&path, 0o755).unwrap();
    path.display().to_string()
}

fn log(state: &State) -> String {
    let path = state.path().join("log");
    let text = common::text(&path).replace(&state.path().display().to_string(), "STATE");
    fs::remove_file(&path).unwrap();
    text
}

const STARTED: &str = "umask 0022 cwd /\nenviron \n";

#[test]
fn a_helper_that_the_command_line_allows_mounts_the_volume() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let helper = helper(&state);
    state.ok(&[
        "create",
        "-o",
        "type=fuse.x",
        "-o",
        "device=user@host:/d",
        "-o",
        "o=ro,uid=5,defaults",
        "v1",
    ]);
    let unhelped = shell(&state, r#"exec "$BIN" volume export v1"#);
    refused(&state, &unhelped, &["`type=fuse.x`", "--allow-helper"]);
    let script = format!(
        r#"
        umask 0
        exec 7</dev/null
        "$BIN" volume export --allow-helper fuse.x={helper} v1 | tar -t
        mkdir "$S/lower" "$S/merged"
        "$BIN" mount -f -l "$S/lower" --ephemeral --allow-helper fuse.x={helper} "$S/merged" 2>"$S/err" &
        for i in $(seq 200); do ! grep -q "$S/merged" /proc/self/mountinfo || break; sleep 0.05; done
        "$BIN" graft add "$S/merged" -v v1:/data
        grep -c "v1/_data rw.* - tmpfs helped" /proc/self/mountinfo
        echo >"$S/merged/data/file"
        "$BIN" umount "$S/merged"
        wait
        ! grep "$S/volumes" /proc/self/mountinfo
        "#
    );
    assert_eq!(shell(&state, &script).ok().out, "./\n1\n");
    let once = format!("argv user@host:/d STATE/volumes/v1/_data -o ro,uid=5\n{STARTED}");
    assert_eq!(log(&state), once.clone() + &once);
}

#[test]
fn a_helper_is_given_no_option_and_no_source_that_starts_a_program() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let helper = helper(&state);
    for (o, device, part) in [
        ("o=ro,ssh_command=sh", "device=h:/d", "`o=ssh_command`"),
        ("o=-oProxyCommand=sh", "device=h:/d", "`o=-oProxyCommand`"),
        ("o=ro", "device=-oProxyCommand=sh", "`device=\"-oProxyCommand=sh\"`"),
        ("o=ro", "device=[-oProxyCommand=sh]:/d", "could be taken for an option"),
    ] {
        state.ok(&["create", "-o", "type=fuse.x", "-o", device, "-o", o, "v1"]);
        let done = shell(&state, &format!(r#"exec "$BIN" volume export --allow-helper fuse.x={helper} v1"#));
        refused(&state, &done, &["\"v1\"", part]);
        state.ok(&["rm", "v1"]);
    }
    assert!(!state.path().join("log").exists(), "the helper was started");
    for wrong in ["fuse=/bin/sh", "fuse.x=helper", "fuse.x=/sbin/mount.fuse3", "fuse.x"] {
        state.refuses(&["export", "--allow-helper", wrong, "v1"], 2, &["--allow-helper", wrong]);
    }
}

#[test]
fn a_helper_that_fails_leaves_nothing() {
    if !namespace() {
        return;
    }
    let state = State::new();
    state.ok(&["create", "-o", "type=x", "-o", "device=d", "v1"]);
    let path = state.path().join("helper");
    for (script, part) in [
        ("echo 'no such server.' >&2; exit 3", "it has failed, exit status: 3: no such server: correct"),
        ("exit 0", "it has ended, and nothing is mounted"),
        ("/bin/mount -t tmpfs x \"$2\"; exit 1", "it has failed"),
    ] {
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        common::sys::chmod(&path, 0o755).unwrap();
        let script = format!(
            r#""$BIN" volume export --allow-helper "x={}" v1 || rc=$?; ! grep "$S/volumes" /proc/self/mountinfo; exit $rc"#,
            path.display()
        );
        let done = shell(&state, &script);
        refused(&state, &done, &["\"v1\"", "`type=x`", part]);
        assert_eq!(done.out, "", "what is mounted");
    }
}

#[test]
fn a_helper_of_the_administrators_file_mounts_the_volume() {
    if !namespace() {
        return;
    }
    let state = State::new();
    let helper = helper(&state);
    state.ok(&["create", "-o", "type=fuse.x", "-o", "device=host:/d", "-o", "o=cache=yes", "v1"]);
    // /etc of the namespace only.
    let script = format!(
        r#"
        mkdir "$S/etc"
        mount -t tmpfs etc "$S/etc"
        mkdir "$S/etc/upper" "$S/etc/work"
        mount -t overlay etc -o lowerdir=/etc,upperdir="$S/etc/upper",workdir="$S/etc/work" /etc || {{ echo skipped; exit 0; }}
        rm -rf /etc/stratafs
        mkdir -m 755 /etc/stratafs
        file=/etc/stratafs/helpers
        try() {{ "$BIN" volume export v1 | tar -t || :; }}
        try
        printf '# of this machine\n\nfuse.x={helper}:cache\n' >$file
        chmod 644 $file; try
        chmod 666 $file; try
        chmod 644 $file; chown 1000 $file; try
        chown 0 $file; mv $file $file.real; ln -s helpers.real $file; try
        rm $file; printf 'fuse.x={helper}\n' >$file; chmod 644 $file; try
        "#
    );
    let done = shell(&state, &script).ok();
    if done.out.contains("skipped") {
        println!("skipped: needs overlayfs");
        return;
    }
    assert_eq!(done.out, "./\n", "{}", done.err);
    let lines: Vec<&str> = done.err.lines().filter(|line| line.starts_with("stratafs: ")).collect();
    let parts =
        ["/etc/stratafs/helpers", "others than root", "others than root", "it is a link", "`o=cache`"];
    assert_eq!(lines.len(), parts.len(), "{}", done.err);
    for (line, part) in lines.iter().zip(parts) {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    assert_eq!(log(&state), format!("argv host:/d STATE/volumes/v1/_data -o cache=yes\n{STARTED}"));
}
