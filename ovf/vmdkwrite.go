package ovf

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

// A Level weighs the time of compressing against the size.
type Level int

// The levels.
const (
	Default Level = iota
	Fast
	Small
)

// WriteOptions are the choices of [WriteVMDK] and [WriteQCOW2].
type WriteOptions struct {
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
func WriteVMDK(ctx context.Context, w io.Writer, src Source, opt WriteOptions) (*VMDK, error) {
	v, err := writeVMDK(ctx, w, src, opt)
	if err != nil {
		return nil, fmt.Errorf("write VMDK: %w", err)
	}
	return v, nil
}

func writeVMDK(ctx context.Context, w io.Writer, src Source, opt WriteOptions) (*VMDK, error) {
	if err := src.check(); err != nil {
		return nil, err
	}
	s := newStream(w, src.capacity(), opt.ID)
	if err := s.begin(); err != nil {
		return nil, err
	}
	if err := src.grains(ctx, opt, maxDistance, packGrain, s.grain); err != nil {
		return nil, err
	}
	return s.end()
}

// packGrain is the packer of VMDKs: a marker, and the grain as zlib writes it.
func packGrain(z *deflater, number int64, dst []byte) []byte {
	at := len(dst)
	dst = z.zlib(append(dst, zeros[:markerHeader]...), GrainSize)
	head := dst[at:]
	binary.LittleEndian.PutUint64(head, uint64(number)*grainSectors)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(head)-markerHeader))
	return dst
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
