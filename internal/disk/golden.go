package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// A Golden says what a system disk must have before it is started: everything on it but swap, scratch
// and data. Verity guards the root while the machine runs, but neither the partition table nor the
// EFI system partition, which the guest can write: with the [Golden] that was signed, a host finds out.
type Golden struct {
	Size     int64  `json:"size"`     // bytes of the disk
	Root     int64  `json:"root"`     // offset of the root, bytes
	Blocks   int64  `json:"blocks"`   // of 4096 bytes, of the root
	Hash     int64  `json:"hash"`     // offset of the hash tree's partition, bytes
	ESP      int64  `json:"esp"`      // offset of the EFI system partition, the last, bytes
	RootHash string `json:"rootHash"` // of dm-verity, hexadecimal
	Salt     string `json:"salt"`     // of dm-verity, hexadecimal
	Boot     string `json:"boot"`     // SHA-256 of what is before the root and from the ESP on, hexadecimal
}

// ErrChanged is in the errors of disks that are not what they were.
var ErrChanged = errors.New("is not what was built")

// golden describes a system disk.
func (g *Guest) golden(ctx context.Context, v *verity) error {
	esp := g.Partitions[len(g.Partitions)-1]
	g.Golden = Golden{
		Size: g.System.Size, Root: g.Partitions[0].Offset, Blocks: v.blocks, Hash: g.Partitions[1].Offset, ESP: esp.Offset,
		RootHash: hex.EncodeToString(v.root[:]), Salt: hex.EncodeToString(v.salt[:]),
	}
	var err error
	g.Golden.Boot, err = g.Golden.boot(ctx, g.System)
	return err
}

// boot returns the digest of what starts the machine.
func (g *Golden) boot(ctx context.Context, disk io.ReaderAt) (string, error) {
	h := sha256.New()
	buf := make([]byte, mebibyte)
	for _, x := range []Extent{{0, g.Root}, {g.ESP, g.Size - g.ESP}} {
		for at := x.Offset; at < x.Offset+x.Length; at += mebibyte {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			part := buf[:min(mebibyte, x.Offset+x.Length-at)]
			if n, err := disk.ReadAt(part, at); n < len(part) {
				return "", shortRead(err)
			}
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Verify reads a system disk and compares. The errors of all that has changed are joined, and wrap
// ErrChanged. It reads the disk by its places, not by its partition table, which is compared as well.
func (g *Golden) Verify(ctx context.Context, disk io.ReaderAt, progress func(done, total int64)) error {
	if err := g.check(); err != nil {
		return err
	}
	var salt [32]byte
	hex.Decode(salt[:], []byte(g.Salt))
	var errs []error
	boot, err := g.boot(ctx, disk)
	switch {
	case err != nil:
		return err
	case boot != g.Boot:
		errs = append(errs, fmt.Errorf("partition table or EFI system partition %w", ErrChanged))
	}
	root := &mosaic{size: g.Blocks * blockSize}
	root.add(0, root.size, window{disk, g.Root})
	v, err := hashVerity(ctx, root, root.size, [16]byte{}, salt, runtime.GOMAXPROCS(0), progress)
	if err != nil {
		return err
	}
	if hex.EncodeToString(v.root[:]) != g.RootHash {
		errs = append(errs, fmt.Errorf("root %w", ErrChanged))
	}
	tree := make([]byte, len(v.data))
	if n, err := disk.ReadAt(tree, g.Hash); n < len(tree) {
		return shortRead(err)
	}
	// The superblock has the UUID, which is not ours to know, and which nobody reads.
	if !bytes.Equal(tree[blockSize:], v.data[blockSize:]) {
		errs = append(errs, fmt.Errorf("hash tree %w", ErrChanged))
	}
	return errors.Join(errs...)
}

// maxDisk bounds what a Golden may say, in bytes.
const maxDisk = 1 << 46

// check tells whether the places make sense: a Golden comes from a file.
func (g *Golden) check() error {
	const mask = mebibyte - 1
	switch {
	case g.Size <= 0 || g.Size > maxDisk || (g.Size|g.Root|g.Hash|g.ESP)&mask != 0,
		g.Root < mebibyte || g.Blocks < 1 || g.Blocks > maxDisk/blockSize || g.Hash < g.Root+g.Blocks*blockSize || g.ESP <= g.Hash || g.ESP >= g.Size,
		!isDigest(g.RootHash) || !isDigest(g.Salt) || !isDigest(g.Boot):
		return errors.New("the description of the disk is damaged")
	}
	return nil
}

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// shortRead names an error that a reader did not tell.
func shortRead(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
