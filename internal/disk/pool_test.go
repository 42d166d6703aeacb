package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// stage is a stage of the loader with a multiboot header.
func stage(size, at int) []byte {
	b := bytes.Repeat([]byte{0x90}, size)
	le := binary.LittleEndian
	const flags = multibootAddrs
	le.PutUint32(b[at:], multibootMagic)
	le.PutUint32(b[at+4:], flags)
	le.PutUint32(b[at+8:], 1<<32-(multibootMagic+flags))
	return b
}

// patterned is a pool of which every sector says where it is.
type patterned struct{}

func (patterned) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = byte((off + int64(i)) / sectorSize * 7)
	}
	return len(p), nil
}

func testPool() *Pool {
	return &Pool{ReaderAt: patterned{}, Size: 64 * mebibyte, GUID: 7, Extents: []Extent{{0, 512 << 10}, {4 * mebibyte, mebibyte}, {63 * mebibyte, mebibyte}}}
}

func TestBuildPool(t *testing.T) {
	mbr := bytes.Repeat([]byte{0xcc}, sectorSize)
	l := &Loader{EFI: stage(300_000, 1024), MBR: mbr, BIOS: stage(100_001, 16)}
	d, parts, err := BuildPool(testPool(), l)
	if err != nil {
		t.Fatal(err)
	}
	if d.Size != l.DiskSize(64*mebibyte) || l.PoolRoom(d.Size) != 64*mebibyte {
		t.Errorf("size %d, want %d", d.Size, l.DiskSize(64*mebibyte))
	}
	var names []string
	for _, p := range parts {
		names = append(names, p.Name)
	}
	if strings.Join(names, " ") != "loader zfs reserved" {
		t.Errorf("partitions %v", names)
	}
	b := make([]byte, d.Size)
	at := int64(0)
	for _, x := range append(d.Extents, Extent{d.Size, 0}) {
		if x.Offset < at {
			t.Fatalf("extent at %d", x.Offset)
		}
		at = x.Offset + x.Length
	}
	for _, x := range d.Extents {
		if _, err := d.ReadAt(b[x.Offset:][:x.Length], x.Offset); err != nil {
			t.Fatal(err)
		}
	}
	le := binary.LittleEndian
	start := parts[1].Offset
	if !bytes.Equal(b[:mbrStage2Size], mbr[:mbrStage2Size]) || b[0x1fe] != 0x55 || b[446+4] != 0xee {
		t.Error("the MBR is not the loader's with a protective partition")
	}
	if got := le.Uint64(b[mbrStage2LBA:]); got != uint64(start)/512+1024 {
		t.Errorf("stage 2 is told to be at %d", got)
	}
	if got := le.Uint16(b[mbrStage2Size:]); got != 196 {
		t.Errorf("stage 2 is told to have %d sectors", got)
	}
	boot := b[start+bootBlockAt:]
	if got := le.Uint64(boot[16+24:]); got != uint64(start)/512 {
		t.Errorf("stage 2 is told of a partition at %d", got)
	}
	if !bytes.Equal(boot[64:100_001], l.BIOS[64:]) || boot[100_001] != 0 {
		t.Error("stage 2 is another")
	}
	if i := bytes.Index(b, l.EFI[1024:1024+24]); i < mebibyte || int64(i) > start || le.Uint64(b[i+24:]) != uint64(start)/512 {
		t.Errorf("the loader is at %d", i)
	}
	if le.Uint64(l.EFI[1024+24:]) == le.Uint64(b[start:]) {
		t.Error("what was given has been changed")
	}
	want := make([]byte, mebibyte)
	for _, at := range []int64{4 * mebibyte, 63 * mebibyte} {
		patterned{}.ReadAt(want, at)
		if !bytes.Equal(b[start+at:][:mebibyte], want) {
			t.Errorf("the pool at %d is another", at)
		}
	}
	again, _, err := BuildPool(testPool(), l)
	if err != nil || again.ID != d.ID {
		t.Errorf("built again, id %x, want %x: %v", again.ID, d.ID, err)
	}
	l.MBR, l.BIOS = nil, nil
	if d, _, err = BuildPool(testPool(), l); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadAt(b[:512], 0); err != nil || b[0] != 0 {
		t.Errorf("code in the MBR of a disk for EFI: %v", err)
	}
}

func TestBuildPoolRefuses(t *testing.T) {
	mbr := make([]byte, sectorSize)
	for want, l := range map[string]*Loader{
		"pmbr has 3 bytes":    {EFI: []byte("x"), MBR: mbr[:3], BIOS: stage(1000, 0)},
		"no multiboot header": {EFI: []byte("x"), MBR: mbr, BIOS: make([]byte, 1000)},
		"room for 3670016":    {EFI: []byte("x"), MBR: mbr, BIOS: stage(4<<20, 0)},
	} {
		_, _, err := BuildPool(testPool(), l)
		problem := (*Problem)(nil)
		if err == nil || !errors.As(err, &problem) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
