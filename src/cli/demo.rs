//! `stratafs demo`: what an overlay does, shown by the shell commands that show it.
//!
//! Every command's output is compared with what it has to be, so the demonstration is a test as well.

use crate::layer::ephemeral::remove_tree;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::args::DemoArgs;
use super::exit::{Failure, Outcome};
use crate::config::check::SYSTEM_PATH;
use crate::sys::program;

/// What a command has to print.
enum Expect {
    /// These lines and no others.
    Lines(&'static [&'static str]),
    /// This among other things.
    Part(&'static str),
    /// Whatever it likes, as long as it succeeds.
    Success,
}

use Expect::{Lines, Part, Success};

/// One command and what it is to show.
struct Step {
    /// Printed before the command; empty if it speaks for itself.
    say: &'static str,
    command: &'static str,
    expect: Expect,
}

const fn step(say: &'static str, command: &'static str, expect: Expect) -> Step {
    Step { say, command, expect }
}

/// Laid out before anything is shown.
const LAYERS: &str = "mkdir -p base/docs top changes work merged && echo 'the guide' >base/docs/guide && \
                      echo 'base says hello' >base/greeting && echo 'kept in base' >base/only-base && \
                      echo 'top says hello' >top/greeting && echo 'kept in top' >top/only-top";

const MOUNT: &str = "stratafs mount -l top -l base -u changes -w work merged";

/// Up to the first removal, after which it depends on the machine how a whiteout looks.
#[rustfmt::skip]
static BEFORE: &[Step] = &[
    step("Two layers. Both have a file `greeting`.", "ls base top",
        Lines(&["base:", "docs", "greeting", "only-base", "", "top:", "greeting", "only-top"])),
    step("Merge them; what changes goes to `changes`, which is empty.", MOUNT, Lines(&[])),
    step("The merged tree has the names of both layers, and of equal names the one of the topmost layer.", "ls merged",
        Lines(&["docs", "greeting", "only-base", "only-top"])),
    step("", "cat merged/greeting", Lines(&["top says hello"])),
    step("Change a file that lives in `base`: it is copied up first.", "echo 'one more line' >>merged/only-base", Lines(&[])),
    step("", "cat merged/only-base", Lines(&["kept in base", "one more line"])),
    step("", "ls changes", Lines(&["only-base"])),
    step("The layer itself is as it was.", "cat base/only-base", Lines(&["kept in base"])),
    step("Remove a file that lives in `top`.", "rm merged/only-top && ls merged", Lines(&["docs", "greeting", "only-base"])),
];

/// The mark of a removal, where device nodes can be made and where they cannot.
const NODE: Step = step(
    "It is still in `top`; a whiteout in `changes` hides it, a device that leads nowhere.",
    "stat -c '%n: %F %t:%T' changes/only-top",
    Lines(&["changes/only-top: character special file 0:0"]),
);
const FILE: Step = step(
    "It is still in `top`; a whiteout in `changes` hides it, here a file with a telling name.",
    "ls -A changes",
    Part(".wh.only-top"),
);

#[rustfmt::skip]
static RENAME: &[Step] = &[
    step("", "ls top", Lines(&["greeting", "only-top"])),
    step("Rename a directory.", "mv merged/docs merged/papers && cat merged/papers/guide", Lines(&["the guide"])),
];

/// Shown where getfattr(1) is installed.
const MARKS: Step =
    step("What `changes` says about it.", "getfattr -h -d -m '[.]overlay[.]' changes/papers", Success);

#[rustfmt::skip]
static AFTER: &[Step] = &[
    step("Unmount, mount again: nothing is lost, and what was removed stays away.", "stratafs umount merged && ls -A merged", Lines(&[])),
    step("", MOUNT, Lines(&[])),
    step("", "ls merged", Lines(&["greeting", "only-base", "papers"])),
    step("", "cat merged/only-base merged/papers/guide", Lines(&["kept in base", "one more line", "the guide"])),
    step("", "stratafs umount merged", Lines(&[])),
    step("Or try something and forget it.", "stratafs mount -l top -l base --ephemeral merged", Lines(&[])),
    step("", "rm -r merged/docs merged/greeting && ls merged", Lines(&["only-base", "only-top"])),
    step("", "stratafs umount merged && cat top/greeting base/docs/guide", Lines(&["top says hello", "the guide"])),
];

/// Shows everything in a temporary directory and cleans up.
pub fn demo(args: DemoArgs) -> Outcome {
    let failed = |what: String| Failure::Failed(format!("demo: {what}"));
    let temporary = tempfile::Builder::new().prefix("stratafs-demo-").tempdir();
    let dir = temporary.map_err(|e| failed(format!("no temporary directory ({e}): set $TMPDIR")))?.keep();
    let program =
        std::env::current_exe().map_err(|e| failed(format!("the program cannot be found ({e})")))?;
    let demo = Demo { dir, program };
    let outcome = demo.show();
    // A step that failed may have left its mount; where there is none, the command says so, to nobody.
    let _ = demo.run("stratafs umount --lazy merged");
    if args.keep {
        print(&format!("The directory is {}\n", demo.dir.display()));
    } else if let Err(error) = remove_tree(&demo.dir) {
        return outcome.and(Err(failed(format!("{:?} is left behind ({error}): remove it", demo.dir))));
    }
    outcome
}

