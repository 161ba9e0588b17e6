//! The programs that may mount volumes. Only the administrator names one: on the command line of the command that mounts,
//! or in a file that only root can write. A volume, a compose file and a request to a daemon never do.
//!
//! A program is allowed for one type, and with it the words of `o` that it may be given. Others are refused, because programs
//! have options that start further programs, such as `ssh_command=` of sshfs.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};

/// The directory of the administrator's file.
pub const DIR: &str = "/etc/stratafs";
/// Its name there.
const FILE: &str = "helpers";
/// The most bytes of it that are read.
const FILE_LIMIT: u64 = 64 << 10;

/// Types of which the source or the options select the program.
const GENERIC: [&str; 8] = ["auto", "bind", "fuse", "fuse2", "fuse3", "fuseblk", "none", "rbind"];

/// Words of `o` that every helper may be given.
const FLAGS: [&str; 18] = [
    "allow_other",
    "async",
    "atime",
    "default_permissions",
    "diratime",
    "dirsync",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nosuid",
    "reconnect",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "sync",
];
/// The same, with a number.
const NUMBERS: [&str; 4] = ["gid", "port", "uid", "umask"];

/// A program that may mount volumes of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// The type, as a volume has it.
    pub kind: String,
    /// Absolute, and not searched.
    pub program: PathBuf,
    /// Words of `o` that it may be given beyond those of every helper.
    pub words: Vec<String>,
}

/// All programs that may mount volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Helpers(Vec<Helper>);

impl Helpers {
    /// Those of a command line. Errors: `Setup` for one that is malformed, or may not be allowed.
    pub fn given(texts: &[String]) -> Result<Helpers> {
        let read = |text: &String| {
            Helper::parse(text).map_err(|why| Error::Setup(format!("--allow-helper {text:?}: {why}")))
        };
        texts.iter().map(read).collect::<Result<_>>().map(Helpers)
    }

    /// The one for a type: of the command line, or else of the administrator's file. Errors: `Setup` if that file cannot be
    /// trusted.
    pub fn find(&self, kind: &str) -> Result<Option<Helper>> {
        let of_kind = |helper: &&Helper| helper.kind == kind;
        if let Some(found) = self.0.iter().find(of_kind) {
            return Ok(Some(found.clone()));
        }
        Ok(read(Path::new(DIR))?.iter().find(of_kind).cloned())
    }
}

impl Helper {
    /// Reads `NAME=/PATH` or `NAME=/PATH:WORD,WORD`.
    fn parse(text: &str) -> std::result::Result<Helper, String> {
        let form = "write NAME=/ABSOLUTE/PATH or NAME=/ABSOLUTE/PATH:WORD,WORD";
        let (kind, rest) = text.split_once('=').ok_or(form)?;
        let (program, words) = rest.split_once(':').unwrap_or((rest, ""));
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !is_name(kind) {
            return Err(format!("{kind:?} is not the name of a type: {form}"));
        }
        if GENERIC.contains(&kind) {
            return Err(format!(
                "`type={kind}` leaves it to the volume which program runs: name a type of one program, such as `fuse.sshfs`"
            ));
        }
        if !program.starts_with('/') || program.contains('\0') {
            return Err(format!("{program:?} is not an absolute path: {form}"));
        }
        let words: Vec<String> =
            words.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        if let Some(word) = words.iter().find(|word| !is_name(word)) {
            return Err(format!("{word:?} is not the name of an option: write it without a value"));
        }
        let helper = Helper { kind: kind.to_owned(), program: program.into(), words };
        helper.check_program(&helper.program)?;
        Ok(helper)
    }

    /// Refuses programs that run another one, which they take from the source or the type. `path` is that of the program or
    /// the file to which it leads.
    pub fn check_program(&self, path: &Path) -> std::result::Result<(), String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match name == "mount" || name.starts_with("mount.fuse") {
            true => Err(format!(
                "{path:?} runs the program that a volume names: allow that program itself, such as /usr/bin/sshfs"
            )),
            false => Ok(()),
        }
    }

    /// The words of `o` as one argument. Errors: the first that the helper may not be given.
    pub fn options(&self, o: &str) -> std::result::Result<String, String> {
        let mut passed = Vec::new();
        for word in o.split(',').filter(|word| !matches!(*word, "" | "defaults")) {
            let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
            let is_number =
                |value: &str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let known = match value {
                None => FLAGS.contains(&key),
                Some(value) => NUMBERS.contains(&key) && is_number(value),
            };
            if !known && !self.words.iter().any(|allowed| allowed == key) {
                return Err(format!(
                    "`o={key}`: the helper {:?} may not be given this option: leave it out; the administrator allows options \
                     with `{}={}:WORD,WORD`",
                    self.program,
                    self.kind,
                    self.program.display()
                ));
            }
            passed.push(word);
        }
        Ok(passed.join(","))
    }

    /// Refuses a source that the helper, or a program that it starts, could take for an option.
    pub fn check_source(source: &str) -> std::result::Result<(), String> {
        let parts = source.split(|c: char| c.is_whitespace() || "[]@/:#,".contains(c));
        let is_option = parts.into_iter().any(|part| part.starts_with('-'));
        match is_option || source.is_empty() || source.chars().any(char::is_control) {
            true => Err(format!(
                "`device={source:?}` could be taken for an option of the helper: write a source without `-` at the beginning of \
                 a part"
            )),
            false => Ok(()),
        }
    }
}

/// The administrator's file in `dir`; none if there is no such file. Lines are `NAME=/PATH[:WORD,...]`, empty, or comments.
/// Errors: `Setup` if the file or its directory is a link, is not root's, or may be written by others; or for a line.
fn read(dir: &Path) -> Result<Vec<Helper>> {
    let path = dir.join(FILE);
    let refused = |why: String| Error::Setup(format!("{path:?}: {why}"));
    let errno = |errno: Errno| match errno {
        Errno::ELOOP | Errno::ENOTDIR => {
            refused("it is a link, or its directory is: make it a file".to_owned())
        }
        errno => refused(format!("it cannot be read ({}): correct its permissions", errno.desc())),
    };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let place = match open(dir, flags | OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        place => File::from(place.map_err(errno)?),
    };
    // A fifo must not block.
    let mut file = match openat(&place, FILE, flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        file => File::from(file.map_err(errno)?),
    };
    let facts = |file: &File| file.metadata().map_err(|error| refused(error.to_string()));
    let is_roots = |facts: &Metadata| facts.uid() == 0 && facts.mode() & 0o022 == 0;
    if !is_roots(&facts(&place)?) || !is_roots(&facts(&file)?) || !facts(&file)?.is_file() {
        return Err(refused(
            "others than root may change it: make it a file of root's with the mode 0644, in a directory of root's with the \
             mode 0755"
                .to_owned(),
        ));
    }
    if facts(&file)?.len() > FILE_LIMIT {
        return Err(refused(format!("it is longer than {FILE_LIMIT} bytes: shorten it")));
    }
    let mut text = String::new();
    match (&mut file).take(FILE_LIMIT).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(refused("it is not text: write NAME=/ABSOLUTE/PATH on a line".to_owned()));
        }
        Err(error) => return Err(refused(format!("it cannot be read ({error}): correct its permissions"))),
    }
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = |(at, line)| Helper::parse(line).map_err(|why| refused(format!("line {}: {why}", at + 1)));
    lines.map(read).collect()
}

#[cfg(test)]
#[path = "helpers_tests.rs"]
mod tests;
