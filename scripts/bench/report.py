"""results.json as tables, as a chart, and as a list of the goals that are missed."""

import shutil
import statistics
from pathlib import Path

from contestants import PEERS, USUAL, WITHOUT_XATTRS

DOCS = Path(__file__).parent.parent.parent / "docs"
BEGIN, END = "<!-- measured: written by scripts/bench/run --docs -->\n", "<!-- end of what was measured -->\n"
BEGIN_ONE, END_ONE = "<!-- measured on one CPU: written by scripts/bench/run --one-cpu --docs -->\n", "<!-- end of one CPU -->\n"
# Within one run; PERFORMANCE of FUSE peers may differ by this much either way and still be equal.
EQUAL = 1.05
LOOPBACK = 1.15


class Results:
    def __init__(self, known, workloads):
        self.of = {w.name: known["workloads"][w.name] for w in workloads if w.name in known["workloads"]}
        self.workloads = [w for w in workloads if w.name in self.of]

    def row(self, workload, name, contestant):
        result = self.of.get(workload, {}).get("contestants", {}).get(contestant)
        return result["rows"].get(name) if result else None

    def names(self, workload):
        """The rows of a workload, in the order they came."""
        order = {}
        for result in self.of[workload]["contestants"].values():
            order.update(dict.fromkeys(result["rows"]))
        return list(order)

    def median(self, workload, name, contestant, key="seconds"):
        row = self.row(workload, name, contestant)
        return statistics.median(row[key]) if row and row.get(key) else None

    def cpu(self, workload, name, contestant):
        """Seconds of CPU that the client and the daemon took together."""
        parts = [self.median(workload, name, contestant, key) for key in ("client_cpu", "daemon_cpu")]
        return None if None in parts else sum(parts)

    def spread(self, workload, name, contestant):
        """Half of the rounds lie in a band around the median that is so wide, as a part of it."""
        row = self.row(workload, name, contestant)
        if not row or len(row.get("seconds", [])) < 3:
            return None
        low, _, high = statistics.quantiles(row["seconds"], n=4, method="inclusive")
        return (high - low) / statistics.median(row["seconds"])

    def per_op(self, workload, name, contestant, what):
        """Requests or calls of one operation: all, and the most frequent by name."""
        row = self.row(workload, name, contestant)
        if not row or what not in row:
            return None, []
        ops = row["counted_ops"]
        most = [(call, count / ops) for call, count in sorted(row[what].items(), key=lambda item: -item[1]) if count / ops >= 0.05]
        return sum(row[what].values()) / ops, most


def number(value):
    if value is None:
        return "–"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def medians(results, shown):
    rows = []
    for workload in results.workloads:
        for name in results.names(workload.name):
            cells = []
            for contestant in shown:
                median, spread = results.median(workload.name, name, contestant), results.spread(workload.name, name, contestant)
                cells.append(number(median) + (f" ±{spread * 50:.0f}%" if median and spread and spread > 0.1 else ""))
            if any(cell != "–" for cell in cells):
                rows.append([f"{workload.name}: {name}", *cells])
    return table(["seconds", *shown], rows)


def ratios(results):
    others = ["overlay", "loopback", *PEERS]
    rows = []
    for workload in results.workloads:
        for name in results.names(workload.name):
            mine = results.median(workload.name, name, "stratafs")
            theirs = [results.median(workload.name, name, other) for other in others]
            if mine:
                rows.append([f"{workload.name}: {name}", *(number(mine / other) if other else "–" for other in theirs)])
    return table(["stratafs against", *others], rows)


def cpu_ratios(results):
    """CPU of client and daemon together: what a busy machine distorts less than time."""
    others = ["overlay", "loopback", *PEERS]
    rows = []
    for workload in results.workloads:
        for name in results.names(workload.name):
            mine = results.cpu(workload.name, name, "stratafs")
            theirs = [results.cpu(workload.name, name, other) for other in others]
            if mine:
                rows.append([f"{workload.name}: {name}", *(number(mine / other) if other else "–" for other in theirs)])
    return table(["CPU of stratafs against", *others], rows)


