#!/usr/bin/env bash
# Runs one test again and again, and says how often it passed.
#
# usage: scripts/repeat.sh [-b LOOPS] [-m MODE] PROGRAM TEST [COUNT]
#
#   PROGRAM   the test program: `lib` for the unit tests, or a name of tests/, such as mount
#   TEST      the full name of the test, such as copy_up::parallel_copy_ups_leave_the_directorys_times
#   COUNT     how often, 100 by default
#   -b LOOPS  beside so many busy loops
#   -m MODE   for mount: root (the default), userns or fusermount
#
# Prints the output of each run that fails. Exit status 0 if none did. The compiler has no part in the count.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }
loops=0
mode=root
while getopts b:m:h option; do
    case $option in
    b) loops=$OPTARG ;;
    m) mode=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done
all=("$@")
shift $((OPTIND - 1))
[ $# -ge 2 ] || { usage >&2; exit 2; }
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then private_mounts "${all[@]}"; fi

program=$1 test=$2 count=${3:-100}
cd "$repo"
test_programs
run=("${programs[$program]:-}")
[ -n "${run[0]}" ] || die "no test program is called $program: ${!programs[*]}"
if [ "$mode" != root ]; then
    [ "$program" = mount ] || die "only the program mount has modes"
    export STRATAFS_MOUNT_TESTS=${run[0]}
    run=(scripts/test-mount.sh "$mode")
fi

log=$(mktemp "${TMPDIR:-/tmp}/stratafs-repeat.XXXXXX")
busy=()
finish() {
    local rc=$?
    trap - EXIT
    [ ${#busy[@]} -eq 0 ] || kill "${busy[@]}" 2>/dev/null || true
    rm -f "$log"
    exit $rc
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
for ((i = 0; i < loops; i++)); do
    sh -c 'while :; do :; done' &
    busy+=($!)
done

passed=0
for ((i = 1; i <= count; i++)); do
    rc=0
    limited "$test" "${run[@]}" "$test" --exact >"$log" 2>&1 || rc=$?
    if [ $rc = 0 ] && grep -q '^test result: ok\. 1 passed' "$log"; then
        passed=$((passed + 1))
    else
        echo "== $test: run $i ended with status $rc"
        cat "$log"
    fi
    [ $((i % 10)) != 0 ] || say "$passed of $i passed"
done
echo "$passed of $count passed: $program $test ($mode, beside $loops busy loops)"
[ "$passed" = "$count" ]
