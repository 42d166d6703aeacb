package zfs

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
)

// An objset is what a receiver has after a stream: objects of numbered blocks. Contents stay in
// the streams, which are read again when they are wanted.
type objset struct {
	streams []io.ReaderAt
	orders  []binary.ByteOrder
	guids   []uint64 // of the snapshots applied so far
	objects map[uint64]*dnode
}

// A dnode is one object.
type dnode struct {
	kind      uint32
	bonusType uint32
	blockSize int
	bonus     place
	spill     block   // of size 0 if there is none
	blocks    []block // ascending

	// Of the stream being read.
	touched bool
	reset   bool // its blocks of before are gone
	writes  []block
	frees   []span
}

// A place is a range of a stream; a size of 0 is none.
type place struct {
	stream int32
	size   int32
	pos    int64
}

// A block is where one block of an object is found.
type block struct {
	off         uint64 // in the object
	size        int32  // of the block: the object's block size when it was written
	logical     int32  // bytes that it decompresses to; zeros follow
	place       place
	compression uint8
}

func (b *block) end() uint64 { return b.off + uint64(b.size) }

// A span is a range of an object.
type span struct{ from, to uint64 }

// apply reads the records of one stream, whose BEGIN was h, up to its END. Nothing is changed for
// good unless it succeeds.
func (s *objset) apply(r io.ReaderAt, z *Reader, h *Header) error {
	switch {
	case !h.FileSystem:
		return fmt.Errorf("snapshot %q: of a volume, not of a file system", h.Name)
	case h.foldCase:
		return fmt.Errorf("snapshot %q: of a file system that folds case", h.Name)
	case h.FromGUID != 0 && !slices.Contains(s.guids, h.FromGUID):
		return fmt.Errorf("snapshot %q is an increment from the snapshot with guid %#x, which is not there", h.Name, h.FromGUID)
	case h.FromGUID == 0 && len(s.guids) > 0:
		return fmt.Errorf("snapshot %q is not an increment", h.Name)
	case h.FromGUID != 0 && h.FromGUID != s.guids[len(s.guids)-1]:
		return fmt.Errorf("snapshot %q is an increment from an earlier snapshot, with guid %#x", h.Name, h.FromGUID)
	}
	a := applier{objset: s, header: h, stream: int32(len(s.streams)), base: slices.Sorted(maps.Keys(s.objects))}
	s.streams = append(s.streams, r)
	s.orders = append(s.orders, h.order)
	for {
		rec, err := z.Next()
		if err != nil {
			return noEOF(err)
		}
		if rec.Type == RecordEnd {
			break
		}
		if err := a.record(rec); err != nil {
			return fmt.Errorf("stream: record at byte %d: %v: object %d: %w", rec.Pos, rec.Type, rec.Object, err)
		}
	}
	if err := a.finish(); err != nil {
		return err
	}
	s.guids = append(s.guids, h.GUID)
	return nil
}

// An applier applies one stream.
type applier struct {
	*objset
	header *Header
	stream int32
	next   uint64   // number that OBJECT and FREEOBJECTS have reached
	base   []uint64 // numbers of before that are not reached yet
}

