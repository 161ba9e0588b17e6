# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Docker 20.10: the storage driver fuse-overlayfs against overlay2.
#
# Debian's docker.io and containerd are unpacked, not installed. The driver
# executes `fuse-overlayfs` from PATH. See scripts/engines/lib.sh.

# shellcheck source=scripts/engines/base.sh
. "$repo/scripts/engines/base.sh"

title='Docker'
step import 'Import an archive, export a container of it'
step --short run 'Run: output, exit status, standard input'
step run-options 'Run as a user, read-only, with a tmpfs, without capabilities'
step --short changes 'Changes of every kind in a container, its tree'
step exec 'Exec into a running container, logs, wait, kill'
step parallel 'Eight containers at once'
step --short volume 'A new volume takes the content of the image'
step --short build 'Build: layers with whiteouts, set-id, hard links, owners, xattrs'
step layers 'The archive of each layer that the build made'
step build-replace 'Build: rm -r d; mkdir d in one step, and in two'
step build-stages 'Build with stages, cache and COPY --from'
step build-user 'Build as a user'
step --limit 180 deep 'An image of 60 layers'
step commit 'Commit a container'
step diff 'List the changes of a container'
step sizes 'Sizes of layers and containers'
step copy-out 'Copy out of a running and a stopped container'
step copy-in 'Copy into a running and a stopped container'
step --short save-load 'Save an image, remove it, load it'
step files 'Copy up a large file, a tree of 600 files made and removed'
step --limit 90 restart 'Restart the daemon with containers'
step --limit 90 crash 'Kill the daemon, start it again'
step --limit 120 userns 'Daemon with userns-remap'
step --short remove 'Remove containers and images, prune'

prepare() {
    need busybox busybox-static getfattr attr jq jq perl perl
    unpack docker.io containerd runc tini libdevmapper1.02.1
    make_root "$shared/root"
    tar_of "$shared/root" "$shared/root.tar"

    local c=$shared/context
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
    make_deep
}

# An image of 60 layers: each adds a directory, replaces a file, and removes what an older one added.
make_deep() {
    local n dir=$shared/deep diffs='' names='"base.tar"'
    mkdir -p "$dir/image"
    cp "$shared/root.tar" "$dir/image/base.tar"
    diffs="\"sha256:$(sha256sum <"$shared/root.tar" | cut -d' ' -f1)\""
    for n in {1..59}; do
        mkdir -p "$dir/$n/l/$n" "$dir/$n/data/dir"
        echo "$n" >"$dir/$n/l/$n/f"
        echo "$n" >"$dir/$n/data/dir/same"
        ln "$dir/$n/l/$n/f" "$dir/$n/l/$n/g"
        [ $n -le 30 ] || touch "$dir/$n/l/.wh.$((n - 30))"
        if [ $((n % 10)) = 0 ]; then mkdir -p "$dir/$n/l/$((n - 1))"; echo "$n" >"$dir/$n/l/$((n - 1))/new"; touch "$dir/$n/l/$((n - 1))/.wh..wh..opq"; fi
        find "$dir/$n" -exec touch -h -d '2012-12-12 12:12:12 UTC' {} +
        tar_of "$dir/$n" "$dir/image/$n.tar"
        diffs+=",\"sha256:$(sha256sum <"$dir/image/$n.tar" | cut -d' ' -f1)\""
        names+=",\"$n.tar\""
    done
    printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' "$diffs" >"$dir/image/config.json"
    printf '[{"Config":"config.json","RepoTags":["deep:1"],"Layers":[%s]}]' "$names" >"$dir/image/manifest.json"
    tar -C "$dir/image" -cf "$shared/deep.tar" .
    rm -r "$dir"
}

version() { "$shared/debian/usr/sbin/dockerd" --version; }

driver=fuse-overlayfs
[ -n "${mount_program:-}" ] || driver=overlay2

