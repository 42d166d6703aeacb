package ovf

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

// vdiMagic is the signature of VirtualBox's disk images, 0xbeda107f, which follows 64 bytes of text
// (VirtualBox, src/VBox/Storage/VDICore.h).
const vdiMagic = "\x7f\x10\xda\xbe"

const (
	vdiHeader  = 512
	vdiVersion = 1<<16 | 1
	vdiDynamic = 1
	vdiFixed   = 2
	vdiFree    = 0xffffffff // a block that is not stored
	vdiZero    = 0xfffffffe // a block that was discarded
	// maxBlocks bounds the block map, whose entries have four bytes.
	maxBlocks = 8 << 20
)

// A vdi reads a VDI. It may be used by several goroutines at once.
type vdi struct {
	r        io.ReaderAt
	capacity int64
	block    int64    // bytes
	data     int64    // where the blocks begin
	blocks   []uint32 // place of each, in blocks
}

func openVDI(ctx context.Context, r io.ReaderAt, size int64) (Source, error) {
	b := make([]byte, vdiHeader)
	if err := readFull(r, b, 0, "VDI header"); err != nil {
		return Source{}, err
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	v := &vdi{
		r: r, capacity: int64(binary.LittleEndian.Uint64(b[0x170:])),
		block: int64(u32(0x178)), data: int64(u32(0x158)),
	}
	count, mapAt := int64(u32(0x180)), int64(u32(0x154))
	switch kind := u32(0x4c); {
	case u32(0x44) != vdiVersion:
		return Source{}, fmt.Errorf("VDI of version %#x: only 1.1 is read", u32(0x44))
	case kind != vdiDynamic && kind != vdiFixed:
		return Source{}, fmt.Errorf("VDI of type %d: undo and difference images rest on another file", kind)
	case v.capacity <= 0 || v.capacity > MaxCapacity:
		return Source{}, fmt.Errorf("VDI of %d bytes: not between 1 and %d", v.capacity, int64(MaxCapacity))
	case v.block < sectorSize || v.block > 64<<20 || v.block&(v.block-1) != 0:
		return Source{}, fmt.Errorf("VDI with blocks of %d bytes: no power of two between 512 and 64 MiB", v.block)
	case u32(0x17c) != 0:
		return Source{}, fmt.Errorf("VDI with %d extra bytes in each block", u32(0x17c))
	}
	need := (v.capacity + v.block - 1) / v.block
	switch {
	case count < need || count > maxBlocks:
		return Source{}, fmt.Errorf("VDI with %d blocks of %d bytes for %d bytes", count, v.block, v.capacity)
	case mapAt > size || need*4 > size-mapAt:
		return Source{}, fmt.Errorf("block map of the VDI: beyond the end of the file")
	}
	m := make([]byte, need*4)
	if err := readFull(r, m, mapAt, "block map"); err != nil {
		return Source{}, err
	}
	v.blocks = parseWords(m)
	list, err := v.check(ctx, size)
	return Source{v, v.capacity, list}, err
}

// check looks where all blocks are, and returns the parts that are stored.
func (v *vdi) check(ctx context.Context, size int64) ([]Extent, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	have := max(0, size-v.data+v.block-1) / v.block // blocks that begin in the file
	used := make([]uint64, have/64+1)
	var list extentList
	for i, at := range v.blocks {
		if at >= vdiZero {
			continue
		}
		off := int64(i) * v.block
		length := min(v.block, v.capacity-off)
		if place := int64(at); place >= have || v.data+place*v.block+length > size {
			return nil, fmt.Errorf("block %d of the VDI: beyond the end of the file", i)
		}
		if used[at/64]&(1<<(at%64)) != 0 {
			return nil, fmt.Errorf("block %d of the VDI: another one is at the same place", i)
		}
		used[at/64] |= 1 << (at % 64)
		list.add(Extent{off, length})
	}
	return list.extents(), nil
}

func (v *vdi) ReadAt(p []byte, off int64) (int, error) {
	return readBlocks(p, off, v.capacity, v.block, func(p []byte, block, within int64) error {
		at := v.blocks[block]
		if at >= vdiZero {
			clear(p)
			return nil
		}
		return readFull(v.r, p, v.data+int64(at)*v.block+within, fmt.Sprintf("block %d of the VDI", block))
	})
}

// readBlocks reads a disk that consists of blocks, one after the other.
func readBlocks(p []byte, off, capacity, size int64, read func(p []byte, block, within int64) error) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset")
	}
	done := 0
	for done < len(p) {
		if off >= capacity {
			return done, io.EOF
		}
		within := off % size
		n := int(min(int64(len(p)-done), size-within, capacity-off))
		if err := read(p[done:done+n], off/size, within); err != nil {
			return done, err
		}
		done += n
		off += int64(n)
	}
	return done, nil
}
