//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
				if err := format(f, mib<<20, [16]byte{1, 2, 3}, journal); err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command("e2fsck", "-fn", f.Name()).CombinedOutput(); err != nil {
					t.Errorf("e2fsck: %v\n%s", err, out)
				}
			})
		}
	}
}
