package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func newTree(t testing.TB) *Tree {
	t.Helper()
	tree, err := NewTree(t.TempDir(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func put(t testing.TB, tree *Tree, e Entry, data string) {
	t.Helper()
	if err := tree.Put(e, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func names(tree *Tree) string {
	var list []string
	for e := range tree.All() {
		list = append(list, e.Name)
	}
	return strings.Join(list, " ")
}

func TestPutAndRemove(t *testing.T) {
	tree := newTree(t)
	put(t, tree, Entry{Name: "usr/bin", Mode: fs.ModeDir | 0o755}, "")
	put(t, tree, Entry{Name: "bin", Mode: fs.ModeSymlink | 0o777, Target: "usr/bin"}, "")
	put(t, tree, Entry{Name: "/bin/sh", Mode: 0o755}, "#!") // through the link
	put(t, tree, Entry{Name: "usr/bin/zz", HardLink: "bin/sh"}, "")
	put(t, tree, Entry{Name: "a", HardLink: "usr/bin/sh"}, "")
	if got := names(tree); got != ". a bin usr usr/bin usr/bin/sh usr/bin/zz" {
		t.Fatalf("names %q", got)
	}
	put(t, tree, Entry{Name: "usr/bin/sh", Mode: 0o700}, "new") // parted from the others
	for name, want := range map[string]string{"usr/bin/sh": "new", "usr/bin/zz": "#!", "a": "#!"} {
		if data, err := tree.ReadFile(name); err != nil || string(data) != want {
			t.Errorf("%s holds %q, %v; want %q", name, data, err, want)
		}
	}
	if e, _ := tree.Stat("a"); tree.Nlink(e) != 2 {
		t.Errorf("a has %d names", tree.Nlink(e))
	}
	if err := tree.Put(Entry{Name: "usr", Mode: 0o644}, nil); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a file in the place of a full directory: %v", err)
	}
	if err := tree.Remove("usr"); err != nil {
		t.Fatal(err)
	}
	if data, err := tree.ReadFile("a"); err != nil || string(data) != "#!" {
		t.Errorf("a holds %q, %v", data, err)
	}
	if err := tree.Remove("usr"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed again: %v", err)
	}
	if err := tree.Remove("."); err == nil {
		t.Error("the root was removed")
	}
	tree.Freeze(time.Time{})
	if err := tree.Put(Entry{Name: "late"}, nil); !errors.Is(err, ErrFrozen) {
		t.Errorf("put after freezing: %v", err)
	}
	if err := tree.Remove("a"); !errors.Is(err, ErrFrozen) {
		t.Errorf("remove after freezing: %v", err)
	}
}

func TestSymbolicLinksStayInside(t *testing.T) {
	tree := newTree(t)
	put(t, tree, Entry{Name: "etc/passwd", Mode: 0o644}, "x")
	put(t, tree, Entry{Name: "up", Mode: fs.ModeSymlink, Target: "../../../.."}, "")
	put(t, tree, Entry{Name: "abs", Mode: fs.ModeSymlink, Target: "/etc"}, "")
	put(t, tree, Entry{Name: "loop", Mode: fs.ModeSymlink, Target: "loop"}, "")
	for _, name := range []string{"up/etc/passwd", "abs/passwd", "up/abs/passwd"} {
		if data, err := tree.ReadFile(name); err != nil || string(data) != "x" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if _, err := tree.Stat("loop/x"); err == nil || !strings.Contains(err.Error(), "too many levels") {
		t.Errorf("loop: %v", err)
	}
}

// TestFreezeIsCanonical makes one tree in several orders of its names.
func TestFreezeIsCanonical(t *testing.T) {
	objects := []Entry{
		{Name: "d", Mode: fs.ModeDir | 0o755},
		{Name: "d-x", Mode: 0o644},
		{Name: "d/one", Mode: 0o644},
		{Name: "m", Mode: 0o644},
		{Name: "z", Mode: 0o4755},
	}
	links := []Entry{{Name: "a"}, {Name: "d/two"}, {Name: "y"}}
	var want string
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		tree := newTree(t)
		for _, i := range r.Perm(len(objects)) {
			put(t, tree, objects[i], objects[i].Name)
		}
		names := []string{"m", "a", "d/two", "y"}
		for n, i := range r.Perm(len(links)) {
			l := links[i]
			l.HardLink = "m"
			if n > 0 && r.IntN(2) == 0 {
				l.HardLink = links[r.Perm(len(links))[0]].Name
				if _, err := tree.Stat(l.HardLink); err != nil || l.HardLink == l.Name {
					l.HardLink = "m"
				}
			}
			put(t, tree, l, "")
		}
		got := mtree(t, tree)
		if want == "" {
			want = got
			if !strings.Contains(got, `"links":[["./a","./d/two","./m","./y"]]`) {
				t.Errorf("links of %v:\n%s", names, got)
			}
		} else if got != want {
			t.Fatalf("seed %d:\n%s\nwant:\n%s", seed, got, want)
		}
		if data, err := tree.ReadFile("a"); err != nil || string(data) != "m" {
			t.Fatalf("a holds %q, %v", data, err)
		}
	}
}

func TestHoles(t *testing.T) {
	data := make([]byte, 10*block+100)
	copy(data[block:], "first")
	copy(data[7*block+5:], "second")
	want := []Extent{{block, block}, {7 * block, block}, {10 * block, 100}}
	check := func(t *testing.T, tree *Tree, name string) {
		t.Helper()
		f, err := tree.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got := f.Extents(); !slices.Equal(got, want) {
			t.Errorf("extents %v, want %v", got, want)
		}
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size())); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		for _, at := range []int64{0, 1, block - 3, 7*block + 5, 10*block + 90} {
			got := make([]byte, 2*block)
			n, err := f.ReadAt(got, at)
			if !bytes.Equal(got[:n], data[at:min(at+2*block, int64(len(data)))]) || (n < len(got)) != (err == io.EOF) {
				t.Errorf("ReadAt(%d): %d bytes, %v", at, n, err)
			}
		}
	}
	tree := newTree(t)
	put(t, tree, Entry{Name: "f", Mode: 0o644}, string(data))
	put(t, tree, Entry{Name: "zeros", Mode: 0o644}, string(make([]byte, 3*block)))
	check(t, tree, "f")
	if f, err := tree.Open("zeros"); err != nil || len(f.Extents()) != 0 || f.Size() != 3*block {
		t.Errorf("zeros: %v", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "f", Size: int64(len(data)), Typeflag: tar.TypeReg, Mode: 0o644})
	w.Write(data)
	w.Close()
	for _, r := range []io.Reader{&b, temp(t, bytes.Clone(b.Bytes()))} {
		tree, err := ReadTar(context.Background(), r, Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		check(t, tree, "f")
	}
}

func TestReadDirAndTarAgree(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("folders have no Unix modes on Windows")
	}
	dir := t.TempDir()
	at := time.Unix(1700000000, 0)
	for name, data := range map[string]string{"etc/passwd": "root", "etc/empty": "", "opt/z": "z", "usr/bin/a": "a"} {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.Link(filepath.Join(dir, "opt/z"), filepath.Join(dir, "etc/z")),
		os.Symlink("/outside/../..", filepath.Join(dir, "usr/link")),
		os.Chmod(filepath.Join(dir, "usr/bin/a"), 0o755|fs.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { return os.Chtimes(p, at, at) })
	tree, err := ReadDir(context.Background(), dir, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	tree.Freeze(at)
	var b bytes.Buffer
	if err := WriteTar(context.Background(), &b, tree, Pax, nil); err != nil {
		t.Fatal(err)
	}
	got, want := mtree(t, mustRead(t, b.Bytes())), mtree(t, tree)
	if got != want {
		t.Errorf("from the archive:\n%s\nfrom the folder:\n%s", got, want)
	}
	for _, line := range []string{"./usr/bin/a type=file mode=04755", "./usr/link type=link mode=0777", `[["./etc/z","./opt/z"]]`} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
}

func TestReadDirRefuses(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are others on Windows")
	}
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		_, err := ReadDir(context.Background(), dir, Options{Dir: t.TempDir()})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "secret") {
			t.Errorf("unreadable: %v", err)
		}
	}
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := ReadDir(context.Background(), dir, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := os.WriteFile(secret, []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Open("secret"); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("a changed file: %v", err)
	}
	if _, err := ReadDir(context.Background(), filepath.Join(dir, "nothing"), Options{Dir: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}

func TestLayers(t *testing.T) {
	opq := func(dir string) tar.Header { return file(dir + "/.wh..wh..opq") }
	for name, c := range map[string]struct {
		layers [][]tar.Header
		want   string // names but the root
		err    string
	}{
		"whiteout of a file":              {[][]tar.Header{{file("a"), file("b")}, {file(".wh.a")}}, "b", ""},
		"whiteout of a directory":         {[][]tar.Header{{file("d/x/y"), file("e")}, {file(".wh.d")}}, "e", ""},
		"whiteout first, then the same":   {[][]tar.Header{{file("d/old")}, {file(".wh.d"), file("d/new")}}, "d d/new", ""},
		"whiteout last, then the same":    {[][]tar.Header{{file("d/old")}, {file("d/new"), file(".wh.d")}}, "d d/new", ""},
		"opaque":                          {[][]tar.Header{{file("d/a"), file("d/e/f")}, {file("d/b"), opq("d")}}, "d d/b", ""},
		"opaque spares its own layer":     {[][]tar.Header{{file("d/a")}, {opq("d"), file("d/a")}}, "d d/a", ""},
		"file in the place of a folder":   {[][]tar.Header{{file("d/a")}, {file("d")}}, "d", ""},
		"folder in the place of a file":   {[][]tar.Header{{file("d")}, {dir("d/"), file("d/a")}}, "d d/a", ""},
		"through a link of a lower layer": {[][]tar.Header{{dir("usr/bin/"), symlink("bin", "usr/bin")}, {file("bin/x")}}, "bin usr usr/bin usr/bin/x", ""},
		"through a link, outside":         {[][]tar.Header{{symlink("up", "../../..")}, {file("up/x")}}, "up x", ""},
		"hard link to a lower layer":      {[][]tar.Header{{file("a")}, {link("b", "a")}}, "a b", ""},
		"hard link, target whited out":    {[][]tar.Header{{file("a")}, {link("b", "a"), file(".wh.a")}}, "b", ""},
		"bookkeeping of AUFS":             {[][]tar.Header{{file("a"), file(".wh..wh.plnk/1"), file(".wh..wh.aufs")}}, "a", ""},
		"whiteout of dot dot":             {[][]tar.Header{{file("d/.wh...")}}, "", "whiteout of nothing"},
		"dot dot":                         {[][]tar.Header{{file("../a")}}, "", "leaves the root"},
		"below a file":                    {[][]tar.Header{{file("a")}, {file("a/b")}}, "", "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := newTree(t)
			var err error
			for _, headers := range c.layers {
				if err == nil {
					err = tree.AddLayer(context.Background(), bytes.NewReader(archive(t, headers...)), nil)
				}
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimPrefix(names(tree), ". "); got != c.want {
				t.Errorf("names %q, want %q", got, c.want)
			}
			if err := WriteTar(context.Background(), io.Discard, tree, Pax, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMatcher(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"/var/log/**", "var/log/a/b", true},
		{"/var/log/**", "var/log", true},
		{"var/log/**", "var/logs", false},
		{"**/x", "x", true},
		{"**/x", "a/b/x", true},
		{"a/**/x", "a/x", true},
		{"a/**/x", "a/b/c/x", true},
		{"a/**/x", "a/b/c/y", false},
		{"etc/*.conf", "etc/a.conf", true},
		{"etc/*.conf", "etc/d/a.conf", false},
		{"etc/ssh/ssh_host_*", "etc/ssh/ssh_host_rsa_key", true},
		{"**", "anything/at/all", true},
	} {
		m, err := NewMatcher(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
	for _, bad := range []string{"", "a//b", "[", "../x", "**/**"} {
		if _, err := NewMatcher(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestMemoryPerEntry holds what an entry of a frozen tree may cost beyond its name.
func TestMemoryPerEntry(t *testing.T) {
	if size := unsafe.Sizeof(node{}) + unsafe.Sizeof((*node)(nil)); size > 200 {
		t.Errorf("an entry costs %d bytes, more than 200", size)
	}
}

func TestHundredThousandEntries(t *testing.T) {
	tree := newTree(t)
	for i := range 100_000 {
		put(t, tree, Entry{Name: fmt.Sprintf("d%d/%d", i%97, i), Mode: 0o644}, "")
	}
	want := mtree(t, tree)
	var b bytes.Buffer
	if err := WriteTar(context.Background(), &b, tree, USTARStrict, nil); err != nil {
		t.Fatal(err)
	}
	if got := mtree(t, mustRead(t, b.Bytes())); got != want {
		t.Error("read back, another tree")
	}
}

func FuzzAddLayer(f *testing.F) {
	f.Add(archive(f, file("d/a"), symlink("l", "d"), link("h", "d/a")), archive(f, file("d/.wh.a"), file("l/b"), file("d/.wh..wh..opq")))
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		tree, err := NewTree(t.TempDir(), Limits{Entries: 1000, Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		for _, layer := range [][]byte{lower, upper} {
			if err := tree.AddLayer(context.Background(), bytes.NewReader(layer), nil); err != nil {
				return
			}
		}
		tree.Freeze(time.Time{})
		// A tree that was accepted can be walked, written and read as an archive.
		var b bytes.Buffer
		if err := WriteTar(context.Background(), &b, tree, Pax, nil); err != nil {
			t.Fatal(err)
		}
		again, err := ReadTar(context.Background(), &b, Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatalf("%v: names %q", err, names(tree))
		}
		again.Close()
	})
}

func FuzzReadContent(f *testing.F) {
	tree := mustRead(f, everything(f))
	tree.Freeze(time.Time{})
	c := NewContent(tree)
	var m, o bytes.Buffer
	if err := errors.Join(c.WriteMtree(&m), c.WriteObjects(&o)); err != nil {
		f.Fatal(err)
	}
	f.Add(m.Bytes(), o.Bytes())
	f.Add([]byte("#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"), []byte(`{"schema":1,"links":[],"xattrs":[]}`+"\n"))
	f.Fuzz(func(t *testing.T, mtree, objects []byte) {
		c, err := ReadContent(bytes.NewReader(mtree), bytes.NewReader(objects))
		if err != nil {
			return
		}
		var m, o bytes.Buffer
		if err := errors.Join(c.WriteMtree(&m), c.WriteObjects(&o)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Bytes(), mtree) || !bytes.Equal(o.Bytes(), objects) {
			t.Errorf("written again:\n%s%s\nread:\n%s%s", m.Bytes(), o.Bytes(), mtree, objects)
		}
	})
}

// TestReadContent reads back what was written, and refuses what is not canonical.
func TestReadContent(t *testing.T) {
	tree := mustRead(t, everything(t))
	tree.Freeze(time.Time{})
	c := NewContent(tree)
	var m, o bytes.Buffer
	if err := errors.Join(c.WriteMtree(&m), c.WriteObjects(&o)); err != nil {
		t.Fatal(err)
	}
	again, err := ReadContent(bytes.NewReader(m.Bytes()), bytes.NewReader(o.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for e := range tree.All() {
		got := again.Lookup(e.Name)
		if got == nil || got.Digest != e.Digest || got.HardLink != e.HardLink || got.Mode != e.Mode || len(got.Xattrs) != len(e.Xattrs) || again.Nlink(got) != tree.Nlink(e) {
			t.Errorf("%q: %+v, want %+v", e.Name, got, e)
		}
	}
	for name, c := range map[string]struct{ old, new, err string }{
		"unknown keyword":  {"./dev/null type=char", "./dev/null flags=x type=char", "flags"},
		"another order":    {"./dev/null type=char mode=0666", "./dev/null mode=0666 type=char", "canonical"},
		"out of order":     {"./dev/null ", "./zzz ", "out of order"},
		"outside":          {"./dev/null ", "./../null ", "leaves the root"},
		"absolute":         {"./dev/null ", "/dev/null ", "canonical"},
		"another escape":   {"bytes-\\377", "bytes-\\3777", ""},
		"a wrong nlink":    {"nlink=2", "nlink=3", "link count"},
		"no end":           {"", "", "no end"},
		"links not listed": {`[["./etc/passwd","./etc/zz"]]`, `[]`, "link count"},
		"links of others":  {`["./etc/passwd","./etc/zz"]`, `["./etc/link","./etc/zz"]`, "same object"},
		"twice":            {`"schema":1`, `"schema":1,"schema":1`, "twice"},
		"another schema":   {`"schema":1`, `"schema":2`, "schema"},
		"unknown member":   {`"schema":1`, `"schema":1,"more":1`, "more"},
		"unknown name":     {`"name":"./usr/bin/ping"`, `"name":"./usr/bin/pong"`, "not in the content manifest"},
		"trailing data":    {"]}\n", "]}\n{}", "after the document"},
	} {
		t.Run(name, func(t *testing.T) {
			mt, ob := m.String(), o.String()
			switch {
			case c.old == "":
				mt = strings.TrimSuffix(mt, "\n")
			case strings.Contains(mt, c.old):
				mt = strings.Replace(mt, c.old, c.new, 1)
			case strings.Contains(ob, c.old):
				ob = strings.Replace(ob, c.old, c.new, 1)
			default:
				t.Fatalf("nothing to change: %q", c.old)
			}
			_, err := ReadContent(strings.NewReader(mt), strings.NewReader(ob))
			if c.err == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

// TestReadDirOrder makes the same folder twice, its names in opposite orders, which is the order that
// some file systems list them in.
func TestReadDirOrder(t *testing.T) {
	at := time.Unix(1700000000, 0)
	var want []byte
	for _, reverse := range []bool{false, true} {
		dir := t.TempDir()
		list := []string{"a", "b/c", "b/d", "b-x", "z/y/x", "z/link"}
		if reverse {
			slices.Reverse(list)
		}
		for _, name := range list {
			p := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(name), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		first, second := "one", "two" // names of one object
		if reverse {
			first, second = second, first
		}
		if err := errors.Join(os.WriteFile(filepath.Join(dir, first), nil, 0o644), os.Link(filepath.Join(dir, first), filepath.Join(dir, second))); err != nil {
			t.Fatal(err)
		}
		filepath.WalkDir(dir, func(p string, _ fs.DirEntry, _ error) error { return os.Chtimes(p, at, at) })
		os.Chmod(dir, 0o755)
		tree, err := ReadDir(context.Background(), dir, Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		tree.Freeze(at)
		var b bytes.Buffer
		if err := WriteTar(context.Background(), &b, tree, Pax, nil); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = b.Bytes()
		} else if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("another order of names gives other bytes:\n%s", mtree(t, tree))
		}
	}
}
