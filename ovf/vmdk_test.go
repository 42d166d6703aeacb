package ovf

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testDisk returns a disk with text, noise, zeros and a partial grain at its end.
func testDisk(size int64) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for off := 0; off < len(b); off += GrainSize {
		g := b[off:min(off+GrainSize, len(b))]
		switch r.IntN(5) {
		case 0, 1:
		case 2:
			for i := range g {
				g[i] = byte(r.Uint32())
			}
		default:
			for i := 0; i < len(g); {
				i += copy(g[i:], fmt.Sprintf("line %d of a log that says little\n", r.IntN(1000)))
			}
		}
	}
	return b
}

func writeTest(t testing.TB, src Source, opt WriteOptions) ([]byte, *VMDK) {
	t.Helper()
	var out bytes.Buffer
	v, err := WriteVMDK(t.Context(), &out, src, opt)
	if err != nil {
		t.Fatal(err)
	}
	if v.Size != int64(out.Len()) {
		t.Fatalf("size is %d, written are %d", v.Size, out.Len())
	}
	if v.SHA256 != sha256.Sum256(out.Bytes()) {
		t.Fatal("digest is not that of the bytes")
	}
	return out.Bytes(), v
}

func TestVMDKRoundTrip(t *testing.T) {
	for _, size := range []int64{512, GrainSize, GrainSize + 1, 3 << 20, 40<<20 + 1000, 97 << 20} {
		disk := testDisk(size)
		for _, level := range []Level{Fast, Default, Small} {
			if size > 8<<20 && level == Small {
				continue
			}
			data, v := writeTest(t, Source{Content: bytes.NewReader(disk), Size: size}, WriteOptions{Level: level})
			want := append(slices.Clone(disk), make([]byte, v.Capacity-size)...)
			r, err := NewReader(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			if r.Capacity != v.Capacity || !r.Stream || !r.Compressed || r.CreateType != "streamOptimized" {
				t.Fatalf("read %+v", r)
			}
			n, err := r.Check(t.Context())
			if err != nil || n != v.Populated {
				t.Fatalf("check: %d, %v; written %d", n, err, v.Populated)
			}
			got := make([]byte, v.Capacity)
			if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("size %d: content differs (%v)", size, err)
			}
			// Through a pipe, forward only.
			pr, pw := io.Pipe()
			go func() {
				_, err := pw.Write(data)
				pw.CloseWithError(err)
			}()
			got = make([]byte, v.Capacity)
			s, err := ReadStream(pr, func(_, off int64, b []byte) error { copy(got[off:], b); return nil })
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("size %d: stream differs (%v)", size, err)
			}
			if s.Capacity != v.Capacity || s.Populated != v.Populated || s.Size != v.Size {
				t.Fatalf("stream is %+v, written %+v", s, v)
			}
		}
	}
}

// unread fails when a hole is read.
type unread struct {
	t       *testing.T
	r       io.ReaderAt
	extents []Extent
}

func (u unread) ReadAt(p []byte, off int64) (int, error) {
	for _, e := range u.extents {
		if off >= e.Offset && off+int64(len(p)) <= e.Offset+e.Length {
			return u.r.ReadAt(p, off)
		}
	}
	u.t.Errorf("%d bytes at %d were read, which is in a hole", len(p), off)
	return 0, io.EOF
}

func TestVMDKHoles(t *testing.T) {
	const size = 80 << 20
	extents := []Extent{{70<<20 + 5, 7}, {100, 50}, {200, 3 * GrainSize}, {GrainSize * 9, 0}, {33 << 20, GrainSize}}
	disk := make([]byte, size)
	for _, e := range extents {
		for i := range disk[e.Offset : e.Offset+e.Length] {
			disk[e.Offset+int64(i)] = byte(i%251) + 1
		}
	}
	sparse, _ := writeTest(t, Source{Content: unread{t, bytes.NewReader(disk), extents}, Size: size, Extents: extents}, WriteOptions{})
	dense, _ := writeTest(t, Source{Content: bytes.NewReader(disk), Size: size}, WriteOptions{})
	if !bytes.Equal(sparse, dense) {
		t.Error("extents change the bytes")
	}
	r, err := NewReader(bytes.NewReader(sparse), int64(len(sparse)))
	if err != nil {
		t.Fatal(err)
	}
	var got []Extent
	for e, err := range r.Extents() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	want := []Extent{{0, 4 * GrainSize}, {33 << 20, GrainSize}, {70 << 20, GrainSize}}
	if !slices.Equal(got, want) {
		t.Errorf("extents are %v, want %v", got, want)
	}
	empty, v := writeTest(t, Source{Content: unread{t: t}, Size: size, Extents: []Extent{}}, WriteOptions{})
	if v.Populated != 0 || len(empty) > 72<<10 {
		t.Errorf("an empty disk takes %d bytes", len(empty))
	}
}

