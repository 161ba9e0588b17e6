//! What reads text or bytes of others takes any bytes: it never panics, refuses in one line, and what it takes goes there and back
//! where there is a way back. Each parser is given random bytes, pieces of its own grammar, and the files of
//! `tests/data/corpus/KIND`: inputs that were wrong once, or look as if they could be.
//!
//! The headers of archives and the records of mounts are read by what no other program may call; their tests stand beside them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use stratafs::config::{draft::Draft, ids, options, split};
use stratafs::control::Request;
use stratafs::error::Result;
use stratafs::graft::{self, Spec};
use stratafs::merge::acl;
use stratafs::merge::mark::{self, Mark, Namespace, Opaque};
use stratafs::merge::origin::Origin;
use stratafs::merge::override_stat::Override;
use stratafs::merge::redirect::Redirect;

/// A parser by the name of its corpus, and the words that its inputs are made of.
type Parser = (&'static str, fn(&[u8]), &'static [&'static str]);

const PARSERS: [Parser; 14] = [
    (
        "options",
        option_list,
        &[
            "lowerdir",
            "=",
            ":",
            "::",
            ",",
            "/",
            "a",
            "\\",
            "upperdir",
            "workdir",
            "lowerdir+",
            "datadir+",
            "timeout",
            "1e9",
            "-1",
            "xino",
            "on",
            "uidmapping",
            "0:0:1",
            "redirect_dir",
            "nofollow",
            "userxattr",
            "volatile",
            "fsync",
            "strict",
            "metacopy",
            "x-",
            "\0",
            "\n",
            "4294967296",
            "threads",
            "default_permissions",
        ],
    ),
    ("ids", id_maps, &["0", ":", "1", "4294967295", "4294967296", "-", "+1", " ", "::", "65536"]),
    ("volume", |text| specs(graft::volume(os(text), Path::new("/cwd"))), GRAFT),
    ("mount", |text| specs(graft::mount(os(text), Path::new("/cwd"))), GRAFT),
    ("tmpfs", |text| specs(graft::tmpfs(os(text))), GRAFT),
    ("volumes-from", |text| refusal(graft::volumes_from(os(text))), GRAFT),
    (
        "compose",
        compose,
        &[
            "services:\n",
            "  s:\n",
            "    volumes:\n",
            "    - ",
            "a:/b",
            "volumes:\n",
            "  a:\n",
            "&x ",
            "*x",
            "<<: ",
            "{",
            "}",
            "[",
            "]",
            "'",
            "\"",
            "${",
            "}",
            ":-",
            "!!binary ",
            "|\n",
            "---\n",
            "? ",
            "type: bind\n",
            "      ",
            "\t",
            "extends: ",
            "tmpfs: ",
            "null",
            "~",
            "1e999",
            "driver_opts:\n",
            "external: true\n",
            "name: ",
        ],
    ),
    ("redirect", redirect, &["/", "a", ".", "..", "\0", "//", "a/b", "long name ", ".wh.x", "\u{ff}"]),
    ("opaque", opaque, &["y", "x", "n", "", "yy"]),
    ("nlink", nlink, &["U", "L", "+", "-", "0", "7fffffffffffffff", "8000000000000000", "g", " ", "\0", "1"]),
    ("metacopy", metacopy, &["\0", "\u{4}", "\u{1}", "a"]),
    (
        "override",
        override_stat,
        &["0", ":", "1000", "755", "char", "block", "-", "8", "dir", "pipe", "4294967296", "77777777777"],
    ),
    (
        "names",
        names,
        &[
            ".wh.",
            ".wh..wh..opq",
            ".wh..wh.",
            "plnk",
            "/",
            "a",
            "trusted.",
            "user.",
            "overlay.",
            "opaque",
            "\0",
        ],
    ),
    (
        "control",
        control,
        &[
            "{",
            "}",
            "\"do\":",
            "\"graft-add\"",
            ",",
            "\"spec\":",
            "\"graft-rm\"",
            "\"target\":",
            "\"/a\"",
            "\"lazy\":true",
            "[",
            "]",
            "\"graft-ls\"",
            "\"shadow\"",
            "\"stale\":",
            "1",
            "null",
            "\\u0000",
            "[47,255]",
            "{\"bytes\":",
        ],
    ),
];

const GRAFT: &[&str] = &[
    "/a",
    ":",
    "/b",
    "ro",
    ",",
    "type=",
    "bind",
    "volume",
    "tmpfs",
    "source=",
    "target=",
    "src",
    "dst",
    "=",
    "\"",
    "\n",
    "size=",
    "1g",
    "18446744073709551616k",
    "mode=",
    "cow",
    "O",
    "cache=",
    "ttl:",
    "uidmap=",
    "0:0:1",
    "squash=",
    "..",
    ".",
    "~",
    "\0",
    "volume-opt=",
    "o=",
    "nocopy",
    "shadow=",
    "z",
    "1777",
    "readonly",
    "create=dir",
];

fn os(text: &[u8]) -> &OsStr {
    OsStr::from_bytes(text)
}

/// A refusal is one line without control characters, whatever was given.
fn refusal<T>(read: Result<T>) {
    if let Err(error) = read {
        let sentence = error.to_string();
        assert!(!sentence.contains(char::is_control), "{sentence:?}");
    }
}

fn specs(read: Result<Spec>) {
    if let Ok(spec) = &read {
        assert!(spec.target.is_absolute(), "{spec:?}");
        let text = serde_json::to_string(spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), *spec);
    }
    refusal(read);
}

fn option_list(text: &[u8]) {
    let mut draft = Draft::default();
    refusal(options::parse(&mut draft, os(text)).and_then(|()| draft.into_config("/mnt".into())));
    // What is written with backslashes can be read with them.
    let escaped: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
    assert_eq!(split::unescape(&escaped), text);
    if let Ok((lowers, data)) = split::layers(text) {
        assert!(text.is_empty() || !lowers.is_empty() || !data.is_empty(), "{text:?}");
    }
}

fn id_maps(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    for order in [ids::Order::DiskFirst, ids::Order::CallerFirst] {
        let Err(why) = ids::parse(text, order) else { continue };
        assert!(!why.is_empty());
    }
}

fn compose(text: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let read = graft::compose(file.path(), "s", |_| None);
    if let Ok(service) = &read {
        service.specs.iter().for_each(|spec| specs(Ok(spec.clone())));
    }
    refusal(read);
}

fn redirect(value: &[u8]) {
    let Ok(read) = Redirect::parse(value) else { return };
    assert_eq!(Redirect::parse(&read.format()).as_ref(), Ok(&read));
    let path = read.within(OsStr::new("before"), OsStr::new("after"));
    let climbs = |part: &[u8]| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
    assert!(!path.as_bytes().split(|byte| *byte == b'/').any(climbs), "{path:?}");
}

fn opaque(value: &[u8]) {
    let expected = match value {
        b"y" => Opaque::Yes,
        b"x" => Opaque::XattrWhiteouts,
        _ => Opaque::No,
    };
    assert_eq!(Opaque::parse(value), expected);
}

fn nlink(value: &[u8]) {
    if let Some((base, difference)) = mark::parse_nlink(value) {
        assert_eq!(mark::parse_nlink(&mark::format_nlink(base, difference)), Some((base, difference)));
    }
}

fn metacopy(value: &[u8]) {
    // The header says how long it is.
    let long_enough = value.is_empty() || value.len() >= 4;
    assert!(!mark::metacopy_is_valid(value) || long_enough);
}

fn override_stat(value: &[u8]) {
    if let Some(read) = Override::parse(value) {
        assert_eq!(Override::parse(read.format().as_bytes()), Some(read));
        assert_eq!(read.mode & !0o7777, 0);
    }
}

/// Names of files and of attributes.
fn names(name: &[u8]) {
    if let Some(hidden) = mark::hidden_by(name) {
        assert_eq!([mark::WHITEOUT_PREFIX, hidden].concat(), name);
        assert!(mark::is_reserved(name));
    }
    for space in [Namespace::Trusted, Namespace::User] {
        let stored = mark::stored_attribute(space, os(name));
        assert_eq!(mark::shown_attribute(space, stored.as_bytes()).as_deref(), Some(os(name)));
        let is_mark = |mark: Mark| stored.as_bytes() == space.attribute(mark).to_bytes();
        assert!(![Mark::Opaque, Mark::Redirect, Mark::Origin, Mark::Metacopy].into_iter().any(is_mark));
        assert_ne!(stored.as_bytes(), mark::FUSE_OVERLAYFS_OPAQUE.to_bytes());
    }
}

fn control(line: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(line) {
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }
}

fn origin(value: &[u8]) {
    if let Some(read) = Origin::parse(value) {
        assert_eq!(Origin::parse(&read.format(false).unwrap()), Some(read.clone()));
        let _ = (read.inode_hint(), read.index_name());
    }
}

fn inherited(value: &[u8], mode: u32) {
    if let Some(given) = acl::inherit(value, mode) {
        assert_eq!(given.mode & !0o777, mode & !0o777);
        // An object never gets more than was asked for.
        assert_eq!(given.mode & 0o777 & !mode, 0);
        assert!(given.access.is_none_or(|access| access.len() == value.len()));
    }
}

/// Files of `tests/data/corpus/KIND`.
fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus").join(kind);
    let list = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let read = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read(&path).unwrap());
    list.map(|entry| read(entry.unwrap().path())).collect()
}

