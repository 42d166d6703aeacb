// Package kindtest is the suite that every artifact kind has to pass. A kind's own test calls
// [Run] with its block of the spec and an independent decoder of what it writes.
package kindtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A Kind is what is tested.
type Kind struct {
	// Block is the text of the artifact block, such as `zone { compression = "none" }`.
	Block string
	// Artifact is the name of the artifact that holds the root.
	Artifact string
	// Decode reads the artifact with code that the writer does not use, and returns what it holds
	// in the form of [Describe].
	Decode func(r io.Reader) (map[string]string, error)
	// Loses names what the format cannot hold of an entry, which is then left out of the tree.
	Loses func(e *image.Entry) bool
	// Few leaves out the tree of very many entries: another block of the same kind has had it.
	Few bool
}

// A tree is one test case.
var trees = []struct {
	name string
	fill func(t *image.Tree) error
}{
	{"skeleton", func(*image.Tree) error { return nil }},
	{"every type", everyType},
	{"names", names},
	{"sizes", sizes},
	{"many", func(t *image.Tree) error {
		for i := range 100_000 {
			e := image.Entry{Name: fmt.Sprintf("srv/%02x/%d", i&0xff, i), Mode: 0o644, ModTime: stamp}
			if err := t.Put(e, []byte(e.Name)); err != nil {
				return err
			}
		}
		return nil
	}},
}

var stamp = time.Unix(1700000000, 0).UTC()

func putAll(t *image.Tree, entries []image.Entry) error {
	for _, e := range entries {
		e.ModTime = stamp
		var data []byte
		if e.IsRegular() && e.HardLink == "" {
			data = []byte("content of " + e.Name + "\n")
		}
		if err := t.Put(e, data); err != nil {
			return err
		}
	}
	return nil
}

func everyType(t *image.Tree) error {
	return putAll(t, []image.Entry{
		{Name: "dev/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Rdev: image.Device{Major: 1, Minor: 3}},
		{Name: "dev/sda", Mode: fs.ModeDevice | 0o660, GID: 6, Rdev: image.Device{Major: 8}},
		{Name: "run/fifo", Mode: fs.ModeNamedPipe | 0o600},
		{Name: "usr/bin/su", Mode: image.ModeOf(0o6755, 0)},
		{Name: "usr/bin/zz-link", HardLink: "usr/bin/su"},
		{Name: "aa-link", HardLink: "usr/bin/su"},
		{Name: "tmp/sticky", Mode: image.ModeOf(0o1777, fs.ModeDir)},
		{Name: "usr/link", Mode: fs.ModeSymlink | 0o777, Target: "../nowhere at all"},
		{Name: "usr/bin/ping", Mode: 0o755, Xattrs: map[string][]byte{"security.capability": {1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0}}},
		{Name: "home/big", Mode: 0o600, UID: 3_000_000_000, GID: 2_500_000},
		{Name: "home/small", Mode: 0, UID: 65534, GID: 65534},
	})
}

func names(t *image.Tree) error {
	return putAll(t, []image.Entry{
		{Name: strings.Repeat("n", 255), Mode: 0o644},
		{Name: strings.Repeat("directory-of-a-long-name/", 20) + "file", Mode: 0o644},
		{Name: "bytes-\xff\xfe", Mode: 0o644},
		{Name: "ümläut/文", Mode: 0o644},
		{Name: " leading", Mode: 0o644},
		{Name: "new\nline", Mode: 0o644},
		{Name: "a-b", Mode: 0o644},
		{Name: "a/b", Mode: 0o644}, // after a-b in the order of bytes, before it in that of directories
		{Name: "long-target", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("t/", 1500)},
	})
}

func sizes(t *image.Tree) error {
	sparse := make([]byte, 3<<20)
	copy(sparse[1<<20:], "in the middle")
	for name, data := range map[string][]byte{
		"empty": nil, "one": {1}, "block": bytes.Repeat([]byte{7}, 4096), "more": bytes.Repeat([]byte{7}, 4097),
		"frame": bytes.Repeat([]byte("0123456789abcdef"), image.Frame/16), "sparse": sparse, "hole": make([]byte, 1<<20),
	} {
		if err := t.Put(image.Entry{Name: "srv/" + name, Mode: 0o644, ModTime: stamp}, data); err != nil {
			return err
		}
	}
	return nil
}

// Describe says in a line what an entry is, for comparison with what a decoder found.
func Describe(mode fs.FileMode, uid, gid int, mtime time.Time, rdev image.Device, target string, size int64, digest [32]byte) string {
	s := fmt.Sprintf("%v %04o %d:%d", mode.Type(), image.Perm(mode), uid, gid)
	switch {
	case mode.IsRegular():
		return s + fmt.Sprintf(" %d %d %x", mtime.Unix(), size, digest)
	case mode.Type() == fs.ModeSymlink:
		return s + fmt.Sprintf(" %d -> %q", mtime.Unix(), target)
	case mode&fs.ModeDevice != 0:
		return s + fmt.Sprintf(" %d %d,%d", mtime.Unix(), rdev.Major, rdev.Minor)
	}
	return s + fmt.Sprintf(" %d", mtime.Unix())
}

// want is what a decoder must find.
func want(t *image.Tree) map[string]string {
	m := map[string]string{}
	for e := range t.All() {
		m[e.Name] = Describe(e.Mode, e.UID, e.GID, e.ModTime, e.Rdev, e.Target, e.Size, e.Digest)
	}
	return m
}

// Run runs the suite.
func Run(t *testing.T, k Kind) {
	for _, c := range trees {
		if c.name == "many" && k.Few {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.name == "many" && testing.Short() {
				t.Skip("takes long")
			}
			b := k.prepare(t, c.fill)
			first := k.write(t, b, t.TempDir())
			if second := k.write(t, b, t.TempDir()); !bytes.Equal(first, second) {
				t.Error("written twice, other bytes")
			}
			old := runtime.GOMAXPROCS(1)
			if third := k.write(t, b, t.TempDir()); !bytes.Equal(first, third) {
				t.Error("written by one thread, other bytes")
			}
			runtime.GOMAXPROCS(old)
			got, err := k.Decode(bytes.NewReader(first))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, want(b.Source.Tree))
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		b := k.prepare(t, sizes)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l := layout(t, t.TempDir())
		if _, err := b.Write(ctx, l, "t", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that of the context", err)
		}
		empty(t, l)
	})
	t.Run("no room", func(t *testing.T) {
		b := k.prepare(t, sizes)
		l := layout(t, t.TempDir())
		// A folder that cannot be written to is the one failure to write that a test can have anywhere.
		if err := os.Chmod(l.Dir(), 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(l.Dir(), 0o700)
		if f, err := os.Create(filepath.Join(l.Dir(), "probe")); err == nil {
			f.Close()
			os.Remove(f.Name())
			return // root may write anyway: the tests of a full disk see to this
		}
		if _, err := b.Write(t.Context(), l, "t", nil); err == nil {
			t.Error("written into a folder that cannot be written to")
		}
	})
}

func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if g, ok := got[name]; !ok {
			t.Errorf("%.80q is missing", name)
		} else if g != w {
			t.Errorf("%.80q: %s, want %s", name, g, w)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%.80q was not in the tree", name)
		}
	}
}

