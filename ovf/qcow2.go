package ovf

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// qcow2Magic begins a QEMU copy-on-write image (QEMU, docs/interop/qcow2.rst).
const qcow2Magic = "QFI\xfb"

// Bits of the header's incompatible features and of table entries.
const (
	qcow2Dirty       = 1 << 0 // the reference counts may be wrong, which readers do not need
	qcow2Corrupt     = 1 << 1
	qcow2External    = 1 << 2
	qcow2Compression = 1 << 3 // the compression is not deflate
	qcow2Extended    = 1 << 4

	qcow2Copied     = 1 << 63
	qcow2Compressed = 1 << 62
	qcow2Zero       = 1 << 0 // of an entry of the second level
	qcow2Offset     = 1<<56 - 1<<9
)

// Limits of images that are read: QEMU's own for the first level and for clusters.
const (
	maxL1         = 32 << 20 // bytes
	qcow2Cached   = 16 << 20 // bytes of tables of the second level that are kept
	zstdOfQCOW2   = 1
	minQCOW2Bits  = 9
	maxQCOW2Bits  = 21
	v2HeaderBytes = 72
)

// A qcow2 reads an image. It may be used by several goroutines at once.
type qcow2 struct {
	r        io.ReaderAt
	size     int64 // of the file
	capacity int64
	bits     uint // of a cluster
	zstd     bool
	l1       []uint64

	mu     sync.Mutex
	tables map[uint64][]uint64
	free   sync.Pool // of *cluster
}

// A cluster holds what decompressing one needs.
type cluster struct {
	in, out []byte
	src     bytes.Reader
	z       io.ReadCloser
	zstd    *zstd.Decoder
}

func openQCOW2(ctx context.Context, r io.ReaderAt, size int64) (Source, error) {
	q, err := newQCOW2(r, size)
	if err != nil {
		return Source{}, fmt.Errorf("qcow2: %w", err)
	}
	list, err := q.check(ctx)
	if err != nil {
		return Source{}, fmt.Errorf("qcow2: %w", err)
	}
	return Source{q, q.capacity, list}, nil
}

func newQCOW2(r io.ReaderAt, size int64) (*qcow2, error) {
	b := make([]byte, 112)
	n, err := r.ReadAt(b, 0)
	if n < v2HeaderBytes {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("header: %w", err)
	}
	q := &qcow2{r: r, size: size, capacity: int64(be64(b[24:])), bits: uint(be32(b[20:])), tables: map[uint64][]uint64{}}
	version := be32(b[4:])
	var features uint64
	switch {
	case version == 3 && n >= 104:
		features = be64(b[72:])
		if features&qcow2Compression != 0 {
			if be32(b[100:]) <= 104 || b[104] != zstdOfQCOW2 {
				return nil, fmt.Errorf("compression of type %d is not known", b[104])
			}
			q.zstd = true
		}
	case version != 2:
		return nil, fmt.Errorf("version %d: only 2 and 3 are read", version)
	}
	switch {
	case be64(b[8:]) != 0:
		return nil, fmt.Errorf("it has a backing file, which is not read: flatten it with qemu-img convert")
	case be32(b[32:]) != 0:
		return nil, fmt.Errorf("it is encrypted")
	case features&qcow2Corrupt != 0:
		return nil, fmt.Errorf("it is marked as corrupt")
	case features&qcow2External != 0:
		return nil, fmt.Errorf("its data are in another file, which is not read")
	case features&qcow2Extended != 0:
		return nil, fmt.Errorf("it has subclusters, which are not read: convert it with qemu-img convert")
	case features&^(qcow2Dirty|qcow2Compression) != 0:
		return nil, fmt.Errorf("features %#x are not known", features)
	case q.bits < minQCOW2Bits || q.bits > maxQCOW2Bits:
		return nil, fmt.Errorf("clusters of 2^%d bytes: not between 2^9 and 2^21", q.bits)
	case q.capacity <= 0 || q.capacity > MaxCapacity:
		return nil, fmt.Errorf("disk of %d bytes: not between 1 and %d", q.capacity, int64(MaxCapacity))
	}
	// An entry of the first level stands for a table of the second, one cluster of 8-byte entries.
	per := int64(1) << (2*q.bits - 3)
	need := (q.capacity + per - 1) / per
	at := be64(b[40:])
	if int64(be32(b[36:])) < need || need*8 > maxL1 {
		return nil, fmt.Errorf("%d entries of the first level: %d are needed, %d are the most", be32(b[36:]), need, maxL1/8)
	}
	table := make([]byte, need*8)
	if err := q.read(table, at, "table of the first level"); err != nil {
		return nil, err
	}
	q.l1 = parseEntries(table)
	q.free.New = func() any { return new(cluster) }
	return q, nil
}

