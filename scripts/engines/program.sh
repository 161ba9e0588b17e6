#!/usr/bin/env bash
# Runs the steps of one container engine with one storage program.
#
# usage: scripts/engines/program.sh ENGINE PROGRAM
#
# scripts/engines.sh runs it as process 1 of its own PID and mount namespace,
# with $scratch, $results, $short, $started and $mount_program set. For each
# step it writes $results/ENGINE/PROGRAM/STEP.{status,out,err,time}.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/engines/lib.sh
. "$(dirname "$0")/lib.sh"

engine=$1 program=$2
[ $$ = 1 ] || die "must be process 1 of a PID namespace: run scripts/engines.sh"
results=$results/$engine/$program
shared=$scratch/$engine/shared
home=$scratch/$engine/$program
mkdir -p "$results" "$home/tmp"
chmod 755 "$home"
export HOME=$home TMPDIR=$home/tmp
[ -z "$mount_program" ] || PATH=${mount_program%/*}:$PATH
umask 022

umount /sys/fs/cgroup/unified 2>/dev/null || true
mount -t tmpfs -o mode=755 run /run
cd "$home"

# A mount that does not answer must not hold up the next step.
abort_mounts() {
    local at
    while read -r at; do
        bounded 5 stat -f "$at" >/dev/null 2>&1 && continue
        awk -v m="$at" '$5 == m { split($3, d, ":"); print d[2] }' /proc/self/mountinfo | while read -r minor; do
            { echo 1 >"/sys/fs/fuse/connections/$minor/abort"; } 2>/dev/null || true
        done
        umount -l "$at" || true
    done < <(mounts_in "$home")
}

# limited SECONDS FUNCTION: in a process group of its own, which ends with the limit.
# Sets rc. Not to be called in a condition: bash ignores `set -e` within one.
limited() {
    local limit=$1 child
    shift
    set +e -m
    (set -e; "$@") </dev/null &
    child=$!
    set +m
    if ! timeout "$limit" tail -s 0.1 --pid=$child -f /dev/null; then
        kill -KILL -- -$child 2>/dev/null || true
        echo "no answer within $limit seconds" >&2
        abort_mounts
        wait $child 2>/dev/null
        rc=124
    else
        wait $child
        rc=$?
    fi
    set -e
}

# shellcheck source=/dev/null
. "$(dirname "$0")/$engine.sh"

# Not in a condition: `start` may set variables, and its first error ends it.
start >"$results/start.log" 2>&1 </dev/null

for name in "${step_names[@]}"; do
    began=$(date +%s%N)
    limited "${step_limit[$name]}" "do_${name//-/_}" >"$results/$name.raw" 2>"$results/$name.err"
    status=$rc
    normal <"$results/$name.raw" >"$results/$name.out"
    rm "$results/$name.raw"
    echo $((($(date +%s%N) - began) / 1000000)) >"$results/$name.time"
    limited 60 between >/dev/null 2>&1
    cd "$home"
    # The last file to be written: it means that the step is complete.
    echo $status >"$results/$name.status"
done
limited 60 stop >"$results/stop.log" 2>&1
