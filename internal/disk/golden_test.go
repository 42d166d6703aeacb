package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestVerify(t *testing.T) {
	g := build(t, bootRoot("amd64"), options("amd64"))
	b := make([]byte, g.System.Size)
	if _, err := g.System.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	verify := func() error { return g.Golden.Verify(context.Background(), bytes.NewReader(b), nil) }
	if err := verify(); err != nil {
		t.Fatal(err)
	}
	at := map[string]Partition{}
	for _, p := range g.Partitions {
		at[p.Name] = p
	}
	for name, c := range map[string]struct {
		at   int64
		want string
	}{
		"boot code":     {0, "partition table or EFI system partition is not what was built"},
		"table":         {1024 + 33, "partition table or EFI"},
		"second table":  {g.System.Size - 1024, "partition table or EFI"},
		"ESP":           {at["ESP"].Offset + 2<<20, "partition table or EFI"},
		"behind it all": {g.System.Size - mebibyte, "partition table or EFI"},
		"root":          {at["root"].Offset + 5000, "root is not what was built"},
		"tree":          {at["root-verity"].Offset + 4096 + 7, "hash tree is not what was built"},
		"superblock":    {at["root-verity"].Offset + 20, ""},
		"swap":          {at["swap"].Offset + 7, ""},
		"scratch":       {at["scratch"].Offset + 7, ""},
		"data":          {at["data"].Offset + 7, ""},
	} {
		b[c.at] ^= 1
		err := verify()
		if (c.want == "") != (err == nil) || err != nil && (!errors.Is(err, ErrChanged) || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		b[c.at] ^= 1
	}
	b = b[:len(b)-1]
	if err := verify(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short disk: %v", err)
	}
	for name, change := range map[string]func(*Golden){
		"size": func(g *Golden) { g.Size = 0 }, "order": func(g *Golden) { g.ESP = g.Root }, "blocks": func(g *Golden) { g.Blocks = 1 << 60 },
		"hash": func(g *Golden) { g.RootHash = "00" }, "salt": func(g *Golden) { g.Salt = strings.Repeat("g", 64) }, "place": func(g *Golden) { g.Hash++ },
	} {
		bad := g.Golden
		change(&bad)
		if err := bad.Verify(context.Background(), bytes.NewReader(b), nil); err == nil || errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
