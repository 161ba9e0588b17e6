# shellcheck shell=bash
# Shared by the scripts of this directory: source it, do not run it.
#
# Offers: need (install a missing command), compile, limited (the limits of the
# compiler and of a test), test_programs, find_stratafs, need_crate (a test
# program built by cargo), private_mounts (re-executes the script in a mount
# namespace of its own), and mounts that are taken down in reverse order when
# the script ends, however it ends.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$repo/target}
tools=$target/tools

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# bounded SECONDS COMMAND... : in the process group of the script, so that who
# ends the script by its group ends the command too, and the script cleans up.
bounded() { timeout --foreground -k 10 "$@"; }

# compile COMMAND... : cargo without the limit of any test. STRATAFS_COMPILE_LIMIT (seconds, an hour by default) is there
# for a compiler that hangs.
compile() {
    local limit=${STRATAFS_COMPILE_LIMIT:-3600} rc=0 started=$SECONDS
    bounded "$limit" "$@" || rc=$?
    [ $((SECONDS - started)) -lt "$limit" ] || say "the compiler was ended by STRATAFS_COMPILE_LIMIT ($limit s): $*"
    return $rc
}

# limited WHAT COMMAND... : a test program with the limit STRATAFS_TEST_LIMIT (seconds, an hour by default). Says so if
# the limit ends it.
limited() {
    local limit=${STRATAFS_TEST_LIMIT:-3600} what=$1 rc=0 started=$SECONDS
    shift
    bounded "$limit" "$@" || rc=$?
    [ $((SECONDS - started)) -lt "$limit" ] || say "$what was ended by STRATAFS_TEST_LIMIT ($limit s)"
    return $rc
}

# test_programs [CARGO ARGUMENTS...] : compiles the tests and sets programs[NAME] to the path of each, `lib` for the unit
# tests. Cargo builds the stratafs program with them, so nothing is compiled twice.
# shellcheck disable=SC2034 # `programs` is for the caller
test_programs() {
    local kind name path found
    declare -gA programs=()
    say "compiling the tests"
    found=$(compile cargo test --locked --quiet --no-run --message-format=json-render-diagnostics "$@") ||
        die "the tests do not compile"
    while read -r kind name path; do
        case $kind in
        lib) programs[lib]=$path ;;
        bin) programs[bin]=$path ;;
        *) programs[$name]=$path ;;
        esac
    done < <(sed -n 's/.*"target":{"kind":\["\([a-z]*\)"\][^}]*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1 \2 \3/p' <<<"$found")
}

# need COMMAND PACKAGE ... : installs the packages whose command is missing.
need() {
    local missing=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "please install: ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "please install, as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    bounded 300 apt-get update -qq || die "apt-get update failed"
    bounded 600 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get install ${missing[*]} failed"
}

need_root() { [ "$(id -u)" = 0 ] || die "must run as root"; }

# Everything a script mounts lives in a namespace of its own, so that nothing
# of it is seen outside and nothing outlives the last process inside.
private_mounts() {
    if [ "${STRATAFS_PRIVATE_MOUNTS:-}" = "$$" ]; then
        # What was copied here of others' mounts must not keep their daemons either, but where it is what we stand on.
        awk -v here="$repo/" -v tmp="${TMPDIR:-/tmp}/" '
            $3 == "fuse.stratafs" && index(here, $2 "/") != 1 && index(tmp, $2 "/") != 1 { print $2 }' /proc/self/mounts |
            xargs -r umount -l 2>/dev/null || true
        return
    fi
    # exec keeps the process id through both programs.
    STRATAFS_PRIVATE_MOUNTS=$$ exec unshare -m --propagation private bash "$0" "$@"
}

