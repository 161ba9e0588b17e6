"""The file systems that are compared, and how each is mounted.

A contestant mounts the layers of a place (see Place) and says which process serves it. Every peer gets the longest
lifetimes of names and attributes that its options offer: layers that nobody else changes need no shorter ones, and
stratafs has none either.
"""

import ctypes
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LONG = 86400


class Unable(Exception):
    """The contestant cannot do it: the row stays empty, and says why."""


@dataclass
class Place:
    """Where one contestant works: its own upper layer and mount point, over lower layers that all share."""

    at: Path
    lowers: list
    plain: Path  # the merged tree as one plain directory
    log: Path

    @property
    def upper(self):
        return self.at / "upper"

    @property
    def work(self):
        return self.at / "work"

    @property
    def mnt(self):
        return self.at / "mnt"


@dataclass
class Contestant:
    name: str
    about: str
    merged: bool = False  # works on the plain copy of the merged tree instead of the layers
    fuse: bool = True
    command: object = None  # Place -> argv of a daemon in the foreground
    options: str = ""
    needs: list = field(default_factory=list)

    def missing(self, stratafs):
        """Why it cannot take part here, or None."""
        for program in self.needs:
            if not shutil.which(program):
                return f"no {program}"
        if self.name.startswith("stratafs") and self.options:
            option = self.options.split(",")[0].split("=")[0]
            text = subprocess.run([stratafs, "mount", "--help"], capture_output=True, text=True, timeout=20).stdout
            if option not in text:
                return f"this build of stratafs has no option {option}"
        return None

    def mount(self, place):
        """A Mounted, and the seconds it took until the mount answered."""
        started = time.perf_counter()
        if self.command is None:
            if self.merged:
                return Mounted(self, place, None), 0.0
            overlay(place, self.options)
            return Mounted(self, place, None), time.perf_counter() - started
        with open(place.log, "ab") as log:
            daemon = subprocess.Popen(self.command(place), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        mounted = Mounted(self, place, daemon)
        device = os.stat(place.at).st_dev
        while os.stat(place.mnt).st_dev == device:
            if daemon.poll() is not None:
                raise Unable(f"mount: {last_line(place.log)}")
            if time.perf_counter() - started > 60:
                mounted.end()
                raise Unable("mount: no answer within 60 s")
            time.sleep(0.0002)
        return mounted, time.perf_counter() - started


@dataclass
class Mounted:
    contestant: Contestant
    place: Place
    daemon: subprocess.Popen

    @property
    def at(self):
        return self.place.plain if self.contestant.merged and self.daemon is None else self.place.mnt

    def cpu(self):
        """Seconds of CPU that the daemon has used. Its clock has nanoseconds, /proc/PID/stat has ticks."""
        if self.daemon is None:
            return 0.0
        return time.clock_gettime((~self.daemon.pid << 3) | 2)

    def peak_memory(self):
        """VmHWM of the daemon, in bytes."""
        if self.daemon is None:
            return None
        for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None

    def end(self):
        """Unmounts, and waits for the daemon; what does not answer is detached and its daemon ended."""
        if self.daemon is None and self.contestant.merged:
            return
        for flags in ([], [], ["-l"]):
            if subprocess.run(["umount", *flags, self.place.mnt], capture_output=True, timeout=60).returncode == 0:
                break
            time.sleep(0.5)
        if self.daemon is not None:
            try:
                self.daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait(timeout=20)


def last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "the daemon ended without a word"


def overlay(place, options):
    """Mounts the kernel's overlayfs. Its options must fit a page, so layers are named from within their directory."""
    os.chdir(place.lowers[0].parent)
    lowers = ":".join(lower.name for lower in place.lowers)
    data = f"lowerdir={lowers},upperdir={place.upper},workdir={place.work}"
    data += "," + options if options else ""
    done = LIBC.mount(b"overlay", bytes(place.mnt), b"overlay", 0, data.encode())
    error = ctypes.get_errno()
    os.chdir("/")
    if done != 0:
        raise Unable(f"mount: {os.strerror(error)}")


def stratafs(program, options="", upper=True, merged=False):
    def command(place):
        argv = [program, "mount", "-f"]
        if merged:
            # A stack has a lower layer; this one is empty, and only the root knows it.
            beside = place.plain.with_name(place.plain.name + ".beside")
            argv += ["-l", beside / "empty", "-u", place.plain, "-w", beside / "work"]
        else:
            for lower in place.lowers:
                argv += ["-l", lower]
            if upper:
                argv += ["-u", place.upper, "-w", place.work]
        return [*argv, *(["-o", options] if options else []), place.mnt]

    return command


def fuse_overlayfs(program):
    def command(place):
        lowers = ":".join(map(str, place.lowers))
        options = f"lowerdir={lowers},upperdir={place.upper},workdir={place.work}"
        return [program, "-f", "-o", options, place.mnt]

    return command


def unionfs(place):
    branches = ":".join([f"{place.upper}=RW", *(f"{lower}=RO" for lower in place.lowers)])
    lifetimes = f"entry_timeout={LONG},negative_timeout={LONG},attr_timeout={LONG}"
    return ["unionfs", "-f", "-o", f"cow,allow_other,{lifetimes},kernel_cache,use_ino", branches, place.mnt]


def mergerfs(place):
    branches = ":".join([f"{place.upper}=RW", *(f"{lower}=RO" for lower in place.lowers)])
    lifetimes = f"cache.attr={LONG},cache.entry={LONG},cache.negative_entry={LONG},cache.symlinks=true,cache.readdir=true"
    return ["mergerfs", "-f", "-o", f"allow_other,{lifetimes},category.create=ff", branches, place.mnt]


def everybody(strata, newer):
    """All contestants, in the order of the table. `newer` is fuse-overlayfs 2, whose name is that of Debian's."""

    def variant(name, about, options, **more):
        more_for_command = {key: more[key] for key in ("upper", "merged") if key in more}
        return Contestant(
            name,
            about,
            merged=more.get("merged", False),
            command=stratafs(strata, options, **more_for_command),
            options=options,
            needs=[strata],
        )

    kernel = {"fuse": False, "options": "redirect_dir=on,index=on"}
    return [
        Contestant("ext4", "a plain directory with the merged tree", merged=True, fuse=False),
        Contestant("overlay", "the kernel's overlayfs, redirect_dir and index on as in stratafs", **kernel),
        Contestant("overlay-volatile", "the same, volatile", fuse=False, options="redirect_dir=on,index=on,volatile"),
        Contestant("overlay-metacopy", "the same, metacopy=on", fuse=False, options="redirect_dir=on,index=on,metacopy=on"),
        Contestant("fuse-overlayfs-2", "2.0.0, in Rust", command=fuse_overlayfs(newer), needs=[newer]),
        Contestant("fuse-overlayfs-1", "Debian's, in C", command=fuse_overlayfs("fuse-overlayfs"), needs=["fuse-overlayfs"]),
        Contestant("unionfs-fuse", "Debian's, cow", command=unionfs, needs=["unionfs"]),
        Contestant("mergerfs", "Debian's; it copies nothing up", command=mergerfs, needs=["mergerfs"]),
        variant("loopback", "stratafs with the merged tree as its upper layer, over an empty one: FUSE without a union", "", merged=True),
        variant("stratafs", "as it comes", ""),
        variant("stratafs-passthrough", "lower files passed through", "lower_io=passthrough"),
        variant("stratafs-ro", "without an upper layer: lower files passed through", "", upper=False),
        variant("stratafs-volatile", "volatile", "volatile"),
        variant("stratafs-noxattr", "noxattr", "noxattr"),
        variant("stratafs-metacopy", "metacopy=on", "metacopy=on"),
    ]


PEERS = ["fuse-overlayfs-2", "fuse-overlayfs-1", "unionfs-fuse", "mergerfs"]
# Those that answer every question for an extended attribute with ENOSYS, after which the kernel asks no more.
WITHOUT_XATTRS = ["unionfs-fuse"]
# What every workload has; the others take part where a workload says that they matter.
USUAL = ["ext4", "overlay", *PEERS, "loopback", "stratafs"]
