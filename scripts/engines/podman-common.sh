# shellcheck shell=bash
# shellcheck disable=SC2154
# Shared by podman.sh, rootless.sh, buildah.sh and toolbox.sh: source it, do not
# run it.
#
# Offers: install_podman, configure, become_user, podman and buildah with limits,
# inspection of containers (show_in, tree_of, layers_of), and the steps that
# root and an ordinary user have in common.

# shellcheck source=scripts/engines/base.sh
. "$repo/scripts/engines/base.sh"

install_podman() {
    need podman podman buildah buildah crun crun newuidmap uidmap skopeo skopeo conmon conmon jq jq perl perl \
        /etc/containers/policy.json golang-github-containers-image
}

# The image t:1, and the sources of the builds.
make_images() {
    make_root "$shared/root"
    ln -s busybox "$shared/root/bin/seq"
    ln -s busybox "$shared/root/bin/flock"
    tar_of "$shared/root" "$shared/root.tar"

    local c=$shared/context n
    mkdir -p "$c/files/sub" "$c/added"
    echo one >"$c/files/one"
    echo two >"$c/files/sub/two"
    chmod 600 "$c/files/one"
    ln -s one "$c/files/soft"
    echo in >"$c/added/in"
    ln "$c/added/in" "$c/added/hard"
    chmod 2755 "$c/added/in"
    chown 70:80 "$c/added/in"
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 "$c/added/in"
    find "$c" -exec touch -h -d '2012-12-12 12:12:12 UTC' {} +
    tar_of "$c/added" "$c/added.tar"
    rm -r "$c/added"
    chmod -R a+rX "$c"

    cat >"$c/Stages" <<'END'
FROM localhost/t:1 AS first
RUN mkdir -p /out/sub && echo built >/out/built && echo single >/out/single && ln /out/built /out/sub/hard && chmod 6755 /out/built
RUN rm -r /data/tree && mkdir /data/tree && echo new >/data/tree/new
RUN chown -R 5:6 /out && ln -s sub/hard /out/soft && mkfifo /out/fifo
FROM localhost/t:1
COPY --from=first /out /out
COPY --from=first --chown=7:8 /data/tree /tree
COPY files /files
ADD added.tar /added
RUN echo more >>/out/single && find /out /tree /files /added -exec stat -c "%n %A %u:%g" {} + | sort >/listing
END
    {
        echo 'FROM localhost/t:1'
        for n in {1..28}; do
            case $((n % 7)) in
            0) echo "RUN rm -r /l/$((n - 1)) && mkdir /l/$((n - 1)) && echo $n >/l/$((n - 1))/new" ;;
            1) echo "RUN mkdir -p /l/$n/d && echo $n >/l/$n/d/f && echo $n >/l/last" ;;
            2) echo "RUN chmod 4755 /l/last && chown $n:$n /l/last && mkdir /l/$n" ;;
            3) echo "RUN ln /l/last /l/hard$n && mkdir /l/$n" ;;
            4) echo "RUN mv /l/$((n - 3))/d/f /l/moved && rm /l/hard$((n - 1)) && mkdir /l/$n" ;;
            5) echo "RUN echo $n >>/l/moved && ln -s moved /l/soft$n && mkdir /l/$n" ;;
            6) echo "RUN rm -f /data/fifo /data/c && cp -a /data/dir /l/$n && echo $n >/l/$n/old" ;;
            esac
        done
        echo 'COPY files /l/files'
        echo 'RUN rm -r /l/files/sub /l/last && find /l -exec stat -c "%n %A %u:%g" {} + | sort >/listing'
    } >"$c/Thirty"
    cat >"$c/Replace" <<'END'
FROM localhost/t:1
RUN rm -r /data/tree && mkdir /data/tree && echo in-one >/data/tree/only
RUN rm -r /data/dir
RUN mkdir /data/dir && echo in-two >/data/dir/only && rm -r /home && echo file >/home
RUN rm /home && mkdir -p /home/user && rm -r /data/open && ln -s dir /data/open
END
    cat >"$c/Deep" <<'END'
