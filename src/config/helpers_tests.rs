use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

fn helper(text: &str) -> Helper {
    Helper::parse(text).unwrap_or_else(|why| unreachable!("{text}: {why}"))
}

#[test]
fn a_helper_has_a_type_an_absolute_path_and_words() {
    let sshfs = helper("fuse.sshfs=/usr/bin/sshfs:cache,IdentityFile");
    assert_eq!((sshfs.kind.as_str(), sshfs.program.as_path()), ("fuse.sshfs", Path::new("/usr/bin/sshfs")));
    assert_eq!(sshfs.words, ["cache", "IdentityFile"]);
    assert_eq!(helper("nfs4=/sbin/mount.nfs4").words, [""; 0]);
    for (text, part) in [
        ("sshfs", "write NAME="),
        ("sshfs=sshfs", "not an absolute path"),
        ("sshfs=./sshfs", "not an absolute path"),
        ("sshfs=", "not an absolute path"),
        ("=/usr/bin/sshfs", "not the name of a type"),
        ("-t=/usr/bin/sshfs", "not the name of a type"),
        ("a b=/usr/bin/sshfs", "not the name of a type"),
        ("sshfs=/usr/bin/sshfs:a=b", "without a value"),
        ("sshfs=/usr/bin/sshfs:-o", "not the name of an option"),
        ("fuse=/usr/bin/sshfs", "which program runs"),
        ("fuse3=/usr/bin/sshfs", "which program runs"),
        ("fuseblk=/usr/bin/ntfs-3g", "which program runs"),
        ("auto=/usr/bin/sshfs", "which program runs"),
        ("none=/usr/bin/sshfs", "which program runs"),
        ("fuse.sshfs=/sbin/mount.fuse3", "runs the program that a volume names"),
        ("fuse.sshfs=/usr/sbin/mount.fuse", "runs the program that a volume names"),
        ("nfs=/bin/mount", "runs the program that a volume names"),
    ] {
        let why = Helper::parse(text).expect_err(text);
        assert!(why.contains(part) && !why.contains('\n'), "{text}: {why}");
    }
}

#[test]
fn options_pass_that_start_no_program() {
    let sshfs = helper("fuse.sshfs=/usr/bin/sshfs:cache");
    for (o, passed) in [
        ("", ""),
        ("defaults,ro,,nosuid", "ro,nosuid"),
        ("reconnect,uid=1000,port=22,umask=022", "reconnect,uid=1000,port=22,umask=022"),
        ("cache=yes,allow_other", "cache=yes,allow_other"),
    ] {
        assert_eq!(sshfs.options(o).as_deref(), Ok(passed));
    }
    for (o, key) in [
        ("ro,ssh_command=sh", "ssh_command"),
        ("ProxyCommand=sh", "ProxyCommand"),
        ("-oProxyCommand=sh", "-oProxyCommand"),
        ("port=22 -oProxyCommand=sh", "port"),
        ("uid=", "uid"),
        ("ro=x", "ro"),
        ("suid", "suid"),
        ("dev", "dev"),
        ("cache2=yes", "cache2"),
        (" ro", " ro"),
    ] {
        let why = sshfs.options(o).expect_err(o);
        assert!(why.contains(&format!("`o={key}`")) && why.contains("fuse.sshfs=/usr/bin/sshfs:"), "{why}");
    }
}

#[test]
fn a_source_is_no_option() {
    for source in ["user@host:/dir", "host:", "https://h/dav-x/", "//host/share", "[::1]:/x", "a-b_c.d:/e-f"]
    {
        assert_eq!(Helper::check_source(source), Ok(()));
    }
    for source in [
        "",
        "-oProxyCommand=sh",
        "[-oProxyCommand=sh]:/x",
        "u@-x:/",
        "h:-x",
        "x -o y",
        "//-h/s",
        "a\nb",
        "env#-S",
    ] {
        assert!(Helper::check_source(source).expect_err(source).contains("`device="), "{source}");
    }
}

#[test]
fn a_command_line_comes_before_the_file() {
    let given = ["a.b=/bin/one".to_owned(), "a.b=/bin/two".to_owned()];
    let helpers = Helpers::given(&given).expect("given");
    assert_eq!(helpers.find("a.b").expect("find").map(|found| found.program), Some("/bin/one".into()));
    let sentence = Helpers::given(&["fuse=/bin/sh".to_owned()]).expect_err("generic").to_string();
    assert!(sentence.starts_with("--allow-helper \"fuse=/bin/sh\": "), "{sentence}");
}

/// Needs root: only root can give a file to another user.
#[test]
fn the_file_of_the_administrator_is_roots_alone() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::TempDir::new().expect("dir");
    let (at, file) = (dir.path(), dir.path().join(FILE));
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    let sentence = || read(at).expect_err("refused").to_string();
    assert_eq!(read(&at.join("nowhere")), Ok(Vec::new()));
    assert_eq!(read(at), Ok(Vec::new()));
    fs::write(&file, "# remote\n\n  fuse.sshfs=/usr/bin/sshfs:cache \ndavfs=/sbin/mount.davfs\n")
        .expect("write");
    mode(&file, 0o644);
    assert_eq!(
        read(at),
        Ok(vec![helper("fuse.sshfs=/usr/bin/sshfs:cache"), helper("davfs=/sbin/mount.davfs")])
    );
    for writable in [0o664, 0o646, 0o666] {
        mode(&file, writable);
        assert!(sentence().contains("others than root may change it"), "{writable:o}");
    }
    mode(&file, 0o644);
    mode(at, 0o777);
    assert!(sentence().contains("others than root may change it"));
    mode(at, 0o755);
    chown(&file, Some(1000), None).expect("chown");
    assert!(sentence().contains("others than root may change it"));
    chown(&file, Some(0), None).expect("chown");
    fs::write(&file, "davfs=/sbin/mount.davfs\nfuse=/bin/sh\n").expect("write");
    assert!(sentence().contains("line 2: `type=fuse`"), "{}", sentence());
    fs::write(&file, b"\xff").expect("write");
    assert!(sentence().contains("it is not text"));
    let real = at.join("real");
    fs::rename(&file, &real).expect("rename");
    symlink(&real, &file).expect("symlink");
    assert!(sentence().contains("it is a link"));
    let link = at.join("link");
    symlink(at, &link).expect("symlink");
    assert!(read(&link).expect_err("directory").to_string().contains("it is a link"));
    fs::remove_file(&file).expect("remove");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("fifo");
    assert!(sentence().contains("make it a file"));
}
