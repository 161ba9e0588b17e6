"""Programs at work: Python starting from a lower layer, cargo building in the upper one."""

import os
import sysconfig
from pathlib import Path

from workload import Goal, Workload, shell

MODULES = """abc argparse array ast asyncio base64 bdb binascii bisect bz2 calendar cmd code codecs codeop collections
colorsys compileall concurrent.futures configparser contextlib contextvars copy copyreg csv ctypes dataclasses datetime
decimal difflib dis doctest email email.message email.parser encodings.idna enum fileinput fnmatch fractions ftplib
functools getopt getpass gettext glob graphlib gzip hashlib heapq hmac html html.parser http http.client http.cookies
http.server imaplib inspect io ipaddress json keyword linecache locale logging logging.config logging.handlers lzma
mailbox mimetypes modulefinder multiprocessing netrc numbers opcode operator optparse os pathlib pdb pickle pickletools
pkgutil platform plistlib poplib posixpath pprint profile pstats py_compile pyclbr pydoc queue quopri random re reprlib
runpy sched secrets selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string
stringprep struct subprocess symtable tabnanny tarfile tempfile textwrap threading timeit token tokenize trace traceback
tracemalloc turtle types typing unittest urllib.parse urllib.request uuid venv warnings wave weakref webbrowser
xml.dom.minidom xml.etree.ElementTree xml.sax xmlrpc.client zipapp zipfile zipimport""".split()

# Large, and never imported here.
LEFT_OUT = ["./test", "./site-packages", "./dist-packages", "./config-*", "./idlelib", "./lib2to3", "./ensurepip", "*.opt-?.pyc"]

IMPORT = f"""
import importlib, sys
sys.path[:] = [sys.argv[1], sys.argv[1] + "/lib-dynload"]
for name in {MODULES!r}:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""


class Python(Workload):
    name = "python"
    reads_only = True
    also = ("stratafs-ro", "stratafs-passthrough")
    goals = [Goal("130 modules, first", 1.1), Goal("4 more times", 1.1)]

    def prepare(self, layers, scale):
        (layers / "0").mkdir(parents=True)
        lib = Path(sysconfig.get_path("stdlib"))
        left_out = [f"--exclude={name}" for name in LEFT_OUT]
        (layers / "0" / "lib").mkdir()
        shell("sh", "-c", 'cd "$1"; shift; to=$1; shift; tar -c "$@" . | tar -x -C "$to"', "sh", lib, layers / "0/lib", *left_out)
        return [layers / "0"]

    def run(self, w):
        def start():
            w.shell("python3", "-S", "-E", "-B", "-c", IMPORT, w.at / "lib")

        w.row("130 modules, first", start)
        w.row("4 more times", lambda: [start() for _ in range(4)] and None)


class Cargo(Workload):
    name = "cargo"
    goals = [Goal("build of 8 crates", 1.1)]

    def prepare(self, layers, scale):
        root = layers / "0" / "ws"
        crates = [f"part{n}" for n in range(8)]
        for name in crates:
            (root / name / "src").mkdir(parents=True)
            (root / name / "Cargo.toml").write_text(f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n')
            body = "".join(f"pub fn f{n}(x: u64) -> u64 {{ x.rotate_left({n}) ^ {n} }}\n" for n in range(50))
            (root / name / "src" / "lib.rs").write_text(body)
        (root / "Cargo.toml").write_text(f'[workspace]\nresolver = "2"\nmembers = {crates!r}\n'.replace("'", '"'))
        return [layers / "0"]

    def run(self, w):
        env = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_TARGET")}
        w.row("build of 8 crates", lambda: w.shell("cargo", "build", "--offline", "-q", cwd=w.at / "ws", env=env))


WORKLOADS = [Python(), Cargo()]
