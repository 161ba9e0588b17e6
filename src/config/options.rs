//! The `-o` grammar: one table says which options there are, what each means in one line, and what it sets.
//!
//! Names are those of kernel overlayfs, fuse-overlayfs and mount(8). A later mention of an option replaces an earlier
//! one, as in mount(8). How a list is cut into options is in `split`; what options imply for each other in `draft`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::draft::{Draft, RedirectWord};
use super::split::{self, Field};
use super::{FsyncMode, LowerIo, XattrPermissions, Xino, ids};
use crate::error::{Error, Result};
use crate::graft::shown;

/// One option: how it is written, what it is for, what it does.
pub struct Entry {
    /// Before the `=`.
    pub name: &'static str,
    /// After the `=`, as help shows it; empty for a plain word.
    pub value: &'static str,
    /// One line for `--help`; empty where the option is accepted and does nothing.
    pub help: &'static str,
    action: Action,
}

enum Action {
    /// Takes no value.
    Word(fn(&mut Draft)),
    /// Takes a value; the error is the sentence that follows the option's name.
    Value(fn(&mut Draft, &[u8]) -> Why),
    /// Takes `on`, `off`, `1` or `0`; alone it means `on`.
    Switch(fn(&mut Draft, bool)),
    /// Taken with or without a value, as written.
    Raw(fn(&mut Draft, &Field) -> Why),
    /// Known, and of no effect here.
    Ignored,
}

type Why = std::result::Result<(), String>;

const fn entry(name: &'static str, value: &'static str, help: &'static str, action: Action) -> Entry {
    Entry { name, value, help, action }
}

const fn ignored(name: &'static str) -> Entry {
    entry(name, "", "", Action::Ignored)
}

use Action::{Raw, Switch, Value, Word};

