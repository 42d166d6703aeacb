package image

import (
	"crypto/sha256"
	"errors"
	"io"
	"sort"

	"github.com/goldenisc/packer-plugin-isc/internal/tempfile"
)

// A spool is the temporary file in which a Tree keeps content. It is only ever appended to.
type spool struct {
	f   *tempfile.File
	off int64
	buf []byte
	err error // of writing
}

func newSpool(dir string) (*spool, error) {
	f, err := tempfile.New(dir)
	if err != nil {
		return nil, err
	}
	return &spool{f: f}, nil
}

func (s *spool) Close() error { return s.f.Close() }

func (s *spool) open(n *node) (io.ReaderAt, io.Closer, error) {
	return offsetReader{s.f, n.at}, nopCloser{}, nil
}

// block is the unit in which holes are found: the page and block size of nearly everything.
const block = 4096

var zeros [block]byte

// ErrTooLarge is returned where content is larger than the limit it was given.
var ErrTooLarge = errors.New("content exceeds the limit")

// store appends the content of r to the spool, all-zero blocks left out, and returns where its
// data starts, the extents if it has holes, its size and its digest.
func (s *spool) store(r io.Reader, limit int64) (at int64, ext []Extent, size int64, sum [sha256.Size]byte, err error) {
	if s.buf == nil {
		s.buf = make([]byte, 256*block)
	}
	at = s.off
	h := sha256.New()
	var x extents
	keep := func(data []byte) error {
		_, err := s.f.WriteAt(data, s.off)
		s.off += int64(len(data))
		if err != nil {
			s.err = err
		}
		return err
	}
	for end := false; !end; {
		n, err := fill(r, s.buf)
		if end = err == io.EOF; err != nil && !end {
			return 0, nil, 0, sum, err
		}
		if limit-x.size < int64(n) {
			return 0, nil, 0, sum, ErrTooLarge
		}
		h.Write(s.buf[:n])
		if err := x.scan(s.buf[:n], keep); err != nil {
			return 0, nil, 0, sum, err
		}
	}
	h.Sum(sum[:0])
	return at, x.list(), x.size, sum, nil
}

// fill reads until buf is full. Unlike [io.ReadFull] it returns the reader's own error, so that a
// clean end and a truncated stream stay apart.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

type offsetReader struct {
	r   io.ReaderAt
	off int64
}

func (o offsetReader) ReadAt(p []byte, off int64) (int, error) { return o.r.ReadAt(p, o.off+off) }

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// dense is a File whose holes are not left out where it is stored. Reads end at its size.
type dense struct {
	io.ReaderAt
	io.Closer
	size int64
	ext  []Extent // nil if it has no holes
}

func (d *dense) Size() int64 { return d.size }

func (d *dense) Extents() []Extent {
	if d.ext != nil || d.size == 0 {
		return d.ext
	}
	return []Extent{{0, d.size}}
}

func (d *dense) ReadAt(p []byte, off int64) (int, error) {
	if off >= d.size {
		return 0, io.EOF
	}
	if int64(len(p)) <= d.size-off {
		return d.ReaderAt.ReadAt(p, off)
	}
	n, err := d.ReaderAt.ReadAt(p[:d.size-off], off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// sparse is a File whose data stands packed in r.
type sparse struct {
	r io.ReaderAt
	io.Closer
	size int64
	ext  []Extent
	at   []int64 // of each extent in r
}

func newSparse(r io.ReaderAt, c io.Closer, size int64, ext []Extent) *sparse {
	s := &sparse{r: r, Closer: c, size: size, ext: ext, at: make([]int64, len(ext))}
	var at int64
	for i, x := range ext {
		s.at[i] = at
		at += x.Len
	}
	return s
}

func (s *sparse) Size() int64       { return s.size }
func (s *sparse) Extents() []Extent { return s.ext }

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	end := error(nil)
	if int64(len(p)) > s.size-off {
		p, end = p[:s.size-off], io.EOF
	}
	done := 0
	i := sort.Search(len(s.ext), func(i int) bool { return s.ext[i].Off+s.ext[i].Len > off })
	for done < len(p) {
		pos := off + int64(done)
		if i == len(s.ext) || pos < s.ext[i].Off {
			stop := len(p)
			if i < len(s.ext) {
				stop = min(stop, done+int(s.ext[i].Off-pos))
			}
			clear(p[done:stop])
			done = stop
			continue
		}
		x := s.ext[i]
		n := min(len(p)-done, int(x.Off+x.Len-pos))
		if m, err := s.r.ReadAt(p[done:done+n], s.at[i]+pos-x.Off); m < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return done + m, err
		}
		done += n
		i++
	}
	return done, end
}
