package zfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sort"
)

// Sizes of what a pool consists of (sys/dmu.h, sys/spa.h).
const (
	dnodeSize      = 512
	dnodeBlock     = dnodesInBlock * dnodeSize
	pointerSize    = 128
	dnodePointers  = 64  // where the block pointers of a dnode begin
	dnodeSpill     = 384 // where that to its spill block is
	objsetSize     = 4096
	minIndirect    = 12 // shift of the smallest block of pointers
	maxIndirect    = 17
	pointerShift   = 7
	checksumKind   = 7 // fletcher4
	poolTXG        = 4 // in which everything was born
	typeDnode      = 10
	typeObjset     = 11
	objsetMeta     = 1
	dnodeUsedBytes = 1
	dnodeHasSpill  = 4
)

// A pblock is a block that has its place in a pool.
type pblock struct {
	id    uint64 // number among those of its level
	off   uint64 // on the vdev, behind the labels at its beginning
	size  uint32
	disk  uint32 // what is stored of it: less if it is compressed
	fill  uint32 // dnodes or data blocks below
	check fletcher4
}

// put stores the pointer to a block in p, which is zero.
func (b *pblock) put(p []byte, kind uint64, level int, ashift int) {
	le := binary.LittleEndian
	compression := uint64(compressOff)
	if b.disk < b.size {
		compression = compressLZ4
	}
	le.PutUint64(p, uint64(roundUp(int(b.disk), 1<<ashift))>>9)
	le.PutUint64(p[8:], b.off>>9)
	le.PutUint64(p[48:], uint64(b.size/512-1)|uint64(b.disk/512-1)<<16|compression<<32|checksumKind<<40|kind<<48|uint64(level)<<56|1<<63)
	le.PutUint64(p[80:], poolTXG)
	le.PutUint64(p[88:], uint64(b.fill))
	b.check.put(p[96:], le)
}

// A pdnode is an object that has its place in a pool.
type pdnode struct {
	number    uint64
	blockSize int
	blocks    []pblock   // of data; the others are holes
	indirect  [][]pblock // of pointers, the lowest level first
	spill     *pblock
	shift     int    // of the size of its blocks of pointers
	last      uint64 // number of its last block, which may be a hole
	end       uint64 // of all its blocks and of those before
}

// used returns how much of the vdev its blocks take.
func (d *pdnode) used(ashift int) uint64 {
	n := uint64(0)
	for _, l := range append(slices.Clip(d.indirect), d.blocks) {
		for i := range l {
			n += uint64(roundUp(int(l[i].disk), 1<<ashift))
		}
	}
	if d.spill != nil {
		n += uint64(roundUp(int(d.spill.disk), 1<<ashift))
	}
	return n
}

// encode makes the dnode of o in p, which is zero.
func (d *pdnode) encode(p []byte, o *object, ashift int) {
	le := binary.LittleEndian
	pointers := 1
	if o.kind == typeSpaceMap {
		pointers = 3 // as a host makes it, whose bonus has no histogram
	}
	p[0], p[1], p[2], p[3], p[4] = byte(o.kind), byte(d.shift), byte(len(d.indirect)+1), byte(pointers), byte(o.bonusType)
	p[7] = dnodeUsedBytes
	le.PutUint16(p[8:], uint16(d.blockSize/512))
	le.PutUint16(p[10:], uint16(len(o.bonus)))
	le.PutUint64(p[16:], d.last)
	top := d.blocks
	if n := len(d.indirect); n > 0 {
		top = d.indirect[n-1]
	}
	if len(top) > 0 {
		top[0].put(p[dnodePointers:], uint64(o.kind), len(d.indirect), ashift)
	}
	copy(p[dnodePointers+pointers*pointerSize:], o.bonus)
	if d.spill != nil {
		p[7] |= dnodeHasSpill
		d.spill.put(p[dnodeSpill:], typeSA, 0, ashift)
	}
	le.PutUint64(p[24:], d.used(ashift))
}

