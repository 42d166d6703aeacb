package ovf

import (
	"bytes"
	"io"
	"testing"
)

// BenchmarkWriteVMDK counts bytes of the disk that hold data. The peer on the same data is
// TestRealSpeed.
func BenchmarkWriteVMDK(b *testing.B) {
	disk := testDisk(64 << 20)
	src := Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}
	for name, level := range map[string]Level{"fast": Fast, "default": Default, "small": Small} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(disk)))
			var v *VMDK
			for b.Loop() {
				var err error
				if v, err = WriteVMDK(b.Context(), io.Discard, src, WriteOptions{Level: level}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(v.Size)/float64(len(disk)), "size/disk")
		})
	}
}

func BenchmarkReadVMDK(b *testing.B) {
	disk := testDisk(64 << 20)
	data, _ := writeTest(b, Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}, WriteOptions{})
	b.Run("stream", func(b *testing.B) {
		b.SetBytes(int64(len(disk)))
		for b.Loop() {
			if _, err := ReadStream(bytes.NewReader(data), func(_, _ int64, _ []byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check", func(b *testing.B) {
		b.SetBytes(int64(len(disk)))
		for b.Loop() {
			r, err := NewReader(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.Check(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	a := testAppliance(b, Universal)
	data, err := a.Descriptor()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		e, err := Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		e.Lint()
	}
}
