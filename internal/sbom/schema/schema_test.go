// Package schema holds the documents of internal/sbom, as they stand in its golden files, to the
// JSON schema that CycloneDX publishes. It is a module of its own: the validator stays out of the
// program.
package schema

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/CycloneDX/cyclonedx-go" // its module has the schemas
	"github.com/xeipuuv/gojsonschema"
)

func TestCycloneDX(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "schema")
	loader := gojsonschema.NewSchemaLoader()
	load := func(name string) gojsonschema.JSONLoader {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return gojsonschema.NewBytesLoader(data)
	}
	// What the schema refers to, so that nothing is fetched.
	if err := loader.AddSchema("http://cyclonedx.org/schema/spdx.schema.json", load("spdx.schema.json")); err != nil {
		t.Fatal(err)
	}
	if err := loader.AddSchema("http://cyclonedx.org/schema/jsf-0.82.schema.json", load("jsf-0.82.schemax.json")); err != nil {
		t.Fatal(err)
	}
	schema, err := loader.Compile(load("bom-1.6.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../testdata/*.cdx.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		result, err := schema.Validate(gojsonschema.NewBytesLoader(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range result.Errors() {
			t.Errorf("%s: %s", name, e)
		}
	}
	result, err := schema.Validate(gojsonschema.NewStringLoader(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"nonsense","name":"x"}]}`))
	if err != nil || result.Valid() {
		t.Errorf("a wrong document is valid: %v", err)
	}
}
