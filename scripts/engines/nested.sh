# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Overlays inside an overlay: the root of a container is a mount of the program,
# and other overlays are mounted inside it, with their layers on that root.
#
# The kernel's overlayfs refuses an upper directory on overlayfs, so such a step
# fails with it and is not counted. See scripts/engines/lib.sh.

# shellcheck source=scripts/engines/base.sh
. "$repo/scripts/engines/base.sh"

title='Overlays inside a container'
dot_wh='a name that begins with .wh. is a whiteout in a layer, and cannot be made in the mount: that driver of Docker makes such names'

step --short kernel-lower 'Kernel overlayfs, lower layers on our root, read-only'
step --short kernel-tmpfs 'Kernel overlayfs, lower layers on our root, upper on tmpfs'
step --short kernel-upper 'Kernel overlayfs, all directories on our root'
step kernel-volume 'Kernel overlayfs, upper on a volume'
step user-lower 'Kernel overlayfs in a user namespace, lower layers on our root'
step user-upper 'Kernel overlayfs in a user namespace, all directories on our root'
step --short stratafs-inside 'stratafs, all directories on our root'
step fuse-overlayfs-inside 'fuse-overlayfs 1, all directories on our root'
step --short same-inside 'The program itself, all directories on our root (kernel: upper on tmpfs)'
step same-twice 'The program itself three deep (kernel: uppers on tmpfs)'
step root-of-inside 'Chroot into the inner mount'
step changed-below 'The inner lower layer changes through the outer root while it is not mounted'
step binds 'Bind mounts and tmpfs inside our root, moved and made private'
step overmount 'A mount on a directory of our root: rename, removal'
step --limit 90 --uncounted "$dot_wh" docker-inside 'Docker with the driver fuse-overlayfs, its data on our root'
step --limit 90 docker-overlay2-inside 'Docker with the driver overlay2, its data on our root'

prepare() {
    need busybox busybox-static getfattr attr perl perl chroot coreutils setpriv util-linux
    unpack docker.io containerd runc tini libdevmapper1.02.1
    make_root "$shared/base"
    tar_of "$shared/base" "$shared/base.tar"

    # The outer image: directories for the programs of the machine, and the
    # layers of the inner mounts.
    local r=$shared/root n d
    mkdir -p "$r"/{usr,dev,etc,proc,run,sys,tmp,var,root} "$r/programs" "$r/i"/{m,upper,work}
    chmod 1777 "$r/tmp"
    for n in bin sbin lib lib64 lib32; do [ ! -L /$n ] || cp -a /$n "$r/$n"; done
    cp -a "$shared/base" "$r/i/one"
    mkdir -p "$r/i/two/data" "$r/i/two/more"
    echo two >"$r/i/two/data/c"
    echo more >"$r/i/two/more/file"
    ln "$r/i/two/more/file" "$r/i/two/more/hard"
    # No whiteouts: the outer overlay would take them for its own.
    find "$r" -newermt 2020-01-01 -exec touch -h -d '2012-12-12 12:12:12 UTC' {} +
}

version() { echo "Linux $(uname -r | cut -d. -f1,2), util-linux $(unshare --version | sed 's/.* //')"; }

# outer MOUNTPOINT UPPER: the root of the container.
outer() {
    local o="lowerdir=$shared/root,upperdir=$2/upper,workdir=$2/work"
    mkdir -p "$1" "$2/upper" "$2/work"
    if [ -n "$mount_program" ]; then
        bounded 30 "$mount_program" -o "$o,dev,suid" "$1"
        for _ in {1..50}; do mountpoint -q "$1" && return; sleep 0.1; done
    else
        bounded 30 mount -t overlay overlay -o "$o" "$1"
    fi
}