docker() { bounded "${docker_limit:-60}" "$shared/debian/usr/bin/docker" -H unix:///run/docker.sock "$@"; }
# Process 1 of a container ignores SIGTERM, and the daemon would wait for it.
run() { docker run --network none --stop-signal KILL "$@"; }

# start_daemon [OPTION...]: waits until it answers.
start_daemon() {
    rm -f /run/docker.sock /run/dockerd.pid
    setsid dockerd --data-root "$home/root" --exec-root /run/docker -H unix:///run/docker.sock -p /run/dockerd.pid \
        --iptables=false --ip-forward=false --ip-masq=false --bridge=none --storage-driver $driver "$@" \
        </dev/null >>"$results/dockerd.log" 2>&1 &
    for _ in {1..300}; do
        if docker version >/dev/null 2>&1; then return; fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    tail -n 3 "$results/dockerd.log" >&2
    return 1
}

stop_daemon() {
    local pid
    pid=$(cat /run/dockerd.pid)
    kill "-${1:-TERM}" "$pid"
    for _ in {1..300}; do
        [ -e "/proc/$pid/exe" ] || return 0
        sleep 0.1
    done
    return 1
}

start() {
    use_unpacked
    mkdir "$home/work"
    start_daemon || skip "dockerd does not start: $(tail -n 1 "$results/dockerd.log")"
    docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' "$shared/root.tar" base:1
    run --rm base:1 true || skip "no container runs"
}

stop() { stop_daemon; }

between() {
    local list f
    if mountpoint -q /etc/subuid; then
        # The step userns did not get to its end.
        stop_daemon || stop_daemon KILL
        for f in passwd group subuid subgid; do umount /etc/$f; done
    fi
    docker version || start_daemon
    list=$(docker ps -aq)
    # shellcheck disable=SC2086
    [ -z "$list" ] || docker rm -fv $list
    docker volume prune -f
    list=$(docker images -aq --filter since=base:1)
    # shellcheck disable=SC2086
    [ -z "$list" ] || docker rmi -f $list
    docker image inspect base:1 || docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' "$shared/root.tar" base:1
    rm -rf "$home/tmp" "$home/work"
    mkdir -p "$home/tmp" "$home/work"
}

# tree_of CONTAINER: the export of its whole tree. The host name and the like are the engine's.
tree_of() {
    docker export -o "$home/tmp/export.tar" "$1"
    list_tar "$home/tmp/export.tar"
    rm "$home/tmp/export.tar"
}

# The driver fuse-overlayfs finds what to commit by comparing two trees: a new
# name of a file that was there already becomes a file of its own.
without_links=$(grep -vE '^(ln [^-]|mv link3)' <<<"$changes")

image_tree() {
    docker create --name tree "$1" true >/dev/null
    tree_of tree
    docker rm tree >/dev/null
}

# layers_of IMAGE: what each layer of its archive changes in the tree. A layer
# may say the same in several ways: an opaque directory, or one whiteout for each
# name. So the layers are applied, and the changes of the tree are printed.
layers_of() {
    local dir=$home/tmp/layers layer w
    rm -rf "$dir"
    mkdir -p "$dir/tree"
    docker save -o "$dir/image.tar" "$1"
    tar -C "$dir" -xf "$dir/image.tar"
    : >"$dir/before"
    for layer in $(jq -r '.[0].Layers[]' "$dir/manifest.json"); do
        tar -tf "$dir/$layer" | sed 's|^\./||; /^$/d' >"$dir/names"
        while read -r w; do
            find "$dir/tree/${w%.wh..wh..opq}" -mindepth 1 -delete 2>/dev/null || true
        done < <(grep -E '(^|/)\.wh\.\.wh\.\.opq$' "$dir/names")
        while read -r w; do
            rm -rf "$dir/tree/${w%.wh.*}${w##*.wh.}"
        done < <(grep -E '(^|/)\.wh\.[^/]*$' "$dir/names" | grep -v '\.wh\.\.wh\.')
        # A directory that becomes something else has no whiteout.
        while read -r w; do
            [[ $w == */ ]] || [ -L "$dir/tree/$w" ] || [ ! -d "$dir/tree/$w" ] || rm -rf "${dir:?}/tree/$w"
        done <"$dir/names"
        tar -C "$dir/tree" --xattrs --xattrs-include='*' --numeric-owner --exclude='.wh.*' -xpf "$dir/$layer"
        list "$dir/tree" >"$dir/after"
        echo "-- layer"
        diff "$dir/before" "$dir/after" | grep '^[<>]' || true
        mv "$dir/after" "$dir/before"
    done
    rm -rf "$dir"
}

# build NAME [OPTION...]: the Dockerfile is standard input.
build() {
    local name=$1
    shift
    rm -rf "$home/work/context"
    cp -a "$shared/context" "$home/work/context"
    cat >"$home/work/context/Dockerfile"
    DOCKER_BUILDKIT=0 docker_limit=170 docker build --network none -t "$name" "$@" "$home/work/context"
}

do_import() {
    docker import -c 'ENV A=b' -m imported "$shared/root.tar" imported:1
    docker image inspect -f '{{.Config.Env}} {{len .RootFS.Layers}} {{.Size}} {{.Comment}}' imported:1
    image_tree imported:1
}

do_run() {
    run --rm base:1 sh -c 'cat /data/a /data/dir/deep/file; stat -c "%n %A %u:%g" /data/* /data/dir/* | sort; readlink /data/soft'
    run --rm base:1 sh -c 'ls /data/dir; find /data | sort; wc -c /data/big; ls -i /data/link1 /data/dir/link2 | cut -d/ -f1 | uniq | wc -l'
    try run --rm base:1 sh -c 'exit 7'
    try run --rm base:1 nothere | grep -v level=error
    try run --rm base:1 /data/a | grep -v level=error
    echo input | run --rm -i base:1 sh -c 'cat >/data/in; cat /data/in'
    run --rm base:1 sh -c 'touch /x; test -x /bin/busybox && df / >/dev/null && sync && echo done'
}

do_run_options() {
    run --rm -u 1000:1000 base:1 sh -c '
        exec 2>&1; id; echo x >/home/user/x && cat /home/user/x; echo x >/data/a; cat /data/b; cat /data/dir/file
        ls /data/none; rm /home/user/mine && ls -A /home/user; touch /data/open/x; rm /etc/passwd; mkdir /d; :'
    run --rm --read-only base:1 sh -c 'exec 2>&1; echo x >/data/a; rm /data/b; mkdir /d; cat /data/a'
    run --rm --read-only --tmpfs /data/dir -w /data base:1 sh -c 'exec 2>&1; pwd; echo x >dir/x; ls dir; echo x >y; :'
    run --rm --cap-drop ALL base:1 sh -c 'exec 2>&1; chown 5:6 /data/a; cat /data/b; ls /data/none; mknod /data/m c 1 3; echo x >/data/dir/new; stat -c %u:%g /data/a'
    run --rm -u 1000:20 --group-add 10 base:1 sh -c 'exec 2>&1; cat /data/dir/file; echo x >/data/dir/x; umask 27; mkdir /data/open/d; stat -c "%A %u:%g" /data/open/d'
    run --rm --security-opt no-new-privileges base:1 sh -c 'echo x >/data/a; chmod 4711 /bin/busybox; stat -c %A /bin/busybox'
}

do_changes() {
    run --name changed base:1 sh -c "$changes"
    tree_of changed
    docker commit changed changed:1 >/dev/null
    run --rm changed:1 sh -c 'cat /data/c; ls /data/tree'
}

do_exec() {
    run -d --name running base:1 sh -c 'echo started; exec sleep 100' >/dev/null
    docker exec running sh -c "$changes"
    docker exec running sh -c 'cat /data/c /data/tree/new; find /data -type f | sort'
    docker exec -u 1000 -w /home/user running sh -c 'exec 2>&1; echo x >y; ls; rm mine; ls; rm /data/a; :'
    echo piped | docker exec -i running sh -c 'cat >/data/piped; cat /data/piped'
    try docker exec running sh -c 'exit 9'
    docker logs running
    tree_of running
    docker kill running
    docker wait running
    docker start running
    docker exec running cat /data/piped /data/tree/new
    docker stop -t 0 running
}

do_parallel() {
    local n pids=()
    for n in {1..8}; do
        run --name "p$n" base:1 sh -c "$changes echo $n >/data/n; cat /data/n /data/tree/new" >"$home/work/p$n" 2>&1 &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n"; done
    for n in {1..8}; do cat "$home/work/p$n"; done
    tree_of p8
}

do_volume() {
    run --rm -v v1:/data base:1 sh -c 'ls /data; echo x >/data/x'
    list "$home/root/volumes/v1/_data"
    run --rm -v v2:/data/dir -v v3:/data/none base:1 sh -c 'ls -A /data/dir /data/none'
    list "$home/root/volumes/v2/_data"
    list "$home/root/volumes/v3/_data"
    run --rm --mount type=volume,src=v4,dst=/data,volume-nocopy base:1 ls -A /data
    run --rm -v v5:/not/there base:1 sh -c 'ls -A /not/there; stat -c "%A %u:%g" /not'
    run --name anonymous -v /data base:1 sh -c "$changes"
    run --rm --volumes-from anonymous base:1 sh -c 'cd /data; find . | sort; cat tree/new'
    docker cp anonymous:/data - >"$home/work/volume.tar"
    list_tar "$home/work/volume.tar"
}

do_build() {
    build built:1 <<'END'
FROM base:1
COPY files /files
ADD added.tar /added
COPY --chown=33:34 files/one /owned/deep/one
RUN echo one >/one && ln /one /hard && chmod 4755 /one && ln -s one /soft && mknod /pipe p && mknod /full c 1 7
RUN rm -r /data/tree /data/dir/deep /data/b && mkdir /data/tree && echo new >/data/tree/new
RUN chown -R 33:34 /files && chmod 2770 /files && chown -h 1:2 /files/soft && chown 0:0 /data/capable
RUN mv /data/tree /data/moved && echo more >>/data/moved/new
RUN mv /data/moved /data/tree && rm /hard && mv /one /two && rm /data/a && mkdir /data/a && echo x >/data/a/x
RUN rm -r /files && echo now a file >/files
ENV GREETING=hello
WORKDIR /work/deep
RUN pwd >pwd && echo $GREETING >greeting
VOLUME /work/volume
CMD ["cat", "/work/deep/greeting", "/data/tree/new", "/data/a/x"]
END
    docker image inspect -f '{{len .RootFS.Layers}} {{.Config.Cmd}} {{.Config.WorkingDir}}' built:1
    run --rm built:1
    image_tree built:1
}

do_layers() {
    build built:1 >/dev/null <<'END'
FROM base:1
COPY files /files
RUN echo one >/one && ln /one /hard && chmod 4755 /one
RUN rm -r /data/tree /data/dir && mkdir /data/dir && echo new >/data/dir/new
RUN rm /data/link1 && chown 5:6 /data/b && chmod 711 /data && mv /data/c /data/d && rm /files/one && echo again >/files/one
RUN rm -r /files && ln -s data /files
RUN true
END
    layers_of built:1
}

do_build_replace() {
    build replaced:1 <<'END'
FROM base:1
RUN rm -r /data/tree && mkdir /data/tree
RUN ls -A /data/tree && mkdir /data/tree/old && ls -A /data/tree/old && rm -r /data/dir
RUN mkdir /data/dir && ls -A /data/dir && mkdir -p /new/a && echo 1 >/new/a/1
RUN rm -r /new && mkdir -p /new/a && echo 2 >/new/a/2 && ls /new/a
RUN rm -r /new/a && mv /data/tree /new/a && ls /new/a
RUN mv /new/a/old /data/tree && rm -r /new && ls /data/tree
END
    image_tree replaced:1
    layers_of replaced:1
}

do_build_stages() {
    local file='FROM base:1 AS first
RUN mkdir -p /out/bin /out/share && cp /bin/busybox /out/bin/tool && chmod 4755 /out/bin/tool && ln /out/bin/tool /out/bin/other && chown 5:6 /out/share && echo text >/out/share/text && ln -s text /out/share/soft
FROM base:1 AS second
COPY --from=first /out /usr
COPY --from=first /data/dir /copied
COPY --from=first --chown=7:8 /out/share/text /text
FROM second
RUN rm -r /data /usr/share && stat -c "%n %A %u:%g %h" /usr/bin/*
COPY --from=second /data/a /data/a'
    build stages:1 <<<"$file"
    build stages:2 <<<"$file"
    [ "$(docker image inspect -f '{{.Id}}' stages:1)" = "$(docker image inspect -f '{{.Id}}' stages:2)" ]
    image_tree stages:1
}

do_build_user() {
    build user:1 <<'END'
FROM base:1
RUN mkdir /app && chown user:user /app
USER user
WORKDIR /app
RUN echo mine >file && mkdir dir && id -u
COPY files copied
COPY --chown=user files/one /home/user/one
RUN rm /home/user/mine && echo new >/home/user/new && ! rm /data/a 2>/dev/null
RUN cp -r /data/open /app/open && chmod 700 /app
CMD ["sh", "-c", "id; ls -A /app /home/user; cat /app/file"]
END
    run --rm user:1
    image_tree user:1
}

do_deep() {
    docker load -q -i "$shared/deep.tar"
    docker image inspect -f '{{len .RootFS.Layers}}' deep:1
    run --name deep deep:1 sh -c "rm -r /l/35; mkdir /l/35; $without_links find /l | sort"
    tree_of deep
    docker commit deep deep:2 >/dev/null
    run --rm deep:2 sh -c 'rm -r /l/50 /l/4*; ls /l; cat /l/37/f /data/dir/same; ls -A /l/35'
}

do_commit() {
    run --name source base:1 sh -c "$without_links"
    docker commit -a author -m message -c 'CMD ["cat", "/data/c"]' source committed:1
    docker image inspect -f '{{len .RootFS.Layers}} {{.Author}} {{.Comment}} {{.Config.Cmd}}' committed:1
    run --rm committed:1
    image_tree committed:1
    run -d --name busy base:1 sh -c 'echo x >/data/x; exec sleep 100' >/dev/null
    for _ in {1..100}; do docker exec busy test -s /data/x && break; sleep 0.05; done
    docker commit busy committed:2
    docker commit --pause=false busy committed:3
    run --rm committed:2 cat /data/x
    run --rm committed:3 cat /data/x
}

do_diff() {
    run --name changed base:1 sh -c "$changes"
    docker diff changed | sort
    run --name same base:1 sh -c 'cat /data/a >/dev/null'
    docker diff same | sort
    run --name attributes base:1 sh -c 'chmod 600 /data/a; chown 1:1 /data/setid; touch -d @1 /data/dir/file'
    docker diff attributes | sort
    docker commit changed changed:1 >/dev/null
    run --name second changed:1 sh -c 'rm -r /data/tree; rm /data/moved; echo x >/data/c; mkdir /data/tree'
    docker diff second | sort
}

do_sizes() {
    build sizes:1 >/dev/null <<'END'
FROM base:1
COPY files /files
RUN head -c 100000 /dev/zero >/zeros
RUN echo x >>/data/big
RUN ln /zeros /hard && rm -r /data/tree
END
    docker history --format '{{.Size}}' sizes:1
    docker image inspect -f '{{.Size}}' sizes:1
    run --name sized sizes:1 sh -c 'head -c 50000 /dev/zero >/more; rm /zeros'
    docker ps -as --format '{{.Names}} {{.Size}}'
    docker inspect -s -f '{{.SizeRw}} {{.SizeRootFs}}' sized
}

do_copy_out() {
    run -d --name up base:1 sh -c "$changes exec sleep 100" >/dev/null
    for _ in {1..100}; do docker exec up test -e /tmp/y && break; sleep 0.05; done
    local what
    for what in up down; do
        docker cp -a "$what:/data" "$home/work/$what" 2>/dev/null || { run --name down base:1 sh -c "$changes"; docker cp -a "$what:/data" "$home/work/$what"; }
        list "$home/work/$what"
        docker cp "$what:/data/soft" "$home/work/$what.soft"
        docker cp -L "$what:/data/soft" "$home/work/$what.file"
        docker cp "$what:/data/tree/." "$home/work/$what.content"
        docker cp "$what:/data" - >"$home/work/$what.tar"
        list_tar "$home/work/$what.tar"
        try docker cp "$what:/data/nothere" "$home/work/none"
        try docker cp "$what:/data/a/" "$home/work/none" | sed "s/$driver/DRIVER/"
    done
    list "$home/work" | grep -E '^(up|down)\.(soft|file|content)'
}

do_copy_in() {
    local what
    mkdir -p "$home/work/in/sub"
    echo one >"$home/work/in/one"
    ln "$home/work/in/one" "$home/work/in/sub/hard"
    chown 44:55 "$home/work/in/sub"
    chmod 4711 "$home/work/in/one"
    touch -d @1000000000 "$home/work/in/one"
    ln -s one "$home/work/in/soft"
    run -d --name up base:1 sleep 100 >/dev/null
    docker create --name down base:1 sleep 100 >/dev/null
    for what in up down; do
        docker cp "$home/work/in" "$what:/data/dir"
        docker cp "$home/work/in/." "$what:/data/tree"
        docker cp -a "$home/work/in/one" "$what:/data/a"
        docker cp "$home/work/in" "$what:/data/fresh"
        try docker cp "$home/work/in" "$what:/data/b"
        try docker cp "$home/work/in/one" "$what:/nothere/one"
        docker cp - "$what:/data/open" <"$shared/context/added.tar"
        tree_of "$what" | grep ^data/
    done
    docker exec up sh -c 'cat /data/a /data/fresh/sub/hard; ls /data/tree'
    docker start down
    docker exec down sh -c 'cat /data/a /data/fresh/sub/hard; ls /data/tree'
    docker diff down | sort
}

do_save_load() {
    run --name source base:1 sh -c "$without_links"
    docker commit source saved:1 >/dev/null
    docker save -o "$home/work/saved.tar" saved:1
    docker rm source
    docker rmi saved:1 | sed 's/[0-9a-f]\{64\}/ID/'
    try docker run --rm saved:1 true | grep -c 'Unable to find image'
    docker load -i "$home/work/saved.tar"
    image_tree saved:1
    run --rm saved:1 sh -c 'rm -r /data/tree; mkdir /data/tree; ls -A /data/tree'
}

do_files() {
    run --name many base:1 sh -ec '
        cp /data/big /data/big2; cat /data/big /data/big2 /data/big >/data/huge; echo tail >>/data/big; md5sum /data/huge /data/big
        dd if=/data/huge of=/data/big2 bs=64k seek=3 conv=notrunc 2>/dev/null; md5sum /data/big2
        mkdir /many; cd /many; i=0; while [ $i -lt 600 ]; do echo $i >$i; i=$((i + 1)); done; ls | wc -l
        mkdir d; mv 1* d; ls d | wc -l; ls | wc -l; rm 2*; tar cf /many.tar .; mkdir x; tar xf /many.tar -C x; ls x x/d | wc -l; diff -r d x/d && rm -r x
        find /many -type f | wc -l; rm -r /many; ls -A / | sort'
    docker commit many many:1 >/dev/null
    run --rm many:1 sh -c 'md5sum /data/big /data/big2 /data/huge; tar tf /many.tar | wc -l; ls -A / | sort'
}

# runs CONTAINER N: waits until it was started N times.
runs() {
    for _ in {1..60}; do
        [ "$(docker exec "$1" sh -c 'wc -l </data/runs' 2>/dev/null)" != "$2" ] || return 0
        sleep 0.1
    done
    echo "$1 was not started $2 times"
}

do_restart() {
    run --name stopped base:1 sh -c "$changes"
    run -d --name running base:1 sh -c 'echo run >>/data/runs; exec sleep 100' >/dev/null
    docker create --stop-signal KILL --name created base:1 cat /data/a >/dev/null
    run -d --name always --restart always base:1 sh -c 'echo run >>/data/runs; exec sleep 100' >/dev/null
    runs running 1
    runs always 1
    stop_daemon
    echo "mounts: $(mounts_in "$home" | wc -l), daemons: $(daemons_left)"
    start_daemon
    docker ps -a --format '{{.Names}} {{.State}}' | sort
    docker start running created
    runs running 2
    runs always 2
    docker exec running cat /data/runs
    docker exec always cat /data/runs
    docker logs created
    tree_of stopped
    docker rm -f running always stopped created | sort
    echo "mounts: $(mounts_in "$home" | wc -l), daemons: $(daemons_left)"
}

do_crash() {
    run -d --name running base:1 sh -c 'echo run >>/data/runs; exec sleep 100' >/dev/null
    run --name stopped base:1 sh -c "$changes"
    runs running 1
    stop_daemon KILL
    start_daemon
    docker ps -a --format '{{.Names}} {{.State}}' | sort
    docker start running
    runs running 2
    docker exec running sh -c "$changes cat /data/runs"
    docker exec running cat /data/runs /data/tree/new
    tree_of running
    docker rm -f running stopped | sort
    echo "mounts: $(mounts_in "$home" | wc -l), daemons: $(daemons_left)"
}

do_userns() {
    local f
    for f in passwd group; do
        cp /etc/$f "$home/work/$f"
        mount --bind "$home/work/$f" /etc/$f
    done
    echo 'remapped:x:1501:1501::/:/bin/false' >>"$home/work/passwd"
    echo 'remapped:x:1501:' >>"$home/work/group"
    for f in subuid subgid; do
        [ -e /etc/$f ] || touch /etc/$f
        echo 'remapped:300000:65536' >"$home/work/$f"
        mount --bind "$home/work/$f" /etc/$f
    done
    stop_daemon
    start_daemon --userns-remap remapped
    docker import -c 'ENV PATH=/bin' "$shared/root.tar" base:1 >/dev/null
    run --rm base:1 sh -c 'cat /proc/self/uid_map; stat -c "%n %A %u:%g" /data/* | sort; id -u'
    run --name changed base:1 sh -c "$(grep -v mknod <<<"$changes")"
    tree_of changed
    run --rm -v v1:/data base:1 sh -c 'echo x >/data/x; stat -c "%n %u:%g" /data/x'
    list "$home/root/300000.300000/volumes/v1/_data"
    build user:1 >/dev/null <<'END'
FROM base:1
COPY files /files
RUN rm -r /data/tree && mkdir /data/tree && chown 5:6 /data/tree && chmod 4755 /data/a
END
    image_tree user:1
    docker rm -fv changed
    docker system prune -af >/dev/null
    stop_daemon
    for f in passwd group subuid subgid; do umount /etc/$f; done
    echo "mounts: $(mounts_in "$home" | wc -l), daemons: $(daemons_left)"
    start_daemon
}

do_remove() {
    run --name gone base:1 sh -c "$changes"
    run -d --name running base:1 sleep 100 >/dev/null
    docker commit gone gone:1 >/dev/null
    try docker rm running | sed 's/container [0-9a-f]*/container ID/'
    try docker rmi base:1 | sed 's/container [0-9a-f]*/container ID/'
    docker rm gone
    docker rmi gone:1 | grep -c Deleted
    docker rm -f running
    docker system prune -af --volumes | grep -E '^(Deleted|untagged|Total)' | sort
    docker images -aq
    echo "mounts: $(mounts_in "$home" | wc -l), daemons: $(daemons_left)"
    # Only the directory of short links is left.
    find "$home/root/$driver" -mindepth 1 -maxdepth 1 -printf '%f\n'
    find "$home/root/$driver/l" -mindepth 1 | wc -l
}
