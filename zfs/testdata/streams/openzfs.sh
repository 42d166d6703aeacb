#!/bin/sh
# Makes the streams of OpenZFS in this folder, in a guest:
#	.ci/zfs.sh vm -o DIR zfs/testdata/streams/openzfs.sh
set -e
truncate -s 1G /tmp/disk
zpool create -o ashift=12 -O atime=off -O xattr=sa -m /mnt isc /tmp/disk
fill() { # FOLDER
	cd "$1"
	mkdir -p a/b
	seq 1 300 > a/text
	ln a/text a/link
	ln -s text a/sym
	ln -s "$(printf 't%.0s' $(seq 200))" a/long
	echo tiny > tiny
	head -c 3000 /dev/zero > zeros
	truncate -s 300000 a/b/sparse
	echo end >> a/b/sparse
	mkfifo fifo
	mknod null c 1 3
	chmod 1777 a/b
	chown 5:6 a/text
	: > "$(printf 'n%.0s' $(seq 60))"
	setfattr -n user.a -v value a/text
	setfattr -n user.long -v "$(printf 'v%.0s' $(seq 400))" a
	find . -exec touch -h -d "2024-01-02 00:00:00" {} +
	cd /
}
make() { # NAME SENDOPTIONS CREATEOPTION…
	name=$1 send=$2
	shift 2
	zfs create "$@" "isc/$name"
	fill "/mnt/$name"
	zfs snapshot "isc/$name@1"
	# shellcheck disable=SC2086 # several options
	zfs send $send "isc/$name@1" > "/out/$name"
}
make zpl5 ""
make zpl4 "" -o version=4 -o xattr=on
make zpl3 "" -o version=3 -o xattr=on
make zstd "-L -e -c" -o compression=zstd -o recordsize=1M
make gzip "-c" -o compression=gzip-9
make zle "-c" -o compression=zle
make lzjb "-c -e" -o compression=lzjb
make lz4 "-p -c" -o compression=lz4 -o dnodesize=1k
rm -r /mnt/zpl5/a/b
echo more >> /mnt/zpl5/tiny
zfs create isc/zpl5/child
echo child > /mnt/zpl5/child/file
zfs snapshot -r isc/zpl5@2
zfs send -i @1 isc/zpl5@2 > /out/increment
zfs send -R isc/zpl5@2 > /out/package
head -c 32 /dev/urandom > /tmp/key
zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/key isc/secret
zfs snapshot isc/secret@1
zfs send -w isc/secret@1 > /out/raw
zfs clone isc/zpl5@1 isc/cut; rm /mnt/cut/tiny; zfs snapshot isc/cut@1
zfs redact isc/zpl5@1 book isc/cut@1
zfs send --redact book isc/zpl5@1 > /out/redacted
gzip -9n /out/*
