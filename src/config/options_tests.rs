//! Tests of the `-o` table, apart from it because the table is long.

use std::path::PathBuf;

use super::*;
use crate::config::{Config, IdRange, MountFlags};

fn said(list: &str) -> Draft {
    let mut draft = Draft::default();
    parse(&mut draft, OsStr::new(list)).unwrap_or_else(|e| unreachable!("{list}: {e}"));
    draft
}

fn refusal(list: &str) -> String {
    parse(&mut Draft::default(), OsStr::new(list)).expect_err(list).to_string()
}

fn draft(set: impl FnOnce(&mut Draft)) -> Draft {
    let mut draft = Draft::default();
    set(&mut draft);
    draft
}

#[test]
fn each_option_sets_what_it_says() {
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let flags = |set: fn(&mut MountFlags)| draft(|d| set(&mut d.mount));
    let listed = |lowers: &[&str], data: &[&str]| {
        draft(|d| (d.lowers, d.data_lowers, d.lowers_listed) = (paths(lowers), paths(data), true))
    };
    let cases: Vec<(&str, Draft)> = vec![
        ("", draft(|_| ())),
        ("lowerdir=/a:/b::/d", listed(&["/a", "/b"], &["/d"])),
        ("lowerdir=/x,lowerdir=/a", listed(&["/a"], &[])),
        ("lowerdir+=/x,lowerdir=/a", listed(&["/a"], &[])),
        ("lowerdir+=/a,lowerdir+=/b:c,lowerdir+=/d", draft(|d| d.lowers = paths(&["/a", "/b:c", "/d"]))),
        ("lowerdir+=/a\\:b\\,c", draft(|d| d.lowers = paths(&["/a\\:b,c"]))),
        ("lowerdir=/a\\,b\\:c", listed(&["/a,b:c"], &[])),
        ("lowerdir=\"/a,b:/c\"", listed(&["/a,b", "/c"], &[])),
        ("datadir+=/d", draft(|d| d.data_lowers = paths(&["/d"]))),
        ("upperdir=/u,workdir=/w", draft(|d| (d.upper, d.work) = (Some("/u".into()), Some("/w".into())))),
        ("redirect_dir=nofollow", draft(|d| d.redirect_dir = Some(RedirectWord::NoFollow))),
        ("redirect_dir=off", draft(|d| d.redirect_dir = Some(RedirectWord::Off))),
        ("index=off,metacopy=on", draft(|d| (d.index, d.metacopy) = (Some(false), Some(true)))),
        ("userxattr", draft(|d| d.userxattr = true)),
        ("xino=on", draft(|d| d.xino = Some(Xino::On))),
        ("fsync=strict", draft(|d| d.fsync = Some(FsyncMode::Strict))),
        ("fsync=0", draft(|d| d.fsync = Some(FsyncMode::Off))),
        ("fsync=1", draft(|d| d.fsync = Some(FsyncMode::Auto))),
        ("volatile", draft(|d| d.fsync = Some(FsyncMode::Volatile))),
        ("volatile,fsync=strict", draft(|d| d.fsync = Some(FsyncMode::Strict))),
        ("uidmapping=:0:1000:1", draft(|d| d.uids = vec![IdRange { disk: 0, shown: 1000, size: 1 }])),
        ("gidmapping=0:1000:1", draft(|d| d.gids = vec![IdRange { disk: 0, shown: 1000, size: 1 }])),
        ("squash_to_root", draft(|d| d.squash_to_root = true)),
        ("squash_to_uid=5,squash_to_gid=6", draft(|d| (d.squash_uid, d.squash_gid) = (Some(5), Some(6)))),
        ("xattr_permissions=2", draft(|d| d.xattr_permissions = Some(XattrPermissions::User))),
        ("noacl,static_nlink", draft(|d| (d.noacl, d.static_nlink) = (true, true))),
        ("noxattr", draft(|d| d.noxattr = true)),
        ("noxattrs=1", draft(|d| d.noxattr = true)),
        ("noxattrs", draft(|d| d.noxattr = true)),
        ("noxattrs=0", draft(|_| ())),
        ("timeout=0.5", draft(|d| d.timeout = Some(Duration::from_millis(500)))),
        ("timeout=0", draft(|d| d.timeout = Some(Duration::ZERO))),
        ("timeout=1000000000.0", draft(|_| ())),
        ("writeback=1", draft(|d| d.writeback = true)),
        ("writeback", draft(|d| d.writeback = true)),
        ("lower_io=passthrough", draft(|d| d.lower_io = Some(LowerIo::Passthrough))),
        ("lower_io=passthrough,lower_io=cached", draft(|d| d.lower_io = Some(LowerIo::Cached))),
        ("writeback=off", draft(|_| ())),
        ("threads=4", draft(|d| d.threads = Some(4))),
        ("fsname=my\\,fs", draft(|d| d.fsname = Some("my,fs".into()))),
        ("nonempty", draft(|d| d.nonempty = true)),
        ("debug,remount", draft(|d| (d.debug, d.remount) = (true, true))),
        ("sync=0", draft(|d| d.fsync = Some(FsyncMode::Off))),
        ("nosymfollow", flags(|m| m.nosymfollow = true)),
        ("ro", flags(|m| m.read_only = true)),
        ("ro,rw", flags(|_| ())),
        ("nosuid,nodev,noexec", flags(|m| (m.nosuid, m.nodev, m.noexec) = (true, true, true))),
        ("nosuid,nodev,noexec,suid,dev,exec", flags(|_| ())),
        ("noatime,sync,dirsync", flags(|m| (m.noatime, m.sync, m.dirsync) = (true, true, true))),
        ("noatime,sync,atime,async", flags(|_| ())),
        ("allow_other", flags(|m| m.allow_other = Some(true))),
        ("allow_root", flags(|m| (m.allow_other, m.allow_root) = (Some(false), true))),
        ("context=\"s0:c1,c2\"", flags(|m| m.context = vec!["context=\"s0:c1,c2\"".into()])),
        (
            "context=a,fscontext=b,context=c",
            flags(|m| m.context = vec!["fscontext=b".into(), "context=c".into()]),
        ),
    ];
    for (list, expected) in cases {
        assert_eq!(said(list), expected, "{list}");
    }
}

