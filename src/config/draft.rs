//! What was said on a command line, before it is known to make sense, and how a `Config` comes of it.
//!
//! Options may come in any order, so what one implies for another is settled here, once, at the end.
//! Source: Linux `fs/overlayfs/params.c`, `ovl_fs_params_verify`: what conflicts and what gives way in silence.

use std::path::PathBuf;
use std::time::Duration;

use super::{Config, FsyncMode, IdRange, LowerIo, MountFlags, RedirectDir, Upper, XattrPermissions, Xino};
use crate::error::{Error, Result};

/// What was said; nothing means: not mentioned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft {
    /// Lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Data-only lower layers, topmost first.
    pub data_lowers: Vec<PathBuf>,
    /// They are those of a `lowerdir=`, to which nothing is added.
    pub lowers_listed: bool,
    /// The writable layer.
    pub upper: Option<PathBuf>,
    /// The room beside it.
    pub work: Option<PathBuf>,
    /// The upper layer is made for this mount and goes with it.
    pub ephemeral: bool,
    /// What the mount is called in `/proc/mounts`.
    pub fsname: Option<String>,
    /// `redirect_dir=`
    pub redirect_dir: Option<RedirectWord>,
    /// `index=`
    pub index: Option<bool>,
    /// `metacopy=`
    pub metacopy: Option<bool>,
    /// `userxattr`
    pub userxattr: bool,
    /// `fsync=`, `volatile`
    pub fsync: Option<FsyncMode>,
    /// `xino=`
    pub xino: Option<Xino>,
    /// `uidmapping=`
    pub uids: Vec<IdRange>,
    /// `gidmapping=`
    pub gids: Vec<IdRange>,
    /// `squash_to_root`
    pub squash_to_root: bool,
    /// `squash_to_uid=`
    pub squash_uid: Option<u32>,
    /// `squash_to_gid=`
    pub squash_gid: Option<u32>,
    /// `xattr_permissions=`
    pub xattr_permissions: Option<XattrPermissions>,
    /// `noacl`
    pub noacl: bool,
    /// `noxattr`
    pub noxattr: bool,
    /// `static_nlink`
    pub static_nlink: bool,
    /// `timeout=`
    pub timeout: Option<Duration>,
    /// `writeback=`
    pub writeback: bool,
    /// `lower_io=`
    pub lower_io: Option<LowerIo>,
    /// `threads=`
    pub threads: Option<usize>,
    /// `nonempty`
    pub nonempty: bool,
    /// `remount`: the flags of a mount that is up change.
    pub remount: bool,
    /// `debug`: stay in the foreground and log what happens.
    pub debug: bool,
    /// Removed names are marked by `.wh.` files, never by devices.
    pub whiteout_files: bool,
    /// The flags of the mount itself.
    pub mount: MountFlags,
}

/// The words of `redirect_dir=`. Source: overlayfs.rst, "redirect_dir".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectWord {
    /// Written and followed.
    On,
    /// Not written; followed, as by a kernel with `CONFIG_OVERLAY_FS_REDIRECT_ALWAYS_FOLLOW`, the usual one.
    Off,
    /// Not written; followed.
    Follow,
    /// Neither.
    NoFollow,
}

impl RedirectWord {
    fn as_str(self) -> &'static str {
        match self {
            RedirectWord::On => "on",
            RedirectWord::Off => "off",
            RedirectWord::Follow => "follow",
            RedirectWord::NoFollow => "nofollow",
        }
    }

    fn meaning(self) -> RedirectDir {
        match self {
            RedirectWord::On => RedirectDir::On,
            RedirectWord::Off | RedirectWord::Follow => RedirectDir::Follow,
            RedirectWord::NoFollow => RedirectDir::NoFollow,
        }
    }
}

