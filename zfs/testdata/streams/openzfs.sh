#!/bin/sh
# Makes the streams of OpenZFS in this folder, in a guest:
#	.ci/zfs.sh vm -o DIR zfs/testdata/streams/openzfs.sh
set -e
truncate -s 1G /tmp/disk
zpool create -o ashift=12 -O atime=off -O xattr=sa -m /mnt isc /tmp/disk
fill() { # FOLDER
	mkdir -p $1/a/b
	seq 1 300 > $1/a/text
	ln $1/a/text $1/a/link
	ln -s text $1/a/sym
	ln -s $(printf 't%.0s' $(seq 200)) $1/a/long
	echo tiny > $1/tiny
	head -c 3000 /dev/zero > $1/zeros
	truncate -s 300000 $1/a/b/sparse
	echo end >> $1/a/b/sparse
	mkfifo $1/fifo
	mknod $1/null c 1 3
	chmod 1777 $1/a/b
	chown 5:6 $1/a/text
	: > $1/$(printf 'n%.0s' $(seq 60))
	setfattr -n user.a -v value $1/a/text
	setfattr -n user.long -v $(printf 'v%.0s' $(seq 400)) $1/a
	find $1 -exec touch -h -d "2024-01-02 00:00:00" {} +
}
make() { # NAME SENDOPTIONS CREATEOPTION…
	name=$1 send=$2
	shift 2
	zfs create "$@" isc/$name
	fill /mnt/$name
	zfs snapshot isc/$name@1
	zfs send $send isc/$name@1 > /out/$name
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
