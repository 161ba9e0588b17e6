//! The commands one by one, and what is refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use stratafs::volume::Store;

use super::State;
use super::common::{self, fs, run, sum};

#[test]
fn create_prints_the_name_and_ls_lists_it_as_docker_does() {
    let state = State::new();
    assert_eq!(state.ok(&["ls"]), "DRIVER    VOLUME NAME\n");
    for name in ["v10", "v2"] {
        assert_eq!(state.ok(&["create", "--label", "a=1", "--label", "b", name]), format!("{name}\n"));
    }
    assert_eq!(state.ok(&["create", "v2"]), "v2\n", "again is no matter");
    assert_eq!(state.ok(&["ls"]), "DRIVER    VOLUME NAME\nlocal     v2\nlocal     v10\n");
    assert_eq!(state.ok(&["list", "-q"]), "v2\nv10\n");
    assert_eq!(
        state.ok(&["ls", "--format", "table {{.Name}}\\t{{.Labels}}"]),
        "VOLUME NAME   LABELS\nv2            a=1,b=\nv10           a=1,b=\n"
    );
    assert_eq!(
        state.ok(&["ls", "--format", "{{.Name}}: {{.Driver}} {{.Scope}} {{.Label \"a\"}}"]),
        "v2: local local 1\nv10: local local 1\n"
    );
    assert_eq!(state.ok(&["ls", "--format", "", "-f", "name=v2"]), "DRIVER    VOLUME NAME\nlocal     v2\n");
    assert_eq!(state.ok(&["ls", "--format", "raw", "-f", "name=v2"]), "name: v2\ndriver: local\n\n");
    assert_eq!(state.ok(&["ls", "-q", "--format", "raw", "-f", "name=v2"]), "name: v2\n");
    assert_eq!(state.ok(&["ls", "-q", "--format", "{{.Driver}}", "-f", "name=v2"]), "local\n");
    let line = state.ok(&["ls", "--format", "json", "-f", "name=v2"]);
    let fields: BTreeMap<String, String> = serde_json::from_str(&line).unwrap();
    let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "Availability",
            "Driver",
            "Group",
            "Labels",
            "Links",
            "Mountpoint",
            "Name",
            "Scope",
            "Size",
            "Status"
        ]
    );
    assert_eq!(fields["Mountpoint"], state.data("v2").to_str().unwrap());
    assert_eq!(fs::metadata(state.data("v2")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn the_state_is_named_by_option_before_environment() {
    let (state, other) = (State::new(), State::new());
    let place = other.path().join("made/on the way");
    let mut command = state.command(&["--state"]);
    run(command.arg(&place).args(["create", "v1"])).ok();
    let mut command = state.command(&["ls", "-q", "--state"]);
    assert_eq!(run(command.arg(&place)).ok().out, "v1\n");
    assert_eq!(state.ok(&["ls", "-q"]), "");
    let mut home = Command::new(common::program());
    home.args(["volume", "create", "v3"])
        .env_remove("STRATAFS_STATE")
        .env("XDG_DATA_HOME", other.path().join("xdg"));
    if !nix::unistd::geteuid().is_root() {
        run(&mut home).ok();
        assert!(other.path().join("xdg/stratafs/volumes/v3/_data").is_dir());
    }
    fs::write(other.path().join("file"), "").unwrap();
    let mut command = state.command(&["ls", "--state"]);
    let done = run(command.arg(other.path().join("file/x")));
    assert!(
        done.code == Some(1) && done.err.contains("--state") && done.err.lines().count() == 1,
        "{}",
        done.err
    );
}

#[test]
fn inspect_has_dockers_fields_and_ours() {
    let state = State::new();
    state.ok(&[
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "--opt",
        "o=size=1m,mode=700",
        "--label",
        "x=y",
        "v1",
    ]);
    state.ok(&["create", "v2"]);
    let all = state.ok(&["inspect", "v1", "v2"]);
    assert!(all.starts_with("[\n    {\n        \"CreatedAt\": \"20"), "{all}");
    let v1 = state.json("v1");
    let keys: Vec<&String> = v1.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope", "Stratafs"]);
    assert_eq!(
        (&v1["Driver"], &v1["Scope"], &v1["Labels"]["x"]),
        (&"local".into(), &"local".into(), &"y".into())
    );
    assert_eq!(v1["Options"]["o"], "size=1m,mode=700");
    assert_eq!(v1["Stratafs"], serde_json::json!({"Populated": null, "Users": []}));
    let format = "{{.Name}} {{.Options.type}} {{json .Labels}} {{index .Labels \"x\"}}";
    assert_eq!(state.ok(&["inspect", "-f", format, "v1"]), "v1 tmpfs {\"x\":\"y\"} y\n");
    assert!(state.ok(&["inspect", "--format", "json", "v2"]).starts_with("[{\"CreatedAt\""));
    let missing = state.refuses(&["inspect", "v1", "nope", "v2"], 1, &["get nope: no such volume"]);
    let found: serde_json::Value = serde_json::from_str(&missing.out).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert_eq!(state.refuses(&["inspect", "nope"], 1, &["no such volume"]).out, "[]\n");
}

#[test]
fn an_anonymous_volume_has_64_digits_and_dockers_label() {
    let state = State::new();
    let name = state.ok(&["create"]);
    let name = name.trim_end();
    assert!(
        name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()),
        "{name}"
    );
    assert_eq!(state.json(name)["Labels"], serde_json::json!({"com.docker.volume.anonymous": ""}));
    assert_ne!(state.ok(&["create", ""]).trim_end(), name);
}

#[test]
fn filters_choose() {
    let state = State::new();
    for args in [
        &["create", "--label", "app=web", "--label", "keep", "web-1"][..],
        &["create", "--label", "app=db", "db-1"],
        &["create", "db-2"],
    ] {
        state.ok(args);
    }
    let store = Store::open(state.path()).unwrap();
    let user = store.use_existing("db-1", Path::new("/mnt/app")).unwrap();
    for (filters, expected) in [
        (&["name=db"][..], &["db-1", "db-2"][..]),
        (&["name=web", "name=2"], &["db-2", "web-1"]),
        (&["name=^1"], &[]),
        (&["label=app"], &["db-1", "web-1"]),
        (&["label=app=web", "label=keep"], &["web-1"]),
        (&["label=app=web", "label=none"], &[]),
        (&["driver=local"], &["db-1", "db-2", "web-1"]),
        (&["driver=nfs"], &[]),
        (&["dangling=true"], &["db-2", "web-1"]),
        (&["dangling=0"], &["db-1"]),
        (&["dangling=1", "name=web"], &["web-1"]),
    ] {
        let mut args = vec!["ls", "-q"];
        filters.iter().for_each(|filter| args.extend(["-f", filter]));
        assert_eq!(state.ok(&args).lines().collect::<Vec<_>>(), expected, "{filters:?}");
    }
    let users = &state.json("db-1")["Stratafs"]["Users"];
    assert_eq!(users, &serde_json::json!([{"Mountpoint": "/mnt/app", "Pid": std::process::id()}]));
    drop(user);
}

#[test]
fn rm_goes_on_after_a_refusal() {
    let state = State::new();
    for name in ["v1", "v2", "v3"] {
        state.ok(&["create", name]);
    }
    let store = Store::open(state.path()).unwrap();
    let user = store.use_existing("v2", Path::new("/mnt/app")).unwrap();
    fs::write(state.data("v3").join("file"), "x").unwrap();
    let done = state.run(&["rm", "v1", "v2", "nope", "v3"]);
    assert_eq!((done.code, done.out.as_str()), (Some(1), "v1\nv3\n"));
    let lines: Vec<&str> = done.err.lines().collect();
    assert!(lines[0].starts_with("stratafs: remove v2: volume is in use - [/mnt/app]"), "{}", lines[0]);
    assert!(lines.len() == 2 && lines[1].contains("no such volume: nope"), "{}", done.err);
    state.refuses(&["rm", "-f", "v2"], 1, &["in use"]);
    assert_eq!(state.ok(&["rm", "-f", "nope"]), "nope\n");
    drop(user);
    assert_eq!(state.ok(&["remove", "v2"]), "v2\n");
    assert_eq!(fs::read_dir(state.path().join("volumes")).unwrap().count(), 0);
}

/// The user is a process that is killed: its record is left, its lock is not.
#[test]
fn a_killed_user_keeps_nothing() {
    let state = State::new();
    state.ok(&["create", "v1"]);
    // An import that waits for its archive is a user of the volume.
    let mut import = state.command(&["import", "v1"]);
    let mut import = common::spawn(import.stdin(Stdio::piped()).stdout(Stdio::null()));
    let users = || state.json("v1")["Stratafs"]["Users"].as_array().unwrap().len();
    assert!(common::eventually(common::LIMIT, || users() == 1));
    let refused = state.run(&["rm", "v1"]);
    assert!(refused.err.contains("volume is in use - [(stratafs volume import)]"), "{}", refused.err);
    import.kill().unwrap();
    import.wait().unwrap();
    assert_eq!(users(), 0);
    assert_eq!(state.ok(&["rm", "v1"]), "v1\n");
}

#[test]
fn prune_takes_no_named_volume_and_none_in_use() {
    let state = State::new();
    let anonymous = state.ok(&["create"]).trim_end().to_owned();
    let used = state.ok(&["create"]).trim_end().to_owned();
    let labelled = state.ok(&["create", "--label", "keep=1"]).trim_end().to_owned();
    state.ok(&["create", "named"]);
    fs::write(state.data(&anonymous).join("file"), vec![0; 1_234_567]).unwrap();
    let store = Store::open(state.path()).unwrap();
    let user = store.use_existing(&used, Path::new("/mnt/app")).unwrap();
    let before = state.tree();
    let done = run(&mut state.command(&["prune"])).ok();
    assert_eq!(
        done.out,
        "WARNING! This will remove anonymous local volumes not used by at least one mount.\n\
         Are you sure you want to continue? [y/N] "
    );
    let dry = state.ok(&["prune", "--dry-run", "--filter", "label!=keep"]);
    assert_eq!(
        dry,
        format!("Volumes that would be deleted:\n{anonymous}\n\nSpace that would be reclaimed: 1.235MB\n")
    );
    assert_eq!(sum::diff(&before, &state.tree()), "");
    let pruned = state.ok(&["prune", "-f", "--filter", "label!=keep=1"]);
    assert_eq!(pruned, format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 1.235MB\n"));
    assert_eq!(state.ok(&["prune", "-f", "--filter", "label=keep=2"]), "Total reclaimed space: 0B\n");
    assert!(state.ok(&["prune", "-f"]).contains(&labelled));
    assert!(state.ok(&["prune", "-f", "--filter", "all=1", "--dry-run"]).contains("\nnamed\n"));
    let mut prune = state.command(&["prune", "--all"]);
    let mut prune = common::spawn(prune.stdin(Stdio::piped()).stdout(Stdio::piped()));
    prune.stdin.take().unwrap().write_all(b"y\n").unwrap();
    let out = String::from_utf8(prune.wait_with_output().unwrap().stdout).unwrap();
    assert!(
        out.contains("remove all local volumes") && out.contains("[y/N] Deleted Volumes:\nnamed\n\n"),
        "{out}"
    );
    assert_eq!(state.ok(&["ls", "-q"]), format!("{used}\n"));
    drop(user);
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let state = State::new();
    state.ok(&["create", "-o", "type=tmpfs", "-o", "device=tmpfs", "v1"]);
    for name in ["a", "-", "_x", ".x", "a/b", "/abs", "../x", "a b", "a:b", "ü1", "a\nb", &"x".repeat(300)] {
        state.refuses(&["create", "--", name], 1, &["volume name"]);
    }
    for (args, status, parts) in [
        (&["create", "-d", "nfs", "v2"][..], 1, &["\"nfs\"", "`local`"][..]),
        (&["create", "-o", "type=nfs", "v2"], 1, &["`type=nfs`", "`device`"]),
        (&["create", "-o", "device=/x", "v2"], 1, &["`type`"]),
        (&["create", "-o", "o=rw", "v2"], 1, &["`o=rw`"]),
        (&["create", "-o", "size=1g", "v2"], 1, &["`size=1g`", "quota"]),
        (&["create", "-o", "colour=red", "v2"], 1, &["`colour=red`", "type, device and o"]),
        (&["create", "-o", "type=none", "-o", "o=bind", "-o", "device=rel", "v2"], 1, &["absolute"]),
        (&["create", "-o", "type", "v2"], 2, &["KEY=VALUE"]),
        (&["create", "--label", "=x", "v2"], 2, &["--label"]),
        (
            &["create", "-o", "type=none", "-o", "device=/srv", "-o", "o=bind", "v1"],
            1,
            &["exists already", "type=\"tmpfs\", not \"none\""],
        ),
        (&["ls", "-f", "size=1"], 2, &["size=1", "dangling"]),
        (&["ls", "-f", "dangling"], 2, &["KEY=VALUE"]),
        (&["ls", "-f", "dangling=x"], 2, &["`true`"]),
        (&["ls", "--format", "{{.Nmae}}"], 2, &["{{.Nmae}}", "`.Nmae`"]),
        (&["ls", "--format", "{{.Name"], 2, &["never closed"]),
        (&["inspect", "-f", "{{range .Labels}}{{end}}", "v1"], 2, &["`range`"]),
        (&["prune", "-f", "--filter", "name=x"], 2, &["name=x", "label"]),
        (&["rm", "a/b"], 1, &["no such volume: a/b"]),
        (&["export", "nope"], 1, &["no such volume: nope"]),
        (&["import", "v2", "/no/such/file"], 1, &["/no/such/file"]),
        (&["import", "a", "/dev/null"], 1, &["volume name"]),
        (&["import", "v2", "/dev/null"], 1, &["cut off"]),
    ] {
        state.refuses(args, status, parts);
    }
    for args in [&["create", "one", "two"][..], &["rm"], &["inspect"], &["crate"], &[]] {
        assert_eq!(state.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn what_crashes_have_left_is_swept_and_broken_volumes_are_named() {
    let state = State::new();
    for name in ["v1", "v2"] {
        state.ok(&["create", name]);
    }
    let volumes = state.path().join("volumes");
    for left in [".tmp-0123", ".trash-4567"] {
        fs::create_dir_all(volumes.join(left).join("_data/sub")).unwrap();
        fs::write(volumes.join(left).join("_data/sub/file"), "half").unwrap();
    }
    fs::write(volumes.join(".tmp-0123/lock"), "").unwrap();
    fs::write(state.volume("v2").join("meta.json.new"), "{\"Vers").unwrap();
    assert_eq!(state.ok(&["ls", "-q"]), "v1\nv2\n");
    let names: Vec<String> =
        fs::read_dir(&volumes).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() == 2 && !names.iter().any(|name| name.starts_with('.')), "{names:?}");

    fs::write(state.volume("v1").join("meta.json"), "{\"Version\":1,").unwrap();
    let parts = ["v1/meta.json", "broken", "rm -f v1"];
    let listed = state.refuses(&["ls", "-q"], 1, &parts);
    assert_eq!(listed.out, "v2\n", "the others are listed");
    state.refuses(&["inspect", "v1"], 1, &parts);
    state.refuses(&["create", "v1"], 1, &parts);
    state.refuses(&["rm", "v1"], 1, &parts);
    assert_eq!(state.ok(&["rm", "-f", "v1"]), "v1\n");
    fs::remove_dir(state.data("v2")).unwrap();
    state.refuses(&["export", "v2"], 1, &["v2/_data", "volume rm v2"]);
    assert_eq!(state.ok(&["rm", "v2"]), "v2\n");
}

/// The staging directory of a filling that was interrupted is removed by its name, which must be one that stratafs gives.
#[test]
fn a_forged_meta_json_removes_nothing_outside_the_volume() {
    let state = State::new();
    fs::create_dir(state.path().join("precious")).unwrap();
    fs::write(state.path().join("precious/file"), "kept").unwrap();
    for (staging, inside) in [
        ("../../precious", false),
        ("../../../precious", true),
        ("_data", false),
        ("users", false),
        (".stratafs-population-../../../../precious", true),
        (".", true),
        ("", true),
    ] {
        state.ok(&["create", "v1"]);
        fs::write(state.data("v1").join("own"), "kept").unwrap();
        let path = state.volume("v1").join("meta.json");
        let mut meta: serde_json::Value = serde_json::from_str(&common::text(&path)).unwrap();
        meta["Population"] = serde_json::json!({"Staging": staging, "Inside": inside});
        fs::write(&path, meta.to_string()).unwrap();
        state.refuses(&["export", "v1"], 1, &["\"v1\"", "meta.json", "Staging"]);
        assert_eq!(common::text(state.path().join("precious/file")), "kept", "{staging:?}");
        assert_eq!(common::text(state.data("v1").join("own")), "kept", "{staging:?}");
        state.ok(&["rm", "-f", "v1"]);
    }
}

/// A lock that others can open is a lock that others can hold.
#[test]
fn files_of_the_store_are_closed_to_others_whatever_the_umask() {
    let state = State::new();
    let mut create = Command::new("sh");
    create.args(["-c", "umask 0; exec \"$BIN\" volume create v1"]).env("BIN", common::program());
    run(create.env("STRATAFS_STATE", state.path())).ok();
    let modes = |files: &[&str]| -> Vec<u32> {
        let mode = |file: &&str| fs::metadata(state.path().join(file)).unwrap().mode() & 0o7777;
        files.iter().map(mode).collect()
    };
    assert_eq!(
        modes(&["lock", "volumes/v1/lock", "volumes/v1/meta.json", "volumes/v1/fill.lock"]),
        [0o600; 4]
    );
    assert_eq!(
        modes(&["volumes", "volumes/v1", "volumes/v1/users", "volumes/v1/_data"]),
        [0o700, 0o700, 0o700, 0o755]
    );
    // As an earlier version made it.
    common::sys::chmod(state.path().join("lock"), 0o666).unwrap();
    common::sys::chmod(state.path().join("volumes"), 0o701).unwrap();
    state.ok(&["create", "v2"]);
    assert_eq!(modes(&["lock", "volumes"]), [0o600, 0o700]);
    if nix::unistd::geteuid().is_root() {
        common::sys::lchown(state.path().join("volumes"), 12345, 0).unwrap();
        state.refuses(&["create", "v3"], 1, &["belongs to user 12345"]);
    }
}

/// Volumes come and go while others list and prune: nobody hears of one that he has not named, and none is called broken.
#[test]
fn volumes_that_come_and_go_are_no_fault_of_a_listing() {
    let state = State::new();
    state.ok(&["create", "stays"]);
    let store = Store::open(state.path()).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for maker in 0..3 {
            let (store, over) = (&store, &over);
            scope.spawn(move || {
                let labels = std::collections::BTreeMap::new();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let name = (maker > 0).then_some("comes-and-goes");
                    let Ok((meta, _)) = store.create(name, None, &labels, &labels) else { continue };
                    drop(store.remove(&meta.name, true));
                }
            });
        }
        let all_ok = || {
            for _ in 0..60 {
                for args in [&["ls"][..], &["prune", "-f"], &["prune", "-f", "--filter", "label!=x"]] {
                    let done = run(&mut state.command(args));
                    if (done.code, done.err.as_str()) != (Some(0), "") {
                        return Err(format!("{args:?}: {done:?}"));
                    }
                }
            }
            Ok(())
        };
        let outcome = all_ok();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.unwrap();
    });
    assert!(state.ok(&["ls", "-q"]).contains("stays\n"));
}
