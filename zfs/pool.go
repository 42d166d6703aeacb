package zfs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// PoolOptions say what a pool is like.
type PoolOptions struct {
	Name string // of the pool
	Size int64  // of its vdev, in bytes: a disk, a partition or a file
	// Ashift is the logarithm of the smallest block of the vdev in bytes, 9 to 13; 0 means 12.
	Ashift int
	// File says that the vdev is a file on the host that imports the pool; else it is a disk or a
	// partition. A host finds neither if it is told the wrong one.
	File bool
	// Path is the vdev's on the host. Hosts look elsewhere as well, and correct it.
	Path string
	// Boot is the name of the dataset that boot loaders start from, the pool's property bootfs.
	Boot string
	// Created is when the pool was, to the second; the zero time is 1970.
	Created time.Time
}

// A Dataset is a file system in a pool.
type Dataset struct {
	// Name is its name below that of the pool, "ROOT/golden"; "" is the pool's own. Those above
	// that are not told are made, empty and without properties.
	Name string
	// Properties are those that zfs set(8) sets, of which [NewPool] takes the usual ones, and user
	// properties, which have a ':' in their name.
	Properties map[string]string
	// Content is what is in it. The dataset has a snapshot of the stream's name and guid, which takes
	// the increments that the one in a received stream takes. Nil is an empty file system.
	Content *Stream
}

// A Pool is a whole ZFS pool with one vdev, as a disk image has it: a value that can be read, of
// which only the map is in memory. It is exported; a host can import it and write to it. Feature
// flags are not enabled, except lz4_compress if a stream or a property asks for it: zpool
// upgrade(8) does that.
//
// It can be read by several at once, but one after the other is faster. Contents are opened when
// they are read, and closed by Close at the latest.
type Pool struct {
	opt        PoolOptions
	lz4        bool
	datasets   []*poolDataset
	own        *poolSet
	guid       uint64
	vdevGUID   uint64
	asize      uint64 // what labels say is usable
	slabShift  int    // of a metaslab
	slabs      int
	ends       []uint64 // of what is taken in each metaslab
	labels     [4][]byte
	labelAt    [4]uint64
	sets       []*poolSet // by place
	mu         sync.Mutex
	reading    reading
	block, buf []byte // the one generated last, and what it is in
	blockAt    uint64

	metaslabArray uint64 // object number
}

// A poolDataset is a dataset with its place in the pool.
type poolDataset struct {
	name     string
	parent   int // index; those above stand before
	props    []zapEntry
	stream   *Stream
	snapshot string
	set      *poolSet
}

const (
	minPool      = 64 << 20 // SPA_MINDEVSIZE
	maxPool      = 1 << 45  // what a block can describe of a metaslab, with the smallest ashift
	minSlabShift = 24       // no block is larger
	maxSlabs     = 200
	maxPoolName  = 255
)

// NewPool makes a pool of datasets, reading every content once. Everything in the options and
// datasets that is wrong is reported at once, and what does not fit before anything is read. A pool
// can be filled to the last block, but then a host cannot write to it: it keeps a 32nd, at least
// 128 MiB, to itself.
func NewPool(ctx context.Context, datasets []Dataset, o PoolOptions) (*Pool, error) {
	if o.Ashift == 0 {
		o.Ashift = 12
	}
	if o.Created.IsZero() {
		o.Created = time.Unix(0, 0)
	}
	if o.Path == "" {
		o.Path = "/dev/disk"
	}
	p := &Pool{opt: o, buf: make([]byte, recordSize)}
	if err := errors.Join(o.check(), p.arrange(datasets)); err != nil {
		return nil, err
	}
	p.guid, p.vdevGUID = p.derive("pool"), p.derive("vdev")
	p.asize = uint64(o.Size)/labelSize*labelSize - dataStart - labelsBehind
	for p.slabShift = minSlabShift; p.asize>>p.slabShift > maxSlabs; p.slabShift++ {
	}
	p.slabs = int(p.asize >> p.slabShift)
	if err := p.room(); err != nil {
		return nil, err
	}
	a := &allocator{ashift: o.Ashift, shift: p.slabShift, limit: uint64(p.slabs) << p.slabShift}
	for _, ds := range p.datasets {
		var err error
		if ds.set, err = newPoolSet(ctx, a, newStreamSource(ds.stream), objsetZFS, ds.stream.opt.LZ4); err != nil {
			return nil, fmt.Errorf("dataset %q: %w", ds.name, err)
		}
		p.sets = append(p.sets, ds.set)
	}
	if err := p.finish(ctx, a); err != nil {
		return nil, fmt.Errorf("pool %q: %w", o.Name, err)
	}
	return p, nil
}

