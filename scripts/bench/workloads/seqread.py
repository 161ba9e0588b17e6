"""A large lower file, read in blocks of 1 MiB."""

import trees
from workload import Goal, Workload


class SeqRead(Workload):
    name = "seqread"
    reads_only = True
    also = ("stratafs-ro", "stratafs-passthrough")
    # A writable mount serves first reads of lower files through its cache; passed through, they are at the disk's speed.
    goals = [
        Goal(row, 1.05, peer, subject)
        for row in ("1 GiB, first", "1 GiB, again", "1 GiB, cold")
        for peer in ("fuse-overlayfs-2", "fuse-overlayfs-1")
        for subject in ("stratafs-ro", "stratafs-passthrough")
    ]

    def prepare(self, layers, scale):
        trees.big(layers / "0" / "big", scale(1 << 30))
        return [layers / "0"]

    def run(self, w):
        w.row("1 GiB, first", lambda: w.ops("seqread", "big"))
        w.row("1 GiB, again", lambda: w.ops("seqread", "big"))
        w.cold()
        w.row("1 GiB, cold", lambda: w.ops("seqread", "big"))


WORKLOADS = [SeqRead()]
