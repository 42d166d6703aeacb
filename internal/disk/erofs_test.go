package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// sparse adds a file with holes, of which only the extents are data.
func (r *testRoot) sparse(name string, size int64, extents ...Extent) {
	o := r.file(name, 0o644, "")
	o.Size = size
	o.Digest = sha256.Sum256([]byte(name))
	o.Open = func() (Content, error) { return testContent{pattern{extents}, extents}, nil }
}

// pattern has other bytes everywhere in the extents.
type pattern struct{ extents []Extent }

func (c pattern) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for _, x := range c.extents {
		for at := max(off, x.Offset); at < min(off+int64(len(p)), x.Offset+x.Length); at++ {
			p[at-off] = byte(at*31 + at>>12 + 1)
		}
	}
	return len(p), nil
}

// oddRoot is a root with one of everything.
func oddRoot() *testRoot {
	r := &testRoot{}
	r.dir(".", 0o755)
	for _, dir := range []string{"dir", "empty", "many", "tmp"} {
		r.dir(dir, 0o755)
	}
	r.dir("tmp", fs.ModeSticky|0o777)
	r.file("dir/empty", 0o600, "")
	r.file("dir/one", 0o644, "1")
	r.file("dir/block", 0o644, strings.Repeat("b", 4096))
	r.file("dir/more", 0o644, strings.Repeat("m", 4097))
	r.file("dir/setuid", 0o755|fs.ModeSetuid, "program")
	o := r.file("dir/owned", fs.ModeSetgid|0o2, "x")
	o.UID, o.GID = 1<<31-1, 70000
	o = r.file("dir/attrs", 0o644, "x")
	o.Xattrs = map[string][]byte{
		"user.long": bytes.Repeat([]byte("v"), 5000), "user.none": nil, "security.capability": {1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"trusted.overlay.opaque": []byte("y"), "system.posix_acl_access": {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255},
	}
	r.put(&Object{Path: "dir/further", Link: "dir/one"})
	r.put(&Object{Path: "+before-dots", Link: "dir/one"})
	r.link("dir/short", "one")
	r.link("dir/long", strings.Repeat("l", maxTarget))
	r.link("dir/half", strings.Repeat("h", 2000))
	r.put(&Object{Path: "dir/tty", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o620, Rdev: Device{5, 1}})
	r.put(&Object{Path: "dir/disk", Mode: fs.ModeDevice | 0o660, Rdev: Device{259, 70000}})
	r.put(&Object{Path: "dir/fifo", Mode: fs.ModeNamedPipe | 0o600})
	r.put(&Object{Path: "dir/socket", Mode: fs.ModeSocket | 0o600, ModTime: time.Unix(-5, 0)})
	for i := range 1000 {
		r.file(fmt.Sprintf("many/%0*d", 1+i%200, i), 0o644, fmt.Sprint(i))
	}
	r.sparse("dir/hole-first", 100000, Extent{90000, 10000})
	r.sparse("dir/hole-last", 100000, Extent{0, 1})
	r.sparse("dir/hole-all", 12345678)
	r.sparse("dir/hole-far", 1<<40, Extent{4096, 4096}, Extent{1<<39 + 5, 70000})
	r.sparse("dir/no-hole", 10000, Extent{0, 5000}, Extent{5000, 5000})
	r.sort()
	return r
}

// A readEntry is an object as a reader of the image finds it.
type readEntry struct {
	mode       uint16
	uid, gid   uint32
	sec, size  int64
	nlink, dev uint32
	target     string
	content    string // digest
	xattrs     map[string]string
	nid        uint64
}

// readImage reads a file system image, by the description of the format alone.
func readImage(t *testing.T, e *erofs) map[string]*readEntry {
	t.Helper()
	le := binary.LittleEndian
	read := func(off, n int64) []byte {
		b := make([]byte, n)
		if _, err := e.ReadAt(b, off); err != nil {
			t.Fatalf("read %d at %d: %v", n, off, err)
		}
		return b
	}
	super := read(1024, 128)
	if le.Uint32(super) != 0xe0f5e1e2 || int64(le.Uint32(super[36:]))*4096 != e.size {
		t.Fatal("superblock")
	}
	found := map[string]*readEntry{}
	var visit func(name string, nid uint64, kind byte)
	visit = func(name string, nid uint64, kind byte) {
		at := int64(nid) * 32
		b := read(at, 64)
		format := le.Uint16(b)
		n := &readEntry{
			mode: le.Uint16(b[4:]), size: int64(le.Uint64(b[8:])), uid: le.Uint32(b[24:]), gid: le.Uint32(b[28:]),
			sec: int64(le.Uint64(b[32:])), nlink: le.Uint32(b[44:]), nid: nid, xattrs: map[string]string{},
		}
		if format&1 != 1 || found[name] != nil {
			t.Fatalf("%s: format %x, or twice", name, format)
		}
		found[name] = n
		at += 64
		if count := int64(le.Uint16(b[2:])); count > 0 {
			x := read(at, 12+4*(count-1))
			at += int64(len(x))
			for x = x[12:]; len(x) > 0; {
				nameLen, size := int(x[0]), int(le.Uint16(x[2:]))
				prefix := map[byte]string{1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}[x[1]]
				n.xattrs[prefix+string(x[4:4+nameLen])] = string(x[4+nameLen : 4+nameLen+size])
				x = x[(4+nameLen+size+3)&^3:]
			}
		}
		block := int64(le.Uint32(b[16:]))
		data := func(i int64) []byte { // block i of the content
			length := min(4096, n.size-i*4096)
			switch layout := format >> 1; {
			case layout == 4:
				chunkBits := 12 + int64(b[16]&31)
				start := le.Uint32(read(at+4*(i*4096>>chunkBits), 4))
				if start == 0xffffffff {
					return make([]byte, length)
				}
				return read(int64(start)*4096+i*4096&(1<<chunkBits-1), length)
			case layout == 2 && i == n.size/4096:
				if at/4096 != (at+length-1)/4096 {
					t.Errorf("%s: what is inline crosses a block", name)
				}
				return read(at, length)
			}
			return read((block+i)*4096, length)
		}
		switch n.mode >> 12 {
		case 0o10:
			if n.size > 1<<30 {
				for _, i := range []int64{0, 1, 2, 1 << 27, 1<<27 + 1, 1<<27 + 18, 1<<28 - 1} {
					n.content += fmt.Sprintf("%x", sha256.Sum256(data(i)))
				}
				break
			}
			h := sha256.New()
			for i := int64(0); i*4096 < n.size; i++ {
				h.Write(data(i))
			}
			n.content = fmt.Sprintf("%x", h.Sum(nil))
		case 0o12:
			n.target = string(data(0))
		case 0o02, 0o06:
			n.dev = uint32(block)
		case 0o04:
			last := ""
			for i := int64(0); i*4096 < n.size; i++ {
				d := data(i)
				count := int(le.Uint16(d[8:]) / 12)
				for j := range count {
					e := d[12*j:]
					end := len(d)
					if j+1 < count {
						end = int(le.Uint16(e[20:]))
					}
					child := string(trimNUL(d[le.Uint16(e[8:]):end]))
					if child <= last {
						t.Errorf("%s: %q after %q", name, child, last)
					}
					last = child
					if child != "." && child != ".." {
						visit(path.Join(name, child), le.Uint64(e), e[10])
					}
				}
			}
		}
		if want := map[uint16]byte{0o10: 1, 0o04: 2, 0o02: 3, 0o06: 4, 0o01: 5, 0o14: 6, 0o12: 7}[n.mode>>12]; kind != want {
			t.Errorf("%s: directory says type %d, not %d", name, kind, want)
		}
	}
	visit(".", uint64(le.Uint16(super[14:])), 2)
	return found
}

func image(t *testing.T, r *testRoot) *erofs {
	t.Helper()
	root, err := readRoot(r.all())
	if err != nil {
		t.Fatal(err)
	}
	e, err := writeEROFS(root)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEROFS(t *testing.T) {
	r := oddRoot()
	e := image(t, r)
	if e.size > 48<<20 {
		t.Errorf("%d bytes: holes take room", e.size)
	}
	found := readImage(t, e)
	if len(found) != len(r.objects) {
		t.Errorf("%d objects, want %d", len(found), len(r.objects))
	}
	byName := map[string]*Object{}
	links := map[string]uint32{}
	for _, o := range r.objects {
		byName[o.Path] = o
		if o.Link != "" {
			links[o.Link]++
		}
	}
	for _, o := range r.objects {
		got := found[o.Path]
		if got == nil {
			t.Errorf("%s is missing", o.Path)
			continue
		}
		if o.Link != "" {
			if got.nid != found[o.Link].nid {
				t.Errorf("%s is not %s", o.Path, o.Link)
			}
			continue
		}
		want := &readEntry{
			mode: unixMode(o.Mode), uid: uint32(o.UID), gid: uint32(o.GID), sec: o.ModTime.Unix(), size: o.Size, nlink: 1 + links[o.Path],
			target: o.Target, xattrs: map[string]string{}, nid: got.nid, content: got.content,
		}
		for k, v := range o.Xattrs {
			want.xattrs[k] = string(v)
		}
		switch {
		case o.Mode.IsDir():
			want.size, want.nlink = got.size, got.nlink
		case o.Target != "":
			want.size = int64(len(o.Target))
		case o.Mode&fs.ModeDevice != 0:
			want.dev = o.Rdev.Minor&0xff | o.Rdev.Major<<8 | o.Rdev.Minor&^0xff<<12
		case o.Mode.IsRegular() && o.Size < 1<<30:
			b := make([]byte, o.Size)
			if o.Size > 0 {
				if _, err := (fileReader{o}).ReadAt(b, 0); err != nil {
					t.Fatal(err)
				}
			}
			want.content = fmt.Sprintf("%x", sha256.Sum256(b))
		case o.Mode.IsRegular():
			want.content = ""
			for _, i := range []int64{0, 1, 2, 1 << 27, 1<<27 + 1, 1<<27 + 18, 1<<28 - 1} {
				b := make([]byte, 4096)
				if _, err := (fileReader{o}).ReadAt(b, i*4096); err != nil {
					t.Fatal(err)
				}
				want.content += fmt.Sprintf("%x", sha256.Sum256(b))
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", o.Path, got, want)
		}
	}
	if got := found["."].nlink; got != 6 {
		t.Errorf("the root has %d links", got)
	}
	// What is not in the extents is zero.
	b := make([]byte, e.size)
	if _, err := e.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for _, x := range e.extents {
		clear(b[x.Offset : x.Offset+x.Length])
	}
	if !bytes.Equal(b, make([]byte, len(b))) {
		t.Error("there is data outside of the extents")
	}
}

// TestRealEROFS has the file system checked and unpacked by erofs-utils.
func TestRealEROFS(t *testing.T) {
	needReal(t)
	r := oddRoot()
	for _, o := range oddRoot().objects {
		if strings.HasPrefix(o.Path, "dir/hole") {
			r.remove(o.Path) // fsck.erofs 1.5 leaves holes out when it unpacks; the kernel reads them in TestRealGuest
		}
	}
	e := image(t, r)
	dir := t.TempDir()
	name := filepath.Join(dir, "image")
	b := make([]byte, e.size)
	if _, err := e.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if text, err := exec.Command("fsck.erofs", "--extract="+out, name).CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, text)
	}
	for _, o := range r.objects {
		if !o.Mode.IsRegular() || o.Link != "" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(out, o.Path))
		want := make([]byte, o.Size)
		if err == nil && o.Size > 0 {
			_, err = (fileReader{o}).ReadAt(want, 0)
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: not what was put in (%v)", o.Path, err)
		}
	}
}

