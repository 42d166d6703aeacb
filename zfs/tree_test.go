package zfs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// A tree is a file system in memory to test with.
type tree map[string]*Object

var testTime = time.Unix(1700000000, 123456789)

func newTree() tree {
	return tree{".": {Path: ".", Mode: fs.ModeDir | 0o755, ModTime: testTime}}
}

// put adds an object, and the directories to it that are missing.
func (t tree) put(o Object) *Object {
	if i := strings.LastIndexByte(o.Path, '/'); i >= 0 && t[o.Path[:i]] == nil {
		t.dir(o.Path[:i])
	}
	if o.ModTime.IsZero() {
		o.ModTime = testTime
	}
	t[o.Path] = &o
	return &o
}

func (t tree) dir(path string) *Object { return t.put(Object{Path: path, Mode: fs.ModeDir | 0o755}) }

func (t tree) file(path string, data []byte) *Object {
	return t.put(Object{
		Path: path, Mode: 0o644, Size: int64(len(data)), Digest: sha256.Sum256(data),
		Open: func() (Content, error) { return BytesContent(data), nil },
	})
}

// objects yields the tree in the order of a map: none.
func (t tree) objects() iter.Seq2[*Object, error] {
	return func(yield func(*Object, error) bool) {
		for _, o := range t {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// A sparse content is zeros but for its pieces.
type sparse struct {
	size   int64
	pieces map[int64][]byte
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), s.size-off)))
	clear(p[:n])
	for at, b := range s.pieces {
		if at < off+int64(n) && off < at+int64(len(b)) {
			if at >= off {
				copy(p[at-off:n], b)
			} else {
				copy(p[:n], b[off-at:])
			}
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s sparse) Close() error { return nil }

func (s sparse) Extents() []Extent {
	var x []Extent
	for _, at := range slices.Sorted(maps.Keys(s.pieces)) {
		x = append(x, Extent{at, int64(len(s.pieces[at]))})
	}
	return x
}

func (t tree) sparse(path string, size int64, pieces map[int64][]byte) *Object {
	return t.put(Object{
		Path: path, Mode: 0o600, Size: size, Digest: sha256.Sum256(fmt.Append(nil, size, pieces)),
		Open: func() (Content, error) { return sparse{size, pieces}, nil },
	})
}

// noise is content that does not compress and is the same every time.
func noise(seed uint64, n int) []byte {
	b := make([]byte, 0, n+8)
	for x := seed*2654435761 + 1; len(b) < n; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:n]
}

