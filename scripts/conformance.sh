#!/usr/bin/env bash
# POSIX conformance of a stratafs mount, judged against plain ext4 here.
#
# usage: scripts/conformance.sh [pjdfstest|fsx|all] [--fs stratafs|overlay|ext4] [--short]
#        scripts/conformance.sh unionmount DIR [OPTIONS...] [TESTS...]
#        scripts/conformance.sh xfstests DIR [ARGS...]
#
# First form: runs the suite (default: all) on the file system under test
# (default: stratafs) and on ext4 in a loop-mounted image. A case that fails
# under test but passes on ext4 makes the exit status 1, unless it stands in
# conformance.expected, one `name: reason` a line. overlay is the kernel's
# overlayfs, for comparison; ext4 alone lists what fails on ext4.
#   pjdfstest  all of its cases, in a directory of the lowest of three layers
#   fsx        random reads, writes and mappings, 20000 operations, four seeds:
#              on a new file, on a lower file opened with O_TRUNC, and on a lower
#              file whose content is kept (--short: 4000 operations, two seeds)
# The file must read the same after a new mount, and the lower file must be
# untouched, or the fsx case counts as failed.
#
# Second and third form: run, on stratafs, a checkout of unionmount-testsuite or
# a built one of xfstests that you have. OPTIONS (after `--ov=2 --fuse=stratafs`)
# replace `--samefs --verify`, TESTS all tests in the checkout, each of which has
# fresh layers; ARGS of xfstests' `check` replace `-g quick`. What fails there must
# stand in conformance.expected as `unionmount::TEST` or `xfstests::GROUP/NUMBER`.
# With ARGS that name tests of the group overlay (overlay/038, or -g overlay/quick)
# `mount -t overlay` is stratafs, on two ext4 images; these go alone.
#
# Needs root, FUSE and a free loop device. STRATAFS names the program under test
# (default: a release build of this checkout). Logs: target/conformance.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

PJDFSTEST_VERSION=0.2.2
FSX_VERSION=0.3.2

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit "${1:-2}"; }

args=("$@")
suite=all fs=stratafs short=no checkout='' form=cases rest=()
while [ $# -gt 0 ]; do
    case $1 in
    pjdfstest | fsx | all) suite=$1 ;;
    --fs) fs=${2:?--fs needs a name}; shift ;;
    --short) short=yes ;;
    unionmount | xfstests | --unionmount | --xfstests)
        form=${1#--}
        [ $# -ge 2 ] || die "$form needs the directory of a checkout"
        [ -d "$2" ] || die "$2: no such directory"
        checkout=$(realpath "$2")
        case $form in
        unionmount) [ -x "$checkout/run" ] || die "$checkout is no checkout of unionmount-testsuite: it has no program called run" ;;
        xfstests) [ -x "$checkout/check" ] || die "$checkout is no checkout of xfstests: it has no program called check" ;;
        esac
        shift 2
        rest=("$@")
        break
        ;;
    -h | --help) usage 0 ;;
    *) usage ;;
    esac
    shift
done
case $fs in stratafs | overlay | ext4) ;; *) usage ;; esac

need_root
need mkfs.ext4 e2fsprogs setfacl acl getfattr attr fusermount3 fuse3 patch patch
private_mounts ${args[@]+"${args[@]}"}

logs=$target/conformance
mkdir -p "$logs"
# Short, and the same length below it for every file system: pjdfstest makes
# sockets, whose whole path must fit in 108 bytes.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sc.XXXXXX")
chmod 755 "$scratch"
loops=()
finish() {
    local rc=$? loop
    trap - EXIT
    un_mount_all || rc=1
    for loop in ${loops[@]+"${loops[@]}"}; do losetup --detach "$loop" || rc=1; done
    # Never removes through a mount that refused to go.
    rm -rf --one-file-system "$scratch" || rc=1
    exit $rc
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ "$form" != cases ] || [ "$fs" = stratafs ]; then find_stratafs; fi
: "${STRATAFS:=none}"

