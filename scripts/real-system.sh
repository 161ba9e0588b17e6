#!/usr/bin/env bash
# A real Debian system, installed and used through stratafs.
#
# usage: scripts/real-system.sh [--dir DIR] [--keep] [--quick]
#
# 1. debootstrap makes a minimal system: the lowest layer.
# 2. Twice: mount the layers so far with an empty upper, chroot, install and
#    remove packages, unmount; the upper becomes the next layer. The kernel's
#    overlayfs, where there is one, must show the same tree of these layers.
# 3. Mount the three layers with a new upper; as root and as an ordinary user:
#    install a compiler and git, compile, clone, import, write databases.
# 4. Unmount, mount again: every name, mode, owner, link, time, attribute and
#    byte must be as it was, and what was built must still work.
# 5. The same work in a plain copy of the three layers must give the same tree.
# 6. The layers, which were only ever lower, must be untouched.
#
# --quick   the base, one layer and a few commands; no plain copy
# --dir     where the layers live and what was downloaded is kept between runs
#           (default: target/real-system)
# --keep    leave layers and manifests in DIR/run for looking at
#
# Uses the package mirror this machine is set up for. Needs root and FUSE.
# STRATAFS names the program under test (default: a release build of this
# checkout). Exit status 0 only if all of the above holds.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit "${1:-2}"; }

args=("$@")
dir=$target/real-system keep=no quick=no
while [ $# -gt 0 ]; do
    case $1 in
    --dir) dir=${2:?--dir needs a directory}; shift ;;
    --keep) keep=yes ;;
    --quick) quick=yes ;;
    -h | --help) usage 0 ;;
    *) usage ;;
    esac
    shift
done

need_root
need debootstrap debootstrap getfattr attr fusermount3 fuse3
private_mounts ${args[@]+"${args[@]}"}
find_stratafs

mkdir -p "$dir"
dir=$(realpath "$dir")
cache=$dir/cache
run=$dir/run
mkdir -p "$cache/debs"
exec 9>"$dir/lock"
flock -n 9 || die "another run uses $dir"

results=()
failures=0
finish() {
    local rc=$?
    trap - EXIT
    un_mount_all || rc=1
    if [ $keep = no ]; then
        if awk -v p="$run/" 'index($5, p) == 1 { f = 1 } END { exit !f }' /proc/self/mountinfo; then
            say "something is still mounted below $run: leaving it"
            rc=1
        else
            rm -rf --one-file-system "$run" || rc=1
        fi
    fi
    exit $rc
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
rm -rf --one-file-system "$run"
mkdir -p "$run"

# pass/fail NAME, with the seconds since the last one.
clock=$SECONDS
note() {
    results+=("$(printf '%-6s %4d s  %s' "$1" $((SECONDS - clock)) "$2")")
    say "$1: $2 ($((SECONDS - clock)) s)"
    [ "$1" = ok ] || failures=$((failures + 1))
    clock=$SECONDS
}
# check NAME COMMAND... : notes whether the command succeeded.
check() {
    local name=$1
    shift
    if "$@"; then note ok "$name"; else note FAILED "$name"; fi
}

# ---------------------------------------------------------- what is compared

# manifest TREE OUT [times]: everything about a tree that the comparison asks
# for, one line a fact, sorted. Directories have no comparable size or link
# count; hard links are told by the first name of their inode. With `times`
# also modification times, for comparing a tree with itself.
manifest() { bounded 600 bash -c 'set -euo pipefail; list_tree "$@"' sh "$@"; }

list_tree() {
    local with_times=${3:-}
    (
        cd "$1"
        find . -xdev -printf '%P\t%y\t%m\t%U:%G\t%n\t%s\t%i\t%T@\t%l\n' | LC_ALL=C sort |
            awk -F'\t' -v OFS='\t' -v times="$with_times" '{
                if ($2 == "d") { $5 = "-"; $6 = "-" }
                if ($2 == "d" || $5 == 1) $7 = "-"
                else { if (!($7 in first)) first[$7] = $1; $7 = first[$7] }
                if (times == "") $8 = "-"
                print "entry", $0
            }'
        find . -xdev \( -type b -o -type c \) -exec stat --printf='device\t%n\t%t:%T\n' {} + | LC_ALL=C sort
        find . -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum | awk '{ h = $1; sub(/^[^ ]+ [ *]\.\//, ""); print "content\t" $0 "\t" h }'
        getfattr -R -P -h -d -m - -e hex . |
            awk '/^# file: / { f = substr($0, 9); next } NF { print "xattr\t" f "\t" $0 }' | LC_ALL=C sort
    ) >"$2"
}
export -f list_tree

