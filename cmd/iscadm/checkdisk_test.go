package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/goldenisc/packer-plugin-isc/internal/guesttest"
)

// TestDiskScripts runs the scripts about disks of machines.
func TestDiskScripts(t *testing.T) { scripts(t, "testdata/disk/*.txtar", diskRoot) }

// TestRealDiskScripts runs those in which QEMU's programs make disks.
func TestRealDiskScripts(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
	scripts(t, "testdata/diskreal/*.txtar", diskRoot)
	if os.Getenv("ISC_NIGHTLY") != "" { // not every machine has loop devices to give away
		scripts(t, "testdata/disknightly/*.txtar", diskRoot)
	}
}

// diskRoot puts a root into the folder of a script that disks can be made of.
func diskRoot(e *testscript.Env) error {
	root, err := guesttest.Tar("amd64")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.WorkDir, "root.tar"), root, 0o600)
}

// flipAt changes one bit of a file: flipat FILE OFFSET, which counts from the end if it is negative.
func flipAt(ts *testscript.TestScript, neg bool, args []string) {
	name, at := offset(ts, neg, "flipat", args)
	data, err := os.ReadFile(name)
	ts.Check(err)
	if at < 0 {
		at += int64(len(data))
	}
	data[at] ^= 1
	ts.Check(os.WriteFile(name, data, 0o600))
}

// cutOff takes bytes from the end of a file: cut FILE BYTES.
func cutOff(ts *testscript.TestScript, neg bool, args []string) {
	name, n := offset(ts, neg, "cut", args)
	st, err := os.Stat(name)
	ts.Check(err)
	ts.Check(os.Truncate(name, st.Size()-n))
}

func offset(ts *testscript.TestScript, neg bool, cmd string, args []string) (string, int64) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: %s file bytes", cmd)
	}
	n, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	return ts.MkAbs(args[0]), n
}
