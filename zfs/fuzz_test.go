package zfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"maps"
	"slices"
	"testing"
)

// FuzzOpen reads streams whose checksums are right and of which some places are anything: edits are
// a place of four bytes and a value of eight each, so that inputs are short.
func FuzzOpen(f *testing.F) {
	var seeds [][]byte
	for i, o := range []Options{{}, {Profile: ZPL4}, {LZ4: true}, {Platform: Illumos}, {}} {
		in := newTree()
		in.file("a/file", bytes.Repeat([]byte("text "), 500)).Xattrs = map[string][]byte{"user.a": []byte("b")}
		in.put(Object{Path: "a/link", Link: "a/file"})
		in.put(Object{Path: "l", Mode: fs.ModeSymlink | 0o777, Target: string(bytes.Repeat([]byte("t"), 200))})
		in.put(Object{Path: "null", Mode: fs.ModeDevice | 0o600, Rdev: Device{1, 3}})
		if i == 4 {
			in.file(string(bytes.Repeat([]byte("n"), 100)), nil)
		}
		seeds = append(seeds, in.write(f, o))
		f.Add(uint8(i), []byte{})
	}
	for _, name := range slices.Sorted(maps.Keys(realStreams)) {
		f.Add(uint8(len(seeds)), []byte{})
		seeds = append(seeds, realStream(f, name))
	}
	for _, at := range []uint32{headerSize + 8, 900, 1300, 2000, 4000, 8000} {
		f.Add(uint8(at%5), append(binary.LittleEndian.AppendUint32(nil, at), 1, 0, 0, 0, 0, 0, 0, 128))
	}
	f.Fuzz(func(t *testing.T, seed uint8, edits []byte) {
		stream := bytes.Clone(seeds[int(seed)%len(seeds)])
		for ; len(edits) >= 12; edits = edits[12:] {
			at := int(binary.LittleEndian.Uint32(edits)) % len(stream)
			copy(stream[at:], edits[4:12])
		}
		resum(stream)
		r := bytes.NewReader(stream)
		if s, err := Open(r, int64(len(stream)), ""); err == nil {
			readAll(s)
			if s.Apply(r, int64(len(stream))) == nil {
				t.Error("a full stream was applied as an increment")
			}
		}
		Check(r, int64(len(stream)))
		Dump(io.Discard, r, int64(len(stream)))
	})
}

// readAll reads what a snapshot holds, up to some of it.
func readAll(s *Snapshot) {
	buf := make([]byte, 64<<10)
	left := 1000
	for o, err := range s.Objects(Linux) {
		if err != nil || left == 0 {
			return
		}
		left--
		if o.Open == nil {
			continue
		}
		c, err := o.Open()
		if err != nil {
			continue
		}
		for _, x := range c.Extents() {
			if _, err := c.ReadAt(buf[:min(x.Len, int64(len(buf)))], x.Off); err != nil && err != io.EOF {
				break
			}
		}
		c.Close()
	}
}

// FuzzReader reads anything, with wrong checksums.
func FuzzReader(f *testing.F) {
	f.Add(newTree().write(f, Options{Profile: ZPL4})[:3*headerSize])
	f.Fuzz(func(_ *testing.T, stream []byte) {
		ReadHeader(bytes.NewReader(stream))
		z := NewReader(bytes.NewReader(stream))
		for {
			if _, err := z.Next(); err != nil {
				return
			}
		}
	})
}

func FuzzDecompress(f *testing.F) {
	var l lz4Packer
	src := bytes.Repeat([]byte("compress me "), 500)
	dst := make([]byte, len(src))
	f.Add(uint8(compressLZ4), dst[:l.pack(dst, src)])
	for _, v := range packed {
		f.Add(v.compression, v.data)
	}
	f.Fuzz(func(_ *testing.T, compression uint8, src []byte) {
		decompress(compression, make([]byte, 6000), src)
	})
}

// FuzzLZ4 packs and unpacks.
func FuzzLZ4(f *testing.F) {
	f.Add(bytes.Repeat([]byte("abc"), 400))
	f.Add(noise(1, 2000))
	f.Add(make([]byte, 4000))
	f.Fuzz(func(t *testing.T, src []byte) {
		var l lz4Packer
		dst := bytes.Repeat([]byte{0xAA}, len(src))
		n := l.pack(dst, src)
		if n == 0 {
			return
		}
		if n%minBlock != 0 || n > len(src) {
			t.Fatalf("%d bytes packed to %d", len(src), n)
		}
		got := make([]byte, len(src))
		if err := unpackLZ4(got, dst[:n]); err != nil || !bytes.Equal(got, src) {
			t.Fatalf("unpacked %v", err)
		}
	})
}

func FuzzZAP(f *testing.F) {
	for _, entries := range [][]zapEntry{nil, {{name: "a", value: 1}}, {{name: string(bytes.Repeat([]byte("n"), 60)), value: 2}}} {
		z, err := newZAP(7, entries, false)
		if err != nil {
			f.Fatal(err)
		}
		var all []byte
		for i := range z.blocks() {
			p := make([]byte, z.blockSize())
			z.block(i, p)
			all = append(all, p...)
		}
		f.Add(all, uint16(z.blockSize()/minBlock))
	}
	f.Fuzz(func(_ *testing.T, data []byte, sectors uint16) {
		size := int(sectors) * minBlock
		if size == 0 || len(data) < size {
			return
		}
		s := &objset{streams: []io.ReaderAt{bytes.NewReader(data)}}
		d := &dnode{blockSize: size}
		for off := 0; off+size <= len(data); off += size {
			d.blocks = append(d.blocks, block{off: uint64(off), size: int32(size), logical: int32(size), place: place{0, int32(size), int64(off)}})
		}
		s.zap(d, func(*zapItem) error { return nil })
	})
}

func FuzzAttributes(f *testing.F) {
	z := &znode{mode: modeRegular | 0o644, acl: trivialACL(0o644), gen: 1, links: 1}
	z.dxattr, _ = packXattrs(map[string][]byte{"user.a": []byte("b"), "user.c": nil})
	bonus, _, err := z.sa()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bonus, z.dxattr)
	f.Add(z.bonus4(), z.dxattr)
	stream := newTree().write(f, Options{})
	attrs := open(f, stream).zpl.attrs
	f.Fuzz(func(_ *testing.T, bonus, dxattr []byte) {
		var z inode
		z.attributes(bonus, attrs)
		unpackXattrs(z.dxattr)
		unpackXattrs(dxattr)
	})
}
