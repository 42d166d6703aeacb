package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// digest hashes content that stays in its source, in parallel, and finds its holes.
func (t *Tree) digest(ctx context.Context, nodes []*node, p Progress) error {
	var total, done, next atomic.Int64
	for _, n := range nodes {
		total.Add(n.Size)
	}
	sparse := make([][]Extent, len(nodes))
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf := make([]byte, 256<<10)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(nodes) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				n := nodes[i]
				var err error
				if sparse[i], err = t.digestOne(n, buf); err != nil {
					return fmt.Errorf("entry %q: %w", n.Name, err)
				}
				p.Report("hash", done.Add(n.Size), total.Load())
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, n := range nodes {
		if sparse[i] != nil {
			t.holes[n] = sparse[i]
		}
	}
	t.share()
	return nil
}

// digestOne sets the digest of n and returns its extents if it has holes.
func (t *Tree) digestOne(n *node, buf []byte) (_ []Extent, err error) {
	r, c, err := t.sources[n.src].open(n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	h := sha256.New()
	var ext extents
	for off := int64(0); off < n.Size; {
		b := buf[:min(int64(len(buf)), n.Size-off)]
		if m, err := r.ReadAt(b, off); m < len(b) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		h.Write(b)
		ext.scan(b, func([]byte) error { return nil })
		off += int64(len(b))
	}
	h.Sum(n.Digest[:0])
	return ext.list(), nil
}

// extents finds the holes of a file that is scanned from start to end in pieces, of which all but
// the last are a multiple of a block.
type extents struct {
	size int64
	data []Extent
	hole bool
}

// scan goes on with b and hands what is data to keep.
func (x *extents) scan(b []byte, keep func([]byte) error) error {
	isHole := func(b []byte) bool { return len(b) >= block && bytes.Equal(b[:block], zeros[:]) }
	for len(b) > 0 {
		hole := isHole(b)
		run := min(block, len(b))
		for run < len(b) && isHole(b[run:]) == hole {
			run += min(block, len(b)-run)
		}
		if hole {
			x.hole = true
		} else {
			if err := keep(b[:run]); err != nil {
				return err
			}
			if k := len(x.data) - 1; k >= 0 && x.data[k].Off+x.data[k].Len == x.size {
				x.data[k].Len += int64(run)
			} else {
				x.data = append(x.data, Extent{x.size, int64(run)})
			}
		}
		x.size += int64(run)
		b = b[run:]
	}
	return nil
}

// list returns the extents of a file that has holes, else nil.
func (x *extents) list() []Extent {
	if !x.hole {
		return nil
	}
	if x.data == nil {
		return []Extent{}
	}
	return x.data
}