FROM localhost/t:1
RUN d=/deep; for n in $(seq 40); do d=$d/a-directory-with-a-name-of-forty-characters-$n; done; mkdir -p $d && echo bottom >$d/file && ln $d/file /deep/hard
RUN d=/deep; for n in $(seq 40); do d=$d/a-directory-with-a-name-of-forty-characters-$n; done; echo more >>$d/file; chown 5:6 $d; mkdir $d/more
RUN d=/deep; for n in $(seq 39); do d=$d/a-directory-with-a-name-of-forty-characters-$n; done; mv $d/*-40 $d/moved && rm /deep/hard
END
}

# private_tmp: an empty /tmp, because engines leave files there, with what this
# run needs of the old one at its place.
private_tmp() {
    local d n=0 kept=()
    for d in "$scratch" "$repo" "$results" "$tools"; do
        [[ $d == /tmp/* && -d $d ]] || continue
        mkdir -p "/run/kept/$n"
        mount --bind "$d" "/run/kept/$n"
        kept[n]=$d
        n=$((n + 1))
    done
    mount -t tmpfs -o mode=1777 tmp /tmp
    for n in ${kept[@]+"${!kept[@]}"}; do
        mkdir -p "${kept[n]}"
        mount --bind "/run/kept/$n" "${kept[n]}"
        umount "/run/kept/$n"
    done
    cd "$home" || return
}

# configure [LINE]: storage and containers of $home only. The runtime is crun, without
# what a machine with few privileges refuses: limits of processes and oom scores.
configure() {
    local c=$home/conf line=
    private_tmp
    [ -z "$mount_program" ] || line="mount_program = \"$mount_program\""
    mkdir -p "$c" "$home/bin"
    cat >"$c/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$home/storage"
rootless_storage_path = "$home/storage"
runroot = "$home/run"
[storage.options.overlay]
$line
$*
END
    cat >"$c/containers.conf" <<END
[containers]
cgroups = "${cgroups:-disabled}"
netns = "none"
log_driver = "k8s-file"
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
[engine.runtimes]
crun = ["$home/bin/crun"]
END
    cat >"$home/bin/crun" <<'END'
#!/bin/sh
before=
for word; do
    case $before in
    --bundle | -b) file=$word/config.json ;;
    --process) file=$word ;;
    *) file= ;;
    esac
    before=$word
    [ -n "$file" ] || continue
    new=$(jq -c 'del(.process.rlimits, .process.oomScoreAdj, .rlimits)' "$file") && printf '%s\n' "$new" >"$file"
done
exec /usr/bin/crun "$@"
END
    chmod 755 "$home/bin/crun"
    export CONTAINERS_STORAGE_CONF=$c/storage.conf CONTAINERS_CONF=$c/containers.conf REGISTRIES_CONFIG_PATH=$c/registries.conf
    export BUILDAH_RUNTIME=$home/bin/crun
    : >"$c/registries.conf"
}

# become_user: from here podman and buildah run as the user eco, whose accounts
# and devices are those of this mount namespace.
user=
become_user() {
    local e=$home/etc
    user=eco
    mkdir -p "$e" "$home/tmp"
    { cat /etc/passwd; echo "eco:x:1500:1500::$home:/bin/sh"; echo 'containers:x:1600:1600::/:/bin/false'; } >"$e/passwd"
    { cat /etc/group; echo 'eco:x:1500:'; echo 'containers:x:1600:'; } >"$e/group"
    echo 'eco:400000:655360' >"$e/subuid"
    cp "$e/subuid" "$e/subgid"
    local f
    for f in passwd group subuid subgid; do
        [ -e "/etc/$f" ] || touch "/etc/$f"
        mount --bind "$e/$f" "/etc/$f"
    done
    mknod -m 666 "/run/fuse" c 10 229
    mount --bind /run/fuse /dev/fuse
    mkdir -p /run/user/1500
    chmod 700 /run/user/1500
    chown 1500:1500 /run/user /run/user/1500
    chown -R 1500:1500 "$home"
    # Directories of the configuration stay readable for all.
    chmod 755 "$home" "$home/tmp"
}

# as_user SECONDS COMMAND... : as root, or as eco after become_user.
as_user() {
    local limit=$1
    shift
    if [ -z "$user" ]; then
        bounded "$limit" "$@"
    else
        bounded "$limit" setpriv --reuid 1500 --regid 1500 --clear-groups --reset-env env PATH="$PATH" HOME="$home" \
            XDG_RUNTIME_DIR=/run/user/1500 TMPDIR="$home/tmp" LC_ALL=C CONTAINERS_STORAGE_CONF="$CONTAINERS_STORAGE_CONF" \
            CONTAINERS_CONF="$CONTAINERS_CONF" REGISTRIES_CONFIG_PATH="$REGISTRIES_CONFIG_PATH" BUILDAH_RUNTIME="$BUILDAH_RUNTIME" "$@"
    fi
}
podman() { as_user "${long:-50}" /usr/bin/podman "$@"; }
buildah() { as_user "${long:-50}" /usr/bin/buildah "$@"; }

import_image() {
    podman import -q --change 'CMD ["/bin/sh"]' "$shared/root.tar" localhost/t:1
}

# within COMMANDS: bash as root, in the namespaces of the user; the functions of
# the listing are there.
within() {
    local script
    script="set -e; started=$started home=$home; $(declare -f bounded list list_tar try); $1"
    shift
    if [ -z "$user" ]; then bash -c "$script" bash "$@"; else podman unshare bash -c "$script" bash "$@"; fi
}

# tree_of CONTAINER, image_tree IMAGE: the mounted tree.
# shellcheck disable=SC2016
tree_of() { echo "-- container $1"; within 'm=$(timeout 50 podman mount "$1"); list "$m"; timeout 50 podman umount "$1" >/dev/null' "$1"; }
# shellcheck disable=SC2016
image_tree() { echo "-- image $1"; within 'm=$(timeout 50 podman image mount "$1"); list "$m"; timeout 50 podman image umount "$1" >/dev/null' "$1"; }

# layers_of IMAGE: each layer of it, unpacked.
# shellcheck disable=SC2016
layers_of() {
    local d=$home/layers layer
    rm -rf "$d"
    podman save -q --format docker-dir -o "$d" "$1"
    for layer in $(jq -r '.layers[].digest' "$d/manifest.json"); do
        echo "-- layer"
        within 'list_tar "$1"' "$d/${layer#sha256:}"
    done
    within 'rm -rf "$1"' "$d"
}

# flat_layers_of IMAGE: the tree that its layers make, without link counts and the
# kernel's marks.
# shellcheck disable=SC2016
flat_layers_of() {
    within 'rm -rf "$1" "$1.tree"' "$home/layers"
    podman save -q --format docker-dir -o "$home/layers" "$1"
    echo "-- layers of $1"
    within '
        d=$1 t=$1.tree
        mkdir "$t"
        for layer in $(jq -r ".layers[].digest" "$d/manifest.json"); do
            layer=$d/${layer#sha256:}
            tar -tf "$layer" | grep -E "(^|/)\.wh\." | while read -r name; do
                at=$t/$(dirname "$name") gone=$(basename "$name")
                if [ "$gone" = .wh..wh..opq ]; then find "$at" -mindepth 1 -delete 2>/dev/null || true
                else rm -rf "$at/${gone#.wh.}"; fi
            done
            # An entry replaces one of another type.
            tar -tf "$layer" | while read -r name; do
                at=$t/${name%/}
                if [ "$at" != "$t/$name" ]; then [ -d "$at" ] && [ ! -L "$at" ] || rm -f "$at"
                elif [ -d "$at" ] && [ ! -L "$at" ]; then rm -r "$at"
                fi
            done
            timeout 50 tar -C "$t" --xattrs --xattrs-include="*" --numeric-owner --exclude=".wh.*" --exclude="*dev/null" --exclude="*data/zero" -xpf "$layer"
        done
        list "$t"
        rm -rf "$d" "$t"' "$home/layers" | sed 's/ n=[0-9]*//; / user\.overlay\./d'
}

