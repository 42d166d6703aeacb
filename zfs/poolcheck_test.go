package zfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// A poolReader follows the pointers of a pool from its uberblock down, as a host does.
type poolReader struct {
	t     *testing.T
	r     io.ReaderAt
	taken map[uint64]uint64 // what is allocated: end by beginning
	slabs int
	slot  int // size of an uberblock
}

func newPoolReader(t *testing.T, p *Pool) *poolReader {
	return &poolReader{t: t, r: p, taken: map[uint64]uint64{}, slot: 1 << max(10, p.opt.Ashift)}
}

// block returns what a pointer points to.
func (p *poolReader) block(bp []byte) []byte {
	p.t.Helper()
	le := binary.LittleEndian
	prop := le.Uint64(bp[48:])
	size, disk := int(prop&0xffff+1)*512, int(prop>>16&0xffff+1)*512
	off, alloc := le.Uint64(bp[8:])<<9, le.Uint64(bp)&(1<<24-1)<<9
	if end, ok := p.taken[off]; ok && end != off+alloc {
		p.t.Fatalf("two blocks at %d", off)
	}
	p.taken[off] = off + alloc
	b := make([]byte, disk)
	if _, err := p.r.ReadAt(b, dataStart+int64(off)); err != nil {
		p.t.Fatal(err)
	}
	var sum fletcher4
	sum.add(b)
	if want := sumAt(bp[96:], le); sum != want {
		p.t.Fatalf("block at %d: checksum %x, want %x", off, sum, want)
	}
	if c := prop >> 32 & 0x7f; c != compressOff {
		out := make([]byte, size)
		if err := decompress(uint8(c), out, b); err != nil {
			p.t.Fatal(err)
		}
		b = out
	}
	return b
}

// A poolDnode is an object of a pool, with all its content.
type poolDnode struct {
	kind, bonusType byte
	blockSize       int
	bonus, spill    []byte
	blocks          map[uint64][]byte
	fill            uint64
}

func (p *poolReader) dnode(d []byte) *poolDnode {
	p.t.Helper()
	le := binary.LittleEndian
	o := &poolDnode{kind: d[0], bonusType: d[4], blockSize: int(le.Uint16(d[8:])) * 512, blocks: map[uint64][]byte{}}
	bonus := 64 + 128*int(d[3])
	o.bonus = d[bonus:][:le.Uint16(d[10:])]
	if d[7]&4 != 0 {
		o.spill = p.block(d[384:])
	}
	var walk func(bp []byte, level int, id uint64) uint64
	walk = func(bp []byte, level int, id uint64) uint64 {
		if bytes.Equal(bp[:128], zeroBlock[:128]) {
			return 0
		}
		if got := le.Uint64(bp[48:]) >> 56 & 0x1f; got != uint64(level) {
			p.t.Fatalf("pointer of level %d, want %d", got, level)
		}
		b := p.block(bp)
		fill := uint64(0)
		if level == 0 {
			o.blocks[id] = b
			if d[0] != typeDnode {
				fill = 1
			} else {
				for ; len(b) > 0; b = b[512:] {
					if b[0] != 0 {
						fill++
					}
				}
			}
		} else {
			per := uint64(1) << (d[1] - 7)
			for i := range per {
				fill += walk(b[128*i:], level-1, id*per+i)
			}
		}
		if got := le.Uint64(bp[88:]); got != fill {
			p.t.Fatalf("object of type %d: fill count %d at level %d, want %d", d[0], got, level, fill)
		}
		return fill
	}
	o.fill = walk(d[64:], int(d[2])-1, 0)
	for id := range o.blocks {
		if id > le.Uint64(d[16:]) {
			p.t.Fatalf("block %d is behind the last", id)
		}
	}
	return o
}

// objset returns all objects of a set by number.
func (p *poolReader) objset(bp []byte) map[uint64]*poolDnode {
	p.t.Helper()
	b := p.block(bp)
	m := map[uint64]*poolDnode{}
	meta := p.dnode(b[:512])
	for id, b := range meta.blocks {
		for i := range uint64(32) {
			if d := b[512*i:][:512]; d[0] != 0 {
				m[id*32+i] = p.dnode(d)
			}
		}
	}
	if got := binary.LittleEndian.Uint64(bp[88:]); got != uint64(len(m)) {
		p.t.Fatalf("object set with a fill count of %d, want %d", got, len(m))
	}
	return m
}

