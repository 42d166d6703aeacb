package sbom

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// TestRealDpkg compares with what dpkg-query says of the same root.
func TestRealDpkg(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: dpkg-query is not asked")
	}
	name, err := basetest.Debian(t.Context(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := image.ReadTar(t.Context(), f, image.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	packages, err := Packages(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range packages {
		if p.Type == Deb {
			got = append(got, fmt.Sprintf("%s %s %s", p.Name, p.Version, p.Arch))
		}
		if !strings.Contains(p.PURL, "distro=debian-12") {
			t.Errorf("%s: no distribution", p.PURL)
		}
	}

	dir := t.TempDir()
	status, err := tr.ReadFile("var/lib/dpkg/status")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "status"), status, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "info"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dpkg-query", "--admindir="+dir, "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		if line, ok := strings.CutPrefix(strings.TrimSpace(line), "installed "); ok {
			want = append(want, line)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(want) < 50 || !slices.Equal(got, want) {
		t.Errorf("%d packages, dpkg-query has %d\n got %s\nwant %s", len(got), len(want), strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}
