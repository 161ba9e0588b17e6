# shellcheck shell=bash
# A minimal Debian in a directory, for the scripts that need one: source it after
# lib.sh, do not run it. Offers: bootstrap, copy_apt_config and $suite, the
# release of this machine, which is that of the new system, too.

# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")

# The first mirror of this machine that has the suite itself, in either format.
mirror() {
    local f
    for f in /etc/apt/sources.list.d/*.sources; do
        [ -e "$f" ] && awk -v suite="$suite" '
            /^#/ { next }
            /^$/ { types = uris = suites = "" }
            tolower($1) == "types:" { types = $0 }
            tolower($1) == "uris:" { uris = $2 }
            tolower($1) == "suites:" { suites = " " $0 " " }
            types ~ / deb( |$)/ && uris != "" && index(suites, " " suite " ") { print uris; exit }' "$f"
    done
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -e "$f" ] && sed -nE "s/^deb( +\[[^]]*\])? +([^ ]+) +$suite +.*/\2/p" "$f"
    done
    return 0
}

# Everything apt inside needs to reach the same mirror in the same way.
copy_apt_config() {
    local tree=$1 f
    rm -f "$tree/etc/apt/sources.list"
    mkdir -p "$tree/etc/apt/sources.list.d" "$tree/etc/apt/apt.conf.d" "$tree/usr/share/keyrings" "$tree/etc/apt/keyrings"
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        # Only the distribution itself, not what else this machine has added.
        [ -e "$f" ] && grep -q "[ :]$suite\\b" "$f" && cp "$f" "$tree$f"
    done || true
    cp -r /etc/apt/trusted.gpg.d "$tree/etc/apt/"
    cp -n /usr/share/keyrings/* "$tree/usr/share/keyrings/" 2>/dev/null || true
    cp -n /etc/apt/keyrings/* "$tree/etc/apt/keyrings/" 2>/dev/null || true
    apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|Max)' >"$tree/etc/apt/apt.conf.d/99host" || true
    printf 'Acquire::Languages "none";\nDpkg::Use-Pty "0";\n' >>"$tree/etc/apt/apt.conf.d/99host"
    cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
    # Nothing may start a service in here.
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod 755 "$tree/usr/sbin/policy-rc.d"
}

# bootstrap TREE LOG: a minimal Debian of this machine's release, from its mirror.
bootstrap() {
    local from include=() http_proxy=${http_proxy:-}
    from=$(mirror | head -n 1)
    [ -n "$from" ] || die "no package source of $suite found in /etc/apt"
    [[ $from != https:* ]] || include=(--include=ca-certificates)
    [ -n "$http_proxy" ] || http_proxy=$(apt-config dump Acquire::http::Proxy | sed -nE 's/.* "(.+)";/\1/p')
    [ -z "$http_proxy" ] || export http_proxy
    bounded 900 debootstrap --variant=minbase "${include[@]}" "$suite" "$1" "$from" >"$2" 2>&1 ||
        { tail "$2" >&2; die "debootstrap failed"; }
    copy_apt_config "$1"
}
