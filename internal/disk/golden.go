package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// A Golden says what a system disk must have before it is started: everything on it but swap, scratch
// and data. Verity guards the root while the machine runs, but neither the partition table nor the
// EFI system partition, which the guest can write: with the [Golden] that was signed, a host finds out.
type Golden struct {
	Schema   int    `json:"schema"`   // 1
	Size     int64  `json:"size"`     // bytes of the disk
	Root     int64  `json:"root"`     // offset of the root, bytes
	Blocks   int64  `json:"blocks"`   // of 4096 bytes, of the root
	RootHash string `json:"rootHash"` // of dm-verity, hexadecimal
	Salt     string `json:"salt"`     // of dm-verity, hexadecimal
	Tree     int64  `json:"tree"`     // offset of the hash tree's partition, bytes
	ESP      int64  `json:"esp"`      // offset of the EFI system partition, bytes
	ESPSize  int64  `json:"espSize"`  // bytes
	ESPHash  string `json:"espHash"`  // SHA-256 of that partition, hexadecimal
	// SHA-256 of what is before the root and behind the EFI system partition, the last: both partition
	// tables. Hexadecimal.
	TableHash string `json:"tableHash"`
}

// The parts of a disk that are compared. Partitions have the names that the table gives them.
const (
	PartDisk  = "disk"
	PartTable = "partition table"
	PartESP   = "ESP"
	PartRoot  = "root"
	PartTree  = "root-verity"
)

// A Difference is what has changed of a disk.
type Difference struct{ Part, What string }

// golden describes a system disk.
func (g *Guest) golden(ctx context.Context, v *verity) error {
	esp := g.Partitions[len(g.Partitions)-1]
	g.Golden = Golden{
		Schema: 1, Size: g.System.Size, Root: g.Partitions[0].Offset, Blocks: v.blocks, RootHash: hex.EncodeToString(v.root[:]),
		Salt: hex.EncodeToString(v.salt[:]), Tree: g.Partitions[1].Offset, ESP: esp.Offset, ESPSize: esp.Length,
	}
	var err error
	if g.Golden.TableHash, err = digest(ctx, g.System, g.Golden.table()...); err != nil {
		return err
	}
	g.Golden.ESPHash, err = digest(ctx, g.System, g.Golden.esp()...)
	return err
}

// table and esp are where the parts are that a digest covers.
func (g *Golden) table() []Extent {
	end := g.ESP + g.ESPSize
	return []Extent{{0, g.Root}, {end, g.Size - end}}
}

func (g *Golden) esp() []Extent { return []Extent{{g.ESP, g.ESPSize}} }