func parseEntries(b []byte) []uint64 {
	v := make([]uint64, len(b)/8)
	for i := range v {
		v[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	return v
}

// read fills b from the file.
func (q *qcow2) read(b []byte, at uint64, what string) error {
	if at > uint64(q.size) || int64(len(b)) > q.size-int64(at) {
		return fmt.Errorf("%s at byte %d: beyond the end of the file", what, at)
	}
	return readFull(q.r, b, int64(at), what)
}

// table returns a table of the second level, or nil if there is none.
func (q *qcow2) table(n uint64) ([]uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t, ok := q.tables[n]; ok {
		return t, nil
	}
	at := q.l1[n] & qcow2Offset
	if at == 0 {
		return nil, nil
	}
	b := make([]byte, 1<<q.bits)
	if err := q.read(b, at, fmt.Sprintf("table %d", n)); err != nil {
		return nil, err
	}
	if len(q.tables)<<q.bits >= qcow2Cached {
		clear(q.tables)
	}
	t := parseEntries(b)
	q.tables[n] = t
	return t, nil
}

// entry returns that of a cluster; 0 for one that is not stored or zero.
func (q *qcow2) entry(cluster int64) (uint64, error) {
	t, err := q.table(uint64(cluster) >> (q.bits - 3))
	if err != nil || t == nil {
		return 0, err
	}
	e := t[cluster&(1<<(q.bits-3)-1)]
	if e&qcow2Compressed == 0 && (e&qcow2Zero != 0 || e&qcow2Offset == 0) {
		return 0, nil
	}
	return e, nil
}

// span returns where the bytes of a compressed cluster are: up to so many.
func (q *qcow2) span(entry uint64) (at, n int64) {
	x := 62 - (q.bits - 8)
	at = int64(entry & (1<<x - 1))
	sectors := int64(entry&(qcow2Compressed-1)) >> x
	return at, (sectors+1)*sectorSize - at%sectorSize
}

// check looks where all clusters are, and returns the parts that are stored. Tables apart from each
// other bound what a small file can stand for.
func (q *qcow2) check(ctx context.Context) ([]Extent, error) {
	var places []uint64
	for _, e := range q.l1 {
		if at := e & qcow2Offset; at != 0 {
			places = append(places, at)
		}
	}
	slices.Sort(places)
	for i := 1; i < len(places); i++ {
		if places[i]-places[i-1] < 1<<q.bits {
			return nil, fmt.Errorf("tables of the second level overlap at byte %d", places[i])
		}
	}
	var list extentList
	count := (q.capacity + 1<<q.bits - 1) >> q.bits
	plain := int64(0)
	for n := int64(0); n < count; n++ {
		if n&(1<<(q.bits-3)-1) == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if q.l1[n>>(q.bits-3)]&qcow2Offset == 0 {
				n += 1<<(q.bits-3) - 1
				continue
			}
		}
		e, err := q.entry(n)
		if err != nil {
			return nil, err
		}
		if e == 0 {
			continue
		}
		off := n << q.bits
		length := min(1<<q.bits, q.capacity-off)
		at, need := int64(e&qcow2Offset), length
		if e&qcow2Compressed != 0 {
			at, _ = q.span(e)
			need = 1
		} else if plain++; plain > q.size>>q.bits+1 {
			return nil, fmt.Errorf("more clusters than the file has room for: they overlap")
		}
		if at+need > q.size {
			return nil, fmt.Errorf("cluster %d at byte %d: beyond the end of the file", n, at)
		}
		list.add(Extent{off, length})
	}
	return list.extents(), nil
}

func (q *qcow2) ReadAt(p []byte, off int64) (int, error) {
	n, err := readBlocks(p, off, q.capacity, 1<<q.bits, q.readCluster)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("qcow2: %w", err)
	}
	return n, err
}

func (q *qcow2) readCluster(p []byte, n, within int64) error {
	e, err := q.entry(n)
	switch {
	case err != nil:
		return err
	case e == 0:
		clear(p)
		return nil
	case e&qcow2Compressed == 0:
		return q.read(p, e&qcow2Offset+uint64(within), fmt.Sprintf("cluster %d", n))
	}
	c := q.free.Get().(*cluster)
	defer q.free.Put(c)
	at, length := q.span(e)
	length = min(length, q.size-at)
	if length <= 0 {
		return fmt.Errorf("cluster %d at byte %d: beyond the end of the file", n, at)
	}
	c.in = slices.Grow(c.in[:0], int(length))[:length]
	if err := q.read(c.in, uint64(at), fmt.Sprintf("cluster %d", n)); err != nil {
		return err
	}
	if err := c.decompress(q.zstd, 1<<q.bits); err != nil {
		return fmt.Errorf("cluster %d at byte %d: %w", n, at, err)
	}
	copy(p, c.out[within:])
	return nil
}

// decompress fills out from the beginning of in; where it ends there is not told.
func (c *cluster) decompress(isZstd bool, size int) error {
	c.src.Reset(c.in)
	c.out = slices.Grow(c.out[:0], size)[:size]
	var r io.Reader
	var err error
	switch {
	case !isZstd && c.z == nil:
		c.z = flate.NewReader(&c.src)
	case !isZstd:
		err = c.z.(flate.Resetter).Reset(&c.src, nil)
	case c.zstd == nil:
		c.zstd, err = zstd.NewReader(&c.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(64<<20))
	default:
		err = c.zstd.Reset(&c.src)
	}
	if err != nil {
		return err
	}
	if r = c.z; isZstd {
		r = c.zstd
	}
	_, err = io.ReadFull(r, c.out)
	return err
}