// check reports what is wrong with the options.
func (o *PoolOptions) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pool: "+format, args...)) }
	if err := checkPoolName(o.Name); err != nil {
		fail("name %q: %w", o.Name, err)
	}
	if o.Size < minPool || o.Size > maxPool {
		fail("size %d: not from %d to %d bytes", o.Size, int64(minPool), int64(maxPool))
	}
	if o.Ashift < 9 || o.Ashift > 13 {
		fail("ashift %d: not from 9 to 13", o.Ashift)
	}
	if !strings.HasPrefix(o.Path, "/") || strings.IndexByte(o.Path, 0) >= 0 || len(o.Path) > maxTarget {
		fail("path %q: not absolute, or longer than %d bytes", o.Path, maxTarget)
	}
	if o.Created.Unix() < 0 {
		fail("creation time %v: before 1970", o.Created)
	}
	return errors.Join(errs...)
}

// checkPoolName holds a name to the rules of pool_namecheck.
func checkPoolName(name string) error {
	if name == "" || name[0]|0x20 < 'a' || name[0]|0x20 > 'z' {
		return errors.New("does not begin with a letter")
	}
	if err := checkComponent(name); err != nil {
		return err
	}
	for _, word := range []string{"mirror", "raidz", "draid", "spare", "log", "cache", "special", "dedup"} {
		if strings.HasPrefix(name, word) && (name == word || word == "mirror" || word == "raidz" || word == "draid" || word == "spare") {
			return errors.New("a word for a kind of vdev")
		}
	}
	return nil
}

// checkComponent holds a part of a dataset's name to the rules of zfs_component_namecheck.
func checkComponent(s string) error {
	if s == "" || s == "." || s == ".." {
		return fmt.Errorf("part %q", s)
	}
	for _, c := range []byte(s) {
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-_.: ", c) >= 0) {
			return fmt.Errorf("part %q has the character %q", s, c)
		}
	}
	return nil
}

// arrange sorts the datasets, adds those above them and reports what is wrong with any.
func (p *Pool) arrange(datasets []Dataset) error {
	var errs []error
	by := map[string]*Dataset{"": nil}
	for i := range datasets {
		ds := &datasets[i]
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("dataset %q: %w", ds.Name, fmt.Errorf(format, args...)))
		}
		if by[ds.Name] != nil {
			fail("more than once")
		}
		by[ds.Name] = ds
		if len(p.opt.Name)+1+len(ds.Name) > maxPoolName {
			fail("its name in the pool is longer than %d bytes", maxPoolName)
		}
		for name := ds.Name; name != ""; {
			if err := checkComponent(base(name)); err != nil {
				fail("%w", err)
			}
			name = name[:max(0, strings.LastIndexByte(name, '/'))]
			if _, ok := by[name]; !ok {
				by[name] = nil
			}
		}
	}
	names := make([]string, 0, len(by))
	for name := range by {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return comparePaths(rooted(a), rooted(b)) })
	if _, ok := by[p.opt.Boot]; !ok {
		errs = append(errs, fmt.Errorf("pool: there is no dataset %q to boot from", p.opt.Boot))
	}
	index := map[string]int{}
	for i, name := range names {
		ds := by[name]
		if ds == nil {
			ds = &Dataset{}
		}
		d := &poolDataset{name: name, stream: ds.Content, parent: index[name[:max(0, strings.LastIndexByte(name, '/'))]]}
		index[name] = i
		p.datasets = append(p.datasets, d)
		var err error
		if d.props, err = properties(ds.Properties); err != nil {
			errs = append(errs, fmt.Errorf("dataset %q: %w", name, err))
		}
		p.lz4 = p.lz4 || ds.Properties["compression"] == "lz4"
		if d.stream == nil {
			if d.stream, err = emptyStream(p.opt.Created); err != nil {
				return err
			}
			continue
		}
		_, d.snapshot, _ = strings.Cut(d.stream.opt.Name, "@")
		if err := checkComponent(d.snapshot); err != nil {
			errs = append(errs, fmt.Errorf("dataset %q: snapshot: %w", name, err))
		}
		p.lz4 = p.lz4 || d.stream.opt.LZ4
	}
	return errors.Join(errs...)
}

