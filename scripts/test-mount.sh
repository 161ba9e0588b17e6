#!/usr/bin/env bash
# Runs the mount tests: scripts/test-mount.sh [root|userns|fusermount] [arguments of the test program]
#
# userns:      inside a user and mount namespace of its own, where this caller is root and may mount FUSE
# fusermount:  as the ordinary user STRATAFS_TEST_UID (1000), where every mount goes through fusermount3.
#              The machine needs no such user: it gets one in a mount namespace of its own.
#
# With STRATAFS_TEST_KERNEL=6.1 or 5.4 root's tests run on this kernel cut down to the calls, and to the FUSE protocol, of
# that one. Compiles first. STRATAFS_TEST_LIMIT (seconds) limits the tests alone.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

mode=${1:-root}
[ $# -gt 0 ] && shift
case $mode in root | userns | fusermount) ;; *) say "mode '$mode': root, userns or fusermount"; exit 2 ;; esac
cd "$repo"
# repeat.sh has compiled it already.
if [ -z "${STRATAFS_MOUNT_TESTS:-}" ]; then
    test_programs --test mount
    STRATAFS_MOUNT_TESTS=${programs[mount]}
fi
tests=$STRATAFS_MOUNT_TESTS
# As cargo says it before each program.
echo "     Running tests/mount/main.rs ($tests)"
export STRATAFS_TEST_MODE="$mode"
what="the program mount ($mode)"
case $mode in
root) limited "$what" "$tests" "$@" ;;
userns) limited "$what" unshare -Urm "$tests" "$@" ;;
fusermount)
    # The user must reach the programs: they are copied where everybody may read.
    dir=$(mktemp -d)
    trap 'rm -rf --one-file-system "$dir"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    chmod 755 "$dir"
    cp "$tests" "$dir/mount"
    cp "${STRATAFS_BIN:-$target/debug/stratafs}" "$dir/stratafs"
    uid=${STRATAFS_TEST_UID:-1000}
    # In a mount namespace of their own, where /dev/fuse is open to everybody as on most machines. There, too, a copy
    # of /etc has what fusermount3 looks up: the name of the user, and the table of mounts.
    mknod -m 666 "$dir/fuse" c 10 229
    mkdir "$dir/etc"
    export STRATAFS_BIN="$dir/stratafs"
    limited "$what" unshare -m sh -ec 'dir=$1 uid=$2; shift 2
        # One below another has gone with it.
        awk "\$3 ~ /^fuse[.]/ { print \$2 }" /proc/mounts | xargs -r umount -l 2>/dev/null || true
        mount --bind "$dir/fuse" /dev/fuse
        mount -t tmpfs -o mode=755 etc "$dir/etc"
        cp -a /etc/. "$dir/etc"
        getent passwd "$uid" >/dev/null || echo "tester$uid:x:$uid:$uid::/:/bin/sh" >>"$dir/etc/passwd"
        ln -sfn /proc/self/mounts "$dir/etc/mtab"
        mount --bind "$dir/etc" /etc
        exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$dir/mount" "$@"' sh "$dir" "$uid" "$@"
    ;;
esac
