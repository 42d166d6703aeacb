package disk

import (
	"fmt"
	"io"
	"slices"
	"sort"
)

// A piece is a range of a mosaic that is read elsewhere, from 0 on.
type piece struct {
	offset, length int64
	io.ReaderAt
}

// A mosaic is content put together of pieces, which are ascending and disjoint, with zeros between.
type mosaic struct {
	size   int64
	pieces []piece
}

// add appends a piece. Empty ones are dropped.
func (m *mosaic) add(offset, length int64, r io.ReaderAt) {
	if length > 0 {
		m.pieces = append(m.pieces, piece{offset, length, r})
	}
}

// ReadAt reads the pieces that p covers. It is safe for concurrent use if theirs is.
func (m *mosaic) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	if off >= m.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > m.size-off {
		p, end = p[:m.size-off], io.EOF
	}
	clear(p)
	limit := off + int64(len(p))
	i := sort.Search(len(m.pieces), func(i int) bool { return m.pieces[i].offset+m.pieces[i].length > off })
	for ; i < len(m.pieces) && m.pieces[i].offset < limit; i++ {
		c := &m.pieces[i]
		from, to := max(off, c.offset), min(limit, c.offset+c.length)
		part := p[from-off : to-off]
		if n, err := c.ReadAt(part, from-c.offset); n < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return int(from-off) + n, err
		}
	}
	return len(p), end
}

// nearby is how many zeros are not worth an extent of their own.
const nearby = 64 << 10

// appendExtent appends a range that is not before the last, joined with it if it is near.
func appendExtent(list []Extent, e Extent) []Extent {
	if e.Length <= 0 {
		return list
	}
	if n := len(list); n > 0 {
		if last := &list[n-1]; e.Offset-last.Offset-last.Length < nearby {
			last.Length = max(last.Length, e.Offset+e.Length-last.Offset)
			return list
		}
	}
	return append(list, e)
}

// shift returns the extents moved.
func shift(list []Extent, by int64) []Extent {
	out := slices.Clone(list)
	for i := range out {
		out[i].Offset += by
	}
	return out
}

// A fileReader reads the content of a file, which it opens for each read.
type fileReader struct{ *Object }

func (f fileReader) ReadAt(p []byte, off int64) (_ int, err error) {
	c, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := c.Close(); err == nil {
			err = e
		}
	}()
	n, err := c.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, nil
	case err == nil || err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("%q: %w", f.Path, err)
}

// A window reads a part of another reader.
type window struct {
	io.ReaderAt
	base int64
}

func (w window) ReadAt(p []byte, off int64) (int, error) { return w.ReaderAt.ReadAt(p, w.base+off) }
