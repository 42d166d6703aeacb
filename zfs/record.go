package zfs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Header is what BEGIN says of the stream that follows.
type Header struct {
	Name       string // of the snapshot at the sender, "pool/fs@snap"
	GUID       uint64 // of the snapshot; 0 for a package
	FromGUID   uint64 // of the snapshot that must be there already; 0 for a full stream
	Created    time.Time
	Features   []string // by their names in OpenZFS, lower case
	FileSystem bool     // rather than a volume
	Package    bool     // properties and whole streams follow (zfs send -p and -R)
	Clone      bool     // an increment that makes a file system of its own

	spillFlags bool // OBJECT says whether there is a spill block
	foldCase   bool
	order      binary.ByteOrder
}

// A Record is one record of a stream. Which fields count depends on the type; all are checked.
type Record struct {
	Type RecordType
	Pos  int64 // of its header in the stream, in bytes

	Header *Header // of BEGIN

	Object uint64 // its number; the first one of FREEOBJECTS
	Count  uint64 // of FREEOBJECTS
	Kind   uint32 // type of the object: OBJECT, WRITE

	BonusType uint32 // of OBJECT
	BonusSize int
	BlockSize int
	Slots     int
	HasSpill  bool // if BEGIN promises to say so

	Offset uint64 // in the object: WRITE, WRITE_BYREF, WRITE_EMBEDDED, FREE
	Length uint64 // the same, and SPILL; all ones in FREE is to the end

	Compression uint8  // of the payload: WRITE (0: none), WRITE_EMBEDDED
	LogicalSize int    // of WRITE_EMBEDDED, after decompression
	IsSpill     bool   // of WRITE_EMBEDDED: it is the object's spill block, and Offset means nothing
	PayloadSize int    // without what pads it
	RefGUID     uint64 // of WRITE_BYREF: what it repeats
	RefObject   uint64
	RefOffset   uint64

	Payload []byte // valid until the next record; nil in BEGIN
}

const (
	maxBonusSize    = 16 << 10 // dnodes are not larger
	maxEmbedded     = 112
	maxBeginPayload = 64 << 20
)

// A Reader reads the records of a stream, whole packages included, and verifies their checksums.
type Reader struct {
	r       *bufio.Reader
	pos     int64
	order   binary.ByteOrder
	sum     fletcher4
	head    [headerSize]byte
	payload []byte
	begin   *Header // of the stream we are in
	pack    bool    // inside a package
	ended   bool
	err     error
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10)}
}

// ReadHeader reads the header of a stream, and no more than that.
func ReadHeader(r io.Reader) (*Header, error) {
	var z Reader
	if _, err := io.ReadFull(r, z.head[:]); err != nil {
		return nil, fmt.Errorf("stream: %w", noEOF(err))
	}
	h, err := z.parseBegin()
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return h, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Next returns the next record, or io.EOF behind a stream that is whole. It is an error if
// anything follows.
func (z *Reader) Next() (*Record, error) {
	if z.err != nil {
		return nil, z.err
	}
	start := z.pos
	rec, err := z.next()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("stream: record at byte %d: %w", start, err)
	}
	z.err = err
	return rec, err
}

func (z *Reader) next() (*Record, error) {
	if z.ended {
		if _, err := z.r.ReadByte(); err != io.EOF {
			return nil, errors.New("data after the end of the stream")
		}
		return nil, io.EOF
	}
	rec := &Record{Pos: z.pos}
	if n, err := io.ReadFull(z.r, z.head[:]); err != nil {
		if z.begin == nil && !z.pack && n > 0 {
			return nil, errors.New("not a send stream")
		}
		return nil, noEOF(err)
	}
	z.pos += headerSize
	if z.begin == nil {
		return rec, z.outside(rec)
	}
	rec.Type = RecordType(z.order.Uint32(z.head[:]))
	if rec.Type == RecordEnd {
		if sumAt(z.head[8:], z.order) != z.sum {
			return nil, errors.New("END: checksum of the stream does not match")
		}
	}
	if rec.Type != RecordBegin {
		if err := z.verify(); err != nil {
			return nil, fmt.Errorf("%v: %w", rec.Type, err)
		}
	}
	err := z.parse(rec)
	if err == nil {
		err = z.readPayload(rec)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", rec.Type, err)
	}
	if rec.Type == RecordEnd {
		z.begin = nil
		z.ended = !z.pack
	}
	return rec, nil
}

