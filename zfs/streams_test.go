package zfs

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// realStream returns a stream that another implementation made, see testdata/streams.
func realStream(tb testing.TB, name string) []byte {
	tb.Helper()
	f, err := os.Open(filepath.Join("testdata", "streams", name+".gz"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// realStreams are those that hold a file system, with what it is called there.
var realStreams = map[string]string{
	"zpl5": "", "zpl4": "", "zpl3": "", "zstd": "", "gzip": "", "zle": "", "lzjb": "", "lz4": "",
	"package": "isc/zpl5@1", "zfsfuse": "", "zfsfuse-dedup": "",
}

// filled is the tree that openzfs.sh makes.
func filled() tree {
	t := newTree()
	var text bytes.Buffer
	for i := range 300 {
		text.WriteString(itoa(uint64(i+1)) + "\n")
	}
	o := t.file("a/link", text.Bytes())
	o.UID, o.GID, o.Xattrs = 5, 6, map[string][]byte{"user.a": []byte("value")}
	t.put(Object{Path: "a/text", Link: "a/link"})
	t.put(Object{Path: "a/sym", Mode: fs.ModeSymlink | 0o777, Target: "text"})
	t.put(Object{Path: "a/long", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("t", 200)})
	t.file("tiny", []byte("tiny\n"))
	t.file("zeros", make([]byte, 3000))
	t.sparse("a/b/sparse", 300004, map[int64][]byte{300000: []byte("end\n")}).Mode = 0o644
	t.put(Object{Path: "fifo", Mode: fs.ModeNamedPipe | 0o644})
	t.put(Object{Path: "null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o644, Rdev: Device{1, 3}})
	t["a/b"].Mode = fs.ModeDir | fs.ModeSticky | 0o777
	t.file(strings.Repeat("n", 60), nil)
	t["a"].Xattrs = map[string][]byte{"user.long": bytes.Repeat([]byte("v"), 400)}
	return t
}

// TestStreamsOfOthers reads them without needing those who made them.
func TestStreamsOfOthers(t *testing.T) {
	date := int64(1704153600) // 2024-01-02
	for name, snapshot := range realStreams {
		t.Run(name, func(t *testing.T) {
			data := realStream(t, name)
			s, err := Open(bytes.NewReader(data), int64(len(data)), snapshot)
			if err != nil {
				t.Fatal(err)
			}
			got := collect(t, s, Linux)
			want := filled()
			if strings.HasPrefix(name, "zfsfuse") {
				want = newTree()
				x := bytes.Repeat([]byte("x"), 200000)
				want.file("a/same1", x)
				want.file("a/b/same2", x)
				want.put(Object{Path: "link", Link: "a/same1"})
				want.put(Object{Path: "long", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("t", 200)})
				want.file("tiny", []byte("tiny\n"))
			} else {
				for path, o := range got {
					if o.Link == "" && o.ModTime.Unix() != date {
						t.Errorf("%q is of %v", path, o.ModTime)
					}
				}
			}
			for _, o := range got {
				o.ModTime = testTime
			}
			same(t, want, got)
			err = Check(bytes.NewReader(data), int64(len(data)))
			switch {
			case name == "package", name == "lz4": // only single streams are checked
			case strings.HasPrefix(name, "zfsfuse"):
				// It frees all numbers up to the last one possible, and that is all.
				if err == nil || !strings.Contains(err.Error(), "old receivers loop") || strings.Contains(err.Error(), "\n") {
					t.Error(err)
				}
			case err != nil:
				t.Error(err)
			}
		})
	}
	full, increment := realStream(t, "zpl5"), realStream(t, "increment")
	s := open(t, full)
	apply(t, s, increment)
	want := filled()
	want.remove("a/b")
	want.file("tiny", []byte("tiny\nmore\n"))
	got := collect(t, s, Linux)
	for _, o := range got {
		o.ModTime = testTime
	}
	if got["child"] == nil { // a mount point
		t.Error("the directory of the child is missing")
	}
	delete(got, "child")
	same(t, want, got)
	pack := realStream(t, "package")
	child, err := Open(bytes.NewReader(pack), int64(len(pack)), "isc/zpl5/child@2")
	if err != nil {
		t.Fatal(err)
	}
	if o := collect(t, child, Linux)["file"]; o == nil || o.Size != 6 {
		t.Error("the child of the package has another file")
	}
	last, err := Open(bytes.NewReader(pack), int64(len(pack)), "")
	if err != nil {
		t.Fatal(err)
	}
	if n := last.Header().Name; n != "isc/zpl5@2" {
		t.Errorf("without a name comes %q", n)
	}
	for name, c := range map[string]struct{ snapshot, want string }{
		"package":  {"@2", `both "isc/zpl5@2" and "isc/zpl5/child@2"`},
		"zpl5":     {"@3", `no snapshot "@3"`},
		"raw":      {"", "a raw (encrypted) stream"},
		"redacted": {"", "a redacted stream"},
	} {
		data := realStream(t, name)
		if _, err := Open(bytes.NewReader(data), int64(len(data)), c.snapshot); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", name, err, c.want)
		}
	}
}

// TestObjectsRefuses has directories whose entries lead where they must not.
func TestObjectsRefuses(t *testing.T) {
	stream := small().write(t, Options{})
	le := func(v uint64) []byte {
		b := make([]byte, 8)
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		return b
	}
	for name, c := range map[string]struct {
		value uint64
		want  string
	}{
		"the root":          {4<<60 | 3, `is the directory "."`},
		"itself":            {4<<60 | 9, `is the directory "etc"`},
		"another directory": {4<<60 | 7, `is the directory "d"`},
		"of another type":   {8<<60 | 7, "the directory has type 0100000"},
		"nothing":           {8<<60 | 1<<47, "there is no object 140737488355328"},
		"a table":           {8<<60 | 5, "object"},
	} {
		e := edit{RecordWrite, 9, headerSize + 64, le(c.value)}
		broken := e.apply(t, stream)
		var err error
		for _, e := range open(t, broken).Objects(Linux) {
			err = e
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}
