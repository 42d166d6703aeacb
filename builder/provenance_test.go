package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/sbom"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// attestedSpec takes from everything that a provenance names.
const attestedSpec = `
variable "token" {
  type      = string
  sensitive = true
}
variable "ports" {
  default = [1, 2]
}
image {
  name    = "web"
  version = "1"
  os      = "illumos"
  arch    = "amd64"
}
base {
  source = "skeleton:illumos"
}
profile {
  source = "own.profile.hcl"
}
file {
  path    = "/etc/motd"
  content = var.token
}
file {
  path   = "/srv/page"
  source = "page"
}
tree {
  path   = "/srv/tree"
  source = "dir:tree"
}
tree {
  path   = "/srv/tar"
  source = "tar:t.tar"
}
`

const ownProfile = "name = \"own\"\ntitle = \"Own\"\ncontrols = {}\n"

func hexSum(data string) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:])
}

// attestedImage builds the spec in a folder of its own.
func attestedImage(t *testing.T) *registry.Image {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"own.profile.hcl": ownProfile,
		"page":            "hello\n",
		"tree/b":          "b",
		"tree/a/x":        "x",
		"t.tar":           strings.Repeat("\x00", 1024),
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, diags := ParseSpec(filepath.Join(dir, "web.isc.hcl"), []byte(attestedSpec), Options{
		Set: []string{"image.version=2"}, Vars: map[string]string{"token": "s3cret"},
	})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	b, err := Prepare(t.Context(), s, BuildOptions{
		Version: "1.2.3", Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Created: time.Unix(1700000000, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l, err := registry.CreateLayout(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(t.Context(), l, "web", nil); err != nil {
		t.Fatal(err)
	}
	m, err := registry.ReadImage(t.Context(), l, "web")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestProvenance(t *testing.T) {
	m := attestedImage(t)
	predicates, err := Predicates(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	var p Provenance
	for _, at := range predicates {
		types = append(types, at.Artifact+" "+at.Type)
		if _, err := signing.NewStatement(m.Digest(), at.Type, at.Data); err != nil {
			t.Error(err)
		}
		if strings.Contains(string(at.Data), "s3cret") {
			t.Errorf("%s holds the value of a sensitive variable", at.Artifact)
		}
		if at.Artifact == "provenance" {
			if err := image.DecodeStrict(at.Data, &p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := []string{"sbom https://spdx.dev/Document", "sbom.cyclonedx https://cyclonedx.org/bom", "provenance https://slsa.dev/provenance/v1"}; !reflect.DeepEqual(types, want) {
		t.Errorf("predicates %q", types)
	}
	in := p.BuildDefinition.External
	if in.Spec.Name != "web.isc.hcl" || in.Spec.Digest["sha256"] != hexSum(attestedSpec) ||
		!reflect.DeepEqual(in.Set, []string{"image.version=2"}) || !reflect.DeepEqual(in.Sensitive, []string{"token"}) ||
		len(in.Variables) != 1 || string(in.Variables["ports"]) != "[1,2]" {
		t.Errorf("parameters %+v", in)
	}
	tree := hexSum(fmt.Sprintf("%s  a/x\n%s  b\n", hexSum("x"), hexSum("b")))
	want := []Dependency{
		{"base", "skeleton:illumos", map[string]string{"sha256": strings.TrimPrefix(m.Config.Base.Digest, "sha256:")}},
		{"profile", "own.profile.hcl", map[string]string{"sha256": hexSum(ownProfile)}},
		{"/srv/tree", "dir:tree", map[string]string{"dirHash": tree}},
		{"/srv/tar", "tar:t.tar", map[string]string{"sha256": hexSum(strings.Repeat("\x00", 1024))}},
		{"/srv/page", "page", map[string]string{"sha256": hexSum("hello\n")}},
	}
	if got := p.BuildDefinition.Resolved; !reflect.DeepEqual(got, want) {
		t.Errorf("dependencies\n got %v\nwant %v", got, want)
	}
	if b := p.RunDetails.Builder; b.ID != BuilderID || b.Version["iscadm"] != "1.2.3" {
		t.Errorf("builder %+v", b)
	}
	if again := attestedImage(t); again.Digest() != m.Digest() {
		t.Errorf("another folder gives %s, not %s", again.Digest(), m.Digest())
	}
}

func TestPackages(t *testing.T) {
	m := attestedImage(t)
	packages, err := Packages(t.Context(), m)
	if err != nil || len(packages) != 0 {
		t.Errorf("%v %v", packages, err)
	}
	m.Config.Artifacts = nil // as of an image of an earlier version
	if packages, err = Packages(t.Context(), m); err != nil || packages != nil {
		t.Errorf("without SBOM: %v %v", packages, err)
	}
	if predicates, err := Predicates(t.Context(), m); err != nil || predicates != nil {
		t.Errorf("without SBOM: %v %v", predicates, err)
	}
	if err := malformed(&sbom.SyntaxError{Name: "db", Line: 1, Problem: "x"}); !errors.Is(err, ErrInput) {
		t.Errorf("%v is not the input's", err)
	}
}
