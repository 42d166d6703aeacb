package ovf

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

// A qcow2 image is written with clusters of one grain, which is QEMU's default, too.
const (
	qcow2Bits      = 16
	qcow2Header    = 104 // of version 3
	refcountOrder  = 4   // 16 bits each
	refcountsOf    = GrainSize * 8 >> refcountOrder
	entriesOfTable = GrainSize / 8
	// qcow2Window is the window of deflate in compressed clusters: QEMU inflates them with no more
	// (block/qcow2-threads.c: "small window, no zlib header").
	qcow2Window = 4 << 10
	// sectorsShift is where the entry of a compressed cluster tells its sectors.
	sectorsShift = 62 - (qcow2Bits - 8)
)

// A QCOW2 is a disk that [PackQCOW2] has compressed: where each grain is in the spool.
type QCOW2 struct {
	Size      int64 // bytes of the file
	Capacity  int64 // bytes of the disk
	Populated int64 // bytes of grains that are stored, before compression

	packed []packed
	spool  io.ReaderAt
}

// A packed is a stored grain: its number, and its bytes in the spool. One that does not become
// smaller is stored as it is and has GrainSize of them.
type packed struct {
	number uint32
	length uint32
}

// PackQCOW2 compresses the disk into the spool, as the head of a qcow2 file tells where everything
// behind it is. [QCOW2.WriteTo] writes the file. The bytes depend on the content of src and the
// level only, and hold no identity: opt.ID is not used.
func PackQCOW2(ctx context.Context, spool interface {
	io.Writer
	io.ReaderAt
}, src Source, opt WriteOptions,
) (*QCOW2, error) {
	q := &QCOW2{Capacity: (src.Size + sectorSize - 1) / sectorSize * sectorSize, spool: spool}
	if err := src.check(); err != nil {
		return nil, fmt.Errorf("write qcow2: %w", err)
	}
	w := bufio.NewWriterSize(spool, 1<<20)
	err := src.grains(ctx, opt, qcow2Window, func(z *deflater, _ int64, dst []byte) []byte {
		at := len(dst)
		if dst = z.deflate(dst, GrainSize); len(dst)-at >= GrainSize {
			dst = append(dst[:at], z.in[:GrainSize]...)
		}
		return dst
	}, func(number int64, data []byte) error {
		q.packed = append(q.packed, packed{uint32(number), uint32(len(data))})
		_, err := w.Write(data)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("write qcow2: %w", err)
	}
	q.Populated = int64(len(q.packed)) * GrainSize
	q.Size = q.layout().end
	return q, nil
}

// A qcow2Layout tells where the parts of a file are, in bytes. Before them is the header's cluster.
type qcow2Layout struct {
	refTable  int64 // of the blocks of reference counts
	refBlocks int64
	l1        int64
	l2        int64   // tables of the second level, in order
	tables    []int64 // which there are
	data      int64   // compressed clusters, one behind the other
	plain     int64   // the others
	end       int64
}

func clusters(n int64) int64 { return (n + GrainSize - 1) / GrainSize }

func (q *QCOW2) layout() qcow2Layout {
	var l qcow2Layout
	var compressed, plain int64
	for _, p := range q.packed {
		if t := int64(p.number) / entriesOfTable; len(l.tables) == 0 || l.tables[len(l.tables)-1] != t {
			l.tables = append(l.tables, t)
		}
		if p.length == GrainSize {
			plain++
		} else {
			compressed += int64(p.length)
		}
	}
	rest := clusters(q.l1Entries()*8) + int64(len(l.tables)) + clusters(compressed) + plain
	// The reference counts count themselves.
	blocks, table := int64(0), int64(1)
	for {
		total := 1 + table + blocks + rest
		b := (total + refcountsOf - 1) / refcountsOf
		t := clusters(b * 8)
		if b == blocks && t == table {
			break
		}
		blocks, table = b, t
	}
	l.refTable = GrainSize
	l.refBlocks = l.refTable + table*GrainSize
	l.l1 = l.refBlocks + blocks*GrainSize
	l.l2 = l.l1 + clusters(q.l1Entries()*8)*GrainSize
	l.data = l.l2 + int64(len(l.tables))*GrainSize
	l.plain = l.data + clusters(compressed)*GrainSize
	l.end = l.plain + plain*GrainSize
	return l
}

// l1Entries returns the number of entries of the first level.
func (q *QCOW2) l1Entries() int64 {
	return (clusters(q.Capacity) + entriesOfTable - 1) / entriesOfTable
}

// WriteTo writes the file in one pass. It reads the spool.
func (q *QCOW2) WriteTo(w io.Writer) (int64, error) {
	out := &counted{w: bufio.NewWriterSize(w, 1<<20)}
	err := q.write(out)
	if err == nil {
		err = out.w.Flush()
	}
	if err == nil && out.n != q.Size {
		err = fmt.Errorf("%d bytes instead of %d", out.n, q.Size)
	}
	if err != nil {
		return out.n, fmt.Errorf("write qcow2: %w", err)
	}
	return out.n, nil
}

// A counted writer knows how far it is.
type counted struct {
	w *bufio.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// align fills up a cluster.
func (c *counted) align() error {
	_, err := c.Write(zeros[:-c.n&(GrainSize-1)])
	return err
}

func (q *QCOW2) write(w *counted) error {
	l := q.layout()
	if err := writeBig(w, q.header(l)); err != nil {
		return err
	}
	if err := w.align(); err != nil {
		return err
	}
	var table []uint64
	for at := l.refBlocks; at < l.l1; at += GrainSize {
		table = append(table, uint64(at))
	}
	if err := writeBig(w, table); err != nil {
		return err
	}
	if err := w.align(); err != nil {
		return err
	}
	if err := q.refcounts(w, l); err != nil {
		return err
	}
	l1 := make([]uint64, q.l1Entries())
	for i, t := range l.tables {
		l1[t] = uint64(l.l2+int64(i)*GrainSize) | qcow2Copied
	}
	if err := writeBig(w, l1); err != nil {
		return err
	}
	if err := w.align(); err != nil {
		return err
	}
	if err := q.tables(w, l); err != nil {
		return err
	}
	for _, plain := range []bool{false, true} {
		if err := q.content(w, plain); err != nil {
			return err
		}
		if err := w.align(); err != nil {
			return err
		}
	}
	return nil
}

func writeBig(w io.Writer, v any) error { return binary.Write(w, binary.BigEndian, v) }

// header returns the head of the file (docs/interop/qcow2.rst, "Header").
func (q *QCOW2) header(l qcow2Layout) any {
	return struct {
		Magic                 [4]byte
		Version               uint32
		BackingFile           uint64
		BackingName           uint32
		ClusterBits           uint32
		Size                  uint64
		Crypt                 uint32
		L1Size                uint32
		L1                    uint64
		RefcountTable         uint64
		RefcountTableClusters uint32
		Snapshots             uint32
		SnapshotTable         uint64
		Incompatible          uint64
		Compatible            uint64
		Autoclear             uint64
		RefcountOrder         uint32
		HeaderLength          uint32
	}{
		Magic: [4]byte([]byte(qcow2Magic)), Version: 3, ClusterBits: qcow2Bits, Size: uint64(q.Capacity),
		L1Size: uint32(q.l1Entries()), L1: uint64(l.l1),
		RefcountTable: uint64(l.refTable), RefcountTableClusters: uint32((l.refBlocks - l.refTable) / GrainSize),
		RefcountOrder: refcountOrder, HeaderLength: qcow2Header,
	}
}

// refcounts writes how often each cluster of the file is in use: once, but for those of compressed
// data, which have as many users as there are grains in their sectors.
func (q *QCOW2) refcounts(w *counted, l qcow2Layout) error {
	last := l.end / GrainSize
	first, plain := l.data/GrainSize, l.plain/GrainSize
	counts := make([]uint16, 0, refcountsOf)
	put := func(n uint16) error {
		if counts = append(counts, n); len(counts) == refcountsOf {
			err := writeBig(w, counts)
			counts = counts[:0]
			return err
		}
		return nil
	}
	for range first {
		if err := put(1); err != nil {
			return err
		}
	}
	// A grain and the next one may share a cluster, and a grain may reach into the next cluster.
	var here, next uint16
	at := first
	pos := l.data
	for _, p := range q.packed {
		if p.length == GrainSize {
			continue
		}
		begin := pos / sectorSize * sectorSize / GrainSize
		end := ((pos+int64(p.length)+sectorSize-1)/sectorSize*sectorSize - 1) / GrainSize
		pos += int64(p.length)
		for ; at < begin; at++ {
			if err := put(here); err != nil {
				return err
			}
			here, next = next, 0
		}
		here++
		if end > begin {
			next++
		}
	}
	for ; at < plain; at++ {
		if err := put(here); err != nil {
			return err
		}
		here, next = next, 0
	}
	for ; at < last; at++ {
		if err := put(1); err != nil {
			return err
		}
	}
	if err := writeBig(w, counts); err != nil {
		return err
	}
	return w.align()
}

// tables writes the second level.
func (q *QCOW2) tables(w *counted, l qcow2Layout) error {
	table := make([]uint64, entriesOfTable)
	data, plain := l.data, l.plain
	rest := q.packed
	for _, t := range l.tables {
		clear(table)
		for len(rest) > 0 && int64(rest[0].number)/entriesOfTable == t {
			p := rest[0]
			rest = rest[1:]
			e := &table[p.number%entriesOfTable]
			if p.length == GrainSize {
				*e = uint64(plain) | qcow2Copied
				plain += GrainSize
				continue
			}
			sectors := (data+int64(p.length)-1)/sectorSize - data/sectorSize
			*e = qcow2Compressed | uint64(sectors)<<sectorsShift | uint64(data)
			data += int64(p.length)
		}
		if err := writeBig(w, table); err != nil {
			return err
		}
	}
	return nil
}

// content writes those grains that are compressed, or those that are not.
func (q *QCOW2) content(w *counted, plain bool) error {
	var buf bytes.Buffer
	off := int64(0)
	flush := func() error {
		if buf.Len() == 0 {
			return nil
		}
		_, err := buf.WriteTo(w)
		return err
	}
	for _, p := range q.packed {
		if (p.length == GrainSize) == plain {
			at := buf.Len()
			buf.Grow(int(p.length))
			b := buf.AvailableBuffer()[:p.length]
			if err := readFull(q.spool, b, off, "spool"); err != nil {
				return err
			}
			buf.Write(b)
			if at > 1<<20 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		off += int64(p.length)
	}
	return flush()
}
