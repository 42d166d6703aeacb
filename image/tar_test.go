package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// archive writes headers with content "<name>\n" for regular files.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		var data string
		if h.Typeflag == tar.TypeReg {
			data = h.Name + "\n"
			h.Size = int64(len(data))
		}
		if h.Mode == 0 && h.Typeflag != tar.TypeXGlobalHeader {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t testing.TB, data []byte) (*Tree, error) {
	t.Helper()
	tree, err := ReadTar(context.Background(), bytes.NewReader(data), Options{Dir: t.TempDir()})
	if err == nil {
		t.Cleanup(func() { tree.Close() })
	}
	return tree, err
}

func mustRead(t testing.TB, data []byte) *Tree {
	t.Helper()
	tree, err := read(t, data)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// mtree returns the content manifest of a tree, frozen by this.
func mtree(t testing.TB, tree *Tree) string {
	t.Helper()
	tree.Freeze(time.Time{})
	var b strings.Builder
	c := NewContent(tree)
	if err := c.WriteMtree(&b); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteObjects(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var (
	dir  = func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	file = func(name string) tar.Header { return tar.Header{Name: name} }
	link = func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
	}
	symlink = func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
)

// everything is an archive with one of each kind of entry.
func everything(t testing.TB) []byte {
	long := strings.Repeat("directory-of-a-long-name/", 12) + strings.Repeat("n", 200)
	return archive(t,
		dir("./"), dir("etc/"), file("etc/passwd"), symlink("etc/link", "../usr/bin/x y"), link("etc/zz", "etc/passwd"),
		tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o660, Gid: 6},
		tar.Header{Name: "run/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "usr/bin/su", Mode: 0o4755, ModTime: time.Unix(1700000000, 0)},
		tar.Header{
			Name: "usr/bin/ping", Mode: 0o755, Format: tar.FormatPAX, ModTime: time.Unix(1700000000, 123456789),
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00 \x00\x00", "SCHILY.xattr.user.a%3Db": ""},
		},
		tar.Header{Name: "home/big-id", Uid: 3_000_000_000, Gid: 2_500_000, Format: tar.FormatPAX},
		tar.Header{Name: long, Format: tar.FormatGNU},
		tar.Header{Name: "bytes-\xff\xfe", Format: tar.FormatGNU},
		tar.Header{Name: "white space*?[\n", Format: tar.FormatPAX},
	)
}

func TestReadTarEverything(t *testing.T) {
	tree := mustRead(t, everything(t))
	got := mtree(t, tree)
	for _, want := range []string{
		"./etc/passwd type=file mode=0644 uid=0 gid=0 nlink=2 size=11 time=0.000000000 sha256digest=",
		"./etc/link type=link mode=0777 uid=0 gid=0 nlink=1 time=0.000000000 link=../usr/bin/x\\040y\n",
		"./dev/null type=char mode=0666 uid=0 gid=0 nlink=1 time=0.000000000 device=native,1,3\n",
		"./dev/sda type=block mode=0660 uid=0 gid=6 nlink=1 time=0.000000000 device=native,8,0\n",
		"./run/fifo type=fifo mode=0600",
		"./usr/bin/su type=file mode=04755",
		"time=1700000000.123456789 ",
		"./home/big-id type=file mode=0644 uid=3000000000 gid=2500000 ",
		"./bytes-\\377\\376 type=file",
		"./white\\040space\\052\\077\\133\\012 type=file",
		"/" + strings.Repeat("n", 200) + " type=file",
		`"links":[["./etc/passwd","./etc/zz"]]`,
		`{"name":"./usr/bin/ping","attrs":[{"key":"security.capability","value":"AQAAAgAgAAA="},{"key":"user.a\\075b","value":""}]}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the content manifest lacks %q:\n%s", want, got)
		}
	}
}

// TestReadTarHostile holds what an archive must not do: each case names the attack.
func TestReadTarHostile(t *testing.T) {
	valid := archive(t, file("a"))
	patch := func(f func(b []byte)) []byte {
		b := bytes.Clone(valid)
		f(b)
		sum := 8 * int(' ')
		for i, c := range b[:512] {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return b
	}
	gz := func(b []byte) []byte {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(b)
		w.Close()
		return z.Bytes()
	}
	deep := strings.Repeat("d/", 1_000_000) + "f"
	for name, c := range map[string]struct {
		data []byte
		err  string // part of the error
	}{
		"dot dot":                      {archive(t, file("../x")), `"../x" leaves the root`},
		"dot dot inside":               {archive(t, file("a/../../x")), `"a/../../x" leaves the root`},
		"below a symbolic link":        {archive(t, symlink("out", "/etc"), file("out/passwd")), `"out" is a symbolic link, not a directory`},
		"below a link to the parent":   {archive(t, symlink("up", ".."), file("up/x")), `"up" is a symbolic link, not a directory`},
		"below a file":                 {archive(t, file("a"), file("a/b")), `"a" is a file, not a directory`},
		"file and directory":           {archive(t, file("a"), dir("a/")), `is a file and again a directory`},
		"directory and symbolic link":  {archive(t, dir("a/"), symlink("a", "b")), `is a directory and again a symbolic link`},
		"the root as a file":           {archive(t, symlink(".", "x")), `the root is a symbolic link`},
		"hard link to nothing":         {archive(t, link("a", "b")), `hard link to "b", which does not exist`},
		"hard link to a directory":     {archive(t, dir("d/"), link("a", "d")), `hard link to directory "d"`},
		"hard link outside":            {archive(t, link("a", "../../etc/passwd")), `leaves the root`},
		"hard link to itself":          {archive(t, file("a"), link("a", "a")), `hard link to itself`},
		"empty symbolic link":          {archive(t, symlink("a", "")), `symbolic link to ""`},
		"a path of a million elements": {archive(t, tar.Header{Name: deep, Format: tar.FormatGNU}), `too long`},
		"an element of 256 bytes":      {archive(t, file(strings.Repeat("x", 256))), `longer than 255`},
		"empty":                        {nil, `end marker is missing`},
		"no end marker":                {valid[:1024], `end marker is missing`},
		"half an end marker":           {valid[:1536], `end marker is missing`},
		"truncated header":             {valid[:300], `truncated`},
		"truncated content":            {valid[:513], `truncated`},
		"truncated gzip":               {gz(valid)[:40], `truncated`},
		"gzip without its trailer":     {gz(valid)[:len(gz(valid))-4], `truncated`},
		"data after the end":           {append(bytes.Clone(valid), valid...), `data after the end marker`},
		"corrupt gzip":                 {append(gz(valid), "this is no member of gzip"...), `gzip`},
		"bad checksum":                 {bytes.Replace(valid, []byte("a\x00"), []byte("b\x00"), 1), `invalid tar header`},
		"negative size":                {patch(func(b []byte) { copy(b[124:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0") }), `invalid tar header`},
		"absurd size":                  {patch(func(b []byte) { copy(b[124:], "77777777777\x00") }), `truncated`},
		"negative uid":                 {patch(func(b []byte) { copy(b[108:], "\xff\xff\xff\xff\xff\xff\xff\xf0") }), `out of range`},
		"unknown type":                 {patch(func(b []byte) { b[156] = 'M' }), `type 'M'`},
		"an ACL in text":               {archive(t, tar.Header{Name: "a", PAXRecords: map[string]string{"SCHILY.acl.access": "user::rw-"}}), `ACLs are not supported`},
		"global size":                  {archive(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"mtime": "5"}}), `global header`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, how := range []string{"stream", "file"} {
				var r io.Reader = bytes.NewReader(c.data)
				if how == "file" {
					r = temp(t, c.data)
				}
				tree, err := ReadTar(context.Background(), r, Options{Dir: t.TempDir()})
				if err == nil {
					tree.Close()
					t.Fatalf("%s: accepted; want an error with %q", how, c.err)
				}
				if !strings.Contains(err.Error(), c.err) {
					t.Errorf("%s: error %.300q lacks %q", how, err, c.err)
				}
			}
		})
	}
}

func temp(t testing.TB, data []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "base.tar")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestReadTarAsTarDoes(t *testing.T) {
	tree := mustRead(t, archive(t,
		file("/abs/olute"), file("./a"), file("b"), link("c", "b"),
		tar.Header{Name: "b", Mode: 0o600}, // the later one counts and is no longer c's object
		dir("d/"), file("d/x"), tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700},
	))
	for name, perm := range map[string]uint32{"abs/olute": 0o644, "abs": 0o755, "a": 0o644, "b": 0o600, "c": 0o644, "d": 0o700, "d/x": 0o644} {
		e, err := tree.Stat(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if e.Perm() != perm {
			t.Errorf("%s: mode %04o, want %04o", name, e.Perm(), perm)
		}
	}
	if e, err := tree.Stat("c"); err != nil || e.HardLink != "" || tree.Nlink(e) != 1 {
		t.Errorf("c: %+v, %v: still a link", e, err)
	}
	if data, err := tree.ReadFile("c"); err != nil || string(data) != "b\n" {
		t.Errorf("c holds %q, %v", data, err)
	}
}

// TestSunExtendedHeader reads what tar(1) of illumos writes with -E: typeflag X, else as pax.
func TestSunExtendedHeader(t *testing.T) {
	b := archive(t, tar.Header{Name: "a", Uid: 3_000_000, Format: tar.FormatPAX})
	if b[156] != 'x' {
		t.Fatalf("typeflag %q", b[156])
	}
	b[156] = 'X'
	sum := 8 * int(' ')
	for i, c := range b[:512] {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	e, err := mustRead(t, b).Stat("a")
	if err != nil || e.UID != 3_000_000 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		err    string
	}{
		"entries": {Limits{Entries: 3}, "more than 3 entries"},
		"bytes":   {Limits{Bytes: 5}, "exceeds the limit of 5 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			data := archive(t, file("a"), file("b"), file("c"))
			for _, r := range []io.Reader{bytes.NewReader(data), temp(t, data)} {
				_, err := ReadTar(context.Background(), r, Options{Dir: t.TempDir(), Limits: c.limits})
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
			}
		})
	}
}

// TestBomb unpacks 4 GiB of zeros in one compressed file against a limit: it must fail without
// filling a disk.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	z, _ := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Size: 4 << 30, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for range 300 {
		w.Write(chunk)
	}
	z.Close()
	_, err := ReadTar(context.Background(), &b, Options{Dir: t.TempDir(), Limits: Limits{Bytes: 256 << 20}})
	if err == nil || !strings.Contains(err.Error(), "exceeds the limit") {
		t.Errorf("error %v", err)
	}
}

// TestCompressions finds by content what is written by other encoders and by ours.
func TestCompressions(t *testing.T) {
	data := everything(t)
	want := mtree(t, mustRead(t, data))
	var forms [][]byte
	for _, c := range []Compression{None, Gzip, Zstd} {
		var b bytes.Buffer
		w, err := NewCompressor(context.Background(), &b, c)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := Sniff(b.Bytes()); got != c {
			t.Errorf("written as %s, sniffed as %s", c, got)
		}
		forms = append(forms, b.Bytes())
	}
	var multi, x bytes.Buffer
	for _, part := range [][]byte{data[:700], data[700:]} {
		w := gzip.NewWriter(&multi)
		w.Write(part)
		w.Close()
	}
	xw, err := xz.NewWriter(&x)
	if err != nil {
		t.Fatal(err)
	}
	xw.Write(data)
	xw.Close()
	skippable := append([]byte{0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2}, forms[2]...)
	for i, form := range append(forms, multi.Bytes(), x.Bytes(), skippable) {
		if got := mtree(t, mustRead(t, form)); got != want {
			t.Errorf("form %d gives another tree:\n%s", i, got)
		}
	}
}

func TestWriteTarRoundTrip(t *testing.T) {
	data := everything(t)
	tree := mustRead(t, data)
	want := mtree(t, tree)
	var first bytes.Buffer
	if err := WriteTar(context.Background(), &first, tree, Pax, nil); err != nil {
		t.Fatal(err)
	}
	again := mustRead(t, first.Bytes())
	if got := mtree(t, again); got != want {
		t.Errorf("read back:\n%s\nwant:\n%s", got, want)
	}
	var second bytes.Buffer
	if err := WriteTar(context.Background(), &second, again, Pax, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("written again, other bytes")
	}
}

func TestStrictDialect(t *testing.T) {
	for name, c := range map[string]struct {
		h   tar.Header
		err string
	}{
		"fits":        {tar.Header{Name: strings.Repeat("p", 77) + "/" + strings.Repeat("q", 77) + "/" + strings.Repeat("n", 100), Uid: 1<<21 - 1}, ""},
		"long name":   {tar.Header{Name: strings.Repeat("n", 101), Format: tar.FormatPAX}, "does not fit ustar-strict"},
		"large id":    {tar.Header{Name: "a", Uid: 1 << 21, Format: tar.FormatPAX}, "ids below 2097152"},
		"sub-second":  {tar.Header{Name: "a", ModTime: time.Unix(5, 6), Format: tar.FormatPAX}, "whole seconds"},
		"long target": {symlink("a", strings.Repeat("t", 101)), "does not fit ustar-strict"},
		"attributes":  {tar.Header{Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1"}}, "no extended attributes"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := mustRead(t, archive(t, c.h))
			tree.Freeze(time.Time{})
			var b bytes.Buffer
			err := WriteTar(context.Background(), &b, tree, USTARStrict, nil)
			if c.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				for r := tar.NewReader(&b); ; {
					h, err := r.Next()
					if err == io.EOF {
						break
					}
					if err != nil || h.Format != tar.FormatUSTAR || h.PAXRecords != nil {
						t.Fatalf("%+v, %v", h, err)
					}
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), `entry "`) {
				t.Errorf("error %v, want %q and the entry", err, c.err)
			}
		})
	}
}

