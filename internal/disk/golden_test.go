package disk

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// content returns the bytes of a disk.
func content(t *testing.T, d *Disk) []byte {
	t.Helper()
	b := make([]byte, d.Size)
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// verify compares a disk with descriptions, and returns which it is and what has changed.
func verify(t *testing.T, disk []byte, golden ...*Golden) (int, string) {
	t.Helper()
	i, diffs, err := Verify(context.Background(), golden, bytes.NewReader(disk), int64(len(disk)), nil)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, d := range diffs {
		parts = append(parts, d.Part+": "+d.What)
	}
	return i, strings.Join(parts, "; ")
}

func TestVerify(t *testing.T) {
	g := build(t, bootRoot("amd64"), options("amd64"))
	b := content(t, g.System)
	if _, got := verify(t, b, &g.Golden); got != "" {
		t.Fatal(got)
	}
	at := map[string]Partition{}
	for _, p := range g.Partitions {
		at[p.Name] = p
	}
	first := fmt.Sprintf("root: 1 of %d blocks, the first at byte %d of the disk", g.Golden.Blocks, at["root"].Offset+4096)
	for name, c := range map[string]struct {
		at   int64
		want string
	}{
		"boot code":     {0, "partition table: content"},
		"table":         {1024 + 33, "partition table: content"},
		"second table":  {g.System.Size - 1024, "partition table: content"},
		"ESP":           {at["ESP"].Offset + 2<<20, "ESP: content"},
		"end of ESP":    {at["ESP"].Offset + at["ESP"].Length - 1, "ESP: content"},
		"behind it all": {g.System.Size - mebibyte, "partition table: content"},
		"root":          {at["root"].Offset + 5000, first},
		"tree":          {at["root-verity"].Offset + 4096 + 7, "root-verity: content"},
		"superblock":    {at["root-verity"].Offset + 20, ""},
		"swap":          {at["swap"].Offset + 7, ""},
		"scratch":       {at["scratch"].Offset + 7, ""},
		"data":          {at["data"].Offset + 7, ""},
	} {
		b[c.at] ^= 1
		if _, got := verify(t, b, &g.Golden); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		b[c.at] ^= 1
	}
	b[0] ^= 1
	b[at["root"].Offset] ^= 1
	b[at["root-verity"].Offset+5000] ^= 1
	if _, got := verify(t, b, &g.Golden); got != "partition table: content; root: content; root-verity: content" {
		t.Errorf("several: %q", got)
	}
	if _, got := verify(t, b[:len(b)-1], &g.Golden); got != fmt.Sprintf("disk: %d bytes, not %d", len(b)-1, len(b)) {
		t.Errorf("a short disk: %q", got)
	}
	clear(b)
	if _, got := verify(t, b, &g.Golden); got != "partition table: content; ESP: content; root: content; root-verity: content" {
		t.Errorf("another disk: %q", got)
	}
	if _, _, err := Verify(context.Background(), []*Golden{&g.Golden}, bytes.NewReader(b[:1<<20]), int64(len(b)), nil); err == nil {
		t.Error("a disk that cannot be read is compared")
	}
	if _, _, err := Verify(context.Background(), nil, bytes.NewReader(b), int64(len(b)), nil); err == nil {
		t.Error("a disk is compared with nothing")
	}
}

// TestVerifyOne wants of several descriptions the one that a disk is of.
func TestVerifyOne(t *testing.T) {
	o := Options{Arch: "amd64", Hardware: []Hardware{AHCI}, Swap: mebibyte}
	plain := build(t, bootRoot("amd64"), o)
	o.Cmdline = "other"
	other := build(t, bootRoot("amd64"), o)
	o.SecondDisk = true
	second := build(t, bootRoot("amd64"), o)
	golden := []*Golden{&second.Golden, &plain.Golden, &other.Golden}
	for i, g := range []*Guest{second, plain, other} {
		b := content(t, g.System)
		if which, got := verify(t, b, golden...); which != i || got != "" {
			t.Errorf("disk %d is taken for %d: %q", i, which, got)
		}
		if which, got := verify(t, b[:len(b)-512], golden...); !strings.HasPrefix(got, "disk: ") || golden[which].Size != g.Golden.Size {
			t.Errorf("disk %d, cut, is taken for %d: %q", i, which, got)
		}
		b[g.Golden.Root] ^= 1
		b[g.Golden.ESP] ^= 1 // the table says which it is, unless two have the same
		if which, got := verify(t, b, golden...); !strings.HasPrefix(got, "ESP: content; root: 1 of") || golden[which].TableHash != g.Golden.TableHash {
			t.Errorf("disk %d, changed, is taken for %d: %q", i, which, got)
		}
	}
}

// TestVerifyTree compares roots of all depths of trees.
func TestVerifyTree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, blocks := range []int64{1, 2, 127, 128, 129, 128*128 + 1} {
		data := make([]byte, blocks*blockSize)
		for i := 0; i < len(data); i += 512 {
			data[i] = byte(random.Uint32())
		}
		v, err := hashVerity(context.Background(), bytes.NewReader(data), int64(len(data)), [16]byte{1}, [32]byte{2}, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if treeSize(blocks) != int64(len(v.data)) {
			t.Fatalf("%d blocks: a tree of %d bytes, not %d", blocks, treeSize(blocks), len(v.data))
		}
		g := &Golden{Root: 1 << 20, Blocks: blocks, RootHash: hex.EncodeToString(v.root[:]), Salt: hex.EncodeToString(v.salt[:])}
		g.Tree = roundUp(g.Root+int64(len(data)), mebibyte)
		b := make([]byte, g.Tree+int64(len(v.data)))
		copy(b[g.Root:], data)
		copy(b[g.Tree:], v.data)
		root := func() string {
			diffs, err := g.root(context.Background(), bytes.NewReader(b), nil)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(diffs)
		}
		if got := root(); got != "[]" {
			t.Errorf("%d blocks: %s", blocks, got)
		}
		for at := blockSize; at < len(v.data); at += max(blockSize, len(v.data)/3/blockSize*blockSize) {
			b[g.Tree+int64(at)+31] ^= 1
			if got := root(); got != "[{root-verity content}]" {
				t.Errorf("%d blocks, a bit at %d of the tree: %s", blocks, at, got)
			}
			b[g.Tree+int64(at)+31] ^= 1
		}
		last := g.Root + int64(len(data)) - blockSize
		b[last] ^= 1
		if got, want := root(), fmt.Sprintf("[{root 1 of %d blocks, the first at byte %d of the disk}]", blocks, last); got != want {
			t.Errorf("%d blocks: %s, want %s", blocks, got, want)
		}
		b[g.Root+5] ^= 1
		if got, want := root(), fmt.Sprintf("[{root %d of %d blocks, the first at byte %d of the disk}]", min(blocks, 2), blocks, g.Root); got != want {
			t.Errorf("%d blocks: %s, want %s", blocks, got, want)
		}
	}
}

func TestGoldenForm(t *testing.T) {
	g := build(t, bootRoot("amd64"), options("amd64"))
	text, err := g.Golden.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseGolden(text); err != nil || *again != g.Golden {
		t.Errorf("%+v (%v)", again, err)
	}
	for name, bad := range map[string]string{
		"unknown member": strings.Replace(string(text), "{", `{"more":1,`, 1), "spaces": strings.ReplaceAll(string(text), ",", ", "),
		"more": string(text) + "\n", "less": strings.TrimSpace(string(text)), "twice": strings.Replace(string(text), "{", `{"schema":1,`, 1), "nothing": "",
	} {
		if _, err := ParseGolden([]byte(bad)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for name, change := range map[string]func(*Golden){
		"schema": func(g *Golden) { g.Schema = 2 }, "size": func(g *Golden) { g.Size = 0 }, "order": func(g *Golden) { g.ESP = g.Root },
		"blocks": func(g *Golden) { g.Blocks = 1 << 60 }, "hash": func(g *Golden) { g.RootHash = "00" }, "salt": func(g *Golden) { g.Salt = strings.Repeat("g", 64) },
		"place": func(g *Golden) { g.Tree++ }, "ESP": func(g *Golden) { g.ESPSize = g.Size }, "no ESP": func(g *Golden) { g.ESPSize = 0 },
		"negative": func(g *Golden) { g.Root = -mebibyte }, "tree": func(g *Golden) { g.Blocks = (g.Tree-g.Root)/blockSize + 1 },
	} {
		bad := g.Golden
		change(&bad)
		if _, _, err := Verify(context.Background(), []*Golden{&bad}, bytes.NewReader(nil), 1<<40, nil); err == nil || strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) {
			t.Errorf("%s: %v", name, err)
		}
		text, err := bad.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseGolden(text); err == nil {
			t.Errorf("%s is parsed", name)
		}
	}
}

func FuzzGolden(f *testing.F) {
	for _, g := range []Golden{
		{Schema: 1, Size: 5 << 20, Root: 1 << 20, Blocks: 2, Tree: 2 << 20, ESP: 3 << 20, ESPSize: 1 << 20},
		{Schema: 1, Size: 1 << 45, Root: 1 << 20, Blocks: 1 << 30, Tree: 1 << 43, ESP: 1 << 44, ESPSize: 1 << 40},
	} {
		for _, h := range []*string{&g.RootHash, &g.Salt, &g.ESPHash, &g.TableHash} {
			*h = strings.Repeat("0f", 32)
		}
		text, err := g.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := ParseGolden(text)
		if err != nil {
			return
		}
		if again, err := g.Marshal(); err != nil || !slices.Equal(again, text) {
			t.Fatalf("%q becomes %q (%v)", text, again, err)
		}
		disk := make([]byte, 8<<20)
		Verify(context.Background(), []*Golden{g}, bytes.NewReader(disk), int64(len(disk)), nil)
		// One that is said to be larger than it is.
		if g.Size <= 1<<30 {
			if _, _, err := Verify(context.Background(), []*Golden{g}, bytes.NewReader(disk[:512]), g.Size, nil); err == nil {
				t.Fatal("what is not there is compared")
			}
		}
	})
}
