"""Runs workloads on contestants in turn. `run` beside this file builds what is needed and calls it."""

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import report
from contestants import USUAL, Place, Unable, everybody
from counting import Counter
from workload import World, shell

QUICK = ["ext4", "overlay", "stratafs"]
# Counts are taken on smaller trees: every call is a record in a buffer of the kernel.
COUNTING_SCALE = 0.1


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def all_workloads():
    found = []
    for file in sorted((HERE / "workloads").glob("*.py")):
        for workload in importlib.import_module(f"workloads.{file.stem}").WORKLOADS:
            found.append((file.stem, workload))
    return found


def arguments():
    # What `run` says about itself is the help.
    parser = argparse.ArgumentParser(prog="run", add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--contestants", type=lambda text: text.split(","), default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-counts", action="store_true")
    parser.add_argument("--one-cpu", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


class Bench:
    def __init__(self, args, scratch, contestants):
        self.args, self.scratch, self.contestants = args, scratch, contestants
        self.disk = scratch / "disk"
        self.program = os.environ["BENCH_OPS"]
        self.scale_by = 0.02 if args.quick else 1.0
        # The lower layers of now are behind a read-only mount.
        self.read_only = False

    def settle(self):
        """Nothing of what was made before is left to be written. Only our disk: what others write takes its time."""
        shell("sync", "-f", self.disk)

    def clear(self):
        """Takes away what `prepare` has made."""
        layers = self.disk / "layers"
        if self.read_only:
            shell("umount", layers)
            self.read_only = False
        shell("rm", "-rf", "--one-file-system", layers, self.disk / "plain", self.disk / "plain.beside")

    def prepare(self, workload, scale_by):
        """The lower layers and the merged tree as a plain one."""
        layers, plain = self.disk / "layers", self.disk / "plain"
        self.clear()
        lowers = workload.prepare(layers, lambda number, least=1: max(least, round(number * scale_by)))
        plain.mkdir()
        for lower in reversed(lowers):
            shell("cp", "-a", f"{lower}/.", plain)
        self.settle()
        # What one contestant does to a lower layer is not to be another's trouble.
        shell("mount", "--bind", layers, layers)
        self.read_only = True
        shell("mount", "-o", "remount,bind,ro", layers)
        return lowers, plain

    def once(self, workload, contestant, lowers, plain, scale_by, counter=None):
        """One contestant in one round, from a fresh upper layer to the unmount. Returns its rows and its peak memory."""
        at = self.disk / "place"
        place = Place(at, lowers, plain, self.scratch / f"{contestant.name}.log")
        for dir in (place.upper, place.work, place.mnt):
            dir.mkdir(parents=True)
        if contestant.merged:
            if not workload.reads_only:
                place.plain = at / "plain"
                shell("cp", "-a", plain, place.plain)
            for dir in ("empty", "work"):
                (place.plain.with_name(place.plain.name + ".beside") / dir).mkdir(parents=True, exist_ok=True)
        for tree in [place.plain] if contestant.merged else lowers:
            shell(self.program, "warm", tree)
        self.settle()
        rows, memory, mounted = {}, None, None
        try:
            mounted, seconds = contestant.mount(place)
            if counter is not None:
                counter.watch(mounted.daemon.pid, os.stat(place.mnt).st_dev)
            workload.run(
                World(contestant.name, mounted.at, seconds, mounted, scale_by, self.program, self.scratch, counter, rows)
            )
            memory = mounted.peak_memory()
        except Unable as why:
            rows.setdefault("*", {"why": str(why)})
        finally:
            if mounted is not None:
                mounted.end()
        shell("rm", "-rf", "--one-file-system", at)
        return rows, memory

    def run(self, workload):
        taking_part = [c for c in self.contestants if self.takes_part(workload, c)]
        rounds = 1 if self.args.quick else self.args.rounds
        results = {c.name: {"rows": {}, "why": None, "memory": None} for c in taking_part}
        load = [os.getloadavg()[0]]
        lowers, plain = self.prepare(workload, self.scale_by)
        for number in range(rounds):
            # Everybody comes first once: who follows whom should not matter.
            turn = taking_part[number % len(taking_part) :] + taking_part[: number % len(taking_part)]
            for contestant in turn:
                result = results[contestant.name]
                if result["why"]:
                    continue
                rows, memory = self.once(workload, contestant, lowers, plain, self.scale_by)
                self.collect(result, rows, memory)
        load.append(os.getloadavg()[0])
        if not self.args.no_counts and not self.args.quick:
            self.count(workload, [c for c in taking_part if c.fuse], results)
        self.clear()
        return {
            "commit": os.environ.get("BENCH_COMMIT", ""),
            "rounds": rounds,
            "load": [round(value, 1) for value in load],
            "contestants": results,
        }

    def takes_part(self, workload, contestant):
        if self.args.contestants:
            return contestant.name in self.args.contestants
        if contestant.name in workload.without:
            return False
        return contestant.name in (QUICK if self.args.quick else [*USUAL, *workload.also])

    @staticmethod
    def collect(result, rows, memory):
        if "*" in rows:
            result["why"] = rows.pop("*")["why"]
        if memory:
            result["memory"] = max(memory, result["memory"] or 0)
        for name, row in rows.items():
            kept = result["rows"].setdefault(name, {"ops": row.get("ops", 1), "seconds": [], "daemon_cpu": [], "client_cpu": []})
            if "why" in row:
                kept["why"] = row["why"]
                continue
            for key in ("seconds", "daemon_cpu", "client_cpu"):
                kept[key].append(row[key])

    def count(self, workload, contestants, results):
        lowers, plain = self.prepare(workload, COUNTING_SCALE)
        counter = Counter(self.scratch / "tracing")
        try:
            for contestant in contestants:
                if results[contestant.name]["why"]:
                    continue
                rows, _ = self.once(workload, contestant, lowers, plain, COUNTING_SCALE, counter)
                for name, row in rows.items():
                    if "requests" in row and "why" not in row:
                        kept = results[contestant.name]["rows"].setdefault(name, {})
                        kept["counted_ops"], kept["requests"], kept["calls"] = row["ops"], row["requests"], row["calls"]
        finally:
            counter.close()
            (self.scratch / "tracing").rmdir()


def merged(old, new):
    """`new`, with what it did not look at from `old`: times if there was no round, counts if nothing was counted."""
    if old is None:
        return new
    if not new["rounds"]:
        new |= {key: old[key] for key in ("commit", "rounds", "load")}
    for name, before in old["contestants"].items():
        now = new["contestants"].setdefault(name, before)
        now["memory"] = now["memory"] or before["memory"]
        for row, entry in before["rows"].items():
            now["rows"][row] = {**entry, **now["rows"].get(row, {})}
    return new


def make_disk(scratch, quick):
    """An ext4 of our own, with a journal. On one without, as some virtual machines have, an inode number that was freed
    in the last minutes is passed over, one by one: every round would wait for what the round before has removed.
    """
    image, disk = scratch / "image", scratch / "disk"
    disk.mkdir()
    # Allocated beforehand, so that no round pays for it.
    shell(*(["truncate", "-s", "4G"] if quick else ["fallocate", "-l", "12G"]), image)
    shell("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", "-i", "8192", image)
    device = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", image], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()
    # Nothing is to happen in the background; the device goes when it is unmounted.
    shell("mount", "-o", "noinit_itable", device, disk)
    shell("losetup", "--detach", device)
    shell("rmdir", disk / "lost+found")


def machine():
    cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": f"{len(cpu)} × {cpu[0] if cpu else platform.machine()}",
        "memory": f"{memory:.0f} GB",
        "kernel": platform.release(),
        "filesystem": "ext4 on a loop device",
    }