# What a shell in a container sees at the current directory.
show='find . ! -type d -exec stat -c "%n %A %u:%g n=%h s=%s %t:%T" {} + | sort; find . -type d -exec stat -c "%n/ %A %u:%g" {} + | sort;
find . -type f -exec md5sum {} + | sort -k 2; find . -type l | sort | while read -r l; do echo "$l -> $(readlink "$l")"; done'

# The same without a device, for user namespaces.
# shellcheck disable=SC2034
plain_changes=${changes/mknod null c 1 3/}

run_in() { podman run --rm "$@"; }

between() {
    podman rm -fat 0
    podman volume rm -fa
}

# ---------------------------------------------------------------- common steps

do_image() { image_tree localhost/t:1; }

do_run() {
    run_in t:1 sh -c 'echo out; id; cat /etc/passwd; ls /data'
    try run_in t:1 sh -c 'exit 42'
    echo input | run_in -i t:1 sh -c 'cat; cat /data/a'
    run_in --user 1000:1001 t:1 sh -c 'cat /data/b; echo x >>/data/a || echo refused; touch /data/open/mine; stat -c "%n %u:%g %A" /data/open/*'
    run_in --read-only t:1 sh -c 'touch /data/x || echo refused; cat /data/a' 2>/dev/null
}

# A program that is not there, an overlay volume of a directory that is not there, a
# root that is not there. What is left may take a moment to end.
do_failed_run() {
    try run_in t:1 /no/such/program 2>/dev/null
    try run_in -v "$home/no-such-directory:/x:O" t:1 true 2>/dev/null
    try run_in --rootfs "$home/no-such-root:O" true 2>/dev/null
    for _ in {1..50}; do
        [ -n "$(mounts_in "$home" | grep '/merged$')" ] || [ "$(daemons_left)" != 0 ] || break
        sleep 0.1
    done
    mounts_in "$home" | grep '/merged$' || echo "no mount of a container"
    echo "daemons: $(daemons_left)"
}

