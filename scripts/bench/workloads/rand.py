"""4 KiB at random places of an upper file: read, read through a map, written."""

from workload import Goal, Workload


class Rand(Workload):
    name = "rand"
    goals = [Goal("read 4k", 1.1), Goal("read 4k, mapped", 1.1), Goal("write 4k", 1.1), Goal("write 4k", 1.1, "ext4")]

    def run(self, w):
        w.ops("seqwrite", "file", w.scale(256))
        count = w.scale(50_000)
        w.row("read 4k", lambda: w.ops("randread", "file", count), ops=count)
        w.row("read 4k, mapped", lambda: w.ops("randmap", "file", count), ops=count)
        w.row("write 4k", lambda: w.ops("randwrite", "file", count), ops=count)


WORKLOADS = [Rand()]
