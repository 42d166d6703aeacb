package ovf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// Sizes of the format, in bytes unless said (Virtual Disk Format 5.0, "Hosted Sparse Extents").
const (
	sectorSize = 512
	// GrainSize is the unit of a disk that is stored, compressed by itself, or left out, in bytes.
	GrainSize      = 64 << 10
	grainSectors   = GrainSize / sectorSize
	tableEntries   = 512 // grains of one grain table
	tableSectors   = tableEntries * 4 / sectorSize
	descSectors    = 20  // of the embedded descriptor
	overheadSector = 128 // where the grains begin
	markerHeader   = 12  // of a grain: its sector in the disk, its compressed size

	// MaxCapacity is the largest disk, in bytes: sparse extents count sectors of the file in 32 bits,
	// and hosts refuse more.
	MaxCapacity = 2 << 40
	maxSector   = 1<<32 - 1
)

// Values of the sparse extent header.
const (
	vmdkMagic   = 0x564d444b // "KDMV", little endian
	cowdMagic   = 0x44574f43 // "COWD", ESX sparse
	gdAtEnd     = 1<<64 - 1
	deflateAlgo = 1

	flagNewline    = 1 << 0
	flagRedundant  = 1 << 1
	flagCompressed = 1 << 16
	flagMarkers    = 1 << 17
)

// Types of the markers that stand between the grains; any grain's size field is not 0, theirs is.
const (
	markerEOS = iota
	markerTable
	markerDirectory
	markerFooter
	markerProgress // vSphere's
)

// header is the SparseExtentHeader, all positions and lengths in sectors.
type header struct {
	Magic            uint32
	Version          uint32
	Flags            uint32
	Capacity         uint64
	Grain            uint64
	DescriptorOffset uint64
	DescriptorSize   uint64
	TableEntries     uint32
	RedundantOffset  uint64
	DirectoryOffset  uint64
	Overhead         uint64
	Unclean          uint8
	Newline          [4]byte
	Algorithm        uint16
	Pad              [433]byte
}

var newlineTest = [4]byte{'\n', ' ', '\r', '\n'}

// streamHeader returns the header of a stream-optimized extent. Version 3 is what everybody writes
// for compressed extents and what VirtualBox insists on.
func streamHeader(capacity int64) header {
	return header{
		Magic: vmdkMagic, Version: 3, Flags: flagNewline | flagCompressed | flagMarkers,
		Capacity: uint64(capacity / sectorSize), Grain: grainSectors,
		DescriptorOffset: 1, DescriptorSize: descSectors,
		TableEntries: tableEntries, DirectoryOffset: gdAtEnd, Overhead: overheadSector,
		Newline: newlineTest, Algorithm: deflateAlgo,
	}
}

func (h *header) bytes() []byte {
	b, err := binary.Append(make([]byte, 0, sectorSize), binary.LittleEndian, h)
	if err != nil {
		panic(err) // the type has a fixed size
	}
	return b
}

// parseHeader decodes and checks the first sector of an extent or its footer.
func parseHeader(b []byte) (*header, error) {
	if len(b) < sectorSize {
		return nil, fmt.Errorf("%d bytes are too few for a sparse extent", len(b))
	}
	switch binary.LittleEndian.Uint32(b) {
	case vmdkMagic:
	case cowdMagic:
		return nil, fmt.Errorf("ESX sparse extents (COWD) cannot be read")
	default:
		if bytes.HasPrefix(b, []byte("# Disk DescriptorFile")) {
			return nil, fmt.Errorf("a descriptor without the disk: only monolithic files can be read")
		}
		return nil, fmt.Errorf("no VMDK: it begins with % x", b[:4])
	}
	h := new(header)
	if _, err := binary.Decode(b[:sectorSize], binary.LittleEndian, h); err != nil {
		return nil, err
	}
	compressed := h.Flags&flagCompressed != 0
	switch {
	case h.Version < 1 || h.Version > 3:
		return nil, fmt.Errorf("version %d of sparse extents is not known", h.Version)
	case h.Flags&flagNewline != 0 && h.Newline != newlineTest:
		return nil, fmt.Errorf("line ends were converted: newline test is % x", h.Newline)
	case h.Capacity == 0 || h.Capacity > MaxCapacity/sectorSize:
		return nil, fmt.Errorf("capacity of %d sectors: not between 1 and %d", h.Capacity, uint64(MaxCapacity/sectorSize))
	case h.Grain < 8 || h.Grain > 2048 || h.Grain&(h.Grain-1) != 0:
		return nil, fmt.Errorf("grain of %d sectors: no power of two between 8 and 2048", h.Grain)
	case h.TableEntries < 128 || h.TableEntries > 4096 || h.TableEntries&(h.TableEntries-1) != 0:
		return nil, fmt.Errorf("%d entries in a grain table: no power of two between 128 and 4096", h.TableEntries)
	case compressed && h.Algorithm != deflateAlgo:
		return nil, fmt.Errorf("compression algorithm %d is not deflate", h.Algorithm)
	case compressed != (h.Flags&flagMarkers != 0):
		return nil, fmt.Errorf("flags %#x: compressed grains and markers come together", h.Flags)
	case h.DescriptorSize > 2048:
		return nil, fmt.Errorf("descriptor of %d sectors: more than 2048", h.DescriptorSize)
	}
	return h, nil
}

// grains returns the number of grains of the disk.
func (h *header) grains() uint64 { return (h.Capacity + h.Grain - 1) / h.Grain }

// tables returns the number of grain tables, which is that of entries in the directory.
func (h *header) tables() uint64 {
	n := uint64(h.TableEntries)
	return (h.grains() + n - 1) / n
}

// marker returns one sector with a marker that is followed by n sectors of metadata.
func marker(kind uint32, n uint64) []byte {
	b := make([]byte, sectorSize)
	binary.LittleEndian.PutUint64(b, n)
	binary.LittleEndian.PutUint32(b[12:], kind)
	return b
}

// diskDescriptor returns the text that stands in the extent. The extent's name is a constant, so
// that the bytes do not depend on where the file is written.
func diskDescriptor(capacity int64, id [16]byte) []byte {
	cid := binary.BigEndian.Uint32(id[:])
	if cid >= 0xfffffffe { // no parent, and its neighbour, which readers take for "none" too
		cid = 0
	}
	sectors := capacity / sectorSize
	// Geometry of a SCSI disk above 1 GiB; hosts only show it.
	cylinders := max(1, min(sectors/(255*63), 65535))
	return fmt.Appendf(nil, `# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY %d SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "%x"
ddb.virtualHWVersion = "4"
`, cid, sectors, cylinders, id)
}

// descriptorValue returns the value of a key of a disk descriptor, without its quotes.
func descriptorValue(text, key string) string {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, "=")
		if ok && strings.EqualFold(strings.TrimSpace(k), key) {
			v = strings.TrimSpace(v)
			if u, err := strconv.Unquote(v); err == nil {
				return u
			}
			return strings.Trim(v, `"`)
		}
	}
	return ""
}
