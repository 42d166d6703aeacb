package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// names checks that a provenance names its base and the provenance of that:
// names PROVENANCE SOURCE INSPECTED BASE-PROVENANCE.
func names(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: names provenance source inspected base-provenance")
	}
	var p struct {
		BuildDefinition struct {
			ResolvedDependencies []struct {
				Name, URI string
				Digest    map[string]string
			}
		}
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &p))
	var base struct{ Digest string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[2])), &base))
	sum := sha256.Sum256([]byte(ts.ReadFile(args[3])))
	want := map[string]string{"base": strings.TrimPrefix(base.Digest, "sha256:"), "base/provenance": hex.EncodeToString(sum[:])}
	for _, d := range p.BuildDefinition.ResolvedDependencies {
		if d.URI == args[1] && d.Digest["sha256"] == want[d.Name] {
			delete(want, d.Name)
		}
	}
	if len(want) > 0 {
		ts.Fatalf("not among the dependencies: %v", want)
	}
}
