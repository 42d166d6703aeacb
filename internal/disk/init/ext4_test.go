//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every size has another last group.
func TestRealFormat(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set")
	}
	for _, journal := range []bool{false, true} {
		for _, mib := range []int64{64, 65, 128, 129, 200, 2048, 4095, 20480} {
			t.Run(fmt.Sprintf("%d MiB, journal %v", mib, journal), func(t *testing.T) {
				f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := f.Truncate(mib << 20); err != nil {
					t.Fatal(err)
				}
				if err := format(f, mib<<20, [16]byte{1, 2, 3}, journal, top{100801, 65537, 0o1777}); err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command("e2fsck", "-fn", f.Name()).CombinedOutput(); err != nil {
					t.Errorf("e2fsck: %v\n%s", err, out)
				}
				out, err := exec.Command("debugfs", "-R", "stat /", f.Name()).Output()
				for _, want := range []string{"Mode: 01777", "User: 100801", "Group: 65537"} {
					if got := strings.Join(strings.Fields(string(out)), " "); !strings.Contains(got, want+" ") {
						t.Errorf("no %q in %s (%v)", want, got, err)
					}
				}
			})
		}
	}
}
