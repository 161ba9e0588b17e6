# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Distrobox with Podman as an ordinary user, under `--userns=keep-id`, and a
# directory of the home as an overlay volume. Debian's package is unpacked, not
# installed. See scripts/engines/lib.sh.
#
# Distrobox mounts the home itself, so a second volume cannot have that place:
# the overlay has a place of its own, or the home of the box is it. Its init
# installs packages that the image lacks: the image has stubs of them.

# shellcheck source=scripts/engines/podman-common.sh
. "$repo/scripts/engines/podman-common.sh"

title='Distrobox'
step --short --limit 90 create 'Create a box with an overlay of a directory, enter it'
step --limit 90 changes 'Changes of every kind in the box, by its user and by root'
step --limit 90 again 'Stop the box, enter it again'
step --short home-overlay 'The home as an overlay volume, under `--userns=keep-id`'
step home-overlay-root 'The same as root of the container, privileged, with the mounts of Distrobox'
step --limit 90 commit 'Commit the box, the owners in the layer'
step --limit 90 remove 'Remove the box'

prepare() {
    install_podman
    make_images
    unpack distrobox
    cp -rL "$shared/debian/usr/bin" "$shared/programs"
    local r=$shared/root s
    mkdir -p "$r/usr/bin" "$r/usr/sbin" "$r/usr/share/zoneinfo" "$r/var/log" "$r/etc/profile.d" "$r/etc/sudoers.d" "$r/root" "$r/media" "$r/mnt" "$r/opt" "$r/srv" "$r/var/lib"
    for s in $(busybox --list); do [ -e "$r/bin/$s" ] || ln -s busybox "$r/bin/$s"; done
    for s in sudo pinentry curl bash lsof bc time less wget passwd diff chpasswd groupmod; do
        [ -e "$r/bin/$s" ] || printf '#!/bin/sh\nexit 0\n' >"$r/usr/bin/$s"
    done
    rm -f "$r/usr/bin/bash"
    ln -s /bin/sh "$r/usr/bin/bash"
    ln -sf /bin/sh "$r/bin/bash"
    cat >"$r/usr/bin/useradd" <<'END'
#!/bin/sh
for last; do :; done
echo "$last:x:1500:1500::$HOME:/bin/sh" >>/etc/passwd
END
    cat >"$r/usr/bin/groupadd" <<'END'
#!/bin/sh
for last; do :; done
echo "$last:x:1500:" >>/etc/group
END
    chmod 755 "$r"/usr/bin/*
    echo 'root:*:19000:0:99999:7:::' >"$r/etc/shadow"
    echo 'ID=test' >"$r/etc/os-release"
    tar_of "$r" "$shared/root.tar"
}
version() { echo "$("$shared/programs/distrobox" version), $(/usr/bin/podman --version)"; }
start() {
    # A box shares the PID namespace, which needs a cgroup of its own; without privileges it gets none.
    cgroups=enabled configure
    become_user
    import_image
    overlay_source
    as_user 10 mkdir "$home/work" "$home/own"
    as_user 10 sh -c 'cd work; echo mine >mine; mkdir dir tree; echo other >other; echo old >tree/old; echo f >dir/f; ln other hard; ln -s mine soft; chmod 600 dir/f'
}
between() { :; }

# The box shares /tmp with the machine.
changes=${plain_changes//\/tmp\//\/data\/open\/}
show="($show) | sed 's/ n=[0-9]*//'"

# box COMMAND... : a command of Distrobox.
box() {
    local c=$1
    shift
    as_user 80 env USER=eco SHELL=/bin/sh PATH="$shared/programs:$PATH" DBX_CONTAINER_MANAGER=podman "$shared/programs/distrobox-$c" "$@"
}
# enter COMMANDS: from a file, because distrobox-enter takes no quotes.
enter() {
    echo "$1" >"$home/commands"
    box enter -T --name box -- sh "$home/commands" 2>"$home/enter.err" || { cat "$home/enter.err" >&2; return 1; }
}

do_create() {
    box create --yes --image localhost/t:1 --name box --volume "$home/work:/overlay:O" >"$home/create.log" 2>&1 || { cat "$home/create.log" >&2; return 1; }
    enter 'id; cd /overlay; cat mine; echo more >>mine; '"$show"
    list "$home/work"
}
do_changes() {
    enter "cd /overlay; rm -r tree; mkdir tree; echo new >tree/new; mv dir moved; ln -sf hard soft; chmod 4711 mine; $show; cd /data; echo x >a || echo refused; touch open/mine; $show"
    as_user 60 /usr/bin/podman exec --user 0:0 box sh -c "$changes cd /data; $show"
    list "$home/work"
}
do_again() {
    podman stop -t 0 box
    enter "cd /overlay; $show; cd /data; $show"
}
do_home_overlay() {
    podman run --rm --userns=keep-id -v "$home/work:$home/work:O" --workdir "$home/work" t:1 sh -c "id -u; $show; echo more >>mine; rm -r tree; mkdir tree; echo x >tree/x; mv dir moved; $show"
    list "$home/work"
}
do_home_overlay_root() {
    podman run --rm --privileged --ipc host --pid host --user root:root --userns keep-id --annotation run.oci.keep_original_groups=1 \
        --security-opt label=disable --volume /:/run/host:rslave --volume /dev:/dev:rslave --volume /sys:/sys:rslave \
        --mount type=devpts,destination=/dev/pts -v "$home/work:$home/work:O" --workdir "$home/work" t:1 \
        sh -c "id -u; chown 5:6 mine; echo x >new; mkdir made; chown 1500:1500 made; rm -r tree; $show"
    list "$home/work"
}
do_commit() {
    podman stop -t 0 box
    podman commit -q box localhost/committed:1
    flat_layers_of localhost/committed:1 | grep -E ' data/|^data/'
    podman rmi -f committed:1 >/dev/null
}
do_remove() {
    box rm --force --name box >/dev/null 2>&1 || box rm --force box >/dev/null
    podman ps -aq
    list "$home/work"
}
