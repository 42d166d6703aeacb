package zfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// packed are blocks as ZFS stores them; what they hold is in packedText.
var packed = []struct {
	compression uint8
	data        []byte
}{
	// LZJB: a map byte of literals, then references of (length-3)<<10 | distance.
	{compressLZJB, []byte{0x00, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 0x01, 0b001100_00, 8, '!', '?'}},
	// ZLE: counts up to 64 of bytes, above of zeros.
	{compressZLE, []byte{2, 'a', 'b', 'c', 64 + 4, 0, 'd'}},
	{compressGzip1 + 5, unhex("789c4b4c4a4e494d4bcf484c4a4e494d4bcf50b4070036a906d8")},
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestDecompress(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		comp uint8
		want string
	}{
		{"lzjb", packed[0].data, compressLZJB, "abcdefghabcdefghabcdefg!?"[:8] + "abcdefghabcdefg"[:15] + "!?"},
		{"zle", packed[1].data, compressZLE, "abc\x00\x00\x00\x00\x00d"},
		{"off", []byte("plain"), compressOff, "plain"},
	} {
		got := make([]byte, len(c.want))
		if err := decompress(c.comp, got, c.data); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, error %v, want %q", c.name, got, err, c.want)
		}
		for n := range c.data {
			if err := decompress(c.comp, make([]byte, len(c.want)), c.data[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes: no error", c.name, n, len(c.data))
			}
		}
	}
	if err := decompress(99, nil, nil); err == nil {
		t.Error("compression 99: no error")
	}
}

func TestLZ4(t *testing.T) {
	var l lz4Packer
	for name, src := range map[string][]byte{
		"text":    bytes.Repeat([]byte("the same again "), 8000),
		"zeros":   make([]byte, 131072),
		"noise":   noise(3, 131072),
		"mixed":   append(noise(4, 60000), bytes.Repeat([]byte{1, 2, 3, 4, 5}, 10000)...),
		"short":   make([]byte, 512),
		"sectors": bytes.Repeat([]byte("x"), 1536),
	} {
		dst := bytes.Repeat([]byte{0xAA}, len(src))
		n := l.pack(dst, src)
		if n == 0 {
			if name != "noise" && name != "short" {
				t.Errorf("%s: not packed", name)
			}
			continue
		}
		if n%minBlock != 0 || n > len(src)*7/8 {
			t.Errorf("%s: %d bytes packed to %d", name, len(src), n)
		}
		got := make([]byte, len(src))
		if err := unpackLZ4(got, dst[:n]); err != nil || !bytes.Equal(got, src) {
			t.Errorf("%s: unpacking: %v", name, err)
		}
	}
}

func TestFletcher4(t *testing.T) {
	// By the definition, word by word.
	data := noise(5, 4096+20)
	var want fletcher4
	for p := data; len(p) > 0; p = p[4:] {
		want.a += uint64(binary.LittleEndian.Uint32(p))
		want.b += want.a
		want.c += want.b
		want.d += want.c
	}
	var got fletcher4
	got.add(data[:100])
	got.add(data[100:])
	if got != want {
		t.Errorf("sum %x, want %x", got, want)
	}
	swapped := bytes.Clone(data)
	for p := swapped; len(p) > 0; p = p[4:] {
		binary.BigEndian.PutUint32(p, binary.LittleEndian.Uint32(p))
	}
	var other fletcher4
	other.addSwapped(swapped)
	if other != want {
		t.Errorf("swapped sum %x, want %x", other, want)
	}
}

func TestTrivialACL(t *testing.T) {
	// As ls -V of an illumos host shows them.
	for mode, want := range map[uint64]string{
		modeRegular | 0o644: "A1000:1e019f A2040:120089 A4000:120089",
		modeRegular | 0o755: "A1000:1e01bf A2040:1200a9 A4000:1200a9",
		modeDir | 0o755:     "A1000:1e01ff A2040:1200a9 A4000:1200a9",
		modeRegular | 0o604: "A1000:1 D2040:1 A1000:1e019f A2040:120088 A4000:120089",
		modeRegular | 0o077: "D1000:27 A1000:1e0198 A2040:1200af A4000:1200af",
	} {
		acl := trivialACL(mode)
		var got []string
		for ; len(acl) > 0; acl = acl[aceSize:] {
			got = append(got, fmt.Sprintf("%c%04x:%x", "AD"[binary.LittleEndian.Uint16(acl)], binary.LittleEndian.Uint16(acl[2:]), binary.LittleEndian.Uint32(acl[4:])))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("mode %o: %s, want %s", mode, s, want)
		}
	}
	for mode := range uint64(0o1000) {
		for _, kind := range []uint64{modeRegular, modeDir} {
			for class := range 3 {
				want := mode >> (6 - 3*class) & 7
				if got, ok := aclAllows(trivialACL(kind|mode), class, binary.LittleEndian); !ok || got != want {
					t.Errorf("mode %o: class %d is allowed %o", kind|mode, class, got)
				}
			}
		}
	}
}

func TestZAPHash(t *testing.T) {
	// CRC-64 of ECMA-182, reflected: its check value, without the final complement and with the
	// lower bits cut off.
	if got, want := zapHash(^uint64(0), "123456789"), ^uint64(0x995DC9BBDF1939FA)&^(1<<36-1); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
}

func TestZAPSizes(t *testing.T) {
	for _, c := range []struct {
		n, length int
		fat       bool
		blocks    int // 0: many
	}{
		{0, 1, false, 1},
		{1, 49, false, 1},
		{1, 50, true, 2},
		{2047, 10, false, 1},
		{2048, 10, true, 0},
		{1, 255, true, 2},
	} {
		var entries []zapEntry
		for i := range c.n {
			name := fmt.Sprintf("%d", i)
			entries = append(entries, zapEntry{name: name + strings.Repeat("x", max(0, c.length-len(name))), value: uint64(i)})
		}
		z, err := newZAP(9, entries, false)
		if err != nil {
			t.Fatal(err)
		}
		if z.fat != c.fat || c.blocks != 0 && z.blocks() != c.blocks {
			t.Errorf("%d names of %d bytes: fat %v, %d blocks", c.n, c.length, z.fat, z.blocks())
		}
		if z.blockSize()%minBlock != 0 || z.blockSize() > recordSize {
			t.Errorf("%d names: blocks of %d bytes", c.n, z.blockSize())
		}
	}
}

// TestZAPExternalTable grows the pointer table out of the header, and hits equal hashes.
func TestZAPExternalTable(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes a large directory")
	}
	const n = 120_000
	f := newTree()
	for i := range n {
		path := fmt.Sprintf("%x", noise(uint64(i), 20))
		f[path] = &Object{Path: path, Mode: 0o644, ModTime: testTime}
	}
	stream := f.write(t, Options{})
	s := open(t, stream)
	collisions := 0
	info, err := s.set.zap(s.set.objects[objRoot], func(e *zapItem) error {
		if e.cd > 0 {
			collisions++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if info.entries != n || info.leaves < 1024 || collisions == 0 {
		t.Errorf("%d entries in %d leaves with %d collisions", info.entries, info.leaves, collisions)
	}
	if err := Check(bytes.NewReader(stream), int64(len(stream))); err != nil {
		t.Error(err)
	}
}
