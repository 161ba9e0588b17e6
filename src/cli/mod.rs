//! The program's face: which form of the command line this is, which command it names, what the exit status says.
//!
//! `args` holds the forms, `mount` turns them into a job, `daemon` lives through it. Nothing here knows about layers
//! beyond their names. Start reading at `main`.

pub mod args;
pub mod daemon;
pub mod demo;
pub mod elsewhere;
pub mod exit;
pub mod grafts;
pub mod help;
pub mod live;
pub mod log;
mod log_limit;
pub mod ls;
pub mod mount;
pub mod mounts;
pub mod record;
pub mod remount;
pub mod shadow;
pub mod umount;
pub mod volume;

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser};

use args::{Cli, Command, HelperArgs, MountArgs};
use exit::{Failure, Outcome};

use crate::sys::process;

/// Which way the command line is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `stratafs COMMAND ...`
    Commands,
    /// `stratafs [SOURCE] MOUNTPOINT -o ...`
    Helper,
    /// The same, called by mount(8) as its helper: there `-f` means to mount nothing.
    MountHelper,
}

/// Does what `args`, the program's name first, say.
pub fn main(args: Vec<OsString>) -> ExitCode {
    process::hear_of_children();
    process::keep_large_blocks_apart();
    if let Some(args) = plain_mount(&args) {
        return status(mount::mount(args));
    }
    // Put together only for who needs it: the other form is called for each layer of an image.
    let command = OnceCell::new();
    let outcome = match form(&args, || command.get_or_init(Cli::command)) {
        Form::Commands => match commands(&mut command.into_inner().unwrap_or_else(Cli::command), args) {
            Ok(cli) => run(cli.command),
            Err(error) => return clap_says(&error),
        },
        form => match HelperArgs::try_parse_from(&args) {
            Ok(helper) => helper_form(helper, form),
            Err(error) if error.use_stderr() => Err(helper_usage(&args, &error)),
            Err(error) => return clap_says(&error),
        },
    };
    status(outcome)
}

fn status(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The arguments of a `stratafs mount` about which there is nothing to say: the other commands, which would take as long to
/// put together as a layer to open, are then not needed. Whatever else is meant, or meant wrongly, is for `commands`.
fn plain_mount(args: &[OsString]) -> Option<MountArgs> {
    let (called, words) = args.split_first()?;
    if words.first()? != "mount" || form_by_name(called).is_some() {
        return None;
    }
    let command = MountArgs::augment_args(clap::Command::new("mount").disable_help_flag(true));
    MountArgs::from_arg_matches_mut(&mut command.try_get_matches_from(words).ok()?).ok()
}

/// As `Cli::try_parse_from`, which would put all the help together once more.
fn commands(command: &mut clap::Command, args: Vec<OsString>) -> clap::error::Result<Cli> {
    let mut matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(command))
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Mount(args) => mount::mount(*args),
        Command::Umount(args) => umount::umount(args),
        Command::Ls(args) => ls::ls(args),
        Command::Graft { command } => live::graft(command),
        Command::Shadow(args) => shadow::shadow(&args),
        Command::Volume(args) => volume::volume(args),
        Command::Demo(args) => demo::demo(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "stratafs", &mut script);
            // A reader such as `head` may have seen enough.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
            Ok(())
        }
    }
}

fn helper_form(mut args: HelperArgs, form: Form) -> Outcome {
    let dry = form == Form::MountHelper && std::mem::take(&mut args.daemon.foreground);
    mount::helper(args, dry)
}

/// By the name the program is called, else by the first argument.
fn form<'a>(args: &[OsString], command: impl FnOnce() -> &'a clap::Command) -> Form {
    if let Some(form) = args.first().and_then(|name| form_by_name(name)) {
        return form;
    }
    match args.get(1).and_then(|first| first.to_str()) {
        None if args.len() < 2 => Form::Commands,
        Some("-h" | "--help" | "-V" | "--version" | "help") => Form::Commands,
        Some(first) if is_word(first) && is_command(command(), first) => Form::Commands,
        // A word, no path, and no options of a mount: somebody meant a command, and clap names the nearest.
        Some(first) if is_word(first) && !has_options(args) => Form::Commands,
        _ => Form::Helper,
    }
}

/// The form that goes with the name by which the program is called, if one does.
fn form_by_name(called: &OsStr) -> Option<Form> {
    match Path::new(called).file_name().unwrap_or_default().as_encoded_bytes() {
        b"fuse-overlayfs" => Some(Form::Helper),
        name if name.starts_with(b"mount.") => Some(Form::MountHelper),
        _ => None,
    }
}

fn is_command(command: &clap::Command, word: &str) -> bool {
    command
        .get_subcommands()
        .any(|command| command.get_name() == word || command.get_all_aliases().any(|alias| alias == word))
}

fn is_word(first: &str) -> bool {
    !first.starts_with('-') && !first.contains('/')
}

fn has_options(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg.as_encoded_bytes().starts_with(b"-o"))
}