impl Draft {
    /// The configuration of a mount at `mountpoint`. Paths are made absolute; no directory is looked at.
    /// Errors: `Setup` if something is missing or two options contradict each other.
    pub fn into_config(self, mountpoint: PathBuf) -> Result<Config> {
        let redirect_dir = self.redirect_dir()?;
        let metacopy = self.metacopy()?;
        if self.lowers.is_empty() {
            return setup("no lower layer is given: name one with `-l DIR` or `-o lowerdir=DIR`");
        }
        let upper = match (self.upper, self.work) {
            (Some(dir), Some(work)) => Some(Upper { dir: absolute(dir)?, work: absolute(work)? }),
            (Some(dir), None) => {
                return setup(&format!(
                    "the upper layer {dir:?} has no workdir: name an empty directory beside it, on the same \
                     filesystem, with `-w DIR` or `-o workdir=DIR`"
                ));
            }
            // As the kernel: a workdir is of no use without an upper layer, and harmless.
            (None, _) => None,
        };
        let mut config = Config::new(absolute_all(self.lowers)?, upper, absolute(mountpoint)?);
        config.data_lowers = absolute_all(self.data_lowers)?;
        if let Some(fsname) = self.fsname {
            config.fsname = fsname;
        }
        config.marks.redirect_dir = redirect_dir;
        config.marks.metacopy = metacopy;
        config.marks.index = self.index.unwrap_or(config.marks.index) && config.upper.is_some();
        config.marks.userxattr = self.userxattr.then_some(true);
        config.marks.whiteout_files = self.whiteout_files;
        config.fsync = self.fsync.unwrap_or(config.fsync);
        config.xino = self.xino.unwrap_or(config.xino);
        config.ids.uids = self.uids;
        config.ids.gids = self.gids;
        // Source: fuse-overlayfs(1): squash_to_uid and squash_to_gid go before squash_to_root.
        let root = self.squash_to_root.then_some(0);
        config.ids.squash_uid = self.squash_uid.or(root);
        config.ids.squash_gid = self.squash_gid.or(root);
        config.xattr_permissions = self.xattr_permissions.unwrap_or(config.xattr_permissions);
        config.acl = !self.noacl;
        config.xattr = !self.noxattr;
        config.static_nlink = self.static_nlink;
        config.timeout = self.timeout;
        config.writeback = self.writeback;
        config.lower_io = self.lower_io.unwrap_or(config.lower_io);
        config.threads = self.threads;
        config.nonempty = self.nonempty;
        config.mount = self.mount;
        Ok(config)
    }

    /// What becomes of redirects: `userxattr` takes the default away and contradicts anything else.
    fn redirect_dir(&self) -> Result<RedirectDir> {
        match self.redirect_dir {
            Some(word @ (RedirectWord::On | RedirectWord::Follow)) if self.userxattr => setup(&format!(
                "`redirect_dir={}` contradicts `userxattr`, because anyone may write user.* attributes and so \
                 redirect into any part of a lower layer: leave one of them out",
                word.as_str()
            )),
            _ if self.userxattr => Ok(RedirectDir::NoFollow),
            Some(word) => Ok(word.meaning()),
            None => Ok(RedirectDir::On),
        }
    }

    /// Whether metadata is copied up alone: by default for an upper layer nobody else will read.
    fn metacopy(&self) -> Result<bool> {
        let without_redirects = match self.redirect_dir {
            None | Some(RedirectWord::On) => None,
            // Without an upper layer nothing is written, and following is all that metacopy needs.
            Some(RedirectWord::Follow | RedirectWord::Off) if self.upper.is_none() => None,
            Some(word) => Some(word),
        };
        match (self.metacopy, without_redirects) {
            (Some(true), _) if self.userxattr => setup(
                "`metacopy=on` contradicts `userxattr`, because anyone may write user.* attributes and so show \
                 any file of a lower layer: leave one of them out",
            ),
            (Some(true), Some(word)) => setup(&format!(
                "`metacopy=on` contradicts `redirect_dir={}`, because a renamed file could not find its data: \
                 leave one of them out, or give `redirect_dir=on`",
                word.as_str()
            )),
            (Some(metacopy), _) => Ok(metacopy),
            (None, without) => Ok(self.ephemeral && !self.userxattr && without.is_none()),
        }
    }
}

fn setup<T>(sentence: &str) -> Result<T> {
    Err(Error::Setup(sentence.to_owned()))
}

fn absolute_all(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    paths.into_iter().map(absolute).collect()
}

