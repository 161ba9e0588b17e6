"""A source tree: unpacked, removed, copied, searched, in the upper layer and from a lower one."""

import trees
from workload import Goal, Workload, shell

FILES = 10_600


class Lower(Workload):
    """With the tree in a lower layer."""

    def prepare(self, layers, scale):
        trees.source(layers / "0" / "tree", scale(FILES))
        return [layers / "0"]


class Untar(Workload):
    name = "untar"

    def prepare(self, layers, scale):
        trees.source(layers / "source" / "tree", scale(FILES))
        shell("tar", "-C", layers / "source", "-cf", layers / "tree.tar", "tree")
        shell("rm", "-rf", layers / "source")
        return super().prepare(layers, scale)

    def run(self, w):
        tar, files = w.mounted.place.lowers[0].parent / "tree.tar", w.scale(FILES)
        w.row("untar 10.6k files", lambda: w.shell("tar", "-xf", tar), ops=files)
        w.row("rm -rf of it", lambda: w.shell("rm", "-rf", "tree"), ops=files)


class RmLower(Lower):
    name = "rmlower"

    def run(self, w):
        w.row("rm -rf of 10.6k lower files", lambda: w.shell("rm", "-rf", "tree"), ops=w.scale(FILES))


class CpR(Lower):
    name = "cpr"

    def run(self, w):
        w.row("cp -r of a lower tree", lambda: w.shell("cp", "-r", "tree", "copy"), ops=w.scale(FILES))


class Grep(Lower):
    name = "grep"
    reads_only = True
    also = ("stratafs-ro", "stratafs-passthrough")

    def run(self, w):
        def grep():
            w.shell("sh", "-c", "grep -rF NotThereAtAll tree || [ $? = 1 ]")

        files = w.scale(FILES)
        w.row("grep -r, first", grep, ops=files)
        w.row("grep -r, again", grep, ops=files)
        w.cold()
        w.row("grep -r, cold", grep, ops=files)


class MvTree(Lower):
    name = "mvtree"
    also = ("stratafs-metacopy", "overlay-metacopy")
    copies_up = True
    goals = [Goal("mv of a lower directory", 1.0, "overlay-metacopy", "stratafs-metacopy")]

    def run(self, w):
        # By rename(2) where that is allowed: mv falls back to a copy.
        w.row("mv of a lower directory", lambda: w.shell("mv", "tree", "moved"))


WORKLOADS = [Untar(), RmLower(), CpR(), Grep(), MvTree()]