# inside COMMANDS: a shell in the container, with mounts of its own. $P is the
# program under test, $A stratafs, $F fuse-overlayfs 1, each by its path inside.
inside() {
    bounded "${inside_limit:-50}" unshare -m --propagation private bash -ec '
        root=$1
        for d in usr dev sys; do mount --rbind "/$d" "$root/$d"; done
        mount -t proc proc "$root/proc"
        mount -t tmpfs tmpfs "$root/run"
        mount --rbind "$2" "$root/programs"
        mkdir "$root/run/shared" "$root/run/debian"
        mount --bind "$3" "$root/run/shared"
        mount --bind "$3/debian/" "$root/run/debian"
        # pivot_root, as engines do: a plain chroot may not create user namespaces.
        cd "$root"
        mkdir -p run/old
        pivot_root . run/old
        cd /
        umount -l /run/old
        exec env -i PATH="${6:+/programs/$5:}/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root LC_ALL=C program="$5" \
            P="$6" A=/programs/stratafs/fuse-overlayfs F=/programs/f1/fuse-overlayfs list_changes="$7" bash -c "$4"
    ' sh "$home/outer" "$scratch/bin" "$shared" "$helpers
$1" "$program" "${mount_program:+/programs/$program/fuse-overlayfs}" "$inner_changes"
}

# What the shell inside knows. `show DIR` lists a tree; `fuse PROGRAM OPTIONS DIR` mounts.
helpers='
set -e
show() {
    (
        cd "$1"
        find . -xdev \( -type d -printf "%P/ %M %U:%G\n" \) -o \( -type l -printf "%P %M %U:%G %T@ -> %l\n" \) \
            -o -printf "%P %M %U:%G n=%n s=%s %T@\n" | perl -pe "s/ (\d{9,})\.\d+/\$1 >= '"$started"' ? q( now) : qq( \$1)/e"
        find . -xdev -type f ! -size +100k -exec md5sum {} +
        find . -xdev -print0 | xargs -0 getfattr -h -d -m "^(user|security)" -e hex 2>/dev/null | perl -ne "chomp; if (s/^# file: //) { \$f = \$_ } elsif (length) { print qq(\$f \$_\n) }"
    ) | LC_ALL=C sort
}
fuse() {
    local n
    timeout 20 "$1" -o "$2" "$3"
    for n in 1 2 3 4 5 6 7 8 9; do mountpoint -q "$3" && return; sleep 0.1; done
    echo "not mounted" >&2
    return 1
}
# With the kernel as the program under test, the inner upper is on a tmpfs.
same() {
    if [ -n "$P" ]; then
        fuse "$P" "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
    else
        mkdir -p "/run/uppers$2"
        mountpoint -q /run/uppers || mount -t tmpfs tmpfs /run/uppers
        mkdir -p "/run/uppers$2" "/run/uppers$3"
        mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/uppers$2,workdir=/run/uppers$3" "$4"
    fi
}
work() { (cd "$1" && timeout 20 bash -c "$list_changes"); }
# The hint to dmesg would hide the error.
mount() {
    command mount "$@" 2>/run/error && return
    grep -v "dmesg(1)" /run/error >&2
    return 32
}
off() { timeout 20 umount "$1"; }
cd /i
'

# The changes of a container, where they are the same with every kind of overlay.
inner_changes='
set -e
cd data
echo more >>a
echo new >c
chmod 640 setid
chmod 600 capable
rm -r tree
mkdir tree
echo new >tree/new
rm soft
ln -s c soft
mv "a name: odd, \"quoted\"" "another: name"
rm fifo
mkfifo fifo
touch -d @1234567890 "another: name"
dd if=/dev/zero of=big bs=1 count=10 seek=1000 conv=notrunc 2>/dev/null
truncate -s 10 hole
mkdir -p new/deep
echo x >new/deep/x
mv new/deep/x new/y
rmdir new/deep
ln new/y new/z
chown 3:4 new/y
setfattr -n user.set -v inside new/y
rm -r ../empty
mkdir -m 711 ../empty
ls | wc -l
'

# Every step has a fresh root.
fresh() {
    between
    outer "$home/outer" "$home/layer"
}

between() {
    local m
    while read -r m; do bounded 10 umount "$m" || umount -l "$m" || true; done < <(mounts_in "$home")
    rm -rf --one-file-system "$home/layer" "$home/outer"
}

# What is left after the inner mounts, in the upper directory: as the program shows it.
after() {
    bounded 20 umount "$home/outer" || umount -l "$home/outer"
    outer "$home/outer" "$home/layer"
    inside 'show /i'
}

do_kernel_lower() {
    fresh
    inside 'mount -t overlay overlay -o lowerdir=two:one m; show m; touch m/x 2>&1 || true; off m'
}

