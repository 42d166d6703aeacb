package chroot_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/chroot"
)

// The test's own binary is what works in the root.
func TestMain(m *testing.M) {
	chroot.Main()
	os.Exit(m.Run())
}

var then = time.Unix(1600000000, 0).UTC()

// tree is a root whose shell is testdata/sh.
func tree(t *testing.T) *image.Tree {
	t.Helper()
	sh := filepath.Join(t.TempDir(), "sh")
	build := exec.Command("go", "build", "-o", sh, "./testdata/sh")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := image.NewTree(t.TempDir(), image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	for _, e := range []struct {
		image.Entry
		data []byte
	}{
		{image.Entry{Name: "a", Mode: fs.ModeSymlink | 0o777, Target: "bin"}, nil}, // the first that is read
		{image.Entry{Name: "bin/sh", Mode: 0o755}, program},
		{image.Entry{Name: "bin/bash", HardLink: "bin/sh"}, nil},
		{image.Entry{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Rdev: image.Device{Major: 5, Minor: 1}}, nil},
		{image.Entry{Name: "proc", Mode: fs.ModeDir | 0o555}, nil},
		{image.Entry{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}, nil},
		{image.Entry{Name: "etc/shadow", Mode: 0o640, GID: 42}, []byte("root:*:\n")},
		{image.Entry{Name: "usr/bin/su", Mode: fs.ModeSetuid | 0o755}, []byte("su")},
		{image.Entry{Name: "var/lib/db", Mode: 0o600, UID: 999, GID: 999}, []byte("db")},
		{image.Entry{Name: "var/run", Mode: fs.ModeSymlink | 0o777, Target: "/run"}, nil},
		{image.Entry{Name: "run", Mode: fs.ModeDir | 0o755}, nil},
	} {
		e.ModTime = then
		if err := tr.Put(e.Entry, e.data); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// root skips nothing where CI runs: its ordinary user has subordinate ids.
func root(t *testing.T, tr *image.Tree) *chroot.Root {
	t.Helper()
	dir := t.TempDir()
	r, err := chroot.New(t.Context(), dir, tr)
	if errors.Is(err, chroot.ErrUnsupported) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("something is left: %v, %v", left, err)
		}
	})
	return r
}

func do(t *testing.T, r *chroot.Root, script string) string {
	t.Helper()
	var out, diag bytes.Buffer
	status, err := r.Run(t.Context(), script, nil, &out, &diag)
	if err != nil || status != 0 {
		t.Fatalf("%q: status %d, %v\n%s", script, status, err, &diag)
	}
	return out.String()
}

func mtree(t *testing.T, tr *image.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := image.NewContent(tr).WriteMtree(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestNothingDone(t *testing.T) {
	tr := tree(t)
	r := root(t, tr)
	before := mtree(t, tr)
	if got := do(t, r, "processes\ndiscard"); got != "1 1\n" {
		t.Errorf("processes: %q", got)
	}
	now, err := r.Read(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	n, err := chroot.Merge(tr, now, then)
	if err != nil || n != 0 {
		t.Errorf("%d changes, %v", n, err)
	}
	if after := mtree(t, tr); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestChanges(t *testing.T) {
	tr := tree(t)
	r := root(t, tr)
	do(t, r, `write /etc/motd hello
chown /etc/motd 5 60
write /etc/shadow changed
rm /usr
mkdir /opt
mkdir /opt/web
symlink web /opt/current
write /opt/web/a same
ln /opt/web/a /opt/web/b
chmod /tmp 0755
rm /bin/bash
mv /var/lib/db /var/lib/store`)
	now, err := r.Read(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	if _, err := chroot.Merge(tr, now, then); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]image.Entry{
		"etc/motd":      {Mode: 0o640, UID: 5, GID: 60, Size: 5},
		"etc/shadow":    {Mode: 0o640, GID: 42, Size: 7},
		"opt":           {Mode: fs.ModeDir | 0o750},
		"opt/current":   {Mode: fs.ModeSymlink | 0o777, Target: "web"},
		"opt/web/a":     {Mode: 0o640, Size: 4},
		"opt/web/b":     {Mode: 0o640, Size: 4, HardLink: "opt/web/a"},
		"tmp":           {Mode: fs.ModeDir | 0o755},
		"var/lib/store": {Mode: 0o600, UID: 999, GID: 999, Size: 2},
		"dev/console":   {Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Rdev: image.Device{Major: 5, Minor: 1}},
	} {
		e, err := tr.Stat(name)
		if err != nil {
			t.Error(err)
			continue
		}
		got := image.Entry{Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, Target: e.Target, HardLink: e.HardLink, Rdev: e.Rdev}
		if got.Mode != want.Mode || got.UID != want.UID || got.GID != want.GID || got.Size != want.Size || got.Target != want.Target || got.HardLink != want.HardLink || got.Rdev != want.Rdev {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
		if e.ModTime.After(then) {
			t.Errorf("%s has time %v", name, e.ModTime)
		}
	}
	for _, name := range []string{"usr", "usr/bin/su", "bin/bash", "var/lib/db"} {
		if _, err := tr.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err = r.Read(t.Context(), "opt/web"); err != nil || now.Len() != 3 {
		t.Errorf("opt/web: %v", err)
	} else {
		now.Close()
	}
	if _, err := r.Read(t.Context(), "nowhere"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("nowhere: %v", err)
	}
}

func TestPut(t *testing.T) {
	tr := tree(t)
	r := root(t, tr)
	more, err := image.NewTree(t.TempDir(), image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	// As a provisioner might lay a trap, a link out of the root.
	do(t, r, "symlink /../../../tmp /srv")
	for _, name := range []string{"tmp/script.sh", "srv/isc-chroot-escape"} {
		if err := more.Put(image.Entry{Name: name, Mode: 0o755, ModTime: then}, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Put(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat("/tmp/isc-chroot-escape"); !errors.Is(err, fs.ErrNotExist) {
		os.Remove("/tmp/isc-chroot-escape")
		t.Error("something was put outside of the root")
	}
	now, err := r.Read(t.Context(), "tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	for _, name := range []string{"script.sh", "isc-chroot-escape"} {
		if _, err := now.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if e, err := now.Stat("."); err != nil || e.Mode != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("/tmp is %v, %v", e, err)
	}
}

func TestStatus(t *testing.T) {
	r := root(t, tree(t))
	var out bytes.Buffer
	if status, err := r.Run(t.Context(), "cat\nexit 7", strings.NewReader("in"), &out, nil); status != 7 || err != nil || out.String() != "in" {
		t.Errorf("status %d, %v, output %q", status, err, &out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := r.Run(ctx, "sleep", nil, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that never ends: %v", err)
	}
}

func TestNoShell(t *testing.T) {
	tr, err := image.NewTree(t.TempDir(), image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	r := root(t, tr)
	var diag bytes.Buffer
	if status, _ := r.Run(t.Context(), "true", nil, nil, &diag); status != 125 || !strings.Contains(diag.String(), "no /bin/sh that runs here") {
		t.Errorf("status %d: %s", status, &diag)
	}
}
