# shellcheck shell=bash
# shellcheck disable=SC2016
# The cases of scripts/docker-volumes.sh, which sources this; it says what the words mean. A case is run for each side,
# in a process of its own, with no containers, mounts or volumes but its own; what it prints is compared.

# ------------------------------------------------------------------- the image

t image 'box && tree -t /data /empty /file /conf /nest /ldir /labs /lloop'

# ---------------------------------------------------------- -v: one to three fields

t v-anonymous 'box -v /new && tree /new; store; vol ls -q'
t v-named 'box -v vol:/new && inside "echo x >/new/x"; tree /new; store'
t v-bind 'box -v "$H/dir:/new" && inside "echo x >/new/x; cat /new/f"; tree /new; host'
t v-bind-rw 'box -v "$H/dir:/new:rw" && inside "echo x >/new/x; rm /new/hard"; tree /new; host'
t v-bind-ro 'box -v "$H/dir:/new:ro" && inside "echo x >/new/x"; tree /new; host'
t v-bind-file 'box -v "$H/file:/new" && inside "cat /new; echo x >>/new"; tree /new; host'
t v-bind-over-dir 'box -v "$H/dir:/data" && tree /data'
t v-bind-over-file 'box -v "$H/file:/data/a" && tree /data'
t v-bind-symlink 'box -v "$H/ldir:/new" && tree /new'
t v-bind-symlink-file 'box -v "$H/lfile:/new" && tree /new'
t v-bind-symlink-dangling <<'E'
box -v "$H/ldangling:/new" && tree /new
E
t v-several 'box -v "$H/dir:/new" -v vol:/data -v /anon -v "$H/file:/nfile:ro" && tree /new /data /anon /nfile; store'
t v-target-cleaned 'box -v "$H/dir:/new/../other//x/." && tree /other/x'
t v-target-slash 'box -v "$H/dir:/new/" && tree /new'
t v-target-climbs 'box -v "$H/dir:/../../new" && tree /new'
t v-target-blank 'box -v "$H/dir:/a new" && tree "/a new"'
t v-source-cleaned 'box -v "$H/dir/../dir//sub/.:/new" && tree /new'
t v-source-slash 'box -v "$H/dir/:/new" && tree /new'
t v-source-root 'box -v "/:/new:ro" && inside "test -d /new/usr && echo there"'
t v-source-comma 'box -v "$H/a,b:/new" && tree /new'
t v-source-relative <<'E'
cd "$H" && box -v "./dir:/new" && tree /new
#docker: refused (name)
#stratafs: f -rw-r--r-- 1000:1000
E
t v-source-relative-bare 'cd "$H" && box -v "dir/sub:/new"'
t v-source-tilde 'box -v "~/dir:/new"'
t v-name-digits 'box -v 00:/new && store'
t v-name-long 'box -v "$(printf "v%.0s" {1..255}):/new" && vol ls -q'
t v-name-too-long 'box -v "$(printf "v%.0s" {1..256}):/new"; vol ls -q'
t v-name-dots 'box -v "a.b_c-D:/new" && vol ls -q'
t v-name-one-letter <<'E'
box -v "v:/new"; vol ls -q
#docker: ANONYMOUS
#stratafs: refused (name)
E
n=0
for name in _vol -vol 'a b' a/b 'v%' 'vö'; do
    n=$((n + 1))
    t "v-name-bad-$n" "box --volume='$name:/new'; vol ls -q"
done
t v-name-hidden <<'E'
box -v .vol:/new
#docker: refused (name)
#stratafs: refused (source-missing)
E
n=0
for text in /src: /src:: /src::ro /src:/new:ro:rw /a:/b:/c:/d vol:/new:rw:z vol:/new::; do
    n=$((n + 1))
    t "v-fields-$n" "box -v '$text'; vol ls -q"
done
n=0
for text in : :: ::ro :/new :/new:ro "\$H/dir:/new:"; do
    n=$((n + 1))
    t "v-fields-empty-$n" <<E
box -v "$text"
#docker: up
#stratafs: refused (spec)
E
done
t v-empty <<'E'
box -v ''; vol ls -q
#docker: ANONYMOUS
#stratafs: refused (spec)
E
t v-mode-as-target 'box -v "/new:ro"; vol ls -q'
t v-mode-as-target-volume 'box -v "vol:rw"; vol ls -q'
t v-mode-as-target-list 'box -v "vol:ro,z"; vol ls -q'
t v-target-relative <<'E'
box -v new; vol ls -q
#docker: ANONYMOUS
#stratafs: refused (target)
E
t v-target-relative-bind 'box -v "$H/dir:new"'
t v-target-relative-volume 'box -v "vol:new:ro"; vol ls -q'
t v-target-dot 'box -v "$H/dir:./new"'
t v-target-root <<'E'
box -v /; vol ls -q
#docker: ANONYMOUS
#stratafs: refused (root)
E
t v-target-root-bind 'box -v "$H/dir:/"'
t v-target-root-volume 'box -v "vol:/:ro"; vol ls -q'
t v-target-root-cleaned 'box -v "$H/dir:/a/.."'
t v-twice-anonymous <<'E'
box -v /new -v /new && vol ls -q
#docker: up
#stratafs: refused (duplicate)
E

# ------------------------------------------------------------ -v: words of a mode

for w in rw ro z Z z,ro ro,Z rw,z consistent cached delegated ro,cached; do
    t "v-word-bind-$w" "box -v \"\$H/dir:/new:$w\" && inside 'echo x >/new/x'; tree /new"
    t "v-word-volume-$w" "box -v vol:/conf:$w && inside 'echo x >/conf/x'; tree /conf; store"
done
for w in private rprivate slave rslave shared rshared ro,rslave rslave,z,rw,delegated; do
    t "v-word-bind-$w" "box -v \"\$H/dir:/new:$w\" && inside 'echo x >/new/x'; tree /new"
    t "v-word-volume-$w" "box -v vol:/conf:$w; vol ls -q"
done
for w in nocopy nocopy,ro rw,nocopy,z; do
    t "v-word-bind-$w" "box -v \"\$H/dir:/new:$w\"; host"
    t "v-word-volume-$w" "box -v vol:/conf:$w && inside 'echo x >/conf/x'; tree /conf; store"
done
for w in rro ro-non-recursive ro-force-recursive; do
    t "v-word-$w" <<E
box -v "\$H/dir:/new:$w" && inside 'echo x >/new/x'
#docker: refused (mode)
#stratafs: can't create /new/x: Read-only file system
E
done
for w in readonly volume-nocopy RO Rw zz 'ro,' ,ro ',' ro,rw rw,rw ro,ro z,Z z,z private,shared rslave,rslave cached,delegated \
    nocopy,nocopy 'ro z' 'ro, z' ro=true noexec nosuid; do
    t "v-word-bad-$w" "box -v \"\$H/dir:/new:$w\""
    t "v-word-bad-volume-$w" "box -v \"vol:/new:$w\"; vol ls -q"
done

# ------------------------------------------------------------------------ --mount

for key in source src; do
    for to in target dst destination; do
        t "mount-bind-$key-$to" "box --mount \"type=bind,$key=\$H/dir,$to=/new\" && tree /new"
    done
done
t mount-volume 'box --mount type=volume,source=vol,target=/conf && tree /conf; store'
t mount-volume-default 'box --mount source=vol,target=/conf && tree /conf; store'
t mount-anonymous 'box --mount target=/conf && tree /conf; store'
t mount-anonymous-typed 'box --mount type=volume,dst=/conf && tree /conf; vol ls -q'
t mount-anonymous-readonly 'box --mount target=/conf,readonly; vol ls -q'
t mount-tmpfs 'box --mount type=tmpfs,target=/conf && inside "ls /conf; stat -c %a /conf; echo x >/conf/x; cat /conf/x"'
t mount-file 'box --mount "type=bind,source=$H/file,target=/conf/one" && tree /conf'
for w in readonly ro readonly=true readonly=1 ro=t ro=T readonly=TRUE readonly=True readonly=false ro=0 ro=F readonly=FALSE readonly=False ro=f; do
    t "mount-$w" "box --mount \"type=bind,src=\$H/dir,dst=/new,$w\" && inside 'echo x >/new/x; cat /new/x'"