# ---------------------------------------------------------------- test programs

# The crate cannot keep what a file holds already; a small patch teaches it. The
# same binary, without FSX_KEEP in its environment, is the crate as published.
need_fsx() {
    local src=$tools/src/fsx stamp=$tools/fsx.stamp want host
    want="$FSX_VERSION $(sha256sum <"$repo/scripts/fsx-keep.patch")"
    [ -x "$tools/bin/fsx" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
    say "building fsx $FSX_VERSION with fsx-keep.patch (once)"
    rm -rf "$src" "$tools/src/fetch"
    mkdir -p "$tools/src/fetch/src"
    : >"$tools/src/fetch/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nfsx = "=%s"\n[workspace]\n' \
        "$FSX_VERSION" >"$tools/src/fetch/Cargo.toml"
    host=$(rustc -vV | sed -n 's/^host: //p')
    (cd "$tools/src/fetch" && bounded 300 cargo fetch --quiet --target "$host") || die "cannot fetch the source of fsx"
    cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/fsx-"$FSX_VERSION" "$src" || die "cannot find the source of fsx"
    printf '\n[workspace]\n' >>"$src/Cargo.toml"
    patch --quiet -d "$src" -p1 <"$repo/scripts/fsx-keep.patch" || die "fsx-keep.patch does not apply"
    (cd "$src" && bounded 900 cargo install --quiet --locked --force --path . --root "$tools" --target-dir "$tools/build") \
        2>"$logs/fsx-build.log" || { cat "$logs/fsx-build.log" >&2; die "building fsx failed"; }
    printf '%s\n' "$want" >"$stamp"
}

# Two users besides root, each with a group of its own name. Debian has them.
dummy_users() {
    local u
    for u in nobody daemon; do
        id "$u" >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin --user-group "$u"
    done
    printf '["nobody", "%s"], ["daemon", "%s"]' "$(id -gn nobody)" "$(id -gn daemon)"
}

write_pjdfstest_config() {
    cat >"$1" <<EOF
# What ext4 on Linux has. chflags, NFSv4 ACLs and SF_SNAPSHOT are BSD's.
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
# More than one tick of the coarse clock that stamps files.
naptime = 0.02
allow_remount = true
[dummy_auth]
entries = [ $(dummy_users) ]
EOF
}

write_fsx_config() {
    # Every operation fsx has on Linux; 200000 below is the size of lower files.
    cat >"$1" <<EOF
flen = 262144
[opsize]
min = 0
max = 65536
[weights]
close_open = 2
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 5
posix_fadvise = 2
copy_file_range = 5
EOF
}

# ------------------------------------------------------------ layers and mounts

seeds() { if [ $short = yes ]; then echo 1 2; else echo 1 2 3 4; fi; }

# Same bytes for the same seed, of a length that ends inside a page.
known_content() { head -c 200001 < <(seq -f "seed $1 line %.0f" 1 100000); }

# fill DIR LAYER: the content of one layer; on ext4 all go into one directory.
fill() {
    local s
    case $2 in
    lowest)
        mkdir -p "$1/base" "$1/files"
        for s in $(seeds); do
            known_content "trunc$s" >"$1/files/trunc$s"
            known_content "keep$s" >"$1/files/keep$s"
        done
        ;;
    middle) mkdir -p "$1/middle" && echo middle >"$1/middle/file" ;;
    top) mkdir -p "$1/files" "$1/top" && echo top >"$1/top/file" ;;
    esac
}

new_image() {
    truncate -s 4G "$scratch/$1.img"
    mkfs.ext4 -q -F -m 0 "$scratch/$1.img"
    mkdir -p "$scratch/$1"
    # Without barriers: nothing here outlives the machine, and msync is half of fsx.
    plain_mount -o loop,dev,suid,barrier=0 "$scratch/$1.img" "$scratch/$1"
    rmdir "$scratch/$1/lost+found"
}

