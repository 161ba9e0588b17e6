//! Order, duplicates, overriding; and what every accepted text has in common.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::config::IdRange;
use crate::graft::{mount, tmpfs, volume, volumes_from};

fn given(texts: &[&str]) -> Vec<Spec> {
    texts.iter().map(|text| volume(OsStr::new(text), Path::new("/")).expect(text)).collect()
}

fn texts(specs: &[Spec]) -> Vec<&str> {
    specs.iter().map(|spec| spec.text.as_str()).collect()
}

#[test]
fn parents_come_first_and_equals_stay_in_order() {
    let all = given(&["/1:/a/b/c", "/2:/a", "/3:/b/a", "/4:/a/b", "/5:/c"]);
    let sorted = collect(Vec::new(), all).expect("set");
    assert_eq!(texts(&sorted), ["/2:/a", "/5:/c", "/3:/b/a", "/4:/a/b", "/1:/a/b/c"]);
    assert_eq!(collect(Vec::new(), Vec::new()), Ok(Vec::new()));
}

#[test]
fn a_target_given_twice_is_an_error_however_it_is_written() {
    let mut all = given(&["/1:/a", "/2:/b/../a/"]);
    let sentence = collect(Vec::new(), all.clone()).expect_err("twice").to_string();
    for part in ["Duplicate mount point: /a", "`/1:/a`", "`/2:/b/../a/`", "leave one"] {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
    all[1] = tmpfs(OsStr::new("/a")).expect("tmpfs");
    assert!(collect(Vec::new(), all.clone()).is_err());
    all[1] = mount(OsStr::new("target=/a"), Path::new("/")).expect("mount");
    assert!(collect(Vec::new(), all).is_err());
}

#[test]
fn what_is_given_goes_over_what_is_inherited_and_a_later_one_over_an_earlier() {
    let inherited = given(&["/1:/a", "/2:/a", "/3:/b"]);
    let all = collect(inherited.clone(), given(&["/4:/b"])).expect("set");
    assert_eq!(texts(&all), ["/2:/a", "/4:/b"]);
    assert_eq!(texts(&collect(inherited, Vec::new()).expect("set")), ["/2:/a", "/3:/b"]);
}

#[test]
fn specs_from_elsewhere_are_looked_at() {
    let good = given(&["vol:/a"]).remove(0);
    type Change = fn(&mut Spec);
    let changes: &[(Change, &str)] = &[
        (|s| s.target = "a".into(), "target"),
        (|s| s.target = "/".into(), "target"),
        (|s| s.target = "/a/".into(), "target"),
        (|s| s.target = "/a/../b".into(), "target"),
        (|s| s.source = Source::Bind { path: "src".into(), create: None }, "source"),
        (|s| s.source = Source::Bind { path: "/src/..".into(), create: None }, "source"),
        (|s| s.source = Source::Tmpfs { size: None, mode: Some(0o10000) }, "mode"),
        (|s| s.cow = Some(Cow::Kept { upper: "u".into(), work: "/w".into() }), "layer"),
        (|s| (s.cow, s.read_only) = (Some(Cow::ThrowAway), true), "read-only"),
        (|s| s.cache = Cache::Ttl(Duration::MAX), "ttl"),
        (|s| s.ids.uids = vec![IdRange { disk: 1, shown: 1, size: u32::MAX }], "ids"),
        (|s| change(s, |v| v.name = Some("../v".to_owned())), "name"),
        (|s| change(s, |v| v.subpath = Some("../x".into())), "subpath"),
        (|s| change(s, |v| v.subpath = Some("/x".into())), "subpath"),
        (|s| change(s, |v| v.subpath = Some("".into())), "subpath"),
    ];
    assert_eq!(check(&good), Ok(()));
    for (change, part) in changes {
        let mut spec = good.clone();
        change(&mut spec);
        let sentence = check(&spec).expect_err(part).to_string();
        assert!(sentence.contains(part) && sentence.contains("`vol:/a`"), "{part:?} is not in {sentence:?}");
        assert!(collect(vec![spec.clone()], Vec::new()).is_err() && collect(Vec::new(), vec![spec]).is_err());
    }
}

#[test]
fn what_is_published_holds_no_options() {
    let text = "src=vol,target=/a,ro,volume-driver=local,\"volume-opt=o=username=me,password=secret\"";
    let spec = mount(OsStr::new(text), Path::new("/")).expect("spec");
    let published = published(&spec);
    assert!(!serde_json::to_string(&published).expect("json").contains("secret"));
    assert_eq!(published.text, "type=volume,source=vol,target=/a,readonly");
    let plain = given(&["vol:/a"]).remove(0);
    assert_eq!(super::published(&plain), plain);
}

fn change(spec: &mut Spec, how: impl FnOnce(&mut super::super::Volume)) {
    if let Source::Volume(volume) = &mut spec.source {
        how(volume);
    }
}

/// Texts near to the grammar, with bytes that are none of it.
fn near() -> impl Strategy<Value = OsString> {
    let part = prop_oneof![
        8 => prop::sample::select(PARTS.to_vec()).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| OsString::from_vec(parts.concat()))
}

const PARTS: [&str; 64] = [
    ":",
    ":",
    ":",
    ",",
    ",",
    ",",
    "=",
    "/",
    "/",
    "..",
    ".",
    "\"",
    "~",
    "-",
    "/src",
    "/dst",
    "vol",
    "./a",
    "ro",
    "rw",
    "z",
    "rslave",
    "nocopy",
    "cached",
    "O",
    "mode=cow",
    "upperdir=/u",
    "workdir=/w",
    "cache=ttl:1",
    "cache=always",
    "shadow=under",
    "pin=inode",
    "create=dir",
    "create=file",
    "nonrecursive",
    "squash=1-2",
    "uidmap=0:1:2",
    "gidmap=3-4-5",
    "type=bind",
    "type=volume",
    "type=tmpfs",
    "type=image",
    "source=/s",
    "source=vol",
    "src=./x",
    "target=/t",
    "dst=/t/u",
    "readonly",
    "ro=false",
    "bind-recursive=disabled",
    "bind-recursive=readonly",
    "bind-propagation=rprivate",
    "bind-create-src",
    "volume-subpath=a/../b",
    "volume-nocopy",
    "volume-label=a=b",
    "volume-driver=local",
    "volume-opt=o=addr",
    "tmpfs-size=1.5g",
    "tmpfs-mode=1777",
    "size=64m",
    "mode=755",
    "noexec",
    "\n",
];

fn accepted(parsed: Result<Spec>) -> std::result::Result<bool, TestCaseError> {
    match parsed {
        Ok(spec) => {
            prop_assert_eq!(check(&spec), Ok(()));
            prop_assert!(!spec.text.contains(char::is_control));
            let json = serde_json::to_string(&spec).expect("json");
            prop_assert_eq!(serde_json::from_str::<Spec>(&json).expect("spec"), spec);
            Ok(true)
        }
        Err(error) => {
            let sentence = error.to_string();
            prop_assert!(!sentence.contains(char::is_control), "{:?} is not one line", sentence);
            Ok(false)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_accepted_is_sound_and_goes_through_json(text in near(), cwd in prop::sample::select(vec!["/", "/a b/c"])) {
        accepted(volume(&text, Path::new(cwd)))?;
        accepted(mount(&text, Path::new(cwd)))?;
        accepted(tmpfs(&text))?;
        if let Err(error) = volumes_from(&text) {
            prop_assert!(!error.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn whatever_stands_in_three_fields(
        source in "(/|\\./|)[a-z./]{0,8}", target in "/[a-z./]{0,12}", words in prop::collection::vec(prop::sample::select(PARTS[18..38].to_vec()), 0..4),
    ) {
        let mut text = format!("{source}:{target}");
        if !words.is_empty() {
            text = format!("{text}:{}", words.join(","));
        }
        accepted(volume(OsStr::new(&text), Path::new("/cwd")))?;
    }

    #[test]
    fn whatever_keys_stand_together(keys in prop::collection::vec(prop::sample::select(PARTS[24..60].to_vec()), 0..6)) {
        let text = format!("target=/t,{}", keys.join(","));
        accepted(mount(OsStr::new(&text), Path::new("/cwd")))?;
    }

    #[test]
    fn cleaning_is_done_once(path in "/[a./]{0,24}") {
        let clean = target::clean(path.as_bytes());
        prop_assert!(is_clean(&clean));
        prop_assert_eq!(target::clean(clean.as_os_str().as_bytes()), PathBuf::from(&clean));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_compose_file_holds(
        elements in prop::collection::vec(prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..5), 1..3),
        keys in "[a-z:{}\\[\\]&*<!$'\"~ \\-\n]{0,24}",
    ) {
        let dir = tempfile::TempDir::new().expect("dir");
        let file = dir.path().join("c.yml");
        let elements: Vec<String> = elements.iter().map(|parts| parts.concat()).collect();
        // A list of texts in JSON is one in YAML.
        let list = serde_json::to_string(&elements).expect("json");
        for (at, text) in [
            format!("services: {{s: {{volumes: {list}}}}}\nvolumes: {{vol: }}\nname: p"),
            format!("services: {{s: {{tmpfs: {list}}}}}"),
            format!("services: {{s: {{volumes: [{keys}]}}}}"),
            format!("services:\n  s:\n    volumes:\n    - {keys}"),
        ].into_iter().enumerate() {
            std::fs::write(&file, &text).expect("file");
            match crate::graft::compose(&file, "s", |_| None) {
                Ok(service) => {
                    for spec in service.specs {
                        accepted(Ok(spec))?;
                    }
                }
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control), "{} {}", at, error),
            }
        }
        // Neither may panic.
        let _ = crate::graft::dotenv::read(&keys, &|_| None);
        let _ = crate::graft::dotenv::read(&format!("A={keys}"), &|_| None);
    }
}
