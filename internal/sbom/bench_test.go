package sbom

import (
	"os"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// BenchmarkPackages lists the packages of a Debian root of 400 MB, and writes both documents.
func BenchmarkPackages(b *testing.B) {
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
	t, err := image.ReadTar(b.Context(), f, image.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer t.Close()
	t.Freeze(subject.Created)
	var packages []Package
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if packages, err = Packages(b.Context(), t); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(packages)), "packages")
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if _, err := subject.SPDX(packages); err != nil {
				b.Fatal(err)
			}
			if _, err := subject.CycloneDX(packages); err != nil {
				b.Fatal(err)
			}
		}
	})
}
