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

// TestOSCAL holds the results of assessments to the schema of NIST's release v1.1.2.
func TestOSCAL(t *testing.T) {
	text, err := os.ReadFile("testdata/oscal_assessment-results_schema.json")
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

// TestJUnit holds JUnit XML to the schema by which Jenkins refuses reports.
func TestJUnit(t *testing.T) {
	lint := func(name string) ([]byte, error) {
		return exec.Command("xmllint", "--noout", "--nonet", "--schema", "testdata/junit-10.xsd", name).CombinedOutput()
	}
	for name, data := range documents(t, "../testdata/*.xml") {
		if out, err := lint(name); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		wrong := filepath.Join(t.TempDir(), "wrong.xml")
		if err := os.WriteFile(wrong, bytes.Replace(data, []byte("<testsuites "), []byte(`<testsuites color="red" `), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := lint(wrong); err == nil || !bytes.Contains(out, []byte("color")) {
			t.Errorf("a wrong document is valid: %v, %s", err, out)
		}
	}
}
