//! One round: layers, a mount, two loads with a rest and a new mount between them, and what must hold at rest.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::common::{kernel::shown, *};
use crate::watch::{Stalls, Usage, forget_all, stacks};
use crate::worker::{BOARD, LOAD_SEED, PROCESS, ROLES, ROOT};
use crate::{copies, held, links, logs, ping, tokens, trees};

const PROCESSES: usize = 4;

/// Options of a mount, and what the kernel's overlayfs needs to show the same.
pub struct Options {
    pub strata: &'static str,
    kernel: &'static str,
}

pub const OPTIONS: [Options; 7] = [
    Options { strata: "threads=2", kernel: "index=on,metacopy=off" },
    Options { strata: "metacopy=on", kernel: "index=on,metacopy=on" },
    Options { strata: "index=off", kernel: "index=off,metacopy=off" },
    Options { strata: "threads=1", kernel: "index=on,metacopy=off" },
    Options { strata: "writeback=on", kernel: "index=on,metacopy=off" },
    Options { strata: "lower_io=passthrough,threads=4", kernel: "index=on,metacopy=off" },
    Options { strata: "metacopy=on,writeback=on,threads=4", kernel: "index=on,metacopy=on" },
];

pub struct Round {
    f: Fixture,
    seed: u64,
    options: &'static Options,
    board: Board,
}

impl Round {
    /// Nothing where the run may not mount as root.
    pub fn new(seed: u64) -> Option<Round> {
        let f = Fixture::new(2)?.need_root()?.departs("no daemon")?;
        let options = &OPTIONS[seed as usize % OPTIONS.len()];
        let board = Board::open(&f.dir().join("board"));
        let hard_links = !options.strata.contains("index=off");
        logs::plant(&f);
        tokens::plant(&f);
        ping::plant(&f, hard_links);
        copies::plant(&f);
        trees::plant(&f);
        links::plant(&f, hard_links);
        held::plant(&f);
        Some(Round { f, seed, options, board })
    }

    /// Carries it out, and says how many operations were done.
    pub fn run(mut self, load: Duration) -> Option<u64> {
        self.f.options = vec![self.options.strata.to_owned()];
        self.f.mount();
        let first = Usage::of(self.f.daemon());
        for number in 0..2 {
            self.load(number, load, first);
            self.at_rest();
            let before = self.comparable(sum::tree(&self.f.p("")));
            self.f.remount();
            let differences = sum::diff(&before, &self.comparable(sum::tree(&self.f.p(""))));
            assert!(differences.is_empty(), "another tree after the remount:\n{differences}");
            self.at_rest();
        }
        let ours = self.comparable(shown(&self.f.p("")));
        self.f.unmount();
        let theirs = self.comparable(self.f.as_the_kernel_shows(self.options.kernel));
        let differences = sum::diff(&theirs, &ours);
        assert!(differences.is_empty(), "the kernel (was) and stratafs (is) differ:\n{differences}");
        Some(self.operations().iter().sum())
    }

    /// A tree without what may differ: with `writeback=on` the time on disk is that of the writing back.
    fn comparable(&self, mut tree: sum::Tree) -> sum::Tree {
        if self.options.strata.contains("writeback=on") {
            tree.values_mut().for_each(|entry| entry.mtime = (0, 0));
        }
        tree
    }

    fn at_rest(&self) {
        logs::check(&self.f, &self.board);
        tokens::check(&self.f, &self.board);
        ping::check(&self.f, &self.board);
        trees::check(&self.f);
        links::check(&self.f);
        held::check(&self.f);
    }

    fn operations(&self) -> Vec<u64> {
        let workers = 0..PROCESSES * ROLES.len();
        workers.map(|worker| self.board.progress(worker).load(Ordering::Relaxed)).collect()
    }

    /// All processes at work for so long, while the kernel is made to forget what it knows.
    fn load(&self, number: u64, span: Duration, first: Usage) {
        let daemon = self.f.daemon();
        let mut most = first;
        self.board.resume();
        let mut processes: Vec<Child> = (0..PROCESSES).map(|process| self.process(process, number)).collect();
        let (begun, mut stalls, mut forgot) = (Instant::now(), Stalls::default(), Instant::now());
        while !processes.is_empty() {
            std::thread::sleep(Duration::from_millis(50));
            if begun.elapsed() > span {
                self.board.stop();
            }
            let mut ended = None;
            processes.retain_mut(|process| {
                let status = process.try_wait().unwrap();
                ended = ended.or(status.filter(|status| !status.success()));
                status.is_none()
            });
            if let Some(status) = ended {
                processes.iter_mut().for_each(|process| process.kill().unwrap());
                panic!("round of seed {}, load {number}: a process ended: {status}; see above", self.seed);
            }
            let still = if self.board.stopped() { Vec::new() } else { stalls.of(&self.operations()) };
            if !still.is_empty() || begun.elapsed() > span + Duration::from_secs(180) {
                let told: String = processes.iter().map(|process| stacks(process.id() as i32)).collect();
                let told = format!("daemon:\n{}processes:\n{told}", stacks(daemon));
                processes.iter_mut().for_each(|process| process.kill().unwrap());
                panic!("round of seed {}, load {number}: workers {still:?} stand still\n{told}", self.seed);
            }
            most = most.max(Usage::of(daemon));
            if forgot.elapsed() > Duration::from_millis(700) {
                forget_all();
                forgot = Instant::now();
            }
        }
        let after = Usage::settled(daemon, first);
        println!("  load {number}: daemon {first}, at most {most}, at rest {after}");
        after.check(first);
    }

    /// A process of the load. It ends with the thread that begins it.
    fn process(&self, process: usize, load: u64) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "worker::a_process_of_the_load", "--ignored", "--nocapture", "-q"]);
        command
            .env(BOARD, self.f.dir().join("board"))
            .env(ROOT, self.f.p(""))
            .env(PROCESS, process.to_string());
        command.env(LOAD_SEED, self.seed.wrapping_mul(2).wrapping_add(load).to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: prctl(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        spawn(&mut command)
    }
}
