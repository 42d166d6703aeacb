package sbom

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

// fuzz checks that a parser only adds packages that both documents can hold.
func fuzz(f *testing.F, parse func(string, io.Reader, func(Package) error) error) {
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &collector{seen: map[key]int{}}
		if err := parse("db", bytes.NewReader(data), c.add); err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		doc, err := subject.SPDX(c.packages)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseSPDX(doc)
		if err != nil || len(again) != len(c.packages) {
			t.Fatalf("%d packages, read back %d: %v", len(c.packages), len(again), err)
		}
		for i, p := range c.packages {
			if again[i].Name != p.Name || again[i].Version != p.Version || again[i].PURL != p.PURL {
				t.Errorf("read back %+v, want %+v", again[i], p)
			}
		}
		if _, err := subject.CycloneDX(c.packages); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDpkg(f *testing.F) {
	f.Add([]byte(dpkgStatus))
	f.Add([]byte("Package: a\nVersion: 1\nSource: b (2)\n\n \nPackage:b\nVersion:%/\n"))
	fuzz(f, distro{"debian", "12"}.parseDpkg)
}

func FuzzAPK(f *testing.F) {
	f.Add([]byte(apkInstalled))
	f.Add([]byte("P:a\nV:1\nL:(\n\n\n"))
	fuzz(f, distro{}.parseAPK)
}

func FuzzIPS(f *testing.F) {
	f.Add([]byte(ipsInstalled))
	f.Add([]byte(`{"p":{"a//b":[{"version":"1"},{"version":"2"}],"c":null}}`))
	fuzz(f, parseIPS)
}

func FuzzProgram(f *testing.F) {
	data, err := os.ReadFile(program(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:64<<10])
	f.Add([]byte("\x7fELF\x02\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := readProgram(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if info != nil {
			modules(info)
		}
	})
}

func FuzzParseSPDX(f *testing.F) {
	doc, err := subject.SPDX([]Package{{Type: Deb, Name: "a", Version: "1", Arch: "amd64", PURL: "pkg:deb/debian/a@1?arch=amd64"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, data []byte) {
		packages, err := ParseSPDX(data)
		if err != nil {
			return
		}
		for _, p := range packages {
			if problem := checkText("", p.Name+p.Version); problem != "" && len(p.Name+p.Version) < maxText {
				t.Error(problem)
			}
		}
	})
}
