package zfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"iter"
)

// writeBuffer is how much of a stream is collected before it is written out: some records, so
// that what is behind the writer sees few and large writes, yet in the cache.
const writeBuffer = 512 << 10

var zeroBlock [recordSize]byte

// Write writes the full stream to w in one pass over the objects, opening the contents one after
// the other. It may be called again and writes the same bytes as long as the contents are the same.
func (s *Stream) Write(ctx context.Context, w io.Writer) error {
	e := s.encoder(ctx, w)
	e.begin(&s.opt, 0, 0)
	e.freeObjects(0, 1)
	for _, o := range s.all() {
		if err := o.write(e); err != nil {
			return err
		}
	}
	// The dnodes that share the last block. Never further: zfs-fuse and early OpenZFS loop over
	// every number of the range.
	if tail := e.next % dnodesInBlock; tail != 0 {
		e.freeObjects(e.next, dnodesInBlock-tail)
	}
	return e.end()
}

func (s *Stream) encoder(ctx context.Context, w io.Writer) *encoder {
	return &encoder{ctx: ctx, w: w, buf: make([]byte, 0, writeBuffer), guid: s.guid, lz4: s.opt.LZ4}
}

// A numbered is something with an object number: a node, or a table that describes the file system.
type numbered struct {
	s      *Stream
	number uint64
	node   *node // or
	table  *table
}

// A table is an object with a fixed number that describes the file system.
type table struct {
	number  uint64
	kind    uint32
	entries func() []zapEntry
	fat     bool
}

// tables returns those objects.
func (s *Stream) tables() []table {
	master := func() []zapEntry {
		entries := []zapEntry{
			{name: "ROOT", value: objRoot},
			{name: "DELETE_QUEUE", value: objUnlinked},
			{name: "utf8only"},
			{name: "normalization"},
			{name: "casesensitivity"},
		}
		if s.opt.Profile == ZPL4 {
			return append(entries, zapEntry{name: "VERSION", value: 4})
		}
		return append(entries, zapEntry{name: "VERSION", value: 5}, zapEntry{name: "SA_ATTRS", value: objSAMaster})
	}
	t := []table{
		{objMaster, typeMaster, master, false},
		{objUnlinked, typeUnlinked, func() []zapEntry { return nil }, false},
	}
	if s.opt.Profile == ZPL4 {
		return t
	}
	return append(
		t,
		table{objSAMaster, typeSAMaster, func() []zapEntry {
			return []zapEntry{{name: "REGISTRY", value: objSARegistry}, {name: "LAYOUTS", value: objSALayouts}}
		}, false},
		table{objSARegistry, typeSARegistry, registryEntries, false},
		table{objSALayouts, typeSALayouts, layoutEntries, true},
	)
}

// all yields every object by number.
func (s *Stream) all() iter.Seq2[uint64, numbered] {
	return func(yield func(uint64, numbered) bool) {
		tables := s.tables()
		for _, n := range s.nodes {
			for len(tables) > 0 && tables[0].number < n.number {
				if !yield(tables[0].number, numbered{s, tables[0].number, nil, &tables[0]}) {
					return
				}
				tables = tables[1:]
			}
			if !yield(n.number, numbered{s, n.number, n, nil}) {
				return
			}
		}
		for i := range tables {
			if !yield(tables[i].number, numbered{s, tables[i].number, nil, &tables[i]}) {
				return
			}
		}
	}
}

// write writes all records of one object.
func (o numbered) write(e *encoder) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	if o.node == nil {
		return e.zap(object{number: o.number, kind: o.table.kind}, o.table.entries(), o.table.fat)
	}
	if err := o.s.node(e, o.node); err != nil {
		return fmt.Errorf("object %q: %w", o.node.Path, err)
	}
	return nil
}

// object returns what goes into the OBJECT record of a node, but for the size of its blocks.
func (s *Stream) object(n *node) (object, error) {
	z, err := n.znode(&s.opt)
	if err != nil {
		return object{}, err
	}
	o := object{number: n.number, kind: typeFile, bonusType: typeSA}
	if n.Mode.IsDir() {
		o.kind = typeDirectory
	}
	if s.opt.Profile == ZPL4 {
		o.bonusType, o.bonus = typeZnode, z.bonus4()
	} else {
		o.bonus, o.spill, err = z.sa()
	}
	return o, err
}

// content returns the size of the blocks' content of what is not a directory, and how to open it.
func (s *Stream) content(n *node) (int64, func() (Content, error)) {
	switch n.Mode.Type() {
	case 0:
		return n.Size, n.Open
	case fs.ModeSymlink:
		if s.opt.Profile == ZPL4 && znodeSize+len(n.Target) > maxBonus {
			return int64(len(n.Target)), func() (Content, error) { return BytesContent([]byte(n.Target)), nil }
		}
	}
	return 0, nil
}

// dirEntries returns the entries of a directory as its zap holds them, in the order of the names.
func (n *node) dirEntries() []zapEntry {
	entries := make([]zapEntry, 0, n.names)
	for c := n.child; c != nil; c = c.next {
		mode, _ := statMode(c.object().Mode) // checked by NewStream
		entries = append(entries, zapEntry{name: base(c.Path), value: mode>>12<<60 | c.object().number})
	}
	return entries
}

