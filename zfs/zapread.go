package zfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A zapItem is an entry of a zap as it was read.
type zapItem struct {
	name  string
	size  int    // of each of its numbers, in bytes
	value []byte // big-endian
	hash  uint64
	cd    uint32
}

// number returns the value if it is one number.
func (e *zapItem) number() (uint64, error) {
	if e.size != 8 || len(e.value) != 8 {
		return 0, fmt.Errorf("entry %q: %d bytes in numbers of %d: not one of 8", e.name, len(e.value), e.size)
	}
	return binary.BigEndian.Uint64(e.value), nil
}

var errZAP = errors.New("damaged zap")

// zapInfo is what the header of a zap says.
type zapInfo struct {
	fat   bool
	salt  uint64
	flags uint64
	// What it says it has, of a fat one, and the leaves that were read.
	entries, leafCount, leaves uint64
}

const (
	maxTableShift  = 25 // of a fat zap: 33 million leaves
	zapFlagHash64  = 1
	zapFlagNumbers = 2 // keys are numbers
)

// zap calls f with every entry of an object that holds a zap.
func (s *objset) zap(d *dnode, f func(e *zapItem) error) (*zapInfo, error) {
	if len(d.blocks) == 0 || d.blocks[0].off != 0 {
		return nil, fmt.Errorf("%w: no first block", errZAP)
	}
	first := make([]byte, d.blockSize)
	if err := s.readAt(d, first, 0); err != nil {
		return nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	kind := order.Uint64(first)
	if kind != zapMicro && kind != zapHeader {
		order = binary.BigEndian
		kind = order.Uint64(first)
	}
	switch kind {
	case zapMicro:
		return microItems(first, order, f)
	case zapHeader:
		z := &fatReader{objset: s, dnode: d, order: order, f: f}
		return z.read(first)
	}
	return nil, fmt.Errorf("%w: block type %#x", errZAP, kind)
}

func microItems(p []byte, order binary.ByteOrder, f func(e *zapItem) error) (*zapInfo, error) {
	info := &zapInfo{salt: order.Uint64(p[8:])}
	if order.Uint64(p[16:]) != 0 {
		return nil, fmt.Errorf("%w: names are normalized", errZAP)
	}
	for p = p[microEntry:]; len(p) >= microEntry; p = p[microEntry:] {
		name := p[14:microEntry]
		end := bytes.IndexByte(name, 0)
		if end == 0 {
			continue
		}
		if end < 0 {
			return nil, fmt.Errorf("%w: name without end", errZAP)
		}
		e := zapItem{name: string(name[:end]), size: 8, cd: order.Uint32(p[8:])}
		e.value = binary.BigEndian.AppendUint64(nil, order.Uint64(p))
		e.hash = zapHash(info.salt, e.name)
		if err := f(&e); err != nil {
			return nil, err
		}
	}
	return info, nil
}

// A fatReader reads a fat zap of any block size.
type fatReader struct {
	*objset
	dnode *dnode
	order binary.ByteOrder
	shift int // of its blocks
	f     func(e *zapItem) error
	info  zapInfo
	table uint64 // first block of the pointer table; 0: in the header
	bits  int    // of its index
}

func (z *fatReader) read(head []byte) (*zapInfo, error) {
	for z.shift = 9; 1<<z.shift < len(head); z.shift++ {
	}
	if 1<<z.shift != len(head) || z.order.Uint64(head[8:]) != zapMagic {
		return nil, fmt.Errorf("%w: header", errZAP)
	}
	u64 := func(off int) uint64 { return z.order.Uint64(head[off:]) }
	blocks, shift := u64(24), u64(32)
	z.table = u64(16)
	z.info = zapInfo{fat: true, salt: u64(80), entries: u64(72), leafCount: u64(64), flags: u64(96)}
	if u64(88) != 0 {
		return nil, fmt.Errorf("%w: names are normalized", errZAP)
	}
	if z.info.flags&^zapFlagHash64 != 0 {
		return nil, fmt.Errorf("%w: flags %#x", errZAP, z.info.flags)
	}
	if z.table == 0 && shift > uint64(z.shift-4) || shift > maxTableShift || z.table != 0 && blocks != max(1, uint64(8)<<shift>>z.shift) ||
		z.table > uint64(1)<<40 {
		return nil, fmt.Errorf("%w: pointer table of %d bits in %d blocks", errZAP, shift, blocks)
	}
	z.bits = int(shift)
	// A table in the header has been read with it, one of its own is read block by block.
	leaf := make([]byte, len(head))
	chunk := make([]byte, 0, len(head))
	chunkFrom := uint64(0)
	for i := uint64(0); i < 1<<z.bits; {
		if i >= chunkFrom+uint64(len(chunk)/8) {
			chunkFrom = i &^ uint64(len(head)/8-1)
			if z.table == 0 {
				chunkFrom, chunk = 0, head[len(head)/2:]
			} else {
				chunk = chunk[:len(head)]
				if err := z.readAt(z.dnode, chunk, (z.table<<z.shift)+chunkFrom*8); err != nil {
					return nil, err
				}
			}
		}
		number := z.order.Uint64(chunk[(i-chunkFrom)*8:])
		if number == 0 || number >= 1<<40 {
			return nil, fmt.Errorf("%w: pointer to block %d", errZAP, number)
		}
		if err := z.readAt(z.dnode, leaf, number<<z.shift); err != nil {
			return nil, err
		}
		length, err := z.leaf(leaf, i)
		if err != nil {
			return nil, err
		}
		z.info.leaves++
		i += 1 << (z.bits - length)
	}
	return &z.info, nil
}

// leaf reads a leaf that entry i of the pointer table points to, and returns the length of its
// prefix. The entry must be the first of those that do.
func (z *fatReader) leaf(p []byte, i uint64) (int, error) {
	buckets := 1 << (z.shift - 5)
	chunks := (len(p)-2*buckets)/chunkSize - 2
	length := int(z.order.Uint16(p[32:]))
	if z.order.Uint64(p) != zapLeaf || z.order.Uint32(p[24:]) != leafMagic || length > z.bits ||
		z.order.Uint64(p[16:])<<(z.bits-length) != i {
		return 0, fmt.Errorf("%w: leaf of pointer %d", errZAP, i)
	}
	entries, seen := int(z.order.Uint16(p[30:])), 0
	area := p[leafHeader+2*buckets:]
	chunk := func(n uint16) ([]byte, error) {
		if int(n) >= chunks {
			return nil, fmt.Errorf("%w: chunk %d", errZAP, n)
		}
		return area[chunkSize*int(n):][:chunkSize], nil
	}
	array := func(n uint16, size int) ([]byte, error) {
		if size > chunks*chunkBytes {
			return nil, fmt.Errorf("%w: array of %d bytes", errZAP, size)
		}
		b := make([]byte, 0, size)
		for len(b) < size {
			c, err := chunk(n)
			if err != nil {
				return nil, err
			}
			if c[0] != chunkArray {
				return nil, fmt.Errorf("%w: chunk %d is no array", errZAP, n)
			}
			b = append(b, c[1:1+min(chunkBytes, size-len(b))]...)
			n = z.order.Uint16(c[22:])
		}
		return b, nil
	}
	for b := range buckets {
		next := z.order.Uint16(p[leafHeader+2*b:])
		for next != chunkEnd {
			if seen++; seen > entries {
				return 0, fmt.Errorf("%w: leaf with more than its %d entries", errZAP, entries)
			}
			c, err := chunk(next)
			if err != nil {
				return 0, err
			}
			if c[0] != chunkEntry {
				return 0, fmt.Errorf("%w: chunk %d is no entry", errZAP, next)
			}
			u16 := func(off int) uint16 { return z.order.Uint16(c[off:]) }
			e := zapItem{size: int(c[1]), cd: z.order.Uint32(c[12:]), hash: z.order.Uint64(c[16:])}
			name, err := array(u16(4), int(u16(6)))
			if err != nil {
				return 0, err
			}
			if n := bytes.IndexByte(name, 0); n < 0 || n != len(name)-1 {
				return 0, fmt.Errorf("%w: name %q", errZAP, name)
			}
			e.name = string(name[:len(name)-1])
			if e.value, err = array(u16(8), int(u16(10))*e.size); err != nil {
				return 0, err
			}
			if want := e.hash << length >> (64 - (z.shift - 5)); length < 64 && int(want) != b {
				return 0, fmt.Errorf("%w: entry %q in bucket %d", errZAP, e.name, b)
			}
			if err := z.f(&e); err != nil {
				return 0, err
			}
			next = u16(2)
		}
	}
	if seen != entries {
		return 0, fmt.Errorf("%w: leaf with %d of its %d entries", errZAP, seen, entries)
	}
	return length, nil
}
