package disk

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// BenchmarkRoot lays out a root of 1,000 small files and 64 MiB, and hashes it.
func BenchmarkRoot(b *testing.B) {
	r := oddRoot()
	r.remove("dir/hole-far")
	r.sparse("dir/large", 64<<20, Extent{0, 64 << 20})
	benchRoot(b, r)
}

func benchRoot(b *testing.B, r *testRoot) {
	b.Helper()
	for b.Loop() {
		root, err := readRoot(r.all())
		if err != nil {
			b.Fatal(err)
		}
		e, err := writeEROFS(root)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := hashVerity(context.Background(), e, e.size, [16]byte{}, [32]byte{}, 2, nil); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(e.size)
	}
}

// BenchmarkVerify compares a disk with a root of 64 MiB with its description.
func BenchmarkVerify(b *testing.B) {
	r := bootRoot("amd64")
	r.sparse("usr/lib/large", 64<<20, Extent{0, 64 << 20})
	r.sort()
	g, err := Build(context.Background(), r.all(), options("amd64"))
	if err != nil {
		b.Fatal(err)
	}
	disk := make([]byte, g.System.Size)
	if _, err := g.System.ReadAt(disk, 0); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(g.Golden.Blocks*blockSize + g.Golden.ESPSize)
	b.ReportAllocs()
	for b.Loop() {
		_, diffs, err := Verify(context.Background(), []*Golden{&g.Golden}, bytes.NewReader(disk), int64(len(disk)), nil)
		if err != nil || len(diffs) > 0 {
			b.Fatal(diffs, err)
		}
	}
}

// BenchmarkRealRoot is the same with a Debian of 400 MB, beside mkfs.erofs and veritysetup, which
// take it from a folder (ISC_REAL=1 go test -run '^$' -bench RealRoot -benchtime 5x, as root).
func BenchmarkRealRoot(b *testing.B) {
	if os.Getenv("ISC_REAL") == "" {
		b.Skip("ISC_REAL is not set")
	}
	name, err := basetest.Debian(context.Background(), basetest.BenchDebian)
	if err != nil {
		b.Fatal(err)
	}
	r := readTar(b, name)
	b.Run("hash", func(b *testing.B) { benchRoot(b, r) })
	b.Run("write", func(b *testing.B) {
		out := filepath.Join(b.TempDir(), "root")
		for b.Loop() {
			root, err := readRoot(r.all())
			if err != nil {
				b.Fatal(err)
			}
			e, err := writeEROFS(root)
			if err != nil {
				b.Fatal(err)
			}
			v, err := hashVerity(context.Background(), e, e.size, [16]byte{}, [32]byte{}, 2, nil)
			if err != nil {
				b.Fatal(err)
			}
			f, err := os.Create(out)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(f, io.NewSectionReader(e, 0, e.size)); err != nil {
				b.Fatal(err)
			}
			f.Write(v.data)
			f.Close()
			b.SetBytes(e.size)
		}
	})
	b.Run("mkfs.erofs and veritysetup", func(b *testing.B) {
		dir := b.TempDir()
		folder, image, tree := filepath.Join(dir, "root"), filepath.Join(dir, "image"), filepath.Join(dir, "tree")
		if err := os.Mkdir(folder, 0o755); err != nil {
			b.Fatal(err)
		}
		command := func(name string, args ...string) {
			if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
				b.Fatalf("%s: %v\n%s", name, err, out)
			}
		}
		command("tar", "-xf", name, "-C", folder, "--exclude=./dev")
		for b.Loop() {
			os.Remove(image)
			command("mkfs.erofs", "--quiet", image, folder)
			command("veritysetup", "format", image, tree)
		}
		if i, err := os.Stat(image); err == nil {
			b.SetBytes(i.Size())
		}
	})
}