// node writes all records of a node.
func (s *Stream) node(e *encoder, n *node) error {
	o, err := s.object(n)
	if err != nil {
		return err
	}
	if n.Mode.IsDir() {
		return e.zap(o, n.dirEntries(), false)
	}
	size, open := s.content(n)
	return e.file(o, size, open)
}

// An object is what goes into an OBJECT record and, if it has one, its spill block.
type object struct {
	number    uint64
	kind      uint32
	bonusType uint32
	blockSize int
	bonus     []byte
	spill     []byte
}

// An encoder writes records. The first error of the writer below sticks and is returned by end
// and by every flush.
type encoder struct {
	ctx     context.Context
	w       io.Writer
	buf     []byte // whole records that are not written out yet, and the one being made
	start   int    // of the record being made
	sum     fletcher4
	guid    uint64
	next    uint64 // first object number that has not been spoken of
	delta   bool   // an increment: numbers between objects stay what they are
	lz4     bool
	packer  lz4Packer
	scratch []byte
	err     error
}

// record starts a record with a payload of n bytes and returns its parts to be filled. The header
// is zero but for the type, the payload is undefined.
func (e *encoder) record(t RecordType, n int) (u, payload []byte) {
	if len(e.buf)+headerSize+n > cap(e.buf) {
		e.flush()
	}
	e.start = len(e.buf)
	e.buf = e.buf[:e.start+headerSize+n]
	head := e.buf[e.start:][:headerSize]
	clear(head)
	binary.LittleEndian.PutUint32(head, uint32(t))
	return head[8:], e.buf[e.start+headerSize:]
}

// commit ends a record. Its payload may have become shorter.
func (e *encoder) commit() {
	r := e.buf[e.start:]
	e.sum.add(r[:sumOffset])
	e.sum.put(r[sumOffset:headerSize], binary.LittleEndian)
	e.sum.add(r[sumOffset:])
}

func (e *encoder) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *encoder) begin(o *Options, fromGUID uint64, flags uint32) {
	u, _ := e.record(RecordBegin, 0)
	le := binary.LittleEndian
	var f uint64
	if o.Profile == ZPL5 {
		f |= featureSASpill
	}
	if o.LZ4 {
		f |= featureLZ4 | featureCompressed
	}
	le.PutUint64(u, beginMagic)
	le.PutUint64(u[8:], headerSubstream|f<<2)
	le.PutUint64(u[16:], uint64(o.Created.Unix()))
	le.PutUint32(u[24:], objsetZFS)
	le.PutUint32(u[28:], flagFreeRecords|flagSpillBlock|flags)
	le.PutUint64(u[32:], e.guid)
	le.PutUint64(u[40:], fromGUID)
	copy(u[48:], o.Name)
	e.sum.add(e.buf[e.start:])
}

func (e *encoder) end() error {
	u, _ := e.record(RecordEnd, 0)
	e.sum.put(u, binary.LittleEndian)
	binary.LittleEndian.PutUint64(u[32:], e.guid)
	e.commit()
	e.flush()
	return e.err
}

func (e *encoder) freeObjects(first, count uint64) {
	u, _ := e.record(RecordFreeObjects, 0)
	for i, v := range []uint64{first, count, e.guid} {
		binary.LittleEndian.PutUint64(u[8*i:], v)
	}
	e.commit()
	e.next = first + count
}

func (e *encoder) free(number, off, length uint64) {
	u, _ := e.record(RecordFree, 0)
	for i, v := range []uint64{number, off, length, e.guid} {
		binary.LittleEndian.PutUint64(u[8*i:], v)
	}
	e.commit()
}

// object writes an OBJECT record, what frees the numbers before it, and what frees blocks behind
// its last one.
func (e *encoder) object(o *object, end uint64) {
	if !e.delta && o.number > e.next {
		e.freeObjects(e.next, o.number-e.next)
	}
	e.next = o.number + 1
	le := binary.LittleEndian
	u, payload := e.record(RecordObject, roundUp(len(o.bonus), 8))
	le.PutUint64(u, o.number)
	le.PutUint32(u[8:], o.kind)
	le.PutUint32(u[12:], o.bonusType)
	le.PutUint32(u[16:], uint32(o.blockSize))
	le.PutUint32(u[20:], uint32(len(o.bonus)))
	u[26] = 1 // slots of its dnode
	if o.spill != nil {
		u[27] = objectSpill
	}
	le.PutUint64(u[32:], e.guid)
	clear(payload[copy(payload, o.bonus):])
	e.commit()
	e.free(o.number, end, noLength)
}

// write starts a WRITE record of one block; its payload is to be filled.
func (e *encoder) write(o *object, off uint64) []byte {
	le := binary.LittleEndian
	u, payload := e.record(RecordWrite, o.blockSize)
	le.PutUint64(u, o.number)
	le.PutUint32(u[8:], o.kind)
	le.PutUint64(u[16:], off)
	le.PutUint64(u[24:], uint64(o.blockSize))
	le.PutUint64(u[32:], e.guid)
	u[40] = 2 // no checksum for deduplication
	return payload
}