def ended(number, _frame):
    say(f"ended by signal {number}: cleaning up")
    sys.exit(128 + number)


def main():
    args = arguments()
    if args.one_cpu:
        args.out /= "one-cpu"
        # Whoever is started from here inherits it.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    file = args.out / "results.json"
    known = json.loads(file.read_text()) if file.exists() else {"workloads": {}}
    everyone = everybody(os.environ.get("STRATAFS", "stratafs"), os.environ.get("FUSE_OVERLAYFS_2", ""))
    workloads = all_workloads()
    if args.list:
        print("workloads:  ", *[workload.name for _, workload in workloads])
        print("contestants:", *[contestant.name for contestant in everyone])
        return 0
    if args.report:
        report.write(known, everyone, [workload for _, workload in workloads], args)
        return 0
    unknown = set(args.contestants) - {c.name for c in everyone} | set(args.only) - {n for f, w in workloads for n in (f, w.name)}
    if unknown:
        say(f"unknown: {', '.join(sorted(unknown))} (see --list)")
        return 2
    chosen = [workload for stem, workload in workloads if not args.only or workload.name in args.only or stem in args.only]
    if args.quick and not args.only:
        # The same code as walk50k, and the preparation of ten times as much.
        chosen = [workload for workload in chosen if workload.name != "walk500k"]

    signal.signal(signal.SIGTERM, ended)
    scratch = Path(tempfile.mkdtemp(prefix="stratafs-bench."))
    scratch.chmod(0o755)
    failed = 0
    try:
        present = []
        for contestant in everyone:
            why = contestant.missing(os.environ["STRATAFS"])
            wanted = contestant.name in args.contestants or not (args.contestants or args.quick)
            if why is None:
                present.append(contestant)
            elif wanted:
                say(f"without {contestant.name}: {why}")
        make_disk(scratch, args.quick)
        bench = Bench(args, scratch, present)
        for workload in chosen:
            started = time.monotonic()
            result = bench.run(workload)
            for name, whole in result["contestants"].items():
                for why in filter(None, [whole["why"], *(row.get("why") for row in whole["rows"].values())]):
                    say(f"{workload.name}: {name}: {why}")
                    # Peers have their limits; stratafs has to do it all.
                    failed += name == "stratafs"
            if not args.quick:
                known["machine"], known["date"] = machine(), time.strftime("%Y-%m-%d")
                known["workloads"][workload.name] = merged(known["workloads"].get(workload.name), result)
                args.out.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            say(f"{workload.name}: {time.monotonic() - started:.0f} s, load {result['load'][0]} to {result['load'][1]}")
        if not args.quick:
            report.write(known, everyone, [workload for _, workload in workloads], args)
    finally:
        os.chdir("/")
        subprocess.run(["umount", "--recursive", scratch / "disk"], check=False, timeout=120)
        subprocess.run(["rm", "-rf", "--one-file-system", scratch], check=False, timeout=300)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
