package ovf

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"strings"
	"testing"
)

// sparseDisk returns a monolithic sparse VMDK as workstations write them, with grain 1 stored,
// grain 2 marked as zeros and the rest not stored.
func sparseDisk() []byte {
	h := header{
		Magic: vmdkMagic, Version: 1, Flags: flagNewline, Capacity: 4 * grainSectors, Grain: grainSectors,
		DescriptorOffset: 1, DescriptorSize: 1, TableEntries: 512, DirectoryOffset: 2, Overhead: 128, Newline: newlineTest,
	}
	b := make([]byte, 256*sectorSize)
	copy(b, h.bytes())
	copy(b[sectorSize:], "# Disk DescriptorFile\ncreateType=\"monolithicSparse\"\nRW 512 SPARSE \"disk.vmdk\"\n")
	binary.LittleEndian.PutUint32(b[2*sectorSize:], 3)
	binary.LittleEndian.PutUint32(b[3*sectorSize+4:], 128)
	binary.LittleEndian.PutUint32(b[3*sectorSize+8:], 1)
	for i := range GrainSize {
		b[128*sectorSize+i] = byte(i % 7)
	}
	return b
}

func TestReadSparse(t *testing.T) {
	data := sparseDisk()
	r, err := NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if r.CreateType != "monolithicSparse" || r.Compressed || r.Stream {
		t.Errorf("read %+v", r)
	}
	if n, err := r.Check(t.Context()); n != GrainSize || err != nil {
		t.Errorf("check: %d, %v", n, err)
	}
	got := make([]byte, 4*GrainSize)
	if _, err := r.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 4*GrainSize)
	copy(want[GrainSize:], data[128*sectorSize:][:GrainSize])
	if !bytes.Equal(got, want) {
		t.Error("content differs")
	}
	if n, err := r.ReadAt(got[:20], 4*GrainSize-5); n != 5 || err != io.EOF {
		t.Errorf("reading over the end: %d, %v", n, err)
	}
	if _, err := ReadStream(bytes.NewReader(data), nil); err == nil || !strings.Contains(err.Error(), "not stream-optimized") {
		t.Errorf("stream: %v", err)
	}
}

func TestHostileVMDK(t *testing.T) {
	disk := testDisk(70 << 20)
	good, _ := writeTest(t, Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}, WriteOptions{Level: Fast})
	le := binary.LittleEndian
	footer := len(good) - 1024
	dir := int(le.Uint64(good[footer+56:])) * sectorSize
	table := int(le.Uint32(good[dir:])) * sectorSize
	first, second := -1, -1 // stored grains of the first table
	for i := range 512 {
		if le.Uint32(good[table+4*i:]) != 0 {
			if first < 0 {
				first = i
			} else if second < 0 {
				second = i
			}
		}
	}
	at := int(le.Uint32(good[table+4*first:])) * sectorSize
	for name, c := range map[string]struct {
		damage        func(b []byte) []byte
		check, stream string // "": no error
	}{
		"empty":               {func(b []byte) []byte { return nil }, "no VMDK", "the stream ends"},
		"not one":             {func(b []byte) []byte { return make([]byte, 4096) }, "no VMDK: it begins with", "no VMDK"},
		"descriptor file":     {func(b []byte) []byte { return append([]byte("# Disk DescriptorFile\n"), make([]byte, 512)...) }, "only monolithic", "only monolithic"},
		"ESX sparse":          {func(b []byte) []byte { copy(b, "COWD"); return b }, "COWD", "COWD"},
		"version":             {func(b []byte) []byte { b[4] = 9; return b }, "version 9", "version 9"},
		"text transfer":       {func(b []byte) []byte { b[73] = '\r'; return b }, "line ends were converted", "line ends"},
		"capacity":            {func(b []byte) []byte { le.PutUint64(b[12:], 1<<60); return b }, "capacity of", "capacity of"},
		"grain":               {func(b []byte) []byte { le.PutUint64(b[20:], 1<<40); return b }, "grain of", "grain of"},
		"tables":              {func(b []byte) []byte { le.PutUint32(b[44:], 1<<31); return b }, "entries in a grain table", "entries in a grain table"},
		"descriptor":          {func(b []byte) []byte { le.PutUint64(b[36:], 1<<40); return b }, "descriptor of", "descriptor of"},
		"cut in the footer":   {func(b []byte) []byte { return b[:len(b)-512] }, "truncated", "the stream ends"},
		"cut in a grain":      {func(b []byte) []byte { return b[:len(b)/2] }, "truncated", "the stream ends"},
		"tail":                {func(b []byte) []byte { return append(b, make([]byte, 512)...) }, "no footer", ""},
		"tail of something":   {func(b []byte) []byte { return append(b, bytes.Repeat([]byte("x"), 512)...) }, "no footer", "not on the disk"},
		"footer contradicts":  {func(b []byte) []byte { le.PutUint64(b[footer+12:], 128); return b }, "contradicts", ""},
		"directory":           {func(b []byte) []byte { le.PutUint64(b[footer+56:], 1<<31); return b }, "beyond the end", ""},
		"table":               {func(b []byte) []byte { le.PutUint32(b[dir:], 1<<31); return b }, "beyond the end", ""},
		"tables are one":      {func(b []byte) []byte { copy(b[dir+4:dir+8], b[dir:dir+4]); return b }, "overlap", ""},
		"place":               {func(b []byte) []byte { le.PutUint32(b[table+4*first:], 1<<31); return b }, "beyond the end", ""},
		"another's place":     {func(b []byte) []byte { copy(b[table+4*first:][:4], b[table+4*second:]); return b }, "its marker is that of", ""},
		"marker":              {func(b []byte) []byte { le.PutUint64(b[at:], 127); return b }, "its marker is that of", "within a grain"},
		"size":                {func(b []byte) []byte { le.PutUint32(b[at+8:], 1<<30); return b }, "compressed bytes", "compressed bytes"},
		"no zlib":             {func(b []byte) []byte { b[at+12] = 0; return b }, "zlib: invalid header", "zlib: invalid header"},
		"flipped":             {func(b []byte) []byte { b[at+100] ^= 0x10; return b }, "grain", "grain"},
		"kind of marker":      {func(b []byte) []byte { b[table-sectorSize+12] = 77; return b }, "", "marker of type 77"},
		"algorithm":           {func(b []byte) []byte { b[77] = 2; return b }, "algorithm 2", "algorithm 2"},
		"markers unannounced": {func(b []byte) []byte { b[10] = 1; return b }, "come together", "come together"},
	} {
		check, stream := readAll(t.Context(), c.damage(bytes.Clone(good)))
		for _, x := range []struct {
			err  error
			want string
		}{{check, c.check}, {stream, c.stream}} {
			if x.want == "" && x.err != nil || x.want != "" && (x.err == nil || !strings.Contains(x.err.Error(), x.want)) {
				t.Errorf("%s: %v, want %q", name, x.err, x.want)
			}
		}
	}
}

