package main_test

import (
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/packer-plugin-sdk/plugin"
)

// TestReleaseNames holds the names of released files to what Packer looks for: packer-plugin-NAME_vVERSION_xAPI_OS_ARCH,
// in a zip of the same name, and its checksums in packer-plugin-NAME_vVERSION_SHA256SUMS (packer-plugin-getter).
func TestReleaseNames(t *testing.T) {
	data, err := os.ReadFile("../../.goreleaser.yml")
	if err != nil {
		t.Fatal(err)
	}
	name := "packer-plugin-isc_v{{ .Version }}_x" + plugin.APIVersionMajor + "." + plugin.APIVersionMinor + "_{{ .Os }}_{{ .Arch }}"
	for _, want := range []string{
		`binary: "` + name + `"`,
		`name_template: "` + name + `"`,
		`name_template: "packer-plugin-isc_v{{ .Version }}_SHA256SUMS"`,
		"version.Prerelease=\n",
		"illumos_amd64", "solaris_amd64",
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("there is no %s", want)
		}
	}
}
