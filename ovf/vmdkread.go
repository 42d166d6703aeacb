package ovf

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zlib"
)

// A Reader reads the disk in a monolithic VMDK: stream-optimized, or sparse as workstations make
// them. Its ReadAt may be called by several goroutines at once. Memory is bounded whatever the
// file claims; a lie shows when what it hides is read, or all at once in [Reader.Check].
type Reader struct {
	Capacity   int64  // bytes of the disk
	Grain      int64  // bytes of a grain
	Compressed bool   // stream-optimized, or a sparse extent with compressed grains
	Stream     bool   // its tables stand behind what they describe: written in one pass
	Descriptor string // the text in the extent; "" if there is none
	CreateType string // of the descriptor

	r    io.ReaderAt
	size int64
	head header

	mu        sync.Mutex
	directory []uint32
	tables    map[uint64][]uint32 // some of the grain tables, by number
	free      sync.Pool           // of *inflater
}

// cachedTables bounds what a Reader keeps: 4 KiB to 16 KiB each.
const cachedTables = 256

// NewReader opens the VMDK in r, which is size bytes long.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	v, err := newReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("read VMDK: %w", err)
	}
	return v, nil
}

func newReader(r io.ReaderAt, size int64) (*Reader, error) {
	first := make([]byte, sectorSize)
	n, err := r.ReadAt(first, 0)
	if n < sectorSize {
		if err != nil && err != io.EOF {
			return nil, err
		}
		return nil, fmt.Errorf("the file has %d bytes: no VMDK", n)
	}
	h, err := parseHeader(first)
	if err != nil {
		return nil, err
	}
	v := &Reader{r: r, size: size, tables: map[uint64][]uint32{}}
	if h.DescriptorOffset != 0 && h.DescriptorSize != 0 {
		text := make([]byte, h.DescriptorSize*sectorSize)
		if err := v.sectors(text, h.DescriptorOffset, "descriptor"); err != nil {
			return nil, err
		}
		text, _, _ = bytes.Cut(text, []byte{0})
		v.Descriptor = string(text)
		v.CreateType = descriptorValue(v.Descriptor, "createType")
	}
	if h.DirectoryOffset == gdAtEnd {
		if h, err = v.footer(h); err != nil {
			return nil, err
		}
		v.Stream = true
	}
	v.head = *h
	v.Capacity = int64(h.Capacity) * sectorSize
	v.Grain = int64(h.Grain) * sectorSize
	v.Compressed = h.Flags&flagCompressed != 0
	dir := make([]byte, h.tables()*4)
	if err := v.sectors(dir, h.DirectoryOffset, "grain directory"); err != nil {
		return nil, err
	}
	v.directory = parseWords(dir)
	v.free.New = func() any { return new(inflater) }
	return v, nil
}

// described compares the text in the extent with its header: importers believe either. A file without
// one is a part of a disk.
func (v *Reader) described() error {
	if v.Descriptor == "" {
		return fmt.Errorf("there is no descriptor in it: it is an extent of a disk of several files")
	}
	if p := descriptorValue(v.Descriptor, "parentCID"); p != "" && !strings.EqualFold(p, "ffffffff") {
		return fmt.Errorf("the VMDK is a snapshot: it rests on another file")
	}
	var extents [][]string
	for line := range strings.Lines(v.Descriptor) {
		if f := strings.Fields(line); len(f) > 1 && (f[0] == "RW" || f[0] == "RDONLY" || f[0] == "NOACCESS") {
			extents = append(extents, f)
		}
	}
	if len(extents) != 1 || len(extents[0]) < 4 || extents[0][2] != "SPARSE" {
		return fmt.Errorf("its descriptor does not tell of one sparse extent, which the file is")
	}
	sectors, err := strconv.ParseUint(extents[0][1], 10, 64)
	if grain := v.head.Grain; err != nil || sectors > MaxCapacity/sectorSize || (sectors+grain-1)/grain != v.head.grains() {
		return fmt.Errorf("its descriptor tells of %s sectors, its header of %d", extents[0][1], v.head.Capacity)
	}
	return nil
}

