//! What `--help` teaches: examples, and the `-o` options from the one table that defines them.

use crate::config::options::TABLE;

use super::exit::MAP;

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

Examples:
  stratafs mount -l /srv/base /mnt/view
      a read-only view
  stratafs mount -l /srv/base --ephemeral /mnt/try
      writable; the changes go away at unmount
  stratafs mount -l top -l middle -l bottom -u changes -w work merged
      three layers, `top` hides what is below it, changes go to `changes`
  stratafs mount -l base -u changes -w work -o ro,timeout=1 merged
  stratafs mount -f --log-level debug -l base --ephemeral merged
      in the foreground, until Ctrl-C

Environment:
  STRATAFS_LOG  what is logged, as --log-level
  TMPDIR        where --ephemeral puts its directories

{MAP}",
        options = options(),
    )
}

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
        assert!(options().lines().all(|line| line.len() <= WIDTH), "{}", options());
    }
}