// A source has the objects of an object set, by number.
type source interface {
	len() int
	// object returns what goes into the dnode of the i-th, but for the size of its blocks.
	object(i int) (object, error)
	// open returns its blocks.
	open(i int) (blocks, error)
	name(i int) string
}

// blocks are those of an object.
type blocks interface {
	// shape returns the size of each block, where the last one ends that may be no hole, and the
	// ranges that may be none: nil is everything.
	shape() (blockSize int, end int64, extents []Extent)
	// block fills p with block id.
	block(id uint64, p []byte) error
	Close() error
}

// A poolSet is an object set that has its place in a pool.
type poolSet struct {
	src       source
	kind      uint64
	ashift    int
	lz4       bool
	packer    lz4Packer
	from, end uint64
	dnodes    []pdnode
	meta      pdnode // of the array of dnodes
	root      pblock
	sizes     sizes
}

// sizes are the three ways in which a pool counts blocks: on the vdev, stored, and as they are.
type sizes struct{ used, compressed, uncompressed uint64 }

func (s *sizes) add(o sizes) {
	s.used += o.used
	s.compressed += o.compressed
	s.uncompressed += o.uncompressed
}

// An allocator gives away the space of a vdev from its beginning. No block is in two metaslabs.
type allocator struct {
	ashift, shift int
	next, limit   uint64
	ends          []uint64 // of what is allocated in each metaslab, from its beginning
}

var errNoSpace = errors.New("the pool is full")

func (a *allocator) alloc(n int) (uint64, error) {
	size := uint64(roundUp(n, 1<<a.ashift))
	slab := uint64(1) << a.shift
	if a.next%slab+size > slab {
		a.next = (a.next + slab) / slab * slab
	}
	if a.next+size > a.limit {
		return 0, errNoSpace
	}
	off := a.next
	a.next += size
	for i := uint64(len(a.ends)); i <= off/slab; i++ {
		a.ends = append(a.ends, 0)
	}
	a.ends[off/slab] = off%slab + size
	return off, nil
}

// place gives a block that is in p its place.
func (s *poolSet) place(a *allocator, b *pblock, p []byte) error {
	off, err := a.alloc(len(p))
	if err != nil {
		return err
	}
	b.off, b.disk = off, uint32(len(p))
	b.check = fletcher4{}
	b.check.add(p)
	s.sizes.add(sizes{uint64(roundUp(len(p), 1<<s.ashift)), uint64(len(p)), uint64(b.size)})
	return nil
}

// pack returns a block as it is stored.
func (s *poolSet) pack(kind uint32, p []byte) []byte {
	if !s.lz4 || kind != typeFile {
		return p
	}
	packed := make([]byte, len(p))
	if n := s.packer.pack(packed, p); n > 0 {
		return packed[:n]
	}
	return p
}

// newPoolSet gives all objects of a source, and what describes them, their places, reading every
// content once.
func newPoolSet(ctx context.Context, a *allocator, src source, kind uint64, lz4 bool) (*poolSet, error) {
	s := &poolSet{src: src, kind: kind, ashift: a.ashift, lz4: lz4, from: a.next, dnodes: make([]pdnode, src.len())}
	buf := make([]byte, recordSize)
	for i := range s.dnodes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.object(ctx, a, i, buf); err != nil {
			return nil, fmt.Errorf("object %q: %w", src.name(i), err)
		}
	}
	m := &s.meta
	m.blockSize = dnodeBlock
	for i := 0; i < len(s.dnodes); {
		b := pblock{id: s.dnodes[i].number / dnodesInBlock, size: dnodeBlock}
		n, err := s.dnodeBlock(i, b.id, buf[:dnodeBlock])
		if err != nil {
			return nil, err
		}
		b.fill = uint32(n)
		if err := s.place(a, &b, buf[:dnodeBlock]); err != nil {
			return nil, err
		}
		m.blocks = append(m.blocks, b)
		i += n
	}
	m.shift, m.last = maxIndirect, m.blocks[len(m.blocks)-1].id
	if err := s.indirect(a, m, typeDnode, buf); err != nil {
		return nil, err
	}
	s.root = pblock{size: objsetSize, fill: uint32(len(s.dnodes))}
	s.objset(buf[:objsetSize])
	if err := s.place(a, &s.root, buf[:objsetSize]); err != nil {
		return nil, err
	}
	s.end = a.next
	return s, nil
}

