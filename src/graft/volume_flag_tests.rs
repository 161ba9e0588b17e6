//! Every form of `-v` in the table of the grammar, and what is none.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::{IdMaps, IdRange};
use crate::graft::{Cache, Cow, Create, Pin, Shadow};

fn read(text: &str) -> Result<Spec> {
    volume(OsStr::new(text), Path::new("/cwd/dir"))
}

fn spec(target: &str, source: Source) -> Spec {
    Spec {
        target: target.into(),
        source,
        read_only: false,
        cow: None,
        cache: Cache::Coherent,
        shadow: Shadow::Replace,
        pin: Pin::Name,
        ids: IdMaps::default(),
        recursive: true,
        text: String::new(),
    }
}

fn bind(path: &str) -> Spec {
    spec("/dst", Source::Bind { path: path.into(), create: None })
}

fn named(name: &str) -> Spec {
    spec("/dst", Source::Volume(Volume { name: Some(name.to_owned()), ..Volume::default() }))
}

#[track_caller]
fn is(text: &str, expected: Spec) {
    let expected = Spec { text: text.to_owned(), ..expected };
    assert_eq!(read(text), Ok(expected), "{text}");
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let sentence = read(text).expect_err(text).to_string();
    assert!(!sentence.contains('\n') && sentence.starts_with("-v `"), "{sentence}");
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}

#[test]
fn one_two_and_three_fields() {
    is("/dst", spec("/dst", Source::Volume(Volume::default())));
    is("/dst/../a//b/", spec("/a/b", Source::Volume(Volume::default())));
    is("/src:/dst", bind("/src"));
    is("/src/./a/../b/:/dst/", bind("/src/b"));
    is("/:/dst", bind("/"));
    is("vol:/dst", named("vol"));
    is("test02-tensorflow-volume:/../dst", named("test02-tensorflow-volume"));
    is(".:/dst", bind("/cwd/dir"));
    is("./a:/dst", bind("/cwd/dir/a"));
    is("..:/dst", bind("/cwd"));
    is("../a/..:/dst", bind("/cwd"));
    is("../../../..:/dst", bind("/"));
    is(".hidden:/dst", bind("/cwd/dir/.hidden"));
    is("/path/to/private_key:/dst:ro", Spec { read_only: true, ..bind("/path/to/private_key") });
}

#[test]
fn docker_s_words() {
    for word in ["rw", "z", "Z", "consistent", "cached", "delegated", "rw,z,cached"] {
        is(&format!("/src:/dst:{word}"), bind("/src"));
        is(&format!("vol:/dst:{word}"), named("vol"));
    }
    for word in ["ro", "rro", "ro-non-recursive", "ro-force-recursive", "Z,ro", "ro,delegated,z"] {
        is(&format!("/src:/dst:{word}"), Spec { read_only: true, ..bind("/src") });
        is(&format!("vol:/dst:{word}"), Spec { read_only: true, ..named("vol") });
    }
    for word in ["private", "rprivate", "slave", "rslave", "shared", "rshared"] {
        is(&format!("/src:/dst:{word}"), bind("/src"));
        is(&format!("/src:/dst:ro,{word},z"), Spec { read_only: true, ..bind("/src") });
        refused(&format!("vol:/dst:{word}"), &[word, "bind", "BindOptions"]);
    }
    let nocopy = Volume { name: Some("vol".to_owned()), nocopy: true, ..Volume::default() };
    is("vol:/dst:nocopy", spec("/dst", Source::Volume(nocopy.clone())));
    is("vol:/dst:ro,nocopy", Spec { read_only: true, ..spec("/dst", Source::Volume(nocopy)) });
    refused("/src:/dst:nocopy", &["`nocopy`", "volume", "VolumeOptions"]);
}

