package ovf

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// deflateSamples are grains of every character.
func deflateSamples() map[string][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	fill := func(n int, f func(i int) byte) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = f(i)
		}
		return b
	}
	text := []byte(strings.Repeat("Nobody expects the compression of a log; ", 40))
	out := map[string][]byte{
		"one byte":    {7},
		"zeros":       make([]byte, GrainSize),
		"noise":       fill(GrainSize, func(int) byte { return byte(r.Uint32()) }),
		"two values":  fill(GrainSize, func(int) byte { return byte(r.Uint32() & 1) }),
		"skewed":      fill(GrainSize, func(int) byte { return byte(r.ExpFloat64() * 20) }),
		"period 3":    fill(GrainSize, func(i int) byte { return byte(i % 3) }),
		"period 259":  fill(GrainSize, func(i int) byte { return byte(i * i % 259) }),
		"counter":     fill(GrainSize, func(i int) byte { return byte(i >> (i % 3 * 8)) }),
		"text":        bytes.Repeat(text, 64)[:GrainSize],
		"short text":  text,
		"half, half":  append(fill(GrainSize/2, func(int) byte { return byte(r.Uint32()) }), bytes.Repeat(text, 32)[:GrainSize/2]...),
		"all lengths": nil,
		"fibonacci":   nil,
	}
	far := fill(GrainSize/2, func(int) byte { return byte(r.Uint32()) })
	out["32 KiB away"] = append(bytes.Clone(far), far...)
	out["more than 32 KiB away"] = append(append(bytes.Clone(far[:GrainSize/2-1]), 1, 2), far[:GrainSize/2-1]...)
	var all []byte
	for n := range 300 {
		all = append(all, far[:min(n, 290)]...)
		all = append(all, byte(n), byte(n>>8))
		if len(all) > GrainSize-600 {
			break
		}
	}
	out["all lengths"] = all
	// Frequencies that grow like Fibonacci's make the deepest Huffman trees.
	var deep []byte
	for s, a, b := byte(0), 1, 1; len(deep)+a < GrainSize; s, a, b = s+1, b, a+b {
		deep = append(deep, bytes.Repeat([]byte{s}, a)...)
	}
	r.Shuffle(len(deep), func(i, j int) { deep[i], deep[j] = deep[j], deep[i] })
	out["fibonacci"] = deep
	return out
}

func inflated(t testing.TB, z []byte) []byte {
	t.Helper()
	r, err := zlib.NewReader(bytes.NewReader(z))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDeflate(t *testing.T) {
	for level, e := range efforts {
		d := newDeflater(e, maxDistance)
		for name, in := range deflateSamples() {
			copy(d.in[:], in)
			z := d.zlib(nil, len(in))
			if !bytes.Equal(inflated(t, z), in) {
				t.Errorf("level %d, %s: another content", level, name)
			}
			if most := len(in) + 5*(len(in)/maxStored+1) + 6; len(z) > most {
				t.Errorf("level %d, %s: %d bytes became %d, more than %d", level, name, len(in), len(z), most)
			}
			// The next grain must not show in this one.
			copy(d.in[:], bytes.Repeat([]byte("other"), 500))
			d.zlib(nil, 2500)
			copy(d.in[:], in)
			if again := d.zlib(nil, len(in)); !bytes.Equal(z, again) {
				t.Errorf("level %d, %s: an encoder that was used writes other bytes", level, name)
			}
		}
	}
}

func TestAdler(t *testing.T) {
	for name, in := range deflateSamples() {
		for _, n := range []int{0, 1, 7, 8, 9, 5551, 5552, 5553, len(in)} {
			b := in[:min(n, len(in))]
			if got, want := adler(b), adler32.Checksum(b); got != want {
				t.Errorf("%s, %d bytes: %#x, want %#x", name, len(b), got, want)
			}
		}
	}
	high := bytes.Repeat([]byte{0xff}, GrainSize)
	if got, want := adler(high), adler32.Checksum(high); got != want {
		t.Errorf("the largest sums: %#x, want %#x", got, want)
	}
}

func TestCodeLengths(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var c code
	for range 2000 {
		counts := make([]uint32, 1+r.IntN(litSymbols))
		for i := range counts {
			if r.IntN(3) > 0 {
				counts[i] = 1 << r.IntN(17)
			}
		}
		limit := maxLenBits
		if len(counts) > lenSymbols {
			limit = maxBits
		}
		c.build(counts, limit)
		sum, used := 0, 0
		for s, n := range counts {
			l := int(c.length[s])
			if n > 0 && l == 0 || l > limit {
				t.Fatalf("symbol %d of count %d has %d bits", s, n, l)
			}
			if n > 0 {
				used++
			}
			if l > 0 {
				sum += 1 << (limit - l)
			}
		}
		if used > 1 && sum != 1<<limit {
			t.Fatalf("%d symbols: Kraft's sum is %d, not %d", used, sum, 1<<limit)
		}
	}
}

func BenchmarkDeflate(b *testing.B) {
	samples := deflateSamples()
	for _, name := range []string{"text", "noise", "skewed"} {
		for level, e := range efforts {
			b.Run(fmt.Sprintf("%s/%d", name, level), func(b *testing.B) {
				d := newDeflater(e, maxDistance)
				b.SetBytes(GrainSize)
				var out []byte
				for b.Loop() {
					copy(d.in[:], samples[name])
					out = d.zlib(out[:0], GrainSize)
				}
			})
		}
	}
}

func FuzzDeflate(f *testing.F) {
	for _, in := range deflateSamples() {
		f.Add(in[:min(len(in), 2000)])
	}
	ds := []*deflater{newDeflater(efforts[Fast], maxDistance), newDeflater(efforts[Default], maxDistance), newDeflater(efforts[Small], maxDistance)}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 || len(in) > GrainSize {
			return
		}
		for _, d := range ds {
			copy(d.in[:], in)
			if !bytes.Equal(inflated(t, d.zlib(nil, len(in))), in) {
				t.Error("another content")
			}
		}
	})
}
