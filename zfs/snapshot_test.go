package zfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
)

// open opens a stream or ends the test.
func open(tb testing.TB, stream []byte) *Snapshot {
	tb.Helper()
	s, err := Open(bytes.NewReader(stream), int64(len(stream)), "")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// collect reads all objects.
func collect(tb testing.TB, s *Snapshot, p Platform) tree {
	tb.Helper()
	t := tree{}
	previous := ""
	for o, err := range s.Objects(p) {
		if err != nil {
			tb.Fatal(err)
		}
		if previous != "" && comparePaths(previous, o.Path) >= 0 {
			tb.Fatalf("object %q comes after %q", o.Path, previous)
		}
		previous = o.Path
		t[o.Path] = o
	}
	return t
}

// normal returns the tree as a reader gives it back: the first name of each hard link in order.
func (t tree) normal() tree {
	n := maps.Clone(t)
	names := map[string][]string{}
	for path, o := range t {
		if o.Link != "" {
			names[o.Link] = append(names[o.Link], path)
		}
	}
	for first, more := range names {
		more = append(more, first)
		slices.SortFunc(more, comparePaths)
		o := *t[first]
		o.Path = more[0]
		n[more[0]] = &o
		for _, path := range more[1:] {
			n[path] = &Object{Path: path, Link: more[0]}
		}
	}
	return n
}

// same reports how b differs from a.
func same(tb testing.TB, a, b tree) {
	tb.Helper()
	for path := range b {
		if a[path] == nil {
			tb.Errorf("%q: not expected", path)
		}
	}
	for _, path := range slices.SortedFunc(maps.Keys(a), comparePaths) {
		x, y := a[path], b[path]
		if y == nil {
			tb.Errorf("%q: missing", path)
			continue
		}
		if x.Link != "" || y.Link != "" {
			if x.Link != y.Link {
				tb.Errorf("%q: hard link to %q, want %q", path, y.Link, x.Link)
			}
			continue
		}
		for _, c := range []struct {
			what      string
			got, want any
		}{
			{"mode", y.Mode, x.Mode},
			{"uid", y.UID, x.UID},
			{"gid", y.GID, x.GID},
			{"time", y.ModTime.UnixNano(), x.ModTime.UnixNano()},
			{"size", y.Size, x.Size},
			{"device", y.Rdev, x.Rdev},
			{"target", y.Target, x.Target},
			{"attributes", fmt.Sprint(y.Xattrs), fmt.Sprint(x.Xattrs)},
		} {
			if c.got != c.want {
				tb.Errorf("%q: %s %v, want %v", path, c.what, c.got, c.want)
			}
		}
		if x.Mode.IsRegular() && x.Size == y.Size && x.Size > 0 {
			if err := sameContent(x, y); err != nil {
				tb.Errorf("%q: %v", path, err)
			}
		}
	}
}

// sameContent compares contents where either may have data.
func sameContent(x, y *Object) error {
	a, err := x.Open()
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := y.Open()
	if err != nil {
		return err
	}
	defer b.Close()
	if err := checkExtents(b.Extents(), y.Size); err != nil {
		return err
	}
	for _, e := range append(a.Extents(), b.Extents()...) {
		p, q := make([]byte, e.Len), make([]byte, e.Len)
		if _, err := a.ReadAt(p, e.Off); err != nil && err != io.EOF {
			return err
		}
		if _, err := b.ReadAt(q, e.Off); err != nil && err != io.EOF {
			return err
		}
		if !bytes.Equal(p, q) {
			return fmt.Errorf("content differs in the %d bytes at %d", e.Len, e.Off)
		}
	}
	return nil
}

func TestRoundTrip(t *testing.T) {
	for _, o := range []Options{
		{},
		{LZ4: true},
		{Platform: FreeBSD},
		{Platform: Illumos},
		{Profile: ZPL4},
		{Profile: ZPL4, Platform: Illumos},
	} {
		t.Run(fmt.Sprintf("%v %v lz4=%v", o.Profile, o.Platform, o.LZ4), func(t *testing.T) {
			in := allKinds().withXattrs()
			s := open(t, in.write(t, o))
			if h := s.Header(); h.Name != defaultName || h.GUID != in.stream(t, o).GUID() || h.FromGUID != 0 || !h.FileSystem || h.Package {
				t.Errorf("header %+v", h)
			}
			if want := 5 - int(o.Profile); s.Version() != want {
				t.Errorf("version %d, want %d", s.Version(), want)
			}
			same(t, in.normal(), collect(t, s, o.Platform))
		})
	}
}

func TestRoundTripZonePath(t *testing.T) {
	in := allKinds()
	out := collect(t, open(t, in.write(t, Options{Layout: ZonePath})), Linux)
	top := out["."]
	if top == nil || top.Mode != fs.ModeDir|0o700 || top.UID != 0 || !top.ModTime.Equal(testTime) {
		t.Errorf("top level %+v", top)
	}
	delete(out, ".")
	want := tree{}
	for path, o := range in.normal() {
		c := *o
		c.Path = zonePathOf(path)
		if c.Link != "" {
			c.Link = zonePathOf(c.Link)
		}
		want[c.Path] = &c
	}
	same(t, want, out)
}

func TestReadAtUnaligned(t *testing.T) {
	f := newTree()
	data := noise(1, 400000)
	clear(data[131072:262144])
	f.file("f", data)
	for _, lz4 := range []bool{false, true} {
		if lz4 {
			copy(data, bytes.Repeat([]byte("compresses well "), 4096)) // only now: content is read at Write
		}
		o := collect(t, open(t, f.write(t, Options{LZ4: lz4})), Linux)["f"]
		c, err := o.Open()
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{0, 1, 131000, 131071, 131072, 200000, 262143, 262144, 399999} {
			for _, n := range []int{0, 1, 100, 131072, 300000} {
				got := make([]byte, n)
				m, err := c.ReadAt(got, off)
				want := data[off:min(off+int64(n), int64(len(data)))]
				if !bytes.Equal(got[:m], want) || (m < n) != (err == io.EOF) {
					t.Errorf("ReadAt %d bytes at %d: %d bytes, error %v", n, off, m, err)
				}
			}
		}
		if _, err := c.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("negative offset: no error")
		}
		if n, err := c.ReadAt(make([]byte, 1), 400000); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
	}
}