// digest returns the SHA-256 of parts of a disk, hexadecimal.
func digest(ctx context.Context, disk io.ReaderAt, parts ...Extent) (string, error) {
	h := sha256.New()
	buf := make([]byte, mebibyte)
	for _, x := range parts {
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

// Marshal returns the description as JSON, which depends on nothing else.
func (g *Golden) Marshal() ([]byte, error) {
	b, err := json.Marshal(g)
	return append(b, '\n'), err
}

// ParseGolden reads what Marshal wrote, and nothing else.
func ParseGolden(b []byte) (*Golden, error) {
	g := new(Golden)
	if err := json.Unmarshal(b, g); err != nil {
		return nil, fmt.Errorf("description of a disk: %w", err)
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	if again, err := g.Marshal(); err != nil || !bytes.Equal(again, b) {
		return nil, errors.New("description of a disk: not in the form that it is written in")
	}
	return g, nil
}

// maxDisk bounds what a Golden may say, in bytes.
const maxDisk = 1 << 46

// check tells whether the places make sense: a Golden comes from a file.
func (g *Golden) check() error {
	const mask = mebibyte - 1
	end := g.Root + g.Blocks*blockSize
	switch {
	case g.Schema != 1:
		return fmt.Errorf("description of a disk: schema %d is not known", g.Schema)
	case g.Size <= 0 || g.Size > maxDisk || (g.Size|g.Root|g.Tree|g.ESP|g.ESPSize)&mask != 0,
		g.Root < mebibyte || g.Blocks < 1 || g.Blocks > maxDisk/blockSize || g.Root > maxDisk || g.Tree < end,
		g.Tree > g.Size || g.Tree+treeSize(g.Blocks) > g.ESP || g.ESP > g.Size || g.ESPSize < mebibyte || g.ESPSize >= g.Size-g.ESP,
		!isDigest(g.RootHash) || !isDigest(g.Salt) || !isDigest(g.ESPHash) || !isDigest(g.TableHash):
		return errors.New("description of a disk: it makes no sense")
	}
	return nil
}

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// Verify compares a system disk of size bytes with the descriptions of several, of which it must be one:
// with the one whose partition table and EFI system partition it has, if it has any. It returns the
// number of that one, and what has changed. An error is that it could not be found out.
//
// The disk is read by places, not by its partition table, which is compared as well: once, by all
// processors, in memory of 1/8192 of the root.
func Verify(ctx context.Context, golden []*Golden, disk io.ReaderAt, size int64, progress func(done, total int64)) (int, []Difference, error) {
	best, cost := -1, 0
	var fewest []Difference
	known := map[string]string{}
	for i, g := range golden {
		if err := g.check(); err != nil {
			return 0, nil, err
		}
		// A disk that was cut is not taken for a smaller one that it has nothing of.
		diffs, c := []Difference{{PartDisk, fmt.Sprintf("%d bytes, not %d", size, g.Size)}}, 3
		if size >= g.Size {
			var err error
			if diffs, err = g.boot(ctx, disk, known); err != nil {
				return 0, nil, err
			}
			c = 2 * len(diffs)
		}
		if best < 0 || c < cost {
			best, fewest, cost = i, diffs, c
		}
	}
	switch {
	case best < 0:
		return 0, nil, errors.New("no description of a disk")
	case size < golden[best].Size:
		return best, fewest, nil
	}
	diffs, err := golden[best].root(ctx, disk, progress)
	return best, append(fewest, diffs...), err
}

// boot compares what starts the machine. Digests are known by what they are of.
func (g *Golden) boot(ctx context.Context, disk io.ReaderAt, known map[string]string) ([]Difference, error) {
	var diffs []Difference
	for _, p := range []struct {
		part, want string
		at         []Extent
	}{{PartTable, g.TableHash, g.table()}, {PartESP, g.ESPHash, g.esp()}} {
		key := fmt.Sprint(p.at)
		if known[key] == "" {
			sum, err := digest(ctx, disk, p.at...)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.part, err)
			}
			known[key] = sum
		}
		if known[key] != p.want {
			diffs = append(diffs, Difference{p.part, "content"})
		}
	}
	return diffs, nil
}

// A comparison is of a root and its hash tree, of which only what is above the leaves is in memory.
type comparison struct {
	*Golden
	verity verity
	disk   io.ReaderAt

	// Digests of the blocks of leaves: as the root has them, and as the disk has them.
	made, found []byte

	mu    sync.Mutex
	other int64 // blocks of the root that do not match their leaves
	first int64 // the first of them
}

// root compares the root and the hash tree.
func (g *Golden) root(ctx context.Context, disk io.ReaderAt, progress func(done, total int64)) ([]Difference, error) {
	groups := (g.Blocks + perBlock - 1) / perBlock
	c := &comparison{Golden: g, disk: disk, first: g.Blocks, made: make([]byte, groups*digestSize), found: make([]byte, groups*digestSize)}
	hex.Decode(c.verity.salt[:], []byte(g.Salt))
	if err := c.run(ctx, progress); err != nil {
		return nil, err
	}
	stored := make([]byte, treeSize(g.Blocks)-blockSize-levelSize(g.Blocks))
	if n, err := disk.ReadAt(stored, g.Tree+blockSize); n < len(stored) {
		return nil, fmt.Errorf("%s: %w", PartTree, shortRead(err))
	}
	var want [digestSize]byte
	hex.Decode(want[:], []byte(g.RootHash))
	made, root := c.verity.up(c.made)
	found, top := c.verity.up(c.found)
	switch tree := bytes.Equal(found, stored) && top == want; { // as it was built
	case root == want && tree && bytes.Equal(c.made, c.found) && bytes.Equal(made, stored):
		return nil, nil
	case root == want:
		return []Difference{{PartTree, "content"}}, nil
	case tree: // so it says which
		return []Difference{{PartRoot, fmt.Sprintf("%d of %d blocks, the first at byte %d of the disk", c.other, g.Blocks, g.Root+c.first*blockSize)}}, nil
	}
	return []Difference{{PartRoot, "content"}, {PartTree, "content"}}, nil
}

// run reads the root and the leaves that the disk has of it.
func (c *comparison) run(ctx context.Context, progress func(done, total int64)) error {
	const step = perBlock * blockSize // what one block of leaves is of
	size := c.Blocks * blockSize
	leaves := c.Tree + treeSize(c.Blocks) - levelSize(c.Blocks)
	var next, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf, made, found := make([]byte, step), make([]byte, blockSize), make([]byte, blockSize)
			for {
				i := next.Add(1) - 1
				at := i * step
				if at >= size {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				part := buf[:min(step, size-at)]
				if n, err := c.disk.ReadAt(part, c.Root+at); n < len(part) {
					return fmt.Errorf("%s: %w", PartRoot, shortRead(err))
				}
				if n, err := c.disk.ReadAt(found, leaves+i*blockSize); n < len(found) {
					return fmt.Errorf("%s: %w", PartTree, shortRead(err))
				}
				clear(made)
				c.verity.hash(made, part)
				c.verity.hash(c.made[i*digestSize:], made)
				c.verity.hash(c.found[i*digestSize:], found)
				c.note(i*perBlock, made, found)
				if n := done.Add(int64(len(part))); progress != nil {
					progress(n, size)
				}
			}
		})
	}
	return g.Wait()
}

// note counts the blocks of a group, from a block of the root on, whose digests differ.
func (c *comparison) note(block int64, made, found []byte) {
	if bytes.Equal(made, found) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := int64(0); i < perBlock && block+i < c.Blocks; i++ {
		if !bytes.Equal(made[i*digestSize:(i+1)*digestSize], found[i*digestSize:(i+1)*digestSize]) {
			c.other++
			c.first = min(c.first, block+i)
		}
	}
}

// shortRead names an error that a reader did not tell.
func shortRead(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