done
for w in readonly=yes readonly=2 ro= ro=tRUE; do
    t "mount-bad-$w" "box --mount \"type=bind,src=\$H/dir,dst=/new,$w\""
done
t mount-volume-readonly 'box --mount src=vol,dst=/conf,readonly && inside "echo x >/conf/x"; tree /conf; store'
t mount-tmpfs-readonly 'box --mount type=tmpfs,dst=/conf,readonly && inside "echo x >/conf/x; ls /conf"'
for w in private rprivate slave rslave shared rshared RSLAVE; do
    t "mount-propagation-$w" "box --mount \"type=bind,src=\$H/dir,dst=/new,bind-propagation=$w\" && tree /new"
done
t mount-propagation-bad 'box --mount "type=bind,src=$H/dir,dst=/new,bind-propagation=loud"'
t mount-propagation-empty <<'E'
box --mount "type=bind,src=$H/dir,dst=/new,bind-propagation="
#docker: up
#stratafs: refused (value)
E
for w in consistent cached delegated default; do
    t "mount-consistency-$w" "box --mount \"type=bind,src=\$H/dir,dst=/new,consistency=$w\" && tree /new"
done
t mount-consistency-bad <<'E'
box --mount "type=bind,src=$H/dir,dst=/new,consistency=none"
#docker: up
#stratafs: refused (value)
E
t mount-nonrecursive <<'E'
box --mount "type=bind,src=$H/dir,dst=/new,bind-nonrecursive" && tree /new
#docker: up
#stratafs: refused (value)
E
for w in enabled disabled writable,readonly readonly,readonly,bind-propagation=rprivate; do
    t "mount-recursive-${w%%,*}" <<E
box --mount "type=bind,src=\$H/dir,dst=/new,bind-recursive=$w" && tree /new
#docker: refused (key)
#stratafs: up
E
done
t mount-create-src <<'E'
box --mount "type=bind,src=$H/missing,dst=/new,bind-create-src" && tree /new
#docker: refused (field)
#stratafs: up
E
t mount-nocopy 'box --mount src=vol,dst=/conf,volume-nocopy && tree /conf; store'
t mount-nocopy-true 'box --mount src=vol,dst=/conf,volume-nocopy=true && tree /conf'
t mount-nocopy-false 'box --mount src=vol,dst=/conf,volume-nocopy=0 && tree /conf'
t mount-nocopy-bad 'box --mount src=vol,dst=/conf,volume-nocopy=maybe; vol ls -q'
t mount-label 'box --mount src=vol,dst=/conf,volume-label=a=b,volume-label=c && vol inspect -f "{{json .Labels}}" vol'
t mount-label-of-old 'vol create --label a=old vol; box --mount src=vol,dst=/conf,volume-label=a=new && vol inspect -f "{{json .Labels}}" vol'
t mount-label-empty <<'E'
box --mount src=vol,dst=/conf,volume-label= && vol inspect -f "{{json .Labels}}" vol
#docker: {"":""}
#stratafs: refused
E
t mount-driver 'box --mount src=vol,dst=/conf,volume-driver=local && vol inspect -f "{{.Driver}}" vol'
t mount-driver-bad 'box --mount src=vol,dst=/conf,volume-driver=nobody; vol ls -q'
t mount-opt-tmpfs <<'E'
box --mount '"volume-opt=o=size=1m,mode=710",src=vol,dst=/new,volume-opt=type=tmpfs,volume-opt=device=tmpfs' &&
    inside 'stat -c %a /new; stat -f -c %b:%S /new; echo x >/new/x; ls /new'
end; store
E
t mount-opt-bind 'box --mount "src=vol,dst=/new,volume-opt=type=none,volume-opt=device=$H/dir,volume-opt=o=bind" && inside "echo x >/new/x"; tree /new; host; end; store'
t mount-opt-bad 'box --mount src=vol,dst=/new,volume-opt=nosuch=1; vol ls -q'
t mount-opt-needs 'box --mount src=vol,dst=/new,volume-opt=type=tmpfs; vol ls -q'
t mount-opt-empty 'box --mount src=vol,dst=/new,volume-opt=; vol ls -q'
t mount-subpath <<'E'
vol create vol; mkdir -p "$(data vol)/a/b"; box --mount src=vol,dst=/new,volume-subpath=a && tree /new
#docker: refused (key)
#stratafs: b/ drwxr-xr-x
E
t mount-subpath-anonymous <<'E'
box --mount dst=/new,volume-subpath=a
#docker: refused (key)
#stratafs: refused (anonymous)
E
for w in 64m 64M 65536 1.5m 1mb 1MiB 0 '16 m'; do
    t "mount-tmpfs-size-${w// /_}" "box --mount 'type=tmpfs,dst=/new,tmpfs-size=$w' && inside 'stat -f -c %b:%S /new'"
done
for w in -1 1x '' 50% huge; do
    t "mount-tmpfs-size-bad-$w" "box --mount 'type=tmpfs,dst=/new,tmpfs-size=$w'"
done
for w in 1777 700 0755 1 4755; do
    t "mount-tmpfs-mode-$w" "box --mount 'type=tmpfs,dst=/new,tmpfs-mode=$w' && inside 'stat -c %a:%u:%g /new'"
done
for w in 9 rwx '' -1 0o755; do
    t "mount-tmpfs-mode-bad-$w" "box --mount 'type=tmpfs,dst=/new,tmpfs-mode=$w'"
