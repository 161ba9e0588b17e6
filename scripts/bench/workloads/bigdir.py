"""One directory of 100,000 names, listed: `ls -l` asks two extended attributes for every name."""

import trees
from workload import Goal, Workload

LS_L = ("sh", "-c", "ls -l big >/dev/null")
LS_U = ("sh", "-c", "ls -U big >/dev/null")


class BigDir(Workload):
    name = "bigdir"
    reads_only = True
    also = ("stratafs-noxattr",)
    asks_xattrs = ("ls -l, first", "ls -l, again")
    goals = [
        Goal("ls -l, first", 1.0, "fuse-overlayfs-1"),
        Goal("ls -l, again", 1.0, "fuse-overlayfs-1"),
        Goal("ls -l, first", 1.0, subject="stratafs-noxattr"),
        Goal("ls -l, again", 1.0, subject="stratafs-noxattr"),
        Goal("ls -U, again", 1.0),
    ]

    def prepare(self, layers, scale):
        trees.many(layers / "0" / "big", scale(100_000), per_dir=10**9)
        (layers / "0/big/d0000").rename(layers / "0/all")
        (layers / "0/big").rmdir()
        (layers / "0/all").rename(layers / "0/big")
        return [layers / "0"]

    def run(self, w):
        names = w.scale(100_000)
        w.row("ls -l, first", lambda: w.shell(*LS_L), ops=names)
        w.row("ls -l, again", lambda: w.shell(*LS_L), ops=names)
        # A kernel that pages out what was not used for some seconds takes the listing of the kernel's cache while `ls -l` works.
        w.shell(*LS_U)
        w.row("ls -U, again", lambda: w.shell(*LS_U), ops=names)


WORKLOADS = [BigDir()]
