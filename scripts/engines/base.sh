# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Shared by docker.sh, containerd.sh and nested.sh: source it, do not run it.
#
# Offers: unpack (Debian packages that are unpacked and not installed), make_root
# (a small root file system), $changes (what a container changes in it) and
# daemons_left.

# unpack PACKAGE... : the packages are unpacked once, in $tools/unpacked/root.
# $shared/debian is a link to it. They are not installed: Debian's docker.io
# would start a service and replace the client of the machine.
unpack() {
    local into=$tools/unpacked p missing=()
    mkdir -p "$into/debs" "$into/root"
    for p in "$@"; do [ -e "$into/.$p" ] || missing+=("$p"); done
    if [ ${#missing[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || die "no apt-get: cannot download ${missing[*]}"
        chmod 777 "$into/debs"
        (
            cd "$into/debs"
            rm -f ./*.deb
            bounded 300 apt-get download -qq "${missing[@]}" && exit
            bounded 300 apt-get update -qq
            bounded 300 apt-get download -qq "${missing[@]}"
        ) || die "apt-get download ${missing[*]} failed"
        for p in "${missing[@]}"; do
            dpkg -x "$into/debs/${p}"_*.deb "$into/root"
            touch "$into/.$p"
        done
        rm -rf "$into/debs"
    fi
    ln -sfn "$into/root" "$shared/debian"
}

# Programs and libraries that were unpacked come first.
use_unpacked() {
    PATH=$shared/debian/usr/sbin:$shared/debian/usr/bin:$PATH
    export LD_LIBRARY_PATH=$shared/debian/usr/lib/x86_64-linux-gnu
    # Shims and wrappers of an engine find the storage program by its name, too.
    [ -z "$mount_program" ] || PATH=${mount_program%/*}:$PATH
    export PATH
}

# make_root DIR: busybox and a tree with one of everything.
make_root() {
    local r=$1 applet
    mkdir -p "$r/bin" "$r/dev" "$r/etc" "$r/proc" "$r/run" "$r/sys" "$r/tmp"
    cp "$(command -v busybox)" "$r/bin/busybox"
    for applet in sh ls cat cp mv rm ln mkdir rmdir touch stat chmod chown find sort head tail wc cut grep sed tr tar \
        test echo sleep true id df sync dd truncate mknod mkfifo readlink md5sum uniq diff env pwd mount umount su; do
        ln -s busybox "$r/bin/$applet"
    done
    chmod 1777 "$r/tmp"
    printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >"$r/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$r/etc/group"
    mknod -m 666 "$r/dev/null" c 1 3

    mkdir -p "$r/data/dir/deep" "$r/data/tree/old/deep" "$r/data/none" "$r/data/open" "$r/home/user" "$r/empty"
    echo alpha >"$r/data/a"
    echo beta >"$r/data/b"
    echo gamma >"$r/data/c"
    echo mine >"$r/home/user/mine"
    printf 'set id' >"$r/data/setid"
    echo capable >"$r/data/capable"
    echo linked >"$r/data/link1"
    ln "$r/data/link1" "$r/data/dir/link2"
    ln -s a "$r/data/soft"
    ln -s /etc/passwd "$r/data/abs"
    ln -s nowhere "$r/data/dir/dangling"
    echo file >"$r/data/dir/file"
    echo deep >"$r/data/dir/deep/file"
    echo old >"$r/data/tree/old/file"
    echo old >"$r/data/tree/old/deep/file"
    echo odd >"$r/data/a name: odd, \"quoted\""
    mkfifo "$r/data/fifo"
    mknod "$r/data/zero" c 1 5
    truncate -s 1M "$r/data/hole"
    head -c 3000000 /dev/zero | tr '\0' x >"$r/data/big"
    chown 1000:1001 "$r/data/b"
    chown -R 1000:1000 "$r/home/user"
    chown -h 7:8 "$r/data/soft"
    chown 10:20 "$r/data/dir"
    chown 33:34 "$r/empty"
    chown 65534:65534 "$r/data/none"
    chmod 2750 "$r/data/dir"
    chmod 1777 "$r/data/open"
    chmod 4755 "$r/data/setid"
    chmod 600 "$r/data/b"
    chmod 700 "$r/empty"
    chmod 0 "$r/data/none"
    setfattr -n user.note -v noted "$r/data/a"
    setfattr -n user.note -v "of a directory" "$r/data/dir"
    # cap_net_raw, permitted and effective.
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 "$r/data/capable"
    find "$r" -exec touch -h -d '2011-11-11 11:11:11 UTC' {} +
    touch -h -d '2001-02-03 04:05:06 UTC' "$r/data/a" "$r/data/soft"
}

tar_of() { tar -C "$1" --xattrs --xattrs-include='*' --format=pax --sort=name --numeric-owner -cf "$2" .; }

# What a container does to the tree of make_root: each kind of change, to lower
# and to new files. The shell is the one of busybox.
changes='
set -e
cd /data
echo more >>a
echo new >c
chmod 640 setid
chown 3:4 b
ln link1 link3
ln dir/file hard
mv dir/deep/file moved
mv dir/deep deeper
rm dir/link2
rm -r tree
mkdir tree
echo new >tree/new
rm soft
ln -s c soft
mv "a name: odd, \"quoted\"" "another: name"
mv link3 tree/link3
rm fifo
mknod fifo p
mknod null c 1 3
touch -d @1234567890 capable
dd if=/dev/zero of=big bs=1 count=10 seek=1000 conv=notrunc 2>/dev/null
truncate -s 10 hole
mkdir -p new/deep
echo x >new/deep/x
cp -a dir copy
mv new/deep/x new/y
rmdir new/deep
rm -r /empty
mkdir -m 711 /empty
echo x >/tmp/x
mv /tmp/x /tmp/y
'

# daemons_left: the number of processes of the storage program, after a moment.
daemons_left() {
    local p n=0
    for _ in {1..50}; do
        n=0
        for p in /proc/[0-9]*; do
            [ -n "$mount_program" ] || break
            [ "$(readlink -f "$p/exe" 2>/dev/null)" != "$(readlink -f "$mount_program")" ] || n=$((n + 1))
        done
        [ $n -gt 0 ] || break
        sleep 0.1
    done
    echo "$n"
}
