"""Lower files that are changed, and so copied up."""

import random
import subprocess

import trees
from workload import Goal, Workload

FILES = 5000
VARIANTS = ("stratafs-volatile", "stratafs-metacopy", "overlay-volatile", "overlay-metacopy")


class Small(Workload):
    copies_up = True
    also = VARIANTS

    def __init__(self, verb):
        self.name, self.verb = f"{verb}-small", verb
        self.title = f"{verb} 5000 lower files"
        self.goals = [Goal(self.title, 1.0), Goal(self.title, 1.0, "overlay-volatile", "stratafs-volatile")]
        if verb == "chmod":
            self.goals.append(Goal(self.title, 1.0, "overlay-metacopy", "stratafs-metacopy"))

    def prepare(self, layers, scale):
        trees.many(layers / "0", scale(FILES), size=4096)
        return [layers / "0"]

    def run(self, w):
        count = w.scale(FILES)
        names = w.list_of(f"d{at // 100:04}/f{at:06}" for at in range(count))
        w.row(self.title, lambda: w.ops(self.verb, names), ops=count)


class Big(Workload):
    copies_up = True
    also = VARIANTS

    def __init__(self, verb):
        self.name, self.verb = f"{verb}-big", verb
        self.title = f"{verb} a lower file of 1 GiB"
        if verb == "chmod":
            self.goals = [Goal(self.title, 1.0, "overlay-metacopy", "stratafs-metacopy"), Goal(self.title, 0.02, None, "stratafs-metacopy")]

    def prepare(self, layers, scale):
        trees.big(layers / "0" / "big", scale(1 << 30))
        return [layers / "0"]

    def run(self, w):
        w.row(self.title, lambda: w.ops(self.verb, w.list_of(["big"])))


class Beside(Workload):
    """A lookup that has nothing to do with it, while 3 GB are copied up."""

    name = "beside"
    copies_up = True
    without = ("ext4", "loopback", "mergerfs")
    goals = [Goal("99th percentile of lookups during it", 1.0, "stratafs", against_row="beside: 99th percentile of lookups", plus=0.003)]

    def prepare(self, layers, scale):
        trees.big(layers / "0" / "big", scale(3 << 30))
        trees.many(layers / "0", scale(20_000, least=4000))
        return [layers / "0"]

    def run(self, w):
        files = w.scale(20_000, least=4000)
        names = [f"d{at // 100:04}/f{at:06}" for at in range(files)]
        random.Random(4).shuffle(names)
        idle, busy = w.list_of(names[: files // 4]), w.scratch / "busy"
        busy.write_text("".join(f"{name}\n" for name in names[files // 4 :]))
        w.row("99th percentile of lookups", lambda: w.ops("latency", idle, 1500))

        def during():
            with subprocess.Popen([w.program, "append", w.at, w.scratch / "big"], stdout=subprocess.DEVNULL) as copying:
                took = w.ops("latency", busy, 1500)
                copying.wait(timeout=120)
            return took

        (w.scratch / "big").write_text("big\n")
        w.row("99th percentile of lookups during it", during)


WORKLOADS = [Small("append"), Small("chmod"), Big("append"), Big("chmod"), Beside()]
