//! Every key of `--mount`, and what is none.

use std::collections::BTreeMap;

use super::*;
use crate::config::IdMaps;
use crate::graft::{Cache, Cow, Create, Pin, Shadow, Source, Volume};

fn read(text: &str) -> Result<Spec> {
    mount(OsStr::new(text), Path::new("/cwd/dir"))
}

fn spec(source: Source) -> Spec {
    Spec {
        target: "/dst".into(),
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
    spec(Source::Bind { path: path.into(), create: None })
}

fn named(change: impl FnOnce(&mut Volume)) -> Spec {
    let mut volume = Volume { name: Some("vol".to_owned()), ..Volume::default() };
    change(&mut volume);
    spec(Source::Volume(volume))
}

fn memory(size: Option<u64>, mode: Option<u32>) -> Spec {
    spec(Source::Tmpfs { size, mode })
}

fn read_only(spec: Spec) -> Spec {
    Spec { read_only: true, ..spec }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[track_caller]
fn is(text: &str, expected: Spec) {
    let expected = Spec { text: text.to_owned(), ..expected };
    assert_eq!(read(text), Ok(expected), "{text}");
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let sentence = read(text).expect_err(text).to_string();
    assert!(!sentence.contains('\n') && sentence.starts_with("--mount `"), "{sentence}");
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}

#[test]
fn types_sources_and_targets() {
    let anonymous = spec(Source::Volume(Volume::default()));
    for text in
        ["target=/dst", "dst=/dst", "destination=/a/../dst/", "type=volume,dst=/dst", "source=,dst=/dst"]
    {
        is(text, anonymous.clone());
    }
    for text in [
        "source=vol,target=/dst",
        "src=vol,TARGET=/dst",
        "type=Volume,src=vol,dst=/dst",
        "src=a,src=vol,dst=/dst",
    ] {
        is(text, named(|_| ()));
    }
    is("type=bind,source=/src,target=/dst", bind("/src"));
    is("type=bind,source=/users/./ysk//data/,target=/dst", bind("/users/ysk/data"));
    is("type=bind,src=.,dst=/dst", bind("/cwd/dir"));
    is("type=bind,src=./a,dst=/dst", bind("/cwd/dir/a"));
    is("type=bind,src=../a,dst=/dst", bind("/cwd/a"));
    is("type=bind,\"src=/a,b \"\"c\"\"\",dst=/dst", bind("/a,b \"c\""));
    is("type=bind,src=/a:b,dst=/dst", bind("/a:b"));
    is("type=tmpfs,dst=/dst", memory(None, None));
}

#[test]
fn access_and_what_has_no_effect() {
    for word in ["readonly", "ro", "readonly=true", "ro=1", "readonly=T", "ro=false,readonly"] {
        is(&format!("type=bind,src=/src,dst=/dst,{word}"), read_only(bind("/src")));
        is(&format!("src=vol,dst=/dst,{word}"), read_only(named(|_| ())));
        is(&format!("type=tmpfs,dst=/dst,{word}"), read_only(memory(None, None)));
    }
    for word in
        ["readonly=false", "ro=0", "readonly=F", "ro,ro=False", "consistency=cached", "consistency=Default"]
    {
        is(&format!("type=bind,src=/src,dst=/dst,{word}"), bind("/src"));
    }
    for word in ["private", "rprivate", "slave", "rslave", "shared", "rshared"] {
        is(&format!("type=bind,src=/src,dst=/dst,bind-propagation={word}"), bind("/src"));
    }
}

#[test]
fn keys_of_binds() {
    is("type=bind,src=/src,dst=/dst,bind-recursive=enabled", bind("/src"));
    is("type=bind,src=/src,dst=/dst,bind-recursive=disabled", Spec { recursive: false, ..bind("/src") });
    is("type=bind,src=/src,dst=/dst,bind-recursive=writable,ro", read_only(bind("/src")));
    is(
        "type=bind,src=/src,dst=/dst,bind-recursive=readonly,ro,bind-propagation=rprivate",
        read_only(bind("/src")),
    );
    let made = |create| spec(Source::Bind { path: "/src".into(), create: Some(create) });
    is("type=bind,src=/src,dst=/dst,bind-create-src", made(Create::Dir));
    is("type=bind,src=/src,dst=/dst,bind-create-src=true", made(Create::Dir));
    is("type=bind,src=/src,dst=/dst,bind-create-src=false", bind("/src"));
    is("type=bind,src=/src,dst=/dst,bind-create-src,create=file", made(Create::File));
    is("type=bind,src=/src,dst=/dst,create=dir", made(Create::Dir));
}

#[test]
fn keys_of_volumes() {
    is("src=vol,dst=/dst,volume-nocopy", named(|v| v.nocopy = true));
    is("src=vol,dst=/dst,volume-nocopy=true", named(|v| v.nocopy = true));
    is("src=vol,dst=/dst,volume-nocopy=false", named(|_| ()));
    is("src=vol,dst=/dst,volume-subpath=a/./b//c/..", named(|v| v.subpath = Some("a/b".into())));
    is("src=vol,dst=/dst,volume-subpath=.", named(|_| ()));
    is("src=vol,dst=/dst,volume-subpath=", named(|_| ()));
    is(
        "src=vol,dst=/dst,volume-label=a=b=c,volume-label=d",
        named(|v| v.labels = map(&[("a", "b=c"), ("d", "")])),
    );
    is("src=vol,dst=/dst,volume-driver=local", named(|v| v.driver = Some("local".to_owned())));
    is(
        "src=vol,dst=/dst,volume-opt=type=nfs,volume-opt=device=:/path,\"volume-opt=o=addr=localhost,port=2049,rw\"",
        named(|v| {
            v.options = map(&[("type", "nfs"), ("device", ":/path"), ("o", "addr=localhost,port=2049,rw")]);
        }),
    );
    let options = Volume { options: map(&[("size", "1g")]), nocopy: true, ..Volume::default() };
    is("dst=/dst,volume-opt=size=1g,volume-nocopy", spec(Source::Volume(options)));
}

#[test]
fn keys_of_tmpfs() {
    is("type=tmpfs,dst=/dst,tmpfs-size=64m,tmpfs-mode=1770", memory(Some(64 << 20), Some(0o1770)));
    is("type=tmpfs,dst=/dst,tmpfs-size=65536", memory(Some(65536), None));
    is("type=tmpfs,dst=/dst,tmpfs-size=0,tmpfs-mode=0700", memory(None, Some(0o700)));
    is("type=tmpfs,dst=/dst,shadow=over", Spec { shadow: Shadow::Over, ..memory(None, None) });
}

#[test]
fn our_own_words_as_keys() {
    let cow = |spec| Spec { cow: Some(Cow::ThrowAway), ..spec };
    is("type=bind,src=/src,dst=/dst,mode=cow", cow(bind("/src")));
    is("type=bind,src=/src,dst=/dst,O", cow(bind("/src")));
    is("src=vol,dst=/dst,mode=cow", cow(named(|_| ())));
    let kept = Cow::Kept { upper: "/u,p".into(), work: "/w".into() };
    is(
        "type=bind,src=/src,dst=/dst,mode=cow,\"upperdir=/u,p\",workdir=/w",
        Spec { cow: Some(kept), ..bind("/src") },
    );
    is("type=bind,src=/src,dst=/dst,nonrecursive", Spec { recursive: false, ..bind("/src") });
    let text = "type=bind,src=/src,dst=/dst,cache=ttl:2,shadow=under,pin=inode,uidmap=0:1000:1,gidmap=0-100-1,squash=5-6";
    let spec = read(text).expect(text);
    assert_eq!(spec.cache, Cache::Ttl(std::time::Duration::from_secs(2)));
    assert_eq!((spec.shadow, spec.pin), (Shadow::Under, Pin::Inode));
    assert_eq!((spec.ids.uids.len(), spec.ids.gids.len()), (1, 1));
    assert_eq!((spec.ids.squash_uid, spec.ids.squash_gid), (Some(5), Some(6)));
}

#[test]
fn records_and_keys_that_are_none() {
    refused("", &["says nothing", "target=DST"]);
    refused("type=bind", &["target is required"]);
    refused("target=", &["target is required"]);
    refused("target=/dst,", &["invalid field '' must be a key=value pair"]);
    refused("target=/dst,zzz", &["invalid field 'zzz' must be a key=value pair", "remove it"]);
    refused("target=/dst,source", &["invalid field 'source'", "`source=VALUE`"]);
    refused("target=/dst,volume-opt", &["invalid field 'volume-opt'"]);
    refused("target=/dst,zzz=1", &["unexpected key 'zzz' in 'zzz=1'", "--help"]);
    refused("taget=/dst", &["unexpected key 'taget'", "`target`"]);
    refused(" target=/dst", &["unexpected key ' target'", "`target`"]);
    refused("target=/dst,o", &["invalid field 'o'"]);
    refused("target=/dst,readonly=yes", &["invalid value for readonly: yes", "true or false"]);
    refused("target=/dst,volume-nocopy=x", &["invalid value for volume-nocopy: x"]);
    refused("target=/dst,consistency=zz", &["`consistency=zz`", "delegated"]);
    refused("target=/dst,a\"x", &["bare \" in non-quoted field"]);
    refused("target=/dst,\"x", &["missing \" in quoted-field"]);
    refused("target=/dst\nfoo", &["second line"]);
    refused("/src:/dst", &["invalid field '/src:/dst'"]);
}

#[test]
fn types_that_are_none_or_need_an_engine() {
    refused("type=,target=/dst", &["type is required"]);
    refused("type=foo,target=/dst", &["mount type unknown: `foo`", "bind, volume or tmpfs"]);
    refused("type=binds,target=/dst", &["`binds`", "did you mean `bind`"]);
    refused("type=npipe,source=x,target=/dst", &["`npipe`", "Windows"]);
    refused("type=cluster,source=x,target=/dst", &["`cluster`", "Swarm", "type volume"]);
    refused("type=image,source=x,target=/dst", &["`image`", "engine", "-l"]);
    refused("type=bind,src=/a,target=/dst,image-subpath=x", &["`image-subpath=x`", "engine"]);
}

#[test]
fn keys_of_another_type() {
    for (kind, key, prefix) in [
        ("bind", "volume-nocopy", "volume"),
        ("bind", "volume-opt=a=b", "volume"),
        ("bind", "tmpfs-size=1m", "tmpfs"),
        ("volume", "bind-propagation=shared", "bind"),
        ("volume", "bind-create-src", "bind"),
        ("volume", "tmpfs-mode=700", "tmpfs"),
        ("tmpfs", "bind-recursive=disabled", "bind"),
        ("tmpfs", "volume-subpath=a", "volume"),
    ] {
        let mixed = format!("cannot mix '{prefix}-*' options with mount type '{kind}'");
        refused(&format!("{key},type={kind},target=/dst"), &[&mixed, "leave `"]);
    }
    refused("src=vol,dst=/dst,create=dir", &["`create=dir`", "bind"]);
    refused("type=tmpfs,dst=/dst,mode=cow", &["`mode=cow`", "tmpfs"]);
    refused("type=tmpfs,dst=/dst,pin=inode", &["`pin=inode`", "tmpfs"]);
}

#[test]
fn values_that_are_none() {
    for (text, parts) in [
        ("target=dst", &["invalid mount path: 'dst' mount path must be absolute"][..]),
        ("target= /dst", &["' /dst' mount path must be absolute"]),
        ("target=/", &["invalid specification: destination can't be '/'"]),
        ("type=bind,target=/dst", &["type \"bind\"", "field Source must not be empty"]),
        ("type=bind,src=a,target=/dst", &["'a' source path must be absolute", "`./`"]),
        (
            "type=bind,src=/a,target=/dst,bind-nonrecursive",
            &["`bind-nonrecursive`", "bind-recursive=disabled"],
        ),
        ("type=bind,src=/a,target=/dst,bind-recursive=x", &["`x`", "enabled, disabled, writable, readonly"]),
        ("type=bind,src=/a,target=/dst,bind-recursive=writable", &["requires 'readonly'"]),
        ("type=bind,src=/a,target=/dst,bind-recursive=readonly", &["requires 'readonly'"]),
        (
            "type=bind,src=/a,target=/dst,bind-recursive=readonly,ro",
            &["requires 'bind-propagation=rprivate'"],
        ),
        ("type=bind,src=/a,target=/dst,bind-propagation=foo", &["invalid propagation mode: foo", "rslave"]),
        ("src=/abs,target=/dst", &["type \"volume\"", "\"/abs\"", "absolute path"]),
        ("src=v,target=/dst", &["too short"]),
        ("target=/dst,readonly", &["must not set ReadOnly mode when using anonymous volumes", "source="]),
        ("target=/dst,volume-subpath=a", &["must not set Subpath when using anonymous volumes"]),
        ("src=vol,target=/dst,volume-subpath=/a", &["subpath must be a relative path within the volume"]),
        ("src=vol,target=/dst,volume-subpath=a/../../b", &["`a/../../b`", "within the volume"]),
        ("src=vol,target=/dst,volume-subpath=..", &["within the volume"]),
        ("src=vol,target=/dst,volume-opt==x", &["`volume-opt==x`", "KEY=VALUE"]),
        ("src=vol,target=/dst,volume-label=", &["`volume-label=`", "KEY=VALUE"]),
        ("type=tmpfs,src=vol,target=/dst", &["field Source must not be specified", "`vol`"]),
        ("type=tmpfs,target=/dst,tmpfs-size=1x", &["`tmpfs-size=1x`", "invalid size: '1x'"]),
        ("type=tmpfs,target=/dst,tmpfs-size=-1", &["'-1'"]),
        ("type=tmpfs,target=/dst,tmpfs-mode=9", &["`tmpfs-mode=9`", "octal"]),
        ("type=bind,src=/a,target=/dst,mode=0755", &["`mode=0755`", "cow"]),
        ("type=bind,src=/a,target=/dst,mode=cow,O", &["one kind"]),
        ("type=bind,src=/a,target=/dst,mode=cow,ro", &["`mode=cow`", "read-only"]),
        ("type=bind,src=/a,target=/dst,cache", &["`cache`", "ttl:SECS"]),
    ] {
        refused(text, parts);
    }
}
