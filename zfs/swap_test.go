package zfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// bigEndian returns one of our streams as a host of the other byte order would send it.
func bigEndian(t *testing.T, stream []byte) []byte {
	t.Helper()
	var out []byte
	var sum fletcher4
	z := NewReader(bytes.NewReader(stream))
	for {
		rec, err := z.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		head := bytes.Clone(stream[rec.Pos:][:headerSize])
		payload := bytes.Clone(stream[rec.Pos+headerSize:][:roundUp(rec.PayloadSize, 8)])
		swapHeader(rec.Type, head)
		switch {
		case rec.Type == RecordObject && rec.BonusType == typeZnode:
			swapZnode(payload)
		case rec.Type == RecordObject && rec.BonusType == typeSA, rec.Type == RecordSpill:
			swapAttributes(payload)
		case rec.Type == RecordWrite && rec.Kind != typeFile:
			swapZAP(payload)
		}
		if rec.Type == RecordEnd {
			sum.put(head[8:], binary.BigEndian)
		}
		if rec.Type == RecordBegin {
			sum.addSwapped(head)
		} else {
			sum.addSwapped(head[:sumOffset])
			sum.put(head[sumOffset:], binary.BigEndian)
			sum.addSwapped(head[sumOffset:])
			sum.addSwapped(payload)
		}
		out = append(append(out, head...), payload...)
	}
}

// swap reverses the bytes of numbers of the given sizes, one behind the other, and returns the rest.
func swap(p []byte, sizes ...int) []byte {
	for _, n := range sizes {
		for i := range n / 2 {
			p[i], p[n-1-i] = p[n-1-i], p[i]
		}
		p = p[n:]
	}
	return p
}

func swapAll(p []byte, size int) {
	for len(p) >= size {
		p = swap(p, size)
	}
}

func swapHeader(kind RecordType, head []byte) {
	u := swap(head, 4, 4)
	switch kind {
	case RecordBegin:
		swap(u, 8, 8, 8, 4, 4, 8, 8)
	case RecordObject:
		swap(swap(u, 8, 4, 4, 4, 4)[4:], 4, 8)
	case RecordWrite:
		swap(swap(u, 8, 4, 4, 8, 8, 8)[48:], 8)
	case RecordSpill:
		swap(u, 8, 8, 8)
	default:
		swap(u, 8, 8, 8, 8, 8)
	}
}

func swapACL(p []byte) {
	for len(p) >= aceSize {
		p = swap(p, 2, 2, 4)
	}
}

func swapZnode(p []byte) {
	n := binary.LittleEndian.Uint32(p[184:])
	swapAll(p[:184], 8)
	swap(p[184:], 4, 2, 2)
	swapACL(p[192:][:n])
}

func swapAttributes(p []byte) {
	info := binary.LittleEndian.Uint16(p[4:])
	head := int(info>>10) * 8
	lengths := bytes.Clone(p[6:head])
	rest := p[head:]
	for _, attr := range saLayouts[info&maxLayout-firstLayout] {
		n := saAttrs[attr].length
		if n == 0 {
			n = int(binary.LittleEndian.Uint16(lengths))
			lengths = lengths[2:]
		}
		switch attr {
		case saDACLACEs:
			swapACL(rest[:n])
		case saSymlink, saDXattr:
		default:
			swapAll(rest[:n], 8)
		}
		rest = rest[min(roundUp(n, 8), len(rest)):]
	}
	swap(p, 4)
	swapAll(p[4:head], 2)
}

func swapZAP(p []byte) {
	switch binary.LittleEndian.Uint64(p) {
	case zapMicro:
		swap(p, 8, 8, 8)
		for p = p[microEntry:]; len(p) > 0; p = p[microEntry:] {
			swap(p, 8, 4, 2)
		}
	case zapLeaf:
		swap(p, 8, 8, 8, 4, 2, 2, 2, 2)
		swapAll(p[leafHeader:][:2*leafBuckets], 2)
		for c := p[leafHeader+2*leafBuckets:]; len(c) >= chunkSize; c = c[chunkSize:] {
			if c[0] == chunkEntry {
				swap(c[2:], 2, 2, 2, 2, 2, 4, 8)
			} else {
				swap(c[22:], 2)
			}
		}
	default: // a header, or the pointer table
		swapAll(p, 8)
	}
}

func TestBigEndian(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Profile: ZPL4}, {LZ4: true}, {Platform: Illumos}} {
		in := allKinds().withXattrs()
		stream := bigEndian(t, in.write(t, o))
		s := open(t, stream)
		same(t, in.normal(), collect(t, s, o.Platform))
		if err := Check(bytes.NewReader(stream), int64(len(stream))); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