// object gives the i-th object its place.
func (s *poolSet) object(ctx context.Context, a *allocator, i int, buf []byte) error {
	o, err := s.src.object(i)
	if err != nil {
		return err
	}
	d := &s.dnodes[i]
	d.number = o.number
	bl, err := s.src.open(i)
	if err != nil {
		return err
	}
	defer bl.Close()
	size, end, extents := bl.shape()
	d.blockSize = size
	if err := checkExtents(extents, end); err != nil {
		return err
	}
	if extents == nil && end > 0 {
		extents = []Extent{{0, end}}
	}
	next := uint64(0) // first block that no extent has had
	for _, x := range extents {
		if x.Len == 0 {
			continue
		}
		for id := max(next, uint64(x.Off)/uint64(size)); id <= uint64(x.Off+x.Len-1)/uint64(size); id++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			next = id + 1
			p := buf[:size]
			if err := bl.block(id, p); err != nil {
				return err
			}
			if bytes.Equal(p, zeroBlock[:size]) {
				continue
			}
			b := pblock{id: id, size: uint32(size), fill: 1}
			if err := s.place(a, &b, s.pack(o.kind, p)); err != nil {
				return err
			}
			d.blocks = append(d.blocks, b)
		}
	}
	if o.spill != nil {
		d.spill = &pblock{size: uint32(len(o.spill)), fill: 1}
		if err := s.place(a, d.spill, o.spill); err != nil {
			return err
		}
	}
	// A hole at the end counts, or GRUB takes what follows the pointers of the dnode for more of them.
	if end > 0 {
		d.last = uint64(end-1) / uint64(size)
	}
	// Pointers in blocks that are as small as they can be in one level: they are not compressed.
	d.shift = maxIndirect
	if d.last > 0 {
		d.shift = min(maxIndirect, max(minIndirect, pointerShift+bits.Len64(d.last)))
	}
	if err := s.indirect(a, d, o.kind, buf); err != nil {
		return err
	}
	d.end = a.next
	return nil
}

// indirect gives an object its blocks of pointers.
func (s *poolSet) indirect(a *allocator, d *pdnode, kind uint32, buf []byte) error {
	below, shift := d.blocks, d.shift
	for last := d.last; last > 0; last >>= shift - pointerShift {
		var level []pblock
		for i := 0; i < len(below); {
			b := pblock{id: below[i].id >> (shift - pointerShift), size: 1 << shift}
			p := buf[:b.size]
			n := s.pointers(below[i:], b.id, shift, uint64(kind), len(d.indirect), p)
			for _, c := range below[i : i+n] {
				b.fill += c.fill
			}
			if err := s.place(a, &b, p); err != nil {
				return err
			}
			level = append(level, b)
			i += n
		}
		d.indirect = append(d.indirect, level)
		below = level
	}
	return nil
}

// pointers fills p with the pointers to those blocks from the first of the list on that are below
// block id of the next level, and returns how many these are.
func (s *poolSet) pointers(list []pblock, id uint64, shift int, kind uint64, level int, p []byte) int {
	clear(p)
	per := uint64(1) << (shift - pointerShift)
	n := 0
	for n < len(list) && list[n].id/per == id {
		list[n].put(p[list[n].id%per*pointerSize:][:pointerSize], kind, level, s.ashift)
		n++
	}
	return n
}