# Files whose content (and so size) is of a time, an inode number or chance.
volatile_files=(
    'var/log/apt/(history|term)\.log'          # start and end times
    'var/log/(dpkg|alternatives)\.log'         # a time on each line
    'var/cache/ldconfig/aux-cache'             # inode numbers and ctimes of the libraries
    'var/cache/apt/(src)?pkgcache\.bin'        # times of the package lists
    '(root|home/tester)/work/[a-z]+/\.git/index' # inode numbers and ctimes of the work tree
)
volatile="^(content|entry)\t($(IFS='|'; echo "${volatile_files[*]}"))\t"

without_volatile() {
    # Of these only the name, type, mode and owner count.
    VOLATILE=$volatile awk -F'\t' -v OFS='\t' '
        ($0 ~ ENVIRON["VOLATILE"]) { if ($1 == "content") next; $7 = "-"; $9 = "-" }
        { print }' "$1"
}

# same A B [WHAT]: are two manifests equal? Shows the first differences.
same() {
    if diff -q "$1" "$2" >/dev/null; then return 0; fi
    say "$(diff "$1" "$2" | grep -c '^[<>]') differing lines (< $(basename "$1"), > $(basename "$2")):"
    diff "$1" "$2" | grep '^[<>]' | head -40 >&2 || true
    return 1
}

# ------------------------------------------------------------------- chroots

# inside TREE SECONDS [USER] <script : runs a shell script in the tree. It has
# process and mount namespaces of its own: proc is the only thing mounted, and
# nothing it starts outlives it.
inside() {
    local tree=$1 limit=$2 user=${3:-root} run_as=() script
    [ "$user" = root ] || run_as=(setpriv --reuid=tester --regid=tester --init-groups --inh-caps=-all env HOME=/home/tester)
    script=$(cat)
    echo "==== in ${tree##*/} as $user" >>"$run/commands.log"
    # shellcheck disable=SC2016
    bounded "$limit" unshare -m -p -f --kill-child --propagation private sh -c '
        tree=$1; shift
        mount -t proc proc "$tree/proc" || exit 99
        exec chroot "$tree" "$@"' sh "$tree" \
        /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM=dumb "${run_as[@]}" /bin/sh -eux -c "$script" \
        </dev/null >>"$run/commands.log" 2>&1 || {
        local rc=$?
        say "commands in ${tree##*/} ended with status $rc; the last of $run/commands.log:"
        tail -n 25 "$run/commands.log" >&2
        return 1
    }
}

# Packages downloaded once are offered to every later apt-get.
give_debs() { find "$cache/debs" -name '*.deb' -print0 | bounded 120 xargs -0 -r cp -t "$1/var/cache/apt/archives"; }
take_debs() { bounded 120 find "$1/var/cache/apt/archives" -maxdepth 1 -name '*.deb' -exec cp -n -t "$cache/debs" {} +; }

install_in() {
    local tree=$1
    shift
    give_debs "$tree" || return 1
    inside "$tree" 900 <<<"apt-get install -y -q --no-install-recommends $*" || return 1
    take_debs "$tree" || return 1
    inside "$tree" 60 <<<"apt-get clean"
}

# -------------------------------------------------------------------- the base

