# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Podman as root. See scripts/engines/lib.sh.
#
# With a storage program the engine finds the changes of a layer by comparing
# trees, with the kernel's overlayfs by reading its upper directory: the layers
# have different entries. With redirect_dir=on it compares trees in both cases.
# With index=on the kernel keeps hard links when it copies a file up, as the
# programs do.

# shellcheck source=scripts/engines/podman-common.sh
. "$repo/scripts/engines/podman-common.sh"

twice='Podman 4.3 as root shifts the owners twice with a storage program: by idmapped mounts of the layers and by `uidmapping=`'
title='Podman as root'
step image 'The tree of an imported image'
step --short run 'Run: output, exit status, standard input, users, read-only'
step --short failed-run 'Runs that fail: status, and neither a mount nor a daemon stays'
step --short changes 'Changes of every kind in a container, its tree'
step diff 'List the changes of a container'
step export 'Export a container'
step --short commit 'Commit a container: the layer, a container of it'
step owners 'Change owners, commit: the owners in the layer'
step restart 'Exec, stop, start, kill a container'
step copy-out 'Copy out of a container'
step copy-in 'Copy into a stopped and a running container'
step volume 'A new volume takes the content of the image'
step --short overlay-volume 'Overlay volume: `-v DIR:/x:O`'
step overlay-upper 'Overlay volume that keeps its upper directory'
step rootfs 'A directory as the root: `--rootfs DIR`'
step rootfs-overlay 'An overlay of a directory as the root: `--rootfs DIR:O`'
step --short image-mount 'An image as a volume: `--mount type=image`'
step --limit 180 build-stages 'Build with two stages: `COPY --from`, owners, links, set-id, capabilities'
step --limit 300 build-thirty 'Build with 30 layers'
step --short --limit 180 build-replace 'Build: `rm -r d; mkdir d` in one step, and in two'
step --limit 180 build-deep 'Build: paths of 40 directories'
step --limit 180 build-squash 'Build with `--squash-all`'
step --limit 180 save-load 'Save an image, remove it, load it: two formats'
step sizes 'Sizes of images and containers'
step --limit 90 parallel 'Eight containers at once'
step files 'Many files, a large file, locks'
step hard-links 'Write, chmod, rename and remove files with several links, commit'
step --uncounted "$twice" uidmap 'Identifiers by `--uidmap`'
step --uncounted "$twice" userns-auto 'Identifiers by `--userns=auto`'
step --short reset 'System reset: no file, mount or daemon is left'

prepare() {
    install_podman
    make_images
}
version() { echo "$(/usr/bin/podman --version), $(crun --version | head -n 1)"; }
start() {
    if [ "$program" = kernel ]; then configure 'mountopt = "redirect_dir=on,index=on"'; else configure; fi
    import_image
}

do_hard_links() {
    podman run --name c1 t:1 sh -c 'cd /data; echo more >>link1; cat dir/link2; chmod 600 dir/link2; mv dir/link2 moved; ln dir/file one; ln one two; rm dir/file; echo x >>two; ln -s two soft2; cd /data; '"$show"
    tree_of c1
    podman commit -q c1 localhost/linked:1
    layers_of localhost/linked:1
    podman rmi -f linked:1 >/dev/null
}
do_uidmap() {
    podman run --name c1 --uidmap 0:200000:65536 --gidmap 0:300000:65536 t:1 sh -c "$plain_changes cat /proc/self/uid_map; cd /data; $show"
    podman commit -q c1 localhost/mapped:1
    layers_of localhost/mapped:1
}

do_userns_auto() {
    printf 'containers:500000:655360\n' >/run/sub
    mount --bind /run/sub /etc/subuid
    mount --bind /run/sub /etc/subgid
    run_in --userns=auto:size=65536 t:1 sh -c "$plain_changes cd /data; $show"
}