// datasets reads a pool and returns the objects of each dataset whose guid it meets.
func (p *poolReader) datasets() map[uint64]map[uint64]*poolDnode {
	p.t.Helper()
	le := binary.LittleEndian
	label := make([]byte, labelSize)
	if _, err := p.r.ReadAt(label, 0); err != nil {
		p.t.Fatal(err)
	}
	for _, region := range [][2]int{{8 << 10, 16 << 10}, {16 << 10, 128 << 10}, {128 << 10, 128<<10 + p.slot}} {
		b := bytes.Clone(label[region[0]:region[1]])
		sum := bytes.Clone(b[len(b)-32:])
		clear(b[len(b)-32:])
		le.PutUint64(b[len(b)-32:], uint64(region[0]))
		want := sha256.Sum256(b)
		for i := range 4 {
			if le.Uint64(sum[8*i:]) != binary.BigEndian.Uint64(want[8*i:]) {
				p.t.Fatalf("checksum of the label's bytes from %d on", region[0])
			}
		}
	}
	mos := p.objset(label[128<<10+40:])
	m := map[uint64]map[uint64]*poolDnode{}
	for _, d := range mos {
		if d.kind == typeDataset && !bytes.Equal(d.bonus[128:256], zeroBlock[:128]) {
			m[le.Uint64(d.bonus[14*8:])] = p.objset(d.bonus[128:])
		}
	}
	// What the space maps say must be what was met.
	total := uint64(0)
	for _, d := range mos {
		if d.kind == typeSpaceMap {
			p.slabs++
			total += le.Uint64(d.bonus[16:])
		}
	}
	used, last := uint64(0), uint64(0)
	for _, from := range slices.Sorted(maps.Keys(p.taken)) {
		if from < last {
			p.t.Errorf("two blocks at %d", from)
		}
		last = p.taken[from]
		used += last - from
	}
	if used > total || total-used > uint64(p.slabs)*recordSize {
		p.t.Errorf("blocks take %d bytes, space maps say %d", used, total)
	}
	return m
}

// TestPoolObjects reads every object of pools and compares it with that in a stream.
func TestPoolObjects(t *testing.T) {
	t.Parallel()
	in := allKinds().withXattrs()
	base := mapOf(t, in.stream(t, Options{}))
	for name, c := range map[string]struct {
		in tree
		o  Options
		po PoolOptions
	}{
		"default":  {in, Options{}, PoolOptions{}},
		"ashift 9": {in, Options{}, PoolOptions{Ashift: 9}},
		"lz4":      {in, Options{LZ4: true}, PoolOptions{Ashift: 13}},
		"zpl4":     {in, Options{Profile: ZPL4}, PoolOptions{}},
		"illumos":  {in, Options{Platform: Illumos, Layout: ZonePath}, PoolOptions{Size: 5 << 30}},
		"largest":  {in, Options{}, PoolOptions{Size: maxPool, Ashift: 9}},
		"slabs":    {large(), Options{}, PoolOptions{}},
		"of base":  {edited(in), Options{Base: base}, PoolOptions{}}, // numbers with gaps
	} {
		t.Run(name, func(t *testing.T) { samePool(t, c.in, c.o, c.po) })
	}
}

