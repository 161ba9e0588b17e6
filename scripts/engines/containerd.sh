# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# containerd 1.6: the mounts of the fuse-overlayfs snapshotter against those of
# the overlayfs snapshotter.
#
# Debian's containerd is unpacked, not installed. The snapshotter is
# snapshotter.py; containerd mounts what it answers with mount.fuse3, which
# executes `fuse-overlayfs` from PATH. See scripts/engines/lib.sh.

# shellcheck source=scripts/engines/base.sh
. "$repo/scripts/engines/base.sh"

title='containerd'
step import 'Import an image of four layers with whiteouts, the tree of the image'
step --short run 'Run: output and exit status'
step run-options 'Run as a user, read-only'
step --short changes 'Changes of every kind in a container, its tree'
step exec 'Exec into a running container'
step exec-user 'Exec as a user into a running container (mounts the snapshot twice)'
step parallel 'Eight containers at once'
step --short remap 'Run with remapped ids: owners seen inside, files made inside'
step remap-tree 'Run with remapped ids: the tree as the host sees it, without capabilities'
step remap-user 'Run as a user with remapped ids'
step usage 'Usage of snapshots'
step diff 'The difference between a snapshot and its parent'
step --short commit 'Commit a snapshot, run a container on it'
step view 'Views of one layer and of several'
step mounts 'Mount a snapshot by hand, as `ctr snapshots mounts` prints'
step supported 'The read-only trial mount of two layers'
step options 'Options that versions of the snapshotter and mount.fuse3 add'
step restart 'Restart the daemon with a container running'
step --short remove 'Remove containers, snapshots and images'

image=example.org/t:1

prepare() {
    need busybox busybox-static getfattr attr jq jq perl perl python3 python3 mount.fuse3 fuse3
    unpack containerd runc
    make_snapshotter
    make_root "$shared/root"
    make_image
}

# The snapshotter's modules, once, in $tools.
make_snapshotter() {
    local into=$tools/snapshotter
    if [ ! -e "$into/done" ]; then
        rm -rf "$into"
        mkdir -p "$into"
        python3 -m venv "$into/venv" || { need /usr/lib/python3/dist-packages/venv python3-venv; python3 -m venv --clear "$into/venv"; }
        bounded 300 "$into/venv/bin/pip" install -q grpcio grpcio-tools
        touch "$into/done"
    fi
    "$into/venv/bin/python" -m grpc_tools.protoc -I "$repo/scripts/engines" \
        --python_out="$shared" --grpc_python_out="$shared" "$repo/scripts/engines/snapshots.proto"
    ln -sfn "$into/venv" "$shared/venv"
}

# blob FILE: moves it into the image layout, and prints its digest and size.
blob() {
    local hash size
    hash=$(sha256sum <"$1" | cut -d' ' -f1)
    size=$(stat -c %s "$1")
    mv "$1" "$shared/oci/blobs/sha256/$hash"
    printf '"digest":"sha256:%s","size":%s' "$hash" "$size"
}

layers='' diffs=''
add_layer() {
    find "$1" -newermt 2020-01-01 -exec touch -h -d '2012-12-12 12:12:12 UTC' {} +
    tar_of "$1" "$shared/layer"
    diffs+="${diffs:+,}\"sha256:$(sha256sum <"$shared/layer" | cut -d' ' -f1)\""
    layers+="${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",$(blob "$shared/layer")}"
}

make_image() {
    local l type=application/vnd.oci.image
    mkdir -p "$shared/oci/blobs/sha256"
    add_layer "$shared/root"

    l=$shared/layer2
    mkdir -p "$l/data/dir" "$l/data/tree/old" "$l/later"
    touch "$l/data/.wh.c" "$l/data/dir/.wh.deep" "$l/data/tree/.wh..wh..opq"
    echo new >"$l/data/tree/old/new"
    echo later >"$l/later/a"
    ln "$l/later/a" "$l/later/b"
    chown 1000:1000 "$l/later"
    # A snapshotter that applies a layer to the merged tree keeps the attributes of a directory.
    setfattr -n user.note -v "of a directory" "$l/data/dir"
    chmod 2770 "$l/data/dir"
    add_layer "$l"

    l=$shared/layer3
    mkdir -p "$l/data" "$l/later/sub"
    echo again >"$l/data/c"
    touch "$l/later/.wh.b" "$l/data/.wh.hole"
    # What was a directory becomes a file, and the other way round.
    echo file >"$l/empty"
    mkdir "$l/data/setid"
    echo x >"$l/data/setid/x"
    add_layer "$l"

    l=$shared/layer4
    mkdir -p "$l/data/setid"
    touch "$l/.wh.later" "$l/data/setid/.wh..wh..opq"
    echo capable >"$l/data/setid/capable"
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 "$l/data/setid/capable"
    add_layer "$l"

    printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$diffs" >"$shared/config"
    printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json",%s},"layers":[%s]}' \
        $type $type "$(blob "$shared/config")" "$layers" >"$shared/manifest"
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json",%s,"annotations":{"io.containerd.image.name":"%s"}}]}' \
        $type "$(blob "$shared/manifest")" $image >"$shared/oci/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$shared/oci/oci-layout"
    tar -C "$shared/oci" -cf "$shared/image.tar" .
    echo "$diffs" | tr -d '"' | tr , '\n' >"$shared/diffs"
}