#[test]
fn the_corpus_is_read() {
    for (kind, parse, _) in PARSERS {
        let inputs = corpus(kind);
        assert!(!inputs.is_empty(), "no corpus of {kind}");
        for (name, input) in inputs {
            println!("{name}");
            parse(&input);
        }
    }
    for (name, input) in corpus("origin") {
        println!("{name}");
        origin(&input);
    }
    for (name, input) in corpus("acl") {
        println!("{name}");
        inherited(&input, 0o4755);
    }
}

/// An origin or ACL with a header that is nearly right.
fn near_header() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        &b""[..],
        b"\0\xfb",
        b"\0\xfb\x1d\0\x01",
        b"\x02\0\0\0",
        b"\x02\0\0\0\x01\0\x07\0",
    ]);
    (start, vec(any::<u8>(), 0..260)).prop_map(|(start, rest)| {
        let mut value = [start, &rest].concat();
        if value.starts_with(b"\0\xfb") && value.len() > 2 && value.len() < 256 {
            value[2] = value.len() as u8;
        }
        value
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..300)) {
        for (_, parse, _) in PARSERS {
            parse(&bytes);
        }
    }

    #[test]
    fn words_of_the_grammar_in_any_order_are_read(picks in vec(any::<prop::sample::Index>(), 0..24), cut in any::<u8>(), odd in any::<u8>()) {
        for (_, parse, words) in PARSERS {
            let mut text: Vec<u8> = picks.iter().flat_map(|pick| pick.get(words).bytes()).collect();
            parse(&text);
            text.truncate(usize::from(cut));
            parse(&text);
            text.push(odd);
            parse(&text);
        }
    }

    #[test]
    fn any_handle_and_any_acl_is_read(value in near_header(), mode in 0u32..0o10000) {
        origin(&value);
        inherited(&value, mode);
        // And with entries of the right length.
        let whole: Vec<u8> = value.iter().copied().take(4 + (value.len().saturating_sub(4)) / 8 * 8).collect();
        inherited(&whole, mode);
    }
}
