//! Compose files as people have them, every form of their storage, and what is none.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::graft::{Cow, Create, Source, Volume};

/// What the tests have in their environment.
fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/me".to_owned()),
        "DATA" => Some("/srv/data".to_owned()),
        "YES" => Some("true".to_owned()),
        _ => None,
    }
}

/// A project in a directory called `Test_02.dir`, whose file says `yaml`.
struct Fixture(TempDir);

impl Fixture {
    fn new(yaml: &str) -> Fixture {
        let fixture = Fixture(TempDir::new().expect("dir"));
        fs::create_dir(fixture.dir()).expect("dir");
        fs::write(fixture.file(), yaml).expect("file");
        fixture
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("Test_02.dir")
    }

    fn file(&self) -> PathBuf {
        self.dir().join("compose.yml")
    }

    fn read(&self, service: &str) -> Result<Service> {
        compose(&self.file(), service, env)
    }
}

/// The grafts of the service `s`.
#[track_caller]
fn specs(yaml: &str) -> Vec<Spec> {
    let service = Fixture::new(yaml).read("s").unwrap_or_else(|e| unreachable!("{e}"));
    service.specs
}

/// The one graft that the text is an element of `volumes` for. `v` is declared, and `e` as `ext`, which is external.
#[track_caller]
fn one(element: &str) -> Spec {
    let mut specs = specs(&around(element));
    assert_eq!(specs.len(), 1, "{element}");
    specs.remove(0)
}

fn around(element: &str) -> String {
    format!(
        "services: {{s: {{volumes: [{element}]}}}}\nvolumes: {{v: , e: {{external: true, name: ext}}}}\nname: p"
    )
}

#[track_caller]
fn refused(yaml: &str, parts: &[&str]) {
    let fixture = Fixture::new(yaml);
    let sentence = fixture.read("s").expect_err(yaml).to_string();
    assert!(sentence.starts_with("compose file `/") && !sentence.contains('\n'), "{sentence}");
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}