// TestCompressorDeterminism writes in pieces of other sizes and with other numbers of workers.
func TestCompressorDeterminism(t *testing.T) {
	data := make([]byte, 2*Frame+12345)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	for _, c := range []Compression{Gzip, Zstd} {
		var want []byte
		for _, procs := range []int{1, 2, 7} {
			old := runtime.GOMAXPROCS(procs)
			var b bytes.Buffer
			w, err := NewCompressor(context.Background(), &b, c)
			if err != nil {
				t.Fatal(err)
			}
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 100_003*procs)
				w.Write(rest[:n])
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			runtime.GOMAXPROCS(old)
			if want == nil {
				want = bytes.Clone(b.Bytes())
			} else if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("%s: other bytes with %d workers", c, procs)
			}
		}
		r, _, err := Decompress(bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: read back %d bytes, %v", c, len(got), err)
		}
	}
}

// failing is a writer whose disk is full after n bytes.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, fs.ErrClosed
	}
	return len(p), nil
}

func TestCompressorFullDisk(t *testing.T) {
	for _, c := range []Compression{Gzip, Zstd} {
		w, err := NewCompressor(context.Background(), &failing{n: 100}, c)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, Frame)
		for i := range buf {
			buf[i] = byte(i * i >> 5)
		}
		for range 8 {
			w.Write(buf)
		}
		if err := w.Close(); err != fs.ErrClosed {
			t.Errorf("%s: Close returned %v", c, err)
		}
	}
}

func FuzzReadTar(f *testing.F) {
	f.Add(everything(f))
	f.Add(archive(f, file("a"), link("b", "a"), symlink("c", "a")))
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := ReadTar(context.Background(), bytes.NewReader(data), Options{Dir: t.TempDir(), Limits: Limits{Entries: 1000, Bytes: 1 << 20}})
		if err != nil {
			return
		}
		defer tree.Close()
		want := mtree(t, tree)
		for e := range tree.All() {
			if e.Type() == fs.ModeSocket {
				t.Fatalf("%q is a socket", e.Name)
			}
		}
		var b bytes.Buffer
		if err := WriteTar(context.Background(), &b, tree, Pax, nil); err != nil {
			t.Fatalf("%v in\n%s", err, want)
		}
		again, err := ReadTar(context.Background(), &b, Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if got := mtree(t, again); got != want {
			t.Errorf("read back:\n%s\nwant:\n%s", got, want)
		}
	})
}

func createFile(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
