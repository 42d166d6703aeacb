#!/bin/bash
# Makes the streams of zfs-fuse in this folder:
#	.ci/zfs.sh fuse zfs/testdata/streams/zfsfuse.sh DIR
set -e
cd "$1"
truncate -s 100M disk
zpool create -o ashift=9 -m "$1/mnt" isc "$1/disk"
trap 'cd /; zpool destroy -f isc; rm "$1/disk"; rmdir "$1/mnt"' EXIT
zfs create -o dedup=on isc/fuse
mkdir -p mnt/fuse/a/b
head -c 200000 /dev/zero | tr '\0' x > mnt/fuse/a/same1
cp mnt/fuse/a/same1 mnt/fuse/a/b/same2
ln mnt/fuse/a/same1 mnt/fuse/link
ln -s "$(printf 't%.0s' $(seq 200))" mnt/fuse/long
echo tiny > mnt/fuse/tiny
zfs snapshot isc/fuse@1
zfs send isc/fuse@1 > zfsfuse
zfs send -D isc/fuse@1 > zfsfuse-dedup
gzip -9nf zfsfuse zfsfuse-dedup
