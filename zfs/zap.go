package zfs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
)

// The formats of the attribute zap (sys/zap_impl.h, sys/zap_leaf.h).
const (
	zapMicro  = 1<<63 + 3 // first word of a block
	zapHeader = 1<<63 + 1
	zapLeaf   = 1 << 63

	zapMagic  = 0x2F52AB2AB
	leafMagic = 0x2AB1EAF

	microEntry   = 64
	microName    = 50   // with the NUL
	microEntries = 2047 // in 128 KiB

	fatShift     = 14 // of the blocks we write: 16 KiB, as hosts do
	fatBlock     = 1 << fatShift
	fatTable     = fatShift - 4 // shift of the pointer table in the second half of the header block
	leafBuckets  = 1 << (fatShift - 5)
	leafChunks   = (fatBlock-2*leafBuckets)/chunkSize - 2
	leafHeader   = 48
	chunkSize    = 24
	chunkBytes   = 21
	chunkEntry   = 252
	chunkArray   = 251
	chunkFree    = 253
	chunkEnd     = 0xFFFF
	leafCDSorted = 1

	hashBits = 28
)

// crcTable is that of zfs_crc64_table.
var crcTable = func() (t [256]uint64) {
	for i := range t {
		c := uint64(i)
		for range 8 {
			c = c>>1 ^ -(c&1)&0xC96C5795D7870F42
		}
		t[i] = c
	}
	return t
}()

// zapHash returns the hash of a name in a zap with this salt: 28 bits at the top.
func zapHash(salt uint64, name string) uint64 {
	h := salt
	for i := range len(name) {
		h = h>>8 ^ crcTable[byte(h)^name[i]]
	}
	return h &^ (1<<(64-hashBits) - 1)
}

// A zapEntry is a name with one number or, if ints is set, several of 16 bits or, if text is, bytes.
type zapEntry struct {
	name  string
	value uint64
	ints  []uint16
	text  string // with the NUL that ends it
	hash  uint64
	cd    uint32 // tells entries of the same hash apart
}

// chunks returns how many chunks of a leaf the entry takes.
func (e *zapEntry) chunks() int {
	value := 8
	switch {
	case e.ints != nil:
		value = 2 * len(e.ints)
	case e.text != "":
		value = len(e.text)
	}
	return 1 + (len(e.name)+chunkBytes)/chunkBytes + (value+chunkBytes-1)/chunkBytes
}

// A zap is a set of entries that is laid out as the blocks of an object.
type zap struct {
	salt    uint64
	entries []zapEntry // by hash and name
	fat     bool
	leaves  []zapRange // of a fat one
	shift   int        // of its pointer table
}

// A zapRange is the part of the entries that stands in one leaf: their hashes begin with prefix,
// a number of length bits.
type zapRange struct {
	from, to int
	prefix   uint64
	length   int
}

// newZAP lays out the entries, which it sorts. The salt derives from the object's number, as
// nothing may be random.
func newZAP(object uint64, entries []zapEntry, fat bool) (*zap, error) {
	z := &zap{salt: object*0x9E3779B97F4A7C15 | 1, entries: entries, fat: fat || len(entries) > microEntries}
	for i := range entries {
		e := &entries[i]
		e.hash = zapHash(z.salt, e.name)
		z.fat = z.fat || len(e.name) >= microName || e.ints != nil || e.text != ""
	}
	slices.SortFunc(entries, func(a, b zapEntry) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Compare(a.name, b.name)
	})
	for i := 1; i < len(entries); i++ {
		if entries[i].hash == entries[i-1].hash {
			if entries[i].name == entries[i-1].name {
				return nil, fmt.Errorf("name %q twice in a directory", entries[i].name)
			}
			entries[i].cd = entries[i-1].cd + 1
		}
	}
	if !z.fat {
		return z, nil
	}
	z.shift = fatTable
	if err := z.split(zapRange{to: len(entries)}); err != nil {
		return nil, err
	}
	for _, l := range z.leaves {
		z.shift = max(z.shift, l.length)
	}
	return z, nil
}

// split makes leaves of the entries of r, in the order of their hashes.
func (z *zap) split(r zapRange) error {
	n := 0
	for k := r.from; k < r.to && n <= leafChunks; k++ {
		n += z.entries[k].chunks()
	}
	if n <= leafChunks {
		z.leaves = append(z.leaves, r)
		return nil
	}
	if r.length == hashBits {
		return fmt.Errorf("names such as %q and %d more in a directory have the same hash",
			z.entries[r.from].name, r.to-r.from-1)
	}
	mask := uint64(1) << (63 - r.length)
	mid := r.from + sort.Search(r.to-r.from, func(i int) bool { return z.entries[r.from+i].hash&mask != 0 })
	if err := z.split(zapRange{r.from, mid, r.prefix << 1, r.length + 1}); err != nil {
		return err
	}
	return z.split(zapRange{mid, r.to, r.prefix<<1 | 1, r.length + 1})
}

// blockSize returns the size of each of the blocks.
func (z *zap) blockSize() int {
	if z.fat {
		return fatBlock
	}
	return roundUp(microEntry+microEntry*len(z.entries), minBlock)
}

// tableBlocks returns how many blocks the pointer table has to itself.
func (z *zap) tableBlocks() int {
	if z.shift <= fatTable {
		return 0
	}
	return 8 << z.shift / fatBlock
}

