//! The loops that are timed: system calls, one after the other, with nothing in between that a slower language would add.
//!
//! usage: ops VERB DIR [ARGUMENTS]. Prints the seconds that the calls took, of each repetition set one number a line.
//! Built by `run` with rustc alone; std is all it needs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BLOCK: usize = 1 << 20;
const PAGE: usize = 4096;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(error) = run(&words) {
        eprintln!("ops {}: {error}", words.join(" "));
        std::process::exit(1);
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    let (verb, dir, rest) = match words {
        [verb, dir, rest @ ..] => (*verb, Path::new(*dir), rest),
        _ => return Err(io::Error::other("usage: ops VERB DIR [ARGUMENTS]")),
    };
    let number = |at: usize| rest.get(at).and_then(|word| word.parse::<usize>().ok()).unwrap_or(1);
    let file = || dir.join(rest[0]);
    match verb {
        "walk" => timed(|| walk(dir, true).map(drop)),
        "names" => timed(|| walk(dir, false).map(drop)),
        // LIST [TIMES [THREADS]]
        "stat" => over(dir, rest[0], number(1), number(2), |path| path.symlink_metadata().map(drop)),
        "missing" => over(dir, rest[0], number(1), number(2), |path| match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("a name that should be missing is there")),
        }),
        "read" => over(dir, rest[0], number(1), number(2), read_whole),
        "append" => over(dir, rest[0], 1, 1, |path| OpenOptions::new().append(true).open(path)?.write_all(b"x")),
        "chmod" => over(dir, rest[0], 1, 1, |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600))),
        "readlink" => over(dir, rest[0], 1, 1, |path| fs::read_link(path).map(drop)),
        "unlink" => over(dir, rest[0], 1, 1, |path| fs::remove_file(path)),
        // LIST of names to make
        "create" => over(dir, rest[0], 1, 1, |path| OpenOptions::new().write(true).create_new(true).open(path).map(drop)),
        "create-rw" => over(dir, rest[0], 1, 1, |path| File::create_new(path).map(drop)),
        "mkdir" => over(dir, rest[0], 1, 1, |path| fs::create_dir(path)),
        "symlink" => over(dir, rest[0], 1, 1, |path| symlink("to/somewhere", path)),
        // LIST SUFFIX
        "rename" => over(dir, rest[0], 1, 1, |path| fs::rename(path, beside(path, rest[1]))),
        "link" => over(dir, rest[0], 1, 1, |path| fs::hard_link(path, beside(path, rest[1]))),
        // FILE MEGABYTES
        "seqwrite" => timed(|| seqwrite(OpenOptions::new().create(true).truncate(true), &file(), number(1), true)),
        "rewrite" => timed(|| seqwrite(&mut OpenOptions::new(), &file(), number(1), false)),
        "seqread" => timed(|| read_whole(&file())),
        // FILE COUNT
        "randread" => randread(&file(), number(1)),
        "randmap" => randmap(&file(), number(1)),
        "randwrite" => randwrite(&file(), number(1)),
        "fsyncwrite" => fsyncwrite(&file(), number(1)),
        // LIST MILLISECONDS: the 99th percentile of lookups, one each half millisecond
        "latency" => latency(dir, rest[0], number(1)),
        // reads everything below, so that the caches below a mount are warm; prints how many bytes
        "warm" => walk(dir, true)?.iter().try_for_each(|path| read_whole(path)),
        _ => Err(io::Error::other("no such verb")),
    }
}

/// Prints how long `what` takes.
fn timed(what: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let started = Instant::now();
    what()?;
    println!("{:.7}", started.elapsed().as_secs_f64());
    Ok(())
}

/// `what` on every path of the list, `times` over, cut among `threads`. Paths are relative to `dir`.
fn over(dir: &Path, list: &str, times: usize, threads: usize, what: impl Fn(&Path) -> io::Result<()> + Sync) -> io::Result<()> {
    let paths = listed(dir, list)?;
    if threads <= 1 {
        return timed(|| (0..times).try_for_each(|_| paths.iter().try_for_each(|path| what(path))));
    }
    let share = paths.len().div_ceil(threads);
    timed(|| {
        std::thread::scope(|scope| {
            let started: Vec<_> = paths
                .chunks(share)
                .map(|part| scope.spawn(|| (0..times).try_for_each(|_| part.iter().try_for_each(|path| what(path)))))
                .collect();
            started.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
        })
    })
}