// rooted returns the name of a dataset as a path.
func rooted(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// emptyStream returns a file system without files.
func emptyStream(created time.Time) (*Stream, error) {
	return NewStream(func(yield func(*Object, error) bool) {
		yield(&Object{Path: ".", Mode: fs.ModeDir | 0o755, ModTime: created}, nil)
	}, Options{Created: created})
}

// derive returns a number that is of this pool and no other, and not 0.
func (p *Pool) derive(what string) uint64 {
	h := sha256.New()
	fmt.Fprintf(h, "zfs pool 1 %q %d %d %t %q %q %d", p.opt.Name, p.opt.Size, p.opt.Ashift, p.opt.File, p.opt.Path, p.opt.Boot, p.opt.Created.Unix())
	for _, ds := range p.datasets {
		fmt.Fprintf(h, " %q %x", ds.name, ds.stream.guid)
		for _, e := range ds.props {
			fmt.Fprintf(h, " %q %d %q", e.name, e.value, e.text)
		}
	}
	fmt.Fprintf(h, " %q", what)
	// Not the first bits: the guid of a dataset is that of one pool among those with its number 0.
	return binary.LittleEndian.Uint64(h.Sum(nil)) | 1<<32
}

// room reports contents that cannot fit, before any is read. Where their sizes say so, it looks for
// holes.
func (p *Pool) room() error {
	have := int64(p.slabs) << p.slabShift
	unit := 1 << p.opt.Ashift
	for _, exact := range []bool{false, true} {
		need := int64(0)
		for _, ds := range p.datasets {
			if ds.stream.opt.LZ4 {
				continue // what is saved is known when they are read
			}
			for _, n := range ds.stream.nodes {
				size, open := ds.stream.content(n)
				need += dnodeSize
				if size > 0 && exact {
					var err error
					if size, err = dataSize(size, open); err != nil {
						return fmt.Errorf("dataset %q: object %q: %w", ds.name, n.Path, err)
					}
				}
				need += min(int64(roundUp(int(min(size, recordSize)), unit)), size+int64(unit)) + max(0, size-recordSize)
			}
		}
		if need <= have {
			return nil
		}
		if exact {
			return fmt.Errorf("pool %q: the contents need %d bytes or more, and a vdev of %d has %d", p.opt.Name, need, p.opt.Size, have)
		}
	}
	return nil
}

// dataSize returns how many bytes of a content are in blocks that may be no holes.
func dataSize(size int64, open func() (Content, error)) (int64, error) {
	c, err := open()
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, x := range c.Extents() {
		total += x.Len
	}
	return min(size, total), c.Close()
}

// finish makes the objects of the pool itself and the labels.
func (p *Pool) finish(ctx context.Context, a *allocator) error {
	// The maps of the space tell what these objects take, and these objects hold the maps: first
	// they are made with maps of full metaslabs, whose sizes are the same.
	before, known := *a, 0
	var own sizes
	for {
		*a = before
		a.ends = slices.Clone(before.ends)
		known = max(known, len(a.ends), 1)
		slabs := slices.Repeat([]uint64{1 << p.slabShift}, known)
		m, err := p.meta(slabs, own)
		if err != nil {
			return err
		}
		set, err := newPoolSet(ctx, a, m, objsetMeta, false)
		if err != nil {
			return err
		}
		own = set.sizes
		if len(a.ends) == known {
			break
		}
		known = len(a.ends)
	}
	p.ends = a.ends
	*a = before
	a.ends = slices.Clone(before.ends)
	m, err := p.meta(p.ends, own)
	if err != nil {
		return err
	}
	if p.own, err = newPoolSet(ctx, a, m, objsetMeta, false); err != nil {
		return err
	}
	if p.own.sizes != own || !slices.Equal(a.ends, p.ends) {
		return errors.New("its own objects do not have their sizes") // a fault of this package
	}
	p.sets = append(p.sets, p.own)
	end := uint64(p.opt.Size) / labelSize * labelSize
	p.labelAt = [4]uint64{0, labelSize, end - 2*labelSize, end - labelSize}
	for i, at := range p.labelAt {
		if p.labels[i], err = p.label(at); err != nil {
			return err
		}
	}
	return nil
}

// Size returns the size of the vdev in bytes.
func (p *Pool) Size() int64 { return p.opt.Size }

// GUID returns the pool's guid, which derives from the options and all that is in the pool.
func (p *Pool) GUID() uint64 { return p.guid }

// Used returns how many bytes of the vdev hold data.
func (p *Pool) Used() int64 {
	n := int64(0)
	for _, x := range p.Extents() {
		n += x.Len
	}
	return n
}

// Extents returns the ranges of the vdev that hold data, ascending and disjoint; all else is zeros.
func (p *Pool) Extents() []Extent {
	x := []Extent{{0, 2 * labelSize}}
	for i, end := range p.ends {
		off := dataStart + int64(i)<<p.slabShift
		if last := &x[len(x)-1]; last.Off+last.Len == off {
			last.Len += int64(end)
		} else if end > 0 {
			x = append(x, Extent{off, int64(end)})
		}
	}
	return append(x, Extent{int64(p.labelAt[2]), labelsBehind})
}

// ReadAt reads from the vdev.
func (p *Pool) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read before the beginning")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	done := 0
	for done < len(b) && off < p.opt.Size {
		n, err := p.read(b[done:min(int64(len(b)), int64(done)+p.opt.Size-off)], off)
		done, off = done+n, off+int64(n)
		if err != nil {
			return done, fmt.Errorf("pool %q: byte %d: %w", p.opt.Name, off, err)
		}
	}
	if done < len(b) {
		return done, io.EOF
	}
	return done, nil
}

