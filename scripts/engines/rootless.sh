# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Podman as an ordinary user. See scripts/engines/lib.sh.
#
# The user's own mounts of the kernel's overlayfs know neither redirect_dir nor
# index: layers are compared as the tree that they make, without link counts.

# shellcheck source=scripts/engines/podman-common.sh
. "$repo/scripts/engines/podman-common.sh"

title='Podman as an ordinary user'
step image 'The tree of an imported image'
step --short run 'Run: output, exit status, standard input, users, read-only'
step --short failed-run 'Runs that fail: status, and neither a mount nor a daemon stays'
step --short changes 'Changes of every kind in a container, its tree'
step --short owners 'Change owners, commit: the owners in the layer'
step keep-id 'Run with `--userns=keep-id`'
step keep-id-owners 'Change owners under `--userns=keep-id`, commit'
step uidmap 'Run with `--uidmap` of several ranges'
step --short uidmap-owners 'Change owners under `--uidmap`, commit'
step userns-auto 'Run with `--userns=auto`'
step userns-nomap 'Run with `--userns=nomap`'
step --short overlay-volume 'Overlay volume: `-v DIR:/x:O`'
step overlay-keep-id 'Overlay volume under `--userns=keep-id`'
step overlay-upper 'Overlay volume that keeps its upper directory'
step rootfs-overlay 'An overlay of a directory as the root: `--rootfs DIR:O`'
step image-mount 'An image as a volume: `--mount type=image`'
step unshare-mount 'The tree of a container by `podman unshare`, changed from outside'
step copy-out 'Copy out of a container'
step copy-in 'Copy into a stopped and a running container'
step volume 'A new volume takes the content of the image'
step restart 'Exec, stop, start, kill a container'
step --limit 180 build-stages 'Build with two stages: `COPY --from`, owners, links, set-id'
step --limit 180 build-replace 'Build: `rm -r d; mkdir d` in one step, and in two'
step --limit 90 parallel 'Eight containers at once'
step --short reset 'System reset: no file or mount is left'

prepare() {
    install_podman
    make_images
}
version() { echo "$(/usr/bin/podman --version), $(crun --version | head -n 1)"; }
start() {
    configure
    become_user
    import_image
}

# In a user namespace there are no devices to make.
changes=$plain_changes
layers_of() { flat_layers_of "$1"; }
show="($show) | sed 's/ n=[0-9]*//'"

# mapped OPTION... : changes of every kind, seen from inside.
mapped() { run_in "$@" t:1 sh -c "cat /proc/self/uid_map /proc/self/gid_map; id; cd /data; $show; touch /tmp/made; stat -c '%u:%g' /tmp/made; $changes cd /data; $show"; }
# mapped_owners OPTION... : owners that a container sets, in the layer of it.
mapped_owners() {
    podman run --user 0:0 --name c1 "$@" t:1 sh -c 'cd /data; chown 5:6 a dir soft; chown -h 5:6 abs; chown -R 7:8 tree; echo x >new; chown 5:6 new; chown 0:0 b; mkdir made; chown 9:10 made; chmod 2775 made; touch made/inherits; '"$show"
    podman commit -q c1 localhost/owners:1
    flat_layers_of localhost/owners:1
    run_in owners:1 sh -c "cd /data; $show"
    podman rmi -f owners:1 >/dev/null
}

do_keep_id() {
    mapped --user 0:0 --userns=keep-id
    run_in --userns=keep-id t:1 sh -c "id -u; id -g; ls -n /data/open; echo x >/data/open/mine; stat -c '%u:%g' /data/open/mine; echo x >>/data/a || echo refused"
}
do_keep_id_owners() { mapped_owners --userns=keep-id; }
do_uidmap() { mapped --uidmap 0:1:1000 --uidmap 1000:0:1 --uidmap 1001:1001:64000 --gidmap 0:1:1000 --gidmap 1000:0:1 --gidmap 1001:1001:64000; }
do_uidmap_owners() { mapped_owners --uidmap 0:1:65536 --gidmap 0:1:65536; }
do_userns_auto() {
    mapped --userns=auto:size=65536
    mapped_owners --userns=auto:size=65536
}
do_userns_nomap() {
    mapped --user 0:0 --userns=nomap
    mapped_owners --userns=nomap
}

do_overlay_keep_id() {
    overlay_source
    run_in --userns=keep-id --user 0:0 -v "$home/over/data:/data:O" t:1 sh -c "$changes cd /data; $show"
    run_in --userns=keep-id -v "$home/over/data:/data:O" t:1 sh -c "cd /data; id -u; echo x >open/mine; stat -c '%u:%g' open/mine; $show" 2>/dev/null
    # shellcheck disable=SC2016
    within 'list "$1"' "$home/over"
}

do_unshare_mount() {
    podman create --name c1 t:1 sh -c "cd /data; $show" >/dev/null
    # shellcheck disable=SC2016
    within '
        m=$(timeout 50 podman mount c1)
        cd "$m/data"
        echo more >>a; chown 5:6 a; rm -r tree; mkdir tree; echo x >tree/new; setfattr -n user.x -v y b; ln c hard; chmod 4711 c; mv dir moved
        cd /
        list "$m"
        timeout 50 podman umount c1 >/dev/null' | sed 's/ n=[0-9]*//'
    podman start -a c1
}
