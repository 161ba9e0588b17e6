#!/usr/bin/env bash
# Docker 20.10 and stratafs side by side: every form of the volume grammar, and
# every rule of volumes and binds, given to both over the same image.
#
# usage: scripts/docker-volumes.sh [-v] [--dir DIR] [--list] [CASE-PATTERN...]
#
# The cases are in scripts/docker-volumes-cases.sh. Each is one line of output:
# `same`, `differs as documented: REASON` or `DIFFERS`. What may differ stands,
# with the names of the cases, in the table "Where stratafs differs from Docker,
# and why" of docs/volumes.md, and nowhere else. A case that is named there and
# does not differ, or not in the way that it says, is one that DIFFERS.
#
# With -v the outputs of what differs are shown; those of all cases stay in DIR
# (default target/docker-volumes). A pattern is a shell pattern for names.
#
# Needs root and FUSE. dockerd is Debian's docker.io; it is installed if it is
# not here, and runs in a mount namespace of its own, with all its files in a
# temporary directory. Where it cannot run, the script says so and exits with 0.
# The program under test is $STRATAFS, or a new release build.
# Exit status 1 if anything differs that no paper tells of.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit "${1:-2}"; }

args=("$@")
verbose=no only_list=no out=$target/docker-volumes
while [ $# -gt 0 ]; do
    case $1 in
    -v) verbose=yes ;;
    --list) only_list=yes ;;
    --dir) out=${2:?--dir needs a directory}; shift ;;
    -h | --help) usage 0 ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
patterns=("$@")
cases=$repo/scripts/docker-volumes-cases.sh