def costs(results):
    rows = []
    for workload in results.workloads:
        for name in results.names(workload.name):
            if not results.row(workload.name, name, "stratafs"):
                continue
            ops = results.row(workload.name, name, "stratafs").get("ops", 1)
            cells = [f"{workload.name}: {name}"]
            for contestant in ("stratafs", "loopback", "fuse-overlayfs-2", "fuse-overlayfs-1"):
                requests, calls = (results.per_op(workload.name, name, contestant, what)[0] for what in ("requests", "calls"))
                cells.append("–" if requests is None else f"{number(requests)} / {number(calls)}")
            requests, calls = (results.per_op(workload.name, name, "stratafs", what)[1] for what in ("requests", "calls"))
            cells.append(", ".join(f"{call} {number(count)}" for call, count in requests[:5]))
            cells.append(", ".join(f"{call} {number(count)}" for call, count in calls[:7]))
            cpu = results.median(workload.name, name, "stratafs", "daemon_cpu")
            cells.append("–" if cpu is None else number(cpu / ops * 1e6))
            rows.append(cells)
    head = ["requests / calls of an operation", "stratafs", "loopback", "fuse-overlayfs-2", "fuse-overlayfs-1"]
    return table([*head, "requests of stratafs", "its calls", "its CPU, µs"], rows)


def memory(results, shown):
    rows = []
    for workload in results.workloads:
        kept = [results.of[workload.name]["contestants"].get(contestant, {}).get("memory") for contestant in shown]
        if any(kept):
            rows.append([workload.name, *(f"{value / 2**20:.0f}" if value else "–" for value in kept)])
    return table(["peak memory, MB", *shown], rows)


def missed(results):
    """Goals that are not reached, the farthest first: how far, row, who, against what, is, limit, and the same in CPU."""
    found = []

    def check(where, who, limit, against=None, base_where=None, plus=0.0):
        mine, base = results.median(*where, who), 1.0 if against is None else results.median(*(base_where or where), against)
        if mine is None or base is None or (mine - plus) / base <= limit:
            return
        cpu = None if against is None else (results.cpu(*where, who), results.cpu(*(base_where or where), against))
        against = against or "seconds"
        if base_where and base_where != where:
            against += ", " + ": ".join(base_where)
        is_now = (mine - plus) / base
        found.append((is_now / limit, ": ".join(where), who, against, is_now, limit, cpu[0] / cpu[1] if cpu and all(cpu) else None))

    for workload in results.workloads:
        for goal in workload.goals:
            base_where = tuple(goal.against_row.split(": ", 1)) if goal.against_row else None
            check((workload.name, goal.row), goal.subject, goal.limit, goal.against, base_where, goal.plus)
        for name in results.names(workload.name):
            where = (workload.name, name)
            # Who never syncs is compared with who never syncs.
            copies_up = workload.copies_up is True or workload.copies_up and name in workload.copies_up
            never = copies_up and results.median(*where, "stratafs-volatile")
            for peer in PEERS:
                spared = name in workload.asks_xattrs and peer in WITHOUT_XATTRS
                check(where, "stratafs-volatile" if never else "stratafs-noxattr" if spared else "stratafs", EQUAL, peer)
            if not copies_up:
                check(where, "stratafs", LOOPBACK, "loopback")
    return sorted(found, key=lambda entry: -entry[0])


def missed_table(results):
    rows = [
        [row, who, against, number(is_now), number(limit), number(cpu)]
        for _, row, who, against, is_now, limit, cpu in missed(results)
    ]
    head = ["row", "who", "against", "is", "should be at most", "is, in CPU"]
    return table(head, rows) if rows else "None.\n"


COLORS = {
    "stratafs": "#c0392b",
    "loopback": "#e59866",
    "fuse-overlayfs-2": "#2471a3",
    "fuse-overlayfs-1": "#5dade2",
    "unionfs-fuse": "#7d8b8f",
    "mergerfs": "#b7950b",
    "ext4": "#27ae60",
}


