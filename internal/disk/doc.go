// Package disk makes the disk of a Linux machine out of a root file system: one that boots to a
// verified, read-only root and forgets at every start what happened since the last.
//
// [Build] takes the objects of a root and returns a [Guest], whose disks are read at any place and
// by several goroutines at once. There is no copy of them: what of a disk is not made of a file's
// content is kept in memory, and the rest is read from the root when it is asked for. Nothing is
// run, mounted or asked of the machine that builds; the same objects and options give the same bytes.
//
// The system disk, in this order (sector 512, partitions of whole MiB):
//
//	root       EROFS, uncompressed, read-only
//	verity     the hash tree of dm-verity over it
//	swap       empty: encrypted at each start with a key that only the kernel has
//	scratch    empty: the same
//	data       empty, made into a file system at the first start, and kept
//	ESP        FAT32 with one file, the unified kernel image \EFI\BOOT\BOOTX64.EFI
//
// [BuildPool] makes that of an illumos machine: its loader around a ZFS pool, which others made.
//
// The kernel, its modules and systemd's boot stub come from the root. The initrd holds the modules
// that are needed until the root is mounted, and the program in folder init, which is built for each
// architecture by go generate and embedded here.
//
// Formats: UEFI 2.10 chapter 5 (GPT), Microsoft's fatgen103 (FAT32) and PE/COFF specification, the
// UAPI Group's UKI and Discoverable Partitions specifications, the kernel's
// Documentation/admin-guide/device-mapper/verity.rst, filesystems/erofs.rst with fs/erofs/erofs_fs.h,
// and driver-api/early-userspace/buffer-format.rst (cpio); for illumos, usr/src/cmd/boot/installboot and
// usr/src/uts/common/sys/efi_partition.h.
package disk
