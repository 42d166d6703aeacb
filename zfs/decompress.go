package zfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// decompress fills dst with a block that is compressed to src (zio_compress_table).
func decompress(compression uint8, dst, src []byte) error {
	switch {
	case compression == 0 || compression == compressOff:
		if len(src) < len(dst) {
			return errCompressed
		}
		copy(dst, src)
		return nil
	case compression == compressLZJB:
		return unpackLZJB(dst, src)
	case compression >= compressGzip1 && compression <= compressGzip9:
		return unpackGzip(dst, src)
	case compression == compressZLE:
		return unpackZLE(dst, src)
	case compression == compressLZ4:
		return unpackLZ4(dst, src)
	case compression == compressZstd:
		return unpackZstd(dst, src)
	}
	return fmt.Errorf("compression %d: not known", compression)
}

// unpackLZJB is the inverse of lzjb_compress: groups of eight items, each a byte or a reference.
func unpackLZJB(dst, src []byte) error {
	const matchBits, matchMin = 6, 3
	d, s := 0, 0
	for mask, items := 0, 0; d < len(dst); mask <<= 1 {
		if mask&0xFF == 0 {
			if s == len(src) {
				return errCompressed
			}
			mask, items = 1, int(src[s])
			s++
		}
		if items&mask == 0 {
			if s == len(src) {
				return errCompressed
			}
			dst[d] = src[s]
			d, s = d+1, s+1
			continue
		}
		if len(src)-s < 2 {
			return errCompressed
		}
		length := int(src[s]>>(8-matchBits)) + matchMin
		dist := (int(src[s])<<8 | int(src[s+1])) & (1<<(16-matchBits) - 1)
		s += 2
		if dist == 0 || dist > d {
			return errCompressed
		}
		for ; length > 0 && d < len(dst); length, d = length-1, d+1 {
			dst[d] = dst[d-dist]
		}
	}
	return nil
}

// unpackZLE is the inverse of zle_compress with its level of 64: runs of bytes and of zeros.
func unpackZLE(dst, src []byte) error {
	const level = 64
	for len(src) > 0 && len(dst) > 0 {
		n := 1 + int(src[0])
		src = src[1:]
		if n <= level {
			if n > len(src) || n > len(dst) {
				return errCompressed
			}
			copy(dst, src[:n])
			src = src[n:]
		} else {
			if n -= level; n > len(dst) {
				return errCompressed
			}
			clear(dst[:n])
		}
		dst = dst[n:]
	}
	if len(dst) > 0 {
		return errCompressed
	}
	return nil
}

// unpackGzip reads what z_compress_level makes: the zlib format.
func unpackGzip(dst, src []byte) error {
	z, err := zlib.NewReader(bytes.NewReader(src))
	if err != nil {
		return errCompressed
	}
	defer z.Close()
	if _, err := io.ReadFull(z, dst); err != nil {
		return errCompressed
	}
	return nil
}

// zstdDecoder is shared; DecodeAll may be called concurrently.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxBlock), zstd.WithDecodeAllCapLimit(true))
})

// unpackZstd reads a zfs_zstdhdr_t, which holds the length and the level, and a frame that lacks
// its magic number.
func unpackZstd(dst, src []byte) error {
	if len(src) < 8 {
		return errCompressed
	}
	n := binary.BigEndian.Uint32(src)
	if src = src[8:]; uint64(n) > uint64(len(src)) {
		return errCompressed
	}
	d, err := zstdDecoder()
	if err != nil {
		return err
	}
	frame := append([]byte{0x28, 0xb5, 0x2f, 0xfd}, src[:n]...)
	out, err := d.DecodeAll(frame, dst[:0:len(dst)])
	if err != nil || len(out) != len(dst) {
		return errCompressed
	}
	if len(out) > 0 && &out[0] != &dst[0] {
		copy(dst, out)
	}
	return nil
}