do_changes() {
    podman run --name c1 t:1 sh -c "$changes"
    tree_of c1
    podman start -a c1 >/dev/null 2>&1 || true
    podman run --name c2 t:1 sh -c "$changes cd /data; $show"
}

do_diff() {
    podman run --name c1 t:1 sh -c "$changes"
    podman diff c1 | sort
    podman run --name c2 t:1 sh -c 'rm -r /data/tree; mkdir /data/tree; touch /data/tree/new; rm /data/c; echo >/data/c; chmod 600 /data/a; chown 1:1 /data/dir'
    podman diff c2 | sort
}

do_export() {
    podman run --name c1 t:1 sh -c "$changes"
    podman export -o "$home/export.tar" c1
    # shellcheck disable=SC2016
    within 'list_tar "$1"' "$home/export.tar"
    rm -f "$home/export.tar"
}

do_commit() {
    podman run --name c1 t:1 sh -c "$changes"
    podman commit -q c1 localhost/committed:1
    layers_of localhost/committed:1
    run_in committed:1 sh -c "cd /data; $show"
    podman rmi -f committed:1 >/dev/null
}

do_owners() {
    podman run --name c1 t:1 sh -c 'chown 5:6 /data/a /data/dir /data/soft; chown -h 5:6 /data/abs; chown -R 7:8 /data/tree; echo x >/data/new; chown 5:6 /data/new; mkdir /data/made; chown 9:10 /data/made; chmod 2775 /data/made; touch /data/made/inherits; mkdir /data/made/too'
    podman commit -q c1 localhost/owners:1
    run_in owners:1 sh -c "cd /data; $show"
    layers_of localhost/owners:1
    podman rmi -f owners:1 >/dev/null
}