/// Every option, in the order help shows them.
#[rustfmt::skip]
pub static TABLE: &[Entry] = &[
    entry("lowerdir", "A:B::D", "lower layers, topmost first; `::` begins data-only layers; `\\:` is a colon in a name", Value(lowerdir)),
    entry("lowerdir+", "DIR", "one more lower layer, below the others; the path as it is", Value(|d, v| one_more(d, v, false))),
    entry("datadir+", "DIR", "one more data-only layer; the path as it is", Value(|d, v| one_more(d, v, true))),
    entry("upperdir", "DIR", "the writable layer; without one the mount is read-only", Value(|d, v| { d.upper = Some(given_path(v)?); Ok(()) })),
    entry("workdir", "DIR", "beside the upper layer, on the same filesystem", Value(|d, v| { d.work = Some(given_path(v)?); Ok(()) })),
    entry("redirect_dir", "on|off|follow|nofollow", "renames of directories with lower parts (default on)", Value(|d, v| {
        d.redirect_dir = Some(one_of(v, &[("on", RedirectWord::On), ("off", RedirectWord::Off), ("follow", RedirectWord::Follow), ("nofollow", RedirectWord::NoFollow)])?);
        Ok(())
    })),
    entry("index", "on|off", "hard links survive copy-up (default on)", Value(|d, v| { d.index = Some(on_off(v)?); Ok(()) })),
    entry("metacopy", "on|off", "changes of metadata copy no data (default off; on with --ephemeral)", Value(|d, v| { d.metacopy = Some(on_off(v)?); Ok(()) })),
    entry("userxattr", "", "marks in user.overlay.* (default: where trusted.overlay.* cannot be written)", Word(|d| d.userxattr = true)),
    entry("xino", "on|off|auto", "one space of inode numbers over several devices (default auto)", Value(|d, v| {
        d.xino = Some(one_of(v, &[("auto", Xino::Auto), ("on", Xino::On), ("off", Xino::Off)])?);
        Ok(())
    })),
    entry("fsync", "auto|strict|volatile", "when copied-up data reaches the disk (default auto)", Value(|d, v| {
        d.fsync = Some(one_of(v, &[("auto", FsyncMode::Auto), ("strict", FsyncMode::Strict), ("volatile", FsyncMode::Volatile), ("1", FsyncMode::Auto), ("0", FsyncMode::Off)])?);
        Ok(())
    })),
    entry("volatile", "", "nothing is ever synced; a crash loses the upper layer", Word(|d| d.fsync = Some(FsyncMode::Volatile))),
    entry("uidmapping", "D:S:N[:...]", "N user ids from D on disk are shown as those from S", Value(|d, v| { d.uids = ids::parse(&text(v), ids::Order::DiskFirst)?; Ok(()) })),
    entry("gidmapping", "D:S:N[:...]", "the same for groups", Value(|d, v| { d.gids = ids::parse(&text(v), ids::Order::DiskFirst)?; Ok(()) })),
    entry("squash_to_root", "", "every file shows owner and group 0", Word(|d| d.squash_to_root = true)),
    entry("squash_to_uid", "N", "every file shows this owner", Value(|d, v| { d.squash_uid = Some(id(v)?); Ok(()) })),
    entry("squash_to_gid", "N", "every file shows this group", Value(|d, v| { d.squash_gid = Some(id(v)?); Ok(()) })),
    entry("xattr_permissions", "0|1|2", "owner and mode: on the file, in security.* (1), in user.* (2)", Value(|d, v| {
        d.xattr_permissions = Some(one_of(v, &[("0", XattrPermissions::Off), ("1", XattrPermissions::Security), ("2", XattrPermissions::User)])?);
        Ok(())
    })),
    entry("noacl", "", "POSIX ACLs are kept and shown, and have no effect", Word(|d| d.noacl = true)),
    entry("noxattr", "", "no extended attributes are shown", Word(|d| d.noxattr = true)),
    entry("static_nlink", "", "directories always show a link count of one", Word(|d| d.static_nlink = true)),
    entry("timeout", "SECS", "how long the kernel keeps names and attributes (default: for ever)", Value(|d, v| { d.timeout = seconds(v)?; Ok(()) })),
    entry("writeback", "on|off", "the kernel's writeback cache, without passthrough (default off)", Switch(|d, on| d.writeback = on)),
    entry("lower_io", "cached|passthrough", "how lower files are read beneath an upper layer (default cached)", Value(|d, v| {
        d.lower_io = Some(one_of(v, &[("cached", LowerIo::Cached), ("passthrough", LowerIo::Passthrough)])?);
        Ok(())
    })),
    entry("threads", "N", "worker threads (default: one per CPU, at least two)", Value(|d, v| { d.threads = Some(threads(v)?); Ok(()) })),
    entry("fsname", "NAME", "the source shown in /proc/mounts (default stratafs)", Value(|d, v| { d.fsname = Some(text(&split::unescape(v))); Ok(()) })),
    entry("nonempty", "", "the mountpoint may hold names; they are hidden", Word(|d| d.nonempty = true)),
    entry("ro", "", "no change is taken even though there is an upper layer", Word(|d| d.mount.read_only = true)),
    entry("rw", "", "the opposite of ro", Word(|d| d.mount.read_only = false)),
    entry("nosuid", "", "set-user-id bits have no effect; suid is the opposite", Word(|d| d.mount.nosuid = true)),
    entry("nodev", "", "device files have no effect; dev is the opposite", Word(|d| d.mount.nodev = true)),
    entry("noexec", "", "nothing is executed from here; exec is the opposite", Word(|d| d.mount.noexec = true)),
    entry("nosymfollow", "", "no symlink is followed here, for mounts by root; symfollow is the opposite", Word(|d| d.mount.nosymfollow = true)),
    entry("noatime", "", "access times are not kept; atime is the opposite", Word(|d| d.mount.noatime = true)),
    entry("sync", "", "every write is synchronous; async is the opposite", Raw(sync)),
    entry("dirsync", "", "every change of a directory is synchronous", Word(|d| d.mount.dirsync = true)),
    entry("allow_other", "", "other users may look in (default where it is allowed)", Word(|d| {
        d.mount.allow_root = false;
        d.mount.allow_other = Some(true);
    })),
    entry("allow_root", "", "root may look in as well as the owner, nobody else", Word(|d| {
        d.mount.allow_root = true;
        d.mount.allow_other = Some(false);
    })),
    entry("context", "LABEL", "SELinux label of everything, in double quotes if it holds a comma; also fscontext, defcontext, rootcontext", Raw(context)),
    // Opposites, named in the lines above.
    entry("suid", "", "", Word(|d| d.mount.nosuid = false)),
    entry("dev", "", "", Word(|d| d.mount.nodev = false)),
    entry("exec", "", "", Word(|d| d.mount.noexec = false)),
    entry("symfollow", "", "", Word(|d| d.mount.nosymfollow = false)),
    entry("atime", "", "", Word(|d| d.mount.noatime = false)),
    entry("async", "", "", Word(|d| d.mount.sync = false)),
    entry("fscontext", "", "", Raw(context)),
    entry("defcontext", "", "", Raw(context)),
    entry("rootcontext", "", "", Raw(context)),
    // fuse-overlayfs writes it with a number.
    entry("noxattrs", "", "", Switch(|d, on| d.noxattr = on)),
    // Known, and not offered.
    entry("nfs_export", "off", "", Value(|_, v| match on_off(v)? {
        false => Ok(()),
        true => Err("an NFS server needs file handles that outlive the daemon, and FUSE has none: give nfs_export=off".to_owned()),
    })),
    entry("verity", "off", "", Value(|_, v| match one_of(v, &[("off", false), ("on", true), ("require", true)])? {
        false => Ok(()),
        true => Err("fs-verity digests of lower files are not checked: give verity=off, or mount with the kernel's overlayfs".to_owned()),
    })),
    entry("uuid", "", "", Value(|_, v| one_of(v, &[("auto", ()), ("on", ()), ("off", ()), ("null", ())]))),
    // As `-d`.
    entry("debug", "", "", Word(|d| d.debug = true)),
    entry("remount", "", "with ro or rw and other flags: change those of a mount that is up", Word(|d| d.remount = true)),
    // Always so, or decided elsewhere, or a matter between the caller and mount(8).
    ignored("default_permissions"), ignored("defaults"), ignored("relatime"), ignored("norelatime"),
    ignored("strictatime"), ignored("nostrictatime"), ignored("lazytime"), ignored("nolazytime"), ignored("diratime"),
    ignored("nodiratime"), ignored("iversion"), ignored("noiversion"), ignored("mand"), ignored("nomand"),
    ignored("silent"), ignored("loud"), ignored("subtype"), ignored("_netdev"), ignored("auto"), ignored("noauto"),
    ignored("user"), ignored("nouser"), ignored("users"), ignored("owner"), ignored("group"), ignored("nofail"),
    ignored("comment"), ignored("fast_ino"), ignored("fast_ino_check"), ignored("plugins"), ignored("threaded"),
    ignored("max_idle_threads"), ignored("max_threads"), ignored("max_read"), ignored("max_write"), ignored("clone_fd"),
    ignored("splice_read"), ignored("splice_write"), ignored("splice_move"), ignored("kernel_cache"),
    ignored("auto_cache"), ignored("big_writes"), ignored("entry_timeout"), ignored("attr_timeout"),
    ignored("negative_timeout"), ignored("nfs_filehandles"), ignored("ino32_t"),
    // The daemon unmounts whenever it ends in order; `stratafs umount` clears what a killed one leaves.
    ignored("auto_unmount"),
    // Propagation belongs to mount(8), which changes it with a call of its own.
    ignored("private"), ignored("shared"), ignored("slave"), ignored("unbindable"), ignored("rprivate"),
    ignored("rshared"), ignored("rslave"), ignored("runbindable"), ignored("bind"), ignored("rbind"),
];

