//! Starting other programs. `tests/rooms.rs` keeps every start of one here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};

/// What is kept of a program's output.
const OUTPUT_LIMIT: u64 = 4096;

/// The program at an absolute path, which is not searched. It gets an empty environment, the umask 022, `/` as its working
/// directory, no input and no descriptor of this process. Errors: `InvalidInput` for a path that is not absolute.
pub fn command(program: &Path) -> io::Result<Command> {
    if !program.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of the program is not absolute"));
    }
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft.min(1 << 20)) as i32;
    let prepare = move || {
        // SAFETY: no call takes a pointer, and all may be made between fork(2) and execve(2).
        unsafe {
            libc::umask(0o022);
            let all = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            // Linux before 5.11.
            let each = if all == 0 { 0..0 } else { 3..most };
            for fd in each {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        Ok(())
    };
    // SAFETY: `prepare` allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    Ok(command)
}

/// Runs a program to its end; its status and the beginning of its output. A process that it leaves behind, as a filesystem in
/// userspace does, may keep the output open: it is not waited for.
pub fn run(mut command: Command) -> io::Result<(ExitStatus, String)> {
    let output = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
    let status = command.stdout(output.try_clone()?).stderr(output.try_clone()?).status()?;
    let mut text = Vec::new();
    let mut output = output;
    output.rewind()?;
    output.take(OUTPUT_LIMIT).read_to_end(&mut text)?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// Names the fusermount that crate fuser runs where mount(2) is not permitted; without a name fuser searches `$PATH`.
/// Call it before any thread is started. Source: fuser `detect_fusermount_bin`.
pub fn set_fusermount(program: &Path) {
    // SAFETY: this process has one thread, so no other reads the environment.
    unsafe { std::env::set_var("FUSERMOUNT_PATH", program) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(script: &str) -> String {
        let mut shell = command(Path::new("/bin/sh")).expect("command");
        shell.arg("-c").arg(script);
        run(shell).expect("run").1
    }

    #[test]
    fn a_program_inherits_nothing() {
        // The shell sets PWD itself.
        // The last descriptor is that of the directory which is listed.
        let script =
            "umask; pwd; tr '\\0' '\\n' </proc/$$/environ; readlink /proc/$$/fd/0; exec ls /proc/self/fd";
        let kept = File::open("/dev/null").expect("file");
        nix::fcntl::fcntl(&kept, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).expect("fcntl");
        assert_eq!(output(script), "0022\n/\n/dev/null\n0\n1\n2\n3\n");
    }

    #[test]
    fn a_program_is_not_searched() {
        for path in ["sh", "./sh", ""] {
            assert_eq!(command(Path::new(path)).expect_err("path").kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_process_that_keeps_the_output_open_is_not_waited_for() {
        let text = output("sleep 100 & echo $!");
        let pid = nix::unistd::Pid::from_raw(text.trim().parse().expect("pid"));
        assert_eq!(
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL),
            Ok(()),
            "it has ended by itself"
        );
        let text = output("echo $PPID; head -c 100000 /dev/zero");
        assert!(text.len() as u64 <= OUTPUT_LIMIT);
    }
}
