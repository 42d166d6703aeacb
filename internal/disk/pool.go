package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

// A Pool is a ZFS pool of one vdev, the partition that illumos boots from.
type Pool struct {
	io.ReaderAt
	Size    int64    // bytes, whole MiB
	Extents []Extent // what may hold data, ascending and disjoint
	GUID    uint64   // of all that is in it: the ids of disk and partitions derive from it
}

// A Loader is the boot loader of illumos, whose files a root has in /boot.
type Loader struct {
	EFI []byte // loader64.efi
	// MBR and BIOS are pmbr and gptzfsboot, which start the disk without EFI; nil, both of them, if it
	// need not.
	MBR, BIOS []byte
}

// Partition types and places of illumos (sys/efi_partition.h, installboot.h), sizes in bytes.
var (
	typeSolarisUsr      = parseGUID("6a898cc3-1dd2-11b2-99a6-080020736631") // V_USR, ZFS's
	typeSolarisReserved = parseGUID("6a945a3b-1dd2-11b2-99a6-080020736631") // V_RESERVED
)

const (
	solarisReserved      = 8 << 20 // EFI_MIN_RESV_SIZE
	solarisReservedEntry = 8       // where format(8) and zpool(8) have it

	bootBlockAt   = 512 << 10 // BBLK_ZFS_BLK_OFF: behind the first two labels of the vdev
	bootBlockSize = 7 << 19   // BBLK_ZFS_BLK_SIZE
	poolData      = bootBlockAt + bootBlockSize

	mbrStage2Size = 0xfc  // STAGE1_STAGE2_SIZE, two bytes, in sectors
	mbrStage2LBA  = 0xfe  // STAGE1_STAGE2_LBA, eight bytes
	mbrStage2UUID = 0x106 // STAGE1_STAGE2_UUID
	mbrSignature  = 0x1b8 // STAGE1_SIG: what a disk has for itself, with the partition table behind it

	multibootMagic  = 0x1badb002
	multibootScan   = 32 << 10 // MBOOT_SCAN_SIZE
	multibootAddrs  = 1 << 16  // the flag that address fields follow
	multibootBSSEnd = 24       // offset of bss_end_addr, and of entry_addr behind it
)

// PoolRoom returns how large the pool on a disk of size bytes is.
func (l *Loader) PoolRoom(size int64) int64 {
	return size - 2*mebibyte - espSize(int64(len(l.EFI))) - solarisReserved
}

// DiskSize returns how large a disk with a pool of size bytes is.
func (l *Loader) DiskSize(size int64) int64 { return size - l.PoolRoom(0) }

// BuildPool makes the disk of an illumos machine around a pool, as zpool create -B and installboot(8)
// lay it out: EFI system partition with \EFI\BOOT\BOOTX64.EFI, pool, the reserved partition. The
// boot block for machines without EFI stands in the pool's own boot area.
func BuildPool(p *Pool, l *Loader) (*Disk, []Partition, error) {
	derive := func(what string) guid {
		sum := sha256.Sum256(fmt.Appendf(nil, "isc illumos %s %d %d", what, p.GUID, p.Size))
		return guid(uuid8(sum[:]))
	}
	parts := make([]partition, solarisReservedEntry+1)
	id := derive("loader")
	parts[0] = partition{name: "loader", kind: typeESP, id: id, length: espSize(int64(len(l.EFI)))}
	parts[1] = partition{name: "zfs", kind: typeSolarisUsr, id: derive("zfs"), length: p.Size}
	parts[solarisReservedEntry] = partition{name: "reserved", kind: typeSolarisReserved, id: derive("reserved"), length: solarisReserved}
	size := place(parts)
	start := parts[1].offset

	efi := bytes.Clone(l.EFI)
	setPartition(efi, start) // as installboot does; a loader without the header looks for the pool
	head, err := espHead(parts[0].length, int64(len(efi)), bootNames["amd64"], binary.LittleEndian.Uint32(id[:]))
	if err != nil {
		return nil, nil, &Problem{What: "/boot/loader64.efi: " + err.Error()}
	}
	first, last := gpt(size, derive("disk"), parts)
	var boot []byte
	if l.MBR != nil {
		if boot, err = l.bootBlock(first, start, derive("boot")); err != nil {
			return nil, nil, err
		}
	}
	d := &builder{size: size}
	d.memory(0, first)
	d.memory(parts[0].offset, head)
	d.memory(parts[0].offset+int64(len(head)), efi)
	d.part(start, p, 0, bootBlockAt)
	d.memory(start+bootBlockAt, boot)
	d.part(start, p, poolData, p.Size)
	d.memory(size-int64(len(last)), last)
	var out []Partition
	for _, q := range parts {
		if q.length > 0 {
			out = append(out, Partition{q.name, q.offset, q.length, q.id.String()})
		}
	}
	return d.disk([16]byte(derive("disk"))), out, nil
}

// bootBlock puts the loader's first stage into the protective MBR and returns the second.
func (l *Loader) bootBlock(mbr []byte, start int64, id guid) ([]byte, error) {
	if len(l.MBR) != sectorSize {
		return nil, &Problem{What: fmt.Sprintf("/boot/pmbr has %d bytes, not %d", len(l.MBR), sectorSize)}
	}
	boot := make([]byte, roundUp(int64(len(l.BIOS)), sectorSize))
	copy(boot, l.BIOS)
	switch {
	case len(boot) > bootBlockSize:
		return nil, &Problem{What: fmt.Sprintf("/boot/gptzfsboot has %d bytes: the boot area of a pool has room for %d", len(l.BIOS), bootBlockSize)}
	case !setPartition(boot, start):
		return nil, &Problem{What: "/boot/gptzfsboot has no multiboot header: it is not illumos's"}
	}
	le := binary.LittleEndian
	copy(mbr[:mbrSignature], l.MBR)
	le.PutUint16(mbr[mbrStage2Size:], uint16(len(boot)/sectorSize))
	le.PutUint64(mbr[mbrStage2LBA:], uint64(start+bootBlockAt)/sectorSize)
	copy(mbr[mbrStage2UUID:], id[:])
	return boot, nil
}

// setPartition tells a stage of the loader where the pool's partition begins, in its multiboot header,
// and whether there is one.
func setPartition(stage []byte, start int64) bool {
	le := binary.LittleEndian
	for i := 0; i+32 <= min(len(stage), multibootScan); i += 4 {
		h := stage[i:]
		flags := le.Uint32(h[4:])
		if le.Uint32(h) == multibootMagic && le.Uint32(h[8:]) == -(multibootMagic+flags) && flags&multibootAddrs != 0 {
			le.PutUint64(h[multibootBSSEnd:], uint64(start/sectorSize))
			return true
		}
	}
	return false
}

// part adds the bytes of a pool at start from one offset in it to another.
func (d *builder) part(start int64, p *Pool, from, to int64) {
	var ext []Extent
	for _, x := range p.Extents {
		a, b := max(x.Offset, from), min(x.Offset+x.Length, to)
		if a < b {
			ext = append(ext, Extent{a - from, b - a})
		}
	}
	d.add(start+from, window{p, from}, to-from, ext)
}