func TestLargeDirectory(t *testing.T) {
	t.Parallel()
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	f := newTree()
	for i := range n {
		f.file(fmt.Sprintf("d/name-%d", i), nil)
	}
	out := collect(t, open(t, f.write(t, Options{})), Linux)
	if len(out) != n+2 {
		t.Errorf("%d objects, want %d", len(out), n+2)
	}
	for path := range f {
		if out[path] == nil {
			t.Fatalf("%q: missing", path)
		}
	}
}

func TestOpenRefusesEveryFlippedByte(t *testing.T) {
	t.Parallel()
	f := newTree()
	f.file("a/file", []byte("content"))
	f.put(Object{Path: "l", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("t", 200)})
	stream := f.write(t, Options{Profile: ZPL5})
	for i := range stream {
		stream[i] ^= 0x10
		if _, err := Open(bytes.NewReader(stream), int64(len(stream)), ""); err == nil {
			t.Fatalf("byte %d flipped: no error", i)
		}
		stream[i] ^= 0x10
	}
}

func TestOpenRefusesEveryTruncation(t *testing.T) {
	f := newTree()
	f.file("file", []byte("content"))
	stream := f.write(t, Options{Profile: ZPL4})
	for n := range stream {
		_, err := Open(bytes.NewReader(stream), int64(n), "")
		if err == nil {
			t.Fatalf("%d of %d bytes: no error", n, len(stream))
		}
		if n > headerSize && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: error %v", n, len(stream), err)
		}
	}
	longer := append(slices.Clip(stream), 0)
	if _, err := Open(bytes.NewReader(longer), int64(len(longer)), ""); err == nil || !strings.Contains(err.Error(), "data after the end") {
		t.Errorf("one byte more: error %v", err)
	}
}

// TestDeduplicated reads a stream as zfs send -D made it: blocks that repeat others are not there.
func TestDeduplicated(t *testing.T) {
	in := newTree()
	in.file("a", noise(1, 300000))
	in.file("b", append(noise(1, 131072), noise(2, 131072)...))
	in.file("c", noise(1, 300000))
	plain := in.write(t, Options{})
	seen := map[string]Record{}
	var stream []byte
	repeated := 0
	z := NewReader(bytes.NewReader(plain))
	for {
		rec, err := z.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		first, ok := seen[string(rec.Payload)]
		if rec.Type != RecordWrite || rec.Kind != typeFile || !ok {
			if rec.Type == RecordWrite {
				seen[string(rec.Payload)] = Record{Object: rec.Object, Offset: rec.Offset}
			}
			stream = append(stream, plain[rec.Pos:][:headerSize+roundUp(rec.PayloadSize, 8)]...)
			continue
		}
		repeated++
		var head [headerSize]byte
		binary.LittleEndian.PutUint32(head[:], uint32(RecordWriteByRef))
		guid := open(t, plain).Header().GUID
		for i, v := range []uint64{rec.Object, rec.Offset, rec.Length, guid, guid, first.Object, first.Offset} {
			binary.LittleEndian.PutUint64(head[8+8*i:], v)
		}
		stream = append(stream, head[:]...)
	}
	if repeated != 4 {
		t.Fatalf("%d blocks repeat others, want 4", repeated)
	}
	resum(stream)
	same(t, in, collect(t, open(t, stream), Linux))
	if err := Check(bytes.NewReader(stream), int64(len(stream))); err != nil {
		t.Error(err)
	}
}
