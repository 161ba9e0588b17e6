//! What the options of a volume mount: the arguments of mount(2), as Docker's driver `local` passes them.
//!
//! Nothing here makes a system call, and no option selects a program.
//! Source: moby `volume/local/local_unix.go`, moby/sys `mount`; the table in the tests is what dockerd 20.10 passes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::mount::MsFlags;

/// How a type reaches its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// From a block device.
    Disk,
    /// From a server, whose address the kernel takes as an option.
    Network,
    /// From memory, from other directories, or from the host of a virtual machine.
    Other,
}

/// The filesystems that a volume may have: those that keep files. A type that is an interface of the kernel is not among
/// them, because it may start programs: `release_agent=` of cgroup names one, and binfmt_misc registers one. Nor is FUSE,
/// whose content is a program. A name that is not listed never reaches the kernel, which would load a module for it.
const TYPES: [(&str, Kind); 28] = [
    ("bcachefs", Kind::Disk),
    ("btrfs", Kind::Disk),
    ("erofs", Kind::Disk),
    ("exfat", Kind::Disk),
    ("ext2", Kind::Disk),
    ("ext3", Kind::Disk),
    ("ext4", Kind::Disk),
    ("f2fs", Kind::Disk),
    ("hfsplus", Kind::Disk),
    ("iso9660", Kind::Disk),
    ("jfs", Kind::Disk),
    ("msdos", Kind::Disk),
    ("ntfs3", Kind::Disk),
    ("squashfs", Kind::Disk),
    ("udf", Kind::Disk),
    ("vfat", Kind::Disk),
    ("xfs", Kind::Disk),
    ("cifs", Kind::Network),
    ("nfs", Kind::Network),
    ("nfs4", Kind::Network),
    ("smb3", Kind::Network),
    ("9p", Kind::Other),
    ("ceph", Kind::Other),
    ("overlay", Kind::Other),
    ("ramfs", Kind::Other),
    ("tmpfs", Kind::Other),
    ("virtiofs", Kind::Other),
    ("zfs", Kind::Other),
];

