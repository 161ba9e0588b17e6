//! A source on another machine, as far as this one can be another: sshfs from an sshd of the test's own.
//! `STRATAFS_REQUIRE_SSHFS=1` makes a missing sshfs or sshd a failure.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::common::*;

const SSHD: &str = "/usr/sbin/sshd";

/// An sshd, and what it serves, mounted. Both are children, so nobody else's are touched.
struct Far {
    sshd: Child,
    sshfs: Child,
    /// Where it is mounted.
    at: PathBuf,
    /// What is served.
    dir: PathBuf,
    _free: Umount,
}

impl Far {
    fn new(f: &Fixture) -> Option<Far> {
        let there =
            |tool: &str| run(Command::new("sh").args(["-c", &format!("command -v {tool}")])).code == Some(0);
        if !(there("sshfs") && there(SSHD) && there("ssh-keygen")) {
            println!("skipped: no sshfs or no sshd (Debian: sshfs, openssh-server)");
            assert_ne!(std::env::var("STRATAFS_REQUIRE_SSHFS").as_deref(), Ok("1"), "sshfs is required");
            return None;
        }
        let base = f.host("ssh");
        let (at, dir) = (base.join("mnt"), base.join("far"));
        fs::create_dir_all(&at).unwrap();
        fs::create_dir_all(dir.join("d")).unwrap();
        fs::write(dir.join("f"), "far").unwrap();
        for key in ["host", "own"] {
            let words = ["-q", "-t", "ed25519", "-N", "", "-f"];
            run(Command::new("ssh-keygen").args(words).arg(base.join(key))).ok();
        }
        fs::copy(base.join("own.pub"), base.join("authorized")).unwrap();
        // Without it the program does not start; it is what a package makes at boot.
        fs::create_dir_all("/run/sshd").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let config = base.join("config");
        let shown = base.display();
        fs::write(
            &config,
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized\n\
                 PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n\
                 Subsystem sftp internal-sftp\n"
            ),
        )
        .unwrap();
        let sshd = spawn(Command::new(SSHD).args(["-D", "-e", "-f"]).arg(&config).stderr(Stdio::null()));
        let up = || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok();
        assert!(eventually(LIMIT, up), "sshd does not listen");
        let options = format!(
            "IdentityFile={shown}/own,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,LogLevel=ERROR,\
             dir_cache=no,attr_timeout=0,entry_timeout=0"
        );
        let mut sshfs = Command::new("sshfs");
        sshfs
            .args(["-f", "-p", &port, "-o", &options])
            .arg(format!("root@127.0.0.1:{}", dir.display()))
            .arg(&at);
        let sshfs = spawn(sshfs.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        assert!(eventually(LIMIT, || !mounts_at(&at).is_empty()), "sshfs does not mount");
        Some(Far { sshd, sshfs, _free: Umount(at.clone()), at, dir })
    }

