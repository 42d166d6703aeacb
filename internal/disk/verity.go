package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Verity on disk, from the kernel's Documentation/admin-guide/device-mapper/verity.rst and cryptsetup's
// lib/verity/verity.c.
const (
	digestSize = sha256.Size
	perBlock   = blockSize / digestSize
)

// A verity is a superblock and the hash tree over some data.
type verity struct {
	data   []byte // the superblock's block, then the levels, top first
	root   [digestSize]byte
	salt   [32]byte
	blocks int64 // of the data
}

// hashVerity reads all of src, which is of whole blocks, and makes the tree.
func hashVerity(ctx context.Context, src io.ReaderAt, size int64, uuid [16]byte, salt [32]byte, workers int, progress func(done, total int64)) (*verity, error) {
	v := &verity{salt: salt, blocks: size / blockSize}
	leaves, err := v.leaves(ctx, src, size, workers, progress)
	if err != nil {
		return nil, err
	}
	levels, root := v.up(leaves)
	v.root = root
	v.data = make([]byte, blockSize)
	b := v.data
	le := binary.LittleEndian
	copy(b, "verity\x00\x00")
	le.PutUint32(b[8:], 1)  // version
	le.PutUint32(b[12:], 1) // hash type: salt first
	copy(b[16:], uuid[:])
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], blockSize)
	le.PutUint32(b[68:], blockSize)
	le.PutUint64(b[72:], uint64(v.blocks))
	le.PutUint16(b[80:], uint16(len(salt)))
	copy(b[88:], salt[:])
	v.data = append(v.data, levels...)
	return v, nil
}

// up returns the levels from a given one on, which is of more than one digest unless it is all there
// is: top first, of whole blocks. And it returns the root hash.
func (v *verity) up(level []byte) (levels []byte, root [digestSize]byte) {
	if len(level) == digestSize {
		return nil, [digestSize]byte(level)
	}
	all := [][]byte{whole(level)}
	// A single block of data would have no level; no root is that small.
	for below := all[0]; len(below) > blockSize; below = all[len(all)-1] {
		above := make([]byte, roundUp(int64(len(below)/perBlock), blockSize))
		v.hash(above, below)
		all = append(all, above)
	}
	v.hash(root[:], all[len(all)-1])
	slices.Reverse(all)
	return slices.Concat(all...), root
}

// whole returns a level with zeros behind it, up to a whole block.
func whole(level []byte) []byte {
	return append(level, make([]byte, roundUp(int64(len(level)), blockSize)-int64(len(level)))...)
}

// levelSize returns the bytes of the lowest level over so many blocks, and treeSize those of all
// levels and the superblock's block.
func levelSize(blocks int64) int64 { return roundUp(blocks*digestSize, blockSize) }

func treeSize(blocks int64) int64 {
	size := int64(blockSize)
	for {
		level := levelSize(blocks)
		size += level
		if level == blockSize {
			return size
		}
		blocks = level / blockSize
	}
}

// roundUp returns n raised to a multiple of unit.
func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// hash writes the digests of the blocks of src to dst, one after the other.
func (v *verity) hash(dst, src []byte) {
	buf := make([]byte, len(v.salt)+blockSize)
	copy(buf, v.salt[:])
	for i := 0; i*blockSize < len(src); i++ {
		copy(buf[len(v.salt):], src[i*blockSize:(i+1)*blockSize])
		sum := sha256.Sum256(buf)
		copy(dst[i*digestSize:], sum[:])
	}
}

// leaves returns the lowest level.
func (v *verity) leaves(ctx context.Context, src io.ReaderAt, size int64, workers int, progress func(done, total int64)) ([]byte, error) {
	const step = 1 << 20
	leaves := make([]byte, roundUp(v.blocks*digestSize, blockSize))
	var next, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range max(1, workers) {
		g.Go(func() error {
			buf := make([]byte, step)
			for {
				at := next.Add(step) - step
				if at >= size {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				part := buf[:min(step, size-at)]
				if n, err := src.ReadAt(part, at); n < len(part) {
					return shortRead(err)
				}
				v.hash(leaves[at/blockSize*digestSize:], part)
				if n := done.Add(int64(len(part))); progress != nil {
					progress(n, size)
				}
			}
		})
	}
	return leaves, g.Wait()
}
