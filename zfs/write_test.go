package zfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"testing"
	"time"
)

func TestWriteIsDeterministic(t *testing.T) {
	for _, o := range []Options{{}, {Profile: ZPL4}, {Layout: ZonePath, Platform: Illumos}, {LZ4: true}} {
		first := allKinds().withXattrs().write(t, o) // every call yields another order of objects
		if !bytes.Equal(first, allKinds().withXattrs().write(t, o)) {
			t.Errorf("%+v: two writes differ", o)
		}
	}
}

func TestGUIDSaysEverything(t *testing.T) {
	small := func() tree {
		f := newTree()
		f.file("a", []byte("a"))
		f.put(Object{Path: "b", Link: "a"})
		f.put(Object{Path: "l", Mode: fs.ModeSymlink | 0o777, Target: "a"})
		return f
	}
	seen := map[uint64]string{small().stream(t, Options{}).GUID(): "the unchanged tree"}
	differs := func(what string, f tree, o Options) {
		t.Helper()
		g := f.stream(t, o).GUID()
		if g == 0 || seen[g] != "" {
			t.Errorf("%s: guid %#x is that of %s", what, g, seen[g])
		}
		seen[g] = what
	}
	for what, edit := range map[string]func(f tree){
		"content":     func(f tree) { f.file("a", []byte("A")) },
		"mode":        func(f tree) { f["a"].Mode = 0o600 },
		"uid":         func(f tree) { f["a"].UID = 1 },
		"gid":         func(f tree) { f["a"].GID = 1 },
		"nanoseconds": func(f tree) { f["a"].ModTime = testTime.Add(1) },
		"target":      func(f tree) { f["l"].Target = "b" },
		"name":        func(f tree) { delete(f, "l"); f.put(Object{Path: "m", Mode: fs.ModeSymlink | 0o777, Target: "a"}) },
		"name of a link": func(f tree) {
			delete(f, "b")
			f.put(Object{Path: "c", Link: "a"})
		},
		"attribute": func(f tree) { f["a"].Xattrs = map[string][]byte{"user.a": nil} },
		"value":     func(f tree) { f["a"].Xattrs = map[string][]byte{"user.a": []byte("x")} },
	} {
		f := small()
		edit(f)
		differs(what, f, Options{})
	}
	for _, o := range []Options{
		{Profile: ZPL4},
		{Layout: ZonePath},
		{Platform: Illumos},
		{Name: "x@y"},
		{Created: testTime},
		{LZ4: true},
	} {
		differs(fmt.Sprintf("%+v", o), small(), o)
	}
}

func TestNewStreamRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		add  Object
		want string
	}{
		"dot dot":           {add: Object{Path: "a/../b"}, want: `object "a/../b": not a clean relative path`},
		"absolute":          {add: Object{Path: "/a"}, want: "not a clean relative path"},
		"empty path":        {add: Object{Path: ""}, want: "not a clean relative path"},
		"NUL":               {add: Object{Path: "a\x00b"}, want: "not a clean relative path"},
		"long name":         {add: Object{Path: strings.Repeat("a", 256)}, want: "name of 256 bytes: longer than 255"},
		"uid":               {add: Object{Path: "a", UID: 1 << 31}, want: `object "a": uid 2147483648: not from 0 to 2147483647`},
		"gid":               {add: Object{Path: "a", GID: -1}, want: "gid -1"},
		"type":              {add: Object{Path: "a", Mode: fs.ModeIrregular}, want: "no type of file"},
		"size":              {add: Object{Path: "a", Size: -1}, want: "size -1"},
		"content":           {add: Object{Path: "a", Size: 1}, want: "no content"},
		"digest":            {add: Object{Path: "a", Size: 1}, want: "no digest"},
		"no target":         {add: Object{Path: "a", Mode: fs.ModeSymlink}, want: "target of 0 bytes"},
		"long target":       {add: Object{Path: "a", Mode: fs.ModeSymlink, Target: strings.Repeat("t", 1024)}, want: "target of 1024 bytes"},
		"major":             {add: Object{Path: "a", Mode: fs.ModeDevice, Rdev: Device{4096, 0}}, want: "device 4096,0"},
		"orphan":            {add: Object{Path: "no/where"}, want: `object "no/where": there is no directory "no"`},
		"below a file":      {add: Object{Path: "file/x"}, want: `there is no directory "file"`},
		"twice":             {add: Object{Path: "file"}, want: `object "file": more than once`},
		"second root":       {add: Object{Path: "."}, want: `object ".": `},
		"link to nothing":   {add: Object{Path: "a", Link: "b"}, want: `hard link to "b", which does not exist`},
		"link to link":      {add: Object{Path: "a", Link: "link"}, want: "not the first name of its object"},
		"link to directory": {add: Object{Path: "a", Link: "dir"}, want: "which is a directory"},
		"link to itself":    {add: Object{Path: "a", Link: "a"}, want: "not the first name of its object"},
		"attribute name":    {add: Object{Path: "a", Xattrs: map[string][]byte{"": nil}}, want: `extended attribute ""`},
		"large attribute":   {add: Object{Path: "a", Xattrs: map[string][]byte{"user.x": make([]byte, 40000)}}, want: "of 40000 bytes"},
		"large attributes": {add: Object{Path: "a", Xattrs: map[string][]byte{
			"user.x": make([]byte, 30000), "user.y": make([]byte, 30000), "user.z": make([]byte, 30000),
		}}, want: "more than 65536"},
		"device with all of it": {add: Object{
			Path: "a", Mode: fs.ModeDevice | 0o405,
			Xattrs: map[string][]byte{"user.x": make([]byte, 300)},
		}, want: "do not fit"},
		"snapshot name": {o: Options{Name: "x"}, add: Object{Path: "a"}, want: `snapshot name "x"`},
		"lz4 and zpl4":  {o: Options{Profile: ZPL4, LZ4: true}, add: Object{Path: "a"}, want: "LZ4 with zpl4"},
		"profile":       {o: Options{Profile: 9}, add: Object{Path: "a"}, want: "profile 9: not known"},
	} {
		f := newTree()
		f.file("file", nil)
		f.dir("dir")
		f.put(Object{Path: "link", Link: "file"})
		_, err := NewStream(func(yield func(*Object, error) bool) {
			for o, err := range f.objects() {
				if !yield(o, err) {
					return
				}
			}
			yield(&c.add, nil)
		}, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func TestNewStreamReportsAllProblems(t *testing.T) {
	f := newTree()
	for i := range 80 {
		f.file(fmt.Sprint(i), nil).UID = -1
	}
	_, err := NewStream(f.objects(), Options{})
	if err == nil {
		t.Fatal("no error")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxErrors+1 || lines[maxErrors] != "and 30 more" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestNewStreamWithoutRoot(t *testing.T) {
	for _, f := range []tree{{}, {"a": {Path: "a"}}} {
		if _, err := NewStream(f.objects(), Options{}); err == nil || !strings.Contains(err.Error(), "the root is missing") {
			t.Errorf("%d objects: error %v", len(f), err)
		}
	}
	broken := errors.New("broken")
	var seq iter.Seq2[*Object, error] = func(yield func(*Object, error) bool) { yield(nil, broken) }
	if _, err := NewStream(seq, Options{}); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the iterator", err)
	}
}

// badContent fails in a way of its choice.
type badContent struct {
	extents []Extent
	short   bool
	close   error
}

func (b badContent) ReadAt(p []byte, _ int64) (int, error) {
	if b.short {
		return len(p) / 2, nil
	}
	return len(p), nil
}
func (b badContent) Extents() []Extent { return b.extents }
func (b badContent) Close() error      { return b.close }

type brokenWriter struct{ after int }

var errFull = errors.New("no space left")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	const size = 300000
	all := []Extent{{0, size}}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		open func() (Content, error)
		want string
	}{
		"open":       {func() (Content, error) { return nil, broken }, `object "f": broken`},
		"close":      {func() (Content, error) { return badContent{extents: all, close: broken}, nil }, `object "f": broken`},
		"short":      {func() (Content, error) { return badContent{extents: all, short: true}, nil }, `object "f": content at byte 0: unexpected EOF`},
		"outside":    {func() (Content, error) { return badContent{extents: []Extent{{1, size}}}, nil }, "not ascending, or outside"},
		"descending": {func() (Content, error) { return badContent{extents: []Extent{{10, 5}, {14, 1}}}, nil }, "not ascending"},
		"negative":   {func() (Content, error) { return badContent{extents: []Extent{{-1, 5}}}, nil }, "not ascending"},
	} {
		f := newTree()
		f.put(Object{Path: "f", Size: size, Digest: [32]byte{1}, Open: c.open})
		err := f.stream(t, Options{}).Write(context.Background(), new(brokenWriter))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	s := allKinds().stream(t, Options{})
	for _, n := range []int{0, 1 << 20, 5 << 20} {
		if err := s.Write(context.Background(), &brokenWriter{n}); !errors.Is(err, errFull) {
			t.Errorf("writer that takes %d bytes: error %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Write(ctx, new(writer)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}

// Golden guids: a change here is a change of every stream that hosts have.
func TestGUIDIsStable(t *testing.T) {
	f := newTree()
	f.file("etc/motd", []byte("golden\n"))
	for _, c := range []struct {
		o    Options
		want uint64
	}{
		{Options{}, 0x29c22713aaaa1977},
		{Options{Profile: ZPL4, Platform: Illumos, Layout: ZonePath, Created: time.Unix(1, 0)}, 0xcae947420d29b20f},
	} {
		if got := f.stream(t, c.o).GUID(); got != c.want {
			t.Errorf("%+v: guid %#x, want %#x", c.o, got, c.want)
		}
	}
}
