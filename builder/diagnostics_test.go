package builder

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with a file below testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it). Got:\n%s", name, got)
	}
}

// TestDiagnostics reads specs with everything wrong. Their first lines are flags.
func TestDiagnostics(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.isc.hcl")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			name = filepath.ToSlash(name)
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			opts := Options{Vars: map[string]string{}}
			for line := range strings.Lines(string(src)) {
				line = strings.TrimSuffix(line, "\n")
				if arg, ok := strings.CutPrefix(line, "# --set "); ok {
					opts.Set = append(opts.Set, arg)
				}
				if arg, ok := strings.CutPrefix(line, "# --var "); ok {
					k, v, _ := strings.Cut(arg, "=")
					opts.Vars[k] = v
				}
				if arg, ok := strings.CutPrefix(line, "# --var-file "); ok {
					opts.VarFiles = append(opts.VarFiles, arg)
				}
			}
			var last string
			for range 5 { // the order of maps must not show
				spec, diags := ParseSpec(name, src, opts)
				if !diags.HasErrors() {
					t.Error("no error")
				}
				var b bytes.Buffer
				if err := spec.Texts.Write(&b, diags); err != nil {
					t.Fatal(err)
				}
				if last != "" && b.String() != last {
					t.Fatalf("not the same twice:\n%s\n%s", last, b.String())
				}
				last = b.String()
			}
			golden(t, strings.TrimSuffix(name, ".isc.hcl")+".txt", last)
		})
	}
}