do_kernel_tmpfs() {
    fresh
    inside '
        mkdir /run/t; mount -t tmpfs tmpfs /run/t; mkdir /run/t/u /run/t/w
        mount -t overlay overlay -o lowerdir=two:one,upperdir=/run/t/u,workdir=/run/t/w m
        work m; show m; off m
        mount -t overlay overlay -o lowerdir=two:one,upperdir=/run/t/u,workdir=/run/t/w m
        show m; off m'
}

do_kernel_upper() {
    fresh
    inside '
        mount -t overlay overlay -o lowerdir=two:one,upperdir=upper,workdir=work m
        work m; show m; off m
        mount -t overlay overlay -o lowerdir=two:one,upperdir=upper,workdir=work m
        show m; off m'
    after
}

do_kernel_volume() {
    fresh
    mkdir -p "$home/layer/volume/u" "$home/layer/volume/w" "$home/outer/volume"
    mount --bind "$home/layer/volume" "$home/outer/volume"
    inside '
        mount -t overlay overlay -o lowerdir=two:one,upperdir=/volume/u,workdir=/volume/w m
        work m; show m; off m
        echo changed >one/data/link1
        mount -t overlay overlay -o lowerdir=/volume/u:two:one m
        cat m/data/link1; ls m/data; off m'
}

do_user_lower() {
    fresh
    inside '
        mkdir -m 777 /run/t; chown -R 0:0 one/home
        unshare -U -m --map-root-user bash -ec "
            mount -t tmpfs tmpfs /run/t; mkdir /run/t/u /run/t/w
            mount -t overlay overlay -o userxattr,lowerdir=two:one,upperdir=/run/t/u,workdir=/run/t/w m
            cat m/data/a m/data/c; ls -A m/data m/data/tree; echo x >>m/data/a; rm -r m/data/tree m/data/link1; mkdir m/data/tree
            ls -A m/data m/data/tree; cat m/data/a; stat -c %u:%g m m/data/a"'
}

do_user_upper() {
    fresh
    inside '
        mkdir -m 777 u w
        unshare -U -m --map-root-user bash -ec "
            mount -t overlay overlay -o userxattr,lowerdir=two:one,upperdir=u,workdir=w m
            cat m/data/a m/data/c; ls -A m/data m/data/tree; echo x >>m/data/a; rm -r m/data/tree m/data/link1; mkdir m/data/tree
            ls -A m/data m/data/tree; cat m/data/a; stat -c %u:%g m m/data/a"
        ls u/data'
}

do_stratafs_inside() {
    fresh
    inside '
        fuse $A lowerdir=two:one,upperdir=upper,workdir=work m
        work m; show m; off m
        fuse $A lowerdir=two:one,upperdir=upper,workdir=work m
        show m; off m
        fuse $A lowerdir=upper:two:one m
        ls m/data; off m'
}

do_fuse_overlayfs_inside() {
    fresh
    inside '
        fuse $F lowerdir=two:one,upperdir=upper,workdir=work m
        work m; ls -A m m/data m/data/tree; cat m/data/a m/data/c m/data/new/y; off m
        fuse $F lowerdir=two:one,upperdir=upper,workdir=work m
        ls -A m m/data; cat m/data/a; off m'
}

do_same_inside() {
    fresh
    inside '
        same /i/two:/i/one /i/upper /i/work /i/m
        work m; show m; off m
        same /i/two:/i/one /i/upper /i/work /i/m
        show m; off m'
    inside 'show one; show two'
}

do_same_twice() {
    fresh
    inside '
        same /i/two:/i/one /i/upper /i/work /i/m
        mkdir -p m/n/l m/n/u m/n/w m/n/m
        echo low >m/n/l/file; mkdir m/n/l/d; echo x >m/n/l/d/x
        same /i/m/n/l:/i/m/data /i/m/n/u /i/m/n/w /i/m/n/m
        cat m/n/m/file m/n/m/a; echo more >>m/n/m/file; echo more >>m/n/m/a; rm -r m/n/m/d m/n/m/dir; mkdir m/n/m/d
        ls -A m/n/m m/n/m/d; cat m/n/m/file m/n/m/a
        off m/n/m; cat m/n/l/file m/data/a; off m'
}