    fn signal(&self, signal: i32) {
        assert_eq!(unsafe { libc::kill(self.sshfs.id() as i32, signal) }, 0);
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        for child in [&mut self.sshfs, &mut self.sshd] {
            // Stopped, it would not hear the other signal.
            unsafe { libc::kill(child.id() as i32, libc::SIGCONT) };
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn mounted() -> Option<(Fixture, Far)> {
    let mut f = Fixture::new(1).and_then(|f| f.departs("grafts")).and_then(Fixture::need_root)?;
    f.lower(0).file("low", "low");
    let far = Far::new(&f)?;
    f.args.extend(["-v".into(), format!("{}:/far", far.at.display()).into()]);
    f.mount();
    Some((f, far))
}

#[test]
fn a_source_over_ssh_works_as_far_as_ssh_does() {
    let Some((mut f, far)) = mounted() else { return };
    assert_eq!((names(f.p("far")), text(f.p("far/f"))), (vec!["d".to_owned(), "f".into()], "far".into()));
    let bytes: Vec<u8> = (0..4_000_000).map(|i: u32| (i / 3) as u8).collect();
    fs::write(f.p("far/big"), &bytes).unwrap();
    assert!(fs::read(far.dir.join("big")).unwrap() == bytes && fs::read(f.p("far/big")).unwrap() == bytes);
    fs::create_dir(f.p("far/d/e")).unwrap();
    sys::rename(f.p("far/big"), f.p("far/d/e/big")).unwrap();
    sys::symlink("../f", f.p("far/d/link")).unwrap();
    assert_eq!(fs::read_link(far.dir.join("d/link")).unwrap(), Path::new("../f"));
    // Some versions of sshfs cannot read one.
    assert_eq!(no(fs::read_link(f.p("far/d/link"))), no(fs::read_link(far.at.join("d/link"))));
    assert!(stat(f.p("far/d/link")).is_symlink());
    sys::truncate(f.p("far/d/e/big"), 10).unwrap();
    sys::chmod(f.p("far/d/e/big"), 0o640).unwrap();
    sys::utimens(f.p("far/f"), (10, 0), (20, 0)).unwrap();
    assert_eq!((stat(far.dir.join("d/e/big")).mode() & 0o777, mtime(far.dir.join("f"))), (0o640, (20, 0)));
    let mut append = sys::open(f.p("far/f"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
    std::io::Write::write_all(&mut append, b" away").unwrap();
    drop(append);
    assert_eq!(text(far.dir.join("f")), "far away");
    // Both directions.
    fs::write(far.dir.join("f"), "changed there").unwrap();
    fs::write(far.dir.join("new"), "new").unwrap();
    assert_eq!((text(f.p("far/f")), text(f.p("far/new"))), ("changed there".into(), "new".into()));
    sys::unlink(far.dir.join("new")).unwrap();
    assert_eq!(missing(f.p("far/new")), Errno::ENOENT);
    // A file that is open stays so when its name goes.
    let open = rw(f.p("far/d/e/big"));
    sys::unlink(f.p("far/d/e/big")).unwrap();
    open.write_all_at(b"0123456789", 0).unwrap();
    assert_eq!(through(&open), b"0123456789");
    drop(open);
    fs::remove_dir_all(f.p("far/d/e")).unwrap();
    for e in dents(f.p("far")) {
        assert_eq!(e.ino, stat(f.p("far").join(&e.name)).ino(), "{:?}", e.name);
    }
    assert_eq!(sys::rename(f.p("far/f"), f.p("f")), Err(Errno::EXDEV));
    f.check(|m| {
        assert_eq!(
            (names(m.join("far")), text(m.join("far/f"))),
            (vec!["d".into(), "f".into()], "changed there".into())
        )
    });
}

type Call = fn(&Path) -> Result<(), Errno>;

#[test]
fn what_the_source_cannot_do_is_answered_as_it_answers() {
    let Some((mut f, far)) = mounted() else { return };
    let calls: [(&str, Call); 10] = [
        ("link", |d| sys::link(d.join("f"), d.join("hard"))),
        ("setxattr", |d| sys::setxattr(d.join("f"), "user.k", b"v", 0)),
        ("getxattr", |d| sys::getxattr(d.join("f"), "user.k").map(drop)),
        ("fifo", |d| sys::mknod(d.join("fifo"), libc::S_IFIFO | 0o644, 0)),
        ("device", |d| sys::mknod(d.join("device"), libc::S_IFCHR | 0o644, libc::makedev(1, 3))),
        ("exchange", |d| sys::renameat2(d.join("f"), d.join("d"), libc::RENAME_EXCHANGE)),
        ("noreplace", |d| sys::renameat2(d.join("f"), d.join("d"), libc::RENAME_NOREPLACE)),
        ("rmdir", |d| sys::rmdir(d.join("d"))),
        ("fallocate", |d| sys::fallocate(&rw(d.join("f")), libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096)),
        ("statfs", |d| sys::statvfs(d).map(drop)),
    ];
    fs::write(far.dir.join("d/x"), "x").unwrap();
    for (what, call) in calls {
        let itself = call(&far.at);
        for name in ["hard", "fifo", "device"] {
            let _ = sys::unlink(far.dir.join(name));
        }
        assert_eq!(call(&f.p("far")), itself, "{what}");
        for name in ["hard", "fifo", "device"] {
            let _ = sys::unlink(far.dir.join(name));
        }
    }
    f.check(|m| assert_eq!(names(m.join("far")), ["d", "f"]));
}

#[test]
fn a_source_over_ssh_that_stops_or_goes() {
    let Some((mut f, mut far)) = mounted() else { return };
    let open = rw(f.p("far/f"));
    stop(far.sshfs.id() as i32);
    let waiting: Vec<_> = (0..20)
        .map(|i| {
            let at = f.p(format!("far/n{i}"));
            std::thread::spawn(move || no(fs::write(at, "n")))
        })
        .collect();
    for _ in 0..5 {
        assert_eq!((names(f.p("")), text(f.p("low"))), (vec!["far".to_owned(), "low".into()], "low".into()));
        fs::write(f.p("near"), "near").unwrap();
        sys::unlink(f.p("near")).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    far.signal(libc::SIGCONT);
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Ok(()));
    }
    assert_eq!(names(&far.dir).len(), 22);
    // The other machine goes away.
    far.sshd.kill().unwrap();
    far.sshd.wait().unwrap();
    far.signal(libc::SIGKILL);
    far.sshfs.wait().unwrap();
    for path in ["far", "far/f", "far/new"] {
        assert_eq!(err(f.p(path).symlink_metadata()), Errno::ENOTCONN, "{path}");
    }
    assert!([Errno::ENOTCONN, Errno::EIO].contains(&err(open.read_at(&mut [0; 3], 0))));
    assert_eq!((names(f.p("")), text(f.p("low"))), (vec!["far".to_owned(), "low".into()], "low".into()));
    drop(open);
    f.unmount();
}

#[test]
fn a_lower_layer_over_ssh() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("far")).and_then(Fixture::need_root) else {
        return;
    };
    let Some(far) = Far::new(&f) else { return };
    f.lower(0).file("low", "low");
    // Below the others.
    f.args.extend(["-l".into(), far.at.clone().into()]);
    f.mount();
    assert_eq!(
        (names(f.p("")), text(f.p("f"))),
        (vec!["d".to_owned(), "f".into(), "low".into()], "far".into())
    );
    let old = ro(f.p("f"));
    fs::write(f.p("f"), "upper").unwrap();
    fs::write(f.p("d/new"), "new").unwrap();
    assert_eq!((through(&old), text(far.dir.join("f"))), (b"upper".to_vec(), "far".into()));
    sys::rename(f.p("d"), f.p("moved")).unwrap();
    sys::chmod(f.p("f"), 0o600).unwrap();
    drop(old);
    f.check(|m| {
        assert_eq!(
            (names(m), names(m.join("moved")), text(m.join("f"))),
            (vec!["f".into(), "low".into(), "moved".into()], vec!["new".into()], "upper".into())
        )
    });
    f.unmount();
    assert_eq!(
        (names(&far.dir), names(far.dir.join("d")), text(far.dir.join("f"))),
        (vec!["d".to_owned(), "f".into()], vec![], "far".into())
    );
}