# Writes the exit status of a container that is stopped and started again.
do_restart() {
    podman run -d --name c1 t:1 sh -c 'echo run >>/data/a; echo x >/tmp/x; sleep 100' >/dev/null
    podman exec c1 sh -c 'while ! [ -e /tmp/x ]; do sleep 0.1; done; rm -r /data/tree; mkdir /data/tree; mv /data/c /data/dir; cd /data; '"$show"
    podman stop -t 0 c1 >/dev/null 2>&1
    podman start c1 >/dev/null
    podman exec c1 sh -c 'while [ "$(wc -l </data/a)" -lt 3 ]; do sleep 0.1; done; cd /data; '"$show"
    podman kill c1 >/dev/null
    podman wait c1
    tree_of c1
}

do_copy_out() {
    podman run --name c1 t:1 sh -c "$changes"
    mkdir "$home/out"
    [ -z "$user" ] || chown 1500:1500 "$home/out"
    podman cp c1:/data/. "$home/out/all"
    podman cp c1:/data/dir "$home/out"
    podman cp c1:/data/c "$home/out/file"
    # shellcheck disable=SC2016
    within 'list "$1"; rm -rf "$1"' "$home/out"
}

do_copy_in() {
    podman create --name c1 t:1 sleep 100 >/dev/null
    podman cp "$shared/context/files" c1:/data/dir
    podman cp "$shared/context/files/one" c1:/data/a
    tree_of c1
    podman start c1 >/dev/null
    podman cp "$shared/context/files/." c1:/data/tree
    podman cp "$shared/context/files/sub" c1:/data
    podman exec c1 sh -c "cd /data; $show"
}

do_volume() {
    podman run --name c1 -v vol:/data t:1 sh -c "$changes"
    run_in -v vol:/x t:1 sh -c "cd /x; $show"
    run_in -v vol2:/home t:1 sh -c "cd /home; $show"
}

# The content of an overlay volume is in $home/over; after it the source is unchanged.
overlay_source() {
    # shellcheck disable=SC2016
    within 'rm -rf "$1"; mkdir -m 755 "$1"; tar -C "$1" --xattrs --xattrs-include="user.*" --numeric-owner -xpf "$2" --exclude="./data/zero" --exclude="./dev/*"' "$home/over" "$shared/root.tar"
}

do_overlay_volume() {
    overlay_source
    run_in -v "$home/over/data:/data:O" t:1 sh -c "$changes cd /data; $show"
    podman run --name c1 -v "$home/over:/x:O" t:1 sh -c "cat /x/data/a; echo more >>/x/data/a; rm -r /x/data/tree; mkdir /x/data/tree; cd /x/data; $show"
    # shellcheck disable=SC2016
    within 'list "$1"' "$home/over"
}

do_overlay_upper() {
    overlay_source
    # shellcheck disable=SC2016
    within 'mkdir -p "$1/upper" "$1/work"' "$home"
    run_in -v "$home/over/data:/data:O,upperdir=$home/upper,workdir=$home/work" t:1 sh -c "$changes"
    run_in -v "$home/over/data:/data:O,upperdir=$home/upper,workdir=$home/work" t:1 sh -c "cd /data; $show"
    # shellcheck disable=SC2016
    within 'list "$1/over"; rm -rf "$1/upper" "$1/work"' "$home"
}

do_rootfs() {
    overlay_source
    podman run --rm --rootfs "$home/over" sh -c "cd /data; echo more >>a; $show"
    # shellcheck disable=SC2016
    within 'list "$1"' "$home/over"
}

do_rootfs_overlay() {
    overlay_source
    podman run --rm --rootfs "$home/over:O" sh -c "$changes cd /data; $show"
    # shellcheck disable=SC2016
    within 'list "$1"' "$home/over"
}

do_image_mount() {
    run_in --mount type=image,source=localhost/t:1,destination=/img t:1 sh -c "cd /img/data; touch x 2>/dev/null || echo refused; $show"
    run_in --mount type=image,source=localhost/t:1,destination=/img,rw=true t:1 sh -c "cd /img/data; echo x >>a; rm -r tree; mkdir tree; $show"
    image_tree localhost/t:1
}

