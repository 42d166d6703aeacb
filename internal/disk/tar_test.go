package disk

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// A testRoot is a root to make disks of.
type testRoot struct {
	objects []*Object
}

// all yields the objects, each directory before what is in it.
func (r *testRoot) all() iter.Seq2[*Object, error] {
	return func(yield func(*Object, error) bool) {
		for _, o := range r.objects {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// put adds an object, or replaces the one of its name.
func (r *testRoot) put(o *Object) {
	if i := slices.IndexFunc(r.objects, func(p *Object) bool { return p.Path == o.Path }); i >= 0 {
		r.objects[i] = o
		return
	}
	r.objects = append(r.objects, o)
}

// dir and file make objects with parents that are there.
func (r *testRoot) dir(name string, mode fs.FileMode) {
	r.put(&Object{Path: name, Mode: fs.ModeDir | mode, ModTime: time.Unix(1700000000, 5)})
}

func (r *testRoot) link(name, target string) {
	r.put(&Object{Path: name, Mode: fs.ModeSymlink | 0o777, Target: target, ModTime: time.Unix(1700000000, 0)})
}

func (r *testRoot) file(name string, mode fs.FileMode, data string) *Object {
	o := &Object{
		Path: name, Mode: mode, ModTime: time.Unix(1700000000, 0), Size: int64(len(data)), Digest: sha256.Sum256([]byte(data)),
		Open: func() (Content, error) {
			return testContent{bytes.NewReader([]byte(data)), []Extent{{0, int64(len(data))}}}, nil
		},
	}
	r.put(o)
	return o
}

func (r *testRoot) remove(name string) {
	r.objects = slices.DeleteFunc(r.objects, func(o *Object) bool { return o.Path == name || strings.HasPrefix(o.Path, name+"/") })
}

type testContent struct {
	io.ReaderAt
	extents []Extent
}

func (c testContent) Extents() []Extent { return c.extents }
func (testContent) Close() error        { return nil }

// readTar makes a root of an archive, whose content stays where it is.
func readTar(tb testing.TB, name string) *testRoot {
	tb.Helper()
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	r := &testRoot{}
	src := &counted{r: f}
	for t := tar.NewReader(src); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			r.sort()
			return r
		}
		if err != nil {
			tb.Fatal(err)
		}
		o := &Object{
			Path: path.Clean(strings.TrimPrefix(h.Name, "/")), Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid, ModTime: h.ModTime,
			Rdev: Device{uint32(h.Devmajor), uint32(h.Devminor)},
		}
		for k, v := range h.PAXRecords {
			if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				if o.Xattrs == nil {
					o.Xattrs = map[string][]byte{}
				}
				o.Xattrs[x] = []byte(v)
			}
		}
		switch h.Typeflag {
		case tar.TypeLink:
			o = &Object{Path: o.Path, Link: path.Clean(h.Linkname)}
		case tar.TypeSymlink:
			o.Target = h.Linkname
		case tar.TypeReg:
			at, size := src.n, h.Size
			sum := sha256.New()
			if _, err := io.Copy(sum, t); err != nil {
				tb.Fatal(err)
			}
			o.Size, o.Digest = size, [32]byte(sum.Sum(nil))
			o.Open = func() (Content, error) {
				return testContent{io.NewSectionReader(f, at, size), []Extent{{0, size}}}, nil
			}
		}
		r.objects = append(r.objects, o)
	}
}

// sort puts the objects in the order that Build takes.
func (r *testRoot) sort() {
	key := func(o *Object) string {
		if o.Path == "." {
			return ""
		}
		return strings.ReplaceAll(o.Path, "/", "\x00")
	}
	slices.SortStableFunc(r.objects, func(a, b *Object) int { return strings.Compare(key(a), key(b)) })
	byName := map[string]*Object{}
	for _, o := range r.objects {
		byName[o.Path] = o
	}
	for _, o := range r.objects {
		if first := byName[o.Link]; o.Link != "" && key(first) > key(o) {
			link := *first
			*first = Object{Path: first.Path, Link: o.Path}
			link.Path = o.Path
			for _, other := range r.objects {
				if other.Link == first.Path {
					other.Link = o.Path
				}
			}
			*o = link
		}
	}
	if byName["."] == nil {
		root := &Object{Path: ".", Mode: fs.ModeDir | 0o755, ModTime: time.Unix(1700000000, 0)}
		r.objects = append([]*Object{root}, r.objects...)
	}
}

// counted counts what was read, as the archive's reader reads blocks.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// writeDisk writes what a disk has to a file with holes.
func writeDisk(tb testing.TB, d *Disk, name string) {
	tb.Helper()
	f, err := os.Create(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(d.Size); err != nil {
		tb.Fatal(err)
	}
	for _, x := range d.Extents {
		if _, err := io.Copy(io.NewOffsetWriter(f, x.Offset), io.NewSectionReader(d, x.Offset, x.Length)); err != nil {
			tb.Fatal(err)
		}
	}
}

// cut writes a partition to a file of its own.
func cut(tb testing.TB, g *Guest, part, name string) string {
	tb.Helper()
	for _, p := range g.Partitions {
		if p.Name != part {
			continue
		}
		f, err := os.Create(name)
		if err != nil {
			tb.Fatal(err)
		}
		defer f.Close()
		if _, err := io.Copy(f, io.NewSectionReader(g.System, p.Offset, p.Length)); err != nil {
			tb.Fatal(err)
		}
		return name
	}
	tb.Fatalf("no partition %q", part)
	return ""
}
