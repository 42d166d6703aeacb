package ovf

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"runtime"
	"slices"
	"sync"
)

// An Extent is a range of a disk, in bytes.
type Extent struct{ Offset, Length int64 }

// A Source is the content of a disk. It is read by several goroutines at once.
type Source struct {
	Content io.ReaderAt
	Size    int64 // bytes; a last partial grain is padded with zeros
	// Extents are the parts that may hold data, in any order, overlapping or not. The rest is zero and
	// is never read. If nil, everything may hold data; an empty slice is an empty disk.
	Extents []Extent
}

// A Level weighs the time of compressing against the size.
type Level int

// The levels.
const (
	Default Level = iota
	Fast
	Small
)

// VMDKOptions are the choices of [WriteVMDK].
type VMDKOptions struct {
	Level Level
	// ID is the identity of the content (CID and ddb.longContentID of the descriptor). The descriptor
	// precedes the content, so the caller derives it from what the disk was made of. Two disks with
	// the same ID and different content confuse hosts; the zero ID is fit for tests only.
	ID [16]byte
	// Workers compress at the same time; 0 stands for GOMAXPROCS. The bytes do not depend on it.
	Workers int
	// Progress, if not nil, is told how many of the bytes that may hold data are done.
	Progress func(done, total int64)
}

// A VMDK tells what was written.
type VMDK struct {
	Size      int64    // bytes of the file
	SHA256    [32]byte // of the file
	Capacity  int64    // bytes of the disk: the size of the source rounded up to whole grains
	Populated int64    // bytes of grains that are stored, before compression
}

// WriteVMDK writes src as a stream-optimized VMDK: one forward pass, so w may be a pipe, with the
// tables behind what they describe as VMware and VirtualBox write them. Grains of zeros are left
// out. The bytes depend on the content of src, the level and the ID only.
func WriteVMDK(ctx context.Context, w io.Writer, src Source, opt VMDKOptions) (*VMDK, error) {
	v, err := writeVMDK(ctx, w, src, opt)
	if err != nil {
		return nil, fmt.Errorf("write VMDK: %w", err)
	}
	return v, nil
}