// allKinds is a tree with one of everything that a stream can hold. Attributes are as Linux names
// them.
func allKinds() tree {
	t := newTree()
	t["."].Mode = fs.ModeDir | 0o751
	for _, n := range []int{0, 1, 511, 512, 513, 100000, 131071, 131072, 131073, 262144, 5242880} {
		t.file(fmt.Sprintf("sizes/%d", n), noise(uint64(n), n))
	}
	for i := range 300 {
		t.file(fmt.Sprintf("micro/file%d", i), []byte(strings.Repeat("text ", i)))
	}
	for i := range 2500 {
		t.file(fmt.Sprintf("fat/f%d", i), nil)
	}
	for i := range 40 {
		t.file(fmt.Sprintf("long/%s%d", strings.Repeat("n", 60), i), []byte{byte(i)})
	}
	t.file("long/"+strings.Repeat("x", 255), []byte("the longest name"))
	t.file("long/"+strings.Repeat("y", 49), []byte("the longest in a microzap"))
	t.file("näme ☃", []byte("snow"))
	t.file("\xff\xfe bytes", []byte("no utf-8"))

	t.sparse("sparse/hole", 1<<20, nil)
	t.sparse("sparse/ends", 1<<20+5, map[int64][]byte{0: []byte("begin"), 1 << 20: []byte("end..")})
	t.sparse("sparse/middle", 3<<20, map[int64][]byte{1<<20 - 3: []byte("across the border")})
	t.sparse("sparse/large", 5<<30+7, map[int64][]byte{4<<30 + 9: noise(7, 1000), 5 << 30: []byte("the end")})
	t.sparse("sparse/small", 100, map[int64][]byte{50: []byte("x")})

	t.put(Object{Path: "links/short", Mode: fs.ModeSymlink | 0o777, Target: "../a"})
	for _, n := range []int{56, 57, 140, 144, 145, 200, 800, 1023} {
		t.put(Object{Path: fmt.Sprintf("links/%d", n), Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("t", n)})
	}
	t.file("hard/first", []byte("three names"))
	t.put(Object{Path: "hard/second", Link: "hard/first"})
	t.put(Object{Path: "hard2/third", Link: "hard/first"})
	t.put(Object{Path: "hard/slink", Mode: fs.ModeSymlink | 0o777, Target: "x"})
	t.put(Object{Path: "hard/slink2", Link: "hard/slink"})

	t.put(Object{Path: "dev/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Rdev: Device{1, 3}})
	t.put(Object{Path: "dev/disk", Mode: fs.ModeDevice | 0o660, GID: 6, Rdev: Device{259, 70000}})
	t.put(Object{Path: "dev/fifo", Mode: fs.ModeNamedPipe | 0o600})
	t.put(Object{Path: "dev/socket", Mode: fs.ModeSocket | 0o755})

	for i, m := range []fs.FileMode{
		0, 0o77, 0o604, 0o711, 0o413, 0o405, 0o777, 0o111, 0o444, 0o1, 0o20,
		fs.ModeSetuid | 0o755, fs.ModeSetgid | 0o2711&0o777, fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky | 0o777,
	} {
		t.file(fmt.Sprintf("modes/f%d", i), []byte("m")).Mode = m
		t.dir(fmt.Sprintf("modes/d%d", i)).Mode = fs.ModeDir | m
	}
	o := t.file("owners/large", nil)
	o.UID, o.GID = 100000, 2147483646
	for i, sec := range []int64{-157766400, -1, 0, 2147483647, 2147483648, 4000000000} {
		t.file(fmt.Sprintf("times/%d", i), nil).ModTime = time.Unix(sec, int64(i)*111111111)
	}
	t.dir("empty")
	t.dir("deep/" + strings.Repeat("d/", 60) + "d")

	return t
}

// withXattrs adds extended attributes to some objects of allKinds.
func (t tree) withXattrs() tree {
	t.file("xattr/bonus", []byte("x")).Xattrs = map[string][]byte{
		"security.capability": {1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	}
	t.file("xattr/spill", []byte("x")).Xattrs = map[string][]byte{
		"user.long": noise(1, 1500), "user.a": []byte("b"), "user.empty": {},
	}
	t.dir("xattr/dir").Xattrs = map[string][]byte{"user.dir": []byte("on a directory")}
	t.file("xattr/aces", nil).Xattrs = map[string][]byte{"user.x": noise(2, 200)}
	t["xattr/aces"].Mode = 0o405
	t.put(Object{
		Path: "xattr/link", Mode: fs.ModeSymlink | 0o777, Target: "bonus",
		Xattrs: map[string][]byte{"trusted.l": []byte("on a link")},
	})
	t.put(Object{
		Path: "xattr/longlink", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("l", 500),
		Xattrs: map[string][]byte{"trusted.l": noise(3, 300)},
	})
	t.put(Object{
		Path: "xattr/device", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Rdev: Device{5, 1},
		Xattrs: map[string][]byte{"security.d": noise(4, 20)},
	})
	t.file("xattr/many", nil).Xattrs = map[string][]byte{}
	for i := range 50 {
		t["xattr/many"].Xattrs[fmt.Sprintf("user.%03d", i)] = noise(uint64(i), i*20)
	}
	return t
}

// stream makes the stream of a tree or ends the test.
func (t tree) stream(tb testing.TB, o Options) *Stream {
	tb.Helper()
	s, err := NewStream(t.objects(), o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// write writes the stream of a tree.
func (t tree) write(tb testing.TB, o Options) []byte {
	tb.Helper()
	var b writer
	if err := t.stream(tb, o).Write(context.Background(), &b); err != nil {
		tb.Fatal(err)
	}
	return b
}

type writer []byte

func (w *writer) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}
