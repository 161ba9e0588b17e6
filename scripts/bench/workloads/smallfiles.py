"""open, read, close of 5,000 small lower files. Also from several threads."""

import trees
from workload import Workload

FILES = 5000


class SmallFiles(Workload):
    name = "smallfiles"
    reads_only = True
    also = ("stratafs-ro", "stratafs-passthrough")
    threads = 1

    def prepare(self, layers, scale):
        trees.many(layers / "0", scale(FILES), size=4000)
        return [layers / "0"]

    def run(self, w):
        count = w.scale(FILES)
        names = w.list_of(f"d{at // 100:04}/f{at:06}" for at in range(count))
        w.row("open+read+close, first", lambda: w.ops("read", names, 1, self.threads), ops=count)
        w.row("3 more times", lambda: w.ops("read", names, 3, self.threads), ops=3 * count)


class Threads(SmallFiles):
    also = ()

    def __init__(self, threads):
        self.name, self.threads = f"smallfiles-{threads}-threads", threads


WORKLOADS = [SmallFiles(), Threads(2), Threads(4), Threads(16)]
