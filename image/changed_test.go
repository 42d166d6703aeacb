package image_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A file that changes while it is read is noticed when it is closed, and by the archive that is made of
// it.
func TestChangedWhileRead(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	if err := os.WriteFile(name, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := image.ReadDir(t.Context(), dir, image.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f, err := tree.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // change times are as coarse as the kernel's tick
	if err := os.WriteFile(name, []byte("after!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("closed: %v", err)
	}
	if f, err := tree.Open("a"); err == nil {
		f.Close()
		t.Error("opened again")
	}
	tree.Freeze(time.Time{})
	if err := image.WriteTar(t.Context(), io.Discard, tree, image.Pax, nil); err == nil {
		t.Error("archived")
	}
}
