package host_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
)

// A root of the shape of a small Debian: 15,000 entries, most files small, 300 MB.
const (
	benchDirs  = 1_200
	benchFiles = 13_800
)

func benchImage(b *testing.B) (*host.Verified, int64) {
	tree, err := image.NewTree(b.TempDir(), image.DefaultLimits)
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	rnd := rand.New(rand.NewChaCha8([32]byte{1}))
	dirs := []string{"."}
	put := func(e image.Entry, data []byte) {
		e.ModTime = hosttest.Time
		if err := tree.Put(e, data); err != nil {
			b.Fatal(err)
		}
	}
	for i := range benchDirs {
		name := fmt.Sprintf("%s/directory-%d", dirs[rnd.IntN(min(len(dirs), 200))], i)
		put(image.Entry{Name: name, Mode: fs.ModeDir | 0o755}, nil)
		dirs = append(dirs, name)
	}
	block := bytes.Repeat([]byte("some content of a file, "), 1<<16)
	for i := range benchFiles {
		size := rnd.IntN(8_000)
		if i%10 == 0 {
			size = rnd.IntN(350_000)
		}
		name := fmt.Sprintf("%s/file-%d.conf", dirs[rnd.IntN(len(dirs))], i)
		put(image.Entry{Name: name, Mode: 0o644}, append([]byte(name), block[:size]...))
	}
	tree.Freeze(time.Time{})
	return hosttest.FromTree(b, &image.Config{Schema: 1, Name: "bench", Version: "1", OS: "linux", Arch: "amd64"}, tree), tree.Bytes()
}

func benchHost(b *testing.B) (h *host.Host, r host.CloneRequest, size int64) {
	h = hosttest.Host(b)
	v, size := benchImage(b)
	if _, err := h.Import(b.Context(), "dir", v); err != nil {
		b.Fatal(err)
	}
	return h, host.CloneRequest{Image: v.Digest, Name: "bench", Platform: "dir", Place: b.TempDir()}, size
}

func BenchmarkClone(b *testing.B) {
	h, r, size := benchHost(b)
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		r.Name = fmt.Sprintf("bench-%d", i)
		if _, _, err := h.Clone(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReset(b *testing.B) {
	h, r, size := benchHost(b)
	if _, _, err := h.Clone(b.Context(), r); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, err := h.Reset(b.Context(), r.Name, false); err != nil {
			b.Fatal(err)
		}
	}
}

// benchCheck also reports how long the peer takes on the same tree, as a ratio.
func benchCheck(b *testing.B, full bool, peer string) {
	h, r, size := benchHost(b)
	if _, _, err := h.Clone(b.Context(), r); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		rep, err := h.Check(b.Context(), r.Name, host.CheckMode{Full: full})
		if err != nil || len(rep.Findings) > 0 {
			b.Fatal(err, rep)
		}
	}
	mine := b.Elapsed() / time.Duration(b.N)
	start := time.Now()
	for range b.N {
		cmd := exec.Command("sh", "-c", peer)
		cmd.Dir = filepath.Join(r.Place, r.Name, "root")
		if err := cmd.Run(); err != nil {
			b.Logf("no peer: %v", err)
			return
		}
	}
	b.ReportMetric(float64(mine)/float64(time.Since(start)/time.Duration(b.N)), "x_peer")
}

func BenchmarkCheckFast(b *testing.B) {
	benchCheck(b, false, `find . -printf '%y %m %U %G %s %T@ %C@ %i %n %l %p\n' >/dev/null`)
}

func BenchmarkCheckFull(b *testing.B) {
	benchCheck(b, true, `find . -type f -print0 | xargs -0 -P2 -n 256 sha256sum >/dev/null`)
}
