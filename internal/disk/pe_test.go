package disk

import "encoding/binary"

// testPE is a boot stub that is none, but has what one has.
func testPE() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x800)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x80)
	h := b[0x80:]
	copy(h, "PE\x00\x00")
	le.PutUint16(h[4:], peMachineAMD64)
	le.PutUint16(h[6:], 1)
	le.PutUint32(h[12:], 0x700) // symbols
	le.PutUint32(h[16:], 3)
	le.PutUint16(h[20:], 240)
	le.PutUint16(h[22:], 0x22e)
	o := h[24:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[8:], 0x200)
	le.PutUint32(o[16:], 0x1000)
	le.PutUint32(o[32:], 0x1000)
	le.PutUint32(o[36:], 0x200)
	le.PutUint32(o[56:], 0x2000)
	le.PutUint32(o[60:], 0x400)
	le.PutUint16(o[68:], 10)  // EFI application
	le.PutUint32(o[108:], 16) // directories
	s := o[240:]
	copy(s, ".text")
	le.PutUint32(s[8:], 0x123)
	le.PutUint32(s[12:], 0x1000)
	le.PutUint32(s[16:], 0x200)
	le.PutUint32(s[20:], 0x400)
	le.PutUint32(s[36:], 0x60000020)
	for i := 0x400; i < 0x800; i++ {
		b[i] = byte(i * 7)
	}
	return b
}
