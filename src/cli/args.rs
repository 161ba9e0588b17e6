//! The command line as types. What the words mean is decided in the module of each command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::help;
use super::volume::args::VolumeArgs;

/// The form with commands.
#[derive(Debug, Parser)]
#[command(
    name = "stratafs",
    version,
    about = "Read-only layers and one writable layer, merged into one mount"
)]
#[command(after_help = help::when_asked(help::program), arg_required_else_help = true, disable_help_subcommand = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Merge layers into one tree and show it at a mountpoint
    #[command(after_long_help = help::when_asked(help::mount))]
    #[command(after_help = "`stratafs mount --help` lists the options of -o.")]
    Mount(Box<MountArgs>),
    /// Unmount, and wait until the daemon has ended
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// List the stratafs mounts that are up
    Ls(LsArgs),
    /// Attach, remove, replace and list what is attached inside a mount that is up
    #[command(after_help = help::GRAFT_LIVE)]
    Graft {
        /// What to do.
        #[command(subcommand)]
        command: GraftCommand,
    },
    /// Show what grafts hide of the layers, or what is newer there than in a volume
    #[command(after_help = help::SHADOW)]
    Shadow(ShadowArgs),
    /// Make, list, remove, save and fill volumes, as `docker volume` does
    Volume(VolumeArgs),
    /// Show on a temporary directory what an overlay does
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// What both forms can say about the daemon.
#[derive(Debug, Args, Clone, Default)]
pub struct DaemonArgs {
    /// Stay in the foreground, with the log on standard error
    #[arg(short, long)]
    pub foreground: bool,
    /// Append the log to FILE, instead of syslog or standard error
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// What is logged: error, warn (the default), info, debug, trace, or `MODULE=LEVEL,...`
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl DaemonArgs {
    /// As `-d` and `-o debug`: stay in the foreground, and log at the level `debug` where no level is given.
    pub fn debug(&mut self) {
        self.foreground = true;
        self.log_level.get_or_insert_with(|| "debug".to_owned());
    }
}

/// `stratafs mount`
#[derive(Debug, Args)]
pub struct MountArgs {
    /// A lower layer; give it again for the next one below
    #[arg(short, long, value_name = "LOWER")]
    pub lower: Vec<PathBuf>,
    /// The writable layer; without one the mount is read-only
    #[arg(short, long, value_name = "UPPER", conflicts_with = "ephemeral")]
    pub upper: Option<PathBuf>,
    /// An empty directory beside the upper layer, on the same filesystem
    #[arg(short, long, value_name = "WORK", conflicts_with = "ephemeral")]
    pub work: Option<PathBuf>,
    /// A fresh upper layer in DIR (default $TMPDIR), removed at unmount
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub ephemeral: Option<Option<PathBuf>>,
    /// Mount options, a comma list
    #[arg(short, long = "option", value_name = "OPT,...")]
    pub options: Vec<OsString>,
    /// What is attached inside the merged tree.
    #[command(flatten)]
    pub grafts: GraftArgs,
    /// The daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// Where the merged tree appears
    pub mountpoint: PathBuf,
}

/// What is attached inside the merged tree, as it is written for Docker.
#[derive(Debug, Args, Clone, Default)]
pub struct GraftArgs {
    /// Attach a host path or a volume, as `docker run -v`: `./src:/app:ro`, `data:/var/lib/data`, `/cache`
    #[arg(short, long, value_name = "[SRC:]DST[:MODE]")]
    pub volume: Vec<OsString>,
    /// The same with a key for each thing: `type=bind,source=./src,target=/app,readonly`
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub mount: Vec<OsString>,
    /// Attach an empty directory in memory, gone with the mount: `/run:size=64m,mode=755`
    #[arg(long, value_name = "DST[:OPT,...]")]
    pub tmpfs: Vec<OsString>,
    /// Attach what the stratafs mount at MOUNTPOINT has attached, but for its tmpfs, at the same places
    #[arg(long, value_name = "MOUNTPOINT[:ro]")]
    pub volumes_from: Vec<OsString>,
    /// Remove the anonymous volumes of this mount when it ends
    #[arg(long)]
    pub rm: bool,
    /// Where volumes are kept [default: as `stratafs volume` has it]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Let a program mount volumes of the type NAME, for example `fuse.sshfs=/usr/bin/sshfs`
    #[arg(long, value_name = "NAME=/PATH[:WORD,...]")]
    pub allow_helper: Vec<String>,
    /// Attach the volumes of a service of this compose file
    #[arg(long, value_name = "FILE", requires = "service")]
    pub compose: Option<PathBuf>,
    /// Which service of the compose file
    #[arg(long, value_name = "NAME", requires = "compose")]
    pub service: Option<String>,
}

/// `stratafs graft`
#[derive(Debug, Subcommand)]
pub enum GraftCommand {
    /// Attach host paths, volumes and tmpfs, all of them or none
    Add {
        /// What.
        #[command(flatten)]
        what: AddArgs,
        /// Where the merged tree appears
        mount: PathBuf,
    },
    /// Take away what is attached; what it hid shows again
    Rm {
        /// Also what is in use: who uses it keeps it, everybody else sees it gone
        #[arg(short, long)]
        lazy: bool,
        /// Where the merged tree appears
        mount: PathBuf,
        /// Where it is attached, as a path in the merged tree
        #[arg(required = true)]
        targets: Vec<OsString>,
    },
    /// Put something else in the place of what is attached at the same target, in one step
    #[command(group = clap::ArgGroup::new("what").required(true).args(["volume", "mount_spec"]))]
    Replace {
        /// Attach a host path or a volume, as `docker run -v`
        #[arg(short, long, value_name = "[SRC:]DST[:MODE]")]
        volume: Option<OsString>,
        /// The same with a key for each thing
        #[arg(long = "mount", value_name = "KEY=VALUE,...")]
        mount_spec: Option<OsString>,
        /// Also if the old one is in use: who uses it keeps it, everybody else sees the new one
        #[arg(short, long)]
        lazy: bool,
        /// Where the merged tree appears
        mount: PathBuf,
    },
    /// List what is attached
    Ls {
        /// For programs, as a JSON array
        #[arg(long)]
        json: bool,
        /// Where the merged tree appears
        mount: PathBuf,
    },
}

/// `stratafs shadow`
#[derive(Debug, Args)]
pub struct ShadowArgs {
    /// Only files and symlinks that a volume or bind has, too, with other content
    #[arg(long)]
    pub stale: bool,
    /// For programs, as a JSON array
    #[arg(long)]
    pub json: bool,
    /// Where the merged tree appears
    pub mount: PathBuf,
}

/// What is to be attached.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct AddArgs {
    /// Attach a host path or a volume, as `docker run -v`: `./src:/app:ro`, `data:/var/lib/data`, `/cache`
    #[arg(short, long, value_name = "[SRC:]DST[:MODE]")]
    pub volume: Vec<OsString>,
    /// The same with a key for each thing: `type=bind,source=./src,target=/app,readonly`
    #[arg(long = "mount", value_name = "KEY=VALUE,...")]
    pub mount_spec: Vec<OsString>,
    /// Attach an empty directory in memory, gone with the mount: `/run:size=64m,mode=755`
    #[arg(long, value_name = "DST[:OPT,...]")]
    pub tmpfs: Vec<OsString>,
}

