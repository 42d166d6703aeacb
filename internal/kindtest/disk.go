package kindtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// A DiskKind is a kind that takes a captured disk.
type DiskKind struct {
	Block    string // the text of the artifact block
	Artifact string // the name of the artifact that holds the disk
	// Decode reads the artifact with code that the writer does not use, and returns the disk. It may
	// be followed by zeros, where the format rounds sizes up.
	Decode func(artifact []byte) ([]byte, error)
}

// disks are the test cases: bytes of the disk.
var disks = []struct {
	name string
	make func() []byte
}{
	{"one sector", func() []byte { return bytes.Repeat([]byte{1}, 512) }},
	{"zeros", func() []byte { return make([]byte, 1<<20) }},
	{"holes", func() []byte {
		b := make([]byte, 9<<20+512)
		for _, at := range []int{0, 65536 - 1, 3 << 20, len(b) - 512} {
			copy(b[at:], fmt.Sprintf("at %d", at))
		}
		return b
	}},
	{"noise", func() []byte {
		b := make([]byte, 3<<20)
		r := rand.New(rand.NewPCG(1, 2))
		for i := range b[:2<<20] {
			b[i] = byte(r.Uint32())
		}
		return b
	}},
}

// RunDisk runs the suite of kinds that take a captured disk.
func RunDisk(t *testing.T, k DiskKind) {
	for _, c := range disks {
		t.Run(c.name, func(t *testing.T) {
			disk := c.make()
			file := filepath.Join(t.TempDir(), "disk.raw")
			if err := os.WriteFile(file, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			first := k.write(t, file)
			if !bytes.Equal(first, k.write(t, file)) {
				t.Error("written twice, other bytes")
			}
			old := runtime.GOMAXPROCS(1)
			if !bytes.Equal(first, k.write(t, file)) {
				t.Error("written by one thread, other bytes")
			}
			runtime.GOMAXPROCS(old)
			got, err := k.Decode(first)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) < len(disk) || !bytes.Equal(got[:len(disk)], disk) || !bytes.Equal(got[len(disk):], make([]byte, len(got)-len(disk))) {
				t.Errorf("another disk: %d bytes of %d", len(got), len(disk))
			}
		})
	}
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, disks[3].make(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("cancelled", func(t *testing.T) {
		b := k.prepare(t, file)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l := layout(t, t.TempDir())
		if _, err := b.Write(ctx, l, "t", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that of the context", err)
		}
		empty(t, l)
	})
	t.Run("cut short", func(t *testing.T) {
		b := k.prepare(t, file)
		if err := os.Truncate(file, 1<<20); err != nil {
			t.Fatal(err)
		}
		l := layout(t, t.TempDir())
		if _, err := b.Write(t.Context(), l, "t", nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a disk that ends while it is read: %v", err)
		}
		empty(t, l)
	})
}

// prepare opens a file as the captured disk of an image.
func (k DiskKind) prepare(t *testing.T, file string) *builder.Built {
	t.Helper()
	text := fmt.Sprintf("image {\n  name = \"t\"\n  version = \"1\"\n  os = \"linux\"\n  arch = \"amd64\"\n}\ndisk {\n  source = %q\n  format = \"raw\"\n}\n%s\n", file, k.Block)
	s, diags := builder.ParseSpec(filepath.Join(t.TempDir(), "t.isc.hcl"), []byte(text), builder.Options{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	b, err := builder.Prepare(t.Context(), s, builder.BuildOptions{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func (k DiskKind) write(t *testing.T, file string) []byte {
	t.Helper()
	return Kind{Artifact: k.Artifact}.write(t, k.prepare(t, file), t.TempDir())
}
