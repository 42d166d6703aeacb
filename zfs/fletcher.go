package zfs

import "encoding/binary"

// fletcher4 is the running checksum of a stream (zfs_fletcher.c) over words of 32 bits.
type fletcher4 struct{ a, b, c, d uint64 }

// add feeds p, whose length is a multiple of 4, as little-endian words. Four dependent additions
// a word pipeline to one word a cycle; splitting the sum into lanes is slower in Go.
func (f *fletcher4) add(p []byte) {
	a, b, c, d := f.a, f.b, f.c, f.d
	for len(p) >= 16 {
		a += uint64(binary.LittleEndian.Uint32(p))
		b += a
		c += b
		d += c
		a += uint64(binary.LittleEndian.Uint32(p[4:]))
		b += a
		c += b
		d += c
		a += uint64(binary.LittleEndian.Uint32(p[8:]))
		b += a
		c += b
		d += c
		a += uint64(binary.LittleEndian.Uint32(p[12:]))
		b += a
		c += b
		d += c
		p = p[16:]
	}
	for len(p) >= 4 {
		a += uint64(binary.LittleEndian.Uint32(p))
		b += a
		c += b
		d += c
		p = p[4:]
	}
	f.a, f.b, f.c, f.d = a, b, c, d
}

// addSwapped feeds p as big-endian words: the checksum that a big-endian sender computes.
func (f *fletcher4) addSwapped(p []byte) {
	for ; len(p) >= 4; p = p[4:] {
		f.a += uint64(binary.BigEndian.Uint32(p))
		f.b += f.a
		f.c += f.b
		f.d += f.c
	}
}

// put stores the sum in p.
func (f *fletcher4) put(p []byte, order binary.ByteOrder) {
	for i, v := range [...]uint64{f.a, f.b, f.c, f.d} {
		order.PutUint64(p[8*i:], v)
	}
}

// sumAt reads a sum that put stored.
func sumAt(p []byte, order binary.ByteOrder) fletcher4 {
	return fletcher4{order.Uint64(p), order.Uint64(p[8:]), order.Uint64(p[16:]), order.Uint64(p[24:])}
}
