package zfs

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func TestCheckAcceptsOurs(t *testing.T) {
	for _, o := range []Options{
		{},
		{LZ4: true, Layout: ZonePath},
		{Platform: Illumos},
		{Profile: ZPL4},
	} {
		stream := allKinds().withXattrs().write(t, o)
		if err := Check(bytes.NewReader(stream), int64(len(stream))); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
		s := open(t, stream)
		for n, d := range s.set.numbersOf() {
			if d.bonusType == typeNone {
				continue
			}
			z, err := s.set.inode(d, s.zpl.attrs)
			if err != nil {
				t.Fatal(err)
			}
			if z.slack != 0 {
				t.Errorf("%+v: object %d: %d bytes behind its attributes", o, n, z.slack)
			}
		}
	}
}

// small is a tree whose dump can be read.
func small() tree {
	f := newTree()
	f.file("etc/motd", []byte("golden\n")).Xattrs = map[string][]byte{"user.a": []byte("b")}
	f.put(Object{Path: "etc/issue", Link: "etc/motd"})
	f.put(Object{Path: "l", Mode: fs.ModeSymlink | 0o777, Target: "etc/motd"})
	f.put(Object{Path: "long", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("t", 200)})
	f.put(Object{Path: "null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Rdev: Device{1, 3}})
	f.sparse("sparse", 1<<20, map[int64][]byte{500000: []byte("data")})
	f.file("d/"+strings.Repeat("n", 60), nil).UID = 5
	return f
}

func TestDump(t *testing.T) {
	for name, o := range map[string]Options{
		"zpl5":  {},
		"zpl4":  {Profile: ZPL4, Platform: Illumos, Layout: ZonePath},
		"zpl5i": {Platform: Illumos},
	} {
		stream := small().write(t, o)
		var got bytes.Buffer
		if err := Dump(&got, bytes.NewReader(stream), int64(len(stream))); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name+".dump")
		if *update {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: dump differs from %s; see go test -update", name, golden)
		}
	}
}

// resum computes the checksums of a little-endian stream anew, after an edit. It takes anything.
func resum(stream []byte) {
	le := binary.LittleEndian
	var sum fletcher4
	for p := stream; len(p) >= headerSize; {
		head, n := p[:headerSize], uint64(0)
		switch RecordType(le.Uint32(head)) {
		case RecordBegin:
			sum = fletcher4{}
			n = uint64(le.Uint32(head[4:]))
		case RecordObject:
			n = (uint64(le.Uint32(head[8+20:])) + 7) &^ 7
		case RecordWrite:
			if n = le.Uint64(head[8+24:]); head[8+42] != 0 {
				n = le.Uint64(head[8+88:])
			}
		case RecordSpill:
			n = le.Uint64(head[8+8:])
		case RecordWriteEmbedded:
			n = (uint64(le.Uint32(head[8+44:])) + 7) &^ 7
		case RecordEnd:
			sum.put(head[8:], le)
		}
		payload := p[headerSize:]
		payload = payload[:min(n, uint64(len(payload)))]
		if RecordType(le.Uint32(head)) == RecordBegin {
			sum.add(head)
		} else {
			sum.add(head[:sumOffset])
			sum.put(head[sumOffset:], le)
			sum.add(head[sumOffset:])
		}
		sum.add(payload)
		p = p[headerSize+len(payload):]
	}
}

// An edit changes one place of a stream; at finds it.
type edit struct {
	record RecordType
	object uint64
	at     int // in the record, its header included
	value  []byte
}

func (e *edit) apply(tb testing.TB, stream []byte) []byte {
	tb.Helper()
	z := NewReader(bytes.NewReader(stream))
	for {
		rec, err := z.Next()
		if err == io.EOF {
			tb.Fatalf("there is no %v of object %d", e.record, e.object)
		}
		if err != nil {
			tb.Fatal(err)
		}
		if rec.Type == e.record && rec.Object == e.object {
			out := bytes.Clone(stream)
			copy(out[rec.Pos+int64(e.at):], e.value)
			resum(out)
			return out
		}
	}
}

func TestCheckFindsMistakes(t *testing.T) {
	le64 := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	le16 := func(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
	const bonus = headerSize + 8 // behind the header of a bonus with one attribute of varying length
	stream := small().write(t, Options{})
	same := bytes.Clone(stream)
	if resum(same); !bytes.Equal(same, stream) {
		t.Fatal("checksums computed anew differ")
	}
	// The numbers of small: 7 d, 8 d/nnn…, 9 etc, 10 etc/issue, 11 l, 12 long, 13 null, 14 sparse.
	for name, c := range map[string]struct {
		e    edit
		want string
	}{
		"mode":             {edit{RecordObject, 10, 8 + bonus, le64(modeRegular | 0o600)}, "access control list gives group 04"},
		"type":             {edit{RecordObject, 8, bonus, le64(modeFIFO | 0o644)}, `entry "` + strings.Repeat("n", 60) + `" of type 0100000`},
		"size of a dir":    {edit{RecordObject, 9, bonus + 8, le64(3)}, "object 9: directory of size 3, want 4"},
		"generation":       {edit{RecordObject, 9, bonus + 16, le64(0)}, "object 9: generation 0"},
		"parent":           {edit{RecordObject, 10, 8 + bonus + 40, le64(7)}, "object 10: parent 7 is not a directory"},
		"links":            {edit{RecordObject, 10, 8 + bonus + 120, le64(1)}, "object 10: 1 links, but 2 names"},
		"links of a dir":   {edit{RecordObject, 3, bonus + 120, le64(3)}, "object 3: directory with 3 links, want 4"},
		"layout":           {edit{RecordObject, 9, headerSize + 4, le16(99 | 1<<10)}, "object 9: damaged attributes: layout 99"},
		"magic":            {edit{RecordObject, 9, headerSize, le64(0)}, "object 9: damaged attributes: magic"},
		"shorter layout":   {edit{RecordObject, 9, headerSize + 4, le16(5 | 1<<10)}, "object 9: "},
		"block behind end": {edit{RecordObject, 14, bonus + 8, le64(1000)}, "object 14: data behind its 1000 bytes, in the block at 393216"},
		"block size":       {edit{RecordObject, 14, 8 + 16, []byte{0, 4, 0, 0}}, "the object's have 1024"},
		"target":           {edit{RecordObject, 11, headerSize + 16 + 8, le64(3)}, `object 11: target "etc/motd" of 3 bytes`},
		"no spill":         {edit{RecordObject, 12, 8 + 27, []byte{0}}, "does not say that it has a spill block"},
		"unknown bonus":    {edit{RecordObject, 9, 8 + 12, []byte{17}}, "znode of 168 bytes"},
		"number twice":     {edit{RecordObject, 11, 8, le64(10)}, "numbers up to 11 were spoken of"},
		"tail":             {edit{RecordFreeObjects, 15, 8 + 8, le64(1 << 40)}, "old receivers loop"},
		"zap name":         {edit{RecordWrite, 9, headerSize + 64 + 14, []byte("a/b\x00")}, `entry "a/b": no name`},
		"zap twice":        {edit{RecordWrite, 9, headerSize + 128 + 14, []byte("motd\x00")}, `"motd" twice`},
		"zap target":       {edit{RecordWrite, 9, headerSize + 64, le64(8<<60 | 777)}, "is object 777, which is none of the file system"},
	} {
		broken := c.e.apply(t, stream)
		err := Check(bytes.NewReader(broken), int64(len(broken)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func TestCheckFindsWrongHashes(t *testing.T) {
	f := newTree()
	for i := range 100 {
		f.file(fmt.Sprintf("%060d", i), nil) // a fat zap with one leaf
	}
	stream := f.write(t, Options{})
	e := edit{RecordWrite, 3, headerSize + 80, []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	broken := e.apply(t, stream)
	if err := Check(bytes.NewReader(broken), int64(len(broken))); err == nil || !strings.Contains(err.Error(), "has the hash") {
		t.Errorf("error %v", err)
	}
}
