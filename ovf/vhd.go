package ovf

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// A VHD that is read (Microsoft, "Virtual Hard Disk Image Format Specification" 1.0).
const (
	vhdMagic   = "conectix"
	vhdDynamic = 3
	vhdHeader  = 1024 // of a dynamic disk
	vhdSparse  = "cxsparse"
	vhdFree    = 0xffffffff // a block that is not stored
)

// A vhdReader reads a dynamic VHD. It may be used by several goroutines at once.
type vhdReader struct {
	r        io.ReaderAt
	capacity int64
	block    int64    // bytes
	bitmap   int64    // bytes of the bitmap before each block, which says what of it was written
	blocks   []uint32 // sector of each
}

// parseFooter returns the type and the size of a VHD, in bytes, and where its next header is.
func parseFooter(b []byte) (kind uint32, capacity, next int64, ok bool) {
	var sum uint32
	for i, c := range b {
		if i < 64 || i >= 68 {
			sum += uint32(c)
		}
	}
	if string(b[:8]) != vhdMagic || be32(b[64:]) != ^sum {
		return 0, 0, 0, false
	}
	return be32(b[60:]), int64(be64(b[48:])), int64(be64(b[16:])), true
}

// fixedVHD tells whether a file is a fixed VHD: its footer says exactly what it is.
func fixedVHD(r io.ReaderAt, size int64) bool {
	b := make([]byte, vhdFooter)
	if size <= vhdFooter || readFull(r, b, size-vhdFooter, "footer") != nil {
		return false
	}
	kind, capacity, _, ok := parseFooter(b)
	return ok && kind == vhdFixed && capacity == size-vhdFooter
}

func openVHD(ctx context.Context, r io.ReaderAt, size int64) (Source, error) {
	if fixedVHD(r, size) {
		capacity := size - vhdFooter
		return Source{io.NewSectionReader(r, 0, capacity), capacity, []Extent{{0, capacity}}}, nil
	}
	src, err := openDynamicVHD(ctx, r, size)
	if err != nil {
		return Source{}, fmt.Errorf("VHD: %w", err)
	}
	return src, nil
}

func openDynamicVHD(ctx context.Context, r io.ReaderAt, size int64) (Source, error) {
	b := make([]byte, vhdFooter)
	if err := readFull(r, b, 0, "copy of the footer"); err != nil {
		return Source{}, err
	}
	kind, capacity, next, ok := parseFooter(b)
	switch {
	case !ok:
		return Source{}, fmt.Errorf("neither a footer at the end nor its copy at the beginning: truncated, or damaged")
	case kind == 4:
		return Source{}, fmt.Errorf("a differencing disk rests on another file")
	case kind != vhdDynamic:
		return Source{}, fmt.Errorf("of type %d, and with a copy of its footer at the beginning", kind)
	case capacity <= 0 || capacity > MaxCapacity || capacity%sectorSize != 0:
		return Source{}, fmt.Errorf("disk of %d bytes: not whole sectors between 1 and %d", capacity, int64(MaxCapacity))
	}
	h := make([]byte, vhdHeader)
	if next < vhdFooter || next > size-vhdHeader {
		return Source{}, fmt.Errorf("header at byte %d: beyond the end of the file", next)
	}
	if err := readFull(r, h, next, "header"); err != nil {
		return Source{}, err
	}
	v := &vhdReader{r: r, capacity: capacity, block: int64(be32(h[32:]))}
	table, count := int64(be64(h[16:])), int64(be32(h[28:]))
	if string(h[:8]) != vhdSparse || v.block < sectorSize || v.block > 64<<20 || v.block&(v.block-1) != 0 {
		return Source{}, fmt.Errorf("header at byte %d is none, or with blocks that are no power of two between 512 and 64 MiB", next)
	}
	v.bitmap = (v.block/sectorSize/8 + sectorSize - 1) / sectorSize * sectorSize
	need := (capacity + v.block - 1) / v.block
	switch {
	case count < need || need > maxBlocks:
		return Source{}, fmt.Errorf("%d blocks of %d bytes for %d bytes", count, v.block, capacity)
	case table < vhdFooter || table > size || need*4 > size-table:
		return Source{}, fmt.Errorf("block table: beyond the end of the file")
	}
	t := make([]byte, need*4)
	if err := readFull(r, t, table, "block table"); err != nil {
		return Source{}, err
	}
	for i := range need {
		v.blocks = append(v.blocks, be32(t[i*4:]))
	}
	list, err := v.check(ctx, size)
	return Source{v, capacity, list}, err
}

// check looks where all blocks are, and returns the parts that are stored.
func (v *vhdReader) check(ctx context.Context, size int64) ([]Extent, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var places []uint32
	var list extentList
	for i, at := range v.blocks {
		if at == vhdFree {
			continue
		}
		off := int64(i) * v.block
		length := min(v.block, v.capacity-off)
		if int64(at)*sectorSize+v.bitmap+length > size {
			return nil, fmt.Errorf("block %d: beyond the end of the file", i)
		}
		places = append(places, at)
		list.add(Extent{off, length})
	}
	slices.Sort(places)
	for i := 1; i < len(places); i++ {
		if int64(places[i]-places[i-1])*sectorSize < v.bitmap+v.block {
			return nil, fmt.Errorf("blocks overlap at sector %d", places[i])
		}
	}
	return list.extents(), nil
}

// ReadAt reads the disk. What of a block was never written is zeros in the file, whatever the bitmap
// says: hypervisors read it so.
func (v *vhdReader) ReadAt(p []byte, off int64) (int, error) {
	return readBlocks(p, off, v.capacity, v.block, func(p []byte, block, within int64) error {
		at := v.blocks[block]
		if at == vhdFree {
			clear(p)
			return nil
		}
		return readFull(v.r, p, int64(at)*sectorSize+v.bitmap+within, fmt.Sprintf("block %d of the VHD", block))
	})
}
