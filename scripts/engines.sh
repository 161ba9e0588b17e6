#!/usr/bin/env bash
# Real container engines with stratafs, fuse-overlayfs 1, fuse-overlayfs 2 and
# the kernel's overlayfs side by side.
#
# usage: scripts/engines.sh [--short] [--dir DIR] [--keep] [--write]
#                           [--only STEP] [ENGINE...]
#
# Engines: podman rootless buildah toolbox docker containerd nested (default: all).
# Each engine has steps; every step runs with each of the four storage programs.
# The result of the kernel's overlayfs is right: a step passes with a program if
# its exit status and its normalised output, with listings of trees, are equal.
# A step that fails with the kernel's overlayfs is listed and not counted.
#
# --short   a selection of the steps, with the kernel's overlayfs and stratafs
#           only: about 3 minutes
# --only    only the steps with names that match the shell pattern STEP; later
#           steps may depend on earlier ones
# --dir     where results are written (default: target/engines)
# --keep    leave the images and the files of the engines in DIR/run
# --write   write the tables into docs/engines.md; engines that do not run
#           keep their section
#
# Needs root and FUSE. Debian packages that are missing are installed, or only
# unpacked if their installation would start a service. Engines run in mount
# and PID namespaces of their own. STRATAFS names the program under test
# (default: a release build of this checkout), FUSE_OVERLAYFS_2 a build of the
# crate fuse-overlayfs (default: built by cargo).
# Exit status 0 if every step that passes with the kernel's overlayfs passes with
# stratafs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit "${1:-2}"; }

all=(podman rootless buildah toolbox docker containerd nested)
contenders=(kernel stratafs f1 f2)
declare -A column=([kernel]="kernel overlayfs" [stratafs]=stratafs [f1]="fuse-overlayfs 1" [f2]="fuse-overlayfs 2")

args=("$@")
short=no keep=no write=no only='*' dir=$target/engines
while [ $# -gt 0 ]; do
    case $1 in
    --short) short=yes ;;
    --keep) keep=yes ;;
    --write) write=yes ;;
    --only) only=${2:?--only needs a pattern}; shift ;;
    --dir) dir=${2:?--dir needs a directory}; shift ;;
    -h | --help) usage 0 ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
