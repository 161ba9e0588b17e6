//! The compose files that people learn from, as they are written; and a source on a filesystem that others serve.

use std::process::Command;

use crate::common::*;
use crate::story::{NEW, OLD, Story};

/// The compose files that people learn from, as they are written.
#[test]
fn compose_files_work_as_they_are_written() {
    let Some(s) = Story::new() else { return };
    let file = |text: &str| s.host("test02/docker-compose.yml", text);
    let service = |name| ["--compose", "test02/docker-compose.yml", "--service", name];
    let volume = "test02_test02-tensorflow-volume";
    file(include_str!("../data/compose/wide.yml"));
    for (version, models) in [(0, vec!["base.h5"]), (1, vec!["base.h5", "today.h5"])] {
        let one = s.mount("one", version, &service("model_test"));
        assert_eq!(names(one.p("model_test/model")), models);
        assert_eq!(text(one.p("model_test/main.py")), OLD);
        fs::write(one.p("model_test/model/today.h5"), "today").unwrap();
        s.umount(one);
    }
    let labels = s.inspect(volume)["Labels"].clone();
    assert_eq!(labels["com.docker.compose.project"], "test02");
    assert_eq!(labels["com.docker.compose.volume"], "test02-tensorflow-volume");
    s.ok(&["volume", "rm", volume]);
    file(include_str!("../data/compose/right.yml"));
    for (version, program) in [(0, OLD), (1, NEW)] {
        let one = s.mount("one", version, &service("model_test"));
        assert_eq!(text(one.p("model_test/main.py")), program);
        assert_eq!(names(one.p("model_test/model")).len(), 1 + version);
        fs::write(one.p("model_test/model/today.h5"), "today").unwrap();
        s.umount(one);
    }
    // The other service has no storage.
    let one = s.mount("one", 0, &service("nginx"));
    assert_eq!(names(one.p("model_test/model")), ["base.h5"]);
    s.umount(one);
    s.no_mount(&service("model_tes"), "no such service: model_tes: did you mean `model_test`?");

    // There is no server, or no NFS in the kernel.
    file(include_str!("../data/compose/nfs.yml"));
    s.no_mount(&service("my-service"), "volume \"test02_nfs-volume\" cannot be mounted: ");

    // Only the place of the key is another.
    let key = s.host("path/to/private_key", "secret");
    let remote = include_str!("../data/compose/remote-db.yml");
    let remote = remote.replace("/path/to/private_key", key.to_str().unwrap());
    s.host("test02/docker-compose.yml", &remote);
    let one = s.mount("one", 0, &service("my-app"));
    assert_eq!(text(one.p("root/.ssh/id_rsa")), "secret");
    assert_eq!(err(fs::write(one.p("root/.ssh/id_rsa"), "")), Errno::EROFS);
    s.umount(one);
}

/// A filesystem that is mounted on the host is bound as any directory; where it dies, the rest of the mount lives on.
#[test]
fn a_distributed_source_serves_and_its_death_is_its_own() {
    let Some(s) = Story::new() else { return };
    let server = s.mount("server", 0, &[]);
    let one = s.mount("one", 1, &["-v", "./server/model_test:/mnt/shared"]);
    fs::write(one.p("mnt/shared/file"), "for all").unwrap();
    assert_eq!(text(server.p("model_test/file")), "for all");
    assert_eq!(text(one.p("mnt/shared/main.py")), OLD);
    let pid = daemons_of(&server.at)[0];
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let gone = || matches!(no(fs::read(one.p("mnt/shared/file"))), Err(Errno::ENOTCONN | Errno::EIO));
    assert!(eventually(LIMIT, gone));
    assert_eq!(text(one.p("model_test/main.py")), NEW);
    fs::write(one.p("model_test/new"), "new").unwrap();
    assert_eq!(s.changed("one"), ["model_test/new"]);
    s.umount(one);
}

/// `docker run -v` makes a directory of root's for every slip of the finger; here it is asked for.
#[test]
fn a_missing_source_is_made_only_when_asked() {
    let Some(s) = Story::new() else { return };
    s.no_mount(&["-v", "./logs/today:/logs"], "bind source path does not exist");
    assert!(!s.path("logs").exists());
    let made = ["-v", "./logs/today:/logs:create=dir", "-v", "./logs/file:/file:create=file"];
    let one = s.mount("one", 0, &made);
    fs::write(one.p("logs/log"), "a line").unwrap();
    fs::write(one.p("file"), "a word").unwrap();
    s.umount(one);
    let shown = |path: &str| (stat(s.path(path)).mode(), stat(s.path(path)).uid());
    let owner = stat(s.path("state")).uid();
    assert_eq!(shown("logs"), (0o040_755, owner));
    assert_eq!(shown("logs/today"), (0o040_755, owner));
    assert_eq!(shown("logs/file"), (0o100_644, owner));
    assert_eq!(
        (text(s.path("logs/today/log")), text(s.path("logs/file"))),
        ("a line".into(), "a word".into())
    );
}

/// What is attached is listed with its mount, also for programs.
#[test]
fn the_list_of_mounts_says_what_is_attached() {
    let Some(s) = Story::new() else { return };
    s.host("data/new.csv", "4,5,6");
    let more = ["-v", "./data:/model_test/data:ro", "-v", "models:/model_test/model", "-v", "./data:/cow:O"];
    let one = s.mount("one", 0, &more);
    let all = s.ok(&["ls", "-v"]);
    let block = all.split("\n\n").find(|block| block.starts_with(one.at.to_str().unwrap())).unwrap();
    let data = s.path("data").display().to_string();
    for line in [
        format!("  graft    /cow is {data}, copy-on-write"),
        format!("  graft    /model_test/data is {data}, read-only"),
        "  graft    /model_test/model is volume models".to_owned(),
    ] {
        assert!(block.lines().any(|found| found == line), "{line:?} is not in {block}");
    }
    let json: serde_json::Value = serde_json::from_str(&s.ok(&["ls", "--json"])).unwrap();
    let row =
        json.as_array().unwrap().iter().find(|row| row["mountpoint"] == one.at.to_str().unwrap()).unwrap();
    let targets: Vec<&str> =
        row["grafts"].as_array().unwrap().iter().map(|graft| graft["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["/cow", "/model_test/data", "/model_test/model"]);
    s.umount(one);
}

/// A descriptor that the command inherits keeps nothing busy: who has opened it does, if he still lives.
#[test]
fn who_asks_for_a_graft_to_go_is_not_who_uses_it() {
    let Some(s) = Story::new() else { return };
    s.host("data/new.csv", "4,5,6");
    let one = s.mount("one", 0, &["-v", "./data:/model_test/data"]);
    let script = "exec 3<\"$1/model_test/data/new.csv\"; exec \"$0\" graft rm \"$1\" /model_test/data";
    let mut command = Command::new("sh");
    run(command.args(["-c", script]).arg(program()).arg(&one.at)).ok();
    assert_eq!(names(one.p("model_test/data")), ["train.csv"]);
    s.umount(one);
}
