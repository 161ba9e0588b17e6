"""Paths of fifty levels."""

from workload import Goal, Workload

CHAINS, DEPTH = 50, 50


class Deep(Workload):
    name = "deep"
    reads_only = True
    goals = [Goal("200 more times", 1.1)]

    def prepare(self, layers, scale):
        for chain in range(scale(CHAINS)):
            (layers / "0" / f"c{chain}" / "/".join(["d"] * (DEPTH - 2))).mkdir(parents=True)
            (layers / "0" / f"c{chain}" / "/".join(["d"] * (DEPTH - 2)) / "leaf").touch()
        return [layers / "0"]

    def run(self, w):
        chains = w.scale(CHAINS)
        leaves = w.list_of(f"c{chain}/" + "d/" * (DEPTH - 2) + "leaf" for chain in range(chains))
        w.row("50 chains 50 deep, first", lambda: w.ops("stat", leaves), ops=chains * DEPTH)
        w.row("200 more times", lambda: w.ops("stat", leaves, 200), ops=200 * chains * DEPTH)


WORKLOADS = [Deep()]
