"""What a workload is, and what it has to work with.

A file in workloads/ has one class or a few, and `WORKLOADS`, a list of instances. A workload makes its lower layers once
(`prepare`); then, for every contestant in every round, `run` gets a fresh upper layer and a fresh mount.

Words: *first* is the first time in a mount, with the caches of the layers below it warm; *again* is the same in the same
mount; *cold* is after all caches of the machine were dropped.
"""

import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from contestants import Unable


@dataclass
class Goal:
    """`subject` takes at most `limit` times as long as `against` (or seconds, if that is None), in another row if one is named."""

    row: str
    limit: float
    against: str = "overlay"
    subject: str = "stratafs"
    against_row: str = ""  # "workload: row"
    plus: float = 0.0  # seconds that are allowed on top


class Workload:
    name = ""
    # Contestants beyond the usual ones that make a difference here.
    also = ()
    # Usual contestants that it makes no sense for.
    without = ()
    # Whether nothing is written: then contestants on a plain tree share one, else each gets its own in every round.
    reads_only = False
    # Whether it is about copy-up, or which rows are: there the plain trees are no measure, and peers without fsync race
    # stratafs-volatile.
    copies_up = False
    # Rows whose command asks for extended attributes: a peer that has none is spared the question, and races stratafs-noxattr.
    asks_xattrs = ()
    goals = ()

    def prepare(self, layers, scale):
        """Makes the lower layers below the directory `layers`; returns them, topmost first."""
        (layers / "0").mkdir(parents=True)
        return [layers / "0"]

    def run(self, w):
        raise NotImplementedError


def shell(*argv, cwd=None, env=None, timeout=600):
    """Runs a command to its end. Errors: Unable, with its last line."""
    argv = [str(word) for word in argv]
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unable(f"{Path(argv[0]).name}: {said[-1][:160] if said else f'status {done.returncode}'}")
    return done.stdout.decode(errors="replace")


@dataclass
class World:
    """One contestant in one round. Rows are what is measured."""

    contestant: str
    at: Path  # the tree to work in
    mount_seconds: float
    mounted: object
    scale_by: float
    program: Path
    scratch: Path
    counter: object  # None in timed rounds
    rows: dict

    def scale(self, number, least=1):
        """The full size, or its part in a quick run."""
        return max(least, round(number * self.scale_by))

    def ops(self, verb, *args, below=""):
        """Runs the loop `verb` in the tree; returns the seconds it says it took, if it says so."""
        said = shell(self.program, verb, self.at / below, *args).split()
        return float(said[-1]) if said else None

    def list_of(self, paths):
        """A file with these paths, one a line."""
        file = self.scratch / "list"
        file.write_text("".join(f"{path}\n" for path in paths))
        return file

    def shell(self, *argv, **how):
        """Runs a command of the system in the tree, or where `cwd` says."""
        shell(*argv, **{"cwd": self.at, **how})

    def cold(self):
        """Drops every cache of the machine."""
        shell("sync", "-f", self.mounted.place.at)
        Path("/proc/sys/vm/drop_caches").write_text("3")

    def row(self, name, what, ops=1, plus=0.0):
        """Measures `what()`: the seconds that it returns, or those it took by the clock here."""
        entry = {"ops": ops}
        if self.counter is not None:
            self.counter.begin()
        daemon, client, started = self.mounted.cpu(), children(), time.perf_counter()
        try:
            inside = what()
            took = time.perf_counter() - started
            entry["seconds"] = plus + (inside if inside is not None else took)
        except Unable as why:
            entry["why"] = str(why)
        entry["daemon_cpu"] = self.mounted.cpu() - daemon
        entry["client_cpu"] = children() - client
        if self.counter is not None:
            entry["requests"], entry["calls"] = self.counter.end()
        self.rows[name] = entry


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