version() { "$shared/debian/usr/bin/containerd" --version | cut -d' ' -f1,3; }

snapshotter=fuse
[ -n "${mount_program:-}" ] || snapshotter=overlayfs
# The overlayfs snapshotter of 1.6 does not map ids: ctr copies the image with other owners instead.
remap=(--uidmap 0:200000:65536 --gidmap 0:200000:65536)
[ $snapshotter = overlayfs ] || remap+=(--remap-labels)

ctr() { bounded 60 "$shared/debian/usr/bin/ctr" -a /run/containerd/c.sock "$@"; }
snapshots() { ctr snapshots --snapshotter $snapshotter "$@"; }
run() { ctr run --snapshotter $snapshotter "$@"; }

start_containerd() {
    setsid containerd -c "$home/config.toml" </dev/null >>"$results/containerd.log" 2>&1 &
    echo $! >/run/containerd.pid
    for _ in {1..300}; do
        if ctr version >/dev/null 2>&1; then return; fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    tail -n 3 "$results/containerd.log" >&2
    return 1
}

stop_containerd() {
    local pid
    pid=$(cat /run/containerd.pid)
    kill "$pid"
    for _ in {1..200}; do
        [ -e "/proc/$pid/exe" ] || return 0
        sleep 0.1
    done
    return 1
}

import() { ctr images import --snapshotter $snapshotter "$shared/image.tar"; }

start() {
    use_unpacked
    # The whole path is open: processes with remapped ids go through it.
    mkdir /run/containerd "$home/root" "$home/state" "$home/work"
    cat >"$home/config.toml" <<END
version = 2
root = "$home/root"
state = "$home/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "/run/containerd/c.sock"
[proxy_plugins.fuse]
  type = "snapshot"
  address = "/run/containerd/fuse.sock"
END
    LD_LIBRARY_PATH='' PYTHONPATH=$shared setsid "$shared/venv/bin/python" -B "$repo/scripts/engines/snapshotter.py" \
        "$home/fuse" /run/containerd/fuse.sock </dev/null >"$results/snapshotter.log" 2>&1 &
    for _ in {1..200}; do
        [ ! -S /run/containerd/fuse.sock ] || break
        sleep 0.1
    done
    [ -S /run/containerd/fuse.sock ] || skip "the snapshotter does not start: $(tail -n 1 "$results/snapshotter.log")"
    start_containerd || skip "containerd does not start: $(tail -n 1 "$results/containerd.log")"
    import
    run --rm $image try true || skip "no container runs"
}

stop() { stop_containerd; }