func TestVMDKDeterministic(t *testing.T) {
	disk := testDisk(24 << 20)
	src := Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}
	first, _ := writeTest(t, src, WriteOptions{Workers: 1, ID: [16]byte{1}})
	for _, workers := range []int{0, 2, 7} {
		again, _ := writeTest(t, src, WriteOptions{Workers: workers, ID: [16]byte{1}})
		if !bytes.Equal(first, again) {
			t.Errorf("%d workers write other bytes", workers)
		}
	}
	other, _ := writeTest(t, src, WriteOptions{ID: [16]byte{2}})
	if bytes.Equal(first, other) {
		t.Error("the ID does not show")
	}
}

type brokenReader struct{ io.ReaderAt }

var errBroken = errors.New("the disk is broken")

func (b brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= 8<<20 {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}

type brokenWriter struct{ left int }

func (b *brokenWriter) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestVMDKWriteErrors(t *testing.T) {
	disk := testDisk(16 << 20)
	size := int64(len(disk))
	whole := bytes.NewReader(disk)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		w    io.Writer
		src  Source
		opt  WriteOptions
		want string
	}{
		"read":      {t.Context(), io.Discard, Source{Content: brokenReader{whole}, Size: size}, WriteOptions{}, "read disk at 8388608: the disk is broken"},
		"short":     {t.Context(), io.Discard, Source{Content: whole, Size: size + 512}, WriteOptions{}, "read disk at 16777216: unexpected EOF"},
		"write":     {t.Context(), &brokenWriter{1 << 20}, Source{Content: whole, Size: size}, WriteOptions{}, "the disk is broken"},
		"cancelled": {cancelled, io.Discard, Source{Content: whole, Size: size}, WriteOptions{}, "context canceled"},
		"empty":     {t.Context(), io.Discard, Source{Content: whole}, WriteOptions{}, "disk of 0 bytes"},
		"huge":      {t.Context(), io.Discard, Source{Content: whole, Size: MaxCapacity + 1}, WriteOptions{}, "disk of 2199023255553 bytes"},
		"extent":    {t.Context(), io.Discard, Source{Content: whole, Size: size, Extents: []Extent{{size - 1, 2}}}, WriteOptions{}, "not within the disk"},
		"level":     {t.Context(), io.Discard, Source{Content: whole, Size: size}, WriteOptions{Level: 9}, "level 9"},
	} {
		_, err := WriteVMDK(c.ctx, c.w, c.src, c.opt)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// readAll reads a VMDK in every way and returns the first error of each.
func readAll(ctx context.Context, data []byte) (check, stream error) {
	r, err := NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		check = err
	} else {
		_, check = r.Check(ctx)
	}
	_, stream = ReadStream(bytes.NewReader(data), func(_, _ int64, _ []byte) error { return nil })
	return check, stream
}

func TestFileExtents(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 24 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 9<<20 + 5, size - 3} {
		if _, err := f.WriteAt([]byte("abc"), at); err != nil {
			t.Fatal(err)
		}
	}
	extents, err := FileExtents(f)
	if err != nil {
		t.Fatal(err)
	}
	sparse, v := writeTest(t, Source{Content: f, Size: size, Extents: extents}, WriteOptions{})
	dense, _ := writeTest(t, Source{Content: f, Size: size}, WriteOptions{})
	if v.Populated != 3*GrainSize || !bytes.Equal(sparse, dense) {
		t.Errorf("%v: %d bytes populated", extents, v.Populated)
	}
	// Nothing but a hole is no extent, which is another thing than not to know.
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if extents, err = FileExtents(f); err != nil || extents == nil {
		t.Errorf("%v, %v", extents, err)
	}
}
