//go:build linux

package realtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// real skips a test unless the real programs are to be run.
func real(t *testing.T) {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
	if os.Geteuid() != 0 {
		t.Fatal("takes root: owners and devices are compared")
	}
}

// run runs a program, fails the test if the program does, and returns its standard output.
func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	out, err := try(t, dir, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try runs a program. The error holds what the program said.
func try(t *testing.T, dir, name string, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w\n%s%s", strings.Join(append([]string{name}, args...), " "), err, tail(stdout.Bytes()), tail(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// tail returns the end of what a program said.
func tail(b []byte) []byte {
	const most = 4 << 10
	if len(b) > most {
		b = append([]byte("…"), b[len(b)-most:]...)
	}
	return b
}

// iscadm runs the program under test.
func iscadm(t *testing.T, args ...string) []byte {
	t.Helper()
	program := os.Getenv("ISCADM")
	if program == "" {
		t.Fatal("ISCADM names no program")
	}
	return run(t, "", program, args...)
}

// bases are the archives that images are built from, each made once.
var bases = map[string]func(ctx context.Context) (string, error){
	"debian": func(ctx context.Context) (string, error) { return basetest.Debian(ctx, basetest.SmallDebian) },
	"odd":    written(func(_ context.Context, w io.Writer) error { return basetest.Odd(w) }),
	"omnios": written(func(_ context.Context, w io.Writer) error { return basetest.OmniOS(w) }),
	"alpine": written(func(ctx context.Context, w io.Writer) error { return basetest.Alpine(ctx, w, "/bin/busybox") }),
}

// shared is a folder for what several tests use.
var shared string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "iscadm-real-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// written returns a maker of a base from a generator.
func written(generate func(context.Context, io.Writer) error) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		f, err := os.CreateTemp(shared, "base-*.tar")
		if err != nil {
			return "", err
		}
		defer f.Close()
		if err := generate(ctx, f); err != nil {
			return "", err
		}
		return f.Name(), f.Close()
	}
}

// A recipe names an image: a base and how its zone archive is written.
type recipe struct{ base, compression, dialect string }

func (r recipe) String() string { return r.base + " " + r.dialect + " " + r.compression }

func (r recipe) os() string {
	if r.base == "omnios" {
		return "illumos"
	}
	return "linux"
}

// images are the layouts built so far.
var images = struct {
	sync.Mutex
	layouts map[recipe]string
}{layouts: map[recipe]string{}}

// layout builds an image, once, and returns the folder of its layout. The tag is 1.0.0.
func (r recipe) layout(t *testing.T) string {
	t.Helper()
	real(t)
	images.Lock()
	defer images.Unlock()
	if dir, ok := images.layouts[r]; ok {
		return dir
	}
	base, err := bases[r.base](t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(shared, r.base+"-*")
	if err != nil {
		t.Fatal(err)
	}
	brand := map[string]string{"illumos": "illumos", "linux": "lx"}[r.os()]
	spec := fmt.Sprintf(`image {
  name    = "real"
  version = "1.0.0"
  os      = %q
  arch    = "amd64"
}

base {
  source = %s
}

profile {
  name = "none"
}

zone {
  brand       = %q
  dialect     = %q
  compression = %q
}
`, r.os(), strconv.Quote("tar:"+base), brand, r.dialect, r.compression)
	file := filepath.Join(dir, "real.isc.hcl")
	if err := os.WriteFile(file, []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(dir, "layout")
	iscadm(t, "build", file, "-o", "oci:"+layout+":1.0.0", "--quiet")
	images.layouts[r] = layout
	return layout
}

// export writes an artifact of the image into the test's folder and returns its path.
func (r recipe) export(t *testing.T, artifact string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), strings.ReplaceAll(artifact, "/", "-"))
	iscadm(t, "export", "oci:"+r.layout(t)+":1.0.0", artifact, "-o", file, "--quiet")
	return file
}

// content returns the content manifest of the image.
func (r recipe) content(t *testing.T) *image.Content {
	t.Helper()
	mtree, err := os.Open(r.export(t, "content"))
	if err != nil {
		t.Fatal(err)
	}
	defer mtree.Close()
	objects, err := os.Open(r.export(t, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	defer objects.Close()
	c, err := image.ReadContent(mtree, objects)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