make_base() {
    local tree=$run/base archive=$cache/base-$suite.tar
    mkdir "$tree"
    chmod 755 "$tree"
    if [ ! -s "$archive" ]; then
        bootstrap "$tree" "$run/debootstrap.log"
        inside "$tree" 300 <<<"apt-get update -q" || die "apt-get update failed in the new system"
        rm -f "$tree"/var/cache/apt/archives/*.deb
        tar -C "$tree" --xattrs --xattrs-include='*' --acls --numeric-owner -cf "$archive.new" . || return 1
        mv "$archive.new" "$archive"
        rm -rf "$tree"
        mkdir "$tree"
        chmod 755 "$tree"
    fi
    tar -C "$tree" --xattrs --xattrs-include='*' --acls --numeric-owner -xpf "$archive" || return 1
    copy_apt_config "$tree" || return 1
    # A kept index may name packages that the mirror has replaced since.
    if [ -n "$(find "$archive" -mmin +720)" ]; then
        inside "$tree" 300 <<<"apt-get update -q" || return 1
    fi
}

# --------------------------------------------------------------------- layers

layers=()   # lowest first
lower_args() { local i; for ((i = ${#layers[@]} - 1; i >= 0; i--)); do printf '%s\n' -l "${layers[i]}"; done; }

# mount_layers MOUNTPOINT UPPER : all layers so far under the upper.
mount_layers() {
    local lowers
    mapfile -t lowers < <(lower_args)
    mkdir -p "$1" "$2.work"
    if [ ! -d "$2" ]; then
        # The root of the upper is the root of the tree: it begins as the one below.
        mkdir "$2"
        chmod --reference="${layers[-1]}" "$2"
        chown --reference="${layers[-1]}" "$2"
        touch --reference="${layers[-1]}" "$2"
    fi
    strata_mount "$1" "${lowers[@]}" -u "$2" -w "$2.work" -o dev,suid
}

# What a layer is from now on: it must never change again. Its workdir, with the
# extra links an overlay may keep there, is no part of it.
seal_layer() {
    rm -rf "$1.work"
    layers+=("$1")
    manifest "$1" "$run/sealed.$(basename "$1")" times
}

kernel_agrees() {
    local stack='' i
    for ((i = ${#layers[@]} - 1; i >= 0; i--)); do stack=${stack:+$stack:}${layers[i]}; done
    mkdir -p "$run/kernel" "$run/ours"
    plain_mount -t overlay overlay -o "ro,lowerdir=$stack,redirect_dir=follow" "$run/kernel"
    mount_layers "$run/ours" "$run/scratch"
    manifest "$run/kernel" "$run/manifest.kernel" times || return 1
    manifest "$run/ours" "$run/manifest.ours" times || return 1
    un_mount "$run/ours" || return 1
    un_mount "$run/kernel" || return 1
    same "$run/manifest.kernel" "$run/manifest.ours"
}

# ----------------------------------------------------------------- the commands

layer2() {
    local tree=$1
    install_in "$tree" python3-minimal python3 sqlite3 nano less || return 1
    inside "$tree" 120 <<'EOF'
useradd --create-home --uid 1500 --user-group --shell /bin/bash tester
mkdir -p /srv/tree/a/b/c /srv/plain
for i in $(seq 200); do echo "file $i" >/srv/tree/a/b/c/$i; done
echo kept >/srv/plain/kept; echo gone >/srv/plain/gone
ln /srv/plain/kept /srv/plain/kept-too
EOF
}

layer3() {
    local tree=$1
    # Capabilities, setuid programs, hard links, diversions, generated archives.
    install_in "$tree" iputils-ping perl locales sudo || return 1
    inside "$tree" 600 <<'EOF'
getcap -r /usr/bin 2>/dev/null || true
dpkg-divert --local --rename --divert /usr/bin/less.real --add /usr/bin/less
printf '#!/bin/sh\nexec less.real "$@"\n' >/usr/bin/less; chmod 755 /usr/bin/less
localedef -i en_GB -f UTF-8 en_GB.UTF-8
apt-get purge -y -q nano
# A directory replaced, one moved away from its lower content, one removed.
rm -r /usr/share/doc/sqlite3; mkdir /usr/share/doc/sqlite3; echo new >/usr/share/doc/sqlite3/new
mv /srv/tree/a /srv/moved
rm /srv/plain/gone
# One more link, a write through one name seen by all. The name that would stay
# behind in the layer below goes: a file cannot be linked across two layers.
ln /srv/plain/kept /srv/plain/kept-three
test "$(stat -c %h /srv/plain/kept-too)" = 3
echo and changed >>/srv/plain/kept
test "$(tail -n 1 /srv/plain/kept-too)" = 'and changed'
rm /srv/plain/kept-too
test "$(stat -c %h /srv/plain/kept)" = 2
chown tester /srv/moved/b/c/7; chmod 4711 /srv/moved/b/c/8; : >/srv/moved/b/c/9; rm /srv/moved/b/c/10
EOF
}

# Everything here gives the same bytes whenever it runs: fixed dates, one thread.
work_as_root() {
    local tree=$1
    install_in "$tree" gcc libc6-dev git || return 1
    inside "$tree" 600 <<'EOF' || return 1
apt-get install -y -q --no-install-recommends --reinstall less
test ! -e /srv/plain/gone; test ! -e /srv/tree/a
test "$(stat -c %h /srv/plain/kept)" = 2
echo more >>/srv/plain/kept; test "$(tail -n 1 /srv/plain/kept-three)" = more
mv /srv/moved/b /srv/tree/b; test "$(ls /srv/tree/b/c | wc -l)" = 199
rm -r /usr/share/doc/perl-base
python3 -c 'import os; assert os.getxattr("/usr/bin/ping", "security.capability")' || test -u /usr/bin/ping
perl -MPOSIX -MFile::Find -e 'my $n = 0; find(sub { $n++ }, "/usr/share/perl"); exit($n > 100 ? 0 : 1)'
LC_ALL=en_GB.UTF-8 perl -e 'exit 0' 2>&1 | grep -q . && exit 1
dpkg --verify python3-minimal git gcc >/root/verify; test ! -s /root/verify
dpkg --audit
EOF
    inside "$tree" 900 <<<"$(everyday_work)"
}

everyday_work() {
    cat <<'EOF'
umask 022
mkdir -p ~/work; cd ~/work
# A compiler writes and renames, an executable runs from where it was written.
cat >hello.c <<'C'
#include <stdio.h>
#include <sys/mman.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, 8192)) return 1;
    char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return 2;
    strcpy(p + 4000, "written through a mapping");
    if (msync(p, 8192, MS_SYNC)) return 3;
    char back[32];
    if (pread(fd, back, sizeof back, 4000) != sizeof back || strcmp(back, p + 4000)) return 4;
    puts("hello");
    return 0;
}
C
gcc -O2 -o hello hello.c
test "$(./hello)" = hello
# git: hard links and renames of packs; --no-local copies through a pipe.
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1
git config --global pack.threads 1; git config --global init.defaultBranch main; git config --global gc.auto 0
git config --global safe.directory '*'
git init -q origin
i=0; while [ $i -lt 12 ]; do i=$((i + 1))
    mkdir -p origin/d$i; seq $((i * 1000)) >origin/d$i/numbers; cp hello.c origin/d$i/
    git -C origin add -A; git -C origin commit -qm "commit $i"
done
git clone -q origin linked
git clone -q --no-local origin copied
git -C copied repack -adq
git -C copied checkout -q HEAD~5; git -C copied checkout -q main
git -C origin fsck --strict --full; git -C linked fsck --strict --full; git -C copied fsck --strict --full
test -z "$(git -C copied status --porcelain)"
# Python: many modules, and byte code written next to the source.
mkdir -p package/sub
for m in $(seq 60); do echo "VALUE = $m" >package/m$m.py; done
{ for m in $(seq 60); do echo "from package.m$m import VALUE as v$m"; done; } >package/sub/__init__.py
: >package/__init__.py
find package -exec touch -d '2020-01-01 00:00:00' {} +
python3 - <<'PY'
import importlib, pkgutil, sys
import package.sub
assert package.sub.v60 == 60
names = "argparse ast asyncio bz2 calendar cmd codecs collections concurrent.futures configparser csv ctypes datetime decimal difflib dis email.message email.parser fractions ftplib functools gettext glob gzip hashlib heapq html.parser http.client http.server imaplib importlib.metadata inspect io itertools json logging.config logging.handlers lzma mailbox math mimetypes multiprocessing.pool optparse os pathlib pdb pickle pickletools platform plistlib pprint profile pydoc queue random re sched secrets shelve shutil smtplib socket socketserver sqlite3 ssl statistics string subprocess tarfile tempfile textwrap threading timeit trace traceback types typing unittest.mock urllib.request uuid venv wave weakref xml.dom.minidom xml.etree.ElementTree xmlrpc.client zipfile zipimport".split()
for n in names:
    importlib.import_module(n)
PY
test "$(ls package/__pycache__ | wc -l)" -ge 61
# sqlite: both journals; WAL shares memory between two processes through a mapping.
for mode in delete wal; do
    python3 - $mode <<'PY'
import sqlite3, sys, subprocess
mode = sys.argv[1]
path = f"{mode}.db"
db = sqlite3.connect(path, isolation_level=None)
assert db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] == mode
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, v BLOB)")
db.execute("CREATE INDEX tk ON t (k)")
for block in range(40):
    db.execute("BEGIN")
    db.executemany("INSERT INTO t (k, v) VALUES (?, ?)", [(f"{block:03}-{i:03}", bytes([i % 256]) * (i * 7 % 900)) for i in range(100)])
    if block % 5 == 4:
        db.execute("ROLLBACK")
    else:
        db.execute("COMMIT")
    if block == 20:
        seen = subprocess.run(["sqlite3", path, "SELECT count(*) FROM t"], capture_output=True, text=True, check=True).stdout
        assert int(seen) == 1700, seen
db.execute("DELETE FROM t WHERE id % 3 = 0")
assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
db.close()
PY
    sqlite3 $mode.db .dump >$mode.sql
done
cmp -s delete.sql wal.sql
EOF
}

# What the work left must still work after a new mount.
still_works() {
    inside "$1" 300 "${2:-root}" <<'EOF'
cd ~/work
test "$(./hello)" = hello
export GIT_CONFIG_NOSYSTEM=1
git -C origin fsck --strict --full; git -C linked fsck --strict --full; git -C copied fsck --strict --full
test -z "$(git -C linked status --porcelain)"
for mode in delete wal; do
    test "$(sqlite3 $mode.db 'PRAGMA integrity_check')" = ok
    sqlite3 $mode.db .dump | cmp - $mode.sql
done
python3 -c 'import package.sub; assert package.sub.v7 == 7'
EOF
}

still_works_for_both() { still_works "$1" && still_works "$1" tester; }

quick_layer() {
    local tree=$1
    install_in "$tree" iputils-ping sqlite3 || return 1
    inside "$tree" 120 <<'EOF'
useradd --create-home --uid 1500 --user-group --shell /bin/bash tester
mkdir -p /srv/d; echo low >/srv/d/a; ln /srv/d/a /srv/d/b
EOF
}

quick_work() {
    local tree=$1
    install_in "$tree" less || return 1
    inside "$tree" 120 <<'EOF' || return 1
dpkg-divert --local --rename --divert /usr/bin/less.real --add /usr/bin/less
apt-get purge -y -q iputils-ping
mv /srv/d /srv/e; echo high >>/srv/e/a; test "$(cat /srv/e/b)" = "$(printf 'low\nhigh')"
rm -r /usr/share/doc/sqlite3; mkdir /usr/share/doc/sqlite3
EOF
    inside "$tree" 120 tester <<'EOF'
cd ~
for mode in delete wal; do
    { echo "PRAGMA journal_mode=$mode; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);"
      for i in $(seq 20); do echo "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t (b) SELECT hex(zeroblob(i)) FROM n; COMMIT;"; done
    } | sqlite3 $mode.db
    test "$(sqlite3 $mode.db 'PRAGMA integrity_check')" = ok
done
if touch /etc/not-allowed 2>/dev/null; then exit 1; fi
EOF
}

quick_still_works() {
    inside "$1" 60 tester <<'EOF'
for mode in delete wal; do test "$(sqlite3 ~/$mode.db 'SELECT count(*) FROM t; PRAGMA integrity_check')" = "$(printf '2000\nok')"; done
test ! -e /usr/bin/ping; test "$(cat /srv/e/b)" = "$(printf 'low\nhigh')"; test ! -e /srv/d
EOF
}

# ------------------------------------------------------------------------- run

must() { local name=$1; shift; if "$@"; then note ok "$name"; else note FAILED "$name"; summary; exit 1; fi; }

summary() {
    echo "== $(basename "$0")$([ $quick = no ] || echo ' --quick'): $suite through $(basename "$STRATAFS")"
    printf '%s\n' "${results[@]}"
    echo "== ${#results[@]} steps, $failures failed, $SECONDS s"
}

# add_layer NAME FUNCTION
add_layer() {
    mount_layers "$run/mnt" "$run/$1"
    must "$1: packages installed through the mount" "$2" "$run/mnt"
    must "$1: unmounted" un_mount "$run/mnt"
    seal_layer "$run/$1"
}

untouched() {
    local l rc=0
    for l in "${layers[@]}"; do
        manifest "$l" "$run/now.$(basename "$l")" times || rc=1
        same "$run/sealed.$(basename "$l")" "$run/now.$(basename "$l")" || rc=1
    done
    return $rc
}

check "base system unpacked" make_base
seal_layer "$run/base"
if [ $quick = yes ]; then
    add_layer layer2 quick_layer
else
    add_layer layer2 layer2
    add_layer layer3 layer3
fi
if grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null; then
    check "kernel overlayfs shows the same tree of the layers" kernel_agrees
fi

if [ $quick = no ]; then
    mount_layers "$run/mnt" "$run/top-before"
    mkdir "$run/plain"
    must "plain copy made of the merged layers" bounded 600 cp -a "$run/mnt/." "$run/plain/"
    must "unmounted after copying" un_mount "$run/mnt"
fi

mount_layers "$run/mnt" "$run/top"
if [ $quick = yes ]; then
    must "packages changed and databases written" quick_work "$run/mnt"
else
    must "as root: compiler, git, python, sqlite" work_as_root "$run/mnt"
    must "as an ordinary user: the same" inside "$run/mnt" 900 tester <<<"$(everyday_work)"
fi
manifest "$run/mnt" "$run/manifest.before" times
must "unmounted" un_mount "$run/mnt"
mount_layers "$run/mnt" "$run/top"
manifest "$run/mnt" "$run/manifest.after" times
check "everything is as it was after a new mount" same "$run/manifest.before" "$run/manifest.after"
if [ $quick = yes ]; then
    check "and still works" quick_still_works "$run/mnt"
else
    check "and still works, as root" still_works "$run/mnt"
    check "and still works, as an ordinary user" still_works "$run/mnt" tester
    must "the same work in the plain copy, as root" work_as_root "$run/plain"
    must "the same work in the plain copy, as an ordinary user" inside "$run/plain" 900 tester <<<"$(everyday_work)"
    must "which works there too" still_works_for_both "$run/plain"
    manifest "$run/mnt" "$run/merged.all"
    manifest "$run/plain" "$run/plain.all"
    without_volatile "$run/merged.all" >"$run/manifest.merged"
    without_volatile "$run/plain.all" >"$run/manifest.plain"
    check "merged tree equals the plain copy" same "$run/manifest.merged" "$run/manifest.plain"
fi
must "unmounted at last" un_mount "$run/mnt"
check "no lower layer has changed" untouched
summary
[ $failures -eq 0 ]