struct Demo {
    dir: PathBuf,
    program: PathBuf,
}

impl Demo {
    fn show(&self) -> Outcome {
        self.checked(LAYERS, &Lines(&[]))?;
        BEFORE.iter().try_for_each(|step| self.step(step))?;
        // `exists` would follow it, and a whiteout is no link.
        let node = self.dir.join("changes/only-top").symlink_metadata().is_ok();
        self.step(if node { &NODE } else { &FILE })?;
        RENAME.iter().try_for_each(|step| self.step(step))?;
        // Where redirects are off, mv(1) has copied the directory, and there is no mark to show.
        if is_installed("getfattr") {
            self.step(&MARKS)?;
        }
        AFTER.iter().try_for_each(|step| self.step(step))
    }

    fn step(&self, step: &Step) -> Outcome {
        if !step.say.is_empty() {
            print(&format!("\n# {}\n", step.say));
        }
        print(&format!("$ {}\n", step.command));
        let printed = self.checked(step.command, &step.expect);
        if let Ok(printed) = &printed {
            print(printed);
        }
        printed.map(drop)
    }

    /// What `command` prints, if that is what it has to print.
    fn checked(&self, command: &str, expect: &Expect) -> Result<String, Failure> {
        let output = self
            .run(command)
            .map_err(|error| Failure::Failed(format!("demo: `{command}` cannot be run ({error})")))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let right = output.status.success()
            && match expect {
                Lines(lines) => printed.lines().eq(lines.iter().copied()),
                Part(part) => printed.contains(part),
                Success => true,
            };
        if right {
            return Ok(printed);
        }
        print(&printed);
        print(&String::from_utf8_lossy(&output.stderr));
        let expected = match expect {
            Lines(lines) => format!("{lines:?}"),
            Part(part) => format!("something with {part:?}"),
            Success => "success".to_owned(),
        };
        Err(Failure::Failed(format!("demo: `{command}` ends with {}, expected {expected}", output.status)))
    }

    fn run(&self, command: &str) -> std::io::Result<Output> {
        program::command(Path::new("/bin/sh"))?
            .arg("-c")
            // The commands are shown with the name people will type.
            .arg(format!("stratafs() {{ \"$STRATAFS\" \"$@\"; }}\n{command}"))
            .current_dir(&self.dir)
            .envs(std::env::vars_os())
            .env("PATH", path())
            .env("STRATAFS", &self.program)
            .env("LC_ALL", "C")
            .env("TMPDIR", &self.dir)
            .output()
    }
}

/// Where the commands are searched. Root's `$PATH` may be another user's.
fn path() -> OsString {
    let given = if nix::unistd::geteuid().is_root() { None } else { std::env::var_os("PATH") };
    given.unwrap_or_else(|| SYSTEM_PATH.into())
}

fn is_installed(program: &str) -> bool {
    std::env::split_paths(&path()).any(|dir| Path::is_file(&dir.join(program)))
}

/// On standard output, at once: what the commands print must not overtake it.
fn print(text: &str) {
    let mut out = std::io::stdout();
    // A reader such as `head` may have seen enough; the steps go on, since they are a test.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Stands for this program, with the kernel's overlayfs as the filesystem.
    const KERNEL: &str = r#"#!/bin/sh
command=$1; shift
case "$command $*" in
mount*--ephemeral*) mkdir u w && exec mount -t overlay overlay -o lowerdir=top:base,upperdir=u,workdir=w merged ;;
mount*) exec mount -t overlay overlay -o lowerdir=top:base,upperdir=changes,workdir=work,redirect_dir=on merged ;;
*--lazy*) exec umount -l merged ;;
*) exec umount merged ;;
esac
"#;

    /// What the demonstration says of an overlay is true of the kernel's. Needs root and overlayfs.
    #[test]
    fn the_steps_hold_for_the_overlayfs_of_the_kernel() {
        let dir = tempfile::TempDir::new().expect("dir");
        let program = dir.path().join("kernel");
        std::fs::write(&program, KERNEL).expect("script");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let demo = Demo { dir: dir.path().to_owned(), program };
        demo.checked(LAYERS, &Lines(&[])).expect("layers");
        if demo.checked(&format!("{MOUNT} 2>&1 && stratafs umount merged"), &Success).is_err() {
            return;
        }
        let outcome = demo.show();
        // Only a step that failed leaves a mount.
        let _ = demo.run("stratafs umount --lazy merged");
        assert_eq!(outcome, Ok(()));
    }
}