/// `path` from the root: the daemon leaves the directory it was started in.
pub fn absolute(path: PathBuf) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return setup("an empty path is given: name a directory, `.` for the current one");
    }
    std::path::absolute(&path).map_err(|e| {
        Error::Setup(format!("{path:?} cannot be made absolute ({e}): give the path from the root"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            lowers: vec!["/l".into()],
            upper: Some("/u".into()),
            work: Some("/w".into()),
            ..Draft::default()
        }
    }

    fn config(change: impl FnOnce(&mut Draft)) -> Result<Config> {
        let mut draft = draft();
        change(&mut draft);
        draft.into_config("/m".into())
    }

    #[test]
    fn nothing_said_is_the_default_config() {
        let upper = Upper { dir: "/u".into(), work: "/w".into() };
        assert_eq!(config(|_| ()), Ok(Config::new(vec!["/l".into()], Some(upper), "/m".into())));
    }

    #[test]
    fn paths_are_made_absolute() {
        let here = std::env::current_dir().expect("cwd");
        let config = config(|d| {
            d.lowers = vec!["a".into(), "./b".into()];
            d.data_lowers = vec!["d".into()];
            d.upper = Some("u".into());
        })
        .expect("config");
        assert_eq!(config.lowers, [here.join("a"), here.join("b")]);
        assert_eq!(config.data_lowers, [here.join("d")]);
        assert_eq!(config.upper.expect("upper").dir, here.join("u"));
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let lower = config(|d| d.lowers.clear()).expect_err("no lower").to_string();
        assert!(lower.contains("-l DIR"), "{lower}");
        let work = config(|d| d.work = None).expect_err("no workdir").to_string();
        assert!(work.contains("\"/u\"") && work.contains("-w DIR"), "{work}");
        let empty = config(|d| d.upper = Some("".into())).expect_err("empty").to_string();
        assert!(empty.contains("empty path"), "{empty}");
        assert_eq!(config(|d| d.upper = None).expect("workdir is ignored").upper, None);
    }

    /// Source: Linux `fs/overlayfs/params.c`, `ovl_fs_params_verify`.
    #[test]
    fn redirects_and_metacopy_follow_from_each_other_as_in_the_kernel() {
        use RedirectWord::*;
        // redirect_dir, metacopy, userxattr, ephemeral -> marks, or refused
        type Case = (Option<RedirectWord>, Option<bool>, bool, bool, Option<(RedirectDir, bool)>);
        let cases: &[Case] = &[
            (None, None, false, false, Some((RedirectDir::On, false))),
            (None, None, false, true, Some((RedirectDir::On, true))),
            (None, Some(true), false, false, Some((RedirectDir::On, true))),
            (None, Some(false), false, true, Some((RedirectDir::On, false))),
            (Some(On), Some(true), false, false, Some((RedirectDir::On, true))),
            (Some(Off), None, false, false, Some((RedirectDir::Follow, false))),
            (Some(Follow), None, false, true, Some((RedirectDir::Follow, false))),
            (Some(NoFollow), None, false, true, Some((RedirectDir::NoFollow, false))),
            (Some(Off), Some(true), false, false, None),
            (Some(Follow), Some(true), false, false, None),
            (Some(NoFollow), Some(true), false, false, None),
            (None, None, true, true, Some((RedirectDir::NoFollow, false))),
            (Some(Off), None, true, false, Some((RedirectDir::NoFollow, false))),
            (Some(NoFollow), Some(false), true, false, Some((RedirectDir::NoFollow, false))),
            (Some(On), None, true, false, None),
            (Some(Follow), None, true, false, None),
            (None, Some(true), true, false, None),
        ];
        for case in cases {
            let &(redirect_dir, metacopy, userxattr, ephemeral, expected) = case;
            let marks = config(|d| {
                *d = Draft { redirect_dir, metacopy, userxattr, ephemeral, ..d.clone() };
            })
            .map(|c| (c.marks.redirect_dir, c.marks.metacopy));
            assert_eq!(marks.clone().ok(), expected, "{case:?}");
            if let Err(error) = marks {
                assert!(error.to_string().contains("leave one of them out"), "{error}");
            }
        }
    }

    #[test]
    fn a_mount_without_upper_may_follow_metacopy_and_keeps_no_index() {
        let config = config(|d| {
            d.upper = None;
            d.metacopy = Some(true);
            d.redirect_dir = Some(RedirectWord::Follow);
            d.index = Some(true);
        })
        .expect("config");
        assert!(config.marks.metacopy && !config.marks.index);
    }

    #[test]
    fn squashing_to_one_id_goes_before_squashing_to_root() {
        let ids = config(|d| {
            d.squash_to_root = true;
            d.squash_gid = Some(7);
        })
        .expect("config")
        .ids;
        assert_eq!((ids.squash_uid, ids.squash_gid), (Some(0), Some(7)));
    }
}
