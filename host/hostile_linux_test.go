package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
)

// TestPrivileged has what only root can make.
func TestPrivileged(t *testing.T) {
	h := hosttest.Host(t)
	files := hosttest.Small()
	owned := hosttest.Regular("etc/owned", "x")
	owned.UID, owned.GID = 4711, 4712
	device := hosttest.File{Entry: image.Entry{Name: "etc/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Rdev: image.Device{Major: 1, Minor: 3}}}
	capable := hosttest.Regular("usr/bin/ping", "ping")
	capable.Mode = 0o755
	capable.Xattrs = map[string][]byte{"security.capability": []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}
	root, notes := instance(t, h, append(files, owned, device, capable))
	for _, full := range []bool{false, true} {
		if got := hosttest.Findings(t, h, "web01", full); len(got) > 0 {
			t.Errorf("findings: %q, notes: %q", got, notes)
		}
	}
	if os.Geteuid() != 0 {
		if len(notes) == 0 {
			t.Error("nothing said about what could not be made")
		}
		return
	}
	if len(notes) > 0 {
		t.Skipf("root, but without all rights: %q", notes)
	}
	var errs []error
	errs = append(errs, os.Chown(filepath.Join(root, "etc/owned"), 0, 0),
		unix.Setxattr(filepath.Join(root, "usr/bin/a"), "security.capability", capable.Xattrs["security.capability"], 0),
		os.Remove(filepath.Join(root, "etc/null")), unix.Mknod(filepath.Join(root, "etc/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))),
		unix.Removexattr(filepath.Join(root, "usr/bin/ping"), "security.capability"))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	got := hosttest.Findings(t, h, "web01", false)
	want := []string{
		`changed "/etc/null": device 1,3 → 1,5`,
		`changed "/etc/null": mode 0666 → 0644`,
		`changed "/etc/owned": owner 4711:4712 → 0:0`,
		`changed "/usr/bin/a": attribute "security.capability" added`,
		`changed "/usr/bin/b": attribute "security.capability" added`,
		`changed "/usr/bin/ping": attribute "security.capability" removed`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("findings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestFullDisk runs out of space in a clone and a reset.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	place := t.TempDir()
	if err := unix.Mount("tmpfs", place, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	defer unix.Unmount(place, 0)
	h := hosttest.Host(t)
	v := hosttest.Image(t, hosttest.Config(), append(hosttest.Small(), hosttest.Regular("big", strings.Repeat("x", 1<<20))))
	if _, err := h.Import(t.Context(), "dir", v); err != nil {
		t.Fatal(err)
	}
	r := host.CloneRequest{Image: v.Digest, Name: "web01", Platform: "dir", Place: place}
	if _, _, err := h.Clone(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Reset(t.Context(), "web01", false); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("reset: %v", err)
	}
	if got := hosttest.Findings(t, h, "web01", true); len(got) > 0 {
		t.Errorf("after the reset that failed: %q", got)
	}
	r.Name = "web02"
	if _, _, err := h.Clone(t.Context(), r); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("clone: %v", err)
	}
	if found := litter(t, place, h.Dir()); len(found) > 0 {
		t.Errorf("litter: %q", found)
	}
	names, err := os.ReadDir(place)
	if err != nil || len(names) != 1 {
		t.Errorf("in the place: %v, %v", names, err)
	}
	if err := h.Destroy(t.Context(), "web01"); err != nil {
		t.Fatal(err)
	}
}
