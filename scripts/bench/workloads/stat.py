"""stat of 50,000 paths of five layers, in no order; then the same 1,000 again and again. Also from several threads."""

import random

import trees
from workload import Goal, Workload

FILES = 50_000


def paths(w):
    count = w.scale(FILES)
    names = [f"d{at // 100:04}/f{at:06}" for at in range(count)]
    random.Random(3).shuffle(names)
    return names


class Stat(Workload):
    name = "stat"
    reads_only = True
    goals = [Goal("the same 1000, 300 times", 1.1)]

    def prepare(self, layers, scale):
        roots, _ = trees.shared(layers, scale(FILES), 5)
        return roots

    def run(self, w):
        names = paths(w)
        every = w.list_of(names)
        w.row("random paths, first", lambda: w.ops("stat", every), ops=len(names))
        few, times = w.list_of(names[:1000]), w.scale(300)
        w.row("the same 1000, 300 times", lambda: w.ops("stat", few, times), ops=len(names[:1000]) * times)


class Threads(Stat):
    goals = ()

    def __init__(self, threads):
        self.name, self.threads = f"stat-{threads}-threads", threads

    def run(self, w):
        names = paths(w)
        every = w.list_of(names)
        w.row("random paths, first", lambda: w.ops("stat", every, 1, self.threads), ops=len(names))


WORKLOADS = [Stat(), Threads(2), Threads(4), Threads(16)]
