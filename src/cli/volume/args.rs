//! `stratafs volume` as types: Docker's names and flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `stratafs volume`
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct VolumeArgs {
    /// Where the store is; else $STRATAFS_STATE, /var/lib/stratafs for root, ~/.local/share/stratafs for others
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume, and print its name
    Create(CreateArgs),
    /// List the volumes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show all there is to know about volumes, as JSON
    Inspect(InspectArgs),
    /// Remove volumes that nobody uses, with what is in them
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Remove the anonymous volumes that nobody uses
    Prune(PruneArgs),
    /// Write a volume as a tar archive
    Export(ExportArgs),
    /// Fill a new or empty volume from a tar archive
    Import(ImportArgs),
}

/// `stratafs volume create`
#[derive(Debug, Args)]
#[command(after_help = "\
Options of the driver `local`:
  type=TYPE device=DEVICE o=OPT,...   mounted while the volume is used: by the kernel, or by a
                                      program that `--allow-helper` or /etc/stratafs/helpers allows

Examples:
  stratafs volume create data
  stratafs volume create -o type=tmpfs -o device=tmpfs -o o=size=64m,mode=700 scratch
  stratafs volume create -o type=none -o o=bind -o device=/srv/data data
  stratafs volume create -o type=nfs -o o=addr=server,rw -o device=:/export shared")]
pub struct CreateArgs {
    /// Who makes it; only `local` exists
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    pub driver: String,
    /// An option of the driver
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// A label
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// As the argument
    #[arg(long = "name", hide = true, conflicts_with = "name")]
    pub name_option: Option<String>,
    /// Letters, digits, `_`, `.`, `-`; without one the volume is anonymous
    #[arg(value_name = "VOLUME")]
    pub name: Option<String>,
}

/// `stratafs volume ls`
#[derive(Debug, Args)]
#[command(after_help = "\
Filters; of the same name one must hold, labels all:
  dangling=true|false   nobody uses it, or somebody does
  driver=NAME           its driver
  label=KEY[=VALUE]     it has the label
  name=PART             its name has this part; `^` and `$` stand for its ends

Fields of --format: .Name .Driver .Scope .Mountpoint .Labels .Label \"KEY\" .Links .Size
Links and sizes are N/A where Docker says so; `inspect` has the users.")]
pub struct ListArgs {
    /// Which ones
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// `table`, `table TEMPLATE`, `json` or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stratafs volume inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// `json` or a template such as '{{.Mountpoint}}' or '{{index .Labels "key"}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub volumes: Vec<String>,
}

/// `stratafs volume rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// One that is not there is no error; one whose meta.json is broken goes too
    #[arg(short, long)]
    pub force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub volumes: Vec<String>,
}

/// `stratafs volume prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Named ones too
    #[arg(short, long)]
    pub all: bool,
    /// label=KEY[=VALUE], label!=KEY[=VALUE], or all=true
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `stratafs volume export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Let a program mount it, if it is of the type NAME: `fuse.sshfs=/usr/bin/sshfs`
    #[arg(long, value_name = "NAME=/PATH[:WORD,...]")]
    pub allow_helper: Vec<String>,
    /// Write to FILE, not to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name
    pub volume: String,
}

/// `stratafs volume import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Let a program mount it, if it is of the type NAME: `fuse.sshfs=/usr/bin/sshfs`
    #[arg(long, value_name = "NAME=/PATH[:WORD,...]")]
    pub allow_helper: Vec<String>,
    /// Name of a new volume, or of an empty one
    pub volume: String,
    /// The archive; `-` or none is standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}
