package builder_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// TestAsked: what a block lays is searched for secrets wherever it lies, and no control takes it back unsaid.
func TestAsked(t *testing.T) {
	spec := func(blocks string) string {
		return "image {\n  name = \"web\"\n  version = \"1\"\n  os = \"linux\"\n  arch = \"amd64\"\n}\nbase {\n  source = \"skeleton:linux\"\n}\n" + blocks
	}
	_, err := prepareSpec(t, spec("file {\n  path = \"/root/.forward\"\n  content = \"x\\n\"\n}\n"))
	if err == nil || !strings.Contains(err.Error(), `control E24 removes "root/.forward", which file "/root/.forward" lays: waive it, or leave the block out`) {
		t.Errorf("got %v", err)
	}
	_, err = prepareSpec(t, spec("user {\n  name = \"ops\"\n  uid = 500\n  shell = \"/bin/sh\"\n}\n"))
	if err == nil || !strings.Contains(err.Error(), `control E22 gives user "ops" of the spec`) {
		t.Errorf("got %v", err)
	}
	const key = "-----BEGIN PRIVATE KEY-----\\nxxxx\\n"
	b, err := prepareSpec(t, spec("file {\n  path = \"/app/tls.conf\"\n  content = \""+key+"\"\n}\n"))
	if !errors.Is(err, builder.ErrFindings) {
		t.Fatalf("got %v", err)
	}
	defer b.Close()
	if report, err := b.Report.Marshal(); err != nil || !strings.Contains(string(report), `"path": "app/tls.conf"`) {
		t.Errorf("%v\n%s", err, report)
	}
}
