"""git over a repository of 2,000 files in a lower layer."""

import os

import trees
from workload import Goal, Workload, shell

FILES = 2000
ENV = os.environ | {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@localhost",
    "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@localhost",
    "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "gc.auto",
    "GIT_CONFIG_VALUE_1": "0",
}


class Git(Workload):
    name = "git"
    also = ("stratafs-volatile", "overlay-volatile")
    # A local clone links the objects of the lower layer, and a linked one is copied up first.
    copies_up = ("clone --local",)

    def prepare(self, layers, scale):
        root = layers / "0" / "repo"
        root.mkdir(parents=True)

        def git(*args):
            shell("git", *args, cwd=root, env=ENV)

        git("init", "-q", "-b", "main")
        names = trees.many(root, scale(FILES), per_dir=20, size=5000)
        git("add", "-A")
        git("commit", "-qm", "first")
        for name in names[::4]:
            (root / name).write_bytes(b"changed\n")
        git("commit", "-qam", "second")
        git("tag", "second")
        git("checkout", "-q", "HEAD~1")
        return [layers / "0"]

    def run(self, w):
        def git(*args, cwd="repo"):
            w.shell("git", *args, cwd=w.at / cwd, env=ENV)

        files = w.scale(FILES)
        w.row("status, first", lambda: git("status", "-s"), ops=files)
        w.row("status, again", lambda: git("status", "-s"), ops=files)
        w.row("clone --no-local", lambda: git("clone", "-q", "--no-local", "repo", "copy", cwd="."), ops=files)
        w.row("clone --local", lambda: git("clone", "-q", "--local", "repo", "linked", cwd="."), ops=files)
        w.row("checkout of another commit", lambda: git("checkout", "-q", "second"), ops=files // 4)


WORKLOADS = [Git()]