// footer returns the header that stands at the end, where the grain directory is known.
func (v *Reader) footer(first *header) (*header, error) {
	if v.size%sectorSize != 0 || v.size < 4*sectorSize {
		return nil, fmt.Errorf("the file of %d bytes has no footer: truncated", v.size)
	}
	tail := make([]byte, 3*sectorSize)
	if err := v.sectors(tail, uint64(v.size/sectorSize-3), "footer"); err != nil {
		return nil, err
	}
	if m := parseMarker(tail); m.size != 0 || m.kind != markerFooter {
		return nil, fmt.Errorf("no footer at the end: truncated, or bytes follow")
	}
	if !bytes.Equal(tail[2*sectorSize:], zeros[:sectorSize]) {
		return nil, fmt.Errorf("no end-of-stream marker behind the footer")
	}
	h, err := parseHeader(tail[sectorSize : 2*sectorSize])
	if err != nil {
		return nil, fmt.Errorf("footer: %w", err)
	}
	same := *h
	same.DirectoryOffset, same.Unclean = gdAtEnd, first.Unclean
	if same != *first {
		return nil, fmt.Errorf("the footer contradicts the header")
	}
	if h.DirectoryOffset == gdAtEnd {
		return nil, fmt.Errorf("the footer does not tell where the grain directory is")
	}
	return h, nil
}

// sectors fills b from a sector of the file.
func (v *Reader) sectors(b []byte, sector uint64, what string) error {
	if sector > uint64(v.size/sectorSize) || int64(len(b)) > v.size-int64(sector)*sectorSize {
		return fmt.Errorf("%s at sector %d: beyond the end of the file", what, sector)
	}
	return readFull(v.r, b, int64(sector)*sectorSize, what)
}

func readFull(r io.ReaderAt, b []byte, off int64, what string) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%s at byte %d: %w", what, off, err)
	}
	return nil
}

func parseWords(b []byte) []uint32 {
	v := make([]uint32, len(b)/4)
	for i := range v {
		v[i] = binary.LittleEndian.Uint32(b[i*4:])
	}
	return v
}

// A mark is what stands before a grain or a piece of metadata.
type mark struct {
	value uint64 // sector of the disk, or sectors of metadata
	size  uint32 // compressed bytes; 0: metadata
	kind  uint32
}

func parseMarker(b []byte) mark {
	return mark{
		value: binary.LittleEndian.Uint64(b),
		size:  binary.LittleEndian.Uint32(b[8:]),
		kind:  binary.LittleEndian.Uint32(b[12:]),
	}
}

// table returns a grain table, or nil if there is none.
func (v *Reader) table(n uint64) ([]uint32, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t, ok := v.tables[n]; ok {
		return t, nil
	}
	at := v.directory[n]
	if at == 0 {
		return nil, nil
	}
	b := make([]byte, v.head.TableEntries*4)
	if err := v.sectors(b, uint64(at), fmt.Sprintf("grain table %d", n)); err != nil {
		return nil, err
	}
	if len(v.tables) >= cachedTables {
		clear(v.tables)
	}
	t := parseWords(b)
	v.tables[n] = t
	return t, nil
}

// place returns the sector of the file where a grain is. The second result is false if it is zero:
// not stored, or marked as zeros by the value 1, which can be no grain's place.
func (v *Reader) place(grain uint64) (uint64, bool, error) {
	t, err := v.table(grain / uint64(v.head.TableEntries))
	if err != nil || t == nil {
		return 0, false, err
	}
	at := t[grain%uint64(v.head.TableEntries)]
	return uint64(at), at > 1, nil
}

// ReadAt reads the disk; what is not stored reads as zeros.
func (v *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read VMDK: negative offset")
	}
	done := 0
	for done < len(p) {
		if off >= v.Capacity {
			return done, io.EOF
		}
		within := off % v.Grain
		n := int(min(int64(len(p)-done), v.Grain-within, v.Capacity-off))
		if err := v.read(p[done:done+n], uint64(off/v.Grain), within); err != nil {
			return done, fmt.Errorf("read VMDK: %w", err)
		}
		done += n
		off += int64(n)
	}
	return done, nil
}