# Puts the file system under test at $scratch/FS/mnt. The layers are on ext4 too.
raise() {
    local d=$scratch/w
    case $1 in
    ext4) ;;
    stratafs)
        strata_mount "$d/mnt" -l "$d/top" -l "$d/middle" -l "$d/lowest" -u "$d/upper" -w "$d/work" -o dev,suid
        ;;
    overlay)
        plain_mount -t overlay overlay \
            -o "lowerdir=$d/top:$d/middle:$d/lowest,upperdir=$d/upper,workdir=$d/work,redirect_dir=on,index=on" "$d/mnt"
        ;;
    esac
}

make_world() {
    local d=$scratch/w l
    new_image w
    mkdir "$d/mnt"
    if [ "$1" = ext4 ]; then
        for l in lowest middle top; do fill "$d/mnt" $l; done
    else
        mkdir "$d/upper" "$d/work" "$d/top" "$d/middle" "$d/lowest"
        for l in lowest middle top; do fill "$d/$l" $l; done
    fi
    raise "$1"
}

lower() { if [ -d "$scratch/w/lowest" ]; then un_mount "$scratch/w/mnt"; fi; }

layers_sum() {
    (cd "$scratch/w" && [ -d lowest ] || return 0
        find top middle lowest -printf '%p %y %m %U %G %s %T@\n' | sort
        find top middle lowest -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum
}

# -------------------------------------------------------------------- pjdfstest

# pjdfstest leaves descriptors open from case to case, and a file system with a
# writable descriptor cannot become read-only; so the cases that remount run in
# a process of their own. They call `mount -o remount,ro DIR`, and mount(8) would
# hand that to the helper of a FUSE type; -i asks the kernel itself.
run_pjdfstest() {
    local d=$scratch/w log=$logs/$1-pjdfstest.log bin=$scratch/bin
    mkdir -p "$bin" "$scratch/second"
    printf '#!/bin/sh\nexec %s -i "$@"\n' "$(PATH=/usr/bin:/bin command -v mount)" >"$bin/mount"
    chmod 755 "$bin/mount"
    plain_mount -t tmpfs second "$scratch/second"
    write_pjdfstest_config "$scratch/with-remount.toml"
    sed 's/^allow_remount.*/allow_remount = false/' "$scratch/with-remount.toml" >"$scratch/no-remount.toml"
    : >"$log"
    NO_COLOR=1 bounded 600 "$tools/bin/pjdfstest" -c "$scratch/no-remount.toml" \
        -p "$d/mnt/base" -s "$scratch/second" >>"$log" 2>&1 || [ $? -eq 1 ] || say "pjdfstest on $1 did not finish"
    NO_COLOR=1 PATH=$bin:$PATH bounded 120 "$tools/bin/pjdfstest" -c "$scratch/with-remount.toml" \
        -p "$d/mnt/base" -s "$scratch/second" erofs >"$log.erofs" 2>&1 || [ $? -eq 1 ] || say "pjdfstest erofs on $1 did not finish"
    un_mount "$scratch/second"
    {
        sed -nE 's/^([a-z_0-9]+::[a-z_0-9:]+) +(ok|FAILED|skipped)$/\1 \2/p' "$log" | grep -v '::erofs' || true
        sed -nE 's/^([a-z_0-9]+::[a-z_0-9:]+) +(ok|FAILED|skipped)$/\1 \2/p' "$log.erofs" || true
    } | sed 's/^/pjdfstest::/' >>"$logs/$1.results"
    cat "$log.erofs" >>"$log"
    rm "$log.erofs"
}

# -------------------------------------------------------------------------- fsx

sum_of() { bounded 30 sha256sum "$1" | cut -d' ' -f1; }

run_fsx() {
    local d=$scratch/w s kind ops=20000 log verdict
    local -A sum
    [ $short = no ] || ops=4000
    write_fsx_config "$scratch/fsx.toml"
    mkdir -p "$logs/fsx"
    for s in $(seeds); do
        for kind in fresh trunc keep; do
            log=$logs/$1-fsx-$kind$s.log
            known_content "keep$s" >"$scratch/kept"
            verdict=ok
            # Only the kept file is announced to fsx; it creates or truncates the others.
            if [ $kind = keep ]; then export FSX_KEEP=$scratch/kept; else unset FSX_KEEP; fi
            bounded 300 "$tools/bin/fsx" -v -f "$scratch/fsx.toml" -N $ops -S "$s" -P "$logs/fsx" \
                "$d/mnt/files/$kind$s" >"$log" 2>&1 || verdict=FAILED
            unset FSX_KEEP
            sum[$kind$s]=$(sum_of "$d/mnt/files/$kind$s") || verdict=FAILED
            if [ $verdict = ok ]; then rm "$log"; else say "fsx $kind$s on $1: see $log"; fi
            echo "fsx::$kind::seed$s $verdict" >>"$scratch/fsx.$1"
        done
    done
    # What a new mount shows is what counts.
    lower && if [ "$1" != ext4 ]; then raise "$1"; fi
    while read -r name verdict; do
        kind=${name#fsx::} kind=${kind/::seed/}
        if [ "$verdict" = ok ] && [ "$(sum_of "$d/mnt/files/$kind")" != "${sum[$kind]}" ]; then
            say "fsx $kind on $1 reads differently after a new mount"
            verdict=FAILED
        fi
        echo "$name $verdict"
    done <"$scratch/fsx.$1" >>"$logs/$1.results"
}

# ------------------------------------------------------------------------ cases

run_on() {
    local before started=$SECONDS
    : >"$logs/$1.results"
    make_world "$1"
    before=$(layers_sum)
    case $suite in pjdfstest | all) run_pjdfstest "$1" ;; esac
    case $suite in fsx | all) run_fsx "$1" ;; esac
    lower || echo "unmount FAILED" >>"$logs/$1.results"
    if [ "$(layers_sum)" = "$before" ]; then
        [ "$1" = ext4 ] || echo "lower-layers-unchanged ok" >>"$logs/$1.results"
    else
        echo "lower-layers-unchanged FAILED" >>"$logs/$1.results"
    fi
    un_mount "$scratch/w"
    rm -f "$scratch/w.img"
    sort -o "$logs/$1.results" "$logs/$1.results"
    say "$1: $(grep -c ' ok$' "$logs/$1.results" || true) of $(wc -l <"$logs/$1.results") cases passed in $((SECONDS - started)) s"
}