// blocks returns the number of blocks.
func (z *zap) blocks() int {
	if !z.fat {
		return 1
	}
	return 1 + z.tableBlocks() + len(z.leaves)
}

// block fills p, which is zero and of the size of a block, with block n.
func (z *zap) block(n int, p []byte) {
	le := binary.LittleEndian
	table := z.tableBlocks()
	switch {
	case !z.fat:
		z.micro(p)
	case n == 0:
		le.PutUint64(p, zapHeader)
		le.PutUint64(p[8:], zapMagic)
		if table > 0 {
			le.PutUint64(p[16:], 1)
			le.PutUint64(p[24:], uint64(table))
		}
		le.PutUint64(p[32:], uint64(z.shift))
		le.PutUint64(p[56:], uint64(z.blocks()))
		le.PutUint64(p[64:], uint64(len(z.leaves)))
		le.PutUint64(p[72:], uint64(len(z.entries)))
		le.PutUint64(p[80:], z.salt)
		if table == 0 {
			z.pointers(0, p[fatBlock/2:])
		}
	case n <= table:
		z.pointers(uint64(n-1)*fatBlock/8, p)
	default:
		z.leaf(z.leaves[n-1-table], p)
	}
}

func (z *zap) micro(p []byte) {
	le := binary.LittleEndian
	le.PutUint64(p, zapMicro)
	le.PutUint64(p[8:], z.salt)
	for i := range z.entries {
		e, q := &z.entries[i], p[microEntry*(i+1):]
		le.PutUint64(q, e.value)
		le.PutUint32(q[8:], e.cd)
		copy(q[14:], e.name)
	}
}

// pointers fills p with the pointer table from entry i on: the leaf of every prefix of shift bits.
func (z *zap) pointers(i uint64, p []byte) {
	end := func(l zapRange) uint64 { return (l.prefix + 1) << (z.shift - l.length) }
	leaf := sort.Search(len(z.leaves), func(k int) bool { return end(z.leaves[k]) > i })
	for ; len(p) > 0; p, i = p[8:], i+1 {
		if i == end(z.leaves[leaf]) {
			leaf++
		}
		binary.LittleEndian.PutUint64(p, uint64(1+z.tableBlocks()+leaf))
	}
}

// leaf fills p with the leaf block of r.
func (z *zap) leaf(r zapRange, p []byte) {
	le := binary.LittleEndian
	le.PutUint64(p, zapLeaf)
	le.PutUint64(p[16:], r.prefix)
	le.PutUint32(p[24:], leafMagic)
	le.PutUint16(p[30:], uint16(r.to-r.from))
	le.PutUint16(p[32:], uint16(r.length))
	p[36] = leafCDSorted
	buckets := p[leafHeader:][:2*leafBuckets]
	for i := range buckets {
		buckets[i] = 0xFF
	}
	chunks := p[leafHeader+2*leafBuckets:]
	chunk := func(n int) []byte { return chunks[chunkSize*n:][:chunkSize] }
	next := 0
	array := func(b []byte) uint16 {
		first := next
		for len(b) > 0 {
			c := chunk(next)
			next++
			c[0] = chunkArray
			n := copy(c[1:1+chunkBytes], b)
			if b = b[n:]; len(b) > 0 {
				le.PutUint16(c[22:], uint16(next))
			} else {
				le.PutUint16(c[22:], chunkEnd)
			}
		}
		return uint16(first)
	}
	var value []byte
	for i := r.from; i < r.to; i++ {
		e, at := &z.entries[i], next
		next++
		c := chunk(at)
		c[0] = chunkEntry
		le.PutUint16(c[4:], array(append([]byte(e.name), 0)))
		le.PutUint16(c[6:], uint16(len(e.name)+1))
		switch {
		case e.ints != nil:
			value = value[:0]
			for _, v := range e.ints {
				value = binary.BigEndian.AppendUint16(value, v)
			}
			c[1] = 2
			le.PutUint16(c[10:], uint16(len(e.ints)))
		case e.text != "":
			value = append(value[:0], e.text...)
			c[1] = 1
			le.PutUint16(c[10:], uint16(len(e.text)))
		default:
			value = binary.BigEndian.AppendUint64(value[:0], e.value)
			c[1] = 8
			le.PutUint16(c[10:], 1)
		}
		le.PutUint16(c[8:], array(value))
		le.PutUint32(c[12:], e.cd)
		le.PutUint64(c[16:], e.hash)
		// A chain is sorted by cd, and equal ones are in the order they came.
		link := buckets[2*(e.hash<<r.length>>(64-9)):]
		for le.Uint16(link) != chunkEnd {
			other := chunk(int(le.Uint16(link)))
			if le.Uint32(other[12:]) > e.cd {
				break
			}
			link = other[2:]
		}
		copy(c[2:4], link[:2])
		le.PutUint16(link, uint16(at))
	}
	le.PutUint16(p[28:], uint16(leafChunks-next))
	le.PutUint16(p[34:], chunkEnd)
	if next < leafChunks {
		le.PutUint16(p[34:], uint16(next))
	}
	for ; next < leafChunks; next++ {
		c := chunk(next)
		c[0] = chunkFree
		le.PutUint16(c[22:], uint16(next+1))
		if next == leafChunks-1 {
			le.PutUint16(c[22:], chunkEnd)
		}
	}
}
