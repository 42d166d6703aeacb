package zfs

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// lz4Format is the version of the bytes that lz4Packer makes: it goes into the guid.
const lz4Format = 1

const (
	lz4HashBits = 12
	lz4MinMatch = 4
	lz4Tail     = 12 // no match begins in the last 12 bytes of a block
	lz4Last     = 5  // which ends with 5 literals
	lz4MaxDist  = 1<<16 - 1
)

// An lz4Packer compresses blocks as ZFS stores them (module/zfs/lz4_zfs.c). The encoder is our
// own, so that its output is as fixed as the rest of the stream.
type lz4Packer struct {
	table [1 << lz4HashBits]int32
}

// pack compresses src into dst, which is as long, and returns the length: that of the compressed
// bytes in big endian, those bytes, and zeros up to a whole sector. It returns 0 if that is more
// than 7/8 of the block, when hosts store a block as it is.
func (l *lz4Packer) pack(dst, src []byte) int {
	limit := len(src) - len(src)/8
	if limit < minBlock {
		return 0
	}
	n := l.block(dst[4:limit], src)
	if n == 0 {
		return 0
	}
	binary.BigEndian.PutUint32(dst, uint32(n))
	end := roundUp(4+n, minBlock)
	if end > limit {
		return 0
	}
	clear(dst[4+n : end])
	return end
}

// block compresses src into dst in the LZ4 block format and returns the length, or 0 if dst is
// too short.
func (l *lz4Packer) block(dst, src []byte) int {
	clear(l.table[:])
	le := binary.LittleEndian
	n, anchor := 0, 0
	emit := func(literals []byte, dist, match int) bool {
		need := 1 + len(literals)/255 + 1 + len(literals) + 2 + match/255 + 1
		if n+need > len(dst) {
			return false
		}
		dst[n] = 0
		token := &dst[n]
		n++
		n += putLength(dst[n:], token, len(literals), 4)
		n += copy(dst[n:], literals)
		if match > 0 {
			le.PutUint16(dst[n:], uint16(dist))
			n += 2
			n += putLength(dst[n:], token, match-lz4MinMatch, 0)
		}
		return true
	}
	for i, step := 0, 0; i+lz4Tail < len(src); {
		word := le.Uint32(src[i:])
		slot := &l.table[word*2654435761>>(32-lz4HashBits)]
		at := int(*slot) - 1
		*slot = int32(i + 1)
		if at < 0 || i-at > lz4MaxDist || le.Uint32(src[at:]) != word {
			step++
			i += 1 + step>>6 // ever faster through what does not compress
			continue
		}
		step = 0
		end, from := i+lz4MinMatch, at+lz4MinMatch
		for limit := len(src) - lz4Last; end < limit; {
			if end+8 <= limit {
				if x := le.Uint64(src[end:]) ^ le.Uint64(src[from:]); x != 0 {
					end += bits.TrailingZeros64(x) / 8
					break
				}
				end, from = end+8, from+8
				continue
			}
			if src[end] != src[from] {
				break
			}
			end, from = end+1, from+1
		}
		if !emit(src[anchor:i], i-at, end-i) {
			return 0
		}
		i, anchor = end, end
	}
	if !emit(src[anchor:], 0, 0) {
		return 0
	}
	return n
}

// putLength stores a length in four bits of the token and, from 15 on, in bytes behind it, whose
// number it returns.
func putLength(dst []byte, token *byte, v, shift int) int {
	if v < 15 {
		*token |= byte(v << shift)
		return 0
	}
	*token |= 15 << shift
	n := 0
	for v -= 15; v >= 255; v -= 255 {
		dst[n] = 255
		n++
	}
	dst[n] = byte(v)
	return n + 1
}

var errCompressed = errors.New("compressed data is damaged")

// unpackLZ4 decompresses src, as pack makes it, to exactly len(dst) bytes.
func unpackLZ4(dst, src []byte) error {
	if len(src) < 4 {
		return errCompressed
	}
	n := binary.BigEndian.Uint32(src)
	if src = src[4:]; uint64(n) > uint64(len(src)) {
		return errCompressed
	}
	src = src[:n]
	d, s := 0, 0
	length := func(v int) (int, bool) {
		if v < 15 {
			return v, true
		}
		for s < len(src) && v <= len(dst) {
			b := src[s]
			s++
			v += int(b)
			if b < 255 {
				return v, true
			}
		}
		return 0, false
	}
	for s < len(src) {
		token := src[s]
		s++
		lit, ok := length(int(token >> 4))
		if !ok || lit > len(src)-s || lit > len(dst)-d {
			return errCompressed
		}
		d += copy(dst[d:d+lit], src[s:s+lit])
		if s += lit; s == len(src) {
			break
		}
		if len(src)-s < 2 {
			return errCompressed
		}
		dist := int(binary.LittleEndian.Uint16(src[s:]))
		s += 2
		match, ok := length(int(token & 15))
		if match += lz4MinMatch; !ok || dist == 0 || dist > d || match > len(dst)-d {
			return errCompressed
		}
		for match > 0 { // a match may overlap itself
			k := copy(dst[d:d+match], dst[d-dist:d])
			d, match = d+k, match-k
		}
	}
	if d != len(dst) {
		return errCompressed
	}
	return nil
}