verdict_on() { awk -v n="$2" '$1 == n { v = $2 } END { print v ? v : "did not run" }' "$1"; }
with_verdict() { awk -v v="$2" '$2 == v { print $1 }' "$1"; }

compare() {
    local under=$logs/$fs.results plain=$logs/ext4.results expected=$repo/scripts/conformance.expected
    local failed=$scratch/failed also=$scratch/also known=$scratch/known bad=$scratch/bad
    # A case that ext4 ran and the other did not come to (or skipped) failed.
    {
        with_verdict "$under" FAILED
        comm -23 <(awk '$2 != "skipped" { print $1 }' "$plain" | sort) <(awk '$2 != "skipped" { print $1 }' "$under" | sort)
    } | sort -u >"$failed"
    comm -12 "$failed" <(with_verdict "$plain" FAILED | sort) >"$also"
    : >"$known"
    if [ -e "$expected" ] && [ "$fs" = stratafs ]; then
        sed -nE 's/^([^#: ][^ ]*): .+/\1/p' "$expected" | sort >"$known"
    fi
    comm -23 "$failed" "$also" | comm -23 - "$known" >"$bad"

    echo "== failing on ext4 here"
    with_verdict "$plain" FAILED
    echo "== failing on $fs"
    while read -r name; do
        if grep -qxF "$name" "$also"; then echo "$name (also on ext4)"
        elif grep -qxF "$name" "$bad"; then echo "$name ($(verdict_on "$under" "$name"))"
        else echo "$name (expected: $(sed -n "s/^$name: //p" "$expected"))"; fi
    done <"$failed"
    if [ "$suite" = all ] && [ $short = no ]; then
        while read -r name; do say "conformance.expected names $name, which does not fail: remove it"; done \
            < <(comm -23 "$known" "$failed")
    fi
    echo "$(grep -c ' ok$' "$under" || true) passed, $(wc -l <"$failed") failed, $(wc -l <"$also") also failing on ext4"
    [ ! -s "$bad" ]
}

