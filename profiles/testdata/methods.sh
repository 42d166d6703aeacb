# Run by TestRealMethods in a guest with OpenZFS: the scratch and swap methods for real, with
# stand-ins for what only illumos has. busybox sh.
set -u
fail() { echo "FAIL: $*"; exit 1; }
mkdir -p /stubs /conf
: >/conf/mnttab
cat >/stubs/svcprop <<'END'
#!/bin/sh
v=$(cat "/conf/${2#config/}") || exit 1
if [ -z "$v" ]; then echo '""'; else echo "$v"; fi
END
cat >/stubs/mount <<'END'
#!/bin/sh
echo "mount $*" >>/conf/log
END
cat >/stubs/zonename <<'END'
#!/bin/sh
cat /conf/zone
END
cat >/stubs/pagesize <<'END'
#!/bin/sh
echo 4096
END
cat >/stubs/swap <<'END'
#!/bin/sh
case "$1" in
-a) [ ! -e /conf/swap.fails ] && echo "$2" >>/conf/swap ;;
-d) grep -v "^$2\$" /conf/swap >/conf/swap.new; mv /conf/swap.new /conf/swap ;;
-l) cat /conf/swap ;;
esac
END
cat >/stubs/lofiadm <<'END'
#!/bin/sh
case "$1" in
-a) echo "/dev/lofi/1 $2" >/conf/lofi; echo /dev/lofi/1 ;;
-d) : >/conf/lofi ;;
*) cat /conf/lofi ;;
esac
END
chmod +x /stubs/*
for m in scratch swap; do
	# The shell of busybox takes its own mount before that of PATH.
	sed -e 's#^PATH=.*#PATH=/stubs:/sbin:/bin#' -e 's#/etc/mnttab#/conf/mnttab#' -e 's#^\tmount -F#\t/stubs/mount -F#' "/in/isc-enc-$m.sh" >"/method-$m" || fail "no method"
	grep -q '^PATH=/stubs' "/method-$m" || fail "the method sets another PATH"
done
set_() { printf '%s\n' "$2" >"/conf/$1"; }
run() { SMF_FMRI=svc:/site/x:default sh "$@"; }
status() { # status WANT ARG…
	want=$1; shift
	run "$@"; got=$?
	[ $got = "$want" ] || fail "$*: status $got, not $want"
}
gone() { ! zfs list -H -o name "$1" >/dev/null 2>&1 || fail "$1 is left"; }
is() { # is DATASET PROPERTY VALUE
	got=$(zfs get -H -p -o value "$2" "$1"); [ "$got" = "$3" ] || fail "$1: $2 is $got, not $3"
}

truncate -s 320M /tmp/disk || fail truncate
zpool create -O mountpoint=none tank /tmp/disk || fail "no pool"
zfs create -p tank/isc/web || fail dataset
ds=tank/isc/web/scratch
set_ parent tank/isc/web; set_ mountpoint /scratch; set_ quota 33554432; set_ encryption aes-256-gcm; set_ fallback none
mkdir -p /scratch

# It starts, is encrypted, is everybody's and holds no more than its quota.
status 0 /method-scratch start
is $ds encryption aes-256-gcm
is $ds keystatus available
is $ds keylocation prompt
is $ds mounted yes
is $ds exec off
is $ds setuid off
is $ds devices off
[ "$(stat -c %a /scratch)" = 1777 ] || fail "mode $(stat -c %a /scratch)"
echo secret-one >/scratch/file || fail "cannot write"
dd if=/dev/urandom of=/scratch/large bs=1M count=40 2>/dev/null && fail "the quota does not hold"
rm -f /scratch/large
echo "ok start"

# Starting again leaves new, empty space.
status 0 /method-scratch start
[ ! -e /scratch/file ] || fail "a second start kept the file"
is $ds mounted yes
echo "ok second start"

# After stopping nothing is left.
echo secret-two >/scratch/file
status 0 /method-scratch stop
gone $ds
[ ! -e /scratch/file ] || fail "the file is there after stopping"
status 0 /method-scratch stop
echo "ok stop"

# A restart of the machine: the key is gone, what is left cannot be read, and is cleaned.
status 0 /method-scratch start
echo secret-three >/scratch/file
zpool sync tank
zfs unmount -f $ds && zfs unload-key $ds && zpool export tank || fail export
zpool import -d /tmp tank || fail import
is $ds keystatus unavailable
zfs mount $ds 2>/dev/null && fail "it was mounted without a key"
zfs mount -a || fail "mount -a fails for want of the key"
grep -q secret-three /tmp/disk && fail "the text is on the disk"
status 0 /method-scratch start
[ ! -e /scratch/file ] || fail "a file of the previous start"
is $ds mounted yes
echo "ok stale dataset"

# Power cut between making and mounting: made, but not mounted.
status 0 /method-scratch stop
dd if=/dev/urandom bs=32 count=1 2>/dev/null |
	zfs create -o encryption=aes-256-gcm -o keyformat=raw -o keylocation=prompt -o canmount=noauto -o mountpoint=/scratch $ds || fail create
zfs unload-key $ds
status 0 /method-scratch start
is $ds mounted yes
zfs snapshot $ds@x || fail snapshot
status 0 /method-scratch start
gone $ds@x
echo "ok power cut"

# Power cut while it is in use: the disk as it is at that moment, of a pool that nobody exported.
echo secret-four >/scratch/file
zpool sync tank
cp /tmp/disk /tmp/cut || fail copy
zfs unmount -f $ds && zfs unload-key $ds && zpool export tank && mv /tmp/cut /tmp/disk || fail cut
zpool import -f -d /tmp tank || fail "import after the cut"
is $ds keystatus unavailable
grep -q secret-four /tmp/disk && fail "the text is on the disk that was cut off"
status 0 /method-scratch start
[ ! -e /scratch/file ] || fail "a file from before the cut"
is $ds mounted yes
echo "ok power cut in use"

# No encryption: a clear end, or memory.
status 0 /method-scratch stop
set_ encryption aes-1-none
status 96 /method-scratch start
gone $ds
set_ fallback tmpfs
: >/conf/log
status 0 /method-scratch start
grep -q 'mount -F tmpfs -o size=33554432,nosuid,nodevices,noexec swap /scratch' /conf/log || fail "no tmpfs: $(cat /conf/log)"
set_ parent tank/nowhere; set_ encryption aes-256-gcm; set_ fallback none
status 96 /method-scratch start
echo "ok fallbacks"

# Swap.
vol=tank/swap-isc
set_ volume $vol; set_ size 67108864; set_ encryption aes-256-gcm; set_ fallback none; : >/conf/swap; : >/conf/lofi
set_ zone web01
status 0 /method-swap start
gone $vol
set_ zone global
status 0 /method-swap start
is $vol encryption aes-256-gcm
is $vol keystatus available
is $vol volblocksize 4096
[ "$(cat /conf/swap)" = /dev/zvol/dsk/$vol ] || fail "swaps to $(cat /conf/swap)"
status 0 /method-swap start
[ "$(cat /conf/swap)" = /dev/zvol/dsk/$vol ] || fail "swaps twice"
status 0 /method-swap stop
gone $vol
[ ! -s /conf/swap ] || fail "still swaps"
echo "ok swap"

# What a crash left is destroyed; a device that cannot be added is too; without encryption there is none.
zfs create -V 16M $vol || fail volume
status 0 /method-swap start
is $vol encryption aes-256-gcm
status 0 /method-swap stop
: >/conf/swap.fails
status 95 /method-swap start
gone $vol
rm /conf/swap.fails
set_ encryption aes-1-none
status 96 /method-swap start
gone $vol
set_ fallback lofi
status 0 /method-swap start
[ "$(cat /conf/swap)" = /dev/lofi/1 ] || fail "swaps to $(cat /conf/swap), not by lofi"
status 0 /method-swap stop
[ ! -s /conf/swap ] && [ ! -s /conf/lofi ] || fail "lofi is left"
gone $vol
echo "ok swap fallback"
echo "all ok"
