//go:build linux

package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// adoptDebian are servers that hosts are moved from: one that forks and one that is an instance of a
// template.
var adoptDebian = []string{"nginx-light", "postgresql", "systemd-sysv"}

// TestRealAdopt adopts services of a Debian, and builds what is proposed as it is.
func TestRealAdopt(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
	archive, err := basetest.Debian(t.Context(), adoptDebian)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for service, want := range map[string][]string{
		"nginx":              {`daemon off;`, `"/var/log/nginx/**"`, "package nginx", "package libssl3"},
		"postgresql@15-main": {"/usr/lib/postgresql/15/bin/postgres -D", `"postgres"`, `"5432/tcp"`, `path = "/var/lib/postgresql"`},
	} {
		spec := service + ".isc.hcl"
		command(t, 0, "adopt", "tar:"+archive, "--service", service, "-o", spec)
		text, err := os.ReadFile(spec)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !bytes.Contains(text, []byte(w)) {
				t.Errorf("%s: no %q", service, w)
			}
		}
		// The one edit that it takes: a Debian with a server comes with a key that everybody can have.
		text = regexp.MustCompile(`(?m)^# (remove \{)\n# (  paths = .*)\n# (\})$`).ReplaceAll(text, []byte("$1\n$2\n$3"))
		if err := os.WriteFile(spec, text, 0o600); err != nil {
			t.Fatal(err)
		}
		command(t, 0, "build", spec, "-o", "oci:out:"+strings.ReplaceAll(service, "@", "-"))
	}
}

// command runs the program, which must end with a status.
func command(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, diag bytes.Buffer
	if status := run(t.Context(), args, strings.NewReader(""), &out, &diag); status != want {
		t.Errorf("iscadm %s: status %d, want %d\n%s%s", strings.Join(args, " "), status, want, tailOf(out.String()), diag.String())
	}
	return out.String()
}
