package main

import (
	"os"
	"testing"
)

// TestZFSScripts runs scripts with the fake zfs, which as root keeps owners, as the real one does.
func TestZFSScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make what others own, as an image of ours has it")
	}
	scripts(t, "testdata/zfs/*.txtar", nil)
}
