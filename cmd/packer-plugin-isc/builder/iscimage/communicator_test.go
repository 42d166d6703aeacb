package iscimage

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/chroot"
)

func TestMain(m *testing.M) {
	chroot.Main()
	os.Exit(m.Run())
}

var built = time.Unix(1700000000, 0).UTC()

func newTree(t *testing.T) *communicator {
	t.Helper()
	tr, err := image.NewTree(t.TempDir(), image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	for _, e := range []image.Entry{
		{Name: "opt", Mode: fs.ModeDir | 0o750, GID: 3},
		{Name: "etc/app.conf", Mode: 0o640, UID: 7, GID: 8},
		{Name: "srv", Mode: fs.ModeSymlink | 0o777, Target: "/opt"},
	} {
		if err := tr.Put(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	return &communicator{ctx: t.Context(), tree: tr, system: "illumos", created: built, dir: t.TempDir()}
}

func read(t *testing.T, c *communicator, name string) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Download(name, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTransfers(t *testing.T) {
	c := newTree(t)
	if changed, err := c.finish(t.Context()); changed || err != nil {
		t.Errorf("nothing was done: %v, %v", changed, err)
	}
	if err := c.Upload("/etc/app.conf", strings.NewReader("new"), nil); err != nil {
		t.Fatal(err)
	}
	if e, err := c.tree.Stat("etc/app.conf"); err != nil || e.Mode != 0o640 || e.UID != 7 || e.GID != 8 || !e.ModTime.Equal(built) {
		t.Errorf("%+v, %v", e, err)
	}
	if got := read(t, c, "/etc/app.conf"); got != "new" {
		t.Errorf("downloaded %q", got)
	}
	src := filepath.Join(t.TempDir(), "site")
	if err := os.MkdirAll(filepath.Join(src, "css"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "css", "a"), []byte("body"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.UploadDir("/srv", src, nil); err != nil { // through the link
		t.Fatal(err)
	}
	if err := c.UploadDir("/opt/flat", src+"/", nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"opt/site/css/a", "opt/flat/css/a"} {
		if e, err := c.tree.Stat(name); err != nil || e.UID != 0 || e.Perm() != 0o600 {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if e, err := c.tree.Stat("opt"); err != nil || e.Mode != fs.ModeDir|0o750 || e.GID != 3 {
		t.Errorf("opt is %+v, %v", e, err)
	}
	dst := t.TempDir()
	if err := c.DownloadDir("/opt/site", dst, nil); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dst, "site", "css", "a")); err != nil || string(data) != "body" {
		t.Errorf("%q, %v", data, err)
	}
	if changed, err := c.finish(t.Context()); !changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
}

func TestTransferErrors(t *testing.T) {
	c := newTree(t)
	for what, err := range map[string]error{
		"a folder that is not there": c.Upload("/nowhere/file", strings.NewReader(""), nil),
		"no folder":                  c.Upload("/etc/app.conf/x", strings.NewReader(""), nil),
		"a folder":                   c.Upload("/opt", strings.NewReader(""), nil),
		"out of the root":            c.Upload("/opt/../../x", strings.NewReader(""), nil),
		"not here":                   c.UploadDir("/opt", filepath.Join(c.dir, "nothing"), nil),
		"exclude":                    c.UploadDir("/opt", c.dir, []string{"x"}),
		"not there":                  c.Download("/nothing", &bytes.Buffer{}),
		"not a folder":               c.DownloadDir("/etc/app.conf", c.dir, nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	err := c.Start(t.Context(), &sdk.RemoteCmd{Command: "true"})
	if err == nil || !strings.Contains(err.Error(), "illumos") || !strings.Contains(err.Error(), "isc-zone") {
		t.Errorf("a command in a tree of illumos: %v", err)
	}
}
