//go:build linux

package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// TestRealDebian runs the scripts that take a real Debian root.
func TestRealDebian(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
	base, err := basetest.Debian(t.Context(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	scripts(t, "testdata/real/*.txtar", func(e *testscript.Env) error {
		e.Setenv("ISC_VAR_base", base)
		return nil
	})
}