// outside reads a record where a stream begins or a package ends.
func (z *Reader) outside(rec *Record) error {
	if z.pack && RecordType(z.order.Uint32(z.head[:])) == RecordEnd {
		rec.Type = RecordEnd
		z.ended = true
		return nil
	}
	h, err := z.parseBegin()
	if err != nil {
		return err
	}
	if h.Package && z.pack {
		return errors.New("package in a package")
	}
	n := z.order.Uint32(z.head[4:])
	if n > maxBeginPayload || n%4 != 0 {
		return fmt.Errorf("BEGIN with %d bytes behind it: more than %d, or not a multiple of 4", n, maxBeginPayload)
	}
	z.begin, z.pack = h, z.pack || h.Package
	rec.Type, rec.Header = RecordBegin, h
	z.sum = fletcher4{}
	z.add(z.head[:])
	for n > 0 { // an nvlist of properties, which hosts set themselves
		k := min(n, 32<<10)
		p, err := z.bytes(int(k))
		if err != nil {
			return err
		}
		z.add(p)
		n -= k
	}
	return nil
}

// parseBegin checks and decodes the BEGIN record in head.
func (z *Reader) parseBegin() (*Header, error) {
	u := z.head[8:]
	switch {
	case binary.LittleEndian.Uint64(u) == beginMagic && binary.LittleEndian.Uint32(z.head[:]) == 0:
		z.order = binary.LittleEndian
	case binary.BigEndian.Uint64(u) == beginMagic && binary.BigEndian.Uint32(z.head[:]) == 0:
		z.order = binary.BigEndian
	default:
		return nil, errors.New("not a send stream")
	}
	u64 := func(off int) uint64 { return z.order.Uint64(u[off:]) }
	info, flags := u64(8), z.order.Uint32(u[28:])
	h := &Header{
		GUID: u64(32), FromGUID: u64(40),
		Created:    time.Unix(int64(u64(16)), 0).UTC(),
		FileSystem: z.order.Uint32(u[24:]) == objsetZFS,
		Package:    info&3 == headerCompound,
		Clone:      flags&flagClone != 0,
		spillFlags: flags&flagSpillBlock != 0,
		foldCase:   flags&flagCIData != 0,
		order:      z.order,
	}
	if kind := info & 3; kind != headerSubstream && kind != headerCompound {
		return nil, fmt.Errorf("BEGIN: header type %d", kind)
	}
	bits := info >> 2
	for _, f := range features {
		if bits&f.bit != 0 {
			h.Features = append(h.Features, f.name)
			bits &^= f.bit
		}
	}
	if bits != 0 {
		return nil, fmt.Errorf("BEGIN: unknown features %#x", bits)
	}
	for _, no := range []struct{ feature, why string }{
		{"raw", "a raw (encrypted) stream cannot be read without the keys of its pool"},
		{"redacted", "a redacted stream is not whole"},
		{"resuming", "a resuming stream is only the rest of one"},
	} {
		if slices.Contains(h.Features, no.feature) {
			return nil, errors.New(no.why)
		}
	}
	name := u[48:304]
	end := bytes.IndexByte(name, 0)
	if end < 0 {
		return nil, errors.New("BEGIN: name without end")
	}
	h.Name = string(name[:end])
	if !h.Package && (h.GUID == 0 || strings.IndexByte(h.Name, '@') < 0) {
		return nil, fmt.Errorf("BEGIN: snapshot name %q and guid %d: not those of a snapshot", h.Name, h.GUID)
	}
	return h, nil
}

// add feeds p to the checksum.
func (z *Reader) add(p []byte) {
	if z.order == binary.LittleEndian {
		z.sum.add(p)
	} else {
		z.sum.addSwapped(p)
	}
}

// verify checks the running checksum of the record in head. Old senders leave it out.
func (z *Reader) verify() error {
	z.add(z.head[:sumOffset])
	stored := z.head[sumOffset:]
	if sum := sumAt(stored, z.order); sum != z.sum && sum != (fletcher4{}) {
		return errors.New("checksum does not match")
	}
	z.add(stored)
	return nil
}

// bytes returns the next n bytes of the stream, valid until the next call.
func (z *Reader) bytes(n int) ([]byte, error) {
	if cap(z.payload) < n {
		z.payload = make([]byte, n)
	}
	p := z.payload[:n]
	if _, err := io.ReadFull(z.r, p); err != nil {
		return nil, noEOF(err)
	}
	z.pos += int64(n)
	return p, nil
}

func (z *Reader) readPayload(rec *Record) error {
	if rec.PayloadSize == 0 {
		return nil
	}
	p, err := z.bytes(roundUp(rec.PayloadSize, 8))
	if err != nil {
		return err
	}
	z.add(p)
	rec.Payload = p[:rec.PayloadSize]
	return nil
}

