package profiles

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// A counting root counts what is read of the content of its files.
type counting struct {
	*image.Tree
	reads map[string]int
	bytes int64
}

func (c *counting) ReadFile(name string) ([]byte, error) {
	data, err := c.Tree.ReadFile(name)
	c.reads[name]++
	c.bytes += int64(len(data))
	return data, err
}

// Open counts what of a file can be read without the whole of it.
func (c *counting) Open(name string) (image.File, error) {
	f, err := c.Tree.Open(name)
	return &countingFile{f, c}, err
}

type countingFile struct {
	image.File
	c *counting
}

func (f *countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.c.bytes += int64(n)
	return n, err
}

// TestAuditReads audits a root of programs and data: their content was read once, when the root was
// opened, and is not read again.
func TestAuditReads(t *testing.T) {
	const large = 1 << 20
	for _, system := range Platforms {
		t.Run(system, func(t *testing.T) {
			tree := violating(t, system)
			var small int64
			for e := range tree.All() {
				small += e.Size
			}
			program, data := strings.Repeat("\x7fELF", 4<<10), strings.Repeat("data", (large+4)/4)
			var total int64
			for i := range 200 {
				put(t, tree, image.Entry{Name: fmt.Sprintf("usr/lib/lib%d.so", i), Mode: 0o755, ModTime: old}, program)
				total += int64(len(program))
			}
			for i := range 20 {
				put(t, tree, image.Entry{Name: fmt.Sprintf("var/lib/data/%d.db", i), Mode: 0o644, ModTime: old}, data)
				total += int64(len(data))
			}
			c := &counting{Tree: tree, reads: map[string]int{}}
			if _, err := Audit(c, baseline(t, system, nil), today); err != nil {
				t.Fatal(err)
			}
			for name := range c.reads {
				if strings.HasPrefix(name, "usr/lib/lib") || strings.HasPrefix(name, "var/lib/data/") {
					t.Errorf("%q was read", name)
				}
			}
			t.Logf("%d reads of %d files, %d bytes of %d", sum(c.reads), len(c.reads), c.bytes, total+small)
			if c.bytes > total/10 {
				t.Errorf("%d bytes were read of %d", c.bytes, total+small)
			}
		})
	}
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// BenchmarkRealAudit is what applying and auditing the profile adds to the build of a Debian root of
// 400 MB and 16,000 entries.
func BenchmarkRealAudit(b *testing.B) {
	if os.Getenv("ISC_REAL") == "" {
		b.Skip("ISC_REAL is not set: no Debian root")
	}
	name, err := basetest.Debian(b.Context(), basetest.BenchDebian)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	tree, err := image.ReadTar(b.Context(), f, image.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	s := baseline(b, Linux, nil)
	c := &counting{Tree: tree, reads: map[string]int{}}
	for b.Loop() {
		if err := Apply(c, s, epoch); err != nil {
			b.Fatal(err)
		}
		if _, err := Audit(c, s, today); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(c.bytes)/float64(b.N)/(1<<20), "MiB-read/op")
}
