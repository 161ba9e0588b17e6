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
set -euo pipefail
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
# A change is to be judged by what it does: the short runs of the model are the same each time, the long ones are not.
export STRATAFS_MODEL_SEED=${STRATAFS_MODEL_SEED:-1}
log=$(mktemp -d "${TMPDIR:-/tmp}/stratafs-test.XXXXXX")
trap 'rm -rf --one-file-system "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
failed=()
summary=()

# run MODE SECONDS COMMAND... : one run of tests, its output shown and summed up.
run() {
    local mode=$1 limit=$2 started=$SECONDS state=ok
    shift 2
    echo "== tests: $mode"
    STRATAFS_TEST_MODE=$mode bounded "$limit" "$@" 2>&1 | tee "$log/$mode" || { state=FAILED; failed+=("$mode"); }
    summary+=("$(awk -v mode="$mode" -v state="$state" -v secs=$((SECONDS - started)) '
        /^test result: / { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i; if ($(i + 1) ~ /^ignored/) g += $i } }
        END { printf "%-6s %-10s %d passed, %d failed, %d ignored, %d s", state, mode, p, f, g, secs }' "$log/$mode")")
}

bounded 1200 cargo build --locked
if [ "$(id -u)" != 0 ]; then
    run fusermount 1200 cargo test --locked --no-fail-fast "$@"
else
    run root 1200 cargo test --locked --no-fail-fast "$@"
fi

if [ "$(id -u)" = 0 ] && [ $# -eq 0 ]; then
    if unshare -Urm true 2>/dev/null; then
        run userns 600 scripts/test-mount.sh userns
    else
        summary+=("SKIPPED userns     user namespaces are not allowed here")
    fi
    run fusermount 600 scripts/test-mount.sh fusermount
fi

echo "== summary"
printf '%s\n' "${summary[@]}"
[ ${#failed[@]} -eq 0 ]