// dnodeBlock fills p with the dnodes of block id, which are the i-th and those after it, and
// returns how many these are.
func (s *poolSet) dnodeBlock(i int, id uint64, p []byte) (int, error) {
	clear(p)
	n := 0
	for ; i+n < len(s.dnodes) && s.dnodes[i+n].number/dnodesInBlock == id; n++ {
		d := &s.dnodes[i+n]
		o, err := s.src.object(i + n)
		if err != nil {
			return 0, err
		}
		d.encode(p[d.number%dnodesInBlock*dnodeSize:][:dnodeSize], &o, s.ashift)
	}
	return n, nil
}

// objset fills p with the root of the set (objset_phys_t).
func (s *poolSet) objset(p []byte) {
	clear(p)
	s.meta.encode(p[:dnodeSize], &object{kind: typeDnode}, s.ashift)
	binary.LittleEndian.PutUint64(p[704:], s.kind)
}

// A reading is an object of a pool that is being read.
type reading struct {
	set    *poolSet
	i      int
	blocks blocks
}

// generate makes the block of the set that off is in, and returns where it begins. Without one it
// returns nil. The object that is read stays open in r.
func (s *poolSet) generate(r *reading, off uint64, buf []byte) (uint64, []byte, error) {
	if b := within([]pblock{s.root}, off); b != nil {
		s.objset(buf[:objsetSize])
		return b.off, buf[:objsetSize], nil
	}
	i := sort.Search(len(s.dnodes), func(i int) bool { return s.dnodes[i].end > off })
	d, kind := &s.meta, uint32(typeDnode)
	if i < len(s.dnodes) {
		d = &s.dnodes[i]
		o, err := s.src.object(i)
		if err != nil {
			return 0, nil, err
		}
		kind = o.kind
		if d.spill != nil && off >= d.spill.off && off < d.spill.off+uint64(d.spill.disk) {
			return d.spill.off, o.spill, nil
		}
	}
	for level, list := range d.indirect {
		b := within(list, off)
		if b == nil {
			continue
		}
		below := d.blocks
		if level > 0 {
			below = d.indirect[level-1]
		}
		first := sort.Search(len(below), func(k int) bool { return below[k].id>>(d.shift-pointerShift) >= b.id })
		s.pointers(below[first:], b.id, d.shift, uint64(kind), level, buf[:b.size])
		return b.off, buf[:b.size], nil
	}
	b := within(d.blocks, off)
	if b == nil {
		return 0, nil, nil
	}
	p := buf[:b.size]
	if d == &s.meta {
		first := sort.Search(len(s.dnodes), func(k int) bool { return s.dnodes[k].number/dnodesInBlock >= b.id })
		_, err := s.dnodeBlock(first, b.id, p)
		return b.off, p, err
	}
	if r.set != s || r.i != i {
		if err := r.close(); err != nil {
			return 0, nil, err
		}
		bl, err := s.src.open(i)
		if err != nil {
			return 0, nil, fmt.Errorf("object %q: %w", s.src.name(i), err)
		}
		*r = reading{s, i, bl}
	}
	err := r.blocks.block(b.id, p)
	if err == nil {
		p = s.pack(kind, p)
		check := fletcher4{}
		check.add(p)
		if check != b.check {
			err = fmt.Errorf("block %d has changed since the pool was made", b.id)
		}
	}
	if err != nil {
		return 0, nil, fmt.Errorf("object %q: %w", s.src.name(i), err)
	}
	return b.off, p, nil
}

// close closes the object that was read last.
func (r *reading) close() error {
	if r.blocks == nil {
		return nil
	}
	err := r.blocks.Close()
	*r = reading{}
	return err
}

// within returns the block of a list that off is in.
func within(list []pblock, off uint64) *pblock {
	i := sort.Search(len(list), func(i int) bool { return list[i].off+uint64(list[i].disk) > off })
	if i == len(list) || list[i].off > off {
		return nil
	}
	return &list[i]
}