done
t mount-tmpfs-mode-none <<'E'
box --mount type=tmpfs,dst=/new,tmpfs-mode=0 && inside 'stat -c mode=%a /new'
#docker: mode=1777
#stratafs: mode=0
E
t mount-tmpfs-mode-beyond <<'E'
box --mount type=tmpfs,dst=/new,tmpfs-mode=17777
#docker: up
#stratafs: refused (value)
E
t mount-tmpfs-source 'box --mount type=tmpfs,src=vol,dst=/new; vol ls -q'
t mount-mixed-1 'box --mount "type=bind,src=$H/dir,dst=/new,volume-nocopy"'
t mount-mixed-2 'box --mount "type=bind,src=$H/dir,dst=/new,tmpfs-size=1m"'
t mount-mixed-3 'box --mount type=volume,src=vol,dst=/new,bind-propagation=rslave'
t mount-mixed-4 'box --mount type=volume,src=vol,dst=/new,tmpfs-mode=700'
t mount-mixed-5 'box --mount type=tmpfs,dst=/new,bind-propagation=rslave'
t mount-mixed-6 'box --mount type=tmpfs,dst=/new,volume-label=a'
t mount-mixed-before-type 'box --mount volume-opt=a=b,dst=/new,type=tmpfs'
t mount-type-none 'box --mount type=,dst=/new'
t mount-type-unknown 'box --mount type=magic,dst=/new'
t mount-type-case 'box --mount "TYPE=Bind,SOURCE=$H/dir,Target=/new,ReadOnly" && inside "echo x >/new/x; cat /new/f"'
t mount-type-npipe 'box --mount type=npipe,src=a,dst=/new'
t mount-type-image 'box --mount type=image,src=t:1,dst=/new'
t mount-type-cluster 'box --mount type=cluster,src=aa,dst=/new'
t mount-key-twice 'box --mount "type=tmpfs,type=bind,src=$H/other,src=$H/dir,dst=/old,dst=/new" && tree /new'
t mount-key-unknown 'box --mount type=tmpfs,dst=/new,colour=red'
t mount-key-alone 'box --mount type=tmpfs,dst=/new,colour'
t mount-key-without-value 'box --mount type=tmpfs,dst'
t mount-key-blank 'box --mount "type=tmpfs, dst=/new"'
t mount-empty-field 'box --mount type=tmpfs,dst=/new,'
t mount-empty 'box --mount ""'
t mount-short-form 'box --mount /src:/new'
t mount-no-target 'box --mount type=tmpfs'
t mount-target-empty 'box --mount type=tmpfs,dst='
t mount-target-relative 'box --mount type=tmpfs,dst=new'
t mount-target-root 'box --mount type=tmpfs,dst=/'
t mount-target-cleaned 'box --mount "type=bind,src=$H/dir,dst=/a/../new//x/" && tree /new/x'
t mount-bind-no-source 'box --mount type=bind,dst=/new'
t mount-bind-relative 'cd "$H" && box --mount type=bind,src=dir,dst=/new'
t mount-bind-relative-dot <<'E'
cd "$H" && box --mount type=bind,src=./dir,dst=/new && tree /new
#docker: refused (target)
#stratafs: up
E
t mount-volume-absolute 'box --mount "type=volume,src=$H/dir,dst=/new"'
t mount-volume-name-bad 'box --mount src=_vol,dst=/new; vol ls -q'
t mount-volume-name-short 'box --mount src=v,dst=/new; vol ls -q'
t mount-quotes 'box --mount "type=bind,\"src=$H/a,b\",dst=/new" && tree /new'
t mount-quotes-doubled 'mkdir "$H/a\"b"; box --mount "type=bind,\"src=$H/a\"\"b\",dst=/new" && tree /new'
t mount-quotes-bare 'box --mount "type=bind,src=$H/a\"b,dst=/new"'
t mount-quotes-open 'box --mount "type=tmpfs,\"dst=/new"'
t mount-quotes-late 'box --mount "type=tmpfs,\"dst=/new\"x"'
t mount-colon 'box --mount "type=bind,src=$H/a:b,dst=/new:x" && tree /new:x'

# ------------------------------------------------------------------------ --tmpfs

t tmpfs 'box --tmpfs /new && inside "stat -c %a:%u:%g /new; echo x >/new/x; cat /new/x"'
t tmpfs-over-dir 'box --tmpfs /conf && inside "ls /conf; stat -c %a:%u:%g /conf"'
t tmpfs-over-dir-mode 'box --tmpfs /data && inside "ls /data; stat -c %a:%u:%g /data"'
t tmpfs-mount-over-dir-mode 'box --mount type=tmpfs,dst=/data && inside "ls /data; stat -c %a:%u:%g /data"'
t tmpfs-over-dir-mode-given <<'E'
box --tmpfs /data:mode=711 --mount type=tmpfs,dst=/empty,tmpfs-mode=1770 && inside "stat -c %a:%u:%g /data /empty"
#docker: 2750:0:0
#stratafs: 711:0:0
E
t tmpfs-over-symlink 'box --tmpfs /ldir && inside "ls /data; stat -c %a /data"'
t tmpfs-over-file 'box --tmpfs /file'
for w in size=1m size=64k size=1048576 size=4K mode=700 mode=1755 ro rw; do
    t "tmpfs-$w" "box --tmpfs /new:$w && inside 'stat -c %a:%u:%g /new; echo x >/new/x; cat /new/x'"
done
for w in noexec nosuid nodev exec suid dev noatime relatime sync dirsync; do
    t "tmpfs-flag-$w" "box --tmpfs /new:$w && inside 'stat -c %a:%u:%g /new; echo x >/new/x; cat /new/x'"
done
t tmpfs-noexec <<'E'
box --tmpfs /new:noexec && inside 'cp /bin/busybox /new/true; chmod 755 /new/true; /new/true && echo runs'
#docker: Permission denied
#stratafs: runs
E
t tmpfs-noexec-default <<'E'
box --tmpfs /new && inside 'cp /bin/busybox /new/true; chmod 755 /new/true; /new/true && echo runs'
#docker: Permission denied
#stratafs: runs
E
t tmpfs-several 'box --tmpfs /new:rw,noexec,nosuid,size=1m,mode=711 && inside "stat -c %a /new; stat -f -c %b:%S /new"'
t tmpfs-size-shown 'box --tmpfs /new:size=2m && inside "stat -f -c %b:%S /new"'
t tmpfs-full 'box --tmpfs /new:size=64k && inside "dd if=/bin/busybox of=/new/x bs=1k count=100 2>&1 | head -n 1; stat -c %s /new/x"'
for w in uid=5 gid=6 nr_inodes=10; do
    t "tmpfs-$w" <<E
box --tmpfs /new:$w
#docker: up
#stratafs: refused
E
done
t tmpfs-size-percent <<'E'
box --tmpfs /new:size=10%
#docker: up
#stratafs: refused
E
for w in size=-1 size=x mode=rwx mode=9 nosuchoption uid=x; do
    t "tmpfs-bad-$w" "box --tmpfs /new:$w"
done
t tmpfs-relative 'box --tmpfs new'
t tmpfs-root 'box --tmpfs /'
t tmpfs-empty 'box --tmpfs ""'
t tmpfs-twice <<'E'
box --tmpfs /new:size=1m --tmpfs /new:size=2m && inside 'stat -f -c %b /new'
#docker: 512
#stratafs: refused (duplicate)
E
t tmpfs-gone-at-end 'box --tmpfs /new && inside "echo x >/new/x"; end; box --tmpfs /new && inside "ls /new"'
t tmpfs-not-an-image-change 'box --tmpfs /conf && inside "echo x >/conf/x"; end; box && inside "ls /conf"'

# --------------------------------------------------------------- duplicates, order

