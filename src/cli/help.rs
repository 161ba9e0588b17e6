//! What `--help` teaches: examples, and the `-o` options from the one table that defines them.

use std::ffi::OsStr;

use crate::config::options::TABLE;

use super::exit::MAP;

/// What `text` makes, or nothing if this program's arguments are no question for help: most who call it have none, and some
/// call it for each layer of an image.
pub fn when_asked(text: fn() -> String) -> String {
    let mut args = std::env::args_os().skip(1).peekable();
    let asked = args.peek().is_none() || args.any(|arg| may_ask(&arg));
    if asked { text() } else { String::new() }
}

/// Whether an argument is, or has in it, one of `help`, `--help` and `-h`.
fn may_ask(arg: &OsStr) -> bool {
    match arg.as_encoded_bytes() {
        b"help" | b"--help" => true,
        [b'-', letters @ ..] => letters.first() != Some(&b'-') && letters.contains(&b'h'),
        _ => false,
    }
}

/// Under `stratafs --help`.
pub fn program() -> String {
    format!(
        "\
Examples:
  stratafs demo
      shows what an overlay does, in a temporary directory
  stratafs mount -l /srv/base --ephemeral /mnt/try
      a writable view of /srv/base whose changes go away at unmount
  stratafs mount -l /srv/app -l /srv/base -u ./changes -w ./work /mnt/app
      app over base, all changes kept in ./changes
  stratafs graft add /mnt/app -v ./src:/app
      attaches ./src inside the mount, which stays up
  stratafs umount /mnt/app

Without a command the arguments are those of fuse-overlayfs and of mount(8):
  stratafs -o lowerdir=/srv/app:/srv/base,upperdir=changes,workdir=work /mnt/app
  mount -t fuse.stratafs overlay /mnt/app -o lowerdir=/srv/base,ro

{MAP}"
    )
}

/// Under `stratafs mount --help`.
pub fn mount() -> String {
    format!(
        "\
Options of -o, a comma list:
{options}
  Double quotes protect commas in a value; `\\:`, `\\,` and `\\\\` stand for the characters themselves.
  Also accepted, for no effect: what fstab, mount(8) and fuse-overlayfs are known to pass.

{GRAFTS}

Examples:
  stratafs mount -l /srv/base /mnt/view
      a read-only view
  stratafs mount -l /srv/base --ephemeral /mnt/try
      writable; the changes go away at unmount
  stratafs mount -l top -l middle -l bottom -u changes -w work merged
      three layers, `top` hides what is below it, changes go to `changes`
  stratafs mount -l base -u changes -w work -o ro,timeout=1 merged
  stratafs mount -l base -u changes -w work -v ./src:/app:ro -v data:/data merged
      ./src and the volume `data` inside the tree
  stratafs mount -l base --ephemeral --compose compose.yaml --service web merged
      with the volumes of the service `web`
  stratafs mount -f --log-level debug -l base --ephemeral merged
      in the foreground, until Ctrl-C

Programs that mount volumes:
  None, unless --allow-helper or /etc/stratafs/helpers names one for the type of a volume:
  NAME=/PATH[:WORD,...]. WORDs are options that the program may be given beyond ro, nosuid,
  uid= and the like; allow none that names a program.

Environment:
  STRATAFS_LOG  what is logged, as --log-level
  TMPDIR        where --ephemeral puts its directories

{MAP}",
        options = options(),
    )
}

/// Under `stratafs graft --help`.
pub const GRAFT_LIVE: &str = "\
A target is a path in the merged tree, as in `-v SRC:TARGET`; relative sources are below the
current directory. Programs that use the tree see the old state or the new one.

Examples:
  stratafs graft add /mnt/app -v ./src:/app:ro -v cache:/var/cache
  stratafs graft ls /mnt/app
  stratafs graft replace /mnt/app -v ./src-2:/app:ro
  stratafs graft rm /mnt/app /app
      refused while something in it is open, or a process stands in it
  stratafs graft rm --lazy /mnt/app /var/cache
      who uses it keeps it, everybody else sees it gone";