# -------------------------------------------------------------- other checkouts

# unionmount-testsuite and xfstests mount with `mount -t fuse.stratafs -o OPTIONS
# SOURCE DIR`. mount(8) hands that to its helper for FUSE types, in whose place
# (in this mount namespace only) stands a wrapper that turns overlayfs options,
# or `layers=DIR` for xfstests, into the stratafs command line.
mount_by_type() {
    local helper
    helper=$(readlink -f /sbin/mount.fuse)
    [ -f "$helper" ] || die "/sbin/mount.fuse is not here: install fuse3"
    mkdir -p "$scratch/bin"
    cat >"$scratch/bin/mount.fuse" <<EOF
#!/usr/bin/env bash
set -euo pipefail
at=\$2 args=() options=() others=fsname=\$1
shift 2
while getopts o:t:nrsvw flag; do
    [ "\$flag" != o ] || IFS=, read -ra options <<<"\$OPTARG"
done
for o in \${options[@]+"\${options[@]}"}; do
    case \$o in
    lowerdir=*) IFS=: read -ra dirs <<<"\${o#*=}"; for d in "\${dirs[@]}"; do args+=(-l "\$d"); done ;;
    upperdir=*) args+=(-u "\${o#*=}") ;;
    workdir=*) args+=(-w "\${o#*=}") ;;
    layers=*) d=\${o#*=}; args+=(-l "\$d/top" -l "\$d/lowest" -u "\$d/upper" -w "\$d/work") ;;
    # stratafs has the like always.
    "" | redirect_dir=on | index=on | xino=*) ;;
    *) others=\$others,\$o ;;
    esac
done
exec "$STRATAFS" mount "\${args[@]}" -o "\$others" "\$at"
EOF
    chmod 755 "$scratch/bin/mount.fuse"
    plain_mount --bind "$scratch/bin/mount.fuse" "$helper"
}

# judge SUITE: says which results of a foreign suite are failures, and which of them need not be.
judge() {
    local expected=$repo/scripts/conformance.expected results=$logs/$1.results name verdict bad=0
    while read -r name verdict; do
        if [ "$verdict" = ok ]; then
            ! grep -q "^$name: " "$expected" || say "conformance.expected names $name, which does not fail: remove it"
        elif grep -q "^$name: " "$expected"; then
            echo "$name (expected: $(sed -n "s,^$name: ,,p" "$expected"))"
        else
            echo "$name (FAILED)"
            bad=$((bad + 1))
        fi
    done <"$results"
    echo "$1: $(grep -c ' ok$' "$results" || true) of $(wc -l <"$results") passed, $bad unexpected failures"
    [ $bad -eq 0 ] && [ -s "$results" ]
}