/// The form without a command, as fuse-overlayfs and the helpers of mount(8) are called.
#[derive(Debug, Parser)]
#[command(name = "stratafs", version, about = "Mount, called as fuse-overlayfs or by mount(8)")]
#[command(override_usage = "stratafs [SOURCE] MOUNTPOINT -o lowerdir=A:B,upperdir=U,workdir=W,...")]
#[command(after_help = help::when_asked(help::program), after_long_help = help::when_asked(help::mount))]
pub struct HelperArgs {
    /// Mount options, a comma list
    #[arg(short, value_name = "OPT,...")]
    pub options: Vec<OsString>,
    /// The daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// As -f, with a log of everything
    #[arg(short, long)]
    pub debug: bool,
    /// Accepted, for no effect: /etc/mtab is not written
    #[arg(short, hide = true)]
    pub no_mtab: bool,
    /// Accepted, for no effect
    #[arg(short, hide = true)]
    pub sloppy: bool,
    /// Accepted, for no effect
    #[arg(short, long, hide = true)]
    pub verbose: bool,
    /// Accepted, for no effect: the type mount(8) was called with
    #[arg(short = 't', hide = true, value_name = "TYPE")]
    pub fs_type: Option<String>,
    /// The mount namespace to mount in, as mount(8) passes it: a process id, or a file such as /proc/PID/ns/mnt
    #[arg(short = 'N', hide = true, value_name = "NS")]
    pub namespace: Option<PathBuf>,
    /// SOURCE MOUNTPOINT, or MOUNTPOINT alone; the source is a name for /proc/mounts
    #[arg(required = true, num_args = 1..=2, value_name = "MOUNTPOINT")]
    pub places: Vec<PathBuf>,
}

/// `stratafs umount`
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// Detach now, end when the last program has let go; do not wait
    #[arg(short, long)]
    pub lazy: bool,
    /// Where the merged tree appears
    #[arg(required = true, value_name = "MOUNTPOINT")]
    pub mountpoints: Vec<PathBuf>,
}

/// `stratafs ls`
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Layers, options and chosen fallbacks of each mount
    #[arg(short, long, conflicts_with = "json")]
    pub verbose: bool,
    /// The same for programs, as a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `stratafs demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the directory, to look around in the layers
    #[arg(long)]
    pub keep: bool,
}
