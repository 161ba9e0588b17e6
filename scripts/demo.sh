#!/usr/bin/env bash
# Builds stratafs and shows what an overlay does, in a temporary directory.
#
# usage: scripts/demo.sh [ARGUMENTS OF stratafs demo...]
#
# Installs what is missing, as root: a linker for Rust, and for an ordinary user fusermount3.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

case ${1:-} in -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

cd "$repo"
need cc gcc /usr/include/stdio.h libc6-dev
[ "$(id -u)" = 0 ] || need fusermount3 fuse3
command -v cargo >/dev/null || die "cargo is not here: install a Rust toolchain (see rust-version in Cargo.toml) first"
[ -c /dev/fuse ] || modprobe fuse 2>/dev/null || true
[ -c /dev/fuse ] || die "/dev/fuse is not here: the kernel has no FUSE, or this container was not given it (docker: --device /dev/fuse --cap-add SYS_ADMIN)"

cargo run --release --locked --quiet -- demo "$@"