t duplicate-v 'box -v "$H/dir:/new" -v vol:/new; vol ls -q'
t duplicate-v-cleaned 'box -v "$H/dir:/new" -v "$H/other:/new/"'
t duplicate-mount 'box --mount "type=bind,src=$H/dir,dst=/new" --mount type=tmpfs,dst=/new'
t duplicate-v-mount 'box -v "$H/dir:/new" --mount "type=bind,src=$H/other,dst=/new"'
t duplicate-v-tmpfs 'box -v "$H/dir:/new" --tmpfs /new'
t duplicate-v-anonymous <<'E'
box -v /new -v vol:/new; vol ls -q
#docker: up
#stratafs: refused (duplicate)
E
t duplicate-mount-tmpfs <<'E'
box --mount type=tmpfs,dst=/new --tmpfs /new
#docker: up
#stratafs: refused (duplicate)
E
t duplicate-by-symlink <<'E'
box -v "$H/dir:/data" -v "$H/other:/ldir" && tree /data
#docker: up
#stratafs: refused (duplicate)
E
t nested-parent-first 'mkdir "$H/other/sub"; box -v "$H/other:/new" -v "$H/dir:/new/sub" && inside "echo x >/new/sub/x; echo y >/new/y"; tree /new; host'
t nested-parent-last 'mkdir "$H/other/sub"; box -v "$H/dir:/new/sub" -v "$H/other:/new" && tree /new'
t nested-parent-last-mount 'mkdir "$H/other/sub"; box --mount "type=bind,src=$H/dir,dst=/new/sub" -v "$H/other:/new" && tree /new'
t nested-tmpfs-last 'box -v "$H/dir:/conf/in" --tmpfs /conf && inside "ls /conf; ls /conf/in"'
t nested-tmpfs-in-bind 'box --tmpfs /new/sub -v "$H/dir:/new" && inside "ls /new/sub; echo x >/new/sub/x; ls /new/sub"; host'
t nested-three 'box -v vol:/new/sub/deep -v "$H/dir:/new" -v /new/sub && inside "echo x >/new/sub/deep/x; find /new | sort"; tree /new'
t nested-file-in-dir 'touch "$H/dir/empty"; box -v "$H/file:/new/empty" -v "$H/dir:/new" && tree /new'
t nested-file-in-volume 'box -v "$H/file:/conf/one:ro" -v vol:/conf && inside "echo x >/conf/one; echo y >/conf/two"; tree /conf; end; store'
t nested-missing-in-bind <<'E'
box -v "$H/dir:/new" -v "$H/other:/new/more/in" && tree /new; end; host
#docker: dir/more/in/
#stratafs: dir/ drwxr-x--x 7:8 1252487349.9
E
t nested-missing-in-volume <<'E'
box -v vol:/new -v "$H/other:/new/more" && tree /new; end; ls "$(data vol)"; echo end
#docker: more
#stratafs: end
E
t nested-missing-in-ro-bind <<'E'
box -v "$H/dir:/new:ro" -v "$H/other:/new/more" && tree /new
#docker: refused
#stratafs: more/o
E
t nested-ro-parent 'box -v "$H/dir:/new:ro" -v "$H/other:/new/sub" && inside "echo x >/new/x; echo y >/new/sub/y"; tree /new'
t nested-ro-child 'box -v "$H/dir:/new" -v "$H/other:/new/sub:ro" && inside "echo x >/new/x; echo y >/new/sub/y"; tree /new'
t nested-host-mount <<'E'
mount -t tmpfs in "$H/dir/sub"; echo in >"$H/dir/sub/in"
box -v "$H/dir:/new" && inside 'ls /new/sub'
umount -l "$H/dir/sub"
E
t nested-host-mount-ro <<'E'
mount -t tmpfs in "$H/dir/sub"; echo in >"$H/dir/sub/in"
box -v "$H/dir:/new:ro" && inside 'ls /new/sub; echo x >/new/sub/x && echo written'
umount -l "$H/dir/sub"
#docker: written
#stratafs: Read-only file system
E
t same-source-twice 'box -v "$H/dir:/new" -v "$H/dir:/more:ro" && inside "echo x >/new/x; cat /more/x; echo y >/more/x; cat /new/x"'
t same-volume-twice 'box -v vol:/new -v vol:/more && inside "echo x >/new/x; cat /more/x; ln /new/x /more/y"'

# ------------------------------------------------------------------- targets that the image does not have