def chart(results):
    """Every row as dots on a logarithmic scale: how many times as long as the kernel's overlayfs."""
    import math

    rows = []
    for workload in results.workloads:
        for name in results.names(workload.name):
            base = results.median(workload.name, name, "overlay")
            if base:
                dots = {c: results.median(workload.name, name, c) for c in COLORS}
                rows.append((f"{workload.name}: {name}", {c: value / base for c, value in dots.items() if value}))
    left, width, line, top = 330, 620, 18, 60
    low, high = 0.1, 100.0

    def x(ratio):
        return left + width * (math.log(min(max(ratio, low), high) / low) / math.log(high / low))

    height = top + line * len(rows) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18" font-size="13">Time as a multiple of the kernel\'s overlayfs (further left is faster)</text>',
    ]
    for at, (name, color) in enumerate(COLORS.items()):
        out.append(f'<circle cx="{left + 95 * at - 240 + 6}" cy="36" r="4" fill="{color}"/>')
        out.append(f'<text x="{left + 95 * at - 240 + 14}" y="40">{name}</text>')
    for ratio in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        color = "#444" if ratio == 1 else "#ddd"
        out.append(f'<line x1="{x(ratio):.1f}" x2="{x(ratio):.1f}" y1="{top - 8}" y2="{height - 22}" stroke="{color}"/>')
        out.append(f'<text x="{x(ratio):.1f}" y="{height - 8}" text-anchor="middle">{ratio}</text>')
    for at, (name, dots) in enumerate(rows):
        y = top + line * at + 4
        label = name.replace("&", "&amp;").replace("<", "&lt;")
        out.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{label}</text>')
        # Ours last, so that it is on top.
        for contestant in reversed(COLORS):
            if contestant in dots:
                size = 4.5 if contestant == "stratafs" else 3.2
                out.append(f'<circle cx="{x(dots[contestant]):.1f}" cy="{y}" r="{size}" fill="{COLORS[contestant]}" fill-opacity="0.85"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def heading(known, results):
    machine = known["machine"]
    runs = sorted({(r["commit"], r["rounds"]) for r in results.of.values()})
    loads = [value for r in results.of.values() for value in r["load"]]
    return (
        f"{machine['cpu']}, {machine['memory']}; Linux {machine['kernel']}; {machine['filesystem']}; {known['date']}; "
        + "; ".join(f"commit {commit}, {rounds} rounds" for commit, rounds in runs)
        + f". Load of the machine between {min(loads)} and {max(loads)}.\n"
    )


def markdown(known, results, everyone):
    names = [c.name for c in everyone]
    variants = [name for name in names if name not in USUAL]
    parts = [
        heading(known, results),
        "### Missed\n\n" + missed_table(results),
        "### Medians\n\nA figure like ±8% says that half of the rounds lie within that of the median; below 5 % it is left out.\n\n"
        + medians(results, USUAL),
        "### Medians of variants\n\n" + medians(results, ["overlay", "stratafs", *variants]),
        "### Ratios\n\n" + ratios(results),
        "### Ratios of CPU, client and daemon together\n\n" + cpu_ratios(results),
        "### What an operation costs\n\n" + costs(results),
        "### Memory of the daemon\n\n" + memory(results, [name for name in USUAL if name not in ("ext4", "overlay")]),
    ]
    return "\n".join(parts)


def one_cpu(known, results):
    parts = [
        heading(known, results),
        "### Missed on one CPU\n\n" + missed_table(results),
        "### Medians on one CPU\n\n" + medians(results, USUAL),
        "### Ratios on one CPU\n\n" + ratios(results),
    ]
    return "\n".join(parts)


def write(known, everyone, workloads, args):
    results = Results(known, workloads)
    out, (begin, end) = args.out, (BEGIN_ONE, END_ONE) if args.one_cpu else (BEGIN, END)
    text = one_cpu(known, results) if args.one_cpu else markdown(known, results, everyone)
    (out / "table.md").write_text(text)
    (out / "chart.svg").write_text(chart(results))
    if args.docs:
        page = DOCS / "performance.md"
        before, rest = page.read_text().split(begin)
        _, after = rest.split(end)
        page.write_text(before + begin + "\n" + text + "\n" + end + after)
        copied = "performance-one-cpu" if args.one_cpu else "performance"
        shutil.copy(out / "results.json", DOCS / f"{copied}.json")
        if not args.one_cpu:
            shutil.copy(out / "chart.svg", DOCS / "performance.svg")
