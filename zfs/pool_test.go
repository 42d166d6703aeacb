package zfs

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// pool makes a pool with a tree in ROOT/golden.
func (t tree) pool(tb testing.TB, o Options, po PoolOptions, more ...Dataset) *Pool {
	tb.Helper()
	p, err := NewPool(context.Background(), append([]Dataset{
		{Properties: map[string]string{"mountpoint": "none", "canmount": "off"}},
		{Name: "ROOT", Properties: map[string]string{"mountpoint": "none", "canmount": "off", "compression": "lzjb"}},
		{Name: "ROOT/golden", Content: t.stream(tb, o), Properties: map[string]string{
			"mountpoint": "/", "canmount": "noauto", "org.example:built-by": "tests", "atime": "off",
		}},
	}, more...), po)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}

// large is a tree that takes several metaslabs.
func large() tree {
	t := newTree()
	for i := range 9 {
		t.file(fmt.Sprintf("f%d", i), noise(uint64(i), 5<<20+i*1000))
	}
	return t
}

func (p *Pool) writeFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(p.Size()); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