// parse checks and decodes the record in head, which is not a BEGIN.
func (z *Reader) parse(rec *Record) error {
	u := z.head[8:]
	u64 := func(off int) uint64 { return z.order.Uint64(u[off:]) }
	u32 := func(off int) uint32 { return z.order.Uint32(u[off:]) }
	guid := func(off int) error {
		if g := u64(off); g != z.begin.GUID {
			return fmt.Errorf("snapshot guid %#x: BEGIN has %#x", g, z.begin.GUID)
		}
		return nil
	}
	rec.Object = u64(0)
	if rec.Type != RecordEnd && rec.Object >= maxObject {
		return fmt.Errorf("object number %d: not below 2^48", rec.Object)
	}
	if z.begin.Package && rec.Type != RecordEnd {
		return errors.New("in the head of a package")
	}
	switch rec.Type {
	case RecordEnd:
		rec.Object = 0
		if z.begin.Package {
			return nil
		}
		return guid(32)
	case RecordObject:
		return errors.Join(z.parseObject(rec, u64, u32), guid(32))
	case RecordFreeObjects:
		rec.Count = u64(8)
		if rec.Object+rec.Count < rec.Object {
			return fmt.Errorf("%d objects from %d: no such numbers", rec.Count, rec.Object)
		}
		return guid(16)
	case RecordWrite:
		rec.Kind, rec.Offset, rec.Length = u32(8), u64(16), u64(24)
		rec.Compression = u[42]
		size := rec.Length
		if rec.Compression != 0 {
			if size = u64(88); size > rec.Length || size%8 != 0 || size == 0 {
				return fmt.Errorf("block of %d bytes compressed to %d", rec.Length, size)
			}
		}
		if err := checkRange(rec); err != nil {
			return err
		}
		rec.PayloadSize = int(size)
		return guid(32)
	case RecordFree:
		rec.Offset, rec.Length = u64(8), u64(16)
		return guid(24)
	case RecordWriteByRef:
		rec.Offset, rec.Length = u64(8), u64(16)
		rec.RefGUID, rec.RefObject, rec.RefOffset = u64(32), u64(40), u64(48)
		return errors.Join(checkRange(rec), guid(24))
	case RecordWriteEmbedded:
		rec.Offset, rec.Length = u64(8), u64(16)
		rec.Compression = u[32]
		logical, physical := u32(40), u32(44)
		if u[33] != 0 {
			return fmt.Errorf("embedded data of type %d", u[33])
		}
		if physical == 0 || physical > maxEmbedded || uint64(logical) > rec.Length {
			return fmt.Errorf("%d bytes compressed to %d", logical, physical)
		}
		rec.LogicalSize, rec.PayloadSize = int(logical), int(physical)
		// OpenZFS sends a spill block that compresses to less than a block pointer as block -2.
		if rec.Offset == -(2*rec.Length) && rec.Length >= minBlock && rec.Length <= maxBlock && rec.Length%minBlock == 0 {
			rec.IsSpill = true
			return guid(24)
		}
		return errors.Join(checkRange(rec), guid(24))
	case RecordSpill:
		rec.Length = u64(8)
		if rec.Length < minBlock || rec.Length > maxBlock || rec.Length%minBlock != 0 {
			return fmt.Errorf("spill block of %d bytes", rec.Length)
		}
		if u[25] != 0 && u[25] != compressOff {
			return fmt.Errorf("compressed spill block")
		}
		rec.PayloadSize = int(rec.Length)
		return guid(16)
	}
	return errors.New("not expected in a stream of this kind")
}

func (z *Reader) parseObject(rec *Record, u64 func(int) uint64, u32 func(int) uint32) error {
	rec.Kind, rec.BonusType = u32(8), u32(12)
	block, bonus := u32(16), u32(20)
	switch {
	case rec.Object == 0:
		return errors.New("object number 0")
	case block < minBlock || block > maxBlock || block%minBlock != 0:
		return fmt.Errorf("blocks of %d bytes", block)
	case bonus > maxBonusSize:
		return fmt.Errorf("bonus of %d bytes", bonus)
	}
	for i, v := range z.head[8+28 : sumOffset] { // lengths and shapes of raw streams
		if v != 0 && (i < 4 || i >= 12) {
			return fmt.Errorf("byte %d of its header is %#x: only raw streams say so", 8+28+i, v)
		}
	}
	rec.BlockSize, rec.BonusSize, rec.PayloadSize = int(block), int(bonus), int(bonus)
	rec.Slots = max(1, int(z.head[8+26]))
	rec.HasSpill = z.begin.spillFlags && z.head[8+27]&objectSpill != 0
	return nil
}

// checkRange checks where a block is to be written.
func checkRange(rec *Record) error {
	if rec.Length < minBlock || rec.Length > maxBlock || rec.Length%minBlock != 0 ||
		rec.Offset%minBlock != 0 || rec.Offset > 1<<63-1-rec.Length {
		return fmt.Errorf("block of %d bytes at %d", rec.Length, rec.Offset)
	}
	return nil
}
