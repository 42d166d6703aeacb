package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// PE32+ as far as boot stubs need it, from Microsoft's PE/COFF specification.
const (
	peSectionSize  = 40
	peOptional     = 24 // from the signature on
	peSecurityDir  = 112 + 4*8
	peChecksumAt   = 64
	peMaxSections  = 96
	peInitialized  = 0x40000040 // initialised data, readable
	peMachineAMD64 = 0x8664
	peMachineARM64 = 0xaa64
)

var peMachines = map[string]uint16{"amd64": peMachineAMD64, "arm64": peMachineARM64}

// A peImage is a boot stub, or what it has become.
type peImage struct {
	b        []byte
	sig      int // of "PE\0\0"
	optional int // of the optional header
	table    int // of the section table
	sections int
	end      int // of the last section's bytes
	fileUnit uint32
	memUnit  uint32
	memEnd   uint64 // of the last section, not rounded
}

// parsePE checks a PE32+ image for a machine.
func parsePE(b []byte) (*peImage, uint16, error) {
	le := binary.LittleEndian
	if len(b) < 0x40 || b[0] != 'M' || b[1] != 'Z' {
		return nil, 0, errors.New("is no PE image")
	}
	p := &peImage{b: b, sig: int(le.Uint32(b[0x3c:]))}
	if p.sig < 0x40 || p.sig > len(b)-peOptional-128 || string(b[p.sig:p.sig+4]) != "PE\x00\x00" {
		return nil, 0, errors.New("is no PE image: header is missing")
	}
	machine := le.Uint16(b[p.sig+4:])
	p.sections = int(le.Uint16(b[p.sig+6:]))
	size := int(le.Uint16(b[p.sig+20:]))
	p.optional = p.sig + peOptional
	p.table = p.optional + size
	switch {
	case le.Uint16(b[p.optional:]) != 0x20b:
		return nil, machine, errors.New("is no PE32+ image")
	case size < peSecurityDir+8 || p.sections == 0 || p.sections > peMaxSections || p.table+p.sections*peSectionSize > len(b):
		return nil, machine, errors.New("has a damaged section table")
	}
	o := b[p.optional:]
	p.memUnit, p.fileUnit = le.Uint32(o[32:]), le.Uint32(o[36:])
	headers := le.Uint32(o[60:])
	if p.fileUnit < 32 || p.fileUnit > 64<<10 || p.fileUnit&(p.fileUnit-1) != 0 || p.memUnit < p.fileUnit || p.memUnit > 16<<20 || p.memUnit&(p.memUnit-1) != 0 || int64(headers) > int64(len(b)) {
		return nil, machine, errors.New("has impossible alignments")
	}
	p.end = int(headers)
	for i := range p.sections {
		s := b[p.table+i*peSectionSize:]
		memory, at, raw, from := le.Uint32(s[8:]), le.Uint32(s[12:]), le.Uint32(s[16:]), le.Uint32(s[20:])
		if raw != 0 {
			if uint64(from)+uint64(raw) > uint64(len(b)) {
				return nil, machine, fmt.Errorf("section %d lies beyond the file", i)
			}
			p.end = max(p.end, int(from+raw))
		}
		p.memEnd = max(p.memEnd, uint64(at)+uint64(max(memory, raw)))
	}
	return p, machine, nil
}

// A section is one to append.
type section struct {
	name string // of at most eight bytes
	data []byte
}

// link appends sections to a boot stub: the unified kernel image. What stands behind the stub's
// sections, symbols or a signature, is dropped.
func link(stub []byte, arch string, sections []section) ([]byte, error) {
	p, machine, err := parsePE(stub)
	if err != nil {
		return nil, err
	}
	if machine != peMachines[arch] {
		return nil, fmt.Errorf("is for machine %#x, not for %s", machine, arch)
	}
	le := binary.LittleEndian
	headers := int(le.Uint32(p.b[p.optional+60:]))
	if p.table+peSectionSize*(p.sections+len(sections)) > headers {
		return nil, fmt.Errorf("has no room for %d more sections", len(sections))
	}
	for i := range p.sections {
		name := string(trimNUL(p.b[p.table+i*peSectionSize:][:8]))
		for _, s := range sections {
			if name == s.name {
				return nil, fmt.Errorf("has a section %s already", name)
			}
		}
	}
	size := roundUp(int64(p.end), int64(p.fileUnit))
	for _, s := range sections {
		size += roundUp(int64(len(s.data)), int64(p.fileUnit))
	}
	out := make([]byte, roundUp(int64(p.end), int64(p.fileUnit)), size)
	copy(out, p.b[:p.end])
	o := out[p.optional:]
	le.PutUint32(out[p.sig+12:], 0) // symbols
	le.PutUint32(out[p.sig+16:], 0)
	clear(o[peSecurityDir : peSecurityDir+8])
	// Some stubs say 512, but memory is protected by pages.
	unit := uint64(max(p.memUnit, 4096))
	memory, total := p.memEnd, le.Uint32(o[8:])
	for i, s := range sections {
		h := out[p.table+(p.sections+i)*peSectionSize:]
		clear(h[:peSectionSize])
		at := (memory + unit - 1) / unit * unit
		raw := roundUp(int64(len(s.data)), int64(p.fileUnit))
		if at+uint64(raw) >= 1<<31 || int64(len(out))+raw >= 1<<31 {
			return nil, errors.New("becomes larger than 2 GiB")
		}
		copy(h, s.name)
		le.PutUint32(h[8:], uint32(len(s.data)))
		le.PutUint32(h[12:], uint32(at))
		le.PutUint32(h[16:], uint32(raw))
		le.PutUint32(h[20:], uint32(len(out)))
		le.PutUint32(h[36:], peInitialized)
		out = append(append(out, s.data...), make([]byte, raw-int64(len(s.data)))...)
		memory, total = at+uint64(len(s.data)), total+uint32(raw)
	}
	o = out[p.optional:]
	le.PutUint16(out[p.sig+6:], uint16(p.sections+len(sections)))
	le.PutUint32(o[8:], total)
	le.PutUint32(o[56:], uint32((memory+uint64(p.memUnit)-1)/uint64(p.memUnit)*uint64(p.memUnit)))
	putChecksum(out, p.optional+peChecksumAt)
	return out, nil
}

// putChecksum sets the checksum of an image, which counts as zero in itself.
func putChecksum(b []byte, at int) {
	le := binary.LittleEndian
	le.PutUint32(b[at:], 0)
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(le.Uint16(b[i:]))
		sum = sum&0xffff + sum>>16
	}
	if len(b)%2 != 0 {
		sum += uint32(b[len(b)-1])
		sum = sum&0xffff + sum>>16
	}
	le.PutUint32(b[at:], sum+uint32(len(b)))
}

func trimNUL(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
