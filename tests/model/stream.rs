//! A directory stream that is kept across changes, and what POSIX promises of it: a name that was there all the time
//! comes once; a name that was never there does not come. A name that came or went meanwhile may come or not.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

use crate::common::sys;

/// Room for one or two entries: the rest is asked for after what comes between.
const ROOM: usize = 64;

pub struct Stream {
    dir: File,
    /// Where to go on, as the last entry said.
    at: i64,
    /// The names when it was opened or rewound.
    start: BTreeSet<String>,
    seen: Vec<String>,
    /// Names that may have come or gone since.
    touched: BTreeSet<String>,
    /// A position, and how many names had been seen there.
    mark: Option<(i64, usize)>,
}

impl Stream {
    pub fn open(path: &Path) -> nix::Result<Stream> {
        let dir = sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let empty = BTreeSet::new;
        let (start, touched) = (empty(), empty());
        let mut stream = Stream { dir, at: 0, start, seen: Vec::new(), touched, mark: None };
        stream.rewind()?;
        Ok(stream)
    }

    /// Begins anew.
    pub fn rewind(&mut self) -> nix::Result<()> {
        self.seen.clear();
        self.touched.clear();
        self.mark = None;
        self.at = 0;
        while self.read()? {}
        self.start = std::mem::take(&mut self.seen).into_iter().collect();
        self.at = 0;
        Ok(())
    }

    /// Notes that a name may come or go, in whatever directory.
    pub fn touch(&mut self, name: &str) {
        self.touched.insert(name.to_owned());
    }

    /// Reads some names, in up to `times` calls. What is wrong with them, if anything.
    pub fn next(&mut self, times: usize) -> Result<(), String> {
        for _ in 0..times {
            match self.read() {
                Ok(true) => {}
                Ok(false) => return self.check(true),
                Err(errno) => return Err(format!("getdents64: {errno}")),
            }
        }
        self.check(false)
    }

    pub fn mark(&mut self) {
        self.mark = Some((self.at, self.seen.len()));
    }

    pub fn back(&mut self) {
        if let Some((at, seen)) = self.mark {
            self.at = at;
            self.seen.truncate(seen);
        }
    }

    /// Reads to the end and says what is wrong.
    pub fn finish(&mut self) -> Result<(), String> {
        self.next(usize::MAX)
    }

    /// Reads once; false at the end, which a removed directory has come to, too.
    fn read(&mut self) -> nix::Result<bool> {
        if self.dir.metadata().is_ok_and(|dir| dir.nlink() == 0) {
            return Ok(false);
        }
        sys::lseek(&self.dir, self.at, libc::SEEK_SET)?;
        let mut room = [0u8; ROOM];
        // SAFETY: the kernel writes at most so many bytes.
        let got = unsafe {
            libc::syscall(libc::SYS_getdents64, self.dir.as_raw_fd(), room.as_mut_ptr(), room.len())
        };
        let got = match Errno::result(got) {
            // The kernel's overlay does not count the links of a removed directory.
            Err(Errno::ENOENT) => return Ok(false),
            got => got? as usize,
        };
        let mut rest = &room[..got];
        while !rest.is_empty() {
            // Inode number, next position, length, type, name. Source: getdents(2).
            self.at = i64::from_ne_bytes(rest[8..16].try_into().unwrap());
            let len = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[19..len].split(|byte| *byte == 0).next().unwrap_or_default();
            self.seen.push(String::from_utf8(name.to_vec()).unwrap());
            rest = &rest[len..];
        }
        Ok(got > 0)
    }

    fn check(&self, ended: bool) -> Result<(), String> {
        // A directory that was removed meanwhile lists not even itself.
        let stable = self.start.difference(&self.touched).filter(|name| !name.trim_matches('.').is_empty());
        for name in stable {
            let times = self.seen.iter().filter(|seen| *seen == name).count();
            if times > 1 || (ended && times == 0) {
                return Err(format!("{name} came {times} times: {:?}", self.seen));
            }
        }
        let strange = |name: &&String| !self.start.contains(*name) && !self.touched.contains(*name);
        match self.seen.iter().find(strange) {
            Some(name) => Err(format!("{name} was never there: {:?}", self.seen)),
            None => Ok(()),
        }
    }
}
