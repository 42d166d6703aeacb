package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// benchTree is a root of 4,000 files of sizes as in a distribution, some 100 MB.
func benchTree(b *testing.B) *Tree {
	b.Helper()
	tree := newTree(b)
	r := rand.New(rand.NewPCG(1, 1))
	words := make([]byte, 1<<20)
	for i := range words {
		words[i] = "abcdefghijklmnop etaoin\n"[r.IntN(24)]
	}
	for i := range 4000 {
		size := min(1<<20, 200<<r.IntN(11)+r.IntN(5000))
		at := r.IntN(len(words) - size + 1)
		put(b, tree, Entry{Name: fmt.Sprintf("usr/share/%d/%d", i%50, i), Mode: 0o644, ModTime: time.Unix(1700000000, 0)}, string(words[at:at+size]))
	}
	tree.Freeze(time.Time{})
	return tree
}

// BenchmarkWrite settles how several artifacts are written from one tree: each by a reader of its
// own (pull), or all by one reader that feeds them in step. It measures what the choice is about,
// reading and formatting; compression costs the same either way and is measured apart.
func BenchmarkWrite(b *testing.B) {
	tree := benchTree(b)
	size := tree.Bytes()
	for _, writers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("pull-%d", writers), func(b *testing.B) {
			b.SetBytes(size * int64(writers))
			for b.Loop() {
				g, ctx := errgroup.WithContext(context.Background())
				for range writers {
					g.Go(func() error { return WriteTar(ctx, sha256.New(), tree, Pax, nil) })
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("step-%d", writers), func(b *testing.B) {
			b.SetBytes(size * int64(writers))
			for b.Loop() {
				if err := writeInStep(tree, writers); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("zstd", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			z, err := NewCompressor(context.Background(), io.Discard, Zstd)
			if err != nil {
				b.Fatal(err)
			}
			if err := WriteTar(context.Background(), z, tree, Pax, nil); err != nil {
				b.Fatal(err)
			}
			if err := z.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// writeInStep reads every file once and hands each piece to all writers, which work in parallel and
// wait for each other.
func writeInStep(tree *Tree, writers int) error {
	var tws []*tar.Writer
	for range writers {
		tws = append(tws, tar.NewWriter(sha256.New()))
	}
	all := func(f func(*tar.Writer) error) error {
		var g errgroup.Group
		for _, tw := range tws {
			g.Go(func() error { return f(tw) })
		}
		return g.Wait()
	}
	buf := make([]byte, 256<<10)
	for e := range tree.All() {
		h, err := header(e, Pax)
		if err != nil {
			return err
		}
		if err := all(func(tw *tar.Writer) error { return tw.WriteHeader(h) }); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		f, err := tree.Open(e.Name)
		if err != nil {
			return err
		}
		for off := int64(0); off < e.Size; {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), e.Size-off)], off)
			if err != nil && err != io.EOF {
				return err
			}
			if err := all(func(tw *tar.Writer) error { _, err := tw.Write(buf[:n]); return err }); err != nil {
				return err
			}
			off += int64(n)
		}
		f.Close()
	}
	return all(func(tw *tar.Writer) error { return tw.Close() })
}

func BenchmarkReadTar(b *testing.B) {
	tree := benchTree(b)
	for _, c := range []Compression{None, Gzip, Zstd} {
		b.Run(string(c), func(b *testing.B) {
			f := temp(b, nil)
			name := f.Name()
			w, err := NewCompressor(context.Background(), createFile(b, name), c)
			if err != nil {
				b.Fatal(err)
			}
			if err := WriteTar(context.Background(), w, tree, Pax, nil); err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(tree.Bytes())
			for b.Loop() {
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				t, err := ReadTar(context.Background(), f, Options{Dir: b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				t.Close()
			}
		})
	}
}

// BenchmarkReadContent reads a content manifest, as every check and reset begins.
func BenchmarkReadContent(b *testing.B) {
	content := NewContent(benchTree(b))
	var mtree, objects bytes.Buffer
	if err := errors.Join(content.WriteMtree(&mtree), content.WriteObjects(&objects)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(mtree.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadContent(bytes.NewReader(mtree.Bytes()), bytes.NewReader(objects.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}
