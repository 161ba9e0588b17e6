"""A tree that five layers share, walked twice with the attributes of every file."""

import trees
from workload import Goal, Workload


class Walk(Workload):
    reads_only = True

    def __init__(self, name, files):
        self.name, self.files = name, files
        self.goals = [Goal("again", 1.1)]

    def prepare(self, layers, scale):
        roots, _ = trees.shared(layers, scale(self.files), 5)
        return roots

    def run(self, w):
        files = w.scale(self.files)
        w.row("first", lambda: w.ops("walk"), ops=files)
        w.row("again", lambda: w.ops("walk"), ops=files)


WORKLOADS = [Walk("walk50k", 50_000), Walk("walk500k", 500_000)]
