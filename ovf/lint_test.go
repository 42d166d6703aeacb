package ovf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// refusals returns the findings by which an importer, or everyone, refuses.
func refusals(findings []Finding, who Importer) (out []string) {
	for _, f := range findings {
		if f.Refused && (f.Importer == who || f.Importer == Everyone) {
			out = append(out, f.String())
		}
	}
	return out
}

// beyond are cases whose verdict is not in the descriptor: ovftool rejects the disk that it names,
// which is not there to look at.
var beyond = []string{
	"DiskSection_1_0/Neg/invalid_createType_disk.ovf",
	"DiskSection_1_0/Neg/invalid_delta_reference_disk.ovf",
	"Envelope_1_0/Neg/invalid_no_version.ovf",
	"Envelope_1_0/Neg/invalid_ref_size_neg.ovf",
	"Envelope_1_0/Neg/invalid_ref_size_null.ovf",
	"Envelope_1_0/Neg/invalid_vmdk.ovf",
	"HttpLocators_1_0/Neg/valid_no_disk_in_server.ovf",
}

// contradictory cases stand in Pos and in Neg with the same bytes: only options of ovftool differ.
var contradictory = []string{
	"Envelope_1_0/Pos/bare_minimal.ovf",
	"HttpLocators_1_0/Pos/bare_minimal_http.ovf",
}

func TestOvftoolCases(t *testing.T) {
	archive, err := txtar.ParseFile(filepath.Join("testdata", "ovftool.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Files) != 132 {
		t.Fatalf("%d cases", len(archive.Files))
	}
	for _, f := range archive.Files {
		if slices.Contains(contradictory, f.Name) {
			continue
		}
		verdict(t, f.Name, f.Data, slices.Contains(beyond, f.Name))
	}
}

// verdict compares our findings with what ovftool does, which the name of the case tells.
func verdict(t *testing.T, name string, data []byte, beyond bool) {
	t.Helper()
	var got []string
	e, err := Parse(data)
	if err != nil {
		got = []string{err.Error()}
	} else {
		got = refusals(e.Lint(), ESXi)
	}
	switch rejected := strings.Contains(name, "/Neg/") && !beyond; {
	case !rejected && len(got) > 0:
		t.Errorf("%s: we find %s", name, strings.Join(got, "; "))
	case rejected && len(got) == 0:
		t.Errorf("%s: ovftool rejects it, we find nothing", name)
	}
}

// shared returns the folder with the whole corpus, or "".
func shared() string {
	dir := os.Getenv("ISC_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	dir = filepath.Join(dir, "data", "ovf")
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// Every descriptor of a real product parses, and every one that ovftool accepts.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.ovf")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d descriptors, %v", len(files), err)
	}
	if dir := shared(); dir != "" {
		for _, pattern := range []string{"corpus/*.ovf", "ovftool-cases/*/Pos/*.ovf"} {
			more, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, more...)
		}
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(data)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if strings.Contains(file, "/corpus/") && (len(e.Systems) == 0 || len(e.Disks) == 0 || len(e.Systems[0].Hardware) == 0 || len(e.Systems[0].Hardware[0].Items) < 3) {
			t.Errorf("%s: read as %+v", file, e)
		}
		findings := e.Lint()
		if strings.Contains(file, "/Pos/") && filepath.Base(file) != "bare_minimal.ovf" && filepath.Base(file) != "bare_minimal_http.ovf" {
			if got := refusals(findings, ESXi); len(got) > 0 {
				t.Errorf("%s: ovftool accepts it, we find %s", file, strings.Join(got, "; "))
			}
		}
	}
}