func TestBadRoots(t *testing.T) {
	dir := &Object{Path: ".", Mode: fs.ModeDir | 0o755}
	file := func(name string) *Object { return &Object{Path: name, Mode: 0o644} }
	for name, c := range map[string]struct {
		objects []*Object
		want    string
	}{
		"nothing":        {nil, "the root is empty"},
		"no root":        {[]*Object{file("a")}, `object "a": is not the root directory, which comes first`},
		"twice":          {[]*Object{dir, file("a"), file("a")}, `object "a": comes twice`},
		"no parent":      {[]*Object{dir, file("a/b")}, `object "a/b": has no directory before it`},
		"file as parent": {[]*Object{dir, file("a"), file("a/b")}, `object "a/b": has no directory before it`},
		"dots":           {[]*Object{dir, file("../a")}, `object "../a": is not a clean relative path`},
		"NUL":            {[]*Object{dir, file("a\x00b")}, `object "a\x00b": is not a clean relative path`},
		"long name":      {[]*Object{dir, file(strings.Repeat("n", 256))}, "over 255 bytes"},
		"link to none":   {[]*Object{dir, {Path: "a", Link: "b"}}, `is a further name of "b"`},
		"link to dir":    {[]*Object{dir, {Path: "a", Link: "."}}, `is a further name of "."`},
		"no content":     {[]*Object{dir, {Path: "a", Mode: 0o644, Size: 5}}, "size 5 without content"},
		"owner":          {[]*Object{dir, {Path: "a", Mode: 0o644, UID: -1}}, "owner -1:0"},
		"empty target":   {[]*Object{dir, {Path: "a", Mode: fs.ModeSymlink}}, "symbolic link"},
	} {
		r := &testRoot{objects: c.objects}
		if _, err := readRoot(r.all()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for name, attr := range map[string]map[string][]byte{
		"namespace": {"system.nfs4_acl": {1}}, "suffix": {"system.posix_acl_access.": {1}}, "bare": {"user.": {1}}, "value": {"user.a": make([]byte, 65536)},
	} {
		r := &testRoot{}
		r.dir(".", 0o755)
		r.file("a", 0o644, "").Xattrs = attr
		root, err := readRoot(r.all())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := writeEROFS(root); err == nil || !strings.Contains(err.Error(), `object "a": extended attribute`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRemove(t *testing.T) {
	r := &testRoot{}
	r.dir(".", 0o755)
	r.file("a", 0o600, "content")
	r.put(&Object{Path: "b", Link: "a"})
	r.put(&Object{Path: "c", Link: "a"})
	root, err := readRoot(r.all())
	if err != nil {
		t.Fatal(err)
	}
	root.remove(root.names["a"])
	e, err := writeEROFS(root)
	if err != nil {
		t.Fatal(err)
	}
	found := readImage(t, e)
	if len(found) != 3 || found["b"].nid != found["c"].nid || found["b"].nlink != 2 || found["b"].size != 7 {
		t.Errorf("%+v", found)
	}
}

func TestLookup(t *testing.T) {
	r := &testRoot{}
	r.dir(".", 0o755)
	r.dir("usr", 0o755)
	r.dir("usr/lib", 0o755)
	r.file("usr/lib/f", 0o644, "")
	r.link("lib", "usr/lib")
	r.link("usr/up", "../../../usr/lib/f")
	r.link("abs", "/lib/f")
	r.link("loop", "loop")
	r.put(&Object{Path: "usr/hard", Link: "usr/lib/f"})
	root, err := readRoot(r.all())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"lib/f": "usr/lib/f", "usr/up": "usr/lib/f", "abs": "usr/lib/f", "usr/hard": "usr/lib/f", "loop": "", "lib/none": "", "lib/f/x": "", "lib": "usr/lib",
	} {
		got := ""
		if n := root.lookup(name); n != nil {
			got = n.Path
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestChunks(t *testing.T) {
	for _, c := range []struct {
		size    int64
		extents []Extent
		bits    int
		data    []int64 // chunks with data
	}{
		{4096, []Extent{{0, 4096}}, 0, nil},
		{4096, []Extent{{0, 1}}, 0, nil},
		{8192, []Extent{{0, 1}}, 12, []int64{0}},
		{8193, []Extent{{8192, 1}}, 12, []int64{2}},
		{12288, []Extent{{0, 5}, {5, 4091}, {8192, 0}}, 12, []int64{0}},
		{1 << 30, []Extent{{1 << 29, 1}}, 14, []int64{1 << 15}},
	} {
		got := findChunks(c.size, c.extents)
		var data []int64
		for i, d := range got.data {
			if d {
				data = append(data, int64(i))
			}
		}
		if !slices.Equal(data, c.data) || got.data != nil && got.bits != c.bits || len(got.data) > maxChunks {
			t.Errorf("%d %v: bits %d, data %v", c.size, c.extents, got.bits, data)
		}
	}
}