fn volume(spec: &Spec) -> &Volume {
    match &spec.source {
        Source::Volume(volume) => volume,
        other => unreachable!("{other:?}"),
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compose").join(name)
}

fn labels(project: &str, volume: &str) -> BTreeMap<String, String> {
    let pairs = [("project", project), ("volume", volume), ("version", env!("CARGO_PKG_VERSION"))];
    pairs.map(|(key, value)| (format!("com.docker.compose.{key}"), value.to_owned())).into()
}

#[test]
fn a_volume_first_too_wide_and_then_right() {
    for (file, target) in [("wide.yml", "/model_test"), ("right.yml", "/model_test/model")] {
        let env = |name: &str| (name == "COMPOSE_PROJECT_NAME").then(|| "test02".to_owned());
        let service = compose(&data(file), "model_test", env).expect(file);
        let name = "test02_test02-tensorflow-volume".to_owned();
        let expected = Volume {
            name: Some(name),
            labels: labels("test02", "test02-tensorflow-volume"),
            ..Volume::default()
        };
        assert_eq!(service.specs.len(), 1);
        assert_eq!(service.specs[0].target, Path::new(target));
        assert_eq!(service.specs[0].source, Source::Volume(expected));
        assert_eq!(service.specs[0].text, format!("test02-tensorflow-volume:{target}"));
        assert_eq!(compose(&data(file), "nginx", env), Ok(Service::default()));
        // The directory of the file gives the name where nothing else does.
        let service = compose(&data(file), "model_test", |_| None).expect(file);
        assert_eq!(volume(&service.specs[0]).name.as_deref(), Some("compose_test02-tensorflow-volume"));
    }
}

#[test]
fn a_volume_on_nfs_and_a_key_of_one_file() {
    let service = compose(&data("nfs.yml"), "my-service", env).expect("nfs");
    let options =
        [("type", "nfs"), ("o", "addr=localhost,port=2049,rw"), ("device", ":/path/to/shared/folder")];
    let expected = Volume {
        name: Some("compose_nfs-volume".to_owned()),
        driver: Some("local".to_owned()),
        options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        labels: labels("compose", "nfs-volume"),
        ..Volume::default()
    };
    assert_eq!(service.specs[0].source, Source::Volume(expected));
    assert_eq!(service.specs[0].target, Path::new("/mnt/shared"));

    let service = compose(&data("remote-db.yml"), "my-app", env).expect("remote-db");
    let key = Source::Bind { path: "/path/to/private_key".into(), create: Some(Create::Dir) };
    assert_eq!((&service.specs[0].source, service.specs[0].read_only), (&key, true));
    assert_eq!(service.specs[0].target, Path::new("/root/.ssh/id_rsa"));
}

#[test]
fn short_elements() {
    assert_eq!(one("/data").source, Source::Volume(Volume::default()));
    let v = one("'v:/data'");
    assert_eq!((volume(&v).name.as_deref(), &volume(&v).labels), (Some("p_v"), &labels("p", "v")));
    let e = one("'e:/data:ro'");
    let expected = Volume { name: Some("ext".to_owned()), external: true, ..Volume::default() };
    assert_eq!((volume(&e), e.read_only), (&expected, true));
    assert!(volume(&one("'v:/data:nocopy'")).nocopy);
    for mode in ["rw", "z", "Z", "cached", "rw,z"] {
        assert!(!one(&format!("'v:/data:{mode}'")).read_only, "{mode}");
    }
    let path = |element: &str| match one(element).source {
        Source::Bind { path, create: Some(Create::Dir) } => path.to_string_lossy().into_owned(),
        other => unreachable!("{other:?}"),
    };
    assert_eq!(path("'/a/../b:/data'"), "/b");
    assert_eq!(path("'~/a:/data'"), "/home/me/a");
    assert_eq!(path("'~:/data'"), "/home/me");
    assert_eq!(path("'${DATA}/x:/data'"), "/srv/data/x");
    assert_eq!(path("'${NONE:-/d}:/data'"), "/d");
    assert_eq!(path("'/a$$b:/data'"), "/a$b");
    let fixture = Fixture::new(&around("'./a:/1', '../b:/2', '.:/3', './a/../c:/4'"));
    let specs = fixture.read("s").expect("specs").specs;
    let (dir, above) = (fixture.dir(), fixture.0.path());
    for (spec, expected) in specs.iter().zip([dir.join("a"), above.join("b"), dir.clone(), dir.join("c")]) {
        assert_eq!(spec.source, Source::Bind { path: expected, create: Some(Create::Dir) });
    }
    assert_eq!(one("'/a:/data:O'").cow, Some(Cow::ThrowAway));
    let file = one("'/a:/data:create=file'").source;
    assert_eq!(file, Source::Bind { path: "/a".into(), create: Some(Create::File) });
}

#[test]
fn long_elements() {
    let bind = |create| Source::Bind { path: "/a".into(), create };
    assert_eq!(one("{type: bind, source: /a, target: /t}").source, bind(Some(Create::Dir)));
    let spec =
        one("{type: bind, source: /a, target: /t/, read_only: true, consistency: cached, x-other: 1, \
          bind: {propagation: rslave, create_host_path: false, selinux: z, recursive: disabled}}");
    assert_eq!((&spec.source, spec.read_only, spec.recursive), (&bind(None), true, false));
    assert_eq!(
        (spec.target.as_path(), spec.text.as_str()),
        (Path::new("/t"), "type=bind,source=/a,target=/t/,readonly")
    );
    let relative = Fixture::new(&around("{type: bind, source: a, target: /t}"));
    let source = relative.read("s").expect("spec").specs.remove(0).source;
    assert_eq!(source, Source::Bind { path: relative.dir().join("a"), create: Some(Create::Dir) });

    let spec = one("{type: volume, source: v, target: /t, volume: {nocopy: true, subpath: a/b}}");
    assert_eq!(volume(&spec).name.as_deref(), Some("p_v"));
    assert!(volume(&spec).nocopy && volume(&spec).subpath.as_deref() == Some(Path::new("a/b")));
    assert!(volume(&one("{type: volume, source: e, target: /t}")).external);
    let spec = one("{type: volume, target: /t, volume: {labels: [a=b]}}");
    assert_eq!((&volume(&spec).name, volume(&spec).labels["a"].as_str()), (&None, "b"));

    for (element, size, mode) in [
        ("{type: tmpfs, target: /t}", None, None),
        ("{type: tmpfs, target: /t, tmpfs: {size: 1048576, mode: 0o1777}}", Some(1 << 20), Some(0o1777)),
        ("{type: tmpfs, target: /t, tmpfs: {size: 64m, mode: '0755'}}", Some(64 << 20), Some(0o755)),
        ("{type: tmpfs, target: /t, tmpfs: {mode: 0755}}", None, Some(0o755)),
        ("{type: tmpfs, target: /t, tmpfs: {mode: 511}}", None, Some(0o777)),
    ] {
        assert_eq!(one(element).source, Source::Tmpfs { size, mode }, "{element}");
    }
    for words in ["'O,cache=always'", "[O, cache=always]"] {
        let spec = one(&format!("{{type: bind, source: /a, target: /t, x-stratafs: {words}}}"));
        assert_eq!((spec.cow, spec.cache), (Some(Cow::ThrowAway), crate::graft::Cache::Always));
    }
    assert!(one("{type: bind, source: /a, target: /t, read_only: '${YES}'}").read_only);
}

#[test]
fn tmpfs_as_text_or_list() {
    let tmpfs = |yaml: &str| {
        let specs = specs(&format!("services: {{s: {{tmpfs: {yaml}}}}}"));
        specs.iter().map(|spec| spec.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(tmpfs("/run"), ["/run"]);
    assert_eq!(tmpfs("[/run, '/tmp:size=64m,mode=755']"), ["/run", "/tmp:size=64m,mode=755"]);
    assert_eq!(tmpfs(""), [""; 0]);
    let spec = specs("services: {s: {tmpfs: ['/tmp:size=64m,mode=755']}}").remove(0);
    assert_eq!(spec.source, Source::Tmpfs { size: Some(64 << 20), mode: Some(0o755) });
}

#[test]
fn declared_volumes() {
    let declared = |volume_yaml: &str| {
        let yaml =
            format!("services: {{s: {{volumes: ['vv:/t']}}}}\nvolumes: {{vv: {volume_yaml}}}\nname: p");
        volume(&specs(&yaml)[0]).clone()
    };
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(declared("").name, named("p_vv"));
    assert_eq!(declared("{name: other}").name, named("other"));
    assert_eq!(declared("{name: other}").labels, labels("p", "vv"));
    let ext = |name: &str| Volume { name: named(name), external: true, ..Volume::default() };
    for (yaml, name) in [
        ("{external: true}", "vv"),
        ("{external: true, name: x1}", "x1"),
        ("{external: {name: x1}}", "x1"),
        ("{external: {}}", "vv"),
    ] {
        assert_eq!(declared(yaml), ext(name), "{yaml}");
    }
    assert!(!declared("{external: false}").external);
    for labels in ["{a: b, c: 1, d: }", "[a=b, c=1, d]"] {
        let labels = declared(&format!("{{labels: {labels}}}")).labels;
        assert_eq!([&labels["a"], &labels["c"], &labels["d"]], ["b", "1", ""]);
        assert_eq!(labels["com.docker.compose.volume"], "vv");
    }
    let volume = declared("{driver: local, driver_opts: {type: tmpfs, size: 10, o: '${DATA}'}, x-note: 1}");
    assert_eq!(volume.driver.as_deref(), Some("local"));
    assert_eq!(
        [&volume.options["type"], &volume.options["size"], &volume.options["o"]],
        ["tmpfs", "10", "/srv/data"]
    );
}

#[test]
fn what_a_project_is_called() {
    let yaml = |name: &str| format!("{name}services: {{s: {{volumes: ['v:/t']}}}}\nvolumes: {{v: }}");
    let called = |yaml: &str, from_env: Option<&str>| {
        let fixture = Fixture::new(yaml);
        let env =
            |name: &str| (name == "COMPOSE_PROJECT_NAME").then(|| from_env.map(str::to_owned)).flatten();
        compose(&fixture.file(), "s", env)
            .map(|service| volume(&service.specs[0]).name.clone().unwrap_or_default())
    };
    assert_eq!(called(&yaml(""), None).as_deref(), Ok("test_02dir_v"));
    assert_eq!(called(&yaml("name: own\n"), None).as_deref(), Ok("own_v"));
    assert_eq!(called(&yaml("name: own\n"), Some("env")).as_deref(), Ok("env_v"));
    assert_eq!(called(&yaml(""), Some("")).as_deref(), Ok("test_02dir_v"));
    for (yaml, env, part) in [
        (yaml("name: Own\n"), None, "write `own`"),
        (yaml("name: _\n"), None, "name: invalid project name \"_\""),
        (yaml(""), Some("A b"), "COMPOSE_PROJECT_NAME: invalid project name \"A b\""),
    ] {
        let sentence = called(&yaml, env).expect_err(part).to_string();
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
    assert_eq!([normalised("Test 02!"), normalised("_-a"), normalised("볼륨")], ["test02", "a", ""]);
}

#[test]
fn volumes_from_services_and_mounts() {
    let yaml = "
services:
  db: {volumes: ['/db:/var/db', 'data:/data', '/over:/x'], tmpfs: /run}
  mid: {volumes_from: ['db:ro'], volumes: ['/mid:/mid']}
  s:
    volumes_from: [mid, 'container:/mnt/other:ro', 'container:/mnt/more']
    volumes: ['/own:/x']
volumes: {data: {name: data}}
";
    let service = Fixture::new(yaml).read("s").expect("service");
    let inherited: Vec<_> =
        service.inherited.iter().map(|s| (s.target.to_str().unwrap_or(""), s.read_only)).collect();
    assert_eq!(inherited, [("/var/db", true), ("/data", true), ("/x", true), ("/mid", false)]);
    assert!(volume(&service.inherited[1]).nocopy);
    let mounts = [("/mnt/other", true), ("/mnt/more", false)];
    let mounts = mounts.map(|(at, read_only)| VolumesFrom { mountpoint: at.into(), read_only });
    assert_eq!(service.volumes_from, mounts);
    assert_eq!(service.specs.len(), 1);
}

#[test]
fn extended_services_and_anchors() {
    let yaml = "
x-base: &base
  volumes: ['/base:/base', '/old:/x']
  image: ${NOT:?set and not asked for}
services:
  base: {<<: *base, tmpfs: /run}
  s: {extends: {service: base}, volumes: ['/new:/x'], ports: [[strange]], build: {context: '${}'}}
  t: {extends: base}
  u: {<<: *base}
";
    let fixture = Fixture::new(yaml);
    let texts = |name: &str| {
        let service = fixture.read(name).expect(name);
        service.specs.into_iter().map(|spec| spec.text).collect::<Vec<_>>()
    };
    assert_eq!(texts("s"), ["/base:/base", "/run", "/new:/x"]);
    assert_eq!(texts("t"), ["/base:/base", "/old:/x", "/run"]);
    assert_eq!(texts("u"), ["/base:/base", "/old:/x"]);
}

#[test]
fn versions() {
    for version in ["'2'", "'2.4'", "\"3\"", "'3.8'", "3.8", "3", "2.0"] {
        assert_eq!(specs(&format!("version: {version}\nservices: {{s: }}")), []);
    }
    for version in ["'1'", "4", "'3.x'", "''", "latest", "'3.'"] {
        refused(&format!("version: {version}\nservices: {{s: }}"), &["version `", "leave `version` out"]);
    }
    refused("version: [3]\nservices: {s: }", &["version must be text, and it is a list"]);
}

#[test]
fn files_that_are_none() {
    refused("", &["it is empty", "`services`"]);
    refused("[a]", &["it is a list"]);
    refused("a: [", &["line", "correct the YAML"]);
    refused("name: x", &["no services"]);
    refused("services: [s]", &["services must be a mapping, and it is a list"]);
    refused("services: {s: text}", &["services.s must be a mapping, and it is text"]);
    refused("services: {web: , db: }", &["no such service: s", "it has web, db"]);
    refused("services: {ss: }", &["no such service: s"]);
    let fixture = Fixture::new("services: {frontend: }");
    let sentence = fixture.read("frontent").expect_err("slip").to_string();
    assert!(sentence.contains("did you mean `frontend`?"), "{sentence}");
    let file = |path: &Path| compose(path, "s", env).expect_err("file").to_string();
    assert!(file(&fixture.dir()).contains("no file"));
    assert!(file(&fixture.dir().join("gone")).contains("No such file"));
    fs::write(fixture.file(), vec![b'#'; 300 << 10]).expect("write");
    assert!(file(&fixture.file()).contains("larger than 256 KiB"));
    fs::write(fixture.file(), b"a: \xff").expect("write");
    assert!(file(&fixture.file()).contains("UTF-8"));
}

#[test]
fn elements_that_are_none() {
    for (element, parts) in [
        ("1", &["services.s.volumes[0] must be text or a mapping, and it is a number"][..]),
        ("''", &["invalid empty volume spec"]),
        ("'a:b:c:d'", &["too many colons"]),
        ("'${NONE}:/t'", &["`:/t`", "empty section between colons"]),
        ("'${NONE:?give it}:/t'", &["services.s.volumes[0]", "NONE", "give it"]),
        ("'$:/t'", &["invalid interpolation format"]),
        ("'w:/t'", &["service \"s\" refers to undefined volume w"]),
        ("'nodata:/t'", &["undefined volume nodata", "declare it with `nodata:`", "./"]),
        ("'v:t'", &["'t' mount path must be absolute"]),
        ("'v:/'", &["destination can't be '/'"]),
        ("'v:/t:readonly'", &["invalid mode: readonly", "write `ro`"]),
        ("'v:/t:rslave'", &["`rslave`", "BindOptions"]),
        ("'~other/a:/t'", &["`~other/a`", "homes of other users"]),
        ("{source: v, target: /t}", &["services.s.volumes[0]: type is required"]),
        ("{type: bind, source: /a}", &["services.s.volumes[0]: target is required"]),
        ("{type: bind, target: /t}", &["field Source must not be empty"]),
        ("{type: nfs, target: /t}", &["services.s.volumes[0].type", "mount type unknown: `nfs`"]),
        ("{type: npipe, source: a, target: /t}", &["Windows"]),
        ("{type: image, source: a, target: /t}", &["engine"]),
        ("{type: cluster, source: a, target: /t}", &["Swarm"]),
        ("{type: bind, sorce: /a, target: /t}", &["additional properties 'sorce' not allowed", "`source`"]),
        ("{type: bind, source: [a], target: /t}", &["volumes[0].source must be text, and it is a list"]),
        (
            "{type: bind, source: /a, target: /t, read_only: 1}",
            &["read_only must be true or false, and it is a number"],
        ),
        ("{type: bind, source: /a, target: /t, read_only: maybe}", &["and it is `maybe`"]),
        ("{type: bind, source: /a, target: /t, consistency: x}", &["consistency", "delegated"]),
        ("{type: bind, source: /a, target: /t, bind: x}", &["bind must be a mapping"]),
        ("{type: bind, source: /a, target: /t, bind: {x: 1}}", &["'x' not allowed", "create_host_path"]),
        (
            "{type: bind, source: /a, target: /t, bind: {propagation: x}}",
            &["bind.propagation", "invalid propagation mode: x"],
        ),
        ("{type: bind, source: /a, target: /t, bind: {selinux: x}}", &["bind.selinux", "z, Z"]),
        ("{type: bind, source: /a, target: /t, bind: {recursive: x}}", &["bind.recursive", "enabled"]),
        ("{type: bind, source: /a, target: /t, bind: {recursive: writable}}", &["requires 'readonly'"]),
        (
            "{type: bind, source: /a, target: /t, volume: {nocopy: true}}",
            &["cannot mix 'volume-*'", "`volume.nocopy`"],
        ),
        ("{type: volume, source: v, target: /t, bind: {selinux: z}}", &["cannot mix 'bind-*'"]),
        ("{type: volume, source: w, target: /t}", &["undefined volume w"]),
        ("{type: volume, source: /a, target: /t}", &["undefined volume /a"]),
        (
            "{type: volume, source: v, target: /t, volume: {subpath: ../a}}",
            &["subpath must be a relative path"],
        ),
        ("{type: volume, target: /t, volume: {subpath: a}}", &["anonymous"]),
        ("{type: volume, target: /t, read_only: true}", &["must not set ReadOnly mode"]),
        ("{type: volume, source: v, target: /t, volume: {x: 1}}", &["'x' not allowed", "nocopy"]),
        ("{type: tmpfs, source: v, target: /t}", &["field Source must not be specified"]),
        ("{type: tmpfs, target: /t, tmpfs: {size: big}}", &["tmpfs.size", "invalid size: 'big'"]),
        ("{type: tmpfs, target: /t, tmpfs: {size: -1}}", &["'-1'"]),
        ("{type: tmpfs, target: /t, tmpfs: {mode: 9999}}", &["tmpfs.mode", "octal"]),
        ("{type: tmpfs, target: /t, tmpfs: {mode: rwx}}", &["tmpfs.mode", "octal"]),
        ("{type: bind, source: /a, target: /t, image: {subpath: a}}", &["image", "engine"]),
        ("{type: bind, source: /a, target: /t, x-stratafs: zzz}", &["x-stratafs", "`zzz`", "cache="]),
        ("{type: bind, source: /a, target: /t, x-stratafs: ro}", &["`ro` is none of our words"]),
    ] {
        refused(&around(element), parts);
    }
}

#[test]
fn services_and_declarations_that_are_none() {
    for (yaml, parts) in [
        ("services: {s: {volumes: v}}", &["services.s.volumes must be a list, and it is text"][..]),
        ("services: {s: {tmpfs: {a: b}}}", &["services.s.tmpfs must be a list, and it is a mapping"]),
        ("services: {s: {tmpfs: [1]}}", &["services.s.tmpfs[0]", "'1' mount path must be absolute"]),
        ("services: {s: {tmpfs: /}}", &["services.s.tmpfs", "destination can't be '/'"]),
        ("services: {s: {volumes_from: a}}", &["services.s.volumes_from must be a list"]),
        ("services: {s: {volumes_from: [a]}}", &["services.s.volumes_from[0]", "no such service: a"]),
        ("services: {s: {volumes_from: [s]}}", &["services.s takes from itself"]),
        ("services: {s: {volumes_from: [a]}, a: {extends: s}}", &["takes from itself, by way of s, a"]),
        ("services: {s: {volumes_from: ['a:rslave']}, a: }", &["invalid mode: rslave"]),
        ("services: {s: {volumes_from: ['container:web']}}", &["no engine", "container:/MOUNTPOINT"]),
        ("services: {s: {extends: {file: a.yml, service: b}}}", &["services.s.extends.file", "another file"]),
        ("services: {s: {extends: {}}}", &["names no service"]),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: [v]",
            &["volumes must be a mapping, and it is a list"],
        ),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: {v: x}",
            &["volumes.v must be a mapping, and it is text"],
        ),
        ("services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {drive: x}}", &["'drive' not allowed"]),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {driver: [x]}}",
            &["volumes.v.driver must be text"],
        ),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {labels: x}}",
            &["volumes.v.labels must be a mapping or a list"],
        ),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {driver_opts: {o: [x]}}}",
            &["volumes.v.driver_opts.o must be text"],
        ),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {external: 1}}",
            &["volumes.v.external must be true or false"],
        ),
        ("services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {external: {x: 1}}}", &["'x' not allowed"]),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {external: true, driver: local}}",
            &["conflicting parameters \"external\" and \"driver\""],
        ),
        (
            "services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {external: {name: aa}, name: bb}}",
            &["only use volume.name"],
        ),
        ("services: {s: {volumes: ['v:/t']}}\nvolumes: {v: {name: a/b}}", &["volumes.v: \"a/b\"", "`name:`"]),
        ("services: {s: {volumes: ['v v:/t']}}\nvolumes: {v v: }", &["invalid characters"]),
        (
            "services: {s: {volumes: ['vol:/t']}}\nvolumes: {vols: }",
            &["undefined volume vol", "did you mean `vols`?"],
        ),
    ] {
        refused(yaml, parts);
    }
}

#[test]
fn services_that_share_others_are_read_once_and_long_chains_refused() {
    let level =
        |at: usize, names: &str| format!("  s{at}: {{volumes_from: [{names}], volumes: ['/a:/t{at}']}}\n");
    let mut yaml = "services:\n  s0: {volumes: ['/a:/t0']}\n".to_owned();
    (1..40).for_each(|at| yaml += &level(at, &format!("s{0}, 's{0}:ro'", at - 1)));
    let service = Fixture::new(&yaml).read("s39").expect("service");
    assert_eq!(service.inherited.len(), 39);
    (40..3000).for_each(|at| yaml += &level(at, &format!("s{}", at - 1)));
    let sentence = Fixture::new(&yaml).read("s2999").expect_err("chain").to_string();
    assert!(sentence.contains("64 services"), "{sentence}");
}
