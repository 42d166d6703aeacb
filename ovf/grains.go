package ovf

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
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

// check tells what is wrong with a source.
func (src *Source) check() error {
	if src.Size <= 0 || src.Size > MaxCapacity {
		return fmt.Errorf("disk of %d bytes: not between 1 and %d", src.Size, int64(MaxCapacity))
	}
	return nil
}

// capacity returns the size of the source in whole grains, in bytes.
func (src *Source) capacity() int64 { return (src.Size + GrainSize - 1) / GrainSize * GrainSize }

// stored returns the extents in order, and the bytes that are in them.
func (src *Source) stored() ([]Extent, int64, error) {
	if src.Extents == nil {
		return []Extent{{0, src.Size}}, src.Size, nil
	}
	extents, err := normalize(src.Extents, src.Size)
	total := int64(0)
	for _, e := range extents {
		total += e.Length
	}
	return extents, total, err
}

// A packer appends a grain, which is in z.in, to dst in the form that a file has it.
type packer func(z *deflater, number int64, dst []byte) []byte

// grains packs all grains of the source that are not zero, several at once, and hands them to emit
// in order. emit must not keep the bytes.
func (src *Source) grains(ctx context.Context, opt WriteOptions, window int, pack packer, emit func(number int64, data []byte) error) error {
	level, ok := efforts[opt.Level]
	if !ok {
		return fmt.Errorf("level %d is not known", opt.Level)
	}
	extents, total, err := src.stored()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	workers := opt.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	// A slot travels: free, filled with a grain's number, packed by a worker, written in order.
	free := make(chan *slot, 4*workers)
	jobs := make(chan *slot, cap(free))
	order := make(chan *slot, cap(free))
	for range cap(free) {
		free <- &slot{ready: make(chan error, 1)}
	}
	for range workers {
		running.Go(func() {
			z := newDeflater(level, window)
			for job := range jobs {
				job.ready <- job.compress(src.Content, z, pack)
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

	var done int64
	for job := range order {
		if err := <-job.ready; err != nil {
			return err
		}
		if len(job.out) > 0 {
			if err := emit(job.number, job.out); err != nil {
				return err
			}
		}
		for _, p := range job.parts {
			done += p.Length
		}
		if opt.Progress != nil {
			opt.Progress(done, total)
		}
		free <- job
	}
	return ctx.Err()
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
	out    []byte // packed; empty: the grain is zero
	ready  chan error
}

var zeros [GrainSize]byte

// compress reads the grain and packs it.
func (j *slot) compress(r io.ReaderAt, z *deflater, pack packer) error {
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
	j.out = pack(z, j.number, j.out)
	return nil
}
