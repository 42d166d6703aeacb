package builder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	name := LockName(filepath.Join(dir, "web.isc.hcl"))
	if _, err := ReadLock(name); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "iscadm lock") {
		t.Errorf("missing: %v", err)
	}
	digest := "sha256:" + strings.Repeat("0a", 32)
	l := &Lock{Bases: map[string]Pin{
		"tar:b&c.tar":           {Digest: digest},
		"registry.example/base": {Digest: digest, Resolved: "registry.example/base@" + digest},
	}}
	for range 2 { // over nothing, and over itself
		if err := l.WriteFile(name); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/lock.json", string(data))
	got, err := ReadLock(name)
	if err != nil {
		t.Fatal(err)
	}
	if pin, err := got.Pin("registry.example/base"); err != nil || pin != l.Bases["registry.example/base"] {
		t.Errorf("pin: %+v, %v", pin, err)
	}
	if err := got.Check("tar:b&c.tar", digest); err != nil {
		t.Error(err)
	}
	var locked *LockError
	if err := got.Check("tar:other", digest); !errors.As(err, &locked) || err.Error() != `base "tar:other" is not in the lock file: iscadm lock adds it` {
		t.Errorf("not locked: %v", err)
	}
	if err := got.Check("tar:b&c.tar", "sha256:ff"); !errors.As(err, &locked) || !strings.Contains(err.Error(), "the lock file says "+digest) {
		t.Errorf("other digest: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("litter: %v, %v", entries, err)
	}

	if err := l.WriteFile(filepath.Join(dir, "no", "folder")); err == nil {
		t.Error("written into no folder")
	}
	if err := os.Mkdir(filepath.Join(dir, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteFile(filepath.Join(dir, "full")); err == nil {
		t.Error("written over a folder")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".lock-*")); err != nil || len(left) > 0 {
		t.Errorf("litter: %q, %v", left, err)
	}
}

func TestParseLockErrors(t *testing.T) {
	for data, want := range map[string]string{
		``:                            "EOF",
		`{"version": 2, "bases": {}}`: "version 2",
		`{"version": 1, "bases": {"x": {"digest": "sha256:00"}}}`: "64 hexadecimal digits",
		`{"version": 1, "bases": {}, "more": 1}`:                  "more",
		`{"version": 1, "bases": {}} {}`:                          "after the document",
		`{"version": 1, "version": 1}`:                            "twice",
	} {
		if _, err := ParseLock([]byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", data, err, want)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte(`{"version": 1, "bases": {"dir:x": {"digest": "sha256:` + strings.Repeat("0a", 32) + `", "resolved": "y"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock(data)
		if err != nil {
			return
		}
		first, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseLock(first)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := again.Marshal(); err != nil || string(second) != string(first) {
			t.Fatalf("%q is written again as %q, %v", first, second, err)
		}
	})
}