func (a *applier) record(rec *Record) error {
	switch rec.Type {
	case RecordObject:
		return a.object(rec)
	case RecordFreeObjects:
		if rec.Count == 0 {
			return nil
		}
		if rec.Object < a.next {
			return errors.New("not in ascending order")
		}
		a.next = rec.Object + rec.Count
		i, _ := slices.BinarySearch(a.base, rec.Object)
		a.base = a.base[i:]
		for len(a.base) > 0 && a.base[0] < a.next {
			delete(a.objects, a.base[0])
			a.base = a.base[1:]
		}
		return nil
	}
	d := a.objects[rec.Object]
	if d == nil {
		return errors.New("there is no such object")
	}
	d.touched = true
	switch rec.Type {
	case RecordFree:
		return d.free(rec)
	case RecordSpill:
		d.spill = block{size: int32(rec.Length), logical: int32(rec.Length), place: a.place(rec)}
		return nil
	}
	b := block{off: rec.Offset, size: int32(rec.Length), logical: int32(rec.Length), compression: rec.Compression, place: a.place(rec)}
	if rec.IsSpill {
		b.off, b.logical = 0, int32(rec.LogicalSize)
		d.spill = b
		return nil
	}
	// A sender that must not send large blocks cuts them, and the last piece may be shorter.
	if int(b.size) > d.blockSize || b.off%uint64(d.blockSize) != 0 {
		return fmt.Errorf("block of %d bytes at %d: the object's have %d", b.size, b.off, d.blockSize)
	}
	if n := len(d.writes); n > 0 && b.off < d.writes[n-1].end() {
		return errors.New("blocks not in ascending order")
	}
	switch rec.Type {
	case RecordWriteEmbedded:
		b.logical = int32(rec.LogicalSize)
	case RecordWriteByRef:
		from, err := a.repeated(rec)
		if err != nil {
			return err
		}
		b.logical, b.place, b.compression = from.logical, from.place, from.compression
	}
	d.writes = append(d.writes, b)
	return nil
}

// place returns where the payload of a record is.
func (a *applier) place(rec *Record) place {
	return place{a.stream, int32(rec.PayloadSize), rec.Pos + headerSize}
}

func (a *applier) object(rec *Record) error {
	if rec.Object < a.next {
		return errors.New("not in ascending order")
	}
	a.next = rec.Object + 1
	d := a.objects[rec.Object]
	if d == nil {
		d = &dnode{}
		a.objects[rec.Object] = d
	}
	if d.blockSize != rec.BlockSize || d.kind != rec.Kind {
		d.reset = true
	}
	d.touched = true
	d.kind, d.bonusType, d.blockSize = rec.Kind, rec.BonusType, rec.BlockSize
	d.bonus = a.place(rec)
	if a.header.spillFlags && !rec.HasSpill {
		d.spill = block{}
	}
	return nil
}

// repeated finds the block that a WRITE_BYREF repeats.
func (a *applier) repeated(rec *Record) (*block, error) {
	from := a.objects[rec.RefObject]
	if from != nil {
		lists := [][]block{from.writes}
		if rec.RefGUID != a.header.GUID {
			lists = [][]block{from.blocks}
			if !slices.Contains(a.guids, rec.RefGUID) {
				lists = nil
			}
		}
		for _, l := range lists {
			i, found := slices.BinarySearchFunc(l, rec.RefOffset, func(b block, off uint64) int { return cmp.Compare(b.off, off) })
			if found && uint64(l[i].size) == rec.Length {
				return &l[i], nil
			}
		}
	}
	return nil, fmt.Errorf("repeats %d bytes at %d of object %d, snapshot guid %#x, which are not there",
		rec.Length, rec.RefOffset, rec.RefObject, rec.RefGUID)
}

// free notes a hole. No sender frees what it has just written.
func (d *dnode) free(rec *Record) error {
	f := span{rec.Offset, rec.Offset + rec.Length}
	if f.to < f.from { // also for all ones: to the end
		f.to = noLength
	}
	if i := sort.Search(len(d.writes), func(i int) bool { return d.writes[i].end() > f.from }); i < len(d.writes) && d.writes[i].off < f.to {
		return fmt.Errorf("frees bytes %d to %d, which this stream wrote", f.from, f.to)
	}
	if len(d.blocks) == 0 || d.reset || f.from >= d.blocks[len(d.blocks)-1].end() {
		return nil
	}
	d.frees = append(d.frees, f)
	return nil
}

// finish merges what the stream wrote with what was there.
func (a *applier) finish() error {
	for number, d := range a.objects {
		if !d.touched {
			continue
		}
		if err := d.merge(); err != nil {
			return fmt.Errorf("object %d: %w", number, err)
		}
	}
	return nil
}