#[test]
fn what_callers_pass_for_no_effect_has_none() {
    for list in [
        "default_permissions,relatime,strictatime,lazytime,nodiratime,defaults,silent",
        "x-systemd.requires=/a,x-gvfs-show,X-mount.mkdir,_netdev,auto,noauto,user,users,nofail,comment=a",
        "fast_ino_check,fast_ino=1,plugins=/a,max_idle_threads=5,clone_fd,threaded=0,subtype=x,max_write=4096",
        "uuid=on,uuid=null,nfs_export=off,verity=off,auto_unmount,ino32_t,private,rslave,rbind",
    ] {
        assert_eq!(said(list), Draft::default(), "{list}");
    }
}

/// Source: containers/storage `drivers/overlay/overlay.go`, the call of a mount program.
#[test]
fn the_list_podman_writes_is_understood() {
    let draft = said(
        "lowerdir=/s/l/AB:/s/l/CD,upperdir=/s/1/diff,workdir=/s/1/work,uidmapping=:0:1000:1:1:110000:65536,\
         gidmapping=:0:1000:1:1:110000:65536,volatile,context=\"system_u:object_r:container_file_t:s0:c1,c2\"",
    );
    let config: Config = draft.into_config("/s/1/merged".into()).expect("config");
    assert_eq!(config.lowers, [PathBuf::from("/s/l/AB"), PathBuf::from("/s/l/CD")]);
    assert_eq!(config.ids.uids.len(), 2);
    assert_eq!(config.mount.context, ["context=\"system_u:object_r:container_file_t:s0:c1,c2\""]);
}

#[test]
fn a_refusal_names_option_value_and_remedy() {
    let cases = [
        ("ro,lowredir=/a", &["`lowredir=/a`", "did you mean `lowerdir`?"][..]),
        ("uperdir=/u", &["`uperdir=/u`", "did you mean `upperdir`?"]),
        ("metadata_copy=on", &["`metadata_copy=on`", "unknown", "--help"]),
        ("volume=data:/data", &["`volume=data:/data`", "stratafs mount", "-v"]),
        ("zzzz", &["`zzzz`", "remove it"]),
        ("lowerdir", &["`lowerdir`", "write `lowerdir=A:B::D`"]),
        ("lowerdir=/a:", &["`lowerdir=/a:`", "a colon at the end"]),
        ("lowerdir=/a::/d:/b", &["ordinary layer cannot follow"]),
        ("upperdir=", &["`upperdir=`", "write a path"]),
        ("lowerdir+=", &["`lowerdir+=`", "write a path"]),
        ("lowerdir=/a,lowerdir+=/b", &["`lowerdir+=/b`", "by the one or by the other"]),
        ("lowerdir=/a,datadir+=/b", &["`datadir+=/b`", "by the one or by the other"]),
        ("datadir+=/a,lowerdir+=/b", &["`lowerdir+=/b`", "data-only layers come last"]),
        ("redirect_dir=maybe", &["`redirect_dir=maybe`", "on, off, follow, nofollow"]),
        ("index=yes", &["`index=yes`", "give on or off"]),
        ("xino=2", &["`xino=2`", "auto, on, off"]),
        ("nfs_export=on", &["`nfs_export=on`", "NFS", "nfs_export=off"]),
        ("verity=require", &["`verity=require`", "verity=off"]),
        ("uuid=1234", &["`uuid=1234`", "auto, on, off, null"]),
        ("userxattr=off", &["`userxattr=off`", "takes no value"]),
        ("uidmapping=0:1", &["`uidmapping=0:1`", "whole triples"]),
        ("gidmapping=0:5:2:1:9:1", &["overlaps"]),
        ("squash_to_uid=root", &["`squash_to_uid=root`", "whole number"]),
        ("squash_to_gid=4294967295", &["whole number"]),
        ("xattr_permissions=3", &["`xattr_permissions=3`", "0, 1, 2"]),
        ("timeout=-1", &["`timeout=-1`", "give seconds"]),
        ("timeout=nan", &["`timeout=nan`", "give seconds"]),
        ("threads=0", &["`threads=0`", "1 to 1024"]),
        ("lower_io=direct", &["`lower_io=direct`", "cached, passthrough"]),
        ("lower_io", &["`lower_io`", "needs a value"]),
        ("fsync=sometimes", &["`fsync=sometimes`", "auto, strict, volatile"]),
        ("sync=2", &["`sync=2`", "give on or off"]),
        ("context=\"a,b", &["never closed"]),
    ];
    for (list, parts) in cases {
        let sentence = refusal(list);
        for part in parts {
            assert!(sentence.contains(part), "{list}: {sentence}");
        }
        assert!(!sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn the_table_names_nothing_twice() {
    let mut names: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}