# build FILE [OPTION...]: builds b:1 without any time in it.
build() {
    local f=$1
    shift
    if [ "${builder:-podman}" = buildah ]; then
        long=270 buildah bud --network none --pull-never --timestamp 0 --layers -f "$shared/context/$f" -t localhost/b:1 "$@" "$shared/context" >"$home/build.log" 2>&1 || { cat "$home/build.log" >&2; return 1; }
    else
        long=270 podman build --network none --pull=never --timestamp 0 -f "$shared/context/$f" -t localhost/b:1 "$@" "$shared/context" >"$home/build.log" 2>&1 || { cat "$home/build.log" >&2; return 1; }
    fi
}
# The kernel's mounts of an ordinary user break hard links when they copy up.
links() { if [ -z "$user" ]; then cat; else sed 's/ n=[0-9]*//'; fi; }
built() {
    image_tree localhost/b:1 | links
    layers_of localhost/b:1
    podman rmi -f b:1 >/dev/null
}

do_build_stages() { build Stages; built; }
do_build_thirty() {
    build Thirty
    image_tree localhost/b:1 | links
    flat_layers_of localhost/b:1
    podman rmi -f b:1 >/dev/null
}
do_build_replace() { build Replace; built; }
do_build_deep() { build Deep; built; }
do_build_squash() { build Replace --squash-all; built; }

do_save_load() {
    local format
    build Replace
    for format in docker-archive oci-archive; do
        podman save -q --format $format -o "$home/saved.tar" localhost/b:1
        podman rmi -f b:1 >/dev/null
        podman load -q -i "$home/saved.tar"
        rm -f "$home/saved.tar"
        image_tree localhost/b:1
    done
    podman rmi -f b:1 >/dev/null
}

do_sizes() {
    podman create --name c1 t:1 sh -c 'head -c 100000 /dev/zero >/zeros' >/dev/null
    podman images --format '{{.Repository}} {{.Tag}} {{.Size}}' localhost/t
    podman start -a c1
    podman ps -as --format '{{.Names}} {{.Size}}'
    podman inspect --size -f '{{.SizeRw}}' c1
}

do_parallel() {
    local n jobs=()
    for n in {1..8}; do
        run_in t:1 sh -c "$changes cd /data; $show" >"$home/parallel.$n" &
        jobs+=($!)
    done
    for n in "${jobs[@]}"; do wait "$n"; done
    for n in {1..8}; do md5sum <"$home/parallel.$n"; done
    cat "$home/parallel.1"
    rm "$home"/parallel.*
}

do_files() {
    run_in t:1 sh -c 'mkdir /many; cd /many; for n in $(seq 300); do mkdir d$n; echo $n >d$n/f; ln d$n/f l$n; done; ls | wc -l; mv d1 e1; rm -r d[2-9]*; find . | sort | md5sum; cd /; rm -r many; ls / | sort'
    run_in t:1 sh -c 'cd /data; dd if=/dev/urandom of=big bs=1M count=20 conv=notrunc 2>/dev/null; s=$(md5sum <big); cp big /tmp/copy; [ "$s" = "$(md5sum </tmp/copy)" ] && echo equal; stat -c "%s %A %u:%g" big; (flock 9; echo locked >&9; cat big | wc -c) 9>>lock; cat lock'
}

do_reset() {
    podman run -d --stop-timeout 0 --name c1 t:1 sleep 100 >/dev/null
    podman system reset -f >/dev/null 2>&1
    # shellcheck disable=SC2016
    within 'find "$1/storage" "$1/run" -mindepth 1 2>/dev/null | grep -vE "\.lock$|^$1/storage/[a-z-]*$" || true' "$home"
    mounts_in "$home"
    import_image >/dev/null
    run_in t:1 cat /data/a
    [ -n "$user" ] || echo "daemons: $(daemons_left)"
}
