package ovf

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Nothing waits for who would write to a named pipe.
func TestNamedPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(t.Context(), name); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("check: %v", err)
	}
	if _, err := OpenImage(t.Context(), name, ""); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("image: %v", err)
	}
}
