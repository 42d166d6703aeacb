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
// which is not there to look at, or it accepts the same in other cases.
var beyond = []string{
	"DiskSection/Neg/invalid_createType_disk.ovf",
	"DiskSection/Neg/invalid_delta_reference_disk.ovf",
	"DiskSection_1_0/Neg/invalid_createType_disk.ovf",
	"DiskSection_1_0/Neg/invalid_delta_reference_disk.ovf",
	"Envelope/Neg/gzip_compression.ovf",
	"Envelope/Neg/identity_compression.ovf",
	"Envelope/Neg/invalid_no_version.ovf",
	"Envelope/Neg/invalid_ref_size_neg.ovf",
	"Envelope/Neg/invalid_ref_size_null.ovf",
	"Envelope/Neg/invalid_vmdk.ovf",
	"Envelope_1_0/Neg/invalid_no_version.ovf",
	"Envelope_1_0/Neg/invalid_ref_size_neg.ovf",
	"Envelope_1_0/Neg/invalid_ref_size_null.ovf",
	"Envelope_1_0/Neg/invalid_vmdk.ovf",
	"HttpLocators/Neg/valid_no_disk.ovf",
	"HttpLocators/Neg/valid_no_disk_in_server.ovf",
	"HttpLocators_1_0/Neg/valid_no_disk_in_server.ovf",
	"VirtualAppliances/Neg/nvapp001.ovf",
	"VirtualHardware/Neg/empty_system.ovf",
}

// ovftool's own cases: each parses, and is refused if ovftool rejects it.
func TestOvftoolCases(t *testing.T) {
	archive, err := txtar.ParseFile(filepath.Join("testdata", "ovftool.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	// The same bytes stand in Pos and in Neg if only options of ovftool differ, or files beside it.
	verdicts := map[string]int{}
	for _, f := range archive.Files {
		kind := 1
		if strings.Contains(f.Name, "/Neg/") {
			kind = 2
		}
		verdicts[string(f.Data)] |= kind
	}
	count := map[string]int{}
	for _, f := range archive.Files {
		var got, warned []string
		e, err := Parse(f.Data)
		if err != nil {
			got = []string{err.Error()}
		} else {
			findings := e.Lint()
			got = refusals(findings, ESXi)
			for _, f := range findings {
				if f.Importer == ESXi {
					warned = append(warned, f.String())
				}
			}
		}
		switch neg := strings.Contains(f.Name, "/Neg/"); {
		case verdicts[string(f.Data)] == 3:
			count["contradictory"]++
		case slices.Contains(beyond, f.Name):
			count["beyond"]++
		case strings.HasPrefix(f.Name, "LaxMode/"):
			count["lax"]++
			if err != nil || len(warned) == 0 {
				t.Errorf("%s: ovftool takes it with --lax only: %v, findings %q", f.Name, err, warned)
			}
		case neg:
			count["rejected"]++
			if len(got) == 0 {
				t.Errorf("%s: ovftool rejects it, we find nothing", f.Name)
			}
		default:
			count["accepted"]++
			if len(got) > 0 {
				t.Errorf("%s: ovftool takes it, we find %s", f.Name, strings.Join(got, "; "))
			}
		}
	}
	t.Logf("%d cases: %v", len(archive.Files), count)
	if len(archive.Files) != 322 || count["accepted"] < 150 || count["rejected"] < 100 {
		t.Errorf("%d cases: %v", len(archive.Files), count)
	}
}

// corpus are descriptors of real products, and by whom they are refused, besides vcsim.
var corpus = map[string][]Importer{
	"cisco-csr1000v-2017.ovf":                {ProxmoxVE},
	"legacy-ovf0.9.ovf":                      {VirtV2V, ProxmoxVE},
	"virtualbox-all-storage-controllers.ovf": {ESXi, ProxmoxVE},
	"virtualbox-default-vm.ovf":              {ESXi, ProxmoxVE},
	"virtualbox-ubuntu-ovf2.0.ovf":           {ESXi, VirtV2V, ProxmoxVE},
	"vmware-bitnami-tomcat.ovf":              nil,
	"vmware-cot.ovf":                         nil,
	"vmware-deployment-configs.ovf":          {VirtualBox7, ESXi, VirtV2V, ProxmoxVE},
	"vmware-photon.ovf":                      nil,
	"vmware-ubuntu1204.ovf":                  nil,
	"vmware-vm-with-nvram.ovf":               nil,
	"xenserver-sample_app.ovf":               {VirtualBox7, ESXi, ProxmoxVE},
}

// Every descriptor of a real product parses, and is judged as it always was.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.ovf")
	if err != nil || len(files) != len(corpus) {
		t.Errorf("%d descriptors, %v", len(files), err)
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
		if len(e.Systems) == 0 || len(e.Disks) == 0 || len(e.Systems[0].Hardware) == 0 || len(e.Systems[0].Hardware[0].Items) < 3 {
			t.Errorf("%s: read as %+v", file, e)
		}
		findings := e.Lint()
		var by []Importer
		for _, who := range Importers[:4] {
			if got := refusals(findings, who); len(got) > 0 {
				by = append(by, who)
			}
		}
		if want := corpus[filepath.Base(file)]; !slices.Equal(by, want) {
			t.Errorf("%s: refused by %v, want %v", file, by, want)
		}
	}
}