# Sets STRATAFS to the program under test: what the caller gave, else a fresh
# release build. Cargo decides what is up to date; a stale binary tests nothing.
find_stratafs() {
    if [ -n "${STRATAFS:-}" ]; then
        STRATAFS=$(command -v "$STRATAFS") || die "STRATAFS: no such program"
        STRATAFS=$(realpath "$STRATAFS")
    else
        say "building the release binary"
        (cd "$repo" && compile cargo build --release --locked --quiet) || die "cargo build failed"
        STRATAFS=$target/release/stratafs
    fi
    export STRATAFS
}

# need_crate NAME VERSION: a test program from the crate registry, in $tools/bin.
need_crate() {
    if [ -x "$tools/bin/$1" ] && grep -q "\"$1 $2 " "$tools/.crates.toml" 2>/dev/null; then return; fi
    say "installing $1 $2 (once)"
    compile cargo install --quiet --locked --force --version "=$2" --root "$tools" \
        --target-dir "$tools/build" "$1" 2>&1 | grep -v 'to your PATH' >&2 || true
    [ -x "$tools/bin/$1" ] || die "cargo install $1 failed"
}

mounted=()     # what is mounted now, oldest first
declare -A strata_at=()   # mount points made by stratafs, whatever their type says
leftovers=0    # daemons that outlived their mount

is_mounted() { awk -v m="$1" '$5 == m { f = 1 } END { exit !f }' /proc/self/mountinfo; }

# strata_mount MOUNTPOINT ARGS... : `stratafs mount ARGS MOUNTPOINT`.
strata_mount() {
    local at=$1
    shift
    bounded 60 "$STRATAFS" mount "$@" "$at" || die "stratafs mount failed on $at"
    is_mounted "$at" || die "stratafs said it is mounted, but $at is not a mount point"
    mounted+=("$at")
    strata_at[$at]=1
}

plain_mount() {
    bounded 60 mount "$@" || die "mount $* failed"
    mounted+=("${!#}")
}

# Daemons are known by their mount point in the command line; every mount point
# is inside a temporary directory of ours, so nobody else's daemon can match.
daemons_of() {
    local p
    for p in /proc/[0-9]*; do
        [ "$(readlink "$p/exe" 2>/dev/null)" = "$STRATAFS" ] || continue
        tr '\0' '\n' <"$p/cmdline" 2>/dev/null | grep -qxF -- "$1" && echo "${p#/proc/}"
    done
    return 0
}

# un_mount MOUNTPOINT: the orderly way first; a mount that does not answer is
# aborted through the FUSE control files and detached, and counts as an error.
un_mount() {
    local at=$1 rest=() m minor pid rc=0 fs i
    is_mounted "$at" || return 0
    fs=$(awk -v m="$at" '$5 == m { for (i = 6; i < NF; i++) if ($i == "-") t = $(i + 1) } END { print t }' /proc/self/mountinfo)
    minor=$(awk -v m="$at" '$5 == m { split($3, d, ":"); n = d[2] } END { print n }' /proc/self/mountinfo)
    if [[ $fs == fuse* || ${strata_at[$at]:-} ]]; then
        bounded 60 "$STRATAFS" umount "$at" || rc=1
    else
        bounded 60 umount "$at" || rc=1
    fi
    if is_mounted "$at"; then
        say "$at did not unmount: aborting and detaching it"
        rc=1
        { [[ $fs == fuse* ]] && echo 1 >"/sys/fs/fuse/connections/$minor/abort"; } 2>/dev/null || true
        bounded 20 umount -l "$at" || true
    fi
    for i in {1..50}; do
        [ -z "$(daemons_of "$at")" ] && break
        sleep 0.2
    done
    for pid in $(daemons_of "$at"); do
        say "the daemon of $at (process $pid) is still there after unmounting: ending it"
        kill -KILL "$pid" || true
        leftovers=$((leftovers + 1))
        rc=1
    done
    for m in "${mounted[@]}"; do [ "$m" = "$at" ] || rest+=("$m"); done
    mounted=(${rest[@]+"${rest[@]}"})
    return $rc
}

un_mount_all() {
    local i rc=0
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do un_mount "${mounted[i]}" || rc=1; done
    return $rc
}