func writeVMDK(ctx context.Context, w io.Writer, src Source, opt VMDKOptions) (*VMDK, error) {
	level, ok := efforts[opt.Level]
	if !ok {
		return nil, fmt.Errorf("level %d is not known", opt.Level)
	}
	if src.Size <= 0 || src.Size > MaxCapacity {
		return nil, fmt.Errorf("disk of %d bytes: not between 1 and %d", src.Size, int64(MaxCapacity))
	}
	extents, err := normalize(src.Extents, src.Size)
	if err != nil {
		return nil, err
	}
	if src.Extents == nil {
		extents = []Extent{{0, src.Size}}
	}
	capacity := (src.Size + GrainSize - 1) / GrainSize * GrainSize
	s := newStream(w, capacity, opt.ID)
	if err := s.begin(); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	workers := opt.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	// A slot travels: free, filled with a grain's number, compressed by a worker, written in order.
	free := make(chan *slot, 4*workers)
	jobs := make(chan *slot, cap(free))
	order := make(chan *slot, cap(free))
	for range cap(free) {
		free <- &slot{ready: make(chan error, 1)}
	}
	for range workers {
		running.Go(func() {
			z := newDeflater(level)
			for job := range jobs {
				job.ready <- job.compress(src.Content, z)
			}
		})
	}
	running.Go(func() {
		defer close(jobs)
		defer close(order)
		for number, parts := range grainsOf(extents) {
			select {
			case <-ctx.Done():
				return
			case job := <-free:
				job.number, job.parts = number, parts
				order <- job
				jobs <- job
			}
		}
	})

	var total, done int64
	for _, e := range extents {
		total += e.Length
	}
	for job := range order {
		if err := <-job.ready; err != nil {
			return nil, err
		}
		if err := s.grain(job.number, job.out); err != nil {
			return nil, err
		}
		for _, p := range job.parts {
			done += p.Length
		}
		if opt.Progress != nil {
			opt.Progress(done, total)
		}
		free <- job
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.end()
}

// normalize returns the extents sorted and merged, or an error if one is not on the disk.
func normalize(extents []Extent, size int64) ([]Extent, error) {
	sorted := slices.Clone(extents)
	slices.SortFunc(sorted, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var out []Extent
	for _, e := range sorted {
		if e.Offset < 0 || e.Length < 0 || e.Length > size-e.Offset {
			return nil, fmt.Errorf("extent of %d bytes at %d: not within the disk's %d bytes", e.Length, e.Offset, size)
		}
		if e.Length == 0 {
			continue
		}
		if n := len(out); n > 0 && e.Offset <= out[n-1].Offset+out[n-1].Length {
			out[n-1].Length = max(out[n-1].Length, e.Offset+e.Length-out[n-1].Offset)
			continue
		}
		out = append(out, e)
	}
	return out, nil
}

// grainsOf yields the number of every grain that extents touch, with the parts that lie in it.
func grainsOf(extents []Extent) func(yield func(int64, []Extent) bool) {
	return func(yield func(int64, []Extent) bool) {
		number := int64(-1)
		var parts []Extent
		for _, e := range extents {
			for e.Length > 0 {
				n := e.Offset / GrainSize
				if n != number && number >= 0 {
					if !yield(number, parts) {
						return
					}
					parts = nil
				}
				number = n
				length := min(e.Length, (n+1)*GrainSize-e.Offset)
				parts = append(parts, Extent{e.Offset, length})
				e.Offset += length
				e.Length -= length
			}
		}
		if number >= 0 {
			yield(number, parts)
		}
	}
}

// A slot is a grain on its way.
type slot struct {
	number int64
	parts  []Extent
	out    []byte // marker and compressed data; empty: the grain is zero
	ready  chan error
}

var zeros [GrainSize]byte

func (j *slot) compress(r io.ReaderAt, z *deflater) error {
	j.out = j.out[:0]
	base := j.number * GrainSize
	in := z.in[:GrainSize]
	if len(j.parts) != 1 || j.parts[0].Length != GrainSize {
		clear(in)
	}
	for _, p := range j.parts {
		// ReadAt may return io.EOF together with all bytes.
		if n, err := r.ReadAt(in[p.Offset-base:][:p.Length], p.Offset); int64(n) < p.Length {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read disk at %d: %w", p.Offset+int64(n), err)
		}
	}
	if bytes.Equal(in, zeros[:]) {
		return nil
	}
	j.out = z.compress(append(j.out, zeros[:markerHeader]...), GrainSize)
	binary.LittleEndian.PutUint64(j.out, uint64(j.number)*grainSectors)
	binary.LittleEndian.PutUint32(j.out[8:], uint32(len(j.out)-markerHeader))
	return nil
}

// stream lays out grains and tables.
type stream struct {
	w         *bufio.Writer
	sum       hash.Hash
	head      header
	id        [16]byte
	sector    uint64   // of the file, where the next byte goes
	table     []uint32 // of the group of grains in hand
	group     int64    // which table that is
	used      bool     // the table holds something
	directory []uint32
	populated int64
}

func newStream(w io.Writer, capacity int64, id [16]byte) *stream {
	s := &stream{sum: sha256.New(), head: streamHeader(capacity), id: id, table: make([]uint32, tableEntries)}
	s.w = bufio.NewWriterSize(io.MultiWriter(s.sum, w), 1<<20)
	s.directory = make([]uint32, s.head.tables())
	return s
}

// write appends b padded to whole sectors.
func (s *stream) write(b []byte) error {
	n := (len(b) + sectorSize - 1) / sectorSize
	if s.sector+uint64(n) > maxSector {
		return fmt.Errorf("the file would exceed 2 TiB, which the format cannot address")
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	_, err := s.w.Write(zeros[:n*sectorSize-len(b)])
	s.sector += uint64(n)
	return err
}

func (s *stream) begin() error {
	b := make([]byte, s.head.Overhead*sectorSize)
	copy(b, s.head.bytes())
	copy(b[sectorSize:], diskDescriptor(int64(s.head.Capacity)*sectorSize, s.id))
	return s.write(b)
}

// grain appends a grain with its marker; numbers ascend. Nothing is stored for an empty one.
func (s *stream) grain(number int64, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if group := number / tableEntries; group != s.group {
		if err := s.flushTable(); err != nil {
			return err
		}
		s.group = group
	}
	s.table[number%tableEntries] = uint32(s.sector)
	s.used = true
	s.populated += GrainSize
	return s.write(data)
}

func (s *stream) flushTable() error {
	if !s.used {
		return nil
	}
	if err := s.write(marker(markerTable, tableSectors)); err != nil {
		return err
	}
	s.directory[s.group] = uint32(s.sector)
	err := s.write(words(s.table))
	clear(s.table)
	s.used = false
	return err
}

func (s *stream) end() (*VMDK, error) {
	if err := s.flushTable(); err != nil {
		return nil, err
	}
	dir := words(s.directory)
	if err := s.write(marker(markerDirectory, uint64(len(dir)+sectorSize-1)/sectorSize)); err != nil {
		return nil, err
	}
	footer := s.head
	footer.DirectoryOffset = s.sector
	for _, b := range [][]byte{dir, marker(markerFooter, 1), footer.bytes(), marker(markerEOS, 0)} {
		if err := s.write(b); err != nil {
			return nil, err
		}
	}
	if err := s.w.Flush(); err != nil {
		return nil, err
	}
	v := &VMDK{
		Size:     int64(s.sector) * sectorSize,
		Capacity: int64(s.head.Capacity) * sectorSize, Populated: s.populated,
	}
	s.sum.Sum(v.SHA256[:0])
	return v, nil
}

func words(v []uint32) []byte {
	b := make([]byte, 0, len(v)*4)
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}
