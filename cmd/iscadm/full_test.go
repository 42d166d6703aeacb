//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk builds and clones onto a file system of few megabytes. Each command says that there
// is no space, and what stood there before still does.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system takes root; CI runs this as root")
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	defer unix.Unmount(small, unix.MNT_DETACH)

	fails := func(args ...string) {
		t.Helper()
		var out, diag bytes.Buffer
		status := run(context.Background(), args, strings.NewReader(""), &out, &diag)
		if status != statusFailed || !strings.Contains(diag.String(), "no space left") || strings.Count(diag.String(), "\n") != 1 {
			t.Errorf("iscadm %s: exit status %d: %s", args[0], status, diag.String())
		}
	}
	skeleton := filepath.Join(dir, "s.isc.hcl")
	if err := os.WriteFile(skeleton, []byte("image {\n  name = \"s\"\n  version = \"1\"\n  os = \"linux\"\n  arch = \"amd64\"\n}\nbase {\n  source = \"skeleton:linux\"\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ref := "oci:" + filepath.Join(small, "out") + ":s"
	old := ok(t, "build", skeleton, "-o", ref, "--quiet")
	before := files(t, filepath.Join(small, "out"))

	big := bigSpec(t, dir, "1.0.0")
	fails("build", big, "-o", "oci:"+filepath.Join(small, "out")+":big", "--quiet")
	if got := ok(t, "inspect", ref, "--json"); !strings.Contains(got, old) {
		t.Errorf("the image that was there: %s", got)
	}
	if got := files(t, filepath.Join(small, "out")); got != before {
		t.Errorf("the layout holds\n%s\nwant\n%s", got, before)
	}

	elsewhere := "oci:" + filepath.Join(dir, "out") + ":big"
	ok(t, "build", big, "-o", elsewhere, "--quiet")
	ok(t, "clone", ref, "s", "--to", "dir:"+filepath.Join(small, "inst"), "--state", filepath.Join(dir, "state"), "--quiet")
	fails("clone", elsewhere, "big", "--to", "dir:"+filepath.Join(small, "inst"), "--state", filepath.Join(dir, "state"), "--quiet")
	fails("export", elsewhere, "zone", "-o", filepath.Join(small, "zone"), "--quiet")
	ok(t, "check", "--full", "s", "--state", filepath.Join(dir, "state"))
	if _, err := os.Lstat(filepath.Join(small, "zone")); err == nil {
		t.Error("a part of the export is left")
	}
	if entries, err := os.ReadDir(filepath.Join(small, "inst")); err != nil || len(entries) != 1 {
		t.Errorf("left of the clone: %v, %v", entries, err)
	}
}
