// Package zfs writes and reads ZFS send streams without ZFS: what zfs send(8) prints and zfs
// receive(8) takes. It knows objects (a path, metadata, content) and records, and nothing of
// where they come from.
//
// # Writing
//
// [NewStream] takes an iterator of [Object] values, checks all of them, numbers them and derives
// the snapshot's guid from what they say; [Stream.Write] then makes one pass over the contents and
// writes a full stream of one snapshot. Memory is an index of the objects; contents are never
// held. The bytes depend on the objects and the [Options] only.
//
// [Stream.WriteIncrement] writes only what differs from an earlier version, whose [Map] must have
// been kept, and given as the base of all versions after it, so that objects keep their numbers.
// The guid is the same whichever way a version is received.
//
// There are two profiles. [ZPL5] is ZPL version 5 with system attributes and needs no pool
// feature: every OpenZFS and every illumos receives it. [ZPL4] is for pools of a version below 24
// and can be mounted by the newer ones as well. Streams are never compound and carry no
// properties: hosts set those when they receive.
//
// What hosts keep in a form of their own depends on [Options.Platform]: device numbers, and
// extended attributes, which are a system attribute on Linux and FreeBSD and a hidden directory
// on illumos and in [ZPL4].
//
// # Pools
//
// [NewPool] makes a whole pool of one vdev, as a file, a partition or a disk has it, with file
// systems, their properties and the snapshots of streams in it. It is a value that can be read:
// its metadata is made, and contents are opened, when they are read. Hosts import it and can
// write to it, and its snapshots take increments as received ones do.
//
// # Reading
//
// [NewReader] reads records one by one and verifies the checksum of each. [Open] reads a full
// stream whole and gives back its objects; [Snapshot.Apply] puts increments on it. Streams of
// either byte order are read, plain or with large (-L), embedded (-e) and compressed (-c) blocks,
// in packages (-p, -R) or deduplicated (-D). Raw (-w), redacted and resuming streams are refused.
//
// [Dump] prints a stream as text that can be compared, and [Check] holds one to the rules that
// receivers rely on but do not check, and whose violation is a kernel panic of the host later.
//
// # Formats
//
// There is no standard. The records are those of dmu_replay_record in OpenZFS's
// include/sys/zfs_ioctl.h and the checks those of module/zfs/dmu_recv.c; object types are in
// sys/dmu.h, the attribute zap in sys/zap_impl.h and sys/zap_leaf.h, system attributes in
// sys/sa_impl.h, the file system in sys/zfs_znode.h and sys/zfs_sa.h, access control lists in
// sys/zfs_acl.h. A pool is what sys/vdev_impl.h (labels), sys/uberblock_impl.h, sys/dnode.h,
// sys/dmu_objset.h, sys/dsl_dir.h, sys/dsl_dataset.h and sys/space_map.h say, of version 5000.
// Sizes are in bytes and numbers in the stream's byte order unless said otherwise.
package zfs