/// The words of `o` that are flags of mount(2): whether the word clears the flag, and the flag. Source: moby/sys `mount`.
const WORDS: [(&str, bool, MsFlags); 32] = [
    ("ro", false, MsFlags::MS_RDONLY),
    ("rw", true, MsFlags::MS_RDONLY),
    ("nosuid", false, MsFlags::MS_NOSUID),
    ("suid", true, MsFlags::MS_NOSUID),
    ("nodev", false, MsFlags::MS_NODEV),
    ("dev", true, MsFlags::MS_NODEV),
    ("noexec", false, MsFlags::MS_NOEXEC),
    ("exec", true, MsFlags::MS_NOEXEC),
    ("sync", false, MsFlags::MS_SYNCHRONOUS),
    ("async", true, MsFlags::MS_SYNCHRONOUS),
    ("dirsync", false, MsFlags::MS_DIRSYNC),
    ("remount", false, MsFlags::MS_REMOUNT),
    ("mand", false, MsFlags::MS_MANDLOCK),
    ("nomand", true, MsFlags::MS_MANDLOCK),
    ("noatime", false, MsFlags::MS_NOATIME),
    ("atime", true, MsFlags::MS_NOATIME),
    ("nodiratime", false, MsFlags::MS_NODIRATIME),
    ("diratime", true, MsFlags::MS_NODIRATIME),
    ("relatime", false, MsFlags::MS_RELATIME),
    ("norelatime", true, MsFlags::MS_RELATIME),
    ("strictatime", false, MsFlags::MS_STRICTATIME),
    ("nostrictatime", true, MsFlags::MS_STRICTATIME),
    ("bind", false, MsFlags::MS_BIND),
    ("rbind", false, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
    ("private", false, MsFlags::MS_PRIVATE),
    ("rprivate", false, MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
    ("shared", false, MsFlags::MS_SHARED),
    ("rshared", false, MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
    ("slave", false, MsFlags::MS_SLAVE),
    ("rslave", false, MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
    ("unbindable", false, MsFlags::MS_UNBINDABLE),
    ("runbindable", false, MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
];

const PROPAGATION: MsFlags =
    MsFlags::MS_PRIVATE.union(MsFlags::MS_SHARED).union(MsFlags::MS_SLAVE).union(MsFlags::MS_UNBINDABLE);

/// The most bytes of data that mount(2) reads. It cuts off the rest without an error. Source: kernel `copy_mount_options`.
const DATA_LIMIT: usize = 4095;

/// The arguments of mount(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub source: String,
    /// Meaningless for a bind, as for the kernel.
    pub fstype: String,
    pub flags: MsFlags,
    pub data: String,
    /// The flags of the second call, which sets the propagation; none: there is no second call.
    pub propagation: Option<MsFlags>,
}

impl Plan {
    /// Whether a directory is bound, and no filesystem made.
    pub fn is_bind(&self) -> bool {
        self.flags.contains(MsFlags::MS_BIND)
    }
}

/// What is to be done to mount a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// The kernel mounts it.
    Kernel(Plan),
    /// The kernel alone does not: the type has to be mounted by a program.
    Program,
}

/// Splits `o` into flags and data.
fn words(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for word in options.split(',') {
        match WORDS.iter().find(|(name, ..)| *name == word) {
            Some((_, true, flag)) => flags.remove(*flag),
            Some((_, false, flag)) => flags.insert(*flag),
            // Departs: Docker passes it on, and every filesystem refuses it.
            None if word == "defaults" => {}
            None => data.push(word),
        }
    }
    (flags, data.join(","))
}

/// Whether the words of `o` bind a directory.
pub(super) fn binds(options: &BTreeMap<String, String>) -> bool {
    options.get("o").is_some_and(|o| words(o).0.contains(MsFlags::MS_BIND))
}

/// Whether the kernel mounts this type by itself.
pub(super) fn is_kernels(fstype: &str) -> bool {
    TYPES.iter().any(|(name, _)| *name == fstype)
}

/// How to mount what `options` name. `resolve` finds the address of a host. Errors: the option with its value, why it
/// cannot be, and the remedy.
pub(super) fn plan(
    options: &BTreeMap<String, String>,
    resolve: impl Fn(&str) -> Result<IpAddr, String>,
) -> Result<Way, String> {
    let option = |key: &str| options.get(key).map_or("", String::as_str);
    let (fstype, device) = (option("type"), option("device"));
    if device.is_empty() {
        return Err("`device=` is empty: name what to mount".to_owned());
    }
    let (all, data) = words(option("o"));
    let mut plan = Plan {
        source: device.to_owned(),
        fstype: fstype.to_owned(),
        flags: all.difference(PROPAGATION),
        data,
        propagation: all
            .intersects(PROPAGATION)
            .then(|| all.intersection(PROPAGATION.union(MsFlags::MS_REC))),
    };
    if plan.is_bind() {
        return Ok(Way::Kernel(plan));
    }
    if all.contains(MsFlags::MS_REMOUNT) {
        return Err("`o=remount`: a volume has no earlier mount to change: leave the word out".to_owned());
    }
    if matches!(fstype, "" | "none") {
        return Err(format!(
            "`type={fstype}` names no filesystem, and the type is not guessed: write the type of {device:?}, or `o=bind` for \
             a directory"
        ));
    }
    let Some((_, kind)) = TYPES.iter().find(|(name, _)| *name == fstype) else {
        return Ok(Way::Program);
    };
    match kind {
        Kind::Disk => disk(&plan)?,
        Kind::Network => network(&mut plan, resolve)?,
        Kind::Other => descriptors(&plan)?,
    }
    if plan.data.len() > DATA_LIMIT {
        return Err(format!(
            "`o=` has {} bytes, and the kernel reads at most {DATA_LIMIT}: shorten it",
            plan.data.len()
        ));
    }
    Ok(Way::Kernel(plan))
}

/// Refuses what only mount(8) understands. Docker passes it on, and the kernel's refusal does not name it.
fn disk(plan: &Plan) -> Result<(), String> {
    let is_loop = |word: &&str| {
        *word == "loop" || ["loop=", "offset=", "sizelimit="].iter().any(|key| word.starts_with(key))
    };
    if let Some(word) = plan.data.split(',').find(is_loop) {
        return Err(format!(
            "`o={word}`: no loop device is set up for a volume: do it with `losetup --find --show FILE`, name the device \
             that it prints, and leave the word out"
        ));
    }
    for (tag, dir) in
        [("UUID", "uuid"), ("LABEL", "label"), ("PARTUUID", "partuuid"), ("PARTLABEL", "partlabel")]
    {
        if let Some(value) = plan.source.strip_prefix(tag).and_then(|rest| rest.strip_prefix('=')) {
            return Err(format!(
                "`device={tag}={value}`: devices are not looked up: write `/dev/disk/by-{dir}/{value}`"
            ));
        }
    }
    Ok(())
}

/// Refuses a 9p connection over descriptors: their numbers would be those of the daemon.
fn descriptors(plan: &Plan) -> Result<(), String> {
    let uses_descriptor =
        |word: &&str| *word == "trans=fd" || ["rfdno=", "wfdno="].iter().any(|key| word.starts_with(key));
    match plan.data.split(',').find(uses_descriptor) {
        Some(word) if plan.fstype == "9p" => Err(format!(
            "`o={word}`: the descriptors of the daemon are not for a volume: use `trans=virtio` or `trans=tcp`"
        )),
        _ => Ok(()),
    }
}

/// Replaces the host name by an address: the kernel knows no names. Source: moby `getMountOptions`.
fn network(plan: &mut Plan, resolve: impl Fn(&str) -> Result<IpAddr, String>) -> Result<(), String> {
    let is_nfs = plan.fstype.starts_with("nfs");
    let given =
        plan.data.split(',').find_map(|word| word.strip_prefix("addr=")).filter(|host| !host.is_empty());
    if let Some(host) = given {
        let address = resolve(host).map_err(|why| format!("`o=addr={host}`: {why}"))?;
        let mut replaced = false;
        // Departs: Docker replaces the first text that looks so, also in `mountaddr=`.
        let words = plan.data.split(',').map(|word| match word.starts_with("addr=") && !replaced {
            true => {
                replaced = true;
                format!("addr={address}")
            }
            false => word.to_owned(),
        });
        plan.data = words.collect::<Vec<_>>().join(",");
    } else if is_nfs {
        // Departs: Docker passes it on without an address, and the kernel refuses it.
        let host = plan.source.split_once(":/").map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!(
                "`device={}`: the server is missing: add `addr=HOST` to `o`, or write `HOST:/EXPORT`",
                plan.source
            ));
        }
        let address = resolve(host).map_err(|why| format!("`device={}`: {why}", plan.source))?;
        let comma = if plan.data.is_empty() { "" } else { "," };
        plan.data = format!("{}{comma}addr={address}", plan.data);
    } else if let Some((host, rest)) = host_of_share(&plan.source) {
        let address = resolve(host).map_err(|why| format!("`device={}`: {why}", plan.source))?;
        plan.source = format!("//{address}{rest}");
    }
    Ok(())
}

/// The host of a share `//HOST/SHARE`, and what follows it.
pub(super) fn host_of_share(device: &str) -> Option<(&str, &str)> {
    let rest = device.strip_prefix("//")?;
    let (host, share) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    (!host.is_empty()).then_some((host, share))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