// prepare makes a tree of the skeleton and what fill puts, without what the kind loses.
func (k Kind) prepare(t *testing.T, fill func(*image.Tree) error) *builder.Built {
	t.Helper()
	text := "image {\n  name = \"t\"\n  version = \"1\"\n  os = \"linux\"\n  arch = \"amd64\"\n}\nbase {\n  source = \"skeleton:linux\"\n}\nprofile {\n  name = \"none\"\n}\n" + k.Block + "\n"
	s, diags := builder.ParseSpec(filepath.Join(t.TempDir(), "t.isc.hcl"), []byte(text), builder.Options{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	b, err := builder.Prepare(t.Context(), s, builder.BuildOptions{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	tree, err := image.NewTree(t.TempDir(), image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	if err := copyTree(tree, b.Source.Tree); err != nil {
		t.Fatal(err)
	}
	if err := fill(tree); err != nil {
		t.Fatal(err)
	}
	if k.Loses != nil {
		var lost []string
		for e := range tree.All() {
			if k.Loses(e) {
				lost = append(lost, e.Name)
			}
		}
		for _, name := range lost {
			if err := tree.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	tree.Freeze(stamp.Add(24 * time.Hour))
	b.Source.Tree = tree
	return b
}

// copyTree copies a frozen tree, which cannot be edited.
func copyTree(to, from *image.Tree) error {
	for e := range from.All() {
		var data []byte
		if e.IsRegular() {
			var err error
			if data, err = from.ReadFile(e.Name); err != nil {
				return err
			}
		}
		if err := to.Put(*e, data); err != nil {
			return err
		}
	}
	return nil
}

func layout(t *testing.T, dir string) *registry.Layout {
	t.Helper()
	l, err := registry.CreateLayout(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// write returns the bytes of the artifact.
func (k Kind) write(t *testing.T, b *builder.Built, dir string) []byte {
	t.Helper()
	l := layout(t, dir)
	digest, err := b.Write(t.Context(), l, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := registry.ReadImage(t.Context(), l, digest)
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Open(t.Context(), k.Artifact)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// empty wants a layout without any blob.
func empty(t *testing.T, l *registry.Layout) {
	t.Helper()
	err := filepath.WalkDir(l.Dir(), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "index.json" && e.Name() != "oci-layout" {
			t.Errorf("left in the layout: %s", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