run_unionmount() {
    need python3 python3
    mount_by_type
    new_image union
    mkdir "$scratch/union/base" "$scratch/union/mnt"
    export UNIONMOUNT_BASEDIR=$scratch/union/base UNIONMOUNT_MNTPOINT=$scratch/union/mnt PYTHONDONTWRITEBYTECODE=1
    local options=() tests=() word name log
    for word in ${rest[@]+"${rest[@]}"}; do
        case $word in -*) options+=("$word") ;; *) tests+=("$word") ;; esac
    done
    [ ${#options[@]} -gt 0 ] || options=(--samefs --verify)
    if [ ${#tests[@]} -eq 0 ]; then
        for word in "$checkout"/tests/*.py; do
            name=$(basename "$word" .py)
            # rename-exdev is for overlays that do not move directories of lower layers.
            case $name in rename-exdev | __init__) ;; *) tests+=("$name") ;; esac
        done
    fi
    : >"$logs/unionmount.results"
    # The suite ends at its first failure, so each test is a run of its own.
    for name in "${tests[@]}"; do
        log=$logs/unionmount-$name.log
        if (cd "$checkout" && bounded 300 ./run --ov=2 --fuse=stratafs "${options[@]}" "$name") >"$log" 2>&1; then
            echo "unionmount::$name ok"
            rm "$log"
        else
            say "$name: $(tail -n 1 "$log") ($log)"
            echo "unionmount::$name FAILED"
        fi >>"$logs/unionmount.results"
        un_mount_below "$scratch/union"
        rm -rf --one-file-system "${UNIONMOUNT_BASEDIR:?}"/*
    done
    judge unionmount
}

run_xfstests() {
    mount_by_type
    new_image xfs
    local d=$scratch/xfs w log=$logs/xfstests.log
    for w in test scratch; do mkdir -p "$d/$w"/{top,lowest,upper,work,mnt}; done
    # The names of the devices are those in the mount table: the suite unmounts by them.
    cat >"$scratch/local.config" <<EOF
export FSTYP=fuse FUSE_SUBTYP=.stratafs
export TEST_DEV=stratafs-test TEST_DIR=$d/test/mnt
export SCRATCH_DEV=stratafs-scratch SCRATCH_MNT=$d/scratch/mnt
export TEST_FS_MOUNT_OPTS="-olayers=$d/test"
export MOUNT_OPTIONS="-olayers=$d/scratch"
EOF
    [ ${#rest[@]} -gt 0 ] || rest=(-g quick)
    # The suite asks df(1) for the type of a mount, and knows no subtypes of fuse.
    mkdir -p "$scratch/bin"
    printf '#!/bin/sh\n%s "$@" | sed s/fuse.stratafs/fuse/\n' "$(command -v df)" >"$scratch/bin/df"
    chmod 755 "$scratch/bin/df"
    (cd "$checkout" && PATH=$scratch/bin:$PATH HOST_OPTIONS=$scratch/local.config bounded 7200 ./check "${rest[@]}") 2>&1 | tee "$log" || true
    un_mount_below "$d"
    # `check` ends with what it ran, and what of it failed or was left out, each in one line.
    {
        words_of 'Failures' "$log" | sed 's/.*/xfstests::& FAILED/'
        comm -23 <(words_of 'Ran' "$log") <(words_of 'Failures|Not run' "$log") | sed 's/.*/xfstests::& ok/'
    } >"$logs/xfstests.results"
    judge xfstests
}

# The tests of the group overlay mount by `mount -t overlay`, change the options of that mount, and ask df(1) for its type. In
# the place of mount(8) stands a wrapper that does so with stratafs.
run_xfstests_overlay() {
    local d=$scratch/ov log=$logs/xfstests-overlay.log image device
    mkdir -p "$d" "$scratch/bin"
    for image in test scratch; do
        truncate -s 4G "$scratch/$image.img"
        mkfs.ext4 -q -F -m 0 "$scratch/$image.img"
        device=$(losetup --find --show "$scratch/$image.img")
        loops+=("$device")
        mkdir -p "$d/$image"
    done
    cat >"$scratch/local.config" <<EOF
export FSTYP=ext4
export TEST_DEV=${loops[0]} TEST_DIR=$d/test
export SCRATCH_DEV=${loops[1]} SCRATCH_MNT=$d/scratch
EOF
    cat >"$scratch/bin/mount" <<EOF
#!/usr/bin/env bash
set -euo pipefail
real=$(command -v mount)
type='' options=() words=("\$@") places=()
while [ \$# -gt 0 ]; do
    case \$1 in
    -t) type=\$2; shift ;;
    --options-mode) shift ;;
    -o) options+=("\$2"); shift ;;
    -o*) options+=("\${1#-o}") ;;
    -*) ;;
    *) places+=("\$1") ;;
    esac
    shift
