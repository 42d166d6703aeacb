package disk

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/guesttest"
)

// testPE is a boot stub or kernel that does nothing, but has what one has.
func testPE(arch string) []byte { return guesttest.PE(arch) }

func TestLink(t *testing.T) {
	stub := testPE("amd64")
	// Symbols and a signature, which a linked image has no more.
	binary.LittleEndian.PutUint32(stub[0x80+12:], 0x700)
	binary.LittleEndian.PutUint32(stub[0x80+16:], 3)
	binary.LittleEndian.PutUint32(stub[0x80+24+peSecurityDir:], 0x600)
	binary.LittleEndian.PutUint32(stub[0x80+24+peSecurityDir+4:], 0x100)
	parts := []section{{".osrel", []byte("ID=x\n")}, {".empty", nil}, {".cmdline", []byte("quiet")}, {".linux", bytes.Repeat([]byte("k"), 10000)}}
	out, err := link(stub, "amd64", parts)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	h := f.OptionalHeader.(*pe.OptionalHeader64)
	end := uint32(0)
	for i, s := range f.Sections {
		if s.VirtualAddress < end || s.VirtualAddress%4096 != 0 || s.Offset%0x200 != 0 {
			t.Errorf("%s at %#x, file %#x, after %#x", s.Name, s.VirtualAddress, s.Offset, end)
		}
		end = s.VirtualAddress + s.VirtualSize
		if i == 0 {
			continue
		}
		p := parts[i-1]
		if s.Name != p.name || s.VirtualSize != uint32(len(p.data)) || s.Characteristics != 0x40000040 {
			t.Errorf("section %d: %+v", i, s.SectionHeader)
		}
		if data, err := s.Data(); err != nil || !bytes.Equal(data[:len(p.data)], p.data) {
			t.Errorf("section %s: content (%v)", s.Name, err)
		}
	}
	if h.SizeOfImage != (end+0xfff)&^0xfff || f.NumberOfSymbols != 0 || h.DataDirectory[4] != (pe.DataDirectory{}) || h.CheckSum == 0 {
		t.Errorf("%+v", h)
	}
	if h.SizeOfInitializedData != 0x200+0x200+0x200+0x2800 {
		t.Errorf("initialised data %#x", h.SizeOfInitializedData)
	}
	if _, err := link(out, "amd64", parts[:1]); err == nil || !strings.Contains(err.Error(), "has a section .osrel already") {
		t.Errorf("linked twice: %v", err)
	}
	for want, change := range map[string]func(b []byte) []byte{
		"is no PE image":                       func(b []byte) []byte { return b[:0x30] },
		"header is missing":                    func(b []byte) []byte { b[0x3f] = 1; return b },
		"is for machine 0xaa64, not for amd64": func([]byte) []byte { return testPE("arm64") },
		"is no PE32+ image":                    func(b []byte) []byte { b[0x98] = 0xc; return b },
		"has a damaged section table":          func(b []byte) []byte { b[0x86] = 0; return b },
		"has impossible alignments":            func(b []byte) []byte { b[0x98+36] = 3; return b },
		"section 0 lies beyond the file":       func(b []byte) []byte { b[0x98+240+18] = 1; return b },
		"has no room for 4 more sections":      func(b []byte) []byte { b[0x98+61] = 2; return b },
		"becomes larger than 2 GiB":            func(b []byte) []byte { b[0x98+240+15] = 0x80; return b },
	} {
		if _, err := link(change(testPE("amd64")), "amd64", parts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzLink(f *testing.F) {
	f.Add(testPE("amd64"))
	f.Add(testPE("arm64"))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, stub []byte) {
		out, err := link(stub, "amd64", []section{{".cmdline", []byte("quiet")}, {".linux", make([]byte, 700)}})
		if err != nil {
			return
		}
		p, _, err := parsePE(out)
		if err != nil {
			t.Fatalf("what was linked %v", err)
		}
		last := out[p.table+(p.sections-1)*peSectionSize:]
		if string(trimNUL(last[:8])) != ".linux" || binary.LittleEndian.Uint32(last[8:]) != 700 {
			t.Error("the last section is another")
		}
		kernelImage(stub, "amd64")
		bzImageRelease(stub)
	})
}