func (v *Reader) read(p []byte, grain uint64, within int64) error {
	at, stored, err := v.place(grain)
	if err != nil {
		return err
	}
	if !stored {
		clear(p)
		return nil
	}
	if !v.Compressed {
		return v.uncompressed(p, grain, at, within)
	}
	z := v.free.Get().(*inflater)
	defer v.free.Put(z)
	if _, err := v.load(z, grain, at); err != nil {
		return err
	}
	data, err := z.inflate(v.Grain, v.length(grain))
	if err != nil {
		return fmt.Errorf("grain %d at sector %d: %w", grain, at, err)
	}
	copy(p, data[within:])
	return nil
}

func (v *Reader) uncompressed(p []byte, grain, at uint64, within int64) error {
	what := fmt.Sprintf("grain %d", grain)
	if at > uint64(v.size/sectorSize) {
		return fmt.Errorf("%s at sector %d: beyond the end of the file", what, at)
	}
	return readFull(v.r, p, int64(at)*sectorSize+within, what)
}

// length returns the bytes of a grain that lie on the disk.
func (v *Reader) length(grain uint64) int64 {
	return min(v.Grain, v.Capacity-int64(grain)*v.Grain)
}

// load reads a compressed grain into z and returns the sectors it takes in the file.
func (v *Reader) load(z *inflater, grain, at uint64) (uint64, error) {
	what := fmt.Sprintf("grain %d", grain)
	var head [markerHeader]byte
	if err := v.sectors(head[:], at, what); err != nil {
		return 0, err
	}
	lba := binary.LittleEndian.Uint64(head[:])
	size := int64(binary.LittleEndian.Uint32(head[8:]))
	switch {
	case lba != grain*v.head.Grain:
		return 0, fmt.Errorf("%s at sector %d: its marker is that of disk sector %d", what, at, lba)
	case size == 0 || size > maxDeflated(v.Grain):
		return 0, fmt.Errorf("%s at sector %d: %d compressed bytes", what, at, size)
	case size > v.size-int64(at)*sectorSize-markerHeader:
		return 0, fmt.Errorf("%s at sector %d: beyond the end of the file", what, at)
	}
	z.in = slices.Grow(z.in[:0], int(size))[:size]
	return uint64(markerHeader+size+sectorSize-1) / sectorSize, readFull(v.r, z.in, int64(at)*sectorSize+markerHeader, what)
}

// maxDeflated bounds the compressed size of a grain: deflate's stored blocks add 5 bytes to each
// 64 KiB at most, poor encoders more; twice the size is beyond any of them.
func maxDeflated(grain int64) int64 { return 2*grain + 64 }

// An inflater holds what decompressing a grain needs.
type inflater struct {
	in, out []byte
	src     bytes.Reader
	z       io.ReadCloser
}

// inflate decompresses z.in to grain bytes. At least need bytes must come, the rest is zero: some
// writers end the last grain with the disk.
func (z *inflater) inflate(grain, need int64) ([]byte, error) {
	z.src.Reset(z.in)
	var err error
	if z.z == nil {
		z.z, err = zlib.NewReader(&z.src)
	} else {
		err = z.z.(zlib.Resetter).Reset(&z.src, nil)
	}
	if err != nil {
		return nil, err
	}
	z.out = slices.Grow(z.out[:0], int(grain))[:grain]
	n := 0
	for n < len(z.out) && err == nil {
		var k int
		k, err = z.z.Read(z.out[n:])
		n += k
	}
	if err == nil { // the end, with its checksum, must follow
		var more [1]byte
		var k int
		if k, err = z.z.Read(more[:]); k != 0 {
			return nil, fmt.Errorf("more than the %d bytes of a grain", grain)
		}
	}
	switch {
	case err != nil && err != io.EOF:
		return nil, err
	case int64(n) < need:
		return nil, fmt.Errorf("%d bytes: less than a grain", n)
	}
	clear(z.out[n:])
	return z.out, nil
}

