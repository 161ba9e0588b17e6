#!/usr/bin/env bash
# Builds stratafs and runs all of its tests, mounting for real.
#
# usage: scripts/test.sh [CARGO TEST ARGUMENTS...]
#
# As root, one after the other:
#   root        `cargo test` with everything in it
#   userns      the mount tests again, as the root of a user namespace
#   fusermount  the mount tests again, as an ordinary user through fusermount3
# As an ordinary user: `cargo test`, whose mount tests then go by fusermount3.
# The tests learn which by STRATAFS_TEST_MODE and leave out what that mode cannot
# do. STRATAFS_REQUIRE_FUSE makes a missing /dev/fuse a failure, not a skip.
# With arguments only the first run is made. Installs what is missing, as root.
#
# Compiles everything first, once. Then each test program has STRATAFS_TEST_LIMIT
# seconds (3600 by default), and each mount of a test STRATAFS_TEST_TIMEOUT; what a
# limit ends is named. The compiler has STRATAFS_COMPILE_LIMIT (3600). At the end:
# what each program did, each failed test, and the command that runs it again.
set -eEuo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

case ${1:-} in -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

# Another's new mount namespace would take copies of our mounts along, and keep a daemon from ending.
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then private_mounts "$@"; fi

cd "$repo"
need cc gcc /usr/include/stdio.h libc6-dev fusermount3 fuse3 setfattr attr setfacl acl mkfs.ext4 e2fsprogs mkfs.xfs xfsprogs mkfs.btrfs btrfs-progs unshare util-linux strace strace
command -v cargo >/dev/null || die "cargo is not here: install a Rust toolchain (see rust-version in Cargo.toml) first"
[ -c /dev/fuse ] || modprobe fuse 2>/dev/null || true
[ -c /dev/fuse ] || die "/dev/fuse is not here: the kernel has no FUSE, or this container was not given it (docker: --device /dev/fuse --cap-add SYS_ADMIN)"

export STRATAFS_REQUIRE_FUSE=1 CARGO_TERM_COLOR=never
# A change is to be judged by what it does: the short runs of the model, and of random trees, are the same each time, the long ones are not.
export STRATAFS_MODEL_SEED=${STRATAFS_MODEL_SEED:-1} STRATAFS_HOSTILE_SEED=${STRATAFS_HOSTILE_SEED:-1}
log=$(mktemp -d "${TMPDIR:-/tmp}/stratafs-test.XXXXXX")
trap 'rm -rf --one-file-system "$log"' EXIT
trap 'say "ended by an interrupt"; exit 130' INT
trap 'say "ended by a signal"; exit 143' TERM HUP
failed=()
summary=()
# No command may end the script without a word.
trap 'say "line $LINENO ended with status $?: $BASH_COMMAND"' ERR

# report MODE FILE: what each test program of a run did; each failed test, and how to run it again. Cargo says
# `Running PATH (PROGRAM-HASH)` before a program, and `Doc-tests NAME` before examples.
report() {
    awk -v mode="$1" '
        function close_program() {
            if (program != "" && !ended) {
                printf "  FAILED %-10s %-12s did not come to its end\n", mode, program
                again("", "")
            }
        }
        function again(test, exact) {
            target = program == "lib" ? "--lib" : program == "stratafs" ? "--bin stratafs" : program == "doc" ? "--doc" : "--test " program
            if (mode == first) hints[++n] = "scripts/test.sh " target (test == "" ? "" : " " test exact)
            else hints[++n] = "scripts/test-mount.sh " mode (test == "" ? "" : " " test " --exact")
        }
        BEGIN { first = ENVIRON["FIRST_MODE"] }
        /^ *Running .*\(.*\)$/ {
            close_program()
            program = $NF; gsub(/^.*\/|-[0-9a-f]*\)$|\)$/, "", program)
            if (/unittests src\/lib.rs/) program = "lib"
            ended = 0; bad = 0
        }
        /^ *Doc-tests / { close_program(); program = "doc"; ended = 0 }
        /^test .* \.\.\. FAILED/ {
            test = $0; sub(/^test /, "", test); sub(/ \.\.\. FAILED.*/, "", test); sub(/ - should panic$/, "", test)
            tests[++bad] = test
        }
        /^test result: / {
            ended = 1
            for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) p = $i; if ($(i + 1) ~ /^failed/) f = $i; if ($(i + 1) ~ /^ignored/) g = $i }
            printf "  %-6s %-10s %-12s %d passed, %d failed, %d ignored, %s\n", f ? "FAILED" : "ok", mode, program, p, f, g, $NF
            for (i = 1; i <= bad; i++) { printf "         %s\n", tests[i]; again(tests[i], " -- --exact") }
            bad = 0
        }
        END { close_program(); for (i = 1; i <= n; i++) printf "  again: %s\n", hints[i] }' "$2"
}

# run MODE COMMAND... : one run of tests, its output shown and summed up.
run() {
    local mode=$1 started=$SECONDS state=ok rc=0
    shift
    echo "== tests: $mode"
    STRATAFS_TEST_MODE=$mode "$@" 2>&1 | tee "$log/$mode" || rc=$?
    [ $rc = 0 ] || { state=FAILED; failed+=("$mode: status $rc"); }
    summary+=("$(printf '%-6s %-10s %d s' $state "$mode" $((SECONDS - started)))" "$(report "$mode" "$log/$mode")")
}

say "compiling the tests"
compile cargo test --locked --no-run "$@" || die "the tests do not compile"
# Cargo starts each program by this one.
runner='target."cfg(unix)".runner=["'"$repo"'/scripts/limited.sh"]'
if [ "$(id -u)" != 0 ]; then FIRST_MODE=fusermount; else FIRST_MODE=root; fi
export FIRST_MODE
run "$FIRST_MODE" cargo test --locked --no-fail-fast --config "$runner" "$@"

if [ "$(id -u)" = 0 ] && [ $# -eq 0 ]; then
    if unshare -Urm true 2>/dev/null; then
        run userns scripts/test-mount.sh userns
    else
        summary+=("SKIPPED userns     user namespaces are not allowed here")
    fi
    run fusermount scripts/test-mount.sh fusermount
fi

echo "== summary"
printf '%s\n' "${summary[@]}"
[ ${#failed[@]} -eq 0 ] || die "$(printf 'failed: %s; ' "${failed[@]}")see above"
