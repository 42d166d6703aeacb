package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealCosign lets cosign verify what the program signs, and the other way round.
func TestRealCosign(t *testing.T) {
	needPeers(t, "cosign", "packer")
	scripts(t, "testdata/cosign/*.txtar", nil)
}

// needPeers demands other people's programs.
func needPeers(t *testing.T, names ...string) {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRealCommands runs the commands for other programs that docs/releases.md has, by the headings
// they stand under, as they stand there: by the right key and by another one.
func TestRealCommands(t *testing.T) {
	headings := map[string]string{"cosign 3": "cosign", "packer": "packer", "cosign without a registry": "cosign"}
	if os.Getenv("ISC_NIGHTLY") != "" { // it takes a quarter of an hour to build
		headings["cosign 2"] = "cosign-v2"
	}
	for _, program := range headings {
		needPeers(t, program)
	}
	doc, err := os.ReadFile("../../docs/releases.md")
	if err != nil {
		t.Fatal(err)
	}
	for heading, program := range headings {
		t.Run(heading, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "commands.txtar")
			text := `env COSIGN_PASSWORD=secret
env HOME=$WORK
exec iscadm keygen -o release
exec iscadm build web.isc.hcl -o $REGISTRY/isc/web:1.4.0 --key release.key
envsubst commands.sh.in commands.sh
exec sh -eux commands.sh
exec iscadm keygen -F -o release
! exec sh -eux commands.sh
-- commands.sh.in --
` + strings.ReplaceAll(commands(t, string(doc), heading, program), "registry.example", "$REGISTRY") + `
-- web.isc.hcl --
image {
  name    = "web"
  version = "1.4.0"
  os      = "linux"
  arch    = "amd64"
}

base {
  source = "skeleton:linux"
}
`
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			scripts(t, name, nil)
		})
	}
}

// commands returns the indented block under a heading.
func commands(t *testing.T, doc, heading, program string) string {
	t.Helper()
	_, section, ok := strings.Cut(doc, "\n### "+heading+"\n")
	if !ok {
		t.Fatalf("no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n#")
	var lines []string
	for line := range strings.Lines(section) {
		if line, ok := strings.CutPrefix(line, "    "); ok {
			if rest, ok := strings.CutPrefix(line, "cosign "); ok {
				line = program + " " + rest
			}
			lines = append(lines, line)
		}
	}
	if len(lines) < 3 {
		t.Fatalf("under %q are no commands", heading)
	}
	return strings.Join(lines, "")
}
