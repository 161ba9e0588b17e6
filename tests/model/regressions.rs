//! Runs that failed once, as they were printed.

use crate::case::{Case, Maker::*, Terms::*, run};
use crate::format::mount::ready;
use crate::op::{Flag, Op::*, Step};
use crate::who;

/// Fails with what differs.
fn holds(case: Case) {
    if !ready() {
        return;
    }
    who::settle();
    if let Err(failure) = run(&case) {
        panic!("step {}: {}", failure.at, failure.text);
    }
}

fn root(op: crate::op::Op) -> Step {
    Step { uid: 0, umask: 0, op }
}

/// A directory leads elsewhere by a path from the root, and is in an opaque one: what leads there goes on, too.
#[test]
fn a_redirect_goes_on_behind_an_opaque_directory() {
    let first =
        vec![Mkdir("a", 0o777), Mkdir("c", 0o777), Mkdir("f", 0o555), Rename("f", "c/a", Flag::Replace)];
    let second = vec![
        Mkdir("f", 0o777),
        Rename("f", "a", Flag::Exchange),
        Rename("c", "a/c", Flag::Replace),
        Rename("a/c", "a/b", Flag::Replace),
    ];
    holds(Case {
        terms: Default,
        layers: [first, second].map(|ops| (Strata, ops.into_iter().map(root).collect())).to_vec(),
        steps: vec![root(Rename("a/b", "e", Flag::Replace))],
    });
}

/// The same for a file whose data is below.
#[test]
fn a_redirect_of_a_file_goes_on_behind_an_opaque_directory() {
    let first =
        vec![Mkdir("a", 0o777), Open(0, "f", libc::O_WRONLY | libc::O_CREAT, 0o644), Write(0, 7, 5000)];
    let second =
        vec![Mkdir("f2", 0o777), Rename("f2", "a", Flag::Exchange), Rename("f", "a/b", Flag::Replace)];
    holds(Case {
        terms: Metacopy,
        layers: [first, second].map(|ops| (Strata, ops.into_iter().map(root).collect())).to_vec(),
        steps: vec![root(Chmod("a/b", 0o600)), root(Rename("a/b", "e", Flag::Replace))],
    });
}

/// A redirect by name counts in the directory that the redirect above it leads to.
#[test]
fn redirects_on_one_way_add_up() {
    let first = vec![Mkdir("a", 0o777), Mkdir("a/b", 0o777), Mkdir("a/b/c", 0o777), Mkdir("a/b/c/d", 0o777)];
    let second = vec![Rename("a", "x", Flag::Replace), Rename("x/b", "x/y", Flag::Replace)];
    holds(Case {
        terms: Default,
        layers: [first, second].map(|ops| (Strata, ops.into_iter().map(root).collect())).to_vec(),
        steps: vec![root(Rename("x/y/c", "e", Flag::Replace)), root(Mkdir("e/new", 0o755))],
    });
}

/// What the kernel has not written back yet is no hole, or a copy that leaves holes out would lose it.
#[test]
fn data_that_is_not_written_back_is_no_hole() {
    holds(Case {
        terms: Writeback,
        layers: vec![(Hand, vec![])],
        steps: vec![
            root(Open(0, "d", libc::O_RDWR | libc::O_CREAT, 0o777)),
            root(Pwrite(0, 8192, 141, 1)),
            root(Holes(0, 978)),
            root(Holes(0, 9000)),
        ],
    });
}

/// To remove an ACL that is not there is no failure.
#[test]
fn an_absent_acl_is_removed() {
    let mut steps = Vec::new();
    for path in ["b", "b/d", "b/f"] {
        for name in ["system.posix_acl_access", "system.posix_acl_default", "user.x"] {
            steps.push(Step { uid: 0, umask: 0, op: Removexattr(path, name) });
        }
    }
    holds(Case {
        terms: Default,
        layers: vec![(
            Hand,
            vec![
                Step { uid: 0, umask: 0, op: Mkdir("b", 0o777) },
                Step { uid: 0, umask: 0, op: Mkdir("b/d", 0o755) },
                Step { uid: 0, umask: 0, op: Mknod("b/f", libc::S_IFREG | 0o644, 0, 0) },
            ],
        )],
        steps,
    });
}
