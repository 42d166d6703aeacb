package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestRealCosign lets cosign verify what the program signs, and the other way round.
func TestRealCosign(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
	if _, err := exec.LookPath("cosign"); err != nil {
		t.Fatal(err)
	}
	scripts(t, "testdata/cosign/*.txtar", nil)
}
