package zfs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// mapOf returns the map of a stream, written and read again.
func mapOf(tb testing.TB, s *Stream) *Map {
	tb.Helper()
	m, err := s.Map()
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	if n, err := m.WriteTo(&b); err != nil || n != int64(b.Len()) {
		tb.Fatalf("%d of %d bytes, error %v", n, b.Len(), err)
	}
	text := b.String()
	again, err := ReadMap(&b)
	if err != nil {
		tb.Fatal(err)
	}
	b.Reset()
	again.WriteTo(&b)
	if b.String() != text {
		tb.Fatal("a map that was read is not written the same")
	}
	return again
}

// increment writes an increment.
func increment(tb testing.TB, s *Stream, from *Map) []byte {
	tb.Helper()
	var out writer
	if err := s.WriteIncrement(context.Background(), &out, from, false); err != nil {
		tb.Fatal(err)
	}
	return out
}

// contents prints a file system as Dump does.
func contents(tb testing.TB, s *Snapshot) string {
	tb.Helper()
	var b bytes.Buffer
	p := &printer{w: bufio.NewWriter(&b)}
	if err := p.snapshot(s); err != nil {
		tb.Fatal(err)
	}
	p.w.Flush()
	// How the same entries are laid out is not shown: compare the blocks as well.
	for n, d := range s.set.numbersOf() {
		fmt.Fprintf(&b, "object %d blocks of %d:", n, d.blockSize)
		for i := range d.blocks {
			p := make([]byte, d.blocks[i].size)
			if err := s.set.readBlock(&d.blocks[i], p); err != nil {
				tb.Fatal(err)
			}
			fmt.Fprintf(&b, " %d %s", d.blocks[i].off, short(p))
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

// apply puts an increment on a snapshot.
func apply(tb testing.TB, s *Snapshot, stream []byte) {
	tb.Helper()
	if err := s.Apply(bytes.NewReader(stream), int64(len(stream))); err != nil {
		tb.Fatal(err)
	}
}

// clone copies a tree, so that its objects can be edited.
func (t tree) clone() tree {
	c := tree{}
	for path, o := range t {
		copied := *o
		c[path] = &copied
	}
	return c
}

// remove removes a file or a directory with all that is in it, hard links to the inside included.
func (t tree) remove(path string) {
	for p, o := range t {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(t, p)
		}
		if o.Link == path || strings.HasPrefix(o.Link, path+"/") {
			delete(t, p)
		}
	}
}

// edited is allKinds with a change of every kind.
func edited(in tree) tree {
	t := in.clone()
	t.file("sizes/1", []byte("more than one byte"))            // one block to one block of another size
	t.file("sizes/131072", noise(99, 200000))                  // one block to several
	t.file("sizes/5242880", noise(5242880, 1000))              // several to one
	t.file("sizes/262144", append(noise(262144, 262144), 'x')) // grown by a block
	t.remove("sizes/513")
	t["sizes/renamed"] = t["sizes/100000"]
	t.remove("sizes/100000")
	t["sizes/renamed"].Path = "sizes/renamed"
	t.remove("micro/file3")
	t.dir("micro/file3")                            // a file becomes a directory
	t.file("micro/file3/inside", []byte("inside"))  //
	t.remove("empty")                               //
	t.file("empty", []byte("a directory was here")) // and the reverse
	for i := range 3000 {                           // a microzap becomes a fat zap
		t.file(fmt.Sprintf("micro/more%d", i), nil)
	}
	for i := range 2400 { // and the reverse
		t.remove(fmt.Sprintf("fat/f%d", i))
	}
	t.remove("long")
	t.put(Object{Path: "links/800", Mode: fs.ModeSymlink | 0o777, Target: "now short"})
	t.put(Object{Path: "links/short", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("now long", 100)})
	t["modes/f3"].Mode = 0o600
	t["owners/large"].UID = 12
	t["times/0"].ModTime = testTime
	t.sparse("sparse/middle", 3<<20, map[int64][]byte{100: []byte("elsewhere")})
	t.remove("hard2/third")
	t.put(Object{Path: "hard/fourth", Link: "hard/first"})
	if t["xattr/spill"] != nil {
		t["xattr/spill"].Xattrs = map[string][]byte{"user.short": []byte("now")}
		t["xattr/bonus"].Xattrs = nil
		t["xattr/dir"].Xattrs = map[string][]byte{"user.dir": noise(9, 2000), "user.dir2": nil}
	}
	return t
}

func TestIncrement(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {LZ4: true}, {Platform: Illumos}, {Profile: ZPL4}} {
		t.Run(fmt.Sprintf("%v %v lz4=%v", o.Profile, o.Platform, o.LZ4), func(t *testing.T) {
			one := allKinds().withXattrs()
			two := edited(one)
			s1 := one.stream(t, o)
			m1 := mapOf(t, s1)
			o.Base = m1
			s2 := two.stream(t, o)
			m2 := mapOf(t, s2)
			three := two.clone()
			three.remove("micro")
			three.file("sizes/1", noise(4, 500000))
			o.Base = m2
			s3 := three.stream(t, o)

			var full [3]writer
			for i, s := range []*Stream{s1, s2, s3} {
				if err := s.Write(context.Background(), &full[i]); err != nil {
					t.Fatal(err)
				}
				if err := Check(bytes.NewReader(full[i]), int64(len(full[i]))); err != nil {
					t.Errorf("version %d: %v", i+1, err)
				}
			}
			snap := open(t, full[0])
			apply(t, snap, increment(t, s2, m1))
			same(t, two.normal(), collect(t, snap, o.Platform))
			if contents(t, snap) != contents(t, open(t, full[1])) {
				t.Error("version 2: the increment gives another file system than the full stream")
			}
			apply(t, snap, increment(t, s3, m2))
			if contents(t, snap) != contents(t, open(t, full[2])) {
				t.Error("version 3: the increment gives another file system than the full stream")
			}
			skip := open(t, full[0]) // from the first to the third at once
			apply(t, skip, increment(t, s3, m1))
			if contents(t, skip) != contents(t, open(t, full[2])) {
				t.Error("version 3 from 1: the increment gives another file system than the full stream")
			}
			if g := snap.Header().GUID; g != s3.GUID() || skip.Header().GUID != g {
				t.Errorf("guid %#x, want %#x", g, s3.GUID())
			}
		})
	}
}

func TestIncrementIsSmall(t *testing.T) {
	t.Parallel()
	one := allKinds()
	s1 := one.stream(t, Options{})
	m1 := mapOf(t, s1)
	for name, c := range map[string]struct {
		edit  func(f tree)
		limit int
	}{
		"nothing but the name": {func(tree) {}, 2 * headerSize},
		"a small file":         {func(f tree) { f.file("sizes/512", noise(1, 4096)) }, 8 << 10},
		"a mode":               {func(f tree) { f["sizes/5242880"].Mode = 0o600 }, 2 << 10},
		"a renamed file": {func(f tree) {
			f["sizes/moved"] = f["sizes/5242880"]
			delete(f, "sizes/5242880")
			f["sizes/moved"].Path = "sizes/moved"
		}, 4 << 10},
		"a file moved to another directory": {func(f tree) {
			f["hard/moved"] = f["sizes/5242880"]
			delete(f, "sizes/5242880")
			f["hard/moved"].Path = "hard/moved"
		}, 8 << 10},
	} {
		two := one.clone()
		c.edit(two)
		s2 := two.stream(t, Options{Base: m1, Name: "image@next"})
		out := increment(t, s2, m1)
		if len(out) > c.limit {
			t.Errorf("%s: an increment of %d bytes, want at most %d", name, len(out), c.limit)
		}
		snap := open(t, one.write(t, Options{}))
		apply(t, snap, out)
		same(t, two.normal(), collect(t, snap, Linux))
	}
}

// TestIncrementOverBlockSizes goes from one block to several by way of a single full one: each step
// could be made in place, both at once could not.
func TestIncrementOverBlockSizes(t *testing.T) {
	sizes := []int{100, 131072, 131073, 131072, 100}
	var o Options
	var maps []*Map
	var fulls [][]byte
	for i, n := range sizes {
		f := newTree()
		f.file("f", noise(uint64(i), n))
		s := f.stream(t, o)
		var full writer
		if err := s.Write(context.Background(), &full); err != nil {
			t.Fatal(err)
		}
		for j, m := range maps {
			snap := open(t, fulls[j])
			apply(t, snap, increment(t, s, m))
			if contents(t, snap) != contents(t, open(t, full)) {
				t.Errorf("from %d bytes to %d: another file system", sizes[j], n)
			}
		}
		maps, fulls = append(maps, mapOf(t, s)), append(fulls, full)
		o.Base = maps[i]
	}
}

func TestIncrementRefuses(t *testing.T) {
	one := small()
	s1 := one.stream(t, Options{})
	m1 := mapOf(t, s1)
	if _, err := NewStream(one.objects(), Options{Base: m1, Profile: ZPL4}); err == nil || !strings.Contains(err.Error(), "the base is of zpl5 top linux") {
		t.Errorf("base of another profile: error %v", err)
	}
	var out writer
	if err := s1.WriteIncrement(context.Background(), &out, m1, false); err == nil || !strings.Contains(err.Error(), "the same version") {
		t.Errorf("from itself: error %v", err)
	}
	other := newTree()
	other.dir("a/b/c/d/e/f")
	stranger := other.stream(t, Options{})
	if err := stranger.WriteIncrement(context.Background(), &out, m1, false); err == nil || !strings.Contains(err.Error(), "not a base of this version") {
		t.Errorf("from a stranger: error %v", err)
	}
	two := one.clone()
	two.file("new", nil)
	s2 := two.stream(t, Options{Base: m1})
	delta := increment(t, s2, m1)
	if _, err := Open(bytes.NewReader(delta), int64(len(delta)), ""); err == nil || !strings.Contains(err.Error(), "which is not there") {
		t.Errorf("opened alone: error %v", err)
	}
	if err := open(t, other.write(t, Options{})).Apply(bytes.NewReader(delta), int64(len(delta))); err == nil || !strings.Contains(err.Error(), "there is no increment from") {
		t.Errorf("applied to a stranger: error %v", err)
	}
}

func TestReadMapRefuses(t *testing.T) {
	m, err := small().stream(t, Options{}).Map()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for name, c := range map[string]struct {
		text, want string
	}{
		"empty":        {"", "without a root"},
		"text":         {"hello", `begins with "hello"`},
		"no version":   {lines[0] + "\nx", "line 2: damaged"},
		"guid 0":       {lines[0] + "\n0 1 7 zpl5 top linux", "line 2: damaged"},
		"no root":      {strings.Join(lines[:4], "\n"), "without a root"},
		"twice":        {b.String() + lines[5], "more than once"},
		"short digest": {b.String() + `7 1 40000 0 00 00 "x"`, "damaged"},
		"bad number":   {b.String() + `999999 1 100000 0 00000000000000000000000000000000 00000000000000000000000000000000 "x"`, "number 999999 of generation 1"},
		"half a line":  {strings.TrimSuffix(b.String(), "\"\n"), "damaged"},
	} {
		if _, err := ReadMap(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func FuzzReadMap(f *testing.F) {
	m, err := small().stream(f, Options{}).Map()
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	m.WriteTo(&b)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ReadMap(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		m.WriteTo(&b)
		if _, err := ReadMap(&b); err != nil {
			t.Errorf("what was written of a map is refused: %v", err)
		}
	})
}

// TestRandomHistories edits random trees, again and again, and goes from version to version by
// full streams and by increments.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	rounds := 12
	if os.Getenv("ISC_NIGHTLY") == "1" {
		rounds = 500
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range rounds {
		o := []Options{{}, {LZ4: true}, {Platform: Illumos}, {Profile: ZPL4}, {Layout: ZonePath}}[round%5]
		f := newTree()
		var snap *Snapshot
		var maps []*Map
		var firsts []*Snapshot
		for version := range 5 {
			for range 40 {
				randomEdit(rnd, f)
			}
			s := f.stream(t, o)
			var full writer
			if err := s.Write(context.Background(), &full); err != nil {
				t.Fatal(err)
			}
			want := open(t, full)
			if err := Check(bytes.NewReader(full), int64(len(full))); err != nil {
				t.Fatalf("round %d, version %d: %v", round, version, err)
			}
			if o.Layout == Top {
				same(t, f.normal(), collect(t, want, o.Platform))
			}
			if snap == nil {
				snap = open(t, full)
			} else {
				apply(t, snap, increment(t, s, maps[version-1]))
				if contents(t, snap) != contents(t, want) {
					t.Fatalf("round %d, version %d: the increment gives another file system", round, version)
				}
				apply(t, firsts[0], increment(t, s, maps[0]))
				if contents(t, firsts[0]) != contents(t, want) {
					t.Fatalf("round %d, version %d from the first: the increment gives another file system", round, version)
				}
			}
			maps = append(maps, mapOf(t, s))
			if version == 0 {
				for range 4 {
					firsts = append(firsts, open(t, full))
				}
			} else {
				firsts = firsts[1:]
			}
			o.Base = maps[version]
			o.Created = time.Unix(int64(version+1), 0)
		}
	}
}

// randomEdit adds, changes or removes something.
func randomEdit(rnd *rand.Rand, t tree) {
	paths := slices.SortedFunc(maps.Keys(t), comparePaths)
	pick := func(dir bool) string {
		for {
			p := paths[rnd.IntN(len(paths))]
			if o := t[p]; o != nil && (!dir || o.Mode.IsDir() && o.Link == "") {
				return p
			}
		}
	}
	name := fmt.Sprintf("%c%s", 'a'+rune(rnd.IntN(20)), strings.Repeat("n", rnd.IntN(2)*rnd.IntN(80)))
	if dir := pick(true); dir != "." {
		name = dir + "/" + name
	}
	if t[name] != nil && rnd.IntN(2) == 0 {
		t.remove(name)
	}
	if old := t[name]; old != nil && (old.Mode.IsDir() || old.Link != "") {
		return
	}
	linked := map[string]bool{}
	for _, o := range t {
		linked[o.Link] = true
	}
	if linked[name] {
		return
	}
	size := []int{0, 1, 511, 512, 5000, 131072, 131073, 300000}[rnd.IntN(8)]
	switch rnd.IntN(10) {
	case 0, 1, 2:
		t.file(name, noise(rnd.Uint64N(4), size))
	case 3:
		t.dir(name)
	case 4:
		t.put(Object{Path: name, Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("t", 1+rnd.IntN(300))})
	case 5:
		p := pick(false)
		if o := t[p]; !o.Mode.IsDir() && o.Link == "" && p != name {
			t.put(Object{Path: name, Link: p})
		}
	case 6:
		t.sparse(name, int64(size)+1000000, map[int64][]byte{int64(rnd.IntN(900000)): noise(1, 1000)})
	case 7:
		if p := pick(false); t[p].Link == "" {
			name := "user.x"
			if t[p].Mode.Type() == fs.ModeSymlink { // Linux has no user's attributes there
				name = "trusted.x"
			}
			t[p].Xattrs = map[string][]byte{name: noise(2, rnd.IntN(1000))}
			if rnd.IntN(3) == 0 {
				t[p].Xattrs = nil
			}
		}
	case 8:
		if p := pick(false); t[p].Link == "" && t[p].Mode.Type() != fs.ModeSymlink {
			t[p].Mode = t[p].Mode.Type() | fs.FileMode(rnd.IntN(0o1000))
			t[p].UID = rnd.IntN(5)
		}
	case 9:
		if p := pick(false); p != "." {
			t.remove(p)
		}
	}
}