t target-missing 'box -v "$H/dir:/new/deep" && inside "stat -c %a:%u:%g /new; ls /new; echo x >/new/x; ls /new"; tree /new'
t target-missing-file 'box -v "$H/file:/new/deep" && inside "stat -c %a:%u:%g:%F /new; ls /new"; tree /new'
t target-missing-volume 'box -v vol:/new/deep && tree /new; store'
t target-missing-in-upper <<'E'
box -v "$H/dir:/new/deep" && inside "mkdir /made"; 
if [ $side = docker ]; then ls "$(docker inspect -f '{{.GraphDriver.Data.UpperDir}}' c-x)"; else ls "$scratch"/upper/*/upper; fi
#docker: new
#stratafs: made
E
t target-under-file <<'E'
box -v "$H/dir:/file/deep"
E
t target-dangling-symlink 'box -v "$H/dir:/ldangling" && tree /nowhere'
t target-symlink 'box -v "$H/dir:/ldir" && tree /data /ldir'
t target-symlink-absolute 'box -v "$H/dir:/labs" && tree /data /labs'
t target-symlink-on-way 'box -v "$H/dir:/labs/sub" && tree /data'
t target-symlink-climbs 'box -v "$H/dir:/lclimb" && tree /data'
t target-symlink-file 'box -v "$H/file:/lfile" && tree /file'
t target-symlink-loop 'box -v "$H/dir:/lloop"'
t target-root-read-only 'writable=no; box -v "$H/dir:/new" -v vol:/data && inside "echo x >/new/x; echo x >/data/x; echo x >/x; ls /new"'
t target-proc <<'E'
box -v "$H/dir:/proc"
#docker: refused
#stratafs: up
E

# ----------------------------------------------------- sources that do not fit

t bind-missing-v <<'E'
box -v "$H/missing/deep:/new" && tree /new; host
#docker: missing/deep/
#stratafs: refused (source-missing)
E
t bind-missing-mount 'box --mount "type=bind,src=$H/missing,dst=/new"; host'
t bind-missing-below-file <<'E'
box -v "$H/file/deep:/new"; host
E
t kind-file-on-dir 'box -v "$H/file:/conf"; host'
t kind-dir-on-file 'box -v "$H/dir:/file"; host'
t kind-file-on-dir-mount 'box --mount "type=bind,src=$H/file,dst=/conf"'
t kind-dir-on-file-mount 'box --mount "type=bind,src=$H/dir,dst=/file"'
t kind-volume-on-file 'box -v vol:/file'
t failed-leaves-no-volume <<'E'
box -v vol:/file; echo volumes: $(vol ls -q)
#docker: volumes: vol
#stratafs: volumes:
E
t kind-volume-on-file-nocopy 'box -v vol:/file:nocopy'
t kind-volume-on-symlink-to-file 'box -v vol:/lfile'
t kind-tmpfs-on-file 'box --mount type=tmpfs,dst=/file'
t kind-fifo 'mkfifo "$H/fifo"; box -v "$H/fifo:/new" && inside "stat -c %F /new; echo x >/new & cat /new"'
t kind-device 'mknod "$H/null" c 1 3; box -v "$H/null:/new" && inside "stat -c %F:%t:%T /new"'

# ----------------------------------------------- what no change is let into

changes='echo x >/new/f; echo x >>/new/f; echo x >/new/x; rm /new/f; mkdir /new/x; rmdir /new/sub; mv /new/f /new/y; ln /new/f /new/y
    ln -s f /new/y; chmod 777 /new/f; chown 1:1 /new/f; touch /new/f; mknod /new/y p; chmod 700 /new; touch /new; rm -r /new/sub; cat /new/f'
t ro-bind "box -v \"\$H/dir:/new:ro\" && inside '$changes'; tree /new; host"
t ro-bind-mount "box --mount \"type=bind,src=\$H/dir,dst=/new,readonly\" && inside '$changes'; tree /new; host"
t ro-volume "vol create vol; cp -a \"\$H/dir/.\" \"\$(data vol)\"; box -v vol:/new:ro && inside '$changes'; tree /new; store"
t ro-file 'box -v "$H/file:/new:ro" && inside "echo x >/new; chmod 700 /new; touch /new; rm /new; mv /new /y; cat /new"; host'
t ro-tmpfs 'box --tmpfs /new:ro && inside "echo x >/new/f; mkdir /new/x; chmod 700 /new; touch /new; mknod /new/y p; ln -s f /new/y; ls /new"'
t ro-missing-name <<'E'
box -v "$H/dir:/new:ro" && inside 'rmdir /new/none; mv /new/none /new/y'
#docker: Read-only file system
#stratafs: No such file or directory
E
t ro-host-writes 'box -v "$H/dir:/new:ro" && inside "cat /new/f"; echo changed >"$H/dir/f"; echo more >"$H/dir/n"; inside "cat /new/f /new/n; ls /new"'
t rw-changes "box -v \"\$H/dir:/new\" && inside '$changes'; tree /new; host"
t rw-host-writes 'box -v "$H/dir:/new" && inside "cat /new/f; echo mine >/new/mine"; cat "$H/dir/mine"; rm "$H/dir/f"; mkdir "$H/dir/d"; inside "ls /new; rmdir /new/d"; ls "$H/dir"'
t rw-owner 'box -v "$H/share:/new" && inside "touch /new/a; mkdir /new/d; chown 5:6 /new/a; chmod 4711 /new/a; stat -c %a:%u:%g /new/a /new/d"; host'
t rw-xattr 'box -v "$H/dir:/new" -v vol:/conf && setfattr -n user.k -v v "$(root)/new/f" && setfattr -n user.k -v w "$(root)/conf/one" && setfacl -m u:9:rw "$(root)/conf/two"; tree /new /conf; store'

# ------------------------------------------- names on the edge of what is attached

t edge-rename-target 'box -v "$H/dir:/conf" && inside "mv /conf /other 2>&1; ls /conf /other"'
t edge-rmdir-target 'box -v "$H/empty:/conf" && inside "rmdir /conf"; host'
t edge-rm-r-target 'box -v "$H/dir:/conf" && inside "rm -r /conf; ls /conf"; host'
t edge-rmdir-parent 'box -v "$H/dir:/new/deep" && inside "rmdir /new; rmdir /new/deep; ls /new"'
t edge-rename-parent <<'E'
box -v "$H/dir:/nest/a/b" && inside "mv /nest /nest2; ls -d /nest*"
#docker: can't remove '/nest/a/b'
#stratafs: can't rename '/nest'
E
t edge-rename-over-target 'box -v "$H/dir:/conf" && inside "mkdir /tmp/d; mv -T /tmp/d /conf; ls /conf"'
t edge-file-unlink 'box -v "$H/file:/conf/one" && inside "rm /conf/one; cat /conf/one"; host'
t edge-file-rename 'box -v "$H/file:/conf/one" && inside "mv /conf/one /conf/three; cat /conf/one; ls /conf"; host'
t edge-file-rename-over 'box -v "$H/file:/conf/one" && inside "echo new >/conf/new; mv /conf/new /conf/one; cat /conf/one; ls /conf"; host'
t edge-file-write 'box -v "$H/file:/conf/one" && inside "echo x >/conf/one; chmod 600 /conf/one; chown 1:2 /conf/one"; tree /conf; host'
t edge-file-host-writes 'box -v "$H/file:/conf/one" && echo changed >"$H/file"; inside "cat /conf/one"; echo more >>"$H/file"; inside "cat /conf/one"'
t edge-file-host-replaces <<'E'
box -v "$H/file:/conf/one" && echo replaced >"$H/n"; mv "$H/n" "$H/file"; inside "cat /conf/one; echo written >/conf/one"; cat "$H/file"
#docker: host file
#stratafs: written
E
t edge-file-host-removes <<'E'
box -v "$H/file:/conf/one" && rm "$H/file"; inside "cat /conf/one"
#docker: host file
#stratafs: No such file or directory
E
t edge-dir-host-replaces 'box -v "$H/dir:/conf" && mv "$H/dir" "$H/dir2"; mkdir "$H/dir"; echo n >"$H/dir/n"; inside "ls /conf"'
t edge-link-across 'box -v "$H/dir:/new" -v vol:/conf && inside "ln /new/f /conf/f; ln /new/f /f; ln /conf/one /new/one; ls /conf"'
t edge-mv-across 'box -v "$H/dir:/new" -v vol:/conf && inside "mv /new/f /conf/f; mv /conf/one /one; mv /file /new/file; mv /new/sub /conf/"; tree /new /conf /one; host'
t edge-cp-across 'box -v "$H/dir:/new" -v vol:/conf && inside "cp -a /data/. /conf; cp -a /conf/sub /new/"; tree /conf; host'
t edge-hard-links 'box -v "$H/dir:/new" && inside "ln /new/f /new/third; stat -c %h /new/f; echo x >/new/third; cat /new/f /new/hard; rm /new/hard; stat -c %h /new/f"'
t edge-df 'box -v "$H/dir:/new" --tmpfs /conf:size=1m -v vol:/data && inside "stat -f -c %b:%S /conf; stat -f -c %s /new"'
t edge-df-type <<'E'
box --tmpfs /conf && inside 'stat -f -c type=%T /conf'
#docker: type=tmpfs
#stratafs: type=UNKNOWN
E

# ------------------------------------------------------------------- filling volumes

t fill-named 'box -v vol:/data && tree /data; store'
t fill-times-of-directories <<'E'
box -v vol:/data && tree -t /data
#docker: sub/ drwxrwxrwt 5:6 now
#stratafs: sub/ drwxrwxrwt 5:6 1012709106.5
E
t fill-anonymous 'box -v /data && tree /data; store'
t fill-mount 'box --mount src=vol,dst=/data && tree /data; store'
t fill-read-only 'box -v vol:/data:ro && tree /data; store'
t fill-empty-dir 'box -v vol:/empty && tree /empty; store'
t fill-missing-target 'box -v vol:/new/deep && tree /new; store'
t fill-deep-target 'box -v vol:/data/sub/deep && tree /data/sub; store'
t fill-nocopy 'box -v vol:/data:nocopy && tree /data; store'
t fill-nocopy-mount 'box --mount src=vol,dst=/data,volume-nocopy && tree /data; store'
t fill-nocopy-then-copy 'box -v vol:/data:nocopy; end; box -v vol:/data && tree /data'
t fill-created-before 'vol create vol; box -v vol:/data && tree /data; store'
t fill-not-empty 'vol create vol; echo own >"$(data vol)/own"; box -v vol:/data && tree /data; store'
t fill-not-empty-dir 'vol create vol; mkdir "$(data vol)/own"; box -v vol:/data && tree /data'
t fill-lost-found 'vol create vol; mkdir "$(data vol)/lost+found"; box -v vol:/data && tree /data'
t fill-hidden 'vol create vol; touch "$(data vol)/.hidden"; box -v vol:/data && tree /data'
t fill-root-changed 'vol create vol; chmod 711 "$(data vol)"; chown 3:4 "$(data vol)"; box -v vol:/empty && tree /empty; store'
t fill-root-changed-not-empty 'vol create vol; touch "$(data vol)/x"; chmod 711 "$(data vol)"; chown 3:4 "$(data vol)"; box -v vol:/data && tree /data; store'
t fill-never-again 'box -v vol:/data && inside "echo mine >/data/mine"; end; image=2; box -v vol:/data && tree /data; store'
t fill-emptied-again <<'E'
box -v vol:/conf && inside "rm -r /conf/*"; end; box -v vol:/conf && inside 'find /conf -type f; echo $?'
#docker: /conf/one
#stratafs: 0
E
t fill-second-target 'box -v vol:/conf; end; box -v vol:/data && tree /data'
t fill-two-volumes 'box -v vol:/data -v more:/data/sub && tree /data; store'
t fill-under-bind 'mkdir "$H/other/sub"; box -v vol:/data -v "$H/dir:/data/sub" && tree /data; end; store'
t fill-inside-bind 'box -v "$H/dir:/data" -v vol:/data/sub && tree /data; store'
t fill-symlink 'box -v vol:/ldir && tree /data; store'
t fill-symlink-absolute 'box -v vol:/labs && tree /data; store'
t fill-symlink-on-way 'box -v vol:/labs/sub && tree /data; store'
t fill-symlink-climbs 'box -v vol:/lclimb && tree /data; store'
t fill-symlink-dangling 'box -v vol:/ldangling && tree /nowhere; store'
t fill-symlink-loop 'box -v vol:/lloop'
t fill-over-file 'box -v vol:/file'
t fill-not-bind 'box -v "$H/empty:/data" && tree /data; host'
t fill-not-tmpfs 'box --tmpfs /conf && inside "ls /conf"'
t fill-not-image-change 'box -v vol:/data && inside "rm -r /data/sub"; end; box && tree /data'
t fill-two-at-once 'box -v vol:/data & at=y; box -v vol:/data; wait $!; tree /data; store'
t fill-shared 'box -v vol:/data && inside "echo x >/data/x"; at=y; box -v vol:/data && inside "cat /data/x; echo y >/data/x"; at=x; inside "cat /data/x"'
t fill-bind-volume 'vol create -o type=none -o o=bind -o "device=$H/empty" vol; box -v vol:/data && tree /data; list "$H/empty"; end; store'
t fill-bind-volume-not-empty 'vol create -o type=none -o o=bind -o "device=$H/dir" vol; box -v vol:/data && tree /data; host'
t fill-tmpfs-volume <<'E'
vol create -o type=tmpfs -o device=tmpfs vol; box -v vol:/conf && inside 'ls /conf; echo $?'
#docker: 0
#stratafs: one
E

# ------------------------------------------------------------------- --volumes-from

all='-v "$H/dir:/new" -v vol:/conf -v /anon -v "$H/file:/nest/f:ro" --tmpfs /run'
t from "box $all && inside 'echo x >/conf/x; echo y >/anon/y'; at=y; box --volumes-from \"\$(from x)\" && inside 'ls /run; echo z >/new/z; echo z >/nest/f'; tree /new /conf /anon /nest; vol ls -q"
t from-rw "box $all && at=y; box --volumes-from \"\$(from x):rw\" && inside 'echo z >/new/z; echo z >/nest/f'; tree /new"
t from-ro "box $all && at=y; box --volumes-from \"\$(from x):ro\" && inside 'echo z >/new/z; echo z >/conf/z; echo z >/anon/z'; tree /new /conf /anon"
t from-z "box $all && at=y; box --volumes-from \"\$(from x):z\" && inside 'echo z >/new/z'; tree /new"
t from-ro-z "box $all && at=y; box --volumes-from \"\$(from x):ro,z\" && inside 'echo z >/new/z'; tree /new"
for w in nocopy rslave zz ro,rw readonly ro:rw cached; do
    t "from-bad-$w" "box $all && at=y; box --volumes-from \"\$(from x):$w\""
done
t from-empty 'box --volumes-from ""'
t from-nobody 'box --volumes-from "$(from nobody)"'
t from-colon 'box -v vol:/new && at=y; box --volumes-from "$(from x):" && inside "ls -d /new"'
t from-twice 'box -v "$H/dir:/new"; at=y; box -v "$H/other:/new" -v vol:/more; at=z; box --volumes-from "$(from x)" --volumes-from "$(from y)" && tree /new; inside "ls -d /more"'
t from-overridden 'box -v "$H/dir:/new" -v vol:/conf; at=y; box --volumes-from "$(from x)" -v "$H/other:/new" && tree /new /conf'
t from-overridden-mount 'box -v "$H/dir:/new"; at=y; box --volumes-from "$(from x)" --mount "type=bind,src=$H/other,dst=/new,readonly" && tree /new; inside "touch /new/x"'
t from-overridden-tmpfs 'box -v "$H/dir:/new"; at=y; box --volumes-from "$(from x)" --tmpfs /new && inside "ls /new"'
t from-order-first 'box -v "$H/dir:/new"; at=y; box -v "$H/other:/new" --volumes-from "$(from x)" && tree /new'
t from-nested 'mkdir "$H/other/sub"; box -v "$H/dir:/new/sub" -v "$H/other:/new"; at=y; box --volumes-from "$(from x)" && tree /new'
t from-chain 'box -v "$H/dir:/new"; at=y; box --volumes-from "$(from x)" -v vol:/conf; at=z; box --volumes-from "$(from y):ro" && inside "touch /new/x; touch /conf/x"; tree /new /conf'
t from-ro-chain 'box -v "$H/dir:/new"; at=y; box --volumes-from "$(from x):ro"; at=z; box --volumes-from "$(from y):rw" && inside "touch /new/x"'
t from-not-filled 'box -v vol:/nothing -v /none; at=y; image=2; box --volumes-from "$(from x)" && tree /nothing /none; vol ls -q'
t from-fill-target 'box -v vol:/new; at=y; box --volumes-from "$(from x)" -v vol:/conf && tree /new /conf'
t from-mount-key 'box --mount "type=bind,src=$H/dir,dst=/new,readonly" --mount src=vol,dst=/conf,volume-nocopy; at=y; box --volumes-from "$(from x)" && inside "touch /new/x"; tree /new /conf'
t from-then-original-ends 'box -v /anon && inside "echo x >/anon/x"; at=y; box --volumes-from "$(from x)"; at=x; end; at=y; inside "cat /anon/x"; vol ls -q'
t from-stopped <<'E'
box -v vol:/conf -v "$H/dir:/new"; stop; at=y; box --volumes-from "$(from x)" && inside 'ls /conf /new'
#docker: soft
#stratafs: refused (volumes-from)
E

# --------------------------------------------------------------- anonymous volumes

t anonymous-listed 'box -v /conf; vol ls; end; vol ls -q'
t anonymous-new-each-time 'box -v /conf && inside "echo x >/conf/x"; end; box -v /conf && inside "ls /conf"; vol ls -q'
t anonymous-rm 'box --rm -v /conf -v vol:/new; vol ls -q; end; vol ls -q'
t anonymous-rm-shared 'box --rm -v /conf; at=y; box --volumes-from "$(from x)"; at=x; end; vol ls -q; at=y; inside "ls /conf"'
t anonymous-label <<'E'
box -v /conf; vol inspect -f '{{json .Labels}}' $(vol ls -q | head -n 1 | grep . >/dev/null; ls "$(dirname "$(dirname "$(data x)")")" | grep -E '^[0-9a-f]{64}$')
#docker: null
#stratafs: {"com.docker.volume.anonymous":""}
E
t anonymous-used-by-name 'box -v /conf && inside "echo x >/conf/x"; v=$(ls "$(dirname "$(dirname "$(data x)")")" | grep -E "^[0-9a-f]{64}$"); at=y; box -v "$v:/new" && inside "cat /new/x"'

# ---------------------------------------------------------------- volume create

t create 'vol create vol; vol ls; store'
t create-anonymous 'vol create; vol ls; store'
t create-twice 'vol create vol; vol create vol; vol ls -q'
t create-label 'vol create --label a=b --label c --label d=e=f vol; vol inspect -f "{{json .Labels}}" vol'
t create-label-twice 'vol create --label a=1 --label a=2 vol; vol inspect -f "{{json .Labels}}" vol'
t create-label-empty 'vol create --label "" vol; vol ls -q'
t create-label-other 'vol create --label a=1 vol; vol create --label a=2 vol; vol inspect -f "{{json .Labels}}" vol'
t create-driver 'vol create -d local vol; vol create --driver=local more; vol ls'
t create-driver-bad 'vol create -d nobody vol; vol ls -q'
t create-driver-empty 'vol create -d "" vol; vol ls'
t create-name-option 'vol create --name vol; vol ls -q'
t create-name-both 'vol create --name vol more; vol ls -q'
t create-two 'vol create vol more; vol ls -q'
t create-flag-bad 'vol create --nosuch vol; vol ls -q'
for n in v _v 'a b' ../x /abs a/b '' .; do
    t "create-name-bad-$(printf %s "$n" | od -An -tx1 | tr -d ' \n')" "vol create '$n'; vol ls -q"
done
t create-name-255 'vol create "$(printf "v%.0s" {1..255})"'
t create-name-256 'vol create "$(printf "v%.0s" {1..256})"; vol ls -q'
t create-opts 'vol create -o type=tmpfs -o device=tmpfs -o o=size=1m vol; vol inspect -f "{{json .Options}}" vol; store'
t create-opts-type-only 'vol create -o type=tmpfs vol; vol ls -q'
t create-opts-device-only 'vol create -o device=/tmp vol; vol ls -q'
t create-opts-o-only 'vol create -o o=bind vol; vol ls -q'
t create-opts-o-type 'vol create -o o=bind -o type=none vol; vol ls -q'
t create-opts-o-device 'vol create -o o=bind -o device=/tmp vol; vol ls -q'
t create-opts-unknown 'vol create -o colour=red vol; vol ls -q'
t create-opts-empty-type 'vol create -o type= -o device= vol; vol ls -q'
t create-opts-none 'vol create -o "" vol; vol ls -q'
t create-opts-no-value 'vol create -o type vol; vol ls -q'
t create-opts-size 'vol create -o size=1m vol; vol ls -q'
t create-opts-twice 'vol create -o type=nfs -o type=tmpfs -o device=tmpfs vol; vol inspect -f "{{json .Options}}" vol'
t create-opts-other <<'E'
vol create -o type=tmpfs -o device=tmpfs vol; vol create -o type=nfs -o device=:/x vol; vol inspect -f "{{json .Options}}" vol
#docker: vol
#stratafs: refused (exists)
E
t create-opts-of-plain <<'E'
vol create vol; vol create -o type=tmpfs -o device=tmpfs vol; vol inspect -f "{{json .Options}}" vol
#docker: {}
#stratafs: refused (exists)
E

# ---------------------------------------------------------------- volume ls

some='vol create --label c v10; vol create v9; vol create --label a=b vol; vol create --label a=d other; vol create; box -v v9:/new;'
t ls "$some vol ls"
t ls-list "$some vol list"
t ls-quiet "$some vol ls -q"
t ls-nothing 'vol ls; vol ls -q'
t ls-argument 'vol ls vol'
for f in dangling=true dangling=1 dangling=false dangling=0 name=v name=v9 name=^v name='9$' driver=local driver=nobody label=a label=a=b label=a=x \
    label=c 'label=c=' ; do
    t "ls-filter-$f" "$some vol ls -q -f '$f'"
done
t ls-filter-two-names "$some vol ls -q -f name=v9 --filter name=oth"
t ls-filter-two-labels "$some vol create --label a=x --label c both; vol ls -q -f label=a -f label=c"
t ls-filter-mixed "$some vol ls -q -f label=a -f name=oth -f dangling=true"
t ls-filter-regular <<E
$some vol ls -q -f 'name=^v[0-9]+'; echo end
#docker: v10
#stratafs: end
E
t ls-filter-dangling-twice <<E
$some vol ls -q -f dangling=true -f dangling=false
#docker: v10
#stratafs: refused (filter)
E
t ls-filter-empty <<E
$some vol ls -q -f ''
#docker: v10
#stratafs: refused (filter)
E
for f in dangling=maybe size=1 name label!=a scope=local; do
    t "ls-filter-bad-$f" "$some vol ls -q -f '$f'"
done
n=0
for f in table '{{.Name}}' '{{.Name}}: {{.Driver}} {{.Scope}}' '{{.Mountpoint}}' '{{.Labels}}' '{{.Label "a"}}' '{{.Links}} {{.Size}}' \
    'table {{.Name}}\t{{.Driver}}' 'table {{.Name}}\t{{.Labels}}\t{{.Scope}}' raw '' '{{upper .Name}}' '{{.Name}' '{{.Nosuch}}' '{{range .}}' 'table {{.Mountpoint}}'; do
    n=$((n + 1))
    t "ls-format-$n" "$some vol ls --format '$f' -f dangling=false; vol ls -f name=vol --format '$f'; vol ls -f label=a -f name=oth --format '$f'"
done
t ls-format-json-fields <<'E'
vol create vol; vol ls --format '{{json .}}'
#docker: {"Driver":"local","Labels"
#stratafs: {"Availability":"N/A",
E
t ls-quiet-format 'vol create vol; for f in table raw "{{.Driver}}" "table {{.Driver}}"; do vol ls -q --format "$f"; done'
t ls-format-json <<'E'
vol create vol; vol ls --format json
#docker: json
#stratafs: {"Availability":"N/A",
E
t ls-format-nothing-unknown <<'E'
vol ls --format "{{.Nosuch}}"; echo end
#docker: end
#stratafs: refused (template)
E
t ls-format-nothing 'for f in "{{.Name" "table {{.Name}}" "{{.Name}}"; do vol ls --format "$f"; done'

# ---------------------------------------------------------------- volume inspect

t inspect <<'E'
vol create --label a=b vol; vol inspect vol
#docker: "Name": "vol",
#stratafs: "Stratafs"
E
t inspect-fields 'vol create --label a=b vol; for f in CreatedAt Driver Labels Mountpoint Name Options Scope; do vol inspect -f "{{json .$f}}" vol; done'
t inspect-plain-fields 'vol create vol; vol inspect -f "{{.Name}} {{.Driver}} {{.Scope}} {{.Mountpoint}} {{.Labels}} {{.Options}}" vol'
t inspect-options 'vol create -o type=tmpfs -o device=tmpfs -o o=size=1m vol; vol inspect -f "{{json .Options}} {{.Options.type}} {{index .Options \"o\"}}" vol'
t inspect-labels 'vol create --label a=b --label c=d vol; vol inspect -f "{{.Labels}} {{.Labels.a}} {{index .Labels \"c\"}}" vol'
t inspect-two 'vol create vol; vol create more; vol inspect -f "{{.Name}}" vol more'
t inspect-missing 'vol inspect nobody'
t inspect-some-missing 'vol create vol; vol inspect -f "{{.Name}}" nobody vol'
t inspect-none 'vol inspect'
t inspect-format-bad 'vol create vol; vol inspect -f "{{.Name" vol'
t inspect-format-unknown 'vol create vol; vol inspect -f "{{.Nosuch}}" vol | grep .'
t inspect-format-missing <<'E'
vol inspect -f '{{.Name}}' nobody | sed 's/^/line: /'
#docker: line: 
#stratafs: line: refused
E
t inspect-name-bad 'vol inspect _x'
t inspect-prefix 'vol create volume; vol inspect vol'
t inspect-anonymous 'box -v /conf; v=$(ls "$(dirname "$(dirname "$(data x)")")" | grep -E "^[0-9a-f]{64}$"); vol inspect -f "{{.Driver}} {{.Name}} {{.Mountpoint}}" "$v"'
t inspect-used 'box -v vol:/conf; vol inspect -f "{{.Name}} {{.Scope}}" vol'

# ---------------------------------------------------------------- volume rm

t rm 'vol create vol; vol rm vol; vol ls -q; store'
t rm-remove 'vol create vol; vol remove vol; vol ls -q'
t rm-several 'vol create vol; vol create more; vol rm vol more; vol ls -q'
t rm-missing 'vol rm nobody'
t rm-some-missing 'vol create vol; vol rm nobody vol; vol ls -q'
t rm-force-missing 'vol rm -f nobody'
t rm-none 'vol rm'
t rm-in-use 'box -v vol:/conf; vol rm vol; vol ls -q; inside "ls /conf"'
t rm-in-use-force 'box -v vol:/conf; vol rm -f vol; vol ls -q; inside "ls /conf"'
t rm-in-use-some 'vol create more; box -v vol:/conf; vol rm vol more; vol ls -q'
t rm-after-use 'box -v vol:/conf; end; vol rm vol; vol ls -q'
t rm-used-twice 'box -v vol:/conf; at=y; box -v vol:/new; at=x; end; vol rm vol; at=y; end; vol rm vol; vol ls -q'
t rm-stopped <<'E'
box -v vol:/conf; stop; vol rm vol; echo volumes: $(vol ls -q)
#docker: refused (in-use)
#stratafs: volumes:
E
t rm-then-new 'box -v vol:/conf && inside "echo x >/conf/x"; end; vol rm vol; box -v vol:/conf && inside "ls /conf"'
t rm-name-bad 'vol rm ../x'
t rm-content 'vol create vol; mkdir -p "$(data vol)/a/b"; chmod 0 "$(data vol)/a/b"; ln -s /etc "$(data vol)/etc"; vol rm vol; vol ls -q; test -d /etc && echo there'

# ---------------------------------------------------------------- volume prune

t prune-anonymous <<'E'
vol create named; box -v /conf; at=y; box -v /new; end; vol prune -f | grep -v '^Total'; echo named: $(vol ls -q -f name=named)
#docker: named:
#stratafs: named: named
E
t prune-only-anonymous 'box -v /conf -v vol:/new; at=y; box -v /new; end; vol prune -f | grep -v ^Total; vol ls -q'
t prune-total 'box -v /conf && inside "echo 1234567 >/conf/x"; end; vol prune -f'
t prune-nothing 'vol prune -f'
t prune-in-use 'box -v /conf; vol prune -f; inside "ls /conf"'
t prune-answer-none <<'E'
box -v /conf; end; vol prune; vol ls -q
#docker: all local volumes
#stratafs: anonymous local volumes
E
t prune-label 'box -v /conf; end; box --mount dst=/new,volume-label=a=b; end; box --mount dst=/new,volume-label=a=c; end; vol prune -f --filter label=a=b | sed 1,2d | head -n 1; vol ls -q -f label=a=c'
t prune-label-not 'box --mount dst=/new,volume-label=a=b; end; box --mount dst=/new,volume-label=a=c; end; vol prune -f --filter "label!=a=b" | head -n 2; vol ls -q -f label=a=b'
t prune-filter-bad 'vol prune -f --filter size=1'
t prune-filter-no-value 'vol prune -f --filter label'
t prune-filter-all <<'E'
vol create named; vol prune -f --filter all=1 | head -n 1; vol ls -q
#docker: refused (filter)
#stratafs: Deleted Volumes:
E
t prune-all <<'E'
vol create named; vol prune -f --all | head -n 2; vol ls -q
#docker: refused (usage)
#stratafs: Deleted Volumes:
E
t prune-argument 'vol prune -f vol'
t prune-until 'vol prune -f --filter until=1h'

# ----------------------------------------------------- options of the driver `local`

t local-bind 'vol create -o type=none -o o=bind -o "device=$H/dir" vol; box -v vol:/new && inside "echo x >/new/x"; tree /new; host; end; store; vol rm vol; host'
t local-bind-ro 'vol create -o type=none -o o=bind,ro -o "device=$H/dir" vol; box -v vol:/new && inside "echo x >/new/x; cat /new/f"'
t local-bind-missing 'vol create -o type=none -o o=bind -o "device=$H/missing" vol; box -v vol:/new; vol ls -q'
t local-bind-file 'vol create -o type=none -o o=bind -o "device=$H/file" vol; box -v vol:/new'
t local-tmpfs 'vol create -o type=tmpfs -o device=tmpfs -o o=size=1m,mode=711,uid=5 vol; box -v vol:/new && inside "stat -c %a:%u /new; stat -f -c %b:%S /new; echo x >/new/x"; at=y; box -v vol:/more && inside "ls /more"; end; at=x; inside "cat /new/x"; end; box -v vol:/new && inside "ls /new"; end; store'
t local-type-bad 'vol create -o type=nosuchfs -o device=x vol; box -v vol:/new; vol ls -q'
t local-o-bad 'vol create -o type=tmpfs -o device=tmpfs -o o=size=lots vol; box -v vol:/new; vol ls -q'
t local-nfs-no-address 'vol create -o type=nfs -o device=:/x -o o=addr=no-such-host.invalid vol; box -v vol:/new; vol ls -q'
t local-nested 'vol create -o type=none -o o=bind -o "device=$H/dir" vol; box -v vol:/new -v "$H/other:/new/sub" && tree /new'
t local-read-only 'vol create -o type=none -o o=bind -o "device=$H/dir" vol; box -v vol:/new:ro && inside "echo x >/new/x"; host'
t local-relative <<'E'
vol create -o type=none -o o=bind -o device=dir vol; vol ls -q
#docker: vol
#stratafs: refused
E

# ----------------------------------------------------------------------- docker cp

t cp-file-to-dir 'box && copy "$H/file" x:/conf; tree -s /conf'
t cp-file-to-dir-slash 'box && copy "$H/file" x:/conf/; tree -s /conf'
t cp-file-to-new-name 'box && copy "$H/file" x:/conf/n; tree -s /conf'
t cp-file-over-file 'box && copy "$H/file" x:/conf/one; tree -s /conf'
t cp-file-to-missing-slash 'box && copy "$H/file" x:/conf/n/; tree -s /conf'
t cp-file-to-missing-parent 'box && copy "$H/file" x:/none/n; inside "ls -d /none"'
t cp-file-slash 'box && copy "$H/file/" x:/conf/n; tree -s /conf'
t cp-dir-to-missing 'box && copy "$H/dir" x:/conf/n; tree -s /conf'
t cp-dir-to-dir 'box && copy "$H/dir" x:/conf; tree -s /conf'
t cp-dir-contents <<'E'
box && copy "$H/dir/." x:/conf; tree -s /conf
#docker: / drwxr-xr-x 0:0
#stratafs: / drwxr-x--x 7:8
E
t cp-dir-contents-missing 'box && copy "$H/dir/." x:/conf/n; tree -s /conf'
t cp-dir-to-file 'box && copy "$H/dir" x:/conf/one; tree -s /conf'
t cp-dir-over-same-name 'box && inside "mkdir -p /conf/dir/sub; echo old >/conf/dir/f; echo keep >/conf/dir/keep"; copy "$H/dir" x:/conf; tree -s /conf'
t cp-archive 'box && copy -a "$H/dir" x:/conf; tree -s /conf'
t cp-symlink 'box && copy "$H/lfile" x:/conf/n; tree -s /conf'
t cp-symlink-followed 'box && copy -L "$H/lfile" x:/conf/n; tree -s /conf'
t cp-missing 'box && copy "$H/missing" x:/conf'
t cp-out-file 'box && copy x:/conf/one "$H/n"; host -s'
t cp-out-file-to-dir 'box && copy x:/conf/one "$H/dir"; host -s'
t cp-out-dir 'box && copy x:/conf "$H/n"; host -s'
t cp-out-dir-contents 'box && copy x:/conf/. "$H/other"; host -s'
t cp-out-missing 'box && copy x:/none "$H/n"; host -s'
t cp-out-symlink 'box && copy x:/lfile "$H/n"; host -s'
t cp-out-volume 'box -v vol:/data && copy x:/conf "$H/n" && copy x:/data/sub "$H/m"; host -s'
t cp-into-volume 'box -v vol:/conf && copy "$H/file" x:/conf/n; tree -s /conf'
t cp-into-bind 'box -v "$H/dir:/new" && copy "$H/file" x:/new/n; host -s'
t cp-into-ro-volume 'box -v vol:/conf:ro && copy "$H/file" x:/conf/n; tree -s /conf'
t cp-through-relative-link 'box && copy "$H/file" x:/ldir/n; inside "cat /data/n"'
t cp-through-absolute-link <<'E'
box && inside 'mkdir /only-inside; ln -s /only-inside /labs2'; copy "$H/file" x:/labs2/n; inside 'ls /only-inside'
#docker: n
#stratafs: copy refused
E