between() {
    local c
    ctr version || start_containerd
    for c in $(ctr containers ls -q); do
        ctr tasks kill -s KILL "$c" || true
        ctr tasks rm -f "$c" || true
        ctr containers rm "$c" || true
    done
    while read -r c; do umount -l "$c" || true; done < <(mounts_in "$home/work"; mounts_in "$home/state")
    # What a container that failed to start has left would stop the next one with its name.
    rm -rf --one-file-system "$home/state/io.containerd.runtime.v2.task/default"/*
    for c in $(snapshots ls | awk '$NF != "Committed" && NR > 1 { print $1 }'); do snapshots rm "$c" || true; done
    snapshots rm committed || true
    ctr images ls -q | grep -q . || import
    rm -rf --one-file-system "$home/work"
    mkdir "$home/work"
}

# top: the chain id of all layers; chain N: that of the first N.
chain() {
    local d id=''
    while read -r d; do
        if [ -z "$id" ]; then id=$d; else id=sha256:$(printf '%s %s' "$id" "$d" | sha256sum | cut -d' ' -f1); fi
    done < <(head -n "$1" "$shared/diffs")
    echo "$id"
}
top() { chain 4; }

# The root of a running container, for the host.
root_of() { echo "$home/state/io.containerd.runtime.v2.task/default/$1/rootfs"; }

# await CONTAINER PATH: waits for a file that a detached container makes.
await() {
    for _ in {1..100}; do
        [ -e "$(root_of "$1")$2" ] && return
        sleep 0.1
    done
    echo "no $2 in $1" >&2
    return 1
}

# mount_snapshot DIR KEY: by the command that ctr prints. mount(8) would look for
# the program in a PATH of its own, so the helper is called as containerd does it.
mount_snapshot() {
    local line type source options
    mkdir -p "$1"
    line=$(snapshots mounts "$1" "$2")
    read -r _ _ type source _ _ options <<<"$line"
    if [ "$type" = fuse3.fuse-overlayfs ]; then
        bounded 30 mount.fuse3 "$source" "$1" -o "$options" -t fuse-overlayfs
    else
        bounded 30 sh -c "$line"
    fi
}

# view KEY PARENT: labelled, or else a garbage collection may remove it.
view() {
    for _ in {1..10}; do
        snapshots view "$1" "$2" >/dev/null && snapshots label "$1" containerd.io/gc.root=now >/dev/null && return
        sleep 0.2
    done
    return 1
}

do_import() {
    ctr images rm --sync $image
    snapshots ls | wc -l
    import
    ctr images ls | sed 's/  */ /g'
    snapshots ls | awk '{ print $NF }'
    ctr images mount --snapshotter $snapshotter $image "$home/work" >/dev/null
    list "$home/work"
    ctr images unmount --snapshotter $snapshotter --rm "$home/work" >/dev/null
}

do_run() {
    run --rm $image c sh -c 'cat /data/a /data/c; stat -c "%n %A %u:%g" /data/* /data/*/* | sort; readlink /data/soft; ls -A / /data/tree/old'
    try run --rm $image c sh -c 'exit 7'
    try run --rm $image c nothere
    run --rm --cwd /data $image c sh -c 'pwd; touch /x; df / >/dev/null && sync && echo done'
}

do_run_options() {
    # ctr run has no option for the user.
    run --rm $image c su user -c '
        exec 2>&1; id; echo x >/home/user/x && cat /home/user/x; echo x >/data/a; cat /data/b; cat /data/dir/file
        ls /data/none; rm /home/user/mine && ls -A /home/user; touch /data/open/x; rm /etc/passwd; mkdir /d; :'
    run --rm --read-only $image d sh -c 'exec 2>&1; echo x >/data/a; rm /data/b; mkdir /d; cat /data/a'
    run --rm --mount type=tmpfs,dst=/data/dir,options=size=1m $image e sh -c 'echo x >/data/dir/x; ls -A /data/dir'
    mkdir "$home/work/bound"
    run --rm --mount "type=bind,src=$home/work/bound,dst=/data/new/dir,options=rbind:rw" $image f sh -c 'echo x >/data/new/dir/x; stat -c "%A %u:%g" /data/new'
    list "$home/work/bound"
}

# The tree of an image has no /empty directory and no /data/setid file any more.
image_changes=$(grep -vE 'setid|hole|/empty|dir/deep|mv dir/deep|tree/old' <<<"$changes")
image_changes+=$'\n'

do_changes() {
    run -d $image c sh -c "$image_changes touch /done; exec sleep 100"
    await c /done
    list "$(root_of c)" | grep -v '^dev/\|^etc/\|^run/'
}

do_exec() {
    run -d $image c sleep 100
    ctr tasks exec --exec-id e1 c sh -c "$image_changes cat /data/c; ls /data/tree"
    try ctr tasks exec --exec-id e3 c sh -c 'exit 9'
    ctr tasks kill -s KILL c
}

# To look up the user, ctr mounts the snapshot a second time, while the container
# runs. With the kernel's overlayfs the first mount loses its work directory.
do_exec_user() {
    run -d $image c sleep 100
    ctr tasks exec --exec-id e --user 1000 c sh -c 'id -u; echo new >/home/user/new && rm /home/user/mine && ls /home/user'
    ctr tasks exec --exec-id e2 c sh -c 'cat /home/user/new && rm -r /data/tree && mkdir /data/tree && echo x >>/data/a && ls -A /data/tree'
    list "$(root_of c)/home"
}

