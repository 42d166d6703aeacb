// Package schema holds the documents of internal/evidence, as they stand in its golden files, to
// the schemas that others publish. It is a module of its own: the validators stay out of the
// program.
package schema

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	_ "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif" // has the schema of OASIS
	"github.com/xeipuuv/gojsonschema"
)

func documents(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	docs := map[string][]byte{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		docs[name] = data
	}
	return docs
}

// compile returns the schema; nothing is fetched that it does not hold.
func compile(t *testing.T, text string) *gojsonschema.Schema {
	t.Helper()
	schema, err := gojsonschema.NewSchema(gojsonschema.NewStringLoader(text))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func valid(t *testing.T, schema *gojsonschema.Schema, doc []byte) (bool, []gojsonschema.ResultError) {
	t.Helper()
	result, err := schema.Validate(gojsonschema.NewBytesLoader(doc))
	if err != nil {
		t.Fatal(err)
	}
	return result.Valid(), result.Errors()
}

func TestSARIF(t *testing.T) {
	schema := compile(t, sarifSchema(t))
	for name, data := range documents(t, "../testdata/*.sarif") {
		if ok, errs := valid(t, schema, data); !ok {
			t.Errorf("%s: %v", name, errs)
		}
		if ok, _ := valid(t, schema, bytes.Replace(data, []byte(`"version": "2.1.0"`), []byte(`"version": "9"`), 1)); ok {
			t.Error("a wrong document is valid")
		}
	}
}

// sarifSchema is a constant of the module that it does not export. The module's own Validate is
// given Go values, which have lost what they do not know.
func sarifSchema(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, err := strconv.Unquote(l.Value)
			if err != nil {
				t.Fatal(err)
			}
			text.WriteString(s)
		}
		return true
	})
	return text.String()
}

// TestOSCAL takes NIST's oscal_assessment-results_schema.json of the release v1.1.2
// (github.com/usnistgov/OSCAL) from the file that OSCAL_SCHEMA names: no module has it.
func TestOSCAL(t *testing.T) {
	name := os.Getenv("OSCAL_SCHEMA")
	if name == "" {
		t.Log("OSCAL_SCHEMA names no schema: nothing was checked")
		return
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	schema := compile(t, string(text))
	for name, data := range documents(t, "../testdata/*.json") {
		if ok, errs := valid(t, schema, data); !ok {
			t.Errorf("%s: %v", name, errs)
		}
		if ok, _ := valid(t, schema, bytes.Replace(data, []byte(`"uuid": "`), []byte(`"uuid": "x`), 1)); ok {
			t.Error("a wrong document is valid")
		}
	}
}