do_root_of_inside() {
    fresh
    inside '
        same /i/two:/i/one /i/upper /i/work /i/m
        mount -t proc proc m/proc
        chroot m /bin/sh -c "ls -A /data; echo x >/data/x; cp -a /data/dir /data/copy; cat /data/x /data/copy/file; mv /data/x /data/y; ls -A /data/copy; /bin/true && echo ran"
        cp /usr/bin/true m/data/true; cp m/bin/busybox m/data/busybox; m/data/busybox echo copied; chroot m /data/busybox echo executed
        off m/proc; off m'
}

do_changed_below() {
    fresh
    inside '
        same /i/two:/i/one /i/upper /i/work /i/m
        cat m/data/link1; off m
        echo changed >one/data/link1; rm one/data/dir/file; echo added >one/data/dir/added; mkdir one/fresh
        same /i/two:/i/one /i/upper /i/work /i/m
        cat m/data/link1 m/data/dir/added; ls -A m m/data/dir; off m'
}

do_binds() {
    fresh
    inside '
        mkdir a b c; echo x >a/x; touch f
        mount --bind a b; echo y >b/y; ls a; cat a/y
        mount --bind a/x f; echo z >>f; cat a/x
        mount -t tmpfs tmpfs c; mkdir c/m; mount --move b c/m; ls c/m b
        mount --bind -o ro a b; mount -o remount,bind,ro b; touch b/no 2>&1 || true
        mount --make-rshared c; mount --bind a c/m; umount c/m c/m; ls c/m; umount b f; umount -R c; ls a b c; cat f'
}

do_overmount() {
    fresh
    inside '
        mkdir -p d/e; mount -t tmpfs tmpfs d/e; touch d/e/in
        rmdir d/e 2>&1 || true; mv d/e d/f 2>&1 || true; mv d g; ls g g/e; rm -r g 2>&1 || true; ls g
        umount g/e; rm -r g; ls -d g 2>&1 || true'
}

# docker_inside DRIVER: a daemon whose data is on our root.
docker_inside() {
    inside_limit=80 inside '
        driver='"$1"'
        export PATH=/run/debian/usr/sbin:/run/debian/usr/bin:$PATH LD_LIBRARY_PATH=/run/debian/usr/lib/x86_64-linux-gnu
        [ -n "$P" ] || PATH=/programs/f1:$PATH
        docker() { timeout 30 /run/debian/usr/bin/docker -H unix:///run/docker.sock "$@"; }
        mkdir -p /var/data
        dockerd --data-root /var/data --exec-root /run/docker -H unix:///run/docker.sock -p /run/dockerd.pid --iptables=false \
            --ip-forward=false --ip-masq=false --bridge=none --storage-driver $driver </dev/null >/run/log 2>&1 &
        daemon=$!
        trap "kill $daemon; wait $daemon" EXIT
        for n in $(seq 100); do docker version >/dev/null 2>&1 && break; kill -0 $daemon 2>/dev/null || break; sleep 0.1; done
        docker version >/dev/null 2>&1 || { grep -v level=info /run/log | tail -n 3 >&2; exit 1; }
        docker import -c "ENV PATH=/bin" /run/shared/base.tar base:1 >/dev/null
        docker run --rm --network none base:1 sh -c "cat /data/a; ls /data; rm -r /data/tree; mkdir /data/tree; echo x >/data/tree/x; cat /data/tree/x"
        mkdir -p /tmp/c; printf "FROM base:1\nRUN rm -r /data/tree && mkdir /data/tree && echo new >/data/tree/new\nRUN mv /data/c /data/d && chmod 4755 /data/d && ls -A /data/tree\n" >/tmp/c/Dockerfile
        DOCKER_BUILDKIT=0 docker build -q --network none -t built:1 /tmp/c >/dev/null
        docker run --rm --network none base:1 ls -A /data
        docker run --rm --network none built:1 sh -c "ls -A /data /data/tree; stat -c %A /data/d"
        docker run --rm --network none -v v:/data base:1 sh -c "ls -A /data"
        docker system prune -af --volumes >/dev/null; docker images -aq'
}

do_docker_inside() {
    fresh
    docker_inside fuse-overlayfs
}

do_docker_overlay2_inside() {
    fresh
    docker_inside overlay2
}
