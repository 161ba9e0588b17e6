//! The arguments of mount(2), row by row as dockerd 20.10 passes them.

use super::*;

fn options(fstype: &str, o: &str, device: &str) -> BTreeMap<String, String> {
    [("type", fstype), ("o", o), ("device", device)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// Knows one host.
fn resolve(host: &str) -> Result<IpAddr, String> {
    match host {
        "share.example" => Ok([10, 9, 8, 7].into()),
        _ => host.parse().map_err(|_| "the name cannot be resolved".to_owned()),
    }
}

fn kernel(fstype: &str, o: &str, device: &str) -> Plan {
    match plan(&options(fstype, o, device), resolve) {
        Ok(Way::Kernel(plan)) => plan,
        other => unreachable!("{fstype} {o} {device}: {other:?}"),
    }
}

fn refused(fstype: &str, o: &str, device: &str) -> String {
    match plan(&options(fstype, o, device), resolve) {
        Err(why) => why,
        other => unreachable!("{fstype} {o} {device}: {other:?}"),
    }
}

/// Type, `o` and device; flags, data and the flags of the call that sets the propagation. Recorded with
/// `strace -e trace=mount` from dockerd 20.10.24.
#[test]
fn the_kernel_gets_what_dockerd_passes() {
    use MsFlags as F;
    let none = F::empty();
    let src = "/srv/src";
    let (rec, bind) = (F::MS_REC, F::MS_BIND);
    let limits = F::MS_RDONLY | F::MS_NOSUID | F::MS_NODEV | F::MS_NOEXEC;
    let times = F::MS_SYNCHRONOUS | F::MS_DIRSYNC | F::MS_NOATIME | F::MS_NODIRATIME;
    let cleared = "suid,dev,exec,rw,async,atime,diratime,norelatime,nostrictatime,nomand";
    for (fstype, o, device, flags, data, propagation) in [
        ("tmpfs", "", "tmpfs", none, "", None),
        ("tmpfs", "size=1m,mode=700,uid=5", "tmpfs", none, "size=1m,mode=700,uid=5", None),
        ("tmpfs", "size=1m", "none", none, "size=1m", None),
        ("tmpfs", "ro,nosuid,nodev,noexec,size=1m", "tmpfs", limits, "size=1m", None),
        ("tmpfs", cleared, "tmpfs", none, "", None),
        ("tmpfs", "sync,dirsync,noatime,nodiratime", "tmpfs", times, "", None),
        ("tmpfs", "relatime,strictatime", "tmpfs", F::MS_RELATIME | F::MS_STRICTATIME, "", None),
        ("tmpfs", "ro,rw", "tmpfs", none, "", None),
        ("tmpfs", "size=1m,,mode=755", "tmpfs", none, "size=1m,,mode=755", None),
        ("tmpfs", "private", "tmpfs", none, "", Some(F::MS_PRIVATE)),
        ("tmpfs", "rslave,size=1m", "tmpfs", rec, "size=1m", Some(rec | F::MS_SLAVE)),
        ("tmpfs", "shared,unbindable", "tmpfs", none, "", Some(F::MS_SHARED | F::MS_UNBINDABLE)),
        ("tmpfs", "lazytime", "tmpfs", none, "lazytime", None),
        ("tmpfs", "silent", "tmpfs", none, "silent", None),
        ("tmpfs", "mand", "tmpfs", F::MS_MANDLOCK, "", None),
        ("none", "bind", src, bind, "", None),
        ("", "bind", src, bind, "", None),
        ("ext4", "bind", src, bind, "", None),
        ("none", "rbind", src, bind | rec, "", None),
        ("none", "bind,ro", src, bind | F::MS_RDONLY, "", None),
        ("none", "bind,nosuid,noexec", src, bind | F::MS_NOSUID | F::MS_NOEXEC, "", None),
        (
            "none",
            "bind,ro,nosuid,rprivate",
            src,
            bind | rec | F::MS_RDONLY | F::MS_NOSUID,
            "",
            Some(rec | F::MS_PRIVATE),
        ),
        ("none", "bind,uid=5", src, bind, "uid=5", None),
        ("none", "rbind,ro,rslave", src, bind | rec | F::MS_RDONLY, "", Some(rec | F::MS_SLAVE)),
        ("ext4", "ro,errors=continue", "/dev/sdx", F::MS_RDONLY, "errors=continue", None),
        ("nfs", "addr=share.example,rw,port=2049", ":/export", none, "addr=10.9.8.7,port=2049", None),
        ("nfs", "addr=10.1.2.3,ro,nolock,soft", ":/export", F::MS_RDONLY, "addr=10.1.2.3,nolock,soft", None),
        ("nfs", "addr=::1,rw", ":/export", none, "addr=::1", None),
        (
            "nfs",
            "addr=share.example,addr=share.example,vers=4",
            ":/x",
            none,
            "addr=10.9.8.7,addr=share.example,vers=4",
            None,
        ),
        (
            "cifs",
            "username=u,password=p,addr=share.example",
            "//share.example/dir",
            none,
            "username=u,password=p,addr=10.9.8.7",
            None,
        ),
        ("cifs", "username=u,password=p", "//10.1.2.3/dir", none, "username=u,password=p", None),
        ("overlay", "lowerdir=/a:/b", "overlay", none, "lowerdir=/a:/b", None),
    ] {
        let (source, fstype, data) = (device.to_owned(), fstype.to_owned(), data.to_owned());
        let expected = Plan { source, fstype: fstype.clone(), flags, data, propagation };
        assert_eq!(kernel(&fstype, o, device), expected, "{fstype} {o} {device}");
    }
}

/// Where Docker's call fails or does nothing, and this one need not.
#[test]
fn the_kernel_gets_more_than_from_dockerd() {
    // dockerd: addr=share.example, which no kernel resolves.
    assert_eq!(kernel("nfs4", "addr=share.example,rw", ":/x").data, "addr=10.9.8.7");
    assert_eq!(kernel("smb3", "addr=share.example", "//share.example/d").data, "addr=10.9.8.7");
    // dockerd: the first text that looks so, mountaddr=10.9.8.7,addr=share.example.
    let data = kernel("nfs", "mountaddr=share.example,addr=share.example", ":/x").data;
    assert_eq!(data, "mountaddr=share.example,addr=10.9.8.7");
    // dockerd: no address.
    assert_eq!(kernel("nfs", "rw", "share.example:/x").data, "addr=10.9.8.7");
    assert_eq!(kernel("nfs", "vers=4", "[::1]:/x").data, "vers=4,addr=::1");
    // dockerd 20.10: the name; later ones: the address.
    assert_eq!(kernel("cifs", "username=u", "//share.example/dir").source, "//10.9.8.7/dir");
    // dockerd: data "defaults", which is refused.
    assert_eq!(kernel("tmpfs", "defaults", "tmpfs").data, "");
    // dockerd: no call at all.
    assert_eq!(kernel("tmpfs", "", "none").source, "none");
}

/// What selects a program in mount(8), or lets a file of the kernel start one.
#[test]
fn types_that_are_programs_or_interfaces_never_reach_the_kernel() {
    for fstype in [
        "fuse",
        "fuseblk",
        "fuse.sshfs",
        "fuse3.x",
        "fusectl",
        "cgroup",
        "cgroup2",
        "binfmt_misc",
        "proc",
        "sysfs",
        "debugfs",
        "tracefs",
        "bpf",
        "configfs",
        "devtmpfs",
        "devpts",
        "autofs",
        "securityfs",
        "NFS",
        "tmpfs ",
        "tmpfs,ext4",
        "../tmpfs",
        "auto",
    ] {
        let way = plan(&options(fstype, "rw", "env#-Ssh -c id"), resolve);
        assert_eq!(way, Ok(Way::Program), "{fstype}");
    }
}

#[test]
fn what_no_kernel_understands_is_refused_with_a_remedy() {
    for (fstype, o, device, part) in [
        ("tmpfs", "", "", "`device=` is empty"),
        ("tmpfs", "remount,size=1m", "tmpfs", "`o=remount`"),
        ("none", "rw", "/srv", "`type=none`"),
        ("", "", "/dev/sdx", "`type=` names no filesystem"),
        ("ext4", "loop", "/srv/image", "losetup"),
        ("ext4", "ro,offset=512", "/srv/image", "`o=offset=512`"),
        ("ext4", "", "UUID=12-34", "/dev/disk/by-uuid/12-34"),
        ("xfs", "", "LABEL=data", "/dev/disk/by-label/data"),
        ("9p", "trans=fd,rfdno=7,wfdno=8", "x", "`o=trans=fd`"),
        ("9p", "rfdno=7", "x", "`o=rfdno=7`"),
        ("nfs", "rw", ":/x", "add `addr=HOST`"),
        ("nfs", "addr=no-such-host.invalid", ":/x", "`o=addr=no-such-host.invalid`"),
        ("cifs", "", "//no-such-host.invalid/x", "`device=//no-such-host.invalid/x`"),
        ("overlay", &"lowerdir=".repeat(500), "overlay", "at most 4095"),
    ] {
        let why = refused(fstype, o, device);
        assert!(why.contains(part), "{fstype} {o} {device}: {why}");
    }
}