if [ $only_list = yes ]; then
    t() { echo "$1"; [ $# -gt 1 ] || cat >/dev/null; }
    # shellcheck source=scripts/docker-volumes-cases.sh
    . "$cases"
    exit
fi

need_root
need dockerd docker.io busybox busybox-static getfattr attr setfacl acl
[ -x /usr/bin/docker ] || die "/usr/bin/docker is not here: install docker.io"
find_stratafs
private_mounts ${args[@]+"${args[@]}"}
umask 022

mkdir -p "$out"
out=$(realpath "$out")
rm -f "$out"/*.docker "$out"/*.stratafs
scratch=$(mktemp -d "${TMPDIR:-/tmp}/docker-volumes.XXXXXX")
chmod 755 "$scratch"
socket=unix://$scratch/d/d.sock
dockerd=   # its process
chroot=$(command -v chroot)
started=$(date +%s)

finish() {
    local rc=$? m
    trap - EXIT INT TERM HUP
    clean_up 2>/dev/null || true
    if [ -n "$dockerd" ]; then
        kill "$dockerd" 2>/dev/null || true
        for _ in {1..100}; do kill -0 "$dockerd" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$dockerd" 2>/dev/null || true
        wait "$dockerd" 2>/dev/null || true
    fi
    while read -r m; do umount -l "$m" 2>/dev/null || true; done < <(mounts_in "$scratch")
    rm -rf --one-file-system "$scratch" || rc=1
    exit $rc
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# mounts_in DIR: what is mounted at or below it, innermost first.
mounts_in() { awk -v p="$1" '$5 == p || index($5, p "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r; }

# --------------------------------------------------- one image, one host for both

past() { touch -h -d "$1" "${@:2}"; }

# The roots of two images; the second is what the first was built anew to.
make_images() {
    local r=$scratch/images/1 a
    mkdir -p "$r/bin" "$r/dev" "$r/etc" "$r/proc" "$r/tmp"
    mknod -m 666 "$r/dev/null" c 1 3
    cp "$(command -v busybox)" "$r/bin/busybox"
    for a in sh ls cat cp echo touch mkdir rmdir rm mv ln chmod chown stat df dd tail cut env sleep mknod readlink test true sync find wc sort head tr; do
        ln -s busybox "$r/bin/$a"
    done
    chmod 1777 "$r/tmp"
    echo root:x:0:0::/:/bin/sh >"$r/etc/passwd"

    mkdir -p "$r/data/sub/deep" "$r/data/none" "$r/empty" "$r/nest/a/b" "$r/conf"
    echo alpha >"$r/data/a"
    printf 'set id' >"$r/data/setid"
    echo deep >"$r/data/sub/deep/file"
    echo odd >"$r/data/a name: odd, \"quoted\""
    echo capable >"$r/data/capable"
    echo linked >"$r/data/link1"
    ln "$r/data/link1" "$r/data/sub/link2"
    ln -s a "$r/data/rel"
    ln -s /etc/passwd "$r/data/abs"
    ln -s nowhere "$r/data/sub/dangling"
    mkfifo "$r/data/fifo"
    mknod "$r/data/null" c 1 3
    truncate -s 1M "$r/data/hole"
    echo file >"$r/file"
    echo one >"$r/conf/one"
    echo two >"$r/conf/two"
    echo b >"$r/nest/a/b/file"
    ln -s data "$r/ldir"
    ln -s /data "$r/labs"
    ln -s nowhere "$r/ldangling"
    ln -s /no/where "$r/ldeep"
    ln -s lloop "$r/lloop"
    ln -s file "$r/lfile"
    ln -s /../../../../data "$r/lclimb"

    chown 1000:1001 "$r/data/a" "$r/data/link1"
    chown -h 7:8 "$r/data/rel"
    chown 10:20 "$r/data"
    chown 5:6 "$r/data/sub" "$r/data/fifo"
    chown 33:34 "$r/empty"
    chmod 2750 "$r/data"
    chmod 1777 "$r/data/sub"
    chmod 4755 "$r/data/setid"
    chmod 600 "$r/data/a" "$r/data/null"
    chmod 700 "$r/empty"
    chmod 0 "$r/data/none"
    setfattr -n user.note -v noted "$r/data/a"
    setfattr -n user.note -v "of a directory" "$r/data/sub"
    setfattr -n user.root -v "of the root" "$r/data"
    # cap_net_raw, permitted and effective.
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 "$r/data/capable"
    setfacl -m u:42:r "$r/data/link1"
    find "$r" -exec touch -h -d '2011-11-11 11:11:11.111111111 UTC' {} +
    past '2001-02-03 04:05:06 UTC' "$r/data/a"
    past '2002-02-03 04:05:06.5 UTC' "$r/empty" "$r/data/sub"
    past '2003-02-03 04:05:06.123456789 UTC' "$r/data"

    cp -a "$r" "$scratch/images/2"
    r=$scratch/images/2
    echo "alpha of the second" >"$r/data/a"
    echo new >"$r/data/new"
    rm "$r/data/rel"
    chown 11:21 "$r/data"
    past '2012-12-12 12:12:12 UTC' "$r/data/a" "$r/data/new" "$r/data"

    # What is imported is what stratafs gets: both from the same archive.
    for a in 1 2; do
        tar -C "$scratch/images/$a" --xattrs --xattrs-include='*' --format=pax --numeric-owner -cf "$scratch/images/$a.tar" .
        mkdir "$scratch/layers/$a"
        tar -C "$scratch/layers/$a" --xattrs --xattrs-include='*' --numeric-owner -xpf "$scratch/images/$a.tar"
    done
}

# The directory of the host that binds come from, the same for both sides.
make_host() {
    local h=$scratch/host.new
    mkdir -p "$h/dir/sub" "$h/empty" "$h/other" "$h/a:b" "$h/a,b" "$h/open" "$h/share"
    echo host >"$h/dir/f"
    echo "host sub" >"$h/dir/sub/g"
    ln "$h/dir/f" "$h/dir/hard"
    ln -s f "$h/dir/soft"
    echo "host file" >"$h/file"
    echo other >"$h/other/o"
    echo colon >"$h/a:b/c"
    echo comma >"$h/a,b/c"
    ln -s dir "$h/ldir"
    ln -s file "$h/lfile"
    ln -s nowhere "$h/ldangling"
    chown 7:8 "$h/dir"
    chown 1000:1000 "$h/dir/f" "$h/file"
    chmod 751 "$h/dir"
    chmod 1777 "$h/open"
    chmod 2770 "$h/share"
    chmod 640 "$h/file"
    setfattr -n user.host -v yes "$h/dir/f"
    find "$h" -exec touch -h -d '2009-09-09 09:09:09.9 UTC' {} +
}

# ------------------------------------------- what a case says: the same for both

# $side is docker or stratafs, $H the host's directory, $at the name of the
# container or mount that is spoken of, $image which root it gets, $writable
# whether the root takes changes.
H='' side='' at=x image=1 writable=yes

docker() { bounded 60 /usr/bin/docker -H "$socket" "$@"; }
strata() { bounded 60 "$STRATAFS" "$@"; }

# Words by which each says what is wrong, to one name for what is wrong.
classes='
duplicate       Duplicate mount point
exists          exists already
in-use          volume is in use
no-such-volume  [Nn]o such volume
volumes-from    No such container|no stratafs is mounted there|volumes-from specification cannot be an empty
quota           quota
anonymous       when using anonymous volumes
mixed           cannot mix|Options must not be specified
mode            invalid mode:
root            destination can.t be ./
target          path must be absolute|target is required
name            includes invalid characters for a local volume name|volume name is too short|it is too short|only \[a-zA-Z0-9\]|file name too long|it reads as a path|take at most|is no volume name|volume name .* is too long
source-missing  bind source path does not exist|error while creating mount source path
kind            [Nn]ot a directory|is not directory|is no directory|[Ii]s a directory
loop            too many (links|symlinks|levels of symbolic links)
source          field Source must not be|field Source should not
type            mount type unknown|type .(npipe|image|cluster). |type is required
field           must be a key=value pair
csv             bare \\?"|missing \\?" in|extraneous
key             unexpected key
spec            invalid (empty )?volume spec|invalid spec:|empty section between colons|too many colons|it says nothing|flag: EOF
value           invalid value for|is no mode|invalid propagation|is not one of its values|invalid size:|invalid tmpfs option|error mounting .*tmpfs. to rootfs|has a size and a mode only|bind-nonrecursive
filter          [Ii]nvalid filter|no such filter|bad format of filter|--filter
template        [Tt]emplate|--format
label           label
driver          volume driver|plugin .* not found|plugin: not found
option          invalid option|missing required option|volume option|-o .*: no value|volume-opt=.: nothing
mounting        failed to mount local volume|error while mounting volume|cannot be mounted
subpath         subpath
usage           requires at least|requires exactly|requires at most|accepts no arguments|required arguments were not provided|unexpected argument|unknown (shorthand )?flag|conflicting options|cannot be used with
'

# class FILE: what is wrong, in one word.
class() {
    local name words
    while read -r name words; do
        [ -n "$name" ] || continue
        if grep -qE -- "$words" "$1"; then echo "$name"; return; fi
    done <<<"$classes"
    printf 'other: '
    head -n 1 "$1"
}

# What is by its nature not the same on both sides gets one name.
normal() {
    sed -E -e "s#$H#@HOST#g" -e "s#($scratch/d/root|$scratch/state)/volumes#@STORE#g" -e "s#$scratch/m/##g" \
        -e 's/[0-9a-f]{64}/ANONYMOUS/g' -e 's/"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)"/"TIME"/'
}

# box ARGUMENT... : a container, or a mount, under the name $at.
box() {
    local e=$scratch/$side.err
    local changes=(--ephemeral="$scratch/upper")
    [ $writable = yes ] || changes=()
    if [ "$side" = docker ]; then
        [ $writable = yes ] || set -- --read-only "$@"
        case " $* " in *" --rm "*) : >"$scratch/goes.$at" ;; *) rm -f "$scratch/goes.$at" ;; esac
        if docker run -d --pull never --name "c-$at" --network none "$@" "t:$image" sleep 600 >/dev/null 2>"$e"; then echo up; return 0; fi
        docker rm -f "c-$at" >/dev/null 2>&1 || true
    else
        mkdir -p "$scratch/m/$at"
        if strata mount -l "$scratch/layers/$image" ${changes[@]+"${changes[@]}"} --state "$scratch/state" "$@" \
            "$scratch/m/$at" 2>"$e" >/dev/null; then
            echo up
            return 0
        fi
        if is_mounted "$scratch/m/$at"; then echo "refused, and mounted all the same"; fi
    fi
    cp "$e" "$out/$id.$side.err"
    echo "refused ($(class "$e"))"
    return 1
}

# end: the end of it; anonymous volumes stay, unless it was begun with --rm.
end() {
    local _
    if [ "$side" = stratafs ]; then
        strata umount "$scratch/m/$at"
    elif [ -e "$scratch/goes.$at" ]; then
        docker kill "c-$at" >/dev/null
        for _ in {1..100}; do docker inspect "c-$at" >/dev/null 2>&1 || break; done
    else
        docker rm -f "c-$at" >/dev/null
    fi
}

# stop: the container is not there any more, but is not forgotten either.
stop() { if [ "$side" = docker ]; then docker stop -t 0 "c-$at" >/dev/null; else strata umount "$scratch/m/$at"; fi; }

# from NAME: how --volumes-from names another.
from() { if [ "$side" = docker ]; then echo "c-$1"; else echo "$scratch/m/$1"; fi; }

# inside COMMANDS: a shell in it.
inside() {
    local rc=0
    if [ "$side" = docker ]; then
        docker exec "c-$at" /bin/sh -c "exec 2>&1; $1" || rc=$?
    else
        bounded 30 env -i PATH=/bin "$chroot" "$scratch/m/$at" /bin/sh -c "exec 2>&1; $1" || rc=$?
    fi
    [ $rc -eq 0 ] || echo "exit status $rc"
}

# Where its tree is for this machine.
root() {
    if [ "$side" = docker ]; then echo "/proc/$(docker inspect -f '{{.State.Pid}}' "c-$at")/root"; else echo "$scratch/m/$at"; fi
}

# tree [-t] [-s] PATH... : all there is to see there, by the tools of this
# machine. Times of directories only with -t; with -s times are whole seconds,
# and attributes are left out, as in the archives of `docker cp`.
tree() {
    local r p flags=
    while [[ $1 == -* ]]; do flags=$flags$1; shift; done
    r=$(root)
    for p in "$@"; do echo "-- $p"; list "$r$p" "$flags"; done
}

# host [-s] [PATH]: the directory that binds come from, or what is in it there.
host() {
    local flags=-t
    if [ "${1-}" = -s ]; then flags=-s; shift; fi
    echo "-- host"
    list "$H${1-}" $flags
}

# list DIR [FLAGS]: names, types, modes, owners, links, sizes, times, content, attributes.
list() {
    local of_dir=- whole=0
    [[ ${2-} != *-t* ]] || of_dir='%T@'
    [[ ${2-} != *-s* ]] || whole=1
    {
        find "$1" -type d -printf "%P/ %M %U:%G $of_dir\n" \
            -o -type l -printf '%P %M %U:%G %T@ -> %l\n' \
            -o \( -type c -o -type b \) -printf '%P %M %U:%G n=%n %T@ ' -exec stat -c '%t:%T' {} \; \
            -o -printf '%P %M %U:%G n=%n s=%s %T@\n' |
            perl -pe 's/ (\d{9,})(\.\d+)/$1 >= '"$started"' ? " now" : '$whole' ? " $1" : $&/e'
        find "$1" -type f -size -4M -printf '%P ' -exec sh -c 'md5sum <"$1"' sh {} \;
        [ $whole = 1 ] || (cd "$1" 2>/dev/null || exit 0
            find . -print0 | xargs -0 getfattr -h -d -m - -e hex 2>/dev/null |
                awk '/^# file: / { f = substr($0, 9); next } NF { print f " " $0 }')
    } | LC_ALL=C sort
}

# vol ARGUMENT... : `docker volume`, `stratafs volume`.
vol() {
    local rc=0 o=$scratch/$side.out e=$scratch/$side.err
    if [ "$side" = docker ]; then
        docker volume "$@" </dev/null >"$o" 2>"$e" || rc=$?
    else
        STRATAFS_STATE=$scratch/state strata volume "$@" </dev/null >"$o" 2>"$e" || rc=$?
    fi
    normal <"$o"
    [ $rc -eq 0 ] || { cp "$e" "$out/$id.$side.err"; echo "refused ($(class "$e"))"; }
}

# data NAME: where a volume's content is.
data() { if [ "$side" = docker ]; then echo "$scratch/d/root/volumes/$1/_data"; else echo "$scratch/state/volumes/$1/_data"; fi; }

# store: the volumes that there are, with what is in them.
store() {
    local at v
    at=$(dirname "$(dirname "$(data x)")")
    [ -d "$at" ] || return 0
    for v in "$at"/*/; do
        [ -d "$v/_data" ] || continue
        echo "-- volume $(basename "$v" | normal)"
        list "$v/_data"
    done
}

# copy [-a] [-L] FROM TO : `docker cp`, and the cp that is like it. NAME:/PATH is
# in a box. Docker keeps owners on the way in, and on the way out only with -a.
copy() {
    local e=$scratch/$side.err flags=() words=() own=mode,timestamps,links w rc=0
    for w in "$@"; do
        case $w in
        -a) if [ "$side" = docker ]; then flags+=(-a); else own=ownership,$own; fi ;;
        -*) flags+=("$w") ;;
        *:*) if [ "$side" = docker ]; then words+=("c-$w"); else words+=("$scratch/m/${w/:/}"); fi ;;
        *) words+=("$w") ;;
        esac
    done
    [[ ${!#} != *:* ]] || own=ownership,$own
    if [ "$side" = docker ]; then
        docker cp ${flags[@]+"${flags[@]}"} "${words[@]}" >/dev/null 2>"$e" || rc=1
    else
        [[ " $* " == *" -L "* ]] || flags+=(-P)
        bounded 30 cp -r --preserve="$own" "${flags[@]}" "${words[@]}" 2>"$e" || rc=1
    fi
    [ $rc -eq 0 ] || { cp "$e" "$out/$id.$side.err"; echo "copy refused"; }
    return $rc
}

# ----------------------------------------------------------------- the comparison

declare -A reason=()   # by the name of a case: why it may differ
read_reasons() {
    local row name
    while IFS=$'\t' read -r name row; do reason[$name]=$row; done < <(
        awk -F ' *[|] *' '
            /^## / { inside = ($0 == "## Where stratafs differs from Docker, and why") }
            inside && /^\|/ && NF >= 6 {
                n = split($5, names, "[`, ]+")
                for (i = 1; i <= n; i++) if (names[i] ~ /^[a-z]/) print names[i] "\t" $4
            }' "$repo/docs/volumes.md")
    [ ${#reason[@]} -gt 0 ] || die "docs/volumes.md has no table of what differs"
}

same=0 documented=0 differ=0
declare -A ran=()

chosen() {
    local p
    [ ${#patterns[@]} -gt 0 ] || return 0
    # shellcheck disable=SC2053
    for p in "${patterns[@]}"; do [[ $1 == $p ]] && return 0; done
    return 1
}

# What the cases have left, between them. Both sides begin with nothing.
clean_up() {
    local m list
    list=$(docker ps -aq)
    # shellcheck disable=SC2086
    [ -z "$list" ] || docker rm -fv $list >/dev/null
    list=$(docker volume ls -q)
    # shellcheck disable=SC2086
    [ -z "$list" ] || docker volume rm -f $list >/dev/null
    while read -r m; do
        strata umount "$m" || umount -l "$m" || true
    done < <(mounts_in "$scratch/m")
    while read -r m; do umount "$m" || umount -l "$m"; done < <(mounts_in "$scratch/state")
    rm -rf --one-file-system "$scratch/state" "$scratch/upper" "$scratch/m" "$scratch/host"/*
    mkdir -p "$scratch/m" "$scratch/upper"
    for side in docker stratafs; do cp -a "$scratch/host.new" "$scratch/host/$side"; done
}

# t NAME [BODY]: one case; without BODY it is on standard input. Lines `#docker: TEXT` and `#stratafs: TEXT` in a case
# that differs say what is in the output of each.
t() {
    local id=$1 body=${2-} one two verdict='' who text
    [ $# -gt 1 ] || body=$(cat)
    chosen "$id" || return 0
    [ -z "${ran[$id]:-}" ] || die "two cases are called $id"
    ran[$id]=1
    clean_up
    rm -f "$out/$id".*
    (side=docker H=$scratch/host/docker; set +e; eval "$body") >"$out/$id.docker.raw" 2>&1 &
    one=$!
    (side=stratafs H=$scratch/host/stratafs; set +e; eval "$body") >"$out/$id.stratafs.raw" 2>&1 &
    two=$!
    wait $one || true
    wait $two || true
    for side in docker stratafs; do
        H=$scratch/host/$side
        normal <"$out/$id.$side.raw" >"$out/$id.$side"
        rm "$out/$id.$side.raw"
        [ -s "$out/$id.$side" ] || verdict="DIFFERS (the case says nothing)"
        ! grep -qE "^$0: line|: eval: line|unbound variable" "$out/$id.$side" || verdict="DIFFERS (the case itself is wrong)"
    done
    if [ -n "$verdict" ]; then
        :
    elif cmp -s "$out/$id.docker" "$out/$id.stratafs"; then
        verdict=same
        [ -z "${reason[$id]:-}" ] || verdict="DIFFERS (documented, but it is the same)"
    elif [ -n "${reason[$id]:-}" ]; then
        verdict="differs as documented: ${reason[$id]}"
        for who in docker stratafs; do
            text=$(sed -n "s/^#$who: //p" <<<"$body")
            if [ -z "$text" ] || ! grep -qF -- "$text" "$out/$id.$who"; then
                verdict="DIFFERS (documented, but what $who does is not \`$text\`)"
            fi
        done
    else
        verdict=DIFFERS
    fi
    case $verdict in
    same) same=$((same + 1)) ;;
    differs*) documented=$((documented + 1)) ;;
    *) differ=$((differ + 1)) ;;
    esac
    printf '%-32s %s\n' "$id" "$verdict"
    if [[ $verdict == DIFFERS* || ( $verbose = yes && $verdict != same ) ]]; then
        diff -U 1 --label docker --label stratafs "$out/$id.docker" "$out/$id.stratafs" | sed 's/^/    /' || true
        for who in docker stratafs; do
            [ ! -s "$out/$id.$who.err" ] || sed "s/^/    $who said: /" "$out/$id.$who.err"
        done
    fi
}

start_dockerd() {
    mkdir -p "$scratch/d"
    dockerd --data-root "$scratch/d/root" --exec-root "$scratch/d/exec" -H "$socket" -p "$scratch/d/pid" \
        --iptables=false --ip-forward=false --ip-masq=false --bridge=none --storage-driver overlay2 \
        </dev/null >"$out/dockerd.log" 2>&1 &
    dockerd=$!
    for _ in {1..200}; do
        if docker version >/dev/null 2>&1; then return; fi
        kill -0 "$dockerd" 2>/dev/null || break
        sleep 0.1
    done
    skip "dockerd does not start: $(tail -n 1 "$out/dockerd.log")"
}

skip() { echo "skipped: $*"; exit 0; }

read_reasons
mount -t tmpfs -o mode=755 run /run
mkdir -p "$scratch/images" "$scratch/layers" "$scratch/host"
# Docker takes `shared` and `slave` for sources on a shared mount only.
mount --bind "$scratch/host" "$scratch/host"
mount --make-shared "$scratch/host"
make_images
make_host
start_dockerd
for n in 1 2; do docker import "$scratch/images/$n.tar" "t:$n" >/dev/null || skip "docker import fails"; done
docker run --rm --network none t:1 true 2>"$out/first.err" || skip "no container runs here: $(head -n 1 "$out/first.err")"
say "$(docker version -f 'dockerd {{.Server.Version}}'), $("$STRATAFS" --version)"

# shellcheck source=scripts/docker-volumes-cases.sh
. "$cases"

clean_up
if [ ${#patterns[@]} -eq 0 ]; then
    for name in "${!reason[@]}"; do
        [ -z "${ran[$name]:-}" ] || continue
        echo "$name DIFFERS (docs/volumes.md names it, and there is no such case)"
        differ=$((differ + 1))
    done
fi
for p in /proc/[0-9]*; do
    [ "$(readlink "$p/exe" 2>/dev/null)" = "$STRATAFS" ] && tr '\0' '\n' <"$p/cmdline" | grep -q "^$scratch/" || continue
    echo "a daemon is left: ${p#/proc/} DIFFERS"
    differ=$((differ + 1))
done
echo "$((same + documented + differ)) cases: $same the same, $documented differ as documented, $differ differ"
[ $differ -eq 0 ]