/// Under `stratafs shadow --help`.
pub const SHADOW: &str = "\
A volume is filled from the layers once. When the layers are newer later, it still has the
old files, and they hide the new ones:
  stratafs shadow --stale /mnt/app
      /model_test/main.py  volume 2026-11-20 10:00:00  layers 2026-11-22 09:00:00  (layers newer)
  stratafs shadow /mnt/app
      everything that does not show because something is attached over it";

/// What is said about grafts: Docker's words, and ours.
const GRAFTS: &str = "\
Modes of -v, a comma list of Docker's words and of ours:
  ro, rw                no change is taken; changes are taken (the default)
  nocopy                an empty volume is not filled from the layers
  O, mode=cow           changes go to a layer of their own, gone with the mount, or
                        kept with upperdir=DIR,workdir=DIR; the source stays as it is
  create=dir|file       a missing source is made; otherwise it is an error
  nonrecursive          without the mounts inside the source
  cache=coherent|ttl:SECS|always
                        how long what was read may be believed (default coherent)
  shadow=replace|under|over
                        what becomes of the names below (default replace: hidden)
  pin=name|inode        what a single file follows (default name)
  uidmap=CALLER:DISK:SIZE, gidmap=CALLER:DISK:SIZE, squash=UID[-GID]
                        owners; uidmapping= and gidmapping= of the mount have the
                        other order: DISK:SHOWN:SIZE
  For no effect: z Z, private rprivate slave rslave shared rshared, consistent
  cached delegated. As ro: rro ro-non-recursive ro-force-recursive.
Keys of --mount:
  type=bind|volume|tmpfs, source= (src=), target= (dst=, destination=), readonly (ro),
  consistency=; bind-create-src, bind-propagation=, bind-recursive=; volume-nocopy,
  volume-subpath=, volume-label=K=V, volume-driver=, volume-opt=K=V; tmpfs-size=,
  tmpfs-mode=; and our words above. A field with a comma in it stands in double
  quotes: \"volume-opt=o=addr=10.0.0.1,rw\".
Options of --tmpfs:
  size=64m, mode=1777, ro, rw, shadow=; those of mount(8) for no effect.";

/// Where the meaning of an option begins, and how wide a line may be.
const COLUMN: usize = 26;
const WIDTH: usize = 80;

/// The documented options, each with its meaning in a column of its own.
fn options() -> String {
    let mut out = String::new();
    for entry in TABLE.iter().filter(|entry| !entry.help.is_empty()) {
        let mut line = match entry.value {
            "" => format!("  {}", entry.name),
            value => format!("  {}={value}", entry.name),
        };
        if line.len() + 1 >= COLUMN {
            out += &format!("{line}\n");
            line.clear();
        }
        line = format!("{line:<width$}", width = COLUMN - 1);
        for word in entry.help.split(' ') {
            if line.len() + 1 + word.len() > WIDTH {
                out += &format!("{line}\n");
                line = " ".repeat(COLUMN - 1);
            }
            line += &format!(" {word}");
        }
        out += &format!("{line}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_option_is_in_the_help_of_mount() {
        let help = mount();
        for entry in TABLE.iter().filter(|entry| !entry.help.is_empty()) {
            assert!(help.contains(&format!("\n  {}", entry.name)), "{}", entry.name);
        }
        assert!(!help.contains("fast_ino"));
        for word in crate::graft::mode_words().chain(crate::graft::mount_keys()) {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
            assert!(GRAFTS.split(|c| !is_part(c)).any(|part| part == word), "{word}");
        }
        assert!(GRAFTS.lines().all(|line| line.len() <= 88));
        assert!(options().lines().all(|line| line.len() <= WIDTH), "{}", options());
    }
}
