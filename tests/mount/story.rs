//! The story of `docs/volumes-tutorial.md`, fact by fact: bytes, errnos, listings, JSON. A service keeps its models in a volume,
//! gets new layers, is configured from the host, and its files are copied in and out.
//!
//! `l0` are the layers of the first version, `l1` of the second. Several mounts share them, so the fixture itself mounts
//! nothing; it looks at the lowers before and after.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::*;

pub const OLD: &str = "# TODO: load the model\n";
pub const NEW: &str = "load(\"model\")\n";

pub struct Story(pub Fixture);

/// A mount of the story. It goes with the value, in whatever way the test ends.
pub struct Mount {
    pub at: PathBuf,
    _free: Umount,
}

impl Story {
    pub fn new() -> Option<Story> {
        let mut f = Fixture::new(2)?.departs("it has no grafts")?;
        for (i, program) in [OLD, NEW].into_iter().enumerate() {
            let layer = f.lower(i).dir("model_test/model").mode(0o750).mtime(1_600_000_000, 5);
            let layer = layer.file("model_test/main.py", program).mode(0o755);
            let layer =
                layer.mtime(1_500_000_000 + i as i64, 123_456_789).xattr("user.version", format!("{i}"));
            let layer = layer.file("model_test/model/base.h5", "base").mtime(1_400_000_000, 0);
            let layer = layer.file("model_test/data/train.csv", "1,2,3").file("app/data/list", "buy milk");
            layer.file("app/config/config.json", "debug").file("app/config/defaults.json", "defaults");
        }
        f.note_lowers();
        Some(Story(f))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.dir().join(name)
    }

