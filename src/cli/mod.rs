//! The program's face: which form of the command line this is, which command it names, what the exit status says.
//!
//! `args` holds the forms, `mount` turns them into a job, `daemon` lives through it. Nothing here knows about layers
//! beyond their names. Start reading at `main`.

pub mod args;
pub mod daemon;
pub mod demo;
pub mod exit;
pub mod grafts;
pub mod help;
pub mod live;
pub mod log;
pub mod ls;
pub mod mount;
pub mod mounts;
pub mod record;
pub mod shadow;
pub mod umount;
pub mod volume;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use args::{Cli, Command, HelperArgs};
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
    process::keep_large_blocks_apart();
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
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
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
    let called = args.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default();
    if called.as_encoded_bytes().starts_with(b"mount.") {
        return Form::MountHelper;
    }
    if called == "fuse-overlayfs" {
        return Form::Helper;
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
