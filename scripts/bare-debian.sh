#!/usr/bin/env bash
# README's two commands, on a Debian that has nothing but a Rust toolchain.
#
# usage: scripts/bare-debian.sh [--dir DIR] [COMMAND]
#
# debootstrap makes a minimal system in DIR/root (default: target/bare-debian).
# It gets a clone of this checkout, of what is committed; the Rust toolchain of
# this machine, read-only; and what apt and cargo need to download here. There,
# in namespaces of its own and as the root of all mounts, it runs COMMAND, by
# default scripts/demo.sh and then scripts/test.sh. At the end the system goes.
#
# Needs root, FUSE, and Rust by rustup. Exit status 0 if the commands succeed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit "${1:-2}"; }

args=("$@")
dir=$target/bare-debian
while [ $# -gt 0 ]; do
    case $1 in
    --dir) dir=${2:?--dir needs a directory}; shift ;;
    -h | --help) usage 0 ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
command=${*:-scripts/demo.sh && scripts/test.sh}

need_root
need debootstrap debootstrap git git unshare util-linux
rust=$(cd "$repo" && rustc --print sysroot) && [ -x "$rust/bin/cargo" ] || die "no Rust toolchain of rustup is here"
private_mounts ${args[@]+"${args[@]}"}

mkdir -p "$dir"
dir=$(realpath "$dir")
root=$dir/root
exec 9>"$dir/lock"
flock -n 9 || die "another run uses $dir"
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
rm -rf --one-file-system "$root"
mkdir -p "$root"
chmod 755 "$root"

bootstrap "$root" "$dir/debootstrap.log"
git clone -q "$repo" "$root/root/stratafs"
# Cargo finds the registry as it does here: certificates, settings, proxies.
mkdir -p "$root/opt/rust" "$root/old" "$root/root/.cargo" "$root/etc/ssl/certs"
cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
cp "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$root/root/.cargo/" 2>/dev/null || true
cp /etc/hosts "$root/etc/hosts"
mapfile -t kept < <(env | grep -iE '^([a-z]+_proxy|cargo_(http|net|regist)[a-z_]*)=')

# The mounts and processes of the system are its own, and end with it. A user
# namespace, which the tests make, is not allowed in a chroot: hence pivot_root.
# shellcheck disable=SC2016
bounded 3600 unshare -m -p -f --kill-child --propagation private bash -euc '
    cd "$1"
    mount --bind . "$PWD"
    cd "$PWD"
    mount --bind -o ro "$2" opt/rust
    mount -t proc proc proc
    mount --rbind /dev dev
    mount --rbind /sys sys
    mount -t tmpfs -o mode=755 run run
    pivot_root . old
    umount -l /old
    cd /root/stratafs
    shift 2
    exec env -i PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
' sh "$root" "$rust" ${kept[@]+"${kept[@]}"} bash -euxc "$command" </dev/null 9>&-
say "$suite: ok: $command"
