# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Shared by scripts/engines.sh, scripts/engines/program.sh and the engines:
# source it, do not run it.
#
# An engine is a file scripts/engines/ENGINE.sh. It is sourced twice: by
# engines.sh, for `prepare`, and by program.sh, once for each storage program.
# It declares its steps and defines functions:
#
#   title='Podman as root'      the heading in docs/engines.md (needs a shellcheck disable=SC2034)
#   step [--short] [--limit SECONDS] [--uncounted REASON] NAME DESCRIPTION
#                               declares a step: the function do_NAME, where each
#                               `-` of NAME is `_`. Steps run in this order.
#                               --short: the step is also part of --short.
#                               --limit: its time limit (default 60 seconds).
#                               --uncounted: no storage program can pass: the
#                               result is shown and does not count.
#   prepare                     runs once per engine: installs packages (need),
#                               makes images and data in $shared. All programs
#                               read $shared, none may write to it.
#   version                     prints one line: the engine and its version.
#   start                       runs once per program: configures the engine,
#                               starts daemons, loads images. Optional.
#   between                     runs after every step, and removes what the step
#                               may have left. Its output is ignored. Optional.
#   stop                        runs after the last step. Optional: every process
#                               and mount ends with the namespaces anyway.
#
# start, between, stop and the steps run with these variables:
#
#   $program        stratafs, f1 (fuse-overlayfs of Debian), f2 (the crate
#                   fuse-overlayfs) or kernel (the engine's own driver)
#   $mount_program  the path of the program, with the name fuse-overlayfs; empty
#                   for kernel. Its directory is the first one in PATH.
#   $home           an empty directory on disk (0755), one per engine and program;
#                   HOME and TMPDIR are in it. The current directory is $home.
#   $shared         the directory that prepare fills, one per engine
#
# Each program has a mount namespace and a PID namespace of its own, with a
# tmpfs on /run and without /sys/fs/cgroup/unified. program.sh is process 1
# there; whatever it leaves ends with it. Do not depend on the environment:
# only PATH, HOME, TMPDIR, LC_ALL and the variables above are set.
#
# A step runs in a subshell with `set -e`: the first command that fails ends the
# step with its status. A command that may fail runs by `try`. Compared are the
# exit status and the normalised standard output; standard error is kept, and
# shown where a step differs. What a step prints must not depend on chance:
# `normal` replaces ids, times and paths of $home and $shared.
#
# Helpers for steps:
#
#   bounded SECONDS COMMAND...  of scripts/lib.sh: before every command that
#                               touches a mount
#   try COMMAND...              runs COMMAND, prints its output and errors, and
#                               its exit status if that is not 0; returns 0
#   list DIR                    prints the tree: type, mode, owner, links, size,
#                               time, link target or device, sha256, xattrs
#   list_tar FILE               unpacks FILE with owners and xattrs, and lists it
#   mounts_in DIR               mount points at or below DIR, innermost first
#   skip REASON                 in start: this engine does not run here

declare -a step_names=()
declare -A step_limit=() step_text=() step_reason=()

step() {
    local in_short=no limit=60 reason=
    while [[ $1 == --* ]]; do
        case $1 in
        --short) in_short=yes ;;
        --limit) limit=$2; shift ;;
        --uncounted) reason=$2; shift ;;
        *) die "step: unknown option $1" ;;
        esac
        shift
    done
    [ -z "${step_text[$1]:-}" ] || die "two steps have the name $1"
    [ "$short" = no ] || [ $in_short = yes ] || return 0
    # shellcheck disable=SC2053
    [[ $1 == $only ]] || return 0
    step_names+=("$1")
    step_limit[$1]=$limit
    step_text[$1]=$2
    step_reason[$1]=$reason
}

prepare() { :; }
version() { echo "$title"; }
start() { :; }
between() { :; }
stop() { :; }

skip() {
    echo "$*" >"$results/skipped"
    exit 0
}

mounts_in() { awk -v p="$1" '$5 == p || index($5, p "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r; }

try() {
    local rc=0
    "$@" 2>&1 || rc=$?
    [ $rc -eq 0 ] || echo "exit status $rc"
}

# list DIR: one line per fact, sorted. A time since the start of the run is
# `now`; directories have no comparable size, link count or time.
list() {
    bounded 60 bash -c '
        cd "$1" || exit
        {
            find . -xdev \( -type d -printf "%P/ %M %U:%G\n" \) \
                -o \( -type l -printf "%P %M %U:%G %T@ -> %l\n" \) \
                -o \( \( -type c -o -type b \) -printf "%P %M %U:%G n=%n %T@ " -exec stat -c "%t:%T" {} \; \) \
                -o -printf "%P %M %U:%G n=%n s=%s %T@\n" |
                perl -pe "s/ (\d{9,})(\.\d+)/\$1 >= $2 ? q( now) : qq( \$1)/e"
            find . -xdev -type f -print0 | xargs -0 -r sha256sum | sed -E "s|^\\\\?([0-9a-f]{64})  ./(.*)|\2 \1  -|"
            find . -xdev -print0 | xargs -0 -r getfattr -h -d -m - -e hex 2>/dev/null |
                awk "/^# file: / { f = substr(\$0, 9); next } NF { print f \" \" \$0 }"
        } | LC_ALL=C sort' sh "$1" "$started"
}

list_tar() {
    local into
    into=$(mktemp -d "$home/tar.XXXXXX")
    bounded 60 tar -C "$into" --xattrs --xattrs-include='*' --numeric-owner -xpf "$1"
    list "$into"
    rm -rf "$into"
}

# normal: standard input with ids, times and paths of one run replaced.
normal() {
    sed -E -e "s|$home|HOME|g; s|$shared|SHARED|g; s|$scratch|SCRATCH|g" \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?( ?(Z|UTC|[-+][0-9]{2}:?[0-9]{2}))*/TIME/g' \
        -e '/ [0-9a-f]{64}  -$/!s/\b[0-9a-f]{64}\b/ID/g' -e 's/\b[0-9a-f]{12}\b/ID/g' \
        -e 's/[0-9.]+ ?(seconds?|minutes?|ms) ago/AGO ago/g; s/Less than a second ago/AGO ago/g'
}
