"""What a database does: 8 KiB written, then fdatasync."""

from workload import Goal, Workload


class FsyncWrite(Workload):
    name = "fsyncwrite"
    goals = [Goal("8k + fdatasync", 1.1), Goal("8k + fdatasync", 1.3, "ext4")]

    def run(self, w):
        count = w.scale(2000)
        w.row("8k + fdatasync", lambda: w.ops("fsyncwrite", "log", count), ops=count)


WORKLOADS = [FsyncWrite()]