#[test]
fn our_own_words() {
    is("/src:/dst:cache=coherent", bind("/src"));
    is("/src:/dst:cache=always", Spec { cache: Cache::Always, ..bind("/src") });
    let ttl = |ms| Cache::Ttl(Duration::from_millis(ms));
    is("/src:/dst:cache=ttl:1.5,ro", Spec { cache: ttl(1500), read_only: true, ..bind("/src") });
    is("vol:/dst:rw,cache=ttl:0", Spec { cache: ttl(0), ..named("vol") });
    is("/src:/dst:shadow=replace", bind("/src"));
    is("/src:/dst:shadow=under", Spec { shadow: Shadow::Under, ..bind("/src") });
    is("/src:/dst:shadow=over", Spec { shadow: Shadow::Over, ..bind("/src") });
    is("/src:/dst:pin=name", bind("/src"));
    is("/src:/dst:pin=inode", Spec { pin: Pin::Inode, ..bind("/src") });
    is("/src:/dst:nonrecursive", Spec { recursive: false, ..bind("/src") });
    let made = |create| spec("/dst", Source::Bind { path: "/src".into(), create: Some(create) });
    is("/src:/dst:create=dir", made(Create::Dir));
    is("/src:/dst:ro,create=file", Spec { read_only: true, ..made(Create::File) });
    is("/src:/dst:O", Spec { cow: Some(Cow::ThrowAway), ..bind("/src") });
    is("vol:/dst:mode=cow,z", Spec { cow: Some(Cow::ThrowAway), ..named("vol") });
    let kept = Cow::Kept { upper: PathBuf::from("/u:p"), work: PathBuf::from("/w") };
    is("/src:/dst:O,upperdir=/u:p,workdir=/x/../w", Spec { cow: Some(kept), ..bind("/src") });
}

#[test]
fn ids_as_triples_with_colons_or_hyphens() {
    let run = |shown, disk, size| IdRange { disk, shown, size };
    let ids = IdMaps {
        uids: vec![run(0, 1000, 1), run(1, 100000, 65536)],
        gids: vec![run(0, 100, 1)],
        ..IdMaps::default()
    };
    for text in [
        "/src:/dst:uidmap=0:1000:1,uidmap=1:100000:65536,gidmap=0:100:1",
        "/src:/dst:uidmap=0-1000-1,gidmap=0-100-1,uidmap=1-100000-65536",
        "/src:/dst:uidmap=0:1000:1:1:100000:65536,gidmap=0-100-1",
    ] {
        is(text, Spec { ids: ids.clone(), ..bind("/src") });
    }
    let squash = |uid, gid| IdMaps { squash_uid: uid, squash_gid: gid, ..IdMaps::default() };
    is("vol:/dst:squash=7", Spec { ids: squash(Some(7), None), ..named("vol") });
    is("vol:/dst:squash=7-8", Spec { ids: squash(Some(7), Some(8)), ..named("vol") });
    is("vol:/dst:squash=7:8", Spec { ids: squash(Some(7), Some(8)), ..named("vol") });
}

#[test]
fn fields_that_are_too_many_too_few_or_misplaced() {
    refused("", &["invalid empty volume spec", "[SRC:]DST[:MODE]"]);
    for text in [":", "::", ":/dst", "/src:", "/src:/dst:", "/src::ro", ":/dst:ro"] {
        refused(text, &["invalid spec: ", "empty section between colons"]);
    }
    for text in ["/src:/dst:ro:rw", "/src:/dst:ro:z", "vol:/dst:/x:ro", "/a:/b:/c:/d", "/src:/dst:cache:x"] {
        refused(text, &["invalid spec: ", "too many colons", "--mount"]);
    }
    for text in ["/dst:ro", "/dst:rw,z", "vol:nocopy", "vol:O", "vol:cache=always"] {
        refused(text, &["invalid volume specification: '", "is a mode"]);
    }
}

#[test]
fn targets_and_sources_that_are_none() {
    for text in ["dst", "vol:dst", "/src:dst:ro", "./dst", "/src:./dst", "/src:~/dst"] {
        refused(text, &["invalid mount path: '", "must be absolute"]);
    }
    for text in ["/", "/src:/", "/src:/a/..", "vol:/../:ro"] {
        refused(text, &["invalid specification: destination can't be '/'"]);
    }
    refused("v:/dst", &["too short", "`v`"]);
    refused("a/b:/dst", &["\"a/b\"", "absolute path", "./"]);
    refused("_v:/dst", &["\"_v\"", "invalid characters"]);
    refused("~/src:/dst", &["`~/src`", "shell"]);
    refused("/a\nb:dst", &["/a\\nb"]);
}

