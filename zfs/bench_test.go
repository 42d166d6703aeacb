package zfs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
)

// benchTree is 512 MiB in files of 8 MiB that share one content in memory.
func benchTree() (tree, int64) {
	data := noise(1, 8<<20)
	f := newTree()
	for i := range 64 {
		f.file(fmt.Sprintf("f%d", i), data)
	}
	return f, 64 * int64(len(data))
}

func BenchmarkWrite(b *testing.B) {
	f, size := benchTree()
	for _, o := range []Options{{}, {LZ4: true}} {
		b.Run(fmt.Sprintf("lz4=%v", o.LZ4), func(b *testing.B) {
			s := f.stream(b, o)
			b.SetBytes(size)
			for b.Loop() {
				if err := s.Write(context.Background(), io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPool(b *testing.B) {
	f, size := benchTree()
	s := f.stream(b, Options{})
	b.SetBytes(size)
	for b.Loop() {
		p, err := NewPool(context.Background(), []Dataset{{Content: s}}, PoolOptions{Name: "p", Size: 1 << 30})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Write(context.Background(), nowhere{}); err != nil {
			b.Fatal(err)
		}
	}
}

type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func BenchmarkOpen(b *testing.B) {
	f, size := benchTree()
	stream := f.write(b, Options{})
	b.SetBytes(size)
	buf := make([]byte, recordSize)
	for b.Loop() {
		for o, err := range open(b, stream).Objects(Linux) {
			if err != nil {
				b.Fatal(err)
			}
			if o.Open == nil {
				continue
			}
			c, _ := o.Open()
			for off := int64(0); off < o.Size; off += int64(len(buf)) {
				if _, err := c.ReadAt(buf, off); err != nil && err != io.EOF {
					b.Fatal(err)
				}
			}
		}
	}
}

func BenchmarkFletcher4(b *testing.B) {
	data := noise(1, recordSize)
	var sum fletcher4
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		sum.add(data)
	}
}

// BenchmarkCopy is the limit that BenchmarkWrite is compared with.
func BenchmarkCopy(b *testing.B) {
	src := noise(1, 256<<20)
	dst := make([]byte, len(src))
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		copy(dst, src)
	}
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the first may have been under way
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkFiles is the cost of an object: empty files, a thousand to a directory.
func BenchmarkFiles(b *testing.B) {
	const n = 100_000
	f := newTree()
	for i := range n {
		f.file(fmt.Sprintf("d%d/f%d", i/1000, i), nil)
	}
	before := heap()
	s := f.stream(b, Options{})
	index := float64(heap()-before) / n
	runtime.KeepAlive(f)
	for b.Loop() {
		if err := s.Write(context.Background(), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(index, "index-B/object")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/object")
}

// TestMillion writes and reads a directory of a million names, and a million over many; by day
// only some of them.
func TestMillion(t *testing.T) {
	n := 20_000
	if os.Getenv("ISC_NIGHTLY") == "1" {
		n = 1_000_000
	}
	for _, per := range []int{n, 100} {
		f := newTree()
		for i := range n {
			dir := fmt.Sprintf("d%d", i/per)
			if f[dir] == nil {
				f.dir(dir)
			}
			path := fmt.Sprintf("%s/%d", dir, i)
			f[path] = &Object{Path: path, Mode: 0o644, ModTime: testTime}
		}
		before := heap()
		s := f.stream(t, Options{})
		if used := (heap() - before) / int64(n); used > 600 {
			t.Errorf("%d to a directory: an index of %d bytes an object", per, used)
		}
		var out writer
		if err := s.Write(context.Background(), &out); err != nil {
			t.Fatal(err)
		}
		if err := Check(bytes.NewReader(out), int64(len(out))); err != nil {
			t.Fatal(err)
		}
		got := 0
		for o, err := range open(t, out).Objects(Linux) {
			if err != nil {
				t.Fatal(err)
			}
			if f[o.Path] == nil {
				t.Fatalf("%q: not expected", o.Path)
			}
			got++
		}
		if got != len(f) {
			t.Errorf("%d to a directory: %d objects, want %d", per, got, len(f))
		}
	}
}
