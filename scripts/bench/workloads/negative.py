"""Names that are not there, in directories that five layers share."""

import trees
from workload import Goal, Workload


class Negative(Workload):
    name = "negative"
    reads_only = True
    goals = [Goal("10 more times", 1.1)]

    def prepare(self, layers, scale):
        roots, _ = trees.shared(layers, scale(10_000), 5)
        return roots

    def run(self, w):
        count, dirs = w.scale(20_000), w.scale(10_000) // 100 or 1
        missing = w.list_of(f"d{at % dirs:04}/missing{at}" for at in range(count))
        w.row("20,000 missing names, first", lambda: w.ops("missing", missing), ops=count)
        w.row("10 more times", lambda: w.ops("missing", missing, 10), ops=10 * count)


WORKLOADS = [Negative()]