// TestPoolRandom does so with random trees.
func TestPoolRandom(t *testing.T) {
	t.Parallel()
	rounds := 10
	if os.Getenv("ISC_NIGHTLY") == "1" {
		rounds = 500
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	for round := range rounds {
		in := newTree()
		for range rnd.IntN(200) {
			randomEdit(rnd, in)
		}
		samePool(t, in, []Options{{}, {LZ4: true}, {Platform: Illumos}, {Profile: ZPL4}}[round%4], PoolOptions{Ashift: 9 + round%5})
	}
}

// samePool makes a pool of a tree and compares what is in it with a stream of the tree.
func samePool(t *testing.T, in tree, o Options, po PoolOptions) {
	t.Helper()
	po.Name = "rpool"
	if po.Size == 0 {
		po.Size = 100<<20 + 12345
	}
	p := in.pool(t, o, po)
	s := in.stream(t, o)
	sets := newPoolReader(t, p).datasets()
	stream := in.write(t, o)
	snap, err := Open(bytes.NewReader(stream), int64(len(stream)), "")
	if err != nil {
		t.Fatal(err)
	}
	got := sets[s.GUID()]
	if len(got) != len(snap.set.objects) || len(sets) != 4 {
		t.Fatalf("%d datasets, %d objects in ours, want %d", len(sets), len(got), len(snap.set.objects))
	}
	for n, d := range snap.set.objects {
		if got[n] == nil {
			t.Fatalf("object %d is missing", n)
		}
		if err := got[n].same(snap.set, d); err != nil {
			t.Errorf("object %d: %v", n, err)
		}
	}
}

// same compares an object of a pool with that of a stream.
func (o *poolDnode) same(set *objset, d *dnode) error {
	if uint32(o.kind) != d.kind || uint32(o.bonusType) != d.bonusType || o.blockSize != d.blockSize {
		return fmt.Errorf("type %d, bonus %d, blocks of %d", o.kind, o.bonusType, o.blockSize)
	}
	bonus, err := set.bytes(d.bonus)
	if err != nil {
		return err
	}
	if !bytes.Equal(o.bonus, bonus[:len(o.bonus)]) || len(bonus)-len(o.bonus) > 7 {
		return errors.New("its bonus differs")
	}
	spill := make([]byte, d.spill.size)
	if len(spill) > 0 {
		if err := set.readBlock(&d.spill, spill); err != nil {
			return err
		}
	}
	if !bytes.Equal(spill, o.spill) {
		return errors.New("its spill block differs")
	}
	if len(d.blocks) != len(o.blocks) {
		return fmt.Errorf("%d blocks, want %d", len(o.blocks), len(d.blocks))
	}
	for i := range d.blocks {
		b := make([]byte, d.blocks[i].size)
		if err := set.readBlock(&d.blocks[i], b); err != nil {
			return err
		}
		if !bytes.Equal(b, o.blocks[d.blocks[i].off/uint64(d.blockSize)]) {
			return fmt.Errorf("block at %d differs", d.blocks[i].off)
		}
	}
	return nil
}

// TestPoolRead reads a pool in pieces of all sizes and places: the bytes must be the same, and zeros
// outside of the extents.
func TestPoolRead(t *testing.T) {
	t.Parallel()
	in := allKinds().withXattrs()
	po := PoolOptions{Name: "rpool", Size: 64<<20 + 777, Boot: "ROOT/golden"}
	p := in.pool(t, Options{}, po)
	whole := make([]byte, po.Size)
	if n, err := p.ReadAt(whole, 0); err != nil || n != len(whole) {
		t.Fatal(n, err)
	}
	forward := make(memFile, po.Size)
	if err := in.pool(t, Options{}, po).Write(context.Background(), forward); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(whole, forward) {
		t.Fatal("what Write writes is not what ReadAt reads")
	}
	at := int64(0)
	for _, x := range append(p.Extents(), Extent{po.Size, 0}) {
		if x.Off < at {
			t.Fatalf("extent at %d is not ascending", x.Off)
		}
		for _, v := range whole[at:x.Off] {
			if v != 0 {
				t.Fatalf("data between extents, from %d to %d", at, x.Off)
			}
		}
		at = x.Off + x.Len
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		x := p.Extents()[rnd.IntN(len(p.Extents()))]
		off := max(0, x.Off+rnd.Int64N(x.Len)-100)
		b := make([]byte, min(1+rnd.Int64N(300<<10), po.Size-off))
		if _, err := p.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, whole[off:off+int64(len(b))]) {
			t.Fatalf("%d bytes at %d differ", len(b), off)
		}
	}
	if n, err := p.ReadAt(make([]byte, 10), po.Size-4); n != 4 || err != io.EOF {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	po.Name = "other"
	if q := in.pool(t, Options{}, po); q.GUID() == p.GUID() {
		t.Error("two pools with one guid")
	}
}

type memFile []byte

func (m memFile) WriteAt(b []byte, off int64) (int, error) { return copy(m[off:], b), nil }

func TestPoolRefuses(t *testing.T) {
	good := newTree().stream(t, Options{})
	for want, c := range map[string]struct {
		ds []Dataset
		o  PoolOptions
	}{
		`name "": does not begin with a letter`: {nil, PoolOptions{Size: 1 << 30}},
		`name "mirror": a word`:                 {nil, PoolOptions{Name: "mirror", Size: 1 << 30}},
		`name "a/b": part "a/b" has the char`:   {nil, PoolOptions{Name: "a/b", Size: 1 << 30}},
		`size 1000: not from`:                   {nil, PoolOptions{Name: "p", Size: 1000}},
		`ashift 14`:                             {nil, PoolOptions{Name: "p", Size: 1 << 30, Ashift: 14}},
		`path "x": not absolute`:                {nil, PoolOptions{Name: "p", Size: 1 << 30, Path: "x"}},
		`before 1970`:                           {nil, PoolOptions{Name: "p", Size: 1 << 30, Created: time.Unix(-1, 0)}},
		`no dataset "x" to boot from`:           {nil, PoolOptions{Name: "p", Size: 1 << 30, Boot: "x"}},
		`dataset "a": more than once`:           {[]Dataset{{Name: "a", Content: good}, {Name: "a"}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`part ""`:                               {[]Dataset{{Name: "a//b"}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`part "$x" has the character`:           {[]Dataset{{Name: "$x"}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`longer than 255`:                       {[]Dataset{{Name: strings.Repeat("x", 254)}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`property "atime": value "yes"`:         {[]Dataset{{Properties: map[string]string{"atime": "yes"}}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`property "quota": not one`:             {[]Dataset{{Properties: map[string]string{"quota": "1"}}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`property "mountpoint": value "x"`:      {[]Dataset{{Properties: map[string]string{"mountpoint": "x"}}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`property "recordsize": value "3K"`:     {[]Dataset{{Properties: map[string]string{"recordsize": "3K"}}}, PoolOptions{Name: "p", Size: 1 << 30}},
		`property "A:b": no name`:               {[]Dataset{{Properties: map[string]string{"A:b": "x"}}}, PoolOptions{Name: "p", Size: 1 << 30}},
	} {
		if _, err := NewPool(context.Background(), c.ds, c.o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	// All at once.
	_, err := NewPool(context.Background(), []Dataset{{Name: "$"}, {Properties: map[string]string{"x": "y"}}}, PoolOptions{Ashift: 1})
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("error %v", err)
	}
}

// TestPoolFull has contents that do not fit: nothing must be read of them.
func TestPoolFull(t *testing.T) {
	in := newTree()
	in.put(Object{Path: "large", Mode: 0o644, Size: 100 << 20, Digest: sha256.Sum256(nil), Open: func() (Content, error) {
		return untouched{t}, nil
	}})
	_, err := NewPool(context.Background(), []Dataset{{Content: in.stream(t, Options{})}}, PoolOptions{Name: "p", Size: 64 << 20})
	if err == nil || !strings.Contains(err.Error(), "need") {
		t.Errorf("error %v", err)
	}
	// Holes count for nothing.
	in = newTree()
	in.sparse("sparse", 1<<42, map[int64][]byte{1 << 41: []byte("x")})
	p, err := NewPool(context.Background(), []Dataset{{Content: in.stream(t, Options{})}}, PoolOptions{Name: "p", Size: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	r := newPoolReader(t, p)
	r.datasets()
	// Many small files fill it up only when they are laid out.
	in = newTree()
	for i := range 15000 {
		in.file(fmt.Sprint(i), []byte("x")).Xattrs = map[string][]byte{"user.x": noise(1, 300)}
	}
	_, err = NewPool(context.Background(), []Dataset{{Content: in.stream(t, Options{})}}, PoolOptions{Name: "p", Size: 64 << 20})
	if err == nil || !strings.Contains(err.Error(), "full") && !strings.Contains(err.Error(), "need") {
		t.Errorf("error %v", err)
	}
}

// untouched is a content that must not be read.
type untouched struct{ t *testing.T }

func (u untouched) ReadAt(p []byte, off int64) (int, error) {
	u.t.Error("content was read")
	return 0, io.EOF
}
func (u untouched) Extents() []Extent { return []Extent{{0, 100 << 20}} }
func (u untouched) Close() error      { return nil }

// TestPoolChanged has a content that is another when it is read again.
func TestPoolChanged(t *testing.T) {
	data := noise(1, 300000)
	in := newTree()
	in.put(Object{Path: "file", Mode: 0o644, Size: int64(len(data)), Digest: sha256.Sum256(data), Open: func() (Content, error) {
		return BytesContent(bytes.Clone(data)), nil
	}})
	p := in.pool(t, Options{}, PoolOptions{Name: "p", Size: 64 << 20})
	data[200000]++
	err := p.Write(context.Background(), memFile(make([]byte, 64<<20)))
	if err == nil || !strings.Contains(err.Error(), `object "file": block 1 has changed`) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewPool(ctx, []Dataset{{Content: in.stream(t, Options{})}}, PoolOptions{Name: "p", Size: 64 << 20}); err != context.Canceled && !strings.Contains(fmt.Sprint(err), "canceled") {
		t.Errorf("error %v", err)
	}
}

// TestPoolMemory makes a pool of many files: what is kept of each must be small.
func TestPoolMemory(t *testing.T) {
	const files = 50000
	in := newTree()
	data := []byte("x")
	digest := sha256.Sum256(data)
	for i := range files {
		in.put(Object{Path: fmt.Sprintf("d%d/f%d", i%100, i), Mode: 0o644, Size: 1, Digest: digest, Open: func() (Content, error) { return BytesContent(data), nil }})
	}
	s := in.stream(t, Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p, err := NewPool(context.Background(), []Dataset{{Content: s}}, PoolOptions{Name: "p", Size: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / files; per > 300 {
		t.Errorf("%d bytes of memory a file", per)
	} else {
		t.Logf("%d bytes of memory a file", per)
	}
	runtime.KeepAlive(p)
	runtime.KeepAlive(in)
	runtime.KeepAlive(s)
}