do_parallel() {
    local n pids=()
    for n in {1..8}; do
        run --rm $image "c$n" sh -c "$image_changes echo $n >/data/n; cat /data/n /data/tree/new" >"$home/work/$n" 2>&1 &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n"; done
    for n in {1..8}; do cat "$home/work/$n"; done
}

do_remap() {
    run --rm "${remap[@]}" $image c sh -c '
        cat /proc/self/uid_map; id
        stat -c "%n %A %u:%g" / /home/user /home/user/* /data/* /data/*/* | sort
        echo x >/data/new; mkdir /data/d; ln -s new /data/s; mkfifo /data/p
        chown 1000:1000 /data/new; chown -h 5:6 /data/s; chown 7:8 /data/a; chmod 4755 /data/a; ln /data/a /data/d/a
        stat -c "%n %A %u:%g" /data/new /data/d /data/s /data/p /data/a /data/d/a
        rm -r /data/tree && mkdir /data/tree && ls -A /data/tree
        cat /data/new /data/a'
}

do_remap_tree() {
    run -d "${remap[@]}" $image c sh -c "$(grep -v mknod <<<"$image_changes"); touch /done; exec sleep 100"
    await c /done
    # Not compared are capabilities of files: chown, by which the overlayfs snapshotter changes owners, clears them.
    list "$(root_of c)" | grep -v '^dev/\|^etc/\|^run/\| security\.capability='
}

do_remap_user() {
    run --rm "${remap[@]}" $image c su user -c '
        exec 2>&1; id; echo x >/home/user/x && cat /home/user/x; rm /home/user/mine; ls -A /home/user; echo x >/data/a; cat /data/b
        stat -c "%n %u:%g" /home/user /home/user/x; touch /data/open/x && stat -c %u:%g /data/open/x; cat /data/dir/file; :'
}

do_usage() {
    run -d $image c sh -c "$image_changes touch /done; exec sleep 100"
    await c /done
    # The size counts blocks, and extended attributes may have one of their own.
    # Whiteouts are one inode each, or share one: compared is a layer without any.
    snapshots usage "$(chain 1)" | awk 'NR > 1 { print $NF }'
    snapshots usage "$(top)" | awk 'NR > 1 { print ($NF > 0) }'
    snapshots usage c | awk 'NR > 1 { print ($NF > 0) }'
}

do_diff() {
    run -d $image c sh -c "$(grep -vE '^(ln [^-]|mv link3)' <<<"$image_changes"); touch /done; exec sleep 100"
    await c /done
    ctr tasks kill -s KILL c
    for _ in {1..50}; do ctr tasks rm -f c >/dev/null 2>&1 && break; sleep 0.1; done
    snapshots diff c >"$home/work/diff.tar.gz"
    list_tar "$home/work/diff.tar.gz" | grep -vE '/\.wh\..* n=|^(dev|etc|run|sys|proc|bin|tmp)/'
    echo "-- whiteouts"
    tar -tf "$home/work/diff.tar.gz" | grep '\.wh\.' | sort
}

do_commit() {
    run -d $image c sh -c "$image_changes touch /done; exec sleep 100"
    await c /done
    ctr tasks kill -s KILL c
    for _ in {1..50}; do ctr tasks rm -f c >/dev/null 2>&1 && break; sleep 0.1; done
    snapshots label c containerd.io/gc.root=now >/dev/null
    ctr containers rm --keep-snapshot c
    snapshots commit committed c
    snapshots info committed | jq -r '.Kind'
    snapshots prepare next committed >/dev/null
    mount_snapshot "$home/work/next" next
    # The committed layer is an upper layer with an index, whose entries are links too: the kernel with index=on counts
    # them as well when the layer becomes a lower one. Its driver here has index=off.
    list "$home/work/next" | sed -E 's/ n=[0-9]+ / /'
    bounded 30 sh -c "cd '$home/work/next/data' && rm -r tree && mkdir tree && echo more >>c && ls -A tree && cat c"
    umount "$home/work/next"
    mount_snapshot "$home/work/next" next
    bounded 30 cat "$home/work/next/data/c"
    umount "$home/work/next"
    snapshots rm next
}

do_view() {
    local n
    for n in 1 2 4; do
        view "v$n" "$(chain $n)"
        mount_snapshot "$home/work/v$n" "v$n"
        echo "-- view of $n"
        list "$home/work/v$n/data"
        try bounded 10 touch "$home/work/v$n/x"
        try bounded 10 rm "$home/work/v$n/data/a"
        umount "$home/work/v$n"
        snapshots rm "v$n"
    done
}

