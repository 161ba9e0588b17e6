"""Trees that several workloads have in common. The same numbers give the same tree."""

import random

# Read once, cut everywhere: text-like bytes that grep has to look at and no filesystem compresses away.
TEXT = bytes(random.Random(1).choices(b"abcdefghijklmnopqrstuvwxyz      \n", k=1 << 20))


def text(seed, size):
    start = seed * 7919 % (len(TEXT) // 2)
    piece = TEXT[start : start + size]
    return piece if len(piece) == size else (TEXT * (size // len(TEXT) + 1))[:size]


def big(path, size):
    """A file without holes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for _ in range(max(1, size >> 20)):
            file.write(TEXT)


def many(root, count, per_dir=100, size=0):
    """`count` files in directories of `per_dir`, below `root`; their paths from there."""
    paths = []
    for at in range(count):
        name = f"d{at // per_dir:04}/f{at:06}"
        if at % per_dir == 0:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text(at, size))
        paths.append(name)
    return paths


def shared(layers, count, depth, per_dir=100, size=0):
    """`count` files over `depth` layers: every directory is in each, its files are dealt out. Layers and paths."""
    roots = [layers / str(n) for n in range(depth)]
    paths = []
    for at in range(count):
        name = f"d{at // per_dir:04}/f{at:06}"
        if at % per_dir == 0:
            for root in roots:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
        (roots[at % depth] / name).write_bytes(text(at, size))
        paths.append(name)
    return roots, paths


def source(root, count, seed=2):
    """Like the source of a large program: `count` files, mostly small, 19 kB on average, in directories three deep."""
    chance = random.Random(seed)
    for at in range(count):
        name = f"s{at // 1000:02}/p{at // 100 % 10}/m{at // 20 % 5}/file{at:05}.c"
        path = root / name
        if at % 20 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text(at, min(400_000, int(chance.lognormvariate(8.9, 1.3)))))