// Extents yields the stored parts of the disk in order, adjacent grains as one. It ends after the
// first error.
func (v *Reader) Extents() iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		var run Extent
		for g := uint64(0); g < v.head.grains(); g++ {
			n := uint64(v.head.TableEntries)
			if g%n == 0 && v.directory[g/n] == 0 {
				g += n - 1
				continue
			}
			_, stored, err := v.place(g)
			if err != nil {
				yield(Extent{}, fmt.Errorf("read VMDK: %w", err))
				return
			}
			if !stored {
				continue
			}
			off := int64(g) * v.Grain
			length := min(v.Grain, v.Capacity-off)
			if off != run.Offset+run.Length || run.Length == 0 {
				if run.Length > 0 && !yield(run, nil) {
					return
				}
				run = Extent{off, 0}
			}
			run.Length += length
		}
		if run.Length > 0 {
			yield(run, nil)
		}
	}
}

// Check reads the whole structure and inflates every grain: tables and grains must lie in the file
// and not overlap, markers must name their grains. It returns the bytes of grains that are stored.
func (v *Reader) Check(ctx context.Context) (int64, error) {
	n, err := v.check(ctx, true)
	if err != nil {
		return 0, fmt.Errorf("check VMDK: %w", err)
	}
	return n, nil
}

// A span is a part of the file, in sectors.
type span struct {
	at    uint64
	n     uint32
	grain uint32 // 1 + its number, or 0
}

// check inflates the grains only if content is set.
func (v *Reader) check(ctx context.Context, content bool) (int64, error) {
	spans := []span{{at: 0, n: 1}}
	if v.head.DescriptorSize != 0 && v.head.DescriptorOffset != 0 {
		spans = append(spans, span{at: v.head.DescriptorOffset, n: uint32(v.head.DescriptorSize)})
	}
	sectors := func(bytes uint64) uint32 { return uint32((bytes + sectorSize - 1) / sectorSize) }
	spans = append(spans, span{at: v.head.DirectoryOffset, n: sectors(v.head.tables() * 4)})
	for _, at := range v.directory {
		if at != 0 {
			spans = append(spans, span{at: uint64(at), n: sectors(uint64(v.head.TableEntries) * 4)})
		}
	}
	// Tables apart from each other first: after that the grains are as many as the file has room for.
	if err := apart(spans); err != nil {
		return 0, err
	}
	// A grain takes a sector at least, so a file cannot hold more of them than sectors.
	limit := v.size / sectorSize
	var stored int64
	z := new(inflater)
	for g := uint64(0); g < v.head.grains(); g++ {
		n := uint64(v.head.TableEntries)
		if g%n == 0 {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			if v.directory[g/n] == 0 {
				g += n - 1
				continue
			}
		}
		at, ok, err := v.place(g)
		if err != nil {
			return 0, err
		}
		if !ok {
			continue
		}
		if stored++; stored > limit {
			return 0, fmt.Errorf("more grains than the file has sectors: they overlap")
		}
		length := v.head.Grain
		if v.Compressed {
			if length, err = v.load(z, g, at); err != nil {
				return 0, err
			}
			if content {
				if _, err := z.inflate(v.Grain, v.length(g)); err != nil {
					return 0, fmt.Errorf("grain %d at sector %d: %w", g, at, err)
				}
			}
		} else if at+length > uint64(v.size+sectorSize-1)/sectorSize {
			return 0, fmt.Errorf("grain %d at sector %d: beyond the end of the file", g, at)
		}
		spans = append(spans, span{at: at, n: uint32(length), grain: uint32(g) + 1})
	}
	return stored * v.Grain, apart(spans)
}

// apart sorts spans and says which overlap.
func apart(spans []span) error {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(spans); i++ {
		if a, b := spans[i-1], spans[i]; a.at+uint64(a.n) > b.at {
			return fmt.Errorf("%s and %s overlap at sector %d", a, b, b.at)
		}
	}
	return nil
}

func (s span) String() string {
	if s.grain != 0 {
		return fmt.Sprintf("grain %d", s.grain-1)
	}
	return "metadata"
}