engines=("$@")
[ ${#engines[@]} -gt 0 ] || engines=("${all[@]}")
for engine in "${engines[@]}"; do
    [[ " ${all[*]} " == *" $engine "* ]] || die "$engine: no such engine; there are ${all[*]}"
done
[ $write = no ] || [ "$short$only" = "no*" ] || die "--write needs all steps: leave out --short and --only"

[ $short = no ] || contenders=(kernel stratafs)

need_root
private_mounts ${args[@]+"${args[@]}"}
need fuse-overlayfs fuse-overlayfs fusermount3 fuse3 getfattr attr setfattr attr setfacl acl busybox busybox-static jq jq unshare util-linux
find_stratafs
if [ $short = no ] && [ -z "${FUSE_OVERLAYFS_2:-}" ]; then
    need_crate fuse-overlayfs 2.0.0
    FUSE_OVERLAYFS_2=$tools/bin/fuse-overlayfs
fi

mkdir -p "$dir"
dir=$(realpath "$dir")
exec 9>"$dir/lock"
flock -n 9 || die "another run uses $dir"
results=$dir/results
started=$(date +%s)
if [ $keep = yes ]; then
    rm -rf --one-file-system "$dir/run"
    scratch=$dir/run
    mkdir -p "$scratch"
else
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/eng.XXXXXX")
fi
chmod 755 "$scratch"
export scratch results short only started

running=()   # processes of the jobs
finish() {
    local rc=$? p
    trap - EXIT INT TERM HUP
    for p in ${running[@]+"${running[@]}"}; do kill -KILL "$p" 2>/dev/null || true; done
    wait 2>/dev/null || true
    # The last process of a PID namespace may need a moment to release its files.
    if [ $keep = no ]; then
        rm -rf --one-file-system "$scratch" 2>/dev/null || { sleep 2; rm -rf --one-file-system "$scratch" || rc=1; }
    fi
    exit $rc
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The programs have the same name, each in a directory of its own. Other users
# execute them, so they are copies in a place that is open to all.
declare -A path=([kernel]='')
provide() {
    mkdir -p "$scratch/bin/$1"
    cp "$2" "$scratch/bin/$1/$3"
    [ "$3" = fuse-overlayfs ] || ln -s "$3" "$scratch/bin/$1/fuse-overlayfs"
    path[$1]=$scratch/bin/$1/fuse-overlayfs
}
provide stratafs "$STRATAFS" stratafs
[ $short = yes ] || provide f1 "$(command -v fuse-overlayfs)" fuse-overlayfs
[ $short = yes ] || provide f2 "$FUSE_OVERLAYFS_2" fuse-overlayfs
first_version() { bounded 10 "$1" --version 2>&1 | sed -n 's/.*fuse-overlayfs: version /fuse-overlayfs /p; s/^stratafs /&/p; s/^fuse-overlayfs [0-9]/&/p' | head -n 1; }

# Runs FUNCTION of an engine's file, in a subshell.
of_engine() {
    (
        shared=$scratch/$1/shared
        results=$results/$1
        mkdir -p "$shared" "$results"
        cd "$shared"
        # shellcheck source=scripts/engines/lib.sh
        . "$repo/scripts/engines/lib.sh"
        # shellcheck source=/dev/null
        . "$repo/scripts/engines/$1.sh"
        "$2"
    )
}
# shellcheck disable=SC2154
list_steps() {
    local n
    printf '%s\n' "$title" >"$results/title"
    for n in ${step_names[@]+"${step_names[@]}"}; do printf '%s\t%s\t%s\n' "$n" "${step_text[$n]}" "${step_reason[$n]}"; done >"$results/steps"
}

# run_program ENGINE PROGRAM: all steps, in namespaces that end with them.
run_program() {
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
        scratch="$scratch" results="$results" short="$short" only="$only" started="$started" mount_program="${path[$2]}" \
        setpriv --pdeathsig KILL timeout --foreground -s KILL "$program_limit" setpriv --pdeathsig KILL \
        unshare -m -p --fork --kill-child --mount-proc --propagation private \
        bash "$repo/scripts/engines/program.sh" "$1" "$2" </dev/null >"$results/$1/$2.log" 2>&1 9>&-
}
program_limit=600
[ $short = no ] || program_limit=240

# ------------------------------------------------------------------ the verdict

# verdict STEP PROGRAM: ok, fails, differs, or why there is no result.
verdict() {
    local k=$results/$engine/kernel/$1 p=$results/$engine/$2/$1
    if [ ! -e "$p.status" ]; then echo "no result"
    elif [ "$(cat "$k.status" 2>/dev/null)" != 0 ]; then
        if [ "$(cat "$p.status")" = 0 ]; then echo works; else echo fails; fi
    elif [ "$(cat "$p.status")" != 0 ]; then echo fails
    elif cmp -s "$k.out" "$p.out"; then echo ok
    else echo differs
    fi
}

# The line of an error that says the most.
error_of() {
    { grep -iE 'error|fail|cannot|denied|not permitted|no answer' "$1" || tail -n 1 "$1"; } 2>/dev/null |
        tail -n 1 | cut -c 1-240 | sed -E "s|$scratch|SCRATCH|g; s/[0-9a-f]{64}/ID/g"
}

counted=0 failures=0 uncounted=0
# compare ENGINE: prints differences, and writes the section of docs/engines.md.
compare() {
    local name text reason v program row section=$results/$engine/section.md notes=()
    {
        printf '## %s\n\n' "$(cat "$results/$engine/title")"
        if [ -s "$results/$engine/kernel/skipped" ]; then
            printf 'Not run: %s.\n' "$(cat "$results/$engine/kernel/skipped")"
        else
            printf '%s.\n\n' "$(cat "$results/$engine/version")"
            printf '| Step |'
            for program in "${contenders[@]}"; do printf ' %s |' "${column[$program]}"; done
            printf '\n'
            printf '|---%.0s' '' "${contenders[@]}"
            printf '|\n'
        fi
    } >"$section"
    if [ -s "$results/$engine/kernel/skipped" ]; then
        say "$engine: not run: $(cat "$results/$engine/kernel/skipped")"
        return
    fi
    while IFS=$'\t' read -r name text reason; do
        row="| $text (\`$name\`) |"
        for program in "${contenders[@]}"; do
            v=$(verdict "$name" "$program")
            row+=" $v |"
            [ "$v" != ok ] || continue
            if [ "$program" = kernel ]; then
                notes+=("\`$name\` is not counted: $(error_of "$results/$engine/kernel/$name.err")")
            fi
        done
        echo "$row" >>"$section"
        if [ "$(verdict "$name" kernel)" = 'no result' ]; then
            failures=$((failures + 1))
            say "$engine $name: no result with the kernel's overlayfs: nothing to compare with"
            continue
        fi
        if [ "$(verdict "$name" kernel)" != ok ]; then
            uncounted=$((uncounted + 1))
            say "$engine $name: fails with the kernel's overlayfs: $(error_of "$results/$engine/kernel/$name.err")"
            continue
        fi
        if [ -n "$reason" ]; then
            uncounted=$((uncounted + 1))
            notes+=("\`$name\` is not counted: $reason")
            continue
        fi
        counted=$((counted + 1))
        v=$(verdict "$name" stratafs)
        [ "$v" != ok ] || continue
        failures=$((failures + 1))
        echo "$engine $name: $v with stratafs"
        diff -U 1 --label kernel --label stratafs "$results/$engine/kernel/$name.out" "$results/$engine/stratafs/$name.out" 2>&1 | head -n 60 | sed 's/^/    /' || true
        for program in kernel stratafs; do
            [ ! -s "$results/$engine/$program/$name.err" ] ||
                tail -n 20 "$results/$engine/$program/$name.err" | sed "s/^/    $program, standard error: /"
        done
        [ -e "$results/$engine/stratafs/$name.status" ] || sed 's/^/    /' "$results/$engine/stratafs/start.log" "$results/$engine/stratafs.log" 2>/dev/null | tail -n 20
    done <"$results/$engine/steps"
    { echo; printf '%s\n' ${notes[@]+"${notes[@]/#/- }"} | sed '/^$/d'; } >>"$section"
}

write_page() {
    local page=$repo/docs/engines.md new e
    new=$(mktemp "$scratch/page.XXXXXX")
    {
        cat <<'END'
# Container engines

Written by `scripts/engines.sh --write`. Each step runs with the engine's own driver
on the kernel's overlayfs and with three programs in its place. The kernel's result is right:

- **ok**: exit status, output and trees equal those with the kernel's overlayfs
- **differs**: the step succeeds, but its output or a tree is different
- **fails**: a command of the step fails
- **no result**: the engine did not start with this program, or the time limit ended the run

A step that fails with the kernel's overlayfs is not counted: **works** and **fails** say
whether it succeeds with a program.

END
        echo "Programs: $(uname -sr | sed 's/\([0-9]*\.[0-9]*\).*/\1/') overlayfs, $(first_version "${path[stratafs]}"), $(first_version "${path[f1]}"), $(first_version "${path[f2]}")."
        for e in "${all[@]}"; do
            echo
            if [[ " ${engines[*]} " == *" $e "* ]] && [ -e "$results/$e/section.md" ]; then
                cat "$results/$e/section.md"
            elif [ -e "$page" ]; then
                awk -v t="## $(sed -n "s/^title='\(.*\)'/\1/p" "$repo/scripts/engines/$e.sh")" '/^## / { inside = ($0 == t) } inside' "$page"
            fi
        done | cat -s
    } >"$new"
    sed -i -e :a -e '/^\n*$/{$d;N;ba' -e '}' "$new"
    cp "$new" "$page"
}

# ------------------------------------------------------------------------ run

for engine in "${engines[@]}"; do
    if [ ! -e "$repo/scripts/engines/$engine.sh" ]; then
        say "$engine: there is no scripts/engines/$engine.sh"
        continue
    fi
    rm -rf "${results:?}/$engine"
    mkdir -p "$results/$engine/kernel"
    began=$SECONDS
    say "$engine"
    of_engine "$engine" list_steps
    [ -s "$results/$engine/steps" ] || continue
    of_engine "$engine" prepare >"$results/$engine/prepare.log" 2>&1 || {
        tail -n 20 "$results/$engine/prepare.log" >&2
        die "$engine: prepare failed"
    }
    of_engine "$engine" version >"$results/$engine/version" 2>/dev/null || true
    # Two at a time: as many as a small machine has processors.
    for ((n = 0; n < ${#contenders[@]}; n += 2)); do
        running=()
        for program in "${contenders[@]:n:2}"; do
            run_program "$engine" "$program" &
            running+=($!)
        done
        for p in "${running[@]}"; do wait "$p" || true; done
        running=()
    done
    compare
    say "$engine: $((SECONDS - began)) s"
    [ $keep = yes ] || rm -rf --one-file-system "${scratch:?}/$engine" 2>/dev/null || true
done

[ $write = no ] || write_page
for engine in "${engines[@]}"; do
    [ ! -e "$results/$engine/section.md" ] || { cat "$results/$engine/section.md"; echo; }
done
echo "$counted steps pass with the kernel's overlayfs, $failures of them do not with stratafs; $uncounted steps are not counted"
[ $counted -gt 0 ] && [ $failures -eq 0 ]
