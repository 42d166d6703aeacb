package disk

import (
	"encoding/binary"
	"fmt"
)

const (
	fatReserved = 32 // sectors before the first FAT
	// minFAT is the fewest clusters of FAT32, with some more for programs that count otherwise.
	minFAT = 65525 + 16
	// minESP is the smallest EFI system partition, in bytes.
	minESP = 64 << 20
	// maxESP keeps clusters of a sector within what FAT32 is counted in.
	maxESP = 2 << 30
)

// espSize returns how large a partition for a file of size bytes is.
func espSize(size int64) int64 {
	// Each cluster, a sector, has four bytes in each of two tables.
	need := size + size/sectorSize*8 + size/16 + mebibyte
	return max(minESP, roundUp(need, mebibyte))
}

// espHead returns what stands in a FAT32 volume of whole MiB before the content of its only file,
// \EFI\BOOT\name, whose length is size: the file follows at once and is all there is.
func espHead(volume, size int64, name string, serial uint32) ([]byte, error) {
	if volume > maxESP {
		return nil, fmt.Errorf("an EFI system partition of %d bytes is too large", volume)
	}
	le := binary.LittleEndian
	sectors := uint32(volume / sectorSize)
	fat := uint32(1)
	for ; ; fat++ { // sectors of a table
		if clusters := sectors - fatReserved - 2*fat; (clusters+2)*4 <= fat*sectorSize {
			break
		}
	}
	clusters := sectors - fatReserved - 2*fat
	data := fatReserved + 2*fat
	fileClusters := uint32((size + sectorSize - 1) / sectorSize)
	if clusters < minFAT || fileClusters+3 > clusters {
		return nil, fmt.Errorf("a file of %d bytes does not fit an EFI system partition of %d", size, volume)
	}
	b := make([]byte, int64(data+3)*sectorSize)

	boot := b[:sectorSize]
	copy(boot, "\xeb\x58\x90mkfs.fat")
	le.PutUint16(boot[11:], sectorSize)
	boot[13] = 1 // sectors of a cluster
	le.PutUint16(boot[14:], fatReserved)
	boot[16] = 2 // tables
	boot[21] = 0xf8
	le.PutUint16(boot[24:], 32) // geometry, which nobody uses
	le.PutUint16(boot[26:], 64)
	le.PutUint32(boot[32:], sectors)
	le.PutUint32(boot[36:], fat)
	le.PutUint32(boot[44:], 2) // cluster of the root directory
	le.PutUint16(boot[48:], 1) // FSInfo
	le.PutUint16(boot[50:], 6) // the copy of this sector
	boot[64] = 0x80
	boot[66] = 0x29
	le.PutUint32(boot[67:], serial)
	copy(boot[71:], "ESP        FAT32   ")
	boot[510], boot[511] = 0x55, 0xaa

	info := b[sectorSize:]
	le.PutUint32(info, 0x41615252)
	le.PutUint32(info[484:], 0x61417272)
	le.PutUint32(info[488:], clusters-3-fileClusters)
	le.PutUint32(info[492:], 5+fileClusters)
	le.PutUint32(info[508:], 0xaa550000)
	copy(b[6*sectorSize:], b[:2*sectorSize])

	const end = 0x0fffffff
	table := b[fatReserved*sectorSize:]
	for i, v := range []uint32{0x0ffffff8, end, end, end, end} {
		le.PutUint32(table[4*i:], v)
	}
	for i := range fileClusters {
		v := 5 + i + 1
		if i == fileClusters-1 {
			v = end
		}
		le.PutUint32(table[4*(5+i):], v)
	}
	copy(b[(fatReserved+fat)*sectorSize:], table[:fat*sectorSize])

	cluster := func(n uint32) []byte { return b[(data+n-2)*sectorSize:] }
	entry := func(b []byte, name string, attr byte, first uint32, size int64) {
		copy(b, name)
		b[11] = attr
		const day = 1<<5 | 1 // 1980-01-01, the first there is
		le.PutUint16(b[16:], day)
		le.PutUint16(b[18:], day)
		le.PutUint16(b[24:], day)
		le.PutUint16(b[20:], uint16(first>>16))
		le.PutUint16(b[26:], uint16(first))
		le.PutUint32(b[28:], uint32(size))
	}
	const directory, archive = 0x10, 0x20
	entry(cluster(2), "ESP        ", 8, 0, 0)
	entry(cluster(2)[32:], "EFI        ", directory, 3, 0)
	entry(cluster(3), ".          ", directory, 3, 0)
	entry(cluster(3)[32:], "..         ", directory, 0, 0)
	entry(cluster(3)[64:], "BOOT       ", directory, 4, 0)
	entry(cluster(4), ".          ", directory, 4, 0)
	entry(cluster(4)[32:], "..         ", directory, 3, 0)
	entry(cluster(4)[64:], name, archive, 5, size)
	return b, nil
}
