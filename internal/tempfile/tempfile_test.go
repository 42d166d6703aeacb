package tempfile

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestNew makes files beside what a killed process left: each can be used until it is closed,
// although the next one sweeps, and nothing but other people's files stands in the folder afterwards.
func TestNew(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{prefix + "1234567890", "somebody's"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var files []*File
	for range 2 {
		f, err := New(dir)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	for i, f := range files {
		text := string(rune('a' + i))
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, 10))
		if err != nil || string(got) != text {
			t.Errorf("read %q, %v, want %q", got, err, text)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].Name() != "somebody's" {
		t.Errorf("the folder holds %v", left)
	}
}

func TestNoFolder(t *testing.T) {
	if _, err := New(filepath.Join(t.TempDir(), "absent")); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}
