package ovf

import (
	"bufio"
	"fmt"
	"io"
	"slices"
)

// ReadStream reads a VMDK with compressed grains strictly forward, so r may be a pipe, by the rules
// of VirtualBox's import of an OVA (vmdkStreamReadSequential): grains ascend, only known markers
// stand between them, a lone zero sector is skipped. A file whose tables stand at its end must have
// that end. For each grain it calls grain with its place in the file, its place on the disk (both in
// bytes), and its content, which is valid during the call; an error that grain returns ends the
// reading. The result has no digest: hash r on the way.
func ReadStream(r io.Reader, grain func(at, offset int64, data []byte) error) (*VMDK, error) {
	v, err := readStream(r, grain)
	if err != nil {
		return nil, fmt.Errorf("read VMDK stream: %w", err)
	}
	return v, nil
}

func readStream(r io.Reader, grain func(at, offset int64, data []byte) error) (*VMDK, error) {
	in := &forward{r: bufio.NewReaderSize(r, 256<<10)}
	first := make([]byte, sectorSize)
	if err := in.fill(first); err != nil {
		return nil, err
	}
	h, err := parseHeader(first)
	if err != nil {
		return nil, err
	}
	switch {
	case h.Flags&flagCompressed == 0:
		return nil, fmt.Errorf("not stream-optimized: flags %#x", h.Flags)
	case h.Version == 2:
		return nil, fmt.Errorf("version 2 of sparse extents: only 1 and 3 are imported")
	case h.Flags&flagNewline == 0:
		return nil, fmt.Errorf("no newline test in the header")
	case h.DescriptorOffset == 0 || h.DescriptorSize == 0:
		return nil, fmt.Errorf("no descriptor in the file")
	case h.Overhead == 0 || h.Overhead > maxSector:
		return nil, fmt.Errorf("overhead of %d sectors", h.Overhead)
	}
	if err := in.skip(int64(h.Overhead-1) * sectorSize); err != nil {
		return nil, err
	}
	v := &VMDK{Capacity: int64(h.Capacity) * sectorSize}
	size := int64(h.Grain) * sectorSize
	var next uint64 // the lowest sector of the disk that may come
	z := new(inflater)
	sector := make([]byte, sectorSize)
	ended := h.DirectoryOffset != gdAtEnd // the last sector was an end-of-stream marker
	for {
		at := in.at
		if _, err := in.r.Peek(1); err == io.EOF && ended {
			v.Size = in.at
			return v, nil
		}
		if err := in.fill(sector); err != nil {
			return nil, err
		}
		m := parseMarker(sector)
		if m.size == 0 {
			if err := in.metadata(h, m, at); err != nil {
				return nil, err
			}
			ended = m.kind == markerEOS || h.DirectoryOffset != gdAtEnd
			continue
		}
		switch {
		case m.value%h.Grain != 0 || m.value >= h.Capacity:
			return nil, fmt.Errorf("byte %d: grain of disk sector %d: not on the disk, or within a grain", at, m.value)
		case m.value < next:
			return nil, fmt.Errorf("byte %d: grain of disk sector %d comes after a later one", at, m.value)
		case int64(m.size) > maxDeflated(size):
			return nil, fmt.Errorf("byte %d: grain of %d compressed bytes", at, m.size)
		}
		next = m.value + h.Grain
		z.in = append(slices.Grow(z.in[:0], int(m.size)), sector[markerHeader:min(sectorSize, markerHeader+int(m.size))]...)
		have := len(z.in)
		z.in = z.in[:m.size]
		if err := in.fill(z.in[have:]); err != nil {
			return nil, err
		}
		if err := in.skip(-in.at & (sectorSize - 1)); err != nil {
			return nil, err
		}
		offset := int64(m.value) * sectorSize
		data, err := z.inflate(size, min(size, v.Capacity-offset))
		if err != nil {
			return nil, fmt.Errorf("byte %d: grain of disk sector %d: %w", at, m.value, err)
		}
		v.Populated += size
		if err := grain(at, offset, data[:min(size, v.Capacity-offset)]); err != nil {
			return nil, err
		}
	}
}

// metadata skips what a marker announces. The lengths follow from the header, not from the marker,
// which VirtualBox does not believe either.
func (in *forward) metadata(h *header, m mark, at int64) error {
	round := func(n uint64) int64 { return int64((n + sectorSize - 1) &^ (sectorSize - 1)) }
	switch m.kind {
	case markerEOS, markerProgress:
		return nil
	case markerTable:
		return in.skip(round(uint64(h.TableEntries) * 4))
	case markerDirectory:
		return in.skip(round(h.tables() * 4))
	case markerFooter:
		b := make([]byte, sectorSize)
		if err := in.fill(b); err != nil {
			return err
		}
		_, err := parseHeader(b)
		return err
	}
	return fmt.Errorf("byte %d: marker of type %d is not known", at, m.kind)
}

// forward is a reader that knows how far it is.
type forward struct {
	r  *bufio.Reader
	at int64
}

func (in *forward) fill(b []byte) error {
	n, err := io.ReadFull(in.r, b)
	in.at += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("byte %d: the stream ends: %w", in.at, io.ErrUnexpectedEOF)
	}
	return err
}

func (in *forward) skip(n int64) error {
	k, err := io.CopyN(io.Discard, in.r, n)
	in.at += k
	if err == io.EOF {
		return fmt.Errorf("byte %d: the stream ends: %w", in.at, io.ErrUnexpectedEOF)
	}
	return err
}
