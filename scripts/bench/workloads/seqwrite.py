"""A large new file, written in blocks of 1 MiB; then again in place."""

from workload import Goal, Workload


class SeqWrite(Workload):
    name = "seqwrite"
    goals = [Goal("1 GiB + fsync", 1.1), Goal("1 GiB in place", 1.1)]

    def run(self, w):
        size = w.scale(1024)
        w.row("1 GiB + fsync", lambda: w.ops("seqwrite", "new", size))
        w.row("1 GiB in place", lambda: w.ops("rewrite", "new", size))


WORKLOADS = [SeqWrite()]
