"""What a row costs: requests of the kernel to the daemon, and system calls of the daemon, by name.

Both come from trace points, in two trace instances of our own: fuse_request_send of one connection, and the entries of
all system calls of one process. Nothing of this happens in rounds that are timed. FORGET is not among the requests: the
kernel queues it in another way, and nobody waits for it.
"""

import collections
import re
import subprocess
import time
from pathlib import Path

REQUEST = re.compile(r"fuse_request_send: .*\(FUSE_([A-Z0-9_]+)\)")
CALL = re.compile(r": sys_([a-z0-9_]+)\(")


class Counter:
    """Open it once; `watch` a daemon, then `begin` and `end` around each row."""

    def __init__(self, at):
        at.mkdir()
        subprocess.run(["mount", "-t", "tracefs", "tracefs", at], check=True, timeout=20)
        self.at = at
        self.requests = self._instance("requests")
        self.calls = self._instance("calls")

    def _instance(self, name):
        instance = self.at / "instances" / f"stratafs-bench-{name}"
        instance.mkdir()
        (instance / "tracing_on").write_text("0")
        (instance / "buffer_size_kb").write_text("131072")
        return instance

    def watch(self, pid, connection):
        event = self.requests / "events/fuse/fuse_request_send"
        (event / "filter").write_text(f"connection == {connection}")
        (event / "enable").write_text("1")
        (self.calls / "options/event-fork").write_text("1")
        # A daemon that answers may still be starting its threads; those it starts from here on are followed.
        seen = None
        while seen != (tids := sorted(task.name for task in Path(f"/proc/{pid}/task").iterdir())):
            (self.calls / "set_event_pid").write_text(" ".join(tids))
            seen = tids
            time.sleep(0.05)
        (self.calls / "events/syscalls/enable").write_text("1")

    def begin(self):
        for instance in (self.requests, self.calls):
            (instance / "trace").write_text("")
            (instance / "tracing_on").write_text("1")

    def end(self):
        """How often each request and each system call came."""
        counts = []
        for instance, pattern in ((self.requests, REQUEST), (self.calls, CALL)):
            (instance / "tracing_on").write_text("0")
            found = collections.Counter()
            with open(instance / "trace", errors="replace") as trace:
                for line in trace:
                    match = pattern.search(line)
                    if match:
                        found[match[1].lower()] += 1
            counts.append(dict(found.most_common()))
        return counts

    def close(self):
        for instance in (self.requests, self.calls):
            (instance / "events/enable").write_text("0")
            instance.rmdir()
        subprocess.run(["umount", self.at], check=False, timeout=20)