/// Takes every option of a comma list into `draft`.
///
/// # Errors
///
/// `Setup` naming the option, its value and the remedy; an unknown option is an error, too.
pub fn parse(draft: &mut Draft, list: &OsStr) -> Result<()> {
    parse_with(draft, list, Err)
}

/// As [`parse`], but an unknown option is skipped. Returns one sentence for each.
///
/// Engines and administrators add options without knowing which program mounts.
/// Source: the effect of fuse-overlayfs 1.10 and 2.0: one line on standard error, then the mount.
///
/// # Errors
///
/// `Setup` for a known option with a value that it does not take.
pub fn parse_tolerant(draft: &mut Draft, list: &OsStr) -> Result<Vec<String>> {
    let mut skipped = Vec::new();
    parse_with(draft, list, |unknown| {
        skipped.push(unknown.to_string());
        Ok(())
    })?;
    Ok(skipped)
}

fn parse_with(draft: &mut Draft, list: &OsStr, mut unknown: impl FnMut(Error) -> Result<()>) -> Result<()> {
    for field in split::fields(list.as_bytes())? {
        // mount(8) keeps `x-...` for other programs and `X-...` for itself.
        if field.name.starts_with("x-") || field.name.starts_with("X-") {
            continue;
        }
        match TABLE.iter().find(|entry| entry.name == field.name) {
            Some(entry) => take(draft, entry, &field)?,
            None => unknown(unknown_option(&field))?,
        }
    }
    Ok(())
}

fn take(draft: &mut Draft, entry: &Entry, field: &Field) -> Result<()> {
    let why = match (&entry.action, &field.value) {
        (Action::Ignored, _) => Ok(()),
        (Raw(set), _) => set(draft, field),
        (Word(set), None) => {
            set(draft);
            Ok(())
        }
        (Word(set), Some(value)) if value == b"1" => {
            set(draft);
            Ok(())
        }
        (Word(_), Some(_)) => Err(format!("it takes no value: write `{}`", entry.name)),
        (Switch(set), value) => value.as_deref().map_or(Ok(true), on_off).map(|on| set(draft, on)),
        (Value(set), Some(value)) => set(draft, value),
        (Value(_), None) => Err(format!("it needs a value: write `{}={}`", entry.name, placeholder(entry))),
    };
    // The reason may quote the value.
    why.map_err(|why| Error::Setup(shown(format!("option `{}`: {why}", field.shown()).as_bytes())))
}