done
all=\$(IFS=,; echo "\${options[*]-}")
# Without a place it lists the mounts.
[ \${#places[@]} -gt 0 ] || exec "\$real" "\${words[@]/#overlay/fuse.stratafs}"
at=\${places[-1]}
case ,\$all, in *,remount,*)
    if grep -q " \$at fuse.stratafs " /proc/self/mounts; then
        "$STRATAFS" mount -o "\$all" "\$at" 2>/dev/null && exit
        echo "mount: \$at: cannot remount \$(awk -v at="\$at" '\$2 == at { print \$1 }' /proc/self/mounts) read-write, is write-protected."
        exit 32
    fi ;;
esac
if [ "\$type" = overlay ]; then
    exec "$STRATAFS" "\$at" -o "\$all,fsname=\${places[0]}"
fi
exec "\$real" "\${words[@]}"
EOF
    # umount(8) does not wait for the daemon, which has the layers open until it ends.
    cat >"$scratch/bin/umount" <<EOF
#!/usr/bin/env bash
if grep -q " \${*: -1} fuse.stratafs " /proc/self/mounts; then exec "$STRATAFS" umount "\${*: -1}"; fi
exec $(command -v umount) "\$@"
EOF
    printf '#!/bin/sh\n%s "$@" | sed s/fuse.stratafs/overlay/\n' "$(command -v df)" >"$scratch/bin/df"
    chmod 755 "$scratch/bin/"{mount,umount,df}
    (cd "$checkout" && PATH=$scratch/bin:$PATH HOST_OPTIONS=$scratch/local.config bounded 7200 ./check -overlay "${rest[@]}") 2>&1 | tee "$log" || true
    un_mount_below "$d"
    {
        words_of 'Failures' "$log" | sed 's/.*/xfstests::& FAILED/'
        comm -23 <(words_of 'Ran' "$log") <(words_of 'Failures|Not run' "$log") | sed 's/.*/xfstests::& ok/'
    } >"$logs/xfstests.results"
    judge xfstests
}

words_of() { sed -nE "s/^($1): //p" "$2" | tr ' ' '\n' | sed -n '/\//p' | sort -u; }

# What a foreign suite left mounted below a directory goes before the directory.
un_mount_below() {
    local m
    while read -r m; do
        bounded 30 umount "$m" || bounded 30 umount -l "$m" || true
    done < <(awk -v p="$1/" 'index($5, p) == 1 { print $5 }' /proc/self/mountinfo | tac)
}

case $form in
unionmount) run_unionmount ;;
xfstests)
    case " ${rest[*]-} " in
    *' overlay/'*) run_xfstests_overlay ;;
    *) run_xfstests ;;
    esac
    ;;
cases)
    case $suite in pjdfstest | all) need_crate pjdfstest $PJDFSTEST_VERSION ;; esac
    case $suite in fsx | all) need_fsx ;; esac
    run_on ext4
    if [ "$fs" = ext4 ]; then
        echo "== failing on ext4 here"
        with_verdict "$logs/ext4.results" FAILED
        n=$(with_verdict "$logs/ext4.results" FAILED | wc -l)
        echo "$(grep -c ' ok$' "$logs/ext4.results" || true) passed, $n failed, $n also failing on ext4"
    else
        run_on "$fs"
        compare
    fi
    ;;
esac
