"""Names made, changed and removed in the upper layer."""

from workload import Workload


class Names(Workload):
    name = "names"
    also = ("stratafs-volatile",)

    def run(self, w):
        many, some = w.scale(20_000), w.scale(5000)

        def each(row, verb, names, *more):
            names = list(names)
            listed = w.list_of(names)
            w.row(row, lambda: w.ops(verb, listed, *more), ops=len(names))

        dirs = [f"{top}/{below}" for top in range(some // 50 or 1) for below in range(49)]
        w.list_of(["files", "links"])
        w.ops("mkdir", w.scratch / "list")
        each("create 20k", "create", (f"files/{at}" for at in range(many)))
        # What may be mapped and written is another matter for a FUSE mount than what is only written.
        each("create 5k, O_RDWR", "create-rw", (f"files/rw{at}" for at in range(some)))
        each("rename 5k", "rename", (f"files/{at}" for at in range(some)), ".new")
        each("link 5k", "link", (f"files/{at}.new" for at in range(some)), ".link")
        each("unlink 20k", "unlink", (f"files/{at}" for at in range(some, many)))
        each("unlink 5k, O_RDWR", "unlink", (f"files/rw{at}" for at in range(some)))
        each("mkdir 5k", "mkdir", [str(top) for top in range(some // 50 or 1)] + dirs)
        each("symlink 5k", "symlink", (f"links/{at}" for at in range(some)))
        each("readlink 5k", "readlink", (f"links/{at}" for at in range(some)))
        # Who lets the kernel keep where they lead pays for a page above.
        each("readlink 5k, again", "readlink", (f"links/{at}" for at in range(some)))


WORKLOADS = [Names()]