// read reads at least one byte.
func (p *Pool) read(b []byte, off int64) (int, error) {
	for i, at := range p.labelAt {
		if int64(at) <= off && off < int64(at)+labelSize {
			return copy(b, p.labels[i][off-int64(at):]), nil
		}
	}
	at := uint64(off) - dataStart
	slab := at >> p.slabShift
	if off < dataStart || slab >= uint64(len(p.ends)) {
		// Zeros up to what comes next.
		next := int64(p.labelAt[2])
		if off < dataStart {
			next = dataStart
		}
		if off >= next {
			next = p.opt.Size
		}
		n := min(int64(len(b)), next-off)
		clear(b[:n])
		return int(n), nil
	}
	if in := at - slab<<p.slabShift; in >= p.ends[slab] {
		n := min(uint64(len(b)), 1<<p.slabShift-in)
		clear(b[:n])
		return int(n), nil
	}
	if p.block == nil || at < p.blockAt || at >= p.blockAt+uint64(len(p.block)) {
		buf := p.buf
		if len(b) >= len(buf) {
			buf = b // any block has room where it is wanted
		}
		i := sort.Search(len(p.sets), func(i int) bool { return p.sets[i].end > at })
		from, block, err := p.sets[i].generate(&p.reading, at, buf)
		p.block, p.blockAt = block, from
		switch unit := uint64(1) << p.opt.Ashift; {
		case err != nil:
			p.block = nil
			return 0, err
		case block == nil: // between the end of a block and that of its unit, or of the metaslab
			n := min(uint64(len(b)), unit-at%unit)
			clear(b[:n])
			return int(n), nil
		case &block[0] == &b[0]:
			p.block = nil // it is the caller's
			return copy(b, block[at-from:]), nil
		}
	}
	return copy(b, p.block[at-p.blockAt:]), nil
}

// Write writes what is not zeros to w, which must be all zeros.
func (p *Pool) Write(ctx context.Context, w io.WriterAt) error {
	buf := make([]byte, writeBuffer)
	for _, x := range p.Extents() {
		for off := x.Off; off < x.Off+x.Len; {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := buf[:min(int64(len(buf)), x.Off+x.Len-off)]
			if _, err := p.ReadAt(b, off); err != nil {
				return err
			}
			if _, err := w.WriteAt(b, off); err != nil {
				return err
			}
			off += int64(len(b))
		}
	}
	return nil
}

// Close closes what is open. The pool can be read again.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.block = nil
	return p.reading.close()
}