#[test]
fn words_that_are_none_or_too_many() {
    for (mode, parts) in [
        ("readonly", &["`readonly`", "write `ro`"][..]),
        ("volume-nocopy", &["`volume-nocopy`", "write `nocopy`"]),
        ("ro,", &["comma"]),
        (",", &["comma"]),
        ("RO", &["`RO`", "`ro`"]),
        ("rslav", &["`rslav`", "`rslave`"]),
        ("zzzz", &["`zzzz`", "ro, rw"]),
        ("ro,rw", &["`ro`", "`rw`", "one kind"]),
        ("ro,ro", &["one kind"]),
        ("ro,rro", &["one kind"]),
        ("z,Z", &["one kind"]),
        ("private,shared", &["one kind"]),
        ("cached,delegated", &["one kind"]),
        ("nocopy,nocopy", &["one kind"]),
        ("cache=always,cache=coherent", &["one kind"]),
        ("O,mode=cow", &["one kind"]),
        ("cache", &["`cache`", "needs a value", "ttl:SECS"]),
        ("O=1", &["`O=1`", "no value"]),
        ("nonrecursive=true", &["no value"]),
        ("cache=never", &["`cache=never`", "coherent"]),
        ("cache=ttl:soon", &["`soon`", "seconds"]),
        ("cache=ttl:-1", &["`-1`", "seconds"]),
        ("cache=ttl:nan", &["`nan`"]),
        ("cache=ttl:1e99", &["`1e99`"]),
        ("shadow=x", &["`x`", "replace, under, over"]),
        ("pin=x", &["`x`", "name, inode"]),
        ("create=link", &["`link`", "dir, file"]),
        ("mode=0755", &["`0755`", "cow"]),
        ("squash=root", &["`root`", "whole number"]),
        ("squash=1-2-3", &["`2-3`"]),
        ("squash=4294967295", &["whole number"]),
        ("uidmap=0:1", &["`uidmap=0:1`", "CALLER:DISK:SIZE"]),
        ("uidmap=0:1000:10,uidmap=5:9000:10", &["overlaps"]),
        ("gidmap=0-0-0", &["a size of at least 1"]),
    ] {
        refused(&format!("/src:/dst:{mode}"), parts);
        refused(&format!("/src:/dst:{mode}"), &["invalid mode: "]);
    }
}

#[test]
fn words_that_contradict_each_other_or_the_source() {
    refused("/src:/dst:O,ro", &["`O`", "read-only"]);
    refused("/src:/dst:upperdir=/u,workdir=/w", &["`upperdir=/u`", "add `O`"]);
    refused("/src:/dst:workdir=/w", &["`workdir=/w`", "add `O`"]);
    refused("/src:/dst:O,upperdir=/u", &["`upperdir=/u`", "workdir=DIR"]);
    refused("/src:/dst:O,workdir=/w", &["`workdir=/w`", "upperdir=DIR"]);
    refused("/src:/dst:O,upperdir=u,workdir=/w", &["'u'", "absolute"]);
    refused("/src:/dst:O,upperdir=,workdir=/w", &["absolute"]);
    refused("vol:/dst:create=dir", &["`create=dir`", "bind"]);
    refused("vol:/dst:nonrecursive", &["`nonrecursive`", "bind"]);
}

#[test]
fn bytes_that_are_no_text_stay_as_they_are() {
    let spec = volume(OsStr::from_bytes(b"/s\xff:/d\xfe:ro"), Path::new("/")).expect("spec");
    assert_eq!(spec.target.as_os_str().as_bytes(), b"/d\xfe");
    let json = serde_json::to_string(&spec).expect("json");
    assert_eq!(serde_json::from_str::<Spec>(&json).expect("spec"), spec);
    assert!(volume(OsStr::from_bytes(b"v\xff:/d"), Path::new("/")).is_err());
}