    /// A file of the host, in the test's directory.
    pub fn host(&self, name: &str, content: &str) -> PathBuf {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).env("STRATAFS_STATE", self.path("state")).current_dir(self.0.dir());
        command
    }

    /// What is printed, of a command that does what it is asked.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        run(&mut self.command(args)).ok().out
    }

    /// Refused with one line that has `part`.
    #[track_caller]
    fn refuses(&self, args: &[&str], part: &str) {
        let done = run(&mut self.command(args));
        assert!(matches!(done.code, Some(1 | 2)), "{args:?}: {done:?}");
        assert_eq!(done.err.lines().count(), 1, "{args:?}: {}", done.err);
        assert!(done.err.contains(part), "{args:?}: {part:?} is not in {}", done.err);
    }

    fn arguments(&self, name: &str, version: usize, more: &[&str]) -> Vec<String> {
        for dir in [name.to_owned(), format!("{name}-upper"), format!("{name}-work")] {
            fs::create_dir_all(self.path(&dir)).unwrap();
        }
        let (upper, work) = (format!("{name}-upper"), format!("{name}-work"));
        let layers = ["mount", "-l", &format!("l{version}"), "-u", &upper, "-w", &work].map(str::to_owned);
        layers
            .into_iter()
            .chain(more.iter().map(|word| (*word).to_owned()))
            .chain([self.path(name).to_str().unwrap().to_owned()])
            .collect()
    }

    /// Mounts the layers of a version at `name`, with an upper layer of that name.
    #[track_caller]
    pub fn mount(&self, name: &str, version: usize, more: &[&str]) -> Mount {
        let args = self.arguments(name, version, more);
        self.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let at = self.path(name);
        assert_eq!(mounts_at(&at).len(), 1, "exit 0 but nothing is mounted");
        Mount { _free: Umount(at.clone()), at }
    }

    /// A mount that is refused: nothing is mounted, no volume is made.
    #[track_caller]
    pub fn no_mount(&self, more: &[&str], part: &str) {
        let volumes = self.ok(&["volume", "ls", "-q"]);
        let args = self.arguments("none", 0, more);
        self.refuses(&args.iter().map(String::as_str).collect::<Vec<_>>(), part);
        assert_eq!(mounts_at(&self.path("none")), []);
        assert_eq!(self.ok(&["volume", "ls", "-q"]), volumes);
    }

    #[track_caller]
    pub fn umount(&self, mount: Mount) {
        let at = mount.at.to_str().unwrap().to_owned();
        // A process that another test has just forked may keep our files for a moment, until its exec.
        let gone = eventually(LIMIT, || {
            run(&mut self.command(&["umount", &at])).code == Some(0) || mounts_at(&mount.at).is_empty()
        });
        assert!(gone, "{at} cannot be unmounted");
        assert_eq!(daemons_of(&mount.at), [] as [i32; 0], "the daemon outlives umount");
        let left =
            dents(self.path(&format!("{}-work/work", mount.at.file_name().unwrap().to_str().unwrap())));
        assert!(left.is_empty(), "temporaries left in the workdir");
    }

    /// The files that a mount at `name` has changed.
    pub fn changed(&self, name: &str) -> Vec<String> {
        let tree = sum::tree(&self.path(&format!("{name}-upper")));
        let files = tree.iter().filter(|(_, entry)| entry.mode & libc::S_IFMT != libc::S_IFDIR);
        files.map(|(path, _)| path.to_str().unwrap().to_owned()).collect()
    }

    pub fn inspect(&self, volume: &str) -> Value {
        let all: Value = serde_json::from_str(&self.ok(&["volume", "inspect", volume])).unwrap();
        all[0].clone()
    }

    /// The directory of the host with what is in a volume.
    fn data(&self, volume: &str) -> PathBuf {
        self.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]).trim_end().into()
    }

    fn volumes(&self) -> Vec<String> {
        self.ok(&["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
    }
}

impl Mount {
    pub fn p(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }
}

/// (a)
#[test]
fn a_change_is_its_own_trees_and_goes_with_the_upper() {
    let Some(s) = Story::new() else { return };
    let (one, two) = (s.mount("one", 0, &[]), s.mount("two", 0, &[]));
    fs::write(one.p("model_test/main.py"), "changed\n").unwrap();
    fs::write(one.p("model_test/model/today.h5"), "today").unwrap();
    assert_eq!(text(two.p("model_test/main.py")), OLD);
    assert_eq!(missing(two.p("model_test/model/today.h5")), Errno::ENOENT);
    assert_eq!(text(s.0.low(0, "model_test/main.py")), OLD);
    assert_eq!(s.changed("one"), ["model_test/main.py", "model_test/model/today.h5"]);
    assert_eq!(s.changed("two"), [] as [&str; 0]);
    s.umount(two);
    s.umount(one);
    let one = s.mount("one", 0, &[]);
    assert_eq!(text(one.p("model_test/main.py")), "changed\n");
    assert_eq!(text(one.p("model_test/model/today.h5")), "today");
    s.umount(one);
    fs::remove_dir_all(s.path("one-upper")).unwrap();
    fs::remove_dir_all(s.path("one-work")).unwrap();
    let one = s.mount("one", 0, &[]);
    assert_eq!(text(one.p("model_test/main.py")), OLD);
    assert_eq!(names(one.p("model_test/model")), ["base.h5"]);
    s.umount(one);
}

/// (b)
#[test]
fn a_volume_is_filled_outlives_its_mount_and_is_shared() {
    let Some(s) = Story::new() else { return };
    let wide = ["-v", "models:/model_test"];
    let one = s.mount("one", 0, &wide);
    assert_eq!(s.ok(&["volume", "ls"]), "DRIVER    VOLUME NAME\nlocal     models\n");
    // Owner, mode, times, attributes and bytes of everything, the directory itself included.
    let (layer, volume) = (sum::tree(&s.0.low(0, "model_test")), sum::tree(&s.data("models")));
    assert_eq!(sum::diff(&layer, &volume), "");
    assert_eq!(sum::diff(&layer, &sum::tree(&one.p("model_test"))), "");
    fs::write(one.p("model_test/model/today.h5"), "today").unwrap();
    fs::write(one.p("model_test/main.py"), "changed").unwrap();
    fs::write(one.p("elsewhere"), "").unwrap();
    assert_eq!(s.changed("one"), ["elsewhere"]);
    let two = s.mount("two", 0, &wide);
    let three = s.mount("three", 1, &wide);
    for mount in [&two, &three] {
        assert_eq!(text(mount.p("model_test/model/today.h5")), "today");
        assert_eq!(missing(mount.p("elsewhere")), Errno::ENOENT);
    }
    fs::write(three.p("model_test/model/today.h5"), "later").unwrap();
    assert_eq!(text(one.p("model_test/model/today.h5")), "later");

    let json = s.inspect("models");
    assert_eq!(json["Name"], "models");
    assert_eq!(json["Driver"], "local");
    assert_eq!(json["Mountpoint"], s.path("state/volumes/models/_data").to_str().unwrap());
    let layers = json["Stratafs"]["Populated"]["Layers"].as_array().unwrap();
    let from: Vec<&str> =
        layers.iter().map(|layer| layer.as_str().unwrap().split(' ').next().unwrap()).collect();
    assert_eq!(from, [s.path("one-upper").to_str().unwrap(), s.0.low(0, "").to_str().unwrap()]);
    let mut users: Vec<&str> = json["Stratafs"]["Users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["Mountpoint"].as_str().unwrap())
        .collect();
    users.sort_unstable();
    assert_eq!(users, [&one, &three, &two].map(|mount| mount.at.to_str().unwrap()));
    s.refuses(&["volume", "rm", "models"], "volume is in use");

    s.umount(one);
    s.umount(two);
    s.umount(three);
    assert_eq!(s.inspect("models")["Stratafs"]["Users"], json!([]));
    let one = s.mount("one", 0, &wide);
    assert_eq!(text(one.p("model_test/model/today.h5")), "later");
    assert_eq!(text(one.p("model_test/main.py")), "changed");
    s.umount(one);
    assert_eq!(s.ok(&["volume", "rm", "models"]), "models\n");
    assert_eq!(s.volumes(), [] as [&str; 0]);
    assert!(!s.path("state/volumes/models").exists());
}

/// (c), (d)
#[test]
fn a_volume_too_wide_keeps_the_old_program_and_one_at_its_place_does_not() {
    let Some(s) = Story::new() else { return };
    let one = s.mount("one", 0, &["-v", "models:/model_test"]);
    fs::write(one.p("model_test/model/today.h5"), "today").unwrap();
    s.umount(one);
    let one = s.mount("one", 1, &["-v", "models:/model_test"]);
    assert_eq!(text(one.p("model_test/main.py")), OLD);
    assert_eq!(mtime(one.p("model_test/main.py")), (1_500_000_000, 123_456_789));
    assert_eq!(text(s.0.low(1, "model_test/main.py")), NEW);
    let stale: Value =
        serde_json::from_str(&s.ok(&["shadow", "--stale", "--json", one.at.to_str().unwrap()])).unwrap();
    assert_eq!(stale.as_array().unwrap().len(), 1, "{stale}");
    assert_eq!((&stale[0]["path"], &stale[0]["newer"]), (&json!("/model_test/main.py"), &json!("layers")));
    let time = |of: &str| (stale[0][of]["seconds"].clone(), stale[0][of]["nanoseconds"].clone());
    assert_eq!(time("layers_modified"), (json!(1_500_000_001), json!(123_456_789)));
    assert_eq!(time("graft_modified"), (json!(1_500_000_000), json!(123_456_789)));
    s.umount(one);

    // A part of the old volume, where it belongs.
    let part = "type=volume,source=models,target=/model_test/model,volume-subpath=model";
    let one = s.mount("one", 1, &["--mount", part]);
    assert_eq!(text(one.p("model_test/main.py")), NEW);
    assert_eq!(names(one.p("model_test/model")), ["base.h5", "today.h5"]);
    s.umount(one);

    // Or a volume that holds nothing else.
    let data = s.data("models");
    for name in names(data.join("model")) {
        fs::rename(data.join("model").join(&name), data.join(&name)).unwrap();
    }
    fs::remove_dir(data.join("model")).unwrap();
    fs::remove_dir_all(data.join("data")).unwrap();
    fs::remove_file(data.join("main.py")).unwrap();
    for (version, program) in [(1, NEW), (0, OLD)] {
        let one = s.mount("one", version, &["-v", "models:/model_test/model"]);
        assert_eq!(text(one.p("model_test/main.py")), program);
        assert_eq!(names(one.p("model_test")), ["data", "main.py", "model"]);
        assert_eq!(names(one.p("model_test/model")), ["base.h5", "today.h5"]);
        assert_eq!(text(one.p("model_test/model/today.h5")), "today");
        s.umount(one);
    }
}

/// (e)
#[test]
fn volumes_from_shares_what_another_mount_has() {
    let Some(s) = Story::new() else { return };
    s.host("data/new.csv", "4,5,6");
    let more = ["-v", "models:/model_test/model", "-v", "./data:/model_test/data:ro", "-v", "/cache"];
    let one = s.mount("one", 0, &more);
    let two = s.mount("two", 1, &["--volumes-from", "one"]);
    let three = s.mount("three", 1, &["--volumes-from", "one:ro"]);
    assert_eq!(s.volumes().len(), 2, "the anonymous one is the same");
    fs::write(two.p("model_test/model/shared.h5"), "shared").unwrap();
    fs::write(two.p("cache/file"), "cached").unwrap();
    for mount in [&one, &three] {
        assert_eq!(text(mount.p("model_test/model/shared.h5")), "shared");
        assert_eq!(text(mount.p("cache/file")), "cached");
        assert_eq!(names(mount.p("model_test/data")), ["new.csv"]);
    }
    assert_eq!(err(fs::write(two.p("model_test/data/x"), "")), Errno::EROFS);
    assert_eq!(err(fs::write(three.p("model_test/model/x"), "")), Errno::EROFS);
    assert_eq!(sys::unlink(three.p("cache/file")), Err(Errno::EROFS));
    // It goes on without the mount that it came from.
    s.umount(one);
    assert_eq!(text(two.p("model_test/model/shared.h5")), "shared");
    s.no_mount(&["--volumes-from", "one"], "no stratafs is mounted there");
    s.umount(two);
    s.umount(three);
}

/// (f)
#[test]
fn a_directory_hides_and_a_file_joins() {
    let Some(s) = Story::new() else { return };
    s.host("data/new.csv", "4,5,6");
    let file = s.host("settings", "one");
    let args = ["-v", "./data:/model_test/data", "-v", "./settings:/app/config/settings"];
    let one = s.mount("one", 0, &[&args[..], &["-v", "./settings:/app/config/config.json"]].concat());
    assert_eq!(names(one.p("model_test/data")), ["new.csv"]);
    assert_eq!(missing(one.p("model_test/data/train.csv")), Errno::ENOENT);
    assert_eq!(names(one.p("app/config")), ["config.json", "defaults.json", "settings"]);
    assert_eq!(text(one.p("app/config/config.json")), "one");
    assert_eq!(text(one.p("app/config/defaults.json")), "defaults");

    // Both ways, at the next call.
    fs::write(&file, "host").unwrap();
    assert_eq!(text(one.p("app/config/settings")), "host");
    fs::write(one.p("app/config/settings"), "mount").unwrap();
    assert_eq!(text(&file), "mount");
    fs::write(s.path("settings.new"), "replaced").unwrap();
    fs::rename(s.path("settings.new"), &file).unwrap();
    assert_eq!(text(one.p("app/config/settings")), "replaced");
    fs::create_dir(one.p("model_test/data/made")).unwrap();
    assert_eq!(names(s.path("data")), ["made", "new.csv"]);
    fs::remove_dir(s.path("data/made")).unwrap();
    assert_eq!(missing(one.p("model_test/data/made")), Errno::ENOENT);

    assert_eq!(sys::unlink(one.p("app/config/settings")), Err(Errno::EBUSY));
    assert_eq!(sys::rename(one.p("app/config/settings"), one.p("app/config/x")), Err(Errno::EBUSY));
    assert_eq!(
        sys::rename(one.p("app/config/defaults.json"), one.p("app/config/settings")),
        Err(Errno::EBUSY)
    );
    assert_eq!(sys::rmdir(one.p("model_test/data")), Err(Errno::EBUSY));
    assert_eq!(sys::rename(one.p("model_test"), one.p("moved")), Err(Errno::EBUSY));
    let (inside, outside) = (one.p("model_test/data/new.csv"), one.p("model_test/new.csv"));
    assert_eq!(sys::rename(&inside, &outside), Err(Errno::EXDEV));
    assert_eq!(sys::link(&inside, &outside), Err(Errno::EXDEV));
    assert_eq!(s.changed("one"), [] as [&str; 0]);
    s.umount(one);
    // Without the grafts the tree is as it was.
    let one = s.mount("one", 0, &[]);
    assert_eq!(names(one.p("model_test/data")), ["train.csv"]);
    assert_eq!(names(one.p("app/config")), ["config.json", "defaults.json"]);
    s.umount(one);
    s.no_mount(&["-v", "./settings:/model_test/data"], "is a directory");
    s.no_mount(&["-v", "./data:/model_test/main.py"], "not a directory");
    s.no_mount(
        &["-v", "models:/model_test/x", "-v", "./dta:/model_test/data"],
        "bind source path does not exist",
    );
}

/// (g)
#[test]
fn what_is_read_only_takes_no_change_and_shows_the_hosts() {
    let Some(s) = Story::new() else { return };
    let key = s.host("keys/private_key", "secret");
    sys::chmod(&key, 0o600).unwrap();
    let before = sum::tree(&s.path("keys"));
    let bind = format!("{}:/root/.ssh/id_rsa:ro", key.display());
    let one = s.mount("one", 0, &["-v", &bind, "-v", "./keys:/model_test/data:ro"]);
    assert_eq!(
        (text(one.p("root/.ssh/id_rsa")), stat(one.p("root/.ssh/id_rsa")).mode()),
        ("secret".into(), 0o100_600)
    );
    let inside = one.p("model_test/data/private_key");
    for file in [&inside, &one.p("root/.ssh/id_rsa")] {
        assert_eq!(sys::open(file, libc::O_WRONLY, 0).err(), Some(Errno::EROFS));
        assert_eq!(sys::open(file, libc::O_RDWR | libc::O_TRUNC, 0).err(), Some(Errno::EROFS));
        assert_eq!(sys::truncate(file, 0), Err(Errno::EROFS));
        assert_eq!(sys::chmod(file, 0o644), Err(Errno::EROFS));
        let owner = stat(file);
        assert_eq!(sys::lchown(file, owner.uid(), owner.gid()), Err(Errno::EROFS));
        assert_eq!(sys::utimens(file, (1, 0), (1, 0)), Err(Errno::EROFS));
        assert_eq!(sys::setxattr(file, "user.x", b"1", 0), Err(Errno::EROFS));
    }
    let dir = one.p("model_test/data");
    assert_eq!(sys::open(dir.join("x"), libc::O_CREAT | libc::O_WRONLY, 0o644).err(), Some(Errno::EROFS));
    assert_eq!(sys::mkdir(dir.join("x"), 0o755), Err(Errno::EROFS));
    assert_eq!(sys::symlink("x", dir.join("x")), Err(Errno::EROFS));
    assert_eq!(sys::link(&inside, dir.join("x")), Err(Errno::EROFS));
    assert_eq!(sys::rename(&inside, dir.join("x")), Err(Errno::EROFS));
    assert_eq!(sys::unlink(&inside), Err(Errno::EROFS));
    assert_eq!(sum::diff(&before, &sum::tree(&s.path("keys"))), "");
    fs::write(&key, "another").unwrap();
    fs::write(s.path("keys/more"), "more").unwrap();
    assert_eq!(text(one.p("root/.ssh/id_rsa")), "another");
    assert_eq!((text(&inside), names(&dir)), ("another".into(), vec!["more".into(), "private_key".into()]));
    assert_eq!(s.changed("one"), [] as [&str; 0]);
    s.umount(one);
    assert!(!s.path("one-upper/root").exists(), "nothing is made for a graft");
}

/// (h)
#[test]
fn an_anonymous_volume_has_an_id_and_goes_with_rm_or_is_pruned() {
    let Some(s) = Story::new() else { return };
    s.ok(&["volume", "create", "named"]);
    let one = s.mount("one", 0, &["--rm", "-v", "/model_test/data"]);
    let id = |s: &Story| s.volumes().into_iter().find(|name| name != "named").unwrap();
    let first = id(&s);
    assert!(
        first.len() == 64 && first.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{first}"
    );
    assert_eq!(s.inspect(&first)["Labels"], json!({"com.docker.volume.anonymous": ""}));
    assert_eq!(text(one.p("model_test/data/train.csv")), "1,2,3");
    s.umount(one);
    assert!(eventually(LIMIT, || s.volumes() == ["named"]), "{:?}", s.volumes());

    let one = s.mount("one", 0, &["-v", "/model_test/data"]);
    let second = id(&s);
    assert_ne!(first, second);
    fs::write(one.p("model_test/data/new.csv"), "4,5,6").unwrap();
    assert_eq!(s.ok(&["volume", "prune", "-f"]), "Total reclaimed space: 0B\n", "it is in use");
    s.umount(one);
    assert_eq!(text(s.data(&second).join("new.csv")), "4,5,6");
    let would = s.ok(&["volume", "prune", "--dry-run"]);
    assert_eq!(
        would,
        format!("Volumes that would be deleted:\n{second}\n\nSpace that would be reclaimed: 10B\n")
    );
    let did = s.ok(&["volume", "prune", "-f"]);
    assert_eq!(did, format!("Deleted Volumes:\n{second}\n\nTotal reclaimed space: 10B\n"));
    assert_eq!(s.volumes(), ["named"]);
}

/// (i)
#[test]
fn a_service_starts_empty_and_with_another_configuration() {
    let Some(s) = Story::new() else { return };
    if mode() == Mode::Fusermount {
        println!("skipped: a user may mount no tmpfs");
        return;
    }
    s.host("production.json", "error");
    let config = ["-v", "./production.json:/app/config/config.json:ro"];
    let emptied = |how: &[&str]| {
        let one = s.mount("one", 0, &[how, &config].concat());
        assert_eq!(names(one.p("app/data")), [] as [&str; 0]);
        assert_eq!(names(one.p("app/config")), ["config.json", "defaults.json"]);
        assert_eq!(text(one.p("app/config/config.json")), "error");
        assert_eq!(err(fs::write(one.p("app/config/config.json"), "")), Errno::EROFS);
        fs::write(one.p("app/data/list"), "learn").unwrap();
        s.umount(one);
        let one = s.mount("one", 0, &[how, &config].concat());
        let found = fs::read_to_string(one.p("app/data/list")).ok();
        s.umount(one);
        found
    };
    assert_eq!(emptied(&["--tmpfs", "/app/data:size=1m"]), None);
    assert_eq!(emptied(&["-v", "list:/app/data:nocopy"]), Some("learn".to_owned()));
    assert_eq!(s.inspect("list")["Stratafs"]["Populated"], Value::Null);
    assert_eq!(s.changed("one"), [] as [&str; 0]);
}

/// (j)
#[test]
fn files_are_copied_in_and_out_while_it_is_up_and_down() {
    let Some(s) = Story::new() else { return };
    let cp = |from: &Path, to: &Path| drop(run(Command::new("cp").arg("-a").arg(from).arg(to)).ok());
    let one = s.mount("one", 1, &["-v", "models:/model_test/model"]);
    let patch = s.host("patch.py", "patched");
    sys::chmod(&patch, 0o640).unwrap();
    cp(&patch, &one.p("model_test/main.py"));
    cp(&patch, &one.p("model_test/model/in.h5"));
    cp(&one.p("model_test/model/base.h5"), &s.path("out.h5"));
    cp(&one.p("model_test"), &s.path("out-up"));
    assert_eq!((text(s.path("out.h5")), mtime(s.path("out.h5"))), ("base".into(), (1_400_000_000, 0)));
    s.umount(one);

    assert_eq!(s.changed("one"), ["model_test/main.py"]);
    assert_eq!(stat(s.path("one-upper/model_test/main.py")).mode(), 0o100_640);
    let data = s.data("models");
    assert_eq!(text(data.join("in.h5")), "patched");
    // The whole tree, from its layers and the volume alone.
    fs::create_dir(s.path("view")).unwrap();
    let view = ["mount", "-l", "one-upper", "-l", "l1", "-v", "models:/model_test/model:ro", "view"];
    s.ok(&view);
    let free = Umount(s.path("view"));
    cp(&s.path("view/model_test"), &s.path("out-down"));
    s.ok(&["umount", "view"]);
    drop(free);
    assert_eq!(sum::diff(&sum::tree(&s.path("out-up")), &sum::tree(&s.path("out-down"))), "");
    // In again, while it is down.
    cp(&patch, &data.join("down.h5"));
    s.ok(&["volume", "export", "models", "-o", "models.tar"]);
    s.ok(&["volume", "import", "copy", "models.tar"]);
    assert_eq!(sum::diff(&sum::tree(&data), &sum::tree(&s.data("copy"))), "");
    for volume in ["models", "copy"] {
        let one = s.mount("one", 1, &["-v", &format!("{volume}:/model_test/model")]);
        assert_eq!(text(one.p("model_test/model/down.h5")), "patched");
        assert_eq!(names(one.p("model_test/model")), ["base.h5", "down.h5", "in.h5"]);
        s.umount(one);
    }
}