do_mounts() {
    snapshots prepare active "$(top)" >/dev/null
    mount_snapshot "$home/work/m" active
    # `ctr snapshots mounts` and the engine mount the same directories.
    bounded 30 bash -c "cd '$home/work/m' && ${image_changes//cd \/data/cd data}" 2>&1 | grep -v '/empty\|/tmp' || true
    list "$home/work/m/data"
    umount "$home/work/m"
    echo "daemons: $(daemons_left)"
    mount_snapshot "$home/work/m" active
    list "$home/work/m/data"
    umount "$home/work/m"
    snapshots prepare first >/dev/null
    mount_snapshot "$home/work/first" first
    echo x >"$home/work/first/x"
    umount "$home/work/first"
    snapshots commit one first
    view two one
    mount_snapshot "$home/work/first" two
    list "$home/work/first"
    umount "$home/work/first"
    snapshots rm two
    snapshots rm one
}

# mount_by_hand TARGET OPTIONS: what containerd executes for a mount.
mount_by_hand() {
    if [ -n "$mount_program" ]; then
        bounded 30 mount.fuse3 overlay "$1" -o "$2" -t fuse-overlayfs
    else
        bounded 30 mount -t overlay overlay "$1" -o "$2"
    fi
}

do_supported() {
    cd "$home/work" || return
    mkdir lower1 lower2 m
    echo 1 >lower1/one
    echo 2 >lower2/two
    mount_by_hand "$home/work/m" "ro,lowerdir=$home/work/lower2:$home/work/lower1"
    list m
    try bounded 10 touch m/x
    umount m
    mount_by_hand "$home/work/m" "lowerdir=$home/work/lower2:$home/work/lower1"
    list m
    try bounded 10 touch m/x
    umount m
    echo "daemons: $(daemons_left)"
}

do_options() {
    local option o
    cd "$home/work" || return
    mkdir -p lower/dir m upper work
    echo 1 >lower/dir/one
    for option in rw nodev,nosuid noexec noatime dev,suid writeback=0 volatile fsync=0 noacl static_nlink threaded=1 squash_to_root; do
        o="lowerdir=$home/work/lower,upperdir=$home/work/upper,workdir=$home/work/work"
        # What the kernel does not know is left out for it.
        if [ -n "$mount_program" ] || [[ ! $option =~ =|noacl|nlink|squash ]]; then o+=,$option; fi
        echo "-- $option"
        mount_by_hand "$home/work/m" "$o" || { echo "not mounted"; continue; }
        bounded 10 sh -c 'cat m/dir/one; echo x >m/dir/new; rm m/dir/new; ls m/dir'
        umount m
        # A volatile mount leaves a mark.
        rm -rf upper work
        mkdir upper work
    done
}

do_restart() {
    run -d $image c sh -c 'echo run >/data/run; exec sleep 100'
    await c /data/run
    stop_containerd
    list "$(root_of c)/data" | grep '^run'
    start_containerd
    ctr tasks ls | awk '{ print $1, $3 }'
    ctr tasks exec --exec-id e1 c sh -c 'cat /data/run /data/a; echo more >>/data/run; cat /data/run'
    run --rm $image d cat /data/c
    ctr tasks kill -s KILL c
    for _ in {1..50}; do ctr tasks rm -f c >/dev/null 2>&1 && break; sleep 0.1; done
    echo "mounts: $(mounts_in "$home" | wc -l), daemons: $(daemons_left)"
}

do_remove() {
    run -d $image c sh -c "$image_changes exec sleep 100"
    run --rm "${remap[@]}" $image d true
    try snapshots rm "$(top)" | grep -c child
    ctr tasks kill -s KILL c
    for _ in {1..50}; do ctr tasks rm -f c >/dev/null 2>&1 && break; sleep 0.1; done
    ctr containers rm c
    for c in $(snapshots ls | awk 'NR > 1 { print $1 }' | grep -e '-200000' || true); do snapshots rm "$c"; done
    snapshots ls | awk '{ print $NF }'
    ctr images rm --sync $image
    snapshots ls | wc -l
    echo "mounts: $(mounts_in "$home" | wc -l), daemons: $(daemons_left)"
    find "$home/fuse/snapshots" "$home/root/io.containerd.snapshotter.v1.overlayfs/snapshots" -mindepth 1 2>/dev/null | wc -l
}