func (d *dnode) merge() error {
	old := d.blocks
	if d.reset {
		old = nil
	}
	if len(old) == 0 {
		d.blocks = slices.Clip(d.writes)
	} else {
		slices.SortFunc(d.frees, func(a, b span) int { return cmp.Compare(a.from, b.from) })
		d.blocks = make([]block, 0, len(old)+len(d.writes))
		freed := uint64(0) // end of the holes so far
		frees, writes := d.frees, d.writes
		for _, b := range old {
			for len(writes) > 0 && writes[0].off < b.off {
				d.blocks = append(d.blocks, writes[0])
				writes = writes[1:]
			}
			for len(frees) > 0 && frees[0].from < b.end() {
				if frees[0].from > b.off && frees[0].to > b.off {
					return fmt.Errorf("frees a part of the block at %d", b.off)
				}
				freed = max(freed, frees[0].to)
				frees = frees[1:]
			}
			switch {
			case len(writes) > 0 && writes[0].off == b.off:
				if writes[0].size < b.size {
					return fmt.Errorf("writes a part of the block at %d", b.off)
				}
			case freed >= b.end():
			case freed > b.off:
				return fmt.Errorf("frees a part of the block at %d", b.off)
			default:
				d.blocks = append(d.blocks, b)
			}
		}
		d.blocks = append(d.blocks, writes...)
	}
	d.touched, d.reset, d.writes, d.frees = false, false, nil, nil
	return nil
}

// bytes returns what a place holds.
func (s *objset) bytes(p place) ([]byte, error) {
	b := make([]byte, p.size)
	if p.size == 0 {
		return b, nil
	}
	if n, err := s.streams[p.stream].ReadAt(b, p.pos); n < len(b) {
		return nil, fmt.Errorf("read stream at byte %d: %w", p.pos, noEOF(err))
	}
	return b, nil
}

// readBlock fills dst, of the size of the block, with it.
func (s *objset) readBlock(b *block, dst []byte) error {
	if b.compression == 0 {
		if n, err := s.streams[b.place.stream].ReadAt(dst[:b.logical], b.place.pos); n < int(b.logical) {
			return fmt.Errorf("read stream at byte %d: %w", b.place.pos, noEOF(err))
		}
	} else {
		src, err := s.bytes(b.place)
		if err != nil {
			return err
		}
		if err := decompress(b.compression, dst[:b.logical], src); err != nil {
			return fmt.Errorf("block in the stream at byte %d: %w", b.place.pos, err)
		}
	}
	clear(dst[b.logical:])
	return nil
}

// find returns the index of the first block of d that ends behind off.
func (d *dnode) find(off uint64) int {
	return sort.Search(len(d.blocks), func(i int) bool { return d.blocks[i].end() > off })
}

// readAt fills p with what the object holds at off; where it has no block are zeros.
func (s *objset) readAt(d *dnode, p []byte, off uint64) error {
	for i := d.find(off); len(p) > 0; i++ {
		if i == len(d.blocks) || d.blocks[i].off >= off+uint64(len(p)) {
			clear(p)
			return nil
		}
		b := &d.blocks[i]
		if b.off > off {
			n := b.off - off
			clear(p[:n])
			p, off = p[n:], b.off
		}
		from := int(off - b.off)
		n := min(len(p), int(b.size)-from)
		if b.compression == 0 && from+n <= int(b.logical) {
			if m, err := s.streams[b.place.stream].ReadAt(p[:n], b.place.pos+int64(from)); m < n {
				return fmt.Errorf("read stream at byte %d: %w", b.place.pos, noEOF(err))
			}
		} else if from == 0 && n == int(b.size) {
			if err := s.readBlock(b, p[:n]); err != nil {
				return err
			}
		} else {
			whole := make([]byte, b.size)
			if err := s.readBlock(b, whole); err != nil {
				return err
			}
			copy(p[:n], whole[from:])
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}
