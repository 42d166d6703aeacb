package main

import (
	"context"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/goldenisc/packer-plugin-isc/internal/zfsfake"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"iscadm": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
			stop()
			os.Exit(status)
		},
		"sigstore-kms-test": plugin,

		"docker-credential-test": credentialHelper,
		"zfs":                    func() { os.Exit(zfsfake.Main("zfs", os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		"zpool":                  func() { os.Exit(zfsfake.Main("zpool", os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// scripts runs the scripts that match, each with an empty state folder and a registry of its own,
// whose address is $REGISTRY and whose folder is $REGISTRY_DIR.
func scripts(t *testing.T, pattern string, setup func(*testscript.Env) error) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts match %q: %v", pattern, err)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(e *testscript.Env) error {
			dir := filepath.Join(e.WorkDir, ".registry")
			h := registry.Handler(dir)
			s := httptest.NewServer(h)
			e.Defer(func() {
				s.Close()
				h.Close()
			})
			e.Setenv("REGISTRY", strings.TrimPrefix(s.URL, "http://"))
			e.Setenv("REGISTRY_DIR", dir)
			e.Setenv("ISCADM_STATE", filepath.Join(e.WorkDir, ".state"))
			pool := filepath.Join(e.WorkDir, ".pool") // of the fake zfs
			if err := os.Mkdir(pool, 0o700); err != nil {
				return err
			}
			if err := zfsfake.Create(pool, filepath.Join(e.WorkDir, "tank")); err != nil {
				return err
			}
			e.Setenv(zfsfake.Env, pool)
			if setup != nil {
				return setup(e)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status, "append": appendTo, "flip": flip, "mode": mode, "sleep": sleep, "envsubst": envsubst,
			"fileenv": fileenv, "names": names, "graft": graft, "attest": attest, "lies": lies, "flipat": flipAt, "cut": cutOff,
		},
	})
}

func TestScripts(t *testing.T) {
	scripts(t, "testdata/*.txtar", func(e *testscript.Env) error {
		if filepath.Base(e.WorkDir) != "script-keys" {
			return nil
		}
		return writeKeys(e.WorkDir)
	})
}