/// The paths of a list, which is read before the clock starts.
fn listed(dir: &Path, list: &str) -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string(list)?;
    std::env::set_current_dir(dir)?;
    Ok(text.lines().map(PathBuf::from).collect())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Every file below `dir`; with its attributes asked for, or the names only.
fn walk(dir: &Path, attributes: bool) -> io::Result<Vec<PathBuf>> {
    let (mut left, mut files) = (vec![dir.to_owned()], Vec::new());
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = if attributes { entry.metadata()?.file_type() } else { entry.file_type()? };
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

fn read_whole(path: &Path) -> io::Result<()> {
    thread_local!(static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; BLOCK]));
    let mut file = File::open(path)?;
    BUFFER.with_borrow_mut(|buffer| {
        while file.read(buffer)? > 0 {}
        Ok(())
    })
}

/// Writes `megabytes` from the start of the file; with an fsync if it is a new one.
fn seqwrite(options: &mut OpenOptions, path: &Path, megabytes: usize, sync: bool) -> io::Result<()> {
    let mut file = options.write(true).open(path)?;
    let block = vec![0x5a; BLOCK];
    (0..megabytes).try_for_each(|_| file.write_all(&block))?;
    if sync { file.sync_all() } else { Ok(()) }
}

/// Page-aligned offsets in a file of `len` bytes: the same ones in every run.
fn offsets(len: u64, count: usize) -> Vec<u64> {
    let pages = (len / PAGE as u64).max(1);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % pages * PAGE as u64
    };
    (0..count).map(|_| next()).collect()
}

fn randread(path: &Path, count: usize) -> io::Result<()> {
    let file = File::open(path)?;
    let offsets = offsets(file.metadata()?.len(), count);
    let mut page = [0; PAGE];
    timed(|| offsets.iter().try_for_each(|&at| file.read_exact_at(&mut page, at)))
}

fn randwrite(path: &Path, count: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let offsets = offsets(file.metadata()?.len(), count);
    timed(|| offsets.iter().try_for_each(|&at| file.write_all_at(&[0xa5; PAGE], at)))
}

fn fsyncwrite(path: &Path, count: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).mode(0o644).open(path)?;
    timed(|| {
        (0..count as u64).try_for_each(|i| {
            file.write_all_at(&[0x77; 2 * PAGE], i * 2 * PAGE as u64)?;
            file.sync_data()
        })
    })
}

unsafe extern "C" {
    fn mmap(at: *mut u8, len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut u8;
}

fn randmap(path: &Path, count: usize) -> io::Result<()> {
    const PROT_READ: i32 = 1;
    const MAP_SHARED: i32 = 1;
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let offsets = offsets(len, count);
    // SAFETY: a new mapping of the whole file, where the kernel likes; it lives until the process ends.
    let map = unsafe { mmap(std::ptr::null_mut(), len as usize, PROT_READ, MAP_SHARED, file.as_raw_fd(), 0) };
    if map as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    timed(|| {
        // SAFETY: every offset is below the length of the file, which nobody cuts.
        let sum: u64 = offsets.iter().map(|&at| u64::from(unsafe { map.add(at as usize).read_volatile() })).sum();
        std::hint::black_box(sum);
        Ok(())
    })
}

/// Looks up one path after the other for so long, and prints the 99th percentile of the time that one takes.
fn latency(dir: &Path, list: &str, milliseconds: usize) -> io::Result<()> {
    let paths = listed(dir, list)?;
    let end = Instant::now() + Duration::from_millis(milliseconds as u64);
    let mut took = Vec::new();
    for path in paths {
        if Instant::now() > end {
            break;
        }
        let started = Instant::now();
        path.symlink_metadata()?;
        took.push(started.elapsed());
        std::thread::sleep(Duration::from_micros(500));
    }
    took.sort();
    println!("{:.7}", took[took.len() * 99 / 100].as_secs_f64());
    Ok(())
}
