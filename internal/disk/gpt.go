package disk

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

const (
	sectorSize = 512
	mebibyte   = 1 << 20

	gptEntries   = 128
	gptEntrySize = 128
	gptSectors   = 1 + gptEntries*gptEntrySize/sectorSize // header and entries
)

// A guid in text order.
type guid [16]byte

// parseGUID is for constants.
func parseGUID(s string) (g guid) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		panic("malformed GUID " + s)
	}
	copy(g[:], b)
	return g
}

// String returns the upper-case text.
func (g guid) String() string {
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:]))
}

// put writes the GUID in the mixed order of the partition table.
func (g guid) put(b []byte) {
	for i, j := range []int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
		b[i] = g[j]
	}
}

// Types and attributes of partitions, from the Discoverable Partitions Specification. Swap, scratch
// and data have Linux's reserved type: with those of their kind, systemd would activate what is not
// encrypted yet.
var (
	typeESP      = parseGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	typeReserved = parseGUID("8da63339-0007-60c0-c436-083ac8230908")
)

const (
	attrReadOnly = 1 << 60
	attrNoAuto   = 1 << 63
)

// A partition is an entry of the table.
type partition struct {
	name   string
	kind   guid
	id     guid
	attrs  uint64
	length int64 // bytes, whole MiB
	offset int64
}

// place gives the partitions their offsets, from 1 MiB on, and returns the smallest disk for them:
// the last MiB holds the second table.
func place(parts []partition) int64 {
	at := int64(mebibyte)
	for i := range parts {
		parts[i].offset = at
		at += parts[i].length
	}
	return at + mebibyte
}

// gpt returns the two tables of a disk: the first at 0, with a protective MBR, and the second for the
// disk's end.
func gpt(size int64, id guid, parts []partition) (first, second []byte) {
	le := binary.LittleEndian
	entries := make([]byte, gptEntries*gptEntrySize)
	for i, p := range parts {
		if p.length == 0 {
			continue // an entry that is not used
		}
		e := entries[i*gptEntrySize:]
		p.kind.put(e)
		p.id.put(e[16:])
		le.PutUint64(e[32:], uint64(p.offset/sectorSize))
		le.PutUint64(e[40:], uint64((p.offset+p.length)/sectorSize-1))
		le.PutUint64(e[48:], p.attrs)
		for j, u := range utf16.Encode([]rune(p.name)) {
			le.PutUint16(e[56+2*j:], u)
		}
	}
	last := uint64(size/sectorSize) - 1
	header := func(self, other, table uint64) []byte {
		h := make([]byte, sectorSize)
		copy(h, "EFI PART")
		le.PutUint32(h[8:], 0x00010000)
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], self)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], mebibyte/sectorSize)
		le.PutUint64(h[48:], last-gptSectors)
		id.put(h[56:])
		le.PutUint64(h[72:], table)
		le.PutUint32(h[80:], gptEntries)
		le.PutUint32(h[84:], gptEntrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	mbr := make([]byte, sectorSize)
	m := mbr[446:]
	copy(m, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	le.PutUint32(m[12:], uint32(min(last, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa
	first = append(append(mbr, header(1, last, 2)...), entries...)
	second = append(entries[:len(entries):len(entries)], header(last, 1, last-gptSectors+1)...)
	return first, second
}