/// Help and version go to standard output and are no failure; clap's status for the rest is 2, as in our map.
fn clap_says(error: &clap::Error) -> ExitCode {
    // Standard output may be closed, and then there is nobody to tell.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// One line: callers such as podman show it inside a line of their own.
fn helper_usage(args: &[OsString], error: &clap::Error) -> Failure {
    let text = error.to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let first = first.join(" ");
    let mut sentence = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    let layer_options = [
        "-l",
        "-u",
        "-w",
        "--lower",
        "--upper",
        "--work",
        "--ephemeral",
        "--volume",
        "--mount",
        "--tmpfs",
        "--compose",
    ];
    let meant = match args.get(1).and_then(|word| word.to_str()) {
        Some(word) if layer_options.iter().any(|option| word.starts_with(option)) => Some("mount".to_owned()),
        Some(word) => nearest_command(word),
        None => None,
    };
    match meant {
        Some(command) => sentence += &format!(": did you mean `stratafs {command}`?"),
        None => sentence += ": `stratafs --help` shows both forms of the command line",
    }
    Failure::Usage(sentence)
}

fn nearest_command(word: &str) -> Option<String> {
    if !is_word(word) {
        return None;
    }
    let names: Vec<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    // Two slips of the finger, but never half of the word.
    names
        .into_iter()
        .find(|name| strsim::damerau_levenshtein(name, word) <= 2.min(word.len().saturating_sub(1) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_told_by_the_name_and_the_first_argument() {
        use Form::*;
        let cases: &[(&[&str], Form)] = &[
            (&["stratafs"], Commands),
            (&["stratafs", "--help"], Commands),
            (&["stratafs", "-V"], Commands),
            (&["stratafs", "mount", "-l", "a", "m"], Commands),
            (&["stratafs", "unmount", "m"], Commands),
            (&["stratafs", "help", "mount"], Commands),
            (&["stratafs", "moutn", "-l", "a", "m"], Commands),
            (&["stratafs", "-o", "lowerdir=a", "m"], Helper),
            (&["stratafs", "-olowerdir=a", "m"], Helper),
            (&["stratafs", "overlay", "/m", "-o", "lowerdir=a"], Helper),
            (&["stratafs", "/m"], Helper),
            (&["stratafs", "-f", "/m", "-o", "ro"], Helper),
            (&["stratafs", ""], Commands),
            (&["/usr/bin/fuse-overlayfs", "mount", "m", "-o", "x"], Helper),
            (&["/sbin/mount.stratafs", "ls", "m"], MountHelper),
            (&["mount.fuse.stratafs", "x", "m"], MountHelper),
            (&["/opt/stratafs-2", "ls"], Commands),
        ];
        let command = OnceCell::new();
        for (args, expected) in cases {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(form(&args, || command.get_or_init(Cli::command)), *expected, "{args:?}");
        }
    }

    #[test]
    fn a_plain_mount_is_read_as_all_commands_are() {
        let read = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            (plain_mount(&args), commands(&mut Cli::command(), args))
        };
        for line in [
            "stratafs mount -l a m",
            "/x/stratafs mount -fla --lower=b m -u u --work w -oro,noatime -o sync",
            "stratafs mount --ephemeral m -l a --log-level debug --log-file=f -v a:/b",
            "stratafs mount --ephemeral=d -- -m",
            "stratafs mount --compose c --service s --rm --state t --tmpfs /x m",
        ] {
            let (plain, all) = read(line);
            let Ok(Cli { command: Command::Mount(all) }) = all else { unreachable!("{line}: {all:?}") };
            assert_eq!(format!("{:?}", plain.expect("plain")), format!("{all:?}"), "{line}");
        }
        for line in [
            "stratafs",
            "stratafs ls",
            "stratafs mount",
            "stratafs mount --help",
            "stratafs mount -h m",
            "stratafs mount -l a m n",
            "stratafs mount -l a m --ephemeral -u u",
            "stratafs mount -l a m --compose c",
            "stratafs --version mount m",
            "mount.stratafs mount m",
            "/usr/bin/fuse-overlayfs mount m",
        ] {
            assert!(read(line).0.is_none(), "{line}");
        }
    }

    #[test]
    fn the_helper_form_takes_its_arguments_in_any_order() {
        let forms: &[&[&str]] = &[
            &["stratafs", "-o", "a,b", "/m"],
            &["stratafs", "/m", "-oa,b"],
            &["stratafs", "-o", "a", "/m", "-o", "b"],
            &["stratafs", "-f", "-d", "-n", "-s", "/m", "-o", "a,b"],
            &["stratafs", "overlay", "/m", "-o", "a,b", "-t", "fuse.stratafs", "-v"],
            &["stratafs", "overlay", "-o", "a,b", "/m"],
        ];
        for form in forms {
            let args = HelperArgs::try_parse_from(*form).unwrap_or_else(|e| unreachable!("{form:?}: {e}"));
            let last = args.places.last().expect("place");
            assert_eq!(last, Path::new("/m"), "{form:?}");
            assert!(args.places.len() == 1 || args.places[0] == Path::new("overlay"));
            assert!(args.options.join(std::ffi::OsStr::new(",")) == "a,b");
        }
        for form in [&["stratafs", "-o", "a"][..], &["stratafs", "a", "b", "c"], &["stratafs", "/m", "--bad"]]
        {
            let error = HelperArgs::try_parse_from(form).expect_err("refused");
            let args: Vec<OsString> = form.iter().map(OsString::from).collect();
            let Failure::Usage(sentence) = helper_usage(&args, &error) else { unreachable!("usage") };
            assert!(!sentence.contains('\n') && sentence.contains("--help"), "{sentence}");
        }
    }

    #[test]
    fn clap_finds_no_fault_with_the_types() {
        Cli::command().debug_assert();
        HelperArgs::command().debug_assert();
    }
}
