"""A tree whose files lie in the lowest of many layers, each of which has its directories."""

from workload import Goal, Workload

FILES = 2000
COUNTS = (1, 8, 32, 128, 500)


class Layers(Workload):
    reads_only = True
    also = ("stratafs-noxattr",)
    asks_xattrs = ("ls -lR",)

    def __init__(self, count):
        self.name, self.count = f"layers{count}", count
        self.goals = [Goal("stat 2000 files of the lowest", 1.0)] if count >= 32 else []
        if count == 500:
            self.goals.append(Goal("mount + ls", 0.05, None))
            for row in ("stat 2000 files of the lowest", "stat 2000 others there"):
                self.goals.append(Goal(row, 1.2, "stratafs", against_row=f"layers1: {row}"))

    def prepare(self, layers, scale):
        # A quick run has no time for more.
        count = self.count if scale(1000) >= 100 else min(self.count, 8)
        roots = [layers / str(n) for n in range(count)]
        for root in roots:
            for dir in range(20):
                (root / f"d{dir}").mkdir(parents=True)
            (root / "d0" / f"only-in-{root.name}").touch()
        for at in range(2 * scale(FILES)):
            (roots[-1] / f"d{at % 20}" / f"f{at}").touch()
        return roots

    def run(self, w):
        count = w.scale(FILES)

        def stat(first):
            names = w.list_of(f"d{at % 20}/f{at}" for at in range(first, first + count))
            return lambda: w.ops("stat", names)

        w.row("mount + ls", lambda: w.shell("ls", w.at), plus=w.mount_seconds)
        w.row("stat 2000 files of the lowest", stat(0), ops=count)
        w.row("stat 2000 others there", stat(count), ops=count)
        w.row("ls -lR", lambda: w.shell("sh", "-c", "ls -lR . >/dev/null"), ops=2 * count)


WORKLOADS = [Layers(count) for count in COUNTS]