// spill writes the SPILL record, if the object has a spill block.
func (e *encoder) spill(o *object) {
	if o.spill == nil {
		return
	}
	u, payload := e.record(RecordSpill, len(o.spill))
	for i, v := range []uint64{o.number, uint64(len(o.spill)), e.guid} {
		binary.LittleEndian.PutUint64(u[8*i:], v)
	}
	copy(payload, o.spill)
	e.commit()
}

// zap writes an object that holds entries.
func (e *encoder) zap(o object, entries []zapEntry, fat bool) error {
	z, err := newZAP(o.number, entries, fat)
	if err != nil {
		return err
	}
	o.blockSize = z.blockSize()
	e.object(&o, uint64(z.blocks()*o.blockSize))
	for i := range z.blocks() {
		p := e.write(&o, uint64(i*o.blockSize))
		clear(p)
		z.block(i, p)
		e.commit()
	}
	e.spill(&o)
	return e.err
}

// fileBlock returns the size of the blocks of a file: one of any size, or many of the largest.
func fileBlock(size int64) int {
	return max(minBlock, roundUp(int(min(size, recordSize)), minBlock))
}

// fileEnd returns where the last block of a file ends.
func fileEnd(size int64) uint64 {
	bs := uint64(fileBlock(size))
	return (uint64(size) + bs - 1) / bs * bs
}

// file writes an object that holds size bytes of content.
func (e *encoder) file(o object, size int64, open func() (Content, error)) error {
	o.blockSize = fileBlock(size)
	e.object(&o, fileEnd(size))
	if size > 0 {
		c, err := open()
		if err != nil {
			return err
		}
		err = e.data(&o, size, c)
		if err2 := c.Close(); err == nil {
			err = err2
		}
		if err != nil {
			return err
		}
	}
	e.spill(&o)
	return e.err
}

// data writes the blocks of a file. A block that is all zeros is a hole.
func (e *encoder) data(o *object, size int64, c Content) error {
	extents := c.Extents()
	if err := checkExtents(extents, size); err != nil {
		return err
	}
	bs := int64(o.blockSize)
	hole := int64(-1) // where one began that is not written yet
	for off := int64(0); off < size; off += bs {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		for len(extents) > 0 && extents[0].Off+extents[0].Len <= off {
			extents = extents[1:]
		}
		if len(extents) == 0 || extents[0].Off-off >= bs {
			if hole < 0 {
				hole = off
			}
			if len(extents) == 0 {
				break
			}
			off = extents[0].Off / bs * bs
		}
		n := int(min(bs, size-off))
		if hole < 0 && !e.lz4 {
			// The usual case: read to where the payload is to stand.
			p := e.write(o, uint64(off))
			if err := readBlock(c, p, n, off); err != nil {
				return err
			}
			if bytes.Equal(p, zeroBlock[:len(p)]) {
				e.buf = e.buf[:e.start]
				hole = off
				continue
			}
			e.commit()
		} else {
			if e.scratch == nil {
				e.scratch = make([]byte, recordSize)
			}
			p := e.scratch[:bs]
			if err := readBlock(c, p, n, off); err != nil {
				return err
			}
			if bytes.Equal(p, zeroBlock[:len(p)]) {
				if hole < 0 {
					hole = off
				}
				continue
			}
			if hole >= 0 {
				e.free(o.number, uint64(hole), uint64(off-hole))
				hole = -1
			}
			e.writeBlock(o, uint64(off), p)
		}
		if e.err != nil {
			return e.err
		}
	}
	if hole >= 0 {
		e.free(o.number, uint64(hole), noLength)
	}
	return nil
}

// writeBlock writes a block that is in memory, compressed if that is wanted and worth it.
func (e *encoder) writeBlock(o *object, off uint64, p []byte) {
	payload := e.write(o, off)
	if e.lz4 {
		if n := e.packer.pack(payload, p); n > 0 {
			u := e.buf[e.start+8:]
			u[42] = compressLZ4
			binary.LittleEndian.PutUint64(u[88:], uint64(n))
			e.buf = e.buf[:e.start+headerSize+n]
			e.commit()
			return
		}
	}
	copy(payload, p)
	e.commit()
}

// readBlock fills p with n bytes of c from off on, and zeros.
func readBlock(c Content, p []byte, n int, off int64) error {
	if m, err := c.ReadAt(p[:n], off); m < n {
		if err == io.EOF || err == nil {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("content at byte %d: %w", off, err)
	}
	clear(p[n:])
	return nil
}

// checkExtents holds a list of extents to what Content promises.
func checkExtents(extents []Extent, size int64) error {
	end := int64(0)
	for _, x := range extents {
		if x.Off < end || x.Len < 0 || x.Len > size-x.Off {
			return fmt.Errorf("content has an extent of %d bytes at %d: not ascending, or outside of %d bytes", x.Len, x.Off, size)
		}
		end = x.Off + x.Len
	}
	return nil
}