func TestShortLastGrain(t *testing.T) {
	var z inflater
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	w.Write(bytes.Repeat([]byte("x"), 1000))
	w.Close()
	z.in = out.Bytes()
	b, err := z.inflate(GrainSize, 1000)
	if err != nil || len(b) != GrainSize || b[999] != 'x' || b[1000] != 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := z.inflate(GrainSize, 1001); err == nil {
		t.Error("too short a grain passes")
	}
	if _, err := z.inflate(512, 512); err == nil {
		t.Error("too long a grain passes")
	}
}

// smallVMDK returns a stream with little room before its grains, so that fuzzing is quick.
func smallVMDK() []byte {
	var out bytes.Buffer
	s := newStream(&out, 3*GrainSize, [16]byte{})
	s.head.Overhead = 1 + descSectors
	if err := s.begin(); err != nil {
		panic(err)
	}
	d := newDeflater(efforts[Fast], maxDistance)
	for _, n := range []int64{0, 2} {
		job := slot{number: n, parts: []Extent{{n * GrainSize, 40}}}
		if err := job.compress(bytes.NewReader(bytes.Repeat([]byte("text"), GrainSize)), d, packGrain); err != nil {
			panic(err)
		}
		if err := s.grain(n, job.out); err != nil {
			panic(err)
		}
	}
	if _, err := s.end(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func FuzzVMDK(f *testing.F) {
	f.Add(smallVMDK())
	f.Add(sparseDisk())
	f.Fuzz(func(t *testing.T, data []byte) {
		check, stream := readAll(t.Context(), data)
		r, err := NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		p := make([]byte, 4096)
		r.ReadAt(p, 0)
		r.ReadAt(p, r.Capacity-100)
		if check == nil && stream == nil && r.Stream {
			// Both readers see the same disk, unless a grain is in the stream but in no table.
			got := make([]byte, min(r.Capacity, 1<<20))
			r.ReadAt(got, 0)
			if _, err := ReadStream(bytes.NewReader(data), func(at, off int64, b []byte) error {
				place, stored, _ := r.place(uint64(off / r.Grain))
				if stored && int64(place)*sectorSize == at && off < int64(len(got)) && !bytes.HasPrefix(b, got[off:min(off+int64(len(b)), int64(len(got)))]) {
					t.Errorf("the grain at %d differs", off)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
	})
}
