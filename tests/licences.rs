//! The licences of all packages that are built in, for any platform and for tests too, are on the list of
//! `tests/data/licences.txt`, and all packages come from one registry or are this one.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Whether a licence expression can be met with licences of the list. Source: SPDX specification, annex "License expressions".
fn is_met(expression: &str, listed: &BTreeSet<&str>) -> bool {
    // An older form of OR.
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (met, rest) = any(&words, listed);
    assert!(rest.is_empty(), "{expression:?} cannot be read from {rest:?} on");
    met
}

fn any<'a>(words: &'a [&'a str], listed: &BTreeSet<&str>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = all(words, listed);
    while let ["OR", after @ ..] = rest {
        let (also, left) = all(after, listed);
        (met, rest) = (met | also, left);
    }
    (met, rest)
}

fn all<'a>(words: &'a [&'a str], listed: &BTreeSet<&str>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(words, listed);
    while let ["AND", after @ ..] = rest {
        let (also, left) = one(after, listed);
        (met, rest) = (met & also, left);
    }
    (met, rest)
}

fn one<'a>(words: &'a [&'a str], listed: &BTreeSet<&str>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inside @ ..] => match any(inside, listed) {
            (met, [")", rest @ ..]) => (met, rest),
            (_, rest) => panic!("no closing parenthesis before {rest:?}"),
        },
        [name, "WITH", exception, rest @ ..] => {
            (listed.contains(format!("{name} WITH {exception}").as_str()), rest)
        }
        [name, rest @ ..] => (listed.contains(name), rest),
        [] => panic!("a licence is missing"),
    }
}

#[test]
fn licences_are_on_the_list() {
    let root = env!("CARGO_MANIFEST_DIR");
    let list = std::fs::read_to_string(format!("{root}/tests/data/licences.txt")).unwrap();
    let listed: BTreeSet<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let known =
        cargo.args(["metadata", "--format-version=1", "--locked"]).current_dir(root).output().unwrap();
    assert!(known.status.success(), "{}", String::from_utf8_lossy(&known.stderr));
    let metadata: Value = serde_json::from_slice(&known.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 10);
    let mut wrong = Vec::new();
    let mut sources = BTreeSet::new();
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        match package["license"].as_str() {
            Some(licence) if is_met(licence, &listed) => {}
            licence => wrong.push(format!("{name}: {licence:?} is not on the list")),
        }
        match package["source"].as_str() {
            Some(source) => drop(sources.insert(source)),
            None if package["name"] == env!("CARGO_PKG_NAME") => {}
            None => wrong.push(format!("{name} is a directory of somebody's")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        sources.len() == 1 && sources.iter().all(|source| source.starts_with("registry+")),
        "{sources:?}"
    );
}

#[test]
fn expressions_are_met_or_not() {
    let listed = BTreeSet::from(["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-2.0",
        "(MIT OR X) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR X",
    ] {
        assert!(is_met(good, &listed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "X OR Y", "(MIT OR X) AND Y", "MIT WITH LLVM-exception"] {
        assert!(!is_met(bad, &listed), "{bad}");
    }
}
