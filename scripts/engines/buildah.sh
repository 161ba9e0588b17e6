# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Buildah as an ordinary user. See scripts/engines/lib.sh, and rootless.sh for
# how layers are compared.

# shellcheck source=scripts/engines/podman-common.sh
. "$repo/scripts/engines/podman-common.sh"

shifted='with a storage program Buildah 1.28 writes the shifted owners into the layer'
title='Buildah as an ordinary user'
step --short unshare-mount 'Mount by `buildah unshare`, change every kind of file, commit'
step run-oci 'Run with a container runtime, commit'
step run-chroot 'Run with `--isolation chroot`, commit'
step --short owners 'Change owners, commit: the owners in the layer'
step run-overlay 'Run with an overlay volume: `-v DIR:/x:O`'
step scratch 'An image from scratch: copy a tree, change owners'
step add 'Copy and add files: owners, archives, directories over files'
step --limit 180 bud-stages 'Build with two stages: `COPY --from`, owners, links, set-id'
step --limit 180 bud-replace 'Build: `rm -r d; mkdir d` in one step, and in two'
step --limit 180 bud-deep 'Build: paths of 40 directories'
step --limit 180 bud-squash 'Build with `--squash`'
step --limit 180 bud-mounts 'Build with `RUN --mount` of a stage and of a cache, and an overlay volume'
step --limit 180 --uncounted "$shifted" bud-mapped 'Build with `--userns-uid-map`'

prepare() {
    install_podman
    make_images
    cat >"$shared/context/Mounts" <<'END'
FROM localhost/t:1 AS first
RUN mkdir /out && echo built >/out/built && chown 5:6 /out/built
FROM localhost/t:1
RUN --mount=type=bind,from=first,source=/out,target=/m cp -a /m /copied && ls -ln /m | wc -l
RUN --mount=type=cache,target=/cache echo one >>/cache/f && cp /cache/f /one
RUN --mount=type=cache,target=/cache echo two >>/cache/f && cp /cache/f /two
RUN cp /over/data/a /from-over && echo changed >>/over/data/a && rm -r /over/data/tree
END
    chmod a+r "$shared/context/Mounts"
}
version() { echo "$(/usr/bin/buildah --version | sed 's/ (.*//'), $(crun --version | head -n 1)"; }
start() {
    configure
    become_user
    import_image
}
between() {
    buildah rm -a
    podman rm -fat 0
}

changes=$plain_changes
builder=buildah
layers_of() { flat_layers_of "$1"; }
show="($show) | sed 's/ n=[0-9]*//'"

# committed CONTAINER: the layers of the image that is made of it.
committed() {
    buildah commit -q "$1" localhost/c:1 >/dev/null
    flat_layers_of localhost/c:1
    buildah from -q --pull-never --name after localhost/c:1 >/dev/null
    buildah run --network none after -- sh -c "cd /data; $show"
    buildah rm after >/dev/null
    buildah rmi -f c:1 >/dev/null
}
from_image() { buildah from -q --pull-never --name w localhost/t:1; }

do_unshare_mount() {
    from_image
    # shellcheck disable=SC2016
    as_user 50 /usr/bin/buildah unshare bash -c '
        set -e
        m=$(timeout 50 buildah mount w)
        cd "$m/data"
        echo more >>a; chown 5:6 a; chmod 4755 c; setfattr -n user.x -v y b
        rm -r tree; mkdir tree; echo x >tree/new
        ln c hard; mv dir/deep/file moved; mv dir/deep deeper; rm soft fifo; ln -s c soft; mkfifo fifo
        cp -a dir copy; rm -r ../empty; mkdir -m 711 ../empty
        cd /
        timeout 50 buildah umount w >/dev/null'
    # shellcheck disable=SC2016
    as_user 50 /usr/bin/buildah unshare bash -c "$(declare -f bounded list); started=$started"'; m=$(timeout 50 buildah mount w); list "$m"; timeout 50 buildah umount w >/dev/null'
    committed w
}
do_run_oci() {
    from_image
    buildah run --network none w -- sh -c "$changes cd /data; $show"
    try buildah run --network none w -- sh -c 'exit 7' 2>/dev/null
    buildah run --network none --user 1000:1001 w -- sh -c 'id -u; cat /data/b; echo x >>/data/a || echo refused' 2>/dev/null
    committed w
}
do_run_chroot() {
    from_image
    buildah run --isolation chroot w -- sh -c "$changes cd /data; $show"
    committed w
}
do_owners() {
    from_image
    buildah run --network none w -- sh -c 'cd /data; chown 5:6 a dir soft; chown -h 5:6 abs; chown -R 7:8 tree; echo x >new; chown 5:6 new; mkdir made; chown 9:10 made; chmod 2775 made; touch made/inherits; mkdir made/too'
    committed w
}
do_run_overlay() {
    overlay_source
    from_image
    buildah run --network none -v "$home/over/data:/data:O" w -- sh -c "$changes cd /data; $show"
    # shellcheck disable=SC2016
    within 'list "$1"' "$home/over"
}
do_scratch() {
    overlay_source
    buildah from -q --name w scratch
    buildah copy -q --chown 3:4 w "$shared/context/files" /files >/dev/null
    buildah add -q w "$shared/context/added.tar" / >/dev/null
    buildah copy -q w /usr/bin/busybox /bin/sh >/dev/null
    buildah commit -q --timestamp 0 w localhost/c:1 >/dev/null
    flat_layers_of localhost/c:1
    buildah rmi -f c:1 >/dev/null
}
do_add() {
    from_image
    buildah copy -q --chown 3:4 w "$shared/context/files" /data/dir >/dev/null
    buildah add -q w "$shared/context/added.tar" /data/tree >/dev/null
    buildah copy -q w "$shared/context/files/one" /data/a >/dev/null
    buildah copy -q --chmod 4711 w "$shared/context/files/one" /data/mode >/dev/null
    committed w
}
do_bud_stages() { build Stages; built; }
do_bud_replace() { build Replace; built; }
do_bud_deep() { build Deep; built; }
do_bud_squash() { build Replace --squash; built; }
do_bud_mounts() {
    overlay_source
    build Mounts -v "$home/over:/over:O"
    image_tree localhost/b:1 | links
    # shellcheck disable=SC2016
    within 'list "$1"' "$home/over"
    podman rmi -f b:1 >/dev/null
}
do_bud_mapped() {
    build Stages --userns-uid-map 0:1:65536 --userns-gid-map 0:1:65536
    image_tree localhost/b:1 | links
    podman rmi -f b:1 >/dev/null
}
