// Package depcheck holds the import graph to the ranks of docs/architecture.md.
package depcheck

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/goldenisc/packer-plugin-isc"

// ranks says who may import whom: a package imports only packages of a lower rank. Every package
// of the module stands here, so that a new one is placed before it is used.
var ranks = map[string]int{
	"internal/flock":    -1, // below all: they know nothing of us
	"internal/hcltext":  -1,
	"internal/tempfile": -1,

	"ovf":                0,
	"zfs":                0,
	"signing":            0,
	"internal/disk":      0,
	"internal/disk/gen":  0, // a program
	"internal/disk/init": 0, // a program
	"internal/remote":    0,

	"image": 1,

	"profiles":        2,
	"registry":        2,
	"internal/sbom":   2,
	"internal/chroot": 2,

	"builder":     3,
	"provisioner": 3,
	"host":        3,

	"internal/evidence": 3,

	"internal/adopt":   4,
	"internal/release": 4,

	"cmd/iscadm": 5,
}

// testOnly are packages that tests, benchmarks and CI use, and that no other package imports but
// in its tests.
var testOnly = map[string]int{
	"internal/basetest":     0,
	"internal/guesttest":    0,
	"internal/sshtest":      1,
	"internal/zfstest":      0,
	"internal/zfsfake":      4,
	"internal/depcheck":     5,
	"internal/bench":        5,
	"internal/realtest":     5,
	"internal/testlog":      5,
	"internal/gen/controls": 5,
	"internal/gen/spec":     5,
	"internal/kindtest":     4,
	"internal/hosttest":     4,
}

// plugin is the nested module of the Packer plugin, the only place for Packer's SDK.
const plugin = "cmd/packer-plugin-isc"

// forbidden are modules that no package of the main module may reach, not even indirectly.
var forbidden = []string{
	"github.com/hashicorp/packer-plugin-sdk",
	"github.com/google/go-containerregistry/pkg/registry", // knows no referrers
}

// systems are those whose build constraints show other files of a package.
var systems = []string{"linux", "illumos", "darwin", "windows"}

// A listed package is what go list -json says of one.
type listed struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

func TestRanks(t *testing.T) {
	seen := map[string]bool{} // one report for all systems
	report := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !seen[text] {
			seen[text] = true
			t.Error(text)
		}
	}
	for _, goos := range systems {
		for _, p := range list(t, goos) {
			name := short(p.ImportPath)
			rank, isTest, ok := rankOf(name)
			if !ok {
				report("%s has no rank: enter it in the table of this test and in docs/architecture.md", name)
				continue
			}
			for _, imp := range p.Imports {
				low, lowIsTest, ok := rankOf(short(imp))
				switch {
				case !strings.HasPrefix(imp, module+"/") || !ok:
				case lowIsTest && !isTest:
					report("%s imports %s, which is for tests", name, short(imp))
				case low >= rank:
					report("%s imports %s, which is not of a lower rank", name, short(imp))
				}
			}
			for _, dep := range slices.Concat(p.Imports, p.Deps, p.TestImports, p.XTestImports) {
				for _, f := range forbidden {
					if dep == f || strings.HasPrefix(dep, f+"/") {
						report("%s depends on %s", name, dep)
					}
				}
			}
		}
	}
}

// TestGoMod keeps the main module installable by go install, which refuses a replace, and free of the SDK.
func TestGoMod(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) > 0 && (f[0] == "replace" || slices.Contains(f, "=>")) || strings.Contains(line, "hashicorp/packer") {
			t.Errorf("go.mod has %q", strings.TrimSpace(line))
		}
	}
}

// TestEveryFolder finds packages that go list leaves out on every system listed.
func TestEveryFolder(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			base := d.Name()
			if rel != "." && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || nested(p)) {
				return fs.SkipDir
			}
			return nil
		}
		if _, _, ok := rankOf(path.Dir(rel)); path.Ext(rel) == ".go" && !ok {
			t.Errorf("%s has Go files and no rank", path.Dir(rel))
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTable checks the table itself: a rank for tests only is not one for programs too.
func TestTable(t *testing.T) {
	for name := range maps.Keys(testOnly) {
		if _, ok := ranks[name]; ok {
			t.Errorf("%s stands in both tables", name)
		}
	}
}

func rankOf(name string) (rank int, isTest, ok bool) {
	if rank, ok = ranks[name]; ok {
		return rank, false, true
	}
	rank, ok = testOnly[name]
	return rank, true, ok
}

func short(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

// nested reports whether dir is the root of another module.
func nested(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// list returns the packages of the main module as they are on a system.
func list(t *testing.T, goos string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Standard,Imports,Deps,TestImports,XTestImports", module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v\n%s", goos, err, stderr.Bytes())
	}
	var all []listed
	d := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(short(p.ImportPath), plugin) {
			t.Errorf("%s is in the main module: the plugin is a module of its own", p.ImportPath)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b listed) int { return cmp.Compare(a.ImportPath, b.ImportPath) })
	return all
}
