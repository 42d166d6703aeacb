package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRemoveOld removes what a pull left that nobody went on with, and nothing else.
func TestRemoveOld(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, at := range map[string]time.Time{"old": now.Add(-25 * time.Hour), "new": now.Add(-time.Hour)} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(name, "blobs"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeOld(dir, now.Add(-givenUp)); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "new" {
		t.Errorf("%v, %v", left, err)
	}
	if err := removeOld(filepath.Join(dir, "nothing"), now); err != nil {
		t.Error(err)
	}
}