fn placeholder(entry: &Entry) -> &'static str {
    if entry.value.is_empty() { "VALUE" } else { entry.value }
}

fn unknown_option(field: &Field) -> Error {
    let nearest = TABLE
        .iter()
        .map(|entry| (strsim::jaro_winkler(entry.name, &field.name), entry.name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let remedy = match (field.name.as_str(), nearest) {
        ("volume" | "volumes" | "mount" | "bind" | "tmpfs", _) => {
            "what is attached is no option of a list: `stratafs mount` has -v, --mount and --tmpfs".to_owned()
        }
        (_, Some((_, name))) => format!("did you mean `{name}`?"),
        (_, None) => "remove it".to_owned(),
    };
    Error::Setup(format!(
        "option `{}` is unknown: {remedy} (`stratafs mount --help` lists all)",
        field.shown()
    ))
}

fn lowerdir(draft: &mut Draft, value: &[u8]) -> Why {
    // As the kernel: a new list replaces every lower layer named before it.
    (draft.lowers, draft.data_lowers) = split::layers(value)?;
    draft.lowers_listed = true;
    Ok(())
}

/// `lowerdir+=` and `datadir+=`. Source: kernel `ovl_parse_layer`, `ovl_mount_dir_check`.
fn one_more(draft: &mut Draft, value: &[u8], data: bool) -> Why {
    if draft.lowers_listed {
        return Err("it adds nothing to `lowerdir=`: name all layers by the one or by the other".to_owned());
    }
    if !data && !draft.data_lowers.is_empty() {
        return Err("it follows `datadir+=`: data-only layers come last".to_owned());
    }
    if value.is_empty() {
        return Err("it names no directory: write a path after the `=`".to_owned());
    }
    let path = split::without_escaped_commas(value);
    if data {
        draft.data_lowers.push(path)
    } else {
        draft.lowers.push(path)
    }
    Ok(())
}

fn given_path(value: &[u8]) -> std::result::Result<std::path::PathBuf, String> {
    if value.is_empty() {
        return Err("it names no directory: write a path after the `=`".to_owned());
    }
    Ok(split::path(value))
}

/// SELinux labels go to the kernel as they are, the later of two of a kind.
fn context(draft: &mut Draft, field: &Field) -> Why {
    let kind = format!("{}=", field.name);
    draft.mount.context.retain(|other| !other.starts_with(&kind));
    draft.mount.context.push(String::from_utf8_lossy(&field.raw).into_owned());
    Ok(())
}

/// The word is mount(8)'s; with a number it is fuse-overlayfs 2.0's other name of `fsync=`.
fn sync(draft: &mut Draft, field: &Field) -> Why {
    match &field.value {
        None => draft.mount.sync = true,
        Some(value) if on_off(value)? => draft.fsync = Some(FsyncMode::Auto),
        Some(_) => draft.fsync = Some(FsyncMode::Off),
    }
    Ok(())
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn one_of<T: Copy>(value: &[u8], words: &[(&str, T)]) -> std::result::Result<T, String> {
    words.iter().find(|(word, _)| word.as_bytes() == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("`{}` is not one of its values: give {}", text(value), words.join(", "))
    })
}

fn on_off(value: &[u8]) -> std::result::Result<bool, String> {
    match value {
        b"on" | b"1" => Ok(true),
        b"off" | b"0" => Ok(false),
        _ => Err(format!("`{}` is not one of its values: give on or off", text(value))),
    }
}

fn id(value: &[u8]) -> std::result::Result<u32, String> {
    let text = text(value);
    text.parse()
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| format!("`{text}` is not an id: give a whole number from 0 to {}", u32::MAX - 1))
}

/// A time as fuse-overlayfs takes it; longer than any mount lives means for ever.
fn seconds(value: &[u8]) -> std::result::Result<Option<Duration>, String> {
    let text = text(value);
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 1e9 => Ok(None),
        Ok(seconds) if seconds >= 0.0 => Ok(Some(Duration::from_secs_f64(seconds))),
        _ => Err(format!("`{text}` is not a time: give seconds, for example 0.5, or 0 to keep nothing")),
    }
}

fn threads(value: &[u8]) -> std::result::Result<usize, String> {
    let text = text(value);
    text.parse()
        .ok()
        .filter(|n| (1..=1024).contains(n))
        .ok_or_else(|| format!("`{text}` is not a number of threads: give 1 to 1024"))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
